"""Reading products and sums off a graph, in whatever order they were written."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

from shareflow.compiler.graph import Node, Output
from shareflow.compiler.passes.simplify import scalar
from shareflow.compiler.passes.sweep import Sweep

# How far a number in a graph may be from the one that is meant: models are written with few digits.
_TOLERANCE = 1e-4


def near(number: float | None, wanted: float) -> bool:
    """Whether a number is the one that is meant."""
    return number is not None and math.isclose(number, wanted, rel_tol=_TOLERANCE, abs_tol=1e-12)


@dataclass(frozen=True)
class Product:
    """A number times values."""

    number: float
    factors: tuple[Output, ...]

    def without(self, *factors: Output) -> Product | None:
        """The rest, if all of these are factors."""
        left = list(self.factors)
        for factor in factors:
            if factor not in left:
                return None
            left.remove(factor)
        return Product(self.number, tuple(left))


def product_of(at: Sweep, value: Output, root: bool = True) -> Product:
    """A value as a product of what is multiplied on the way to it; what has other uses, too, counts as one factor."""
    node = value.node
    number = scalar(value)
    if number is not None:
        return Product(number, ())
    if node in at.replaced or not (root or at.alone(value) is not None):
        return Product(1.0, (value,))
    if node.op == "Mul":
        left, right = (product_of(at, part, False) for part in node.inputs)
        return Product(left.number * right.number, (*left.factors, *right.factors))
    if node.op == "Neg":
        inner = product_of(at, node.inputs[0], False)
        return Product(-inner.number, inner.factors)
    return Product(1.0, (value,))


@dataclass(frozen=True)
class Sum:
    """A number plus values with signs."""

    number: float
    terms: tuple[tuple[int, Output], ...]


def sum_of(at: Sweep, value: Output, root: bool = True) -> Sum:
    """A value as a sum of what is added on the way to it; what has other uses, too, counts as one term."""
    node = value.node
    number = scalar(value)
    if number is not None:
        return Sum(number, ())
    if node in at.replaced or not (root or at.alone(value) is not None):
        return Sum(0.0, ((1, value),))
    if node.op in ("AddV2", "Add", "Sub", "BiasAdd"):
        left, right = (sum_of(at, part, False) for part in node.inputs)
        sign = -1 if node.op == "Sub" else 1
        turned = tuple((sign * own, term) for own, term in right.terms)
        return Sum(left.number + sign * right.number, (*left.terms, *turned))
    if node.op == "Neg":
        inner = sum_of(at, node.inputs[0], False)
        return Sum(-inner.number, tuple((-own, term) for own, term in inner.terms))
    return Sum(0.0, ((1, value),))


def scaled(at: Sweep, value: Output, number: float) -> Output:
    """A value of the new graph times a number; itself for 1."""
    return value if near(number, 1) else at.build("Mul", value, at.build.constant(number, value.dtype))


def times(at: Sweep, value: Output, rest: Product) -> Output:
    """A value of the new graph times a product of the old one."""
    for factor in rest.factors:
        value = at.build("Mul", value, at(factor))
    return scaled(at, value, rest.number)


def plus(at: Sweep, value: Output, rest: Sum) -> Output:
    """A value of the new graph plus a sum of the old one."""
    for sign, term in rest.terms:
        value = at.build("AddV2" if sign > 0 else "Sub", value, at(term))
    return value if rest.number == 0 else at.build("AddV2", value, at.build.constant(rest.number, value.dtype))


def closed(at: Sweep, inner: Collection[Node], root: Node) -> bool:
    """Whether nothing but the root and themselves uses these nodes: all of them can go."""
    within = {*inner, root}
    for node in inner:
        for value in node.outputs:
            if value in at.graph.results or any(user not in within for user in at.graph.users.get(value, ())):
                return False
    return not any(node in at.replaced for node in inner)


def axes_of_reduction(node: Node, op: str) -> tuple[int, ...] | None:
    """The axes, each from 0, of a reduction of this op that keeps its axes; None for anything else."""
    if node.op != op or not node.attributes.get("keep_dims"):
        return None
    axes = node.inputs[1].constant
    rank = len(node.inputs[0].shape)
    return None if axes is None else tuple(sorted(int(axis) % rank for axis in axes.ravel()))
