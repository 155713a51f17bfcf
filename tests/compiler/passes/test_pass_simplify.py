"""simplify: what changes nothing is gone, what is equal is computed once, and everything else is left as it was."""

import numpy as np
import pytest
import tensorflow as tf
from tracing import did, graph_of, ops, same

from shareflow.compiler.passes.powers_of_two import powers_of_two
from shareflow.compiler.passes.simplify import simplify

W = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)

# (function of x [2, 3], the operations that are left)
GONE = {
    "times one": (lambda x: x * 1.0, {}),
    "one times": (lambda x: tf.ones((2, 3)) * x, {}),
    "plus zero": (lambda x: x + 0.0, {}),
    "zero plus": (lambda x: tf.zeros((2, 3)) + x, {}),
    "minus zero": (lambda x: x - tf.zeros(3), {}),
    "zero minus": (lambda x: 0.0 - x, {"Neg": 1}),
    "times minus one": (lambda x: x * -1.0, {"Neg": 1}),
    "over one": (lambda x: x / 1.0, {}),
    "zeros added of a product": (lambda x: x + tf.zeros((2, 4)) @ np.ones((4, 3), np.float32) * 2.0, {}),
    "times zero": (lambda x: tf.exp(x) * 0.0 + x, {}),
    "itself off": (lambda x: x + (tf.exp(x) - tf.exp(x)), {}),
    "greater of equals": (lambda x: tf.maximum(x, x), {}),
    "chosen of equals": (lambda x: tf.where(x > 0, x, x), {}),
    "chosen by all": (lambda x: tf.where(tf.ones((2, 3), tf.bool), x, tf.exp(x)), {}),
    "chosen by none": (lambda x: tf.where(tf.zeros((2, 3), tf.bool), tf.exp(x), x), {}),
    "sum of one": (lambda x: tf.raw_ops.AddN(inputs=[x]), {}),
    "power of one": (lambda x: tf.pow(x, 1.0), {}),
    "power of two": (lambda x: tf.pow(x, 2.0), {"Square": 1}),
    "power of a half": (lambda x: tf.pow(tf.abs(x), 0.5), {"Abs": 1, "Sqrt": 1}),
    "times itself": (lambda x: x * x, {"Square": 1}),
    "squared difference from zero": (lambda x: tf.math.squared_difference(x, 0.0), {"Square": 1}),
    "two signs": (lambda x: tf.negative(-x), {}),
    "sign of a difference": (lambda x: -(x - tf.exp(x)), {"Exp": 1, "Sub": 1}),
    "sign of a factor": (lambda x: (-x) * 3.0, {"Mul": 1}),
    "sign of a product": (lambda x: -(x * 3.0), {"Mul": 1}),
    "sign of a term": (lambda x: tf.exp(x) + -x, {"Exp": 1, "Sub": 1}),
    "sign of a term taken off": (lambda x: tf.exp(x) - -x, {"Exp": 1, "AddV2": 1}),
    "three factors": (lambda x: x * 2.0 * 3.0 * 5.0, {"Mul": 1}),
    "factor and divisor": (lambda x: x * 3.0 / 7.0, {"Mul": 1}),
    "three terms": (lambda x: 1.0 - (x + 1.0) + 2.0, {"Sub": 1}),
    "term taken off twice": (lambda x: x - 1.0 - 2.0, {"AddV2": 1}),
    "shape of a shape": (lambda x: tf.reshape(tf.reshape(x, (6,)), (3, 2)), {"Reshape": 1}),
    "shape and back": (lambda x: tf.reshape(tf.reshape(x, (6,)), (2, 3)), {}),
    "axis in and out": (lambda x: tf.squeeze(tf.expand_dims(x, 1), 1), {}),
    "an axis more by an index": (lambda x: x[:, None], {"Reshape": 1}),
    "an axis less by an index": (lambda x: tf.reshape(x[None][0], (6,)), {"Reshape": 1}),
    "transposed twice": (lambda x: tf.transpose(tf.transpose(x)), {}),
    "order kept": (lambda x: tf.transpose(x, [0, 1]), {}),
    "padded by nothing": (lambda x: tf.pad(x, [(0, 0), (0, 0)]), {}),
    "slice of all": (lambda x: x[:, 0:3], {}),
    "tile of one": (lambda x: tf.tile(x, [1, 1]), {}),
    "broadcast to itself": (lambda x: tf.broadcast_to(x, (2, 3)), {}),
    "split in one": (lambda x: tf.split(x, 1)[0], {}),
    "sum over no axes": (lambda x: tf.reduce_sum(x, []), {}),
    "equal branches": (lambda x: tf.exp(x) + tf.exp(x) * tf.exp(x), {"Exp": 1, "Square": 1, "AddV2": 1}),
    "rows of a product": (
        lambda x: tf.reshape(tf.reshape(tf.reshape(x, (1, 2, 3)), (2, 3)) @ W.T, (1, 2, 2)),
        {"Reshape": 1, "BatchMatMulV2": 1},
    ),
}


