"""Sums, means, extremes, places, sorting and running sums on shares, against TensorFlow."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from lowering import check, reals, truths, wholes

x234 = reals(2, 3, 4)
AXES = [None, 0, 1, -1, [0, 2], [1, 2], [-1, 0], [0, 1, 2], []]
REDUCTIONS = {
    "Sum": (tf.reduce_sum, 0),
    "Mean": (tf.reduce_mean, 3),
    "Max": (tf.reduce_max, 0),
    "Min": (tf.reduce_min, 0),
    "Prod": (tf.reduce_prod, None),
    "EuclideanNorm": (tf.math.reduce_euclidean_norm, 4),
    "variance": (tf.math.reduce_variance, 12),
    "std": (tf.math.reduce_std, 12),
}


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("axis", AXES, ids=str)
@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions(name, axis, keep):
    function, units = REDUCTIONS[name]
    if name in ("variance", "std") and axis == []:
        pytest.skip("of one element each")
    x = x234 if units is not None else (1 + reals(2, 3, 4, size=0.5))
    check(lambda x: function(x, axis, keep), x, units=60 if units is None else units, relative=2e-5)


@pytest.mark.parametrize("name", ["Sum", "Mean", "Max", "Min", "Prod", "EuclideanNorm"])
def test_reductions_under_spdz(name):
    function, units = REDUCTIONS[name]
    check(lambda x: function(x, 1), reals(2, 3), units=(4 if units is None else units) + 1, relative=2e-5, kind="spdz")


@pytest.mark.parametrize("name", ["Sum", "Mean", "Max", "Min", "Prod"])
@pytest.mark.parametrize("axis", [0, [0, 1]], ids=str)
def test_reductions_of_whole_numbers_are_exact(name, axis):
    # A mean of whole numbers is rounded toward 0.
    check(lambda x: REDUCTIONS[name][0](x, axis), wholes(3, 4, low=-5, high=6), units=0)


@pytest.mark.parametrize("name", ["Sum", "Max", "Prod"])
@pytest.mark.parametrize("shape", [(), (1,), (3, 1)], ids=str)
def test_reductions_of_small_shapes(name, shape):
    check(lambda x: REDUCTIONS[name][0](x), reals(*shape), units=40)


def test_sums_of_nothing():
    check(lambda x: tf.reduce_sum(x, 0), reals(0, 3), units=0)
    check(lambda x: tf.reduce_sum(x, 1), reals(0, 3), units=0)
    check(lambda x: tf.reduce_prod(x, 0), reals(0, 3), units=0)


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("axis", [None, 0, 1, [0, 1], []], ids=str)
@pytest.mark.parametrize("function", [tf.reduce_any, tf.reduce_all])
def test_any_and_all(function, axis, keep):
    x = np.array([[False, False, True], [False, True, True]])
    for values in (x, ~x, np.zeros_like(x), np.ones_like(x)):
        check(lambda x: function(x, axis, keep), values, units=0)


def test_any_and_all_of_comparisons():
    check(lambda x: tf.reduce_any(x > 3, 1), x234, units=0, kind="spdz")
    check(lambda x: tf.reduce_all(x > -3, [0, 2]), x234, units=0, kind="spdz")
    check(lambda x: tf.reduce_any(x, 0), truths(5, 3), units=0, parties={"x": "alice"}, known=["x"])
    check(lambda x: tf.math.count_nonzero(x > 0, 1), x234, units=0)
    check(lambda x: tf.reduce_sum(tf.cast(x > 0, tf.float32)), x234, units=0)
    check(lambda x: tf.reduce_mean(tf.cast(x > 0, tf.float32)), x234, units=2)


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
@pytest.mark.parametrize("function", [tf.argmax, tf.argmin])
def test_places_along_any_axis(function, axis):
    check(lambda x: function(x, axis), x234, units=0)
    check(lambda x: function(x, axis, tf.int32), wholes(2, 3, 4, low=0, high=3), units=0)


def test_places_under_spdz():
    check(lambda x: tf.argmax(x, 1), x234, units=0, kind="spdz")
    check(lambda x: tf.argmin(x, -1), x234, units=0, kind="spdz")


@pytest.mark.parametrize("k", [1, 2, 5])
@pytest.mark.parametrize("shape", [(5,), (2, 6), (2, 1, 5)], ids=str)
def test_the_largest(k, shape):
    x = np.random.default_rng(0).permutation(int(np.prod(shape))).reshape(shape).astype(np.float32)
    check(lambda x: tf.math.top_k(x, k), x, units=0)


def test_sorting():
    x = np.random.default_rng(1).permutation(14).reshape(2, 7).astype(np.float32)
    check(lambda x: tf.sort(x, -1), x, units=0)
    check(lambda x: tf.sort(x, 0, "DESCENDING"), x, units=0)
    check(lambda x: tf.argsort(x, -1), x, units=0)
    check(lambda x: tf.math.top_k(x, 3), x, units=0, kind="spdz")
    check(lambda x: tf.gather(x, tf.argsort(x[0]), axis=1), x, units=0)


RUNS = list(itertools.product([0, 1, -1], [False, True], [False, True]))


@pytest.mark.parametrize(("axis", "exclusive", "reverse"), RUNS, ids=str)
def test_running_sums_and_products(axis, exclusive, reverse):
    check(lambda x: tf.cumsum(x, axis, exclusive, reverse), x234, units=0)
    near_one = 1 + reals(2, 3, 4, size=0.25)
    check(lambda x: tf.math.cumprod(x, axis, exclusive, reverse), near_one, units=20)


def test_running_sums_of_other_shapes():
    check(lambda x: tf.cumsum(x), reals(1), units=0)
    check(lambda x: tf.cumsum(x), wholes(7), units=0, kind="spdz")
    check(lambda x: tf.math.cumprod(x), wholes(5, low=1, high=4), units=0)
    check(lambda x: tf.math.cumprod(x), reals(0), units=0)
