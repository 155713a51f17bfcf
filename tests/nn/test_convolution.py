"""Convolutions and transposed ones: as TensorFlow's, as Plain bit by bit, and as linear algebra says of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from windows_oracle import convolution, same_sides, transposed

import shareflow as sf
from shareflow import nn
from shareflow.errors import PlacementError, ShapeError
from shareflow.plan_audit import audited
from shareflow.planning import Entry, Input, plan
from shareflow.protocol import op as ops
from shareflow.runtime.plan import Plan
from shareflow.share.known import Known

FORWARD = {1: nn.conv1d, 2: nn.conv2d, 3: nn.conv3d}
BACK = {1: nn.conv1d_transpose, 2: nn.conv2d_transpose, 3: nn.conv3d_transpose}


def all_axes(value: Any, axes: int) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,) * axes


@dataclass(frozen=True)
class Case:
    """A convolution of images [N, *extents, C], or its transpose, whose result has this shape."""

    image: tuple[int, ...]
    kernel: tuple[int, ...]
    padding: Any = "VALID"
    strides: Any = 1
    dilations: Any = 1
    groups: int = 1

    @property
    def axes(self) -> int:
        return len(self.image) - 2

    @property
    def place(self) -> tuple[Any, ...]:
        strides, dilations = all_axes(self.strides, self.axes), all_axes(self.dilations, self.axes)
        sides = self.padding
        if sides == "VALID":
            sides = ((0, 0),) * self.axes
        elif sides == "SAME":
            sides = same_sides(self.image[1:-1], self.kernel[:-2], strides, dilations)
        return strides, sides, dilations, self.groups

    @property
    def options(self) -> dict[str, Any]:
        given = {"strides": self.strides, "padding": self.padding, "dilations": self.dilations, "groups": self.groups}
        return {name: value for name, value in given.items() if name in ("padding",) or value != 1}

    def numbers(self, *shape: int, seed: int = 0) -> np.ndarray:
        rng = np.random.default_rng([seed, *shape])
        return np.rint(rng.uniform(-3, 3, shape) * 2**16) / 2**16

    @property
    def x(self) -> np.ndarray:
        return self.numbers(*self.image)

    @property
    def w(self) -> np.ndarray:
        return self.numbers(*self.kernel, seed=1)

    @property
    def y(self) -> np.ndarray:
        return self.numbers(*convolution(np.zeros(self.image), np.zeros(self.kernel), *self.place).shape, seed=2)

    def forward(self, x: Any, w: Any) -> Any:
        return FORWARD[self.axes](x, w, **self.options)

    def back(self, y: Any, w: Any) -> Any:
        return BACK[self.axes](y, w, self.image, **self.options)

    def __str__(self) -> str:
        options = ",".join(f"{name}={value}" for name, value in self.options.items())
        return f"{self.image}*{self.kernel},{options}".replace(" ", "")


CASES = [
    # One axis.
    Case((2, 7, 3), (3, 3, 4)),
    Case((1, 7, 3), (4, 3, 2), "SAME"),
    Case((1, 9, 4), (3, 2, 6), "SAME", strides=2, groups=2),
    Case((1, 12, 2), (3, 2, 3), dilations=3),
    Case((1, 12, 3), (3, 1, 6), ((4, 0),), dilations=2, groups=3),
    Case((1, 11, 2), (2, 2, 3), strides=4),
    Case((1, 1, 1), (1, 1, 1)),
    Case((0, 5, 2), (3, 2, 2)),
    Case((1, 5, 2), (7, 2, 2), ((5, 3),), strides=3, dilations=1),
    # Two axes.
    Case((2, 6, 5, 3), (2, 4, 3, 4), "SAME"),
    Case((1, 8, 8, 3), (2, 2, 3, 4), "SAME", strides=2),
    Case((1, 7, 7, 3), (3, 3, 3, 4), "SAME", strides=2),
    Case((1, 7, 5, 4), (1, 1, 4, 3), "SAME", strides=2),
    Case((1, 8, 8, 4), (1, 1, 4, 3), strides=(3, 2)),
    Case((1, 9, 7, 2), (3, 2, 2, 3), ((2, 1), (0, 3)), strides=(2, 3)),
    Case((1, 9, 9, 4), (3, 3, 2, 6), "SAME", dilations=2, groups=2),
    Case((1, 9, 9, 4), (2, 2, 1, 8), strides=2, dilations=(3, 2), groups=4),
    Case((1, 10, 10, 2), (3, 3, 2, 2), "SAME", strides=2, dilations=2),
    Case((1, 17, 9, 2), (3, 2, 2, 2), strides=(4, 6), dilations=(6, 4)),
    Case((1, 5, 5, 3), (2, 2, 3, 2), strides=3),
    Case((1, 4, 1, 2), (1, 1, 2, 2), ((3, 3), (2, 2))),
    # Three axes.
    Case((1, 4, 5, 6, 2), (2, 3, 2, 2, 3)),
    Case((1, 5, 4, 3, 2), (3, 3, 3, 2, 2), "SAME"),
    Case((2, 5, 7, 3, 2), (3, 3, 2, 2, 3), "SAME", strides=2),
    Case((1, 5, 5, 5, 1), (2, 2, 2, 1, 2), "SAME", strides=(2, 1, 3)),
    Case((1, 6, 5, 4, 4), (2, 2, 3, 2, 6), ((1, 0), (0, 1), (1, 1)), groups=2),
    Case((1, 7, 6, 5, 4), (2, 2, 2, 1, 4), "SAME", strides=(1, 2, 2), dilations=(2, 1, 1), groups=4),
    Case((1, 7, 6, 5, 2), (3, 2, 1, 2, 2), strides=(2, 3, 1), dilations=(2, 3, 4)),
    Case((1, 4, 3, 3, 3), (1, 1, 1, 3, 2), "SAME", strides=2),
    Case((1, 1, 1, 1, 1), (1, 1, 1, 1, 1)),
    Case((0, 3, 3, 3, 2), (2, 2, 2, 2, 2)),
]


def shared(protocol: Any, *values: np.ndarray) -> list[Any]:
    return [sf.private_tensor(v, owner).shared(protocol) for v, owner in zip(values, ("alice", "bob"), strict=True)]


def revealed(result: Any) -> np.ndarray:
    return result.reveal("receiver").numpy()


def exactly(got: np.ndarray, wanted: np.ndarray) -> None:
    assert got.shape == wanted.shape
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-8)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("way", ["forward", "back"])
def test_two_private_operands(case, way):
    first = case.x if way == "forward" else case.y
    program = getattr(case, way)
    got = revealed(program(*shared(sf.SPDZ(), first, case.w)))
    # Products keep all fractional bits: nothing is rounded.
    np.testing.assert_array_equal(got, revealed(program(*shared(sf.Plain(), first, case.w))))
    if way == "forward":
        exactly(got, convolution(case.x, case.w, *case.place))
    else:
        strides, sides, dilations, groups = case.place
        exactly(got, transposed(first, case.w, case.image[1:-1], strides, sides, dilations, groups))


OPERANDS = {
    "private, public": (True, False),
    "public, private": (False, True),
}


@pytest.mark.parametrize("case", CASES[::3], ids=str)
@pytest.mark.parametrize("private", OPERANDS.values(), ids=OPERANDS)
@pytest.mark.parametrize("way", ["forward", "back"])
def test_a_public_operand(case, private, way):
    first = case.x if way == "forward" else case.y
    operands = [
        sf.private_tensor(v, "alice").shared(sf.SPDZ()) if own else v
        for v, own in zip((first, case.w), private, strict=True)
    ]
    with sf.crossings() as crossed:
        result = getattr(case, way)(*operands)
    assert crossed == []
    exactly(revealed(result), revealed(getattr(case, way)(*shared(sf.SPDZ(), first, case.w))))


@pytest.mark.filterwarnings("ignore:When dilation rate is greater than 1")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_owner_computes_alone(case):
    strides, sides, dilations, groups = case.place
    with sf.crossings() as crossed:
        forward = case.forward(sf.private_tensor(case.x, "alice"), case.w)
        back = case.back(sf.private_tensor(case.y, "alice"), sf.private_tensor(case.w, "alice"))
        assert isinstance(forward.share, Known) and isinstance(back.share, Known)
        exactly(forward.numpy(), convolution(case.x, case.w, *case.place))
        exactly(back.numpy(), transposed(case.y, case.w, case.image[1:-1], strides, sides, dilations, groups))
    assert crossed == []


def tensorflow_takes(case: Case) -> bool:
    return case.groups == 1 and all_axes(case.dilations, 1)[0] == 1 and case.image[0] > 0 and case.axes > 1


@pytest.mark.parametrize("case", [case for case in CASES if tensorflow_takes(case)], ids=str)
def test_tensorflow_means_the_same(case):
    """Its own operations, where its CPU kernels take the case; SAME for odd extents in three axes among them."""
    x, w, y = (tf.constant(value) for value in (case.x, case.w, case.y))
    strides = [1, *all_axes(case.strides, case.axes), 1]
    if case.axes == 2:
        padding, explicit = (case.padding, []) if isinstance(case.padding, str) else ("EXPLICIT", case.padding)
        flat = [0, 0, *(n for side in explicit for n in side), 0, 0] if explicit else []
        options = {"strides": strides, "padding": padding, "explicit_paddings": flat}
        forward = tf.raw_ops.Conv2D(input=x, filter=w, **options)
        back = tf.raw_ops.Conv2DBackpropInput(input_sizes=case.image, filter=w, out_backprop=y, **options)
    else:
        if not isinstance(case.padding, str):
            pytest.skip("TensorFlow's convolutions along three axes take no counts of zeros")
        options = {"strides": strides, "padding": case.padding}
        forward = tf.raw_ops.Conv3D(input=x, filter=w, **options)
        back = tf.raw_ops.Conv3DBackpropInputV2(input_sizes=case.image, filter=w, out_backprop=y, **options)
    exactly(revealed(case.forward(*shared(sf.SPDZ(), case.x, case.w))), forward.numpy())
    exactly(revealed(case.back(*shared(sf.SPDZ(), case.y, case.w))), back.numpy())


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("strides", [1, 2, 3])
def test_one_axis_is_tensorflows(strides, padding):
    case = Case((2, 8, 3), (3, 3, 4), padding, strides)
    x, w, y = case.x, case.w, case.y
    exactly(revealed(case.forward(*shared(sf.SPDZ(), x, w))), tf.nn.conv1d(x, w, strides, padding).numpy())
    wanted = tf.nn.conv1d_transpose(y, w, case.image, strides, padding).numpy()
    exactly(revealed(case.back(*shared(sf.SPDZ(), y, w))), wanted)


@pytest.mark.parametrize("dilations", [1, 2, 5])
def test_causal_padding_is_that_of_keras(dilations):
    import keras

    x, w = Case((1, 9, 2), (3, 2, 4)).x, Case((1, 9, 2), (3, 2, 4)).w
    layer = keras.layers.Conv1D(4, 3, padding="causal", dilation_rate=dilations, use_bias=False, dtype="float64")
    layer.build(x.shape)
    layer.set_weights([w])
    exactly(revealed(nn.conv1d(*shared(sf.SPDZ(), x, w), padding="causal", dilations=dilations)), layer(x).numpy())


# Keras gives 'valid' results as many elements as a stride larger than the window skips.
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize(("axes", "size", "strides"), [(1, 3, 2), (1, 2, 3), (2, (3, 2), 2), (2, 2, 2), (3, 3, 2)])
def test_the_usual_output_shape_is_that_of_keras(axes, size, strides, padding):
    import keras

    given = (1, *(4, 3, 5)[:axes], 2)
    layer = getattr(keras.layers, f"Conv{axes}DTranspose")(3, size, strides=strides, padding=padding, dtype="float64")
    y = Case(given, given).x
    wanted = layer(y).numpy()
    kernel, bias = layer.kernel.numpy(), np.arange(3.0)
    got = BACK[axes](
        sf.private_tensor(y, "alice"), kernel, bias=sf.private_tensor(bias, "alice"), strides=strides, padding=padding
    )
    exactly(got.numpy(), wanted + bias)


def test_the_usual_output_shape_with_counts_of_zeros():
    y = Case((1, 4, 3, 2), (3, 3, 5, 2)).x
    got = nn.conv2d_transpose(sf.private_tensor(y, "alice"), np.ones((3, 3, 5, 2)), strides=2, padding=((1, 1), (0, 1)))
    assert got.shape == (1, 7, 6, 5)


@pytest.mark.parametrize(
    ("image", "kernel", "options"),
    [
        ((2, 7, 6, 3), (3, 3, 3, 2), {"strides": 2, "padding": "SAME"}),
        ((1, 8, 8, 2), (2, 4, 2, 3), {"padding": "SAME"}),
        ((1, 7, 7, 2), (3, 3, 2, 1), {"strides": (1, 2), "padding": ((2, 0), (1, 3))}),
        ((1, 9, 9, 2), (3, 2, 2, 2), {"dilations": (2, 3), "padding": "SAME"}),
        ((1, 9, 9, 2), (2, 2, 2, 2), {"strides": 2, "dilations": 2}),
    ],
)
def test_depthwise_is_a_convolution_in_groups(image, kernel, options):
    case = Case(image, kernel)
    operands = shared(sf.SPDZ(), case.x, case.w)
    size, multiplier = kernel[:2], kernel[3]
    grouped = case.w.reshape(*size, 1, image[3] * multiplier)
    wanted = revealed(nn.conv2d(*shared(sf.SPDZ(), case.x, grouped), groups=image[3], **options))
    np.testing.assert_array_equal(revealed(nn.depthwise_conv2d(*operands, **options)), wanted)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_a_bias(axes):
    case = Case((*(1, 5, 4, 3)[: axes + 1], 2), (*(2, 2, 2)[:axes], 2, 3), "SAME")
    x, w = shared(sf.SPDZ(), case.x, case.w)
    bias = np.array([1.5, -2.0, 0.25])
    exactly(
        revealed(FORWARD[axes](x, w, sf.private_tensor(bias, "bob"), padding="SAME")),
        revealed(case.forward(x, w)) + bias,
    )


# --- in the ring ----------------------------------------------------------------------------------------------


def words(shape: Any, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-(2**63), 2**63 - 1, shape, np.int64, endpoint=True)


OPS = {
    1: (ops.CONV1D, ops.CONV1D_TRANSPOSE),
    2: (ops.CONV2D, ops.CONV2D_TRANSPOSE),
    3: (ops.CONV3D, ops.CONV3D_TRANSPOSE),
}


@st.composite
def convolutions(draw: Any) -> tuple[Any, ...]:
    axes = draw(st.integers(1, 3))

    def each(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw(st.integers(low, high)) for _ in range(axes))

    groups = draw(st.integers(1, 3))
    extents, size, strides, dilations = each(1, 7), each(1, 4), each(1, 4), each(1, 4)
    sides = tuple(zip(each(0, 5), each(0, 5), strict=True))
    lines = zip(extents, size, sides, dilations, strict=True)
    assume(all(n + sum(p) >= (k - 1) * d + 1 for n, k, p, d in lines))
    channels, outputs = groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 2))
    image = (draw(st.integers(1, 2)), *extents, channels)
    return image, (*size, channels // groups, outputs), strides, sides, dilations, groups


@settings(max_examples=60, deadline=None)
@given(convolutions(), st.integers(0, 1000))
def test_any_convolution_and_its_transpose_in_the_ring(shape, seed):
    image, kernel, strides, sides, dilations, groups = shape
    place = {"strides": strides, "padding": sides, "dilations": dilations, "groups": groups}
    forward, back = OPS[len(strides)]
    x, w = words(image, seed), words(kernel, seed + 1)
    wanted = convolution(x, w, strides, sides, dilations, groups)
    np.testing.assert_array_equal(forward.ring(tf.constant(x), tf.constant(w), **place), wanted)
    # <conv(x), y> = <x, transpose(y)>, for words of all sizes: no place or tap can be wrong.
    y = words(wanted.shape, seed + 2)
    got = back.ring(tf.constant(y), tf.constant(w), extents=image[1:-1], **place).numpy()
    assert got.shape == image
    assert np.sum(got * x) == np.sum(y * wanted)
    np.testing.assert_array_equal(got, transposed(y, w, image[1:-1], strides, sides, dilations, groups))


@settings(max_examples=25, deadline=None)
@given(convolutions(), st.integers(0, 1000))
def test_they_are_bilinear(shape, seed):
    image, kernel, strides, sides, dilations, groups = shape
    place = {"strides": strides, "padding": sides, "dilations": dilations, "groups": groups}
    forward, back = OPS[len(strides)]
    x, z, w, v = words(image, seed), words(image, seed + 1), words(kernel, seed + 2), words(kernel, seed + 3)

    def both(op: Any, a: np.ndarray, b: np.ndarray, **more: Any) -> np.ndarray:
        return op.ring(tf.constant(a), tf.constant(b), **place, **more).numpy()

    for op, a, b, more in (
        (forward, x, z, {}),
        (back, *(words(both(forward, x, w).shape, seed + n) for n in (4, 5)), {"extents": image[1:-1]}),
    ):
        np.testing.assert_array_equal(
            both(op, a + 3 * b, w, **more), both(op, a, w, **more) + 3 * both(op, b, w, **more)
        )
        np.testing.assert_array_equal(both(op, a, w - v, **more), both(op, a, w, **more) - both(op, a, v, **more))


def test_the_largest_values_that_fit():
    """Products up to 2^61 in the ring, of either sign."""
    x = np.full((1, 2, 2, 2, 1), -(2.0**13))
    w = np.full((2, 2, 2, 1, 1), 2.0**13)
    got = revealed(nn.conv3d(*shared(sf.SPDZ(), x, w)))
    exactly(got, np.full((1, 1, 1, 1, 1), -(2.0**29)))


# --- cost -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [CASES[2], CASES[15], CASES[23]], ids=str)
@pytest.mark.parametrize("way", ["forward", "back"])
def test_a_product_of_masked_operands_costs_nothing_online(case, way):
    first = case.x if way == "forward" else case.y
    result = math.prod(case.y.shape if way == "forward" else case.x.shape)
    operands = shared(sf.SPDZ(), first, case.w)
    cost = sf.function(getattr(case, way)).cost(*operands)
    assert (cost.rounds, cost.offline_bytes) == (1, 8 * result)
    sizes = 8 * (first.size + case.w.size)
    assert cost.bytes_by_link(offline=False) == {("server0", "server1"): sizes, ("server1", "server0"): sizes}
    masked = sf.function(getattr(case, way)).cost(*(x.reusable() for x in operands))
    assert (masked.rounds, masked.online_bytes, masked.offline_bytes) == (0, 0, 8 * result)


def test_an_operand_is_masked_once_for_all_of_them():
    case = Case((1, 6, 2), (3, 2, 2), "SAME")
    x, w = shared(sf.SPDZ(), case.x, case.w)
    with sf.crossings() as crossed:
        nn.conv1d(x, w), nn.conv1d(x, w, strides=2), nn.conv1d_transpose(x, w, padding="SAME"), x * x
    assert [c.kind.value for c in crossed].count("opening") == 4


# --- in plans -------------------------------------------------------------------------------------------------

PLANNED = {
    "conv1d": Case((1, 9, 4), (3, 2, 6), "SAME", strides=2, groups=2),
    "conv1d, dilated": Case((1, 12, 3), (3, 1, 6), ((4, 0),), dilations=2, groups=3),
    "conv2d": Case((1, 9, 7, 2), (3, 2, 2, 3), ((2, 1), (0, 3)), strides=(2, 3)),
    "conv3d": Case((2, 5, 7, 3, 2), (3, 3, 2, 2, 3), "SAME", strides=2),
    "conv3d, groups": Case((1, 7, 6, 5, 4), (2, 2, 2, 1, 4), "SAME", strides=(1, 2, 2), dilations=(2, 1, 1), groups=4),
}


@pytest.mark.parametrize("name", PLANNED)
@pytest.mark.parametrize("way", ["forward", "back"])
def test_a_plan_passes_the_audit_and_a_function_gives_the_result(name, way, tmp_path):
    case = PLANNED[name]
    first = case.x if way == "forward" else case.y

    def program(x: Any, w: Any) -> Any:
        return getattr(case, way)(x, w).reveal("carol")

    inputs = {"x": Input("alice", first.shape), "w": Input("bob", case.w.shape)}
    plan({"run": Entry(program, inputs)}, sf.SPDZ()).write(tmp_path / "run.plan")
    audit = audited(Plan.read(tmp_path / "run.plan"))
    assert audit.passed, audit.every_finding()[:5]
    operands = shared(sf.SPDZ(), first, case.w)
    exactly(sf.function(program)(*operands).numpy(), revealed(getattr(case, way)(*operands)))


# --- what is refused ------------------------------------------------------------------------------------------

X1, X2, X3 = np.zeros((1, 6, 4)), np.zeros((1, 6, 6, 4)), np.zeros((1, 6, 6, 6, 4))
W1, W2, W3 = np.zeros((3, 4, 2)), np.zeros((3, 3, 4, 2)), np.zeros((3, 3, 3, 4, 2))
T1, T2, T3 = np.zeros((3, 2, 4)), np.zeros((3, 3, 2, 4)), np.zeros((3, 3, 3, 2, 4))

REFUSED: list[tuple[str, Any, tuple[Any, ...], dict[str, Any]]] = [
    (r"conv1d takes sequences \[N, L, C\]", nn.conv1d, (X2, W1), {}),
    (r"conv1d takes .* kernel \[k, C / groups, O\]", nn.conv1d, (X1, W2), {}),
    (r"conv2d takes images", nn.conv2d, (X1, W2), {}),
    (r"conv3d takes volumes", nn.conv3d, (X3, W2), {}),
    (r"conv3d takes volumes", nn.conv3d, (X2, W3), {}),
    (r"4 channels of x, 4 of the kernel and 2 outputs .* in 2 group", nn.conv2d, (X2, W2), {"groups": 2}),
    (r"4 channels of x, 1 of the kernel and 2 outputs", nn.conv1d, (X1, W1[:, :1]), {"groups": 4}),
    (r"3 channels of x", nn.conv3d, (X3[..., :3], W3), {}),
    (r"groups is a whole number of at least 1; got 0", nn.conv2d, (X2, W2), {"groups": 0}),
    (r"groups is a whole number .* got True", nn.conv1d, (X1, W1), {"groups": True}),
    (r"groups is a whole number .* got 1\.0", nn.conv3d, (X3, W3), {"groups": 1.0}),
    (r"groups is a whole number .* got -1", nn.conv2d_transpose, (X2, T2), {"groups": -1}),
    (r"strides is a whole number of at least 1; got 0", nn.conv1d, (X1, W1), {"strides": 0}),
    (r"strides .* or two of them; got \(1, 2, 3\)", nn.conv2d, (X2, W2), {"strides": (1, 2, 3)}),
    (r"strides .* or three of them; got \(1, 2\)", nn.conv3d, (X3, W3), {"strides": (1, 2)}),
    (r"dilations .* got \[0, 1\]", nn.conv2d, (X2, W2), {"dilations": [0, 1]}),
    (r"dilations .* got 1\.5", nn.conv3d_transpose, (X3, T3), {"dilations": 1.5}),
    (r"Padding is 'SAME', 'VALID' or \(\(before, after\),\); got 'FULL'", nn.conv1d, (X1, W1), {"padding": "FULL"}),
    (r"or \(\(top, bottom\), \(left, right\)\); got 'CAUSAL'", nn.conv2d, (X2, W2), {"padding": "CAUSAL"}),
    (r"or three pairs \(before, after\); got \(\(1, 1\),\)", nn.conv3d, (X3, W3), {"padding": ((1, 1),)}),
    (r"got 3", nn.conv2d, (X2, W2), {"padding": 3}),
    (r"got \(\(1, 2\), \(3,\)\)", nn.conv2d, (X2, W2), {"padding": ((1, 2), (3,))}),
    (r"window of 3 .* does not fit an extent of 2", nn.conv1d, (X1[:, :2], W1), {}),
    (r"window of 11 .* does not fit an extent of 6", nn.conv3d, (X3, W3), {"dilations": (1, 1, 5)}),
    (r"padding -1, 3", nn.conv2d, (X2, W2), {"padding": ((-1, 3), (1, 1))}),
    (r"window of 0", nn.conv1d, (X1, W1[:0]), {}),
    (r"window of -\d+|window of 0", nn.conv1d, (X1, W1[:0]), {"padding": "CAUSAL"}),
    (r"conv2d_transpose takes images .* kernel \[h, w, O / groups, C\]", nn.conv2d_transpose, (X2, T1), {}),
    (r"conv1d_transpose takes sequences", nn.conv1d_transpose, (X2, T2), {}),
    (r"conv3d_transpose takes volumes", nn.conv3d_transpose, (X2, T3), {}),
    (r"4 channels of x and 2 of the kernel", nn.conv2d_transpose, (X2, W2), {}),
    (r"channels of x and 4 of the kernel do not go together in 3 group", nn.conv1d_transpose, (X1, T1), {"groups": 3}),
    (r"output_shape is the whole shape of the result, here \[1, extent, extent, 2\]; got \[6, 6\]",
     nn.conv2d_transpose, (X2, T2, (6, 6)), {}),
    (r"here \[1, extent, 2\]; got \[2, 8, 2\]", nn.conv1d_transpose, (X1, T1, (2, 8, 2)), {}),
    (r"here \[1, extent, 4\]; got \[1, 8, 2\]", nn.conv1d_transpose, (X1, T1, (1, 8, 2)), {"groups": 2}),
    (r"gives \(7, 7\), and x has \(6, 6\)", nn.conv2d_transpose, (X2, T2, (1, 9, 9, 2)), {}),
    (r"gives \(5,\), and x has \(6,\)", nn.conv1d_transpose, (X1, T1, (1, 10, 2)), {"strides": 2, "padding": "SAME"}),
    (r"does not fit", nn.conv3d_transpose, (X3, T3, (1, 2, 8, 8, 2)), {}),
    (r"whole numbers; got", nn.conv1d_transpose, (X1, T1, (1, 8.0, 2)), {}),
    (r"whole numbers; got", nn.conv1d_transpose, (X1, T1, (1, -8, 2)), {}),
    (r"depthwise_conv2d takes images", nn.depthwise_conv2d, (X2, W2[:, :, :3]), {}),
    (r"depthwise_conv2d takes images", nn.depthwise_conv2d, (X3, W3), {}),
    (r"does not fit", nn.depthwise_conv2d, (X2[:, :2], W2), {}),
]  # fmt: skip


@pytest.mark.parametrize(("match", "function", "operands", "options"), REFUSED)
@pytest.mark.parametrize("kind", ["shared", "known"])
def test_what_does_not_fit_is_refused_before_anything_is_sent(match, function, operands, options, kind):
    x, *rest = operands
    given = sf.private_tensor(x, "alice")
    given = given.shared(sf.SPDZ()) if kind == "shared" else given
    with sf.crossings() as crossed, pytest.raises(ShapeError, match=match):
        function(given, *rest, **options)
    assert crossed == []


@pytest.mark.parametrize(
    ("function", "operands"), [(nn.conv1d, (X1, W1)), (nn.conv3d, (X3, W3)), (nn.conv2d_transpose, (X2, T2))]
)
def test_two_public_operands_are_tensorflows(function, operands):
    with pytest.raises(PlacementError, match="neither operand is private"):
        function(*operands)


def test_the_oracle_can_tell():
    case = CASES[1]
    got = revealed(case.forward(*shared(sf.SPDZ(), case.x, case.w)))
    strides, sides, dilations, groups = case.place
    turned = convolution(case.x, case.w, strides, tuple(side[::-1] for side in sides), dilations, groups)
    with pytest.raises(AssertionError):
        exactly(got, turned)


# --- other operands -------------------------------------------------------------------------------------------


def test_a_private_variable_and_a_tensor_of_the_graph():
    case = Case((1, 6, 5, 2), (3, 3, 2, 3), "SAME", 2)
    kernel, constant = sf.PrivateVariable(sf.private_tensor(case.w, "bob")), tf.constant(case.w)

    @sf.function
    def program(x: Any, y: Any) -> Any:
        public = tf.identity(constant)
        results = case.forward(x, kernel), case.forward(x, public), case.back(y, kernel), case.back(y, public)
        return [result.reveal("receiver") for result in results]

    strides, sides, dilations, groups = case.place
    forward = convolution(case.x, case.w, *case.place)
    back = transposed(case.y, case.w, case.image[1:-1], strides, sides, dilations, groups)
    for got, wanted in zip(program(*shared(sf.SPDZ(), case.x, case.y)), (forward, forward, back, back), strict=True):
        exactly(got.numpy(), wanted)


def test_layers_of_one_owners_float32_stay_float32():
    x = sf.private_tensor(np.ones((1, 4, 4, 2), np.float32), "alice")
    w = sf.private_tensor(np.ones((2, 2, 3, 2), np.float32), "alice")
    assert nn.conv2d_transpose(x, w).plaintext.dtype == tf.float32
    assert nn.conv3d(x.reshape(1, 4, 4, 2, 1), np.ones((2, 2, 2, 1, 1))).plaintext.dtype == tf.float32
