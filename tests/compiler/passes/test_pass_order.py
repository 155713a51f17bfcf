"""Maxima before functions, parts before what they are taken of: fewer elements are computed, with the same result."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from tracing import cost, did, graph_of, graph_of_model, ops, same

from shareflow.compiler.passes import optimize
from shareflow.compiler.passes.pool_before_relu import pool_before_relu
from shareflow.compiler.passes.select_first import select_first
from shareflow.compiler.passes.simplify import simplify

draw = np.random.default_rng(3)


def array(*shape):
    return draw.normal(size=shape).astype(np.float32)


def elements(graph, *kinds):
    """How many elements the operations of these kinds have."""
    chosen = [node for node in graph.nodes if node.op in kinds and graph.secret(node.outputs[0])]
    return sum(int(np.prod(node.shapes[0])) for node in chosen)


IMAGE = (2, 6, 6, 3)

POOLS = {
    "relu": (lambda x: tf.nn.max_pool2d(tf.nn.relu(x), 2, 2, "VALID"), "Relu"),
    "relu6": (lambda x: tf.nn.max_pool2d(tf.nn.relu6(x * 9.0), 3, 2, "SAME"), "Relu6"),
    "leaky": (lambda x: tf.nn.max_pool2d(tf.nn.leaky_relu(x), 2, 2, "VALID"), "LeakyRelu"),
    "sigmoid": (lambda x: tf.nn.max_pool2d(tf.sigmoid(x), 2, 2, "VALID"), "Sigmoid"),
    "tanh": (lambda x: tf.nn.max_pool2d(tf.tanh(x), 2, 2, "VALID"), "Tanh"),
    "elu": (lambda x: tf.nn.max_pool2d(tf.nn.elu(x), 2, 2, "VALID"), "Elu"),
    "zeros around": (
        lambda x: tf.nn.max_pool2d(tf.pad(tf.nn.relu(x), [(0, 0), (1, 1), (1, 1), (0, 0)]), 3, 2, "VALID"),
        "Relu",
    ),
    "one axis": (lambda x: tf.nn.max_pool1d(tf.nn.relu(x[:, 0]), 2, 2, "VALID"), "Relu"),
    "volumes": (lambda x: tf.nn.max_pool3d(tf.expand_dims(tf.nn.relu(x), 1), (1, 2, 2), (1, 2, 2), "VALID"), "Relu"),
    "all places": (lambda x: tf.reduce_max(tf.nn.relu(x), [1, 2]), "Relu"),
    "the other pool": (lambda x: tf.raw_ops.MaxPoolV2(
        input=tf.nn.relu(x), ksize=[1, 2, 2, 1], strides=[1, 2, 2, 1], padding="VALID"), "Relu"),
}  # fmt: skip


@pytest.mark.parametrize("name", POOLS)
def test_a_maximum_goes_before_a_function_that_never_falls(name):
    function, op = POOLS[name]
    graph = graph_of(function, IMAGE)
    after = pool_before_relu(graph)
    same(graph, after)
    assert ops(after) == ops(graph)
    assert elements(after, op) * 2 <= elements(graph, op)
    assert did(after) == {f"{op} after its pooling": 1}


STAY = {
    "another use": lambda x: (lambda y: (tf.nn.max_pool2d(y, 2, 2, "VALID"), tf.exp(y)))(tf.nn.relu(x)),
    "a result": lambda x: (lambda y: (tf.nn.max_pool2d(y, 2, 2, "VALID"), y))(tf.nn.relu(x)),
    "means": lambda x: tf.nn.avg_pool2d(tf.nn.relu(x), 2, 2, "VALID"),
    "a minimum": lambda x: tf.reduce_min(tf.nn.relu(x), [1, 2]),
    "a function that falls": lambda x: tf.nn.max_pool2d(tf.abs(x), 2, 2, "VALID"),
    "a slope below 0": lambda x: tf.nn.max_pool2d(tf.nn.leaky_relu(x, -0.5), 2, 2, "VALID"),
    "a cosine": lambda x: tf.nn.max_pool2d(tf.cos(x), 2, 2, "VALID"),
    "zeros around another function": lambda x: tf.nn.max_pool2d(
        tf.pad(tf.sigmoid(x), [(0, 0), (1, 1), (1, 1), (0, 0)]), 3, 2, "VALID"
    ),
    "other values around": lambda x: tf.nn.max_pool2d(
        tf.pad(tf.nn.relu(x), [(0, 0), (1, 1), (1, 1), (0, 0)], constant_values=2.0), 3, 2, "VALID"
    ),
    "silu": lambda x: tf.nn.max_pool2d(x * tf.sigmoid(x), 2, 2, "VALID"),
}


@pytest.mark.parametrize("name", STAY)
def test_elsewhere_the_order_stays(name):
    graph = graph_of(STAY[name], IMAGE)
    assert pool_before_relu(graph) is graph


def test_pooling_first_costs_less():
    graph = graph_of(lambda x: tf.nn.max_pool2d(tf.nn.relu(x), 2, 2, "VALID"), (1, 4, 4, 2))
    (before, error), (after, error_after) = cost(graph), cost(pool_before_relu(graph))
    assert max(error, error_after) < 1e-3
    assert after.online_bytes < before.online_bytes and after.offline_bytes < before.offline_bytes


# --- parts first

TOKENS = (2, 5, 4)
PARTS = {
    "a function": (lambda x: tf.exp(x)[:, 0], TOKENS, "Exp"),
    "a chain": (lambda x: tf.exp(tf.nn.relu(tf.sigmoid(x)))[:, 1:3], TOKENS, "Sigmoid"),
    "every second": (lambda x: tf.exp(x)[:, ::2, 1::2], TOKENS, "Exp"),
    "the last": (lambda x: tf.exp(x)[:, -1:], TOKENS, "Exp"),
    "by begin and size": (lambda x: tf.slice(tf.exp(x), [0, 1, 0], [2, 2, 4]), TOKENS, "Exp"),
    "a sum": (lambda x: (tf.exp(x) + tf.sigmoid(x))[:, 0], TOKENS, "Exp"),
    "a broadcast sum": (lambda x: (tf.exp(x) + tf.exp(x[:, :1]) * array(4))[:, 2], TOKENS, "Exp"),
    "softmax": (lambda x: tf.nn.softmax(x)[:, 0], TOKENS, "Softmax"),
    "a matrix product": (lambda x: (tf.exp(x) @ array(4, 3))[:, 0], TOKENS, "Exp"),
    "columns of one": (lambda x: tf.matmul(x, tf.exp(x), transpose_b=True)[:, :, 0], TOKENS, "Exp"),
    "a turned product": (lambda x: tf.matmul(tf.exp(x), x, transpose_a=True)[:, :1], TOKENS, "Exp"),
    "an einsum": (lambda x: tf.einsum("btc,cd->bdt", tf.exp(x), array(4, 3))[:, :, 0], TOKENS, "Exp"),
    "a transpose": (lambda x: tf.transpose(tf.exp(x), [2, 0, 1])[:, :, 0], TOKENS, "Exp"),
    "a shape": (lambda x: tf.reshape(tf.exp(x), (2, 5, 2, 2))[:, 0], TOKENS, "Exp"),
    "an axis more": (lambda x: tf.expand_dims(tf.exp(x), 2)[:, 0], TOKENS, "Exp"),
    "a part of a part": (lambda x: tf.exp(x)[:, 1:4][:, ::2], TOKENS, "Exp"),
    "a join": (lambda x: tf.concat([tf.exp(x), tf.sigmoid(x)], 1)[:, 0], TOKENS, "Exp"),
    "a join along another axis": (lambda x: tf.concat([tf.exp(x), tf.sigmoid(x)], 2)[:, 0], TOKENS, "Exp"),
    "a stack": (lambda x: tf.stack([tf.sigmoid(x), tf.exp(x)], 1)[:, 1, 0], TOKENS, "Exp"),
    "a choice": (lambda x: tf.where(x > 0, tf.exp(x), x)[:, 0], TOKENS, "Exp"),
}


@pytest.mark.parametrize("name", PARTS)
def test_a_part_is_taken_first(name):
    function, shape, op = PARTS[name]
    graph = graph_of(function, shape)
    after = select_first(graph)
    same(graph, after)
    assert 0 < elements(after, op) < elements(graph, op)


def test_what_no_part_is_of_is_not_computed():
    graph = graph_of(lambda x: tf.concat([tf.exp(x), tf.sigmoid(x)], 1)[:, 6:], TOKENS)
    assert "Exp" not in ops(select_first(graph)) and "Sigmoid" in ops(select_first(graph))


WHOLE = {
    "another use": lambda x: (lambda y: (y[:, 0], tf.reduce_sum(y)))(tf.exp(x)),
    "two parts": lambda x: (lambda y: (y[:, 0], y[:, 1]))(tf.exp(x)),
    "a result": lambda x: (lambda y: (y[:, 0], y))(tf.exp(x)),
    "along softmax": lambda x: tf.nn.softmax(tf.exp(x))[:, :, 0],
    "across a shape": lambda x: tf.reshape(tf.exp(x), (2, 20))[:, 3:8],
    "across a join": lambda x: tf.concat([tf.exp(x), x], 1)[:, 4:6],
    "along a sum": lambda x: tf.cumsum(tf.exp(x), 1)[:, 0],
    "backwards": lambda x: tf.exp(x)[:, ::-1],
    "a maximum of all": lambda x: tf.reduce_max(tf.exp(x), 1)[:, :2],
}


@pytest.mark.parametrize("name", WHOLE)
def test_what_is_needed_whole_is_computed_whole(name):
    graph = graph_of(WHOLE[name], TOKENS)
    after = select_first(graph)
    same(graph, after)
    assert elements(after, "Exp") == elements(graph, "Exp")


CONVOLUTIONS = {
    "same": ("SAME", 3, 1),
    "valid": ("VALID", 3, 1),
    "strides": ("SAME", 3, 2),
    "even": ("SAME", 2, 1),
    "valid, strides": ("VALID", 2, 2),
}


@pytest.mark.parametrize("extent", [7, 8, 9])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_skipped_pixels_are_never_computed(name, extent):
    padding, size, strides = CONVOLUTIONS[name]

    def function(x):
        y = tf.nn.relu(tf.nn.conv2d(x, kernel, strides, padding) + bias)
        return tf.nn.conv2d(y, narrow, 2, "SAME"), tf.nn.conv2d(y, wide, 2, "VALID")

    kernel, bias, narrow, wide = array(size, size, 3, 4), array(4), array(1, 1, 4, 2), array(1, 1, 4, 5)
    graph = graph_of(function, (2, extent, extent, 3))
    after = select_first(graph)
    same(graph, after, 1e-4)
    assert elements(after, "Relu") * 2 < elements(graph, "Relu")
    assert "StridedSlice" not in ops(after)


def skipping(x):
    """A 1 x 1 convolution of every second pixel."""
    return tf.nn.conv2d(x, array(1, 1, 4, 2), 2, "SAME")


SKIPS_NOT = {
    "a larger kernel": lambda y: (skipping(y), tf.nn.conv2d(y, array(3, 3, 4, 2), 2, "SAME")),
    "other strides": lambda y: (skipping(y), tf.nn.conv2d(y, array(1, 1, 4, 2), 1, "SAME")),
    "a sum": lambda y: (tf.nn.conv2d(y, array(1, 1, 4, 2), 2, "SAME"), tf.reduce_sum(y)),
    "no strides": lambda y: tf.nn.conv2d(y, array(1, 1, 4, 2), 1, "SAME"),
}  # fmt: skip


@pytest.mark.parametrize("name", SKIPS_NOT)
def test_pixels_that_others_take_are_computed(name):
    graph = graph_of(lambda x: SKIPS_NOT[name](tf.nn.relu(x)), (1, 6, 6, 4))
    after = select_first(graph)
    same(graph, after, 1e-4)
    assert elements(after, "Relu") == elements(graph, "Relu")


def residual():
    inputs = keras.Input((8, 8, 3))
    x = layers.ReLU()(layers.Conv2D(4, 3, padding="same")(inputs))
    for filters in (4, 6):
        y = layers.ReLU()(layers.Conv2D(filters, 1, strides=2)(x))
        y = layers.Conv2D(filters, 3, padding="same")(y)
        x = layers.ReLU()(layers.Add()([y, layers.Conv2D(filters, 1, strides=2)(x)]))
        y = layers.Conv2D(filters, 3, padding="same")(x)
        x = layers.ReLU()(layers.Add()([x, y]))
    return keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))


def test_a_residual_network_computes_what_its_next_stage_takes():
    graph = graph_of_model(residual(), 1)
    after = optimize(graph)
    same(graph, after, 1e-4)
    assert elements(after, "Relu") < 0.6 * elements(graph, "Relu")
    (before, error), (now, error_after) = cost(simplify(graph)), cost(after)
    assert max(error, error_after) < 5e-3
    assert now.online_bytes < 0.7 * before.online_bytes and now.offline_bytes < 0.7 * before.offline_bytes


def test_the_last_block_of_a_transformer_computes_one_token():
    inputs = keras.Input((5, 4))
    x = layers.Dense(4)(inputs)
    y = layers.LayerNormalization()(x)
    x = layers.Add()([x, layers.MultiHeadAttention(2, 2)(y, y)])
    y = layers.LayerNormalization()(x)
    x = layers.Add()([x, layers.Dense(4)(layers.Dense(8, activation="gelu")(y))])
    model = keras.Model(inputs, layers.Dense(2)(layers.LayerNormalization()(x)[:, 0]))
    graph = graph_of_model(model, 2)
    after = optimize(graph)
    same(graph, after, 1e-4)
    (gelu,) = (node for node in after.nodes if node.op == "shareflow.gelu")
    (softmax,) = (node for node in after.nodes if node.op == "Softmax")
    norms = [node.shapes[0] for node in after.nodes if node.op == "shareflow.layer_norm"]
    assert gelu.shapes[0] == (2, 1, 8) and softmax.shapes[0] == (2, 2, 1, 5)
    assert norms == [(2, 5, 4), (2, 1, 4), (2, 1, 4)]
