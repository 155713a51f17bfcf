"""Padding, indexing and moving of elements: as TensorFlow's, on shares, on plaintext and on results of products."""

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
from shareflow.errors import EncodingError, PlacementError, ShapeError

IMAGE, MATRIX, CUBE, LINE = (2, 4, 6, 8), (4, 5), (2, 3, 4), (7,)

# Name: (ours, TensorFlow's, shape of x).
CASES = {
    "pad": (lambda x: nn.pad(x, [(1, 2), (0, 3)]), lambda x: tf.pad(x, [(1, 2), (0, 3)]), MATRIX),
    "pad with -1.5": (
        lambda x: nn.pad(x, [(0, 0), (1, 1), (2, 0), (0, 0)], value=-1.5),
        lambda x: tf.pad(x, [(0, 0), (1, 1), (2, 0), (0, 0)], constant_values=-1.5),
        IMAGE,
    ),
    "pad nothing": (lambda x: nn.pad(x, [(0, 0), (0, 0)], value=3), lambda x: x, MATRIX),
    "reflect": (
        lambda x: nn.pad(x, [(0, 0), (3, 1), (5, 2), (0, 0)], "reflect"),
        lambda x: tf.pad(x, [(0, 0), (3, 1), (5, 2), (0, 0)], "REFLECT"),
        IMAGE,
    ),
    "symmetric": (
        lambda x: nn.pad(x, [(4, 0), (5, 5)], "SYMMETRIC"),
        lambda x: tf.pad(x, [(4, 0), (5, 5)], "SYMMETRIC"),
        MATRIX,
    ),
    "tile": (lambda x: nn.tile(x, [2, 1, 3]), lambda x: tf.tile(x, [2, 1, 3]), CUBE),
    "tile 0 times": (lambda x: nn.tile(x, [0, 1]), lambda x: tf.tile(x, [0, 1]), MATRIX),
    "repeat": (lambda x: nn.repeat(x, 3, 1), lambda x: tf.repeat(x, 3, 1), MATRIX),
    "repeat each": (lambda x: nn.repeat(x, [2, 0, 1, 3], -2), lambda x: tf.repeat(x, [2, 0, 1, 3], 0), MATRIX),
    "repeat all": (lambda x: nn.repeat(x, 2), lambda x: tf.repeat(tf.reshape(x, [-1]), 2), MATRIX),
    "reverse": (lambda x: nn.reverse(x, (0, -1)), lambda x: tf.reverse(x, [0, 2]), CUBE),
    "roll": (lambda x: nn.roll(x, -2, 1), lambda x: tf.roll(x, -2, 1), MATRIX),
    "roll two": (lambda x: nn.roll(x, (9, -1), (0, 2)), lambda x: tf.roll(x, [9, -1], [0, 2]), CUBE),
    "gather": (lambda x: nn.gather(x, [3, 0, 0, 2]), lambda x: tf.gather(x, [3, 0, 0, 2]), MATRIX),
    "gather a scalar": (lambda x: nn.gather(x, 2, -1), lambda x: tf.gather(x, 2, axis=-1), CUBE),
    "gather by a matrix": (
        lambda x: nn.gather(x, [[0, 2], [1, 1]], 1),
        lambda x: tf.gather(x, [[0, 2], [1, 1]], axis=1),
        CUBE,
    ),
    "gather in batches": (
        lambda x: nn.gather(x, [[3, 0, 1], [1, 1, 2]], 2, 1),
        lambda x: tf.gather(x, [[3, 0, 1], [1, 1, 2]], axis=2, batch_dims=1),
        CUBE,
    ),
    "gather nothing": (
        lambda x: nn.gather(x, np.zeros(0, int)), lambda x: tf.gather(x, np.zeros(0, int)), MATRIX
    ),
    "gather_nd": (lambda x: nn.gather_nd(x, [[1, 2], [0, 0]]), lambda x: tf.gather_nd(x, [[1, 2], [0, 0]]), CUBE),
    "gather_nd of elements": (
        lambda x: nn.gather_nd(x, [[[1, 2, 3]], [[0, 0, 1]]]),
        lambda x: tf.gather_nd(x, [[[1, 2, 3]], [[0, 0, 1]]]),
        CUBE,
    ),
    "gather_nd in batches": (
        lambda x: nn.gather_nd(x, [[[2], [0]], [[1], [1]]], 1),
        lambda x: tf.gather_nd(x, [[[2], [0]], [[1], [1]]], batch_dims=1),
        CUBE,
    ),
    "scatter_nd": (
        lambda x: nn.scatter_nd([[4], [1], [4], [0]], x, (6, 5)),
        lambda x: tf.scatter_nd([[4], [1], [4], [0]], x, (6, 5)),
        MATRIX,
    ),
    "tensor_scatter_update, updates private": (
        lambda x: nn.tensor_scatter_update(np.full((6, 5), 0.5), [[4], [1], [2], [0]], x),
        lambda x: tf.tensor_scatter_nd_update(tf.fill([6, 5], tf.cast(0.5, x.dtype)), [[4], [1], [2], [0]], x),
        MATRIX,
    ),
    "tensor_scatter_update, all private": (
        lambda x: nn.tensor_scatter_update(x, [[1, 3], [0, 0]], x[0, :2]),
        lambda x: tf.tensor_scatter_nd_update(x, [[1, 3], [0, 0]], x[0, :2]),
        MATRIX,
    ),
    "tensor_scatter_update, x private": (
        lambda x: nn.tensor_scatter_update(x, [[1, 3], [0, 0]], [1.5, -2.0]),
        lambda x: tf.tensor_scatter_nd_update(x, [[1, 3], [0, 0]], tf.constant([1.5, -2.0], x.dtype)),
        MATRIX,
    ),
    "slice backwards": (lambda x: x[::-1, 4:0:-2], lambda x: x[::-1, 4:0:-2], MATRIX),
    "slice with new axes": (lambda x: x[None, 1, ..., ::3, None], lambda x: x[None, 1, ..., ::3, None], CUBE),
    "slice of nothing": (lambda x: x[3:1:2], lambda x: x[3:1:2], MATRIX),
    "slice beyond": (lambda x: x[-99:99:3, 7::-1], lambda x: x[-99:99:3, 7::-1], MATRIX),
    "strided_slice": (
        lambda x: nn.strided_slice(x, [0, 0, 1, 0], [0, 0, 2, 4], [1, 1, 1, 2], 8, 8, 1, 2, 4),
        lambda x: tf.strided_slice(x, [0, 0, 1, 0], [0, 0, 2, 4], [1, 1, 1, 2], 8, 8, 1, 2, 4),
        CUBE,
    ),
    "split": (lambda x: nn.split(x, 2, 1)[1], lambda x: tf.split(x, 2, 1)[1], (3, 4)),
    "split by lengths": (lambda x: nn.split(x, [1, -1, 2], -1)[1], lambda x: tf.split(x, [1, -1, 2], -1)[1], MATRIX),
    "unstack": (lambda x: nn.unstack(x, 1)[2], lambda x: tf.unstack(x, axis=1)[2], CUBE),
    "cumsum": (lambda x: nn.cumsum(x, 1), lambda x: tf.cumsum(x, 1), CUBE),
    "cumsum, exclusive": (lambda x: nn.cumsum(x, -1, True), lambda x: tf.cumsum(x, -1, True), CUBE),
    "cumsum, reverse": (lambda x: nn.cumsum(x, 0, True, True), lambda x: tf.cumsum(x, 0, True, True), LINE),
    "matrix_diag": (lambda x: nn.matrix_diag(x), tf.linalg.diag, MATRIX),
    "matrix_diag above": (lambda x: nn.matrix_diag(x, 2), lambda x: tf.linalg.diag(x, k=2), LINE),
    "matrix_diag_part": (lambda x: nn.matrix_diag_part(x), tf.linalg.diag_part, CUBE),
    "matrix_diag_part below": (
        lambda x: nn.matrix_diag_part(x, -1), lambda x: tf.linalg.diag_part(x, k=-1), MATRIX
    ),
    "band_part": (lambda x: nn.band_part(x, -1, 0), lambda x: tf.linalg.band_part(x, -1, 0), CUBE),
    "band_part, wide": (lambda x: nn.band_part(x, 1, 99), lambda x: tf.linalg.band_part(x, 1, -1), CUBE),
    "space_to_depth": (lambda x: nn.space_to_depth(x, 2), lambda x: tf.nn.space_to_depth(x, 2), IMAGE),
    "depth_to_space": (lambda x: nn.depth_to_space(x, 2), lambda x: tf.nn.depth_to_space(x, 2), IMAGE),
    "space_to_batch_nd": (
        lambda x: nn.space_to_batch_nd(x, [2, 3], [(1, 1), (0, 0)]),
        lambda x: tf.space_to_batch(x, [2, 3], [(1, 1), (0, 0)]),
        IMAGE,
    ),
    "batch_to_space_nd": (
        lambda x: nn.batch_to_space_nd(x, [2, 1], [(1, 0), (2, 1)]),
        lambda x: tf.batch_to_space(x, [2, 1], [(1, 0), (2, 1)]),
        IMAGE,
    ),
    "extract_patches": (
        lambda x: nn.extract_patches(x, (2, 3), (1, 2), "SAME"),
        lambda x: tf.image.extract_patches(x, [1, 2, 3, 1], [1, 1, 2, 1], [1, 1, 1, 1], "SAME"),
        IMAGE,
    ),
    "extract_patches, dilated": (
        lambda x: nn.extract_patches(x, 2, 1, "VALID", 2),
        lambda x: tf.image.extract_patches(x, [1, 2, 2, 1], [1, 1, 1, 1], [1, 2, 2, 1], "VALID"),
        IMAGE,
    ),
    "broadcast_to": (lambda x: x[:, None].broadcast_to((4, 3, 5)), lambda x: tf.broadcast_to(x[:, None], (4, 3, 5)),
                     MATRIX),
    "where, public": (
        lambda x: nn.where(np.eye(4, 5), x, -x), lambda x: tf.where(np.eye(4, 5) > 0, x, -x), MATRIX
    ),
    "where, public condition wider": (
        lambda x: nn.where([[True], [False]], x, -2.5),
        lambda x: tf.where([[True], [False]], x, tf.cast(-2.5, x.dtype)),
        LINE,
    ),
}  # fmt: skip
EVERY = pytest.mark.parametrize("name", CASES)
# Each adds a public value: the others move the point of nothing.
FEW = settings(derandomize=True, deadline=None, max_examples=30)


