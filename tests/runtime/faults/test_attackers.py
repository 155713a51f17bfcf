"""Strangers, clients with wrong papers and clients that misbehave, against real processes; and many clients at once."""

from __future__ import annotations

import dataclasses
import json
import threading
import time

import numpy as np
import pytest
from tests.runtime.channel.pairs import identity
from tests.runtime.faults.parties import (
    DEALER,
    GUARD,
    LEADER,
    SERVERS,
    Asking,
    agrees,
    ask,
    broken,
    samples,
    tiny_model,
)

import shareflow as sf
from shareflow_client.client import Client
from shareflow_client.client_config import load_config
from shareflow_client.errors import ChannelError, ConfigError, RequestError, ShareflowError
from shareflow_client.link import Callbacks, LinkSettings, dial
from shareflow_client.wire import FrameKind

GROUPS = ("hospital", "clinic", "practice", "ward")


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with broken(tmp_path_factory.mktemp("parties"), dict.fromkeys(GROUPS, "client")) as made:
        yield made


@pytest.fixture(autouse=True)
def others_go_on(running):
    """While each case runs another client predicts, and gets nothing but right answers."""
    stop = threading.Event()

    def predicting():
        dep, model = running
        with Client(dep.config("clinic")) as client:
            while not stop.is_set():
                x = samples(2)
                assert agrees(model, x, client.predict(x, time_limit=GUARD))

    asking = Asking(predicting)
    yield
    stop.set()
    asking.outcome()


def quiet(on_frame=lambda link, frame: None):
    return Callbacks(on_frame, lambda link, text: None, lambda link, kind, execution, round_: 1 << 20)


def dialed(dep, name="hospital", server=LEADER, callbacks=None, **changes):
    """A link of a client that does what the test says."""
    config = load_config(dep.config(name))
    (chosen,) = [s for s in config.servers if s.name == server]
    who = changes.pop("identity", config.identity())
    plan = changes.pop("plan", config.read_plan().fingerprint)
    settings = LinkSettings(dead_after=5.0, drain=1.0)
    callbacks = callbacks or quiet()
    return dial(str(chosen.address), who, chosen.trusted(), plan=plan, callbacks=callbacks, settings=settings)


def until_closed(link):
    deadline = time.monotonic() + GUARD
    while link.closed is None:
        assert time.monotonic() < deadline, "the server keeps the link"
        time.sleep(0.01)
    return link.closed


# --- who may connect --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize(
    "who",
    [
        identity("stranger", "client"),
        identity("hospital", "client"),  # the right name, another key
        identity("hospital", "client", begins=-10, ends=-1),
        identity("server1", "party"),
    ],
    ids=["stranger", "wrong certificate", "expired certificate", "false party"],
)
def test_who_is_not_known_does_not_get_in(running, server, who):
    with pytest.raises((ChannelError, ConfigError)):
        dialed(running[0], server=server, identity=who)


def test_a_known_client_is_no_party(running):
    config = load_config(running[0].config("hospital"))
    who = dataclasses.replace(config.identity(), role="party")
    with pytest.raises(ChannelError):
        dialed(running[0], identity=who)


def test_another_plan(running, tmp_path):
    dep, _ = running
    with pytest.raises(ChannelError, match="plan"):
        dialed(dep, plan="ab" * 32)
    model = tiny_model()
    sf.compile_model(model, owner="model-owner", client="client", batch_sizes=(1, 2)).write(tmp_path / "other.plan")
    text = dep.config("hospital").read_text().replace(str(dep.plan), str(tmp_path / "other.plan"))
    (tmp_path / "client.toml").write_text(text)
    with pytest.raises(ShareflowError, match="plan"), Client(tmp_path / "client.toml"):
        pass


def test_a_client_without_a_right_to_the_entry(running):
    dep, model = running
    text = dep.config("hospital").read_text().replace('acts_as = "client"', 'acts_as = "model_owner"')
    file = dep.directory / "greedy.toml"
    file.write_text(text)
    with Client(file) as client, pytest.raises(RequestError, match="acts as client"):
        client.load(sf.parameters_of(model))


# --- what clients send ------------------------------------------------------------------------------------------------


def submit(**changes):
    message = {"type": "submit", "request": 1, "session": "0" * 32, "entry": "predict", "as": "client", "label": ""}
    return json.dumps({**message, "rows": 1, "first_row": 0, **changes}).encode()


@pytest.mark.parametrize(
    "payload",
    [b"{", b'{"type":"explode"}', b"[" * 60_000, b" " * (1 << 17), submit(rows=1 << 40), submit(first_row=-1)],
    ids=["no JSON", "unknown", "deep", "oversized", "too many rows", "negative row"],
)
def test_messages_that_no_client_sends(running, payload):
    link = dialed(running[0])
    link.send(FrameKind.CONTROL, payload)
    assert "closed" in until_closed(link)


