"""Experiments with committed results. They use only the public face of Instil."""
