"""What goes wrong between the servers in the middle of an execution: an error or the right answer, no index twice."""

from __future__ import annotations

import itertools
import json
import threading

import numpy as np
import pytest
from tests.runtime.faults.trio import (
    DEALER,
    FOLLOWER,
    LEADER,
    SERVERS,
    WEIGHTS,
    RefusedError,
    eventually,
    right,
    trio,
)

from shareflow.errors import StoreError
from shareflow.runtime import leading
from shareflow_client.wire import FrameKind

X = np.array([[1.0, 2.0, -1.0]], np.float32)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with trio(tmp_path_factory.mktemp("trio")) as made:
        made.load()
        yield made


@pytest.fixture
def three(shared):
    """Linked at the beginning, and still of use at the end."""
    for one, other in ((FOLLOWER, LEADER), (DEALER, LEADER), (DEALER, FOLLOWER)):
        if shared.links[one, other].closed is not None:
            shared.join(one, other)
    yield shared
    if shared.links[FOLLOWER, LEADER].closed is not None:
        shared.join(FOLLOWER, LEADER)
    with shared.client("bob") as bob:
        assert np.allclose(bob.predict(X), right(X), atol=1e-3)
    shared.check_indices()


@pytest.fixture
def ann(three):
    with three.client("ann") as client:
        yield client


def watched(link):
    """What an end sends from now on, as JSON."""
    said = []

    def change(kind, execution, round_, payload):
        if kind is FrameKind.CONTROL:
            said.append(json.loads(payload))
        return payload

    link.change = change
    return said


# Indices that no dealer gave.
UNUSED = itertools.count(1 << 50)


# --- what a leader begins ---------------------------------------------------------------------------------------------


@pytest.fixture
def forged(three):
    """Says ``begin`` in the leader's place, of rows that wait; gives the follower's answer."""

    def begin(rows, **changes):
        said = watched(three.links[FOLLOWER, LEADER])
        role = three.roles[FOLLOWER]
        message = {"index": next(UNUSED), "graph": "predict@1", "version": role._version, "rows": rows, **changes}
        three.links[LEADER, FOLLOWER].say("begin", **message)
        eventually(lambda: [m for m in said if m["type"] == "abort"] or three.links[FOLLOWER, LEADER].closed)
        aborts = [m for m in said if m["type"] == "abort"]
        return aborts[0] if aborts else three.links[LEADER, FOLLOWER].closed

    return begin


def waiting(three, client, rows=1):
    """A row's name of a request that is complete at the follower alone."""
    number = client.submit("predict", {"x": np.ones((rows, 3))}, to=[FOLLOWER])
    role = three.roles[FOLLOWER]
    key = (client.name, client.session, number)
    eventually(lambda: key in role._requests and role._requests[key].complete)
    return [client.name, client.session, number, 0]


UNFIT = {
    "no request": (lambda row: [["ann", "0" * 32, 1, 0]], {}, "does not have a client's part"),
    "no rows": (lambda row: [], {}, "1 to 1 rows"),
    "too many rows": (lambda row: [row, row], {}, "1 to 1 rows"),
    "row outside": (lambda row: [[*row[:3], 1]], {}, "one of its request's"),
    "negative row": (lambda row: [[*row[:3], -1]], {}, "one of its request's"),
    "row twice": (lambda row: [row, row], {"graph": "predict@4"}, "computed once"),
    "another entry": (lambda row: [row], {"graph": "square@1", "version": 0}, "does not have a client's part"),
    "two parties": (lambda row: [row], {"graph": "meet", "version": 0}, "one request of each"),
}


@pytest.mark.parametrize("what", UNFIT)
def test_the_follower_computes_only_what_clients_asked_for(three, ann, forged, what):
    rows, changes, text = UNFIT[what]
    abort = forged(rows(waiting(three, ann)), **changes)
    assert text in abort["text"]
    assert abort["material"] is False
    assert three.links[FOLLOWER, LEADER].closed is None


def test_a_stale_version_is_computed_anew(three, ann, forged):
    abort = forged([waiting(three, ann)], version=77)
    assert "state version" in abort["text"]
    assert abort["material"] is True


