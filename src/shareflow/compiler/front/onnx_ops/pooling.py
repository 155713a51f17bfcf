"""Pools over one to three axes, computed with channels last."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from shareflow.compiler.front.onnx_ops.call import Call, computes
from shareflow.compiler.front.onnx_ops.laid import Laid, public_tensor
from shareflow.compiler.front.onnx_ops.window import Window, full_pads, pad_rows, window


@computes("MaxPool")
def _max_pool(call: Call) -> Laid:
    if call.outputs > 1:
        raise call.refuse("also gives the places of maxima, which are private.", "Use MaxPool with one result.")
    x, at = call.last(0), _window(call)
    if any(n > 1 for n in at.dilations):
        return Laid(last=_dilated(call, x, at))
    rank = len(at.kernel)
    if rank == 1:
        return Laid(last=tf.squeeze(_max_2d(tf.expand_dims(x, 1), _widened(at)), 1))
    if rank == 2:
        return Laid(last=_max_2d(x, at))
    # Over volumes: within each slice, then through the slices.
    batch, depth, height, width, channels = x.shape
    inner = Window(at.kernel[1:], at.strides[1:], (1, 1), at.pads[1:])
    flat = _max_2d(tf.reshape(x, [batch * depth, height, width, channels]), inner)
    _, height, width, _ = flat.shape
    outer = Window((at.kernel[0], 1), (at.strides[0], 1), (1, 1), (at.pads[0], (0, 0)))
    lines = _max_2d(tf.reshape(flat, [batch, depth, height * width, channels]), outer)
    return Laid(last=tf.reshape(lines, [batch, lines.shape[1], height, width, channels]))


def _max_2d(x: tf.Tensor, at: Window) -> tf.Tensor:
    padding = at.named(x.shape[1:3])
    return tf.raw_ops.MaxPool(
        input=x,
        ksize=[1, *at.kernel, 1],
        strides=[1, *at.strides, 1],
        padding=padding,
        explicit_paddings=full_pads(at.pads) if padding == "EXPLICIT" else [],
    )


def _dilated(call: Call, x: tf.Tensor, at: Window) -> tf.Tensor:
    if any(sum(pair) for pair in at.pads):
        raise call.refuse("is dilated and padded.", "Leave the padding out, or the dilations.")
    ends = [n - (k - 1) * d for n, k, d in zip(x.shape[1:-1], at.kernel, at.dilations, strict=True)]
    parts = []
    for place in itertools.product(*map(range, at.kernel)):
        starts = [i * d for i, d in zip(place, at.dilations, strict=True)]
        cut = [slice(a, a + n, s) for a, n, s in zip(starts, ends, at.strides, strict=True)]
        whole = slice(None)
        parts.append(x[tuple([whole, *cut, whole])])
    return functools.reduce(tf.maximum, parts)


@computes("AveragePool", "LpPool")
def _average_pool(call: Call) -> Laid:
    x, at = call.last(0), _window(call)
    if any(n > 1 for n in at.dilations):
        raise call.refuse("is dilated.", "Use a depthwise convolution with equal weights.")
    squares = call.op == "LpPool"
    if squares:
        if call.get("p", 2) != 2:
            raise call.refuse(f"has p = {call.get('p')}.", "Use p = 2.")
        x = tf.square(x)
    padding = at.named(x.shape[1:-1])
    declared = _declared(call)
    counted = bool(call.get("count_include_pad", 0)) and not squares
    if padding == "VALID" or (padding == "SAME" and not counted and not squares):
        result = _mean(x, at, padding)
    else:
        result = _mean(tf.pad(x, pad_rows(at.pads)), at, "VALID")
        whole = int(np.prod(at.kernel))
        counts = _counts(x.shape[1:-1], at, declared if counted else None)
        if not squares and np.any(counts != whole):
            result = result * public_tensor((whole / counts[np.newaxis, ..., np.newaxis]).astype(x.dtype.name))
    if squares:
        result = tf.sqrt(result * tf.cast(int(np.prod(at.kernel)), x.dtype))
    return Laid(last=result)


def _mean(x: tf.Tensor, at: Window, padding: str) -> tf.Tensor:
    ksize, strides = [1, *at.kernel, 1], [1, *at.strides, 1]
    if len(at.kernel) == 1:
        ksize, strides = [1, 1, *at.kernel, 1], [1, 1, *at.strides, 1]
        return tf.squeeze(tf.nn.avg_pool2d(tf.expand_dims(x, 1), ksize, strides, padding), 1)
    pool = tf.nn.avg_pool2d if len(at.kernel) == 2 else tf.nn.avg_pool3d
    return pool(x, ksize, strides, padding)


def _counts(extents: Sequence[int], at: Window, declared: Sequence[tuple[int, int]] | None) -> np.ndarray:
    """How many places each window counts: those of the input, and the declared padding where that counts, too."""
    counts = np.ones(())
    for axis, n in enumerate(extents):
        before, after = at.pads[axis]
        begin, end = (before, before + n) if declared is None else (0, before + n + declared[axis][1])
        k, s = at.kernel[axis], at.strides[axis]
        starts = np.arange((before + n + after - k) // s + 1) * s
        here = np.minimum(starts + k, end) - np.maximum(starts, begin)
        counts = np.multiply.outer(counts, np.maximum(here, 1))
    return counts


def _declared(call: Call) -> list[tuple[int, int]]:
    rank = call.rank(0) - 2
    at = window(call, call.shape(0)[2:], call.get("kernel_shape"))
    return [at.pads[i] for i in range(rank)]


def _window(call: Call) -> Window:
    """The windows, where ceil_mode asks for it with more padding at the end."""
    places = call.shape(0)[2:]
    if not 1 <= len(places) <= 3:
        raise call.refuse(f"goes over {len(places)} axes.", "There are pools over one to three.")
    at = window(call, places, call.get("kernel_shape"))
    if not call.get("ceil_mode", 0):
        return at
    pads = []
    for n, k, s, d, (before, after) in zip(places, at.kernel, at.strides, at.dilations, at.pads, strict=True):
        reach = (k - 1) * d + 1
        windows = -(-(n + before + after - reach) // s) + 1
        # A window that would begin behind the input is none.
        if (windows - 1) * s >= n + before:
            windows -= 1
        pads.append((before, max((windows - 1) * s + reach - n - before, after)))
    return Window(at.kernel, at.strides, at.dilations, tuple(pads))


def _widened(at: Window) -> Window:
    return Window((1, *at.kernel), (1, *at.strides), (1, *at.dilations), ((0, 0), *at.pads))


@computes("GlobalAveragePool", "GlobalMaxPool")
def _global_pool(call: Call) -> Laid:
    rank = call.rank(0)
    reduce = tf.reduce_mean if call.op == "GlobalAveragePool" else tf.reduce_max
    if call.lies_last(0):
        return Laid(last=reduce(call.last(0), list(range(1, rank - 1)), keepdims=True))
    return Laid(reduce(call.tensor(0), list(range(2, rank)), keepdims=True))
