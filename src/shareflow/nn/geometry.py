"""Where windows stand: TensorFlow's SAME and VALID as explicit padding, along any number of axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from shareflow.errors import ShapeError

Pair = tuple[int, int]
Padding = tuple[Pair, Pair]
Sides = tuple[Pair, ...]

_COUNTS = {1: "one", 2: "two", 3: "three"}


def each_direction(value: Any, axes: int, name: str) -> tuple[int, ...]:
    """A number for all directions, or one for each of them.

    Raises:
        ShapeError: not that many whole numbers of at least 1.
    """
    numbers = tuple(value) if isinstance(value, (tuple, list)) else (value,) * axes
    if len(numbers) != axes or any(
        not isinstance(n, (int, np.integer)) or isinstance(n, bool) or n < 1 for n in numbers
    ):
        several = f", or {_COUNTS[axes]} of them" if axes > 1 else ""
        raise ShapeError(f"{name} is a whole number of at least 1{several}; got {value!r}.")
    return tuple(int(n) for n in numbers)


def pair(value: Any, name: str) -> Pair:
    """A number for both directions, or one for each.

    Raises:
        ShapeError: not one or two whole numbers of at least 1.
    """
    return cast(Pair, each_direction(value, 2, name))


def reach(size: Sequence[int], dilations: Sequence[int]) -> tuple[int, ...]:
    """How far a dilated window goes along each axis."""
    return tuple((k - 1) * d + 1 for k, d in zip(size, dilations, strict=True))


def window_sides(
    padding: str | Sequence[Sequence[int]],
    extents: Sequence[int],
    size: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> Sides:
    """Zeros (before, after) along each axis that a window moves on; ``extents`` are those axes' lengths.

    Raises:
        ShapeError: the padding is unknown, or the window does not fit.
    """
    windows = reach(size, dilations)
    if isinstance(padding, str):
        kind = padding.upper()
        if kind == "VALID":
            sides = [(0, 0)] * len(extents)
        elif kind == "SAME":
            sides = []
            for extent, window, stride in zip(extents, windows, strides, strict=True):
                missing = max((-(-extent // stride) - 1) * stride + window - extent, 0)
                sides.append((missing // 2, missing - missing // 2))
        else:
            raise ShapeError(f"Padding is 'SAME', 'VALID' or {_pairs(len(extents))}; got {padding!r}.")
    else:
        try:
            sides = [(int(before), int(after)) for before, after in padding]
        except (TypeError, ValueError):
            sides = []
        if len(sides) != len(extents):
            raise ShapeError(f"Padding is 'SAME', 'VALID' or {_pairs(len(extents))}; got {padding!r}.")
    for extent, window, (before, after) in zip(extents, windows, sides, strict=True):
        if before < 0 or after < 0 or window < 1 or extent + before + after < window:
            raise ShapeError(
                f"A window of {window} (dilated) does not fit an extent of {extent} with padding {before}, {after}. "
                "Use a smaller window, or padding='SAME'."
            )
    return tuple(sides)


def _pairs(axes: int) -> str:
    named = {1: "((before, after),)", 2: "((top, bottom), (left, right))"}
    return named.get(axes, f"{_COUNTS.get(axes, axes)} pairs (before, after)")


def explicit_padding(
    padding: str | Sequence[Sequence[int]], shape: tuple[int, ...], size: Pair, strides: Pair, dilations: Pair = (1, 1)
) -> Padding:
    """((top, bottom), (left, right)) for an image batch [N, H, W, C].

    Raises:
        ShapeError: the image is not such a batch, the padding is unknown, or the window does not fit.
    """
    if len(shape) != 4:
        raise ShapeError(f"An image batch has the shape [N, H, W, C]; got {shape}. Add the axes that are missing.")
    return cast(Padding, window_sides(padding, shape[1:3], size, strides, dilations))
