"""One try of one request: what is to come from each server, and what has come."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from shareflow_client.errors import ShareflowError
from shareflow_client.link import Link


class Answer:
    """The answer to one submitted request. Complete with the data of all servers and the leader's ``done``.

    Its state is guarded by the lock of the session that made it; ``settled`` is set once, when it is complete or
    failed.

    Args:
        number: of the request.
        leader: the server that says when all is done.
        links: by server, those that the request went over.
        sizes: by server, the bytes that come from it; 0 for none.
    """

    def __init__(self, number: int, leader: str, links: Mapping[str, Link], sizes: Mapping[str, int]) -> None:
        self.number = number
        self.leader = leader
        self.links = links
        self.sizes = sizes
        self.begun: set[str] = set()
        self.data: dict[str, memoryview] = {}
        self.version: int | None = None
        self.error: ShareflowError | None = None
        self.settled = threading.Event()

    @property
    def missing(self) -> list[str]:
        """Servers from which something is still to come."""
        return [
            name
            for name, size in self.sizes.items()
            if (size and name not in self.data) or (name == self.leader and self.version is None)
        ]

    def settle_if_complete(self) -> None:
        """To be called after each arrival."""
        if not self.missing:
            self.settled.set()

    def fail(self, error: ShareflowError) -> None:
        """It will not be complete; the first reason counts."""
        if not self.settled.is_set():
            self.error = error
            self.settled.set()
