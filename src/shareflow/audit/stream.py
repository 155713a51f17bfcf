"""Keys, and the streams that parties make of them: each used for that alone, each stream with one meaning."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from shareflow.audit.circuit import Circuit
from shareflow.audit.finding import Finding
from shareflow.party.session import STREAMS

UNIFORM = "ShareflowUniform"
# One counter numbers the blocks of a stream, with 32 bits; a block is two elements.
_LONGEST = 1 << 33
# Just these names, in no scope and with no number behind: so there is one of each, and no two ways to read it.
_KEY = re.compile(r"key\.(?P<holder>[A-Za-z0-9_]+)\.(?P<peer>[A-Za-z0-9_]+)\.")
_EXECUTION = re.compile(r"execution\.(?P<holder>[A-Za-z0-9_]+)\.")


@dataclass(frozen=True)
class Stream:
    """Stream ``number`` of an execution under the key of two parties."""

    pair: frozenset[str]
    number: int

    def __str__(self) -> str:
        return f"stream {self.number} of {' and '.join(sorted(self.pair))}"

    def to_json(self) -> dict[str, object]:
        """The pair in alphabetical order, and the number."""
        return {"pair": sorted(self.pair), "number": self.number}


@dataclass
class Streams:
    """What the placeholders of keys and executions are, and what streams are made of them.

    ``keys``: node to (holder, peer); ``executions``: node to holder; ``made``: node to its stream.
    """

    keys: dict[int, tuple[str, str]] = field(default_factory=dict)
    executions: dict[int, str] = field(default_factory=dict)
    made: dict[int, Stream] = field(default_factory=dict)

    def nodes(self) -> dict[Stream, list[int]]:
        """The nodes that make each stream, whoever of its two parties does."""
        by_stream: dict[Stream, list[int]] = {}
        for node, stream in self.made.items():
            by_stream.setdefault(stream, []).append(node)
        return by_stream


def streams(circuit: Circuit, parties: Sequence[str] | None = None) -> tuple[Streams, list[Finding]]:
    """Finds keys and streams by name, and every use of a key that is not a stream.

    Args:
        parties: who there is; not checked where not given.
    """
    found, findings = _placeholders(circuit, parties)
    for node in range(len(circuit)):
        if circuit.ops[node] == UNIFORM:
            stream, why = _stream(circuit, found, node)
            if stream is not None:
                found.made[node] = stream
            if why is not None:
                findings.append(Finding(circuit.party[node], circuit.names[node], why))
        for slot, (source, _) in enumerate(circuit.inputs[node]):
            what = "key" if source in found.keys else "execution index" if source in found.executions else ""
            if what and (circuit.ops[node] != UNIFORM or slot != (what != "key")):
                why = f"the {what} {circuit.names[source]} is used for something other than a stream"
                findings.append(
                    Finding(circuit.party[node], circuit.names[node], why, (circuit.names[source], circuit.names[node]))
                )
    findings += _lengths(circuit, found)
    return found, findings


def _placeholders(circuit: Circuit, parties: Sequence[str] | None) -> tuple[Streams, list[Finding]]:
    found, findings = Streams(), []
    for node, name in enumerate(circuit.names):
        key, execution = _KEY.fullmatch(name), _EXECUTION.fullmatch(name)
        match = key or execution
        if match is None:
            continue
        holder = match["holder"]
        who = (holder, key["peer"]) if key else (holder,)
        shape = circuit.attributes[node]["shape"].shape if "shape" in circuit.attributes[node] else None
        form = None if shape is None or shape.unknown_rank else [dimension.size for dimension in shape.dim]
        why = None
        if circuit.ops[node] != "Placeholder":
            why = f"its name is that of a key or execution index, and it is {circuit.ops[node]}"
        elif circuit.attributes[node]["dtype"].type != tf.int64.as_datatype_enum or form != ([2] if key else []):
            why = "a key is int64[2] and an execution index an int64 scalar"
        elif circuit.party[node] != holder:
            why = f"its name says that {holder} holds it, and it is pinned to {circuit.party[node] or 'nobody'}"
        elif len(set(who)) != len(who):
            why = "a key belongs to two parties"
        elif parties is not None and not set(who) <= set(parties):
            why = f"there is no party {sorted(set(who) - set(parties))[0]}"
        if why is not None:
            findings.append(Finding(circuit.party[node], name, why))
        elif key:
            found.keys[node] = (holder, key["peer"])
        else:
            found.executions[node] = holder
    return found, findings


def _stream(circuit: Circuit, found: Streams, node: int) -> tuple[Stream | None, str | None]:
    """The stream that a node makes, and what is wrong with it."""
    sources = circuit.inputs[node]
    if len(sources) != 3:
        return None, "a stream is made of a key, an execution index and a number"
    (key, _), (execution, _), (number, _) = sources
    if key not in found.keys:
        return None, f"the key of its stream, {circuit.names[key]}, is none that this execution gives"
    if execution not in found.executions:
        return None, f"its stream's execution, {circuit.names[execution]}, is not the index that this execution gives"
    holder, peer = found.keys[key]
    party = circuit.party[node]
    value = _constant(circuit, number)
    if value is None:
        return None, f"the number of its stream, {circuit.names[number]}, is no constant"
    stream = Stream(frozenset((holder, peer)), value)
    if not 0 <= value < STREAMS:
        return stream, f"a stream's number is from 0 to 2^31 - 2; it is {value}"
    if party != holder or found.executions[execution] != holder:
        return stream, f"{party or 'nobody'} makes a stream of a key of {holder}, in the execution of " + (
            f"{found.executions[execution]}: all three are one party"
        )
    return stream, None


def _constant(circuit: Circuit, node: int) -> int | None:
    """The value of a constant int64 scalar; None where the node is something else."""
    attributes: Any = circuit.attributes[node]
    if circuit.ops[node] != "Const" or attributes["dtype"].type != tf.int64.as_datatype_enum:
        return None
    value = attributes["value"].tensor
    if value.dtype != tf.int64.as_datatype_enum or value.tensor_shape.unknown_rank or value.tensor_shape.dim:
        return None
    if len(value.int64_val) == 1 and not value.tensor_content:
        return int(value.int64_val[0])
    if len(value.tensor_content) == 8 and not value.int64_val:
        return int(np.frombuffer(value.tensor_content, "<i8")[0])
    # An empty list stands for zero, as TensorFlow repeats the last value and begins with none.
    return 0 if not value.int64_val and not value.tensor_content else None


def _lengths(circuit: Circuit, found: Streams) -> list[Finding]:
    """Streams of one number that are made in two shapes: the shorter is the beginning of the longer."""
    findings = []
    for stream, nodes in found.nodes().items():
        shapes = {tuple(circuit.attributes[node]["shape"].list.i): node for node in nodes}
        if len(shapes) > 1:
            (one, _), (other, node) = list(shapes.items())[:2]
            why = f"{stream} is made in two shapes, {list(one)} and {list(other)}: one is the beginning of the other"
            findings.append(Finding(circuit.party[node], circuit.names[node], why))
        for shape, node in shapes.items():
            if math.prod(max(size, 0) for size in shape) > _LONGEST or min(shape, default=0) < 0:
                why = f"no stream has the shape {list(shape)}"
                findings.append(Finding(circuit.party[node], circuit.names[node], why))
    return findings
