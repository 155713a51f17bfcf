"""Parties in network namespaces on lines that fall silent, are unplugged, or are slow: nobody is told, as in life."""

from __future__ import annotations

import contextlib
import time

import pytest
from benchmarks.namespaces import Line
from tests.runtime.faults.distant import CLIENTS, DEAD_AFTER, Said, distant
from tests.runtime.faults.parties import DEALER, FOLLOWER, GUARD, LEADER, SERVERS

pytestmark = pytest.mark.slow

OTHER = {LEADER: FOLLOWER, FOLLOWER: LEADER}
LOST = r"nothing was heard|connection .* was lost|time limit|no link to server1|lost the request"


def eventually(condition, seconds=GUARD):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it does not come to hold"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with distant(tmp_path_factory.mktemp("distant")) as made:
        yield made


@pytest.fixture
def three(running):
    """All are linked and serve, before and after each case."""
    dep, model = running
    yield running
    dep.disarm()
    ended = [party for party, process in dep.processes.items() if process.poll() is not None]
    if ended:
        dep.restart(*ended)
    dep.serves(model)


@pytest.mark.parametrize("at", [1, 2])
@pytest.mark.parametrize("party", SERVERS)
def test_a_line_between_the_servers_that_goes_silent_in_a_prediction(three, party, at):
    """The other server neither answers nor closes: both give it up, the client hears of it, nothing is used again."""
    dep, model = three
    with dep.held(party, "send", at) as await_it:
        asked = dep.ask(time_limit=15.0)
        await_it()
        with dep.cut(LEADER, FOLLOWER):
            dep.disarm(party)
            dep.fails(model, asked, LOST)
            eventually(lambda: {dep.peers(s)[OTHER[s]] for s in SERVERS} == {"lost"})
            dep.fails(model, dep.ask(time_limit=15.0), "no link to server1")
            waits = dep.ask("patient", time_limit=40.0)
    dep.predicts(model, waits)


@pytest.mark.parametrize("source", SERVERS)
def test_a_line_that_carries_one_way_only(three, source):
    dep, model = three
    with dep.held(source, "send") as await_it:
        asked = dep.ask(time_limit=15.0)
        await_it()
        with dep.cut_one_way(source, OTHER[source]):
            dep.disarm(source)
            dep.fails(model, asked, LOST)
            dep.fails(model, dep.ask(time_limit=15.0), LOST)


@pytest.mark.parametrize("party", SERVERS)
def test_a_short_silence_is_made_good(three, party):
    """Shorter than anybody's patience: packets are sent again, and the prediction comes to its end."""
    dep, model = three
    before = {server: failed(dep, server) for server in SERVERS}
    with dep.held(party, "send") as await_it:
        asked = dep.ask()
        await_it()
        with dep.cut(LEADER, FOLLOWER):
            dep.disarm(party)
            time.sleep(DEAD_AFTER / 4)
    dep.predicts(model, asked)
    assert {server: failed(dep, server) for server in SERVERS} == before


def failed(dep, server):
    """Executions that ended with an error."""
    lines = [line for line in dep.metrics(server).splitlines() if 'outcome="error"' in line and "_total" in line]
    return sum(float(line.split()[-1]) for line in lines)


@pytest.mark.parametrize("party", SERVERS)
def test_a_server_that_is_unplugged_in_a_prediction(three, party):
    """Its interface is down: it hears of nobody, and nobody of it."""
    dep, model = three
    with dep.held(party, "send") as await_it:
        asked = dep.ask(time_limit=15.0)
        await_it()
        with dep.unplugged(party):
            dep.disarm(party)
            dep.fails(model, asked, LOST)
            eventually(lambda: set(dep.peers(party).values()) == {"lost"})
            dep.fails(model, dep.ask(time_limit=15.0), party)


