"""Which messages there may be: who sends what to whom, and of what it is made.

What a party knows of its own (its input, and results that it was given) it may hand on. What it knows by the protocol
(streams, shares, masked values) leaves it only as the protocol's messages, which `view` proves one by one.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass

import tensorflow as tf

from shareflow.audit.circuit import Circuit
from shareflow.audit.finding import Finding
from shareflow.audit.pure import Functions
from shareflow.audit.stream import UNIFORM, Streams
from shareflow.party.send import Kind


class Origin(enum.IntFlag):
    """Where a value at a party comes from, as that party has it."""

    INPUT = enum.auto()
    STATE = enum.auto()
    STREAM = enum.auto()
    SHARE = enum.auto()  # of an input, or a masked value: messages that the protocol hides
    CORRECTION = enum.auto()
    RESULT = enum.auto()
    PLAINTEXT = enum.auto()


# Findings that are told with their path: a search through the graph each.
_PATHS = 100

_OF_KIND = {
    Kind.INPUT: Origin.SHARE,
    Kind.OPENING: Origin.SHARE,
    Kind.CORRECTION: Origin.CORRECTION,
    Kind.RESULT: Origin.RESULT,
    Kind.PLAINTEXT: Origin.PLAINTEXT,
}
_OWN = Origin.INPUT | Origin.RESULT | Origin.PLAINTEXT
_TEXT = {
    Origin.INPUT: "an input",
    Origin.STATE: "a state",
    Origin.STREAM: "a stream",
    Origin.SHARE: "a share or masked value",
    Origin.CORRECTION: "a correction",
    Origin.RESULT: "a result",
    Origin.PLAINTEXT: "a plaintext",
}


@dataclass(frozen=True)
class Roles:
    """Who the parties of a graph are. ``receivers`` may be given results and plaintext of this graph."""

    parties: tuple[str, ...]
    servers: tuple[str, str]
    dealer: str
    receivers: tuple[str, ...]

    @property
    def computing(self) -> tuple[str, ...]:
        """The servers and the dealer."""
        return (*self.servers, self.dealer)


def origins(circuit: Circuit, streams: Streams, states: set[int]) -> list[Origin]:
    """Where each node's value comes from, at the party that computes it.

    Args:
        states: placeholders of what a party kept from earlier executions. All others are inputs.
    """
    found: list[Origin] = []
    for node in range(len(circuit)):
        origin = Origin(0)
        if node in streams.made:
            origin = Origin.STREAM
        elif circuit.ops[node] == "Placeholder":
            secret = node not in streams.keys and node not in streams.executions
            origin = (Origin.STATE if node in states else Origin.INPUT) if secret else Origin(0)
        for source, _ in circuit.inputs[node]:
            crossing = circuit.messages.get(source)
            arrived = crossing is not None and circuit.party[node] == crossing[2]
            origin |= _OF_KIND[crossing[0]] if crossing and arrived else found[source]
        found.append(origin)
    return found


def messages(circuit: Circuit, origin: list[Origin], roles: Roles | None) -> Iterator[Finding]:
    """Messages of a kind that the two parties do not exchange, or made of what this kind is not made of."""
    told = 0
    for node, (kind, source, to) in circuit.messages.items():
        name = circuit.names[node]
        shape = circuit.shape(node)
        if shape is None:
            yield Finding(to, name, "a message has a shape that is known beforehand; this one's is not")
        held = tf.dtypes.as_dtype(circuit.attributes[node]["T"].type)
        if not (held.is_integer or held.is_floating or held.is_bool):
            yield Finding(to, name, f"a message is made of numbers; this one of {held.name}")
        if roles is not None and (why := _not_exchanged(kind, source, to, roles)) is not None:
            yield Finding(to, name, why)
        allowed = _allowed(kind, roles is None)
        if origin[node] & ~allowed:
            what = " and ".join(text for flag, text in _TEXT.items() if flag & origin[node] & ~allowed)
            told += 1
            path = _from(circuit, origin, node) if told <= _PATHS else ()
            yield Finding(to, name, f"a {kind.value} of {source} depends on {what}", path)


def checks(
    circuit: Circuit, origin: list[Origin], functions: Functions, roles: Roles | None
) -> Iterator[tuple[int, Finding | None]]:
    """Nodes that can end a run, each with what is wrong about it: a check looks at what its party knows of its own."""
    allowed = _OWN if roles is not None else _OWN | Origin.STATE
    for node, op in enumerate(circuit.ops):
        if not functions.checks(op, circuit.attributes[node]):
            continue
        if origin[node] & ~allowed:
            what = " and ".join(text for flag, text in _TEXT.items() if flag & origin[node] & ~allowed)
            why = f"a check depends on {what}: whether it ends the run tells the other parties something of it"
            yield node, Finding(circuit.party[node], circuit.names[node], why)
        else:
            yield node, None


def operations(circuit: Circuit, streams: Streams, functions: Functions) -> Iterator[Finding]:
    """Nodes that may do more than compute a value at their party."""
    yield from functions.findings()
    for node, op in enumerate(circuit.ops):
        name, attributes = circuit.names[node], circuit.written[node]
        if op == "Placeholder" or (op == UNIFORM and node in streams.made):
            continue
        if (why := functions.problem(op, attributes)) is not None:
            yield Finding(circuit.party[node], name, why)
        if (device := functions.pinned_elsewhere(attributes, circuit.party[node])) is not None:
            why = f"what it calls is pinned to {device!r}, and it is {circuit.party[node] or 'nobody'}'s"
            yield Finding(circuit.party[node], name, why)
        for text in attributes["_class"].list.s if "_class" in attributes else ():
            other = circuit.number.get(text.decode(errors="replace").removeprefix("loc:@"))
            if other is None or circuit.party[other] != circuit.party[node]:
                yield Finding(circuit.party[node], name, f"it is to be placed with {text!r}, which is not its party's")


def _not_exchanged(kind: Kind, source: str, to: str, roles: Roles) -> str | None:
    """Why there is no message of a kind between two parties."""
    computing = roles.computing
    if to == roles.dealer:
        return f"{source} sends to the dealer, who is sent nothing: all that it does runs ahead"
    if kind is Kind.INPUT and (source in computing or to not in roles.servers):
        return f"an input goes from its owner, who does not compute, to a server; this one from {source} to {to}"
    if kind is Kind.OPENING and {source, to} != set(roles.servers):
        return f"an opening goes from one server to the other; this one from {source} to {to}"
    if kind is Kind.CORRECTION and (source != roles.dealer or to not in roles.servers):
        return f"a correction goes from the dealer to a server; this one from {source} to {to}"
    if kind is Kind.RESULT and source not in roles.servers:
        return f"a result is sent by the servers; this one by {source}"
    if kind is Kind.PLAINTEXT and source in computing:
        return f"plaintext is sent by the owner of data, who does not compute; this by {source}"
    if kind in (Kind.RESULT, Kind.PLAINTEXT) and (to not in roles.receivers or to in computing):
        return f"{to} is no receiver of this program, and is sent a {kind.value}"
    return None


def _allowed(kind: Kind, local: bool) -> Origin:
    """Of what a message may be made."""
    if kind is Kind.CORRECTION:
        # In one process, what the dealer keeps of an earlier call may come as an argument.
        return Origin.STREAM | Origin.STATE | (Origin.INPUT if local else Origin(0))
    if kind is Kind.PLAINTEXT:
        return _OWN | Origin.STATE if local else _OWN
    return ~Origin(0)


def _from(circuit: Circuit, origin: list[Origin], node: int) -> tuple[str, ...]:
    """The way from the nearest value that comes from outside or is sent."""
    start = [other for other in range(node) if origin[other] and circuit.ops[other] in ("Placeholder", UNIFORM)]
    return circuit.path(start, node)
