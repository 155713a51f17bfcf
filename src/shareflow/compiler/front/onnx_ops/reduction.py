"""Sums, means and extremes along axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from shareflow.compiler.front.onnx_ops.call import Call, Value, computes, positive
from shareflow.compiler.front.onnx_ops.laid import Laid

_REDUCTIONS: dict[str, Callable[..., tf.Tensor]] = {
    "ReduceSum": tf.reduce_sum,
    "ReduceMean": tf.reduce_mean,
    "ReduceMax": tf.reduce_max,
    "ReduceMin": tf.reduce_min,
    "ReduceProd": tf.reduce_prod,
    "ReduceSumSquare": lambda x, axes, keepdims: tf.reduce_sum(tf.square(x), axes, keepdims),
    "ReduceL1": lambda x, axes, keepdims: tf.reduce_sum(tf.abs(x), axes, keepdims),
    "ReduceL2": lambda x, axes, keepdims: tf.sqrt(tf.reduce_sum(tf.square(x), axes, keepdims)),
    "ReduceLogSum": lambda x, axes, keepdims: tf.math.log(tf.reduce_sum(x, axes, keepdims)),
    "ReduceLogSumExp": lambda x, axes, keepdims: tf.reduce_logsumexp(x, axes, keepdims),
}


@computes(*_REDUCTIONS)
def _reduce(call: Call) -> Value:
    function = _REDUCTIONS[call.op]
    rank = call.rank(0)
    axes = call.numbers_or("axes", 1, "axes")
    kept = bool(call.get("keepdims", 1))
    if not axes:
        if call.get("noop_with_empty_axes", 0):
            return call.value(0)
        axes = list(range(rank))
    axes = [positive(axis, rank, call) for axis in axes]
    if call.lies_last(0) and rank > 2:
        places = [0, rank - 1, *range(1, rank - 1)]
        inside = [places[axis] for axis in axes]
        if kept:
            return Laid(last=function(call.last(0), inside, True))
        if set(axes) >= set(range(2, rank)):
            # Nothing is left between batch and channels.
            return Laid(function(call.last(0), inside, False))
    return Laid(function(call.tensor(0), axes, kept))


@computes("ArgMax", "ArgMin")
def _extreme(call: Call) -> tf.Tensor:
    x, axis = call.tensor(0), call.axis(0, 0)
    function: Callable[..., Any] = tf.argmax if call.op == "ArgMax" else tf.argmin
    if call.get("select_last_index", 0):
        found = x.shape[axis] - 1 - function(tf.reverse(x, [axis]), axis)
    else:
        found = function(x, axis)
    return tf.expand_dims(found, axis) if call.get("keepdims", 1) else found


@computes("TopK")
def _top_k(call: Call) -> tuple[tf.Tensor, tf.Tensor]:
    x, axis = call.tensor(0), call.axis(0, -1)
    count = call.numbers(1, "a number")[0]
    last = len(x.shape) - 1
    moved = x if axis == last else _swapped(x, axis, last)
    if call.get("largest", 1):
        values, places = tf.math.top_k(moved, count)
    else:
        values, places = tf.math.top_k(-moved, count)
        values = -values
    if axis != last:
        values, places = _swapped(values, axis, last), _swapped(places, axis, last)
    return values, tf.cast(places, tf.int64)


def _swapped(x: tf.Tensor, one: int, other: int) -> tf.Tensor:
    order = list(range(len(x.shape)))
    order[one], order[other] = other, one
    return tf.transpose(x, order)
