"""Matrix products, convolutions and their transposes, channels first or last."""

from __future__ import annotations

from typing import Any

from shareflow.compiler.graph import Node
from shareflow.compiler.lower.handler import Value, lowers, public, refuse
from shareflow.nn import contraction, convolution
from shareflow.nn.linear import bias_add, channels_first, channels_last
from shareflow.protocol.arithmetic import matmul

# TensorFlow's formats whose channels come second.
FIRST = ("NCHW", "NCDHW")


@lowers("MatMul")
def _matmul(node: Node, x: Value, y: Value) -> Value:
    return matmul(x, y, node.attributes["transpose_a"], node.attributes["transpose_b"])


@lowers("BatchMatMul", "BatchMatMulV2", "BatchMatMulV3")
def _batch_matmul(node: Node, x: Value, y: Value) -> Value:
    return matmul(x, y, node.attributes["adj_x"], node.attributes["adj_y"])


@lowers("Einsum")
def _einsum(node: Node, *values: Value) -> Value:
    return contraction.einsum(node.attributes["equation"], *values)


@lowers("BiasAdd", "BiasAddV1")
def _bias_add(node: Node, x: Value, bias: Value) -> Value:
    return bias_add(x, bias, node.attributes.get("data_format", "NHWC"))


@lowers("Conv2D", "Conv3D")
def _convolution(node: Node, x: Value, kernel: Value) -> Value:
    compute = convolution.conv2d if node.op == "Conv2D" else convolution.conv3d
    x, place = _last(node, x)
    if node.op == "Conv3D" and place["dilations"][1] != place["dilations"][2]:
        # TensorFlow (2.21) exchanges the two when it infers the shape of the result, and then gives another.
        raise refuse(node, f"dilations {place['dilations']} differ for height and width.", "Use equal ones.")
    return _back(node, compute(x, kernel, groups=x.shape[-1] // max(kernel.shape[-2], 1), **place))


@lowers("DepthwiseConv2dNative")
def _depthwise(node: Node, x: Value, kernel: Value) -> Value:
    x, place = _last(node, x)
    return _back(node, convolution.depthwise_conv2d(x, kernel, **place))


@lowers("Conv2DBackpropInput", "Conv3DBackpropInputV2", "Conv2DBackpropInputV2")
def _transposed(node: Node, sizes: Value, kernel: Value, x: Value) -> Value:
    compute = convolution.conv3d_transpose if node.op == "Conv3DBackpropInputV2" else convolution.conv2d_transpose
    x, place = _last(node, x)
    extents = _result_shape(node)
    groups = extents[-1] // max(kernel.shape[-2], 1)
    return _back(node, compute(x, kernel, extents, groups=groups, **place))


@lowers("DepthwiseConv2dNativeBackpropInput")
def _depthwise_transposed(node: Node, sizes: Value, kernel: Value, x: Value) -> Value:
    public(node, sizes, "the shape of its result")
    x, place = _last(node, x)
    height, width, channels, multiplier = kernel.shape
    # Each channel is a group of its own.
    grouped = kernel.reshape(height, width, 1, channels * multiplier)
    return _back(node, convolution.conv2d_transpose(x, grouped, _result_shape(node), groups=channels, **place))


def _last(node: Node, x: Value) -> tuple[Value, dict[str, Any]]:
    """x with channels last, and where windows stand."""
    return (channels_last(x) if channels_come_first(node) else x), window(node)


def _back(node: Node, y: Value) -> Value:
    return channels_first(y) if channels_come_first(node) else y


def _result_shape(node: Node) -> list[int]:
    """The result's shape with channels last."""
    shape = node.shapes[0]
    return [shape[0], *shape[2:], shape[1]] if channels_come_first(node) else list(shape)


def channels_come_first(node: Node) -> bool:
    """Whether the second axis holds channels.

    Raises:
        UnsupportedModelError: a layout that is neither.
    """
    layout = node.attributes.get("data_format", "NHWC")
    if layout not in (*FIRST, "NHWC", "NDHWC"):
        raise refuse(node, f"the data format {layout} has no private form.", "Use NHWC.")
    return layout in FIRST


def window(node: Node) -> dict[str, Any]:
    """Strides, padding and dilations between batch and channels.

    Raises:
        UnsupportedModelError: the window moves over batch or channels.
    """
    strides, dilations = node.attributes["strides"], node.attributes.get("dilations")
    return {
        "strides": moving(node, strides, "strides"),
        "padding": padding(node),
        "dilations": moving(node, dilations, "dilations") if dilations else 1,
    }


def moving(node: Node, numbers: Any, name: str) -> tuple[int, ...]:
    """The entries of an attribute for the axes between batch and channels; the others are 1."""
    values = [int(n) for n in numbers]
    channels = 1 if channels_come_first(node) else len(values) - 1
    if values[0] != 1 or values[channels] != 1:
        raise refuse(node, f"{name} {values} go over batch or channels.", "Slice or reshape there in place of it.")
    return tuple(n for i, n in enumerate(values) if i not in (0, channels))


def padding(node: Node) -> Any:
    """SAME, VALID, or zeros (before, after) for each axis that windows move on."""
    kind = node.attributes["padding"]
    if kind != "EXPLICIT":
        return kind
    sides = node.attributes["explicit_paddings"]
    pairs = [(sides[i], sides[i + 1]) for i in range(0, len(sides), 2)]
    return tuple(pairs[2:] if channels_come_first(node) else pairs[1:-1])
