"""Softmax, norms and statistics against float64."""

import numpy as np
import pytest
import tensorflow as tf
from benchmarks.functions import NORMALISING, on_grid
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from nearness import (
    BITS,
    KINDS,
    SETTINGS,
    check,
    check_known,
    check_product,
    check_setting,
    check_traced,
    private,
    protocol,
    value,
)

import shareflow as sf
from shareflow import nn
from shareflow.errors import EncodingError, PlacementError, ShapeError

UNIT = 2.0**-16
ROWS = pytest.mark.parametrize("row", NORMALISING, ids=lambda row: row.name)


@ROWS
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_stated_error_holds_for_rows_of_all_sizes(row, bits, kind):
    check(row, protocol(kind, bits))


@ROWS
def test_a_function_of_it(row):
    check_traced(row)


@pytest.mark.parametrize("row", NORMALISING[:2], ids=lambda row: row.name)
def test_of_a_product(row):
    check_product(row)


@ROWS
@pytest.mark.parametrize("setting", SETTINGS)
def test_other_settings(row, setting):
    check_setting(row, setting)


@ROWS
def test_an_owner_computes_it_in_plaintext(row):
    check_known(row)


@pytest.mark.parametrize("bits", BITS)
def test_a_softmax_whose_sum_is_rounded_to_below_1(bits):
    # One score far above the others: the sum is 1, or one unit less.
    x = np.full((300, 5), -30.0)
    x[:, 2] = on_grid(np.linspace(-3, 3, 300), bits)
    got = value(nn.softmax(private(x, bits)))
    assert np.max(np.abs(got - np.eye(5)[2])) <= 4 * 2.0**-bits
    got = value(nn.log_softmax(private(x, bits)))
    assert np.max(np.abs(got[:, 2])) <= 4 * 2.0**-bits


@pytest.mark.parametrize("count", [1, 2, 65, 1000])
def test_softmax_of_many(count, rng):
    x = on_grid(rng.normal(size=(3, count)) * [[0.1], [3.0], [0.0]], 16)
    got, wanted = value(nn.softmax(private(x))), tf.nn.softmax(x).numpy()
    assert np.max(np.abs(got - wanted)) <= 4 * UNIT
    assert np.max(np.abs(got.sum(-1) - 1)) <= count * UNIT
    got, wanted = value(nn.log_softmax(private(x))), tf.nn.log_softmax(x).numpy()
    assert np.all(np.abs(got - wanted) <= 4 * UNIT * np.maximum(1, np.abs(wanted)))


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -3])
@pytest.mark.parametrize("function", ["softmax", "log_softmax", "layer_norm", "l2_normalize", "variance"])
def test_every_axis(function, axis, rng):
    x = on_grid(rng.normal(size=(3, 4, 5)), 16)
    ours = getattr(nn, function)
    wanted = ours(sf.private_tensor(x, "alice"), axis=axis).numpy()
    got = value(ours(private(x), axis=axis))
    assert got.shape == wanted.shape
    assert np.all(np.abs(got - wanted) <= 12 * UNIT * np.maximum(1, np.abs(wanted)))


@pytest.mark.parametrize("axes", [None, (0, 1), (-1,)], ids=str)
@pytest.mark.parametrize("keepdims", [False, True])
def test_statistics_over_several_axes(axes, keepdims, rng):
    x = on_grid(rng.normal(size=(3, 4, 2)) * 3 + 5, 16)
    got = value(nn.variance(private(x), axes, keepdims))
    wanted = x.var(axes, keepdims=keepdims)
    assert got.shape == wanted.shape
    assert np.max(np.abs(got - wanted) / np.maximum(1, wanted)) <= 8 * UNIT
    got = value(nn.standard_deviation(private(x), axes, keepdims))
    assert np.max(np.abs(got - x.std(axes, keepdims=keepdims))) <= 8 * UNIT * 4


@pytest.mark.parametrize("bits", BITS)
def test_large_values_are_normalised(bits, rng):
    # Sums of squares up to 2^18.
    x = on_grid(rng.uniform(-120, 120, (50, 16)), bits)
    got = value(nn.layer_norm(private(x, bits)))
    wanted = nn.layer_norm(sf.private_tensor(x, "alice")).numpy()
    assert np.max(np.abs(got - wanted) / np.maximum(1, np.abs(wanted))) <= 4 * 2.0**-bits


