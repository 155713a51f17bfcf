"""Rounds and bytes of a graph, counted from what crosses in it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import tensorflow as tf

from shareflow.audit.circuit import Circuit, read
from shareflow.errors import PlanError
from shareflow.party.send import Kind


@dataclass(frozen=True)
class Message:
    """One value on one edge between two parties."""

    kind: Kind
    source: str
    to: str
    bytes: int
    round: int
    scope: str

    @property
    def offline(self) -> bool:
        """Whether the dealer can send it ahead: it depends on no input."""
        return self.kind is Kind.CORRECTION


@dataclass(frozen=True)
class Cost:
    """All messages of one run. Offline ones are the dealer's; rounds count the others."""

    messages: tuple[Message, ...]

    @property
    def rounds(self) -> int:
        """The longest chain of online messages of which each waits for the one before."""
        return max((m.round for m in self.messages if not m.offline), default=0)

    @property
    def online_bytes(self) -> int:
        """Bytes that depend on inputs, sent by all parties together."""
        return sum(m.bytes for m in self.messages if not m.offline)

    @property
    def offline_bytes(self) -> int:
        """The dealer's bytes, to both servers together."""
        return sum(m.bytes for m in self.messages if m.offline)

    def bytes_by_link(self, offline: bool | None = None) -> dict[tuple[str, str], int]:
        """Bytes from each party to each other; of one phase, or of both with None."""
        total: Counter[tuple[str, str]] = Counter()
        for m in self.messages:
            if offline is None or m.offline is offline:
                total[m.source, m.to] += m.bytes
        return dict(total)

    def bytes_by_kind(self) -> dict[Kind, int]:
        """Bytes of each kind of message."""
        total: Counter[Kind] = Counter()
        for m in self.messages:
            total[m.kind] += m.bytes
        return dict(total)

    def within(self, scope: str) -> Cost:
        """The messages sent in a name scope, such as a layer's. Their rounds are those of the whole graph."""
        return Cost(tuple(m for m in self.messages if m.scope == scope or m.scope.startswith(scope + "/")))

    def layers(self) -> tuple[Layer, ...]:
        """The messages by outermost name scope, in the order in which the last of each is sent."""
        found: dict[str, list[Message]] = {}
        for m in self.messages:
            found.setdefault(m.scope.partition("/")[0], []).append(m)
        costs = {name: Cost(tuple(messages)) for name, messages in found.items()}
        layers, before = [], 0
        for name, cost in sorted(costs.items(), key=lambda item: item[1].rounds):
            layers.append(Layer(name, max(cost.rounds - before, 0), cost))
            before = max(before, cost.rounds)
        return tuple(layers)

    def to_json(self) -> dict[str, object]:
        """Totals, then the same by link and by layer; docs/audit.md tells the fields."""
        online, offline = self.bytes_by_link(False), self.bytes_by_link(True)
        counts = Counter((m.source, m.to) for m in self.messages)
        return {
            "rounds": self.rounds,
            "messages": len(self.messages),
            "online_bytes": self.online_bytes,
            "offline_bytes": self.offline_bytes,
            "links": [
                {
                    "from": source,
                    "to": to,
                    "messages": counts[source, to],
                    "online_bytes": online.get((source, to), 0),
                    "offline_bytes": offline.get((source, to), 0),
                }
                for source, to in sorted(counts)
            ],
            "parties": [
                {
                    "party": party,
                    "sent_online_bytes": _sum(online, 0, party),
                    "sent_offline_bytes": _sum(offline, 0, party),
                    "received_online_bytes": _sum(online, 1, party),
                    "received_offline_bytes": _sum(offline, 1, party),
                }
                for party in sorted({party for link in counts for party in link})
            ],
            "layers": [
                {
                    "layer": layer.name,
                    "rounds": layer.rounds,
                    "messages": len(layer.cost.messages),
                    "online_bytes": layer.cost.online_bytes,
                    "offline_bytes": layer.cost.offline_bytes,
                }
                for layer in self.layers()
            ],
        }


@dataclass(frozen=True)
class Layer:
    """The messages of one outermost name scope, "" for those of none.

    ``rounds`` are those that it adds to the layers before it: over all layers they sum to the graph's.
    """

    name: str
    rounds: int
    cost: Cost


def cost_of(graph: tf.Graph, results: Sequence[tf.Tensor | tf.Operation]) -> Cost:
    """Counts what a graph traced here sends on the way to its results; what leads to none is never run.

    Raises:
        PlanError: the graph is no graph: it has a cycle.
    """
    circuit, findings = read(graph, trusted=True)
    if circuit is None:
        raise PlanError(f"A graph's costs are counted in the order of its nodes, and it has none: {findings[0].why}.")
    names = (result.name if isinstance(result, tf.Operation) else result.op.name for result in results)
    return cost_of_circuit(circuit, [circuit.number[name] for name in names])


def cost_of_circuit(circuit: Circuit, results: Iterable[int]) -> Cost:
    """The same of a circuit. A message of unknown size counts no bytes: the audit reports it."""
    depth = [0] * len(circuit)
    found = []
    needed = _needed(circuit, results)
    for node in range(len(circuit)):
        if node not in needed:
            continue
        level = max((depth[source] for source in _before(circuit, node)), default=0)
        crossing = circuit.messages.get(node)
        if crossing is not None:
            kind, source, to = crossing
            # What the dealer sends waits for nobody and is there before the first round.
            level += kind is not Kind.CORRECTION
            width = tf.dtypes.as_dtype(circuit.attributes[node]["T"].type).size or 0
            shape = circuit.shape(node)
            size = 0 if shape is None else math.prod(shape) * width
            found.append(Message(kind, source, to, size, level, circuit.names[node].rpartition("/")[0]))
        depth[node] = level
    return Cost(tuple(found))


def _before(circuit: Circuit, node: int) -> tuple[int, ...]:
    return (*(source for source, _ in circuit.inputs[node]), *circuit.controls[node])


def _needed(circuit: Circuit, results: Iterable[int]) -> set[int]:
    """The nodes that the results depend on."""
    waiting, seen = list(results), set[int]()
    while waiting:
        node = waiting.pop()
        if node not in seen:
            seen.add(node)
            waiting += _before(circuit, node)
    return seen


def _sum(links: dict[tuple[str, str], int], end: int, party: str) -> int:
    return sum(count for link, count in links.items() if link[end] == party)
