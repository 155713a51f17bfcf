"""Scales and offsets fold into the layers around them, and only where nothing else would change."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from tracing import OTHER, cost, did, graph_of, graph_of_model, ops, same

from shareflow.compiler.graph import Graph, Node
from shareflow.compiler.passes.fold_affine import fold_affine
from shareflow.compiler.passes.fold_average_pool import fold_average_pool
from shareflow.compiler.passes.simplify import simplify
from shareflow.compiler.passes.split_batch_norm import split_batch_norm
from shareflow.errors import UnsupportedModelError

draw = np.random.default_rng(5)


def array(*shape):
    """Weights: an array in the code is its owner's."""
    return draw.normal(size=shape).astype(np.float32)


def scale(channels):
    return draw.uniform(0.4, 1.6, channels).astype(np.float32)


IMAGE, KERNEL = (2, 6, 6, 4), array(3, 3, 4, 5)


def fold(graph):
    return fold_affine(simplify(graph))


BEFORE = {
    "conv2d": (lambda x: tf.nn.conv2d(x, KERNEL, 1, "SAME") * scale(5), IMAGE),
    "conv2d, strides": (lambda x: tf.nn.conv2d(x, KERNEL, 2, "VALID") * scale(5), IMAGE),
    "conv2d, one number": (lambda x: tf.nn.conv2d(x, KERNEL, 1, "SAME") * scale(1), IMAGE),
    "conv2d, a scale with axes": (lambda x: tf.nn.conv2d(x, KERNEL, 1, "SAME") * scale((1, 1, 1, 5)), IMAGE),
    "grouped": (lambda x: tf.nn.conv2d(x, array(3, 3, 2, 6), 1, "SAME") * scale(6), IMAGE),
    "depthwise": (lambda x: tf.nn.depthwise_conv2d(x, array(3, 3, 4, 2), [1, 1, 1, 1], "SAME") * scale(8), IMAGE),
    "transposed": (
        lambda x: tf.nn.conv2d_transpose(x, array(3, 3, 5, 4), (2, 12, 12, 5), 2) * scale(5),
        IMAGE,
    ),
    "conv3d": (lambda x: tf.nn.conv3d(x, array(2, 2, 2, 4, 3), [1] * 5, "SAME") * scale(3), (1, 3, 4, 4, 4)),
    "matrix": (lambda x: (x @ array(4, 5)) * scale(5), (3, 4)),
    "matrix turned": (lambda x: tf.matmul(x, array(5, 4), transpose_b=True) * scale(5), (3, 4)),
    "matrices": (lambda x: tf.matmul(x, array(4, 5)) * scale(5), (2, 3, 4)),
    "matrices turned": (lambda x: tf.matmul(x, array(1, 5, 4), adjoint_b=True) * scale(5), (2, 3, 4)),
    "einsum": (lambda x: tf.einsum("abc,cd->abd", x, array(4, 5)) * scale(5), (2, 3, 4)),
    "with a bias": (lambda x: (tf.nn.conv2d(x, KERNEL, 1, "SAME") + array(5)) * scale(5) + array(5), IMAGE),
    "taken off a bias": (lambda x: (array(5) - x @ array(4, 5)) * scale(5) - array(5), (3, 4)),
    "through a shape": (lambda x: tf.reshape(x @ array(4, 5), (1, 3, 1, 5)) * scale(5), (3, 4)),
    "through a mean": (lambda x: tf.reduce_mean(tf.nn.conv2d(x, KERNEL, 1, "SAME"), [1, 2]) * scale(5), IMAGE),
    "through a pool": (lambda x: tf.nn.avg_pool2d(tf.nn.conv2d(x, KERNEL, 1, "SAME"), 2, 2, "SAME") * scale(5), IMAGE),
    "through zeros": (
        lambda x: tf.pad(tf.nn.conv2d(x, KERNEL, 1, "SAME"), [(0, 0), (1, 1), (1, 1), (0, 0)]) * scale(5),
        IMAGE,
    ),
    "through a part": (lambda x: tf.nn.conv2d(x, KERNEL, 1, "SAME")[:, ::2] * scale(5), IMAGE),
    "a public number through an order": (lambda x: tf.transpose(x @ array(4, 5)) * 0.3, (3, 4)),
}


