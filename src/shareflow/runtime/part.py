"""Runs one party's part of a graph: step by step, with the messages of others in between."""

from __future__ import annotations

import abc
import math
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from shareflow.errors import PeerError, PlanError
from shareflow.runtime.cut import Call, Message, Part, Value
from shareflow.runtime.definition import node_name, without_devices

# Elements of the largest tensor up to which one thread is faster than handing operations between threads.
_SMALL = 1 << 16


class Exchange(abc.ABC):
    """How a part's messages travel during one execution."""

    @abc.abstractmethod
    def send(self, message: Message, buffers: Sequence[memoryview]) -> None:
        """Gives away a message whose size was checked. Does not wait for the peer."""

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

    def prepare(self) -> PartProgram:
        """Builds all functions now rather than at their first use."""
        for step in self.part.steps:
            for call in (step.urgent, step.overlap):
                if call is not None:
                    self._function(call)
        return self

    def run(self, values: dict[str, tf.Tensor], exchange: Exchange) -> dict[str, tf.Tensor]:
        """One execution, from first step to last.

        Args:
            values: what the plan says this party has at the start, by tensor: keys, index, state, corrections, inputs
                and pads. It is emptied on the way.
            exchange: how messages travel.

        Returns:
            The tensors of results and of the state that is kept, by name.

        Raises:
            PlanError: a tensor that would be sent has another size than the plan says: nothing of it is sent.
        """
        for step in self.part.steps:
            for message in step.receives:
                values.update(tensors_of(message, exchange.receive(message)))
            if step.urgent is not None:
                self._call(step.urgent, values)
            for message in step.sends:
                exchange.send(message, buffers_of(message, values))
                for value in message.values:
                    values.pop(value.tensor)
            if step.overlap is not None:
                self._call(step.overlap, values)
        ends = [value.tensor for message in self.part.results for value in message.values]
        return {tensor: values[tensor] for tensor in (*ends, *self.part.state_out)}

    def _call(self, call: Call, values: dict[str, tf.Tensor]) -> None:
        results = self._function(call).run([values[tensor] for tensor in call.takes])
        for tensor in call.drops:
            del values[tensor]
        values.update(zip(call.gives, results, strict=True))

    def _function(self, call: Call) -> _Function:
        with self._lock:
            if call.nodes not in self._functions:
                self._functions[call.nodes] = _Function(self.part, self._nodes, call)
            return self._functions[call.nodes]


class _Function:
    def __init__(self, part: Part, nodes: Mapping[str, Any], call: Call) -> None:
        definition = tf.compat.v1.GraphDef(versions=part.definition.versions)
        inside = set(call.nodes)
        feeds = {tensor: f"feed_{i}" for i, tensor in enumerate(call.takes)}
        for name in call.nodes:
            for reference in nodes[name].input:
                source = node_name(reference)
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
        whole = without_devices(definition)
        for tensor, feed in feeds.items():
            node = whole.node.add(name=feed, op="Placeholder")
            node.attr["dtype"].type = part.dtypes[tensor].as_datatype_enum
            if tensor in part.forms:
                node.attr["shape"].shape.CopyFrom(tf.TensorShape(part.forms[tensor].shape).as_proto())
        try:
            graph = tf.compat.v1.wrap_function(lambda: tf.graph_util.import_graph_def(whole, name=""), [])
            find = graph.graph.get_tensor_by_name
            self._function = graph.prune(
                [find(f"{feed}:0") for feed in feeds.values()], [find(tensor) for tensor in call.gives]
            )
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


def _is_small(graph: tf.Graph) -> bool:
    operations = graph.get_operations()
    shapes = [output.shape for operation in operations for output in operation.outputs]
    largest = max((math.prod(shape) for shape in shapes if shape.is_fully_defined()), default=0)
    return largest <= _SMALL and not graph.as_graph_def().library.function


def buffers_of(message: Message, values: Mapping[str, tf.Tensor]) -> list[memoryview]:
    """The bytes of a message's tensors, without a copy, each filled up to whole words.

    Raises:
        PlanError: a tensor has another form than the plan says.
    """
    buffers = []
    for value in message.values:
        tensor = values[value.tensor]
        if tuple(tensor.shape) != value.shape or tensor.dtype != value.dtype:
            raise PlanError(
                f"What is sent has the plan's form; {value.tensor} is {list(tensor.shape)} ({tensor.dtype.name}) where "
                f"the plan says {list(value.shape)} ({value.dtype.name}). The plan's shapes are not what it computes."
            )
        array = np.ascontiguousarray(tensor.numpy())
        view = memoryview(array.reshape(-1).view(np.uint8).data)
        buffers.append(view)
        if value.nbytes != view.nbytes:
            buffers.append(memoryview(bytes(value.nbytes - view.nbytes)))
    return buffers


def tensors_of(message: Message, payload: memoryview | bytes) -> dict[str, tf.Tensor]:
    """The tensors of a message.

    Raises:
        PeerError: it has another size than the plan says.
    """
    view = memoryview(payload).cast("B")
    if view.nbytes != message.nbytes:
        raise PeerError(
            f"A message has the size that the plan says; {message.peer} sent {view.nbytes} bytes where round "
            f"{message.round} has {message.nbytes}."
        )
    tensors, position = {}, 0
    for value in message.values:
        tensors[value.tensor] = tensor_of(value, view[position : position + value.nbytes])
        position += value.nbytes
    return tensors


def tensor_of(value: Value, view: memoryview) -> tf.Tensor:
    """One tensor of its bytes, filled up to whole words."""
    count = math.prod(value.shape)
    return tf.constant(np.frombuffer(view, value.dtype.as_numpy_dtype, count).reshape(value.shape))
