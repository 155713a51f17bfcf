"""Images in another size: against TensorFlow's kernels for all of their options."""

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

UNIT = 2.0**-16
OPTIONS = pytest.mark.parametrize(
    "options", [{}, {"half_pixel_centers": True}, {"align_corners": True}], ids=["legacy", "half pixels", "corners"]
)
SIZES = [
    ((2, 4, 6, 3), (8, 12)), ((1, 3, 5, 2), (7, 4)), ((1, 5, 5, 1), (5, 5)), ((1, 1, 1, 2), (3, 4)),
    ((1, 7, 6, 1), (1, 1)), ((1, 4, 4, 1), (16, 2)), ((1, 2, 3, 1), (5, 9)), ((0, 2, 2, 1), (4, 4)),
]  # fmt: skip
EVERY = pytest.mark.parametrize(("shape", "size"), SIZES, ids=str)


def real(kind, x, size, **options):
    op = {"nearest": tf.raw_ops.ResizeNearestNeighbor, "bilinear": tf.raw_ops.ResizeBilinear}[kind]
    return op(images=tf.constant(x), size=size, **options).numpy()


@EVERY
@OPTIONS
@pytest.mark.parametrize("kind", KINDS)
def test_nearest_is_exact(shape, size, options, kind, rng):
    x = on_grid(rng.normal(size=shape) * 9, 16)
    got = nn.resize_nearest(private(x, where=protocol(kind)), size, **options)
    assert got.fractional_bits == 16
    np.testing.assert_array_equal(value(got), real("nearest", x, size, **options))


@EVERY
@OPTIONS
@pytest.mark.parametrize("kind", KINDS)
def test_bilinear_is_within_what_is_stated(shape, size, options, kind, rng):
    x = on_grid(rng.normal(size=shape) * 9, 16)
    got = value(nn.resize_bilinear(private(x, where=protocol(kind)), size, **options))
    wanted = real("bilinear", x, size, **options)
    assert got.shape == wanted.shape
    # TensorFlow's kernel computes in float32.
    assert not got.size or np.max(np.abs(got - wanted)) <= max(np.max(np.abs(x)), 1) * UNIT + 2e-5


@pytest.mark.parametrize("factor", [2, 4, (2, 4)])
def test_twice_the_size_is_exact_and_takes_no_truncation(factor, rng):
    x = on_grid(rng.normal(size=(1, 5, 4, 2)), 16)
    got = nn.upsample2d(private(x), factor, "bilinear")
    assert got.fractional_bits <= 22
    wanted = tf.image.resize(x, got.shape[1:3], "bilinear").numpy()
    np.testing.assert_allclose(value(got), wanted, atol=1e-6)
    plain = value(nn.upsample2d(private(x, where=protocol("plain")), factor, "bilinear"))
    np.testing.assert_array_equal(value(got), plain)
    for kind in ("nearest", "bilinear"):
        assert sf.function(lambda x, kind=kind: nn.upsample2d(x, factor, kind)).cost(private(x)) == Cost(())


@pytest.mark.parametrize("kind", ["nearest", "bilinear"])
@pytest.mark.parametrize("factor", [1, 2, 3, (3, 2)])
def test_as_keras(kind, factor, rng):
    x = on_grid(rng.normal(size=(2, 3, 4, 2)), 16)
    wanted = tf.keras.layers.UpSampling2D(factor, interpolation=kind)(tf.constant(x, tf.float32)).numpy()
    np.testing.assert_allclose(value(nn.upsample2d(private(x), factor, kind)), wanted, atol=5 * UNIT)


@EVERY
@OPTIONS
def test_an_owner_computes_it_in_plaintext(shape, size, options, rng):
    x = rng.normal(size=shape)
    with sf.crossings() as crossed:
        near = nn.resize_nearest(sf.private_tensor(x, "alice"), size, **options)
        between = nn.resize_bilinear(sf.private_tensor(x, "alice"), size, **options)
    assert crossed == []
    np.testing.assert_array_equal(near.numpy(), real("nearest", x, size, **options))
    np.testing.assert_allclose(between.numpy(), real("bilinear", x, size, **options), atol=2e-6)