@pytest.mark.parametrize("name", BEFORE)
def test_a_scale_goes_into_the_layer_before(name):
    function, shape = BEFORE[name]
    graph = graph_of(function, shape)
    after = fold(graph)
    same(graph, after, 1e-4)
    assert ops(after)["Mul"] == 0
    assert ops(after)["AddV2"] + ops(after)["Sub"] + ops(after)["BiasAdd"] <= 1
    assert did(after)["scale into the layer before"] == 1


def attention(size, keep=False):
    queries, keys, offset = array(4, size), array(4, size), array(size)

    def scores(x):
        query = tf.matmul(x, queries) + offset
        found = tf.einsum("btc,bsc->bts", query, tf.matmul(x, keys)) * size**-0.5
        return (found, query) if keep else found

    return graph_of(scores, (2, 3, 4))


def test_one_number_goes_through_a_private_product_into_one_factor():
    graph = attention(3)
    after = fold(graph)
    same(graph, after, 1e-4)
    assert ops(graph)["Mul"] == 1 and ops(after)["Mul"] == 0
    assert ops(after)["Einsum"] == 1


def test_it_goes_into_neither_where_both_have_other_uses_and_stays_where_it_is_free():
    kernel = array(4, 3)

    def shared(x):
        y = tf.matmul(x, kernel)
        return tf.matmul(y, y, transpose_b=True) * 3**-0.5

    graph = graph_of(shared, (2, 3, 4))
    assert ops(fold(graph))["Mul"] == 1
    # 1 / sqrt(4) only moves the point.
    assert ops(fold(attention(4)))["Mul"] == 1
    kept = attention(3, keep=True)
    after = fold(kept)
    same(kept, after, 1e-4)
    # The query is a result: the key takes it.
    assert ops(after)["Mul"] == 0


AFTER = {
    "conv2d, zeros around": (lambda x: tf.nn.conv2d(x * scale(4) + array(4), KERNEL, 1, "SAME"), IMAGE, (6, 6, 5)),
    "conv2d": (lambda x: tf.nn.conv2d(x * scale(4) + array(4), KERNEL, 1, "VALID"), IMAGE, (5,)),
    "pointwise": (lambda x: tf.nn.conv2d(x * scale(4) - array(4), array(1, 1, 4, 5), 1, "SAME"), IMAGE, (5,)),
    "grouped": (lambda x: tf.nn.conv2d(x * scale(4) + array(4), array(3, 3, 2, 6), 1, "SAME"), IMAGE, (6, 6, 6)),
    "depthwise": (
        lambda x: tf.nn.depthwise_conv2d(x * scale(4) + array(4), array(3, 3, 4, 2), [1] * 4, "SAME"),
        IMAGE,
        (6, 6, 8),
    ),
    "transposed": (
        lambda x: tf.nn.conv2d_transpose(x * scale(4) + array(4), array(3, 3, 5, 4), (2, 12, 12, 5), 2),
        IMAGE,
        (2, 12, 12, 5),
    ),
    "conv3d": (
        lambda x: tf.nn.conv3d(x * scale(4) + array(4), array(2, 2, 2, 4, 3), [1] * 5, "VALID"),
        (1, 3, 4, 4, 4),
        (3,),
    ),
    "matrix": (lambda x: (x * scale(4) + array(4)) @ array(4, 5), (3, 4), (5,)),
    "matrix turned": (lambda x: tf.matmul(x * scale(4) + array(4), array(5, 4), transpose_b=True), (3, 4), (5,)),
    "einsum": (lambda x: tf.einsum("abc,cd->abd", x * scale(4) + array(4), array(4, 5)), (2, 3, 4), (3, 5)),
    "through zeros": (
        lambda x: tf.nn.conv2d(tf.pad(x * scale(4) + array(4), [(0, 0), (1, 1), (1, 1), (0, 0)]), KERNEL, 1, "VALID"),
        IMAGE,
        (6, 6, 5),
    ),
    "flattened": (lambda x: tf.reshape(x * scale(4) + array(4), (2, -1)) @ array(36 * 4, 5), IMAGE, (5,)),
    "rows of a batch": (lambda x: tf.reshape(x * scale(4) + array(4), (6, 4)) @ array(4, 5), (2, 3, 4), (5,)),
    "a mean": (lambda x: tf.reduce_mean(x * scale(4) + array(4), [1, 2]) @ array(4, 5), IMAGE, (5,)),
    "a mean over samples": (lambda x: tf.reduce_mean(x * scale(4) + array(4), 0) @ array(4, 5), (2, 3, 4), (5,)),
    "no offset": (lambda x: (x * scale(4)) @ array(4, 5), (3, 4), None),
}