@pytest.mark.parametrize("party", SERVERS)
def test_the_line_to_a_client_goes_silent_in_its_prediction(three, party):
    """A client that gives up silent servers hears of it; one that does not keeps its own time limit."""
    dep, model = three
    with dep.held(party, "send", 0) as await_it:
        asked, patient = dep.ask(time_limit=15.0), dep.ask("patient", time_limit=5.0)
        await_it()
        eventually(lambda: dep.running(party) == 2)
        with dep.cut(CLIENTS, party):
            dep.disarm(party)
            dep.fails(model, patient, rf"TimeLimitError.*no answer came from .*{party}")
            dep.fails(model, asked, rf"ChannelError.*nothing was heard from {party}")
            # What it asked is given up at the server, too.
            eventually(lambda: not dep.waiting(LEADER) and not dep.waiting(FOLLOWER))
            dep.fails(model, dep.ask(time_limit=2.0), party)
            dep.fails(model, dep.ask("patient", time_limit=2.0), party)


def test_a_dealer_whose_lines_go_silent_is_missed_only_when_the_stock_is_used_up(three):
    dep, model = three
    with dep.cut(DEALER, LEADER), dep.cut(DEALER, FOLLOWER):
        eventually(lambda: {dep.peers(server).get(DEALER) for server in SERVERS} == {"lost"})
        for _ in range(3):
            dep.predicts(model, dep.ask())
        eventually(lambda: uses_up(dep, model))
    dep.await_links()
    dep.predicts(model, dep.ask())


def uses_up(dep, model):
    """Asks once; whether there was an error for want of material."""
    try:
        dep.predicts(model, dep.ask(rows=4, time_limit=15.0))
    except Said as error:
        assert "no material of the dealer" in str(error)
        return True
    return False


@pytest.mark.parametrize("seconds", [DEAD_AFTER / 4, 2 * DEAD_AFTER], ids=["short", "long"])
def test_all_lines_are_cut_between_predictions(three, seconds):
    dep, model = three
    dep.predicts(model, dep.ask())
    with dep.unplugged(LEADER), dep.unplugged(FOLLOWER):
        time.sleep(seconds)
    dep.predicts(model, dep.ask("patient", time_limit=GUARD))


@pytest.mark.parametrize("silent", [False, True], ids=["the others are told", "nobody is told"])
@pytest.mark.parametrize("party", SERVERS)
def test_a_server_is_killed_and_starts_anew_at_its_address(three, party, silent):
    """Where its machine loses power nobody is told; its peers find out when it is back, or by its silence."""
    dep, model = three
    waits = dep.ask("patient", time_limit=2 * GUARD)
    dep.predicts(model, waits)
    with dep.held(party, "send") as await_it:
        asked, waits = dep.ask(time_limit=15.0), dep.ask("patient", time_limit=2 * GUARD)
        await_it()
        if silent:
            with dep.unplugged(party):
                dep.kill(party)
        else:
            dep.kill(party)
        dep.disarm(party)
    dep.start(party)
    dep.fails(model, asked, "lost|nothing was heard|connected anew|gave it up")
    dep.await_links()
    dep.predicts(model, waits)


@pytest.mark.parametrize("hook", ["send", "state", "current"])
@pytest.mark.parametrize("party", SERVERS)
def test_a_line_between_the_servers_that_goes_silent_in_a_load(three, party, hook):
    """The weights are the same, so what is tried here is that both servers agree on one version."""
    dep, _ = three
    with dep.held(party, hook) as await_it:
        asked = dep.ask("owner", load=str(dep.directory / "weights.npz"), time_limit=30.0)
        await_it()
        with dep.cut(LEADER, FOLLOWER):
            dep.disarm(party)
            time.sleep(DEAD_AFTER)
    with contextlib.suppress(Said):
        dep.answer(asked)
    dep.await_links()
    eventually(lambda: len({dep.version(server) for server in SERVERS}) == 1)


def test_a_slow_line(tmp_path):
    """Each round takes 0.3 s there and back: answers are late, and right."""
    with distant(tmp_path, Line(rtt=0.3, bandwidth=2e6)) as (dep, model):
        for asked in [dep.ask("patient", rows=rows) for rows in (1, 4, 6)]:
            dep.predicts(model, asked)
        with dep.held(FOLLOWER, "send", 2) as await_it:
            asked = dep.ask()
            await_it()
            with dep.cut(LEADER, FOLLOWER):
                dep.disarm(FOLLOWER)
                dep.fails(model, asked, LOST)
        dep.serves(model)
