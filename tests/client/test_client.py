"""The client against two servers that compute in the clear: answers, retries, lost links, what is refused and how."""

from __future__ import annotations

import logging
import re
import socket
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from tests.client.fake_servers import FOLLOWER, LEADER, PLAN, Asked, fake_pair, write_config
from tests.runtime.channel.pairs import GUARD, identity, known

from shareflow_client.client import Client
from shareflow_client.client_config import load_config
from shareflow_client.errors import (
    ChannelError,
    ConfigError,
    PeerError,
    PlanError,
    RequestError,
    TimeLimitError,
)
from shareflow_client.link import LinkSettings, UnreachableError
from shareflow_client.wire import FrameKind

SECRET = 123.40625  # what no text may show
GENERATOR = np.random.default_rng(4)


@pytest.fixture
def pair():
    with fake_pair() as made:
        yield made


@pytest.fixture
def client(pair, tmp_path):
    with Client(write_config(tmp_path, pair, more="rows = 8\nin_flight = 3")) as made:
        yield made


def samples(n: int, *shape: int) -> np.ndarray:
    return GENERATOR.normal(size=(n, *shape)).astype(np.float32)


def is_double(y: np.ndarray, x: np.ndarray) -> bool:
    return y.dtype == np.float64 and np.allclose(y, 2 * np.asarray(x, float), atol=1e-4) and y.shape == np.shape(x)


def once(first, then=Asked.answer):
    """A script that does something else the first time."""
    turns = [first]
    return lambda asked: (turns.pop() if turns else then)(asked)


# --- answers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 7, 8, 9, 50])
def test_batches_of_any_size_come_back_in_order(client, pair, n):
    x = samples(n, 2, 3)
    assert is_double(client.predict(x, entry="double"), x)
    assert pair.seen.qsize() == -(-n // 8)


def test_one_sample_gives_one_result(client):
    x = samples(1, 2, 3)[0]
    assert is_double(client.predict(x, entry="double"), x)


def test_lists_and_integers_are_inputs_too(client):
    x = [[1, 2, 3], [4, 5, -6]]
    assert is_double(client.predict(x, entry="double"), x)


def test_no_rows_ask_nothing(client, pair):
    assert client.predict(np.zeros((0, 2, 3)), entry="double").shape == (0, 2, 3)
    assert client.call("predict", {"x": np.zeros((0, 4))})["signs"].dtype == np.int32
    assert pair.seen.empty()


def test_several_results_by_name_in_filled_up_messages(client):
    x = samples(20, 4)
    results = client.call("predict", {"x": x})
    assert list(results) == ["sums", "signs"]
    assert np.allclose(results["sums"], x.reshape(-1, 2, 2).sum(2), atol=1e-4)
    assert results["signs"].dtype == np.int32
    assert (results["signs"] == np.stack([np.full(20, 4), np.sign(x[:, 0]), np.sign(x[:, 1])], 1)).all()


def test_results_finish_in_any_order(client, pair):
    def slow_first(asked):
        if asked.number % 2:
            time.sleep(0.1)
        asked.answer()

    pair.script = slow_first
    x = samples(60, 2, 3)
    assert is_double(client.predict(x, entry="double"), x)


def test_the_leader_may_be_done_before_the_follower_answers(client, pair):
    def follower_last(asked):
        asked.give(LEADER)
        asked.done()
        time.sleep(0.05)
        asked.give(FOLLOWER)

    pair.script = follower_last
    x = samples(3, 4)
    assert np.allclose(client.call("predict", {"x": x})["sums"], x.reshape(-1, 2, 2).sum(2), atol=1e-4)


def test_progress_is_told_in_order(client):
    told = []
    client.predict(samples(20, 2, 3), entry="double", progress=lambda *now: told.append(now))
    assert told == [(8, 20), (16, 20), (20, 20)]


def test_requests_are_under_way_at_the_same_time_but_not_more_than_said(client, pair):
    now, most, lock = [0], [0], threading.Lock()

    def counted(asked):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.05)
        with lock:
            now[0] -= 1
        asked.answer()

    pair.script = counted
    client.predict(samples(80, 2, 3), entry="double")
    assert most[0] == 3


