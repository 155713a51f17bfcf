"""Dilated convolutions are found again under the moves by which TensorFlow emulates them."""

import numpy as np
import pytest
import tensorflow as tf
from keras import Input, Sequential, layers

from shareflow.compiler.evaluate import evaluate
from shareflow.compiler.front.function_source import function_source
from shareflow.compiler.front.source import Argument
from shareflow.compiler.model import Model, source_of
from shareflow.compiler.passes.restore_dilation import restore_dilation
from shareflow.ring.fixed_point import FixedPoint


def graph_of(source):
    return Model(source, "owner", "client", FixedPoint()).read(2)


def agree(graph):
    restored = restore_dilation(graph)
    shape = graph.inputs[0].shapes[0]
    x = {"x": np.random.default_rng(0).normal(size=shape).astype(np.float32)}
    one, two = (evaluate(g, x)[g.outputs["result"]] for g in (graph, restored))
    np.testing.assert_allclose(one, two, atol=1e-5)
    return [node.op for node in restored.nodes]


@pytest.mark.parametrize("kind", ["conv", "depthwise"])
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize(("rate", "size"), [((2, 2), (9, 10)), ((3, 2), (11, 7)), ((1, 2), (8, 8)), ((4, 4), (13, 13))])
def test_a_dilated_layer_is_one_convolution(kind, padding, rate, size):
    if kind == "conv":
        layer = layers.Conv2D(4, 3, padding=padding, dilation_rate=rate)
    elif rate[0] != rate[1]:
        pytest.skip("TensorFlow's depthwise convolution takes one rate")
    else:
        layer = layers.DepthwiseConv2D(3, padding=padding, dilation_rate=rate)
    if padding == "valid" and any(n < 2 * r + 1 for n, r in zip(size, rate, strict=True)):
        pytest.skip("the window does not fit")
    ops = agree(graph_of(source_of(Sequential([Input((*size, 3)), layer]))))
    assert not {"SpaceToBatchND", "BatchToSpaceND"} & set(ops)


def emulated(then=lambda y: y, crops=((0, 0), (0, 0)), block=(2, 2)):
    kernel = np.random.default_rng(1).normal(size=(3, 3, 3, 4)).astype(np.float32)

    def function(x):
        y = tf.nn.conv2d(tf.space_to_batch_nd(x, [2, 2], [[2, 2], [2, 2]]), kernel, 1, "VALID")
        return then(tf.batch_to_space(y, list(block), [list(c) for c in crops]))

    return graph_of(function_source(function, {"x": Argument((8, 8, 3), "float32")}))


def test_by_hand():
    assert "BatchToSpaceND" not in agree(emulated())


def test_rows_that_are_cut_at_the_end_need_no_padding():
    assert "BatchToSpaceND" not in agree(emulated(crops=((0, 1), (1, 2))))


@pytest.mark.parametrize("crops", [((3, 0), (0, 0)), ((0, 4), (0, 0))])
def test_it_stays_where_rows_of_the_image_would_be_cut(crops):
    assert "BatchToSpaceND" in agree(emulated(crops=crops))


def test_it_stays_where_the_blocks_differ():
    assert "BatchToSpaceND" in agree(emulated(block=(4, 1)))
