"""Pooling over windows of images and volumes, channels first or last."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from shareflow.compiler.graph import Node
from shareflow.compiler.lower.handler import Value, fine, lowers, public, refuse
from shareflow.compiler.lower.linear import channels_come_first, moving, padding
from shareflow.nn import pooling
from shareflow.nn.elementary import divide, exp, log, rsqrt, sqrt
from shareflow.nn.linear import channels_first, channels_last
from shareflow.nn.reduction import reduce_max
from shareflow.protocol.arithmetic import stack
from shareflow.protocol.tensor import PrivateTensor


@lowers("MaxPool", "MaxPool3D")
def _max_pool(node: Node, x: PrivateTensor) -> Value:
    return _maximum(node, x, node.attributes["ksize"], node.attributes["strides"])


@lowers("MaxPoolV2")
def _max_pool_v2(node: Node, x: PrivateTensor, size: Value, strides: Value) -> Value:
    return _maximum(node, x, public(node, size, "a window"), public(node, strides, "strides"))


@lowers("AvgPool", "AvgPool3D")
def _average_pool(node: Node, x: PrivateTensor) -> Value:
    compute = pooling.avg_pool2d if node.op == "AvgPool" else pooling.avg_pool3d
    size, strides = (moving(node, node.attributes[name], name) for name in ("ksize", "strides"))
    return _placed(node, x, lambda images: compute(images, size, strides, padding(node)))


@lowers("Dilation2D")
def _dilation(node: Node, x: Value, kernel: Value) -> Value:
    # The maximum over each window of what stands there plus the kernel.
    if node.attributes["padding"] != "VALID":
        raise refuse(node, "outside of the image there is nothing to add to.", "Pad the image before, and use VALID.")
    strides, rates = node.attributes["strides"][1:3], node.attributes["rates"][1:3]
    rows, columns = node.shapes[0][1:3]
    views = []
    for i, j in itertools.product(range(kernel.shape[0]), range(kernel.shape[1])):
        top, left = i * rates[0], j * rates[1]
        bottom, right = top + (rows - 1) * strides[0] + 1, left + (columns - 1) * strides[1] + 1
        views.append(x[:, top : bottom : strides[0], left : right : strides[1]] + kernel[i, j])
    return reduce_max(stack(views), 0)


@lowers("LRN")
def _local_response(node: Node, x: PrivateTensor) -> Value:
    # x / (bias + alpha * sum of the squares of 2 r + 1 neighbouring channels)^beta
    attributes = node.attributes
    radius, bias, alpha, beta = (attributes[name] for name in ("depth_radius", "bias", "alpha", "beta"))
    if bias <= 0 or alpha < 0:
        raise refuse(node, f"a sum that begins with {bias:g} may be 0.", "Use a bias above 0, and alpha from 0 on.")
    x = fine(x).ready()
    channels = x.shape[-1]
    near = np.abs(np.subtract.outer(np.arange(channels), np.arange(channels))) <= radius
    squares = (x * x) @ (near * alpha) + bias
    if beta == 1:
        return divide(x, squares, positive=True)
    if beta == 0.5:
        return x * rsqrt(squares)
    if beta == 0.75:
        root = rsqrt(squares)
        return x * (root * sqrt(root))
    return x * exp((log(squares) * -beta).ready())


def _maximum(node: Node, x: PrivateTensor, size: Any, strides: Any) -> Value:
    numbers, steps = [int(n) for n in size], [int(n) for n in strides]
    channels = 1 if channels_come_first(node) else len(numbers) - 1
    if numbers[channels] != 1 and math.prod(numbers) == numbers[channels] and len(numbers) == 4:
        return _over_channels(node, x, numbers[channels], steps[channels], channels)
    compute = pooling.max_pool3d if node.op == "MaxPool3D" else pooling.max_pool2d
    inner, outer = moving(node, numbers, "windows"), moving(node, steps, "strides")
    bound = node.attributes.get("bound")
    return _placed(node, x, lambda images: compute(images, inner, outer, padding(node), bound))


def _over_channels(node: Node, x: PrivateTensor, size: int, stride: int, axis: int) -> Value:
    """Maxima of neighbouring channels: the channels as a sequence."""
    order = [i for i in range(4) if i != axis]
    lines = x.transpose([*order, axis]).reshape(-1, x.shape[axis], 1)
    pooled = pooling.max_pool1d(lines, size, stride, padding(node))
    back = pooled.reshape(*[x.shape[i] for i in order], pooled.shape[1])
    return back if axis == 3 else channels_first(back)


def _placed(node: Node, x: PrivateTensor, compute: Any) -> Value:
    if channels_come_first(node):
        return channels_first(compute(channels_last(x)))
    return compute(x)
