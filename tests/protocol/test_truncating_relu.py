"""ReLU that truncates: it compares the truncated value, on fewer bits, and is right up to the limits of truncation."""

import numpy as np
import pytest

import shareflow as sf
from shareflow.protocol.functionality.truncation import SIZE, ExactWrap
from shareflow.protocol.op import RELU
from shareflow.protocol.tensor import PrivateTensor

REPEATS = 64


def relu_of(ring, bits, size=63, spdz=None):
    """max(z, 0) / 2^bits of ring values z, REPEATS times each under masks of their own."""
    spdz = spdz or sf.SPDZ()
    z = np.repeat(np.array(ring, np.int64)[:, None], REPEATS, 1)
    zeros = sf.private_tensor(np.zeros(z.shape), "alice").shared(spdz, 32)
    share = spdz.apply(RELU, zeros.add_ring(z).share, bits=bits, size=size)
    return PrivateTensor(share, 0, spdz).reveal("bob").numpy()


def edges(bits, size):
    """Ring values around 0, around a unit, and at the ends of what is allowed."""
    low, high = (-(1 << SIZE), (1 << SIZE) - (1 << bits)) if size >= SIZE else (1 - (1 << size), 1 << size)
    unit = 1 << bits
    near = [0, 1, unit - 1, unit, unit + 1, 5 * unit + unit // 3]
    return [low, low + 1, high - 1, high - 2, high // 2, *near, *(-value for value in near)]


SIZES = [(16, 63), (16, 62), (1, 63), (32, 63), (16, 24), (16, 17), (16, 3), (40, 63)]


@pytest.mark.parametrize(("bits", "size"), SIZES)
def test_every_edge_is_rounded_to_a_neighbour_or_to_zero(bits, size):
    ring = [z for z in edges(bits, size) if abs(z) < 1 << min(size, SIZE) or (size >= SIZE and z == -(1 << SIZE))]
    found = relu_of(ring, bits, size)
    for z, row in zip(ring, found, strict=True):
        below = max(z >> bits, 0)
        # A revealed float64 holds 53 bits.
        allowed = {float(below), float(below + 1)} if z > 0 else {0.0, 1.0} if z == 0 else {0.0}
        assert set(row) <= allowed, (z, set(row))


def test_rounding_is_by_chance_in_proportion():
    quarter = relu_of([5 * 65536 + 16384] * 50, 16)
    assert set(np.unique(quarter)) == {5.0, 6.0}
    assert abs(quarter.mean() - 5.25) < 0.05


def test_a_chosen_layout_and_optimistic_truncation_still_agree():
    ring = [-(1 << 40), -70000, 70000, 1 << 40]
    for spdz in (sf.SPDZ(truncation=sf.Optimistic()), sf.SPDZ(comparison=sf.MaskedCarry(group=2, gates=(4, 8)))):
        found = relu_of(ring, 16, spdz=spdz)
        np.testing.assert_allclose(found.mean(1), np.maximum(ring, 0) / 65536, atol=1)
        assert not found[:2].any()


def test_the_compared_value_fits_in_the_bits_that_are_left():
    assert [ExactWrap.shifted_size(16, size) for size in (63, 62, 61, 24, 16, 3)] == [46, 46, 46, 9, 1, 1]
    # Below the sign of a word of 64 - f bits.
    assert all(ExactWrap.shifted_size(bits, 63) < 64 - bits for bits in range(1, 62))