@pytest.mark.parametrize("name", AFTER)
def test_a_scale_and_an_offset_go_into_the_layer_after(name):
    function, shape, constant = AFTER[name]
    graph = graph_of(function, shape)
    after = fold(graph)
    same(graph, after, 1e-4)
    assert ops(after)["Mul"] == 0
    sums = [
        n
        for n in after.nodes
        if n.op in ("AddV2", "Sub") and n.inputs[0].node.op != "Input" and after.secret(n.outputs[0])
    ]
    assert len(sums) == (constant is not None)
    if constant is not None:
        # One number a channel where all places see the same, else a map of them, which the owner computes.
        (offset,) = (value.shape for value in sums[0].inputs if not after.secret(value))
        assert tuple(n for n in offset if n != 1) == constant


def test_every_layer_after_takes_its_own():
    def function(x):
        y = x * scale_of_all + offset
        return tf.nn.conv2d(y, KERNEL, 1, "SAME"), tf.reshape(y, (2, -1)) @ wide, tf.reduce_sum(y, [1, 2]) @ narrow

    scale_of_all, offset, wide, narrow = scale(4), array(4), array(144, 3), array(4, 3)
    graph = graph_of(function, IMAGE)
    after = fold(graph)
    same(graph, after, 1e-4)
    assert ops(after)["Mul"] == 0
    assert did(after)["scale into the layers after"] == 3


def test_one_use_that_is_no_layer_keeps_all_as_they_are():
    def function(x):
        y = x * factors + offset
        return y @ kernel, tf.nn.relu(y)

    factors, offset, kernel = scale(4), array(4), array(4, 5)
    graph = graph_of(function, (3, 4))
    after = fold(graph)
    same(graph, after)
    assert ops(after) == ops(graph)


KEPT = {
    "the product has another use": lambda x: (lambda y: (y * scale(4), tf.nn.relu(y)))(x @ array(4, 4)),
    "the product is a result": lambda x: (lambda y: (y * scale(4), y))(x @ array(4, 4)),
    "the scale is private": lambda x: (x @ array(4, 4)) * tf.nn.relu(x[:1]),
    "the scale is of rows": lambda x: (x @ array(4, 4)) * array(3, 1),
    "ReLU stands between": lambda x: tf.nn.relu(x @ array(4, 4)) * scale(4),
    "a sum of two": lambda x: (x @ array(4, 4) + x) * scale(4),
    "channels move": lambda x: tf.transpose(x @ array(4, 3)) * scale(3),
    "channels are summed over": lambda x: tf.reduce_sum(x @ array(4, 4), 1) * scale(3),
    "the kernel is computed": lambda x: tf.matmul(x, x, transpose_b=True) * scale(3),
    "the kernel is the left one": lambda x: tf.matmul(array(5, 3), x) * scale(4),
    "columns turned": lambda x: tf.matmul(x, array(3, 5), transpose_a=True) * scale(5),
}


