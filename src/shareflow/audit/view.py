"""What each party's messages can tell it: the proof from the graph alone that they tell nothing.

A message to a party p is a one-time pad away from uniform if it has the form value - r, value + r or value xor r, where
r is a whole stream of two other parties and r reaches p by no other message that is still there. Such a message can be
taken away: p could have drawn it itself. Taken away one after another, the last first, all go: then p's view can be
simulated, and the order of removal is the proof. What cannot be taken away is reported with the reason.

A result is what its receiver is meant to learn: given the result, the receiver can draw its messages itself, as one
share is uniform and the other follows. Plaintext that a party hands on is its own decision. Both are listed.

Source: the argument is the usual simulation for semi-honest parties (Goldreich 2004, chapter 7), read off the graph.
Not covered: two parties that join what they see, timing, and what results say about inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import tensorflow as tf

from shareflow.party.send import Kind, parse

# Operations that hide their operand under another one, and those that only move elements.
_PADDING = ("Sub", "AddV2", "Add", "BitwiseXor")
_MOVING = ("Identity", "Reshape")
_STREAM = "ShareflowUniform"


@dataclass(frozen=True)
class Stream:
    """Stream ``number`` of an execution under the key of two parties."""

    pair: frozenset[str]
    number: int

    def __str__(self) -> str:
        return f"stream {self.number} of {' and '.join(sorted(self.pair))}"


@dataclass(frozen=True)
class Removal:
    """One step of the proof: the message is uniform to its receiver, by this stream."""

    message: str
    stream: Stream


@dataclass(frozen=True)
class Finding:
    """Something that the audit cannot account for."""

    party: str
    where: str
    why: str


@dataclass(frozen=True)
class View:
    """What one party receives: what is proved to say nothing, in the order of removal; what it is meant to learn."""

    party: str
    removed: tuple[Removal, ...]
    learned: tuple[str, ...]


@dataclass(frozen=True)
class Audit:
    """The views of all parties, and what is wrong. ``passed`` where nothing is."""

    views: tuple[View, ...]
    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        """Whether every crossing is accounted for."""
        return not self.findings


def audit(graph: tf.Graph, receivers: Sequence[str] | None = None) -> Audit:
    """Checks every value that changes party in a traced graph.

    Args:
        receivers: jobs of the parties that may learn a result or a plaintext; all that the graph names, if not given.
    """
    operations = graph.get_operations()
    findings = list(_stray_edges(operations))
    streams = _streams(operations)
    jobs = sorted({crossing[2] for operation in operations if (crossing := parse(operation.name))})
    views = []
    for job in jobs:
        view, found = _view(job, operations, streams, receivers)
        views.append(view)
        findings += found
    return Audit(tuple(views), tuple(findings))


def job_of(operation: tf.Operation) -> str | None:
    """The party that an operation is pinned to."""
    device = operation.device
    return device.split(":", 1)[1].split("/", 1)[0] if device.startswith("/job:") else None


def _stray_edges(operations: Sequence[tf.Operation]) -> list[Finding]:
    """Edges between two parties that are no send from the one to the other."""
    stray = []
    for operation in operations:
        to = job_of(operation)
        for tensor in operation.inputs:
            source = job_of(tensor.op)
            if to is None or source is None or source == to:
                continue
            crossing = parse(tensor.op.name)
            if crossing is None or crossing[1:] != (source, to):
                why = f"a value of {source} is used by {to} and was not sent to it"
                stray.append(Finding(to, operation.name, why))
    return stray


def _streams(operations: Sequence[tf.Operation]) -> dict[str, Stream]:
    """The stream that each node makes, by the node's name."""
    found = {}
    for operation in operations:
        if operation.type == _STREAM:
            key, _, number = operation.inputs
            holder, peer = key.op.name.rpartition("key.")[2].split(".")[:2]
            found[operation.name] = Stream(frozenset((holder, peer)), int(tf.get_static_value(number)))
    return found


def _view(
    job: str,
    operations: Sequence[tf.Operation],
    streams: dict[str, Stream],
    receivers: Sequence[str] | None,
) -> tuple[View, list[Finding]]:
    messages: dict[str, int] = {}
    kinds: dict[str, Kind] = {}
    for operation in operations:
        crossing = parse(operation.name)
        if crossing and crossing[2] == job:
            messages[operation.name] = 1 << len(messages)
            kinds[operation.name] = crossing[0]
    reached = _reached(operations, messages, streams)
    findings = []
    learned = [name for name, kind in kinds.items() if kind in (Kind.RESULT, Kind.PLAINTEXT)]
    if receivers is not None and job not in receivers:
        why = "a result goes to a party that is no receiver of the program"
        findings += [Finding(job, name, why) for name in learned]
    left = sum(bit for name, bit in messages.items() if name not in learned)
    by_name = {operation.name: operation for operation in operations if operation.name in messages}
    removed: list[Removal] = []
    # The last first: an earlier pad is used in later messages, never the other way round.
    waiting = [name for name in reversed(messages) if name not in learned]
    progress = True
    while progress:
        progress = False
        for name in list(waiting):
            alone = [pad for pad in _pads(by_name[name], job, streams) if reached[pad] & left == messages[name]]
            if alone:
                pad = alone[0]
                removed.append(Removal(name, pad))
                left &= ~messages[name]
                waiting.remove(name)
                progress = True
    findings += [Finding(job, name, _reason(by_name[name], job, streams)) for name in waiting]
    return View(job, tuple(removed), tuple(learned)), findings


def _reached(
    operations: Sequence[tf.Operation], messages: dict[str, int], streams: dict[str, Stream]
) -> dict[Stream, int]:
    """For each stream the messages to which it leads, whoever of its two parties makes it."""
    reach: dict[str, int] = {}
    total: dict[Stream, int] = {}
    # Operations stand in the order in which they were built, inputs first.
    for operation in reversed(operations):
        own = reach.get(operation.name, 0) | messages.get(operation.name, 0)
        if operation.name in streams:
            stream = streams[operation.name]
            total[stream] = total.get(stream, 0) | own
        if own:
            for tensor in operation.inputs:
                reach[tensor.op.name] = reach.get(tensor.op.name, 0) | own
    return total


def _pads(message: tf.Operation, job: str, streams: dict[str, Stream]) -> list[Stream]:
    """Whole streams unknown to a party that are added to, taken off or xored with what the message carries."""
    return [stream for stream in _operands(message, streams) if job not in stream.pair]


def _operands(message: tf.Operation, streams: dict[str, Stream]) -> list[Stream]:
    hidden = _moved(message.inputs[0])
    if hidden.op.type not in _PADDING:
        return []
    operands = [_moved(tensor) for tensor in hidden.op.inputs]
    # A stream that is repeated to the message's size would pad several elements with one.
    whole = [tensor for tensor in operands if tensor.shape.num_elements() == message.outputs[0].shape.num_elements()]
    return [streams[tensor.op.name] for tensor in whole if tensor.op.name in streams]


def _moved(tensor: tf.Tensor) -> tf.Tensor:
    """The tensor whose elements these are, before they were only moved."""
    while tensor.op.type in _MOVING:
        tensor = tensor.op.inputs[0]
    return tensor


def _reason(message: tf.Operation, job: str, streams: dict[str, Stream]) -> str:
    if not _operands(message, streams):
        return "it is hidden under no stream: the receiver sees the value"
    pads = _pads(message, job, streams)
    if not pads:
        return f"{_operands(message, streams)[0]} hides it, whose key the receiver holds"
    return f"{pads[0]} hides it, and reaches the receiver by another message too"
