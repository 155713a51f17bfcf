"""Shapes and places: what moves values and computes none."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from shareflow.compiler.front.onnx_ops.call import Call, Value, computes, positive, tensor_of
from shareflow.compiler.front.onnx_ops.laid import Laid
from shareflow.errors import UnsupportedModelError

# By ONNX's numbers. Half precision is computed in single.
TYPES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float32",
    11: "float64",
    12: "uint32",
    13: "uint64",
    16: "float32",
}


def type_of(number: int, call: Call | None = None, what: str = "a value") -> str:
    """NumPy's name of one of ONNX's types.

    Raises:
        UnsupportedModelError: strings, complex numbers, and what else has no private form.
    """
    if number not in TYPES:
        where = f"{call.title}: " if call else ""
        kinds = {8: "strings", 14: "complex numbers", 15: "complex numbers"}
        raise UnsupportedModelError(
            f"{where}{what} is of {kinds.get(number, f'ONNX type {number}')}; values are numbers, or true "
            "and false. Convert before the export."
        )
    return TYPES[number]


@computes("Cast", "CastLike")
def _cast(call: Call) -> Value:
    x = call.value(0)
    dtype = type_of(int(call.get("to")), call) if call.op == "Cast" else np.dtype(_numpy(call.value(1))).name
    if isinstance(x, np.ndarray):
        return x.astype(dtype)
    if x.dtype.name == dtype:
        return x
    return Laid(last=tf.cast(x.last, dtype)) if x.lies_last else Laid(tf.cast(x.first, dtype))


def _numpy(value: Value) -> np.dtype:
    return value.dtype if isinstance(value, np.ndarray) else np.dtype(value.dtype.as_numpy_dtype)


@computes("Shape")
def _shape(call: Call) -> np.ndarray:
    shape = np.array(call.shape(0), np.int64)
    return shape[int(call.get("start", 0)) : call.get("end")]


@computes("Size")
def _size(call: Call) -> np.ndarray:
    return np.array(int(np.prod(call.shape(0), dtype=object)), np.int64)


@computes("ConstantOfShape")
def _constant_of_shape(call: Call) -> np.ndarray:
    value = np.asarray(call.get("value", np.zeros(1, np.float32)))
    return np.full(call.checked(call.numbers(0, "a shape")), value.reshape(-1)[0], value.dtype)


@computes("Range")
def _range(call: Call) -> np.ndarray:
    start, limit, step = (call.public(i, "a limit").reshape(-1)[0] for i in range(3))
    call.checked([max(int(np.ceil((limit - start) / step)), 0)])
    return np.asarray(np.arange(start, limit, step), start.dtype)


@computes("EyeLike")
def _eye_like(call: Call) -> np.ndarray:
    rows, columns = call.checked(call.shape(0))
    kind = type_of(int(call.get("dtype")), call) if call.get("dtype") else _numpy(call.value(0))
    return np.eye(rows, columns, int(call.get("k", 0)), kind)


@computes("Reshape")
def _reshape(call: Call) -> Value:
    before = call.shape(0)
    wanted = call.numbers_or("shape", 1, "a shape") or []
    if not call.get("allowzero", 0):
        wanted = [before[i] if n == 0 and i < len(before) else n for i, n in enumerate(wanted)]
    if tuple(wanted) == before:
        return call.value(0)
    return Laid(tf.reshape(call.tensor(0), wanted))


@computes("Flatten")
def _flatten(call: Call) -> tf.Tensor:
    shape = call.shape(0)
    axis = int(call.get("axis", 1))
    axis = axis + len(shape) if axis < 0 else axis
    rows = int(np.prod(shape[:axis], dtype=object))
    if call.lies_last(0) and all(n == 1 for n in shape[2:]):
        # Channels alone: both orders are the same.
        return tf.reshape(call.last(0), [rows, -1])
    return tf.reshape(call.tensor(0), [rows, -1])


@computes("Transpose")
def _transpose(call: Call) -> Value:
    rank = call.rank(0)
    order = [int(n) for n in call.get("perm") or range(rank - 1, -1, -1)]
    if rank > 2 and call.lies_last(0) and order == [0, *range(2, rank), 1]:
        return call.last(0)
    if rank > 2 and order == [0, rank - 1, *range(1, rank - 1)]:
        return Laid(last=call.tensor(0))
    return Laid(tf.transpose(call.tensor(0), order))


@computes("Squeeze")
def _squeeze(call: Call) -> Value:
    shape = call.shape(0)
    axes = call.numbers_or("axes", 1, "axes")
    gone = {positive(a, len(shape), call) for a in axes} if axes else {i for i, n in enumerate(shape) if n == 1}
    if any(shape[i] != 1 for i in gone):
        raise call.refuse(f"leaves out axes {sorted(gone)} of shape {list(shape)}.", "Only extents of 1 can go.")
    kept = [n for i, n in enumerate(shape) if i not in gone]
    if call.lies_last(0) and gone >= set(range(2, len(shape))):
        return Laid(tf.reshape(call.last(0), kept))
    return Laid(tf.reshape(call.tensor(0), kept))


@computes("Unsqueeze")
def _unsqueeze(call: Call) -> tf.Tensor:
    shape = list(call.shape(0))
    given = call.numbers_or("axes", 1, "axes") or []
    rank = len(shape) + len(given)
    for axis in sorted(positive(a, rank, call) for a in given):
        shape.insert(axis, 1)
    return tf.reshape(call.tensor(0), shape)


@computes("Expand")
def _expand(call: Call) -> Value:
    before = call.shape(0)
    wanted = call.checked(np.broadcast_shapes(before, tuple(call.numbers(1, "a shape"))))
    return call.value(0) if tuple(wanted) == before else Laid(tf.broadcast_to(call.tensor(0), wanted))


@computes("Tile")
def _tile(call: Call) -> tf.Tensor:
    counts = call.numbers(1, "how often")
    call.checked([n * k for n, k in zip(call.shape(0), counts, strict=True)])
    return tf.tile(call.tensor(0), counts)


@computes("Concat")
def _concat(call: Call) -> Value:
    values = [call.value(i) for i in range(len(call.inputs))]
    rank = call.rank(0)
    axis = call.axis(0, 0)
    if rank > 2 and any(isinstance(v, Laid) and v.lies_last for v in values):
        place = [0, rank - 1, *range(1, rank - 1)][axis]
        return Laid(last=tf.concat([call.last(i) for i in range(len(values))], place))
    return Laid(tf.concat([tensor_of(value) for value in values], axis))


@computes("Split")
def _split(call: Call) -> tuple[Value, ...]:
    axis, rank = call.axis(0, 0), call.rank(0)
    extent = call.shape(0)[axis]
    sizes = call.numbers_or("split", 1, "sizes")
    if sizes is None:
        count = int(call.get("num_outputs", call.outputs))
        each = -(-extent // count)
        sizes = [min(each, extent - i * each) for i in range(count)]
    if sum(sizes) != extent or min(sizes) < 0:
        raise call.refuse(f"splits {extent} into {sizes}.", "Export the model again.")
    if call.lies_last(0) and rank > 2:
        place = [0, rank - 1, *range(1, rank - 1)][axis]
        return tuple(Laid(last=part) for part in tf.split(call.last(0), sizes, place))
    return tuple(Laid(part) for part in tf.split(call.tensor(0), sizes, axis))


@computes("Slice")
def _slice(call: Call) -> Value:
    shape = call.shape(0)
    starts = call.numbers_or("starts", 1, "where it begins") or []
    ends = call.numbers_or("ends", 2, "where it ends") or []
    axes = call.numbers_or("axes", 3, "axes")
    steps = call.numbers(4, "steps") if call.has(4) else [1] * len(starts)
    cut = [slice(None)] * len(shape)
    for start, end, axis, step in zip(starts, ends, axes or range(len(starts)), steps, strict=True):
        place = positive(axis, len(shape), call)
        if step == 0:
            raise call.refuse("has steps of 0.", "Export the model again.")
        begin, stop, step = slice(start, end, step).indices(shape[place])
        cut[place] = slice(begin, None if stop < 0 else stop, step)
    if call.lies_last(0):
        moved = [cut[0], *cut[2:], cut[1]] if len(shape) > 2 else cut
        return Laid(last=call.last(0)[tuple(moved)])
    return Laid(call.tensor(0)[tuple(cut)])


@computes("Gather")
def _gather(call: Call) -> tf.Tensor:
    axis = call.axis(0, 0)
    return tf.gather(call.tensor(0), _from_zero(call, 1, call.shape(0)[axis]), axis=axis)


def _from_zero(call: Call, index: int, extent: int) -> tf.Tensor:
    """Indices, those that are negative counted from the end. Private ones are taken as they are."""
    value = call.value(index)
    if isinstance(value, np.ndarray):
        return tf.constant(np.where(value < 0, value + extent, value))
    return value.first


@computes("GatherElements")
def _gather_elements(call: Call) -> tf.Tensor:
    axis = call.axis(0, 0)
    places = call.public(1, "indices")
    places = np.where(places < 0, places + call.shape(0)[axis], places)
    full = np.stack(np.meshgrid(*map(np.arange, places.shape), indexing="ij"), -1)
    full[..., axis] = places
    return tf.gather_nd(call.tensor(0), full)


@computes("GatherND")
def _gather_nd(call: Call) -> tf.Tensor:
    batch = int(call.get("batch_dims", 0))
    places = call.public(1, "indices")
    extents = np.array(call.shape(0)[batch : batch + places.shape[-1]])
    return tf.gather_nd(call.tensor(0), np.where(places < 0, places + extents, places), batch_dims=batch)


@computes("ScatterND")
def _scatter_nd(call: Call) -> tf.Tensor:
    if call.get("reduction", "none") not in ("none", "add"):
        raise call.refuse(f"reduces by {call.get('reduction')}.", "Use add, or none.")
    places = call.public(1, "indices")
    extents = np.array(call.shape(0)[: places.shape[-1]])
    places = np.where(places < 0, places + extents, places)
    scatter = tf.tensor_scatter_nd_update if call.get("reduction", "none") == "none" else tf.tensor_scatter_nd_add
    return scatter(call.tensor(0), places, call.tensor(2))


@computes("OneHot")
def _one_hot(call: Call) -> tf.Tensor:
    depth = call.numbers(1, "a depth")[0]
    off, on = (v for v in call.public(2, "what stands for no and yes"))
    call.checked([*call.shape(0), depth])
    return tf.one_hot(call.tensor(0), depth, on, off, int(call.get("axis", -1)), tf.as_dtype(on.dtype))


@computes("Pad")
def _pad(call: Call) -> Value:
    shape = call.shape(0)
    pads = call.numbers_or("pads", 1, "padding") or []
    axes = call.numbers(3, "axes") if call.has(3) else list(range(len(shape)))
    rows = [[0, 0] for _ in shape]
    for i, axis in enumerate(axes):
        rows[positive(axis, len(shape), call)] = [pads[i], pads[i + len(axes)]]
    mode = call.get("mode", "constant")
    if mode not in ("constant", "reflect", "edge", "wrap"):
        raise call.refuse(f"has mode {mode!r}.", "Use constant, reflect, edge or wrap.")
    last = call.lies_last(0) and len(shape) > 2
    x = call.last(0) if last else call.tensor(0)
    if last:
        rows = [rows[0], *rows[2:], rows[1]]
    # Negative padding cuts.
    cut = tuple(slice(max(-a, 0), n - max(-b, 0)) for (a, b), n in zip(rows, x.shape, strict=True))
    if any(min(row) < 0 for row in rows):
        x = x[cut]
        rows = [[max(a, 0), max(b, 0)] for a, b in rows]
    call.checked([n + a + b for n, (a, b) in zip(x.shape, rows, strict=True)])
    if mode == "constant":
        value = call.get("value", 0.0)
        if call.has(2):
            value = call.public(2, "a value").reshape(-1)[0]
        result = tf.pad(x, rows, constant_values=tf.cast(value, x.dtype)) if value else tf.pad(x, rows)
    elif mode == "reflect":
        result = tf.pad(x, rows, "REFLECT")
    else:
        result = x
        for axis, (before, after) in enumerate(rows):
            if before or after:
                places = np.arange(-before, result.shape[axis] + after)
                n = result.shape[axis]
                result = tf.gather(result, places % n if mode == "wrap" else np.clip(places, 0, n - 1), axis=axis)
    return Laid(last=result) if last else Laid(result)


@computes("DepthToSpace")
def _depth_to_space(call: Call) -> Laid:
    x, size = call.last(0), int(call.get("blocksize"))
    batch, height, width, channels = x.shape
    inner = channels // size**2
    if call.get("mode", "DCR") == "DCR":
        return Laid(last=tf.nn.depth_to_space(x, size))
    apart = tf.reshape(x, [batch, height, width, inner, size, size])
    moved = tf.transpose(apart, [0, 1, 4, 2, 5, 3])
    return Laid(last=tf.reshape(moved, [batch, height * size, width * size, inner]))


@computes("SpaceToDepth")
def _space_to_depth(call: Call) -> Laid:
    return Laid(last=tf.nn.space_to_depth(call.last(0), int(call.get("blocksize"))))


@computes("ReverseSequence")
def _reverse_sequence(call: Call) -> tf.Tensor:
    lengths = call.public(1, "lengths")
    return tf.reverse_sequence(call.tensor(0), lengths, int(call.get("time_axis", 0)), int(call.get("batch_axis", 1)))