def test_rows_of_two_clients_are_kept_apart(three, ann, forged):
    with three.client("bob") as bob:
        abort = forged([waiting(three, ann), waiting(three, bob)], graph="predict@4")
    assert "mix_clients" in abort["text"]


@pytest.mark.parametrize("index", ["spent", 1 << 40])
def test_an_index_without_material_is_refused(three, ann, forged, index):
    if index == "spent":
        index = three.executed[FOLLOWER][0]
        three.roles[FOLLOWER]._ended.pop(index, None)  # as after a restart
    row = waiting(three, ann)
    abort = forged([row], index=index)
    assert "no material" in abort["text"]
    assert abort["material"] is True
    # The same row is taken when it comes under another index.
    assert forged([[*row[:3], 7]])["text"].endswith("one of its request's")


def test_an_index_begun_twice_ends_the_link(three, ann, forged):
    ann.predict(X)
    assert "twice" in forged([waiting(three, ann)], index=three.executed[FOLLOWER][-1])


@pytest.mark.parametrize(
    "changes",
    [{"graph": "secrets"}, {"rows": [1]}, {"rows": [["ann"]]}, {"rows": None}, {"index": "x"}, {"version": None}],
    ids=str,
)
def test_a_malformed_begin_ends_the_link(three, ann, forged, changes):
    reason = forged(**{"rows": [], **changes})
    assert "missing or wrong" in reason or "plan does not have" in reason


def test_a_row_is_not_computed_twice(three, ann):
    """A leader that begins a row again, with other material, is refused."""
    held = three.links[FOLLOWER, LEADER]
    number = ann.submit("predict", {"x": X}, send=False)
    held.gate.clear()  # the follower hears nothing of the leader
    for server in SERVERS:
        ann.give(server, number)
    eventually(lambda: three.begun and three.roles[LEADER]._running)
    role = three.roles[FOLLOWER]
    index = next(UNUSED)
    said = watched(held)
    begin = {"index": index, "graph": "predict@1", "version": role._version}
    three.links[LEADER, FOLLOWER].say("begin", rows=[["ann", ann.session, number, 0]], **begin)
    held.gate.set()
    assert np.allclose(ann.result(number)[0]["result"], right(X), atol=1e-3)
    eventually(lambda: [m for m in said if m["type"] == "abort"])
    (abort,) = [m for m in said if m["type"] == "abort"]
    assert abort["index"] == index
    assert "computed once" in abort["text"]


def test_indices_without_end_are_no_message_of_a_server(three):
    three.links[FOLLOWER, LEADER].say("have", graph="predict@1", version=1, indices=[[1, 1 << 60]])
    eventually(lambda: three.links[LEADER, FOLLOWER].closed)
    assert "more than" in three.links[LEADER, FOLLOWER].closed


# --- messages of a round ----------------------------------------------------------------------------------------------


def rounds(three, sender):
    part = three.roles[sender]._programs["predict@1"].part
    return [message.round for step in part.steps for message in step.sends]


DIRECTIONS = {"leader": (LEADER, FOLLOWER), "follower": (FOLLOWER, LEADER)}


def each_round(three, sender):
    found = rounds(three, sender)
    assert len(found) > 2
    return found


@pytest.mark.parametrize("sender", DIRECTIONS)
@pytest.mark.parametrize("how", ["lost", "short", "long", "twice", "later round", "other execution"])
def test_a_message_that_is_not_the_plans(three, ann, sender, how):
    """Each round in turn: the link ends, the client hears of it, and no index is used again."""
    one, other = DIRECTIONS[sender]
    for round_ in each_round(three, one):
        if three.links[FOLLOWER, LEADER].closed is not None:
            three.join(FOLLOWER, LEADER)
        link, done = three.links[one, other], []

        def change(kind, execution, number, payload, link=link, done=done, round_=round_):
            if kind is not FrameKind.DATA or number != round_ or done:
                return payload
            done.append(execution)
            if how == "lost":
                threading.Thread(target=link.close, args=("cut",), daemon=True).start()
                return None
            if how in ("short", "long"):
                return payload[:-8] if how == "short" else payload + bytes(8)
            place = {"later round": (execution, number + 1), "other execution": (execution + 1000, number)}
            link.other._inbox.put((kind, *place.get(how, (execution, number)), payload))
            return payload if how == "twice" else None

        link.change = change
        number = ann.submit("predict", {"x": X})
        last = how == "twice" and round_ == rounds(three, one)[-1]
        try:
            assert np.allclose(ann.result(number)[0]["result"], right(X), atol=1e-3)
            assert last or how == "twice", "an answer without all messages"
        except RefusedError as error:
            assert error.retry
        eventually(lambda link=link: link.closed)
        if how != "lost":
            assert three.links[other, one].peer_error is not None
        eventually(lambda: not three.roles[LEADER]._running and not three.roles[FOLLOWER]._running)
        for server in SERVERS:
            assert three.stores[server].is_spent(done[0])


