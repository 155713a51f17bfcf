"""The dealer: what it deals is right, arrives at both servers or is dealt anew, and no index is used twice."""

import contextlib
import json
import threading
import time

import numpy as np
import pytest
from tests.runtime.channel.pairs import GUARD
from tests.runtime.fake_servers import DEALER, LOAD, PREDICT, Whole, dialing, small_plan, two_servers

from shareflow.errors import ChannelError, PeerError, RequestError, StoreError, TimeLimitError
from shareflow.planning import Entry, Input, plan
from shareflow.runtime import control
from shareflow.runtime.control import Control
from shareflow.runtime.deal_ahead import Batch, deal_ahead
from shareflow.runtime.dealing import Dealing
from shareflow.runtime.metrics import Metrics
from shareflow.runtime.party_config import DealingSettings
from shareflow.runtime.store import Store
from shareflow_client.wire import FrameKind

STORAGE_KEY = bytes(range(32))


@pytest.fixture(scope="module")
def the_plan():
    return small_plan()


@contextlib.contextmanager
def dealer(plan, directory, servers=(), **settings):
    with Store.open(directory / "store", STORAGE_KEY, plan_fingerprint=plan.fingerprint, party=DEALER) as store:
        role = Dealing(plan, DEALER, store, DealingSettings(**settings), Metrics())
        with dialing(role, servers, plan) as dialers:
            role.dialers = dialers
            yield role
            role.stop(0.5)


def eventually(condition):
    deadline = time.monotonic() + GUARD
    while not condition():
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.01)


def keys(servers, index):
    return {server.name: server.material[index][2] for server in servers}


def payloads(servers, index):
    return {server.name: server.material[index][3] for server in servers}


# --- what is dealt ----------------------------------------------------------------------------------------------


def test_executions_with_what_was_dealt_give_the_plaintext_result(the_plan, tmp_path):
    weights = np.linspace(-1, 1, 12).reshape(4, 3).astype(np.float32)
    samples = np.array([[1, -2, 0.5, 3], [0, 1, 2, -3]], np.float32)
    with two_servers(the_plan) as servers, dealer(the_plan, tmp_path, servers) as role:
        version = role.deal(LOAD, 0, 1)
        role.deal("predict@2", version, 2)
        _, state, _ = Whole(the_plan, LOAD).run(
            version, keys(servers, version), {"w": weights}, corrections=payloads(servers, version)
        )
        whole = Whole(the_plan, "predict@2")
        for index in servers[0].indices("predict@2"):
            dealt = payloads(servers, index)
            assert any(dealt.values())
            results, _, _ = whole.run(index, keys(servers, index), {"x": samples}, state, dealt)
            np.testing.assert_allclose(results["result"], np.maximum(samples @ weights, 0), atol=1e-3)


def test_corrections_are_bit_for_bit_those_of_the_whole_graph(the_plan, tmp_path):
    with two_servers(the_plan) as servers, dealer(the_plan, tmp_path, servers) as role:
        version = role.deal(LOAD, 0, 1)
        index = role.deal(PREDICT, version, 1)
        owner = {"w": np.ones((4, 3), np.float32)}
        _, state, _ = Whole(the_plan, LOAD).run(version, keys(servers, version), owner)
        x = {"x": np.ones((1, 4), np.float32)}
        _, _, expected = Whole(the_plan, PREDICT).run(index, keys(servers, index), x, state)
        dealt = payloads(servers, index)
        assert {name: payload for name, payload in dealt.items() if payload} == expected


def test_the_mask_of_a_state_stays_with_the_dealer_and_is_the_graphs(the_plan, tmp_path):
    with two_servers(the_plan) as servers, dealer(the_plan, tmp_path, servers) as role:
        version = role.deal(LOAD, 0, 1)
        owner = {"w": np.ones((4, 3), np.float32)}
        _, state, _ = Whole(the_plan, LOAD).run(version, keys(servers, version), owner)
    with Store.open(tmp_path / "store", STORAGE_KEY, plan_fingerprint=the_plan.fingerprint, party=DEALER) as store:
        kept = store.state(version)
        assert set(kept) == {"w/4"}
        np.testing.assert_array_equal(kept["w/4"], state["w", 4])


