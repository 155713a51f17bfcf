"""Rounding to whole numbers and shifts: exact over all that the encoding holds."""

import numpy as np
import pytest
from benchmarks.functions import grid, limit, on_grid
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
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
from nearness import ROWS as ALL

import shareflow as sf
from shareflow import nn
from shareflow.errors import EncodingError, PlacementError

UNIT = 2.0**-16
NAMES = ["floor(x)", "ceil(x)", "round(x)"]
ROWS = pytest.mark.parametrize("row", [ALL[name] for name in NAMES], ids=lambda row: row.name)


@ROWS
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("kind", KINDS)
def test_exact_over_the_whole_range(row, bits, kind):
    check(row, protocol(kind, bits))


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
@pytest.mark.parametrize("bits", [8, 16])
def test_other_settings(row, setting, bits):
    check_setting(row, setting, bits)


@ROWS
def test_an_owner_computes_it_in_plaintext(row):
    check_known(row)


@ROWS
def test_a_whole_number_has_no_fractional_bits(row):
    assert row.program(private([1.5])).fractional_bits == 0
    # And is rounded again for nothing.
    with sf.crossings() as crossed:
        again = nn.floor(nn.floor(private([1.5, -2.25])))
    assert len([c for c in crossed if c.kind.value == "opening"]) <= 2 * 4
    np.testing.assert_array_equal(value(again), [1, -3])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("amount", [0, 1, 2, 7, 8, 15, 16, 31, 40, 61])
def test_a_shift_is_that_of_the_fixed_point_number(kind, bits, amount):
    x = grid(bits, -limit(bits), limit(bits), 501)
    words = np.rint(x * 2.0**bits).astype(np.int64)
    got = value(nn.right_shift(private(x, where=protocol(kind, bits)), amount))
    np.testing.assert_array_equal(got, (words >> amount) * 2.0**-bits)


@pytest.mark.parametrize("amount", [0, 1, 5, 12])
def test_a_shift_to_the_left_multiplies(amount):
    x = on_grid(np.linspace(-9, 9, 131), 16)
    np.testing.assert_array_equal(value(nn.left_shift(private(x), amount)), x * 2**amount)
    with sf.crossings() as crossed:
        nn.left_shift(private(x), amount)
    assert all(c.kind.value == "input" for c in crossed)


FEW = settings(derandomize=True, deadline=None, max_examples=25)
NUMBERS = st.one_of(
    st.integers(-(2**18), 2**18), st.integers(-(2**40), 2**40), st.integers(-99, 99).map(lambda n: n << 15)
).map(lambda word: word * UNIT)
ARRAYS = hnp.arrays(np.float64, st.integers(1, 70), elements=NUMBERS)


@FEW
@given(ARRAYS)
def test_laws(x):
    a = private(x)
    np.testing.assert_array_equal(value(nn.floor(a) + nn.ceil(-a)), 0)
    down, up, nearest = value(nn.floor(a)), value(nn.ceil(a)), value(nn.round(a))
    assert np.all((down <= x) & (x < down + 1))
    np.testing.assert_array_equal(up - down, x != np.floor(x))
    np.testing.assert_array_equal(nearest, np.floor(x + 0.5))
    assert np.all((nearest == down) | (nearest == up))


@FEW
@given(ARRAYS, st.integers(0, 20), st.integers(0, 20))
def test_shifts_add_up(x, first, second):
    a = private(x)
    np.testing.assert_array_equal(
        value(nn.right_shift(nn.right_shift(a, first), second)), value(nn.right_shift(a, first + second))
    )
    np.testing.assert_array_equal(value(nn.right_shift(nn.left_shift(a, first), first)), x)


@pytest.mark.parametrize("amount", [-1, 62, 100, 1.5, None, True, "3"])
def test_an_amount_that_is_none(amount):
    for function in (nn.left_shift, nn.right_shift):
        with pytest.raises(EncodingError, match=r"A shift is by 0 to 61 bits, public; got"):
            function(private([1.0]), amount)


def test_a_shift_works_on_fixed_point():
    with pytest.raises(EncodingError, match=r"A shift works on fixed point; share the value first"):
        nn.right_shift(sf.private_tensor([1.0], "alice"), 1)


def test_public_values_are_refused():
    for function in (nn.floor, nn.ceil, nn.round, lambda x: nn.right_shift(x, 1)):
        with pytest.raises(PlacementError, match=r"takes a private tensor"):
            function(np.ones(2))