@pytest.mark.parametrize("name", KEPT)
def test_where_it_cannot_be_the_scale_stays(name):
    graph = graph_of(KEPT[name], (3, 4))
    after = fold_affine(graph)
    same(graph, after)
    assert ops(after)["Mul"] == 1


def test_channels_first_stay():
    """TensorFlow has no such convolution on this kind of machine: the graph alone is looked at."""
    graph = graph_of(lambda x: tf.nn.conv2d(x, KERNEL, 1, "SAME") * scale(5), IMAGE)

    def turned(node, build):
        if node.op != "Conv2D":
            return None
        attributes = {**node.attributes, "data_format": "NCHW"}
        return build.add(Node(node.op, node.inputs, attributes, node.name, "", node.shapes, node.dtypes)).outputs

    first: Graph = graph.rewrite(turned)
    assert fold_affine(first) is first


def test_a_scale_of_another_owner_stays():
    def function(x, y):
        return (x @ kernel) * y

    kernel = array(4, 5)
    graph = graph_of(function, (3, 4), (5,))
    # Of y the other party's half alone: a scale with one owner, who is not the kernel's.
    owners = {node.attributes["name"]: node for node in graph.inputs}
    assert owners["b1"].attributes["party"] == OTHER
    after = fold_affine(graph)
    assert ops(after)["Mul"] == 1


def test_training_mode_is_refused():
    def function(x):
        one = np.ones(4, np.float32)
        return tf.raw_ops.FusedBatchNormV3(x=x, scale=one, offset=one, mean=[], variance=[], is_training=True)[0]

    with pytest.raises(UnsupportedModelError, match="training=False"):
        split_batch_norm(graph_of(function, IMAGE))


@pytest.mark.parametrize("format", ["NHWC"])
@pytest.mark.parametrize("version", ["", "V2", "V3"])
def test_a_fused_batch_norm_folds(version, format):
    def function(x):
        y = tf.nn.conv2d(x, kernel, 1, "SAME")
        op = getattr(tf.raw_ops, f"FusedBatchNorm{version}")
        return op(x=y, scale=gamma, offset=beta, mean=mean, variance=spread, is_training=False, data_format=format)[0]

    kernel, gamma, beta, mean, spread = KERNEL, scale(5), array(5), array(5), scale(5)
    graph = graph_of(function, IMAGE)
    after = fold(split_batch_norm(graph))
    same(graph, after, 1e-4)
    assert dict(ops(after)) == {"Conv2D": 1, "AddV2": 1}


MODELS = {
    "after dense": [layers.Dense(5), layers.BatchNormalization()],
    "after conv": [layers.Reshape((2, 2, 2)), layers.Conv2D(3, 2), layers.BatchNormalization()],
    "before conv": [layers.Reshape((2, 2, 2)), layers.BatchNormalization(), layers.Conv2D(3, 2, padding="same")],
    "on both sides": [layers.BatchNormalization(), layers.Dense(5), layers.BatchNormalization()],
    "twice": [layers.Dense(5), layers.BatchNormalization(), layers.BatchNormalization()],
    "after separable": [layers.Reshape((2, 2, 2)), layers.SeparableConv2D(3, 2), layers.BatchNormalization()],
    "after transposed": [layers.Reshape((2, 2, 2)), layers.Conv2DTranspose(3, 2, 2), layers.BatchNormalization()],
    "1d": [layers.Reshape((4, 2)), layers.Conv1D(3, 2), layers.BatchNormalization()],
}


@pytest.mark.parametrize("name", MODELS)
def test_keras_batch_normalisation_costs_nothing(name):
    front = [keras.Input((8,)), layers.Dense(8, activation="relu")]
    model = keras.Sequential([*front, *[type(layer).from_config(layer.get_config()) for layer in MODELS[name]]])
    graph = graph_of_model(model)
    after = fold(split_batch_norm(graph))
    same(graph, after, 1e-4)
    assert ops(after)["Mul"] == 0
    assert ops(graph)["Mul"] >= 1


