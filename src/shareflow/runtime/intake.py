"""Material on its way in: what the dealer announced, checked against the plan, is stored in groups and confirmed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from shareflow.errors import PeerError, ShareflowError
from shareflow.runtime.stock import Stock, Use
from shareflow.runtime.store import ArrivingMaterial, NewMaterial, Store

# Records that are stored in one transaction, at most.
_GROUP = 64


def deal_key_info(graph: str, version: int, index: int) -> bytes:
    """What the dealer and a server derive their key of one execution under."""
    return f"deal {graph} {version} {index}".encode()


_Item = tuple[Any, Use, NewMaterial | ArrivingMaterial]


class _Arriving:
    """The sink of one execution's material: written to the disk piece by piece; let go of after a failure."""

    def __init__(self, store: Store, use: Use, index: int, key: bytes, size: int) -> None:
        self._store, self._size = store, size
        self.material: ArrivingMaterial | None = None
        self.failure = ""
        try:
            self.material = store.begin_material(use.graph, use.version, index, key, size)
        except ShareflowError as error:
            self.failure = str(error)

    def __len__(self) -> int:
        return self._size

    def write(self, data: memoryview) -> None:
        if self.material is None:
            return
        try:
            self.material.write(data)
        except ShareflowError as error:
            self.abandon()
            self.failure = str(error)

    def abandon(self) -> None:
        """Nothing of it is kept."""
        if self.material is not None:
            self._store.abandon_material(self.material)
        self.material = None


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
        self._arriving: dict[tuple[Any, int], _Arriving] = {}
        self._waiting: SimpleQueue[_Item | None] = SimpleQueue()
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

    def begin(self, link: Any, index: int) -> _Arriving:
        """What was announced for an index begins to come, in several pieces: it is written to the disk as it comes."""
        use = self._announced[link, index]
        key = link.key(deal_key_info(use.graph, use.version, index))
        arriving = self._arriving[link, index] = _Arriving(self._store, use, index, key, self._sizes[use.graph])
        return arriving

    def message(self, link: Any, index: int, payload: memoryview | _Arriving) -> None:
        """What was announced is here: its bytes, or what :meth:`begin` gave for them."""
        use = self._announced.pop((link, index))
        if not isinstance(payload, _Arriving):
            self._put(link, use, index, payload)
            return
        del self._arriving[link, index]
        if payload.material is None:
            self._refused(link, use, index, payload.failure)
        else:
            self._waiting.put((link, use, payload.material))

    def lost(self, link: Any) -> None:
        """The link is gone: what it announced will not come."""
        for key in [key for key in self._announced if key[0] is link]:
            del self._announced[key]
        for key in [key for key in self._arriving if key[0] is link]:
            self._arriving.pop(key).abandon()

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
            # What is written already cannot be written a second time, should others of its transaction fail.
            together = [item for item in records if not isinstance(item[2], ArrivingMaterial)]
            for some in (together, *([item] for item in records if isinstance(item[2], ArrivingMaterial))):
                if some:
                    self._keep(some)
            if len(records) < len(group):
                return

    def _keep(self, records: list[_Item]) -> None:
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
