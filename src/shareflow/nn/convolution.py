"""Convolutions and their transposes along one, two and three axes: any operand may be private, public or plaintext.

Shapes are TensorFlow's with channels last: x [N, *extents, C] and a kernel [*size, C / groups, O]. Strides, dilations
and padding are those of the axes between batch and channels. Padding is 'SAME', 'VALID', or a pair of counts of zeros
(before, after) for each axis. What is private is masked once, in one round, whatever it then meets; the dealer
sends 8 bytes an element of the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from shareflow.errors import ShapeError
from shareflow.nn.geometry import each_direction, reach, window_sides
from shareflow.protocol import op as ops
from shareflow.protocol.arithmetic import product
from shareflow.protocol.op import Op
from shareflow.protocol.operand import as_operand
from shareflow.protocol.tensor import PrivateTensor

_SHAPES = {
    1: ("sequences [N, L, C]", "[k, C / groups, O]"),
    2: ("images [N, H, W, C]", "[h, w, C / groups, O]"),
    3: ("volumes [N, D, H, W, C]", "[d, h, w, C / groups, O]"),
}


def conv1d(
    x: Any,
    kernel: Any,
    bias: Any = None,
    strides: Any = 1,
    padding: Any = "VALID",
    dilations: Any = 1,
    groups: int = 1,
) -> PrivateTensor:
    """Convolution of x [N, L, C] with kernel [k, C / groups, O].

    Padding 'CAUSAL' puts all zeros before: no result depends on a later element. Rounds: as dense.

    Raises:
        ShapeError: ranks, channels, groups or windows do not fit.
    """
    if isinstance(padding, str) and padding.upper() == "CAUSAL":
        size, holes = as_operand(kernel).shape[:1], each_direction(dilations, 1, "dilations")
        padding = (((reach(size, holes)[0] - 1) if size else 0, 0),)
    return _convolution(ops.CONV1D, 1, x, kernel, bias, strides, padding, dilations, groups)


def conv2d(
    x: Any,
    kernel: Any,
    bias: Any = None,
    strides: Any = 1,
    padding: Any = "VALID",
    dilations: Any = 1,
    groups: int = 1,
) -> PrivateTensor:
    """Convolution of x [N, H, W, C] with kernel [h, w, C / groups, O]. Rounds: as dense.

    Raises:
        ShapeError: ranks, channels, groups or windows do not fit.
    """
    return _convolution(ops.CONV2D, 2, x, kernel, bias, strides, padding, dilations, groups)


def conv3d(
    x: Any,
    kernel: Any,
    bias: Any = None,
    strides: Any = 1,
    padding: Any = "VALID",
    dilations: Any = 1,
    groups: int = 1,
) -> PrivateTensor:
    """Convolution of x [N, D, H, W, C] with kernel [d, h, w, C / groups, O]. Rounds: as dense.

    Raises:
        ShapeError: ranks, channels, groups or windows do not fit.
    """
    return _convolution(ops.CONV3D, 3, x, kernel, bias, strides, padding, dilations, groups)


def depthwise_conv2d(
    x: Any, kernel: Any, bias: Any = None, strides: Any = 1, padding: Any = "VALID", dilations: Any = 1
) -> PrivateTensor:
    """Each channel of x [N, H, W, C] with its own filters, kernel [h, w, C, M]; result has C * M channels.

    Raises:
        ShapeError: ranks, channels or windows do not fit.
    """
    x, kernel = as_operand(x), as_operand(kernel)
    if len(kernel.shape) != 4 or len(x.shape) != 4 or x.shape[3] != kernel.shape[2]:
        raise ShapeError(
            f"depthwise_conv2d takes images [N, H, W, C] and a kernel [h, w, C, M]; got {tuple(x.shape)} and "
            f"{tuple(kernel.shape)}."
        )
    place = _placed(tuple(x.shape[1:3]), tuple(kernel.shape[:2]), strides, padding, dilations)
    y = product(ops.DEPTHWISE_CONV2D, x, kernel, **place)
    return y if bias is None else y + bias


def conv1d_transpose(
    x: Any,
    kernel: Any,
    output_shape: Sequence[int] | None = None,
    bias: Any = None,
    strides: Any = 1,
    padding: Any = "VALID",
    dilations: Any = 1,
    groups: int = 1,
) -> PrivateTensor:
    """The transpose of conv1d as a linear map: x [N, L', C], kernel [k, O / groups, C] -> [N, L, O].

    See :func:`conv2d_transpose`.
    """
    return _transposed(ops.CONV1D_TRANSPOSE, 1, x, kernel, output_shape, bias, strides, padding, dilations, groups)


def conv2d_transpose(
    x: Any,
    kernel: Any,
    output_shape: Sequence[int] | None = None,
    bias: Any = None,
    strides: Any = 1,
    padding: Any = "VALID",
    dilations: Any = 1,
    groups: int = 1,
) -> PrivateTensor:
    """The transpose of conv2d as a linear map: x [N, H', W', C], kernel [h, w, O / groups, C] -> [N, H, W, O].

    As TensorFlow's Conv2DBackpropInput: strides, padding, dilations and groups are those of the convolution that
    makes x's shape of ``output_shape`` [N, H, W, O], which tells the shapes apart that do so. Without it the
    result has stride times x's extent with 'SAME', and with 'VALID' what the window adds to that, as in Keras;
    with counts of zeros the smallest that fits. No products with the zeros between strided elements are made.
    Rounds: as dense.

    Raises:
        ShapeError: ranks, channels or groups do not fit, or the convolution of ``output_shape`` has not x's shape.
    """
    return _transposed(ops.CONV2D_TRANSPOSE, 2, x, kernel, output_shape, bias, strides, padding, dilations, groups)


def conv3d_transpose(
    x: Any,
    kernel: Any,
    output_shape: Sequence[int] | None = None,
    bias: Any = None,
    strides: Any = 1,
    padding: Any = "VALID",
    dilations: Any = 1,
    groups: int = 1,
) -> PrivateTensor:
    """The transpose of conv3d as a linear map: x [N, D', H', W', C], kernel [d, h, w, O / groups, C].

    Gives [N, D, H, W, O]; see :func:`conv2d_transpose`.
    """
    return _transposed(ops.CONV3D_TRANSPOSE, 3, x, kernel, output_shape, bias, strides, padding, dilations, groups)


def _convolution(
    op: Op,
    axes: int,
    x: Any,
    kernel: Any,
    bias: Any,
    strides: Any,
    padding: Any,
    dilations: Any,
    groups: int,
) -> PrivateTensor:
    x, kernel = as_operand(x), as_operand(kernel)
    _check_ranks(op.name, axes, x, kernel, *_SHAPES[axes])
    _check_groups(op.name, groups)
    if x.shape[-1] != kernel.shape[-2] * groups or kernel.shape[-1] % groups:
        raise ShapeError(
            f"{op.name}: {x.shape[-1]} channels of x, {kernel.shape[-2]} of the kernel and {kernel.shape[-1]} "
            f"outputs do not go together in {groups} group(s)."
        )
    place = _placed(tuple(x.shape[1:-1]), tuple(kernel.shape[:-2]), strides, padding, dilations)
    y = product(op, x, kernel, groups=groups, **place)
    return y if bias is None else y + bias


def _transposed(
    op: Op,
    axes: int,
    x: Any,
    kernel: Any,
    output_shape: Sequence[int] | None,
    bias: Any,
    strides: Any,
    padding: Any,
    dilations: Any,
    groups: int,
) -> PrivateTensor:
    x, kernel = as_operand(x), as_operand(kernel)
    _check_ranks(op.name, axes, x, kernel, _SHAPES[axes][0], _SHAPES[axes][1].replace("C / groups, O", "O / groups, C"))
    _check_groups(op.name, groups)
    if x.shape[-1] != kernel.shape[-1] or kernel.shape[-1] % groups:
        raise ShapeError(
            f"{op.name}: {x.shape[-1]} channels of x and {kernel.shape[-1]} of the kernel do not go together in "
            f"{groups} group(s): a transposed convolution's kernel is [..., outputs / groups, channels]."
        )
    size = tuple(kernel.shape[:-2])
    given = tuple(x.shape[1:-1])
    channels = kernel.shape[-2] * groups
    steps, holes = each_direction(strides, axes, "strides"), each_direction(dilations, axes, "dilations")
    if output_shape is None:
        extents = _usual_extents(given, size, steps, padding, holes)
    else:
        wanted = tuple(output_shape)
        if any(not isinstance(n, (int, np.integer)) or isinstance(n, bool) or n < 0 for n in wanted):
            raise ShapeError(f"{op.name}: output_shape is made of whole numbers; got {output_shape!r}.")
        if len(wanted) != axes + 2 or (wanted[0], wanted[-1]) != (x.shape[0], channels):
            raise ShapeError(
                f"{op.name}: output_shape is the whole shape of the result, here [{x.shape[0]}, "
                f"{'extent, ' * axes}{channels}]; got {list(wanted)}."
            )
        extents = tuple(int(n) for n in wanted[1:-1])
    place = _placed(extents, size, strides, padding, dilations)
    lines = zip(extents, reach(size, holes), place["padding"], steps, strict=True)
    back = tuple((extent + sum(sides) - window) // step + 1 for extent, window, sides, step in lines)
    if back != given:
        raise ShapeError(
            f"{op.name}: a convolution of extents {extents} with a window of {size}, strides {steps}, dilations "
            f"{holes} and padding {padding!r} gives {back}, and x has {given}. Take an output_shape that gives these."
        )
    y = product(op, x, kernel, extents=extents, groups=groups, **place)
    return y if bias is None else y + bias


def _usual_extents(
    given: Sequence[int], size: Sequence[int], strides: Sequence[int], padding: Any, dilations: Sequence[int]
) -> tuple[int, ...]:
    windows = reach(size, dilations)
    if isinstance(padding, str):
        same = padding.upper() == "SAME"
        return tuple(
            n * s + (0 if same else max(window - s, 0)) for n, s, window in zip(given, strides, windows, strict=True)
        )
    sides = window_sides(padding, windows, size, strides, dilations)
    return tuple(
        max((n - 1) * s + window - sum(pads), 0)
        for n, s, window, pads in zip(given, strides, windows, sides, strict=True)
    )


def _placed(
    extents: tuple[int, ...], size: tuple[int, ...], strides: Any, padding: Any, dilations: Any
) -> dict[str, Any]:
    axes = len(extents)
    steps, holes = each_direction(strides, axes, "strides"), each_direction(dilations, axes, "dilations")
    return {"strides": steps, "padding": window_sides(padding, extents, size, steps, holes), "dilations": holes}


def _check_ranks(name: str, axes: int, x: Any, kernel: Any, data: str, window: str) -> None:
    if len(kernel.shape) != axes + 2 or len(x.shape) != axes + 2:
        raise ShapeError(f"{name} takes {data} and a kernel {window}; got {tuple(x.shape)} and {tuple(kernel.shape)}.")


def _check_groups(name: str, groups: Any) -> None:
    if not isinstance(groups, (int, np.integer)) or isinstance(groups, bool) or groups < 1:
        raise ShapeError(f"{name}: groups is a whole number of at least 1; got {groups!r}.")
