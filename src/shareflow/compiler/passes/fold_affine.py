"""Scales and offsets that an owner knows go into the kernels around them, and offsets one after the other become one.

So batch normalisation costs nothing: its owner multiplies the weights in plaintext before they are shared. A scale goes
into the layer before it, else into those after it:

* conv(x, W) s = conv(x, W s), through sums with the owner's offsets, means and what moves elements;
* conv(x s + o, W) = conv(x, s W) + conv(o, W), exactly with any padding: the last term is computed by the owner.
"""

from __future__ import annotations

import math

import numpy as np

from shareflow.compiler.graph import Graph, Node, Output, Replacement
from shareflow.compiler.passes.kernels import LinearLayer, linear_layer
from shareflow.compiler.passes.powers_of_two import moves_the_point
from shareflow.compiler.passes.simplify import signs
from shareflow.compiler.passes.sweep import Sweep, settle

_NAME = "fold_affine"
_ADDS = ("AddV2", "Add", "BiasAdd")
_SUMS = (*_ADDS, "Sub")
# Linear, element by element the same for every channel of the last axis.
_AVERAGES = ("Mean", "Sum", "AvgPool", "AvgPool3D", "shareflow.sum_pool")
_BILINEAR = ("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum")
_SHAPES = ("Reshape", "Squeeze", "ExpandDims")
_MOVES = ("Pad", "Slice", "StridedSlice", "Transpose", "SpaceToBatchND", "BatchToSpaceND", "BroadcastTo", "Tile")
# Elements of the largest map of offsets that an owner shares in place of one number a channel.
_LARGEST_OFFSET = 1 << 22


def fold_affine(graph: Graph) -> Graph:
    """Batch normalisation, and scales and offsets like it, inside of linear layers."""
    return settle(graph, _visit, _NAME)


def _visit(node: Node, at: Sweep) -> Replacement:
    if not node.outputs or not at.secret(node.outputs[0]):
        return None
    if node.op == "Mul":
        for y, scale in (node.inputs, node.inputs[::-1]):
            if is_channel_scale(at, scale, y) and y.shape == node.shapes[0]:
                scaled = into_layer_before(at, y, scale)
                if scaled is not None:
                    at.did("scale into the layer before")
                    return scaled
    if node.op in _SUMS:
        return _merged_offsets(node, at)
    layer = linear_layer(node, at)
    return None if layer is None else into_layer_after(at, layer)


def is_channel_scale(at: Sweep, scale: Output, y: Output) -> bool:
    """Whether an owner knows the value beforehand, and it is one number a channel (of y's last axis) or one for all."""
    return at.owned(scale) and not at.owned(y) and _per_channel(scale, y)


def _per_channel(value: Output, y: Output) -> bool:
    shape = value.shape
    if len(shape) > len(y.shape) or any(n != 1 for n in shape[:-1]):
        return False
    return not shape or shape[-1] in (1, y.shape[-1])


# --- into the layer before


