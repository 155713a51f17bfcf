"""Arithmetic, comparisons, logic, choices and element-wise functions on shares, against TensorFlow."""

import numpy as np
import pytest
import tensorflow as tf
from lowering import check, graph_of, named, on_shares, reals, truths, wholes

from shareflow.errors import UnsupportedModelError

SHAPES = [
    ((), ()),
    ((3,), ()),
    ((2, 3), (3,)),
    ((4, 1), (1, 5)),
    ((2, 1, 3), (4, 1)),
    ((0, 3), (3,)),
    ((1,), (2, 2, 2)),
]
BINARY = {
    "Add": (tf.add, 1),
    "Sub": (tf.subtract, 1),
    "Mul": (tf.multiply, 1),
    "MulNoNan": (tf.math.multiply_no_nan, 1),
    "SquaredDifference": (tf.math.squared_difference, 2),
    "Maximum": (tf.maximum, 1),
    "Minimum": (tf.minimum, 1),
    "Greater": (tf.greater, 0),
    "GreaterEqual": (tf.greater_equal, 0),
    "Less": (tf.less, 0),
    "LessEqual": (tf.less_equal, 0),
    "Equal": (tf.equal, 0),
    "NotEqual": (tf.not_equal, 0),
}


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_binary_broadcasting(name, shapes):
    function, units = BINARY[name]
    check(lambda x, y: function(x, y), reals(*shapes[0]), reals(*shapes[1], seed=1), units=units)


@pytest.mark.parametrize("name", BINARY)
def test_binary_with_public_operands(name):
    function, units = BINARY[name]
    fixed = reals(3, seed=5)
    check(lambda x: function(x, tf.constant(0.5)), reals(2, 3), units=units)
    check(lambda x: function(tf.constant(0.5), x), reals(2, 3), units=units)
    # An array in the code is the owner's.
    check(lambda x: function(fixed, x), reals(2, 3), units=units)
    check(lambda x: function(x, fixed), reals(2, 3), units=units)


@pytest.mark.parametrize("name", BINARY)
def test_binary_of_whole_numbers(name):
    if name == "MulNoNan":
        pytest.skip("of real numbers alone")
    check(lambda x, y: BINARY[name][0](x, y), wholes(3, 4), wholes(4, seed=1), units=0)
    check(lambda x: BINARY[name][0](x, 3), wholes(3, 4), units=0)


@pytest.mark.parametrize("name", BINARY)
def test_binary_on_shares_and_plaintext_of_two_parties(name):
    function, units = BINARY[name]
    parties = {"x": "alice", "y": "bob"}
    check(lambda x, y: function(x, y), reals(2, 3), reals(3, seed=1), units=units, kind="spdz", parties=parties)
    known = ("x", "y")
    check(
        lambda x, y: function(x, y),
        reals(2, 3),
        reals(3, seed=1),
        units=units,
        kind="spdz",
        parties=parties,
        known=known,
    )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_real_types(dtype):
    def function(x, y):
        return tf.cast(tf.nn.relu(x) * y + tf.cast(0.5, x.dtype), tf.float32), tf.reduce_max(x, 0) > 1

    kind = tf.as_dtype(dtype).as_numpy_dtype
    x, y = (np.round(reals(3, 4, seed=i) * 4) / 4 for i in (0, 1))
    check(function, x.astype(kind), y.astype(kind), units=1)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64"])
def test_whole_types(dtype):
    def function(x, y):
        return tf.maximum(x, y) + x * y, tf.cast(x, tf.float32) / 4, x > y, tf.reduce_sum(tf.cast(x, tf.int32), 0)

    x, y = (wholes(3, 4, low=0, high=9, seed=i, dtype=dtype) for i in (0, 1))
    if dtype in ("uint16", "uint32"):
        # TensorFlow has no maximum of these.
        check(lambda x, y: (tf.cast(x, tf.int32) - tf.cast(y, tf.int32), tf.cast(x, tf.float32)), x, y, units=0)
    else:
        check(function, x, y, units=0)


