"""Maxima, places, sorting and one-hot vectors: exact, with ties, along any axis."""

import itertools
import re

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
    at,
    check,
    check_known,
    check_product,
    check_setting,
    check_traced,
    private,
    protocol,
    value,
)
from nearness import ROWS as ALL

import shareflow as sf
from shareflow import nn
from shareflow.errors import EncodingError, PlacementError, ShapeError
from shareflow.nn.reduction import sorting_network

UNIT = 2.0**-16
NAMES = ["reduce_max(x), of 16", "reduce_min(x), of 16", "argmax(x), of 16", "argmin(x), of 16", "sort(x), of 16"]
NAMES += ["top_k(x, 4)[0], of 16", "one_hot(x, 16)"]
ROWS = pytest.mark.parametrize("row", [ALL[name] for name in NAMES], ids=lambda row: row.name)

ALONG = {
    "reduce_max": (nn.reduce_max, np.max),
    "reduce_min": (nn.reduce_min, np.min),
    "argmax": (nn.argmax, np.argmax),
    "argmin": (nn.argmin, np.argmin),
    "sort": (nn.sort, np.sort),
    "sort, descending": (lambda x, axis: nn.sort(x, axis, descending=True), lambda x, axis: -np.sort(-x, axis)),
}


@ROWS
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("kind", KINDS)
def test_exact_with_ties_and_at_the_ends_of_the_encoding(row, bits, kind):
    check(row, protocol(kind, bits))


@ROWS
def test_a_function_of_it(row):
    check_traced(row)


@pytest.mark.parametrize("name", NAMES[:-1])
def test_of_a_product(name):
    check_product(at(ALL[name], [on_grid(np.random.default_rng(0).normal(size=(9, 16)), 16)]))


@ROWS
@pytest.mark.parametrize("setting", SETTINGS)
def test_other_settings(row, setting):
    check_setting(row, setting)


@ROWS
def test_an_owner_computes_it_in_plaintext(row):
    check_known(row)


@pytest.mark.parametrize("name", ALONG)
@pytest.mark.parametrize("shape", [(1,), (2,), (3,), (65,), (1, 1), (5, 1, 7), (3, 4, 5), (2, 0, 3)], ids=str)
def test_every_axis(name, shape, rng):
    ours, real = ALONG[name]
    # Few values: many ties.
    x = rng.integers(-3, 3, shape) * 0.5
    for axis in range(-len(shape), len(shape)):
        if shape[axis]:
            got = value(ours(private(x), axis))
            np.testing.assert_array_equal(got, real(x, axis))


@pytest.mark.parametrize("axes", [None, (0,), (0, 1), (-1, 0), (2, 1), [0, 1, 2]], ids=str)
@pytest.mark.parametrize("keepdims", [False, True])
def test_several_axes(axes, keepdims, rng):
    x = on_grid(rng.normal(size=(3, 4, 5)), 16)
    numpy_axes = tuple(axes) if isinstance(axes, list) else axes
    got = value(nn.reduce_max(private(x), axes, keepdims))
    np.testing.assert_array_equal(got, x.max(numpy_axes, keepdims=keepdims))
    got = value(nn.reduce_min(private(x), axes, keepdims))
    np.testing.assert_array_equal(got, x.min(numpy_axes, keepdims=keepdims))


@pytest.mark.parametrize("count", [*range(1, 18), 31, 33, 64])
def test_any_length(count, rng):
    x = on_grid(rng.normal(size=(count, 2)), 16)
    a = private(x)
    np.testing.assert_array_equal(value(nn.sort(a, 0)), np.sort(x, 0))
    np.testing.assert_array_equal(value(nn.argmax(a, 0)), x.argmax(0))
    np.testing.assert_array_equal(value(nn.reduce_max(a, 0)), x.max(0))


@pytest.mark.parametrize("count", range(1, 11))
def test_the_network_sorts_every_row_of_bits(count):
    # By the zero-one principle it then sorts everything; no place is compared twice in a layer.
    rows = np.array(list(itertools.product((0, 1), repeat=count)))
    for low, high in sorting_network(count):
        assert len({*low, *high}) == len(low) + len(high)
        rows[:, low], rows[:, high] = np.maximum(rows[:, low], rows[:, high]), np.minimum(rows[:, low], rows[:, high])
    assert np.all(np.diff(rows, axis=1) <= 0)


def test_the_first_of_equals_wins():
    x = np.array([[2.0, 2.0, 1.0], [1.0, 2.0, 2.0], [0.0, 0.0, 0.0], [-1.0, -2.0, -1.0]])
    np.testing.assert_array_equal(value(nn.argmax(private(x))), [0, 1, 0, 0])
    np.testing.assert_array_equal(value(nn.argmin(private(-x))), [0, 1, 0, 0])
    assert nn.argmax(private(x)).fractional_bits == 0


@pytest.mark.parametrize("bits", BITS)
def test_neighbours_and_the_farthest_apart(bits):
    top, unit = limit(bits) / 2, 2.0**-bits
    x = np.array([[-top, top], [top, top - unit], [-unit, 0], [0, unit], [-top, -top + unit], [unit, -unit]])
    np.testing.assert_array_equal(value(nn.argmax(private(x, bits))), x.argmax(-1))
    np.testing.assert_array_equal(value(nn.sort(private(x, bits))), np.sort(x))


