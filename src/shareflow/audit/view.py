"""What each party's messages can tell it: the proof from the graph alone that they tell nothing.

A message to a party p is a one-time pad away from uniform if it has the form value - r, value + r or value xor r, where
r is a whole stream of two other parties, the value does not depend on r, and r reaches p by no other message that is
still there. Such a message can be taken away: p could have drawn it itself. Taken away one after another, the last
first, all go: then p's view can be simulated, and the order of removal is the proof. What cannot be taken away is
reported with the reason and its path in the graph.

A result is what its receiver is meant to learn. It comes as two messages u + z and v - z, with z a whole stream of the
two senders that is used for nothing else: given u + v the receiver can draw the first itself, and the second follows.
Plaintext that a party hands on is its own decision. Both are listed.

Source: the argument is the usual simulation for semi-honest parties (Goldreich 2004, chapter 7), read off the graph.
Not covered: two parties that join what they see, timing, and what results say about inputs (docs/audit.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import tensorflow as tf

from shareflow.audit import circuit as reading
from shareflow.audit.circuit import Circuit
from shareflow.audit.crossing import Origin, Roles, checks, messages, operations, origins
from shareflow.audit.finding import Finding
from shareflow.audit.pure import Functions
from shareflow.audit.stream import Stream, Streams, streams
from shareflow.party.send import Kind

__all__ = ["Audit", "Finding", "Learned", "Removal", "Stream", "View", "audit", "proved"]

_ADD = ("AddV2", "Add")
_PADDING = (*_ADD, "Sub", "BitwiseXor")
# Findings of a party that are told with their path: a search through the graph each.
_PATHS = 100


@dataclass(frozen=True)
class Removal:
    """One step of the proof: the message is uniform to its receiver, by this stream."""

    message: str
    stream: Stream


@dataclass(frozen=True)
class Learned:
    """What a party is meant to learn: the sum of the messages of a result, or a plaintext."""

    kind: Kind
    messages: tuple[str, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class View:
    """What one party receives: what is proved to say nothing, in the order of removal; what it is meant to learn."""

    party: str
    removed: tuple[Removal, ...]
    learned: tuple[str, ...]
    results: tuple[Learned, ...] = ()


@dataclass(frozen=True)
class Audit:
    """The views of all parties, and what is wrong. ``passed`` where nothing is.

    ``assumed`` is what the proof rests on besides the graph, ``checks`` are (party, node) where a run can end.
    """

    views: tuple[View, ...]
    findings: tuple[Finding, ...]
    assumed: tuple[str, ...] = ()
    checks: tuple[tuple[str, str], ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every crossing is accounted for."""
        return not self.findings


def audit(graph: tf.Graph, receivers: Sequence[str] | None = None) -> Audit:
    """Checks every value that changes party in a graph that was traced in this process.

    Args:
        receivers: jobs of the parties that may learn a result or a plaintext; all that the graph names, if not given.
    """
    circuit, findings = reading.read(graph, trusted=True)
    if circuit is None:
        return Audit((), tuple(findings))
    findings += reading.place(circuit, {}, trusted=True)
    found, wrong = streams(circuit)
    return proved(circuit, found, set(), None, [*findings, *wrong], receivers)