def test_limits_beyond_what_is_encoded_limit_nothing():
    inf = np.inf
    for limit in (inf, 1e12, [inf, 1.0, 1e12]):
        check(lambda x: tf.minimum(x, tf.constant(limit)), reals(2, 3), units=0, public=True)  # noqa: B023
        check(lambda x: tf.maximum(-tf.constant(limit), x), reals(2, 3), units=0, public=True)  # noqa: B023
    with pytest.raises(UnsupportedModelError, match="Maximum of layer"):
        on_shares(graph_of(lambda x: tf.maximum(x, inf), [reals(2)]), {"x": reals(2)})


def test_equal_values_are_equal():
    x = reals(4, 5)
    y = np.where(truths(4, 5), x, x + 1).astype(np.float32)
    for function in (tf.equal, tf.not_equal, tf.greater_equal, tf.less):
        _check_binary(function, x, y)


def _check_binary(function, x, y):
    check(lambda x, y: function(x, y), x, y, units=0)


@pytest.mark.parametrize("shapes", [((2, 3), (3,)), ((), (2,)), ((5,), (5,))], ids=str)
@pytest.mark.parametrize("function", [tf.logical_and, tf.logical_or, tf.math.logical_xor, tf.equal, tf.not_equal])
def test_logic(function, shapes):
    x, y = truths(*shapes[0]), truths(*shapes[1], seed=1)
    check(lambda x, y: function(x, y), x, y, units=0)
    check(lambda x: function(x, y), x, units=0)
    check(lambda x, y: function(x > 0, y > 0), reals(*shapes[0]), reals(*shapes[1], seed=1), units=0)
    check(lambda x, y: function(x > 0, y), reals(*shapes[0]), y, units=0, parties={"y": "bob"}, known=["y"])


def test_not():
    check(lambda x: ~x, truths(5), units=0)
    check(lambda x: tf.logical_not(x > 1), reals(5), units=0, kind="spdz")


# name: (function, inputs, units)
QUOTIENTS = {
    "public": (lambda x: x / 3.0, [reals(4, 3)], 1),
    "public array": (lambda x: x / tf.constant([1.0, 2.0, 7.0]), [reals(4, 3)], 1),
    "private": (lambda x, y: x / y, [reals(4, 3), reals(4, 3, seed=1) + 6], 3),
    "private of either sign": (lambda x, y: x / y, [reals(4, 3), np.float32([-3, 0.5, 2])], 12),
    "number by private": (lambda y: 2.0 / y, [reals(4) + 6], 3),
    "reciprocal": (lambda y: tf.math.reciprocal(y), [reals(4) + 6], 3),
    "div no nan": (lambda x, y: tf.math.divide_no_nan(x, y), [reals(5), np.float32([0, 2, -1, 0, 8])], 4),
    "div no nan by public": (lambda x: tf.math.divide_no_nan(x, tf.constant([0.0, 2, -1, 0, 8])), [reals(5)], 2),
    "xdivy": (lambda x, y: tf.math.xdivy(x, y), [np.float32([0, 1, 2, 0]), np.float32([0, 2, -1, 5])], 4),
    "whole by whole": (lambda x, y: x / y, [wholes(6), wholes(6, low=1, seed=1)], 8),
}


@pytest.mark.parametrize("name", QUOTIENTS)
def test_division(name):
    function, inputs, units = QUOTIENTS[name]
    check(function, *inputs, units=units)


@pytest.mark.parametrize("dtype", ["float32", "int32"])
@pytest.mark.parametrize(
    "function", [tf.math.floordiv, tf.math.floormod, tf.truncatediv, tf.truncatemod], ids=lambda f: f.__name__
)
def test_division_of_whole_numbers_is_exact(function, dtype):
    if dtype == "float32" and "trunc" in function.__name__:
        pytest.skip("of whole numbers alone")
    x, y = np.meshgrid(np.arange(-9, 10), [-4, -3, -2, -1, 1, 2, 3, 6])
    x, y = x.astype(dtype), y.astype(dtype)
    check(lambda x, y: function(x, y), x, y, units=0)
    divisor = y[:, :1].astype(np.int32)
    check(lambda x: function(x, tf.cast(tf.constant(divisor), dtype)), x, units=0)


