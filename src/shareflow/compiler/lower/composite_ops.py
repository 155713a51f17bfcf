"""Ops of our own (compiler/composite.py tells what they mean)."""

from __future__ import annotations

from typing import Any

from shareflow.compiler.graph import Node
from shareflow.compiler.lower.handler import Value, lowers
from shareflow.nn import activation, elementary, normalization, selection, smooth
from shareflow.nn.approximation import working_bits
from shareflow.nn.geometry import window_sides
from shareflow.protocol import op as ops
from shareflow.protocol.tensor import PrivateTensor


@lowers("shareflow.gelu")
def _gelu(node: Node, x: PrivateTensor) -> Value:
    return smooth.gelu(x, node.attributes["approximate"])


@lowers("shareflow.silu")
def _silu(node: Node, x: PrivateTensor) -> Value:
    return smooth.silu(x)


@lowers("shareflow.mish")
def _mish(node: Node, x: PrivateTensor) -> Value:
    return smooth.mish(x)


@lowers("shareflow.clip")
def _clip(node: Node, x: PrivateTensor) -> Value:
    return activation.clip(x, node.attributes["low"], node.attributes["high"])


def _axes(node: Node) -> tuple[int, ...]:
    return tuple(node.attributes["axes"])


@lowers("shareflow.layer_norm")
def _layer_norm(node: Node, x: PrivateTensor) -> Value:
    return normalization.layer_norm(x, axis=_axes(node), epsilon=node.attributes["epsilon"])


@lowers("shareflow.rms_norm")
def _rms_norm(node: Node, x: PrivateTensor) -> Value:
    return normalization.rms_norm(x, axis=_axes(node), epsilon=node.attributes["epsilon"])


@lowers("shareflow.l2_normalize")
def _l2_normalize(node: Node, x: PrivateTensor) -> Value:
    epsilon = node.attributes["epsilon"]
    least = 2.0 ** -working_bits(x)
    if epsilon <= least:
        # No sum but that of zeros is below, and their quotient is 0 with any divisor.
        return normalization.l2_normalize(x, _axes(node), least)
    x = x.ready()
    squares = selection.maximum((x * x).sum(_axes(node), keepdims=True), epsilon)
    return x * elementary.rsqrt(squares, low=epsilon)


@lowers("shareflow.sum_pool")
def _sum_pool(node: Node, x: PrivateTensor) -> Value:
    attributes: dict[str, Any] = dict(node.attributes)
    size, strides = tuple(attributes["ksize"][1:-1]), tuple(attributes["strides"][1:-1])
    sides = window_sides(attributes["padding"], x.shape[1:-1], size, strides, (1,) * len(size))
    return x.linear(ops.SUM_POOL, size=size, strides=strides, padding=sides)
