"""All parties side by side in one process: the embedded default.

The parties' operations run in one TensorFlow runtime, their pins taken off; TensorFlow runs what does not
wait for a message in parallel. What each party computes, and what crosses, is what the pinned graph says.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from shareflow.errors import EncodingError, from_graph
from shareflow.party.send import Kind, parse
from shareflow.runtime.definition import without_devices
from shareflow.runtime.program import Program

# Elements of the largest tensor up to which one thread is faster.
_SMALL = 1 << 16


@dataclass(frozen=True)
class Timing:
    """Seconds of one run, in two parts: the dealer's, which can run ahead, and the rest."""

    offline: float
    online: float


class LocalProgram:
    """A program made ready to run in this process."""

    def __init__(self, program: Program) -> None:
        self.program = program
        definition = without_devices(program.graph.as_graph_def())
        self._graph = tf.compat.v1.wrap_function(lambda: tf.graph_util.import_graph_def(definition, name=""), [])
        self._whole = self._prune(program.feeds, (*program.outputs, *program.effects))
        self._executor = "SINGLE_THREADED_EXECUTOR" if _is_small(program) else ""
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
                self._prune(feeds, dealt) if dealt else None,
                self._prune((*feeds, *dealt), (*self.program.outputs, *self.program.effects)),
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

    def _prune(self, feeds: Sequence[tf.Tensor], fetches: Sequence[Any]) -> Any:
        graph = self._graph.graph

        def here(item: Any) -> Any:
            if isinstance(item, tf.Operation):
                return graph.get_operation_by_name(item.name)
            return graph.get_tensor_by_name(item.name)

        return self._graph.prune([here(feed) for feed in feeds], [here(fetch) for fetch in fetches])

    def _call(self, function: Any, values: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        try:
            results = tf.raw_ops.StatefulPartitionedCall(
                args=[*values, *function.captured_inputs],
                Tout=[output.dtype for output in function.outputs],
                f=function,
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
