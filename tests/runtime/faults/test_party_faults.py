"""Parties as processes that are killed, stopped and starved: an error or the right answer, and service goes on."""

from __future__ import annotations

import json
import signal
import subprocess
import time

import pytest
from tests.runtime.faults.parties import (
    DEALER,
    FOLLOWER,
    GUARD,
    LEADER,
    SERVERS,
    Asking,
    ask,
    broken,
    load,
)

from shareflow_client.errors import RequestError, ShareflowError


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with broken(tmp_path_factory.mktemp("parties"), {"hospital": "client", "clinic": "client"}) as made:
        yield made


@pytest.fixture
def parties(running):
    """All three run and are linked; after the case both clients get right answers."""
    dep, model = running
    yield running
    dep.disarm()
    ended = [party for party, process in dep.processes.items() if process.poll() is not None]
    if ended:
        dep.restart(*ended)
    serves(dep, model)


def serves(dep, model, *names):
    """Right answers, after a refusal or two where a link is just being made again."""
    deadline = time.monotonic() + GUARD
    for name in names or ("hospital", "clinic"):
        while (error := Asking(ask, dep, model, name).outcome()) is not None:
            assert time.monotonic() < deadline, error
            time.sleep(0.2)


def killed_at(running, party, hook, at, call, do="kill"):
    """Kills the party at the n-th call of a hook during ``call``; False where the call came to its end before."""
    dep, model = running
    dep.arm(party, hook, do, at)
    asking = Asking(call)
    process = dep.processes[party]
    deadline = time.monotonic() + GUARD
    while process.poll() is None and asking.is_alive() and time.monotonic() < deadline:
        time.sleep(0.02)
    try:
        process.wait(1.0)
    except subprocess.TimeoutExpired:
        dep.disarm()
        error = asking.outcome()
        assert error is None, error
        return False
    assert process.returncode == -signal.SIGKILL
    dep.restart(party)
    asking.outcome()
    serves(dep, model, "clinic")
    dep.check_indices()
    return True


def predicting(running):
    return lambda: ask(*running)


def loading(running):
    def call():
        try:
            load(*running, time_limit=15.0)
        except ShareflowError as error:
            return error
        return None

    return call


@pytest.mark.parametrize(
    ("party", "hook", "at"), [(LEADER, "send", 2), (FOLLOWER, "answer", 1)], ids=["leader", "follower"]
)
def test_a_server_killed_during_a_prediction(parties, party, hook, at):
    assert killed_at(parties, party, hook, at, predicting(parties))


@pytest.mark.slow
@pytest.mark.parametrize("hook", ["take", "send", "receive", "answer"])
@pytest.mark.parametrize("party", SERVERS)
def test_a_server_killed_at_each_step_of_a_prediction(parties, party, hook):
    """Material is taken ahead, so a prediction after a start takes; rounds are as many as the plan has."""
    reached = 0
    while killed_at(parties, party, hook, reached + 1, predicting(parties)):
        reached += 1
        if hook in ("take", "answer"):
            break
    assert reached >= {"send": 2, "receive": 2}.get(hook, 1 if hook == "answer" else 0)


@pytest.mark.slow
@pytest.mark.parametrize("do", ["kill", "after"])
@pytest.mark.parametrize("hook", ["take", "send", "receive", "state", "current"])
@pytest.mark.parametrize("party", SERVERS)
def test_a_server_killed_at_each_step_of_a_load(parties, party, hook, do):
    if do == "after" and hook in ("send", "receive"):
        pytest.skip("that is the next point")
    reached = killed_at(parties, party, hook, 1, loading(parties), do)
    assert reached or hook in ("send", "receive")


@pytest.mark.slow
@pytest.mark.parametrize("hook", ["state", "current"])
def test_a_dealer_killed_while_it_deals_a_state(parties, hook):
    killed_at(parties, DEALER, hook, 1, loading(parties))


def test_a_dealer_that_is_killed_is_missed_only_when_the_stock_is_used_up(parties):
    dep, model = parties
    dep.kill(DEALER)
    for _ in range(3):
        assert Asking(ask, dep, model).outcome() is None
    dep.restart(DEALER)


@pytest.mark.slow
@pytest.mark.parametrize("party", SERVERS)
def test_a_server_that_hangs_is_given_up(parties, party):
    """dead_after is 8 s here: clients hear of it, and when it goes on so does service."""
    dep, _ = parties
    dep.arm(party, "send", "stop")
    asking = Asking(ask, *parties, time_limit=20.0)
    try:
        assert asking.outcome(30.0) is not None
    finally:
        dep.disarm(party)
        dep.processes[party].send_signal(signal.SIGCONT)
    dep.await_links()


@pytest.mark.parametrize("party", SERVERS)
def test_an_internal_error_ends_one_request(parties, party):
    dep, model = parties
    dep.arm(party, "send", "raise", 2)
    error = Asking(ask, dep, model, rows=1).outcome()
    assert error is None or isinstance(error, RequestError)  # None: the client tried again by itself
    assert "planted by a test" not in str(error)
    assert all(process.poll() is None for process in dep.processes.values())


@pytest.mark.parametrize("party", SERVERS)
def test_numbers_that_a_server_corrupts_are_not_noticed_and_harm_no_one_else(parties, party):
    dep, model = parties
    dep.arm(party, "send", "corrupt")
    with pytest.raises(AssertionError, match="a wrong answer"):
        Asking(ask, dep, model).outcome()
    dep.disarm(party)
    assert Asking(ask, dep, model, "clinic").outcome() is None


@pytest.mark.parametrize("party", SERVERS)
def test_a_full_disk_refuses_material_and_nothing_else(parties, party):
    dep, model = parties
    deadline = time.monotonic() + GUARD
    while min(json.loads(dep.status(server))["stock"]["predict@1"] for server in SERVERS) < 6:
        assert time.monotonic() < deadline, "nothing is dealt any more"
        time.sleep(0.1)
    dep.arm(party, "disk", "full", 0)
    for _ in range(20):  # enough for the leader to ask for more
        assert Asking(ask, dep, model).outcome() is None
        if "the disk is full" in dep.log(party).read_text():
            break
    else:
        pytest.fail("no word of the disk in the log")
    assert Asking(ask, dep, model, "clinic").outcome() is None
    dep.disarm(party)