def proved(
    circuit: Circuit,
    found: Streams,
    states: set[int],
    roles: Roles | None,
    findings: list[Finding],
    receivers: Sequence[str] | None = None,
    leaving: frozenset[int] = frozenset(),
) -> Audit:
    """The rest of an audit, of a circuit whose nodes are placed.

    Args:
        states: placeholders of what parties kept.
        roles: who the parties are; None for a graph of this process, of which only the proof is asked.
        findings: what was found before.
        receivers: as for `audit`.
        leaving: nodes whose values are declared to leave the graph: results, and what is kept.
    """
    functions = Functions(circuit.library, local=roles is None)
    origin = origins(circuit, found, states)
    findings = [*findings, *operations(circuit, found, functions), *messages(circuit, origin, roles)]
    stops = []
    for node, wrong in checks(circuit, origin, functions, roles):
        stops.append((circuit.party[node], circuit.names[node]))
        findings += [wrong] if wrong else []
    graph = _Graph(circuit, found, origin, leaving)
    computing = {s for kind, s, _ in circuit.messages.values() if kind in (Kind.OPENING, Kind.RESULT)}
    views, assumed = [], []
    for party in sorted({to for _, _, to in circuit.messages.values()}):
        proof = _Proof(graph, party, lenient=roles is None and party in computing)
        views.append(proof.view())
        findings += proof.findings
        assumed += proof.assumed
        if receivers is not None and party not in receivers:
            why = "a result goes to a party that is no receiver of the program"
            findings += [Finding(party, name, why) for name in views[-1].learned]
    return Audit(tuple(views), tuple(dict.fromkeys(findings)), tuple(assumed), tuple(stops))


@dataclass(frozen=True)
class _Pad:
    """A message as value and pad: ``operation`` joins them; ``sign`` is that of the pad, 0 for xor."""

    stream: Stream
    operation: int
    value: tuple[int, int]
    sign: int


class _Graph:
    """A circuit with what is asked of it for every party."""

    def __init__(self, circuit: Circuit, found: Streams, origin: list[Origin], leaving: frozenset[int]) -> None:
        self.circuit = circuit
        self.leaving = leaving
        self._paths = 0
        self.made = found.made
        self.nodes = found.nodes()
        self.origin = origin
        self.users: list[list[int]] = [[] for _ in range(len(circuit))]
        for node in range(len(circuit)):
            for source, _ in circuit.inputs[node]:
                self.users[source].append(node)

    def pads(self, message: int) -> list[_Pad]:
        """Whole streams that are added to, taken off or xored with what a message carries."""
        circuit = self.circuit
        operation, _ = circuit.moved(message)
        op = circuit.ops[operation]
        if op not in _PADDING or len(circuit.inputs[operation]) != 2:
            return []
        size = _elements(circuit.shape(message))
        found = []
        for slot, operand in enumerate(circuit.inputs[operation]):
            stream = self.made.get(circuit.moved(*operand)[0])
            # A stream that is repeated to the message's size would pad several elements with one.
            whole = size is not None and size == _elements(circuit.shape(*operand)) == self._length(operand)
            if stream is not None and whole and size == _elements(circuit.shape(operation)):
                sign = 0 if op == "BitwiseXor" else -1 if op == "Sub" and slot == 1 else 1
                found.append(_Pad(stream, operation, circuit.inputs[operation][1 - slot], sign))
        return found

    def _length(self, operand: tuple[int, int]) -> int:
        node, _ = self.circuit.moved(*operand)
        return math.prod(self.circuit.attributes[node]["shape"].list.i) if node in self.made else -1

    def only_user(self, node: int) -> int | None:
        """The one node that uses another's value, however it was moved; None where there are more or none."""
        while True:
            if len(self.users[node]) != 1 or node in self.leaving:
                return None
            user = self.users[node][0]
            if self.circuit.ops[user] not in ("Identity", "Reshape") or self.circuit.inputs[user][0][0] != node:
                return user
            node = user

    def path(self, start: Sequence[int], end: int) -> tuple[str, ...]:
        """`Circuit.path`, for the first findings: a graph that is nothing but leaks is told soon enough."""
        self._paths += 1
        return self.circuit.path(start, end) if self._paths <= _PATHS else ()


def _elements(shape: tuple[int, ...] | None) -> int | None:
    return None if shape is None else math.prod(shape)


