"""Linear layers as functions: any operand may be private, public, or its owner's plaintext."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from shareflow.errors import PlacementError, ShapeError
from shareflow.nn.convolution import conv2d as conv2d
from shareflow.nn.convolution import depthwise_conv2d as depthwise_conv2d
from shareflow.protocol.arithmetic import matmul
from shareflow.protocol.operand import as_operand
from shareflow.protocol.placement import local_computation
from shareflow.protocol.tensor import PrivateTensor, PrivateValue
from shareflow.share.known import Known

# TensorFlow's names of where channels stand.
_FORMATS = ("NHWC", "NCHW", "NWC", "NCW", "NDHWC", "NCDHW", "NC")


def dense(x: Any, kernel: Any, bias: Any = None) -> PrivateTensor:
    """x [..., n] @ kernel [n, m] + bias [m]. Rounds: the masking of operands not masked yet."""
    y = matmul(x, kernel)
    return y if bias is None else y + bias


def bias_add(x: Any, bias: Any, data_format: str = "NHWC") -> PrivateTensor:
    """x plus one number a channel, bias [C]. Local.

    Channels are the last axis of x, or its second for a data format that begins with NC, such as NCHW.

    Raises:
        ShapeError: bias is no vector of as many numbers as there are channels, or the format is unknown.
    """
    x, bias = as_operand(x), as_operand(bias)
    rank = len(x.shape)
    axis = channel_axis(data_format, rank)
    if len(bias.shape) != 1 or bias.shape[0] != x.shape[axis]:
        raise ShapeError(
            f"bias_add takes a bias [C], one number for each of the {x.shape[axis]} channels of x {tuple(x.shape)} in "
            f"the format {data_format}; got {tuple(bias.shape)}. For other shapes use +, which broadcasts."
        )
    if axis != rank - 1:
        shape = [bias.shape[0], *(1 for _ in range(rank - 2))]
        bias = bias.reshape(shape) if hasattr(bias, "reshape") else tf.reshape(bias, shape)
    if isinstance(x, PrivateTensor) or isinstance(bias, PrivateTensor):
        return x + bias if isinstance(x, PrivateTensor) else bias + x
    raise PlacementError("bias_add: neither operand is private. Use TensorFlow's own operation.")


def channel_axis(data_format: str, rank: int) -> int:
    """Which axis of a tensor of this rank holds channels: 1 for NC and NC..., the last for N...C.

    Raises:
        ShapeError: the format is not known, or has another number of axes.
    """
    text = str(data_format)
    if rank < 2:
        raise ShapeError(f"A batch of data with channels has two axes or more, [N, ..., C]; got {rank}.")
    if text not in _FORMATS or (len(text) != rank and text not in ("NHWC", "NCHW")):
        raise ShapeError(
            f"A data format is one of {', '.join(_FORMATS)}, with as many letters as x has axes ({rank}; NHWC and NCHW "
            f"stand for any number); got {data_format!r}."
        )
    return 1 if text.startswith("NC") else rank - 1


def channels_last(x: Any) -> Any:
    """x [N, C, ...] as [N, ..., C]: images in TensorFlow's format NCHW for functions that take NHWC. Local."""
    return _moved(x, lambda rank: [0, *range(2, rank), 1])


def channels_first(x: Any) -> Any:
    """x [N, ..., C] as [N, C, ...]: what `channels_last` is undone by. Local."""
    return _moved(x, lambda rank: [0, rank - 1, *range(1, rank - 1)])


def _moved(x: Any, order: Callable[[int], list[int]]) -> Any:
    x = as_operand(x)
    rank = len(x.shape)
    if rank < 2:
        raise ShapeError(f"A batch of data with channels has two axes or more, [N, ..., C]; got {tuple(x.shape)}.")
    if rank == 2:
        return x
    return x.transpose(order(rank)) if hasattr(x, "transpose") else tf.transpose(x, order(rank))


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
