"""Choosing between values, comparisons and logic on bits: exact."""

import itertools

import numpy as np
import pytest
from benchmarks.functions import limit, on_grid
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
    small,
    value,
)
from nearness import ROWS as ALL

import shareflow as sf
from shareflow import nn
from shareflow.errors import EncodingError, PlacementError, ShapeError

UNIT = 2.0**-16
NAMES = ["relu(x)", "relu6(x)", "clip(x, -1, 1)", "absolute(x)", "sign(x)", "x >= 0", "x < y", "x == y"]
NAMES += ["(x > 0) & (y > 0)", "maximum(x, y)", "minimum(x, y)", "where(x > y, x, y)"]
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


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("relu(x)", "relu6(x)", "clip(x, -1, 1)")])
def test_of_a_product(name):
    # Compared at the scale of the product: no truncation.
    check_product(ALL[name])


@ROWS
@pytest.mark.parametrize("setting", SETTINGS)
def test_other_settings(row, setting):
    check_setting(row, setting)


@ROWS
def test_an_owner_computes_it_in_plaintext(row):
    check_known(row)


@pytest.mark.parametrize("bits", BITS)
def test_one_unit_apart(bits):
    unit, top = 2.0**-bits, limit(bits)
    x = np.array([0.0, unit, -unit, top, -top, 1.0, 1.0, -top + unit, top - unit])
    y = np.array([0.0, 0.0, 0.0, top - unit, -top + unit, 1 + unit, 1 - unit, -top, top])
    a, b = private(x, bits), private(y, bits)
    for got, wanted in [
        (a < b, x < y), (a <= b, x <= y), (a > b, x > y), (a >= b, x >= y), (a == b, x == y), (a != b, x != y),
        (nn.sign(a - b), np.sign(x - y)), (nn.sign(a), np.sign(x)), (nn.absolute(a), np.abs(x)),
        (nn.maximum(a, b), np.maximum(x, y)), (nn.minimum(a, b), np.minimum(x, y)),
    ]:  # fmt: skip
        np.testing.assert_array_equal(value(got), wanted)


@pytest.mark.parametrize(
    ("left", "right"), [((3,), ()), ((2, 1), (1, 3)), ((70,), (1,)), ((2, 3, 4), (4,)), ((0, 3), (3,))]
)
def test_operands_broadcast(left, right, rng):
    x, y = on_grid(rng.normal(size=left), 16), on_grid(rng.normal(size=right), 16)
    a, b = private(x), private(y)
    for ours, real in [(nn.maximum, np.maximum), (nn.minimum, np.minimum)]:
        for first, second in [(a, b), (a, y), (x, b)]:
            np.testing.assert_array_equal(value(ours(first, second)), real(x, y))
    np.testing.assert_array_equal(value((a > 0) & (b > 0)), (x > 0) & (y > 0))
    np.testing.assert_array_equal(value((a > 0) | (b > 0)), (x > 0) | (y > 0))
    np.testing.assert_array_equal(value((a > 0) ^ (b > 0)), (x > 0) ^ (y > 0))
    np.testing.assert_array_equal(value(nn.where(b > 0, a, y)), np.where(y > 0, x, y))


def test_choosing_between_private_owned_and_public_values(rng):
    x, y, c = (on_grid(rng.normal(size=9), 16) for _ in range(3))
    condition, wanted = private(c) > 0, np.where(c > 0, x, y)
    owned = sf.private_tensor(y, "bob")
    for first, second in [(private(x), private(y)), (x, private(y)), (private(x), y), (x, y), (private(x), owned)]:
        np.testing.assert_array_equal(value(nn.where(condition, first, second)), wanted)
    np.testing.assert_array_equal(value(nn.where(condition, 1, 0)), c > 0)
    np.testing.assert_array_equal(value(nn.where(condition, 2.5, -1.0)), np.where(c > 0, 2.5, -1))
    known = sf.private_tensor((c > 0) * 1.0, "alice")
    np.testing.assert_array_equal(value(nn.where(known, private(x), private(y))), wanted)


@pytest.mark.parametrize("form", ["bools", "numbers", "list"])
def test_choosing_by_a_public_condition_is_local_and_keeps_the_scale(form, rng):
    x, y = on_grid(rng.normal(size=(3, 1)), 16), on_grid(rng.normal(size=4), 16)
    c = rng.integers(0, 2, (3, 4))
    condition = {"bools": c > 0, "numbers": c * 1.0, "list": c.tolist()}[form]
    wanted, owned = np.where(c > 0, x, y), sf.private_tensor(y, "bob")
    for first, second in [(private(x), private(y)), (x, private(y)), (private(x), y), (private(x), owned)]:
        got = nn.where(condition, first, second)
        assert got.fractional_bits == 16
        np.testing.assert_array_equal(value(got), wanted)
    product = private(x) * private(1.0)
    assert nn.where(condition, product, 0.5).fractional_bits == 32
    cost = sf.function(lambda a, b: nn.where(condition, a, b)).cost(private(x), private(y))
    assert (cost.rounds, cost.online_bytes, cost.offline_bytes) == (0, 0, 0)


