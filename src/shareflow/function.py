"""`shareflow.function`: a Python function of private tensors, traced once to one graph and run as a whole."""

from __future__ import annotations

import collections
import functools
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import tensorflow as tf

from shareflow.audit.cost import Cost, cost_of
from shareflow.audit.view import Audit, audit
from shareflow.errors import PlacementError, PlanError, RandomnessError, ShapeError
from shareflow.party.party import Party
from shareflow.party.session import in_trace
from shareflow.protocol.choices import Chooser, current_choices
from shareflow.protocol.protocol import Protocol
from shareflow.protocol.tensor import PrivateTensor, richest
from shareflow.runtime.current import Runtime, current_runtime
from shareflow.runtime.local import LocalProgram, Timing
from shareflow.runtime.program import Program, build
from shareflow.share.share import Share, template

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class _PrivateSpec:
    """What is static of a private tensor: all but its components."""

    kind: type[Share]
    parties: tuple[Party, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[Any, ...]
    shape: tuple[int, ...]
    fractional_bits: int
    protocol: Protocol | None


class _Leaf:
    """One argument or result of a function: how it becomes tensors, and is made of tensors again."""

    def __init__(self, value: Any) -> None:
        self.static: Any = None
        self._rebuild: Callable[[list[Any]], Any]
        self.tensors: list[Any] = []
        self.owners: tuple[Party | None, ...] = ()
        if isinstance(value, PrivateTensor):
            share = richest(value.share)
            bits, protocol, empty = value.fractional_bits, value.protocol, template(share)
            self.tensors = list(share.components)
            self.owners = share.parties
            self._rebuild = lambda tensors: PrivateTensor(empty.with_components(tensors), bits, protocol)
            self.static = _PrivateSpec(
                type(share),
                share.parties,
                tuple(tuple(t.shape) for t in self.tensors),
                tuple(t.dtype for t in self.tensors),
                share.shape,
                bits,
                protocol,
            )
        elif isinstance(value, (tf.Tensor, np.ndarray)):
            tensor = tf.convert_to_tensor(value)
            if not tensor.shape.is_fully_defined():
                raise ShapeError(f"An argument has a shape that all parties know; got {tensor.shape}.")
            self.tensors, self.owners = [tensor], (None,)
            self._rebuild = lambda tensors: tensors[0]
            self.static = ("public", tuple(tensor.shape), tensor.dtype)
        else:
            # Numbers, names, variables and models are part of the program. 1, 1.0 and True are equal, yet not alike.
            self._rebuild = lambda tensors: value
            self.static = (type(value), value if _hashable(value) else id(value))

    def rebuild(self, tensors: list[Any]) -> Any:
        return self._rebuild(tensors)


def _hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def _flatten(structure: Any) -> tuple[list[_Leaf], Any]:
    return [_Leaf(value) for value in tf.nest.flatten(structure)], tf.nest.map_structure(lambda _: 0, structure)


def _pack(shape: Any, leaves: list[_Leaf], tensors: list[Any]) -> Any:
    values, position = [], 0
    for leaf in leaves:
        count = len(leaf.owners)
        values.append(leaf.rebuild(tensors[position : position + count]))
        position += count
    return tf.nest.pack_sequence_as(shape, values)


@dataclass
class Traced:
    """One graph of a function: for arguments of one form."""

    program: Program
    results: list[_Leaf]
    result_shape: Any
    keep: Any
    trace_seconds: float

    @functools.cached_property
    def local(self) -> LocalProgram:
        """Ready to run in this process."""
        return LocalProgram(self.program)

    @functools.cached_property
    def cost(self) -> Cost:
        """Rounds and bytes, counted from the graph."""
        return cost_of(self.program.graph, (*self.program.outputs, *self.program.effects))

    @functools.cached_property
    def audit(self) -> Audit:
        """What each party's messages can tell it, proved from the graph."""
        return audit(self.program.graph)

    def run_by(self, runtime: Runtime, values: list[tf.Tensor]) -> list[tf.Tensor]:
        """One execution on several machines.

        Raises:
            PlanError: the graph does not pass the audit: nothing is sent.
        """
        if not self.audit.passed:
            first, count = self.audit.findings[0], len(self.audit.findings)
            raise PlanError(
                f"What crosses between machines passes the audit first; this program has {count} findings, such as "
                f"{first.where}, for {first.party or 'all'}: {first.why}. See Function.audit; one process runs it."
            )
        return runtime.run(self.program, values)


class Function(Generic[F]):
    """A callable made by :func:`function`."""

    def __init__(self, python_function: F) -> None:
        self.python_function = python_function
        self._traced: dict[Any, Traced] = {}
        functools.update_wrapper(self, python_function)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        if in_trace():
            # Inside another function it is built in place, with streams of its own.
            return self.python_function(*arguments, **options)
        traced, tensors = self._trace((arguments, options))
        runtime = current_runtime()
        if runtime is None:
            return self._results(traced, traced.local.run(tensors))
        return self._results(traced, traced.run_by(runtime, traced.program.values(tensors)))

    @property
    def width(self) -> int:
        """How many calls :meth:`map` computes side by side where it is called."""
        runtime = current_runtime()
        return 1 if runtime is None else runtime.width

    def map(self, calls: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        """The results of one call for each tuple of arguments, in their order.

        On a cluster with several groups of workers the groups compute calls side by side; execution indices are
        given in the order of the calls. Where a call leaves something behind, as a variable's new value, calls
        run one after the other.
        """
        runtime = current_runtime()
        if runtime is None or runtime.width == 1 or in_trace():
            return (self(*arguments) for arguments in calls)
        return self._side_by_side(calls, runtime)

    def _side_by_side(self, calls: Iterable[tuple[Any, ...]], runtime: Runtime) -> Iterator[Any]:
        pool = futures.ThreadPoolExecutor(runtime.width)
        waiting: collections.deque[tuple[Traced, futures.Future[list[tf.Tensor]]]] = collections.deque()
        try:
            for arguments in calls:
                traced, tensors = self._trace((arguments, {}))
                # An index and keys are taken here: a session belongs to the thread that entered it.
                values = traced.program.values(tensors)
                alone = traced.program.leaves_traces
                while waiting and (alone or len(waiting) >= 2 * runtime.width):
                    yield self._next_result(waiting)
                waiting.append((traced, pool.submit(traced.run_by, runtime, values)))
                if alone:
                    yield self._next_result(waiting)
            while waiting:
                yield self._next_result(waiting)
        finally:
            pool.shutdown(cancel_futures=True)

    def _next_result(self, waiting: collections.deque[tuple[Traced, futures.Future[list[tf.Tensor]]]]) -> Any:
        traced, outputs = waiting.popleft()
        return self._results(traced, outputs.result())

    def timed(self, *arguments: Any, **options: Any) -> tuple[Any, Timing]:
        """The result, and the seconds of the dealer's part and of the rest, run one after the other.

        Raises:
            PlacementError: inside a cluster's block; the two parts are measured in this process.
        """
        if current_runtime() is not None:
            raise PlacementError(
                "timed() runs the dealer's part and the rest in this process, one after the other; it was called where "
                "calls run on a cluster. Call it outside of that block."
            )
        traced, tensors = self._trace((arguments, options))
        outputs, timing = traced.local.run_in_halves(tensors)
        return self._results(traced, outputs), timing

    def trace(self, *arguments: Any, **options: Any) -> Traced:
        """The graph for arguments of this form, traced if it was not yet."""
        return self._trace((arguments, options))[0]

    def cost(self, *arguments: Any, **options: Any) -> Cost:
        """Rounds and bytes of one call with arguments of this form; nothing is run."""
        return self.trace(*arguments, **options).cost

    def audit(self, *arguments: Any, **options: Any) -> Audit:
        """What each party's messages can tell it in one call with arguments of this form, proved from the graph."""
        return self.trace(*arguments, **options).audit

    def forget(self, chooser: Chooser) -> None:
        """Drops what was traced while this one was asked for variants: it decided then, and none will call it."""
        self._traced = {key: traced for key, traced in self._traced.items() if key[-1] is not chooser}

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        if instance is None:
            return self
        # Kept with the instance, by this very function: an overridden method is another one. A copy of the instance
        # has a copy of its __dict__, but is another `self`.
        kept = instance.__dict__.setdefault("_shareflow_functions", {})
        bound = kept.get((self, id(instance)))
        if bound is None:
            bound = kept[self, id(instance)] = Function(functools.partial(self.python_function, instance))
            bound.__name__ = getattr(self, "__name__", "function")  # type: ignore[attr-defined]
        return bound

    def _trace(self, call: Any) -> tuple[Traced, list[tf.Tensor]]:
        if not tf.executing_eagerly():
            raise RandomnessError(
                "A shareflow.function called inside a tf.function would use the same masks at each run. Call it "
                "outside, or decorate the outer function with shareflow.function instead."
            )
        leaves, shape = _flatten(call)
        key = (tuple(leaf.static for leaf in leaves), _frozen(shape), current_choices())
        if key not in self._traced:
            self._traced[key] = self._build(call, leaves, shape)
        return self._traced[key], [tensor for leaf in leaves for tensor in leaf.tensors]

    def _build(self, call: Any, leaves: list[_Leaf], shape: Any) -> Traced:
        began = time.perf_counter()
        results: list[_Leaf] = []
        result_shape: Any = None

        def body(*tensors: tf.Tensor) -> list[tf.Tensor]:
            nonlocal results, result_shape
            arguments, options = _pack(shape, leaves, list(tensors))
            returned = self.python_function(*arguments, **options)
            if isinstance(returned, tf.Operation):
                returned = None
            results, result_shape = _flatten(returned)
            outputs = []
            for leaf in results:
                for owner, tensor in zip(leaf.owners, leaf.tensors, strict=True):
                    if owner is None:
                        outputs.append(tf.identity(tensor))
                    else:
                        with owner:
                            outputs.append(tf.identity(tensor))
                leaf.tensors = []
            return outputs

        arguments = [
            (owner, tf.TensorSpec(tensor.shape, tensor.dtype))
            for leaf in leaves
            for owner, tensor in zip(leaf.owners, leaf.tensors, strict=True)
        ]
        program = build(body, arguments)
        # Variables and models given as arguments may be keyed by identity: they live as long as their graph.
        keep = [leaf.rebuild for leaf in leaves if not leaf.owners]
        return Traced(program, results, result_shape, keep, time.perf_counter() - began)

    @staticmethod
    def _results(traced: Traced, outputs: list[tf.Tensor]) -> Any:
        return _pack(traced.result_shape, traced.results, outputs)


def _frozen(shape: Any) -> Any:
    if isinstance(shape, dict):
        return tuple((key, _frozen(value)) for key, value in sorted(shape.items()))
    if isinstance(shape, (list, tuple)):
        return (type(shape).__name__, *(_frozen(item) for item in shape))
    return shape


def function(python_function: F) -> Function[F]:
    """Traces a Python function of private tensors to one graph, and runs that.

    It is traced once for each form of its arguments (shapes, scales, owners); Python loops are unrolled.
    Private tensors are given and returned as they are; arrays and TensorFlow tensors are public arguments;
    everything else is part of the program. Each call runs under an execution index of its own: no mask repeats.

    >>> @sf.function
    ... def predict(x):
    ...     return (x @ w).reveal("client")
    """
    return Function(python_function)
