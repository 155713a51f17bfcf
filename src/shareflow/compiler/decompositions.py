"""Ops that are read as several simpler ones: passes see them, and a second result that nobody needs costs nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from shareflow.compiler.graph import Builder, Output

Decomposition = Callable[..., Sequence[Output]]
DECOMPOSITIONS: dict[str, Decomposition] = {}


def _reads(*ops: str) -> Callable[[Decomposition], Decomposition]:
    def register(function: Decomposition) -> Decomposition:
        DECOMPOSITIONS.update(dict.fromkeys(ops, function))
        return function

    return register


def _last(build: Builder, x: Output) -> Output:
    return build.constant([len(x.shape) - 1], "int32")


def _cast(build: Builder, x: Output, dtype: str) -> Output:
    return Output(build.node("Cast", [x], {"DstT": dtype, "Truncate": False}))


@_reads("SoftmaxCrossEntropyWithLogits")
def _cross_entropy(build: Builder, attributes: Mapping[str, Any], scores: Output, labels: Output) -> Sequence[Output]:
    # -sum of labels * log_softmax; the gradient is softmax - labels.
    weighted = build("Mul", labels, build("LogSoftmax", scores))
    loss = build("Neg", build("Sum", weighted, _last(build, weighted), keep_dims=False))
    return [loss, build("Sub", build("Softmax", scores), labels)]


@_reads("SparseSoftmaxCrossEntropyWithLogits")
def _sparse_cross_entropy(
    build: Builder, attributes: Mapping[str, Any], scores: Output, labels: Output
) -> Sequence[Output]:
    return _cross_entropy(build, attributes, scores, _one_hot(build, labels, scores.shape[-1], scores.dtype))


def _one_hot(build: Builder, places: Output, depth: int, dtype: str) -> Output:
    on, off = (build.constant(n, dtype) for n in (1, 0))
    return build("OneHot", places, build.constant(depth, "int32"), on, off, axis=-1)


@_reads("InTopKV2", "InTopK")
def _in_top_k(
    build: Builder, attributes: Mapping[str, Any], scores: Output, targets: Output, *count: Output
) -> Sequence[Output]:
    # Fewer than k scores are above the target's.
    k = count[0] if count else build.constant(attributes["k"], "int32")
    own = build("Mul", scores, _one_hot(build, targets, scores.shape[-1], scores.dtype))
    target = build("Sum", own, _last(build, own), keep_dims=True)
    above = _cast(build, build("Greater", scores, target), "int32")
    return [build("Less", build("Sum", above, _last(build, above), keep_dims=False), _cast(build, k, "int32"))]


@_reads("NthElement")
def _nth_element(build: Builder, attributes: Mapping[str, Any], x: Output, n: Output) -> Sequence[Output]:
    count = build("AddV2", n, build.constant(1, "int32"))
    if n.constant is not None:
        count = build.constant(int(n.constant) + 1, "int32")
    values = x if attributes["reverse"] else build("Neg", x)
    largest = Output(build.node("TopKV2", [values, count], {"sorted": True}))
    axis = len(x.shape) - 1
    last = Output(build.node("GatherV2", [largest, n, build.constant(axis, "int32")], {"batch_dims": 0}))
    return [last if attributes["reverse"] else build("Neg", last)]


@_reads("DenseBincount")
def _count(
    build: Builder, attributes: Mapping[str, Any], values: Output, size: Output, weights: Output
) -> Sequence[Output]:
    ones = _one_hot(build, values, int(np.asarray(size.constant)), weights.dtype)
    if weights.shape != (0,):
        shape = build.constant([*values.shape, 1], "int32")
        ones = build("Mul", ones, build("Reshape", weights, shape))
    axis = build.constant([len(values.shape) - 1], "int32")
    if not attributes["binary_output"]:
        return [build("Sum", ones, axis, keep_dims=False)]
    return [build("Max", ones, axis, keep_dims=False)]


@_reads("LeftShift")
def _left_shift(build: Builder, attributes: Mapping[str, Any], x: Output, by: Output) -> Sequence[Output]:
    return [build("Mul", x, build.constant(1 << np.asarray(by.constant, np.int64), x.dtype))]


@_reads("RightShift")
def _right_shift(build: Builder, attributes: Mapping[str, Any], x: Output, by: Output) -> Sequence[Output]:
    return [build("FloorDiv", x, build.constant(1 << np.asarray(by.constant, np.int64), x.dtype))]


@_reads("FakeQuantWithMinMaxVars", "FakeQuantWithMinMaxVarsPerChannel")
def _fake_quantised(
    build: Builder, attributes: Mapping[str, Any], x: Output, low: Output, high: Output
) -> Sequence[Output]:
    """Steps of a range that is the owner's: what follows from the range alone it computes in plaintext."""
    first, last = float(attributes["narrow_range"]), float(2 ** attributes["num_bits"] - 1)
    ends = [build.constant(n, "float32") for n in (first, last)]
    half = build.constant(0.5, "float32")
    step = build("Mul", build("Sub", high, low), build.constant(1 / (last - first), "float32"))
    # TensorFlow moves the range so that 0 is one of its steps.
    zero = build("Floor", build("AddV2", build("Sub", ends[0], build("RealDiv", low, step)), half))
    zero = build("Minimum", build("Maximum", zero, ends[0]), ends[1])
    bottom, top = (build("Mul", build("Sub", end, zero), step) for end in ends)
    kept = build("Maximum", build("Minimum", x, top), bottom)
    scaled = build("Mul", build("Sub", kept, bottom), build("Reciprocal", step))
    return [build("AddV2", build("Mul", build("Floor", build("AddV2", scaled, half)), step), bottom)]
