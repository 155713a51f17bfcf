"""Clients that ask for more than they may, or say what no client says: their own link or request ends, and no other."""

from __future__ import annotations

import contextlib
import json
import threading

import numpy as np
import pytest
from tests.runtime.faults.trio import (
    CLIENTS,
    FOLLOWER,
    LEADER,
    SERVERS,
    RefusedError,
    eventually,
    right,
    rights,
    trio,
)

from shareflow_client.errors import ChannelError
from shareflow_client.wire import FrameKind

X = np.array([[1.0, 2.0]], np.float32)


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    limited = (
        rights("small", most_rows=4),
        rights("poor", rows_per_minute=3),
        rights("patient", most_waiting=3),
        rights("both", ("client", "owner")),
    )
    with trio(tmp_path_factory.mktemp("trio"), clients=(*CLIENTS, *limited)) as made:
        made.load()
        yield made


@pytest.fixture
def ann(three):
    with three.client("ann") as client:
        yield client


@pytest.fixture(autouse=True)
def others_go_on(three):
    """After every case another client gets right answers, and nothing is left of the one that misbehaved."""
    with three.client("bob") as bob:
        yield
        assert np.array_equal(bob.square([[3, -4]]), [[9, 16]])
    for server in SERVERS:
        eventually(lambda server=server: not three.roles[server]._requests)
        eventually(lambda server=server: not three.roles[server]._running)


def submit(**changes):
    message = {"type": "submit", "request": 1, "session": "0" * 32, "entry": "square", "as": "client", "label": ""}
    return json.dumps({**message, "rows": 1, "first_row": 0, **changes}).encode()


def without(key):
    message = json.loads(submit())
    del message[key]
    return json.dumps(message).encode()


BAD = {
    "no JSON": b"\x00\xff not json",
    "no object": b"[1, 2]",
    "deep": b"[" * 30_000,
    "no type": b"{}",
    "unknown type": b'{"type":"nonsense"}',
    "type is a list": b'{"type":["submit"]}',
    "of a server": b'{"type":"begin","index":1,"graph":"square@1","version":0,"rows":[]}',
    "of the dealer": b'{"type":"material","graph":"square@1","version":0,"index":9,"bytes":0}',
    "no rows": without("rows"),
    "no session": without("session"),
    "rows are text": submit(rows="many"),
    "rows are null": submit(rows=None),
    "rows are infinite": submit().replace(b'"rows": 1', b'"rows": 1e999'),
    "rows are zero": submit(rows=0),
    "rows are negative": submit(rows=-1),
    "rows are too many": submit(rows=1025),
    "number is zero": submit(request=0),
    "number is large": submit(request=1 << 63),
    "number has 10000 digits": submit().replace(b'"request": 1', b'"request": ' + b"9" * 10_000),
    "session is short": submit(session="00"),
    "label is long": submit(label="x" * 201),
    "entry is long": submit(entry="x" * 201),
    "first row is negative": submit(first_row=-1),
    "first row is large": submit(first_row=1 << 63),
    "cancel without number": b'{"type":"cancel"}',
    "oversized": b" " * (1 << 16) + b"{}",
}


@pytest.mark.parametrize("what", BAD)
def test_malformed_messages_end_the_link(three, ann, what):
    for server in SERVERS:
        ann.links[server].send(FrameKind.CONTROL, BAD[what])
        eventually(lambda server=server: ann.links[server].closed)
        assert ann.links[server].other.peer_error is not None, "it is the client's fault, and it is told so"


def test_numbers_of_rows_are_used_once(ann):
    assert np.array_equal(ann.square(X), X * X)
    for server in SERVERS:
        ann.links[server].send(FrameKind.CONTROL, submit(request=2, session=ann.session))
        eventually(lambda server=server: ann.links[server].closed)
        assert "rows go up" in ann.links[server].closed


def test_a_number_stands_for_one_request(ann):
    ann.submit("square", {"x": X}, request=5, send=False)
    ann.submit("square", {"x": X}, request=5, send=False)
    eventually(lambda: ann.links[LEADER].closed)
    assert "two requests" in ann.links[LEADER].closed


def test_a_session_of_another_client_is_not_touched(three, ann):
    number = ann.submit("square", {"x": X}, to=[LEADER])
    with three.client("bob", session=ann.session) as bob:
        for server in SERVERS:
            bob.links[server].say("cancel", request=number)
        assert np.array_equal(bob.square([[5, 6]], request=number), [[25, 36]])
    ann.links[FOLLOWER].send(FrameKind.CONTROL, submit(request=number, session=ann.session))
    ann.give(FOLLOWER, number)
    assert np.array_equal(ann.result(number)[0]["result"], X * X)