@pytest.mark.parametrize("sender", DIRECTIONS)
def test_bits_that_a_server_changes_are_not_noticed_but_harm_no_one_else(three, ann, sender):
    """The model is semi-honest: a server that sends other numbers gives its client another result, in form."""
    link, done = three.links[DIRECTIONS[sender]], []

    def change(kind, execution, number, payload):
        if kind is FrameKind.DATA and not done:
            done.append(execution)
            return bytes(byte ^ 0x5A for byte in payload)
        return payload

    link.change = change
    result = ann.result(ann.submit("predict", {"x": X}))[0]["result"]
    assert done
    assert result.shape == (1, 2)
    assert link.closed is None
    assert np.allclose(ann.predict(X), right(X), atol=1e-3)


@pytest.mark.parametrize("server", SERVERS)
def test_an_execution_has_a_time_limit(tmp_path, server):
    """A message that never comes ends one execution; what comes after that is let go of."""
    with trio(tmp_path, execution_limit=0.6) as three, three.client("ann") as ann:
        three.load()
        link = three.links[server, {LEADER: FOLLOWER, FOLLOWER: LEADER}[server]]
        for passing in range(4):
            assert np.allclose(ann.predict(X), right(X), atol=1e-3)
            seen, kept = [], []

            def change(kind, execution, number, payload, seen=seen, kept=kept, passing=passing):
                if kind is FrameKind.DATA:
                    seen.append(number)
                    if len(seen) > passing:  # and what comes after it, as over a link that stalls
                        kept.append((kind, execution, number, payload))
                        return None
                return payload

            link.change = change
            number = ann.submit("predict", {"x": X})
            if kept or passing < len(rounds(three, server)):
                with pytest.raises(RefusedError, match="time limit") as caught:
                    ann.result(number)
                assert caught.value.retry
            link.change = lambda kind, execution, number, payload: payload
            eventually(lambda: not three.roles[LEADER]._running and not three.roles[FOLLOWER]._running)
            for late in kept:
                link.other._inbox.put(late)
            assert np.allclose(ann.predict(X), right(X), atol=1e-3)
            assert link.closed is None


# --- links ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flaps", [1, 3])
def test_what_waits_outlasts_lost_links_and_is_computed_once(tmp_path, flaps):
    with trio(tmp_path) as three, three.client("ann") as ann:
        three.load()
        eventually(lambda: three.roles[LEADER]._stock.usable(three.roles[LEADER]._use("predict@4")) >= 2)
        three.links[LEADER, DEALER].close("away")
        three.links[FOLLOWER, DEALER].close("away")
        three.links[LEADER, FOLLOWER].close("away")
        numbers = [ann.submit("predict", {"x": X * n}) for n in range(1, 5)]
        eventually(lambda: len([r for r in three.roles[FOLLOWER]._requests.values() if r.complete]) == 4)
        eventually(lambda: len([r for r in three.roles[LEADER]._requests.values() if r.complete]) == 4)
        leader = three.roles[LEADER]
        leader._settings = three.settings.__class__(**{**vars(three.settings), "parallel": 0})  # nothing starts
        for _ in range(flaps):
            three.join(FOLLOWER, LEADER)
            eventually(lambda: leader._queue.waiting("predict") == 4)
            three.links[LEADER, FOLLOWER].close("again")
            eventually(lambda: leader._queue.waiting("predict") == 0)
        del three.begun[:]
        three.join(FOLLOWER, LEADER)
        eventually(lambda: leader._queue.waiting("predict") == 4)
        leader._settings = three.settings
        for n, number in enumerate(numbers, 1):
            assert np.allclose(ann.result(number)[0]["result"], right(X * n), atol=1e-3)
        rows = [(row.request.key, row.number) for _, some in three.begun for row in some]
        assert len(rows) == len(set(rows)) == 4


