"""Equal layers and functions side by side become one, where none waits for another."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from tracing import did, graph_of, graph_of_model, ops, same

from shareflow.compiler.passes import join
from shareflow.compiler.passes.join import functions_of_joins, join_functions, join_linear

draw = np.random.default_rng(4)


def array(*shape):
    return draw.normal(size=shape).astype(np.float32)


LAYERS = {
    "matrices": (lambda x: [x @ array(4, n) for n in (3, 5, 2)], (2, 4), "MatMul"),
    "turned": (lambda x: [tf.matmul(x, array(n, 4), transpose_b=True) for n in (3, 5)], (2, 4), "MatMul"),
    "rows": (lambda x: [tf.matmul(x, array(4, n)) for n in (3, 5)], (2, 3, 4), "BatchMatMulV2"),
    "convolutions": (lambda x: [tf.nn.conv2d(x, array(3, 3, 4, n), 2, "SAME") for n in (1, 5)], (1, 5, 5, 4), "Conv2D"),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_of_one_input_are_one(name):
    function, shape, op = LAYERS[name]
    graph = graph_of(function, shape)
    after = join_linear(graph)
    same(graph, after, 1e-4)
    assert ops(after)[op] == 1 and ops(graph)[op] > 1
    assert ops(after)["SplitV"] == 1


APART = {
    "other inputs": (lambda x: [x @ array(4, 3), tf.exp(x) @ array(4, 3)], (2, 4), "MatMul"),
    "other sizes": (
        lambda x: [tf.nn.conv2d(x, array(k, k, 4, 2), 1, "SAME") for k in (1, 3)],
        (1, 5, 5, 4),
        "Conv2D",
    ),
    "other strides": (
        lambda x: [tf.nn.conv2d(x, array(3, 3, 4, 2), s, "SAME") for s in (1, 2)],
        (1, 5, 5, 4),
        "Conv2D",
    ),
    "groups": (lambda x: [tf.nn.conv2d(x, array(3, 3, 2, 2), 1, "SAME") for _ in "ab"], (1, 5, 5, 4), "Conv2D"),
    "turned and not": (lambda x: [x @ array(4, 4), tf.matmul(x, array(4, 4), transpose_b=True)], (2, 4), "MatMul"),
    "a private one": (lambda x: [x @ array(4, 4), tf.matmul(x, x, transpose_b=True)], (2, 4), "MatMul"),
    "one alone": (lambda x: [x @ array(4, 4)], (2, 4), "MatMul"),
}


@pytest.mark.parametrize("name", APART)
def test_other_layers_stay_apart(name):
    function, shape, op = APART[name]
    graph = graph_of(function, shape)
    after = join_linear(graph)
    same(graph, after)
    assert ops(after)[op] == ops(graph)[op]
    assert "SplitV" not in ops(after)


def test_large_results_are_not_taken_apart(monkeypatch):
    graph = graph_of(lambda x: [x @ array(4, 3), x @ array(4, 3)], (2, 4))
    monkeypatch.setattr(join, "_MOST_OF_LAYERS", 11)
    assert join_linear(graph) is graph


FUNCTIONS = {
    "of parts": (lambda x: [tf.sigmoid(part) for part in tf.split(x, 2, 1)], "Sigmoid"),
    "of other shapes": (lambda x: [tf.sigmoid(x[:, :1] + 1.0), tf.sigmoid(x[:1] + 2.0)], "Sigmoid"),
    "one after the other, two by two": (
        lambda x: [tf.sigmoid(1.0 + tf.sigmoid(part)) for part in tf.split(x, 2, 1)],
        "Sigmoid",
    ),
    "with equal settings": (lambda x: [tf.nn.leaky_relu(part, 0.3) for part in tf.split(x, 2, 1)], "LeakyRelu"),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_side_by_side_are_one(name):
    function, op = FUNCTIONS[name]
    graph = graph_of(function, (2, 4))
    after = join_functions(graph)
    same(graph, after)
    assert ops(after)[op] * 2 == ops(graph)[op]


SEPARATE = {
    "one waits for the other": lambda x: tf.sigmoid(tf.sigmoid(x) + 1.0),
    "others use what it is of": lambda x: [(y, tf.sigmoid(y)) for y in (x + 1.0, x + 2.0)],
    "other functions": lambda x: [tf.sigmoid(x + 1.0), tf.tanh(x + 2.0)],
    "other settings": lambda x: [tf.nn.leaky_relu(x + 1.0, 0.1), tf.nn.leaky_relu(x + 2.0, 0.2)],
    "another scale": lambda x: [tf.sigmoid(x + 1.0), tf.sigmoid(tf.exp(x) * x)],
}


@pytest.mark.parametrize("name", SEPARATE)
def test_other_functions_stay_apart(name):
    graph = graph_of(SEPARATE[name], (2, 4))
    assert join_functions(graph) is graph


def test_functions_of_many_elements_stay_apart(monkeypatch):
    graph = graph_of(lambda x: [tf.sigmoid(part) for part in tf.split(x, 2, 1)], (2, 4))
    monkeypatch.setattr(join, "_MOST_OF_FUNCTIONS", 7)
    assert join_functions(graph) is graph


def test_the_gates_of_an_lstm_are_one_function():
    model = keras.Sequential([keras.Input((3, 2)), layers.Dense(2), layers.LSTM(3)])
    graph = graph_of_model(model)
    after = join_functions(graph)
    same(graph, after, 1e-4)
    assert (ops(graph)["Sigmoid"], ops(after)["Sigmoid"]) == (9, 3)


def test_a_concatenation_of_functions_is_a_function_of_one():
    a, b = array(4, 3), array(4, 5)
    graph = graph_of(lambda x: tf.concat([tf.nn.relu(x @ a), tf.nn.relu(x @ b)], 1), (2, 4))
    after = functions_of_joins(graph)
    same(graph, after)
    assert ops(graph)["Relu"] == 2 and ops(after)["Relu"] == 1
    assert did(after) == {"Relu of a concatenation": 2}


JOINS = {
    "other functions": lambda x: tf.concat([tf.nn.relu(x + 1.0), tf.nn.relu6(x)], 1),
    "one that is used": lambda x: (lambda y: (tf.concat([y, tf.nn.relu(x)], 1), y))(tf.nn.relu(x + 1.0)),
    "another scale": lambda x: tf.concat([tf.nn.relu(x * x), tf.nn.relu(x)], 1),
    "no function": lambda x: tf.concat([x, x + 1.0], 1),
}


@pytest.mark.parametrize("name", JOINS)
def test_other_concatenations_stay(name):
    graph = graph_of(JOINS[name], (2, 4))
    assert functions_of_joins(graph) is graph