def into_layer_before(at: Sweep, y: Output, scale: Output) -> Output | None:
    """y times the scale, where a layer that makes y can take it; nothing else may use what is on the way."""
    node = y.node
    if at.alone(y) is None or node in at.replaced:
        return None
    layer = linear_layer(node, at)
    if layer is not None:
        if not at.owned(layer.kernel, scale):
            return None
        kernel = layer.kernel_for_outputs(at, at(scale))
        return None if kernel is None else layer.with_inputs(at, at(layer.data), kernel)
    if node.op in _SUMS and _channels_last(node):
        for k in (0, 1):
            inner, offset = node.inputs[k], node.inputs[1 - k]
            if inner.shape != y.shape or not at.owned(offset, scale) or at.owned(inner):
                continue
            scaled = into_layer_before(at, inner, scale)
            if scaled is None:
                continue
            moved = at.compute("Mul", at(offset), _channels(at, at(scale)))
            if node.op == "Sub":
                return at.build("Sub", *((scaled, moved) if k == 0 else (moved, scaled)))
            return at.build("AddV2", scaled, moved)
        return None
    single = math.prod(scale.shape) == 1
    if node.op in _BILINEAR and single and not moves_the_point(scale):
        # One number for all goes into either factor, as 1 / sqrt(d) of attention into the kernel of the queries.
        for k, factor in enumerate(node.inputs):
            scaled = into_layer_before(at, factor, scale) if at.secret(factor) else None
            if scaled is not None:
                inputs = [scaled if i == k else at(value) for i, value in enumerate(node.inputs)]
                return at.again(node, *inputs)
        return None
    keeps = node.op in _AVERAGES and _channels_stay(node)
    if node.op in _SHAPES or (node.op in _MOVES and (single or node.op not in ("Transpose", "Tile"))) or keeps:
        inner = node.inputs[0]
        if not single and (not inner.shape or not _last_axis_stays(node)):
            return None
        scaled = into_layer_before(at, inner, scale)
        if scaled is None:
            return None
        return at.again(node, scaled, *(at(value) for value in node.inputs[1:]))
    return None


def _channels_last(node: Node) -> bool:
    return node.attributes.get("data_format", "NHWC") in ("NHWC", "NDHWC")


def _channels_stay(node: Node) -> bool:
    """Whether the last axis is no axis that is summed over."""
    if node.op in ("Mean", "Sum"):
        axes, rank = node.inputs[1].constant, len(node.inputs[0].shape)
        return axes is not None and all(int(axis) % rank != rank - 1 for axis in axes.ravel())
    return _channels_last(node)


def _last_axis_stays(node: Node) -> bool:
    """Whether the result's last axis is the input's: one number an entry of one serves for the other."""
    before, after = node.inputs[0].shape, node.shapes[0]
    if not before or not after or before[-1] != after[-1]:
        return False
    if node.op == "StridedSlice":
        # Only an index of one entry an axis, in order, says for sure which axis stays where.
        masks = ("ellipsis_mask", "new_axis_mask", "shrink_axis_mask")
        return len(before) == len(after) and not any(node.attributes[mask] for mask in masks)
    return True


def _channels(at: Sweep, value: Output) -> Output:
    """[c] of [1, 1, 1, c]."""
    return value if len(value.shape) <= 1 else at.compute("Reshape", value, at.shape([-1]))


# --- offsets


def _merged_offsets(node: Node, at: Sweep) -> Replacement:
    """(y + b) + c = y + (b + c)."""
    for k in (0, 1):
        y, later = node.inputs[k], node.inputs[1 - k]
        inner = y.node
        if not at.owned(later) or inner.op not in _SUMS or at.alone(y) is None or y.shape != node.shapes[0]:
            continue
        if not _channels_last(node) or not _channels_last(inner):
            continue
        for j in (0, 1):
            x, first = inner.inputs[j], inner.inputs[1 - j]
            if at.owned(x) or not at.owned(first, later) or x.shape != y.shape:
                continue
            if first.constant is not None and later.constant is not None:
                continue
            wide = np.broadcast_shapes(first.shape, later.shape)
            if math.prod(wide) > max(math.prod(first.shape), math.prod(later.shape), 1):
                continue
            # y = sign_x x + sign_first first, and then sign_y y + sign_later later.
            sign_x, sign_first = signs(inner, j)
            sign_y, sign_later = signs(node, k)
            at.did("offsets added by their owner")
            both = _signed_sum(at, at(first), sign_first * sign_y, at(later), sign_later)
            return at.build("AddV2", at(x), both) if sign_x * sign_y > 0 else at.build("Sub", both, at(x))
    return None


def _signed_sum(at: Sweep, a: Output, sign_a: int, b: Output, sign_b: int) -> Output:
    if sign_a > 0:
        return at.compute("AddV2" if sign_b > 0 else "Sub", a, b)
    if sign_b > 0:
        return at.compute("Sub", b, a)
    return at.compute("Neg", at.compute("AddV2", a, b))


