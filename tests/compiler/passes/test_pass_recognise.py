"""recognise: functions are found in the forms that Keras, TensorFlow and people write; nothing else is."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from tracing import cost, graph_of, graph_of_model, ops, same

import shareflow as sf
from shareflow.compiler.passes import optimize
from shareflow.compiler.passes.recognise import recognise
from shareflow.compiler.passes.simplify import simplify

SHAPE = (3, 8)
MASK = np.tril(np.ones((8, 8), bool))
ROOT = math.sqrt(2 / math.pi)
SLOPES = np.linspace(0.1, 0.4, 8, dtype=np.float32)


def found(graph):
    return simplify(recognise(simplify(graph)))


def shifted(x):
    return x - tf.reduce_max(x, -1, keepdims=True)


def exponentials(x):
    raised = tf.exp(x)
    return raised / tf.reduce_sum(raised, -1, keepdims=True)


def norm(x, axes=-1, scale=1.0, offset=0.0, epsilon=1e-3):
    mean, variance = tf.nn.moments(x, axes, keepdims=True)
    return tf.nn.batch_normalization(x, mean, variance, offset, scale, epsilon)


def by_hand(x):
    centred = x - tf.reduce_mean(x, -1, keepdims=True)
    return centred / tf.sqrt(tf.reduce_mean(tf.square(centred), -1, keepdims=True) + 1e-3)


def of_squares(x):
    mean = tf.reduce_mean(x, -1, keepdims=True)
    variance = tf.reduce_mean(x * x, -1, keepdims=True) - mean * mean
    return (x - mean) * tf.math.rsqrt(variance + 1e-3)


ONE = {
    "gelu": (tf.nn.gelu, "shareflow.gelu"),
    "gelu, Keras": (keras.activations.gelu, "shareflow.gelu"),
    "gelu by erf": (lambda x: 0.5 * x * (1 + tf.math.erf(x / math.sqrt(2))), "shareflow.gelu"),
    "gelu, half at the end": (lambda x: x * (tf.math.erf(x * math.sqrt(0.5)) + 1) * 0.5, "shareflow.gelu"),
    "gelu, half inside": (lambda x: x * (0.5 * (1.0 + tf.math.erf(x / 2**0.5))), "shareflow.gelu"),
    "gelu by tanh": (lambda x: tf.nn.gelu(x, approximate=True), "shareflow.gelu"),
    "gelu by tanh, products": (
        lambda x: 0.5 * x * (1 + tf.tanh(ROOT * (x + 0.044715 * x * x * x))),
        "shareflow.gelu",
    ),
    "gelu by tanh, factored": (
        lambda x: 0.5 * x * (1 + tf.tanh(x * ROOT * (1 + 0.044715 * x * x))),
        "shareflow.gelu",
    ),
    "silu": (tf.nn.silu, "shareflow.silu"),
    "silu, Keras": (keras.activations.silu, "shareflow.silu"),
    "silu by hand": (lambda x: tf.sigmoid(x) * x, "shareflow.silu"),
    "silu by a quotient": (lambda x: x * (1 / (1 + tf.exp(-x))), "shareflow.silu"),
    "mish": (keras.activations.mish, "shareflow.mish"),
    "sigmoid": (lambda x: 1 / (1 + tf.exp(-x)), "Sigmoid"),
    "sigmoid by a reciprocal": (lambda x: tf.math.reciprocal(tf.exp(-x) + 1), "Sigmoid"),
    "softplus": (lambda x: tf.math.log(1 + tf.exp(x)), "Softplus"),
    "softplus by log1p": (lambda x: tf.math.log1p(tf.exp(x)), "Softplus"),
    "relu": (lambda x: tf.maximum(x, 0.0), "Relu"),
    "relu by a choice": (lambda x: tf.where(x > 0, x, 0.0), "Relu"),
    "relu by the other choice": (lambda x: tf.where(x <= 0, tf.zeros_like(x), x), "Relu"),
    "relu of relu": (lambda x: tf.nn.relu(tf.nn.relu(x)), "Relu"),
    "relu6": (lambda x: tf.minimum(tf.nn.relu(x), 6.0), "Relu6"),
    "relu6 the other way": (lambda x: tf.maximum(tf.minimum(x, 6.0), 0.0), "Relu6"),
    "relu6, Keras": (lambda x: layers.ReLU(max_value=6)(x), "Relu6"),
    "relu3, Keras": (lambda x: layers.ReLU(max_value=3)(x), "shareflow.clip"),
    "clip": (lambda x: tf.clip_by_value(x, -1.0, 0.5), "shareflow.clip"),
    "hard tanh": (keras.activations.hard_tanh, "shareflow.clip"),
    "clips one in another": (lambda x: tf.clip_by_value(tf.clip_by_value(x, -2.0, 2.0), -1.0, 3.0), "shareflow.clip"),
    "maxima": (lambda x: tf.maximum(tf.maximum(x, -1.0), 0.5), "Maximum"),
    "leaky relu": (lambda x: tf.maximum(x, 0.3 * x), "LeakyRelu"),
    "leaky relu, the other way": (lambda x: tf.maximum(x * 0.3, x), "LeakyRelu"),
    "leaky relu by a choice": (lambda x: tf.where(x > 0, x, 0.1 * x), "LeakyRelu"),
    "leaky relu by the other choice": (lambda x: tf.where(x < 0, x * 2.0, x), "LeakyRelu"),
    "celu": (keras.activations.celu, "Elu"),
    "softmax": (exponentials, "Softmax"),
    "softmax, shifted": (lambda x: exponentials(shifted(x)), "Softmax"),
    "softmax, shifted by hand": (
        lambda x: tf.exp(shifted(x)) / tf.reduce_sum(tf.exp(shifted(x)), -1, keepdims=True),
        "Softmax",
    ),
    "log softmax": (lambda x: tf.math.log(tf.nn.softmax(x)), "LogSoftmax"),
    "log softmax by a sum": (
        lambda x: x - tf.math.log(tf.reduce_sum(tf.exp(x), -1, keepdims=True)),
        "LogSoftmax",
    ),
    "log softmax, shifted": (
        lambda x: shifted(x) - tf.math.log(tf.reduce_sum(tf.exp(shifted(x)), -1, keepdims=True)),
        "LogSoftmax",
    ),
    "layer norm": (norm, "shareflow.layer_norm"),
    "layer norm over both": (lambda x: norm(x, [0, 1]), "shareflow.layer_norm"),
    "layer norm by hand": (by_hand, "shareflow.layer_norm"),
    "layer norm of squares": (of_squares, "shareflow.layer_norm"),
    "rms norm": (
        lambda x: x * tf.math.rsqrt(tf.reduce_mean(tf.square(x), -1, keepdims=True) + 1e-5),
        "shareflow.rms_norm",
    ),
    "l2": (lambda x: tf.math.l2_normalize(x, -1), "shareflow.l2_normalize"),
    "l2, Keras": (lambda x: keras.ops.normalize(x), "shareflow.l2_normalize"),
    "l2, unit normalisation": (lambda x: layers.UnitNormalization()(x), "shareflow.l2_normalize"),
}


@pytest.mark.parametrize("name", ONE)
def test_it_is_one_operation(name):
    function, op = ONE[name]
    graph = graph_of(function, SHAPE)
    after = found(graph)
    same(graph, after, 1e-4, scale=2.0)
    assert dict(ops(after)) == {op: 1}


MORE = {
    "silu, sharper": (lambda x: x * tf.sigmoid(1.7 * x), {"Mul": 2, "Sigmoid": 1}),
    "silu times a number": (lambda x: 3.0 * x * tf.sigmoid(x), {"shareflow.silu": 1, "Mul": 1}),
    "gelu without its half": (lambda x: x * (1 + tf.math.erf(x / math.sqrt(2))), {"shareflow.gelu": 1, "Mul": 1}),
    "gelu of a private product": (
        lambda x: tf.exp(x) * x * (1 + tf.math.erf(x / math.sqrt(2))),
        {"Exp": 1, "shareflow.gelu": 1, "Mul": 2},
    ),
    "softmax along another axis": (
        lambda x: tf.exp(x) / tf.reduce_sum(tf.exp(x), 0, keepdims=True),
        {"Softmax": 1, "Transpose": 2},
    ),
    "layer norm, scaled": (lambda x: norm(x, -1, SLOPES, SLOPES), {"shareflow.layer_norm": 1, "Mul": 1, "AddV2": 1}),
    "layer norm, scaled alone": (lambda x: norm(x, -1, SLOPES, None), {"shareflow.layer_norm": 1, "Mul": 1}),
    "layer norm and what it is of": (lambda x: norm(x) + x, {"shareflow.layer_norm": 1, "AddV2": 1}),
    "celu, wider": (lambda x: keras.activations.celu(x, 2.0), {"Mul": 2, "Elu": 1}),
    # One comparison, and what it gives serves both sides.
    "prelu": (
        lambda x: tf.nn.relu(x) - SLOPES * tf.nn.relu(-x),
        {"Relu": 1, "Sub": 2, "Mul": 1},
    ),
}


@pytest.mark.parametrize("name", MORE)
def test_what_stands_around_it_stays(name):
    function, left = MORE[name]
    graph = graph_of(function, SHAPE)
    after = found(graph)
    same(graph, after, 1e-4, scale=2.0)
    assert dict(ops(after)) == left


OTHERS = {
    "another erf": lambda x: 0.5 * x * (1 + tf.math.erf(x / 1.5)),
    "erf of another value": lambda x: 0.5 * x * (1 + tf.math.erf(tf.roll(x, 1, 0) / math.sqrt(2))),
    "erf less one": lambda x: 0.5 * x * (tf.math.erf(x / math.sqrt(2)) - 1),
    "tanh of another cube": lambda x: 0.5 * x * (1 + tf.tanh(ROOT * (x + 0.05 * x**3))),
    "sigmoid of another value": lambda x: x * tf.sigmoid(tf.roll(x, 1, 0)),
    "sigmoid that is used again": lambda x: (lambda s: (x * s, s))(tf.sigmoid(x)),
    "gated": lambda x: x[:, :4] * tf.sigmoid(x[:, 4:]),
    "softplus of two": lambda x: tf.math.log(2 + tf.exp(x)),
    "minimum alone": lambda x: tf.minimum(x, 1.0),
    "limits that differ": lambda x: tf.minimum(tf.maximum(x, -1.0), np.float32([1, 2, 3, 4, 5, 6, 7, 8])),
    "limits that cross": lambda x: tf.minimum(tf.maximum(x, 1.0), 0.5),
    "a limit that is used": lambda x: (lambda y: (tf.minimum(y, 1.0), y))(tf.maximum(x, -1.0)),
    "maximum of a steeper one": lambda x: tf.maximum(x, 2.0 * x),
    "choice by another limit": lambda x: tf.where(x > 0.5, x, 0.0),
    "choice by another value": lambda x: tf.where(tf.roll(x, 1, 0) > 0, x, 0.0),
    "exponentials over another sum": lambda x: tf.exp(x) / tf.reduce_sum(tf.exp(2.0 * x), -1, keepdims=True),
    "exponentials that are used": lambda x: (lambda e: (e / tf.reduce_sum(e, -1, keepdims=True), e))(tf.exp(x)),
    "softmax over both": lambda x: tf.exp(x) / tf.reduce_sum(tf.exp(x), [0, 1], keepdims=True),
    "deviations over another axis": lambda x: (x - tf.reduce_mean(x, 0, keepdims=True))
    * tf.math.rsqrt(tf.math.reduce_variance(x, -1, keepdims=True) + 1e-3),
    "a mean that is used": lambda x: (lambda m: ((x - m) * tf.math.rsqrt(
        tf.reduce_mean((x - m) ** 2, -1, keepdims=True) + 1e-3), m))(tf.reduce_mean(x, -1, keepdims=True)),
    "root of a mean without epsilon": lambda x: x * tf.math.rsqrt(tf.reduce_mean(x * x, -1, keepdims=True)),
    "root of another value's squares": lambda x: x
    * tf.math.rsqrt(tf.reduce_mean(tf.square(tf.roll(x, 1, 0)), -1, keepdims=True) + 1e-3),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_what_only_looks_alike_is_nothing_of_ours(name):
    graph = graph_of(OTHERS[name], SHAPE)
    after = found(graph)
    same(graph, after, 1e-4)
    ours = {op for op in ops(after) if op.startswith("shareflow.") or op in ("Softmax", "LeakyRelu", "Softplus")}
    assert not ours and "Relu" not in ops(after)


# --- masks


MASKS = {
    "added": lambda x: tf.nn.softmax(x + np.where(MASK, 0, -1e9).astype(np.float32)[:3]),
    "taken off": lambda x: tf.nn.softmax(x - np.where(MASK, 0, 1e9).astype(np.float32)[:3]),
    "added twice": lambda x: tf.nn.softmax(x + tf.where(MASK[:3], 0.0, -1e9) + tf.where(MASK[:3], 0.0, -1e9)),
    "chosen": lambda x: tf.nn.softmax(tf.where(MASK[:3], x, -3e38)),
    "chosen, infinite": lambda x: tf.nn.softmax(tf.where(MASK[:3], x, -np.inf)),
    "chosen by private bits": lambda x: tf.nn.softmax(tf.where(tf.roll(x, 1, 1) > -5, x, -1e9)),
    "private bits": lambda x: tf.nn.softmax(x + tf.cast(tf.roll(x, 1, 1) < -1, tf.float32) * -1e9),
    "the opposite of private bits": lambda x: tf.nn.softmax(
        x + (1.0 - tf.cast(tf.roll(x, 1, 1) > -1, tf.float32)[:, None, :][:, 0]) * -1e9
    ),
    "of a logarithm": lambda x: tf.nn.log_softmax(x + np.where(MASK, 0, -5000).astype(np.float32)[:3])[:, :1],
}


@pytest.mark.parametrize("name", MASKS)
def test_masks_fit_and_weights_stay(name):
    graph = graph_of(MASKS[name], SHAPE)
    # The owner of an array in the code is public's stand-in here: arrays of numbers would be weights.
    after = found(graph)
    same(graph, after, 1e-5)
    for node in after.nodes:
        value = node.outputs[0].constant if node.outputs else None
        used = any(after.secret(user.outputs[0]) for out in node.outputs for user in after.users.get(out, ()))
        if value is not None and value.dtype.kind == "f" and used:
            assert np.all(np.abs(value) <= 2**12)


NO_MASKS = {
    "a mask of no bits": lambda x: tf.nn.softmax(x + tf.sigmoid(x) * -1e6),
    "no softmax": lambda x: tf.nn.relu(x + tf.cast(x > 0, tf.float32) * -1e6),
    "scores that are used": lambda x: (lambda y: (tf.nn.softmax(y), y))(x + tf.cast(x > 0, tf.float32) * -1e6),
}


@pytest.mark.parametrize("name", NO_MASKS)
def test_other_large_numbers_stay(name):
    after = found(graph_of(NO_MASKS[name], SHAPE))
    constants = [n.outputs[0].constant for n in after.nodes if n.op == "Constant" and after.users.get(n.outputs[0])]
    assert any(value.dtype.kind == "f" and np.any(value == -1e6) for value in constants)


def test_keras_attention_with_a_causal_mask_runs_on_shares():
    inputs = keras.Input((4, 6))
    x = layers.Dense(6)(inputs)
    model = keras.Model(inputs, layers.MultiHeadAttention(2, 3)(x, x, use_causal_mask=True))
    graph = graph_of_model(model, 1)
    _, error = cost(optimize(graph), sf.Plain())
    assert error < 2e-3


def test_functions_found_cost_less_and_are_as_near():
    for function in (tf.nn.gelu, lambda x: tf.nn.relu(x) - SLOPES * tf.nn.relu(-x)):
        graph = graph_of(function, (1, 8))
        (before, error), (after, error_after) = cost(simplify(graph)), cost(found(graph))
        assert error_after <= max(2 * error, 1e-4)
        assert after.offline_bytes < before.offline_bytes and after.online_bytes < before.online_bytes
        assert after.rounds <= before.rounds
