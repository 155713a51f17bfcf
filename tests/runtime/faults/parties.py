"""Three parties as processes that a test can break, and what must hold whatever happens to them."""

from __future__ import annotations

import base64
import contextlib
import json
import sys
import threading
import time
from pathlib import Path

import keras
import numpy as np
from benchmarks.deployment import Deployment

import shareflow as sf
from shareflow_client.client import Client
from shareflow_client.errors import ShareflowError

GUARD = 40.0
RUNNER = Path(__file__).with_name("run_party.py")
LEADER, FOLLOWER, DEALER = "server0", "server1", "dealer"
SERVERS = (LEADER, FOLLOWER)


class Broken(Deployment):
    """A deployment whose parties are started by run_party.py."""

    def arm(self, party, hook, do, at=1):
        """From now on: at the n-th call of the hook."""
        text = json.dumps({"hook": hook, "at": at, "do": do, "id": time.monotonic()})
        new = self.directory / f"{party}.new"
        new.write_text(text)
        new.rename(self.directory / f"{party}.fault")

    def disarm(self, *parties):
        for party in parties or (*self.servers, self.dealer):
            (self.directory / f"{party}.fault").unlink(missing_ok=True)

    @contextlib.contextmanager
    def held(self, party, hook, at=1):
        """Gives a function that waits until the party stands at the n-th call of the hook; at the end it goes on."""
        marker = self.directory / f"{party}.held"
        marker.unlink(missing_ok=True)
        self.arm(party, hook, "hold", at)

        def await_it():
            deadline = time.monotonic() + GUARD
            while not marker.exists():
                assert time.monotonic() < deadline, f"{party} does not come to call {at} of {hook}"
                time.sleep(0.005)

        try:
            yield await_it
        finally:
            self.disarm(party)

    def restart(self, *parties):
        """Starts again those that ended."""
        for party in parties:
            if party in self.processes:
                self.processes.pop(party).wait(GUARD)
            self.disarm(party)
            self.start(party)
        self.await_links()

    def check_indices(self):
        """No server ever used an index twice, in all its lives."""
        for server in self.servers:
            file = self.directory / f"{server}.executed"
            indices = file.read_text().split() if file.exists() else []
            assert len(set(indices)) == len(indices), f"{server} used an index twice"

    def canaries(self):
        """Secrets that the servers saw, as they would look in a log."""
        found = set()
        for server in self.servers:
            for line in (self.directory / f"{server}.secrets").read_text().split():
                secret = bytes.fromhex(line)
                if len(set(secret)) < 4:
                    continue  # zeros are no secret
                words = np.frombuffer(secret, "<i8")
                found |= {line, line.upper(), base64.b64encode(secret).decode()[:20], repr(secret)[2:-1]}
                found |= {str(word) for word in words if abs(int(word)) > 1 << 32}
        return found

    def check_logs(self):
        """No log holds a secret."""
        canaries = self.canaries()
        assert len(canaries) > 10
        for party in (*self.servers, self.dealer):
            text = self.log(party).read_text(errors="replace")
            assert text
            assert not any(shown(canaries, text)), f"the log of {party} shows secrets"

    def memory(self, party):
        """(resident MiB, threads) of a party's process."""
        status = Path(f"/proc/{self.processes[party].pid}/status").read_text()
        fields = dict(line.split(":", 1) for line in status.splitlines())
        return int(fields["VmRSS"].split()[0]) / 1024, int(fields["Threads"])


def shown(canaries, text):
    """The canaries that stand in a text. One pass over it: logs of a long run are large, and secrets many."""
    begin = 10
    starting = {}
    for canary in canaries:
        starting.setdefault(canary[:begin], []).append(canary)
    for at in range(len(text)):
        for canary in starting.get(text[at : at + begin], ()):
            if text.startswith(canary, at):
                yield canary


def tiny_model():
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [keras.layers.Input((4,)), keras.layers.Dense(3, activation="relu"), keras.layers.Dense(2)]
    )


@contextlib.contextmanager
def broken(
    directory,
    clients,
    *,
    links="dead_after = 8.0",
    serving="execution_limit = 8.0\nrequest_limit = 15.0",
    prepare=lambda dep: None,
):
    """The three parties with the tiny model loaded; gives (deployment, model). ``prepare`` comes before the start."""
    model, plan = tiny_model(), directory / "tiny.plan"
    sf.compile_model(model, owner="model-owner", client="client", batch_sizes=(1, 4)).write(plan)
    stock = '[stock]\n"predict@1" = 12\n"predict@4" = 12\nload = 2\n'
    table = f"[links]\n{links}\n"
    tables = {server: f"{table}[serving]\n{serving}\n{stock}" for server in SERVERS}
    dep = Broken(
        directory,
        plan,
        {"owner": "model_owner", **clients},
        tables={**tables, DEALER: table},
        prefix={party: (sys.executable, str(RUNNER), str(directory)) for party in (*SERVERS, DEALER)},
    )
    try:
        prepare(dep)
        dep.start()
        dep.await_links()
        load(dep, model)
        yield dep, model
        dep.check_indices()
        dep.check_logs()
    finally:
        dep.stop()


def load(dep, model, time_limit=GUARD):
    with Client(dep.config("owner")) as owner:
        return owner.load(sf.parameters_of(model), time_limit=time_limit)


def samples(count, seed=None):
    return np.random.default_rng(seed).uniform(-2, 2, (count, 4)).astype(np.float32)


def agrees(model, x, y):
    weights = [layer.get_weights() for layer in model.layers]
    (first, first_bias), (second, second_bias) = weights
    return np.allclose(np.maximum(x @ first + first_bias, 0) @ second + second_bias, y, atol=1e-2)


def ask(dep, model, name="hospital", rows=1, time_limit=20.0):
    """Asks once as a client of its own: the answer is right; or the error."""
    x = samples(rows)
    try:
        with Client(dep.config(name)) as client:
            y = client.predict(x, time_limit=time_limit)
    except ShareflowError as error:
        return error
    assert agrees(model, x, y), "a wrong answer"
    return None


class Asking(threading.Thread):
    """Runs a call beside the test; :meth:`outcome` gives what it returned, and fails where it takes too long."""

    def __init__(self, call, *arguments, **named):
        super().__init__(daemon=True)
        self._call, self._result, self._error = (call, arguments, named), None, None
        self.start()

    def run(self):
        call, arguments, named = self._call
        try:
            self._result = call(*arguments, **named)
        except BaseException as error:
            self._error = error

    def outcome(self, seconds=GUARD):
        self.join(seconds)
        assert not self.is_alive(), "neither answer nor error within the time limit"
        if self._error is not None:
            raise self._error
        return self._result
