"""Material on its way in: what the dealer announced, checked against the plan, is stored in groups and confirmed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from shareflow.errors import PeerError, ShareflowError
from shareflow.runtime.stock import Stock, Use
from shareflow.runtime.store import NewMaterial, Store

# Records that are stored in one transaction, at most.
_GROUP = 64


def deal_key_info(graph: str, version: int, index: int) -> bytes:
    """What the dealer and a server derive their key of one execution under."""
    return f"deal {graph} {version} {index}".encode()


class Intake:
    """Takes the dealer's messages at a server.

    Calls ``stored`` with indices that became durable, and how many of them both servers have now; ``refused`` with why
    one did not.
    """

    def __init__(
        self,
        store: Store,
        stock: Stock,
        sizes: dict[str, int],
        stored: Callable[[Any, Use, list[int], int], None],
        refused: Callable[[Any, Use, int, str], None],
    ) -> None:
        self._store, self._stock, self._sizes = store, stock, sizes
        self._stored, self._refused = stored, refused
        self._announced: dict[tuple[Any, int], Use] = {}
        self._waiting: SimpleQueue[tuple[Any, Use, NewMaterial] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="shareflow intake", daemon=True)
        self._thread.start()

    def announce(self, link: Any, use: Use, index: int, size: int) -> None:
        """The dealer says what it sends next.

        Raises:
            PeerError: the plan has no such graph, or another size; an index is announced twice.
        """
        expected = self._sizes.get(use.graph)
        if expected is None:
            raise PeerError(f"The plan has no graph {use.graph!r}, of which {link.peer} announces material.")
        if size != expected:
            raise PeerError(f"Material of {use.graph!r} has {expected} bytes here; {link.peer} announces {size}.")
        if (link, index) in self._announced:
            raise PeerError(f"{link.peer} announces index {index} twice.")
        if expected:
            self._announced[link, index] = use
        else:
            self._put(link, use, index, memoryview(b""))

    def size(self, link: Any, index: int) -> int | None:
        """Bytes of the message that was announced for an index."""
        use = self._announced.get((link, index))
        return None if use is None else self._sizes[use.graph]

    def message(self, link: Any, index: int, payload: memoryview) -> None:
        """What was announced is here."""
        self._put(link, self._announced.pop((link, index)), index, payload)

    def lost(self, link: Any) -> None:
        """The link is gone: what it announced will not come."""
        for key in [key for key in self._announced if key[0] is link]:
            del self._announced[key]

    def stop(self) -> None:
        """Stores what is waiting, then ends."""
        self._waiting.put(None)
        self._thread.join()

    def _put(self, link: Any, use: Use, index: int, payload: memoryview) -> None:
        key = link.key(deal_key_info(use.graph, use.version, index))
        self._waiting.put((link, use, NewMaterial(use.graph, use.version, index, key, [payload])))

    def _run(self) -> None:
        while True:
            group = [self._waiting.get()]
            while len(group) < _GROUP and group[-1] is not None and not self._waiting.empty():
                group.append(self._waiting.get())
            records = [item for item in group if item is not None]
            if records:
                self._keep(records)
            if len(records) < len(group):
                return

    def _keep(self, records: list[tuple[Any, Use, NewMaterial]]) -> None:
        try:
            self._store.put_material_many([record for _, _, record in records])
        except ShareflowError as error:
            if len(records) > 1:
                # One that cannot be kept must not take the others with it.
                for record in records:
                    self._keep([record])
                return
            link, use, material = records[0]
            self._refused(link, use, material.index, str(error))
            return
        groups: dict[tuple[Any, Use], list[int]] = {}
        for link, use, material in records:
            groups.setdefault((link, use), []).append(material.index)
        for (link, use), indices in groups.items():
            self._stored(link, use, indices, self._stock.added(use, indices))