@pytest.mark.parametrize("shape", [(), (4,), (3, 1), (2, 3, 4)], ids=str)
@pytest.mark.parametrize("which", ["public", "low private", "both private"])
def test_limits_of_any_shape(shape, which, rng):
    x = on_grid(rng.normal(size=(3, 4)) * 3, 16)
    low = on_grid(rng.normal(size=shape) - 0.5, 16)
    high = low + on_grid(rng.uniform(0, 2, shape), 16)
    given = {"public": (low, high), "low private": (private(low), high), "both private": (private(low), private(high))}
    np.testing.assert_array_equal(value(nn.clip_by_value(private(x), *given[which])), np.clip(x, low, high))
    np.testing.assert_array_equal(value(nn.clip_by_value(private(x), low, low)), np.broadcast_to(low, (x + low).shape))
    known = nn.clip_by_value(sf.private_tensor(x, "alice"), low, high)
    np.testing.assert_array_equal(known.numpy(), np.clip(x, low, high))


def test_public_limits_take_the_rounds_of_a_relu():
    cost = sf.function(lambda x: nn.clip_by_value(x, [-1.0, 0.0], [1.0, 0.0])).cost(private(np.zeros((64, 2))))
    assert cost.rounds == 4


@pytest.mark.parametrize(("low", "high"), [(1.0, 0.5), ([0.0, 1.0], [1.0, 0.0]), (np.nan, 1.0), (0.0, np.nan)])
def test_limits_that_cross(low, high):
    with pytest.raises(EncodingError, match=r"clip_by_value needs low <= high everywhere"):
        nn.clip_by_value(private([1.0, 2.0]), low, high)


