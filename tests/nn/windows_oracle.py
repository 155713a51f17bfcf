"""Convolutions and their transposes tap by tap in NumPy: what the tests of convolutions compare with.

They work on float64 and on int64 that wraps, along any number of axes, in groups, and share no code with TensorFlow.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np


def same_sides(extents: Any, size: Any, strides: Any, dilations: Any) -> tuple[tuple[int, int], ...]:
    """TensorFlow's SAME."""
    sides = []
    for n, k, s, d in zip(extents, size, strides, dilations, strict=True):
        missing = max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
        sides.append((missing // 2, missing - missing // 2))
    return tuple(sides)


def _taps(extents: Any, size: Any, strides: Any, sides: Any, dilations: Any) -> Any:
    """The result's extents, and for each tap its place in the window and the slices of the padded image."""
    lines = list(zip(extents, size, strides, sides, dilations, strict=True))
    out = tuple((n + sum(p) - (k - 1) * d - 1) // s + 1 for n, k, s, p, d in lines)
    places = []
    for tap in itertools.product(*(range(k) for k in size)):
        steps = zip(tap, out, lines, strict=True)
        places.append((tap, tuple(slice(i * d, i * d + (m - 1) * s + 1, s) for i, m, (_, _, s, _, d) in steps)))
    return out, places


def convolution(x: Any, w: Any, strides: Any, sides: Any, dilations: Any, groups: int = 1) -> np.ndarray:
    """x [N, *extents, C] with w [*size, C / groups, O]."""
    out, places = _taps(x.shape[1:-1], w.shape[:-2], strides, sides, dilations)
    padded = np.pad(x, [(0, 0), *sides, (0, 0)])
    channels, outputs = x.shape[-1] // groups, w.shape[-1] // groups
    y = np.zeros((x.shape[0], *out, w.shape[-1]), x.dtype)
    for tap, place in places:
        seen = padded[(slice(None), *place)]
        for g in range(groups):
            own = slice(g * outputs, (g + 1) * outputs)
            y[..., own] += seen[..., g * channels : (g + 1) * channels] @ w[tap][:, own]
    return y


def transposed(y: Any, w: Any, extents: Any, strides: Any, sides: Any, dilations: Any, groups: int = 1) -> np.ndarray:
    """What `convolution` is the transpose of: y [N, *given, O] with the same w -> [N, *extents, C]."""
    given, places = _taps(extents, w.shape[:-2], strides, sides, dilations)
    assert given == y.shape[1:-1]
    channels, outputs = w.shape[-2], w.shape[-1] // groups
    padded = [n + sum(p) for n, p in zip(extents, sides, strict=True)]
    x = np.zeros((y.shape[0], *padded, groups * channels), y.dtype)
    for tap, place in places:
        for g in range(groups):
            own = slice(g * outputs, (g + 1) * outputs)
            at = (slice(None), *place, slice(g * channels, (g + 1) * channels))
            x[at] += y[..., own] @ w[tap][:, own].T
    inside = tuple(slice(p[0], p[0] + n) for p, n in zip(sides, extents, strict=True))
    return x[(slice(None), *inside)]
