"""Linear models, scalers, and quantised weights: ops of the domain ai.onnx.ml that compute on numbers."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from shareflow.compiler.front.onnx_ops.call import Call, Value, computes
from shareflow.compiler.front.onnx_ops.laid import Laid

ML = "ai.onnx.ml"


def _floats(call: Call, attribute: str) -> np.ndarray:
    return np.asarray(call.get(attribute), np.float32)


@computes("Scaler", domain=ML)
def _scaler(call: Call) -> tf.Tensor:
    x = tf.cast(call.tensor(0), tf.float32)
    offset, scale = (call.weight(name, _floats(call, name)).first for name in ("offset", "scale"))
    return (x - offset) * scale


@computes("LinearRegressor", domain=ML)
def _linear_regressor(call: Call) -> tf.Tensor:
    if call.get("post_transform", "NONE") != "NONE":
        raise call.refuse(f"transforms its results by {call.get('post_transform')}.", "Use NONE, and an op behind it.")
    return _linear(call, int(call.get("targets", 1)))


def _linear(call: Call, rows: int) -> tf.Tensor:
    x = tf.cast(call.tensor(0), tf.float32)
    kernel = call.weight("coefficients", _floats(call, "coefficients").reshape(rows, -1)).first
    result = tf.matmul(x, kernel, transpose_b=True)
    if call.get("intercepts"):
        result = result + call.weight("intercepts", _floats(call, "intercepts")).first
    return result


@computes("LinearClassifier", domain=ML)
def _linear_classifier(call: Call) -> tuple[Value, Value]:
    """The class, then the scores."""
    labels = call.get("classlabels_ints")
    if labels is None:
        raise call.refuse("has strings as labels.", "Number the classes, and name them at the client.")
    rows = len(call.get("intercepts") or labels)
    scores = _linear(call, rows)
    single = scores.shape[1] == 1 and len(labels) == 2
    chosen = tf.cast(scores[:, 0] > 0, tf.int64) if single else tf.argmax(scores, -1)
    names = np.asarray(labels, np.int64)
    found = chosen if np.array_equal(names, np.arange(len(names))) else tf.gather(tf.constant(names), chosen)
    kind = str(call.get("post_transform", "NONE"))
    if single and kind == "LOGISTIC":
        one = tf.sigmoid(scores)
        return Laid(found), Laid(tf.concat([1 - one, one], -1))
    if single:
        scores = tf.concat([-scores, scores], -1)
    if kind == "SOFTMAX":
        scores = tf.nn.softmax(scores)
    elif kind == "LOGISTIC":
        scores = tf.sigmoid(scores)
    elif kind != "NONE":
        raise call.refuse(f"transforms its scores by {kind}.", "Use NONE, LOGISTIC or SOFTMAX.")
    return Laid(found), Laid(scores)


@computes("Normalizer", domain=ML)
def _normalizer(call: Call) -> tf.Tensor:
    x = tf.cast(call.tensor(0), tf.float32)
    kind = str(call.get("norm", "MAX"))
    if kind == "L2":
        return tf.math.l2_normalize(x, -1)
    if kind == "L1":
        return x / tf.reduce_sum(tf.abs(x), -1, keepdims=True)
    return x / tf.reduce_max(x, -1, keepdims=True)


@computes("ArrayFeatureExtractor", domain=ML)
def _features(call: Call) -> tf.Tensor:
    return tf.gather(call.tensor(0), np.ravel(call.public(1, "columns")), axis=-1)


@computes("Binarizer", domain=ML)
def _binarizer(call: Call) -> tf.Tensor:
    x = call.tensor(0)
    return tf.cast(x > tf.cast(call.get("threshold", 0.0), x.dtype), x.dtype)


@computes("DequantizeLinear")
def _dequantize(call: Call) -> tf.Tensor:
    x = tf.cast(call.tensor(0), tf.float32)
    scale = call.tensor(1)
    if call.get("block_size", 0):
        raise call.refuse("has blocks.", "Use one scale for a tensor or for a channel.")
    if scale.shape.rank == 1 and scale.shape[0] > 1:
        axis = call.axis(0, 1)
        form = [-1 if i == axis else 1 for i in range(len(x.shape))]
        scale = tf.reshape(scale, form)
        return (x - tf.cast(tf.reshape(call.tensor(2), form), tf.float32) if call.has(2) else x) * scale
    scale = tf.reshape(scale, [])
    return (x - tf.cast(tf.reshape(call.tensor(2), []), tf.float32) if call.has(2) else x) * scale
