"""Every native kernel, in every instruction set of this CPU, against the reference: bit for bit.

The AMX engine is also tested where the CPU has no AMX: its code, on a software model of the tile instructions.
"""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from shareflow.errors import RandomnessError
from shareflow.ring import kernels, reference

NATIVE = [name for name in kernels.available() if name != "tensorflow"]
if "avx512" in NATIVE:
    NATIVE.append("amx-emulated")
SIZES = [0, 1, 63, 64, 65, 511, 513, 4103]


@pytest.fixture(params=NATIVE or [pytest.param("none", marks=pytest.mark.skip(reason="no native kernels"))])
def native(request: pytest.FixtureRequest) -> Iterator[str]:
    with kernels.forced(request.param):
        yield request.param


def words(*shape: int, seed: int = 0) -> np.ndarray:
    """Words that are uniform, but for a tenth of extremes."""
    rng = np.random.default_rng([seed, *shape])
    extremes = rng.choice(np.array([-(2**63), 2**63 - 1, -1, 0, 1], np.int64), shape)
    uniform = rng.integers(-(2**63), 2**63 - 1, shape, np.int64, endpoint=True)
    return np.where(rng.random(shape) < 0.1, extremes, uniform)


def assert_same(name: str, *args: Any, **kwargs: Any) -> None:
    got, want = getattr(kernels, name)(*args, **kwargs), getattr(reference, name)(*args, **kwargs)
    np.testing.assert_array_equal(got.numpy(), want.numpy(), strict=True)


def plane(count: int) -> int:
    return -(-count // 64)


# ---- bilinear ------------------------------------------------------------------------------------------------

SIZES_OF_PRODUCTS = [
    (0, 3, 4),
    (3, 0, 4),
    (3, 4, 0),
    (1, 1, 1),
    (1, 784, 128),
    (3, 70, 33),
    (8, 9, 1),
    (9, 5, 5),
    (13, 300, 1),
    (17, 64, 17),
    (33, 515, 66),
    (100, 257, 40),
    (210, 70, 300),
]


@pytest.mark.parametrize(("m", "k", "n"), SIZES_OF_PRODUCTS)
@pytest.mark.parametrize(("transpose_a", "transpose_b"), list(itertools.product([False, True], repeat=2)))
def test_matmul(native: str, m: int, k: int, n: int, transpose_a: bool, transpose_b: bool) -> None:
    a = words(k, m) if transpose_a else words(m, k)
    b = words(n, k, seed=1) if transpose_b else words(k, n, seed=1)
    assert_same("matmul", a, b, transpose_a, transpose_b)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((2, 1, 5, 6), (3, 6, 7)),
        ((4, 20, 30), (30, 20)),
        ((20, 30), (3, 30, 20)),
        ((3, 1, 20, 50), (1, 2, 50, 18)),
        ((0, 2, 3), (3, 4)),
        ((2, 0, 5, 6), (1, 6, 7)),
        ((3, 1, 7), (3, 7, 9)),
    ],
)
def test_matmul_broadcasts_batches(native: str, a: tuple[int, ...], b: tuple[int, ...]) -> None:
    assert_same("matmul", words(*a), words(*b, seed=1))


@pytest.mark.parametrize("value", [-1, -(2**63), 2**63 - 1, 255])
def test_matmul_of_extremes(native: str, value: int) -> None:
    """All bytes at their largest: where sums of partial products come nearest to overflow."""
    a = np.full((34, 1100), value, np.int64)
    want = np.array(value * value * 1100 % 2**64, np.uint64).astype(np.int64)
    assert (kernels.matmul(a, a, transpose_b=True).numpy() == want).all()