def test_loading_gives_arrays_by_name_and_tells_the_version(pair, tmp_path):
    kernel, bias = samples(300, 50), np.array([1.5, -2])
    with Client(write_config(tmp_path, pair, name="owner", acts_as="model_owner")) as owner:
        assert owner.load({"bias": bias, "kernel": kernel}) == 7
        assert owner.call("load", {"bias": bias, "kernel": kernel}) == {}
    got = pair.seen.get(timeout=GUARD).inputs()
    assert np.allclose(got[0], kernel, atol=1e-4)
    assert np.allclose(got[1], bias, atol=1e-4)


def test_a_label_joins_the_inputs_of_several_parties(client, pair):
    pair.script = lambda asked: asked.done()
    assert client.call("meet", {"c": [1, 2]}, label="patient 7") == {}
    assert pair.seen.get(timeout=GUARD).submits[LEADER]["label"] == "patient 7"


def test_many_threads_use_one_client(client, pair):
    wrong = []

    def ask(seed):
        x = np.random.default_rng(seed).normal(size=(20, 2, 3))
        for _ in range(5):
            if not is_double(client.predict(x, entry="double"), x):
                wrong.append(seed)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(GUARD)
    assert not wrong
    rows = [row for asked in pair.asked.values() for row in asked.rows]
    assert len(rows) == len(set(rows)) == 800


def test_what_a_server_sees_of_the_same_input_differs_each_time(client, pair):
    x = np.full((2, 2, 3), SECRET)
    client.predict(x, entry="double")
    client.predict(x, entry="double")
    first, second = (pair.seen.get(timeout=GUARD).data for _ in range(2))
    rows = {first[:48], first[48:], second[:48], second[48:]}
    assert len(rows) == 4
    assert round(SECRET * 2**16).to_bytes(8, "little") not in first + second


# --- what is refused before anything is sent ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (np.zeros((3, 3, 2)), r"Input 'x' has the shape \[n, 2, 3\]; \[3, 3, 2\] was given"),
        (np.zeros(3), r"Input 'x' has the shape \[n, 2, 3\]; \[3\] was given"),
        (np.zeros((2, 2, 3), complex), "Input 'x' is float32; complex128 was given"),
        (np.array([["a"]]), "Input 'x' is float32; <U1 was given"),
        ([[1, 2], [3]], "Input 'x' is an array: give rows of equal length"),
        (np.full((2, 2, 3), np.nan), "12 of its 12 numbers are NaN or infinite, the first at \\[0, 0, 0\\]"),
        (np.array([[[0, 0, 0], [0, 0, -np.inf]]]), "the first at \\[0, 1, 2\\]"),
        (np.full((1, 2, 3), 2e9), "'x' for entry 'double': A value is at most .* Rescale. Nothing was sent"),
        (np.full((1, 2, 3), 1e300), "A value is at most"),
        (np.concatenate([np.zeros((29, 2, 3)), np.full((1, 2, 3), 2e9)]), "Row 29 of 'x' for entry 'double'"),
    ],
)
def test_bad_inputs_are_refused_before_anything_is_sent(client, pair, x, text):
    with pytest.raises(RequestError, match=text) as caught:
        client.predict(x, entry="double")
    assert not caught.value.retry
    assert not pair.asked
    x = samples(2, 2, 3)
    assert is_double(client.predict(x, entry="double"), x)


