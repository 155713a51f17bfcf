"""Python functions, tf.functions and methods of modules: several parties, public loops, results by name."""

from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf

import shareflow as sf
from shareflow.errors import PlacementError, ShapeError, UnsupportedModelError

BOUND = 1e-3
X, Y = np.random.default_rng(0).uniform(-2, 2, (2, 5, 3)).astype(np.float32)


def made(function, protocol=None, **options):
    return sf.private_model(function, owner="model-owner", protocol=protocol or sf.Plain(), **options)


def correlation(first, second):
    """Of two columns of two hospitals."""
    a, b = first - tf.reduce_mean(first), second - tf.reduce_mean(second)
    return {"covariance": tf.reduce_mean(a * b), "variances": (tf.reduce_mean(a * a), tf.reduce_mean(b * b))}


COLUMNS = {
    "first": sf.Argument((15,), batched=False, party="north"),
    "second": sf.Argument((15,), "float32", batched=False, party="south"),
}


@pytest.mark.parametrize("protocol", [sf.Plain, sf.SPDZ])
def test_inputs_of_several_parties_and_results_by_name(protocol):
    found = made(correlation, protocol(), inputs=COLUMNS).predict(
        {"first": X.ravel(), "second": Y.ravel()}, receiver="study"
    )
    assert sorted(found) == ["covariance", "variances_0", "variances_1"]
    assert all(value.shape == () and value.dtype == np.float32 for value in found.values())
    np.testing.assert_allclose(found["covariance"], np.cov(X.ravel(), Y.ravel(), bias=True)[0, 1], atol=BOUND)
    np.testing.assert_allclose(found["variances_1"], np.var(Y), atol=BOUND)


def test_each_input_crosses_from_its_own_party():
    private = made(correlation, sf.SPDZ(), inputs=COLUMNS)
    with sf.crossings() as seen:
        private.predict({"first": X.ravel(), "second": Y.ravel()}, receiver="study")
    sources = {str(crossing.source) for crossing in seen if crossing.kind.value == "input"}
    assert sources >= {"north", "south"}
    with sf.crossings() as seen:
        private.predict({"first": X.ravel(), "second": Y.ravel()}, receiver="study", input_owner={"second": "east"})
    assert {"north", "east"} <= {str(crossing.source) for crossing in seen if crossing.kind.value == "input"}
    with pytest.raises(ShapeError, match="no input 'third'"):
        private.predict({"first": X.ravel(), "second": Y.ravel()}, receiver="study", input_owner={"third": "east"})


def test_a_plan_has_all_parties():
    options = {"owner": "model-owner", "client": "study", "protocol": sf.SPDZ()}
    plan = sf.compile_model(correlation, inputs=COLUMNS, **options)
    assert set(plan.manifest.external) == {"north", "south", "study"}
    assert not plan.manifest.entries["predict"].batched
    other = sf.compile_model(correlation, inputs=COLUMNS, parties={"second": "east"}, **options)
    assert set(other.manifest.external) == {"north", "east", "study"}
    with pytest.raises(UnsupportedModelError, match="no input 'third'; its inputs are first, second"):
        sf.compile_model(correlation, inputs=COLUMNS, parties={"third": "east"}, **options)
    with pytest.raises(PlacementError):
        sf.compile_model(
            correlation, inputs={**COLUMNS, "first": sf.Argument((15,), batched=False, party="1")}, **options
        )


def test_rows_beside_a_value_that_has_none():
    """One weight for all rows: what is computed is one whole."""

    def weighted(rows, weight):
        return rows * weight

    inputs = {"rows": sf.Argument((3,)), "weight": sf.Argument((3,), batched=False, party="other")}
    found = made(weighted, inputs=inputs).predict({"rows": X, "weight": Y[0]}, receiver="study", batch_size=2)
    np.testing.assert_allclose(found, X * Y[0], atol=BOUND)
    plan = sf.compile_model(weighted, owner="model-owner", client="study", inputs=inputs, protocol=sf.SPDZ())
    assert not plan.manifest.entries["predict"].batched


class Module(tf.Module):
    def __init__(self):
        super().__init__(name="module")
        self.scale = tf.Variable([1.0, 2.0, 3.0])
        self.shift = tf.Variable([10.0, 20.0, 30.0])

    @tf.function(input_signature=[tf.TensorSpec([None, 3])])
    def affine(self, x):
        return x * self.scale + self.shift

    @tf.function
    def plain(self, x, factor=2.0):
        return x * self.scale * factor

    def __call__(self, x):
        return tf.nn.relu(self.affine(x))


def test_methods_of_a_module():
    module = Module()
    wanted = X * [1, 2, 3] + [10, 20, 30]
    np.testing.assert_allclose(made(module.affine).predict(X, receiver="c"), wanted, atol=BOUND)
    rows = {"x": sf.Argument((3,))}
    np.testing.assert_allclose(made(module.plain, inputs=rows).predict(X, receiver="c"), X * [2, 4, 6], atol=BOUND)
    np.testing.assert_allclose(made(module, inputs=rows).predict(X, receiver="c"), np.maximum(wanted, 0), atol=BOUND)


