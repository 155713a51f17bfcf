"""Three parties and their clients, each in a network namespace of its own, on lines that a test can break."""

from __future__ import annotations

import contextlib
import itertools
import json
import secrets
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from benchmarks.deployment import environment
from benchmarks.namespaces import Line, NamespaceError, joined
from tests.runtime.faults.parties import DEALER, GUARD, RUNNER, SERVERS, Broken, agrees, tiny_model

import shareflow as sf

CLIENTS = "clients"  # their namespace
PLACES = (*SERVERS, DEALER, CLIENTS)
NEAR = Line(rtt=0.001, bandwidth=1e9)
DEAD_AFTER, EXECUTION_LIMIT, REQUEST_LIMIT = 4.0, 6.0, 8.0
# By client: what it is told of limits. One gives up a server that is silent, the other does not.
LIMITS = MappingProxyType(
    {
        "owner": "connect = 3\n",
        "hospital": f"connect = 60\ndead_after = {DEAD_AFTER}\nretries = 0\n",
        "patient": "connect = 3\ndead_after = 300\nretries = 100\n",
    }
)


class Said(Exception):  # noqa: N818 - it is what a client was told
    """The error of a client."""


class Distant(Broken):
    """A deployment in a network; what its clients ask is asked in a process of their namespace."""

    def join(self, network):
        self.network, self._numbers, self._answers = network, itertools.count(1), {}
        self._changed = threading.Condition()
        command = [*network.prefix(CLIENTS), sys.executable, str(Path(__file__).with_name("client_process.py"))]
        self._clients = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, env=environment()
        )
        threading.Thread(target=self._listen, daemon=True).start()

    def stop(self):
        try:
            super().stop()
        finally:
            self._clients.stdin.close()
            self._clients.kill()
            self._clients.wait()

    def _client(self, client, acts_as):
        return super()._client(client, acts_as) + f"[limits]\n{LIMITS[client]}"

    # --- across the namespaces' borders

    def status(self, party):
        return self.network.inside(party, lambda: super(Distant, self).status(party))

    def metrics(self, party):
        return self.network.inside(party, lambda: super(Distant, self).metrics(party))

    def peers(self, party):
        """By other party: connected or lost; empty while the party does not answer."""
        return json.loads(self.status(party) or "{}").get("peers", {})

    def version(self, party):
        """Of the state that a party uses."""
        return json.loads(self.status(party) or "{}").get("state_version")

    def waiting(self, party):
        """Requests that wait at a party."""
        return json.loads(self.status(party))["waiting"]

    def running(self, party):
        """Executions that run at a party."""
        return json.loads(self.status(party))["running"]

    # --- breaking lines

    @contextlib.contextmanager
    def cut(self, one, other):
        """No packet gets from one place to the other, or back, inside the block."""
        ways = [(one, other), (other, one)]
        for way in ways:
            self.network.cut(*way)
        try:
            yield
        finally:
            for way in ways:
                self.network.mend(*way)

    @contextlib.contextmanager
    def cut_one_way(self, source, to):
        self.network.cut(source, to)
        try:
            yield
        finally:
            self.network.mend(source, to)

    @contextlib.contextmanager
    def unplugged(self, place):
        self.network.unplug(place)
        try:
            yield
        finally:
            self.network.plug(place)

    # --- asking

    def _listen(self):
        for line in self._clients.stdout:
            said = json.loads(line)
            with self._changed:
                self._answers[said["number"]] = said
                self._changed.notify_all()

    def ask(self, name="hospital", rows=1, time_limit=20.0, **more):
        """Asks, and does not wait; gives the number to call :meth:`answer` with."""
        number = next(self._numbers)
        wanted = {"number": number, "config": str(self.config(name)), "time_limit": time_limit, **more}
        self._clients.stdin.write(json.dumps({"rows": rows, "seed": secrets.randbits(32), **wanted}) + "\n")
        return number, time.monotonic() + time_limit

    def answer(self, asked, spare=8.0):
        """(x, y) of what was asked; raises Said with the client's error. It ends in time, with some to spare."""
        number, until = asked
        with self._changed:
            left = until - time.monotonic() + spare
            assert self._changed.wait_for(lambda: number in self._answers, left), "neither answer nor error in time"
            said = self._answers.pop(number)
        if "kind" in said:
            raise Said(f"{said['kind']}: {said['text']}")
        return np.array(said.get("x")), np.array(said.get("y"))

    def predicts(self, model, asked):
        """The answer came, and is right."""
        x, y = self.answer(asked)
        assert agrees(model, x, y), "a wrong answer"

    def fails(self, model, asked, pattern):
        """There is an error, in the time that the client gave, which says this; what did come in time was right."""
        with pytest.raises(Said, match=pattern) as caught:
            self.predicts(model, asked)
        return str(caught.value)

    def serves(self, model):
        """All are linked, and both clients get right answers, after refusals while links are just being made again."""
        self.await_links()
        deadline = time.monotonic() + GUARD
        for name in ("hospital", "patient"):
            while True:
                try:
                    self.predicts(model, self.ask(name, rows=2))
                    break
                except Said as error:
                    assert time.monotonic() < deadline, error
                    time.sleep(0.2)
        self.check_indices()


@contextlib.contextmanager
def distant(directory, line=NEAR, *, execution_limit=EXECUTION_LIMIT, dead_after=DEAD_AFTER):
    """Parties in a network that are linked and have the tiny model; gives (deployment, model).

    Skips the test where the machine makes no network namespaces.
    """
    with contextlib.ExitStack() as stack:
        try:
            network = stack.enter_context(joined(PLACES, line))
        except NamespaceError as error:
            pytest.skip(str(error))
        model, plan, weights = tiny_model(), directory / "tiny.plan", directory / "weights.npz"
        sf.compile_model(model, owner="model-owner", client="client", batch_sizes=(1, 4)).write(plan)
        np.savez(weights, **sf.parameters_of(model))
        links = f"[links]\ndead_after = {dead_after}\nhandshake_limit = 3.0\n"
        serving = f"[serving]\nexecution_limit = {execution_limit}\nrequest_limit = {REQUEST_LIMIT}\nprefetch = 4\n"
        stock = '[stock]\n"predict@1" = 12\n"predict@4" = 12\nload = 2\n'
        dep = Distant(
            directory,
            plan,
            {"owner": "model_owner", "hospital": "client", "patient": "client"},
            hosts={place: network.address(place) for place in PLACES},
            tables={**dict.fromkeys(SERVERS, links + serving + stock), DEALER: links},
            prefix={p: (*network.prefix(p), sys.executable, str(RUNNER), str(directory)) for p in (*SERVERS, DEALER)},
        )
        dep.join(network)
        try:
            dep.start()
            dep.await_links()
            dep.answer(dep.ask("owner", load=str(weights), time_limit=GUARD))
            yield dep, model
            dep.check_indices()
            dep.check_logs()
        finally:
            dep.stop()