def sample(name, rng):
    return on_grid(rng.normal(size=CASES[name][2]) * 8, 16)


@EVERY
@pytest.mark.parametrize("kind", KINDS)
def test_as_tensorflow_exactly(name, kind, rng):
    ours, real, _ = CASES[name]
    x = sample(name, rng)
    got = ours(private(x, where=protocol(kind)))
    np.testing.assert_array_equal(value(got), real(tf.constant(x)).numpy())
    assert got.fractional_bits == 16


@EVERY
def test_on_masked_values_and_on_products(name, rng):
    ours, real, _ = CASES[name]
    x = sample(name, rng)
    wanted = real(tf.constant(x)).numpy()
    np.testing.assert_array_equal(value(ours(private(x).reusable())), wanted)
    one = private(1.0)
    product = private(x) * one
    assert product.fractional_bits == 32
    got = ours(product)
    # Nothing was truncated on the way.
    assert got.fractional_bits == 32
    np.testing.assert_array_equal(value(got), wanted)


@EVERY
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_owner_computes_it_in_plaintext(name, dtype, rng):
    ours, real, _ = CASES[name]
    x = sample(name, rng).astype(dtype)
    with sf.crossings() as crossed:
        got = ours(sf.private_tensor(x, "alice"))
    assert crossed == []
    np.testing.assert_array_equal(got.numpy(), real(tf.constant(x)).numpy())