FEW = settings(derandomize=True, deadline=None, max_examples=20)
MATRICES = hnp.arrays(
    np.float64,
    st.tuples(st.integers(1, 4), st.integers(1, 9)),
    elements=st.one_of(st.integers(-3, 3), st.integers(-(2**30), 2**30)).map(lambda word: word * UNIT),
)


@FEW
@given(MATRICES, st.booleans())
def test_sorting_permutes_and_orders(x, descending):
    got = value(nn.sort(private(x), descending=descending))
    assert np.all(np.diff(got) <= 0 if descending else np.diff(got) >= 0)
    np.testing.assert_array_equal(np.sort(got), np.sort(x))


@FEW
@given(MATRICES, st.data())
def test_the_k_largest_and_their_places(x, data):
    count = x.shape[1]
    k = data.draw(st.integers(1, count))
    values, places = (value(part) for part in nn.top_k(private(x), k))
    np.testing.assert_array_equal(values, -np.sort(-x)[:, :k])
    np.testing.assert_array_equal(np.take_along_axis(x, places.astype(int), 1), values)
    assert all(len(set(line)) == k for line in places.tolist())
    everything, _ = nn.top_k(private(x), count)
    np.testing.assert_array_equal(value(everything), value(nn.sort(private(x), descending=True)))


@FEW
@given(MATRICES)
def test_a_maximum_is_at_its_place(x):
    a = private(x)
    chosen = nn.one_hot(nn.argmax(a), x.shape[1])
    np.testing.assert_array_equal(value(chosen), np.eye(x.shape[1])[x.argmax(-1)])
    np.testing.assert_array_equal(value((chosen * a).sum(-1)), value(nn.reduce_max(a, -1)))
    np.testing.assert_array_equal(value(nn.reduce_min(a, 0)), -value(nn.reduce_max(-a, 0)))


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_the_largest_along_other_axes(axis, k, rng):
    x = on_grid(rng.normal(size=(3, 4)), 16)
    values, places = nn.top_k(private(x), k, axis)
    wanted = np.take(-np.sort(-x, axis), range(k), axis)
    np.testing.assert_array_equal(value(values), wanted)
    np.testing.assert_array_equal(np.take_along_axis(x, value(places).astype(int), axis), wanted)


@pytest.mark.parametrize("scale", [0, 4, 16])
@pytest.mark.parametrize("depth", [1, 2, 3, 16, 17])
@pytest.mark.parametrize("shape", [(), (1,), (65,), (2, 3)], ids=str)
def test_one_hot(depth, shape, scale, rng):
    places = rng.integers(0, depth, shape)
    got = value(nn.one_hot(private(places, scale=scale), depth))
    np.testing.assert_array_equal(got, np.eye(depth)[places])
    np.testing.assert_array_equal(nn.one_hot(sf.private_tensor(places * 1.0, "alice"), depth).numpy(), got)


@pytest.mark.parametrize("depth", [0, -1, 2.5, None, True, "3"])
def test_a_depth_that_is_none(depth):
    with pytest.raises(ShapeError, match=re.escape(f"whole number of at least 1; got {depth!r}")):
        nn.one_hot(private([0.0]), depth)


@pytest.mark.parametrize("k", [0, 4, -1, 1.5, None, True])
def test_a_k_that_is_out_of_range(k):
    with pytest.raises(ShapeError, match=re.escape(f"takes 1 to 3 of an axis of that length; got {k!r}")):
        nn.top_k(private([1.0, 2.0, 3.0]), k)


@pytest.mark.parametrize("name", ALONG)
@pytest.mark.parametrize("axis", [2, -3, 0.5, "0"])
def test_an_axis_that_is_not_there(name, axis):
    with pytest.raises(ShapeError, match=r"Axes of a tensor with 2 axes are -2 .. 1"):
        ALONG[name][0](private(np.ones((2, 3))), axis)


@pytest.mark.parametrize("axis", [None, (0, 1)])
def test_sorting_works_along_one_axis(axis):
    for function in (nn.sort, lambda x, axis: nn.top_k(x, 1, axis)):
        with pytest.raises(ShapeError, match=r"works along one axis; got .*Reshape"):
            function(private(np.ones((2, 3))), axis)


@pytest.mark.parametrize("name", ALONG)
def test_no_elements_have_no_maximum(name):
    with pytest.raises(ShapeError, match=r"no largest of no elements: shape \(2, 0\)"):
        ALONG[name][0](private(np.ones((2, 0))), 1)


def test_public_values_are_refused():
    for function, _ in ALONG.values():
        with pytest.raises(PlacementError, match=r"takes a private tensor"):
            function(np.ones(3), 0)


@pytest.mark.parametrize("bound", [0, -1.0, np.inf, np.nan])
def test_a_bound_that_is_none(bound):
    for function in (nn.argmax, nn.reduce_max, nn.sort):
        with pytest.raises(EncodingError, match=r"A bound is a positive number"):
            function(private([1.0, 2.0]), bound=bound)
