"""Matrix products and convolutions."""

from __future__ import annotations

from typing import Any

from shareflow.compiler.graph import Node
from shareflow.compiler.lower.handler import Value, lowers
from shareflow.nn import linear
from shareflow.protocol.arithmetic import matmul


@lowers("MatMul")
def _matmul(node: Node, x: Value, y: Value) -> Value:
    return matmul(x, y, node.attributes["transpose_a"], node.attributes["transpose_b"])


@lowers("BatchMatMul", "BatchMatMulV2", "BatchMatMulV3")
def _batch_matmul(node: Node, x: Value, y: Value) -> Value:
    return matmul(x, y, node.attributes["adj_x"], node.attributes["adj_y"])


@lowers("BiasAdd")
def _bias_add(node: Node, x: Value, bias: Value) -> Value:
    if node.attributes["data_format"] == "NHWC":
        return x + bias
    return x + bias.reshape(-1, *[1] * (len(node.shapes[0]) - 2))


@lowers("Conv2D")
def _conv2d(node: Node, x: Value, kernel: Value) -> Value:
    groups = node.inputs[0].shape[3] // node.inputs[1].shape[2]
    return linear.conv2d(x, kernel, groups=groups, **window(node))


@lowers("DepthwiseConv2dNative")
def _depthwise(node: Node, x: Value, kernel: Value) -> Value:
    return linear.depthwise_conv2d(x, kernel, **window(node))


def window(node: Node) -> dict[str, Any]:
    """Strides, padding and dilations of a channels-last convolution of images."""
    attributes = node.attributes
    padding = attributes["padding"]
    if padding == "EXPLICIT":
        sides = attributes["explicit_paddings"]
        padding = ((sides[2], sides[3]), (sides[4], sides[5]))
    return {
        "strides": tuple(attributes["strides"][1:3]),
        "padding": padding,
        "dilations": tuple(attributes["dilations"][1:3]),
    }
