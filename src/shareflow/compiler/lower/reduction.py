"""Sums, means and extremes along axes."""

from __future__ import annotations

from typing import Any

from shareflow.compiler.graph import Node
from shareflow.compiler.lower.handler import Value, lowers, public
from shareflow.nn import reduction
from shareflow.protocol.tensor import PrivateTensor


def _axes(node: Node, axis: Value) -> Any:
    return tuple(int(i) for i in public(node, axis, "axes").ravel())


@lowers("Sum")
def _sum(node: Node, x: PrivateTensor, axis: Value) -> Value:
    axes = _axes(node, axis)
    return x.sum(axes, node.attributes["keep_dims"]) if axes else x


@lowers("Mean")
def _mean(node: Node, x: PrivateTensor, axis: Value) -> Value:
    axes = _axes(node, axis)
    return x.mean(axes, node.attributes["keep_dims"]) if axes else x


@lowers("Max")
def _max(node: Node, x: PrivateTensor, axis: Value) -> Value:
    axes = _axes(node, axis)
    return reduction.reduce_max(x, axes, node.attributes["keep_dims"]) if axes else x


@lowers("Min")
def _min(node: Node, x: PrivateTensor, axis: Value) -> Value:
    axes = _axes(node, axis)
    return reduction.reduce_min(x, axes, node.attributes["keep_dims"]) if axes else x


@lowers("ArgMax")
def _argmax(node: Node, x: PrivateTensor, axis: Value) -> Value:
    return reduction.argmax(x, int(public(node, axis, "an axis")))


@lowers("ArgMin")
def _argmin(node: Node, x: PrivateTensor, axis: Value) -> Value:
    return reduction.argmin(x, int(public(node, axis, "an axis")))
