"""A value is truncated once for each scale, however many operations need it so."""

import numpy as np
import pytest

import shareflow as sf
from shareflow.party.send import Kind
from shareflow.protocol.functionality.truncation import Optimistic


def product(x, y):
    """A product, which has twice the encoding's fractional bits."""
    return x.shared(sf.SPDZ()) * y


def cost_of(compute, rng, shape=(64,)):
    x, y = (sf.private_tensor(rng.normal(size=shape), party) for party in ("alice", "bob"))

    @sf.function
    def traced(x, y):
        return compute(product(x, y)).reveal("carol")

    expected = compute(x.numpy() * y.numpy())
    assert np.allclose(traced(x, y).numpy(), expected, atol=1e-3)
    return traced.cost(x, y)


def test_two_products_of_one_value_truncate_and_mask_it_once(rng):
    weights = rng.normal(size=(2, 64))
    once = cost_of(lambda z: z * weights[0], rng)
    twice = cost_of(lambda z: z * weights[0] + z * weights[1], rng)
    assert (twice.rounds, twice.online_bytes, twice.offline_bytes) == (
        once.rounds,
        once.online_bytes,
        once.offline_bytes,
    )


def test_a_private_square_beside_a_product_opens_nothing_more(rng):
    weights = rng.normal(size=64)
    square = cost_of(lambda z: z * z, rng).bytes_by_kind()[Kind.OPENING]
    both = cost_of(lambda z: z * z + z * weights, rng).bytes_by_kind()[Kind.OPENING]
    assert both == square


def test_other_parts_of_a_value_are_truncated_for_themselves(rng):
    whole = cost_of(lambda z: z * 0.3, rng).bytes_by_kind()
    parts = cost_of(lambda z: z[:32] * 0.3 + z[32:] * 0.3, rng).bytes_by_kind()
    assert parts[Kind.CORRECTION] == whole[Kind.CORRECTION]


def test_each_scale_is_kept_for_itself(rng):
    x, y = (sf.private_tensor(rng.normal(size=8), party) for party in ("alice", "bob"))
    z = product(x, y)
    assert z.at_scale(16) is not z.at_scale(20)
    assert z.at_scale(16).share is z.at_scale(16).share
    assert z.at_scale(32) is z
    assert z.at_scale(40).share is z.at_scale(40).share
    for bits in (16, 20, 40):
        assert z.at_scale(bits).fractional_bits == bits
        revealed = z.at_scale(bits).reveal("carol").numpy()
        assert np.allclose(revealed, x.numpy() * y.numpy(), atol=1e-3)


def test_a_point_that_was_moved_shares_the_words_and_not_the_value(rng):
    x, y = (sf.private_tensor(rng.normal(size=8), party) for party in ("alice", "bob"))
    z = product(x, y)
    first = z.at_scale(16)
    halved = z.moved_point(1).at_scale(17)
    assert halved.share is first.share
    assert np.allclose(halved.reveal("carol").numpy() * 2, first.reveal("carol").numpy())
    assert z.moved_point(1).at_scale(16).share is not first.share


def test_a_graph_never_uses_what_another_kept(rng):
    x, y = (sf.private_tensor(rng.normal(size=8), party) for party in ("alice", "bob"))
    z = product(x, y)
    kept = z.at_scale(16).share
    seen = []

    @sf.function
    def inside(value):
        seen.append(value.at_scale(16).share)
        return value.at_scale(16).reveal("carol")

    assert np.allclose(inside(z).numpy(), x.numpy() * y.numpy(), atol=1e-3)
    assert all(share is not kept for share in seen)


@pytest.mark.parametrize("truncation", [None, Optimistic()])
def test_however_the_protocol_truncates(rng, truncation):
    protocol = sf.SPDZ() if truncation is None else sf.SPDZ(truncation=truncation)
    x = sf.private_tensor(rng.normal(size=16), "alice").shared(protocol)
    z = x * x
    total = z * 3.5 + z * 0.25 + z
    assert np.allclose(total.reveal("bob").numpy(), x.reveal("bob").numpy() ** 2 * 4.75, atol=2e-3)
