"""Layer, group and RMS normalisation out of means, squares and roots: the root then keeps the bits that it needs.

Scale and offset stay operations of their own, which a linear layer after them takes into its kernel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from shareflow.compiler.graph import Node, Output, Replacement
from shareflow.compiler.passes.matching import (
    Product,
    Sum,
    axes_of_reduction,
    closed,
    plus,
    product_of,
    sum_of,
    times,
)
from shareflow.compiler.passes.simplify import scalar
from shareflow.compiler.passes.sweep import Sweep


@dataclass(frozen=True)
class _Root:
    """1 / sqrt(of x): what is normalised, how, and the nodes that compute it."""

    op: str
    x: Output
    centre: Output | None
    axes: tuple[int, ...]
    epsilon: float
    nodes: frozenset[Node]

    def build(self, at: Sweep) -> Output:
        attributes = {"axes": list(self.axes), "epsilon": self.epsilon}
        return at.build.custom(self.op, [at(self.x)], self.x.shape, self.x.dtype, attributes)


def norm_as_sum(node: Node, at: Sweep) -> Replacement:
    """x m + (offset - mean m) with m = scale / sqrt(variance + epsilon), as TensorFlow and Keras compute it."""
    if node.op not in ("AddV2", "Add", "Sub") or not at.secret(node.outputs[0]):
        return None
    total = sum_of(at, node.outputs[0])
    products = [(sign, term) for sign, term in total.terms if term.node.op == "Mul"]
    for sign, term in products:
        for other_sign, other in products:
            if sign < 0 or other_sign > 0:
                continue
            for x, factor in (term.node.inputs, term.node.inputs[::-1]):
                found = _factor(at, factor, term, other)
                if found is None or found[0].x != x or found[0].centre is None:
                    continue
                root, scale, extra = found
                between = _nodes_of_sum(at, node) - {node}
                within = {*root.nodes, *extra, term.node, other.node, *between}
                if not closed(at, within, node) or x.shape != node.shapes[0]:
                    continue
                at.did("layer norm")
                result = root.build(at)
                if scale is not None:
                    result = at.build("Mul", result, at(scale))
                left = [(s, t) for s, t in total.terms if t not in (term, other)]
                return plus(at, result, Sum(total.number, tuple(left)))
    return None


def _factor(at: Sweep, factor: Output, term: Output, other: Output) -> tuple[_Root, Output | None, set[Node]] | None:
    """(root, scale, node of their product) where the other term is the mean times the same factor."""
    candidates: list[tuple[Output, Output | None, set[Node]]] = [(factor, None, set())]
    if factor.node.op == "Mul":
        a, b = factor.node.inputs
        candidates += [(a, b, {factor.node}), (b, a, {factor.node})]
    for value, scale, extra in candidates:
        root = _root(value)
        if root is None or root.centre is None:
            continue
        if set(other.node.inputs) == {root.centre, factor}:
            return root, scale, extra
    return None


def _nodes_of_sum(at: Sweep, root: Node) -> set[Node]:
    """The sums that :func:`sum_of` went through."""
    found, waiting = set(), [root]
    while waiting:
        node = waiting.pop()
        found.add(node)
        for value in node.inputs:
            inner = value.node
            if inner.op in ("AddV2", "Add", "Sub", "BiasAdd", "Neg") and at.alone(value) and inner not in at.replaced:
                waiting.append(inner)
    return found


def norm_as_product(node: Node, at: Sweep) -> Replacement:
    """(x - mean) / sqrt(variance + epsilon), and x over the root of a mean or sum of its squares."""
    if not node.inputs or not at.secret(node.outputs[0]):
        return None
    if node.op == "RealDiv":
        top, below = product_of(at, node.inputs[0], False), node.inputs[1]
        if node.inputs[0].shape != node.shapes[0]:
            return None
        root = _root(below, "Sqrt")
        return None if root is None else _normalised(at, node, root, top, ())
    if node.op != "Mul":
        return None
    product = product_of(at, node.outputs[0])
    for factor in product.factors:
        root = _root(factor)
        rest = product.without(factor)
        if root is not None and rest is not None:
            replaced = _normalised(at, node, root, rest, (factor,))
            if replaced is not None:
                return replaced
    return None


def _normalised(at: Sweep, node: Node, root: _Root, product: Product, factors: tuple[Output, ...]) -> Replacement:
    if root.centre is None:
        rest, within = product.without(root.x), set(root.nodes)
    else:
        deviations = [f for f in product.factors if f.node.op == "Sub" and f.node.inputs == (root.x, root.centre)]
        if not deviations:
            return None
        rest, within = product.without(deviations[0]), {*root.nodes, deviations[0].node}
    if rest is None or root.x.shape != node.shapes[0]:
        return None
    products = _nodes_of_product(at, node) - {node}
    if not closed(at, within | products, node):
        return None
    at.did({"shareflow.layer_norm": "layer norm", "shareflow.rms_norm": "RMS norm"}.get(root.op, "L2 norm"))
    return times(at, root.build(at), rest)


def _nodes_of_product(at: Sweep, root: Node) -> set[Node]:
    """The products that :func:`product_of` went through."""
    found, waiting = set(), [root]
    while waiting:
        node = waiting.pop()
        found.add(node)
        for value in node.inputs:
            if value.node.op in ("Mul", "Neg") and at.alone(value) and value.node not in at.replaced:
                waiting.append(value.node)
    return found


def _root(value: Output, op: str = "Rsqrt") -> _Root | None:
    """What a root is of, where it is one that normalises."""
    node = value.node
    if node.op == "Minimum" and op == "Rsqrt":
        # min(1 / sqrt(sum), c) = 1 / sqrt(max(sum, 1 / c^2))
        for inner, limit in (node.inputs, node.inputs[::-1]):
            number = scalar(limit)
            found = _squares(inner.node.inputs[0], "Sum") if inner.node.op == "Rsqrt" else None
            if number and found:
                x, axes, nodes = found
                return _Root("shareflow.l2_normalize", x, None, axes, number**-2, nodes | {node, inner.node})
        return None
    if node.op != op:
        return None
    under = node.inputs[0]
    if under.node.op == "Maximum":
        for inner, limit in (under.node.inputs, under.node.inputs[::-1]):
            number, found = scalar(limit), _squares(inner, "Sum")
            if number is not None and number > 0 and found:
                x, axes, nodes = found
                return _Root("shareflow.l2_normalize", x, None, axes, number, nodes | {node, under.node})
        return None
    if under.node.op not in ("AddV2", "Add"):
        return None
    for inner, added in (under.node.inputs, under.node.inputs[::-1]):
        epsilon = scalar(added)
        if epsilon is None or epsilon <= 0 or math.prod(added.shape) != 1:
            continue
        found = _squares(inner, "Mean")
        if found is not None:
            x, axes, nodes = found
            return _Root("shareflow.rms_norm", x, None, axes, epsilon, nodes | {node, under.node})
        varied = _variance(inner)
        if varied is not None:
            x, mean, axes, nodes = varied
            return _Root("shareflow.layer_norm", x, mean, axes, epsilon, nodes | {node, under.node})
    return None


def _squares(value: Output, op: str) -> tuple[Output, tuple[int, ...], frozenset[Node]] | None:
    """(x, axes) of a mean or sum of x^2."""
    axes = axes_of_reduction(value.node, op)
    if axes is None:
        return None
    squares = value.node.inputs[0].node
    if squares.op != "Square" or squares.inputs[0].node.op == "Sub":
        return None
    return squares.inputs[0], axes, frozenset((value.node, squares))


def _variance(value: Output) -> tuple[Output, Output, tuple[int, ...], frozenset[Node]] | None:
    """(x, its mean, axes) of a variance: the mean of (x - mean)^2, or the mean of x^2 less mean^2."""
    node = value.node
    axes = axes_of_reduction(node, "Mean")
    if axes is not None:
        squares = node.inputs[0].node
        if squares.op == "Square" and squares.inputs[0].node.op == "Sub":
            difference = squares.inputs[0].node
            x, mean = difference.inputs
            nodes = frozenset((node, squares, difference, mean.node))
        elif squares.op == "SquaredDifference":
            x, mean = squares.inputs
            if axes_of_reduction(mean.node, "Mean") is None:
                x, mean = mean, x
            nodes = frozenset((node, squares, mean.node))
        else:
            return None
        if axes_of_reduction(mean.node, "Mean") == axes and mean.node.inputs[0] == x:
            return x, mean, axes, nodes
        return None
    if node.op != "Sub" or node.inputs[1].node.op != "Square":
        return None
    squared = node.inputs[1].node
    mean = squared.inputs[0]
    found = _squares(node.inputs[0], "Mean")
    if found is None or axes_of_reduction(mean.node, "Mean") != found[1] or mean.node.inputs[0] != found[0]:
        return None
    return found[0], mean, found[1], found[2] | {node, squared, mean.node}