def test_a_peer_that_connects_anew_replaces_its_old_link(three, ann):
    """The follower noticed first that the link is dead: what ran over the old one ends at once."""
    old = three.links[FOLLOWER, LEADER]
    old.gate.clear()
    number = ann.submit("predict", {"x": X})
    eventually(lambda: three.roles[LEADER]._running)
    three.join(FOLLOWER, LEADER)
    with pytest.raises(RefusedError, match=r"connected anew|was lost"):
        ann.result(number, 10)
    old.gate.set()
    eventually(lambda: old.closed)
    assert np.allclose(ann.predict(X), right(X), atol=1e-3)


def test_without_a_follower_requests_end_in_time(tmp_path):
    with trio(tmp_path, request_limit=0.5) as three, three.client("ann") as ann:
        three.load()
        three.links[LEADER, FOLLOWER].close("away")
        with pytest.raises(RefusedError, match="no link to server1") as caught:
            ann.result(ann.submit("predict", {"x": X}))
        assert caught.value.retry
        assert three.roles[LEADER].status()["why"] == "no link to server1"
        three.join(FOLLOWER, LEADER)
        assert np.allclose(ann.predict(X), right(X), atol=1e-3)


def test_the_follower_tells_its_clients_where_the_leader_thinks_it_is_over(three, ann):
    """The leader's last message is lost: it answered, and only the follower knows that the result is not whole."""
    last = rounds(three, LEADER)[-1]

    def change(kind, execution, number, payload):
        if kind is FrameKind.DATA and number == last:
            threading.Thread(target=three.links[LEADER, FOLLOWER].close, args=("cut",), daemon=True).start()
            return None
        return payload

    three.links[LEADER, FOLLOWER].change = change
    with pytest.raises(RefusedError) as caught:
        ann.result(ann.submit("predict", {"x": X}))
    assert caught.value.retry


def test_stopping_ends_what_waits_at_once_and_what_runs_after_the_grace(tmp_path):
    with trio(tmp_path) as three, three.client("ann") as ann:
        three.load()
        three.links[FOLLOWER, LEADER].gate.clear()
        running = ann.submit("predict", {"x": X})
        eventually(lambda: three.roles[LEADER]._running)
        waits = ann.submit("predict", {"x": X}, to=[LEADER])
        stopping = threading.Thread(target=three.roles[LEADER].stop, args=(1.0,))
        stopping.start()
        with pytest.raises(RefusedError, match="stopping") as caught:
            ann.result(waits)
        assert caught.value.retry
        with pytest.raises(RefusedError, match="is stopping"):
            ann.result(ann.submit("predict", {"x": X}))
        with pytest.raises(RefusedError, match="stopp"):
            ann.result(running)
        stopping.join(20)
        assert not stopping.is_alive()
        three.links[FOLLOWER, LEADER].gate.set()


@pytest.mark.parametrize("server", SERVERS)
def test_stopping_finishes_what_runs(tmp_path, server):
    with trio(tmp_path) as three, three.client("ann") as ann:
        three.load()
        go_on = threading.Event()

        def change(kind, execution, number, payload):
            assert kind is FrameKind.CONTROL or go_on.wait(20)
            return payload

        three.links[LEADER, FOLLOWER].change = change
        number = ann.submit("predict", {"x": X})
        eventually(lambda: three.roles[LEADER]._running and three.roles[FOLLOWER]._running)
        stopping = threading.Thread(target=three.roles[server].stop, args=(20.0,))
        stopping.start()
        eventually(lambda: three.roles[server].status()["why"] == "it is stopping")
        go_on.set()
        assert np.allclose(ann.result(number)[0]["result"], right(X), atol=1e-3)
        stopping.join(20)
        assert not stopping.is_alive()


