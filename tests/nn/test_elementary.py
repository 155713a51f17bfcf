"""Exponential, logarithm, roots, division and powers against float64, over the whole range of each."""

import math

import numpy as np
import pytest
from benchmarks.functions import ELEMENTARY, limit, on_grid
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from nearness import (
    BITS,
    KINDS,
    SETTINGS,
    SHAPES,
    at,
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

import shareflow as sf
from shareflow import nn
from shareflow.errors import EncodingError, PlacementError, ShapeError

ROWS = pytest.mark.parametrize("row", ELEMENTARY, ids=lambda row: row.name)
UNIT = 2.0**-16


@ROWS
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_stated_error_holds_over_the_whole_range(row, bits, kind):
    check(row, protocol(kind, bits))


@pytest.mark.slow
@ROWS
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("seed", range(5))
def test_the_stated_error_holds_at_random_values(row, bits, seed):
    rng = np.random.default_rng(seed)
    given = row.inputs(bits)
    low, high = np.min(given[0]), np.max(given[0])
    if len(given) == 2:
        order = rng.permutation(given[0].size)
        check(at(row, [array[order] for array in given]), protocol("spdz", bits))
        return
    sizes = 2.0 ** rng.uniform(-bits, math.log2(limit(bits)), 100_000)
    x = on_grid(np.concatenate([sizes, -sizes, rng.uniform(max(low, -40), min(high, 40), 50_000)]), bits)
    x = x[(x >= low) & (x <= high) & ((x != 0) | (low <= 0 <= high))]
    smallest = np.min(np.abs(given[0]))
    check(at(row, [x[np.abs(x) >= smallest]]), protocol("spdz", bits))


@pytest.mark.parametrize("row", [row for row in ELEMENTARY if len(row.shapes) == 1], ids=lambda row: row.name)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_any_shape(row, shape):
    check_shape(row, shape)


@pytest.mark.parametrize(
    ("left", "right"), [((), (3,)), ((2, 1), (1, 3)), ((65,), (65,)), ((2, 3, 4), (4,)), ((0, 3), (3,)), ((3,), ())]
)
def test_a_division_broadcasts(left, right, rng):
    x, y = on_grid(rng.uniform(-9, 9, left), 16), on_grid(rng.uniform(1, 9, right), 16)
    got = value(nn.divide(private(x), private(y)))
    assert got.shape == np.broadcast_shapes(left, right)
    assert np.all(np.abs(got - x / y) <= 4 * UNIT * np.maximum(1, np.abs(x / y)))


@ROWS
def test_a_function_of_it(row):
    check_traced(row)


@pytest.mark.parametrize("row", [row for row in ELEMENTARY if "reciprocal" not in row.name], ids=lambda row: row.name)
def test_of_a_product(row):
    check_product(at(row, [array[np.all([np.abs(a) >= 0.05 for a in arrays], axis=0)] for array in arrays])
                  if (arrays := row.inputs(16)) else row)  # fmt: skip


@ROWS
@pytest.mark.parametrize("setting", SETTINGS)
def test_other_settings(row, setting):
    check_setting(row, setting)


@ROWS
def test_an_owner_computes_it_in_plaintext(row):
    check_known(row)


# --- exp ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", BITS)
def test_exp_is_0_far_below_and_right_up_to_its_largest_argument(bits):
    least, most = -(bits + 2) * math.log(2), (61 - 2 * bits) * math.log(2)
    x = on_grid([-limit(bits), -1000.0, least - 0.01, math.floor(most * 2**bits) / 2**bits], bits)
    got = value(nn.exp(private(x, bits)))
    np.testing.assert_array_equal(got[:3], 0)
    assert abs(got[3] / math.exp(x[3]) - 1) <= 3 * 2.0**-bits


@pytest.mark.parametrize(("low", "high"), [(-3.0, 2.0), (-1.0, 0.0), (0.0, 5.0), (-0.1, 0.1), (3.0, 4.5), (-9.0, -2.0)])
@pytest.mark.parametrize("bits", [12, 16])
def test_exp_within_given_limits(low, high, bits):
    x = on_grid(np.concatenate([np.linspace(low, high, 1001), [low, high]]), bits)
    got = value(nn.exp(private(x, bits), low, high))
    assert np.all(np.abs(got - np.exp(x)) <= 3 * 2.0**-bits * np.maximum(1, np.exp(x)))


def test_narrower_limits_cost_less():
    narrow = sf.function(lambda x: nn.exp(x, -2.0, 2.0)).cost(private(np.zeros(64)))
    wide = sf.function(nn.exp).cost(private(np.zeros(64)))
    assert narrow.online_bytes < 0.6 * wide.online_bytes
    assert narrow.rounds == wide.rounds


# --- ranges ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("low", "high"), [(1.0, 2.0), (0.5, 100.0), (1e-3, 1.0), (3.0, 3.5), (0.7, None), (None, 5.0)])
@pytest.mark.parametrize(
    ("function", "real"),
    [(nn.log, np.log), (nn.sqrt, np.sqrt), (nn.rsqrt, lambda x: x**-0.5), (nn.reciprocal, lambda x: 1 / x)],
    ids=["log", "sqrt", "rsqrt", "reciprocal"],
)
def test_functions_within_given_ranges(function, real, low, high):
    x = on_grid(np.linspace(low or 2.0**-9, high or 1000.0, 997), 16)
    x = np.concatenate([x, on_grid([low or 1.0, high or 1.0], 16)])
    x = x[(x >= (low or 0)) & (x <= (high or np.inf))]
    got = value(function(private(x), low, high))
    # A lower end that is rounded to the grid stays within.
    assert np.all(np.abs(got - real(x)) <= 4 * UNIT * np.maximum(1, np.abs(real(x))))


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("more", [1, 4])
def test_values_with_some_more_fractional_bits(bits, more):
    # Dividing by 2^k moves the point: nothing is truncated up to 4 bits.
    x = on_grid(np.concatenate([np.linspace(0.5, 30, 500), [2.0**-bits * 2**more, limit(bits) / 4]]), bits)
    moved = private(x, bits) / 2.0**more
    assert moved.fractional_bits == bits + more
    y = x / 2.0**more
    for function, real in [(nn.log, np.log), (nn.sqrt, np.sqrt), (nn.rsqrt, lambda v: v**-0.5)]:
        got = value(function(moved))
        assert np.all(np.abs(got - real(y)) <= 4 * 2.0**-bits * np.maximum(1, np.abs(real(y)))), function.__name__


@pytest.mark.parametrize("bits", BITS)
def test_the_root_of_0_is_0(bits):
    np.testing.assert_array_equal(value(nn.sqrt(private([0.0, 4.0], bits)))[:1], 0)
    np.testing.assert_array_equal(value(nn.rsqrt(private([0.0], bits))), 0)


@pytest.mark.parametrize("bits", BITS)
def test_powers_of_four_have_their_roots(bits):
    roots = 2.0 ** np.arange(-(bits // 2), (62 - 2 * bits) // 2)
    got = value(nn.sqrt(private(roots**2, bits)))
    assert np.all(np.abs(got - roots) <= 4 * 2.0**-bits * np.maximum(1, roots))


# --- division -------------------------------------------------------------------------------------------------


def test_a_public_dividend_and_an_owned_divisor(rng):
    y = on_grid(rng.uniform(0.5, 9, 65), 16)
    x = on_grid(rng.uniform(-9, 9, 65), 16)
    assert np.max(np.abs(value(nn.divide(3.7, private(y))) - 3.7 / y)) <= 4 * UNIT * 8
    assert np.max(np.abs(value(nn.divide(x, private(y))) - x / y)) <= 4 * UNIT * 18
    assert np.max(np.abs(value(nn.divide(x, private(-y))) + x / y)) <= 4 * UNIT * 18
    known = sf.private_tensor(y, "bob")
    assert np.max(np.abs(value(nn.divide(private(x), known)) - x / y)) <= 20 * UNIT
    np.testing.assert_allclose(nn.divide(x, known).numpy(), x / y)
    np.testing.assert_allclose(nn.divide(sf.private_tensor(x, "bob"), known).numpy(), x / y)
    other = sf.private_tensor(x, "alice")
    with protocol("spdz"):
        assert np.max(np.abs(value(nn.divide(other, private(y))) - x / y)) <= 4 * UNIT * 18
        assert np.max(np.abs(value(nn.divide(other, known)) - x / y)) <= 20 * UNIT


def test_an_owned_divisor_costs_no_comparison():
    known = sf.private_tensor(np.full(64, 3.0), "bob").shared(sf.SPDZ())
    unknown = sf.function(nn.divide).cost(private(np.ones(64)), known)
    owned = sf.function(nn.divide).cost(private(np.ones(64)), sf.private_tensor(np.full(64, 3.0), "bob"))
    # Sharing and masking the factors, and one product truncated and masked between.
    assert owned.rounds == 4 < unknown.rounds


FEW = settings(derandomize=True, deadline=None, max_examples=25)
POSITIVE = hnp.arrays(np.float64, st.integers(1, 70), elements=st.integers(2**10, 2**24).map(lambda w: w * UNIT))
SIGNED = hnp.arrays(np.float64, (9,), elements=st.integers(-(2**22), 2**22).map(lambda w: w * UNIT))
DIVISORS = hnp.arrays(np.float64, (9,), elements=st.integers(2**13, 2**24).map(lambda w: w * UNIT))


@FEW
@given(SIGNED, DIVISORS, st.booleans())
def test_a_quotient_times_the_divisor_is_the_dividend(x, y, negative):
    y = -y if negative else y
    got = value(nn.divide(private(x), private(y)) * private(y))
    # Truncated once more, and then magnified by y.
    assert np.all(np.abs(got - x) <= (5 * np.maximum(1, np.abs(x / y)) + 1) * np.abs(y) * UNIT)


@FEW
@given(POSITIVE)
def test_a_root_squared_is_the_number(x):
    root = value(nn.sqrt(private(x)))
    assert np.all(np.abs(root**2 - x) <= 9 * UNIT * np.maximum(1, np.sqrt(x)) * np.maximum(1, np.sqrt(x)))
    assert np.all(root >= 0)


@FEW
@given(POSITIVE)
def test_reciprocal_roots_and_logarithms_agree(x):
    a = private(x)
    assert np.all(np.abs(value(nn.rsqrt(a)) * value(nn.sqrt(a)) - 1) <= 9 * UNIT * np.maximum(x**-0.5, x**0.5))
    assert np.all(np.abs(value(nn.log(a)) + 2 * value(nn.log(nn.rsqrt(a))))
                  <= UNIT * (4 * np.maximum(1, np.abs(np.log(x))) * 2 + 10 * np.maximum(1, np.sqrt(x))))  # fmt: skip


@FEW
@given(hnp.arrays(np.float64, (11,), elements=st.integers(-(2**18), 2**18).map(lambda w: w * UNIT)))
def test_exp_of_x_and_of_minus_x_are_inverse(x):
    a = private(x)
    got = value(nn.exp(a)) * value(nn.exp(-a))
    assert np.all(np.abs(got - 1) <= 4 * UNIT * (np.exp(np.abs(x)) + 2))


@FEW
@given(POSITIVE)
def test_log_undoes_exp(x):
    x = np.minimum(x, 12.0)
    got = value(nn.log(nn.exp(private(x)).ready()))
    assert np.all(np.abs(got - x) <= (4 * np.maximum(1, x) + 5) * UNIT)


# --- powers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exponent", [0.5, -0.5, 1.5, -1.0, -2.5, 0.1, 0, 1 / 3])
def test_powers_of_positive_numbers(exponent):
    x = on_grid(np.linspace(0.2, 9, 500), 16)
    got = value(nn.power(private(x), exponent))
    wanted = x**exponent
    assert np.all(np.abs(got - wanted) <= (4 * max(1, abs(exponent)) + 5) * UNIT * np.maximum(1, wanted) * 3)


@pytest.mark.parametrize("exponent", [1, 2, 3, 5])
def test_whole_powers_of_any_sign(exponent):
    x = on_grid(np.linspace(-2, 2, 257), 16)
    got = value(nn.power(private(x), exponent))
    assert np.max(np.abs(got - x**exponent)) <= 20 * UNIT * (exponent > 2)


# --- refusals -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("low", "high"), [(3.0, 2.0), (2.0, 2.0), (30.0, None), (None, -20.0)])
def test_a_range_of_exp_that_holds_nothing(low, high):
    with pytest.raises(EncodingError, match=r"exp needs low < high within -12.5 and 20.1; got .*and"):
        nn.exp(private([1.0]), low, high)


@pytest.mark.parametrize(
    ("low", "high"),
    [(3.0, 2.5), (2.0, 2.0), (8.0, 2.0), (-1.0, 2.0), (0, 2.0), (None, -2.0), (None, 0), (2.0**40, None)],
)
@pytest.mark.parametrize("function", [nn.log, nn.sqrt, nn.rsqrt, nn.reciprocal])
def test_a_range_that_holds_nothing(function, low, high):
    with pytest.raises(EncodingError, match=f"low < high, both positive.*got {low} and {high}. Leave out"):
        function(private([1.0]), low, high)


@pytest.mark.parametrize("row", ELEMENTARY, ids=lambda row: row.name)
def test_more_than_20_fractional_bits_are_refused(row):
    with pytest.raises(EncodingError, match=r"at most 20 fractional bits.*the encoding has 24.*Use a FixedPoint of"):
        row.program(*(private([1.0], 24) for _ in row.shapes))


def test_shapes_that_do_not_broadcast():
    with pytest.raises(ShapeError, match=r"divide broadcasts as NumPy.*\(3,\) and \(2,\). Reshape"):
        nn.divide(private(np.ones(3)), private(np.ones(2)))


def test_public_values_are_refused():
    for function in (nn.exp, nn.log, nn.sqrt, nn.rsqrt, nn.reciprocal):
        with pytest.raises(PlacementError, match=r"takes a private tensor"):
            function(np.array([1.0]))


@pytest.mark.parametrize("f", [8, 12, 16, 20])
def test_a_divisor_that_its_owner_knows_is_split_in_plaintext(f):
    rng = np.random.default_rng(f)
    largest = 2.0 ** (61 - 2 * f)
    y = np.exp(rng.uniform(np.log(2.0**-f), np.log(largest), 2000)) * rng.choice([-1, 1], 2000)
    y = np.concatenate([y, 2.0 ** np.arange(-f, 62 - 2 * f), [1000.3, -1]])
    quotients = rng.uniform(-1, 1, y.size) * 2.0 ** rng.integers(0, f - 1, y.size)
    x = np.rint(np.clip(quotients * y, -largest, largest) * 2.0**f) / 2.0**f
    with sf.SPDZ(fixed_point=sf.FixedPoint(f)) as spdz:
        divisor = sf.private_tensor(y, "bob")
        for dividend in (sf.private_tensor(x, "alice"), sf.private_tensor(x, "alice").shared(spdz)):
            got = sf.nn.divide(dividend, divisor).reveal("carol").numpy()
            error = np.abs(got - x / y) / np.maximum(1, np.abs(x / y)) * 2.0**f
            assert error.max() <= 2


def test_a_public_divisor_is_as_with_the_operator():
    x = sf.private_tensor(np.array([1.0, -6.0]), "alice").shared(sf.SPDZ())
    y = np.array([4.0, 3.0])
    assert np.abs(sf.nn.divide(x, y).reveal("carol").numpy() - [0.25, -2]).max() < 1e-4
    with pytest.raises(PlacementError):
        sf.nn.divide(y, y)
