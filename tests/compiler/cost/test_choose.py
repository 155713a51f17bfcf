"""The variants that are chosen are the best there are, by tracing them all; predictions follow the network."""

import math

import numpy as np
import pytest

import shareflow as sf
from shareflow import nn
from shareflow.compiler.cost.choose import choose, choose_plan
from shareflow.compiler.cost.decide import Decisions
from shareflow.compiler.cost.network import NETWORKS, Network
from shareflow.compiler.cost.predict import predict_program, seconds_of
from shareflow.compiler.cost.price import compare, maximum, sorting
from shareflow.compiler.cost.speeds import Speeds, shipped_speeds
from shareflow.compiler.cost.work import KINDS, work_of
from shareflow.errors import ConfigError, PlanError
from shareflow.nn.ranking import NETWORK, RANKING, Maximum, Sorting
from shareflow.protocol.choices import Choices
from shareflow.protocol.functionality.comparison import Compared, layout_for, layouts_for

SPDZ = sf.SPDZ()
# Apart from what a machine does, so that rounds and bytes alone decide.
NO_WORK = Speeds((0.0,) * len(KINDS), 0.0, 0.0, 0.0)
FAR, NARROW = Network(0.2, 1e9), Network(1e-5, 1e5)
LINES = [FAR, NARROW, NETWORKS["lan"], NETWORKS["wan"], Network(5e-3, 20e6)]


def shared(*shape, owner="owner"):
    return sf.private_tensor(np.zeros(shape), owner)


def seconds(program, x, choices, line, speeds, offline):
    with choices:
        traced = sf.function(program).trace(x)
    work = work_of(traced.program.graph, traced.program.outputs)
    return predict_program(traced.cost, work, SPDZ.servers, SPDZ.dealer, line, speeds, offline).seconds


@pytest.mark.parametrize("offline", [False, True])
@pytest.mark.parametrize("line", LINES, ids=str)
def test_the_layout_is_the_best_of_all_that_are_traced(line, offline):
    def program(x):
        return sf.non_negative(x.shared(SPDZ), 2.0**-6).reveal("reader")

    site, x = Compared(10, 70), shared(70)
    choice = choose(sf.function(program), x, network=line, offline=offline, speeds=NO_WORK)
    every = [seconds(program, x, Choices(((site, layout),)), line, NO_WORK, offline) for layout in layouts_for(10)]
    assert choice.prediction.seconds == pytest.approx(min(every), rel=1e-9)
    assert max(every) > min(every)


def test_every_grouping_is_looked_at():
    """All ways to make groups of 7 elements, with the best layouts inside each, priced; the choice is the least."""
    site = Maximum(7, 40, 20, True)
    for line in LINES:
        for offline in (False, True):
            decisions = Decisions(line, NO_WORK, offline)
            priced = {widths: decisions.seconds(maximum(site, widths, decisions)) for widths in [(), *_groupings(7)]}
            found = decisions.variant(site, ())
            assert priced[found] == pytest.approx(min(priced.values()), rel=1e-9), (line, offline, found)


