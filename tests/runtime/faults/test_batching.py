"""What goes together in one execution: requests within `batch_window`, of several clients with `mix_clients` alone."""

from __future__ import annotations

import contextlib
import itertools
import json
import threading
from types import MappingProxyType

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.runtime.faults.parties import LEADER, SERVERS, Asking, agrees, broken, samples
from tests.runtime.faults.trio import FOLLOWER, GUARD, RefusedError, eventually, right, trio
from tests.runtime.faults.trio import LEADER as FIRST

from shareflow_client.client import Client
from shareflow_client.wire import FrameKind

# Longer than a test waits: what comes to an end did not wait for it.
LONG = 60.0
SHORT = 1.0
STOCK = MappingProxyType({"predict@1": 4, "predict@4": 4})


def x_of(rows, seed):
    return np.random.default_rng(seed).integers(-4, 4, (rows, 3)).astype(np.float32)


class Asked:
    """Requests of several clients, each with an input of its own; their answers are right."""

    def __init__(self, three):
        self.three, self.clients, self.requests, self._seeds = three, {}, [], itertools.count()

    def __call__(self, name, rows=1):
        if name not in self.clients:
            self.clients[name] = self.three.client(name)
        x = x_of(rows, next(self._seeds))
        self.requests.append((self.clients[name], self.clients[name].submit("predict", {"x": x}), x))

    def answers(self):
        for client, number, x in self.requests:
            result, _ = client.result(number)
            assert np.allclose(result["result"], right(x), atol=1e-3)

    def wait(self, rows):
        """Until so many rows wait at the leader."""
        eventually(lambda: self.three.roles[FIRST]._queue.waiting("predict") == rows)

    def batches(self):
        """By execution: its graph, and how many rows of each client."""
        found = []
        for graph, rows in self.three.begun:
            if graph.startswith("predict"):
                names = [row.request.key.client for row in rows]
                found.append((graph, {name: names.count(name) for name in names}))
        return found


@contextlib.contextmanager
def loaded(directory, **serving):
    """A trio with weights and material for every graph; gives it, and what asks."""
    with trio(directory, stock=STOCK, **serving) as three:
        three.load()
        leader = three.roles[FIRST]
        eventually(lambda: all(leader._stock.usable(leader._use(graph)) >= 3 for graph in STOCK))
        yield three, Asked(three)


def test_two_clients_within_the_window_go_together(tmp_path):
    with loaded(tmp_path, batch_window=SHORT, mix_clients=True) as (_, asked):
        asked("ann")
        asked("bob", 2)
        asked.answers()
        assert asked.batches() == [("predict@4", {"ann": 1, "bob": 2})]


def test_without_mix_clients_they_do_not(tmp_path):
    with loaded(tmp_path, batch_window=SHORT) as (_, asked):
        asked("ann")
        asked("bob", 2)
        asked("ann")
        asked.answers()
        assert asked.batches() == [("predict@4", {"ann": 2}), ("predict@4", {"bob": 2})]


def test_a_lone_request_waits_for_the_window_and_no_longer(tmp_path):
    with loaded(tmp_path, batch_window=SHORT, mix_clients=True) as (_, asked):
        asked("ann")
        asked.answers()
        assert asked.batches() == [("predict@1", {"ann": 1})]


def test_a_full_batch_does_not_wait(tmp_path):
    with loaded(tmp_path, batch_window=LONG, mix_clients=True, request_limit=GUARD) as (_, asked):
        asked("ann")
        asked("bob", 2)
        asked.wait(3)
        asked("ann", 1)
        asked.answers()
        assert asked.batches() == [("predict@4", {"ann": 2, "bob": 2})]


def test_a_full_batch_does_not_wait_for_a_client_that_it_is_not_joined_with(tmp_path):
    """The first one's row waits for company; without mix_clients the other's rows are none."""
    with loaded(tmp_path, batch_window=LONG, request_limit=GUARD) as (_, asked):
        asked("ann")
        asked.wait(1)
        asked("bob", 4)
        (client, number, x) = asked.requests.pop()
        assert np.allclose(client.result(number)[0]["result"], right(x), atol=1e-3)
        asked("ann", 3)
        asked.answers()
        assert asked.batches() == [("predict@4", {"bob": 4}), ("predict@4", {"ann": 4})]