# --- into the layers after


def into_layer_after(at: Sweep, layer: LinearLayer) -> Replacement:
    """conv(chain(x s + o), W) = conv(chain(x), s W) + conv(chain(o), W), for a chain of linear operations.

    Only where every use of x s + o is such a layer, and every layer takes the scale: else it is computed anyway.
    """
    value, chain = _source(layer.data)
    found = _affine(at, value)
    if found is None:
        return None
    x, scale, offset = found
    if value.node in at.replaced or (offset and math.prod(layer.node.shapes[0][1:]) > _LARGEST_OFFSET):
        return None
    if not at.owned(layer.kernel, scale, *([offset[0]] if offset else [])) or not all_take(at, value, scale):
        return None
    scale_there = carried(at, chain, at(scale))
    kernel = None if scale_there is None else layer.kernel_for_inputs(at, scale_there)
    if kernel is None:
        return None
    moved = at(x)
    for node in chain:
        moved = at.again(node, moved, *(at(value) for value in node.inputs[1:]))
    result = layer.with_inputs(at, moved, kernel)
    at.did("scale into the layers after")
    if offset is None:
        return result
    at.did("offset into the layers after")
    amount, sign = offset
    constant = _of_offsets(at, layer, chain, value, at(amount))
    return at.build("AddV2" if sign > 0 else "Sub", result, constant)


def _of_offsets(at: Sweep, layer: LinearLayer, chain: list[Node], value: Output, offset: Output) -> Output:
    """What the layer gives for the offsets alone, computed by their owner: one number a channel if all places agree."""
    separate = _batch_stays(chain) and layer.node.op not in ("Conv2DBackpropInput", "Conv3DBackpropInputV2")
    batch = 1 if separate else value.shape[0]
    spread = at.compute("BroadcastTo", offset, at.shape([batch, *value.shape[1:]]))
    for node in chain:
        spread = _on_batch(at, node, spread, separate)
    constant = layer.with_inputs(at, spread, at(layer.kernel))
    if _uniform(layer, chain):
        ones = [1] * (len(constant.shape) - 1)
        one = at.compute("Slice", constant, at.shape([0] * len(constant.shape)), at.shape([*ones, constant.shape[-1]]))
        return at.compute("Reshape", one, at.shape([-1]))
    return constant


def _batch_stays(chain: list[Node]) -> bool:
    """Whether each operation treats every entry of the first axis by itself."""
    for node in chain:
        before, after = node.inputs[0].shape, node.shapes[0]
        if before[:1] != after[:1]:
            return False
        if node.op in ("Mean", "Sum") and any(int(axis) % len(before) == 0 for axis in node.inputs[1].constant.ravel()):  # type: ignore[union-attr]
            return False
        if node.op == "Pad" and np.any(node.inputs[1].constant[0]):  # type: ignore[index]
            return False
    return True


def _on_batch(at: Sweep, node: Node, value: Output, separate: bool) -> Output:
    """An operation of the chain on a batch of one, or of as many as before."""
    shape = (1, *node.shapes[0][1:]) if separate else node.shapes[0]
    if node.op in _SHAPES:
        return at.compute("Reshape", value, at.shape(shape))
    if "shareflow." in node.op:
        return at.build.custom(node.op, [value], shape, value.dtype, node.attributes, node.name)
    return at.compute(node.op, value, *(at(other) for other in node.inputs[1:]), **node.attributes)


def _uniform(layer: LinearLayer, chain: list[Node]) -> bool:
    """Whether every place of the result sees the same offsets: nothing is padded, no place has channels of its own."""
    for node in chain:
        if node.op == "Pad" or node.attributes.get("padding", "VALID") != "VALID":
            return False
        if node.inputs[0].shape[-1:] != node.shapes[0][-1:]:
            return False
    node = layer.node
    if node.op in ("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3"):
        return True
    if node.op in ("Conv2DBackpropInput", "Conv3DBackpropInputV2", "Einsum"):
        return False
    pointwise = all(n == 1 for n in layer.kernel.shape[: 2 if node.op != "Conv3D" else 3])
    return node.attributes["padding"] == "VALID" or (node.attributes["padding"] == "SAME" and pointwise)


