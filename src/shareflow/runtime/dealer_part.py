"""What the dealer computes: its part of a graph, which has no incoming edge, and the states that stay with it.

A state's components at the dealer (the masks of weights) are made in the execution that keeps the state: dealing index
i of such an entry makes state version i. A version holds all states; those not kept anew come from the one it used.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf

from shareflow.errors import PlanError, RequestError
from shareflow.runtime.cut import Message, Part, Value, cut
from shareflow.runtime.part import Exchange, PartProgram
from shareflow.runtime.plan import Plan
from shareflow.runtime.store import Store

# The version in use, and one that is dealt ahead: reading masks from the disk takes longer than dealing.
_VERSIONS_IN_MEMORY = 2
_ACKNOWLEDGED = "state versions that both servers have material for"


class DealerPart:
    """The dealer's parts of all graphs, ready to run for any execution; safe to use from several threads."""

    def __init__(self, plan: Plan, party: str, store: Store) -> None:
        self._plan, self._party, self._store = plan, party, store
        self._programs: dict[str, PartProgram] = {}
        self._lock = threading.RLock()
        self._states: OrderedDict[int, dict[str, tf.Tensor]] = OrderedDict()
        self.in_use = 0  # as the servers last told

    def sizes(self, graph: str) -> dict[str, int]:
        """Bytes of corrections to each server, by party; the graph is prepared at its first use."""
        part = self._program(graph).part
        sizes = dict.fromkeys(self._plan.manifest.protocol.servers, 0)
        for message in part.deals:
            sizes[message.peer] += message.nbytes
        return sizes

    def make(
        self, graph: str, version: int, index: int, keys: Mapping[str, bytes], give: Callable[[str, memoryview], None]
    ) -> None:
        """Runs the dealer's part for execution ``index``; a state that it keeps is durable when this returns.

        Args:
            graph: of the plan, such as "predict@8".
            version: the state version that the execution uses, 0 for none.
            index: the execution's, never used before.
            keys: 16 bytes by server, agreed for this execution alone.
            give: called with a server and the next bytes of its message, in the plan's order, while the rest is not
                made yet. What it raises ends the run.

        Raises:
            RequestError: there is no such state version here.
            StoreError: the state cannot be kept.
        """
        program = self._program(graph)
        part, state = program.part, self._state(version) if version else {}
        self._check(graph, version, part, state)
        values = {value.tensor: _key(keys[peer]) for value, peer in part.keys}
        if part.index is not None:
            values[part.index.tensor] = tf.constant(np.uint64(index).astype(np.int64))
        for tensor, (name, component, _) in part.state_in.items():
            values[tensor] = state[_name(name, component)]
        kept = program.run(values, _Given(give))
        if self._keeps(graph):
            new = {_name(n, component): kept[tensor] for tensor, (n, component, _) in part.state_out.items()}
            self._keep(index, version, {**state, **new})

    def warm_up(self, graph: str) -> None:
        """Runs the part of a graph once, for nobody: the next time is faster."""
        self._program(graph).warm_up()

    def versions(self) -> list[int]:
        """State versions that are here, in order."""
        return self._store.versions()

    def states(self, version: int) -> set[str]:
        """Names of the states that a version has."""
        return {name.rpartition("/")[0] for name in self._state(version)}

    def based_on(self, version: int) -> int:
        """The version that a version was computed from, 0 for none."""
        return self._store.based_on(version) or 0

    def acknowledge(self, version: int) -> None:
        """Both servers have stored the material of the execution that makes this version; durable on return."""
        with self._lock:
            known = set(self._store.recall(_ACKNOWLEDGED, [])) & set(self._store.versions())
            self._store.remember(_ACKNOWLEDGED, sorted(known | {version}))

    def acknowledged(self) -> list[int]:
        """State versions for which both servers have stored the material, in order."""
        return sorted(set(self._store.recall(_ACKNOWLEDGED, [])) & set(self._store.versions()))

    def use(self, version: int) -> None:
        """The servers use this version from now on: older ones are deleted. Nothing happens where it is not here."""
        self.in_use = version
        there = self._store.versions()
        if version in there:
            self._store.set_current(version)
            for old in [v for v in there if v < version]:
                self.discard(old)

    def discard(self, version: int) -> None:
        """Deletes a version that is not in use."""
        with self._lock:
            self._states.pop(version, None)
            self._store.drop_state(version)

    def _keeps(self, graph: str) -> bool:
        return bool(self._plan.manifest.entries[self._plan.manifest.graphs[graph].entry].keeps)

    def _check(self, graph: str, version: int, part: Part, state: Mapping[str, tf.Tensor]) -> None:
        entry = self._plan.manifest.entries[self._plan.manifest.graphs[graph].entry]
        if bool(version) != bool(entry.uses) and not (entry.keeps and version):
            uses = f"uses {', '.join(entry.uses[:3])}, so a state version is named" if entry.uses else "uses no state"
            raise RequestError(f"entry {entry.name!r} {uses}; it was to be dealt for state version {version}.")
        for name, component, value in part.state_in.values():
            found = state.get(_name(name, component))
            if found is None or not _fits(found, value):
                raise RequestError(
                    f"state version {version} at {self._party} has no state {name!r} in the plan's form. Run the entry "
                    "that keeps it first."
                )

    def _state(self, version: int) -> dict[str, tf.Tensor]:
        with self._lock:
            if version not in self._states:
                if version not in self._store.versions():
                    raise RequestError(
                        f"{self._party} has no state version {version}: it was replaced, or is of another store. "
                        "Deal and run the entry that keeps the state anew."
                    )
                self._remember(version, {n: tf.constant(a) for n, a in self._store.state(version).items()})
            self._states.move_to_end(version)
            return self._states[version]

    def _keep(self, version: int, base: int, state: dict[str, tf.Tensor]) -> None:
        arrays = {name: tensor.numpy() for name, tensor in state.items()}
        self._store.put_state(version, arrays, based_on=base or None)
        with self._lock:
            self._remember(version, state)

    def _remember(self, version: int, state: dict[str, tf.Tensor]) -> None:
        self._states[version] = state
        while len(self._states) > _VERSIONS_IN_MEMORY:
            self._states.popitem(last=False)

    def _program(self, graph: str) -> PartProgram:
        with self._lock:
            if graph not in self._programs:
                self._programs[graph] = PartProgram(cut(self._plan, graph, self._party)).prepare()
            return self._programs[graph]


class _Given(Exchange):
    """Hands on what the dealer sends, by server."""

    def __init__(self, give: Callable[[str, memoryview], None]) -> None:
        self._give = give

    def send(self, message: Message, payload: memoryview) -> None:
        self._give(message.peer, payload)

    def receive(self, message: Message) -> memoryview:
        raise PlanError(f"A dealer waits for nobody; in this plan it waits for {message.peer}. Compile it anew.")


def _key(key: bytes) -> tf.Tensor:
    return tf.constant(np.frombuffer(key, "<i8").astype(np.int64))


def _name(state: str, component: int) -> str:
    return f"{state}/{component}"


def _fits(tensor: tf.Tensor, value: Value) -> bool:
    return tuple(tensor.shape) == value.shape and tensor.dtype == value.dtype
