"""How many fractional bits each parameter is kept with, so that a sum has nothing to rescale.

What is added to a product is best kept at the product's scale: then nothing is rounded and the sum costs no truncation.
A wrong guess here costs time, never correctness: operations adapt the scales they find.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Set

import numpy as np

from shareflow.compiler.graph import Graph, Node, Output
from shareflow.protocol.arithmetic import multiplier_bits
from shareflow.protocol.tensor import SPARE_BITS
from shareflow.ring.fixed_point import FixedPoint

SUMS = ("AddV2", "Add", "BiasAdd", "Sub", "AddN")
PRODUCTS = (
    *("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum", "Mul", "Square", "SquaredDifference"),
    *("Conv2D", "Conv3D", "DepthwiseConv2dNative", "Conv2DBackpropInput", "Conv3DBackpropInputV2"),
)
# What moves elements and keeps their scale.
STRUCTURE = (
    *("Reshape", "ExpandDims", "Squeeze", "Transpose", "ConcatV2", "Pack", "Unpack", "Pad", "PadV2", "MirrorPad"),
    *("Split", "SplitV", "Slice", "StridedSlice", "GatherV2", "Tile", "BroadcastTo", "ReverseV2", "Sum", "Neg"),
    *("SpaceToDepth", "DepthToSpace", "SpaceToBatchND", "BatchToSpaceND"),
)


def scales_of(
    graph: Graph, parameters: Iterable[Output], point: FixedPoint, narrowed: Mapping[Output, int] | None = None
) -> dict[Output, int]:
    """Fractional bits of each parameter: a product's where it is only ever added to products, else the encoding's.

    Those in ``narrowed`` have the bits that stand there, and products with them accordingly fewer.
    """
    given = narrowed or {}
    usual = point.fractional_bits
    wanted = set(parameters)
    finer = {parameter: usual + _guard_bits(graph, parameter) for parameter in wanted}
    bits = scales_of_values(graph, point, wanted, {**finer, **given})
    kept = {}
    for parameter in wanted:
        uses = graph.users.get(parameter, ())
        sums = [_other_bits(node, parameter, bits, usual) for node in uses if node.op in SUMS]
        added = min(sums) if sums and len(sums) == len(uses) else finer[parameter]
        kept[parameter] = given.get(parameter, added)
    return kept


def scales_of_values(
    graph: Graph,
    point: FixedPoint | None = None,
    parameters: Set[Output] = frozenset(),
    given: Mapping[Output, int] | None = None,
) -> dict[Output, int]:
    """Fractional bits of each value as it is computed, before any truncation; those in ``given`` as there."""
    given, point = given or {}, point or FixedPoint()
    bits: dict[Output, int] = {}
    for node in graph.nodes:
        found = _bits(graph, node, bits, parameters, point)
        for value in node.outputs:
            bits[value] = given.get(value, found)
    return bits


def _guard_bits(graph: Graph, parameter: Output) -> int:
    """More bits for a kernel that a small public number was multiplied into: else it would lose as many.

    Up to the bits that a factor may have beyond the usual ones.
    """
    uses = graph.users.get(parameter, ())
    if not uses or any(node.op not in PRODUCTS for node in uses):
        return 0
    return min(SPARE_BITS, math.ceil(_lost_bits(parameter)))


def _lost_bits(value: Output) -> float:
    node = value.node
    if node.op == "Mul":
        lost = 0.0
        for factor in node.inputs:
            constant = factor.constant
            if constant is None:
                lost += _lost_bits(factor)
            elif constant.size and 0 < float(np.max(np.abs(constant))) < 1:
                lost -= math.log2(float(np.max(np.abs(constant))))
        return lost
    if node.op in STRUCTURE and node.inputs:
        return max(_lost_bits(part) for part in node.inputs)
    return 0.0


def _bits(graph: Graph, node: Node, bits: dict[Output, int], parameters: Set[Output], point: FixedPoint) -> int:
    usual = point.fractional_bits
    if not any(graph.secret(value) for value in node.outputs):
        return usual
    given = [value for value in node.inputs if value not in parameters and value.constant is None]
    if node.op in SUMS or node.op in STRUCTURE:
        return max((bits[value] for value in given), default=usual)
    if node.op == "shareflow.sum_pool":
        return bits[node.inputs[0]]
    if node.op in PRODUCTS:
        factors = node.inputs if len(node.inputs) > 1 else node.inputs * 2
        return sum(_factor_bits(value, bits, point) for value in factors)
    return usual


def _factor_bits(value: Output, bits: dict[Output, int], point: FixedPoint) -> int:
    if value.constant is not None:
        return multiplier_bits(value.constant, point)
    here, usual = bits.get(value, point.fractional_bits), point.fractional_bits
    return here if here <= usual + SPARE_BITS else usual


def _other_bits(node: Node, parameter: Output, bits: dict[Output, int], usual: int) -> int:
    others = [bits.get(value, usual) for value in node.inputs if value != parameter and value.constant is None]
    return max([usual, *others])
