"""Memory for large messages: aligned for those who compute on it, and used again.

Memory that a process has not touched yet costs more than what is done with it: the kernel clears it page by page, and a
virtual machine may have to ask its host for it. A network's prediction moves hundreds of megabytes in pieces of some
megabytes. So the memory of a piece that nobody uses any more is kept, up to a limit, for the next ones.
"""

from __future__ import annotations

import weakref
from collections import deque

import numpy as np

ALIGNMENT = 64
"""What TensorFlow wants of memory that it computes on in place."""
# Less is allocated as ever. Sizes are rounded up to eighths of a power of two, so that pieces nearly alike share them.
_SMALL = 1 << 18
# Bytes that are kept, unused, for later.
_KEPT = 64 << 20


class Pool:
    """Aligned memory that comes back by itself when its last user lets go of it; safe from any thread.

    ``kept``: bytes that may lie unused.
    """

    def __init__(self, kept: int = _KEPT) -> None:
        self._kept = kept
        # A block may come back in the middle of any other code, also of this class: so no lock, and only calls that are
        # atomic.
        self._free: deque[np.ndarray] = deque()

    def memory(self, nbytes: int) -> memoryview:
        """So many bytes, not cleared: their user writes all of them before any is read."""
        if nbytes < _SMALL:
            return _aligned(nbytes).data
        size = _rounded(nbytes)
        block = self._found(size)
        if block is None:
            block = _aligned(size)
        given = block[:nbytes]
        # The view, and all that is made of it, hold this array; when they are gone it is. It is not given out itself:
        # NumPy's views of it would hold the block, not it.
        weakref.finalize(given, self._back, block).atexit = False
        return given.data

    @property
    def unused(self) -> int:
        """Bytes that lie here for later."""
        return sum(len(block) for block in list(self._free))

    def _found(self, size: int) -> np.ndarray | None:
        for _ in range(len(self._free)):
            try:
                block = self._free.pop()
            except IndexError:
                return None
            if len(block) == size:
                return block
            self._free.appendleft(block)
        return None

    def _back(self, block: np.ndarray) -> None:
        self._free.append(block)
        # What was not used for longest goes first.
        while self.unused > self._kept:
            try:
                self._free.popleft()
            except IndexError:
                return


def _rounded(nbytes: int) -> int:
    step = 1 << max((nbytes - 1).bit_length() - 3, 0)
    return -(-nbytes // step) * step


def _aligned(nbytes: int) -> np.ndarray:
    raw = np.empty(nbytes + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + nbytes]


POOL = Pool()
"""The memory of this process."""
