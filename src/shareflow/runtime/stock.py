"""The material a server can use: what lies in its store, what the other server has too, what is ready in memory."""

from __future__ import annotations

import heapq
import logging
import threading
from collections import defaultdict, deque
from collections.abc import Iterable
from typing import NamedTuple

from shareflow.errors import RandomnessError, StoreError
from shareflow.runtime.store import Material, Store

_log = logging.getLogger(__name__)


class Use(NamedTuple):
    """What material is for: a graph, and the version of the state that it uses (0: none)."""

    graph: str
    version: int


class Stock:
    """Which indices can be used. Taking spends: what was taken and not used is lost, never given again.

    Records are taken ahead, several in one go, because making a spent index durable costs milliseconds.
    """

    def __init__(self, store: Store, ahead: int, ahead_bytes: int) -> None:
        self._store, self._ahead, self._ahead_bytes = store, ahead, ahead_bytes
        self._lock = threading.RLock()
        self._own: defaultdict[Use, set[int]] = defaultdict(set)
        self._peer: defaultdict[Use, set[int]] = defaultdict(set)
        self._ready: defaultdict[Use, deque[Material]] = defaultdict(deque)
        for graph, version in store.counts():
            self._own[Use(graph, version)] = set(store.available(graph, version))

    def uses(self) -> list[Use]:
        """For what there is material here, in the store."""
        with self._lock:
            return [use for use in dict.fromkeys((*self._own, *self._ready)) if self._own[use] or self._ready[use]]

    def indices(self, use: Use) -> list[int]:
        """What can still be used here, in order."""
        with self._lock:
            return sorted(self._own[use] | {material.index for material in self._ready[use]})

    def added(self, use: Use, indices: Iterable[int]) -> int:
        """New material is in the store; gives how much of it the other server has too."""
        new = set(indices)
        with self._lock:
            self._own[use] |= new
            return len(self._peer[use] & new)

    def peer_has(self, use: Use, indices: Iterable[int]) -> int:
        """The other server has this material; gives for how many executions more both have it now."""
        with self._lock:
            before = self.usable(use)
            self._peer[use].update(indices)
            return self.usable(use) - before

    def spent(self, indices: Iterable[int]) -> list[int]:
        """Which of these can no longer be used here, because they were."""
        with self._lock:
            ready = {material.index for materials in self._ready.values() for material in materials}
            return [index for index in indices if index not in ready and self._store.is_spent(index)]

    def peer_lost(self) -> None:
        """The other server is gone; when it is back it tells anew what it has."""
        with self._lock:
            self._peer.clear()

    def usable(self, use: Use) -> int:
        """For how many executions both servers have material."""
        with self._lock:
            return len(self._own[use] & self._peer[use]) + sum(m.index in self._peer[use] for m in self._ready[use])

    def count(self, use: Use) -> int:
        """For how many executions there is material here."""
        with self._lock:
            return len(self._own[use]) + len(self._ready[use])

    def next(self, use: Use, ahead: bool) -> Material | None:
        """Takes material that both servers have, the oldest first; None where there is none.

        With ``ahead`` more is taken in the same go, for the next executions. A record that is damaged is passed over.

        Raises:
            StoreError: nothing can be taken: the disk does not record what is spent.
        """
        with self._lock:
            ready = self._ready[use]
            for material in ready:
                if material.index in self._peer[use]:
                    ready.remove(material)
                    self._peer[use].discard(material.index)
                    return material
            while both := self._own[use] & self._peer[use]:
                taken = self._take(use, heapq.nsmallest(self._ahead if ahead else 1, both))
                if taken:
                    ready.extend(taken[1:])
                    self._peer[use].discard(taken[0].index)
                    return taken[0]
            return None

    def exactly(self, use: Use, index: int, ahead: bool) -> Material | None:
        """Takes the material of one index, as the other server chose it; None where it is not here, or damaged.

        Raises:
            StoreError: nothing can be taken: the disk does not record what is spent.
        """
        with self._lock:
            for material in self._ready[use]:
                if material.index == index:
                    self._ready[use].remove(material)
                    return material
            if index not in self._own[use]:
                return None
            more = self._ahead if ahead else 1
            later = heapq.nsmallest(more - 1, (i for i in self._own[use] if i > index)) if ahead else []
            taken = self._take(use, [index, *later])
            if not taken:
                return None
            self._ready[use].extend(taken[1:])
            return taken[0]

    def spend(self, indices: Iterable[int]) -> None:
        """These are spent at the other server: nothing here may use them."""
        gone = set(indices)
        with self._lock:
            for use in list(self._own):
                self._own[use] -= gone
                self._ready[use] = deque(m for m in self._ready[use] if m.index not in gone)
        self._store.spend(gone)

    def discard(self, version: int) -> None:
        """Spends all that belongs to a state version that is no longer used."""
        with self._lock:
            for use in [use for use in (*self._own, *self._ready) if use.version == version]:
                self._own.pop(use, None)
                self._ready.pop(use, None)
                self._peer.pop(use, None)
        self._store.discard(version)

    def _take(self, use: Use, indices: list[int]) -> list[Material]:
        """Takes the first of these, and more if it can; none where the first is damaged, which spends it."""
        try:
            # One record tells the size of all: a graph's material has one size.
            taken = self._store.take(use.graph, use.version, indices[:1])
        except (StoreError, RandomnessError) as error:
            # Where this fails too it is not the record's fault.
            self._store.spend(indices[:1])
            self._own[use].discard(indices[0])
            _log.error("material of execution %d is passed over: %s", indices[0], error)
            return []
        self._own[use].discard(indices[0])
        room = max(self._ahead_bytes // max(taken[0].nbytes, 1) - 1, 0)
        rest = indices[1:][:room]
        if rest:
            try:
                taken += self._store.take(use.graph, use.version, rest)
            except (StoreError, RandomnessError) as error:
                _log.warning("no material of %s is taken ahead: %s", use.graph, error)
            self._own[use] -= {material.index for material in taken}
        return taken