@EVERY
def test_it_is_local(name, rng):
    ours, _, _ = CASES[name]
    assert sf.function(ours).cost(private(sample(name, rng))) == Cost(())


def test_bits_stay_bits():
    bits = private([-1.0, 2.0, 3.0]) > 0
    assert nn.tile(bits, [2]).fractional_bits == 0
    np.testing.assert_array_equal(value(nn.pad(bits, [(1, 0)], value=1)), [1, 0, 1, 1])
    np.testing.assert_array_equal(value(nn.gather(bits, [1, 0])), [1, 0])


def test_many_masked_values_are_joined_at_once(rng):
    # Every operand has several forms; what goes together is found without trying all of their combinations.
    x = on_grid(rng.normal(size=(40, 3)), 16)
    joined = sf.stack(nn.unstack(private(x).reusable()))
    np.testing.assert_array_equal(value(joined), x)
    assert sf.function(lambda x: sf.stack([*nn.unstack(x.reusable())]) * x).cost(private(x)).rounds == 1


# --- private indices ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", ["private", "public", "owned"])
@pytest.mark.parametrize(
    ("shape", "places", "axis", "batch"),
    [
        ((5,), (), 0, 0),
        ((5, 3), (4,), 0, 0),
        ((3, 5), (2, 2), 1, 0),
        ((2, 3, 4), (3,), -2, 0),
        ((2, 3, 4), (2, 5), 1, 1),
        ((2, 3, 4), (2,), 2, 1),
        ((2, 3, 4), (2, 3), 2, 2),
        ((2, 3, 4, 2), (2, 2), 2, 1),
        ((1, 1), (1,), 0, 0),
    ],
)
def test_private_indices(shape, places, axis, batch, table, rng):
    x = on_grid(rng.normal(size=shape), 16)
    at = rng.integers(0, shape[axis], places)
    source = {"private": private, "public": np.asarray, "owned": lambda x: sf.private_tensor(x, "bob")}[table](x)
    got = nn.gather(source, private(at, scale=0), axis, batch)
    wanted = tf.gather(x, at, axis=axis, batch_dims=batch).numpy()
    np.testing.assert_array_equal(value(got), wanted)
    np.testing.assert_array_equal(value(nn.gather(private(x), at, axis, batch)), wanted)


