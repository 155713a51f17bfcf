"""Answers on their way to one client: a client that does not read must not hold up those who compute."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from queue import SimpleQueue
from typing import Any

from shareflow.errors import ChannelError
from shareflow_client.wire import FrameKind


class Courier:
    """Sends answers over one link, in order, on a thread of its own."""

    def __init__(self, link: Any) -> None:
        self._link = link
        self._waiting: SimpleQueue[tuple[int, Sequence[bytes], bytes | None] | None] = SimpleQueue()
        threading.Thread(target=self._run, name="shareflow courier", daemon=True).start()

    def put(self, number: int, parts: Sequence[bytes], done: bytes | None) -> None:
        """The result parts of a request, and the message that it is done, of the server that says so."""
        self._waiting.put((number, parts, done))

    def stop(self) -> None:
        """Ends after what it is sending."""
        self._waiting.put(None)

    def _run(self) -> None:
        while (item := self._waiting.get()) is not None:
            number, parts, done = item
            try:
                if parts:
                    self._link.send(FrameKind.DATA, parts, execution=number, round=1)
                if done is not None:
                    self._link.send(FrameKind.CONTROL, done)
            except ChannelError:
                # The client is gone; its link's closing has told the server.
                return
