"""Norms, and softmax."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from shareflow.compiler.front.onnx_ops.call import Call, Value, computes, positive
from shareflow.compiler.front.onnx_ops.laid import Laid


@computes("BatchNormalization")
def _batch_norm(call: Call) -> Laid:
    if call.get("training_mode", 0) or (call.opset < 14 and call.outputs > 1):
        raise call.refuse("is in training mode: it takes the statistics of the batch.", "Export for inference.")
    scale, offset, mean, variance = (call.tensor(i) for i in range(1, 5))
    epsilon = call.get("epsilon", 1e-5)
    rank = call.rank(0)
    if rank == 4:
        x = call.last(0)
        result = tf.raw_ops.FusedBatchNormV3(
            x=x, scale=scale, offset=offset, mean=mean, variance=variance, epsilon=epsilon, is_training=False
        )
        return Laid(last=result[0])
    # The owner's part, in plaintext: one factor and one term for each channel.
    factor = scale * tf.math.rsqrt(variance + epsilon)
    term = offset - mean * factor
    if rank > 2:
        return Laid(last=call.last(0) * factor + term)
    return Laid(call.tensor(0) * factor + term)


@computes("InstanceNormalization")
def _instance_norm(call: Call) -> Laid:
    x = call.last(0)
    places = list(range(1, len(x.shape) - 1))
    return Laid(last=_normalized(x, places, call.get("epsilon", 1e-5)) * call.tensor(1) + call.tensor(2))


@computes("GroupNormalization")
def _group_norm(call: Call) -> Laid:
    x, groups = call.last(0), int(call.get("num_groups"))
    batch, *places, channels = x.shape
    apart = tf.reshape(x, [batch, *places, groups, channels // groups])
    rank = len(apart.shape)
    normal = tf.reshape(
        _normalized(apart, [*range(1, rank - 2), rank - 1], call.get("epsilon", 1e-5)), [batch, *places, channels]
    )
    scale, bias = call.tensor(1), call.tensor(2)
    if scale.shape[0] != channels:
        # Before opset 21 there is one of each for a group.
        scale, bias = (tf.repeat(v, channels // groups) for v in (scale, bias))
    return Laid(last=normal * scale + bias)


@computes("LayerNormalization")
def _layer_norm(call: Call) -> tf.Tensor:
    if call.outputs > 1:
        raise call.refuse("also gives mean and deviation.", "Use its first result alone.")
    rank = call.rank(0)
    axis = call.axis(0, -1)
    result = _normalized(call.tensor(0), list(range(axis, rank)), call.get("epsilon", 1e-5)) * call.tensor(1)
    return result + call.tensor(2) if call.has(2) else result


@computes("RMSNormalization")
@computes("SimplifiedLayerNormalization", domain="")
def _rms_norm(call: Call) -> tf.Tensor:
    x, rank = call.tensor(0), call.rank(0)
    axes = list(range(call.axis(0, -1), rank))
    mean = tf.reduce_mean(tf.square(x), axes, keepdims=True)
    return x * tf.math.rsqrt(mean + call.get("epsilon", 1e-5)) * call.tensor(1)


@computes("SkipLayerNormalization", domain="com.microsoft")
def _skip_layer_norm(call: Call) -> tf.Tensor:
    if call.outputs > 1:
        raise call.refuse("also gives its sum, mean or deviation.", "Use its first result alone.")
    x = call.tensor(0) + call.tensor(1)
    if call.has(4):
        x = x + call.tensor(4)
    result = _normalized(x, [len(x.shape) - 1], call.get("epsilon", 1e-12)) * call.tensor(2)
    return result + call.tensor(3) if call.has(3) else result


@computes("MeanVarianceNormalization")
def _mean_variance(call: Call) -> tf.Tensor:
    x = call.tensor(0)
    axes = [positive(int(a), len(x.shape), call) for a in call.get("axes", [0, 2, 3])]
    return _normalized(x, axes, 1e-9)


def _normalized(x: tf.Tensor, axes: list[int], epsilon: float) -> tf.Tensor:
    """(x - mean) / sqrt(variance + epsilon)."""
    mean = tf.reduce_mean(x, axes, keepdims=True)
    variance = tf.reduce_mean(tf.math.squared_difference(x, mean), axes, keepdims=True)
    return (x - mean) * tf.math.rsqrt(variance + tf.cast(epsilon, x.dtype))


@computes("LpNormalization")
def _lp_norm(call: Call) -> tf.Tensor:
    x, axis = call.tensor(0), call.axis(0, -1)
    if call.get("p", 2) == 1:
        return x / tf.reduce_sum(tf.abs(x), axis, keepdims=True)
    return x / tf.sqrt(tf.reduce_sum(tf.square(x), axis, keepdims=True))


@computes("LRN")
def _local_response(call: Call) -> Laid:
    size = int(call.get("size"))
    if size % 2 == 0:
        raise call.refuse(f"has a window of {size} channels.", "Use an odd number.")
    alpha = call.get("alpha", 1e-4) / size
    return Laid(
        last=tf.nn.local_response_normalization(
            call.last(0), size // 2, call.get("bias", 1.0), alpha, call.get("beta", 0.75)
        )
    )


@computes("Softmax", "LogSoftmax", "Hardmax")
def _softmax(call: Call) -> Value:
    function = {"Softmax": tf.nn.softmax, "LogSoftmax": tf.nn.log_softmax, "Hardmax": _hardmax}[call.op]
    rank = call.rank(0)
    if call.opset >= 13:
        axis = call.axis(0, -1)
        if call.lies_last(0) and axis == 1:
            return Laid(last=function(call.last(0), axis=-1))
        return Laid(function(call.tensor(0), axis=axis))
    # Until opset 12: over all axes from this one on, as one.
    axis = call.axis(0, 1)
    x = call.tensor(0)
    if axis == rank - 1:
        return Laid(function(x, axis=-1))
    rows = int(np.prod(x.shape[:axis]))
    return Laid(tf.reshape(function(tf.reshape(x, [rows, -1]), axis=-1), x.shape))


def _hardmax(x: tf.Tensor, axis: int) -> tf.Tensor:
    return tf.one_hot(tf.argmax(x, axis), x.shape[axis], axis=axis, dtype=x.dtype)
