"""Ops that move elements: local at each party where places are public."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tensorflow as tf

from shareflow.compiler.graph import Node
from shareflow.compiler.inference import compute
from shareflow.compiler.lower.handler import Value, as_bits, first_shared, is_whole, lowers, public, refuse
from shareflow.nn import half_even, indexing, padding, rearrangement, reduction, selection
from shareflow.nn.linear import channels_first, channels_last
from shareflow.nn.resize import resize_bilinear, resize_nearest
from shareflow.protocol.arithmetic import concat, matmul, stack
from shareflow.protocol.compare import stacked_at_least
from shareflow.protocol.tensor import PrivateTensor


def whole_numbers(node: Node, values: Any) -> list[Value]:
    """Operands that are joined: truth values and whole numbers keep no fractional bits."""
    shared = first_shared(*values)
    if shared is None or not is_whole(node.dtypes[0]):
        return list(values)
    if node.dtypes[0] == "bool":
        return [as_bits(value, shared) for value in values]
    return [
        v.shared(shared.protocol_of_shares(), 0) if isinstance(v, PrivateTensor) and v.protocol is None else v
        for v in values
    ]


@lowers("Reshape", "ExpandDims", "Squeeze")
def _reshape(node: Node, x: PrivateTensor, *unused: Value) -> Value:
    return x.reshape(*node.shapes[0])


@lowers("Transpose", "ConjugateTranspose")
def _transpose(node: Node, x: PrivateTensor, order: Value) -> Value:
    return x.transpose(*(int(i) for i in public(node, order, "an order of axes"))) if x.ndim else x


@lowers("Concat", "ConcatV2")
def _concat(node: Node, *values: Value) -> Value:
    axis, joined = (values[0], values[1:]) if node.op == "Concat" else (values[-1], values[:-1])
    return concat(whole_numbers(node, joined), int(public(node, axis, "an axis")))


@lowers("ParallelConcat")
def _parallel_concat(node: Node, *values: Value) -> Value:
    return concat(whole_numbers(node, values), 0)


@lowers("Pack")
def _pack(node: Node, *values: Value) -> Value:
    return stack(whole_numbers(node, values), node.attributes["axis"])


@lowers("Unpack")
def _unpack(node: Node, x: PrivateTensor) -> tuple[Value, ...]:
    return tuple(indexing.unstack(x, node.attributes["axis"]))


@lowers("Pad", "PadV2")
def _pad(node: Node, x: Value, paddings: Value, *value: Value) -> Value:
    pairs = public(node, paddings, "a padding")
    if not value or not isinstance(value[0], PrivateTensor):
        return padding.pad(x, pairs, value=float(np.asarray(value[0])) if value else 0.0)
    # A private value: 1 outside, times it.
    outside = np.pad(np.zeros(x.shape), pairs, constant_values=1.0)
    inside = padding.pad(x, pairs) if isinstance(x, PrivateTensor) else np.pad(x, pairs)
    return value[0] * outside + inside


@lowers("MirrorPad")
def _mirror_pad(node: Node, x: PrivateTensor, paddings: Value) -> Value:
    return padding.pad(x, public(node, paddings, "a padding"), node.attributes["mode"])


@lowers("Split", "SplitV")
def _split(node: Node, *values: Value) -> tuple[Value, ...]:
    x, axis = (values[1], values[0]) if node.op == "Split" else (values[0], values[2])
    along = int(public(node, axis, "an axis")) % len(x.shape)
    return tuple(indexing.split(x, [shape[along] for shape in node.shapes], along))


@lowers("Slice")
def _slice(node: Node, x: PrivateTensor, begin: Value, size: Value) -> Value:
    starts = public(node, begin, "a place")
    return x[tuple(slice(int(b), int(b) + n) for b, n in zip(starts, node.shapes[0], strict=True))]


@lowers("StridedSlice")
def _strided_slice(node: Node, x: PrivateTensor, begin: Value, end: Value, strides: Value) -> Value:
    first, last, steps = ([int(n) for n in public(node, value, "places")] for value in (begin, end, strides))
    names = ("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask")
    return indexing.strided_slice(x, first, last, steps, **{name: node.attributes[name] for name in names})


@lowers("Tile")
def _tile(node: Node, x: PrivateTensor, multiples: Value) -> Value:
    return rearrangement.tile(x, [int(n) for n in public(node, multiples, "multiples")])


@lowers("BroadcastTo")
def _broadcast_to(node: Node, x: PrivateTensor, shape: Value) -> Value:
    return x.broadcast_to(node.shapes[0])


@lowers("Fill")
def _fill(node: Node, shape: Value, value: PrivateTensor) -> Value:
    public(node, shape, "a shape")
    return value.broadcast_to(node.shapes[0])


@lowers("ReverseV2")
def _reverse(node: Node, x: PrivateTensor, axes: Value) -> Value:
    along = [int(i) for i in public(node, axes, "axes").ravel()]
    return rearrangement.reverse(x, along) if along else x


@lowers("Reverse")
def _reverse_flagged(node: Node, x: PrivateTensor, flags: Value) -> Value:
    along = [int(i) for i in np.flatnonzero(public(node, flags, "axes"))]
    return rearrangement.reverse(x, along) if along else x


@lowers("Roll")
def _roll(node: Node, x: PrivateTensor, shift: Value, axis: Value) -> Value:
    shifts, axes = (np.ravel(public(node, value, "places")).astype(int).tolist() for value in (shift, axis))
    for by, along in zip(shifts, axes, strict=True):
        # One after the other: an axis may be named twice.
        x = rearrangement.roll(x, by, along)
    return x


# --- by index


@lowers("Gather", "GatherV2", "ResourceGather")
def _gather(node: Node, x: Value, indices: Value, *axis: Value) -> Value:
    along = int(public(node, axis[0], "an axis")) if axis else 0
    batch = int(node.attributes.get("batch_dims", 0))
    if batch < 0:
        batch += len(indices.shape)
    return indexing.gather(x, indices, along % len(x.shape), batch)


@lowers("GatherNd")
def _gather_nd(node: Node, x: Value, indices: Value) -> Value:
    if not isinstance(indices, PrivateTensor):
        return indexing.gather_nd(x, indices)
    # One number for each place in the named axes.
    named = indices.shape[-1]
    extents, rest = x.shape[:named], x.shape[named:]
    steps = [math.prod(extents[i + 1 :]) for i in range(named)]
    places = sum(indices[..., i] * steps[i] for i in range(named))
    return indexing.gather(x.reshape(math.prod(extents), *rest), places)


@lowers("OneHot")
def _one_hot(node: Node, indices: PrivateTensor, depth: Value, on: Value, off: Value) -> Value:
    count, axis = int(public(node, depth, "a depth")), int(node.attributes["axis"])
    if not count:
        raise refuse(node, "a depth of 0 leaves nothing.", "Use a depth of at least 1.")
    if node.inputs[0].node.op in ("ArgMax", "ArgMin") and node.inputs[0].node.inputs[0].shape:
        bits = reduction.one_hot(indices, count, axis) if _below(node, count) else _bits(indices, count, axis)
    else:
        bits = _bits(indices, count, axis)
    if node.dtypes[0] == "bool":
        on, off = (as_bits(value, indices) for value in (on, off))
    if isinstance(on, PrivateTensor) or isinstance(off, PrivateTensor):
        return selection.where(bits, on, off)
    return bits if on == 1 and off == 0 else bits * (on - off) + off


def _below(node: Node, count: int) -> bool:
    """Whether the places of a maximum are all below a depth."""
    source = node.inputs[0].node
    axis = source.inputs[1].constant
    return axis is not None and source.inputs[0].shape[int(axis)] <= count


def _bits(indices: PrivateTensor, depth: int, axis: int) -> PrivateTensor:
    """[index = j] for each j; nowhere 1 for an index beyond."""
    reached = stacked_at_least(indices, [float(j) for j in range(depth + 1)])
    found = reached[:-1] - reached[1:]
    order = list(range(1, indices.ndim + 1))
    order.insert(axis % (indices.ndim + 1), 0)
    return found.transpose(order)


@lowers("ScatterNd")
def _scatter_nd(node: Node, indices: Value, updates: PrivateTensor, shape: Value) -> Value:
    return indexing.scatter_nd(public(node, indices, "places"), updates, node.shapes[0])


@lowers("TensorScatterAdd", "TensorScatterSub")
def _scatter_add(node: Node, x: Value, indices: Value, updates: Value) -> Value:
    places = public(node, indices, "places")
    if isinstance(updates, PrivateTensor):
        added = indexing.scatter_nd(places, updates, node.shapes[0])
        return x - added if node.op == "TensorScatterSub" else x + added
    total = np.zeros(node.shapes[0])
    np.add.at(total, tuple(np.moveaxis(places, -1, 0)), updates)
    return x - total if node.op == "TensorScatterSub" else x + total


@lowers("TensorScatterUpdate")
def _scatter_update(node: Node, x: Value, indices: Value, updates: Value) -> Value:
    x, updates = whole_numbers(node, (x, updates))
    return indexing.tensor_scatter_update(x, public(node, indices, "places"), updates)


@lowers("SegmentSum", "SegmentMean", "UnsortedSegmentSum")
def _segment_sum(node: Node, x: PrivateTensor, numbers: Value, *count: Value) -> Value:
    segments = np.asarray(public(node, numbers, "numbers of segments"))
    flat = x.reshape(segments.size, *x.shape[segments.ndim :])
    # TensorFlow leaves out what has a negative number.
    kept = np.flatnonzero(segments.ravel() >= 0)
    if len(kept) < segments.size:
        flat = flat.take(kept)
    total = indexing.scatter_nd(segments.ravel()[kept][:, None], flat, node.shapes[0])
    if node.op != "SegmentMean":
        return total
    counts = np.maximum(np.bincount(segments, minlength=node.shapes[0][0]), 1)
    return total * (1 / counts.reshape(-1, *[1] * (x.ndim - 1)))


# --- images


@lowers("ResizeNearestNeighbor", "ResizeBilinear")
def _resize(node: Node, x: PrivateTensor, size: Value) -> Value:
    resize = resize_nearest if node.op == "ResizeNearestNeighbor" else resize_bilinear
    flags = {name: node.attributes[name] for name in ("align_corners", "half_pixel_centers")}
    return resize(x, tuple(int(n) for n in public(node, size, "a size")), **flags)


@lowers("ResizeArea", "ResizeBicubic", "ScaleAndTranslate")
def _resize_by_matrices(node: Node, x: PrivateTensor, size: Value, *place: Value) -> Value:
    # Along each axis the result is a public matrix times the image: TensorFlow's own result for unit vectors.
    wanted = [int(n) for n in public(node, size, "a size")]
    scales = [np.asarray(public(node, value, "a place")) for value in place]
    for axis in (0, 1):
        extent = x.shape[1 + axis]
        units = np.eye(extent, dtype=np.float32).reshape(1, extent, 1, extent)
        ones = [np.array([value[axis], neutral], np.float32) for value, neutral in zip(scales, (1, 0), strict=False)]
        shape = np.array([wanted[axis], 1], np.int32)
        with tf.init_scope():
            (columns,) = compute(node.op, [tf.constant(v) for v in (units, shape, *ones)], node.attributes)
            weights = np.asarray(columns, np.float64).reshape(wanted[axis], extent)
        lines = x.reshape(math.prod(x.shape[: 1 + axis]), extent, -1)
        x = matmul(weights, lines).reshape(*x.shape[: 1 + axis], wanted[axis], *x.shape[2 + axis :])
    return x


@lowers("SpaceToDepth", "DepthToSpace")
def _blocks(node: Node, x: PrivateTensor) -> Value:
    move = rearrangement.space_to_depth if node.op == "SpaceToDepth" else rearrangement.depth_to_space
    layout, block = node.attributes.get("data_format", "NHWC"), node.attributes["block_size"]
    if layout == "NCHW":
        return channels_first(move(channels_last(x), block))
    if layout != "NHWC":
        raise refuse(node, f"the data format {layout} has no private form.", "Use NHWC.")
    return move(x, block)


@lowers("SpaceToBatchND", "BatchToSpaceND")
def _batches(node: Node, x: PrivateTensor, blocks: Value, edges: Value) -> Value:
    numbers, pairs = [int(n) for n in public(node, blocks, "blocks")], public(node, edges, "edges")
    move = rearrangement.space_to_batch_nd if node.op == "SpaceToBatchND" else rearrangement.batch_to_space_nd
    return move(x, numbers, pairs)


# --- types


@lowers("Cast")
def _cast(node: Node, x: PrivateTensor) -> Value:
    before, after = _kind(node, node.inputs[0].dtype), _kind(node, node.dtypes[0])
    if after == "bool":
        return as_bits(x) if before == "bool" else x != 0
    if before == "bool":
        return as_bits(x)
    if after == "whole" and before == "real":
        return half_even.toward_zero(x)
    return x


def _kind(node: Node, dtype: str) -> str:
    if dtype == "bool":
        return "bool"
    if "float" in dtype:
        return "real"
    if is_whole(dtype) and not dtype.startswith("q"):
        return "whole"
    raise refuse(node, f"values of {dtype} have no private form.", "Use real numbers: float32, integers or bool.")
