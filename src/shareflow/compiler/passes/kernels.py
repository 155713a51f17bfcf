"""Linear layers by their kernels: which input is the kernel, and where its channels of inputs and outputs are."""

from __future__ import annotations

import math
from dataclasses import dataclass

from shareflow.compiler.graph import Node, Output
from shareflow.compiler.passes.sweep import Sweep

# The place of the kernel among the inputs, and of the data.
_PLACES = {
    **dict.fromkeys(("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3"), (1, 0)),
    **dict.fromkeys(("Conv2D", "Conv3D", "DepthwiseConv2dNative", "Einsum"), (1, 0)),
    **dict.fromkeys(("Conv2DBackpropInput", "Conv3DBackpropInputV2"), (1, 2)),
}
_MATRICES = ("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3")
_TRANSPOSED_CONVOLUTIONS = ("Conv2DBackpropInput", "Conv3DBackpropInputV2")


@dataclass(frozen=True)
class LinearLayer:
    """A node that multiplies what flows through by a kernel that its owner knows beforehand.

    Channels are the last axis of the data and of the result.
    """

    node: Node
    data: Output
    kernel: Output

    def with_inputs(self, at: Sweep, data: Output, kernel: Output) -> Output:
        """The same layer on other data and with another kernel, both of the new graph."""
        inputs = [at(value) for value in self.node.inputs]
        kernel_place, data_place = _PLACES[self.node.op]
        inputs[kernel_place], inputs[data_place] = kernel, data
        # Under its own name, whatever is folded into it.
        outside, at.build.layer = at.build.layer, self.node.layer
        result = at.again(self.node, *inputs)
        at.build.layer = outside
        return result

    def kernel_for_outputs(self, at: Sweep, scale: Output) -> Output | None:
        """The kernel with a scale [c], or of one number, for each channel of the result."""
        shape = self.kernel.shape
        if _is_one(scale):
            return at.compute("Mul", at(self.kernel), _reshaped(at, scale, ()))
        if self.node.op == "Einsum":
            left, result = _equation(self.node)
            if result[-1] not in left[1]:
                return None
            wanted = [shape[i] if label == result[-1] else 1 for i, label in enumerate(left[1])]
        elif self.node.op in _MATRICES:
            wanted = [shape[-2], 1] if self._transposed else [shape[-1]]
        elif self.node.op in _TRANSPOSED_CONVOLUTIONS:
            wanted = [shape[-2], 1]
        elif self.node.op == "DepthwiseConv2dNative":
            wanted = [shape[-2], shape[-1]]
        else:
            wanted = [shape[-1]]
        return at.compute("Mul", at(self.kernel), _reshaped(at, scale, wanted))

    def kernel_for_inputs(self, at: Sweep, scale: Output) -> Output | None:
        """The kernel with a scale [c], or of one number, for each channel of the data."""
        shape = self.kernel.shape
        if _is_one(scale):
            return at.compute("Mul", at(self.kernel), _reshaped(at, scale, ()))
        channels = self.data.shape[-1]
        if self.node.op == "Einsum":
            left, _ = _equation(self.node)
            if left[0][-1] not in left[1]:
                return None
            by = _reshaped(
                at, scale, [n if label == left[0][-1] else 1 for label, n in zip(left[1], shape, strict=True)]
            )
        elif self.node.op in _MATRICES:
            by = _reshaped(at, scale, [channels] if self._transposed else [channels, 1])
        elif self.node.op in _TRANSPOSED_CONVOLUTIONS:
            by = _reshaped(at, scale, [channels])
        elif self.node.op == "DepthwiseConv2dNative" or shape[-2] == channels:
            by = _reshaped(at, scale, [channels, 1])
        else:
            # In groups: the kernel of a group's output channels meets that group's input channels.
            own, outputs = shape[-2], shape[-1]
            groups = channels // own
            turned = at.compute("Transpose", _reshaped(at, scale, [groups, own]), at.shape([1, 0]))
            wide = at.compute("Tile", _reshaped(at, turned, [own, groups, 1]), at.shape([1, 1, outputs // groups]))
            by = _reshaped(at, wide, [own, outputs])
        return at.compute("Mul", at(self.kernel), by)

    @property
    def _transposed(self) -> bool:
        attributes = self.node.attributes
        return bool(attributes.get("transpose_b") or attributes.get("adj_y"))


def linear_layer(node: Node, at: Sweep) -> LinearLayer | None:
    """The node as a linear layer, if it is one whose kernel has an owner who knows it beforehand."""
    if node.op not in _PLACES or node.attributes.get("data_format", "NHWC") not in ("NHWC", "NDHWC"):
        return None
    if node.attributes.get("transpose_a") or node.attributes.get("adj_x"):
        return None
    if node.op == "Einsum" and not _sums_products(node):
        return None
    layer = as_layer(node)
    kernel, data = layer.kernel, layer.data
    if node.op in _MATRICES and len(kernel.shape) > 2 and math.prod(kernel.shape[:-2]) != 1:
        return None
    if not at.owned(kernel) or at.owned(data):
        return None
    return layer


def as_layer(node: Node) -> LinearLayer:
    """A product as a linear layer, whoever knows its kernel."""
    kernel, data = (node.inputs[place] for place in _PLACES[node.op])
    return LinearLayer(node, data, kernel)


def _equation(node: Node) -> tuple[list[str], str]:
    """Labels of the operands, and of the result."""
    left, _, result = str(node.attributes["equation"]).replace(" ", "").partition("->")
    return left.split(","), result


def _sums_products(node: Node) -> bool:
    """Whether an equation of two operands names every axis of each once: no diagonals, no dots."""
    operands, result = _equation(node)
    named = all(labels and labels.isalpha() and len(set(labels)) == len(labels) for labels in (*operands, result))
    return len(operands) == 2 and named


def _is_one(scale: Output) -> bool:
    return math.prod(scale.shape) == 1


def _reshaped(at: Sweep, value: Output, shape: list[int] | tuple[int, ...]) -> Output:
    if value.shape == tuple(shape):
        return value
    return at.compute("Reshape", value, at.shape(shape))
