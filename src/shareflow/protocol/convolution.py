"""Convolutions along one and three axes, and transposed ones, made of a convolution along two.

Each function takes the two-dimensional convolution to use: the ring's kernel, or TensorFlow's on reals. That one gets
images [N, H, W, C], a filter [h, w, C / groups, O], and strides, padding, dilations and groups.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

Conv2D = Callable[..., tf.Tensor]
Numbers = tuple[int, ...]
Sides = tuple[tuple[int, int], ...]


def convolve(
    conv2d: Conv2D, x: tf.Tensor, w: tf.Tensor, *, strides: Numbers, padding: Sides, dilations: Numbers, groups: int
) -> tf.Tensor:
    """x [N, *extents, C] with w [*size, C / groups, O], along as many axes as there are strides: one, two or three."""
    place: dict[str, Any] = {"strides": strides, "padding": padding, "dilations": dilations, "groups": groups}
    if len(strides) == 2:
        return conv2d(x, w, **place)
    return (_conv1d if len(strides) == 1 else _conv3d)(conv2d, x, w, **place)


def _conv1d(
    conv2d: Conv2D, x: tf.Tensor, w: tf.Tensor, *, strides: Numbers, padding: Sides, dilations: Numbers, groups: int
) -> tf.Tensor:
    place = {"strides": (1, *strides), "padding": ((0, 0), *padding), "dilations": (1, *dilations)}
    return tf.squeeze(conv2d(x[:, tf.newaxis], w[tf.newaxis], groups=groups, **place), [1])


def _conv3d(
    conv2d: Conv2D, x: tf.Tensor, w: tf.Tensor, *, strides: Numbers, padding: Sides, dilations: Numbers, groups: int
) -> tf.Tensor:
    """The planes that one output plane sees become channels of one image: one convolution, no sums of results."""
    if any(padding[0]):
        x = tf.pad(x, ((0, 0), padding[0], (0, 0), (0, 0), (0, 0)))
    batch, depth, height, width, channels = x.shape
    planes, size, share, outputs = w.shape[0], w.shape[1:3], w.shape[3], w.shape[4]
    stride, step = strides[0], dilations[0]
    levels = (depth - (planes - 1) * step - 1) // stride + 1
    if planes > 1:
        # A group's channels stay together: [group, plane, channel].
        views = [every(x, i * step, levels, stride, axis=1) for i in range(planes)]
        x = tf.stack([tf.reshape(view, [batch, levels, height, width, groups, share]) for view in views], axis=5)
        w = tf.transpose(w, [1, 2, 0, 3, 4])
    else:
        x = every(x, 0, levels, stride, axis=1)
    image = tf.reshape(x, [batch * levels, height, width, planes * channels])
    window = tf.reshape(w, [*size, planes * share, outputs])
    place = {"strides": strides[1:], "padding": padding[1:], "dilations": dilations[1:], "groups": groups}
    result = conv2d(image, window, **place)
    return tf.reshape(result, [batch, levels, *result.shape[1:]])


def every(x: tf.Tensor, start: int, count: int, stride: int, axis: int) -> tf.Tensor:
    """``count`` entries along an axis. A gather copies them whole; a strided slice takes 15 times as long."""
    if count == x.shape[axis]:
        return x
    stop = start + (count - 1) * stride + 1
    if stride == 1:
        return x[(slice(None),) * axis + (slice(start, stop),)]
    return tf.gather(x, range(start, stop, stride), axis=axis)


# --- transposed -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Taps:
    """The places of a window that reach one or more phases of the result, along one axis.

    A convolution with stride s, dilation d and padding p has y[o] = sum_k x[o s + k d - p] w[k]. Its transpose has

        x[q s + r - p] = sum_k y[q - (k d - r) / s] w[k]        over the k with k d = r mod s:

    for each phase r a convolution of y with stride 1, whose taps are every ``step``-th of w. Nothing is multiplied
    by zeros that a stride would put in.
    """

    phases: Numbers  # r
    first: Numbers  # the smallest k of each phase
    count: int
    step: int  # between the k
    dilation: int  # between the places of y
    inside: tuple[int, int]  # the part of y that is seen
    padding: tuple[int, int]  # around that part

    def places(self, number: int) -> list[int]:
        """The k of one phase, turned around."""
        return [self.first[number] + i * self.step for i in reversed(range(self.count))]


@dataclass(frozen=True)
class _Axis:
    """One axis of a transposed convolution: ``rows`` of ``stride`` phases each, of which a part is the result."""

    stride: int
    begin: int
    extent: int
    rows: int
    taps: tuple[_Taps, ...]


def _axis(extent: int, given: int, window: int, stride: int, before: int, dilation: int) -> _Axis:
    """``extent`` of the result, ``given`` of y."""
    first, last = before // stride, (extent - 1 + before) // stride
    shared = math.gcd(stride, dilation)
    found: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for phase in range(stride):
        places = [k for k in range(window) if k * dilation % stride == phase]
        if places:
            # Phases that see the same places of y are one convolution with more outputs.
            found.setdefault((len(places), (places[0] * dilation - phase) // stride), []).append((phase, places[0]))
    taps = []
    for (count, offset), phases in found.items():
        begin, end = first - offset - (count - 1) * (dilation // shared), last - offset + 1
        inside = max(begin, 0), min(end, given)
        if inside[0] < inside[1]:
            numbers, firsts = zip(*phases, strict=True)
            sides = inside[0] - begin, end - inside[1]
            taps.append(_Taps(numbers, firsts, count, stride // shared, dilation // shared, inside, sides))
    return _Axis(stride, before - first * stride, extent, last - first + 1, tuple(taps))


def transpose(
    conv2d: Conv2D,
    y: tf.Tensor,
    w: tf.Tensor,
    *,
    extents: Numbers,
    strides: Numbers,
    padding: Sides,
    dilations: Numbers,
    groups: int,
) -> tf.Tensor:
    """The transpose of `convolve` as a linear map, as its gradient in x: [N, *extents, C].

    w [*size, C / groups, O] and y [N, *given, O] are those of the convolution: its filter and its result.
    """
    batch, share = y.shape[0], w.shape[-2]
    lines = zip(extents, y.shape[1:-1], w.shape[:-2], strides, padding, dilations, strict=True)
    axes = [_axis(extent, given, size, s, sides[0], d) for extent, given, size, s, sides, d in lines]
    rows = [axis.rows for axis in axes]
    results: dict[Numbers, tf.Tensor] = {}
    for taps in itertools.product(*(axis.taps for axis in axes)):
        numbers = list(itertools.product(*(range(len(tap.phases)) for tap in taps)))
        kernel = _turned(w, [[tap.places(n) for tap, n in zip(taps, each, strict=True)] for each in numbers], groups)
        seen = (slice(None), *(slice(*tap.inside) for tap in taps))
        together = convolve(
            conv2d,
            y[seen],
            kernel,
            strides=(1,) * len(axes),
            padding=tuple(tap.padding for tap in taps),
            dilations=tuple(tap.dilation for tap in taps),
            groups=groups,
        )
        apart = tf.reshape(together, [batch, *rows, groups, len(numbers), share])
        for i, number in enumerate(numbers):
            phases = tuple(tap.phases[n] for tap, n in zip(taps, number, strict=True))
            results[phases] = tf.reshape(apart[..., i, :], [batch, *rows, groups * share])
    nothing = None
    if len(results) < math.prod(strides):
        nothing = tf.zeros([batch, *rows, groups * share], y.dtype)
    ordered = [results.get(phases, nothing) for phases in itertools.product(*(range(s) for s in strides))]
    return _interleaved(ordered, axes)


def _turned(w: tf.Tensor, places: Sequence[Sequence[Sequence[int]]], groups: int) -> tf.Tensor:
    """Parts of w [*size, C / groups, O] as one filter from O to C for each of them.

    ``places`` are, for each part, those along each axis of w. Gives [*places, O / groups, groups * parts * C / groups].
    """
    *size, share, outputs = w.shape
    chosen = np.stack([np.ravel_multi_index(np.ix_(*part), size) for part in places], axis=-1)
    # Whole matrices are copied; TensorFlow's slices with steps take many times as long.
    parts = tf.gather(tf.reshape(w, [math.prod(size), share, groups, outputs // groups]), chosen)
    rank = len(size)
    turned = tf.transpose(parts, [*range(rank), rank + 3, rank + 2, rank, rank + 1])
    return tf.reshape(turned, [*chosen.shape[:-1], outputs // groups, groups * len(places) * share])


def _interleaved(parts: Sequence[tf.Tensor], axes: Sequence[_Axis]) -> tf.Tensor:
    """Phases, those of the last axis fastest, as one tensor [N, *extents, C]."""
    parts = list(parts)
    for number, axis in reversed(list(enumerate(axes, 1))):
        joined = []
        for i in range(0, len(parts), axis.stride):
            part = parts[i]
            if axis.stride > 1:
                stacked = tf.stack(parts[i : i + axis.stride], axis=number + 1)
                shape = part.shape.as_list()
                part = tf.reshape(stacked, [*shape[:number], axis.rows * axis.stride, *shape[number + 1 :]])
            if part.shape[number] != axis.extent:
                key = [slice(None)] * number + [slice(axis.begin, axis.begin + axis.extent)]
                part = part[tuple(key)]
            joined.append(part)
        parts = joined
    return parts[0]
