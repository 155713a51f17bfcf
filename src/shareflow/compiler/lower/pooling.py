"""Pooling over windows."""

from __future__ import annotations

from shareflow.compiler.graph import Node
from shareflow.compiler.lower.handler import lowers
from shareflow.nn import pooling
from shareflow.protocol.tensor import PrivateTensor


@lowers("MaxPool")
def _max_pool(node: Node, x: PrivateTensor) -> PrivateTensor:
    return pooling.max_pool2d(x, *_window(node))


@lowers("AvgPool")
def _avg_pool(node: Node, x: PrivateTensor) -> PrivateTensor:
    return pooling.avg_pool2d(x, *_window(node))


def _window(node: Node) -> tuple[tuple[int, ...], tuple[int, ...], object]:
    attributes = node.attributes
    padding = attributes["padding"]
    if padding == "EXPLICIT":
        sides = attributes["explicit_paddings"]
        padding = ((sides[2], sides[3]), (sides[4], sides[5]))
    return tuple(attributes["ksize"][1:3]), tuple(attributes["strides"][1:3]), padding
