"""Runs one party's part of a graph: step by step, with the messages of others in between.

A message is one tensor of words here: TensorFlow takes it apart, and puts it together, inside the step's function. For
small networks, handing over each value by itself would take longer than computing.
"""

from __future__ import annotations

import abc
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from shareflow.errors import PeerError, PlanError, StoreError
from shareflow.runtime.cut import Call, Message, Part, Value
from shareflow.runtime.definition import node_name, without_devices
from shareflow_client.aligned import ALIGNMENT

# Elements of the largest tensor up to which one thread is faster than handing operations between threads.
_SMALL = 1 << 16

# Bytes up to which a copy is faster than having TensorFlow use another's memory.
_COPIED = 1 << 16

# Bytes of a dealer's message that is read whole, at the first call: pieces would cost more than they spare.
_AT_ONCE = 1 << 18

Reading = Callable[[int, int], memoryview]
"""(first byte, bytes) -> that piece of the dealer's message, aligned for TensorFlow where it is large."""


class Exchange(abc.ABC):
    """How a part's messages travel during one execution."""

    @abc.abstractmethod
    def send(self, message: Message, payload: memoryview) -> None:
        """Gives away a message, of the size that the plan says. Does not wait for the peer."""

    @abc.abstractmethod
    def receive(self, message: Message) -> memoryview:
        """Waits for a message. Raises an error of shareflow where it will not come."""


