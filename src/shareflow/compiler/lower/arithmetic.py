"""Sums, products, powers, comparisons, logic and choices, with broadcasting."""

from __future__ import annotations

import functools
import operator
from typing import Any

import numpy as np

from shareflow.compiler.graph import PARAMETER, Node
from shareflow.compiler.lower.handler import Value, as_bits, fine, first_shared, is_whole, lowers, refuse
from shareflow.nn import elementary, selection
from shareflow.protocol.arithmetic import stack
from shareflow.protocol.compare import at_least
from shareflow.protocol.tensor import PrivateTensor

# Public exponents that differ, up to so many, are taken one by one.
_MOST_EXPONENTS = 4
_LARGEST_EXPONENT = 64


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
}.items():
    lowers(*_ops)(_operator(_compute))


@lowers("Maximum", "Minimum")
def _extreme(node: Node, x: Any, y: Any) -> Value:
    compute, sign = (selection.maximum, 1) if node.op == "Maximum" else (selection.minimum, -1)
    private, limits = (x, y) if isinstance(x, PrivateTensor) else (y, x)
    if isinstance(limits, PrivateTensor) or private.protocol is None:
        return compute(x, y)
    # What no value that is encoded reaches limits nothing, infinity too.
    most = min(private.protocol.fixed_point.limit, 2.0 ** (62 - private.fractional_bits))
    beyond = sign * limits < -most
    if np.all(beyond):
        return private.broadcast_to(node.shapes[0])
    return compute(private, np.where(beyond, -sign * most, limits) if np.any(beyond) else limits)


@lowers("AddN", "AccumulateNV2")
def _add_n(node: Node, *values: Value) -> Value:
    return functools.reduce(operator.add, values)


@lowers("Neg")
def _negate(node: Node, x: PrivateTensor) -> Value:
    return -x


@lowers("Square")
def _square(node: Node, x: PrivateTensor) -> Value:
    return x * x


@lowers("SquaredDifference")
def _squared_difference(node: Node, x: Value, y: Value) -> Value:
    difference = x - y
    return difference * difference


@lowers("Cross")
def _cross(node: Node, x: Value, y: Value) -> Value:
    def turned(value: Value, order: list[int]) -> Value:
        return value.take(order, value.ndim - 1)

    first, second = [1, 2, 0], [2, 0, 1]
    return turned(x, first) * turned(y, second) - turned(x, second) * turned(y, first)


@lowers("Xlogy", "Xlog1py")
def _times_log(node: Node, x: Value, y: Value) -> Value:
    more = 1 if node.op == "Xlog1py" else 0
    if isinstance(y, PrivateTensor):
        return elementary.log(fine(y) + more) * x
    # 0 log 0 is 0, and nothing else has a meaning there.
    values = np.asarray(y, np.float64) + more
    if np.any(values < 0):
        raise refuse(node, "the logarithm of a negative number is none.", "Clip the second operand at 0.")
    return x * np.log(np.where(values == 0, 1, values))


# --- powers


@lowers("Pow")
def _power(node: Node, x: Any, y: Value) -> Value:
    whole = is_whole(node.dtypes[0])
    if isinstance(y, PrivateTensor):
        if whole:
            raise refuse(node, "a private exponent of whole numbers is not there.", "Cast to float, and back.")
        return _power_of_private(node, x, y)
    x = x if whole else fine(x)
    exponents = np.unique(np.asarray(y, np.float64))
    if len(exponents) == 1:
        result = _one_power(x, float(exponents[0]))
        return result.broadcast_to(node.shapes[0]) if tuple(result.shape) != node.shapes[0] else result
    if len(exponents) <= _MOST_EXPONENTS or all(_is_small(e) for e in exponents):
        terms = [_one_power(x, float(e)) * (y == e).astype(np.int64) for e in exponents]
        return functools.reduce(operator.add, terms)
    return elementary.exp((elementary.log(x) * np.asarray(y, np.float64)).ready())


def _is_small(exponent: float) -> bool:
    return exponent == round(exponent) and 0 <= exponent <= _LARGEST_EXPONENT


def _one_power(x: PrivateTensor, exponent: float) -> PrivateTensor:
    whole = round(exponent)
    if exponent == whole:
        if whole == 0:
            return x * 0 + 1
        if whole == 1:
            return x
        if whole < 0:
            return elementary.reciprocal(fine(x**-whole))
        return x**whole
    return elementary.power(x, exponent)


