"""Padding: more elements around an array, of a public value or mirrored."""

from __future__ import annotations

from typing import Any

import numpy as np

from shareflow.errors import EncodingError, ShapeError
from shareflow.protocol import op as ops
from shareflow.protocol.operand import private_operand
from shareflow.protocol.tensor import PrivateTensor

_MODES = ("CONSTANT", "REFLECT", "SYMMETRIC")


def pad(x: Any, paddings: Any, mode: str = "CONSTANT", value: float = 0.0) -> PrivateTensor:
    """More elements before and after along each axis, as tf.pad. Local.

    Args:
        x: private.
        paddings: one pair (before, after) an axis.
        mode: 'CONSTANT' puts the public ``value`` there; 'REFLECT' mirrors x without its edge, 'SYMMETRIC' with it.
        value: for 'CONSTANT'.

    Raises:
        ShapeError: the pairs are not those of the axes, or a mirror would reach beyond x.
        EncodingError: the value is not a finite number.
    """
    x = private_operand(x)
    kind = str(mode).upper()
    if kind not in _MODES:
        raise ShapeError(f"The mode of a padding is one of {', '.join(_MODES)}; got {mode!r}.")
    pairs = _pairs(paddings, x.ndim)
    if kind == "CONSTANT":
        return _constant(x, pairs, value)
    for extent, (before, after) in zip(x.shape, pairs, strict=True):
        most = extent - (kind == "REFLECT")
        if max(before, after) > max(most, 0):
            raise ShapeError(
                f"{kind} padding of an axis of {extent} is of {max(most, 0)} elements at most; got {before}, {after}. "
                "Pad with a constant, or in several steps."
            )
    return x.linear(ops.PAD, paddings=pairs, mode=kind)


def _constant(x: PrivateTensor, pairs: list[tuple[int, int]], value: float) -> PrivateTensor:
    if not isinstance(value, (int, float, np.number)) or not np.isfinite(value):
        raise EncodingError(f"Padding is with a finite number; got {value!r}. For a maximum see max_pool2d's padding.")
    padded = x.linear(ops.PAD, paddings=pairs)
    if not value or not any(map(any, pairs)):
        return padded
    # 1 outside: axes without padding need no entries of their own.
    inside = np.zeros([extent if any(pair) else 1 for extent, pair in zip(x.shape, pairs, strict=True)])
    return padded + float(value) * np.pad(inside, pairs, constant_values=1.0)


def _pairs(paddings: Any, rank: int) -> list[tuple[int, int]]:
    try:
        array = np.asarray(paddings)
    except ValueError:
        array = np.zeros(0)
    if array.shape != (rank, 2) and not (rank == 0 and array.size == 0):
        raise ShapeError(f"Padding is one pair of counts for each of {rank} axes; got {paddings}.")
    if rank and (array.dtype.kind not in "iu" or np.any(array < 0)):
        raise ShapeError(f"Padding is of whole numbers of at least 0; got {paddings}. Cut off by slicing.")
    return [(int(before), int(after)) for before, after in array.reshape(rank, 2)]