def test_every_execution_has_its_own_index_and_key(the_plan, tmp_path):
    with two_servers(the_plan) as servers, dealer(the_plan, tmp_path, servers) as role:
        version = role.deal(LOAD, 0, 1)
        role.deal(PREDICT, version, 150)  # more than one step of the counter
        for server in servers:
            found = [key for _, _, key, _ in server.material.values()]
            assert len(found) == len(set(found)) == 151
        assert servers[0].indices(PREDICT) == servers[1].indices(PREDICT)


def test_more_is_dealt_than_the_window_holds(the_plan, tmp_path):
    with two_servers(the_plan) as servers, dealer(the_plan, tmp_path, servers, window=2, window_bytes=1) as role:
        version = role.deal(LOAD, 0, 1)
        seen = []
        role.deal(PREDICT, version, 20, seen.append)
        assert seen[-1] == 20
        assert seen == sorted(seen)


def test_what_was_not_stored_yet_is_bounded(the_plan, tmp_path):
    with two_servers(the_plan) as servers, dealer(the_plan, tmp_path, servers, window=3) as role:
        version = role.deal(LOAD, 0, 1)
        for server in servers:
            server.stores = False
        thread = threading.Thread(target=role.deal, args=(PREDICT, version, 10), daemon=True)
        thread.start()
        servers[0].wait(lambda: len(servers[0].indices(PREDICT)) == 3)
        assert role.status()["running"] == 3
        assert role.status()["waiting"] == 7
        for server in servers:
            server.stores = True
            server.say("stored", indices=server.indices(PREDICT))
        thread.join(GUARD)
        assert not thread.is_alive()


# --- on demand --------------------------------------------------------------------------------------------------


def test_the_leader_gets_what_it_wants(the_plan, tmp_path):
    with two_servers(the_plan) as servers, dealer(the_plan, tmp_path, servers) as role:
        role.await_servers(GUARD)
        servers[0].say("want", graph=LOAD, version=0, count=1)
        servers[1].wait(lambda: servers[1].indices(LOAD))
        (version,) = servers[1].indices(LOAD)
        servers[0].say("want", graph=PREDICT, version=version, count=3)
        servers[0].say("want", graph=PREDICT, version=version, count=2)
        servers[1].wait(lambda: len(servers[1].indices(PREDICT, version)) == 5)


def test_what_cannot_be_dealt_is_said(the_plan, tmp_path):
    with two_servers(the_plan) as servers, dealer(the_plan, tmp_path, servers) as role:
        role.await_servers(GUARD)
        for graph, version, text in ((PREDICT, 77, "no state version 77"), (PREDICT, 0, "a state version is named")):
            servers[0].say("want", graph=graph, version=version, count=1)
            servers[0].wait(lambda: servers[0].said)
            said = servers[0].said.pop()
            assert (said["type"], said["graph"], said["version"]) == ("cannot", graph, version)
            assert text in said["text"]


def test_older_state_versions_are_dropped_when_one_is_in_use(the_plan, tmp_path):
    with two_servers(the_plan) as servers, dealer(the_plan, tmp_path, servers) as role:
        first, second = role.deal(LOAD, 0, 1), role.deal(LOAD, 0, 1)
        assert role.part.versions() == [first, second]
        servers[0].say("current", version=second)
        eventually(lambda: role.part.versions() == [second])
        role.deal(PREDICT, second, 1)
        with pytest.raises(RequestError, match=f"no state version {first}"):
            role.deal(PREDICT, first, 1)


# --- faults -----------------------------------------------------------------------------------------------------