def _source(data: Output) -> tuple[Output, list[Node]]:
    """What a layer's data comes from through linear operations that have one use each; these in order."""
    chain: list[Node] = []
    while data.node.op in (*_SHAPES, *_AVERAGES) or _pads_zeros(data.node):
        chain.append(data.node)
        data = data.node.inputs[0]
    return data, chain[::-1]


def _pads_zeros(node: Node) -> bool:
    return node.op == "Pad" and node.inputs[1].constant is not None


def _affine(at: Sweep, value: Output) -> tuple[Output, Output, tuple[Output, int] | None] | None:
    """(x, s, (o, its sign) or None) where the value is x s + o."""
    node = value.node
    offset: tuple[Output, int] | None = None
    if node.op in _SUMS and _channels_last(node):
        for k in (0, 1) if node.op != "Sub" else (0,):
            inner, added = node.inputs[k], node.inputs[1 - k]
            if is_channel_scale(at, added, inner) and inner.node.op == "Mul" and inner.shape == value.shape:
                offset = (added, -1 if node.op == "Sub" else 1)
                node = inner.node
                if at.alone(inner) is None or node in at.replaced:
                    return None
                break
    if node.op != "Mul" or len(value.shape) < 2:
        return None
    for x, scale in (node.inputs, node.inputs[::-1]):
        if is_channel_scale(at, scale, x) and x.shape == value.shape and at.secret(value):
            return x, scale, offset
    return None


def all_take(at: Sweep, value: Output, scale: Output | None = None) -> bool:
    """Whether each use of a value, through linear operations, is a layer that can take a scale of it into its kernel.

    Without one: a public number.
    """
    if value in at.graph.results:
        return False
    users = at.graph.users.get(value, ())
    for user in users:
        layer = linear_layer(user, at)
        if layer is not None and layer.data == value:
            _, chain = _source(value)
            if scale is not None and not (at.owned(layer.kernel, scale) and _fits(scale, chain, layer)):
                return False
            continue
        linear = user.op in (*_SHAPES, *_AVERAGES) or _pads_zeros(user)
        if not linear or user.inputs[0] != value or not all_take(at, user.outputs[0], scale):
            return False
    return bool(users)


def _fits(scale: Output, chain: list[Node], layer: LinearLayer) -> bool:
    if math.prod(scale.shape) == 1:
        return True
    if layer.node.op == "Einsum":
        left = str(layer.node.attributes["equation"]).replace(" ", "").partition("->")[0].split(",")
        if left[0][-1] not in left[1]:
            return False
    return all(_channels_follow(node) for node in chain)


def _channels_follow(node: Node) -> bool:
    """Whether one number for each channel before becomes one for each entry of the last axis after."""
    if node.op in _AVERAGES:
        return _channels_stay(node) and node.inputs[0].shape[-1:] == node.shapes[0][-1:]
    before, after = node.inputs[0].shape, node.shapes[0]
    if node.op == "Pad":
        padding = node.inputs[1].constant
        return padding is not None and not np.any(padding[-1])
    # A shape that ends in channels, or that puts whole pixels one after another.
    return bool(after) and bool(before) and after[-1] % before[-1] == 0


def carried(at: Sweep, chain: list[Node], scale: Output) -> Output | None:
    """The scale as the last axis has it after the chain."""
    if math.prod(scale.shape) == 1:
        return scale
    for node in chain:
        if not _channels_follow(node):
            return None
        times = node.shapes[0][-1] // node.inputs[0].shape[-1]
        flat = _channels(at, scale)
        scale = at.compute("Tile", flat, at.shape([times])) if times > 1 else flat
    return scale