@pytest.mark.parametrize("name", GONE)
def test_it_is_gone_and_the_result_is_the_same(name):
    function, left = GONE[name]
    graph = graph_of(function, (2, 3))
    after = simplify(graph)
    same(graph, after)
    assert dict(ops(after)) == left
    assert sum(ops(after).values()) <= sum(ops(graph).values())


# Functions that look alike and must stay.
KEPT = {
    "a wider one": (lambda x: x[:, :1] * tf.ones((2, 3)), "Mul"),
    "a wider zero": (lambda x: x[:, :1] + tf.zeros((2, 3)), "AddV2"),
    "nearly one": (lambda x: x * 1.0001, "Mul"),
    "ones but for one": (lambda x: x * tf.constant([1.0, 1.0, 2.0]), "Mul"),
    "another order": (lambda x: tf.transpose(x), "Transpose"),
    "some padding": (lambda x: tf.pad(x, [(0, 0), (0, 1)]), "Pad"),
    "every second": (lambda x: x[:, ::2], "StridedSlice"),
    "backwards": (lambda x: x[:, ::-1], "StridedSlice"),
    "reversed": (lambda x: tf.reverse(x, [0]), "ReverseV2"),
    "rolled": (lambda x: tf.roll(x, 1, 0), "Roll"),
    "power of three": (lambda x: tf.pow(x, 3.0), "Pow"),
    "divided by private values": (lambda x: x / tf.exp(x), "RealDiv"),
    "chosen by some": (lambda x: tf.where(np.array([True, False, True]), x, tf.exp(x)), "SelectV2"),
}


@pytest.mark.parametrize("name", KEPT)
def test_what_only_looks_like_nothing_stays(name):
    function, op = KEPT[name]
    graph = graph_of(function, (2, 3))
    after = simplify(graph)
    same(graph, after)
    assert ops(after)[op] == 1


def test_a_factor_of_a_value_with_other_uses_stays_where_it_is():
    def function(x):
        y = x * 3.0
        return y * 5.0, tf.exp(y)

    graph = graph_of(function, (2, 3))
    after = simplify(graph)
    same(graph, after)
    assert ops(after)["Mul"] == 2


def test_a_quotient_by_zero_is_left_to_its_error():
    graph = graph_of(lambda x: x / np.float32(0.0), (2,))
    assert ops(simplify(graph))["RealDiv"] == 1


def test_dead_code_is_gone_and_inputs_stay():
    graph = graph_of(lambda x, y: x * 1.0 + 0.0 * y, (2, 3), (2, 3))
    after = simplify(graph)
    assert not ops(after)
    assert [node.name for node in after.inputs] == [node.name for node in graph.inputs]


def test_a_parameter_is_no_constant():
    """An array of ones in the code may be weights that happen to be so only where the reader says that it is public."""
    ones = np.float32([[1, 1, 1.0000001], [1, 1, 1]])
    graph = graph_of(lambda x: x * ones, (2, 3))
    assert ops(simplify(graph))["Mul"] == 1


def test_it_is_settled_after_once():
    graph = simplify(graph_of(lambda x: -(x * 2.0) / 3.0 + 1.0 - x, (2, 3)))
    assert simplify(graph) is graph


def test_it_says_what_it_did():
    assert did(simplify(graph_of(lambda x: tf.exp(x * 1.0) + 0.0, (2, 3)))) == {"product with 1": 1, "sum with 0": 1}
    assert simplify(graph_of(tf.exp, (2, 3))).notes == ()


@pytest.mark.parametrize("number", [0.5, 0.25, 2.0**-16])
def test_a_power_of_two_divides(number):
    graph = graph_of(lambda x: x * number, (2, 3))
    after = powers_of_two(graph)
    same(graph, after)
    assert dict(ops(after)) == {"RealDiv": 1}


@pytest.mark.parametrize("number", [2.0, 1.0, 0.3, -0.5, 2.0**-17, 0.0])
def test_other_numbers_multiply(number):
    graph = graph_of(lambda x: x * number, (2, 3))
    assert powers_of_two(graph) is graph
