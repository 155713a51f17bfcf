"""The reader: functions, loops, branches, lists of tensors, shapes and variables, against TensorFlow."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from lowering import check, graph_of, on_shares, reals, wholes

from shareflow.compiler.graph import CONSTANT, PARAMETER
from shareflow.compiler.mark import mark
from shareflow.errors import UnsupportedModelError

x3, x53 = reals(3), reals(5, 3)


def ops(graph):
    return {node.op for node in graph.nodes}


# --- functions


def test_functions_within_functions():
    @tf.function
    def inner(x, y):
        return x * 2 + y, x - y

    @tf.function
    def outer(x):
        a, b = inner(x, x + 1)
        c, _ = inner(a, b)
        return c

    graph = check(lambda x: outer(x) + outer(x * 0.5), x3, units=6)
    assert not ops(graph) & {"PartitionedCall", "StatefulPartitionedCall"}


def test_functions_that_return_what_they_take():
    @tf.function
    def both(x, y):
        return y, x

    check(lambda x, y: both(*both(x, y)), x3, reals(2))


def test_results_in_a_dict_and_in_a_list():
    check(lambda x: {"b": x + 1, "a": x * 2}, x3)


def test_a_function_with_a_gradient_of_its_own():
    @tf.custom_gradient
    def doubled(x):
        return x * 2, lambda upstream: upstream

    check(lambda x: doubled(x), x3)


def test_what_has_no_part_in_the_result_is_left_out():
    def function(x):
        tf.debugging.assert_shapes([(x, (3,))])
        tf.debugging.assert_all_finite(x, "finite")
        tf.debugging.assert_less(tf.reduce_max(x), 100.0)
        tf.linalg.inv(tf.linalg.diag(x))
        return tf.stop_gradient(tf.identity(x)) + 1

    graph = check(function, x3, units=0)
    assert ops(graph) <= {"Input", "Constant", "AddV2"}


def test_control_dependencies_are_no_inputs():
    def function(x):
        with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(x < 100), [x])]):
            return tf.identity(x) * 2

    check(function, x3)


# --- loops


def test_a_loop_with_a_public_condition():
    @tf.function
    def function(x):
        i = tf.constant(0)
        while i < 4:
            x = x * 0.5 + tf.cast(i, tf.float32)
            i += 1
        return x

    graph = check(function, x3, units=3)
    assert "While" not in ops(graph)


def test_a_loop_over_a_range_and_over_rows():
    @tf.function
    def function(x):
        total = tf.zeros([3])
        for i in tf.range(5):
            total += x[i] * tf.cast(i + 1, tf.float32)
        for row in x:
            total = tf.maximum(total, row)
        return total

    check(function, x53)


def test_a_loop_that_python_unrolls_and_loops_in_loops():
    @tf.function
    def function(x):
        for i in tf.range(2):
            for j in tf.range(i + 1):
                x = x + tf.cast(i * j, tf.float32)
        return x

    check(function, x3, units=0)


def test_while_loop():
    def function(x):
        zeros = tf.zeros_like(x)
        return tf.while_loop(lambda i, y: i < 3, lambda i, y: (i + 1, y + x), (0, zeros), maximum_iterations=2)

    check(lambda x: function(x)[1], x3, units=0)


def test_a_loop_that_ends_when_private_values_say_so_is_refused():
    def function(x):
        return tf.while_loop(lambda y: tf.reduce_sum(y) < 10, lambda y: (y + 1,), [x])

    with pytest.raises(UnsupportedModelError, match="tell how long it ran"):
        graph_of(function, [x3])


def test_an_endless_loop_is_refused(monkeypatch):
    monkeypatch.setattr("shareflow.compiler.read.MOST_STEPS", 100)
    with pytest.raises(UnsupportedModelError, match="more than 100 steps"):
        graph_of(lambda x: tf.while_loop(lambda i, y: i >= 0, lambda i, y: (i * 0, y), [0, x]), [reals(1)])


def test_a_dynamic_loop_that_changes_shapes():
    @tf.function
    def function(x):
        y = x[:1]
        for i in tf.range(3):
            tf.autograph.experimental.set_loop_options(shape_invariants=[(y, tf.TensorShape([None]))])
            y = tf.concat([y, x[1:2] * tf.cast(i, tf.float32)], 0)
        return y

    check(function, x3)


# --- branches


@pytest.mark.parametrize("flag", [True, False])
def test_branches_with_public_conditions(flag):
    @tf.function
    def function(x):
        y = tf.constant(flag)
        if y:
            return x + 1
        return x * 2

    check(function, x3)
    check(lambda x: tf.cond(tf.shape(x)[0] > (2 if flag else 5), lambda: x + 1, lambda: x * 3), x3)


@pytest.mark.parametrize("which", [0, 1, 2, 7, -1])
def test_cases(which):
    def function(x):
        return tf.switch_case(tf.constant(which), [lambda: x, lambda: x + 1, lambda: x * 2])

    check(function, x3)


def test_a_branch_that_private_values_choose_is_refused():
    with pytest.raises(UnsupportedModelError, match=r"tf\.where"):
        graph_of(lambda x: tf.cond(tf.reduce_sum(x) > 0, lambda: x, lambda: -x), [x3])
    with pytest.raises(UnsupportedModelError, match=r"tf\.where"):
        graph_of(lambda i: tf.switch_case(i, [lambda: 1.0, lambda: 2.0]), [np.int32(1)])


# --- lists of tensors


def test_tensor_arrays():
    def function(x):
        array = tf.TensorArray(tf.float32, size=4)
        return array.write(0, x).write(2, x * 2).write(3, x + 1).stack()

    check(function, x3)


def test_tensor_arrays_that_grow_and_are_read_back():
    @tf.function
    def function(x):
        array = tf.TensorArray(tf.float32, size=0, dynamic_size=True)
        for i in tf.range(5):
            array = array.write(i, x[i] * 0.5)
        back = array.gather([4, 0]) + array.read(1)
        return back, array.stack(), tf.cast(array.size(), tf.float32) + x[0, 0]

    check(function, x53)


def test_tensor_array_concat_unstack_and_split():
    def function(x):
        array = tf.TensorArray(tf.float32, size=5).unstack(x)
        pieces = tf.TensorArray(tf.float32, size=2, infer_shape=False).split(x, [2, 3])
        return array.read(2), pieces.concat(), pieces.read(1), array.scatter([4, 3], x[:2]).read(4)

    check(function, x53)


def test_map_scan_fold_and_vectorised_map():
    check(lambda x: tf.map_fn(lambda row: row * 2 + 1, x), x53)
    check(lambda x: tf.map_fn(lambda row: (row[0], row[1:]), x, fn_output_signature=(tf.float32, tf.float32)), x53)
    check(lambda x: tf.scan(lambda total, row: total * 0.5 + row, x), x53, units=4)
    check(lambda x: tf.foldl(lambda total, row: total + row, x), x53)
    check(lambda x: tf.vectorized_map(lambda row: tf.reduce_sum(row * row), x), x53, units=4)
    check(lambda x: tf.vectorized_map(lambda row: tf.linalg.matvec(tf.ones([2, 3]), row), x), x53, units=4)


def test_a_list_read_at_a_private_place_is_refused():
    def function(x, i):
        return tf.TensorArray(tf.float32, size=5).unstack(x).read(i)

    with pytest.raises(UnsupportedModelError, match=r"tf\.gather"):
        graph_of(function, [x53, np.int32(1)])


# --- shapes


def test_shape_arithmetic_vanishes():
    def function(x):
        shape = tf.shape(x)
        flat = tf.reshape(x, [shape[0] // 5, -1])
        wide = tf.broadcast_to(x, tf.concat([[2], shape], 0))
        count = tf.cast(tf.size(x), tf.float32) * tf.cast(tf.rank(x), tf.float32)
        return flat, wide, x / count, tf.zeros(shape) + x, tf.fill(shape, 2.0) * x, x[: shape[0] - 2]

    graph = check(function, x53)
    assert not ops(graph) & {"Shape", "Size", "Rank", "Range", "Fill", "ZerosLike", "FloorDiv"}


def test_static_and_dynamic_helpers():
    check(lambda x: tf.reshape(x, tf.concat([tf.shape(x)[:1], [3, 1]], 0)), x53, units=0)
    check(lambda x: x + tf.ones_like(x) * tf.zeros_like(x), x53, units=0)
    check(lambda x: tf.range(5.0)[:, None] * x, x53)
    check(lambda x: tf.split(x, tf.constant([2, 3])), x53, units=0)
    check(lambda x: tf.shape_n([x, x])[0][0] * tf.cast(tf.round(x), tf.int32), x53, units=0)
    check(lambda x: tf.ensure_shape(x, [5, None]) + 1, x53, units=0)


def test_shapes_that_an_owner_s_array_decides_are_public():
    sizes = tf.constant([3.0, 5.0])
    check(lambda x: tf.reshape(x, tf.cast(sizes, tf.int32)), x53, units=0)


def test_sizes_that_private_values_decide_are_refused():
    for function in (
        lambda x, i: tf.zeros([i, 3]) + x[0],
        lambda x, i: tf.reshape(x, [i, -1]),
        lambda x, i: tf.range(i),
        lambda x, i: tf.repeat(x, i, axis=0),
        lambda x, i: tf.unique(x[0]).y,
    ):
        with pytest.raises(UnsupportedModelError, match="known beforehand"):
            graph_of(function, [x53, np.int32(3)])


# --- variables and arrays


def test_variables_of_one_name_stay_apart():
    one, two = tf.Variable(reals(3)), tf.Variable(reals(3, seed=1))
    assert one.name == two.name
    graph = check(lambda x: x * one + two, x53)
    assert len(graph.parameters) == 2


def test_a_variable_that_is_read_twice_is_one_parameter():
    weights = tf.Variable(reals(3, 3, size=1), name="weights")
    graph = check(lambda x: tf.nn.relu(x @ weights) @ weights, x53, units=8)
    assert [node.name for node in graph.parameters] == ["weights"]


def test_a_variable_s_value_at_prediction_is_that_of_the_reading():
    weight = tf.Variable(2.0)
    graph = graph_of(lambda x: x * weight, [x3])
    weight.assign(3.0)
    (got,) = on_shares(graph, {"x": x3})
    np.testing.assert_allclose(got, x3 * 3, atol=1e-4)


def test_variables_that_are_gathered_from_without_being_read():
    table = tf.Variable(reals(4, 3, 2))
    places = np.int32([[0, 2], [3, 1]])
    check(lambda i: tf.gather_nd(table, i), places, units=0)
    check(lambda x: tf.gather_nd(table, places) + x, reals(2), units=0)
    check(lambda x: tf.gather(table, [1, 3], axis=0) + x, reals(2), units=0)
    check(lambda x: tf.zeros(tf.shape(table)) + x, reals(2), units=0)


def test_arrays_in_the_code_are_the_owner_s_and_zeros_are_not():
    def function(x):
        return x * tf.constant([1.0, 2.0, 3.0]) + tf.zeros([3]) + tf.ones([3]) + 2.5

    graph = check(function, x53)
    assert [node.op for node in graph.parameters] == [PARAMETER]
    assert sum(node.op == CONSTANT for node in graph.nodes) == 3
    public = graph_of(function, [x53], public=True)
    assert not public.parameters


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64", "int8", "uint8"])
def test_arrays_that_may_be_weights_are_the_owner_s(dtype):
    weights = tf.constant(np.arange(6).reshape(3, 2), dtype)
    graph = check(lambda x: x @ tf.cast(weights, tf.float32), x53, units=2)
    assert [node.dtypes for node in graph.parameters] == [(dtype,)]
    assert all(node.attributes["value"].size < 6 for node in graph.nodes if node.op == CONSTANT)


def test_writing_to_variables_is_refused_or_left_out():
    counter = tf.Variable(0.0)

    def function(x):
        counter.assign_add(1.0)
        return x + 1

    @tf.function
    def nested(x):
        function(x)
        return x

    graph = check(lambda x: nested(x) + function(x), x3, units=0)
    assert ops(graph) <= {"Input", "Constant", "AddV2"}
    for reads in (
        lambda x: x + counter.assign_add(1.0),
        lambda x: function(x) + counter,
        lambda x: nested(x) * counter,
    ):
        with pytest.raises(UnsupportedModelError, match="reads the variable"):
            graph_of(reads, [x3])


def test_tables_are_refused():
    table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer([1, 2], [3.0, 4.0]), 0.0)
    with pytest.raises(UnsupportedModelError, match="Tables and iterators"):
        graph_of(lambda i: table.lookup(i), [np.int32([1, 2])])


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x + tf.cast(tf.strings.length(tf.io.read_file("name")), tf.float32),
        lambda x: x + tf.py_function(lambda: 1.0, [], tf.float32),
        lambda x: x + tf.numpy_function(lambda: np.float32(1), [], tf.float32),
    ],
)
def test_files_and_python_are_refused_and_not_run(function):
    with pytest.raises(UnsupportedModelError, match="reaches out"):
        graph_of(function, [x3])


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x + tf.random.uniform([3]),
        lambda x: tf.nn.dropout(x, 0.5),
        lambda x: x + tf.random.stateless_normal([3], [1, 2]),
        lambda x: tf.random.shuffle(x),
        lambda x: tf.random.categorical(x[None], 2),
    ],
)
def test_random_numbers_are_refused(function):
    with pytest.raises(UnsupportedModelError, match="draws random numbers"):
        graph_of(lambda x: function(x), [x3])


def _run(function):
    return on_shares(graph_of(function, [x3]), {"x": x3})


def test_python_functions_are_refused():
    for function in (
        lambda x: tf.py_function(lambda v: v, [x], tf.float32),
        lambda x: tf.numpy_function(lambda v: v, [x], tf.float32),
    ):
        with pytest.raises(UnsupportedModelError, match="PyFunc"):
            _run(lambda x: tf.ensure_shape(function(x), [3]))  # noqa: B023


# --- layers and size


def test_layers_are_named_in_errors():
    class Odd(keras.layers.Layer):
        def call(self, x):
            return tf.math.lgamma(x)

    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2), Odd(name="odd_one")])
    from shareflow import private_model

    with pytest.raises(UnsupportedModelError, match=r"Lgamma of layer 'odd_one'"):
        private_model(model, owner="owner")


def test_a_graph_of_thousands_of_nodes_is_read_in_seconds():
    @tf.function
    def function(x):
        for i in range(700):
            x = tf.nn.relu(x * 0.5 + float(i))
        return x

    graph = graph_of(function, [x3])
    assert len(graph.nodes) > 2800


def test_whole_inputs_and_results():
    check(lambda i: i // 2 + tf.shape(i)[0], wholes(6), units=0)
    check(lambda i: tf.cast(i, tf.float32) / 2, wholes(6), units=0)


# --- marks: a function that says what it means as a whole


def test_a_marked_function_is_one_op():
    said = mark("shareflow.polynomial", coefficients=[0.0, 1.0, 0.5], bound=4.0)

    @tf.function(experimental_implements=said)
    def polynomial(x):
        return x + 0.5 * x * x

    graph = check(lambda x: polynomial(x) + 1, x3, units=8)
    assert "shareflow.polynomial" in ops(graph)
    assert not ops(graph) & {"Mul", "Square"}


def test_an_unknown_mark_is_refused():
    @tf.function(experimental_implements=mark("shareflow.magic"))
    def magic(x):
        return x

    with pytest.raises(UnsupportedModelError, match=r"shareflow\.magic, which this version does not know"):
        graph_of(lambda x: magic(x), [x3])