def test_variables_of_one_name_are_two_and_one_that_is_used_twice_is_one():
    module = Module()
    assert module.scale.name == module.shift.name
    assert len(sf.parameters_of(module.affine)) == 2
    twice = tf.function(
        lambda x: tf.nn.relu(x * module.scale) * module.scale, input_signature=[tf.TensorSpec([None, 3])]
    )
    assert len(sf.parameters_of(twice)) == 1


def test_loops_and_conditions_on_public_values():
    def powers(x, count=3, square=True):
        total = x
        for i in tf.range(count):
            if i % 2 == 0:  # noqa: SIM108
                total = total + x
            else:
                total = total * 2.0
        if square:
            total = total * total
        while count > 0:
            total = total + 1.0
            count -= 1
        return total

    found = made(powers, inputs={"x": sf.Argument((3,))}).predict(X, receiver="c")
    np.testing.assert_allclose(found, ((X + X) * 2 + X) ** 2 + 3, atol=5e-3)


@pytest.mark.parametrize("kind", ["loop", "branch"])
def test_conditions_on_private_values_are_refused(kind):
    def loop(x):
        while tf.reduce_sum(x) < 10.0:
            x = x * 2.0
        return x

    def branch(x):
        if tf.reduce_sum(x) > 0.0:
            x = x * 2.0
        return x

    with pytest.raises(UnsupportedModelError, match="private"):
        made({"loop": loop, "branch": branch}[kind], inputs={"x": sf.Argument((3,))})


class Pair(NamedTuple):
    low: tf.Tensor
    high: tf.Tensor


@pytest.mark.parametrize(
    ("result", "names"),
    [
        (lambda x: x + 1, ["result"]),
        (lambda x: [x + 1], ["result_0"]),
        (lambda x: (x + 1, x + 2), ["result_0", "result_1"]),
        (lambda x: {"b": x + 1, "a": (x + 2, {"c": x + 3})}, ["a_0", "a_1_c", "b"]),
        (lambda x: Pair(x - 1, x + 1), ["low", "high"]),
    ],
)
def test_results_have_names(result, names):
    private = made(result, inputs={"x": sf.Argument((3,))})
    assert list(private.model.source.outputs) == names
    found = private.predict(X, receiver="c")
    if len(names) > 1:
        flat = tf.nest.flatten(result(X))
        assert all(np.allclose(found[name], value, atol=BOUND) for name, value in zip(names, flat, strict=True))


def test_arrays_in_the_code_are_the_owners_but_for_zeros_and_ones():
    table, ones = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], np.float32), np.ones(2, np.float32)

    def function(x):
        return (tf.matmul(x, table) + ones) * 0.5 + tf.zeros(2)

    found = sf.parameters_of(function, {"x": sf.Argument((3,))})
    assert [value.shape for value in found.values()] == [(3, 2)]


def test_whole_numbers_and_truth_values():
    def chosen(yes, x, y):
        return tf.where(yes, x * 2, y)

    inputs = {"yes": sf.Argument((3,), "bool"), "x": sf.Argument((3,), "int32"), "y": sf.Argument((3,), "int32")}
    arrays = {"yes": X > 0, "x": np.int32(X * 10), "y": np.int32(Y * 10)}
    found = made(chosen, inputs=inputs).predict(arrays, receiver="c")
    np.testing.assert_allclose(found, np.where(X > 0, arrays["x"] * 2, arrays["y"]))


def two(x, y):
    return x + y


@pytest.mark.parametrize(
    ("function", "inputs", "words"),
    [
        (two, None, "inputs="),
        (two, {"x": sf.Argument((3,))}, "takes 'y', too"),
        (two, {"x": sf.Argument((3,)), "z": sf.Argument((3,))}, "no argument 'z'; it has x, y"),
        (lambda x: None, {"x": sf.Argument((3,))}, "returns None"),
        (tf.function(two, input_signature=[tf.TensorSpec([None, None])] * 2), None, "all extents but the first"),
        (
            tf.function(lambda d: d["a"], input_signature=[{"a": tf.TensorSpec([None, 3])}]),
            None,
            "is a dict in the signature",
        ),
        (lambda x: tf.strings.length(x), {"x": None}, "Texts"),
    ],
)
def test_what_is_not_known_of_a_function(function, inputs, words):
    with pytest.raises(UnsupportedModelError, match=words):
        given = inputs and {name: a or sf.Argument((), "string") for name, a in inputs.items()}
        made(function, inputs=given)


@pytest.mark.parametrize("shape", [(None, 3), (-1,), "ab", 3])
def test_an_argument_has_a_known_shape(shape):
    with pytest.raises(UnsupportedModelError, match="whole numbers"):
        sf.Argument(shape)


def test_an_argument_takes_types_of_all_kinds():
    assert sf.Argument([3], np.float64).dtype == sf.Argument((np.int64(3),), tf.float64).dtype == "float64"
    assert sf.Argument([np.int64(3)]).shape == (3,)
    with pytest.raises(UnsupportedModelError, match="Texts and look-ups"):
        sf.Argument((3,), tf.string)
