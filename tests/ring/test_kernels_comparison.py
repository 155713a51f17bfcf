"""The kernels of comparison by masked evaluation: bit for bit, by their definition, and as a whole."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from shareflow.ring import kernels, reference


@pytest.fixture(params=kernels.available())
def variant(request: pytest.FixtureRequest) -> Iterator[str]:
    with kernels.forced(request.param):
        yield request.param


def words(*shape: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng([seed, *shape])
    return rng.integers(-(2**63), 2**63 - 1, shape, np.int64, endpoint=True)


def assert_same(name: str, *args: Any, **kwargs: Any) -> None:
    got, want = getattr(kernels, name)(*args, **kwargs), getattr(reference, name)(*args, **kwargs)
    np.testing.assert_array_equal(got.numpy(), want.numpy(), strict=True)


def plane(count: int) -> int:
    return -(-count // 64)


def xor(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    return tf.bitwise.bitwise_xor(a, b)


def shares(x: Any, seed: int) -> list[tf.Tensor]:
    mask = words(*x.shape, seed=seed)
    return [tf.constant(mask), xor(tf.convert_to_tensor(x), mask)]


@pytest.mark.parametrize("group", range(2, 7))
@pytest.mark.parametrize(("bits", "spare"), [(63, 0), (63, 2), (1, 0), (20, 1), (32, 0)])
def test_groups(variant: str, bits: int, group: int, spare: int) -> None:
    groups = -(-bits // group) + spare
    how = {"bits": bits, "group": group, "groups": groups}
    for count in (0, 1, 130, 2049):
        assert_same("group_products", words(count), **how)
        products = words((1 << group) - 1, groups, plane(count))
        for leader in (False, True):
            assert_same("group_polynomials", words(count), products, **how, leader=leader)


@pytest.mark.parametrize("radix", range(2, 9))
@pytest.mark.parametrize("last", [False, True])
def test_gates(variant: str, radix: int, last: bool) -> None:
    how = {"radix": radix, "last": last}
    for count, width in [(1, 0), (1, 1), (3, 5), (2, 17)]:
        m, l_share = words(2, radix * count, width), words(2, radix * count, width, seed=1)
        products = words(kernels.gate_product_count(radix, last), count, width)
        assert_same("gate_products", l_share, **how)
        for leader in (False, True):
            assert_same("gate", m, l_share, products, **how, leader=leader)


def test_the_order_of_products() -> None:
    assert kernels.gate_terms(3, False) == [
        (0, 0b010),
        (0, 0b100),
        (0, 0b110),
        (1, 0b100),
        (None, 0b011),
        (None, 0b101),
        (None, 0b110),
        (None, 0b111),
    ]
    assert kernels.gate_terms(3, True)[4:] == [(None, 0b110)]
    assert (kernels.gate_product_count(4, False), kernels.gate_product_count(4, True)) == (22, 15)


def open_gate(values: tf.Tensor, radix: int, last: bool) -> tf.Tensor:
    """Both parties' gates on these values [2, radix * k, W], under random masks, opened."""
    mask = words(*values.shape, seed=last)
    m, l_shares = xor(values, mask), shares(mask, 1)
    products = shares(kernels.gate_products(mask, radix=radix, last=last), 2)
    results = [kernels.gate(m, l_shares[i], products[i], radix=radix, last=last, leader=i == 0) for i in (0, 1)]
    return xor(*results)


@pytest.mark.parametrize("radix", [2, 3, 4])
def test_gates_exhaustively(variant: str, radix: int) -> None:
    """All values of the inputs of one gate: the definition of G' and P'."""
    cases = 4**radix
    bits = (np.arange(cases)[:, np.newaxis] >> np.arange(2 * radix) & 1).astype(np.int64)
    values = tf.stack([kernels.pack_bits(bits[:, i]) for i in range(2 * radix)])
    values = tf.reshape(values, [2, radix, plane(cases)])
    g, p = bits[:, :radix], bits[:, radix:]
    generate = np.bitwise_xor.reduce([g[:, k] * p[:, k + 1 :].prod(1) for k in range(radix)])
    for last in (False, True):
        opened = open_gate(values, radix, last)
        np.testing.assert_array_equal(kernels.unpack_bits(opened[0, 0], [cases]), generate)
        if not last:
            np.testing.assert_array_equal(kernels.unpack_bits(opened[1, 0], [cases]), p.prod(1))


@pytest.mark.parametrize("group", [2, 3, 4])
def test_groups_exhaustively(variant: str, group: int) -> None:
    """All values of the bits of one group of alpha and a: G is their carry, P says whether one passes."""
    alpha, a = (x.ravel() for x in np.meshgrid(*[np.arange(1 << group, dtype=np.int64)] * 2))
    how = {"bits": group, "group": group, "groups": 1}
    products = shares(kernels.group_products(a, **how), 3)
    polynomials = xor(*(kernels.group_polynomials(alpha, products[i], **how, leader=i == 0) for i in (0, 1)))
    np.testing.assert_array_equal(kernels.unpack_bits(polynomials[0, 0], a.shape), alpha + a >> group)
    passes = (alpha ^ a) == (1 << group) - 1
    np.testing.assert_array_equal(kernels.unpack_bits(polynomials[1, 0], a.shape), passes)


@pytest.mark.parametrize(
    ("bits", "group", "radix"),
    [(63, 4, 4), (63, 3, 4), (63, 6, 4), (63, 2, 6), (63, 4, 8), (20, 2, 3), (5, 6, 2), (16, 4, 2)],
)
def test_the_steps_make_the_carry(variant: str, bits: int, group: int, radix: int) -> None:
    alpha, a = words(200, seed=1), words(200, seed=2)
    a[:50] = ~alpha[:50] + np.arange(50) % 3  # sums near 2^bits: carries through all groups
    groups = radix
    while groups * group < bits:
        groups *= radix
    how = {"bits": bits, "group": group, "groups": groups}
    products = shares(kernels.group_products(a, **how), 3)
    state = xor(*(kernels.group_polynomials(alpha, products[i], **how, leader=i == 0) for i in (0, 1)))
    while state.shape[0] == 2:
        state = open_gate(state, radix, last=state.shape[1] == radix)
    low = np.uint64(2**bits - 1)
    sums = (alpha.view(np.uint64) & low) + (a.view(np.uint64) & low)
    np.testing.assert_array_equal(kernels.unpack_bits(state[0, 0], [200]), sums >> np.uint64(bits))
