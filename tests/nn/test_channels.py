"""Biases of channels, data formats, and matrix products with batch axes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import shareflow as sf
from shareflow import nn
from shareflow.errors import PlacementError, ShapeError
from shareflow.nn.linear import channel_axis
from shareflow.share.known import Known


def on_grid(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.rint(np.random.default_rng([seed, *shape]).uniform(-3, 3, shape) * 2**16) / 2**16


def shared(value: Any, protocol: Any = None) -> Any:
    return sf.private_tensor(value, "alice").shared(protocol or sf.SPDZ())


def exactly(got: np.ndarray, wanted: Any) -> None:
    wanted = np.asarray(wanted)
    assert got.shape == wanted.shape
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-8)


FORMATS = [
    ((2, 3), "NHWC"),
    ((2, 3), "NCHW"),
    ((2, 3), "NC"),
    ((2, 5, 3), "NWC"),
    ((2, 3, 5), "NCW"),
    ((2, 3, 5), "NCHW"),
    ((2, 4, 5, 3), "NHWC"),
    ((2, 3, 4, 5), "NCHW"),
    ((2, 1, 4, 5, 3), "NDHWC"),
    ((2, 3, 4, 5, 1), "NCDHW"),
    ((0, 3, 4, 5), "NCHW"),
    ((2, 3, 4, 5, 1), "NCHW"),
]


@pytest.mark.parametrize(("shape", "form"), FORMATS)
@pytest.mark.parametrize(
    "kinds", ["private private", "private public", "public private", "known known", "tensor private"]
)
def test_bias_add(shape, form, kinds):
    x, bias = on_grid(shape), on_grid((3,), 1)
    wrap = {
        "private": shared,
        "public": lambda v: v,
        "tensor": tf.constant,
        "known": lambda v: sf.private_tensor(v, "alice"),
    }
    first, second = (wrap[kind](v) for kind, v in zip(kinds.split(), (x, bias), strict=True))
    with sf.crossings() as crossed:
        result = nn.bias_add(first, second, form)
    assert crossed == []
    wanted = x + bias.reshape(-1, *(1,) * (len(shape) - 2)) if form.startswith("NC") else x + bias
    if len(shape) in (2, 4) and form in ("NHWC", "NCHW"):
        exactly(wanted, tf.nn.bias_add(x, bias, form if len(shape) == 4 else None))
    exactly(result.reveal("bob").numpy(), wanted)


def test_an_owner_adds_alone():
    result = nn.bias_add(sf.private_tensor(on_grid((2, 3)), "alice"), np.ones(3))
    assert isinstance(result.share, Known)


@pytest.mark.parametrize(
    ("match", "shape", "bias", "form"),
    [
        (r"one number for each of the 3 channels", (2, 4, 3), (4,), "NWC"),
        (r"one number for each of the 4 channels", (2, 4, 3), (3,), "NCW"),
        (r"got \(1, 3\)", (2, 3), (1, 3), "NHWC"),
        (r"got \(\)", (2, 3), (), "NHWC"),
        (r"got \(1,\)", (2, 3), (1,), "NHWC"),
        (r"two axes or more", (3,), (3,), "NHWC"),
        (r"A data format is one of", (2, 3), (3,), "CHWN"),
        (r"A data format is one of", (2, 3), (3,), "NDHWC"),
        (r"A data format is one of", (2, 4, 4, 3), (3,), "NCW"),
        (r"got None", (2, 4, 4, 3), (3,), None),
    ],
)
@pytest.mark.parametrize("private", [shared, lambda v: sf.private_tensor(v, "alice")])
def test_a_bias_that_does_not_fit(match, shape, bias, form, private):
    with pytest.raises(ShapeError, match=match):
        nn.bias_add(private(np.zeros(shape)), np.zeros(bias), form)


def test_a_public_bias_of_a_public_value_is_tensorflows():
    with pytest.raises(PlacementError, match="neither operand is private"):
        nn.bias_add(np.zeros((2, 3)), np.zeros(3))


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4), (2, 3, 4, 5), (2, 3, 4, 5, 6)])
@pytest.mark.parametrize("wrap", [shared, tf.constant, lambda v: v, lambda v: sf.private_tensor(v, "alice")])
def test_channels_move_to_the_end_and_back(shape, wrap):
    value = on_grid(shape)
    last = nn.channels_last(wrap(value))
    assert tuple(last.shape) == (shape[0], *shape[2:], shape[1])
    back = nn.channels_first(last)

    def plain(x: Any) -> Any:
        return x.reveal("bob").numpy() if isinstance(x, sf.PrivateTensor) else np.asarray(x)

    exactly(plain(last), np.moveaxis(value, 1, -1))
    exactly(plain(back), value)


def test_channels_of_a_vector():
    for function in (nn.channels_last, nn.channels_first):
        with pytest.raises(ShapeError, match="two axes or more"):
            function(shared(np.zeros(3)))


def test_channel_axis():
    assert [channel_axis(form, len(shape)) for shape, form in FORMATS] == [1, 1, 1, 2, 1, 1, 3, 1, 4, 1, 1, 1]


@pytest.mark.parametrize("private", [shared, lambda v: sf.private_tensor(v, "alice")])
def test_a_convolution_of_images_with_channels_first(private):
    x, w = on_grid((1, 3, 6, 5)), on_grid((3, 3, 3, 4), 1)
    got = nn.channels_first(nn.conv2d(nn.channels_last(private(x)), w, padding="SAME", strides=2))
    wanted = tf.transpose(tf.nn.conv2d(np.moveaxis(x, 1, 3), w, 2, "SAME"), [0, 3, 1, 2])
    exactly(got.reveal("bob").numpy(), wanted)


MATRICES = [
    ((3, 4), (4, 2)),
    ((5, 3, 4), (4, 2)),
    ((4, 4), (5, 4, 2)),
    ((5, 1, 3, 4), (6, 4, 2)),
    ((1, 3, 4), (5, 4, 2)),
    ((2, 1, 3, 4), (1, 3, 4, 2)),
    ((0, 3, 4), (4, 2)),
    ((2, 3, 0), (2, 0, 4)),
]


@pytest.mark.parametrize(("first", "second"), MATRICES)
@pytest.mark.parametrize("adjoint", [(False, False), (True, False), (False, True), (True, True)])
def test_a_matrix_product_is_tensorflows(first, second, adjoint):
    shapes = [(*s[:-2], s[-1], s[-2]) if turned else s for s, turned in zip((first, second), adjoint, strict=True)]
    x, y = on_grid(shapes[0]), on_grid(shapes[1], 1)
    wanted = tf.raw_ops.BatchMatMulV2(x=x, y=y, adj_x=adjoint[0], adj_y=adjoint[1])
    plain = sf.matmul(shared(x, sf.Plain()), shared(y, sf.Plain()), *adjoint).reveal("bob").numpy()
    both = sf.matmul(shared(x), shared(y), *adjoint)
    np.testing.assert_array_equal(both.reveal("bob").numpy(), plain)
    exactly(plain, wanted)
    exactly(sf.matmul(shared(x), y, *adjoint).reveal("bob").numpy(), wanted)
    exactly(sf.matmul(x, shared(y), *adjoint).reveal("bob").numpy(), wanted)
    exactly(sf.matmul(sf.private_tensor(x, "alice"), y, *adjoint).numpy(), wanted)


@pytest.mark.parametrize(
    ("first", "second", "adjoint"),
    [
        ((2, 3, 4), (3, 4, 2), (False, False)),
        ((2, 2, 3, 4), (3, 1, 4, 2), (False, False)),
        ((3, 4), (3, 4), (False, False)),
        ((3, 4), (4, 2), (True, False)),
        ((3, 4), (4, 2), (False, True)),
    ],
)
@pytest.mark.parametrize("private", [shared, lambda v: sf.private_tensor(v, "alice")])
def test_matrices_that_do_not_fit(first, second, adjoint, private):
    x = private(np.zeros(first))
    with sf.crossings() as crossed, pytest.raises(ShapeError, match=r"inner dimensions|batch axes that broadcast"):
        sf.matmul(x, np.zeros(second), *adjoint)
    assert crossed == []