def test_what_a_server_refuses_is_dealt_anew(the_plan, tmp_path):
    with two_servers(the_plan) as servers, dealer(the_plan, tmp_path, servers) as role:
        version = role.deal(LOAD, 0, 1)
        servers[1].refuse = {3, 5}  # of what it sees
        role.deal(PREDICT, version, 5)
        both = set(servers[0].indices(PREDICT)) & set(servers[1].indices(PREDICT))
        assert len(both) == 5
        assert len(servers[0].indices(PREDICT)) == 7


def test_a_server_that_always_refuses_ends_the_order_with_its_reason(the_plan, tmp_path, monkeypatch):
    monkeypatch.setattr("shareflow.runtime.dealing._PAUSE", 0.001)
    with two_servers(the_plan) as servers, dealer(the_plan, tmp_path, servers, window=1) as role:
        version = role.deal(LOAD, 0, 1)
        servers[1].refuse = set(range(1000))
        with pytest.raises(RequestError, match=r"refused [89] times in a row.*server1: the disk is full"):
            role.deal(PREDICT, version, 5)
        servers[1].refuse = set()
        role.deal(PREDICT, version, 2)


@pytest.mark.parametrize("lost", [0, 1])
def test_a_lost_link_is_dealt_over_again(the_plan, tmp_path, lost):
    with two_servers(the_plan) as servers, dealer(the_plan, tmp_path, servers) as role:
        version = role.deal(LOAD, 0, 1)
        servers[lost].stores = False
        thread = threading.Thread(target=role.deal, args=(PREDICT, version, 10), daemon=True)
        thread.start()
        servers[lost].wait(lambda: len(servers[lost].indices(PREDICT)) == 10)
        old = set(servers[lost].indices(PREDICT))
        servers[lost].stores = True
        servers[lost].links[-1].close("a fault")
        thread.join(GUARD)
        assert not thread.is_alive()
        new = set(servers[lost].indices(PREDICT)) - old
        assert len(new) == 10
        assert new <= set(servers[1 - lost].indices(PREDICT))


def test_wishes_end_with_the_leaders_link(the_plan, tmp_path):
    with two_servers(the_plan) as servers, dealer(the_plan, tmp_path, servers, window=1) as role:
        role.await_servers(GUARD)
        servers[0].stores = False
        servers[0].say("want", graph=LOAD, version=0, count=50)
        servers[0].wait(lambda: servers[0].indices(LOAD))
        servers[0].links[-1].close("a fault")
        servers[0].wait(lambda: servers[0].links)
        role.await_servers(GUARD)
        assert role.status()["waiting"] == 0


def test_nothing_is_dealt_while_a_server_is_away(the_plan, tmp_path):
    with two_servers(the_plan) as servers, dealer(the_plan, tmp_path, servers[:1]) as role:
        with pytest.raises(TimeLimitError, match=r"server1 did not connect within 0\.3 s"):
            role.await_servers(0.3)
        servers[0].say("want", graph=LOAD, version=0, count=1)
        status = role.status()
        assert not status["ready"]
        assert status["why"] == "no link to server1"
        assert status["peers"]["server1"] == "lost"
        assert servers[0].material == {}


def test_a_restarted_dealer_goes_on_with_its_states_and_new_indices(the_plan, tmp_path):
    with two_servers(the_plan) as servers:
        with dealer(the_plan, tmp_path, servers) as role:
            version = role.deal(LOAD, 0, 1)
            last = role.deal(PREDICT, version, 3)
        with dealer(the_plan, tmp_path, servers) as role:
            role.deal(PREDICT, version, 3)
        assert len(servers[0].indices(PREDICT, version)) == 6
        assert servers[0].indices(PREDICT)[3] > last
        owner = {"w": np.eye(4, 3, dtype=np.float32)}
        _, state, _ = Whole(the_plan, LOAD).run(version, keys(servers, version), owner)
        index = servers[0].indices(PREDICT)[-1]
        x = np.array([[1, 2, -3, 4]], np.float32)
        got, _, _ = Whole(the_plan, PREDICT).run(index, keys(servers, index), {"x": x}, state, payloads(servers, index))
        np.testing.assert_allclose(got["result"], [[1, 2, 0]], atol=1e-3)


