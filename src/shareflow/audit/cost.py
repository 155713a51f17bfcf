"""Rounds and bytes of a graph, counted from what crosses in it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import tensorflow as tf

from shareflow.party.send import Kind, parse


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


def cost_of(graph: tf.Graph, results: Sequence[tf.Tensor | tf.Operation]) -> Cost:
    """Counts what a traced graph sends on the way to its results; what leads to none is never run."""
    depth: dict[str, int] = {}
    messages = []
    needed = _needed(results)
    for operation in graph.get_operations():
        if operation.name not in needed:
            continue
        before = (*(t.op for t in operation.inputs), *operation.control_inputs)
        level = max((depth.get(o.name, 0) for o in before), default=0)
        crossing = parse(operation.name)
        if crossing is not None:
            kind, source, to = crossing
            # What the dealer sends waits for nobody and is there before the first round.
            level += kind is not Kind.CORRECTION
            value = operation.outputs[0]
            size = math.prod(value.shape) * value.dtype.size
            scope = operation.name.rpartition("/")[0]
            messages.append(Message(kind, source, to, size, level, scope))
        depth[operation.name] = level
    return Cost(tuple(messages))


def _needed(results: Sequence[tf.Tensor | tf.Operation]) -> set[str]:
    """Names of the operations that the results depend on."""
    waiting = [result if isinstance(result, tf.Operation) else result.op for result in results]
    seen: set[str] = set()
    while waiting:
        operation = waiting.pop()
        if operation.name not in seen:
            seen.add(operation.name)
            waiting += [*(tensor.op for tensor in operation.inputs), *operation.control_inputs]
    return seen
