"""Ops that move elements, on shares, against TensorFlow: exactly."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from lowering import check, graph_of, named, on_shares, reals, truths, wholes

from shareflow.errors import UnsupportedModelError


def exact(function, *inputs, **options):
    return check(function, *inputs, units=0, **options)


x234, x45 = reals(2, 3, 4), reals(4, 5)
images = reals(2, 4, 6, 3)

MOVES = {
    "Reshape": (lambda x: tf.reshape(x, [4, -1]), x234),
    "Reshape to a scalar": (lambda x: tf.reshape(x, []), reals(1, 1)),
    "Reshape of nothing": (lambda x: tf.reshape(x, [3, 0]), reals(0, 5)),
    "ExpandDims": (lambda x: tf.expand_dims(x, 1), x234),
    "ExpandDims last": (lambda x: tf.expand_dims(x, -1), reals()),
    "Squeeze": (lambda x: tf.squeeze(x), reals(1, 3, 1)),
    "Squeeze one axis": (lambda x: tf.squeeze(x, [0]), reals(1, 3, 1)),
    "Squeeze from the end": (lambda x: tf.squeeze(x, [-1]), reals(1, 3, 1)),
    "Transpose": (lambda x: tf.transpose(x, [2, 0, 1]), x234),
    "Transpose reversed": (lambda x: tf.transpose(x), x234),
    "Transpose of a scalar": (lambda x: tf.transpose(x), reals()),
    "matrix_transpose": (lambda x: tf.linalg.matrix_transpose(x), x234),
    "ConjugateTranspose": (lambda x: tf.transpose(x, [1, 0, 2], conjugate=True), x234),
    "Unpack": (lambda x: tf.unstack(x, axis=1), x234),
    "Unpack last": (lambda x: tf.unstack(x, axis=-1), x234),
    "Split": (lambda x: tf.split(x, 2, axis=0), x45),
    "Split last": (lambda x: tf.split(x, 5, axis=-1), x45),
    "SplitV": (lambda x: tf.split(x, [1, 3, 1], axis=1), x45),
    "SplitV with a rest": (lambda x: tf.split(x, [1, -1], axis=1), x45),
    "Slice": (lambda x: tf.slice(x, [1, 0, 2], [1, 2, -1]), x234),
    "Slice of nothing": (lambda x: tf.slice(x, [1, 0, 2], [1, 0, 2]), x234),
    "StridedSlice": (lambda x: x[1, :, 1:3], x234),
    "StridedSlice with a step": (lambda x: x[:, ::2, -1], x234),
    "StridedSlice backwards": (lambda x: x[::-1, 2:0:-1], x234),
    "StridedSlice beyond": (lambda x: x[0:99, -99:2], x234),
    "StridedSlice with new axes": (lambda x: x[tf.newaxis, ..., tf.newaxis, 0], x234),
    "StridedSlice with dots": (lambda x: x[..., 1:], x234),
    "StridedSlice of nothing": (lambda x: x[2:1], x234),
    "Tile": (lambda x: tf.tile(x, [2, 1, 3]), x234),
    "Tile to nothing": (lambda x: tf.tile(x, [0, 1, 1]), x234),
    "repeat": (lambda x: tf.repeat(x, [1, 0, 2], axis=1), x234),
    "repeat all": (lambda x: tf.repeat(x, 2), x45),
    "BroadcastTo": (lambda x: tf.broadcast_to(x, [5, 2, 3, 4]), x234),
    "BroadcastTo of one": (lambda x: tf.broadcast_to(x, [2, 3]), reals(1, 1)),
    "Fill": (lambda x: tf.fill([2, 3], x), reals()),
    "ReverseV2": (lambda x: tf.reverse(x, [0, -1]), x234),
    "ReverseV2 of no axis": (lambda x: tf.reverse(x, tf.zeros([0], tf.int32)), x234),
    "Reverse": (lambda x: tf.raw_ops.Reverse(tensor=x, dims=[True, False, True]), x234),
    "Roll": (lambda x: tf.roll(x, 2, 1), x234),
    "Roll several": (lambda x: tf.roll(x, [1, -2, 1], [0, 2, 0]), x234),
    "reverse_sequence": (lambda x: tf.reverse_sequence(x, [1, 3], seq_axis=1), x234),
    "Gather": (lambda x: tf.raw_ops.Gather(params=x, indices=[1, 0, 1]), x234),
    "GatherV2": (lambda x: tf.gather(x, [[2, 0], [1, 1]], axis=1), x234),
    "GatherV2 one": (lambda x: tf.gather(x, 1, axis=-1), x234),
    "GatherV2 in batches": (lambda x: tf.gather(x, [[2, 0], [1, 1]], axis=1, batch_dims=1), x234),
    "GatherV2 in batches, last": (lambda x: tf.gather(x, [[3, 0], [1, 1]], axis=2, batch_dims=1), x234),
    "GatherV2 of none": (lambda x: tf.gather(x, tf.zeros([0], tf.int32)), x234),
    "GatherNd": (lambda x: tf.gather_nd(x, [[0, 2], [1, 0]]), x234),
    "GatherNd elements": (lambda x: tf.gather_nd(x, [[[0, 2, 1]], [[1, 0, 3]]]), x234),
    "GatherNd in batches": (lambda x: tf.gather_nd(x, [[[0]], [[2]]], batch_dims=1), x234),
    "boolean_mask": (lambda x: tf.boolean_mask(x, [True, False, True], axis=1), x234),
    "ScatterNd": (lambda x: tf.scatter_nd([[4], [0], [4]], x, [6, 3]), reals(3, 3)),
    "TensorScatterAdd": (lambda x: tf.tensor_scatter_nd_add(x, [[1], [1]], reals(2, 5, seed=2)), x45),
    "TensorScatterSub": (lambda x: tf.tensor_scatter_nd_sub(x, [[1, 2], [1, 2]], [0.5, 2.0]), x45),
    "TensorScatterUpdate": (lambda x: tf.tensor_scatter_nd_update(x, [[1, 2], [3, 0]], [0.5, 2.0]), x45),
    "SegmentSum": (lambda x: tf.math.segment_sum(x, [0, 0, 2, 3]), x45),
    "UnsortedSegmentSum": (lambda x: tf.math.unsorted_segment_sum(x, [1, -1, 2, 1], 4), x45),
    "UnsortedSegmentSum of matrices": (lambda x: tf.math.unsorted_segment_sum(x, [[1, 0, 1], [2, 2, 0]], 3), x234),
    "DynamicPartition": (lambda x: tf.dynamic_partition(x, [0, 1, 0, 1], 2), x45),
    "DynamicStitch": (lambda x: tf.dynamic_stitch([[2, 0], [1, 3]], [x[:2], x[2:]]), x45),
    "Diag": (lambda x: tf.linalg.tensor_diag(x), reals(2, 3)),
    "DiagPart": (lambda x: tf.linalg.tensor_diag_part(x), reals(3, 3)),
    "MatrixDiag": (lambda x: tf.linalg.diag(x), x45),
    "MatrixDiag of several": (lambda x: tf.linalg.diag(x, k=(-1, 1), padding_value=0.5), reals(3, 4)),
    "MatrixDiag aside": (lambda x: tf.linalg.diag(x, k=2, num_cols=8, padding_value=-1.0), x45),
    "MatrixDiagPart": (lambda x: tf.linalg.diag_part(x), x234),
    "MatrixDiagPart of several": (lambda x: tf.linalg.diag_part(x, k=(-1, 2), padding_value=9.0), x45),
    "MatrixSetDiag": (lambda x: tf.linalg.set_diag(x, tf.ones([2, 3])), x234),
    "MatrixSetDiag of several": (lambda x: tf.linalg.set_diag(x, reals(2, 2, 3), k=(0, 1)), x234),
    "MatrixBandPart": (lambda x: tf.linalg.band_part(x, 1, 0), x45),
    "lower triangle": (lambda x: tf.linalg.band_part(x, -1, 0), x234),
    "trace": (lambda x: tf.linalg.trace(x), reals(3, 3)),
    "SpaceToDepth": (lambda x: tf.nn.space_to_depth(x, 2), images),
    "DepthToSpace": (lambda x: tf.nn.depth_to_space(x, 2), reals(2, 3, 2, 8)),
    "SpaceToBatchND": (lambda x: tf.space_to_batch(x, [2, 3], [[1, 1], [0, 3]]), images),
    "SpaceToBatch": (lambda x: tf.raw_ops.SpaceToBatch(input=x, paddings=[[1, 1], [0, 2]], block_size=2), images),
    "BatchToSpaceND": (lambda x: tf.batch_to_space(x, [2, 3], [[1, 0], [0, 2]]), reals(12, 2, 3, 2)),
    "BatchToSpace": (
        lambda x: tf.raw_ops.BatchToSpace(input=x, crops=[[1, 0], [0, 2]], block_size=2),
        reals(8, 2, 3, 2),
    ),
    "extract_patches": (
        lambda x: tf.image.extract_patches(x, [1, 2, 3, 1], [1, 1, 2, 1], [1, 1, 1, 1], "SAME"),
        images,
    ),
    "ExtractVolumePatches": (
        lambda x: tf.extract_volume_patches(x, [1, 2, 2, 1, 1], [1, 1, 1, 1, 1], "VALID"),
        reals(1, 3, 2, 2, 2),
    ),
    "meshgrid": (lambda x: tf.meshgrid(x, [1.0, 2.0])[0], reals(3)),
    "flip": (lambda x: tf.image.flip_left_right(x), images),
    "rot90": (lambda x: tf.image.rot90(x), images),
    "central_crop": (lambda x: tf.image.central_crop(x, 0.5), images),
    "crop_to_bounding_box": (lambda x: tf.image.crop_to_bounding_box(x, 1, 2, 2, 3), images),
    "pad_to_bounding_box": (lambda x: tf.image.pad_to_bounding_box(x, 1, 2, 8, 9), images),
    "grayscale to rgb": (lambda x: tf.image.grayscale_to_rgb(x[..., :1]), images),
    "one-hot constant": (lambda x: x + tf.one_hot([0, 2, 1, 3], 5), x45),
    "eye": (lambda x: x + tf.eye(4, 5), x45),
    "linspace": (lambda x: x + tf.linspace(0.0, 4.0, 5), x45),
}


@pytest.mark.parametrize("name", MOVES)
def test_moves(name):
    function, x = MOVES[name]
    exact(function, x, public=True)


@pytest.mark.parametrize("name", [n for n in MOVES if n.split(" ")[0] not in ("one-hot", "linspace")][::6])
def test_moves_under_spdz(name):
    function, x = MOVES[name]
    exact(function, x, public=True, kind="spdz")


@pytest.mark.parametrize("dtype", ["bool", "int32"])
@pytest.mark.parametrize(
    "name",
    ["Reshape", "Transpose", "Unpack", "Split", "StridedSlice", "Tile", "ReverseV2", "GatherV2", "MatrixBandPart"],
)
def test_moves_of_other_types(name, dtype):
    """Truth values stay truth values: they are used as such behind."""
    function, x = MOVES[name]
    values = x > 0 if dtype == "bool" else np.round(x).astype(dtype)

    def behind(x):
        moved = tf.nest.flatten(function(x))[0]
        return tf.cast(~moved if dtype == "bool" else moved > 1, tf.float32)

    exact(behind, values)


JOINS = {
    "ConcatV2": lambda x, y: tf.concat([x, y, x], 1),
    "ConcatV2 last": lambda x, y: tf.concat([x, y], -1),
    "Concat": lambda x, y: tf.raw_ops.Concat(concat_dim=0, values=[x, y]),
    "Pack": lambda x, y: tf.stack([x, y], 1),
    "Pack last": lambda x, y: tf.stack([x, y], -1),
    "with zeros": lambda x, y: tf.concat([x, tf.zeros_like(x), y], 0),
    "TensorScatterUpdate": lambda x, y: tf.tensor_scatter_nd_update(x, [[2], [0]], y[:2]),
    "DynamicStitch": lambda x, y: tf.dynamic_stitch([[0, 2, 4], [1, 3, 5]], [x, y]),
    "where": lambda x, y: tf.where([True, False, True, False], x, y),
    "MatrixSetDiag": lambda x, y: tf.linalg.set_diag(x, y[0, :3]),
    "meshgrid": lambda x, y: tf.meshgrid(x[0], y[0, :2]),
}


@pytest.mark.parametrize("dtype", ["float32", "int32", "bool"])
@pytest.mark.parametrize("name", JOINS)
def test_joins(name, dtype):
    x, y = {"float32": reals, "int32": wholes, "bool": truths}[dtype](3, 4), None
    y = np.flip(x)
    function = JOINS[name]
    parties = {"x": "alice", "y": "bob"}
    exact(function, x, y)
    exact(function, x, y, parties=parties, known=["x"], kind="spdz")
    exact(function, x, y, parties=parties, known=["x", "y"])


def test_joins_of_products_keep_what_they_mean():
    """Operands of different scales."""
    check(lambda x, y: tf.concat([x * y, x, tf.cast(x > 0, tf.float32)], 0), reals(2, 3), reals(2, 3, seed=1), units=1)
    check(lambda x, y: tf.stack([x * y / 3, x + y, x / 4], 0), reals(2, 3), reals(2, 3, seed=1), units=1)


PADS = [
    (lambda x: tf.pad(x, [[1, 2], [0, 3]]), x45),
    (lambda x: tf.pad(x, [[1, 2], [0, 3]], constant_values=-1.5), x45),
    (lambda x: tf.pad(x, [[0, 0], [0, 0]], constant_values=-1.5), x45),
    (lambda x: tf.pad(x, [[3, 2], [4, 1]], "REFLECT"), x45),
    (lambda x: tf.pad(x, [[4, 2], [0, 5]], "SYMMETRIC"), x45),
    (lambda x: tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]], "REFLECT"), images),
    (lambda x: tf.pad(x, [[1, 0]]), reals(0)),
    (lambda x: tf.pad(x[1:], [[1, 2], [0, 3]], constant_values=x[0, 0]), x45),
    (lambda x: tf.pad(tf.ones([2, 2]), [[1, 2], [0, 3]], constant_values=x[0, 0]), x45),
]


@pytest.mark.parametrize("number", range(len(PADS)))
def test_padding(number):
    function, x = PADS[number]
    exact(function, x)


def test_padding_under_spdz():
    for number in (0, 1, 3, 4):
        exact(*PADS[number], kind="spdz")


# --- private indices


@pytest.mark.parametrize("kind", ["plain", "spdz"])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_gathering_at_private_places(axis, kind):
    i = wholes(2, 2, low=0, high=3)
    exact(lambda x, i: tf.gather(x, i, axis=axis), x234, i if axis else i % 2, kind=kind)


def test_gathering_at_private_places_from_an_owner_s_table():
    table = tf.Variable(reals(6, 3))
    tokens = wholes(2, 4, low=0, high=6)
    exact(lambda i: tf.nn.embedding_lookup(table, i), tokens, kind="spdz")
    exact(lambda i: tf.nn.embedding_lookup(table, i), tokens, known=["i"], kind="spdz")
    exact(lambda i: tf.gather(tf.constant([[1.0, 2], [3, 4], [5, 6]]), i % 3), tokens)
    exact(lambda i: tf.gather(tf.constant([[1.0, 2], [3, 4], [5, 6]]), i % 3), tokens, public=True)


def test_gathering_in_batches_at_private_places():
    exact(lambda x, i: tf.gather(x, i, axis=1, batch_dims=1), x234, wholes(2, 5, low=0, high=3))
    exact(lambda x, i: tf.gather(x, i, axis=2, batch_dims=1), x234, wholes(2, 5, low=0, high=3))
    exact(lambda x, i: tf.gather(x, i, axis=-1, batch_dims=-1), x234, wholes(2, 3, 2, low=0, high=4))


def test_gathering_vectors_of_private_places():
    i = np.stack([wholes(5, low=0, high=2), wholes(5, low=0, high=3, seed=1)], -1)
    exact(lambda x, i: tf.gather_nd(x, i), x234, i)
    exact(lambda x, i: tf.gather_nd(x, i), x45, i)


ONE_HOTS = [
    dict(depth=4),
    dict(depth=4, axis=0),
    dict(depth=2),
    dict(depth=4, on_value=2.5, off_value=-1.0),
    dict(depth=3, dtype=tf.bool, on_value=True, off_value=False),
    dict(depth=4, dtype=tf.int32),
    dict(depth=1, axis=1),
]


@pytest.mark.parametrize("options", ONE_HOTS, ids=str)
def test_one_hot_of_private_places(options):
    i = np.array([[0, 3, 1], [-1, 2, 5]], np.int32)
    exact(lambda i: tf.one_hot(i, **options), i)


def test_one_hot_of_a_maximum_s_place():
    exact(lambda x: tf.one_hot(tf.argmax(x, -1), 4), x234, kind="spdz")
    exact(lambda x: tf.one_hot(tf.argmax(x, -1), 3), x234)
    exact(lambda x: tf.one_hot(tf.argmax(x, 1), 7, axis=0), x234)


# --- resizing


SIZES = [(4, 6), (8, 12), (2, 3), (7, 5), (1, 1), (13, 6)]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(("corners", "centers"), [(False, False), (True, False), (False, True)])
def test_resizing(size, corners, centers):
    options = dict(align_corners=corners, half_pixel_centers=centers)
    exact(lambda x: tf.raw_ops.ResizeNearestNeighbor(images=x, size=size, **options), images)
    check(lambda x: tf.raw_ops.ResizeBilinear(images=x, size=size, **options), images, units=4)


@pytest.mark.parametrize("method", ["nearest", "bilinear", "bicubic", "area"])
@pytest.mark.parametrize("size", [(8, 12), (3, 4), (5, 6)], ids=str)
def test_tf_image_resize(method, size):
    check(lambda x: tf.image.resize(x, size, method), images, units=6)


@pytest.mark.parametrize("op", ["space_to_depth", "depth_to_space"])
def test_blocks_channels_first(op):
    # TensorFlow computes these on channels-last images alone, so that they are the oracle.
    from shareflow.compiler.graph import Builder, Graph, Output

    x = reals(2, 8, 4, 6)
    build = Builder()
    given = graph_of(lambda x: x, [x]).inputs[0]
    last = x.transpose(0, 2, 3, 1)
    right = np.asarray(getattr(tf.nn, op)(last, 2)).transpose(0, 3, 1, 2)
    kind = "SpaceToDepth" if op == "space_to_depth" else "DepthToSpace"
    first = build.add(given)
    attributes = {"block_size": 2, "data_format": "NCHW"}
    out = build.custom(kind, [Output(first)], right.shape, "float32", attributes)
    (got,) = on_shares(Graph(tuple(build.nodes), {"result": out}), {"x": x})
    np.testing.assert_array_equal(got, right)


# --- what is refused


def refused(function, *inputs, text, **options):
    with pytest.raises(UnsupportedModelError, match=text):
        on_shares(graph_of(function, inputs, **options), named(function, inputs))


def test_places_that_must_be_public():
    i = np.int32(1)
    refused(lambda x, i: tf.reverse_sequence(x, [i, i], seq_axis=1), x234, i, text="goes|go")
    refused(lambda x, i: tf.roll(x, i, 0), x234, i, text="all parties know")
    refused(lambda x, i: tf.scatter_nd(tf.reshape(i, [1, 1]), x[:1], [3, 3, 4]), x234, i, text="all parties know")
    refused(lambda x, i: tf.cumsum(x, i), x234, i, text="all parties know")
    refused(lambda x, i: tf.argmax(x, i), x234, i, text="known|all parties know")


def test_shapes_that_depend_on_private_values():
    i = np.int32(1)
    for function in (lambda x, i: tf.tile(x, [i, 1, 1]), lambda x, i: x[:i], lambda x, i: tf.boolean_mask(x, x > 0)):
        with pytest.raises(UnsupportedModelError, match=r"public|known"):
            on_shares(graph_of(function, [x234, i]), named(function, [x234, i]))


def test_combinations_of_moves_agree():
    """Two moves after another, of all pairs of a few."""
    names = ["Transpose reversed", "Tile", "StridedSlice backwards", "Roll", "ReverseV2", "MatrixBandPart"]
    for first, second in itertools.permutations(names, 2):
        f, g = MOVES[first][0], MOVES[second][0]

        def both(x, f=f, g=g):
            return g(f(x))

        check(lambda x: both(x), x234, units=0)
