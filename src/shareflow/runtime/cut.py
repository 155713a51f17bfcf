"""One party's part of a graph: cut where messages cross, into steps that are each computed in one go.

A step waits for the messages of one round, computes what the next round's messages need, and sends those. What later
steps need and no awaited message changes is computed after sending, while the messages travel (the *overlap*).

The dealer's part receives nothing, and can run ahead. Where it makes much, it is several steps, each of which makes
some megabytes of its messages in the graph's order: what is sent need not be held. Its messages are there before the
servers' first step; so are the inputs of parties outside the computation, which bring them with their request.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf

from shareflow.errors import PlanError
from shareflow.party.send import Kind, parse
from shareflow.runtime.definition import node_name
from shareflow.runtime.plan import Plan
from shareflow_client.manifest import GraphInfo, Manifest

# Operations worth computing while a message travels, besides those on large tensors.
_EXPENSIVE = frozenset({"ShareflowMatmul", "ShareflowConv2d", "ShareflowDepthwiseConv2d"})
_LARGE = 1 << 14
_STREAM = "ShareflowUniform"
# Bytes of its messages that a dealer makes in one step, before the value that exceeds them.
_DEALT_AT_ONCE = 8 << 20


@dataclass(frozen=True)
class Value:
    """A tensor of the graph, whose form the plan fixes."""

    tensor: str
    shape: tuple[int, ...]
    dtype: tf.DType

    @property
    def nbytes(self) -> int:
        """Its size in a message: whole words of 8 bytes."""
        return -(-math.prod(self.shape) * self.dtype.size // 8) * 8


@dataclass(frozen=True)
class Message:
    """All that one party sends another in one round, in the graph's order."""

    peer: str
    round: int
    values: tuple[Value, ...]

    @property
    def nbytes(self) -> int:
        """The size of the whole message, the only one that is accepted."""
        return sum(value.nbytes for value in self.values)


@dataclass(frozen=True)
class Pad:
    """A stream that a server shares with a party outside: made row by row, as each row has a key of its own."""

    value: Value
    peer: str
    stream: int


@dataclass(frozen=True)
class Call:
    """Operations computed in one go: it takes and gives tensors by name."""

    nodes: tuple[str, ...]
    takes: tuple[str, ...]
    gives: tuple[str, ...]


@dataclass(frozen=True)
class Step:
    """One round of a party: wait for ``receives``, compute ``urgent``, send ``sends``, compute ``overlap``.

    Of a dealer: the next values of its messages, in order; ``sends`` are these parts of them.
    """

    receives: tuple[Message, ...]
    urgent: Call | None
    sends: tuple[Message, ...]
    overlap: Call | None


@dataclass(frozen=True)
class Part:
    """What one computing party does in one execution of a graph.

    ``corrections`` come from the dealer, ``inputs`` and ``pads`` belong to parties outside, ``results`` go to them
    (with ``round`` 0, by peer), ``keys`` are (placeholder, peer) and ``index`` the execution's placeholder.
    ``forms`` and ``dtypes`` are of tensors that come from outside of a call.
    """

    graph: str
    party: str
    definition: Any = field(repr=False)
    keys: tuple[tuple[Value, str], ...]
    index: Value | None
    state_in: dict[str, tuple[str, int, Value]]
    state_out: dict[str, tuple[str, int, Value]]
    corrections: Message | None
    inputs: tuple[Message, ...]
    pads: tuple[Pad, ...]
    steps: tuple[Step, ...]
    results: tuple[Message, ...]
    forms: dict[str, Value] = field(repr=False)
    dtypes: dict[str, tf.DType] = field(repr=False)

    @property
    def deals(self) -> tuple[Message, ...]:
        """What a dealer sends: one message a server."""
        values: dict[str, tuple[Value, ...]] = {}
        for message in (message for step in self.steps for message in step.sends if message.round == 0):
            values[message.peer] = (*values.get(message.peer, ()), *message.values)
        return tuple(Message(peer, 0, found) for peer, found in sorted(values.items()))