def test_messages_that_are_repeated(running):
    link = dialed(running[0])
    link.send(FrameKind.CONTROL, submit())
    link.send(FrameKind.CONTROL, submit())
    assert "rows go up" in until_closed(link)


def test_data_that_nobody_expects(running):
    for size in (8, 1 << 22):
        link = dialed(running[0])
        link.send(FrameKind.DATA, bytes(size), execution=1)
        assert "not expected" in until_closed(link)


def test_a_client_that_leaves_in_the_middle_of_a_message(running):
    for _ in range(3):
        link = dialed(running[0])
        link.send(FrameKind.CONTROL, submit(rows=1000))
        link._cancel()  # the connection is cut: no word of closing
        until_closed(link)


def test_a_client_that_asks_one_server_only(running):
    link = dialed(running[0])
    size = 8 * 4
    link.send(FrameKind.CONTROL, submit())
    link.send(FrameKind.DATA, bytes(size), execution=1)
    time.sleep(0.5)
    link.close("enough")


@pytest.mark.slow
def test_a_client_that_never_reads(running):
    """It asks on and on; the server's memory does not follow, and then it is let go."""
    dep, _ = running
    blocked = threading.Event()
    before, _ = dep.memory(LEADER)
    link = dialed(dep, callbacks=quiet(lambda link, frame: blocked.wait(GUARD)))

    def asking():
        for number in range(1, 1 << 20):
            link.send(FrameKind.CONTROL, submit(request=number, first_row=number, entry="x" * 200))

    try:
        asked = Asking(asking)
        deadline = time.monotonic() + GUARD
        while "does not read" not in dep.log(LEADER).read_text():
            assert time.monotonic() < deadline, "it may go on for ever"
            time.sleep(0.2)
        after, _ = dep.memory(LEADER)
        assert after - before < 300
    finally:
        blocked.set()
        link.close("enough")
    with pytest.raises(ChannelError):
        asked.outcome()


def test_many_connections_of_one_client(running):
    dep, _ = running
    links = []
    with pytest.raises(ChannelError, match="at most 8 links"):
        for _ in range(20):
            links.append(dialed(dep))
    for link in links:
        link.close("enough")


# --- many at once -----------------------------------------------------------------------------------------------------


def crowd(running, count, seconds):
    """So many clients ask for so long: every answer is right, nobody starves, and what servers use stays bounded."""
    dep, model = running
    assert ask(dep, model) is None
    before = {server: dep.memory(server) for server in SERVERS}
    end, answers = time.monotonic() + seconds, [0] * count

    def client(number):
        rng = np.random.default_rng(number)
        with Client(dep.config(GROUPS[number % len(GROUPS)])) as mine:
            while time.monotonic() < end:
                x = samples(int(rng.integers(1, 6)), int(rng.integers(1 << 30)))
                assert agrees(model, x, mine.predict(x, time_limit=GUARD)), "a wrong answer"
                answers[number] += 1

    asking = [Asking(client, number) for number in range(count)]
    most = dict(before)
    while any(one.is_alive() for one in asking) and time.monotonic() < end + GUARD:
        time.sleep(0.25)
        most = {server: tuple(map(max, zip(most[server], dep.memory(server), strict=True))) for server in SERVERS}
    for one in asking:
        one.outcome()
    assert min(answers) > 0, f"somebody starved: {answers}"
    assert min(answers) * 20 > max(answers), f"somebody starved: {answers}"
    for server in SERVERS:
        memory, threads = (after - first for after, first in zip(most[server], before[server], strict=True))
        assert memory < 400, f"{server} took {memory:.0f} MiB more"
        assert threads < 40 + 12 * count, f"{server} has {threads} threads more"
    deadline = time.monotonic() + GUARD  # the threads of links end with them
    while any(dep.memory(server)[1] > before[server][1] + 60 for server in SERVERS):
        assert time.monotonic() < deadline, "threads stay behind"
        time.sleep(0.1)
    return sum(answers)


def test_eight_clients_at_once(running):
    crowd(running, 8, 5.0)


@pytest.mark.slow
def test_thirty_two_clients_for_a_minute(running):
    # Seven of one group's eight links are the crowd's where the witness of each test has one.
    crowd(running, 28, 60.0)


def test_logs_hold_no_secrets(running):
    """The parties' logs, in the middle; they are searched again when all parties end."""
    dep, model = running
    assert ask(dep, model) is None
    dep.check_indices()
    dep.check_logs()
    assert dep.log(DEALER).read_text()