class PartProgram:
    """A part made ready to run: its calls as TensorFlow functions. Many threads may run it at once."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self._nodes = {node.name: node for node in part.definition.node}
        self._functions: dict[tuple[str, ...], _Function] = {}
        self._lock = threading.Lock()
        # Where a received value lies: its message, and the word it begins at.
        received = [message for step in part.steps for message in step.receives]
        self._places = {value.tensor: place for message in received for value, place in _places(message)}
        self._read = self._find_pieces()
        self._sent = {call.nodes: step.sends for step in part.steps for call in (step.urgent,) if call is not None}
        self._last_uses = self._find_last_uses()

    @property
    def traffic(self) -> int:
        """Bytes that the party receives and sends in one execution, results left out."""
        messages = [message for step in self.part.steps for message in (*step.receives, *step.sends)]
        messages += self.part.inputs
        messages += [self.part.corrections] if self.part.corrections is not None else []
        return sum(message.nbytes for message in messages)

    @property
    def pieces(self) -> list[tuple[int, int]]:
        """(first byte, bytes) of what :meth:`run` reads of the dealer's message, in the order in which it does."""
        return [(begin, size) for call in self._calls() for _, begin, size in self._read.get(call.nodes, ())]

    def _calls(self) -> list[Call]:
        return [call for step in self.part.steps for call in (step.urgent, step.overlap) if call is not None]

    def _find_pieces(self) -> dict[tuple[str, ...], list[tuple[str, int, int]]]:
        """For each call the pieces of the dealer's message that it is the first to take: name, first byte, bytes.

        A network's corrections are large, and most are of one layer: so they are read layer by layer, not all at once.
        """
        read: dict[tuple[str, ...], list[tuple[str, int, int]]] = {}
        if self.part.corrections is None:
            return read
        first: dict[str, tuple[str, ...]] = {}
        calls = self._calls()
        for call in calls:
            for tensor in call.takes:
                first.setdefault(tensor, call.nodes)
        runs: list[tuple[tuple[str, ...] | None, list[Value]]] = []
        at_once = bool(first) and self.part.corrections.nbytes <= _AT_ONCE
        for value in self.part.corrections.values:
            taker = calls[0].nodes if at_once else first.get(value.tensor)
            if not runs or runs[-1][0] != taker:
                runs.append((taker, []))
            runs[-1][1].append(value)
        begin = 0
        for number, (taker, values) in enumerate(runs):
            name, size = f"corrections {number}", sum(value.nbytes for value in values)
            position = 0
            for value in values:
                self._places[value.tensor] = _Place(name, position, size // 8, value)
                position += value.nbytes // 8
            if taker is not None:
                read.setdefault(taker, []).append((name, begin, size))
            begin += size
        return read

    def _find_last_uses(self) -> dict[tuple[str, ...], tuple[str, ...]]:
        """What each call is the last to take: it is let go of then. Results stay."""
        calls = self._calls()
        stays = {value.tensor for message in self.part.results for value in message.values} | {*self.part.state_out}
        last: dict[str, tuple[str, ...]] = {}
        for call in calls:
            last.update({self._places[t].message if t in self._places else t: call.nodes for t in call.takes})
        return {call.nodes: tuple(n for n, by in last.items() if by == call.nodes and n not in stays) for call in calls}

    def prepare(self) -> PartProgram:
        """Builds all functions now rather than at their first use."""
        for call in self._calls():
            self._function(call)
        return self

    def warm_up(self) -> PartProgram:
        """Computes everything once, on zeros: TensorFlow does much only when a function runs for the first time."""
        part, values = self.part, {}
        given = [value for value, _ in part.keys] + [value for _, _, value in part.state_in.values()]
        given += [value for message in part.inputs for value in message.values] + [pad.value for pad in part.pads]
        for value in (*given, *([part.index] if part.index is not None else [])):
            values[value.tensor] = tf.zeros(value.shape, value.dtype)
        self.run(values, _Nothing(), lambda begin, size: memoryview(bytes(size)))
        return self

    def run(
        self, values: dict[str, tf.Tensor], exchange: Exchange, corrections: Reading | None = None
    ) -> dict[str, tf.Tensor]:
        """One execution, from first step to last.

        Args:
            values: what the plan says this party has at the start, by tensor: keys, index, state, inputs and pads. It
                is emptied on the way.
            exchange: how messages travel.
            corrections: reads the dealer's message, where the part has one; asked for ``pieces`` in their order.

        Returns:
            The tensors of results and of the state that is kept, by name.

        Raises:
            PlanError: a tensor that would be sent has another size than the plan says: nothing of it is sent.
        """
        for step in self.part.steps:
            for message in step.receives:
                values.update(words_of(message, exchange.receive(message)))
            if step.urgent is not None:
                self._call(step.urgent, values, corrections)
            for message in step.sends:
                # The tensor's own memory, not a copy of it.
                exchange.send(message, memoryview(values.pop(_name(message))).cast("B"))
            if step.overlap is not None:
                self._call(step.overlap, values, corrections)
        ends = [value.tensor for message in self.part.results for value in message.values]
        return {tensor: values[tensor] for tensor in (*ends, *self.part.state_out)}

    def _call(self, call: Call, values: dict[str, tf.Tensor], corrections: Reading | None) -> None:
        function = self._function(call)
        for name, begin, size in self._read.get(call.nodes, ()):
            if corrections is None:
                raise StoreError("A part that takes corrections runs with material of the dealer; there is none here.")
            values[name] = _words(corrections(begin, size))
        results = function.run([values[name] for name in function.takes])
        for name in self._last_uses[call.nodes]:
            del values[name]
        values.update(zip(function.gives, results, strict=True))

    def _function(self, call: Call) -> _Function:
        with self._lock:
            if call.nodes not in self._functions:
                sends = self._sent.get(call.nodes, ())
                self._functions[call.nodes] = _Function(self.part, self._nodes, call, self._places, sends)
            return self._functions[call.nodes]


class _Nothing(Exchange):
    """Messages of zeros that nobody sent; what is sent is let go of."""

    def send(self, message: Message, payload: memoryview) -> None:
        pass

    def receive(self, message: Message) -> memoryview:
        return memoryview(bytes(message.nbytes))


@dataclass(frozen=True)
class _Place:
    """Where a value lies in a message: from a word on, the message having so many in all."""

    message: str
    begin: int
    words: int
    value: Value


def _name(message: Message) -> str:
    """The message as a tensor. No tensor of a graph has such a name."""
    return f"message {message.peer} {message.round}"


def _places(message: Message) -> Iterator[tuple[Value, _Place]]:
    begin, words = 0, message.nbytes // 8
    for value in message.values:
        yield value, _Place(_name(message), begin, words, value)
        begin += math.prod(value.shape)


class _Function:
    """One call as a TensorFlow function. ``takes`` and ``gives`` name its arguments and results."""

    def __init__(
        self,
        part: Part,
        nodes: Mapping[str, Any],
        call: Call,
        places: Mapping[str, _Place],
        sends: Sequence[Message],
    ) -> None:
        feeds = {tensor: f"feed_{i}" for i, tensor in enumerate(call.takes)}
        definition = without_devices(_body(part, nodes, call, feeds))
        sent = {value.tensor for message in sends for value in message.values}
        kept = [tensor for tensor in call.gives if tensor not in sent]
        self.takes = tuple(dict.fromkeys(places[t].message if t in places else t for t in call.takes))
        self.gives = (*kept, *(_name(message) for message in sends))
        fed: dict[str, tf.Tensor] = {}
        given: list[tf.Tensor] = []

        def build() -> None:
            inputs = {}
            for tensor, feed in feeds.items():
                place = places.get(tensor)
                name = tensor if place is None else place.message
                if name not in fed:
                    form = part.forms.get(tensor)
                    shape = [place.words] if place else form.shape if form else None
                    fed[name] = tf.compat.v1.placeholder(part.dtypes[tensor], shape)
                inputs[f"{feed}:0"] = fed[name] if place is None else _taken(fed[name], place)
            wanted = [*kept, *(value.tensor for message in sends for value in message.values)]
            found = iter(tf.graph_util.import_graph_def(definition, input_map=inputs, return_elements=wanted, name=""))
            given.extend(next(found) for _ in kept)
            for message in sends:
                # The plan says what goes out: what the file says of shapes is not taken for granted.
                values = [tf.reshape(tf.ensure_shape(next(found), value.shape), [-1]) for value in message.values]
                given.append(tf.concat(values, 0) if len(values) > 1 else values[0])

        try:
            graph = tf.compat.v1.wrap_function(build, [])
            self._function = graph.prune([fed[name] for name in self.takes], given)
        except (ValueError, TypeError, tf.errors.OpError) as error:
            raise PlanError(f"TensorFlow refuses a part of graph {part.graph!r}: {error}. Compile it anew.") from None
        self._types = [output.dtype for output in self._function.outputs]
        self._executor = "SINGLE_THREADED_EXECUTOR" if _is_small(graph.graph) else ""

    def run(self, tensors: list[tf.Tensor]) -> Sequence[tf.Tensor]:
        return tf.raw_ops.StatefulPartitionedCall(
            args=[*tensors, *self._function.captured_inputs],
            Tout=self._types,
            f=self._function,
            executor_type=self._executor,
        )


def _taken(words: tf.Tensor, place: _Place) -> tf.Tensor:
    shape = place.value.shape
    return tf.reshape(words[place.begin : place.begin + math.prod(shape)], shape)


def _body(part: Part, nodes: Mapping[str, Any], call: Call, feeds: Mapping[str, str]) -> Any:
    """The call's nodes as a GraphDef that takes what comes from outside from the feeds."""
    definition = tf.compat.v1.GraphDef(versions=part.definition.versions)
    inside = set(call.nodes)
    for name in call.nodes:
        for source in map(node_name, nodes[name].input):
            if nodes[source].op == "Const" and source not in inside:
                inside.add(source)
                definition.node.add().CopyFrom(nodes[source])
    for name in call.nodes:
        node = definition.node.add()
        node.CopyFrom(nodes[name])
        del node.input[:]
        for reference in nodes[name].input:
            tensor = reference if ":" in reference else f"{reference}:0"
            if tensor in feeds:
                node.input.append(f"{feeds[tensor]}:0")
            elif not reference.startswith("^") or node_name(reference) in inside:
                node.input.append(reference)
    definition.library.CopyFrom(part.definition.library)
    return definition


def _is_small(graph: tf.Graph) -> bool:
    operations = graph.get_operations()
    shapes = [output.shape for operation in operations for output in operation.outputs]
    largest = max((math.prod(shape) for shape in shapes if shape.is_fully_defined()), default=0)
    return largest <= _SMALL and not graph.as_graph_def().library.function


def words_of(message: Message, payload: memoryview | bytes) -> dict[str, tf.Tensor]:
    """A received message as :meth:`PartProgram.run` takes it.

    Raises:
        PeerError: it has another size than the plan says.
    """
    return {_name(message): _words(_checked(message, payload))}


def reading_of(message: Message | None, payload: memoryview | bytes) -> Reading:
    """The dealer's message, of which all is in memory, as :meth:`PartProgram.run` reads it.

    Raises:
        PeerError: it has another size than the plan says.
    """
    view = _checked(message, payload) if message is not None else memoryview(b"")
    return lambda begin, size: view[begin : begin + size]


def tensors_of(message: Message, payload: memoryview | bytes) -> dict[str, tf.Tensor]:
    """The tensors of a message, one by one. Raises as :func:`words_of` does."""
    ((_, words),) = words_of(message, payload).items()
    return {value.tensor: _taken(words, place) for value, place in _places(message)}


def tensor_of(value: Value, view: memoryview) -> tf.Tensor:
    """One tensor of its bytes, filled up to whole words."""
    count = math.prod(value.shape)
    return tf.constant(np.frombuffer(view, value.dtype.as_numpy_dtype, count).reshape(value.shape))


def _checked(message: Message, payload: memoryview | bytes) -> memoryview:
    view = memoryview(payload).cast("B")
    if view.nbytes != message.nbytes:
        raise PeerError(
            f"A message has the size that the plan says; {message.peer} sent {view.nbytes} bytes where round "
            f"{message.round} has {message.nbytes}."
        )
    return view


def _words(view: memoryview) -> tf.Tensor:
    """Words as a tensor: in place where the memory allows it, and nobody else writes to it."""
    words = np.frombuffer(view, np.int64)
    if view.readonly or view.nbytes < _COPIED or words.ctypes.data % ALIGNMENT:
        return tf.constant(words)
    return tf.experimental.dlpack.from_dlpack(words.__dlpack__())