@pytest.mark.parametrize(
    ("entry", "inputs", "label", "text"),
    [
        ("nothing", {}, "", "The plan's entries are double, load, meet, predict; there is no 'nothing'"),
        ("load", {"kernel": 0, "bias": 0}, "", "'load' has a part for model_owner; this client acts as 'client'"),
        ("predict", {"y": [1]}, "", "takes 'x'; missing: 'x', unknown: 'y'. Give each input by its name"),
        ("meet", {"c": [1, 2]}, "", "takes inputs of client, model_owner: give all of them the same label"),
        ("meet", {"c": [1, 2, 3]}, "a", r"Input 'c' has the shape \[2\]; \[3\] was given"),
        ("meet", {"c": [1, 2]}, "a\n", "A label is printable text of at most 200"),
        ("predict", {"x": [[1, 2, 3, 4]]}, "a", "A label is for entries of several parties; 'predict' has one"),
    ],
)
def test_calls_that_the_plan_does_not_have_are_refused(client, pair, entry, inputs, label, text):
    with pytest.raises(RequestError, match=text):
        client.call(entry, inputs, label=label)
    assert not pair.asked


def test_predict_is_for_one_input_and_one_result(client):
    with pytest.raises(RequestError, match=r"'predict' takes x and gives sums, signs. Use call"):
        client.predict([1, 2, 3, 4])


def test_load_is_for_entries_that_keep_something(client):
    with pytest.raises(RequestError, match=r"'double' keeps none. Use call"):
        client.load({"x": [0]}, entry="double")


# --- tries ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("server", [LEADER, FOLLOWER])
def test_an_error_that_may_pass_is_tried_again_with_new_rows(client, pair, server):
    def busy(asked):
        asked.say(server, type="error", request=asked.number, text="busy", retry=True)

    pair.script = once(busy)
    x = samples(3, 2, 3)
    assert is_double(client.predict(x, entry="double"), x)
    first, second = (pair.seen.get(timeout=GUARD) for _ in range(2))
    assert first.number < second.number
    assert not set(first.rows) & set(second.rows)
    assert first.data != second.data


def test_an_error_that_stays_is_told(client, pair):
    pair.script = lambda asked: asked.say(
        FOLLOWER, type="error", request=asked.number, text="over its quota\x1b[2J of 10 rows", retry=False
    )
    with pytest.raises(RequestError, match=r"request 1: over its quota .2J of 10 rows") as caught:
        client.predict(samples(3, 2, 3), entry="double")
    assert not caught.value.retry
    assert "\x1b" not in str(caught.value)
    assert pair.seen.qsize() == 1


def test_tries_are_counted(pair, tmp_path):
    pair.script = lambda asked: asked.say(LEADER, type="error", request=asked.number, text="busy", retry=True)
    with (
        Client(write_config(tmp_path, pair, limits="retries = 2")) as client,
        pytest.raises(RequestError, match="busy") as caught,
    ):
        client.predict(samples(1, 2, 3), entry="double")
    assert caught.value.retry
    assert pair.seen.qsize() == 3


def test_an_error_of_one_server_is_told_to_the_other(client, pair):
    pair.script = lambda asked: asked.say(FOLLOWER, type="error", request=asked.number, text="no", retry=False)
    with pytest.raises(RequestError):
        client.predict(samples(1, 2, 3), entry="double")
    assert (LEADER, 1) in {pair.cancelled.get(timeout=GUARD) for _ in range(2)}


@pytest.mark.parametrize("server", [LEADER, FOLLOWER])
def test_a_link_that_is_lost_in_the_middle_is_made_again(client, pair, server):
    def lose(asked):
        asked.give(FOLLOWER)
        asked.links[server].close("restarting")

    pair.script = once(lose)
    x = samples(40, 2, 3)
    assert is_double(client.predict(x, entry="double"), x)
    rows = [row for asked in pair.asked.values() for row in asked.rows]
    assert len(rows) == len(set(rows)) > 40


def test_a_server_that_starts_again_is_found_again(client, pair):
    x = samples(2, 2, 3)
    assert is_double(client.predict(x, entry="double"), x)
    pair.stop(FOLLOWER)
    starter = threading.Timer(0.3, pair.start, (FOLLOWER,))
    starter.start()
    try:
        assert is_double(client.predict(x, entry="double"), x)
    finally:
        starter.join()


