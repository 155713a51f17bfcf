"""Quotients: of fixed point, and of whole numbers exactly."""

from __future__ import annotations

from typing import Any

import numpy as np

from shareflow.compiler.graph import Node
from shareflow.compiler.lower.handler import Value, fine, is_whole, lowers
from shareflow.nn import elementary, rounding, selection
from shareflow.protocol.compare import at_least
from shareflow.protocol.tensor import PrivateTensor


def quotient(x: Value, y: Value) -> Any:
    """x / y, of which one is private."""
    if isinstance(y, PrivateTensor):
        return elementary.divide(fine(x) if isinstance(x, PrivateTensor) else x, fine(y))
    return x / y


def floored_quotient(x: Any, y: Any) -> Any:
    """The largest whole number q with q y <= x for y > 0 (q y >= x for y < 0), exactly for values as encoded.

    An approximate quotient is at most one off, which its remainder tells: one opening compares it with 0 and with y.
    """
    if isinstance(y, PrivateTensor):
        # As x / y = (s x) / |y| for the sign s of y.
        y = y.reusable() if y.protocol is not None else y
        positive = selection.where(y >= 0, 1, -1)
        x, y = positive * x, positive * y
    else:
        y = np.asarray(y, np.float64)
        x, y = x * np.sign(y), np.abs(y)
    q = rounding.floor(fine(quotient(x, y)))
    rest = x - y * q
    if isinstance(y, PrivateTensor):
        return q - (rest < 0) + (rest >= y)
    (below,) = at_least(rest, (0.0,))
    return q + below - 1 + (rest - y >= 0)


def truncated_quotient(x: Value, y: Value) -> Value:
    """x / y without what stands behind the point, toward 0."""
    negative = _signs(x) * _signs(y)
    return floored_quotient(_size(x), _size(y)) * negative


def _signs(value: Value) -> Value:
    return selection.where(value >= 0, 1, -1) if isinstance(value, PrivateTensor) else np.where(value >= 0, 1, -1)


def _size(value: Value) -> Value:
    return selection.absolute(value) if isinstance(value, PrivateTensor) else np.abs(value)


@lowers("RealDiv")
def _divide(node: Node, x: Value, y: Value) -> Value:
    return quotient(x, y)


@lowers("Div", "TruncateDiv")
def _truncate_divide(node: Node, x: Value, y: Value) -> Value:
    # C's division: between whole numbers toward 0.
    return truncated_quotient(x, y) if is_whole(node.dtypes[0]) else quotient(x, y)


@lowers("DivNoNan", "Xdivy")
def _divide_or_zero(node: Node, x: Value, y: Value) -> Value:
    # 0 where the divisor is; for Xdivy only 0 / 0 has a meaning there.
    if not isinstance(y, PrivateTensor):
        some = np.asarray(y != 0)
        return quotient(x, y) if some.all() else quotient(x, np.where(some, y, 1)) * some.astype(np.int64)
    none = fine(y) == 0
    return quotient(x, y + none) * ~none


@lowers("Reciprocal", "Inv")
def _reciprocal(node: Node, x: PrivateTensor) -> Value:
    return elementary.reciprocal(fine(x))


@lowers("FloorDiv")
def _floor_divide(node: Node, x: Value, y: Value) -> Value:
    return floored_quotient(x, y)


@lowers("FloorMod")
def _floor_modulo(node: Node, x: Value, y: Value) -> Value:
    return x - floored_quotient(x, y) * y


@lowers("Mod", "TruncateMod")
def _truncate_modulo(node: Node, x: Value, y: Value) -> Value:
    return x - truncated_quotient(x, y) * y