def test_one_server_alone_does_not_mix_clients(tmp_path):
    """Where the servers' configurations differ the follower refuses, and says why."""
    with loaded(tmp_path, batch_window=SHORT, mix_clients=True) as (three, asked):
        follower = three.roles[FOLLOWER]
        follower._settings = follower._settings.__class__(**{**vars(three.settings), "mix_clients": False})
        asked("ann")
        asked("bob")
        with pytest.raises(RefusedError, match="does not compute rows of different clients together"):
            asked.answers()


def test_requests_that_came_together_are_answered_each_by_itself(tmp_path):
    """One that is given up, and one whose client leaves, spoil nothing for those they would have gone with."""
    with loaded(tmp_path, batch_window=LONG, mix_clients=True, request_limit=GUARD) as (three, asked):
        asked("ann")
        asked("bob")
        with three.client("bob") as leaving:
            leaving.submit("predict", {"x": x_of(1, 99)})
            asked.wait(3)
        asked.wait(2)
        client = asked.clients["ann"]
        given_up = client.submit("predict", {"x": x_of(1, 98)})
        asked.wait(3)
        for server in SERVERS:
            client.links[server].say("cancel", request=given_up)
        asked.wait(2)
        asked("ann", 2)
        asked.answers()
        assert asked.batches() == [("predict@4", {"ann": 3, "bob": 1})]
        assert given_up not in client._done


@pytest.mark.parametrize("mix", [False, True], ids=["apart", "mixed"])
def test_a_client_that_floods_does_not_starve_another(tmp_path, mix):
    """However much one asks for, another is computed next but for what already runs."""
    with loaded(tmp_path, parallel=1, mix_clients=mix) as (three, asked):
        go_on = threading.Event()

        def change(kind, execution, number, payload):
            assert kind is FrameKind.CONTROL or go_on.wait(GUARD)
            return payload

        three.links[FIRST, FOLLOWER].change = change
        for _ in range(3):
            asked("ann", 10)
        eventually(asked.batches)
        runs = sum(asked.batches()[0][1].values())
        asked.wait(30 - runs)
        asked("bob")
        asked.wait(31 - runs)
        go_on.set()
        asked.answers()
        first, second, *_ = asked.batches()
        assert first[1] == {"ann": runs}
        assert second[1] == ({"ann": 3, "bob": 1} if mix else {"bob": 1})


# --- as processes -----------------------------------------------------------------------------------------------------


def executed(dep):
    """By graph, executions that came to their end at the leader."""
    found = {}
    for family in text_string_to_metric_families(dep.metrics(LEADER)):
        for sample in family.samples:
            if sample.name == "shareflow_executions_total" and sample.labels["outcome"] == "ok":
                found[sample.labels["graph"]] = sample.value
    return found


@pytest.mark.slow
def test_processes_that_join_the_requests_of_two_clients(tmp_path):
    """Four predictions of two clients within the window are one execution; each gets its own answer."""
    serving = "batch_window = 1.0\nmix_clients = true\nexecution_limit = 8.0\nrequest_limit = 15.0"
    clients = {"hospital": "client", "clinic": "client"}
    with broken(tmp_path, clients, serving=serving) as (dep, model):
        eventually(lambda: all(json.loads(dep.status(s))["stock"]["predict@4"] >= 4 for s in SERVERS), 60.0)
        start = threading.Barrier(4)

        def predict(client):
            x = samples(1)
            start.wait(GUARD)
            assert agrees(model, x, client.predict(x))

        with Client(dep.config("hospital")) as hospital, Client(dep.config("clinic")) as clinic:
            before = executed(dep)
            for one in [Asking(predict, client) for client in (hospital, clinic) * 2]:
                one.outcome()
            after = executed(dep)
            assert after["predict@4"] - before.get("predict@4", 0) == 1
            assert after.get("predict@1", 0) == before.get("predict@1", 0)
            # Nobody comes: alone, after the window.
            x = samples(1)
            assert agrees(model, x, hospital.predict(x, time_limit=GUARD))
            assert executed(dep)["predict@1"] - before.get("predict@1", 0) == 1