# --- state ------------------------------------------------------------------------------------------------------------


def test_a_follower_that_missed_the_commit_learns_at_the_next_link(three, ann):
    link = three.links[LEADER, FOLLOWER]

    def change(kind, execution, number, payload):
        if kind is FrameKind.CONTROL and json.loads(payload)["type"] == "commit":
            threading.Thread(target=link.close, args=("cut",), daemon=True).start()
            return None
        return payload

    link.change = change
    with three.client("owner", acts_as="owner") as owner:
        before = three.roles[LEADER]._version
        # The leader has all that it needs: what it promised is true.
        version = owner.result(owner.submit("load", {"w": 2 * WEIGHTS}))[1]
    assert version > before
    eventually(lambda: link.closed)
    assert three.roles[FOLLOWER]._version == before
    three.join(FOLLOWER, LEADER)
    assert np.allclose(ann.predict(X), right(X, 2 * WEIGHTS), atol=1e-3)
    assert three.stores[FOLLOWER].versions() == three.stores[LEADER].versions() == [version]
    three.load()


def test_a_load_that_the_follower_did_not_finish_changes_nothing(three, ann):
    link = three.links[FOLLOWER, LEADER]

    def change(kind, execution, number, payload):
        if kind is FrameKind.CONTROL and json.loads(payload)["type"] == "finished":
            threading.Thread(target=link.close, args=("cut",), daemon=True).start()
            return None
        return payload

    link.change = change
    before = three.roles[LEADER]._version
    with three.client("owner", acts_as="owner") as owner, pytest.raises(RefusedError, match="lost") as caught:
        owner.result(owner.submit("load", {"w": 3 * WEIGHTS}), 10)  # not only at the time limit of 20 s
    assert caught.value.retry
    three.join(FOLLOWER, LEADER)
    assert three.roles[LEADER]._version == before
    assert np.allclose(ann.predict(X), right(X), atol=1e-3)
    version = three.load()
    for server in SERVERS:  # what the failed load left is gone
        eventually(lambda server=server: three.stores[server].versions() == [version])


def test_predictions_go_on_while_weights_change(three):
    """Each answer is of one version or the other, and none is lost."""
    errors, stop = [], threading.Event()

    def predicting(name):
        try:
            with three.client(name) as client:
                while not stop.is_set():
                    x = np.random.default_rng().integers(-4, 4, (3, 3)).astype(np.float32)
                    got, _ = client.call("predict", {"x": x})
                    found = [np.allclose(got["result"], right(x, n * WEIGHTS), atol=1e-2) for n in (1, 2)]
                    assert any(found), (x, got)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=predicting, args=(name,)) for name in ("ann", "bob")]
    for thread in threads:
        thread.start()
    for n in (2, 1, 2, 1):
        three.load(n * WEIGHTS)
    stop.set()
    for thread in threads:
        thread.join(30)
    assert not errors


def test_an_answer_is_of_one_state(tmp_path):
    """A load comes between the executions of a request's rows: it ends with an error, and the next one is right."""
    with trio(tmp_path, parallel=1, stock={"predict@4": 0}) as three, three.client("ann") as ann:
        three.load()
        eventually(lambda: three.roles[LEADER]._stock.usable(three.roles[LEADER]._use("predict@1")) >= 1)
        go_on = threading.Event()

        def change(kind, execution, number, payload):
            assert kind is FrameKind.CONTROL or go_on.wait(20)
            return payload

        three.links[LEADER, FOLLOWER].change = change
        x = np.ones((3, 3), np.float32)
        number = ann.submit("predict", {"x": x})
        eventually(lambda: three.roles[LEADER]._running)
        with three.client("owner", acts_as="owner") as owner:
            load = owner.submit("load", {"w": 2 * WEIGHTS})
            eventually(lambda: three.roles[LEADER]._queue.waiting("load"))
            go_on.set()
            owner.result(load)  # clients take turns: it comes before the other rows
        with pytest.raises(RefusedError, match="the request was computed; one answer is of one state") as caught:
            ann.result(number)
        assert caught.value.retry
        assert np.allclose(ann.predict(x), right(x, 2 * WEIGHTS), atol=1e-3)


