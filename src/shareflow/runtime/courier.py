"""Answers on their way to one client: a client that does not read must not hold up those who compute."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

from shareflow.errors import ChannelError
from shareflow_client.wire import FrameKind

# Small answers go out at once while no more than this waits for the client.
_SMALL, _UNREAD = 1 << 16, 1 << 20


class _Answer(NamedTuple):
    number: int
    rows: int
    parts: Sequence[bytes]
    last: bytes | None


class Courier:
    """Sends answers over one link, in order: small ones at once, on a thread of its own what may have to wait."""

    def __init__(self, link: Any) -> None:
        self._link = link
        self._changed = threading.Condition()  # guards all below
        self._waiting: deque[_Answer] = deque()
        self._rows = 0
        self._stopped = False
        threading.Thread(target=self._run, name="shareflow courier", daemon=True).start()

    @property
    def unsent(self) -> int:
        """Answers that wait to be sent."""
        with self._changed:
            return len(self._waiting)

    @property
    def rows(self) -> int:
        """Rows whose results wait to be sent."""
        with self._changed:
            return self._rows

    def put(self, number: int, rows: int, parts: Sequence[bytes], last: bytes | None) -> None:
        """The result parts of a request of so many rows, and the message that ends it, of the server that says so."""
        with self._changed:
            if not self._waiting and sum(map(len, parts)) <= _SMALL and self._link.queued <= _UNREAD:
                if parts:
                    self._link.post(FrameKind.DATA, b"".join(parts), execution=number, round=1)
                if last is not None:
                    self._link.post(FrameKind.CONTROL, last)
                return
            self._waiting.append(_Answer(number, rows, parts, last))
            self._rows += rows
            self._changed.notify_all()

    def stop(self) -> None:
        """The link is closed: nothing more is sent."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._stopped)
                if self._stopped:
                    return
                answer = self._waiting[0]
            try:
                if answer.parts:
                    self._link.send(FrameKind.DATA, answer.parts, execution=answer.number, round=1)
                if answer.last is not None:
                    self._link.send(FrameKind.CONTROL, answer.last)
            except ChannelError:
                # The client is gone; its link's closing has told the server.
                return
            with self._changed:
                self._waiting.popleft()
                self._rows -= answer.rows
