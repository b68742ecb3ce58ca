"""The version, where every room may read it and the build takes it from."""

__version__ = "0.1.0"
