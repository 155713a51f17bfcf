"""Convolutions and their transposes over one to three axes, computed with channels last."""

from __future__ import annotations

import tensorflow as tf

from shareflow.compiler.front.onnx_ops.call import Call, computes
from shareflow.compiler.front.onnx_ops.laid import Laid
from shareflow.compiler.front.onnx_ops.window import Window, full_pads, pad_rows, window


@computes("Conv")
def _conv(call: Call) -> Laid:
    x, places = call.last(0), call.shape(0)[2:]
    shape = call.shape(1)
    groups = int(call.get("group", 1))
    if not 1 <= len(places) <= 3:
        raise call.refuse(f"goes over {len(places)} axes.", "There are convolutions over one to three.")
    at = window(call, places, shape[2:])
    # [outputs, inputs of a group, *places] as [*places, inputs of a group, outputs]
    kernel = tf.transpose(call.tensor(1), [*range(2, len(shape)), 1, 0])
    if len(places) == 1:
        at = _widened(at)
        result = tf.squeeze(_conv2d(call, tf.expand_dims(x, 1), tf.expand_dims(kernel, 0), at, groups), 1)
    elif len(places) == 2:
        result = _conv2d(call, x, kernel, at, groups)
    else:
        result = _conv3d(x, kernel, at, groups)
    return Laid(last=tf.nn.bias_add(result, call.tensor(2)) if call.has(2) else result)


def _widened(at: Window) -> Window:
    """Over a line as an image of height 1."""
    return Window((1, *at.kernel), (1, *at.strides), (1, *at.dilations), ((0, 0), *at.pads))


