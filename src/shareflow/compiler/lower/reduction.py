"""Sums, means, extremes, their places, and running sums along axes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from shareflow.compiler.graph import Node
from shareflow.compiler.lower.division import truncated_quotient
from shareflow.compiler.lower.handler import Value, as_bits, fine, is_whole, lowers, public
from shareflow.nn import rearrangement, reduction
from shareflow.nn.elementary import sqrt
from shareflow.protocol.arithmetic import concat
from shareflow.protocol.compare import non_negative
from shareflow.protocol.tensor import PrivateTensor, axes_of


def _axes(node: Node, axis: Value) -> Any:
    return tuple(int(i) for i in public(node, axis, "axes").ravel())


def _keeps(node: Node) -> bool:
    return bool(node.attributes["keep_dims"])


@lowers("Sum")
def _sum(node: Node, x: PrivateTensor, axis: Value) -> Value:
    axes = _axes(node, axis)
    return x.sum(axes, _keeps(node)) if axes else x


@lowers("Mean")
def _mean(node: Node, x: PrivateTensor, axis: Value) -> Value:
    axes = _axes(node, axis)
    if not axes:
        return x
    if is_whole(node.dtypes[0]):
        # A mean of whole numbers is one, toward 0.
        count = math.prod(x.shape[i] for i in axes)
        return truncated_quotient(x.sum(axes, _keeps(node)), np.asarray(count))
    return x.mean(axes, _keeps(node))


@lowers("Max")
def _max(node: Node, x: PrivateTensor, axis: Value) -> Value:
    axes = _axes(node, axis)
    return reduction.reduce_max(x, axes, _keeps(node), node.attributes.get("bound")) if axes else x


@lowers("Min")
def _min(node: Node, x: PrivateTensor, axis: Value) -> Value:
    axes = _axes(node, axis)
    return reduction.reduce_min(x, axes, _keeps(node), node.attributes.get("bound")) if axes else x


@lowers("Prod")
def _product(node: Node, x: PrivateTensor, axis: Value) -> Value:
    axes = axes_of(_axes(node, axis), x.ndim)
    rest = [i for i in range(x.ndim) if i not in axes]
    count = math.prod(x.shape[i] for i in axes)
    if not count:
        return x.sum(axes, _keeps(node)) + 1
    lines = x.transpose([*axes, *rest]).reshape(count, *[x.shape[i] for i in rest]) if axes else x[None]
    while lines.shape[0] > 1:
        even = lines.shape[0] // 2 * 2
        pairs = lines[0:even:2] * lines[1:even:2]
        lines = concat([pairs, lines[even:]], 0) if lines.shape[0] > even else pairs
    return lines.reshape(*node.shapes[0])


@lowers("EuclideanNorm")
def _norm(node: Node, x: PrivateTensor, axis: Value) -> Value:
    axes = _axes(node, axis)
    x = fine(x)
    return sqrt((x * x).sum(axes, _keeps(node)) if axes else x * x)


@lowers("L2Loss")
def _l2_loss(node: Node, x: PrivateTensor) -> Value:
    return (x * x).sum() / 2


@lowers("Any")
def _any(node: Node, x: PrivateTensor, axis: Value) -> Value:
    bits, axes = as_bits(x), _axes(node, axis)
    if not axes:
        return bits
    count = math.prod(x.shape[i] for i in axes)
    return non_negative(bits.sum(axes, _keeps(node)) - 1, bound=float(count + 1))


@lowers("All")
def _all(node: Node, x: PrivateTensor, axis: Value) -> Value:
    bits, axes = as_bits(x), _axes(node, axis)
    if not axes:
        return bits
    count = math.prod(x.shape[i] for i in axes)
    return non_negative(bits.sum(axes, _keeps(node)) - count, bound=float(count + 1))


@lowers("ArgMax")
def _argmax(node: Node, x: PrivateTensor, axis: Value) -> Value:
    return reduction.argmax(x, int(public(node, axis, "an axis")), node.attributes.get("bound"))


@lowers("ArgMin")
def _argmin(node: Node, x: PrivateTensor, axis: Value) -> Value:
    return reduction.argmin(x, int(public(node, axis, "an axis")), node.attributes.get("bound"))


@lowers("TopKV2")
def _top_k(node: Node, x: PrivateTensor, k: Value) -> tuple[Value, Value]:
    return _largest(x, int(public(node, k, "a number")))


@lowers("TopK")
def _top_k_of_attribute(node: Node, x: PrivateTensor) -> tuple[Value, Value]:
    return _largest(x, int(node.attributes["k"]))


def _largest(x: PrivateTensor, k: int) -> tuple[Value, Value]:
    if not k:
        return x[..., :0], x[..., :0]
    return reduction.top_k(x, k)


@lowers("Cumsum")
def _cumsum(node: Node, x: PrivateTensor, axis: Value) -> Value:
    flags = {name: node.attributes[name] for name in ("exclusive", "reverse")}
    return rearrangement.cumsum(x, int(public(node, axis, "an axis")), **flags)


@lowers("Cumprod")
def _cumprod(node: Node, x: PrivateTensor, axis: Value) -> Value:
    along = int(public(node, axis, "an axis")) % x.ndim
    lines = x.transpose([along, *(i for i in range(x.ndim) if i != along)])
    count, reverse = lines.shape[0], node.attributes["reverse"]
    if not count:
        return x
    lines = lines[::-1] if reverse else lines
    if node.attributes["exclusive"]:
        lines = concat([np.ones((1, *lines.shape[1:])), lines[:-1]], 0)
    # After a step each entry holds the product of twice as many (Hillis and Steele).
    reach = 1
    while reach < count:
        lines = concat([lines[:reach], lines[reach:] * lines[:-reach]], 0)
        reach *= 2
    lines = lines[::-1] if reverse else lines
    back = list(range(1, x.ndim))
    back.insert(along, 0)
    return lines.transpose(back)