def cut(plan: Plan, graph: str, party: str) -> Part:
    """The part of a computing party.

    Raises:
        PlanError: the graph cannot be cut for it: a message without a known shape, a party that waits for itself.
    """
    return _Cut(plan, graph, party).part()


class _Cut:
    def __init__(self, plan: Plan, name: str, party: str) -> None:
        self.name, self.party = name, party
        self.manifest: Manifest = plan.manifest
        self.info: GraphInfo = plan.manifest.graphs[name]
        self.definition = plan.definition(name)
        self.graph = plan.graph(name)
        self.nodes = {node.name: node for node in self.definition.node}
        self.job = {n: node.device.removeprefix("/job:").partition("/")[0] for n, node in self.nodes.items()}
        self.crossing = {n: found for n in self.nodes if (found := parse(n))}
        self.level = self._levels()
        self.forms: dict[str, Value] = {}
        self.dtypes: dict[str, tf.DType] = {}

    # --- what crosses

    def _levels(self) -> dict[str, int]:
        """For each node the round after which it can be computed. Nodes may stand in any order in a definition."""
        level: dict[str, int] = {}
        for name in _sorted(self.nodes):
            before = max((level[node_name(i)] for i in self.nodes[name].input), default=0)
            kind = self.crossing[name][0] if name in self.crossing else None
            if kind in (Kind.INPUT, Kind.CORRECTION):
                before = 0
            elif kind is Kind.OPENING:
                before += 1
            level[name] = before
        return level

    def _value(self, tensor: str) -> Value:
        if tensor not in self.forms:
            found = self.graph.get_tensor_by_name(tensor)
            if not found.shape.is_fully_defined():
                raise PlanError(f"A message has a shape that all know; {tensor} of {self.name!r} has {found.shape}.")
            if node_name(tensor) in self.crossing and found.dtype != tf.int64:
                raise PlanError(f"A message is of 64-bit words; {tensor} of {self.name!r} is {found.dtype.name}.")
            self.forms[tensor] = Value(tensor, tuple(found.shape), found.dtype)
        return self.forms[tensor]

    def _messages(self, kind: Kind, *, sent: bool) -> list[Message]:
        """Messages of a kind that this party sends, or receives; one for each peer and round."""
        found: dict[tuple[int, str], list[Value]] = defaultdict(list)
        for name, (its_kind, source, to) in self.crossing.items():
            peer, own = (to, source) if sent else (source, to)
            if its_kind is kind and own == self.party:
                # Only openings have rounds; all others go together, in the order in which the manifest lists them.
                round_ = self.level[name] if kind is Kind.OPENING else 0
                found[round_, peer].append(self._value(f"{name}:0"))
        return [Message(peer, round_, tuple(found[round_, peer])) for round_, peer in sorted(found)]

    # --- the parts of a step

    def part(self) -> Part:
        received, sent = self._messages(Kind.OPENING, sent=False), self._messages(Kind.OPENING, sent=True)
        deals = self._messages(Kind.CORRECTION, sent=True)
        corrections = self._messages(Kind.CORRECTION, sent=False)
        inputs, results = self._messages(Kind.INPUT, sent=False), self._messages(Kind.RESULT, sent=True)
        states_in = {s.tensor: (s.state, s.component, self._value(s.tensor)) for s in self._own(self.info.state_in)}
        states_out = {s.tensor: (s.state, s.component, self._value(s.tensor)) for s in self._own(self.info.state_out)}
        pads = tuple(self._pads())
        keys, index = self._keys()
        given = {
            *states_in,
            *(v.tensor for m in (*received, *corrections, *inputs) for v in m.values),
            *(p.value.tensor for p in pads),
            *(v.tensor for v, _ in keys),
            *([index.tensor] if index else []),
        }
        last = max((m.round for m in received), default=0)
        ends = [*(v.tensor for m in results for v in m.values), *states_out]
        steps = []
        if deals:
            if sent or received or inputs:
                raise PlanError(f"A dealer sends before all others; in {self.name!r} {self.party} does more than that.")
            groups = self._groups()
            wanted = [[value.tensor for message in group for value in message.values] for group in groups]
            wanted[-1] += ends
            calls = self._calls(wanted, given, overlaps=False)
            steps = [Step((), urgent, group, None) for group, (urgent, _) in zip(groups, calls, strict=True)]
        else:
            calls = self._calls(self._goals(sent, ends, last), given, overlaps=True)
            for round_ in range(last + 1):
                urgent, overlap = calls[round_]
                out = tuple(m for m in sent if m.round == round_ + 1)
                steps.append(Step(tuple(m for m in received if m.round == round_), urgent, out, overlap))
        return Part(
            graph=self.name,
            party=self.party,
            definition=self.definition,
            keys=keys,
            index=index,
            state_in=states_in,
            state_out=states_out,
            corrections=corrections[0] if corrections else None,
            inputs=tuple(inputs),
            pads=pads,
            steps=tuple(steps),
            results=tuple(results),
            forms=self.forms,
            dtypes=self.dtypes,
        )

    def _own(self, tensors: Iterable[Any]) -> list[Any]:
        return [tensor for tensor in tensors if tensor.party == self.party]

    def _pads(self) -> Iterable[Pad]:
        for name, node in self.nodes.items():
            if node.op == _STREAM and self.job[name] == self.party:
                peer = _key_peer(node_name(node.input[0]))
                if peer in self.manifest.external:
                    number = int(tf.get_static_value(self.graph.get_tensor_by_name(_tensor(node.input[2]))))
                    yield Pad(self._value(f"{name}:0"), peer, number)

    def _keys(self) -> tuple[tuple[tuple[Value, str], ...], Value | None]:
        keys, index = [], None
        for name, node in self.nodes.items():
            if node.op == "Placeholder" and self.job[name] == self.party:
                if name.startswith("key."):
                    peer = _key_peer(name)
                    if peer in self.manifest.computing:
                        keys.append((self._value(f"{name}:0"), peer))
                elif name.startswith("execution."):
                    index = self._value(f"{name}:0")
        return tuple(keys), index

    def _goals(self, sent: Sequence[Message], ends: Sequence[str], last: int) -> list[list[str]]:
        """For each round what is computed in it: what the next one's messages need, and the ends in the last."""
        goals: list[list[str]] = [[] for _ in range(last + 1)]
        for message in sent:
            goals[message.round - 1] += [value.tensor for value in message.values]
        goals[last] += ends
        return goals

    def _groups(self) -> list[tuple[Message, ...]]:
        """The dealer's messages in parts of some megabytes, each of values that the graph makes one after the other."""
        groups: list[dict[str, list[Value]]] = []
        size = _DEALT_AT_ONCE
        for name, (kind, source, to) in self.crossing.items():
            if kind is Kind.CORRECTION and source == self.party:
                value = self._value(f"{name}:0")
                if size >= _DEALT_AT_ONCE:
                    groups.append({})
                    size = 0
                groups[-1].setdefault(to, []).append(value)
                size += value.nbytes
        return [tuple(Message(to, 0, tuple(group[to])) for to in sorted(group)) for group in groups]

    def _calls(
        self, goals: Sequence[Sequence[str]], given: set[str], *, overlaps: bool
    ) -> list[tuple[Call | None, Call | None]]:
        """For each goal the nodes to compute before it is sent; what can be computed after sending, where it may be."""
        fixed = {node_name(tensor) for tensor in given}
        urgent: list[list[str]] = []
        assigned: set[str] = set(fixed)
        for wanted in goals:
            new = self._closure(wanted, assigned)
            assigned |= set(new)
            urgent.append(new)
        overlap: list[list[str]] = [[] for _ in urgent]
        for round_ in range(len(goals) - 1 if overlaps else 0):
            early = [name for name in urgent[round_ + 1] if self.level[name] <= round_]
            if any(self._expensive(name) for name in early):
                overlap[round_] = early
                moved = set(early)
                urgent[round_ + 1] = [name for name in urgent[round_ + 1] if name not in moved]
        order = [nodes for pair in zip(urgent, overlap, strict=True) for nodes in pair]
        made = self._as_calls(order, {tensor for wanted in goals for tensor in wanted}, given)
        return list(zip(made[::2], made[1::2], strict=True))

    def _closure(self, wanted: Iterable[str], assigned: set[str]) -> list[str]:
        """This party's nodes that the tensors need and that are not assigned yet, in the graph's order."""
        waiting, seen = [node_name(tensor) for tensor in wanted], set()
        while waiting:
            name = waiting.pop()
            if name in seen or name in assigned:
                continue
            if self.job[name] not in ("", self.party):
                raise PlanError(f"{self.party} needs {name} of {self.job[name]} in {self.name!r}, which was not sent.")
            seen.add(name)
            waiting += [node_name(reference) for reference in self.nodes[name].input]
        return [name for name in _sorted(self.nodes, seen) if not self._constant(name)]

    def _constant(self, name: str) -> bool:
        # Constants are copied to every call that uses them.
        return self.nodes[name].op == "Const"

    def _expensive(self, name: str) -> bool:
        if self.nodes[name].op in _EXPENSIVE:
            return True
        shapes = [output.shape for output in self.graph.get_operation_by_name(name).outputs]
        return any(math.prod(shape) >= _LARGE for shape in shapes if shape.is_fully_defined())

    def _as_calls(self, order: Sequence[Sequence[str]], wanted: set[str], given: set[str]) -> list[Call | None]:
        takes: list[list[str]] = []
        for nodes in order:
            inside = set(nodes)
            outside: dict[str, None] = {}
            for name in nodes:
                for reference in self.nodes[name].input:
                    source = node_name(reference)
                    if reference.startswith("^"):
                        continue
                    if (source not in inside and not self._constant(source)) or _tensor(reference) in given:
                        outside[_tensor(reference)] = None
            takes.append(list(outside))
            self.dtypes.update((tensor, self.graph.get_tensor_by_name(tensor).dtype) for tensor in outside)
        calls: list[Call | None] = []
        for position, nodes in enumerate(order):
            inside = set(nodes)
            gives = [
                tensor
                for tensor in dict.fromkeys([*(t for later in takes[position + 1 :] for t in later), *sorted(wanted)])
                if node_name(tensor) in inside
            ]
            calls.append(Call(tuple(nodes), tuple(takes[position]), tuple(gives)) if nodes else None)
        return calls


def _tensor(reference: str) -> str:
    return reference if ":" in reference else f"{reference}:0"


def _key_peer(placeholder: str) -> str:
    """The peer in the name ``key.<holder>.<peer>.`` of a placeholder."""
    return placeholder.split(".")[2]


def _sorted(nodes: dict[str, Any], among: set[str] | None = None) -> list[str]:
    """Names in an order in which inputs come first.

    Raises:
        PlanError: the graph has a cycle.
    """
    order: list[str] = []
    done: set[str] = set()
    for start in nodes:
        if (among is not None and start not in among) or start in done:
            continue
        stack = [(start, iter(nodes[start].input))]
        entered = {start}
        while stack:
            name, inputs = stack[-1]
            for reference in inputs:
                source = node_name(reference)
                if source in done or (among is not None and source not in among):
                    continue
                if source in entered:
                    raise PlanError(f"A plan's graphs have no cycles; node {source} needs itself.")
                entered.add(source)
                stack.append((source, iter(nodes[source].input)))
                break
            else:
                stack.pop()
                entered.discard(name)
                done.add(name)
                order.append(name)
    return order