def test_a_server_that_lost_its_store_is_dealt_to_and_loaded_anew(tmp_path):
    for lost in SERVERS:
        with trio(tmp_path / lost) as three, three.client("ann") as ann:
            three.load()
            assert np.allclose(ann.predict(X), right(X), atol=1e-3)
            three.end(lost)
            (tmp_path / lost / lost).rename(tmp_path / lost / "away")
            three.executed[lost].clear()  # what its store knew is gone, the other one guards
            three.start(lost)
            three.join(FOLLOWER, LEADER)
            three.join(DEALER, lost)
            with three.client("bob") as bob:
                eventually(lambda three=three: not three.roles[LEADER].status()["state_version"])
                with pytest.raises(RefusedError, match="nobody has loaded"):
                    bob.result(bob.submit("predict", {"x": X}))
                three.load()
                assert np.allclose(bob.predict(X), right(X), atol=1e-3)


# --- material ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("server", SERVERS)
def test_a_damaged_record_is_passed_over(tmp_path, server):
    with trio(tmp_path, prefetch=2) as three:
        three.load()
        graphs = ("predict@1", "predict@4")
        leader = three.roles[LEADER]
        eventually(lambda: all(leader._stock.usable(leader._use(graph)) == 4 for graph in graphs))
        use = leader._use("predict@1")
        first, _, third, _ = three.roles[server]._stock.indices(use)
        three.end()
        for index in (first, third):
            file = three.directory / server / "material" / f"{index:016x}"
            data = bytearray(file.read_bytes())
            data[len(data) // 2] ^= 1
            file.write_bytes(data)
        three.start().join_all()
        with three.client("ann") as ann:
            for n in range(6):
                assert np.allclose(ann.predict(X * n), right(X * n), atol=1e-3)
        assert not {first, third} & set(three.executed[server])


@pytest.mark.parametrize("server", SERVERS)
def test_a_disk_that_records_nothing_stops_executions_with_a_reason(tmp_path, server, monkeypatch):
    with trio(tmp_path, request_limit=1.0, prefetch=1) as three, three.client("ann") as ann:
        three.load()
        ann.predict(X)
        store, full = three.stores[server], StoreError("the disk is full. Free space.")

        def fails(*arguments):
            raise full

        with monkeypatch.context() as patch:
            patch.setattr(store, "take", fails)
            patch.setattr(store, "spend", fails)
            for _ in range(3):
                with pytest.raises(RefusedError, match="the disk is full") as caught:
                    ann.result(ann.submit("predict", {"x": X}))
                assert caught.value.retry
            other = {LEADER: FOLLOWER, FOLLOWER: LEADER}[server]
            assert len(three.executed[other]) <= 6, "the other server's material is not burnt in vain"
        assert np.allclose(ann.predict(X), right(X), atol=1e-3)


@pytest.mark.parametrize("server", SERVERS)
def test_material_that_a_full_disk_refuses_is_dealt_again_when_there_is_room(tmp_path, server, monkeypatch):
    monkeypatch.setattr(leading, "_ASK_AGAIN", 0.2)
    monkeypatch.setattr("shareflow.runtime.dealing._PAUSE", 0.001)
    monkeypatch.setattr("shareflow.runtime.dealing._LONGEST_PAUSE", 0.01)
    with trio(tmp_path, request_limit=3.0) as three, three.client("ann") as ann:
        three.load()
        leader = three.roles[LEADER]
        eventually(lambda: leader._stock.usable(leader._use("predict@1")) == 4)
        store = three.stores[server]
        refused = []

        def put(records):
            refused.extend(record.index for record in records)
            raise StoreError("the disk is full. Free space.")

        with monkeypatch.context() as patch:
            patch.setattr(store, "put_material_many", put)
            answers = 0
            with pytest.raises(RefusedError, match=r"no material of the dealer.*refused.*the disk is full"):
                for _ in range(20):  # what there is can be used
                    assert np.allclose(ann.result(ann.submit("predict", {"x": X}))[0]["result"], right(X), atol=1e-3)
                    answers += 1
            assert answers >= 4
            # What the other server stored of it is not kept for ever.
            other = {LEADER: FOLLOWER, FOLLOWER: LEADER}[server]
            eventually(lambda: len(three.stores[other].available("predict@1", leader._version)) < 8)
        assert np.allclose(ann.predict(X), right(X), atol=1e-3)
        assert not set(refused) & set(three.executed[LEADER])
        use = leader._use("predict@1")
        eventually(lambda: leader._stock.usable(use) >= 3)
        counts = [len(three.stores[s].available(*use)) for s in SERVERS]
        assert max(counts) <= 12, "more is dealt than was asked for"


def test_without_a_dealer_what_is_in_store_is_used(tmp_path):
    with trio(tmp_path, request_limit=1.0, stock={"predict@4": 0}) as three, three.client("ann") as ann:
        three.load()
        leader = three.roles[LEADER]
        eventually(lambda: leader._stock.usable(leader._use("predict@1")) == 4)
        three.end(DEALER)
        for _ in range(4):
            assert np.allclose(ann.predict(X), right(X), atol=1e-3)
        with pytest.raises(RefusedError, match="no material of the dealer") as caught:
            ann.result(ann.submit("predict", {"x": X}))
        assert caught.value.retry
        three.start(DEALER)
        three.join(DEALER, LEADER)
        three.join(DEALER, FOLLOWER)
        assert np.allclose(ann.predict(X), right(X), atol=1e-3)


def test_a_row_whose_material_fails_again_and_again_ends(tmp_path, monkeypatch):
    with trio(tmp_path, stock={"predict@1": 30, "predict@4": 0}) as three, three.client("ann") as ann:
        three.load()
        leader = three.roles[LEADER]
        eventually(lambda: leader._stock.usable(leader._use("predict@1")) >= 30)
        with monkeypatch.context() as patch:
            patch.setattr(three.roles[FOLLOWER]._stock, "exactly", lambda *_, **__: None)
            with pytest.raises(RefusedError, match="could not be used 8 times") as caught:
                ann.result(ann.submit("predict", {"x": X}))
            assert caught.value.retry
        assert np.allclose(ann.predict(X), right(X), atol=1e-3)


def test_rows_are_computed_anew_under_another_index(tmp_path):
    """The follower spent what the leader believes it has."""
    with trio(tmp_path, stock={"predict@4": 0}, prefetch=1) as three, three.client("ann") as ann:
        three.load()
        leader, follower = three.roles[LEADER], three.roles[FOLLOWER]
        eventually(lambda: leader._stock.usable(leader._use("predict@1")) == 4)
        first, second, *_ = follower._stock.indices(follower._use("predict@1"))
        follower._stock.spend([first, second])
        assert np.allclose(ann.predict(X), right(X), atol=1e-3)
        assert not {first, second} & set(three.executed[FOLLOWER])
        assert {first, second} < set(three.executed[LEADER])


@pytest.mark.parametrize("gone", SERVERS)
def test_what_a_restart_lost_is_spent_at_both(tmp_path, gone):
    with trio(tmp_path) as three, three.client("ann") as ann:
        three.load()
        leader = three.roles[LEADER]
        eventually(lambda: leader._stock.usable(leader._use("predict@1")) == 4)
        ann.predict(X)  # takes all four ahead
        three.end(gone)
        three.start(gone)
        three.join(FOLLOWER, LEADER)
        three.join(DEALER, gone)
        with three.client("bob") as bob:
            for n in range(8):
                assert np.allclose(bob.predict(X * n), right(X * n), atol=1e-3)
        assert not set(three.stores[LEADER].available("predict@1", leader._version)) & set(three.executed[FOLLOWER])


def test_what_keeps_state_is_not_taken_ahead(tmp_path):
    with trio(tmp_path, stock={"load": 3}) as three:
        leader, follower = three.roles[LEADER], three.roles[FOLLOWER]
        eventually(lambda: leader._stock.usable(leader._use("load")) == 3)
        before = len(three.stores[LEADER].available("load", 0))
        three.load()
        assert len(three.stores[LEADER].available("load", 0)) >= before - 1
        assert not leader._stock._ready[leader._use("load")]
        assert not follower._stock._ready[follower._use("load")]
