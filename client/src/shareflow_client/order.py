"""Numbers of requests and rows: given out once, and used in the order in which they were given out.

A row's number chooses the masks of the row, so it is never used again, not even on another link. Servers take requests
in the order of their numbers; what is computed for a request in between may take any time and run side by side.
"""

from __future__ import annotations

import threading
from types import TracebackType


class Turn:
    """A request's place in the order: its number, and the number of its first row. A context manager.

    Within it, :meth:`wait` returns when all requests before have been announced or given up; leaving it lets the next
    one go.
    """

    def __init__(self, number: int, first_row: int, before: threading.Event) -> None:
        self.number = number
        self.first_row = first_row
        self.over = threading.Event()
        self._before = before

    def wait(self) -> None:
        """Wait for the requests before this one."""
        self._before.wait()

    def __enter__(self) -> Turn:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._before.wait()
        finally:
            self.over.set()


class Order:
    """Gives out turns. Requests are numbered from 1, rows from 0."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._number = 0
        self._row = 0
        self._last = threading.Event()
        self._last.set()

    def turn(self, rows: int) -> Turn:
        """The next turn, for a request of so many rows."""
        with self._lock:
            self._number += 1
            turn = Turn(self._number, self._row, self._last)
            self._row += rows
            self._last = turn.over
            return turn
