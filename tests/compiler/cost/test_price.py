"""Closed formulas of rounds and bytes are those counted in traced graphs, exactly, for every variant."""

import numpy as np
import pytest

import shareflow as sf
from shareflow import nn
from shareflow.compiler.cost import price as pricing
from shareflow.compiler.cost.price import Comparisons, compare, layouts_to_weigh, maximum, sorting
from shareflow.compiler.cost.work import KINDS, work_of
from shareflow.nn.ranking import NETWORK, RANKING, Maximum, Sorting
from shareflow.protocol.choices import Choices, Chooser
from shareflow.protocol.functionality.comparison import Compared, Layout, layout_for, layouts_for
from shareflow.share.additive import Additive
from shareflow.share.masked import Masked

SPDZ = sf.SPDZ()


class Usual(Comparisons):
    """Comparisons in the layouts that they have without choices."""

    def price(self, site):
        return compare(site, layout_for(site.bits, "balanced"))


def masked(*shape):
    zeros = np.zeros(shape, np.int64)
    import tensorflow as tf

    t = [tf.constant(zeros) for _ in range(5)]
    share = Masked(SPDZ.servers, SPDZ.dealer, (t[0], t[1]), (t[2], t[3]), t[4])
    return sf.PrivateTensor(share, 16, SPDZ)


def additive(*shape):
    import tensorflow as tf

    parts = tuple(tf.constant(np.zeros(shape, np.int64)) for _ in range(2))
    return sf.PrivateTensor(Additive(SPDZ.servers, parts), 16, SPDZ)


def traced(program, x, choices):
    with choices:
        found = sf.function(program).trace(x)
    return found.cost, work_of(found.program.graph, found.program.outputs)


def assert_same(price, cost):
    assert (cost.rounds, cost.online_bytes, cost.offline_bytes) == (price.rounds, price.online, price.offline)


def assert_near(price, work, tolerance):
    dealing, computing = work.of("dealer"), work.others("dealer")
    for counted, formula in ((computing, price.computing), (dealing, price.dealing)):
        for kind, seen, said in zip(KINDS, counted, formula, strict=True):
            assert said == pytest.approx(seen, rel=tolerance, abs=60), (kind, seen, said)


@pytest.mark.parametrize("bits", [1, 3, 6, 9, 20])
@pytest.mark.parametrize("elements", [1, 64, 65, 1000])
def test_comparisons(bits, elements):
    layouts = layouts_for(bits)
    for layout in layouts[:: max(len(layouts) // 4, 1)]:
        for thresholds in (1, 3):
            site = Compared(bits, elements, thresholds)
            bound = 2.0 ** (bits - 16)

            def program(x, bound=bound, thresholds=thresholds):
                return sf.at_least(x, [0.0] * thresholds, bound)

            cost, work = traced(program, masked(elements), Choices(((site, layout),)))
            assert_same(compare(site, layout), cost)
            if elements == 1000:
                assert_near(compare(site, layout), work, 0.1)


@pytest.mark.parametrize("layout", layouts_for(63)[::23], ids=str)
def test_comparisons_of_whole_words(layout):
    site = Compared(63, 200)
    cost, work = traced(sf.non_negative, masked(200), Choices(((site, layout),)))
    assert_same(compare(site, layout), cost)
    assert_near(compare(site, layout), work, 0.1)


def test_thresholds_together_never_cost_more_than_apart():
    for bits in (8, 20, 63):
        for layout in layouts_for(bits):
            one, four = (compare(Compared(bits, 640, count), layout) for count in (1, 4))
            assert four.rounds == one.rounds and four.online == 4 * one.online and four.offline < 4 * one.offline


@pytest.mark.parametrize("bits", [1, 4, 10, 20, 46, 63])
def test_no_layout_that_is_left_out_is_better(bits):
    kept = [compare(Compared(bits, 64), layout) for layout in layouts_to_weigh(bits, 1)]
    for layout in layouts_for(bits):
        left = compare(Compared(bits, 64), layout)
        assert any(k.rounds <= left.rounds and k.online <= left.online and k.offline <= left.offline for k in kept)


@pytest.mark.parametrize("places", [False, True])
@pytest.mark.parametrize("widths", [(), (2, 2, 2, 2), (11,), (3, 4), (4, 3), (2, 6), (6, 2)], ids=str)
@pytest.mark.parametrize("lines", [1, 70])
def test_maxima(widths, places, lines):
    site = Maximum(11, lines, 63, places)
    program = (lambda x: nn.argmax(x, 0)) if places else (lambda x: nn.reduce_max(x, 0))
    cost, work = traced(program, additive(11, lines), Choices(((site, widths),)))
    assert_same(maximum(site, widths, Usual()), cost)
    if lines == 70:
        assert_near(maximum(site, widths, Usual()), work, 0.6)


@pytest.mark.parametrize("places", [False, True])
@pytest.mark.parametrize("variant", [NETWORK, RANKING])
@pytest.mark.parametrize(("count", "first"), [(2, 2), (7, 7), (8, 3), (9, 1)])
def test_sorting(variant, places, count, first):
    site = Sorting(count, 5, 63, first if places else count, places)
    program = (lambda x: nn.top_k(x, first, 0)) if places else (lambda x: nn.sort(x, 0, descending=True))
    cost, _ = traced(program, additive(count, 5), Choices(((site, variant),)))
    price = sorting(site, variant, Usual())
    # What is not among the first is not needed in the end: a network's last layers send less than they would.
    if variant == NETWORK and site.first < count:
        assert cost.rounds <= price.rounds and cost.online_bytes <= price.online
    else:
        assert_same(price, cost)


def test_a_chooser_is_asked_for_every_site():
    asked = []

    class Asking(Chooser):
        table = ()

        def variant(self, site, default):
            asked.append(site)
            return default

    with Asking():
        sf.function(lambda x: nn.top_k(x, 2, 0)).trace(additive(4, 3))
        sf.function(lambda x: sf.relu(x)).trace(additive(4, 3))
    assert asked[0] == Sorting(4, 3, 63, 2, True)
    assert {type(site) for site in asked[1:]} == {Compared} and asked[-1] == Compared(63, 12)


def test_small_numbers():
    assert [pricing.small_bits(bound) for bound in (1, 2, 3, 4, 5, 9)] == [1, 1, 2, 2, 3, 4]
    assert Layout(4, (4, 4)).rounds == 3