def test_a_state_that_no_server_heard_of_before_a_crash_is_not_dealt_for(the_plan, tmp_path):
    with two_servers(the_plan) as servers:
        for server in servers:
            server.stores = False
        with dealer(the_plan, tmp_path, servers) as role:
            role.await_servers(GUARD)
            servers[0].say("want", graph=LOAD, version=0, count=1)
            servers[1].wait(lambda: servers[1].indices(LOAD))
        for server in servers:
            server.stores, server.counts = True, type(server.counts)(int)
        with dealer(the_plan, tmp_path, servers) as role:
            assert role.part.versions() == [1]
            assert deal_ahead(role, 1, graphs=[PREDICT]) == [Batch(LOAD, 0, 1), Batch(PREDICT, 2, 1)]
            servers[0].say("current", version=2)
            eventually(lambda: role.part.versions() == [2])


def test_a_second_dealer_of_the_same_store_is_refused(the_plan, tmp_path):
    with dealer(the_plan, tmp_path), pytest.raises(StoreError, match="process"), dealer(the_plan, tmp_path):
        pass


def test_a_stopping_dealer_deals_no_more(the_plan, tmp_path):
    with two_servers(the_plan) as servers, dealer(the_plan, tmp_path, servers) as role:
        version = role.deal(LOAD, 0, 1)
        for server in servers:
            server.stores = False
        errors = []

        def ask():
            try:
                role.deal(PREDICT, version, 1000)
            except ChannelError as error:
                errors.append(str(error))

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        servers[0].wait(lambda: servers[0].indices(PREDICT))
        role.stop(0.2)
        thread.join(GUARD)
        assert errors == ["dealer is stopping, nothing more is dealt."]
        with pytest.raises(ChannelError, match="stopping"):
            role.deal(PREDICT, version, 1)
        assert role.status()["why"] == "stopping"


@pytest.mark.parametrize(
    ("server", "message", "rule"),
    [
        (0, b"[]", "is a JSON object"),
        (0, b"\xff", "is a JSON object"),
        (0, {"type": "spent"}, "has no place"),
        (1, {"type": "want", "graph": PREDICT, "version": 1, "count": 1}, "has no place"),
        (0, {"type": "want", "graph": "other", "version": 1, "count": 1}, "not in the plan"),
        (0, {"type": "want", "graph": PREDICT, "version": -1, "count": 1}, "'version'"),
        (0, {"type": "want", "graph": PREDICT, "version": 1, "count": 0}, "'count'"),
        (0, {"type": "want", "graph": PREDICT, "version": 1, "count": True}, "'count'"),
        (0, {"type": "stored", "indices": ["1"]}, "'indices'"),
        (0, {"type": "counts", "counts": [["predict@1", 1]]}, "'counts'"),
        (0, {"type": "refused", "index": 1 << 64, "text": ""}, "'index'"),
    ],
)
def test_what_a_server_may_not_say_closes_its_link(the_plan, tmp_path, server, message, rule):
    data = message if isinstance(message, bytes) else json.dumps(message).encode()
    with two_servers(the_plan) as servers, dealer(the_plan, tmp_path, servers) as role:
        role.await_servers(GUARD)
        link = servers[server].links[0]
        link.send(FrameKind.CONTROL, data)
        servers[server].wait(lambda: link not in servers[server].links)
        assert rule in link.closed


def test_answers_that_crossed_are_ignored(the_plan, tmp_path):
    with two_servers(the_plan) as servers, dealer(the_plan, tmp_path, servers) as role:
        role.await_servers(GUARD)
        for server in servers:
            server.say("stored", indices=[999])
            server.say("refused", index=998, text="unknown")
        assert role.deal(LOAD, 0, 1) == 1


