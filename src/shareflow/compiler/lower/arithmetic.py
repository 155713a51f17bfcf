"""Sums, products, quotients and comparisons, with broadcasting."""

from __future__ import annotations

import functools
import operator
from typing import Any

import numpy as np

from shareflow.compiler.graph import Node
from shareflow.compiler.lower.handler import Value, lowers
from shareflow.nn import elementary, selection
from shareflow.protocol.tensor import PrivateTensor


def _operator(compute: Any) -> Any:
    def handler(node: Node, x: Value, y: Value) -> Value:
        return compute(x, y)

    return handler


for _ops, _compute in {
    ("Add", "AddV2"): operator.add,
    ("Sub",): operator.sub,
    ("Mul", "MulNoNan"): operator.mul,
    ("GreaterEqual",): operator.ge,
    ("Greater",): operator.gt,
    ("LessEqual",): operator.le,
    ("Less",): operator.lt,
    ("Equal",): operator.eq,
    ("NotEqual",): operator.ne,
    ("LogicalAnd",): operator.and_,
    ("LogicalOr",): operator.or_,
    ("Maximum",): selection.maximum,
    ("Minimum",): selection.minimum,
}.items():
    lowers(*_ops)(_operator(_compute))


@lowers("AddN")
def _add_n(node: Node, *values: Value) -> Value:
    return functools.reduce(operator.add, values)


@lowers("Neg")
def _negate(node: Node, x: PrivateTensor) -> Value:
    return -x


@lowers("LogicalNot")
def _not(node: Node, x: PrivateTensor) -> Value:
    return ~x


@lowers("Square")
def _square(node: Node, x: PrivateTensor) -> Value:
    return x * x


@lowers("SquaredDifference")
def _squared_difference(node: Node, x: Value, y: Value) -> Value:
    difference = x - y
    return difference * difference


@lowers("RealDiv", "Div", "DivNoNan", "Xdivy")
def _divide(node: Node, x: Value, y: Value) -> Value:
    return elementary.divide(x, y) if isinstance(y, PrivateTensor) else x / y


@lowers("Reciprocal", "Inv")
def _reciprocal(node: Node, x: PrivateTensor) -> Value:
    return elementary.reciprocal(x)


@lowers("Pow")
def _power(node: Node, x: Value, y: Value) -> Value:
    if not isinstance(y, PrivateTensor) and y.size == 1:
        exponent = float(y.reshape(()))
        whole = round(exponent)
        if exponent == whole and whole >= 1:
            return x**whole
        if exponent == 0.5:
            return elementary.sqrt(x)
        if exponent == -0.5:
            return elementary.rsqrt(x)
        if exponent == -1:
            return elementary.reciprocal(x)
    return elementary.power(x, y)


@lowers("SelectV2", "Select")
def _select(node: Node, condition: Value, x: Value, y: Value) -> Value:
    if not isinstance(condition, PrivateTensor):
        mask = np.broadcast_to(condition, node.shapes[0]).astype(np.float64)
        return x * mask + y * (1 - mask)
    return selection.where(condition, x, y)
