"""What the C library does with memory that was freed."""

from __future__ import annotations

import sys

_TRIM, _MAP, _PAD = -1, -3, -2
"""`M_TRIM_THRESHOLD`, `M_MMAP_THRESHOLD` and `M_TOP_PAD` of glibc's malloc.h."""


def keep_freed_memory(most: int = 1 << 30) -> bool:
    """Have the C library keep up to `most` freed bytes for what this process asks for next, whether it was possible.

    A forward pass on a CPU allocates and frees the same few megabytes for each operation. By default glibc hands much
    of it back to the system and fetches it again page by page: 7 to 18 % of a probe's processor time at 60 M.
    The peak stays what it was. Elsewhere than on glibc nothing is done.
    """
    if not sys.platform.startswith("linux"):
        return False
    import ctypes

    try:
        set_option = ctypes.CDLL(None).mallopt
    except AttributeError:  # Another C library.
        return False
    largest_mapped_apart = 32 << 20  # glibc refuses more
    return all([set_option(_MAP, largest_mapped_apart), set_option(_TRIM, most), set_option(_PAD, 64 << 20)])