def test_it_saves_rounds_and_bytes():
    kernel, bias, factors = array(4, 5), array(5), scale(5)
    graph = graph_of(lambda x: tf.nn.relu((x @ kernel + bias) * factors + bias), (3, 4))
    (before, error), (after, error_after) = cost(graph), cost(fold(graph))
    assert max(error, error_after) < 1e-3
    assert after.rounds < before.rounds
    assert after.online_bytes < before.online_bytes and after.offline_bytes < before.offline_bytes


# --- means


def mean_folded(graph):
    return fold_affine(fold_average_pool(simplify(graph)))


MEANS = {
    "mean": (lambda x: tf.reduce_mean(x, [1, 2]) @ array(4, 5), IMAGE),
    "mean with axes": (lambda x: tf.reshape(tf.reduce_mean(x, [1, 2], True), (2, 4)) @ array(4, 5), IMAGE),
    "mean of three": (lambda x: tf.reduce_mean(x, 1) @ array(4, 5), (2, 3, 4)),
    "pool": (lambda x: tf.nn.conv2d(tf.nn.avg_pool2d(x, 3, 1, "VALID"), KERNEL, 1, "SAME"), IMAGE),
    "pool, whole windows": (lambda x: tf.nn.conv2d(tf.nn.avg_pool2d(x, 3, 3, "SAME"), KERNEL, 1, "SAME"), IMAGE),
    "pool of volumes": (
        lambda x: tf.nn.conv3d(tf.nn.avg_pool3d(x, 3, 1, "VALID"), array(1, 1, 1, 4, 2), [1] * 5, "SAME"),
        (1, 3, 4, 4, 4),
    ),
    "two layers": (lambda x: (lambda y: (y @ array(4, 5), y @ array(4, 2)))(tf.reduce_mean(x, [1, 2])), IMAGE),
}


@pytest.mark.parametrize("name", MEANS)
def test_the_division_goes_into_the_weights(name):
    function, shape = MEANS[name]
    graph = graph_of(function, shape)
    after = mean_folded(graph)
    same(graph, after, 1e-4)
    assert not {"Mean", "AvgPool", "AvgPool3D", "Mul"} & ops(after).keys()
    assert ops(after)["Sum"] + ops(after)["shareflow.sum_pool"] == 1


NO_MEANS = {
    "a small power of two": (lambda x: tf.reduce_mean(x[:, :4, :4], [1, 2]) @ array(4, 5), "Mean"),
    "windows with padding": (lambda x: tf.nn.conv2d(tf.nn.avg_pool2d(x, 3, 1, "SAME"), KERNEL, 1, "SAME"), "AvgPool"),
    "a function after it": (lambda x: tf.nn.relu(tf.reduce_mean(x, [1, 2])) @ array(4, 5), "Mean"),
    "another use": (lambda x: (lambda y: (y @ array(4, 5), tf.exp(y)))(tf.reduce_mean(x, [1, 2])), "Mean"),
    "a result": (lambda x: (lambda y: (y @ array(4, 5), y))(tf.reduce_mean(x, [1, 2])), "Mean"),
    "a private factor": (lambda x: tf.reduce_mean(x, [1, 2]) @ tf.transpose(x[0, 0, :, :]), "Mean"),
}


@pytest.mark.parametrize("name", NO_MEANS)
def test_a_mean_that_costs_nothing_or_serves_others_stays(name):
    function, op = NO_MEANS[name]
    graph = graph_of(function, IMAGE)
    after = mean_folded(graph)
    same(graph, after)
    assert ops(after)[op] == 1


def test_a_mean_takes_no_truncation_and_loses_no_accuracy():
    kernel = array(4, 5)
    graph = graph_of(lambda x: tf.reduce_mean(tf.nn.relu(x), [1, 2]) @ kernel, (2, 7, 7, 4))
    (before, error), (after, error_after) = cost(graph), cost(mean_folded(graph))
    assert after.rounds < before.rounds and after.offline_bytes < before.offline_bytes
    assert error_after < 4 * error + 1e-4
