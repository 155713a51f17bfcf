"""How many places glibc keeps freed memory in: few, in a process whose threads come and go with large messages."""

from __future__ import annotations

import contextlib
import ctypes

# malloc.h; and how many. More save threads waiting for each other, but what one freed no other can use: a server
# of a large network then holds a third more.
_M_ARENA_MAX, _ARENAS = -8, 2


def keep_arenas_few() -> None:
    """For threads that begin from now on. Does nothing where the C library is another one."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS)
