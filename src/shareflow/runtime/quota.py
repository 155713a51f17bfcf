"""How much a client may ask for: so many rows a minute, with a minute's worth at once at the most."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Quota:
    """A bucket that fills evenly and is full at the beginning."""

    def __init__(self, rows_per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._clock = float(rows_per_minute), clock
        self._left, self._since = self._most, clock()
        self._lock = threading.Lock()

    def take(self, rows: int) -> bool:
        """Takes so many rows if they are there."""
        with self._lock:
            now = self._clock()
            self._left = min(self._most, self._left + (now - self._since) * self._most / 60)
            self._since = now
            if rows > self._left:
                return False
            self._left -= rows
            return True