def test_a_control_message_is_checked_field_by_field():
    message = Control.decode(control.encode("want", graph="a", count=3), "server0")
    assert (message.type, message.text("graph"), message.number("count")) == ("want", "a", 3)
    for read in (lambda: message.text("count"), lambda: message.number("graph"), lambda: message.numbers("count")):
        with pytest.raises(PeerError, match="server0 sent something else"):
            read()
    with pytest.raises(PeerError, match="printable"):
        Control.decode(control.encode("want", graph="a\nb"), "server0").text("graph")


# --- dealing ahead ----------------------------------------------------------------------------------------------


def test_ahead_of_everything_the_state_is_dealt_first(the_plan, tmp_path):
    seen = []
    with two_servers(the_plan) as servers, dealer(the_plan, tmp_path, servers) as role:
        dealt = deal_ahead(role, 3, progress=lambda batch, done: seen.append((batch.graph, done)))
        assert dealt == [Batch(LOAD, 0, 1), Batch("predict@1", 1, 3), Batch("predict@2", 1, 3)]
        assert ("predict@2", 3) in seen
        # Again, for the same state.
        assert deal_ahead(role, 1) == [Batch("predict@1", 1, 1), Batch("predict@2", 1, 1)]
        assert len(servers[0].indices(LOAD)) == 1


def test_ahead_for_the_version_in_use(the_plan, tmp_path):
    with two_servers(the_plan) as servers, dealer(the_plan, tmp_path, servers) as role:
        first, _ = role.deal(LOAD, 0, 1), role.deal(LOAD, 0, 1)
        servers[0].say("current", version=first)
        eventually(lambda: role.current == first)
        assert deal_ahead(role, 2, graphs=["predict@2"]) == [Batch("predict@2", first, 2)]
        assert deal_ahead(role, 2, entries=["load"]) == [Batch(LOAD, 0, 2)]


def test_ahead_for_a_version_in_use_that_the_dealer_lost(the_plan, tmp_path):
    with two_servers(the_plan, current=41) as servers, dealer(the_plan, tmp_path, servers) as role:
        with pytest.raises(RequestError, match="state version 41, in which this dealer has no 'w'"):
            deal_ahead(role, 2)
        deal_ahead(role, 1, entries=["load"])


def test_ahead_when_servers_lost_the_load_a_new_one_is_dealt(the_plan, tmp_path):
    with two_servers(the_plan) as servers, dealer(the_plan, tmp_path, servers) as role:
        deal_ahead(role, 1, graphs=[PREDICT])
    with two_servers(the_plan) as servers, dealer(the_plan, tmp_path, servers) as role:
        assert deal_ahead(role, 1, graphs=[PREDICT])[0] == Batch(LOAD, 0, 1)


def test_ahead_names_what_the_plan_does_not_have(the_plan, tmp_path):
    with dealer(the_plan, tmp_path) as role:
        with pytest.raises(RequestError, match=r"no entry 'train'; it has: load, predict"):
            deal_ahead(role, 1, entries=["train"])
        with pytest.raises(RequestError, match=r"no graph 'predict@9'"):
            deal_ahead(role, 1, graphs=["predict@9"])
        with pytest.raises(RequestError, match=r"no graph 'predict@9'"):
            role.deal("predict@9", 1, 1)


def test_a_state_based_on_another_version_keeps_what_is_not_new(tmp_path):
    two = plan(
        {
            "first": Entry(lambda a: {"a": a}, {"a": Input("owner", (2,))}, keeps=("a",)),
            "second": Entry(lambda b, a: {"b": a * b}, {"b": Input("owner", (2,))}, keeps=("b",)),
            "ask": Entry(lambda a, b: (a * b).reveal("client")),
        }
    )
    with two_servers(two) as servers, dealer(two, tmp_path, servers) as role:
        dealt = deal_ahead(role, 2)
        assert [(batch.graph, batch.version) for batch in dealt] == [("first", 0), ("second", 1), ("ask", 2)]
        assert role.part.states(2) == {"a", "b"}
        assert role.part.based_on(2) == 1
