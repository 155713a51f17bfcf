"""Pooling along one, two and three axes, against TensorFlow and the plain protocol; what overlapping windows share."""

import itertools
import math
import re

import numpy as np
import pytest
import tensorflow as tf
from benchmarks.functions import on_grid
from hypothesis import given, settings
from hypothesis import strategies as st
from nearness import KINDS, private, protocol, value

import shareflow as sf
from shareflow import nn
from shareflow.audit.cost import Cost
from shareflow.errors import PlacementError, ShapeError
from shareflow.nn.sliding_maximum import plan_for

UNIT = 2.0**-16
MAXIMUM = {1: nn.max_pool1d, 2: nn.max_pool2d, 3: nn.max_pool3d}
AVERAGE = {1: nn.avg_pool1d, 2: nn.avg_pool2d, 3: nn.avg_pool3d}
GLOBAL = {1: nn.global_avg_pool1d, 2: nn.global_avg_pool2d, 3: nn.global_avg_pool3d}
FEW = settings(derandomize=True, deadline=None, max_examples=25)

# Shape, window, strides, padding.
CASES = [
    ((2, 9, 3), 2, None, "VALID"),
    ((1, 10, 2), 3, 2, "SAME"),
    ((1, 7, 1), 7, 1, "SAME"),
    ((1, 13, 1), 5, 3, ((2, 1),)),
    ((1, 1, 1), 1, 1, "VALID"),
    ((0, 6, 2), 2, 2, "VALID"),
    ((2, 8, 8, 3), 2, None, "VALID"),
    ((1, 8, 7, 3), 3, 2, "SAME"),
    ((1, 9, 9, 2), (3, 2), (2, 3), "VALID"),
    ((1, 7, 7, 2), 3, 2, ((1, 1), (1, 1))),
    ((1, 6, 6, 1), 5, 1, "SAME"),
    ((1, 4, 5, 2), 1, 2, "VALID"),
    ((1, 10, 10, 1), 5, 5, "VALID"),
    ((1, 7, 7, 1), 5, 5, "SAME"),
    ((1, 5, 4, 6, 2), 2, None, "VALID"),
    ((1, 5, 4, 5, 1), 3, 2, "SAME"),
    ((1, 6, 6, 6, 1), 3, 3, "VALID"),
    ((1, 4, 3, 5, 2), (1, 3, 2), (1, 1, 2), ((0, 0), (1, 1), (0, 1))),
]
EVERY = pytest.mark.parametrize(("shape", "size", "strides", "padding"), CASES, ids=str)


def axes_of_case(shape):
    return len(shape) - 2


def around(padding):
    return padding if isinstance(padding, str) else [(0, 0), *padding, (0, 0)]


def real_maximum(x, size, strides, padding):
    if not isinstance(padding, str):
        x = np.pad(x, around(padding), constant_values=-np.inf)
    axes = x.ndim - 2
    return windows(x, axes, size, strides, padding if isinstance(padding, str) else "VALID", np.max)