def test_reading_the_largest():
    x = on_grid(np.random.default_rng(1).normal(size=(4, 6)), 16)
    a = private(x)
    np.testing.assert_array_equal(value(nn.gather(a, nn.argmax(a), 1, 1)), x.max(1))


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_one_hot_along_an_axis(axis, rng):
    places = rng.integers(0, 5, (2, 3))
    got = value(nn.one_hot(private(places, scale=0), 5, axis))
    np.testing.assert_array_equal(got, tf.one_hot(places, 5, axis=axis).numpy())


# --- laws ---------------------------------------------------------------------------------------------------------

SHAPES = st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple)


@FEW
@given(SHAPES, st.data())
def test_any_slice_is_numpys(shape, data):
    x = np.arange(np.prod(shape), dtype=float).reshape(shape)
    step = st.one_of(st.none(), st.integers(1, 3), st.integers(-3, -1))
    bound = st.one_of(st.none(), st.integers(-6, 6))
    key = []
    for extent in shape[: data.draw(st.integers(0, len(shape)))]:
        kind = data.draw(st.sampled_from(["slice", "slice", "number", "new"]))
        if kind == "new":
            key.append(None)
        key.append(data.draw(st.integers(-extent, extent - 1) if kind == "number" else st.builds(slice, bound, bound,
                                                                                                 step)))  # fmt: skip
    if data.draw(st.booleans()):
        key.append(Ellipsis)
    np.testing.assert_array_equal(value(private(x)[tuple(key)]), x[tuple(key)])


