"""Ops that are read as several simpler ones, against TensorFlow."""

import numpy as np
import pytest
import tensorflow as tf
from lowering import check, graph_of, on_shares, reals, wholes

from shareflow.errors import UnsupportedModelError

scores = reals(4, 5)


@pytest.mark.parametrize("kind", ["plain", "spdz"])
def test_cross_entropy(kind):
    labels = np.eye(5, dtype=np.float32)[[0, 3, 3, 1]]

    def dense(x, y):
        return tf.nn.softmax_cross_entropy_with_logits(labels=y, logits=x)

    def sparse(x, y):
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=x)

    graph = check(dense, scores, labels, units=12, kind=kind)
    # The gradient is no part of inference.
    assert "Softmax" not in {node.op for node in graph.nodes}
    check(sparse, scores, np.int32([0, 3, 3, 1]), units=12, kind=kind)
    check(sparse, scores, np.int32([0, 3, 3, 1]), units=12, kind=kind, parties={"y": "bob"}, known=["y"])


def test_the_gradient_of_cross_entropy_where_it_is_asked_for():
    check(
        lambda x, y: tf.raw_ops.SoftmaxCrossEntropyWithLogits(features=x, labels=y),
        scores,
        tf.nn.softmax(scores + 1),
        units=12,
    )


@pytest.mark.parametrize("k", [1, 2, 5])
def test_in_top_k(k):
    check(lambda x, i: tf.math.in_top_k(i, x, k), scores, np.int32([0, 3, 2, 1]), units=0)


@pytest.mark.parametrize("reverse", [False, True])
def test_the_nth_element(reverse):
    check(lambda x: tf.raw_ops.NthElement(input=x, n=2, reverse=reverse), scores, units=0)


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("shape", [(7,), (3, 7)], ids=str)
def test_counting(shape, binary):
    x = wholes(*shape, low=0, high=6)

    def count(x, weights=()):
        given = tf.constant(weights, tf.float32)
        return tf.raw_ops.DenseBincount(input=x, size=5, weights=given, binary_output=binary)

    check(lambda x: count(x), x, units=0)
    if not binary:
        check(lambda x: count(x, np.arange(np.prod(shape)).reshape(shape)), x, units=0)


def test_shifts():
    check(lambda x: tf.bitwise.left_shift(x, 3), wholes(6), units=0)
    check(lambda x: tf.bitwise.right_shift(x, [0, 1, 2, 3, 1, 1]), wholes(6, low=-40, high=40), units=0)


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize(("low", "high"), [(-3.0, 2.5), (0.0, 4.0), (-1.0, 0.0), (1.0, 3.0)])
def test_fake_quantisation(low, high, narrow):
    """A value at the middle of two steps may go to either."""
    x = reals(200)
    step = (high - low) / 15
    bounds = tf.Variable(low), tf.Variable(high)
    units = 2 + step / 2**-16

    def quantised(x):
        return tf.quantization.fake_quant_with_min_max_vars(x, *bounds, num_bits=4, narrow_range=narrow)

    check(quantised, x, units=units)
    graph = graph_of(quantised, [x])
    (got,) = on_shares(graph, {"x": x})
    right = quantised(x).numpy()
    assert np.mean(np.abs(got - right) > 0.01) < 0.03


def test_fake_quantisation_of_channels():
    low, high = tf.Variable([-3.0, -1.0, 0.0]), tf.Variable([2.5, 1.0, 3.0])
    check(
        lambda x: tf.quantization.fake_quant_with_min_max_vars_per_channel(x, low, high),
        reals(20, 3),
        units=5.5 / 255 * 2**16,
    )


DILATIONS = [((1, 1), (1, 1)), ((2, 1), (1, 1)), ((1, 1), (2, 2))]


@pytest.mark.parametrize("function", [tf.nn.dilation2d, tf.nn.erosion2d])
@pytest.mark.parametrize(("strides", "rates"), DILATIONS, ids=str)
def test_dilation_and_erosion(strides, rates, function):
    x, kernel = reals(1, 6, 7, 2), reals(2, 3, 2, seed=1)
    check(lambda x, k: function(x, k, [1, *strides, 1], "VALID", "NHWC", [1, *rates, 1]), x, kernel, units=0)


def test_dilation_with_nothing_around_is_refused():
    x, kernel = reals(1, 6, 7, 2), reals(2, 3, 2, seed=1)
    with pytest.raises(UnsupportedModelError, match="Pad the image before"):
        same = lambda x, k: tf.nn.dilation2d(x, k, [1, 1, 1, 1], "SAME", "NHWC", [1, 1, 1, 1])  # noqa: E731
        on_shares(graph_of(same, [x, kernel]), {"x": x, "k": kernel})