def windows(x, axes, size, strides, padding, reduce):
    """Window by window in NumPy: TensorFlow has no pooling of float64 volumes."""
    x = np.asarray(x)
    size = (size,) * axes if isinstance(size, int) else size
    strides = size if strides is None else (strides,) * axes if isinstance(strides, int) else strides
    ranges = []
    for extent, reach, stride in zip(x.shape[1:-1], size, strides, strict=True):
        count = -(-extent // stride) if padding == "SAME" else (extent - reach) // stride + 1
        missing = max((count - 1) * stride + reach - extent, 0) if padding == "SAME" else 0
        starts = [i * stride - missing // 2 for i in range(count)]
        ranges.append([slice(max(start, 0), min(start + reach, extent)) for start in starts])
    shape = (x.shape[0], *map(len, ranges), x.shape[-1])
    found = np.empty(shape)
    for place in itertools.product(*map(range, shape[1:-1])):
        part = x[(slice(None), *(own[i] for own, i in zip(ranges, place, strict=True)))]
        found[(slice(None), *place)] = reduce(part, tuple(range(1, axes + 1)))
    return found


def test_the_oracle_is_tensorflows(rng):
    x = tf.constant(rng.normal(size=(2, 8, 7, 3)))
    for padding in ("SAME", "VALID"):
        np.testing.assert_array_equal(windows(x, 2, 3, 2, padding, np.max), tf.nn.max_pool2d(x, 3, 2, padding))
        np.testing.assert_allclose(
            windows(x, 2, 3, 2, padding, np.mean), tf.nn.avg_pool2d(x, 3, 2, padding), rtol=1e-12
        )
    y = rng.normal(size=(1, 5, 6, 4, 2)).astype(np.float32)
    for padding in ("SAME", "VALID"):
        np.testing.assert_array_equal(windows(y, 3, 3, 2, padding, np.max), tf.nn.max_pool3d(y, 3, 2, padding))
        wanted = tf.nn.avg_pool3d(y, 3, 2, padding)
        np.testing.assert_allclose(windows(y, 3, 3, 2, padding, np.mean), wanted, atol=1e-6)


@EVERY
@pytest.mark.parametrize("kind", KINDS)
def test_maxima_are_exact(shape, size, strides, padding, kind, rng):
    # Below 0, where a padding of 0 would win; and with ties.
    x = on_grid(np.round(rng.normal(size=shape) * 2) / 2 - 9, 16)
    got = MAXIMUM[axes_of_case(shape)](private(x, where=protocol(kind)), size, strides, padding)
    np.testing.assert_array_equal(value(got), real_maximum(x, size, strides, padding))


@EVERY
def test_maxima_of_products_and_masked_values(shape, size, strides, padding, rng):
    x = on_grid(rng.normal(size=shape), 16)
    pool = MAXIMUM[axes_of_case(shape)]
    wanted = real_maximum(x, size, strides, padding)
    np.testing.assert_array_equal(value(pool(private(x) * private(1.0), size, strides, padding)), wanted)
    np.testing.assert_array_equal(value(pool(private(x).reusable(), size, strides, padding)), wanted)


@EVERY
def test_maxima_of_bounded_values(shape, size, strides, padding, rng):
    # Padding takes no part: it cannot break the bound.
    x = on_grid(rng.uniform(-1, 1, size=shape), 16)
    pool = MAXIMUM[axes_of_case(shape)]
    with sf.insecure_checked_bounds():
        got = value(pool(private(x), size, strides, padding, bound=2.0))
    np.testing.assert_array_equal(got, real_maximum(x, size, strides, padding))


@EVERY
@pytest.mark.parametrize("kind", KINDS)
def test_means(shape, size, strides, padding, kind, rng):
    x = on_grid(rng.normal(size=shape), 16)
    axes = axes_of_case(shape)
    got = value(AVERAGE[axes](private(x, where=protocol(kind)), size, strides, padding))
    if isinstance(padding, str):
        wanted = windows(x, axes, size, strides, padding, np.mean)
    else:
        outside = np.pad(x, around(padding), constant_values=np.nan)
        wanted = windows(outside, axes, size, strides, "VALID", np.nanmean)
    assert got.shape == wanted.shape
    # A reciprocal is rounded by half a unit, and a sum of up to 30 values below 5 times that.
    assert not got.size or np.max(np.abs(got - wanted)) <= 80 * UNIT


@EVERY
def test_means_that_count_the_padding(shape, size, strides, padding, rng):
    x = on_grid(rng.normal(size=shape), 16)
    axes = axes_of_case(shape)
    if padding == "SAME":
        return
    got = value(AVERAGE[axes](private(x), size, strides, padding, count_padding=True))
    padded = x if isinstance(padding, str) else np.pad(x, around(padding))
    wanted = windows(padded, axes, size, strides, "VALID", np.mean)
    assert not got.size or np.max(np.abs(got - wanted)) <= 80 * UNIT


@EVERY
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_owner_computes_it_in_plaintext(shape, size, strides, padding, dtype, rng):
    x = rng.normal(size=shape).astype(dtype)
    axes = axes_of_case(shape)
    with sf.crossings() as crossed:
        largest = MAXIMUM[axes](sf.private_tensor(x, "alice"), size, strides, padding)
        mean = AVERAGE[axes](sf.private_tensor(x, "alice"), size, strides, padding)
    assert crossed == []
    np.testing.assert_array_equal(largest.numpy(), real_maximum(x, size, strides, padding))
    if isinstance(padding, str):
        np.testing.assert_allclose(mean.numpy(), windows(x, axes, size, strides, padding, np.mean), atol=1e-6)


def test_means_of_1_2_and_4_elements_are_exact_and_take_no_truncation(rng):
    x = on_grid(rng.normal(size=(1, 5, 7, 2)), 16)
    got = nn.avg_pool2d(private(x), 2, 2, "SAME")
    assert got.fractional_bits == 18
    np.testing.assert_array_equal(value(got), tf.nn.avg_pool2d(x, 2, 2, "SAME"))
    assert sf.function(lambda x: nn.avg_pool2d(x, 2, 2, "SAME") * 3).cost(private(x)) == Cost(())


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("keepdims", [False, True])
def test_global_means(axes, keepdims, rng):
    x = on_grid(rng.normal(size=(*(2, 4, 3, 5)[: axes + 1], 2)), 16)
    wanted = x.mean(tuple(range(1, axes + 1)), keepdims=keepdims)
    got = value(GLOBAL[axes](private(x), keepdims))
    assert got.shape == wanted.shape
    assert np.max(np.abs(got - wanted)) <= 40 * UNIT
    np.testing.assert_allclose(GLOBAL[axes](sf.private_tensor(x, "alice"), keepdims).numpy(), wanted)


@FEW
@given(st.data())
def test_any_window(data):
    axes = data.draw(st.integers(1, 2))
    extents = [data.draw(st.integers(1, 7)) for _ in range(axes)]
    size = tuple(data.draw(st.integers(1, n)) for n in extents)
    strides = tuple(data.draw(st.integers(1, 4)) for _ in extents)
    padding = data.draw(st.sampled_from(["SAME", "VALID"]))
    words = np.random.default_rng(data.draw(st.integers(0, 99))).integers(-(2**40), 2**40, (1, *extents, 2))
    x = words * UNIT
    got = value(MAXIMUM[axes](private(x), size, strides, padding))
    np.testing.assert_array_equal(got, windows(x, axes, size, strides, padding, np.max))


# --- how many comparisons -----------------------------------------------------------------------------------------


def sliding(window, stride, count):
    return tuple((i * stride, i * stride + window) for i in range(count))


@pytest.mark.parametrize(
    ("window", "stride", "each"), [(1, 1, 0), (2, 1, 1), (2, 2, 1), (3, 1, 2), (3, 2, 2), (3, 3, 2), (4, 1, 2),
                                   (5, 1, 3), (7, 1, 3), (8, 1, 3), (13, 1, 4), (5, 5, 4), (7, 2, 4)]
)  # fmt: skip
def test_comparisons_of_a_line(window, stride, each):
    plan = plan_for(sliding(window, stride, 50))
    assert len(plan.levels) == math.ceil(math.log2(window))
    # At the ends a few more, which no other window shares.
    assert each * 50 <= plan.comparisons <= each * 50 + 2 * window


@FEW
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(1, 12)), min_size=1, max_size=9))
def test_a_plan_finds_the_maxima_of_any_ranges(pairs):
    ranges = tuple((start, start + length) for start, length in pairs)
    x = np.random.default_rng(len(pairs)).permutation(24)
    plan, line = plan_for(ranges), np.arange(24)
    assert len(plan.levels) == math.ceil(math.log2(max(b - a for a, b in ranges)))
    line = x
    for level in plan.levels:
        line = np.concatenate([np.maximum(line[list(level.left)], line[list(level.right)]), line[list(level.kept)]])
    assert line[list(plan.places)].tolist() == [x[a:b].max() for a, b in ranges]
    assert plan.comparisons <= sum(b - a - 1 for a, b in ranges)


