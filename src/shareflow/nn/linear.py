"""Linear layers as functions: any operand may be private, public, or its owner's plaintext."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tensorflow as tf

from shareflow.errors import PlacementError, ShapeError
from shareflow.nn.geometry import explicit_padding, pair
from shareflow.protocol import op as ops
from shareflow.protocol.arithmetic import matmul, product
from shareflow.protocol.operand import as_operand
from shareflow.protocol.placement import local_computation
from shareflow.protocol.tensor import PrivateTensor, PrivateValue
from shareflow.share.known import Known


def dense(x: Any, kernel: Any, bias: Any = None) -> PrivateTensor:
    """x [..., n] @ kernel [n, m] + bias [m]. Rounds: the masking of operands not masked yet."""
    y = matmul(x, kernel)
    return y if bias is None else y + bias


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
        ShapeError: ranks, channels or groups do not fit.
    """
    x, kernel = as_operand(x), as_operand(kernel)
    if len(kernel.shape) != 4 or len(x.shape) != 4:
        raise ShapeError(
            f"conv2d takes images [N, H, W, C] and a kernel [h, w, C, O]; got {tuple(x.shape)} and "
            f"{tuple(kernel.shape)}."
        )
    size = (kernel.shape[0], kernel.shape[1])
    if x.shape[3] != kernel.shape[2] * groups or kernel.shape[3] % groups:
        raise ShapeError(
            f"conv2d: {x.shape[3]} channels of the images, {kernel.shape[2]} of the kernel and {kernel.shape[3]} "
            f"outputs do not go together in {groups} group(s)."
        )
    y = product(ops.CONV2D, x, kernel, groups=groups, **_window(x, size, strides, padding, dilations))
    return y if bias is None else y + bias


def depthwise_conv2d(
    x: Any, kernel: Any, bias: Any = None, strides: Any = 1, padding: Any = "VALID", dilations: Any = 1
) -> PrivateTensor:
    """Each channel of x [N, H, W, C] with its own filters, kernel [h, w, C, M]; result has C * M channels."""
    x, kernel = as_operand(x), as_operand(kernel)
    if len(kernel.shape) != 4 or len(x.shape) != 4 or x.shape[3] != kernel.shape[2]:
        raise ShapeError(
            f"depthwise_conv2d takes images [N, H, W, C] and a kernel [h, w, C, M]; got {tuple(x.shape)} and "
            f"{tuple(kernel.shape)}."
        )
    size = (kernel.shape[0], kernel.shape[1])
    y = product(ops.DEPTHWISE_CONV2D, x, kernel, **_window(x, size, strides, padding, dilations))
    return y if bias is None else y + bias


def _window(x: Any, size: tuple[int, int], strides: Any, padding: Any, dilations: Any) -> dict[str, Any]:
    steps, holes = pair(strides, "strides"), pair(dilations, "dilations")
    sides = explicit_padding(padding, tuple(x.shape), size, steps, holes)
    return {"strides": steps, "padding": sides, "dilations": holes}


def batch_norm_affine(
    gamma: np.ndarray | float, beta: np.ndarray | float, mean: np.ndarray, variance: np.ndarray, epsilon: float
) -> tuple[np.ndarray, np.ndarray]:
    """(scale, offset) with batch_norm(x) = x * scale + offset, in plaintext."""
    scale = np.asarray(gamma, np.float64) / np.sqrt(np.asarray(variance, np.float64) + epsilon)
    return scale, np.asarray(beta, np.float64) - np.asarray(mean, np.float64) * scale


def batch_norm(x: Any, gamma: Any, beta: Any, mean: Any, variance: Any, epsilon: float = 1e-3) -> PrivateTensor:
    """Batch normalisation at inference: gamma (x - mean) / sqrt(variance + epsilon) + beta over the last axis.

    The parameters are all known to one owner, who folds them to a scale and an offset in plaintext.

    Raises:
        PlacementError: a parameter is shared already: fold before sharing.
    """
    parameters = [as_operand(value) for value in (gamma, beta, mean, variance)]
    private = [value for value in parameters if isinstance(value, PrivateTensor)]
    owners = {value.share.owner for value in private if isinstance(value.share, Known)}
    if len(owners) > 1 or any(not isinstance(value.share, Known) for value in private):
        raise PlacementError(
            "Batch normalisation is folded by the owner of its parameters, in plaintext; these are shared, or belong "
            "to several parties. Pass them as one party's private tensors."
        )
    if not owners:
        scale, offset = batch_norm_affine(gamma, beta, mean, variance, epsilon)
        return as_operand(x) * scale + offset

    @local_computation(owners.pop())
    def fold(gamma: Any, beta: Any, mean: Any, variance: Any) -> tuple[Any, Any]:
        scale = gamma / tf.sqrt(variance + epsilon)
        return scale, beta - mean * scale

    scale, offset = fold(*parameters)
    return as_operand(x) * scale + offset


def flatten(x: PrivateValue) -> PrivateTensor:
    """[N, ...] as [N, n]. Local."""
    if not x.ndim:
        raise ShapeError("flatten keeps the batch axis; a scalar has none.")
    return x.reshape(x.shape[0], math.prod(x.shape[1:]))
