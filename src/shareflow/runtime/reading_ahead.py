"""Material that is read while an execution uses it: the next pieces are decrypted while one is computed on."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence

from shareflow.errors import StoreError
from shareflow.runtime.store import Material

# Bytes that are read and not taken yet, beside one piece.
_AHEAD = 32 << 20


class ReadingAhead:
    """Reads an execution's material, on a thread of its own where it is large. A context manager.

    Args:
        material: taken from the store.
        pieces: (first byte, bytes), in the order in which :meth:`read` is asked for them.
    """

    def __init__(self, material: Material, pieces: Sequence[tuple[int, int]]) -> None:
        self._material, self._pieces = material, pieces
        self._changed = threading.Condition()  # guards all below
        self._read: deque[memoryview] = deque()
        self._taken = 0
        self._failure: Exception | None = None
        self._ended = False
        self._thread: threading.Thread | None = None

    def __enter__(self) -> ReadingAhead:
        if not self._material.in_memory:
            self._thread = threading.Thread(target=self._run, name="shareflow reading ahead", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        with self._changed:
            self._ended = True
            self._read.clear()
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
        self._material.close()

    def read(self, begin: int, size: int) -> memoryview:
        """The next piece. StoreError where it was changed on the disk."""
        if self._thread is None:
            return self._material.read(begin, size)
        with self._changed:
            if self._pieces[self._taken] != (begin, size):
                raise StoreError("Material is read in the order in which its pieces were announced.")
            self._changed.wait_for(lambda: self._read or self._failure is not None)
            if not self._read and self._failure is not None:
                raise self._failure
            self._taken += 1
            self._changed.notify_all()
            return self._read.popleft()

    def _run(self) -> None:
        try:
            for begin, size in self._pieces:
                with self._changed:
                    self._changed.wait_for(self._has_room)
                    if self._ended:
                        return
                piece = self._material.read(begin, size)
                with self._changed:
                    self._read.append(piece)
                    self._changed.notify_all()
                del piece
        except StoreError as error:
            self._fail(error)
        except Exception as error:
            self._fail(StoreError(f"material could not be read: {type(error).__name__}. Take another."))

    def _has_room(self) -> bool:
        return self._ended or sum(map(len, self._read)) <= _AHEAD

    def _fail(self, error: Exception) -> None:
        with self._changed:
            self._failure = error
            self._changed.notify_all()