@FEW
@given(SHAPES, st.data())
def test_back_and_forth(shape, data):
    x = np.arange(np.prod(shape), dtype=float).reshape(shape) / 4
    a, axis = private(x), data.draw(st.integers(0, len(shape) - 1))
    n = shape[axis]
    np.testing.assert_array_equal(value(nn.reverse(nn.reverse(a, axis), axis)), x)
    shift = data.draw(st.integers(-9, 9))
    np.testing.assert_array_equal(value(nn.roll(nn.roll(a, shift, axis), -shift, axis)), x)
    np.testing.assert_array_equal(value(sf.concat(nn.split(a, n, axis), axis)), x)
    np.testing.assert_array_equal(value(sf.stack(nn.unstack(a, axis), axis)), x)
    both = nn.cumsum(a, axis) + nn.cumsum(a, axis, exclusive=True, reverse=True)
    np.testing.assert_array_equal(value(both), np.broadcast_to(x.sum(axis, keepdims=True), shape))
    order = np.array(data.draw(st.permutations(range(n))))
    np.testing.assert_array_equal(value(nn.gather(nn.gather(a, order, axis), np.argsort(order), axis)), x)
    rows = order[:, None]
    if axis == 0:
        np.testing.assert_array_equal(value(nn.scatter_nd(rows, nn.gather_nd(a, rows), shape)), x)
        np.testing.assert_array_equal(value(nn.tensor_scatter_update(-a, rows, nn.gather(a, order))), x)


@FEW
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3))
def test_blocks_there_and_back(block, rows, channels):
    x = np.arange(2 * (rows * block) ** 2 * channels, dtype=float).reshape(2, rows * block, rows * block, channels)
    a, none = private(x), [(0, 0), (0, 0)]
    np.testing.assert_array_equal(value(nn.depth_to_space(nn.space_to_depth(a, block), block)), x)
    there = nn.space_to_batch_nd(a, [block, block], none)
    np.testing.assert_array_equal(value(nn.batch_to_space_nd(there, [block, block], none)), x)


@FEW
@given(st.integers(1, 6), st.integers(1, 6), st.data())
def test_triangles_and_the_diagonal_make_the_matrix(n, m, data):
    x = np.arange(n * m, dtype=float).reshape(n, m) + 1
    a = private(x)
    np.testing.assert_array_equal(value(nn.band_part(a, -1, 0) + nn.band_part(a, 0, -1) - nn.band_part(a, 0, 0)), x)
    k = data.draw(st.integers(-n + 1, m - 1))
    np.testing.assert_array_equal(value(nn.matrix_diag_part(a, k)), np.diagonal(x, k))
    np.testing.assert_array_equal(value(nn.matrix_diag_part(nn.matrix_diag(a, k), k)), x)


# --- refusals -----------------------------------------------------------------------------------------------------