CONVOLUTIONS: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ((2, 12, 12, 1), (5, 5, 1, 20), {}),
    ((1, 12, 12, 20), (5, 5, 20, 50), {}),
    ((2, 9, 7, 6), (3, 2, 6, 4), {"strides": (2, 1), "padding": ((1, 2), (0, 1))}),
    ((2, 7, 8, 5), (3, 3, 5, 17), {"padding": ((1, 1), (1, 1))}),
    ((1, 14, 14, 3), (7, 7, 3, 9), {"strides": (2, 2), "padding": ((3, 3), (3, 3))}),
    ((1, 10, 11, 3), (3, 3, 3, 8), {"dilations": (2, 3), "padding": ((2, 2), (3, 3))}),
    ((1, 4, 4, 2), (3, 3, 2, 3), {"padding": ((9, 8), (7, 6))}),
    ((1, 6, 5, 70), (1, 1, 70, 40), {"strides": (2, 3)}),
    ((1, 5, 5, 2), (3, 3, 2, 0), {}),
    ((0, 5, 5, 2), (3, 3, 2, 2), {}),
    ((1, 5, 5, 0), (3, 3, 0, 2), {}),
    ((1, 2, 5, 3), (3, 3, 3, 2), {}),  # no window fits, by one line: zero lines
]


@pytest.mark.parametrize(("x", "w", "how"), CONVOLUTIONS)
def test_conv2d(native: str, x: tuple[int, ...], w: tuple[int, ...], how: dict[str, Any]) -> None:
    assert_same("conv2d", words(*x), words(*w, seed=1), **how)