def _conv2d(call: Call, x: tf.Tensor, kernel: tf.Tensor, at: Window, groups: int) -> tf.Tensor:
    padding = at.named(x.shape[1:3])
    attributes = {
        "strides": [1, *at.strides, 1],
        "padding": padding,
        "explicit_paddings": full_pads(at.pads) if padding == "EXPLICIT" else [],
        "dilations": [1, *at.dilations, 1],
    }
    channels = x.shape[-1]
    if groups == channels > 1 and at.strides[0] == at.strides[1] and at.dilations == (1, 1):
        # Each channel is a group.
        height, width, _, outputs = kernel.shape
        by_channel = tf.reshape(kernel, [height, width, channels, outputs // channels])
        return tf.raw_ops.DepthwiseConv2dNative(input=x, filter=by_channel, **attributes)
    return tf.raw_ops.Conv2D(input=x, filter=kernel, **attributes)


def _conv3d(x: tf.Tensor, kernel: tf.Tensor, at: Window, groups: int) -> tf.Tensor:
    padding = at.named(x.shape[1:4])
    if padding == "EXPLICIT":
        x, padding = tf.pad(x, pad_rows(at.pads)), "VALID"
    for axis, step in enumerate(at.dilations):
        kernel = _spread(kernel, axis, step)
    strides = [1, *at.strides, 1]
    if groups == 1:
        return tf.nn.conv3d(x, kernel, strides, padding)
    parts = zip(tf.split(x, groups, -1), tf.split(kernel, groups, -1), strict=True)
    return tf.concat([tf.nn.conv3d(part, own, strides, padding) for part, own in parts], -1)


def _spread(kernel: tf.Tensor, axis: int, step: int) -> tf.Tensor:
    """A kernel with zeros between its entries: that of a dilated convolution."""
    if step == 1 or kernel.shape[axis] == 1:
        return kernel
    extents = list(kernel.shape)
    apart = tf.reshape(kernel, [*extents[: axis + 1], 1, *extents[axis + 1 :]])
    apart = tf.pad(apart, [[0, step - 1 if i == axis + 1 else 0] for i in range(len(extents) + 1)])
    joined = tf.reshape(apart, [*extents[:axis], extents[axis] * step, *extents[axis + 1 :]])
    keep = (extents[axis] - 1) * step + 1
    return tf.gather(joined, tf.range(keep), axis=axis)


@computes("ConvTranspose")
def _conv_transpose(call: Call) -> Laid:
    x, places = call.last(0), call.shape(0)[2:]
    shape = call.shape(1)
    rank = len(places)
    groups = int(call.get("group", 1))
    if not 1 <= rank <= 3:
        raise call.refuse(f"goes over {rank} axes.", "There are convolutions over one to three.")
    # [inputs, outputs of a group, *places] as [*places, outputs of a group, inputs]
    kernel = tf.transpose(call.tensor(1), [*range(2, len(shape)), 1, 0])
    dilations = call.get("dilations") or [1] * rank
    for axis, step in enumerate(dilations):
        kernel = _spread(kernel, axis, int(step))
    strides = [int(n) for n in call.get("strides") or [1] * rank]
    extra = [int(n) for n in call.get("output_padding") or [0] * rank]
    reach = [int(n) for n in kernel.shape[:rank]]
    full = [(n - 1) * s + k for n, s, k in zip(places, strides, reach, strict=True)]
    pads = _crop(call, places, strides, full, extra)
    parts = zip(tf.split(x, groups, -1), tf.split(kernel, groups, -1), strict=True) if groups > 1 else [(x, kernel)]
    results = [_whole(part, own, strides, full) for part, own in parts]
    result = results[0] if groups == 1 else tf.concat(results, -1)
    begin = [0, *(pair[0] for pair in pads), 0]
    wanted = [f + e - a - b for f, e, (a, b) in zip(full, extra, pads, strict=True)]
    short = [max(a + n - f, 0) for (a, _), n, f in zip(pads, wanted, full, strict=True)]
    if any(short):
        result = tf.pad(result, [[0, 0], *([0, n] for n in short), [0, 0]])
    if any(begin) or wanted != [f + s for f, s in zip(full, short, strict=True)]:
        result = tf.slice(result, begin, [x.shape[0], *call.checked(wanted), result.shape[-1]])
    return Laid(last=tf.nn.bias_add(result, call.tensor(2)) if call.has(2) else result)


def _crop(
    call: Call, places: tuple[int, ...], strides: list[int], full: list[int], extra: list[int]
) -> list[tuple[int, int]]:
    """What is left out of the whole result before and after, for each axis."""
    rank = len(places)
    kind = call.get("auto_pad", "NOTSET")
    wanted = call.get("output_shape")
    if wanted is None and kind in ("SAME_UPPER", "SAME_LOWER"):
        wanted = [n * s for n, s in zip(places, strides, strict=True)]
    if wanted is not None:
        pairs = []
        for f, e, w in zip(full, extra, list(wanted)[-rank:], strict=True):
            total = f + e - int(w)
            small, large = total // 2, total - total // 2
            pairs.append((small, large) if kind == "SAME_UPPER" else (large, small))
        if any(n < 0 for pair in pairs for n in pair):
            raise call.refuse(f"asks for {list(wanted)} places, more than there are.", "Use output_padding.")
        return pairs
    pads = [int(n) for n in call.get("pads") or [0] * 2 * rank] if kind != "VALID" else [0] * 2 * rank
    return [(pads[i], pads[i + rank]) for i in range(rank)]


def _whole(x: tf.Tensor, kernel: tf.Tensor, strides: list[int], full: list[int]) -> tf.Tensor:
    """Every place that an entry of x reaches. kernel: [*places, outputs, inputs]."""
    batch, outputs = x.shape[0], kernel.shape[-2]
    if len(full) == 1:
        image = _whole(tf.expand_dims(x, 1), tf.expand_dims(kernel, 0), [1, *strides], [1, *full])
        return tf.squeeze(image, 1)
    transpose = tf.nn.conv2d_transpose if len(full) == 2 else tf.nn.conv3d_transpose
    return transpose(x, kernel, [batch, *full, outputs], [1, *strides, 1], "VALID")