@dataclass
class _Proof:
    """The view of one party."""

    graph: _Graph
    party: str
    lenient: bool
    findings: list[Finding] = field(default_factory=list)
    assumed: list[str] = field(default_factory=list)

    def view(self) -> View:
        circuit = self.graph.circuit
        mine = [node for node, (_, _, to) in sorted(circuit.messages.items()) if to == self.party]
        kinds = {node: circuit.messages[node][0] for node in mine}
        plain = [node for node in mine if kinds[node] is Kind.PLAINTEXT]
        results = [node for node in mine if kinds[node] is Kind.RESULT]
        hidden = [node for node in mine if kinds[node] not in (Kind.PLAINTEXT, Kind.RESULT)]
        removed = self._remove(hidden, [*plain, *results])
        known = [Learned(Kind.PLAINTEXT, (circuit.names[node],), circuit.shape(node) or ()) for node in plain]
        known += self._paired(results)
        learned = tuple(circuit.names[node] for node in mine if node in set(plain) | set(results))
        return View(self.party, tuple(removed), learned, tuple(known))

    # --- hidden messages

    def _remove(self, hidden: list[int], learned: list[int]) -> list[Removal]:
        """Takes messages away while it can; what stays is reported."""
        if not hidden:
            return []
        circuit = self.graph.circuit
        bit = {node: 1 << index for index, node in enumerate((*hidden, *learned))}
        # For each pad of each message a bit that tells whether the value under the pad depends on it.
        pads = {node: [pad for pad in self.graph.pads(node) if self.party not in pad.stream.pair] for node in hidden}
        under: dict[int, int] = {}
        value_bit: dict[tuple[int, int], int] = {}
        for node in hidden:
            for pad in pads[node]:
                fresh = 1 << (len(bit) + len(value_bit))
                value_bit[node, pad.value[0]] = fresh
                under[pad.value[0]] = under.get(pad.value[0], 0) | fresh
        reached = self._reached(bit, under)
        left = sum(bit.values())
        removed, waiting = self._taken(hidden, pads, bit, value_bit, reached, left)
        if waiting and learned and self.lenient:
            # What a computing party learns depends on masks in the graph, and on none if the protocol is right.
            again, still = self._taken(hidden, pads, bit, value_bit, reached, sum(bit[node] for node in hidden))
            if len(still) < len(waiting):
                removed, waiting = again, still
                self.assumed.append(f"{self.party}'s result depends on no mask: that the protocol computes it rightly")
        gone = {removal.message for removal in removed}
        for node in waiting:
            why, path = self._reason(node, pads[node], bit, value_bit, reached, gone)
            self.findings.append(Finding(self.party, circuit.names[node], why, path))
        return removed

    def _taken(
        self,
        hidden: list[int],
        pads: dict[int, list[_Pad]],
        bit: dict[int, int],
        value_bit: dict[tuple[int, int], int],
        reached: dict[Stream, int],
        left: int,
    ) -> tuple[list[Removal], list[int]]:
        names = self.graph.circuit.names
        removed: list[Removal] = []
        # The last first: an earlier pad is used in later messages, never the other way round.
        waiting = list(reversed(hidden))
        progress = True
        while progress:
            progress, still = False, []
            for node in waiting:
                alone = [
                    pad
                    for pad in pads[node]
                    if reached[pad.stream] & (left | value_bit[node, pad.value[0]]) == bit[node]
                ]
                if alone:
                    removed.append(Removal(names[node], alone[0].stream))
                    left &= ~bit[node]
                    progress = True
                else:
                    still.append(node)
            waiting = still
        return removed, waiting

    def _reached(self, bit: dict[int, int], under: dict[int, int]) -> dict[Stream, int]:
        """For each stream the messages, and the values under pads, to which it leads, whoever makes it."""
        graph, inputs = self.graph, self.graph.circuit.inputs
        reach = [0] * len(inputs)
        total = dict.fromkeys(graph.nodes, 0)
        for node, own in (*bit.items(), *under.items()):
            reach[node] |= own
        for node in range(len(inputs) - 1, -1, -1):
            own = reach[node]
            if own:
                stream = graph.made.get(node)
                if stream is not None:
                    total[stream] |= own
                for source, _ in inputs[node]:
                    reach[source] |= own
        return total

    def _reason(
        self,
        node: int,
        pads: list[_Pad],
        bit: dict[int, int],
        value_bit: dict[tuple[int, int], int],
        reached: dict[Stream, int],
        gone: set[str],
    ) -> tuple[str, tuple[str, ...]]:
        """Why a message stays, and the way on which something reaches the party."""
        graph, circuit = self.graph, self.graph.circuit
        every = graph.pads(node)
        if not every:
            return "it is hidden under no stream: the receiver sees the value", self._secret(node)
        if not pads:
            return f"{every[0].stream} hides it, whose key the receiver holds", self._secret(node)
        for pad in pads:
            if reached[pad.stream] & value_bit[node, pad.value[0]]:
                why = f"{pad.stream} hides it, and is in the value that it hides too"
                return why, graph.path(graph.nodes[pad.stream], pad.value[0])
        pad = pads[0]
        for other in bit:
            if other != node and circuit.names[other] not in gone and reached[pad.stream] & bit[other]:
                why = f"{pad.stream} hides it, and reaches the receiver by another message too: {circuit.names[other]}"
                return why, graph.path(graph.nodes[pad.stream], other)
        return f"{pad.stream} hides it, and reaches the receiver by another message too", ()

    def _secret(self, node: int) -> tuple[str, ...]:
        """The way from the nearest input or state to a message, or else from a stream."""
        graph, circuit = self.graph, self.graph.circuit
        given = [n for n, op in enumerate(circuit.ops) if op == "Placeholder" and graph.origin[n]]
        return graph.path(given, node) or graph.path(list(graph.made), node)

    # --- results

    def _paired(self, results: list[int]) -> list[Learned]:
        """The results that pairs of messages give, and what is no such pair."""
        circuit, names = self.graph.circuit, self.graph.circuit.names
        if self.lenient:
            # A server that receives holds the stream of the pair: the other's message tells it the result.
            if results:
                self.assumed.append(f"what {self.party} is sent as its result tells it nothing but the result")
            return [Learned(Kind.RESULT, (names[node],), circuit.shape(node) or ()) for node in results]
        waiting: dict[int, tuple[int, _Pad]] = {}
        known = []
        for node in results:
            joined = self.graph.only_user(node)
            pads = [pad for pad in self.graph.pads(node) if self._is_zero_share(node, pad)]
            if joined is None or circuit.party[joined] != self.party or not pads:
                self._unpaired(node)
            elif joined not in waiting:
                waiting[joined] = node, pads[0]
            else:
                first, pad = waiting.pop(joined)
                if pad.stream != pads[0].stream or not _cancels(circuit, joined, pad, pads[0]):
                    self._unpaired(first)
                    self._unpaired(node)
                else:
                    known.append(Learned(Kind.RESULT, (names[first], names[node]), circuit.shape(node) or ()))
        for node, _ in waiting.values():
            self._unpaired(node)
        return known

    def _is_zero_share(self, message: int, pad: _Pad) -> bool:
        """Whether a pad is a stream of others that is used for nothing but two messages to this party."""
        graph = self.graph
        if self.party in pad.stream.pair or graph.only_user(pad.operation) != graph.only_user(message):
            return False
        makers = graph.nodes[pad.stream]
        return len(makers) == 2 and all(graph.only_user(maker) is not None for maker in makers)

    def _unpaired(self, node: int) -> None:
        why = (
            "a result is two messages, u + z and v - z, joined by its receiver, with z a whole stream of the senders "
            "used for nothing else; this one is not of that form, so it may tell more than their sum"
        )
        self.findings.append(Finding(self.party, self.graph.circuit.names[node], why, self._secret(node)))


def _cancels(circuit: Circuit, joined: int, one: _Pad, other: _Pad) -> bool:
    """Whether the receiver's sum of two messages is free of their pad."""
    if one.operation == other.operation:
        return False
    if circuit.ops[joined] == "BitwiseXor":
        return one.sign == other.sign == 0
    return circuit.ops[joined] in _ADD and one.sign * other.sign == -1