def test_large_quotients_of_whole_numbers():
    x = np.int32([16_383, -16_383, 16_000, 100_002, -100_002, 100_000])
    for y in (np.int32([1, 1, 1, 7, 7, -7]), np.int32([-1, 3, 2, 1000, 999, 13])):
        check(lambda x, y: (x // y, x % y), x, y, units=0)
        check(lambda x: (x // y, x % y), x, units=0)  # noqa: B023


def test_floor_division_of_fractions():
    x = reals(40, size=50)
    check(lambda x: x // 0.75, x, units=0)
    check(lambda x: x % 0.75, x, units=0)
    check(lambda x, y: x // y, x, np.float32(np.linspace(0.5, 3, 40)), units=0)


POWERS = {
    "square": (lambda x: x**2, [reals(5)], 2),
    "tf.square": (lambda x: tf.square(x), [reals(5)], 2),
    "cube": (lambda x: x**3.0, [reals(5)], 40),
    "zero": (lambda x: x**0.0, [reals(5)], 0),
    "root": (lambda x: x**0.5, [np.abs(reals(5)) + 0.5], 3),
    "inverse root": (lambda x: x**-0.5, [np.abs(reals(5)) + 0.5], 3),
    "inverse square": (lambda x: x**-2.0, [np.abs(reals(5)) + 1], 8),
    "fraction": (lambda x: x**1.7, [np.abs(reals(5)) + 0.5], 60),
    "two exponents": (lambda x: x ** tf.constant([2.0, 3.0]), [reals(4, 2)], 40),
    "many exponents": (lambda x: x ** tf.constant([0.3, 0.7, 1.1, 1.3, 1.9]), [np.abs(reals(4, 5)) + 0.5], 60),
    "private exponent": (lambda x, y: x**y, [np.abs(reals(6)) + 0.5, reals(6, size=1.5, seed=1)], 100),
    "public base": (lambda y: 2.0**y, [reals(6)], 60),
    "bases with 0": (lambda y: tf.constant([0.0, 2.0, 3.0]) ** y, [np.float32([1.5, 2, 0.5])], 20),
    "whole": (lambda x: x**3, [wholes(6)], 0),
    "broadcast": (lambda x: x ** tf.constant([[2.0], [2.0]]), [reals(3)], 2),
}


@pytest.mark.parametrize("name", POWERS)
def test_powers(name):
    function, inputs, units = POWERS[name]
    check(function, *inputs, units=units, public=True)


def test_the_owner_s_exponents():
    exponents = tf.Variable([2.0, 3.0])
    check(lambda x: x**exponents, np.abs(reals(4, 2)) + 0.5, units=20, relative=5e-5)


def test_exponents_in_the_code_are_the_owner_s_and_refused():
    # Private, they would be right for positive bases alone, which nobody sees in x ** [2, 3].
    with pytest.raises(UnsupportedModelError, match="single numbers"):
        check(lambda x: x ** tf.constant([2.0, 3.0]), reals(4, 2))


near = reals(2, 40)
positive = np.abs(near) + 0.25
UNARY = {
    "Abs": (tf.abs, near, 0),
    "Acosh": (tf.acosh, positive + 1, 20),
    "Asinh": (tf.asinh, near, 8),
    "Atanh": (tf.atanh, near / 5, 12),
    "Ceil": (tf.math.ceil, near, 0),
    "Cos": (tf.cos, near, 4),
    "Cosh": (tf.cosh, near, 150),
    "Elu": (tf.nn.elu, near, 3),
    "Erf": (tf.math.erf, near, 3),
    "Erfc": (tf.math.erfc, near, 3),
    "Exp": (tf.exp, near, 200),
    "Expm1": (tf.math.expm1, near, 200),
    "Floor": (tf.floor, near, 0),
    "LeakyRelu": (lambda x: tf.nn.leaky_relu(x, 0.3), near, 2),
    "LeakyRelu default": (tf.nn.leaky_relu, near, 2),
    "Log": (tf.math.log, positive, 3),
    "Log1p": (tf.math.log1p, positive, 3),
    "Neg": (tf.negative, near, 0),
    "Relu": (tf.nn.relu, near, 0),
    "Relu6": (tf.nn.relu6, near * 3, 0),
    "Rint": (tf.math.rint, near, 0),
    "Round": (tf.round, np.float32([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 0.4999, 1.2, -1.7, 0]), 0),
    "Rsqrt": (tf.math.rsqrt, positive, 4),
    "Selu": (tf.nn.selu, near, 4),
    "Sigmoid": (tf.sigmoid, near, 3),
    "Sign": (tf.sign, np.float32([-2, 0, 3, 1e-4, -1e-4]), 0),
    "Sin": (tf.sin, near, 4),
    "Sinh": (tf.sinh, near, 150),
    "Softplus": (tf.nn.softplus, near, 3),
    "Softsign": (tf.nn.softsign, near, 3),
    "Sqrt": (tf.sqrt, positive, 3),
    "Tan": (tf.tan, near / 4, 12),
    "Tanh": (tf.tanh, near, 3),
    "crelu": (tf.nn.crelu, near, 0),
    "gelu": (lambda x: tf.nn.gelu(x), near, 12),
    "gelu tanh": (lambda x: tf.nn.gelu(x, approximate=True), near, 20),
    "hard_sigmoid": (lambda x: tf.nn.relu6(x + 3) / 6, near, 3),
    "l2_loss": (tf.nn.l2_loss, reals(5), 12),
    "log_sigmoid": (tf.math.log_sigmoid, near, 4),
    "silu": (tf.nn.silu, near, 12),
    "zero_fraction": (tf.nn.zero_fraction, np.float32([0, 1, 2, 0, 0, 3, 4, 5]), 2),
    "clip": (lambda x: tf.clip_by_value(x, -1.5, 2.0), near, 0),
    "raw clip": (lambda x: tf.raw_ops.ClipByValue(t=x, clip_value_min=-1.0, clip_value_max=2.0), near, 0),
    "is_finite": (lambda x: tf.where(tf.math.is_finite(x), x, 0.0), near, 0),
    "is_nan": (lambda x: tf.where(tf.math.is_nan(x), 0.0, x), near, 0),
    "lrn": (lambda x: tf.nn.lrn(tf.reshape(x, [1, 4, 4, 5]), 2, 1.0, 0.1, 0.75), near, 12),
    "lrn 0.5": (lambda x: tf.nn.lrn(tf.reshape(x, [1, 4, 4, 5]), 1, 2.0, 0.1, 0.5), near, 12),
    "bucketize": (lambda x: tf.raw_ops.Bucketize(input=x, boundaries=[-1.0, 0.0, 0.5, 3.0]), near, 0),
    "searchsorted": (lambda x: tf.searchsorted([[-1.0, 0.0, 0.0, 2.0]] * 2, x), np.round(near), 0),
    "searchsorted right": (lambda x: tf.searchsorted([[-1.0, 0.0, 0.0, 2.0]] * 2, x, "right"), np.round(near), 0),
    "fake quant": (
        lambda x: tf.quantization.fake_quant_with_min_max_args(x, -3.0, 2.5, num_bits=4),
        near,
        2.5 / 15 / 2**-16,
    ),
}


@pytest.mark.parametrize("name", UNARY)
def test_functions_of_elements(name):
    function, x, units = UNARY[name]
    check(lambda x: function(x), x, units=units)


@pytest.mark.parametrize("side", ["left", "right"])
def test_sorted_values_that_all_parties_know(side):
    check(lambda x: tf.searchsorted([[-1.0, 0.0, 0.0, 2.0]] * 2, x, side), np.round(near), units=0, public=True)


@pytest.mark.parametrize("name", ["Relu", "Sigmoid", "Exp", "Log", "Round", "Floor", "Softsign", "Selu", "Abs"])
def test_functions_of_elements_under_spdz(name):
    function, x, units = UNARY[name]
    check(lambda x: function(x), x[..., :6], units=units + 1, kind="spdz")


@pytest.mark.parametrize("name", ["Relu", "Abs", "Sigmoid", "Exp", "Sqrt", "Tanh"])
def test_functions_of_whole_numbers_and_truth_values(name):
    """They have no fractional bits; the results do."""
    function = UNARY[name][0]
    check(lambda x: function(tf.cast(x, tf.float32)), wholes(8, low=0, high=4), units=20)
    check(lambda x: function(tf.cast(x > 0, tf.float32) + 1.0), reals(8), units=8)
    check(lambda x: function(tf.cast(x > 0, tf.float32) / 4 + 1.0), reals(8), units=8)


@pytest.mark.parametrize("shape", [(), (1,), (0,), (2, 1, 3)], ids=str)
@pytest.mark.parametrize("name", ["Relu", "Sigmoid", "Round", "Sign", "Selu"])
def test_shapes_of_elements(name, shape):
    check(lambda x: UNARY[name][0](x), reals(*shape), units=4)


NORMALISING = {
    "softmax": (lambda x: tf.nn.softmax(x), 3),
    "softmax of an axis": (lambda x: tf.nn.softmax(x, axis=1), 3),
    "softmax of the first axis": (lambda x: tf.nn.softmax(x, axis=0), 3),
    "log_softmax": (lambda x: tf.nn.log_softmax(x), 8),
    "logsumexp": (lambda x: tf.reduce_logsumexp(x, axis=-1), 8),
    "l2_normalize": (lambda x: tf.nn.l2_normalize(x + 5, axis=-1), 6),
    "moments": (lambda x: tf.nn.moments(x, axes=[0, 2]), 12),
    "batch_normalization": (lambda x: tf.nn.batch_normalization(x, 0.5, 2.0, 0.1, 1.5, 1e-3), 6),
    "cross entropy": (
        lambda x: tf.nn.sigmoid_cross_entropy_with_logits(labels=tf.cast(x > 0, tf.float32), logits=x),
        12,
    ),
    "normalised by hand": (
        lambda x: (x - tf.reduce_mean(x, -1, True)) * tf.math.rsqrt(tf.math.reduce_variance(x, -1, True) + 1e-3),
        12,
    ),
}


@pytest.mark.parametrize("name", NORMALISING)
def test_normalising(name):
    function, units = NORMALISING[name]
    check(lambda x: function(x), reals(2, 3, 4), units=units)


CHOICES = {
    "private condition": (lambda c, x, y: tf.where(c, x, y), [truths(2, 3), reals(2, 3), reals(2, 3, seed=1)]),
    "comparison": (lambda x, y: tf.where(x > y, x, y), [reals(2, 3), reals(2, 3, seed=1)]),
    "broadcast": (lambda c, x, y: tf.where(c, x, y), [truths(2, 1), reals(3), reals(2, 3, seed=1)]),
    "broadcast condition": (lambda c: tf.where(c, tf.zeros([4, 3]), 2.5), [truths(3)]),
    "public condition": (lambda x, y: tf.where([True, False, True], x, y), [reals(2, 3), reals(2, 3, seed=1)]),
    "public branch": (lambda c, x: tf.where(c, x, 0.5), [truths(2, 3), reals(2, 3)]),
    "public branches": (lambda c: tf.where(c, 1.5, -0.25), [truths(2, 3)]),
    "truth values": (lambda c, x, y: tf.where(c, x, y), [truths(5), truths(5, seed=1), truths(5, seed=2)]),
    "public truth values": (lambda c: tf.where(c, [True, False], False), [truths(3, 2)]),
    "whole": (lambda c, x: tf.where(c, x, 7), [truths(5), wholes(5)]),
    "select of rows": (
        lambda c, x, y: tf.raw_ops.Select(condition=c, x=x, y=y),
        [truths(4), reals(4, 2), reals(4, 2, seed=1)],
    ),
}


@pytest.mark.parametrize("kind", ["plain", "spdz"])
@pytest.mark.parametrize("name", CHOICES)
def test_choices(name, kind):
    function, inputs = CHOICES[name]
    check(function, *inputs, units=0, kind=kind)


def test_choices_with_a_party_that_knows_the_condition():
    parties = {"c": "alice", "x": "bob"}
    for known in (["c"], ["x"], ["c", "x"]):
        check(lambda c, x: tf.where(c, x, 0.5), truths(6), reals(6), units=0, parties=parties, known=known)
        check(lambda c, x: tf.cast(c, tf.float32) * x, truths(6), reals(6), units=0, parties=parties, known=known)


SUMS = {
    "add_n": (lambda x, y: tf.add_n([x, y, x]), 0),
    "accumulate": (lambda x, y: tf.math.accumulate_n([x, y, y]), 0),
    "cross": (lambda x, y: tf.linalg.cross(x, y), 2),
    "mean squared error": (lambda x, y: tf.reduce_mean(tf.square(x - y)), 12),
    "nearly equal": (lambda x, y: tf.raw_ops.ApproximateEqual(x=x, y=y, tolerance=2.0), 0),
    "xlogy": (lambda x, y: tf.math.xlogy(x, tf.abs(y) + 0.5), 12),
    "xlog1py": (lambda x, y: tf.math.xlog1py(x, tf.abs(y)), 12),
    "xlogy public": (lambda x, y: tf.math.xlogy(x + y, tf.constant([0.5, 2.0, 3.0])), 12),
}


@pytest.mark.parametrize("name", SUMS)
def test_sums_and_products(name):
    function, units = SUMS[name]
    check(lambda x, y: function(x, y), reals(4, 3), reals(4, 3, seed=1), units=units)


CASTS = [
    ("float32", "int32"),
    ("float32", "bool"),
    ("float32", "float64"),
    ("int32", "float32"),
    ("int32", "int64"),
    ("int32", "bool"),
    ("bool", "float32"),
    ("bool", "int32"),
    ("int64", "int32"),
]


@pytest.mark.parametrize("kind", ["plain", "spdz"])
@pytest.mark.parametrize(("before", "after"), CASTS)
def test_casts(before, after, kind):
    values = {
        "float32": np.float32([-2.75, -2, -0.5, 0, 0.25, 0.9999847, 3, 7.5]),
        "int32": wholes(6),
        "bool": truths(6),
    }
    x = values.get(before, wholes(6, dtype="int64"))
    check(lambda x: tf.cast(x, after), x, units=0, kind=kind)


@pytest.mark.parametrize("function", [lambda x: tf.math.real(tf.cast(x, tf.complex64)), tf.strings.as_string])
def test_types_that_cannot_be_had(function):
    with pytest.raises(UnsupportedModelError, match="private form"):
        on_shares(graph_of(lambda x: function(x), [reals(3)]), {"x": reals(3)})


def test_a_public_exponent_of_a_negative_base_is_refused():
    function = lambda y: tf.constant([-2.0, 1.0]) ** y  # noqa: E731
    x = reals(2)
    with pytest.raises(UnsupportedModelError, match="negative base"):
        on_shares(graph_of(function, [x], public=True), named(function, [x]))


def test_a_logarithm_of_a_negative_public_number_is_refused():
    function = lambda x: tf.math.xlogy(x, tf.constant([-2.0, 1.0]))  # noqa: E731
    x = reals(2)
    graph = graph_of(function, [x], public=True)
    with pytest.raises(UnsupportedModelError):
        on_shares(graph, named(function, [x]))
