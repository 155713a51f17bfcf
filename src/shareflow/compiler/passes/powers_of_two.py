"""A product with 1/2, 1/4, 1/8 ... as a quotient: dividing by a power of two only moves the point."""

from __future__ import annotations

import math

from shareflow.compiler.graph import Graph, Node, Replacement
from shareflow.compiler.passes.simplify import scalar
from shareflow.compiler.passes.sweep import Sweep, settle

# Bits that the point may move by: a product of two values moved so far still fits.
_MOST = 16


def powers_of_two(graph: Graph) -> Graph:
    """x 2^-k as x / 2^k, which leaves no scale to truncate."""
    return settle(graph, _visit, "powers_of_two")


def _visit(node: Node, at: Sweep) -> Replacement:
    if node.op != "Mul" or not at.secret(node.outputs[0]):
        return None
    for x, y in (node.inputs, node.inputs[::-1]):
        number = scalar(y)
        if number is None or not 0 < number < 1 or x.shape != node.shapes[0]:
            continue
        mantissa, exponent = math.frexp(number)
        if mantissa == 0.5 and 1 - exponent <= _MOST:
            at.did("division by a power of two")
            return at.build("RealDiv", at(x), at.build.constant(1 / number, y.dtype))
    return None