@pytest.mark.parametrize("groups", [2, 3, 6])
@pytest.mark.parametrize("how", [{}, {"strides": (2, 2), "padding": ((1, 1), (2, 0)), "dilations": (1, 2)}])
def test_conv2d_in_groups(native: str, groups: int, how: dict[str, Any]) -> None:
    assert_same("conv2d", words(2, 8, 9, 12), words(3, 3, 12 // groups, 18, seed=1), groups=groups, **how)


@pytest.mark.parametrize("multiplier", [0, 1, 2, 9])
@pytest.mark.parametrize("how", [{}, {"strides": (2, 1), "padding": ((1, 1), (2, 0)), "dilations": (1, 2)}])
def test_depthwise_conv2d(native: str, multiplier: int, how: dict[str, Any]) -> None:
    assert_same("depthwise_conv2d", words(2, 8, 9, 13), words(3, 2, 13, multiplier, seed=1), **how)


def test_convolutions_are_those_of_tensorflow() -> None:
    """On small numbers, where float64 is exact: orders of channels, taps and strides."""
    rng = np.random.default_rng(0)
    x, w = rng.integers(-99, 99, (2, 9, 8, 6)), rng.integers(-99, 99, (3, 2, 6, 4))
    padding, strides = ((1, 2), (0, 1)), (2, 2)
    explicit = [[0, 0], *map(list, padding), [0, 0]]
    want = tf.nn.conv2d(x.astype(float), w.astype(float), strides, explicit)
    np.testing.assert_array_equal(kernels.conv2d(x, w, strides=strides, padding=padding), want)
    want = tf.nn.depthwise_conv2d(x.astype(float), w.astype(float), [1, *strides, 1], explicit)
    np.testing.assert_array_equal(kernels.depthwise_conv2d(x, w, strides=strides, padding=padding), want)


# ---- randomness ----------------------------------------------------------------------------------------------


def aes_stream(key: np.ndarray, execution: int, stream: int, count: int) -> np.ndarray:
    """The PRG by another implementation of AES."""
    blocks = b"".join(
        (stream << 32 | b).to_bytes(8, "little") + (execution % 2**64).to_bytes(8, "little")
        for b in range(-(-count // 2))
    )
    encryptor = Cipher(algorithms.AES(key.tobytes()), modes.ECB()).encryptor()
    return np.frombuffer(encryptor.update(blocks), np.int64)[:count]


@pytest.mark.parametrize("count", [*SIZES, 70_000])
def test_uniform(native: str, count: int) -> None:
    key = words(2, seed=count)
    for execution, stream in [(0, 0), (-1, 2**31 - 1), (2**63 - 1, 12345)]:
        got = kernels.uniform(key, execution, stream, [count]).numpy()
        np.testing.assert_array_equal(got, aes_stream(key, execution, stream, count), strict=True)


def test_uniform_of_the_reference() -> None:
    key = words(2)
    got = reference.uniform(key, -5, 7, [3, 5]).numpy()
    np.testing.assert_array_equal(got, aes_stream(key, -5, 7, 15).reshape(3, 5), strict=True)


# FIPS 197, appendix C.1; NIST SP 800-38A, F.1.1.
AES_VECTORS = [
    (
        "000102030405060708090a0b0c0d0e0f",
        "00112233445566778899aabbccddeeff",
        "69c4e0d86a7b0430d8cdb78070b4c55a",
    ),
    (
        "2b7e151628aed2a6abf7158809cf4f3c",
        "6bc1bee22e409f96e93d7e117393172a",
        "3ad77bb40d7a3660a89ecaf32466ef97",
    ),
]


@pytest.mark.parametrize(("key", "plain", "cipher"), AES_VECTORS)
def test_aes_of_the_reference(key: str, plain: str, cipher: str) -> None:
    key_words, block = (tf.constant(np.frombuffer(bytes.fromhex(x), np.int64)) for x in (key, plain))
    assert reference._aes_encrypt(key_words, block[tf.newaxis]).numpy().tobytes() == bytes.fromhex(cipher)


def test_uniform_refuses_what_would_repeat(native: str) -> None:
    @tf.function(input_signature=[tf.TensorSpec([], tf.int64)])
    def draw(stream: tf.Tensor) -> tf.Tensor:
        return kernels.uniform([1, 2], 0, stream, [4])

    for stream in (-1, 2**31):
        with pytest.raises(RandomnessError, match=r"a stream id must be in \[0, 2\^31\)"):
            kernels.uniform([1, 2], 0, stream, [4])
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"a stream id must be in \[0, 2\^31\)"):
            draw(stream)
    with pytest.raises(RandomnessError, match=r"at most 2\^33 elements"):
        kernels.uniform([1, 2], 0, 0, [2**33 + 1])


# ---- bits ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [*SIZES, 40_001])
def test_bits(native: str, count: int) -> None:
    x = words(count)
    assert_same("bit_planes", x)
    assert_same("pack_bits", x)
    assert_same("from_bit_planes", words(64, plane(count)), [count])
    assert_same("unpack_bits", words(plane(count)), [count])
    np.testing.assert_array_equal(kernels.from_bit_planes(kernels.bit_planes(x), x.shape), x)
    for bit in (0, 17, 63):
        row = kernels.bit_planes(x)[bit]
        np.testing.assert_array_equal(kernels.unpack_bits(row, x.shape), x >> bit & 1)
        np.testing.assert_array_equal(kernels.pack_bits(x >> bit), row)


def test_bits_of_any_shape(native: str) -> None:
    x = words(3, 5, 7)
    assert_same("bit_planes", x)
    assert_same("unpack_bits", kernels.pack_bits(x), [7, 5, 3])
    assert_same("unpack_bits", kernels.pack_bits(x[0, 0, 0]), [])


@pytest.mark.parametrize("amount", [0, 1, 31, 32, 63])
def test_shifts(native: str, amount: int) -> None:
    x = words(3, 43)
    for module in (kernels, reference):
        right = (x.view(np.uint64) >> np.uint64(amount)).view(np.int64)
        np.testing.assert_array_equal(module.shift_right_logical(x, amount), right)
        np.testing.assert_array_equal(module.shift_left(x, amount), x << amount)


# ---- one pass over elements ----------------------------------------------------------------------------------


@pytest.mark.parametrize("count", SIZES)
@pytest.mark.parametrize("leader", [False, True])
def test_elementwise(native: str, count: int, leader: bool) -> None:
    opened, *rest = (words(count, seed=seed) for seed in range(6))
    m = words(plane(count))
    for shift in (0, 1, 16, 62):
        assert_same("truncate_opened", opened, *rest[:2], shift=shift, leader=leader)
        assert_same("truncate_multiply_bit", opened, m, *rest, shift=shift, leader=leader)
    assert_same("multiply_bit", opened, rest[0], m, *rest[1:3], leader=leader)


def test_truncation_and_the_product_with_a_bit(native: str) -> None:
    """What the formulas are for, on shares of known values."""
    rng = np.random.default_rng(0)
    z, a, shift = rng.integers(-(2**62) + 1, 2**62 - 1, 500), words(500), 16
    d, mask = rng.integers(0, 2, 500), rng.integers(0, 2, 500)
    opened, m = z + 2**62 - a, kernels.pack_bits(d ^ mask)
    high, top = (reference.shift_right_logical(a, by).numpy() for by in (shift, 63))

    def split(x: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        share = words(*x.shape, seed=seed)
        return share, x - share

    parts = [split(x, i) for i, x in enumerate([high, top, mask, high * mask, top * mask, a, a * mask])]
    short, product, whole = 0, 0, 0
    for i, leader in ((0, True), (1, False)):
        t, v, l, tl, vl, a_share, al = (part[i] for part in parts)  # noqa: E741
        short += kernels.truncate_opened(opened, t, v, shift=shift, leader=leader).numpy()
        product += kernels.truncate_multiply_bit(opened, m, t, v, l, tl, vl, shift=shift, leader=leader).numpy()
        whole += kernels.multiply_bit(opened, a_share, m, l, al, leader=leader).numpy()
    assert np.abs(short - (z >> shift)).max() <= 1
    np.testing.assert_array_equal(product, short * d)
    np.testing.assert_array_equal(whole, (opened + a) * d)


# ---- threads and graphs --------------------------------------------------------------------------------------


def test_large_tensors(native: str) -> None:
    """Sizes that are split between threads, and written past the caches."""
    x, m = words(1 << 19), words(1 << 13)
    assert_same("bit_planes", x)
    assert_same("from_bit_planes", m.reshape(64, 128), [64 * 128])
    assert_same("group_products", x[: 1 << 17], bits=63, group=4, groups=16)
    assert_same("multiply_bit", x, x[::-1], m, x, x, leader=True)
    inputs, products = words(2, 16, 1 << 13), words(22, 4, 1 << 13)
    assert_same("gate_products", inputs, radix=4, last=False)
    assert_same("gate", inputs, inputs[::-1], products, radix=4, last=False, leader=True)


def test_shapes_are_known_in_graphs(native: str) -> None:
    traced: list[tf.TensorShape] = []

    @tf.function
    def run(x: tf.Tensor, w: tf.Tensor, image: tf.Tensor) -> list[tf.Tensor]:
        planes, packed = kernels.bit_planes(x), kernels.pack_bits(x)
        products = kernels.group_products(x, bits=63, group=4, groups=16)
        polynomials = kernels.group_polynomials(x, products, bits=63, group=4, groups=16, leader=True)
        masks = kernels.gate_products(polynomials, radix=4, last=False)
        results = [
            kernels.matmul(x, w),
            kernels.matmul(x, x, transpose_b=True),
            kernels.conv2d(image, words(3, 3, 3, 5), padding=((1, 1), (1, 1))),
            kernels.depthwise_conv2d(image, words(3, 3, 3, 2), strides=(2, 2)),
            kernels.uniform(x[0, :2], x[0, 0], 5, [2, 3]),
            planes,
            kernels.from_bit_planes(planes, [3, 50]),
            packed,
            kernels.unpack_bits(packed, [3, 50]),
            products,
            polynomials,
            masks,
            kernels.gate(polynomials, polynomials, masks, radix=4, last=False, leader=True),
            kernels.truncate_opened(x, x, x, shift=16, leader=True),
            kernels.multiply_bit(x, x, packed, x, x, leader=False),
            kernels.truncate_multiply_bit(x, packed, x, x, x, x, x, shift=16, leader=False),
            kernels.shift_left(x, 3),
        ]
        traced.extend(result.shape for result in results)
        return results

    results = run(words(3, 50), words(50, 4), words(2, 8, 8, 3))
    assert all(shape.is_fully_defined() for shape in traced)
    assert [result.shape for result in results] == traced
