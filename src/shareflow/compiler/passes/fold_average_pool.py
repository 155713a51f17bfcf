"""A mean as a sum, its division in the weights of the layers that follow: no product, and nothing to truncate.

A count that is a power of two and small needs no product anyway, and stays.
"""

from __future__ import annotations

import math

from shareflow.compiler.graph import Graph, Node, Output, Replacement
from shareflow.compiler.passes.fold_affine import all_take
from shareflow.compiler.passes.sweep import Sweep, settle
from shareflow.protocol.tensor import SPARE_BITS

_POOLS = ("AvgPool", "AvgPool3D")


def fold_average_pool(graph: Graph) -> Graph:
    """mean(x) as sum(x) times 1 / n, where linear layers alone take it: the next pass folds the factor into them.

    Windows with padding have unequal counts, and keep their own division.
    """
    return settle(graph, _visit, "fold_average_pool")


def _visit(node: Node, at: Sweep) -> Replacement:
    if node.op not in ("Mean", *_POOLS) or not at.secret(node.inputs[0]):
        return None
    x, result = node.inputs[0], Output(node)
    count = _count(node)
    if count is None or (count & (count - 1) == 0 and count <= 1 << SPARE_BITS):
        return None
    if not all_take(at, result):
        return None
    # Most of the division moves the point, which is free as far as factors may have spare bits: weights that were
    # divided by all of a large count would have few bits left.
    moved = 1 << min(SPARE_BITS, count.bit_length() - 1)
    inverse = at.build.constant(moved / count, x.dtype)
    at.did("division into the layers after")
    if node.op == "Mean":
        total = at.build("Sum", at(x), at(node.inputs[1]), keep_dims=node.attributes["keep_dims"])
    else:
        total = at.build.custom(
            "shareflow.sum_pool", [at(x)], node.shapes[0], x.dtype, {**node.attributes, "pool": node.op}, node.name
        )
    return at.build("Mul", at.build("RealDiv", total, at.build.constant(moved, x.dtype)), inverse)


def _count(node: Node) -> int | None:
    """How many elements each mean is of; None where that differs."""
    shape = node.inputs[0].shape
    if node.op == "Mean":
        axes = node.inputs[1].constant
        return None if axes is None else math.prod(shape[int(axis) % len(shape)] for axis in axes.ravel())
    attributes = node.attributes
    if attributes["data_format"] not in ("NHWC", "NDHWC"):
        return None
    size, strides = attributes["ksize"][1:-1], attributes["strides"][1:-1]
    if attributes["padding"] == "SAME" and any(
        max((-(-extent // stride) - 1) * stride + window - extent, 0)
        for extent, window, stride in zip(shape[1:-1], size, strides, strict=True)
    ):
        return None
    return math.prod(size)