@pytest.mark.parametrize("bits", BITS)
def test_a_row_of_equal_values(bits):
    x = np.full((2, 8), 3.0)
    np.testing.assert_array_equal(value(nn.layer_norm(private(x, bits))), 0)
    # What a truncation may round up, once in 2^bits times: a unit with 4 guard bits, and its root.
    assert np.all(value(nn.variance(private(x, bits), -1)) <= 2.0 ** -(bits + 4))
    assert np.all(value(nn.standard_deviation(private(x, bits), -1)) <= 1.01 * 2.0 ** -((bits + 4) / 2))
    np.testing.assert_array_equal(value(nn.l2_normalize(private(x * 0, bits))), 0)
    assert np.max(np.abs(value(nn.softmax(private(x, bits))) - 1 / 8)) <= 4 * 2.0**-bits


def test_scale_and_offset_of_a_norm(rng):
    x, scale, offset = (on_grid(rng.normal(size=s), 16) for s in ((6, 8), 8, 8))
    wanted = nn.layer_norm(sf.private_tensor(x, "alice"), scale, offset).numpy()
    for affine in ((scale, offset), (private(scale), private(offset))):
        got = value(nn.layer_norm(private(x), *affine))
        assert np.max(np.abs(got - wanted)) <= 20 * UNIT
    got = value(nn.layer_norm(private(x), epsilon=0.25))
    assert np.max(np.abs(got - (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 0.25))) <= 8 * UNIT


FEW = settings(derandomize=True, deadline=None, max_examples=20)
SCORES = hnp.arrays(
    np.float64,
    st.tuples(st.integers(1, 3), st.integers(1, 9)),
    elements=st.one_of(st.integers(-(2**17), 2**17), st.integers(-(2**26), 2**26)).map(lambda word: word * UNIT),
)


@FEW
@given(SCORES, st.integers(-(2**20), 2**20))
def test_laws_of_softmax(x, shift):
    a, count = private(x), x.shape[1]
    got = value(nn.softmax(a))
    assert np.max(np.abs(got.sum(-1) - 1)) <= count * UNIT * 4
    assert np.all(got >= -4 * UNIT)
    assert np.max(np.abs(value(nn.softmax(a + shift * UNIT)) - got)) <= 8 * UNIT
    logarithms = value(nn.log_softmax(a))
    assert np.max(np.abs(np.exp(logarithms) - got)) <= 8 * UNIT
    assert np.all(np.abs(value(nn.reduce_max(nn.log_softmax(a), -1))) <= np.log(count) + 4 * UNIT)


@FEW
@given(hnp.arrays(np.float64, (2, 8), elements=st.integers(-(2**19), 2**19).map(lambda word: word * UNIT)))
def test_a_normalised_row_has_length_1(x):
    length = np.sqrt((x * x).sum(-1) + 1e-3)
    got = value(nn.l2_normalize(private(x)))
    assert np.all(
        np.abs((got * got).sum(-1) - (x * x).sum(-1) / length**2) <= 16 * UNIT * np.maximum(1, 1 / length) * 3
    )


# --- refusals -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", [row for row in NORMALISING if "variance" not in row.name], ids=lambda row: row.name)
def test_more_than_20_fractional_bits_are_refused(row):
    with pytest.raises(EncodingError, match=r"at most 20 fractional bits.*the encoding has 24.*Use a FixedPoint of"):
        row.program(private(np.ones((2, 4)), 24))


@pytest.mark.parametrize("function", [nn.softmax, nn.log_softmax])
def test_axes_of_a_softmax(function):
    with pytest.raises(ShapeError, match=r"Axes of a tensor with 2 axes are -2 .. 1"):
        function(private(np.ones((2, 3))), 2)
    with pytest.raises(ShapeError, match=r"works along one axis; got \(0, 1\)"):
        function(private(np.ones((2, 3))), (0, 1))
    with pytest.raises(ShapeError, match=r"no largest of no elements"):
        function(private(np.ones((2, 0))))
    with pytest.raises(PlacementError, match=r"takes a private tensor"):
        function(np.ones((2, 3)))


def test_the_variance_of_nothing():
    with pytest.raises(ShapeError, match=r"mean of no elements"):
        nn.variance(private(np.ones((2, 0))), -1)
