"""Two servers and a dealer as objects of this process, joined by links of which a test has the ends."""

from __future__ import annotations

import contextlib
import itertools
import json
import secrets
import threading
import time
from functools import cache

import numpy as np
from tests.runtime.faults.fake_links import GUARD, joined

import shareflow as sf
from shareflow.planning import Entry, Input, plan
from shareflow.protocol.default import current_protocol
from shareflow.runtime.dealing import Dealing
from shareflow.runtime.following import Following
from shareflow.runtime.leading import Leading
from shareflow.runtime.metrics import Metrics
from shareflow.runtime.party_config import ClientRights, DealingSettings, ServingSettings
from shareflow.runtime.store import Store
from shareflow_client.entry_rows import EntryRows
from shareflow_client.link import Callbacks
from shareflow_client.wire import FrameKind

LEADER, FOLLOWER, DEALER = "server0", "server1", "dealer"
SERVERS = (LEADER, FOLLOWER)
KEY = bytes(range(32))
WEIGHTS = np.array([[1.0, -2.0], [0.5, 1.0], [-1.0, 3.0]], np.float32)


@cache
def tiny_plan():
    """``load`` keeps w; ``predict`` = relu(x w); ``square`` = x * x, without state; ``meet`` is of two parties."""

    def load(w):
        return {"w": w}

    def predict(x, w):
        return sf.nn.relu(x @ w).reveal("client")

    def square(x):
        x = x.shared(current_protocol())  # or the client would do it alone
        return (x * x).reveal("client")

    def meet(x, y):
        return (x * y).reveal("client")

    return plan(
        {
            "load": Entry(load, {"w": Input("owner", (3, 2))}, keeps=("w",)),
            "predict": Entry(predict, {"x": Input("client", (3,))}, batch_sizes=(1, 4)),
            "square": Entry(square, {"x": Input("client", (2,))}, batch_sizes=(1, 4)),
            "meet": Entry(meet, {"x": Input("client", (2,)), "y": Input("owner", (2,))}),
        }
    )


def right(x, weights=WEIGHTS):
    return np.maximum(x @ weights, 0)


def rights(name, acts_as=("client",), **limits):
    return ClientRights(name=name, acts_as=acts_as, **{"rows_per_minute": 1 << 30, **limits})


CLIENTS = (rights("ann"), rights("bob"), rights("owner", ("owner",)))


class Trio:
    """The three parties of :func:`tiny_plan`, each with its store in a folder."""

    def __init__(self, directory, *, clients=CLIENTS, stock=None, plan=None, **serving):
        self.plan, self.directory, self.clients = plan or tiny_plan(), directory, {c.name: c for c in clients}
        stock = {"load": 2, "predict@1": 4, "predict@4": 4, "square@1": 4, "square@4": 4, "meet": 2, **(stock or {})}
        self.settings = ServingSettings(stock=stock, **{"execution_limit": 20.0, "request_limit": 20.0, **serving})
        self.stores, self.roles, self.links = {}, {}, {}
        self.executed = {LEADER: [], FOLLOWER: []}  # indices, over all starts
        self.begun = []  # (graph, rows) of each execution that the leader began

    def start(self, *parties):
        for party in parties or (LEADER, FOLLOWER, DEALER):
            store = self.stores[party] = Store.open(
                self.directory / party, KEY, plan_fingerprint=self.plan.fingerprint, party=party
            )
            if party == DEALER:
                self.roles[party] = Dealing(self.plan, party, store, DealingSettings(), Metrics())
            else:
                kind = Leading if party == LEADER else Following
                role = self.roles[party] = kind(self.plan, party, store, self.settings, self.clients, Metrics())
                self._watch(party, role)
        return self

    def _watch(self, party, role):
        compute = role._compute

        def watched(running, material, link):
            assert material.index == running.index
            self.executed[party].append(running.index)
            if party == LEADER:
                self.begun.append((running.graph, [row for rows in running.batch.rows.values() for row in rows]))
            return compute(running, material, link)

        role._compute = watched

    def check_indices(self):
        """No index was computed with twice, at neither server."""
        for party, indices in self.executed.items():
            assert len(set(indices)) == len(indices), f"{party} used an index twice"

    def join(self, one, other):
        """Links two of the parties; the ends are ``links[one, other]`` and ``links[other, one]``."""
        self.links[one, other], self.links[other, one] = joined(
            one, self.roles[one].callbacks, other, self.roles[other].callbacks
        )

    def join_all(self):
        self.join(FOLLOWER, LEADER)
        self.join(DEALER, LEADER)
        self.join(DEALER, FOLLOWER)
        return self

    def end(self, *parties):
        """As if the process of a party were gone: its links are closed, its store too."""
        for party in parties or tuple(self.roles):
            for ends, link in list(self.links.items()):
                if party in ends:
                    link.close("gone")
            self.roles.pop(party).stop(0.0)
            self.stores.pop(party).close()

    def client(self, name, **options):
        return TestClient(self, name, **options)

    def load(self, weights=WEIGHTS):
        with self.client("owner", acts_as="owner") as owner:
            version = owner.call("load", {"w": weights})[1]
        # The leader's promise holds; that the follower knows too spares the next request a refusal.
        eventually(lambda: self.roles[FOLLOWER].status()["state_version"] == version)
        return version