@pytest.mark.parametrize("case", ["unannounced", "size", "twice", "round"])
def test_data_that_was_not_announced_ends_the_link(ann, case):
    link = ann.links[LEADER]
    if case == "unannounced":
        link.send(FrameKind.DATA, bytes(16), execution=7)
    else:
        number = ann.submit("square", {"x": X}, send=False)
        rows, started = ann.started[number]
        data = b"".join(map(bytes, rows.message(LEADER, started)))
        if case == "size":
            link.send(FrameKind.DATA, data + bytes(8), execution=number)
        elif case == "round":
            link.send(FrameKind.DATA, data, execution=number, round=1)
        else:
            link.send(FrameKind.DATA, data, execution=number)
            link.send(FrameKind.DATA, data, execution=number)
    eventually(lambda: link.closed)
    assert link.other.peer_error is not None


REFUSED = {
    "entry": ({"entry": "secrets"}, "entries are", False),
    "another party": ({"as": "owner"}, "acts as client", False),
    "a server": ({"as": "server1"}, "acts as client", False),
    "not of the entry": ({"entry": "load"}, "is for owner", False),
    "rows of one request": ({"entry": "meet", "rows": 2}, "one request at a time", False),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_a_client_may_not_ask_for(ann, what):
    changes, text, retry = REFUSED[what]
    number = ann.submit("square", {"x": X}, send=False, **changes)
    with pytest.raises(RefusedError, match=text) as caught:
        ann.result(number)
    assert caught.value.retry is retry
    assert np.array_equal(ann.square(X, first_row=100), X * X), "the link goes on"


def test_quota(three):
    with three.client("poor") as poor:
        assert poor.result(poor.submit("square", {"x": np.ones((3, 2))}))[0]["result"].shape == (3, 2)
        with pytest.raises(RefusedError, match="3 rows a minute") as caught:
            poor.result(poor.submit("square", {"x": X}))
        assert caught.value.retry


def test_rows_that_wait_have_a_limit(three):
    with three.client("patient") as patient:
        waiting = [patient.submit("square", {"x": X}, to=[LEADER]) for _ in range(3)]
        with pytest.raises(RefusedError, match="At most 3 rows"):
            patient.result(patient.submit("square", {"x": X}, to=[LEADER]))
        for number in waiting:
            patient.links[LEADER].say("cancel", request=number)
        assert np.array_equal(patient.square(X), X * X)


def test_all_rows_that_wait_have_a_limit(tmp_path):
    with trio(tmp_path, most_waiting_rows=4) as three, three.client("ann") as ann, three.client("bob") as bob:
        ann.submit("square", {"x": np.ones((3, 2))}, to=[LEADER])
        eventually(lambda: three.roles[LEADER].status()["waiting"])
        with pytest.raises(RefusedError, match="too much waiting") as caught:
            bob.result(bob.submit("square", {"x": np.ones((2, 2))}))
        assert caught.value.retry


def test_a_request_at_one_server_only_ends_in_time(tmp_path):
    with trio(tmp_path, request_limit=0.5) as three, three.client("ann") as ann:
        at_leader, at_follower = (ann.submit("square", {"x": X}, to=[server]) for server in SERVERS)
        with pytest.raises(RefusedError, match="did not arrive at server1") as caught:
            ann.result(at_leader)
        assert caught.value.retry
        with pytest.raises(RefusedError, match="server0 did not begin it"):
            ann.result(at_follower)
        silent = ann.submit("square", {"x": X}, send=False)
        with pytest.raises(RefusedError, match="did not arrive here"):
            ann.result(silent)
        assert np.array_equal(ann.square(X), X * X)
        assert not three.roles[FOLLOWER]._requests
        assert not three.roles[LEADER]._requests


def test_cancelling(three, ann):
    for server in SERVERS:
        ann.links[server].say("cancel", request=99)
    early = ann.submit("square", {"x": X}, send=False)
    for server in SERVERS:
        ann.links[server].say("cancel", request=early)
        ann.give(server, early)
    late = ann.submit("predict", {"x": np.ones((40, 3))})
    for server in SERVERS:
        ann.links[server].say("cancel", request=late)
    again = ann.submit("square", {"x": X})
    assert np.array_equal(ann.result(again)[0]["result"], X * X)
    assert early not in ann._done


def test_a_client_that_goes_away_takes_its_requests_along(three):
    for rows in (1, 40):
        with three.client("ann") as ann:
            ann.submit("predict", {"x": np.ones((rows, 3))})
            ann.submit("predict", {"x": np.ones((rows, 3))}, to=[LEADER])
            ann.submit("predict", {"x": np.ones((rows, 3))}, send=False)


def test_requests_announced_without_input_have_a_limit(three, ann):
    link = ann.links[LEADER]
    for number in range(1, 1030):
        if link.closed is None:
            message = json.loads(submit(request=number, first_row=number))
            link.say(message.pop("type"), **message)
    eventually(lambda: link.closed)
    assert "without sending their input" in link.closed


def test_a_client_that_does_not_read_is_let_go(three, monkeypatch):
    """Its answers must not pile up: neither results nor errors."""
    blocked = threading.Event()
    with three.client("small") as small:
        link = small.links[LEADER]
        monkeypatch.setattr(link.other, "queued", 1 << 30)
        monkeypatch.setattr(link.other, "send", lambda *a, **k: blocked.wait(30))
        try:
            with contextlib.suppress(ChannelError):  # as soon as the link is closed
                for number in range(1, 1200):
                    message = json.loads(submit(request=number, first_row=number, entry="none"))
                    link.say(message.pop("type"), **message)
            eventually(lambda: link.closed)
            assert "does not read" in link.closed
        finally:
            blocked.set()


def test_answers_that_are_not_read_count_as_waiting(three, monkeypatch):
    blocked = threading.Event()
    with three.client("patient") as patient:
        link = patient.links[LEADER]
        send = link.other.send
        monkeypatch.setattr(link.other, "queued", 1 << 30)
        monkeypatch.setattr(link.other, "send", lambda *a, **k: blocked.wait(30) and send(*a, **k))
        try:
            first = [patient.submit("square", {"x": X}) for _ in range(3)]
            eventually(lambda: link.other in three.roles[LEADER]._couriers)
            eventually(lambda: three.roles[LEADER]._couriers[link.other].rows == 3)
            refused = patient.submit("square", {"x": X}, to=[LEADER])
            eventually(lambda: three.roles[LEADER]._couriers[link.other].unsent == 4)
        finally:
            blocked.set()
        assert all(np.array_equal(patient.result(number)[0]["result"], X * X) for number in first)
        with pytest.raises(RefusedError, match="At most 3 rows"):
            patient.result(refused)


def test_labels_join_the_inputs_of_two_parties(three, ann):
    with three.client("owner", acts_as="owner") as owner:
        pairs = [(number, ann.submit("meet", {"x": [number, 2]}, label=f"deal {number}")) for number in range(4)]
        asked = [owner.submit("meet", {"y": [10 * number, 1]}, label=f"deal {number}") for number in (2, 0, 3, 1)]
        for number, request in pairs:
            assert np.array_equal(ann.result(request)[0]["result"], [10 * number * number, 2])
        for request in asked:
            owner.result(request)


def test_a_label_is_taken_by_the_last_who_gives_it(three, ann):
    with three.client("owner", acts_as="owner") as owner:
        first = ann.submit("meet", {"x": [1, 1]}, label="same")
        eventually(lambda: len(three.roles[LEADER]._queue.requests()) == 1)
        second = ann.submit("meet", {"x": [2, 2]}, label="same")
        with pytest.raises(RefusedError, match="took the place") as caught:
            ann.result(first)
        assert not caught.value.retry
        owner.submit("meet", {"y": [5, 5]}, label="same")
        assert np.array_equal(ann.result(second)[0]["result"], [10, 10])


def test_an_input_without_its_partner_ends_in_time(tmp_path):
    with trio(tmp_path, request_limit=0.5) as three, three.client("ann") as ann:
        number = ann.submit("meet", {"x": [1, 1]}, label="alone")
        with pytest.raises(RefusedError, match="another party of the entry"):
            ann.result(number)


def test_one_client_may_stand_for_two_parties(three):
    with three.client("both", acts_as="owner") as owner, three.client("both") as client:
        owner.submit("meet", {"y": [5, 5]}, label="own")
        assert np.array_equal(client.result(client.submit("meet", {"x": [3, 1]}, label="own"))[0]["result"], [15, 5])


def test_state_that_nobody_loaded(tmp_path):
    with trio(tmp_path) as three, three.client("ann") as ann:
        with pytest.raises(RefusedError, match="nobody has loaded yet") as caught:
            ann.result(ann.submit("predict", {"x": np.ones((1, 3))}))
        assert caught.value.retry
        three.load()
        x = np.array([[1, 2, 3]], np.float32)
        assert np.allclose(ann.predict(x), right(x), atol=1e-3)
