"""A product with 1/2, 1/4, 1/8 ... as a quotient: dividing by a power of two only moves the point."""

from __future__ import annotations

import math

from shareflow.compiler.graph import Graph, Node, Output, Replacement
from shareflow.compiler.passes.simplify import scalar
from shareflow.compiler.passes.sweep import Sweep, settle

# Bits that the point may move by: a product of two values moved so far still fits.
_MOST = 16


def powers_of_two(graph: Graph) -> Graph:
    """x 2^-k as x / 2^k, which leaves no scale to truncate."""
    return settle(graph, _visit, "powers_of_two")


def moves_the_point(factor: Output) -> bool:
    """Whether a value is public and 2^-k throughout."""
    number = scalar(factor)
    if number is None or not 0 < number < 1:
        return False
    mantissa, exponent = math.frexp(number)
    return mantissa == 0.5 and 1 - exponent <= _MOST


def _visit(node: Node, at: Sweep) -> Replacement:
    if node.op != "Mul" or not at.secret(node.outputs[0]):
        return None
    for x, y in (node.inputs, node.inputs[::-1]):
        if moves_the_point(y) and x.shape == node.shapes[0]:
            at.did("division by a power of two")
            return at.build("RealDiv", at(x), at.build.constant(1 / (scalar(y) or 1.0), y.dtype))
    return None
