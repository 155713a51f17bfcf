"""Where windows stand: TensorFlow's SAME and VALID as explicit padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from shareflow.errors import ShapeError

Pair = tuple[int, int]
Padding = tuple[Pair, Pair]


def pair(value: Any, name: str) -> Pair:
    """A number for both directions, or one for each.

    Raises:
        ShapeError: not one or two whole numbers of at least 1.
    """
    numbers = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(numbers) != 2 or any(not isinstance(n, (int, np.integer)) or isinstance(n, bool) or n < 1 for n in numbers):
        raise ShapeError(f"{name} is a whole number of at least 1, or two of them; got {value!r}.")
    return int(numbers[0]), int(numbers[1])


def explicit_padding(
    padding: str | Sequence[Sequence[int]], shape: tuple[int, ...], size: Pair, strides: Pair, dilations: Pair = (1, 1)
) -> Padding:
    """((top, bottom), (left, right)) for an image batch [N, H, W, C].

    Raises:
        ShapeError: the image is not such a batch, the padding is unknown, or the window does not fit.
    """
    if len(shape) != 4:
        raise ShapeError(f"An image batch has the shape [N, H, W, C]; got {shape}. Add the axes that are missing.")
    reach = [(k - 1) * d + 1 for k, d in zip(size, dilations, strict=True)]
    if isinstance(padding, str):
        kind = padding.upper()
        if kind == "VALID":
            sides = [(0, 0), (0, 0)]
        elif kind == "SAME":
            sides = []
            for extent, window, stride in zip(shape[1:3], reach, strides, strict=True):
                missing = max((-(-extent // stride) - 1) * stride + window - extent, 0)
                sides.append((missing // 2, missing - missing // 2))
        else:
            raise ShapeError(f"Padding is 'SAME', 'VALID' or ((top, bottom), (left, right)); got {padding!r}.")
    else:
        sides = [(int(a), int(b)) for a, b in padding]
    for extent, window, (before, after) in zip(shape[1:3], reach, sides, strict=True):
        if before < 0 or after < 0 or extent + before + after < window:
            raise ShapeError(
                f"A window of {window} (dilated) does not fit an extent of {extent} with padding {before}, {after}. "
                "Use a smaller window, or padding='SAME'."
            )
    return sides[0], sides[1]
