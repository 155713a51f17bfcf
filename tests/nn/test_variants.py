"""Variants of maxima and sorting give what the defaults give, on SPDZ and on Plain; each passes the audit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import shareflow as sf
from shareflow import nn
from shareflow.errors import ProtocolError
from shareflow.nn.ranking import RANKING, Maximum, Sorting, group_sizes
from shareflow.protocol.choices import NONE, Choices, current_choices
from shareflow.protocol.functionality.comparison import Compared, Layout, layout_for, layouts_for

BITS = 8  # |x - y| < 2^-8 in units of 2^-16
BOUND = 2.0**-8


def small(rng, *shape):
    return rng.integers(-100, 101, shape) * 2.0**-16


def run(program, x, protocol, choices):
    with choices, protocol:
        traced = sf.function(program)
        shared = sf.private_tensor(x, "owner").shared(protocol)
        results = traced(shared)
        if isinstance(protocol, sf.SPDZ):
            audit = traced.audit(shared)
            assert audit.passed, [finding.why for finding in audit.findings]
    return [result.reveal("reader").numpy() for result in results]


@pytest.mark.parametrize("protocol", [sf.SPDZ(), sf.Plain()], ids=["spdz", "plain"])
@pytest.mark.parametrize("widths", [(2, 2, 2, 2), (3, 4), (11,), (4, 3), (2, 6), (6, 2)])
def test_maxima_by_groups(widths, protocol, rng):
    x = small(rng, 11, 5)
    x[3] = x[7]
    x[:, 2] = 0.0
    choices = Choices(
        (
            (Maximum(11, 5, BITS, False), widths),
            (Maximum(11, 5, BITS, True), widths),
        )
    )
    largest, place = run(lambda x: (nn.reduce_max(x, 0, bound=BOUND), nn.argmax(x, 0, BOUND)), x, protocol, choices)
    np.testing.assert_array_equal(largest, x.max(0))
    np.testing.assert_array_equal(place, x.argmax(0))


@pytest.mark.parametrize("protocol", [sf.SPDZ(), sf.Plain()], ids=["spdz", "plain"])
@pytest.mark.parametrize(("count", "first"), [(2, 1), (2, 2), (3, 2), (7, 7), (9, 4)])
def test_order_by_ranks(count, first, protocol, rng):
    x = small(rng, 4, count)
    x[2] = 0.0
    choices = Choices(
        (
            (Sorting(count, 4, BITS, first, True), RANKING),
            (Sorting(count, 4, BITS, count, False), RANKING),
        )
    )
    both = run(lambda x: (*nn.top_k(x, first, 1, BOUND), nn.sort(x, 1, bound=BOUND)), x, protocol, choices)
    order = np.argsort(-x, 1, kind="stable")[:, :first]
    np.testing.assert_array_equal(both[0], np.take_along_axis(x, order, 1))
    np.testing.assert_array_equal(both[1], order)
    np.testing.assert_array_equal(both[2], np.sort(x, 1))


@settings(max_examples=12, deadline=None)
@given(st.data())
def test_any_grouping_gives_the_maximum(data):
    count = data.draw(st.integers(2, 20))
    widths, left = [], count
    while left > 1:
        widths.append(data.draw(st.integers(2, left)))
        left = -(-left // widths[-1])
    x = np.array(data.draw(st.lists(st.integers(-3, 3), min_size=count, max_size=count))) * 2.0**-16
    choices = Choices(((Maximum(count, 1, 63, True), tuple(widths)),))
    with sf.insecure_session(seed=3):
        (place,) = run(lambda x: (nn.argmax(x, 0),), x, sf.SPDZ(), choices)
    assert place == x.argmax()


@pytest.mark.parametrize("bits", [1, 2, 3, 5, 6, 7, 13, 20])
def test_every_layout_compares(bits, rng):
    x = rng.integers(min(2 - 2**bits, 0), 2**bits, 130) * 2.0**-16
    x[:2] = 0.0, 2.0**-16
    layouts = layouts_for(bits)
    assert layout_for(bits, "balanced") in layouts and all(layout.covers >= bits for layout in layouts)
    if bits > 6:
        layouts = layouts[:: max(len(layouts) // 6, 1)]
    else:
        assert not layouts[0].gates and layouts[0].rounds == 1
    for layout in layouts:
        choices = Choices(((Compared(bits, 130), layout), (Compared(bits, 130, 2), layout)))

        def program(x):
            return sf.non_negative(x, 2.0 ** (bits - 16)), *sf.at_least(x, [0.0, 2.0**-16], 2.0 ** (bits - 16))

        not_below, again, above = run(program, x, sf.SPDZ(), choices)
        np.testing.assert_array_equal(not_below, x >= 0)
        np.testing.assert_array_equal(again, x >= 0)
        np.testing.assert_array_equal(above, x > 0)


def test_choices_are_of_the_innermost_block():
    outer, inner = (Choices(((Compared(2, 1), Layout(group, ())),)) for group in (2, 3))
    assert current_choices() is NONE and not NONE and str(NONE) == "defaults"
    with outer:
        with inner:
            assert current_choices() is inner
        assert current_choices() is outer
    assert current_choices() is NONE
    assert str(inner) == "compare 2 bits of 1: groups of 3, gates none"


def test_functions_are_traced_for_their_choices(rng):
    x = sf.private_tensor(small(rng, 50), "owner").shared(sf.SPDZ())
    program = sf.function(lambda x: nn.reduce_max(x, bound=BOUND))
    default = program.cost(x).rounds
    with Choices(((Maximum(50, 1, BITS, False), (50,)),)):
        assert program.cost(x).rounds < default
    assert program.cost(x).rounds == default


@pytest.mark.parametrize(
    ("site", "variant"),
    [
        (Compared(63, 4), Layout(4, (4, 3))),
        (Compared(63, 4), Layout(7, (4, 4))),
        (Compared(63, 4), Layout(4, (9, 9))),
        (Compared(7, 4), Layout(6, ())),
        (Compared(7, 4), "latency"),
        (Maximum(10, 1, 63, True), (2, 2)),
        (Maximum(10, 1, 63, True), (10, 2)),
        (Maximum(10, 1, 63, True), (1, 10)),
        (Maximum(10, 1, 63, True), "tree"),
        (Maximum(10, 1, 63, True), (2.0, 5)),
        (Sorting(10, 1, 63, 10, True), "bubble"),
    ],
)
def test_unknown_variants_are_refused(site, variant):
    with pytest.raises(ProtocolError, match=r"takes|goes by"):
        Choices(((site, variant),))


def test_a_site_is_named_once():
    pair = (Compared(2, 1), Layout(2, ()))
    with pytest.raises(ProtocolError, match="once"):
        Choices((pair, pair))
    with pytest.raises(ProtocolError, match="no site"):
        Choices((("compare", Layout(2, ())),))


@pytest.mark.parametrize(("count", "width"), [(10, 3), (9, 3), (7, 7), (1000, 32), (5, 4)])
def test_groups_are_of_about_one_size(count, width):
    groups = group_sizes(count, width)
    assert sum(number * size for number, size in groups) == count
    assert sum(number for number, _ in groups) == -(-count // width)
    assert max(size for _, size in groups) <= width and len({size for _, size in groups}) == len(groups)