WRONG = {
    "pad: one pair": (lambda x: nn.pad(x, [(1, 1)]), "one pair of counts for each of 2 axes"),
    "pad: ragged": (lambda x: nn.pad(x, [(1, 1), (1,)]), "one pair of counts for each of 2 axes"),
    "pad: negative": (lambda x: nn.pad(x, [(0, 0), (0, -1)]), "whole numbers of at least 0"),
    "pad: fractions": (lambda x: nn.pad(x, [(0, 0), (0, 0.5)]), "whole numbers of at least 0"),
    "pad: mode": (lambda x: nn.pad(x, [(0, 0), (0, 0)], "WRAP"), "one of CONSTANT, REFLECT, SYMMETRIC; got 'WRAP'"),
    "pad: reflect too far": (lambda x: nn.pad(x, [(4, 0), (0, 0)], "REFLECT"), "an axis of 4 is of 3 elements at most"),
    "pad: symmetric too far": (lambda x: nn.pad(x, [(0, 5), (0, 0)], "SYMMETRIC"), "of 4 elements at most; got 0, 5"),
    "tile: too few": (lambda x: nn.tile(x, [2]), "for each of 2 axes; got [2]"),
    "tile: negative": (lambda x: nn.tile(x, [2, -1]), "at least 0 for each"),
    "tile: fractions": (lambda x: nn.tile(x, [2, 1.5]), "Multiples of a tile are whole numbers"),
    "repeat: counts": (lambda x: nn.repeat(x, [1, 2], 0), "or one for each of 4; got [1, 2]"),
    "repeat: negative": (lambda x: nn.repeat(x, -1, 0), "a count of at least 0"),
    "reverse: axis": (lambda x: nn.reverse(x, 2), "Axes of a tensor with 2 axes"),
    "roll: shifts": (lambda x: nn.roll(x, (1, 2), 0), "one shift for each axis"),
    "roll: fraction": (lambda x: nn.roll(x, 0.5, 0), "Shifts of a roll are whole numbers"),
    "gather: beyond": (lambda x: nn.gather(x, [0, 4]), "from 0 to 3"),
    "gather: negative": (lambda x: nn.gather(x, -1), "along axis 0 of shape (4, 5) are whole numbers from 0 to 3"),
    "gather: fractions": (lambda x: nn.gather(x, [0.5]), "whole numbers from 0 to 3"),
    "gather: axis": (lambda x: nn.gather(x, 0, 2), "Axes of a tensor with 2 axes"),
    "gather: batch": (lambda x: nn.gather(x, [[0], [1]], 1, 1), "first axes that are equal"),
    "gather: batch after axis": (lambda x: nn.gather(x, [0, 0, 0, 0], 0, 1), "before the axis 0; got 1"),
    "gather_nd: too long": (lambda x: nn.gather_nd(x, [[0, 0, 0]]), "name up to 2 axes"),
    "gather_nd: beyond": (lambda x: nn.gather_nd(x, [[0, 5]]), "along axis 1 of shape (4, 5)"),
    "gather_nd: scalar": (lambda x: nn.gather_nd(x, 0), "Index vectors [..., k]"),
    "gather_nd: batch": (lambda x: nn.gather_nd(x, [[0], [1]], 1), "The first 1 axes"),
    "scatter_nd: beyond": (lambda x: nn.scatter_nd([[3], [0], [1], [2]], x, (3, 5)), "from 0 to 2"),
    "scatter_nd: updates": (lambda x: nn.scatter_nd([[3], [0]], x, (4, 5)), "have the shape (2, 5); got (4, 5)"),
    "update: twice": (lambda x: nn.tensor_scatter_update(x, [[0], [0]], x[:2]), "names each place once"),
    "update: updates": (lambda x: nn.tensor_scatter_update(x, [[0]], x[:2]), "have the shape (1, 5)"),
    "slice: lists": (lambda x: nn.strided_slice(x, [0], [1, 2]), "as many begins as ends and strides; got 1, 2, 1"),
    "slice: step": (lambda x: nn.strided_slice(x, [0], [1], [0]), "step of a slice"),
    "slice: step in brackets": (lambda x: x[::0], "step of a slice"),
    "slice: beyond": (lambda x: nn.strided_slice(x, [9], [0], [1], shrink_axis_mask=1), "Index 9 is out of range"),
    "split: unequal": (lambda x: nn.split(x, 3, 0), "An axis of 4 does not split into 3 equal parts"),
    "split: into none": (lambda x: nn.split(x, 0, 0), "does not split into 0"),
    "split: lengths": (lambda x: nn.split(x, [1, 2], 0), "Parts of an axis of 4 add up to it"),
    "split: -1 twice": (lambda x: nn.split(x, [-1, -1], 0), "add up to it"),
    "unstack: axis": (lambda x: nn.unstack(x, -3), "Axes of a tensor with 2 axes"),
    "cumsum: axis": (lambda x: nn.cumsum(x, 2), "Axes of a tensor with 2 axes"),
    "cumsum: axes": (lambda x: nn.cumsum(x, (0, 1)), "works along one axis"),
    "matrix_diag: scalar": (lambda x: nn.matrix_diag(x[0, 0]), "takes vectors [..., n]"),
    "matrix_diag_part: beyond": (lambda x: nn.matrix_diag_part(x, 5), "have no diagonal 5"),
    "matrix_diag_part: vector": (lambda x: nn.matrix_diag_part(x[0]), "have no diagonal 0"),
    "band_part: vector": (lambda x: nn.band_part(x[0], 0, 0), "takes matrices [..., n, m]"),
    "band_part: fraction": (lambda x: nn.band_part(x, 0.5, 0), "Numbers of diagonals are whole numbers"),
    "space_to_depth: matrix": (lambda x: nn.space_to_depth(x, 2), "takes images [N, H, W, C]; got shape (4, 5)"),
    "space_to_depth: block": (lambda x: nn.space_to_depth(x.reshape(1, 4, 5, 1), 2), "into blocks of 2"),
    "depth_to_space: channels": (lambda x: nn.depth_to_space(x.reshape(1, 4, 1, 5), 2), "5 channels do not divide"),
    "depth_to_space: block": (lambda x: nn.depth_to_space(x.reshape(1, 4, 1, 5), 0), "A block is of 1 or more"),
    "space_to_batch: pairs": (lambda x: nn.space_to_batch_nd(x, [2], [(0, 0), (0, 0)]), "with a pair for each"),
    "space_to_batch: blocks": (lambda x: nn.space_to_batch_nd(x, [2], [(0, 0)]), "does not divide into blocks of 2"),
    "batch_to_space: batch": (lambda x: nn.batch_to_space_nd(x, [3], [(0, 0)]), "A batch of 4 does not divide"),
    "batch_to_space: crops": (lambda x: nn.batch_to_space_nd(x, [2], [(6, 5)]), "more than the axis of 10"),
    "batch_to_space: negative": (lambda x: nn.batch_to_space_nd(x, [2], [(-1, 0)]), "at least 0; got"),
    "patches: window": (lambda x: nn.extract_patches(x.reshape(1, 4, 5, 1), 5), "window of 5 (dilated) does not fit"),
    "patches: matrix": (lambda x: nn.extract_patches(x, 2), "takes images [N, H, W, C]"),
    "one_hot: axis": (lambda x: nn.one_hot(x, 3, 3), "Axes of a tensor with 3 axes"),
    "where: shapes": (lambda x: nn.where([True, False], x, 0.0), "where broadcasts as NumPy"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("kind", ["shares", "plaintext"])
def test_what_does_not_fit_is_refused(name, kind):
    call, text = WRONG[name]
    x = np.ones(MATRIX)
    with sf.crossings() as crossed, pytest.raises(ShapeError, match=re.escape(text)):
        call(sf.private_tensor(x, "alice") if kind == "plaintext" else private(x))
    assert len(crossed) <= (kind == "shares")


@pytest.mark.parametrize("padding", [np.nan, np.inf, -np.inf, "0", None])
def test_padding_with_what_is_no_number(padding):
    with pytest.raises(EncodingError, match=r"Padding is with a finite number"):
        nn.pad(private(np.ones(3)), [(1, 1)], value=padding)


def test_public_values_are_refused():
    calls = [
        lambda x: nn.pad(x, [(1, 1)]), lambda x: nn.tile(x, [2]), lambda x: nn.gather(x, [0]), lambda x: nn.split(x, 3),
        lambda x: nn.cumsum(x), lambda x: nn.reverse(x, 0), lambda x: nn.gather_nd(x, [[0]]),
        lambda x: nn.scatter_nd([[0], [1], [2]], x, [3]), lambda x: nn.strided_slice(x, [0], [1]),
        lambda x: nn.matrix_diag(x),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(PlacementError, match=r"takes a private tensor"):
            call(np.ones(3))
    with pytest.raises(PlacementError, match=r"Neither the tensor nor the updates are private"):
        nn.tensor_scatter_update(np.ones(3), [[0]], [1.0])
    with pytest.raises(PlacementError, match=r"take public indices; for private ones use gather"):
        nn.gather_nd(private(np.ones(3)), private([[0]], scale=0))
