"""What a party process does with its links: a server serves, a dealer deals."""

from __future__ import annotations

import abc
from typing import Any

from shareflow_client.link import Callbacks


class Role(abc.ABC):
    """The work of one party. Its process brings the links, tells of its health, and stops it (party_process.py)."""

    @property
    @abc.abstractmethod
    def callbacks(self) -> Callbacks:
        """What links call, those that were accepted and those that were dialed alike."""

    def start(self) -> None:  # noqa: B027 - not every role has something to do
        """Called once, when its process listens and dials: what is done before it says that it is ready."""

    @abc.abstractmethod
    def status(self) -> dict[str, Any]:
        """How it is, for health checks; JSON values, nothing secret.

        ``ready``: bool; ``why``: text while it is not; ``state_version``: int, 0 for none; ``stock``: executions that
        there is material for, by graph; ``peers``: "connected" or "lost" by party; ``running`` and ``waiting``: counts.
        """

    @abc.abstractmethod
    def stop(self, grace: float) -> None:
        """Refuses new work, finishes within ``grace`` seconds what runs, then returns. May be called twice: a second
        call with less grace shortens the first. Links are closed by the process afterwards."""