def test_a_server_that_stays_away_is_named(client, pair):
    pair.stop(LEADER)
    with pytest.raises(UnreachableError, match="server0"):
        client.predict(samples(2, 2, 3), entry="double")
    pair.start(LEADER)


def test_late_answers_are_not_taken_for_others(client, pair):
    kept = []

    def late(asked):
        kept.append(asked)
        asked.say(FOLLOWER, type="error", request=asked.number, text="busy", retry=True)

    def answer_both(asked):
        kept[0].give(LEADER)
        kept[0].done()
        asked.answer()

    pair.script = once(late, answer_both)
    x, y = samples(3, 2, 3), samples(3, 2, 3)
    assert is_double(client.predict(x, entry="double"), x)
    pair.script = Asked.answer
    assert is_double(client.predict(y, entry="double"), y)
    assert pair.closed.empty()


def test_a_request_without_answer_names_who_is_missing(pair, tmp_path):
    with Client(write_config(tmp_path, pair, limits="answer = 0.3")) as client:
        x = samples(1, 4)
        pair.script = lambda asked: (asked.give(LEADER), asked.done())
        with pytest.raises(TimeLimitError, match=r"Request 1 was not answered .* no answer came from server1"):
            client.call("predict", {"x": x})
        assert {pair.cancelled.get(timeout=GUARD) for _ in range(2)} == {(LEADER, 1), (FOLLOWER, 1)}
        pair.script = lambda asked: asked.give(FOLLOWER)
        with pytest.raises(TimeLimitError, match="no answer came from server0"):
            client.call("predict", {"x": x})
        pair.script = lambda asked: None
        with pytest.raises(TimeLimitError, match="no answer came from server0 and server1"):
            client.call("predict", {"x": x})
        assert pair.seen.qsize() == 3  # none of them was tried again
        # A late answer of what was given up is dropped, and the links are as good as before.
        first, second, third = (pair.seen.get(timeout=GUARD) for _ in range(3))
        first.give(FOLLOWER)
        second.give(LEADER)
        third.answer()
        pair.script = Asked.answer
        assert client.call("predict", {"x": x})["sums"].shape == (1, 2)
        assert pair.closed.empty()


def test_a_call_may_have_a_time_limit_of_its_own(client, pair):
    pair.script = lambda asked: None
    with pytest.raises(TimeLimitError):
        client.predict(samples(1, 2, 3), entry="double", time_limit=0.1)


def test_one_failure_ends_the_whole_call(client, pair):
    def refuse_third(asked):
        if asked.number == 3:
            asked.say(LEADER, type="error", request=3, text="no", retry=False)
        elif asked.number < 3:
            asked.answer()

    pair.script = refuse_third
    with pytest.raises(RequestError, match="no"):
        client.predict(samples(200, 2, 3), entry="double")
    assert len(pair.asked) < 10


def test_a_callback_that_fails_ends_the_call(client):
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        client.predict(samples(200, 2, 3), entry="double", progress=stop)
    x = samples(2, 2, 3)
    assert is_double(client.predict(x, entry="double"), x)


def test_closing_ends_what_waits(pair, tmp_path):
    client = Client(write_config(tmp_path, pair))
    pair.script = lambda asked: client.close()
    with pytest.raises(ChannelError, match="closed"):
        client.predict(samples(1, 2, 3), entry="double")
    with pytest.raises(ChannelError, match="The client is closed"):
        client.predict(samples(1, 2, 3), entry="double")


# --- servers that break the rules ---------------------------------------------------------------------------------


def wrong(asked: Asked, server: str, kind: FrameKind, payload: bytes, **number) -> None:
    asked.links[server].send(kind, payload, **number)