def _groupings(count):
    if count == 1:
        return [()]
    return [(width, *rest) for width in range(2, count + 1) for rest in _groupings(-(-count // width))]


@pytest.mark.parametrize("line", LINES, ids=str)
@pytest.mark.parametrize(("count", "first"), [(5, 5), (16, 2), (16, 16)])
def test_the_way_to_sort_is_the_better_one(line, count, first):
    site = Sorting(count, 3, 63, first, True)
    decisions = Decisions(line, NO_WORK, False)
    found = decisions.variant(site, NETWORK)
    priced = {way: decisions.seconds(sorting(site, way, decisions)) for way in (NETWORK, RANKING)}
    assert priced[found] == min(priced.values())


def test_far_lines_take_few_rounds_and_narrow_ones_few_bytes():
    program = sf.function(lambda x: nn.argmax(x.shared(SPDZ)).reveal("reader"))
    far, narrow = (choose(program, shared(60), network=line, speeds=NO_WORK).chosen.cost for line in (FAR, NARROW))
    assert far.rounds < narrow.rounds and far.online_bytes > narrow.online_bytes


@pytest.mark.parametrize("speeds", [NO_WORK, shipped_speeds()], ids=["no work", "shipped"])
def test_predictions_grow_with_the_round_trip_and_fall_with_bandwidth(speeds):
    site = Compared(63, 500)
    price = compare(site, layout_for(63, "balanced"))
    trips = [seconds_of(price, Network(rtt, 1e8), speeds, True) for rtt in (0, 1e-3, 1e-2, 0.1)]
    assert trips == sorted(set(trips))
    widths = [seconds_of(price, Network(1e-3, bandwidth), speeds, True) for bandwidth in (1e6, 1e7, 1e8, 1e9)]
    assert widths == sorted(set(widths), reverse=True)
    program = sf.function(lambda x: (x.shared(SPDZ) > 0).reveal("reader"))
    found = [choose(program, shared(50), network=Network(rtt, 1e8)).prediction.seconds for rtt in (0, 1e-3, 1e-2)]
    assert found == sorted(set(found))


def test_a_choice_is_never_slower_than_the_default():
    # Two comparisons side by side: the sum over sites is not the whole's time.
    def program(x):
        x = x.shared(SPDZ).reusable()
        small, large = sf.non_negative(x, 2.0**-8), sf.non_negative(x[:8])
        return (small.sum() + large.sum()).reveal("reader")

    for line in (*NETWORKS, "3ms,5Mbit"):
        choice = choose(sf.function(program), shared(300), network=line)
        assert choice.prediction.seconds <= choice.default.prediction.seconds
        chosen = [one for one in choice.alternatives if one.chosen]
        assert {one.site for one in choice.alternatives} == {one.site for one in chosen}
        for one in choice.alternatives:
            assert one.seconds >= next(c.seconds for c in chosen if c.site == one.site)


def test_what_is_chosen_is_what_is_computed(rng):
    values = rng.permutation(40) / 4.0
    program = sf.function(lambda x: nn.argmax(x.shared(SPDZ)).reveal("reader"))
    x = sf.private_tensor(values, "owner")
    choice = choose(program, x, network="wan")
    assert choice.choices and choice(x).numpy() == values.argmax() == program(x).numpy()
    with choice.choices:
        assert program.cost(x) == choice.chosen.cost != choice.default.cost
        assert program.audit(x).passed
    text = "\n".join(choice.lines(choice.measure(repeats=1)))
    for part in ("predicted ", "by default ", "measured ", "waiting", "place of maximum of 40, 1 times, 63 bits: "):
        assert part in text


def test_in_one_process_nothing_waits_and_the_dealer_counts():
    program = sf.function(lambda x: (x.shared(SPDZ) > 0).reveal("reader"))
    here = choose(program, shared(50)).prediction
    assert here.latency == here.transfer == 0 and here.dealing > 0
    apart = choose(program, shared(50), network="loopback").prediction
    assert apart.dealing == 0 < apart.latency


def test_a_plan_names_its_choices():
    def predict(x):
        return nn.argmax(x.shared(SPDZ), -1).reveal("client")

    def make():
        entry = sf.Entry(predict, {"x": sf.Input("client", (20,))}, batch_sizes=[1, 4])
        return sf.plan({"predict": entry}, SPDZ)

    before = make()
    choice = choose_plan(make, SPDZ, "wan")
    settings = choice.plan.manifest.protocol.settings
    assert (
        "choices=" in settings and "Maximum(count=20, lines=4" in settings and "Maximum(count=20, lines=1," in settings
    )
    assert choice.plan.fingerprint != before.fingerprint == make().fingerprint
    assert "choices=" not in before.manifest.protocol.settings
    assert set(choice.chosen) == set(choice.default) == {"predict@1", "predict@4"}
    for name, outlook in choice.chosen.items():
        assert outlook.cost.rounds < choice.default[name].cost.rounds
    again = choose_plan(make, SPDZ, "wan").plan
    assert again.fingerprint == choice.plan.fingerprint


@pytest.mark.parametrize(
    ("text", "rtt", "bandwidth"),
    [
        ("lan", 0.3e-3, 1e9),
        (" WAN ", 40e-3, 100e6),
        ("40ms,100Mbit", 40e-3, 100e6),
        ("0.5s, 2 gbit/s", 0.5, 2e9),
        ("300us,64kbit", 300e-6, 64e3),
        ("12,50", 12e-3, 50e6),
    ],
)
def test_networks_in_words(text, rtt, bandwidth):
    line = Network.parse(text)
    assert (line.rtt, line.bandwidth, line.apart) == (pytest.approx(rtt), pytest.approx(bandwidth), True)
    assert Network.parse(line) is line


@pytest.mark.parametrize(
    "text", ["", "moon", "40ms", "40ms,", "ms,Mbit", "40m,100Mbit", "1,2,3", "-1ms,1Mbit", "1ms,0", "nan,1"]
)
def test_no_network(text):
    with pytest.raises(ConfigError, match="A network is one of here, loopback, lan, wan"):
        Network.parse(text)


@pytest.mark.parametrize(("rtt", "bandwidth"), [(-1.0, 1e6), (math.nan, 1e6), (math.inf, 1e6), (1.0, 0.0), (1.0, -5.0)])
def test_impossible_lines(rtt, bandwidth):
    with pytest.raises(ConfigError, match="round trip of zero seconds or more"):
        Network(rtt, bandwidth)


def test_only_traced_functions_are_chosen_for():
    with pytest.raises(PlanError, match=r"@sf\.function"):
        choose(lambda x: x, 1)
    with sf.Plain(), pytest.raises(PlanError, match="Variants are chosen for SPDZ"):
        choose(sf.function(lambda x: x), shared(3))
