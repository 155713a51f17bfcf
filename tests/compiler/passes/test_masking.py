"""Values are masked and truncated once, at their source where views of them are needed; and no more than that."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from tracing import cost, graph_of, graph_of_model, ops

from shareflow.compiler.masking import AtSource, masked_at_source
from shareflow.compiler.passes import optimize
from shareflow.party.send import Kind

draw = np.random.default_rng(6)


def array(*shape):
    return draw.normal(size=shape).astype(np.float32)


def sources(function, *shapes):
    """Names of the ops that are masked where they are computed, and how."""
    graph = graph_of(function, *shapes)
    return {value.node.op: how for value, how in masked_at_source(graph).items()}


def test_parts_that_overlap_are_masked_at_their_source():
    found = sources(lambda x: [part @ array(3, 2) for y in [tf.exp(x)] for part in (y[:, :3], y[:, 1:])], (2, 4))
    assert found == {"Exp": AtSource.TRUNCATE_AND_MASK}


def test_what_only_comparisons_need_keeps_its_scale():
    found = sources(lambda x: [tf.nn.relu(part) for y in [tf.exp(x)] for part in (y[:, :3], y[:, 1:])], (2, 4))
    assert found == {"Exp": AtSource.MASK}


def test_a_wider_view_is_masked_before_it_is_wide():
    found = sources(lambda x: tf.nn.relu(tf.pad(tf.exp(x), [(0, 0), (1, 1)])), (2, 4))
    assert found == {"Exp": AtSource.MASK}


NOT = {
    "parts that share nothing": lambda x: [tf.nn.relu(part) for part in tf.split(tf.exp(x), 2, 1)],
    "one small part": lambda x: tf.nn.relu(tf.exp(x)[:, :1]),
    "sums alone": lambda x: (lambda y: [y[:, :3] + 1.0, y[:, 1:] + y[:, :3]])(tf.exp(x)),
    "no views": lambda x: (lambda y: [tf.nn.relu(y), y @ array(4, 2)])(tf.exp(x)),
    "small sums of it": lambda x: (lambda y: [tf.nn.relu(tf.reduce_sum(y, i)) for i in (0, 1)])(tf.exp(x)),
}


@pytest.mark.parametrize("name", NOT)
def test_elsewhere_nothing_is_masked_early(name):
    assert sources(NOT[name], (2, 4)) == {}


def openings(graph):
    """Elements that are opened under a mask, by layer."""
    (found, error) = cost(graph)
    assert error < 2e-3
    opened: dict[str, int] = {}
    for message in found.messages:
        if message.kind is Kind.OPENING and message.source == "server0" and "/mask" in message.scope:
            layer = message.scope.partition("/")[0]
            opened[layer] = opened.get(layer, 0) + message.bytes // 8
    return opened


def dense_block(count=3, growth=4):
    inputs = keras.Input((4, 4, 4))
    x = layers.Conv2D(growth, 3, padding="same", use_bias=False, name="stem")(inputs)
    for i in range(count):
        y = layers.BatchNormalization(name=f"norm_{i}")(x)
        y = layers.ReLU(name=f"relu_{i}")(y)
        y = layers.Conv2D(growth, 3, padding="same", use_bias=False, name=f"conv_{i}")(y)
        x = layers.Concatenate(name=f"join_{i}")([x, y])
    return keras.Model(inputs, x)


def test_each_activation_of_a_dense_block_is_truncated_once_and_masked_once():
    """Every layer takes all before it: without sharing, the k-th would mask and truncate k values again."""
    growth, pixels = 4, 16
    graph = optimize(graph_of_model(dense_block(), 1))
    opened = openings(graph)
    own = growth * pixels
    # The input; then the convolution's result for its truncation, and the truncated one.
    assert opened["stem"] == 3 * own
    for i in range(3):
        # ReLU's input is a product of its own with that layer's scales; its result is masked for the convolution.
        assert opened[f"relu_{i}"] == (i + 1) * own
        truncated = 2 * own if i < 2 else 0
        assert opened[f"conv_{i}"] == (i + 1) * own + truncated
    assert not [layer for layer in opened if layer.startswith(("norm", "join"))]


def test_what_is_joined_with_a_masked_value_is_masked_too():
    def function(x):
        y, z = tf.exp(x), tf.sigmoid(x)
        return tf.nn.relu(tf.concat([y, z], 1)), tf.nn.relu(tf.concat([y, x], 1))

    graph = graph_of(function, (2, 4))
    assert {value.node.op for value in masked_at_source(graph)} == {"Exp", "Sigmoid", "AddV2"}


def test_a_hard_swish_masks_its_input_once():
    model = keras.Sequential([keras.Input((6,)), layers.Dense(6, name="a"), layers.Activation("hard_silu", name="h")])
    opened = openings(optimize(graph_of_model(model, 1)))
    # Input, product, and what both the limits and the product take; then the limited one, and the product's truncation.
    assert opened == {"a": 18, "h": 12}


def test_a_mask_serves_the_product_and_the_comparison():
    kernel = array(4, 4)

    def both(x):
        y = x @ kernel
        return tf.nn.relu(y), y @ kernel

    graph = graph_of(both, (1, 4))
    assert ops(graph)["Relu"] == 1
    opened = openings(graph)
    # x; the product, whose one mask serves its truncation and ReLU; the truncated one.
    assert sum(opened.values()) == 3 * 4