@contextlib.contextmanager
def trio(directory, **options):
    """A trio whose parties are started and joined."""
    made = Trio(directory, **options).start().join_all()
    try:
        yield made
    finally:
        made.end()
        made.check_indices()


class RefusedError(Exception):
    def __init__(self, server, text, retry):
        super().__init__(f"{server}: {text}")
        self.retry = retry


class TestClient:
    """A client that does just what a test says, one step at a time."""

    __test__ = False

    def __init__(self, trio, name, *, acts_as="client", session=None, servers=SERVERS):
        self.name, self.acts_as = name, acts_as
        self.manifest = trio.plan.manifest
        self.session = session or secrets.token_hex(16)
        self.texts = {}
        self._changed = threading.Condition()
        self._done, self._errors, self._data, self._sizes = {}, {}, {}, {}
        self._numbers, self._row = itertools.count(1), 0
        self.started = {}
        callbacks = Callbacks(self._frame, self._close, self._limit)
        self.links = {s: joined(name, callbacks, s, trio.roles[s].callbacks, role="client")[0] for s in servers}

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        for link in self.links.values():
            link.close("the client ends")

    def _limit(self, link, kind, execution, round_):
        return 1 << 16 if kind is FrameKind.CONTROL else self._sizes.get((link.peer, execution))

    def _frame(self, link, frame):
        with self._changed:
            if frame.kind is FrameKind.DATA:
                assert (link.peer, frame.execution) not in self._data, "a result came twice"
                self._data[link.peer, frame.execution] = frame.payload
            else:
                message = json.loads(bytes(frame.payload))
                if message["type"] == "done":
                    self._done[message["request"]] = message["version"]
                elif message["type"] == "error":
                    self._errors.setdefault(
                        message["request"], RefusedError(link.peer, message["text"], message["retry"])
                    )
            self._changed.notify_all()

    def _close(self, link, text):
        with self._changed:
            self.texts[link.peer] = text
            self._changed.notify_all()

    def submit(self, entry, arrays, /, *, label="", to=SERVERS, send=True, **changes):
        """Asks, of these servers; gives the number. ``changes`` are of the message."""
        rows = EntryRows(self.manifest, entry, self.acts_as)
        arrays, count = rows.checked(arrays)
        number, first = changes.get("request", next(self._numbers)), changes.get("first_row", self._row)
        self._row = first + count
        for server in SERVERS:
            self._sizes[server, number] = rows.receive_size(server, count)
        keys = {server: link.key(b"rows") for server, link in self.links.items()}
        started = rows.start(arrays, count, first, {s: keys.get(s, b"?" * 16) for s in SERVERS})
        self.started[number] = rows, started
        message = {
            "request": number,
            "session": self.session,
            "entry": entry,
            "as": self.acts_as,
            "label": label,
            "rows": count,
            "first_row": first,
        }
        for server in to:
            self.links[server].say("submit", **{**message, **changes})
        if send:
            for server in to:
                self.give(server, number)
        return number

    def give(self, server, number):
        """Sends the input of a request."""
        rows, started = self.started[number]
        if rows.send_size(server, len(started)):
            self.links[server].send(FrameKind.DATA, list(rows.message(server, started)), execution=number)

    def result(self, number, seconds=GUARD):
        """(results by name, version). Raises RefusedError; AssertionError when nothing comes in time."""

        def over():
            complete = number in self._done and all(
                not size or (server, number) in self._data for (server, n), size in self._sizes.items() if n == number
            )
            return complete or number in self._errors or self.texts

        with self._changed:
            assert self._changed.wait_for(over, seconds), f"{self.name} has no answer to request {number}"
            if number in self._errors:
                raise self._errors[number]
            if self.texts and number not in self._done:
                raise RefusedError(*next(iter(self.texts.items())), True)
            rows, started = self.started[number]
            data = {server: self._data[server, number] for server in SERVERS if (server, number) in self._data}
            return rows.finish(started, data), self._done[number]

    def call(self, entry, arrays, seconds=GUARD, **options):
        """Asks and waits, anew after errors that say so; as :meth:`result`."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                return self.result(self.submit(entry, arrays, **options), max(deadline - time.monotonic(), 0.1))
            except RefusedError as error:
                if not error.retry or self.texts or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def predict(self, x, **options):
        return self.call("predict", {"x": np.asarray(x, np.float32)}, **options)[0]["result"]

    def square(self, x, **options):
        return self.call("square", {"x": np.asarray(x, np.float32)}, **options)[0]["result"]


def eventually(condition, seconds=GUARD):
    """Waits until the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it does not come to hold"
        time.sleep(0.01)
