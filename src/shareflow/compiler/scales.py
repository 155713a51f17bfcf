"""How many fractional bits each parameter is kept with, so that a sum has nothing to rescale.

What is added to a product is best kept at the product's scale: then nothing is rounded and the sum costs no truncation.
A wrong guess here costs time, never correctness: operations adapt the scales they find.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

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
    bits: dict[Output, int] = {}
    for node in graph.nodes:
        found = _bits(graph, node, bits, wanted, point)
        for value in node.outputs:
            bits[value] = given.get(value, found)
    kept = {}
    for parameter in wanted:
        uses = graph.users.get(parameter, ())
        sums = [_other_bits(node, parameter, bits, usual) for node in uses if node.op in SUMS]
        kept[parameter] = given.get(parameter, min(sums) if sums and len(sums) == len(uses) else usual)
    return kept


def _bits(graph: Graph, node: Node, bits: dict[Output, int], parameters: set[Output], point: FixedPoint) -> int:
    usual = point.fractional_bits
    if not any(graph.secret(value) for value in node.outputs):
        return usual
    given = [value for value in node.inputs if value not in parameters and value.constant is None]
    if node.op in SUMS or node.op in STRUCTURE:
        return max((bits[value] for value in given), default=usual)
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
