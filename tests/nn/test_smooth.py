"""Smooth activation functions against float64, over all that the encoding holds."""

import math

import numpy as np
import pytest
from benchmarks.functions import SMOOTH, limit, on_grid
from nearness import (
    BITS,
    KINDS,
    SETTINGS,
    SHAPES,
    check,
    check_known,
    check_product,
    check_setting,
    check_shape,
    check_traced,
    private,
    protocol,
    value,
)

from shareflow import nn
from shareflow.errors import EncodingError, PlacementError
from shareflow.nn import smooth

ROWS = pytest.mark.parametrize("row", SMOOTH, ids=lambda row: row.name)
SPLINES = [row for row in SMOOTH if row.program not in (nn.leaky_relu, nn.hard_sigmoid, nn.hard_swish)]
SPLINE_ROWS = pytest.mark.parametrize("row", SPLINES, ids=lambda row: row.name)


@ROWS
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_stated_error_holds_over_the_whole_range(row, bits, kind):
    check(row, protocol(kind, bits))


@pytest.mark.slow
@ROWS
@pytest.mark.parametrize("bits", BITS)
def test_the_stated_error_holds_at_every_value_near_0(row, bits):
    from nearness import at

    words = np.arange(-(2 ** min(bits + 4, 18)), 2 ** min(bits + 4, 18) + 1)
    check(at(row, [words * 2.0 ** -min(bits, 14)]), protocol("spdz", bits))


@SPLINE_ROWS
@pytest.mark.parametrize("bits", BITS)
def test_both_sides_of_every_knot(row, bits, monkeypatch):
    used = []
    evaluate = smooth.evaluate
    monkeypatch.setattr(smooth, "evaluate", lambda spline, x: used.append(spline) or evaluate(spline, x))
    row.program(private(0.0, bits))
    (spline,) = used
    knots = spline.low + np.arange(len(spline.coefficients) + 1) * 2.0**spline.log_width
    assert knots[-1] == spline.high
    x = (np.rint(knots[:, None] * 2.0**bits) + np.arange(-2, 3)).reshape(-1) * 2.0**-bits
    wanted = row.real(x)
    got = value(row.program(private(x, bits)))
    assert np.all(np.abs(got - wanted) <= row.units * 2.0**-bits * np.maximum(1, np.abs(wanted)))


@SPLINE_ROWS
@pytest.mark.parametrize("bits", BITS)
def test_the_spline_is_within_half_a_unit_of_the_function(row, bits, monkeypatch):
    used = []
    monkeypatch.setattr(smooth, "evaluate", lambda spline, x: used.append(spline) or x)
    row.program(private(0.0, bits))
    (spline,) = used
    width = 2.0**spline.log_width
    u = np.linspace(-1, 1, 999)
    for j, coefficients in enumerate(spline.coefficients):
        x = spline.low + j * width + (u + 1) * width / 2
        assert np.max(np.abs(np.polyval(coefficients[::-1], u) - row.real(x))) <= 0.51 * 2.0**-bits
    # And beyond its ends the straight lines are.
    beyond = np.linspace(spline.high, spline.high + 20, 99)
    assert np.max(np.abs(row.real(beyond) - row.real(np.array([spline.high])) - spline.right * (beyond - spline.high)))\
        <= 2.0**-bits  # fmt: skip
    beyond = np.linspace(spline.low - 20, spline.low, 99)
    assert np.max(np.abs(row.real(beyond) - row.real(np.array([spline.low])))) <= 2.0**-bits


@ROWS
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_any_shape(row, shape):
    check_shape(row, shape)


@ROWS
def test_a_function_of_it(row):
    check_traced(row)


@ROWS
def test_of_a_product(row):
    check_product(row)


@ROWS
@pytest.mark.parametrize("setting", SETTINGS)
def test_other_settings(row, setting):
    check_setting(row, setting)


@ROWS
def test_an_owner_computes_it_in_plaintext(row):
    check_known(row)


@pytest.mark.parametrize("alpha", [0.25, 1.0, 1.7, 3.0])
@pytest.mark.parametrize("bits", BITS)
def test_elu_of_any_alpha(alpha, bits):
    x = on_grid(np.concatenate([np.linspace(-25, 5, 3000), [-limit(bits), limit(bits)]]), bits)
    got = value(nn.elu(private(x, bits), alpha))
    wanted = np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))
    # A coefficient's rounding grows with alpha.
    assert np.all(np.abs(got - wanted) <= 2 * max(alpha, 1) * 2.0**-bits * np.maximum(1, np.abs(wanted)))


@pytest.mark.parametrize("slope", [0.0, 0.01, 0.2, 0.5, 1.0])
def test_leaky_relu_of_any_slope(slope):
    x = on_grid(np.concatenate([np.linspace(-9, 9, 999), [-(2.0**21), 2.0**21]]), 16)
    got = value(nn.leaky_relu(private(x), slope))
    wanted = np.where(x > 0, x, slope * x)
    assert np.all(np.abs(got - wanted) <= 2 * 2.0**-16 * np.maximum(1, np.abs(wanted)))


@pytest.mark.parametrize("bits", BITS)
def test_ends_of_the_encoding(bits):
    x = np.array([-limit(bits), limit(bits)])
    unit = 2.0**-bits
    for function, wanted in [
        (nn.sigmoid, [0, 1]),
        (nn.tanh, [-1, 1]),
        (nn.erf, [-1, 1]),
        (nn.softplus, [0, limit(bits)]),
        (nn.gelu, [0, limit(bits)]),
        (nn.silu, [0, limit(bits)]),
        (nn.elu, [-1, limit(bits)]),
    ]:
        got = value(function(private(x, bits)))
        assert np.all(np.abs(got - wanted) <= 2 * unit), function.__name__


def test_laws():
    x = on_grid(np.linspace(-9, 9, 1111), 16)
    unit = 2.0**-16
    a = private(x)
    assert np.max(np.abs(value(nn.sigmoid(a) + nn.sigmoid(-a)) - 1)) <= 4 * unit
    assert np.max(np.abs(value(nn.tanh(a) + nn.tanh(-a)))) <= 4 * unit
    assert np.max(np.abs(value(nn.erf(a) + nn.erf(-a)))) <= 4 * unit
    assert np.max(np.abs(value(nn.softplus(a) - nn.softplus(-a)) - x)) <= 4 * unit * 9
    assert np.max(np.abs(value(nn.gelu(a) - nn.gelu(-a)) - x)) <= 4 * unit * 9
    assert np.max(np.abs(value(nn.tanh(a) - (nn.sigmoid(a * 2) * 2 - 1)))) <= 6 * unit
    assert np.max(np.abs(value(nn.silu(a)) - value(a * nn.sigmoid(a)))) <= 2 * unit * (9 + 9)


@SPLINE_ROWS
def test_more_than_20_fractional_bits_are_refused(row):
    with pytest.raises(EncodingError, match=r"at most 20 fractional bits.*the encoding has 24.*Use a FixedPoint of"):
        row.program(private([1.0], 24))


def test_public_values_are_refused():
    with pytest.raises(PlacementError, match=r"takes a private tensor"):
        nn.sigmoid(np.array([1.0]))


def test_the_check_of_these_tests_can_fail():
    from nearness import at

    row = SMOOTH[0]
    with pytest.raises(AssertionError, match=r"units at"):
        wrong = at(row, [np.array([0.0, 1.0])])
        object.__setattr__(wrong, "real", lambda x: np.tanh(x))
        check(wrong, protocol("spdz"))
    assert math.isclose(float(row.real(np.array(0.0))), 0.5)
