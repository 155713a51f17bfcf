"""The conformance table: every protocol carries out every operation as `Plain` and as TensorFlow do.

A protocol joins by one row in PROTOCOLS, an operation by one row in CASES. Tolerances are whole units of
2^-fractional_bits. Inputs lie on the grid of the encoding, so a linear operation and a product (which keeps the
fractional bits of both operands) are exact; each truncation costs up to one unit, times what it is multiplied by
afterwards.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import shareflow as sf
from shareflow import nn
from shareflow.nn.polynomial_fit import relu_polynomial
from shareflow.protocol.op import RELU
from shareflow.protocol.tensor import SIGN_BITS
from shareflow.share.known import Known

UNIT = 2.0**-16

PROTOCOLS = {
    "exact": sf.SPDZ(),
    "optimistic": sf.SPDZ(truncation=sf.Optimistic()),
    "carry 2 (4, 8)": sf.SPDZ(comparison=sf.MaskedCarry(group=2, gates=(4, 8))),
    "carry 3 (3, 7)": sf.SPDZ(comparison=sf.MaskedCarry(group=3, gates=(3, 7))),
    "carry 6 (2, 6)": sf.SPDZ(comparison=sf.MaskedCarry(group=6, gates=(2, 6))),
    "other names": sf.SPDZ(servers=("alice", "bob-2"), dealer="Trusted_Third"),
}


@dataclass(frozen=True)
class Case:
    """One operation: how shareflow writes it, how TensorFlow does, and how far they may be apart.

    ``units`` bounds the distance to Plain, ``real_units`` that to float64; each input is a shape or an array.
    """

    name: str
    program: Callable[..., Any]
    real: Callable[..., Any]
    inputs: tuple[Any, ...]
    units: float = 0
    real_units: float = 0

    def values(self) -> list[np.ndarray]:
        rng = np.random.default_rng(sum(map(ord, self.name)))
        return [on_grid(rng.uniform(-3, 3, given)) if isinstance(given, tuple) else given for given in self.inputs]


def on_grid(values: Any, bits: int = 16) -> np.ndarray:
    return np.rint(np.asarray(values, np.float64) * 2**bits) / 2**bits


def same(name: str, program: Callable[..., Any], *inputs: Any, units: float = 0, real_units: float = 0) -> Case:
    """An operation that shareflow and TensorFlow write alike."""
    return Case(name, program, program, inputs, units, real_units)


def at_most(distance: float, got: np.ndarray, wanted: Any, unit: float = UNIT) -> None:
    wanted = np.asarray(wanted, np.float64)
    assert got.shape == wanted.shape
    # Decoding and the reference itself round in float64.
    slack = 1e-9 * (1 + np.max(np.abs(wanted), initial=0))
    worst = np.max(np.abs(got - wanted), initial=0)
    assert worst <= distance * unit + slack, f"{worst / unit:.2f} units apart, {distance} are allowed"


def shared(protocol: Any, values: list[np.ndarray]) -> list[sf.PrivateTensor]:
    owners = itertools.cycle(["input-owner", "model-owner"])
    return [sf.private_tensor(v, owner).shared(protocol) for v, owner in zip(values, owners, strict=False)]


def run(protocol: Any, case: Case) -> np.ndarray:
    with protocol:
        return case.program(*shared(protocol, case.values())).reveal("receiver").numpy()


def check(got: np.ndarray, case: Case) -> None:
    at_most(case.units, got, run(sf.Plain(), case))
    at_most(case.real_units, got, case.real(*map(tf.constant, case.values())))


# --- the table ------------------------------------------------------------------------------------------------

SHAPES = [(), (1,), (0,), (5,), (65,), (130,), (2, 0, 3), (7, 11), (2, 3, 4), (1, 2, 1, 3)]
WITH_TIES = np.array([-2.0, -UNIT, 0.0, UNIT, 1.0, 1.0 + UNIT, 2.0, 2.0, -3.5])
TIED = np.array([-2.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 3.0, -3.5])
EXPONENTS = (1, 2, 3, 4, 5)


def tf_relu(x: Any) -> Any:
    return tf.maximum(x, 0.0)


def elementwise(shape: tuple[int, ...]) -> list[Case]:
    def label(name: str) -> str:
        return f"{name} {shape}"

    return [
        same(label("add"), lambda x, y: x + y, shape, shape),
        same(label("multiply"), lambda x, y: x * y, shape, shape),
        same(label("negate and sum"), lambda x: -x, shape),
        Case(label("relu"), sf.relu, tf_relu, (shape,)),
        Case(label("relu of product"), lambda x, y: sf.relu(x * y), lambda x, y: tf_relu(x * y), (shape, shape), 1, 1),
        Case(label("greater"), lambda x, y: x > y, lambda x, y: tf.cast(x > y, tf.float64), (shape, shape)),
        Case(label("product of three"), lambda x, y: x * y * x, lambda x, y: x * y * x, (shape, shape), 4, 4),
    ]


def compare(symbol: str, holds: Callable[[Any, Any], Any]) -> list[Case]:
    def real(x: Any, y: Any) -> Any:
        return tf.cast(holds(x, y), tf.float64)

    return [
        Case(f"x {symbol} y", holds, real, (WITH_TIES, TIED)),
        Case(f"x {symbol} 1", lambda x: holds(x, 1), lambda x: real(x, 1.0), (WITH_TIES,)),
        Case(f"0.0 {symbol} x", lambda x: holds(0.0, x), lambda x: real(tf.zeros_like(x), x), (WITH_TIES,)),
        Case(f"x {symbol} array", lambda x: holds(x, TIED), lambda x: real(x, TIED), (WITH_TIES,)),
        Case(f"array {symbol} x", lambda x: holds(TIED, x), lambda x: real(tf.constant(TIED), x), (WITH_TIES,)),
    ]


LINEAR = [
    same("subtract", lambda x, y: x - y, (3, 4), (3, 4)),
    same("subtract from a number", lambda x: 2.5 - x, (3, 4)),
    same("plus itself", lambda x: x + x, (3,)),
    same("minus itself", lambda x: x - x, (3,)),
    same("unary plus", lambda x: +x if isinstance(x, sf.PrivateTensor) else x, (3,)),
    same("broadcast row", lambda x, y: x + y, (3, 4), (4,)),
    same("broadcast column and row", lambda x, y: x - y, (3, 1), (1, 4)),
    same("broadcast scalar", lambda x, y: x + y, (), (2, 3)),
    same("broadcast product", lambda x, y: x * y, (2, 1, 3), (4, 1)),
    same("broadcast scalar product", lambda x, y: x * y, (2, 3), ()),
    same("times a whole number", lambda x: x * 3, (3, 4)),
    same("times a negative", lambda x: -7.0 * x, (3, 4)),
    same("times a fraction", lambda x: x * 0.7, (3, 4), real_units=2),
    same("times a small fraction", lambda x: x * 0.0003, (3, 4), real_units=1),
    same("times zero", lambda x: x * 0, (3, 4)),
    same("times an array", lambda x: x * np.array([0.5, -1.25, 3.0]), (2, 3)),
    same("an array times it, wider", lambda x: np.array([[0.5], [-1.25]]) * x, (3,)),
    same("divide by 2", lambda x: x / 2, (3, 4)),
    same("divide by 2^-3", lambda x: x / 0.125, (3, 4)),
    same("divide by 2^7 and add", lambda x: x / 128 + 0.5, (3, 4)),
    same("divide by 2.5", lambda x: x / 2.5, (3, 4), real_units=1),
    same("divide by an array", lambda x: x / np.array([1.0, -3.0, 7.0]), (2, 3), real_units=2),
    Case(
        "a low scale meets a constant",
        lambda x: x / 2.0**-12 + 0.3,
        lambda x: x * 2.0**12 + 0.3,
        ((3,),),
        real_units=1,
    ),
    Case(
        "a low scale meets a tensor",
        lambda x, y: x / 2.0**-12 + y,
        lambda x, y: x * 2.0**12 + y,
        ((3,), (3,)),
    ),
    same("a high scale meets a large value", lambda x, y: x * 1e-5 + y * 50000, (3,), (3,), units=1, real_units=2),
    same("a high scale meets a large constant", lambda x: x * 1e-5 + 100000, (3,), units=1, real_units=2),
    Case("sum", lambda x: x.sum(), tf.reduce_sum, ((3, 4),)),
    Case("sum of axis", lambda x: x.sum(1), lambda x: tf.reduce_sum(x, 1), ((2, 3, 4),)),
    Case("sum of axes", lambda x: x.sum((0, -1), True), lambda x: tf.reduce_sum(x, (0, 2), True), ((2, 3, 4),)),
    Case("sum of nothing", lambda x: x.sum(0), lambda x: tf.reduce_sum(x, 0), ((0, 3),)),
    Case("mean of 4", lambda x: x.mean(1), lambda x: tf.reduce_mean(x, 1), ((3, 4),)),
    Case("mean of 15", lambda x: x.mean(), tf.reduce_mean, ((3, 5),), real_units=2),
    Case("mean, kept", lambda x: x.mean(0, keepdims=True), lambda x: tf.reduce_mean(x, 0, True), ((8, 2),)),
    Case("reshape", lambda x: x.reshape(4, -1), lambda x: tf.reshape(x, (4, -1)), ((2, 6),)),
    Case("reshape to scalar", lambda x: x.reshape(()), lambda x: tf.reshape(x, ()), ((1, 1),)),
    Case("reshape empty", lambda x: x.reshape((3, 0)), lambda x: tf.reshape(x, (3, 0)), ((0, 2),)),
    Case("transpose", lambda x: x.T, tf.transpose, ((2, 3, 4),)),
    Case("transpose axes", lambda x: x.transpose(1, -1, 0), lambda x: tf.transpose(x, (1, 2, 0)), ((2, 3, 4),)),
    Case("transpose scalar", lambda x: x.transpose(), lambda x: x, ((),)),
    same("index", lambda x: x[1], (3, 4)),
    same("index from the end", lambda x: x[..., -1], (3, 4)),
    same("slice", lambda x: x[1:, ::2], (3, 5)),
    same("slice backwards", lambda x: x[::-1], (3, 5)),
    same("slice empty", lambda x: x[3:], (3, 5)),
    same("new axes", lambda x: x[:, None, 1:, ..., None], (3, 4, 2)),
    Case("concat", lambda x, y: sf.concat([x, y], 0), lambda x, y: tf.concat([x, y], 0), ((2, 3), (4, 3))),
    Case("concat last", lambda x, y: sf.concat([x, y, x], -1), lambda x, y: tf.concat([x, y, x], -1), ((2, 3), (2, 1))),
    Case(
        "concat with constants",
        lambda x: sf.concat([x, np.array([0.5, 2.0])], 0),
        lambda x: tf.concat([x, [0.5, 2.0]], 0),
        ((3,),),
    ),
    Case(
        "concat bits with constants",
        lambda x: sf.concat([x > 0, np.array([0.5])], 0),
        lambda x: tf.concat([tf.cast(x > 0, tf.float64), [0.5]], 0),
        ((3,),),
    ),
    Case("concat scales", lambda x: sf.concat([x * x, x], 0), lambda x: tf.concat([x * x, x], 0), ((3,),)),
    Case("stack", lambda x, y: sf.stack([x, y]), lambda x, y: tf.stack([x, y]), ((2, 3), (2, 3))),
    Case("stack last", lambda x, y: sf.stack([x, y], -1), lambda x, y: tf.stack([x, y], -1), ((2, 3), (2, 3))),
    Case("pad", lambda x: x.pad(((1, 0), (0, 2))), lambda x: tf.pad(x, ((1, 0), (0, 2))), ((2, 3),)),
    Case("broadcast_to", lambda x: x.broadcast_to((4, 2, 3)), lambda x: tf.broadcast_to(x, (4, 2, 3)), ((2, 1),)),
    Case("broadcast_to scalar", lambda x: x.broadcast_to(()), lambda x: x, ((),)),
]

MATRICES = [
    Case("matmul", lambda x, y: x @ y, tf.matmul, ((3, 5), (5, 2))),
    Case("matmul of 1 x 1", lambda x, y: x @ y, tf.matmul, ((1, 1), (1, 1))),
    Case("matmul of nothing", lambda x, y: x @ y, tf.matmul, ((0, 3), (3, 2))),
    Case("matmul over nothing", lambda x, y: x @ y, tf.matmul, ((2, 0), (0, 3))),
    Case("matmul large", lambda x, y: x @ y, tf.matmul, ((17, 67), (67, 33))),
    Case("matmul batched", lambda x, y: x @ y, tf.matmul, ((4, 3, 5), (4, 5, 2))),
    Case("matmul broadcast", lambda x, y: x @ y, tf.matmul, ((2, 1, 3, 5), (4, 5, 2))),
    Case("matmul by a matrix", lambda x, y: x @ y, tf.matmul, ((4, 3, 5), (5, 2))),
    Case("vector @ vector", lambda x, y: x @ y, lambda x, y: tf.reduce_sum(x * y), ((5,), (5,))),
    Case("matrix @ vector", lambda x, y: x @ y, tf.linalg.matvec, ((3, 5), (5,))),
    Case("batch @ vector", lambda x, y: x @ y, tf.linalg.matvec, ((2, 3, 5), (5,))),
    Case("vector @ matrix", lambda x, y: x @ y, lambda x, y: tf.matmul(x[None], y)[0], ((5,), (5, 2))),
    *(
        Case(
            f"matmul transposed {a} {b}",
            lambda x, y, a=a, b=b: sf.matmul(x, y, transpose_a=a, transpose_b=b),
            lambda x, y, a=a, b=b: tf.matmul(x, y, transpose_a=a, transpose_b=b),
            ((5, 3) if a else (3, 5), (2, 5) if b else (5, 2)),
        )
        for a, b in itertools.product((False, True), repeat=2)
    ),
    Case("x @ x.T", lambda x: x @ x.T, lambda x: tf.matmul(x, x, transpose_b=True), ((3, 4),)),
    Case("public @ x", lambda x: np.ones((2, 3)) @ x, lambda x: tf.matmul(np.ones((2, 3)), x), ((3, 4),)),
    Case(
        "three matrices",
        lambda x, y: x @ y @ x,
        lambda x, y: tf.matmul(tf.matmul(x, y), x),
        ((4, 4), (4, 4)),
        units=13,
        real_units=13,
    ),
    Case("dense", lambda x, w, b: nn.dense(x, w, b), lambda x, w, b: tf.matmul(x, w) + b, ((3, 5), (5, 2), (2,))),
    Case("dense without bias", lambda x, w: nn.dense(x, w), tf.matmul, ((3, 5), (5, 2))),
    Case("flatten", nn.flatten, lambda x: tf.reshape(x, (x.shape[0], -1)), ((3, 2, 4),)),
    Case("flatten nothing", nn.flatten, lambda x: tf.reshape(x, (0, 8)), ((0, 2, 4),)),
]


def convolution(image: Any, kernel: Any, padding: Any = "VALID", groups: int = 1, **options: Any) -> Case:
    def real(x: Any, w: Any) -> Any:
        pads = padding if isinstance(padding, str) else [(0, 0), *padding, (0, 0)]
        # Group by group: an oracle that does not share TensorFlow's own idea of groups.
        pairs = zip(tf.split(x, groups, 3), tf.split(w, groups, 3), strict=True)
        return tf.concat(
            [tf.nn.conv2d(a, b, options.get("strides", 1), pads, dilations=options.get("dilations")) for a, b in pairs],
            3,
        )

    def program(x: Any, w: Any) -> Any:
        return nn.conv2d(x, w, padding=padding, groups=groups, **options)

    return Case(f"conv2d {image} {kernel} {padding} {groups} {options}", program, real, (image, kernel))


def depthwise(image: Any, kernel: Any, padding: str, strides: int = 1, dilations: int = 1) -> Case:
    def real(x: Any, w: Any) -> Any:
        # Channel by channel, as TensorFlow's own takes no strides with dilations.
        per_channel = [
            tf.nn.conv2d(x[..., c : c + 1], w[:, :, c : c + 1, :], strides, padding, dilations=dilations)
            for c in range(x.shape[3])
        ]
        return tf.concat(per_channel, 3)

    return Case(
        f"depthwise {image} {kernel} {padding} {strides} {dilations}",
        lambda x, w: nn.depthwise_conv2d(x, w, padding=padding, strides=strides, dilations=dilations),
        real,
        (image, kernel),
    )


CONVOLUTIONS = [
    convolution((2, 5, 6, 3), (3, 3, 3, 4)),
    convolution((1, 5, 6, 3), (3, 2, 3, 4), "SAME"),
    convolution((1, 1, 1, 1), (1, 1, 1, 1)),
    convolution((0, 4, 4, 2), (3, 3, 2, 2)),
    convolution((2, 7, 8, 2), (3, 3, 2, 3), "SAME", strides=2),
    convolution((1, 7, 8, 2), (3, 2, 2, 3), strides=(2, 3)),
    convolution((1, 9, 9, 2), (3, 3, 2, 3), dilations=2),
    convolution((1, 9, 8, 2), (3, 3, 2, 3), "SAME", dilations=(1, 2)),
    convolution((1, 9, 9, 2), (3, 3, 2, 2), strides=2, dilations=2),
    convolution((1, 5, 5, 4), (3, 3, 2, 6), groups=2),
    convolution((1, 5, 5, 3), (2, 2, 1, 6), "SAME", groups=3, strides=2),
    convolution((1, 4, 4, 2), (3, 3, 2, 2), ((2, 0), (1, 1))),
    Case(
        "conv2d with bias",
        lambda x, w, b: nn.conv2d(x, w, b, padding="SAME"),
        lambda x, w, b: tf.nn.conv2d(x, w, 1, "SAME") + b,
        ((1, 4, 4, 2), (3, 3, 2, 3), (3,)),
    ),
    depthwise((2, 5, 6, 3), (3, 3, 3, 1), "VALID"),
    depthwise((1, 5, 6, 3), (3, 2, 3, 2), "SAME"),
    depthwise((1, 7, 7, 2), (3, 3, 2, 2), "SAME", strides=2),
    depthwise((1, 9, 9, 2), (3, 3, 2, 1), "VALID", dilations=2),
    depthwise((1, 9, 9, 2), (3, 3, 2, 2), "VALID", strides=2, dilations=2),
]


def pooling(name: str, image: Any, size: Any, strides: Any, padding: str, real_units: float = 0) -> Case:
    ours, theirs = {
        "max_pool2d": (nn.max_pool2d, tf.nn.max_pool2d),
        "avg_pool2d": (nn.avg_pool2d, tf.nn.avg_pool2d),
    }[name]
    return Case(
        f"{name} {getattr(image, 'shape', image)} {size} {strides} {padding}",
        lambda x: ours(x, size, strides, padding),
        lambda x: theirs(x, size, size if strides is None else strides, padding),
        (image,),
        real_units=real_units,
    )


ALL_NEGATIVE = -1 - on_grid(np.random.default_rng(3).uniform(0, 2, (1, 5, 5, 2)))
POOLS = [
    pooling("max_pool2d", (2, 4, 6, 3), 2, None, "VALID"),
    pooling("max_pool2d", (1, 5, 5, 2), 3, 1, "VALID"),
    pooling("max_pool2d", (1, 5, 6, 2), (3, 2), (2, 1), "SAME"),
    pooling("max_pool2d", ALL_NEGATIVE, 3, 2, "SAME"),
    pooling("max_pool2d", ALL_NEGATIVE, 2, None, "SAME"),
    pooling("max_pool2d", (1, 3, 3, 1), 1, 1, "VALID"),
    pooling("max_pool2d", (1, 7, 7, 1), (1, 7), 1, "VALID"),
    pooling("max_pool2d", (1, 7, 7, 1), 5, 2, "SAME"),
    Case("max_pool2d of a product", lambda x: nn.max_pool2d(x * x), lambda x: tf.nn.max_pool2d(x * x, 2, 2, "VALID"),
         ((1, 4, 4, 2),)),
    Case("relu of max_pool2d of a product", lambda x, y: sf.relu(nn.max_pool2d(x * y)),
         lambda x, y: tf_relu(tf.nn.max_pool2d(x * y, 2, 2, "VALID")), ((1, 4, 4, 2), (1, 4, 4, 2)), 1, 1),
    pooling("avg_pool2d", (2, 4, 6, 3), 2, None, "VALID"),
    pooling("avg_pool2d", (1, 8, 8, 1), 4, None, "VALID"),
    pooling("avg_pool2d", (1, 5, 5, 2), 3, 1, "VALID", real_units=2),
    pooling("avg_pool2d", (1, 5, 6, 2), 3, 2, "SAME", real_units=7),
    pooling("avg_pool2d", (1, 5, 5, 2), 2, 2, "SAME", real_units=7),
    pooling("avg_pool2d", (1, 3, 3, 1), 1, 1, "VALID"),
    Case("avg_pool2d, then a product", lambda x: nn.avg_pool2d(x) * 0.5 * nn.avg_pool2d(x),
         lambda x: tf.nn.avg_pool2d(x, 2, 2, "VALID") ** 2 * 0.5, ((1, 4, 4, 2),), 3, 3),
    Case("global_avg_pool2d of 16", nn.global_avg_pool2d, lambda x: tf.reduce_mean(x, (1, 2)), ((2, 4, 4, 3),)),
    Case("global_avg_pool2d of 21, kept", lambda x: nn.global_avg_pool2d(x, keepdims=True),
         lambda x: tf.reduce_mean(x, (1, 2), True), ((2, 3, 7, 3),), real_units=3),
]  # fmt: skip

SMALL = on_grid(np.linspace(-1.5, 1.5, 67))
WIDE = on_grid(np.linspace(-3, 3, 131))


def polynomial_case(degree: int) -> Case:
    # With |c_k 4^k| <= 1 the documented error is 2 units a degree.
    scale = 4.0 ** -np.arange(degree + 1)
    c = np.random.default_rng(degree).uniform(-1, 1, degree + 1) * scale
    return Case(
        f"polynomial of degree {degree}",
        lambda x: nn.polynomial(x, c),
        lambda x: np.polyval(c[::-1], x.numpy()),
        (WIDE,),
        units=2 * degree,
        # A constant is rounded to the grid, too.
        real_units=2 * degree + 1,
    )


def polynomial_relu_case(degree: int) -> Case:
    c = relu_polynomial(degree, 3.0)
    units = 2 * degree * np.max(np.abs(c * 4.0 ** np.arange(degree + 1)))
    return Case(
        f"polynomial_relu of degree {degree}",
        lambda x: nn.polynomial_relu(x, degree),
        lambda x: np.polyval(c[::-1], x),
        (WIDE,),
        units=units,
        real_units=units,
    )


def normalise(x: Any, *statistics: Any) -> Any:
    gamma, beta, mean, variance = statistics
    return gamma * (x - mean) / np.sqrt(variance + 1e-3) + beta


STATISTICS = (np.array([1.0, -0.5, 2.0]), np.array([0.1, 0.2, -3.0]), np.array([0.0, 1.0, -1.0]), np.array([1, 0.5, 4]))
FUNCTIONS = [
    Case("relu of a signed range", sf.relu, tf_relu, (WITH_TIES,)),
    Case("relu of a matrix product", lambda x, y: sf.relu(x @ y), lambda x, y: tf_relu(tf.matmul(x, y)),
         ((5, 13), (13, 7)), 1, 1),
    Case("relu of a mean", lambda x: sf.relu(x / 4), lambda x: tf_relu(x / 4), ((9,),)),
    Case("relu6", nn.relu6, tf.nn.relu6, (on_grid(np.linspace(-3, 9, 73)),)),
    Case("clip", lambda x: nn.clip(x, -0.5, 1.25), lambda x: tf.clip_by_value(x, -0.5, 1.25), (WIDE,)),
    Case("relu of relu", lambda x: sf.relu(1 - sf.relu(x)), lambda x: tf_relu(1 - tf_relu(x)), (WIDE,)),
    Case("select", lambda x, y: (x > y) * x + (x <= y) * y, tf.maximum, (WITH_TIES, TIED)),
    Case("square", lambda x: x * x, tf.square, (SMALL,)),
    *(same(f"power {n}", lambda x, n=n: x**n, SMALL, units=3 * (n - 2) * (n > 2) + n // 5 * 6,
           real_units=3 * (n - 2) * (n > 2) + n // 5 * 6) for n in EXPONENTS),
    *map(polynomial_case, range(9)),
    *map(polynomial_relu_case, range(1, 9)),
    Case("polynomial with trailing zeros", lambda x: nn.polynomial(x, [1, 2, 0, 0]), lambda x: 1 + 2 * x, (WIDE,),
         4, 4),
    Case("batch_norm", lambda x: nn.batch_norm(x, *STATISTICS), lambda x: normalise(x, *STATISTICS), ((4, 3),),
         real_units=3),
]  # fmt: skip

COMPARISONS = [
    *compare("<", lambda x, y: x < y),
    *compare("<=", lambda x, y: x <= y),
    *compare(">", lambda x, y: x > y),
    *compare(">=", lambda x, y: x >= y),
    *compare("==", lambda x, y: x == y),
    *compare("!=", lambda x, y: x != y),
]

PLAIN_CASES = [*LINEAR, *MATRICES, *CONVOLUTIONS, *POOLS, *FUNCTIONS, *COMPARISONS]
CASES = [*PLAIN_CASES, *(case for shape in SHAPES for case in elementwise(shape))]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
def test_an_operation_is_that_of_plain_and_of_tensorflow(protocol, case):
    check(run(protocol, case), case)


def test_names_of_cases_differ():
    assert len({case.name for case in CASES}) == len(CASES)


# Tracing takes most of the time: by default one of five, with --slow all of them.
@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=[pytest.mark.slow] if i % 5 else [], id=case.name) for i, case in enumerate(PLAIN_CASES)],
)
def test_an_operation_in_a_function(case):
    protocol = PROTOCOLS["exact"]

    @sf.function
    def traced(*xs):
        return case.program(*xs).reveal("receiver")

    inputs = shared(protocol, case.values())
    check(traced(*inputs).numpy(), case)
    # Another run has other masks and the same bounds.
    check(traced(*inputs).numpy(), case)


@pytest.mark.parametrize(("units", "name"), [(0, "relu of a matrix product"), (0, "x < y")])
def test_the_check_of_this_file_can_fail(units, name):
    case = next(case for case in PLAIN_CASES if case.name == name)
    got = run(PROTOCOLS["exact"], case)
    got.flat[0] += 3 * UNIT
    with pytest.raises(AssertionError, match="units apart"):
        check(got, case)


# --- sigmoid --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
def test_sigmoid_keeps_its_documented_error(protocol):
    values = on_grid(np.concatenate([np.linspace(-9, 9, 2001), [-1000.0, -100.0, 100.0, 1000.0]]))
    got = sf.sigmoid(*shared(protocol, [values])).reveal("receiver").numpy()
    assert np.max(np.abs(got - tf.sigmoid(tf.constant(values)).numpy())) < 2.5e-3


# --- how operands meet ----------------------------------------------------------------------------------------

OPERATIONS = {
    "add": (lambda x, y: x + y, np.add),
    "subtract": (lambda x, y: x - y, np.subtract),
    "multiply": (lambda x, y: x * y, np.multiply),
    "matmul": (lambda x, y: x @ y, np.matmul),
}
COMPARES = {
    "less": (lambda x, y: x < y, lambda x, y: (x < y).astype(float)),
    "equal": (lambda x, y: x == y, lambda x, y: (x == y).astype(float)),
}
X = on_grid([[1.5, -2.25, 0.5], [3.0, 0.0, -1.0], [0.25, 7.0, -0.125]])
Y = on_grid([[1.5, 2.0, -0.75], [-1.0, 0.0, 4.0], [2.5, 7.0, 1.0]])


def kinds() -> dict[str, Callable[[np.ndarray], Any]]:
    return {
        "array": lambda v: v,
        "float32 array": lambda v: v.astype(np.float32),
        "list": lambda v: v.tolist(),
        "tensor": tf.constant,
        "float32 tensor": lambda v: tf.constant(v, tf.float32),
        "TensorFlow variable": tf.Variable,
        "another party's": lambda v: sf.private_tensor(v, "bob"),
        "another party's float32": lambda v: sf.private_tensor(v.astype(np.float32), "bob"),
        "shared": lambda v: sf.private_tensor(v, "bob").shared(sf.SPDZ()),
        "private variable": lambda v: sf.PrivateVariable(sf.private_tensor(v, "bob")),
        "a server's": lambda v: sf.private_tensor(v, "server1"),
    }


@pytest.mark.parametrize("operation", {**OPERATIONS, **COMPARES})
@pytest.mark.parametrize("kind", kinds())
@pytest.mark.parametrize("form", ["owned", "shared", "variable"])
def test_every_kind_of_operand_meets_every_other(operation, kind, form):
    ours, theirs = {**OPERATIONS, **COMPARES}[operation]
    owned = sf.private_tensor(X, "alice")
    x = {"owned": owned, "shared": owned.shared(sf.SPDZ())}.get(form)
    x = sf.PrivateVariable(owned) if form == "variable" else x
    y = kinds()[kind](Y)
    at_most(0, ours(x, y).reveal("receiver").numpy(), theirs(X, Y))
    if isinstance(y, (tf.Tensor, tf.Variable)) and operation in COMPARES:
        # TensorFlow never asks its right operand about a comparison; it says so, and reveals nothing.
        with pytest.raises(sf.errors.NotRevealedError):
            ours(y, x)
    else:
        at_most(0, ours(y, x).reveal("receiver").numpy(), theirs(Y, X))


@pytest.mark.parametrize("number", [2, -3.5, np.float32(0.5), np.int64(4), True, tf.constant(1.25), np.array(2.0)])
def test_numbers_are_operands(number):
    x = sf.private_tensor(X, "alice").shared(sf.SPDZ())
    plain = float(number)
    for got, wanted in [
        (x + number, X + plain),
        (number + x, X + plain),
        (number - x, plain - X),
        (x * number, X * plain),
        (number * x, X * plain),
    ]:
        at_most(0, got.reveal("receiver").numpy(), wanted)
    at_most(2, (x / number).reveal("receiver").numpy(), X / plain)


@pytest.mark.parametrize("operation", {**OPERATIONS, **COMPARES})
def test_what_one_party_knows_it_computes_alone(operation):
    ours, theirs = {**OPERATIONS, **COMPARES}[operation]
    x, y = sf.private_tensor(X, "alice"), sf.private_tensor(Y, "alice")
    with sf.crossings() as crossed:
        for result, wanted in [(ours(x, y), theirs(X, Y)), (ours(x, Y), theirs(X, Y)), (ours(Y, x), theirs(Y, X))]:
            assert isinstance(result.share, Known)
            assert str(result.share.owner) == "alice"
            at_most(0, result.numpy(), wanted)
    assert crossed == []


OWN = [case for case in PLAIN_CASES if "conv2d" in case.name or "depthwise" in case.name or "pool" in case.name]


@pytest.mark.filterwarnings("ignore:When dilation rate is greater than 1")
@pytest.mark.parametrize("case", [*OWN, *MATRICES, *LINEAR, *FUNCTIONS], ids=lambda case: case.name)
def test_an_owner_computes_any_operation_in_plaintext(case):
    with sf.crossings() as crossed:
        result = case.program(*(sf.private_tensor(v, "alice") for v in case.values()))
        assert isinstance(result.share, Known)
        at_most(0, result.numpy().astype(np.float64), case.real(*map(tf.constant, case.values())))
    assert crossed == []


def test_batch_norm_is_folded_by_the_owner_of_its_parameters():
    x = on_grid(np.random.default_rng(1).uniform(-3, 3, (5, 3)))
    parameters = [sf.private_tensor(p, "model-owner") for p in STATISTICS]
    got = nn.batch_norm(sf.private_tensor(x, "input-owner"), *parameters)
    at_most(3, got.reveal("receiver").numpy(), normalise(x, *STATISTICS))
    with pytest.raises(sf.errors.PlacementError, match="folded by the owner"):
        nn.batch_norm(x, *parameters[:3], parameters[3].shared(sf.SPDZ()))
    with pytest.raises(sf.errors.PlacementError, match="several parties"):
        nn.batch_norm(x, *parameters[:3], sf.private_tensor(STATISTICS[3], "another"))


def test_a_value_is_shared_and_masked_once_however_often_it_is_used():
    x, y = sf.private_tensor(X, "alice"), sf.private_tensor(Y, "bob")
    with sf.crossings() as crossed:
        x @ y, x * y, sf.relu(x - y), x > y, y @ x
    kinds = [(c.kind.value, str(c.source)) for c in crossed if c.kind.value in ("input", "opening")]
    assert kinds.count(("input", "alice")) == 1
    assert kinds.count(("input", "bob")) == 1
    words = [c.value.numpy() for c in crossed if c.kind.value == "opening" and c.value.shape == X.shape]
    # x and y: one opening each, two messages.
    assert len(words) == 4


def test_a_square_of_a_product_is_truncated_and_masked_once():
    x = sf.private_tensor(X, "alice").shared(sf.SPDZ())
    y = x * x
    with sf.crossings() as crossed:
        y * y
    assert [c.kind.value for c in crossed].count("opening") == 4, "the product for its truncation, and the result"


# --- extremes -------------------------------------------------------------------------------------------------


def ring_tensor(words: Any, bits: int = 16, protocol: Any = None) -> sf.PrivateTensor:
    """A shared tensor of given ring elements, whatever their size."""
    protocol = protocol or sf.SPDZ()
    zero = sf.private_tensor(np.zeros(np.shape(words)), "alice").shared(protocol)
    return sf.PrivateTensor(zero.add_ring(np.asarray(words, np.int64)).share, bits, protocol)


def ring_words(x: sf.PrivateTensor) -> np.ndarray:
    return x.protocol.reveal(x.share, sf.Party("receiver")).numpy()


EDGES = np.array(
    sorted(
        {sign * (2**k + d) for k in (*range(0, 62, 3), 15, 16, 17, 31, 32, 61) for d in (-1, 0, 1) for sign in (1, -1)}
        | {0, 2**62 - 1, -(2**62) + 1, 2**62 - 2**16, 2**62 - 2**16 - 1, -(2**62) + 2**16}
    ),
    dtype=np.int64,
)


@pytest.mark.parametrize("bits", [1, 2, 8, 16, 24, 32, 47])
def test_exact_wrap_truncation_is_within_a_unit_up_to_2_to_the_62(bits, rng):
    # The offset that centres the error takes 2^bits of the range.
    limit = 2**62 - 2 ** (bits + 1)
    random = rng.integers(-limit, limit, 4000)
    words = np.concatenate([EDGES[np.abs(EDGES) <= limit], random, [limit, -limit]])
    got = ring_words(ring_tensor(words, bits + 8).at_scale(8))
    exact = [int(word) for word in words]
    for word, result in zip(exact, got.tolist(), strict=True):
        # A multiple of 2^bits is one unit high with probability 2^-bits; nothing else is a whole unit off.
        assert -(1 << bits) < (result << bits) - word <= 1 << bits, f"{word} / 2^{bits} became {result}"


def test_optimistic_truncation_is_within_a_unit_for_small_values(rng):
    words = rng.integers(-(2**36), 2**36, 20000)
    got = ring_words(ring_tensor(words, 32, PROTOCOLS["optimistic"]).at_scale(16))
    assert np.max(np.abs(got * 2.0**16 - words)) <= 2**16


def test_optimistic_truncation_fails_as_often_as_documented():
    # |z| = 2^61: an eighth of the elements wrap; exact-wrap is right on all.
    words = np.full(4000, 2**61)
    got = ring_words(ring_tensor(words, 32, PROTOCOLS["optimistic"]).at_scale(16))
    wrong = np.abs(got - 2.0**45) > 1
    assert abs(wrong.mean() - 1 / 8) < 4 * np.sqrt(1 / 8 * 7 / 8 / 4000)
    # A wrong one is off by 2^(64 - 16).
    assert np.all(np.abs(np.abs(got[wrong] - 2.0**45) - 2.0**48) <= 1)
    exact = ring_words(ring_tensor(words, 32).at_scale(16))
    assert np.max(np.abs(exact - 2**45)) <= 1


@pytest.mark.parametrize("name", ["exact", "optimistic"])
@pytest.mark.parametrize("fraction", [0.0, 0.125, 0.5, 0.9, 1 - 2**-16])
@pytest.mark.parametrize("sign", [1, -1])
def test_truncation_has_no_bias(name, fraction, sign):
    count = 20000
    word = sign * (5 * 2**16 + round(fraction * 2**16))
    got = ring_words(ring_tensor(np.full(count, word), 32, PROTOCOLS[name]).at_scale(16))
    error = got - word / 2**16
    assert np.max(np.abs(error)) <= 1
    if name == "exact":
        deviation = np.sqrt(max(fraction * (1 - fraction), 2**-15) / count)
        assert abs(error.mean()) < 4 * deviation
    else:
        # Shifting two shares rounds up or down by chance too; its mean is the value as well.
        assert abs(error.mean()) < 4 * np.sqrt(0.5 / count)


@pytest.mark.parametrize("name", ["exact", "carry 2 (4, 8)", "carry 3 (3, 7)", "carry 6 (2, 6)"])
def test_the_sign_is_right_at_every_edge(name, rng):
    protocol = PROTOCOLS[name]
    random = rng.integers(-(2**63), 2**63 - 1, 2000)
    words = np.concatenate([EDGES, random, [2**63 - 1, -(2**63), -(2**63) + 1, 0, 1, -1]])
    x = ring_tensor(words, 16, protocol)
    np.testing.assert_array_equal((x >= 0).reveal("receiver").numpy(), words >= 0)
    fits = words[np.abs(words.astype(np.float64)) < 2**62]
    np.testing.assert_array_equal(ring_words(sf.relu(ring_tensor(fits, 16, protocol))), np.maximum(fits, 0))


@pytest.mark.parametrize("name", ["exact", "carry 2 (4, 8)"])
@pytest.mark.parametrize("bits", [1, 16, 20])
def test_relu_with_truncation_is_right_at_every_edge(name, bits):
    limit = 2**62 - 2 ** (bits + 1)
    words = EDGES[np.abs(EDGES) <= limit]
    x = ring_tensor(words, 16 + bits, PROTOCOLS[name])
    share = x.protocol.apply(RELU, x.share, bits=bits, size=SIGN_BITS)
    got = ring_words(sf.PrivateTensor(share, 16, x.protocol)).tolist()
    for word, result in zip(map(int, words), got, strict=True):
        assert -(1 << bits) < (result << bits) - max(word, 0) <= 1 << bits
        assert word >= 0 or result == 0, "a negative value gives exactly 0"


@pytest.mark.parametrize("bits", [8, 12, 16, 20, 24])
def test_every_number_of_fractional_bits(bits):
    point = sf.FixedPoint(bits)
    unit, protocol = 2.0**-bits, sf.SPDZ(fixed_point=point)
    x, y = (on_grid(np.random.default_rng(seed).uniform(-3, 3, (6, 6)), bits) for seed in (1, 2))
    a, b = shared(protocol, [x, y])
    with protocol:
        at_most(0, (a + b).reveal("receiver").numpy(), x + y)
        at_most(0, (a @ b).reveal("receiver").numpy(), x @ y)
        at_most(1, sf.relu(a * b).reveal("receiver").numpy(), np.maximum(x * y, 0), unit)
        at_most(4, (a * b * a).reveal("receiver").numpy(), x * y * x, unit)
        at_most(0, (a < b).reveal("receiver").numpy(), x < y)
        at_most(6, nn.polynomial(a, [0.5, 0.25, 1 / 16, 1 / 64]).reveal("receiver").numpy(),
                0.5 + 0.25 * x + x**2 / 16 + x**3 / 64, unit)  # fmt: skip
        # A product has 3 more bits here than a square's limit: the largest values there are.
        top = np.array([point.limit, -point.limit, point.limit - unit, 0.0])
        at_most(0, sf.private_tensor(top, "a").shared(protocol).reveal("receiver").numpy(), top)
        largest = sf.private_tensor(top, "a").shared(protocol)
        at_most(0, sf.relu(largest).reveal("receiver").numpy(), np.maximum(top, 0))
        at_most(0, (largest > largest[1]).reveal("receiver").numpy(), top > top[1])
    with pytest.raises(sf.errors.EncodingError, match=re.escape(f"at most {point.limit:g} in size")):
        sf.private_tensor(2 * point.limit, "a").shared(protocol)


def test_a_product_up_to_2_to_the_30_survives_its_truncation():
    top = np.array([2.0**30 - 1, -(2.0**30) + 1, 2.0**29])
    x = sf.private_tensor(top, "alice").shared(sf.SPDZ())
    one = sf.private_tensor(np.ones(3), "bob").shared(sf.SPDZ())
    at_most(1, (x * one * one).reveal("receiver").numpy(), top)
    at_most(1, sf.relu(x * one).reveal("receiver").numpy(), np.maximum(top, 0))


# --- laws -----------------------------------------------------------------------------------------------------

FEW = settings(derandomize=True, deadline=None, max_examples=15)
NUMBERS = st.integers(-(2**20), 2**20).map(lambda word: word * UNIT)


def arrays(*shape: int) -> st.SearchStrategy[np.ndarray]:
    return hnp.arrays(np.float64, shape, elements=NUMBERS)


ANY_SHAPE = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5)
ANY_ARRAY = hnp.arrays(np.float64, ANY_SHAPE, elements=NUMBERS)


def secret(value: np.ndarray, owner: str = "alice") -> sf.PrivateTensor:
    return sf.private_tensor(value, owner).shared(sf.SPDZ())


def value(x: sf.PrivateTensor) -> np.ndarray:
    return x.reveal("receiver").numpy()


@FEW
@given(arrays(7), arrays(7))
def test_products_and_sums_commute(x, y):
    a, b = secret(x), secret(y, "bob")
    np.testing.assert_array_equal(value(a * b), value(b * a))
    np.testing.assert_array_equal(value(a + b), value(b + a))
    np.testing.assert_array_equal(value(a @ b), value(b @ a))
    np.testing.assert_array_equal(value(a - b), -value(b - a))


@FEW
@given(arrays(2, 3), arrays(3, 4), arrays(3, 4))
def test_a_matrix_product_distributes(x, y, z):
    a, b, c = secret(x), secret(y, "bob"), secret(z, "carol")
    np.testing.assert_array_equal(value(a @ (b + c)), value(a @ b + a @ c))
    # After truncation, to one unit each.
    at_most(3, value(sf.relu(a @ (b + c))), value(sf.relu(a @ b + a @ c)))


@FEW
@given(ANY_ARRAY)
def test_relu_of_x_less_relu_of_minus_x_is_x(x):
    a = secret(x)
    np.testing.assert_array_equal(value(sf.relu(a) - sf.relu(-a)), x)
    assert np.all(value(sf.relu(a)) >= 0)
    np.testing.assert_array_equal(value(sf.relu(sf.relu(a))), value(sf.relu(a)))


@FEW
@given(ANY_ARRAY, NUMBERS)
def test_greater_and_at_most_exclude_each_other(x, c):
    a = secret(x)
    np.testing.assert_array_equal(value((a > c) + (a <= c)), np.ones(x.shape))
    np.testing.assert_array_equal(value((a >= c) - (a > c)), value(a == c))
    np.testing.assert_array_equal(value(a < c), value(-a > -c))


@FEW
@given(arrays(1, 4, 5, 2), st.integers(1, 3), st.integers(1, 3), st.sampled_from(["SAME", "VALID"]))
def test_a_maximum_is_one_of_its_window_and_none_is_larger(x, size, stride, padding):
    got = value(nn.max_pool2d(secret(x), size, stride, padding))
    np.testing.assert_array_equal(got, tf.nn.max_pool2d(x, size, stride, padding).numpy())
    assert np.isin(got, x).all()
    if size == stride == 1:
        np.testing.assert_array_equal(got, x)
    # At stride 1 each window holds its own first element.
    if stride == 1 and padding == "VALID":
        assert np.all(got >= x[:, : got.shape[1], : got.shape[2]])


@FEW
@given(arrays(2, 3, 4), st.permutations(range(3)))
def test_transposing_back_gives_the_same(x, order):
    back = np.argsort(order)
    np.testing.assert_array_equal(value(secret(x).transpose(order).transpose(back.tolist())), x)
    np.testing.assert_array_equal(value(secret(x).transpose(order)), x.transpose(order))


@FEW
@given(arrays(4, 3), st.integers(0, 4))
def test_concat_undoes_a_split(x, cut):
    a = secret(x)
    np.testing.assert_array_equal(value(sf.concat([a[:cut], a[cut:]], 0)), x)
    np.testing.assert_array_equal(value(sf.stack(list(a))), x)
    np.testing.assert_array_equal(value(sf.stack([a, a], 1)[:, 1]), x)


@FEW
@given(ANY_ARRAY)
def test_reveal_undoes_sharing(x):
    np.testing.assert_array_equal(value(secret(x)), x)
    np.testing.assert_array_equal(value(sf.PrivateVariable(secret(x))), x)
    np.testing.assert_array_equal(value(secret(x).reshape(-1) if x.size else secret(x).reshape(0)), x.reshape(-1))


@FEW
@given(arrays(5), st.integers(-12, 12), NUMBERS)
def test_a_division_by_a_power_of_two_is_exact(x, exponent, c):
    scaled = x / 2.0**exponent
    np.testing.assert_array_equal(value(secret(x) / 2.0**exponent), scaled)
    np.testing.assert_array_equal(value(secret(x) / 2.0**exponent + c), scaled + c)


# --- programs nobody thought of -------------------------------------------------------------------------------

# Each step takes two earlier 3 x 3 tensors and a constant; sizes stay near 1.
STEPS: list[Callable[[Any, Any, float], Any]] = [
    lambda a, b, c: a + b,
    lambda a, b, c: a - b,
    lambda a, b, c: a * b / 8,
    lambda a, b, c: -a,
    lambda a, b, c: c - a,
    lambda a, b, c: a * c,
    lambda a, b, c: a * 3 / 4,
    lambda a, b, c: a * 3e-4 + b,
    lambda a, b, c: a / 2,
    lambda a, b, c: a / 0.25 / 8,
    lambda a, b, c: a / 2.5,
    lambda a, b, c: a.T,
    lambda a, b, c: a @ b / 16,
    lambda a, b, c: np.array([[0, 1, 0], [0.5, 0, -1], [1, 1, 0]]) @ a / 2,
    lambda a, b, c: np.eye(3) * c - a,
    lambda a, b, c: sf.relu(a),
    lambda a, b, c: nn.relu6(a),
    lambda a, b, c: (a >= b + c) * b,
    lambda a, b, c: (a > c) + a * 0,
    lambda a, b, c: (a == a) * b,
    lambda a, b, c: a.reusable() if a.protocol else a,
    lambda a, b, c: sf.concat([a[1:], b[:1]], 0),
    lambda a, b, c: sf.stack([a[0], b[1], a[2]], 1),
    lambda a, b, c: a.mean(1, keepdims=True) + b,
    lambda a, b, c: a.sum(0) / 4 + b,
    lambda a, b, c: nn.max_pool2d(a.reshape(1, 3, 3, 1), 2, 1, "SAME").reshape(3, 3),
]


def random_program(protocol: Any, seed: int, share: bool, in_function: bool = False) -> np.ndarray:
    rng = np.random.default_rng(seed)
    inputs = [sf.private_tensor(on_grid(rng.uniform(-2, 2, (3, 3))), owner) for owner in ("alice", "bob", "alice")]
    count = rng.integers(3, 12)
    steps = [(rng.integers(len(STEPS)), rng.integers(100, size=2), on_grid(rng.uniform(-2, 2))) for _ in range(count)]

    def program(*tensors: Any) -> Any:
        made = list(tensors)
        for step, (i, j), constant in steps:
            made.append(STEPS[step](made[i % len(made)], made[j % len(made)], float(constant)))
        return made[-1].reveal("receiver")

    with protocol:
        tensors = [x.shared(protocol) for x in inputs] if share else inputs
        return (sf.function(program) if in_function else program)(*tensors).numpy()


@pytest.mark.parametrize("seed", range(25))
def test_a_random_program_is_that_of_plain(seed):
    wanted = random_program(sf.Plain(), seed, share=True)
    units = 20 * (1 + np.max(np.abs(wanted)))
    for protocol in (PROTOCOLS["exact"], PROTOCOLS["optimistic"]):
        for share in (True, False):
            at_most(units, random_program(protocol, seed, share), wanted)


@pytest.mark.parametrize("seed", [*range(3), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(3, 40))])
def test_a_random_program_in_a_function_is_that_of_plain(seed):
    wanted = random_program(sf.Plain(), seed, share=True)
    units = 20 * (1 + np.max(np.abs(wanted)))
    at_most(units, random_program(PROTOCOLS["exact"], seed, share=False, in_function=True), wanted)