def cost(shape, *window):
    return sf.function(lambda x: nn.max_pool2d(x, *window)).cost(private(np.zeros(shape)))


def test_overlapping_windows_share_comparisons():
    # 3 x 3 at stride 2 on 9 x 9: 4 rows of 9 columns, two each; then 4 x 4 windows, two each. One tree took 8 x 16.
    assert cost((1, 9, 9, 64), 3, 2).offline_bytes == cost((1, 1, 2 * 104, 64), (1, 2), (1, 2)).offline_bytes
    assert cost((1, 9, 9, 1), 3, 2).rounds == 16


def test_windows_apart_are_one_tree_where_that_takes_fewer_rounds():
    # 25 elements: five levels in one tree, six along one axis after the other, with as many comparisons.
    assert cost((1, 10, 10, 1), 5, 5).rounds == 20
    assert cost((1, 10, 10, 1), 5, 1).rounds == 24


def test_edges_take_no_comparisons():
    # Windows of one element each: only the padding is beside them.
    assert cost((1, 2, 2, 1), 2, 3, ((1, 1), (1, 1))) == Cost(())


# --- windows that are not whole -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("extent", "size", "stride", "sides", "count"),
    # PyTorch's nn.MaxPool1d(size, stride, padding, ceil_mode=True) gives so many.
    [(6, 3, 2, (0, 0), 3), (7, 3, 2, (0, 0), 3), (5, 2, 2, (0, 0), 3), (5, 2, 2, (1, 1), 3), (112, 3, 2, (0, 0), 56),
     (4, 1, 3, (0, 0), 2), (5, 3, 3, (1, 1), 2), (4, 2, 3, (0, 0), 2), (3, 3, 1, (1, 1), 3), (6, 3, 4, (1, 1), 2)],
)  # fmt: skip
def test_rounding_the_number_of_windows_up(extent, size, stride, sides, count, rng):
    padding = nn.ceil_padding((extent,), size, stride, (sides,))
    x = on_grid(rng.normal(size=(1, extent, 2)) - 9, 16)
    got = value(nn.max_pool1d(private(x), size, stride, padding))
    assert got.shape[1] == count
    for i in range(count):
        start = i * stride - sides[0]
        np.testing.assert_array_equal(got[:, i], x[:, max(start, 0) : start + size].max(1))


