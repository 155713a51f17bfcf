"""All parties side by side in one process: the embedded default.

The parties' operations run in one TensorFlow runtime, their pins taken off, one after the other as they were traced
(memory_plan.py); each uses all threads. What each party computes, and what crosses, is what the pinned graph says.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf import config_pb2

from shareflow.errors import EncodingError, from_graph
from shareflow.party.send import Kind, parse
from shareflow.runtime.definition import subgraph, without_devices
from shareflow.runtime.memory_plan import in_trace_order
from shareflow.runtime.program import Program

# Elements of the largest tensor up to which one thread is faster.
_SMALL = 1 << 16
# Nodes up to which TensorFlow's passes over a graph are worth their time: they save a twentieth of a short run, and
# take seconds where a network has a hundred layers.
_FEW = 1 << 12
_OPTIONS = config_pb2.ConfigProto()
_OPTIONS.graph_options.rewrite_options.disable_meta_optimizer = True
_AS_IT_IS = _OPTIONS.SerializeToString()


@dataclass(frozen=True)
class Timing:
    """Seconds of one run, in two parts: the dealer's, which can run ahead, and the rest."""

    offline: float
    online: float


class LocalProgram:
    """A program made ready to run in this process."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self._executor = "SINGLE_THREADED_EXECUTOR" if _is_small(program) else ""
        self._whole = self._part(program.feeds, program.outputs, program.effects)
        self._options = "" if len(program.graph.get_operations()) <= _FEW else _AS_IT_IS
        self._halves: tuple[Any, Any] | None = None

    def run(self, arguments: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """One execution, under an index that its session never used before."""
        return self._call(self._whole, self.program.values(arguments))

    def run_in_halves(self, arguments: Sequence[tf.Tensor]) -> tuple[list[tf.Tensor], Timing]:
        """The same in two steps, the dealer's first, and how long each took."""
        if self._halves is None:
            dealt = [
                operation.outputs[0]
                for operation in self.program.graph.get_operations()
                if (crossing := parse(operation.name)) and crossing[0] is Kind.CORRECTION
            ]
            feeds = self.program.feeds
            self._halves = (
                self._part(feeds, dealt) if dealt else None,
                self._part((*feeds, *dealt), self.program.outputs, self.program.effects),
            )
        offline, online = self._halves
        values = self.program.values(arguments)
        began = time.perf_counter()
        corrections = self._call(offline, values) if offline else []
        _wait(corrections)
        middle = time.perf_counter()
        outputs = self._call(online, [*values, *corrections])
        _wait(outputs)
        return outputs, Timing(middle - began, time.perf_counter() - middle)

    def _part(
        self, feeds: Sequence[tf.Tensor], outputs: Sequence[tf.Tensor], effects: Sequence[tf.Operation] = ()
    ) -> Any:
        """A function from the feeds to the outputs: the program's graph as far as they need it."""
        fed = {feed.op.name: i for i, feed in enumerate(feeds)}
        definition = without_devices(self.program.graph.as_graph_def())
        wanted = [*(output.op.name for output in outputs), *(effect.name for effect in effects)]
        definition = in_trace_order(subgraph(definition, wanted, fed))
        used = {reference for node in definition.node for reference in node.input}
        given = {name: i for name, i in fed.items() if name in used}

        def body(*values: tf.Tensor) -> list[tf.Tensor]:
            made = [output for output in outputs if output.op.name not in fed]
            elements = tf.graph_util.import_graph_def(
                definition,
                input_map={name: values[i] for name, i in given.items()},
                return_elements=[*(output.name for output in made), *(effect.name for effect in effects)],
                name="",
            )
            results = dict(zip((output.name for output in made), elements, strict=False))
            graph: Any = tf.compat.v1.get_default_graph()
            graph.control_outputs.extend(elements[len(made) :])
            return [
                tf.identity(values[fed[output.op.name]] if output.op.name in fed else results[output.name])
                for output in outputs
            ]

        return tf.compat.v1.wrap_function(body, [tf.TensorSpec(feed.shape, feed.dtype) for feed in feeds])

    def _call(self, function: Any, values: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        try:
            results = tf.raw_ops.StatefulPartitionedCall(
                args=[*values, *function.captured_inputs],
                Tout=[output.dtype for output in function.outputs],
                f=function,
                config_proto=self._options,
                executor_type=self._executor,
            )
        except tf.errors.InvalidArgumentError as error:
            text = from_graph(error.message)
            if text is None:
                raise
            raise EncodingError(text) from None
        return list(results)


def _is_small(program: Program) -> bool:
    """Whether handing operations between threads would take longer than the operations.

    A protocol is a long chain of small steps. One thread runs a prediction of network A in 0.26 ms, TensorFlow's
    pool in 3.3 ms; with the tensors of network C at batch 10 (115,200 elements) the pool is ahead. Kernels use
    all threads in both. Graphs with effects, or with loops and branches at one party, stay with the pool, which
    knows every kind of operation.
    """
    outputs = (output for operation in program.graph.get_operations() for output in operation.outputs)
    largest = max((math.prod(o.shape) for o in outputs if o.shape.is_fully_defined()), default=0)
    return largest <= _SMALL and not program.effects and not program.graph.as_graph_def().library.function


def _wait(tensors: Sequence[tf.Tensor]) -> None:
    for tensor in tensors:
        tensor.numpy()