def test_limits_that_do_not_broadcast():
    with pytest.raises(ShapeError, match=r"clip_by_value broadcasts as NumPy.*\(2,\) and \(3,\)"):
        nn.clip_by_value(private([1.0, 2.0]), np.zeros(3), 1.0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_owner_chooses_without_rounding(dtype):
    # y + (x - y) would give 0.
    x, y = np.array([1e-8, 1.0], dtype), np.array([1.0, 1e9], dtype)
    a, b = sf.private_tensor(x, "alice"), sf.private_tensor(y, "alice")
    np.testing.assert_array_equal(nn.minimum(a, b).numpy(), np.minimum(x, y))
    np.testing.assert_array_equal(nn.maximum(a, -b).numpy(), np.maximum(x, -y))
    np.testing.assert_array_equal(nn.where([True, True], a, b).numpy(), x)
    np.testing.assert_array_equal(nn.where(a > 0, a, b).numpy(), x)


# --- laws -----------------------------------------------------------------------------------------------------

FEW = settings(derandomize=True, deadline=None, max_examples=20)
NUMBERS = st.one_of(st.integers(-2, 2), st.integers(-(2**40), 2**40)).map(lambda word: word * UNIT)
ARRAYS = hnp.arrays(np.float64, (7,), elements=NUMBERS)


@FEW
@given(ARRAYS, ARRAYS, ARRAYS)
def test_a_choice_and_its_opposite_add_up(x, y, z):
    a, b, c = private(x), private(y), private(z) > 0
    np.testing.assert_array_equal(value(nn.where(c, a, b) + nn.where(~c, a, b)), x + y)
    np.testing.assert_array_equal(value(nn.maximum(a, b) + nn.minimum(a, b)), x + y)
    np.testing.assert_array_equal(value(nn.maximum(a, b) - nn.minimum(a, b)), value(nn.absolute(a - b)))


@FEW
@given(ARRAYS, ARRAYS)
def test_de_morgan(x, y):
    p, q = private(x) > 0, private(y) >= 0
    np.testing.assert_array_equal(value(~(p & q)), value(~p | ~q))
    np.testing.assert_array_equal(value(~(p | q)), value(~p & ~q))
    np.testing.assert_array_equal(value(p ^ q), value((p | q) & ~(p & q)))
    np.testing.assert_array_equal(value(p ^ q ^ q), value(p))


@FEW
@given(ARRAYS)
def test_sign_times_size_is_the_number(x):
    a = private(x)
    np.testing.assert_array_equal(value(nn.sign(a) * nn.absolute(a)), x)
    np.testing.assert_array_equal(value(nn.relu(a) - nn.relu(-a)), x)
    assert nn.sign(a).fractional_bits == 0


@pytest.mark.parametrize(("p", "q"), list(itertools.product((0, 1), repeat=2)))
@pytest.mark.parametrize("form", ["bits", "ring", "public", "owned", "tensor"])
def test_truth_tables(p, q, form):
    import tensorflow as tf

    left = private([p - 0.5] * 65) > 0
    right = {
        "bits": lambda: private([q - 0.5] * 65) > 0,
        # A bit as a ring element: the result of an addition.
        "ring": lambda: (private([q - 0.5] * 65) > 0) + 0,
        "public": lambda: np.full(65, q),
        "owned": lambda: sf.private_tensor(np.full(65, float(q)), "bob"),
        "tensor": lambda: tf.fill([65], q),
    }[form]()
    for got, wanted in [
        (left & right, p & q), (left | right, p | q), (left ^ right, p ^ q), (right & left, p & q),
        (right | left, p | q), (right ^ left, p ^ q), (~left, 1 - p),
    ]:  # fmt: skip
        np.testing.assert_array_equal(value(got), np.full(65, wanted))


def test_a_public_bit_may_be_a_bool_or_a_number():
    bits = private([-1.0, 1.0, 2.0]) > 0
    np.testing.assert_array_equal(value(bits & True), [0, 1, 1])
    np.testing.assert_array_equal(value(bits | np.array([False, False, True])), [0, 1, 1])
    np.testing.assert_array_equal(value(1 ^ bits), [1, 0, 0])
    np.testing.assert_array_equal(value(bits | 0), [0, 1, 1])


# --- refusals -------------------------------------------------------------------------------------------------

LOGIC = {
    "and": lambda x, y: x & y,
    "or": lambda x, y: x | y,
    "xor": lambda x, y: x ^ y,
    "and, swapped": lambda x, y: y & x,
    "not": lambda x, y: ~y,
}


@pytest.mark.parametrize("name", LOGIC)
def test_logic_takes_bits(name):
    x = private([1.0, 0.0])
    with pytest.raises(EncodingError, match=r"~, &, \| and \^ take results.*16 fractional bits. Compare it first"):
        LOGIC[name](x > 0, x)


@pytest.mark.parametrize("public", [0.5, 2, np.array([0, -1]), [1.0, 0.25]])
@pytest.mark.parametrize("name", ["and", "or", "xor"])
def test_logic_takes_public_bits(name, public):
    with pytest.raises(EncodingError, match=r"values that are 0 or 1; a public one given is neither. Compare it first"):
        LOGIC[name](private([1.0, 0.0]) > 0, public)


@pytest.mark.parametrize("name", ["and", "or", "xor"])
def test_bits_that_do_not_broadcast(name):
    with pytest.raises(ShapeError, match=r"broadcasts as NumPy.*\(3,\) and \(2,\). Reshape"):
        LOGIC[name](private(np.ones(3)) > 0, private(np.ones(2)) > 0)


def test_a_condition_is_a_bit():
    x = private([1.0, 0.0])
    with pytest.raises(EncodingError, match=r"where chooses by results of comparisons.*16 fractional bits. Compare it"):
        nn.where(x, x, x)
    with pytest.raises(EncodingError, match=r"values that are 0 or 1; a public one given is neither. Compare it first"):
        nn.where(np.array([0.5, 0.0]), x, x)
    with pytest.raises(PlacementError, match=r"where takes a private tensor"):
        nn.where(np.array([True, False]), 1.0, 2.0)


def test_shapes_that_do_not_broadcast():
    x, y = private(np.ones(3)), private(np.ones(2))
    for compute in (lambda: nn.maximum(x, y), lambda: nn.minimum(x, y), lambda: nn.where(x > 0, x, y)):
        with pytest.raises(ShapeError, match=r"broadcasts as NumPy.*Reshape"):
            compute()
    with pytest.raises(ShapeError, match=r"where broadcasts as NumPy.*\(2,\) and \(3,\). Reshape"):
        nn.where(y > 0, x, x)


def test_public_values_are_refused():
    for function in (nn.maximum, nn.minimum):
        with pytest.raises(PlacementError, match=r"takes a private tensor"):
            function(np.ones(2), np.ones(2))
    for function in (nn.sign, nn.absolute, nn.relu):
        with pytest.raises(PlacementError, match=r"takes a private tensor"):
            function(np.ones(2))


@pytest.mark.parametrize(("low", "high"), [(2, 2), (3, 1), (np.nan, 1)])
def test_limits_of_clip(low, high):
    with pytest.raises(EncodingError, match=f"clip needs low < high; got {low} and {high}"):
        nn.clip(private([1.0]), low, high)


def test_the_check_of_these_tests_can_fail():
    row = ALL["maximum(x, y)"]
    x, y = small(row)
    wrong = at(row, [x, y])
    object.__setattr__(wrong, "real", lambda x, y: np.maximum(x, y) + UNIT * (x == x[0]))
    with pytest.raises(AssertionError, match=r"units at"):
        check(wrong, protocol("spdz"))
