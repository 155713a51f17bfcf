"""Images at another size. Where samples are taken is public, so that this is a product with public weights."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from shareflow.compiler.front.onnx_ops.call import Call, Value, computes
from shareflow.compiler.front.onnx_ops.laid import Laid, public_tensor


@computes("Resize", "Upsample")
def _resize(call: Call) -> Value:
    shape = call.shape(0)
    rank = len(shape)
    scales, sizes = _wanted(call, shape)
    mode = str(call.get("mode", "nearest"))
    if call.op == "Upsample":
        rule = "asymmetric"
        rounding = "floor"
    else:
        rule = str(call.get("coordinate_transformation_mode", "half_pixel"))
        rounding = str(call.get("nearest_mode", "round_prefer_floor"))
    if rule == "tf_crop_and_resize" or call.get("antialias", 0) or call.get("exclude_outside", 0):
        raise call.refuse("crops, or weighs what lies outside.", "Use slices, and Resize without these.")
    call.checked(sizes)
    last = rank > 2
    x = call.last(0) if last else call.tensor(0)
    place = [0, rank - 1, *range(1, rank - 1)] if last else list(range(rank))
    for axis in range(rank):
        if sizes[axis] == shape[axis] and scales[axis] == 1:
            continue
        at = _coordinates(call, rule, sizes[axis], shape[axis], scales[axis])
        if mode == "nearest":
            x = tf.gather(x, _nearest(call, rounding, at, shape[axis]), axis=place[axis])
        elif mode in ("linear", "bilinear", "cubic"):
            weights = _weights(mode, at, shape[axis], float(call.get("cubic_coeff_a", -0.75)))
            x = _along(x, weights, place[axis])
        else:
            raise call.refuse(f"has mode {mode!r}.", "Use nearest, linear or cubic.")
    return Laid(last=x) if last else Laid(x)


def _wanted(call: Call, shape: tuple[int, ...]) -> tuple[list[float], list[int]]:
    """Scales and sizes of all axes."""
    given: np.ndarray | None = None
    sizes: np.ndarray | None = None
    if "scales" in call.attributes:
        given = np.asarray(call.get("scales"))
    elif call.op == "Upsample" or call.opset < 11:
        given = call.public(1, "scales")
    else:
        given = call.public(2, "scales") if call.has(2) else None
        sizes = call.public(3, "sizes") if call.has(3) else None
    if given is not None and not given.size:
        given = None
    axes = [a % len(shape) for a in call.get("axes") or range(len(shape))]
    scales, extents = [1.0] * len(shape), list(shape)
    if sizes is not None and sizes.size:
        factors = [int(n) / shape[a] for a, n in zip(axes, np.ravel(sizes), strict=True)]
        policy = call.get("keep_aspect_ratio_policy", "stretch")
        if policy != "stretch":
            one = min(factors) if policy == "not_larger" else max(factors)
            for a in axes:
                scales[a], extents[a] = one, int(np.floor(shape[a] * one + 0.5))
            return scales, extents
        for a, n, factor in zip(axes, np.ravel(sizes), factors, strict=True):
            scales[a], extents[a] = factor, int(n)
    elif given is not None:
        for a, factor in zip(axes, np.ravel(given), strict=True):
            scales[a], extents[a] = float(factor), int(np.floor(shape[a] * float(factor)))
    else:
        raise call.refuse("has neither scales nor sizes.", "Export the model again.")
    return scales, extents


def _coordinates(call: Call, rule: str, wanted: int, extent: int, scale: float) -> np.ndarray:
    """Where each place of the result lies in the input."""
    at = np.arange(wanted, dtype=np.float64)
    if rule == "asymmetric":
        return at / scale
    if rule == "align_corners":
        return at * ((extent - 1) / (wanted - 1)) if wanted > 1 else at * 0
    if rule == "pytorch_half_pixel":
        return (at + 0.5) / scale - 0.5 if wanted > 1 else at * 0
    if rule == "half_pixel_symmetric":
        adjusted = wanted / (scale * extent)
        return extent / 2 * (1 - adjusted) + (at + 0.5) / scale - 0.5
    if rule == "half_pixel":
        return (at + 0.5) / scale - 0.5
    raise call.refuse(f"has coordinates {rule!r}.", "Use half_pixel, align_corners or asymmetric.")


def _nearest(call: Call, rounding: str, at: np.ndarray, extent: int) -> np.ndarray:
    if rounding == "floor":
        places = np.floor(at)
    elif rounding == "ceil":
        places = np.ceil(at)
    elif rounding == "round_prefer_ceil":
        places = np.floor(at + 0.5)
    elif rounding == "round_prefer_floor":
        places = np.ceil(at - 0.5)
    else:
        raise call.refuse(f"rounds {rounding!r}.", "Use floor, ceil or round_prefer_floor.")
    return np.clip(places, 0, extent - 1).astype(np.int64)


def _weights(mode: str, at: np.ndarray, extent: int, a: float) -> np.ndarray:
    """What each place of the input adds to each of the result: [result, input]."""
    weights = np.zeros((len(at), extent))
    begin = np.floor(at)
    part = at - begin
    if mode == "cubic":
        near = [
            (-1, a * (part**3 - 2 * part**2 + part)),
            (0, (a + 2) * part**3 - (a + 3) * part**2 + 1),
            (1, -(a + 2) * part**3 + (2 * a + 3) * part**2 - a * part),
            (2, a * (part**2 - part**3)),
        ]
    else:
        near = [(0, 1 - part), (1, part)]
    for shift, weight in near:
        np.add.at(weights, (np.arange(len(at)), np.clip(begin + shift, 0, extent - 1).astype(int)), weight)
    return weights


def _along(x: tf.Tensor, weights: np.ndarray, axis: int) -> tf.Tensor:
    """The product along an axis."""
    letters = "abcdefgh"[: len(x.shape)]
    result = letters.replace(letters[axis], "z")
    return tf.einsum(f"{letters},z{letters[axis]}->{result}", x, public_tensor(weights.astype(x.dtype.name)))
