"""Images in another size: nearest and bilinear interpolation with public weights, along one axis after the other.

What each new row and column is made of is public, so all of it is local. Where new rows lie between old ones at
fractions of 2, 4 or 8 (twice the size takes quarters), weights are exact and take two or three bits each; else they are
rounded to as many bits as the encoding has, and a truncation follows later.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from shareflow.errors import ShapeError
from shareflow.nn.geometry import pair
from shareflow.nn.sliding_maximum import taken
from shareflow.protocol.arithmetic import exact_bits
from shareflow.protocol.operand import private_operand
from shareflow.protocol.tensor import PrivateTensor

# Weights of so few bits stay exact; two axes of them add up.
_EXACT_BITS = 3


def resize_nearest(x: Any, size: Any, align_corners: bool = False, half_pixel_centers: bool = False) -> PrivateTensor:
    """Images [N, H, W, C] in another size (height, width), each pixel that of the nearest, as ResizeNearestNeighbor.

    Exact and local. Keras' UpSampling2D and tf.image.resize have ``half_pixel_centers``.

    Raises:
        ShapeError: x is no image batch, the size is none, or both options are asked for.
    """
    x, sizes = _place(x, size, align_corners, half_pixel_centers)
    for axis, wanted in enumerate(sizes, 1):
        extent = x.shape[axis]
        at = _positions(extent, wanted, align_corners, half_pixel_centers, 0.0)
        # TensorFlow rounds halves away from 0 for aligned corners.
        nearest = np.floor(at + np.float32(0.5)) if align_corners else np.floor(at)
        x = taken(x, tuple(int(n) for n in np.clip(nearest, 0, extent - 1)), axis)
    return x


def resize_bilinear(x: Any, size: Any, align_corners: bool = False, half_pixel_centers: bool = False) -> PrivateTensor:
    """Images [N, H, W, C] in another size (height, width), interpolated between neighbours, as ResizeBilinear.

    Error: none where fractions are multiples of 1/8; else the weights are rounded: max |x| units at most for both axes.
    Local. tf.image.resize has ``half_pixel_centers``.

    Raises:
        ShapeError: x is no image batch, the size is none, or both options are asked for.
    """
    x, sizes = _place(x, size, align_corners, half_pixel_centers)
    for axis, wanted in enumerate(sizes, 1):
        x = _interpolated(x, axis, wanted, align_corners, half_pixel_centers)
    return x


def upsample2d(x: Any, size: Any = 2, interpolation: str = "nearest") -> PrivateTensor:
    """Images [N, H, W, C] larger by whole factors, as Keras' UpSampling2D with 'nearest' or 'bilinear'. Local."""
    kinds: dict[str, Callable[..., PrivateTensor]] = {"nearest": resize_nearest, "bilinear": resize_bilinear}
    if interpolation not in kinds:
        raise ShapeError(f"Interpolation is 'nearest' or 'bilinear'; got {interpolation!r}.")
    x, (rows, columns) = private_operand(x), pair(size, "the factor")
    if x.ndim != 4:
        raise ShapeError(f"An image batch has the shape [N, H, W, C]; got {x.shape}. Add the axes that are missing.")
    return kinds[interpolation](x, (x.shape[1] * rows, x.shape[2] * columns), half_pixel_centers=True)


def crop(x: Any, top: int, left: int, height: int, width: int) -> PrivateTensor:
    """A part of images [N, H, W, C]. Local.

    Raises:
        ShapeError: the part reaches beyond the images.
    """
    x = private_operand(x)
    if x.ndim != 4:
        raise ShapeError(f"An image batch has the shape [N, H, W, C]; got {x.shape}. Add the axes that are missing.")
    if min(top, left) < 0 or min(height, width) < 1 or top + height > x.shape[1] or left + width > x.shape[2]:
        raise ShapeError(
            f"A part of {height} x {width} from row {top} and column {left} is not within {x.shape[1]} x {x.shape[2]}."
        )
    return x[:, top : top + height, left : left + width]


def _interpolated(x: PrivateTensor, axis: int, wanted: int, align: bool, half: bool) -> PrivateTensor:
    """x[low] + (x[high] - x[low]) weight, along an axis."""
    extent = x.shape[axis]
    at = _positions(extent, wanted, align, half, -0.5).astype(np.float64)
    below = np.floor(at)
    low, high = (np.clip(n, 0, extent - 1).astype(int) for n in (below, np.ceil(at)))
    weights = np.where(low == high, 0.0, at - below)
    first = taken(x, tuple(low.tolist()), axis)
    if not np.any(weights):
        return first
    step = taken(x, tuple(high.tolist()), axis) - first
    factor = weights.reshape([-1 if i == axis else 1 for i in range(x.ndim)])
    bits = exact_bits(weights)
    if x.protocol is None or bits > _EXACT_BITS:
        return first + step * factor
    return first + step.times(factor, bits)


def _positions(extent: int, wanted: int, align: bool, half: bool, shift: float) -> np.ndarray:
    """Where each new pixel lies among the old ones, in float32 as TensorFlow computes it."""
    single = np.float32
    aligned = align and wanted > 1
    scale = single(extent - 1) / single(wanted - 1) if aligned else single(extent) / single(wanted)
    places = np.arange(wanted, dtype=single)
    return (places + single(0.5)) * scale + single(shift) if half else places * scale


def _place(x: Any, size: Any, align: bool, half: bool) -> tuple[PrivateTensor, tuple[int, int]]:
    tensor = private_operand(x)
    if tensor.ndim != 4 or not tensor.shape[1] or not tensor.shape[2]:
        raise ShapeError(
            f"An image batch has the shape [N, H, W, C]; got {tensor.shape}. Add the axes that are missing."
        )
    if align and half:
        raise ShapeError("Pixels are placed by align_corners or by half_pixel_centers, not by both. Leave out one.")
    return tensor, pair(size, "the new size")