# --- refusals -----------------------------------------------------------------------------------------------------

WRONG = {
    "rank 1": (lambda x: nn.max_pool1d(x), "has the shape [N, L, C]; got (1, 4, 4, 2)"),
    "rank 3": (lambda x: nn.avg_pool3d(x), "has the shape [N, D, H, W, C]"),
    "global rank 1": (lambda x: nn.global_avg_pool1d(x), "has the shape [N, L, C]"),
    "global rank 3": (lambda x: nn.global_avg_pool3d(x), "has the shape [N, D, H, W, C]"),
    "window": (lambda x: nn.max_pool2d(x, 0), "the window is a whole number of at least 1"),
    "windows": (lambda x: nn.max_pool2d(x, (2, 2, 2)), "or two of them"),
    "strides": (lambda x: nn.avg_pool2d(x, 2, 0), "strides is a whole number of at least 1"),
    "too large": (lambda x: nn.max_pool2d(x, 5), "window of 5 (dilated) does not fit an extent of 4"),
    "padding": (lambda x: nn.max_pool2d(x, 2, 2, "FULL"), "Padding is 'SAME', 'VALID' or"),
    "pairs": (lambda x: nn.max_pool2d(x, 2, 2, ((0, 0),)), "Padding is 'SAME', 'VALID' or"),
    "too much padding": (lambda x: nn.max_pool2d(x, 2, 2, ((2, 0), (0, 0))), "Padding is smaller than the window"),
    "too much, for means": (lambda x: nn.avg_pool2d(x, 2, 2, ((0, 0), (0, 2))), "Padding is smaller than the window"),
    "negative": (lambda x: nn.max_pool2d(x, 2, 2, ((-1, 0), (0, 0))), "does not fit"),
    "ceil": (lambda x: nn.ceil_padding(x.shape[1:3], 7), "does not fit"),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("kind", ["shares", "plaintext"])
def test_what_does_not_fit_is_refused(name, kind):
    call, text = WRONG[name]
    x = np.ones((1, 4, 4, 2))
    with pytest.raises(ShapeError, match=re.escape(text)):
        call(sf.private_tensor(x, "alice") if kind == "plaintext" else private(x))


def test_public_values_are_refused():
    for call in (nn.max_pool2d, nn.avg_pool2d, nn.global_avg_pool2d):
        with pytest.raises(PlacementError, match=r"takes a private tensor"):
            call(np.ones((1, 4, 4, 1)))