def _power_of_private(node: Node, x: Value, y: PrivateTensor) -> Value:
    """x^y = e^(y log x), x > 0."""
    if isinstance(x, PrivateTensor):
        exponent = node.inputs[1].node
        if exponent.op == PARAMETER and exponent.attributes.get("kind") == "array":
            raise refuse(
                node,
                "an array of exponents in the code is the owner's, and a private power is right for positive bases.",
                "Raise to single numbers, and join the results; or keep the exponents in a variable.",
            )
        return elementary.exp((fine(y) * elementary.log(fine(x))).ready())
    base = np.asarray(x, np.float64)
    if np.any(base < 0):
        raise refuse(node, "a negative base has no private power.", "Give its size, and the sign by another way.")
    # 0^y is 0 for y > 0.
    power = elementary.exp((fine(y) * np.log(np.where(base == 0, 1, base))).ready())
    return power * (base > 0).astype(np.int64) if np.any(base == 0) else power


# --- comparisons and logic


@lowers("Equal")
def _equal(node: Node, x: Value, y: Value) -> Value:
    return ~_differ(node, x, y)


@lowers("NotEqual")
def _not_equal(node: Node, x: Value, y: Value) -> Value:
    return _differ(node, x, y)


def _differ(node: Node, x: Any, y: Any) -> Any:
    if node.inputs[0].dtype == "bool":
        left, right = _both_bits(x, y)
        return left ^ right
    return x != y


@lowers("ApproximateEqual")
def _nearly_equal(node: Node, x: Value, y: Value) -> Value:
    return selection.absolute(x - y) < node.attributes["tolerance"]


@lowers("LogicalAnd")
def _and(node: Node, x: Value, y: Value) -> Value:
    left, right = _both_bits(x, y)
    return left & right


@lowers("LogicalOr")
def _or(node: Node, x: Value, y: Value) -> Value:
    left, right = _both_bits(x, y)
    return left | right


@lowers("LogicalNot")
def _not(node: Node, x: PrivateTensor) -> Value:
    return ~as_bits(x)


def _both_bits(x: Value, y: Value) -> tuple[Value, Value]:
    return as_bits(x), as_bits(y)


@lowers("IsFinite", "IsInf", "IsNan")
def _is_number(node: Node, x: PrivateTensor) -> Value:
    # Fixed point has numbers alone.
    return np.full(node.shapes[0], node.op == "IsFinite")


# --- choices


@lowers("SelectV2", "Select")
def _select(node: Node, condition: Value, x: Value, y: Value) -> Value:
    if node.op == "Select" and len(condition.shape) == 1 and len(node.shapes[0]) > 1:
        # One condition for each entry of the first axis.
        condition = condition.reshape(-1, *[1] * (len(node.shapes[0]) - 1))
    shared = first_shared(condition, x, y)
    bits = as_bits(condition, shared)
    if node.dtypes[0] == "bool":
        x, y = as_bits(x, shared), as_bits(y, shared)
    result = selection.where(bits, x, y)
    return result if tuple(result.shape) == node.shapes[0] else result.broadcast_to(node.shapes[0])


@lowers("ClipByValue")
def _clip(node: Node, x: Value, low: Value, high: Value) -> Value:
    if isinstance(x, PrivateTensor):
        return selection.clip_by_value(x, low, high)
    return selection.minimum(selection.maximum(x, low) if isinstance(low, PrivateTensor) else np.maximum(x, low), high)


@lowers("Bucketize")
def _bucketize(node: Node, x: PrivateTensor) -> Value:
    boundaries = np.asarray(node.attributes["boundaries"], np.float64)
    return _count_reached(x, boundaries)


@lowers("LowerBound", "UpperBound")
def _search_sorted(node: Node, sorted_values: Value, x: Value) -> Value:
    if isinstance(sorted_values, PrivateTensor) or not isinstance(x, PrivateTensor):
        beside, place = sorted_values[:, None, :], x[:, :, None]
        below = beside <= place if node.op == "UpperBound" else beside < place
        return below.sum(2)
    if node.op == "UpperBound":
        return stack([_count_reached(x[i], line) for i, line in enumerate(sorted_values)], 0)
    # Below x is what -x is not above of.
    return stack([len(line) - _count_reached(-x[i], -line[::-1]) for i, line in enumerate(sorted_values)], 0)


def _count_reached(x: PrivateTensor, thresholds: np.ndarray) -> PrivateTensor:
    """How many of the public thresholds each value reaches: all from one opening."""
    if not len(thresholds):
        return x * 0
    reached = at_least(fine(x), [float(t) for t in thresholds])
    return functools.reduce(operator.add, reached)
