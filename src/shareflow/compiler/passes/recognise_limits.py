"""ReLU, its kin and limits, however they are written: each by as few comparisons as it takes."""

from __future__ import annotations

import math

import numpy as np

from shareflow.compiler.graph import Node, Output, Replacement
from shareflow.compiler.passes.matching import near, product_of, scaled
from shareflow.compiler.passes.simplify import scalar
from shareflow.compiler.passes.sweep import Sweep

Limits = tuple[float, float]


def limits(node: Node, at: Sweep) -> Replacement:
    """Limits one after the other as one: max(min(x, 3), 0) is one opening, not two comparisons in a row."""
    outer = _limits(node)
    if outer is None or not at.secret(node.inputs[0]):
        return None
    value, (low, high) = outer
    inner = _limits(value.node) if at.alone(value) is not None and value.node not in at.replaced else None
    if inner is None:
        if node.op == "Maximum" and low == 0 and value.shape == node.shapes[0]:
            at.did("ReLU out of a maximum")
            return at.build("Relu", at(value))
        return None
    source, (first_low, first_high) = inner
    # Each end of the inner range, limited by the outer one.
    low, high = (min(max(end, low), high) for end in (first_low, first_high))
    if source.shape != node.shapes[0] or not low < high:
        return None
    at.did("limits as one")
    return limited(at, at(source), low, high)


def limited(at: Sweep, x: Output, low: float, high: float) -> Output:
    """x within limits by the op that does no more than that."""
    if low == 0 and high == 6:
        return at.build("Relu6", x)
    if low == 0 and high == math.inf:
        return at.build("Relu", x)
    if high == math.inf:
        return at.build("Maximum", x, at.build.constant(low, x.dtype))
    if low == -math.inf:
        return at.build("Minimum", x, at.build.constant(high, x.dtype))
    return at.build.custom("shareflow.clip", [x], x.shape, x.dtype, {"low": low, "high": high})


def _limits(node: Node) -> tuple[Output, Limits] | None:
    """(x, limits) of what limits x."""
    if node.op == "Relu":
        return node.inputs[0], (0.0, math.inf)
    if node.op == "Relu6":
        return node.inputs[0], (0.0, 6.0)
    if node.op == "shareflow.clip":
        return node.inputs[0], (node.attributes["low"], node.attributes["high"])
    if node.op == "ClipByValue":
        low, high = scalar(node.inputs[1]), scalar(node.inputs[2])
        return None if low is None or high is None else (node.inputs[0], (low, high))
    if node.op in ("Maximum", "Minimum"):
        for x, limit in (node.inputs, node.inputs[::-1]):
            number = scalar(limit)
            if number is not None:
                return x, ((number, math.inf) if node.op == "Maximum" else (-math.inf, number))
    return None


def leaky_relu(node: Node, at: Sweep) -> Replacement:
    """max(x, a x) for 0 < a < 1, and x where x > 0, else a x or 0."""
    if not at.secret(node.outputs[0]):
        return None
    if node.op == "Maximum":
        for x, y in (node.inputs, node.inputs[::-1]):
            slope = _slope(at, y, x)
            if slope is not None and 0 < slope < 1 and at.alone(y) is not None:
                at.did("leaky ReLU")
                return at.build("LeakyRelu", at(x), alpha=slope)
        return None
    if node.op not in ("SelectV2", "Select"):
        return None
    condition, above, below = node.inputs
    test = condition.node
    if test.op not in ("Greater", "GreaterEqual", "Less", "LessEqual") or at.alone(condition) is None:
        return None
    x, limit = test.inputs
    if test.op in ("Less", "LessEqual"):
        above, below = below, above
    if scalar(limit) != 0 or above != x or x.shape != node.shapes[0]:
        return None
    if below.constant is not None and not np.any(below.constant):
        at.did("ReLU out of a choice")
        return at.build("Relu", at(x))
    slope = _slope(at, below, x)
    if slope is not None and slope > 0 and at.alone(below) is not None:
        at.did("leaky ReLU")
        return at.build("LeakyRelu", at(x), alpha=slope)
    return None


def _slope(at: Sweep, value: Output, x: Output) -> float | None:
    """a, where the value is a x."""
    if value == x:
        return None
    product = product_of(at, value)
    return product.number if product.factors == (x,) else None


def relu_of_opposite(node: Node, at: Sweep) -> Replacement:
    """relu(-x) = relu(x) - x, where relu(x) is there: PReLU takes one comparison, not two."""
    if node.op != "Relu" or node.inputs[0].node.op != "Neg" or not at.secret(node.inputs[0]):
        return None
    x = node.inputs[0].node.inputs[0]
    for user in at.graph.users.get(x, ()):
        if user.op == "Relu" and _stands(at, user):
            at.did("ReLU of the opposite")
            return at.build("Sub", at(Output(user)), at(x))
    return None


def _stands(at: Sweep, node: Node) -> bool:
    """Whether a node has been walked over already."""
    try:
        at(Output(node))
    except KeyError:
        return False
    return True


def elu(node: Node, at: Sweep) -> Replacement:
    """max(x, 0) + a (e^(min(x, 0) / a) - 1) = a elu(x / a), one spline."""
    if node.op not in ("AddV2", "Add") or not at.secret(node.outputs[0]):
        return None
    for positive, negative in (node.inputs, node.inputs[::-1]):
        if positive.node.op != "Relu" or at.alone(positive) is None or at.alone(negative) is None:
            continue
        x = positive.node.inputs[0]
        outer = product_of(at, negative)
        if len(outer.factors) != 1 or outer.factors[0].node.op != "Expm1" or outer.number <= 0:
            continue
        power = outer.factors[0]
        inner = product_of(at, power.node.inputs[0])
        if len(inner.factors) != 1 or not near(inner.number * outer.number, 1) or at.alone(inner.factors[0]) is None:
            continue
        low = inner.factors[0].node
        if low.op == "Minimum" and _limits(low) == (x, (-math.inf, 0.0)):
            at.did("ELU")
            return scaled(at, at.build("Elu", scaled(at, at(x), inner.number)), outer.number)
    return None