BROKEN = {
    "too short": (lambda a: a.give(LEADER, bytes(40)), "has exactly 48 bytes, server0 announced 40"),
    "too long": (lambda a: a.give(LEADER, bytes(1 << 22)), "has exactly 48 bytes, server0 announced 4194304"),
    "not asked for": (
        lambda a: wrong(a, LEADER, FrameKind.DATA, bytes(48), execution=a.number + 9, round=1),
        "is not expected now, server0",
    ),
    "another round": (
        lambda a: wrong(a, LEADER, FrameKind.DATA, bytes(48), execution=a.number, round=2),
        "is not expected now, server0",
    ),
    "from who sends nothing": (lambda a: a.give(FOLLOWER, bytes(48)), "is not expected now, server1"),
    "done without data": (lambda a: a.done(), "Data comes before done; server0"),
    "done by the follower": (
        lambda a: a.say(FOLLOWER, type="done", request=a.number, version=0),
        "server0 says when a request is done; server1 said so",
    ),
    "no number": (lambda a: a.say(LEADER, type="done", request=True, version=0), "'request' of a message is a whole"),
    "no text": (lambda a: a.say(LEADER, type="error", request=1, retry=False), "'text' of a message is text"),
    "no retry": (lambda a: a.say(LEADER, type="error", request=1, text="a", retry=1), "true or false; that of server0"),
    "unknown type": (lambda a: a.say(LEADER, type="dance"), "server0 sent a message of another type"),
    "no object": (lambda a: wrong(a, LEADER, FrameKind.CONTROL, b"[]"), "an object with a type; what server0 sent"),
    "no JSON": (lambda a: wrong(a, LEADER, FrameKind.CONTROL, b"\xff"), "is JSON in UTF-8; what server0 sent is not"),
    "deep JSON": (lambda a: wrong(a, LEADER, FrameKind.CONTROL, b"[" * 60000), "is JSON in UTF-8"),
    "large CONTROL": (lambda a: wrong(a, LEADER, FrameKind.CONTROL, bytes(1 << 17)), "at most 65536 bytes, server0"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_server_that_breaks_a_rule_is_told_and_the_link_is_closed(pair, tmp_path, name):
    script, text = BROKEN[name]
    pair.script = script
    with Client(write_config(tmp_path, pair)) as client:
        with pytest.raises(PeerError, match=text):
            client.predict(samples(1, 2, 3), entry="double")
        assert re.search(text, pair.closed.get(timeout=GUARD))
        assert pair.seen.qsize() == 1  # it is not asked again


def test_data_comes_once(client, pair):
    def twice(asked):
        asked.give(LEADER)
        asked.give(LEADER)
        asked.done()

    pair.script = once(twice)
    x = samples(1, 2, 3)
    with pytest.raises(PeerError, match="is not expected now, server0 sent it"):
        client.predict(x, entry="double")
    assert "is not expected now" in pair.closed.get(timeout=GUARD)
    assert is_double(client.predict(x, entry="double"), x)


def test_a_control_message_about_nothing_we_know_is_ignored(client, pair):
    def stray(asked):
        asked.say(LEADER, type="done", request=999, version=1)
        asked.say(FOLLOWER, type="error", request=999, text="gone", retry=True)
        asked.answer()

    pair.script = stray
    x = samples(1, 2, 3)
    assert is_double(client.predict(x, entry="double"), x)


def test_a_server_that_hangs_is_given_up(tmp_path):
    with fake_pair() as pair, Client(write_config(tmp_path, pair, limits="dead_after = 1\nretries = 0")) as client:
        held = threading.Event()
        pair.script = lambda asked: None
        pair.size = lambda *asked: held.wait(GUARD) and None  # no thread of the link comes further
        try:
            with pytest.raises(ChannelError, match="was lost"):
                client.predict(samples(1, 2, 3), entry="double")
        finally:
            held.set()


def test_notices_are_for_people(pair, tmp_path, caplog):
    told = []
    pair.script = lambda asked: (asked.say(FOLLOWER, type="notice", text="stopping at noon"), asked.answer())
    config = write_config(tmp_path, pair)
    with (
        caplog.at_level(logging.INFO, "shareflow_client"),
        Client(config, on_notice=lambda *text: told.append(text)) as client,
    ):
        client.call("predict", {"x": samples(1, 4)})
    assert told == [("server1", "stopping at noon")]
    assert "server1 says: stopping at noon" in caplog.text


def test_nothing_secret_in_errors_or_logs(pair, tmp_path, caplog):
    pair.script = lambda asked: asked.say(LEADER, type="error", request=asked.number, text="busy", retry=True)
    path = write_config(tmp_path, pair, limits="retries = 1")
    errors = []
    with caplog.at_level(logging.DEBUG), Client(path) as client:
        for x in (np.full((1, 2, 3), SECRET), np.full((1, 2, 3), SECRET * 1e9), np.full((1, 2), SECRET)):
            with pytest.raises(RequestError) as caught:
                client.predict(x, entry="double")
            errors.append(str(caught.value) + repr(caught.value))
        keys = [link.key(b"rows").hex() for link in client._session.links().values()]
    key = (tmp_path / "me.key").read_text().splitlines()[1]
    for secret in ("1234", "123.4", *keys, key):
        assert secret not in "".join(errors)
        assert secret not in caplog.text


# --- who they are -------------------------------------------------------------------------------------------------


def test_another_fingerprint_than_the_one_checked_is_refused(pair, tmp_path):
    path = write_config(tmp_path, pair, more=f'fingerprint = "{"0" * 64}"')
    with pytest.raises(PlanError, match=f"gives the fingerprint {'0' * 64}, the file has {PLAN.fingerprint}"):
        Client(path)
    Client(write_config(tmp_path, pair, more=f'fingerprint = "{PLAN.fingerprint.upper()}"'))


def test_servers_with_another_plan_are_refused(tmp_path):
    with fake_pair(plan="ab" * 32) as pair:
        client = Client(write_config(tmp_path, pair))
        with pytest.raises(ChannelError, match=rf"run the same plan: .*{'ab' * 32}") as caught:
            client.connect()
    assert "server0" in str(caught.value)
    assert "server1" in str(caught.value)


def test_a_server_with_another_certificate_is_refused(tmp_path):
    with fake_pair(server1=identity("server1")) as pair:
        client = Client(write_config(tmp_path, pair))
        with pytest.raises(ChannelError, match=r"server1 .* is not the one pinned for it") as caught:
            client.connect()
    assert not isinstance(caught.value, UnreachableError)
    assert "server0" not in str(caught.value)


def test_a_stranger_is_told_so(pair, tmp_path):
    path = write_config(tmp_path, pair)
    stranger = identity("hospital", "client")
    (tmp_path / "me.crt").write_bytes(stranger.certificate_pem)
    (tmp_path / "me.key").write_bytes(stranger.private_key_pem)
    with pytest.raises(ChannelError, match="it may not know the certificate"):
        Client(path).connect()


def test_an_expired_certificate_of_our_own_is_found_before_connecting(pair, tmp_path):
    path = write_config(tmp_path, pair)
    old = identity("hospital", "client", begins=-5, ends=-1)
    (tmp_path / "me.crt").write_bytes(old.certificate_pem)
    (tmp_path / "me.key").write_bytes(old.private_key_pem)
    with pytest.raises(ChannelError, match="that of hospital expired"):
        Client(path).connect()


def test_a_key_of_another_certificate_is_refused(pair, tmp_path):
    path = write_config(tmp_path, pair)
    (tmp_path / "me.key").write_bytes(known("server0").private_key_pem)
    with pytest.raises(ConfigError, match="the private key of hospital belongs to its certificate"):
        Client(path)


def test_nobody_there(pair, tmp_path):
    path = write_config(tmp_path, pair)
    pair.stop(LEADER)
    with pytest.raises(UnreachableError, match=r"server0 at 127.0.0.1"):
        Client(path).connect()
    pair.start(LEADER)


def test_a_time_limit_tells_why_earlier_tries_failed(pair, client):
    pair.script = once(
        lambda asked: asked.say(LEADER, type="error", request=asked.number, text="the disk is full", retry=True),
        lambda asked: None,
    )
    with pytest.raises(TimeLimitError, match=r"not answered within.* ended with: server0 .*the disk is full"):
        client.predict(samples(1, 2, 3), entry="double", time_limit=1.0)


def test_connecting_takes_no_longer_than_the_request_may(pair, tmp_path):
    """Where a server's machine takes the connection and says nothing, as over a line that carries one way."""
    path = write_config(tmp_path, pair, limits="connect = 600")
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        here, there = pair.port("server1"), deaf.getsockname()[1]
        path.write_text(path.read_text().replace(f"127.0.0.1:{here}", f"127.0.0.1:{there}"))
        client = Client(path)
        results = []

        def asking():
            with pytest.raises(TimeLimitError, match=r"no connection to server1 within the time limit") as caught:
                client.predict(samples(1, 2, 3), entry="double", time_limit=0.3)
            results.append(caught.type)

        threads = [threading.Thread(target=asking, daemon=True) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(GUARD)
        assert len(results) == 3
        client.close()


def test_threads_share_an_attempt_to_connect(pair, tmp_path):
    client = Client(write_config(tmp_path, pair))
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(client.predict(samples(1, 2, 3), entry="double").shape))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(GUARD)
    assert results == [(1, 2, 3)] * 8
    assert all(len(listener.links) == 1 for listener in pair.listeners.values())
    client.close()


# --- configuration ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ('name = "hospital"', "", "name: is missing"),
        ('name = "hospital"', 'name = "a b"', "must be a name as in the client's certificate, not 'a b'"),
        ('"client"', '"server0"', "acts_as: a client is none of its servers"),
        ('"client"', '"patient"', "acts_as is a party of the plan that does not compute: client, model_owner"),
        ('"model.plan"', '"other.plan"', "plan: must be a file that can be read"),
        ('"model.plan"', '"client.toml"', "This is not a plan"),
        ('name = "server1"', 'name = "server0"', "must be another one in each table"),
        ('name = "server1"', 'name = "server2"', r"\[\[servers\]\] are those of the plan, server0, server1"),
        ("[limits]\n", "[limits]\nretrys = 1\n", "Did you mean 'retries'"),
        ("[limits]\n", "[limits]\nanswer = 0\n", "from 0.1 to 86400"),
        ("[limits]\n", 'rows = 0\n[limits]\n', "rows: must be a whole number from 1 to 4096"),
        ('"server1.crt"', '"me.key"', "the certificate for server1 is a certificate in PEM form"),
    ],
)
def test_configurations_that_cannot_be_used(pair, tmp_path, old, new, text):
    path = write_config(tmp_path, pair)
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises((ConfigError, PlanError), match=text):
        Client(path)


def test_a_private_key_that_others_may_read_is_refused(pair, tmp_path):
    path = write_config(tmp_path, pair)
    (tmp_path / "me.key").chmod(0o644)
    with pytest.raises(ConfigError, match=r"private_key: is a secret .* chmod 600"):
        Client(path)


def test_a_client_takes_a_configuration_made_in_python(pair, tmp_path):
    config = replace(load_config(write_config(tmp_path, pair)), rows=2)
    with Client(config) as client:
        client.predict(samples(5, 2, 3), entry="double")
    assert pair.seen.qsize() == 3


def test_large_messages_go_in_chunks(tmp_path):
    with fake_pair(settings=LinkSettings(chunk_bytes=1000)) as pair:
        config = write_config(tmp_path, pair, name="owner", acts_as="model_owner")
        with Client(config) as owner:
            assert owner.load({"bias": [0, 0], "kernel": np.ones((300, 50))}) == 7