@settings(derandomize=True, deadline=None, max_examples=40)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from(["", "half_pixel_centers", "align_corners"]))
def test_the_nearest_of_any_extent_is_tensorflows(extent, wanted, option):
    options = {option: True} if option else {}
    x = np.arange(extent, dtype=float).reshape(1, extent, 1, 1)
    got = nn.resize_nearest(sf.private_tensor(x, "alice"), (wanted, 1), **options)
    np.testing.assert_array_equal(got.numpy(), real("nearest", x, (wanted, 1), **options))
    got = nn.resize_bilinear(sf.private_tensor(x, "alice"), (wanted, 1), **options)
    np.testing.assert_allclose(got.numpy(), real("bilinear", x, (wanted, 1), **options), atol=1e-5)


def test_a_constant_image_stays_what_it_is():
    x = np.full((1, 3, 3, 1), 123.456)
    a = private(x)
    for size in ((7, 5), (2, 9)):
        np.testing.assert_array_equal(value(nn.resize_bilinear(a, size)), np.full((1, *size, 1), value(a)[0, 0, 0, 0]))


def test_crop(rng):
    x = on_grid(rng.normal(size=(2, 5, 6, 1)), 16)
    np.testing.assert_array_equal(value(nn.crop(private(x), 1, 2, 3, 4)), x[:, 1:4, 2:6])


WRONG = {
    "nearest of a matrix": (
        lambda x: nn.resize_nearest(x[0, :, :, 0], (2, 2)),
        "has the shape [N, H, W, C]; got (3, 3)",
    ),
    "bilinear of a matrix": (lambda x: nn.resize_bilinear(x[0, :, :, 0], (2, 2)), "has the shape [N, H, W, C]"),
    "upsample of a matrix": (lambda x: nn.upsample2d(x[0, :, :, 0]), "has the shape [N, H, W, C]"),
    "no pixels": (lambda x: nn.resize_nearest(x[:, :0], (2, 2)), "has the shape [N, H, W, C]; got (1, 0, 3, 1)"),
    "size 0": (lambda x: nn.resize_nearest(x, (0, 2)), "the new size is a whole number of at least 1"),
    "three sizes": (lambda x: nn.resize_bilinear(x, (1, 2, 3)), "or two of them"),
    "fraction": (lambda x: nn.upsample2d(x, 1.5), "the factor is a whole number of at least 1"),
    "both": (
        lambda x: nn.resize_bilinear(x, (2, 2), align_corners=True, half_pixel_centers=True),
        "by align_corners or by half_pixel_centers, not by both",
    ),
    "cubic": (lambda x: nn.upsample2d(x, 2, "bicubic"), "'nearest' or 'bilinear'; got 'bicubic'"),
    "crop beyond": (lambda x: nn.crop(x, 1, 0, 3, 3), "A part of 3 x 3 from row 1 and column 0 is not within 3 x 3"),
    "crop before": (lambda x: nn.crop(x, -1, 0, 2, 2), "is not within 3 x 3"),
    "crop nothing": (lambda x: nn.crop(x, 0, 0, 0, 2), "is not within 3 x 3"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_refused(name):
    call, text = WRONG[name]
    with pytest.raises(ShapeError, match=re.escape(text)):
        call(private(np.ones((1, 3, 3, 1))))


def test_public_values_are_refused():
    for call in (lambda x: nn.resize_nearest(x, (2, 2)), lambda x: nn.resize_bilinear(x, (2, 2)), nn.upsample2d):
        with pytest.raises(PlacementError, match=r"takes a private tensor"):
            call(np.ones((1, 3, 3, 1)))
