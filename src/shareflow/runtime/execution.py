"""One execution at a server: the messages it waits for, and how its own travel over the link."""

from __future__ import annotations

import time
from queue import Empty, SimpleQueue
from typing import Any

from shareflow.errors import PeerError, TimeLimitError
from shareflow.runtime.cut import Message, Part
from shareflow.runtime.part import Exchange
from shareflow_client.wire import FrameKind


class Mailbox:
    """What the other server sends in one execution: rounds in order, each once, each of the plan's size.

    The link's thread puts, the execution's thread takes. After :meth:`end` what still arrives is let go of.
    """

    def __init__(self, part: Part) -> None:
        self._sizes = {m.round: m.nbytes for step in part.steps for m in step.receives}
        self._open = sorted(self._sizes, reverse=True)
        self._queue: SimpleQueue[Any] = SimpleQueue()
        self._ended = False
        self._failure: Exception | None = None

    def admit(self, round_: int) -> int | None:
        """The size of the message of a round if it is the next one expected, else None; it is then the one awaited."""
        if not self._open or self._open[-1] != round_:
            return None
        return self._sizes[self._open.pop()]

    def put(self, round_: int, payload: memoryview) -> None:
        """A message arrived."""
        if not self._ended:
            self._queue.put((round_, payload))

    def fail(self, error: Exception) -> None:
        """Nothing more will come: the execution ends with this error."""
        self._failure = error
        self._queue.put(error)

    def raise_failure(self) -> None:
        """Raises what :meth:`fail` was told, if it was."""
        if self._failure is not None:
            raise self._failure

    def end(self) -> None:
        """The execution is over here."""
        self._ended = True

    def take(self, round_: int, deadline: float, peer: str) -> memoryview:
        """Waits for the message of a round.

        Raises:
            TimeLimitError: it is not there at the deadline (of time.monotonic).
        """
        try:
            item = self._queue.get(timeout=max(deadline - time.monotonic(), 0.0))
        except Empty:
            raise TimeLimitError(
                f"{peer} did not send its message of round {round_} within the time limit of an execution. Look at "
                f"its log, or raise execution_limit."
            ) from None
        if isinstance(item, Exception):
            raise item
        came, payload = item
        if came != round_:
            raise PeerError(f"{peer} sent round {came} where round {round_} is next.")
        return payload


class LinkExchange(Exchange):
    """The messages of one execution over the link of the two servers."""

    def __init__(self, link: Any, index: int, mailbox: Mailbox, deadline: float) -> None:
        self._link, self._index, self._mailbox, self._deadline = link, index, mailbox, deadline
        self.sent = self.messages = 0

    def send(self, message: Message, payload: memoryview) -> None:
        self._link.send(FrameKind.DATA, [payload], execution=self._index, round=message.round)
        self.sent += message.nbytes
        self.messages += 1

    def receive(self, message: Message) -> memoryview:
        return self._mailbox.take(message.round, self._deadline, self._link.peer)
