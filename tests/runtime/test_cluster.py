"""The cluster runtime, with real worker processes: the same bits as here, several groups, and every way it fails."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

import shareflow as sf
from shareflow import nn
from shareflow.errors import (
    ChannelError,
    ConfigError,
    EncodingError,
    PlacementError,
    PlanError,
    TimeLimitError,
    in_graph,
)
from shareflow.runtime import cluster as cluster_module
from shareflow.runtime import worker as worker_module
from shareflow.runtime.channel import interface
from shareflow.runtime.placed import computing_jobs, place
from shareflow.runtime.server import start_server
from shareflow.runtime.worker import NO_KERNELS, Worker, ask

PARTIES = ("server0", "server1", "dealer")
X = np.random.default_rng(1).normal(size=(4, 6))
READY = re.compile(r"Worker ready on ([\d.]+:\d+) \(party (\w+), (\w+) kernels\)\.\n")
# Nothing answers there: the port of a closed socket.
with socket.socket() as unused:
    unused.bind(("127.0.0.1", 0))
    NOBODY = f"127.0.0.1:{unused.getsockname()[1]}"


# Runs the command, and ends with the tests even where those are killed: prctl(PR_SET_PDEATHSIG, SIGKILL).
COMMAND = """
import ctypes, signal
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
from shareflow_command import main
main()
"""


class Process:
    """`shareflow worker` as a process of its own."""

    def __init__(self, party: str, port: int = 0, *more: str, **environment: str) -> None:
        command = [sys.executable, "-c", COMMAND, "worker", "--party", party]
        self.process = subprocess.Popen(
            [*command, "--listen", f"127.0.0.1:{port}", *more],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        )
        self.party = party

    def ready(self) -> str:
        line = self.process.stdout.readline()
        found = READY.fullmatch(line)
        assert found, line + self.process.stderr.read()
        self.address, party, self.kernels = found.groups()
        assert party == self.party
        return self.address

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture(scope="module")
def workers():
    """Two workers of each party. Tests that end one put another in its place."""
    started = {party: [Process(party), Process(party)] for party in PARTIES}
    try:
        for pair in started.values():
            for process in pair:
                process.ready()
        yield started
    finally:
        for pair in started.values():
            for process in pair:
                process.kill()


def addresses(workers, groups=1):
    return {party: [process.address for process in pair[:groups]] for party, pair in workers.items()}


@pytest.fixture(scope="module")
def cluster(workers):
    return sf.Cluster(addresses(workers), connect_seconds=60, run_seconds=60)


@pytest.fixture(scope="module")
def two_groups(workers):
    return sf.Cluster(addresses(workers, 2), connect_seconds=60, run_seconds=60)


def known(value, owner="alice"):
    return sf.private_tensor(value, owner)


def square(x):
    """On shares, so that all computing parties take part."""
    x = x.shared(sf.SPDZ())
    return (x * x).reveal("client")


def here_and_there(cluster, compute):
    """What is computed in this process, and on the cluster, with the same keys and indices."""
    with sf.insecure_session(7):
        here = compute()
    with sf.insecure_session(7), cluster:
        there = compute()
    return here, there


@sf.local_computation("alice")
def with_loop(x):
    """TensorFlow's own control flow, and a nested function, at one party."""

    @tf.function
    def halved(value):
        return value / 2

    total = tf.while_loop(lambda i, t: i < 3, lambda i, t: (i + 1, t + x), [0, tf.zeros_like(x)])[1]
    return tf.cond(tf.reduce_sum(x) > -1e9, lambda: halved(total), lambda: total)


def many_operations(x, y):
    return [
        (with_loop(x) + y).reveal("client"),
        (x * y - 2.5).reveal("client"),
        nn.relu(x * y).reveal("bob"),
        nn.where((x > 0) & ~(y > 0), x, y).reveal("client"),
        nn.reduce_max(x, axis=1).reveal("client"),
        nn.softmax(nn.maximum(x, y)).reveal("client"),
        nn.divide(x, y * y + 1).reveal("client"),
        nn.relu(x),  # still shared
        [x @ tf.transpose(X), 3 * y],
    ]


def parts(results):
    """Everything of the results as arrays: of values that are still shared, each party's part."""
    return [
        tensor.numpy()
        for result in tf.nest.flatten(results)
        for tensor in (result.share.components if isinstance(result, sf.PrivateTensor) else [result])
    ]


def assert_same_bits(here, there):
    here, there = parts(here), parts(there)
    assert len(here) == len(there)
    for one, other in zip(here, there, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def small_model():
    keras.utils.set_random_seed(5)
    layers = [
        keras.layers.Conv2D(3, 3),
        keras.layers.ReLU(),
        keras.layers.MaxPooling2D(2),
        keras.layers.Flatten(),
        keras.layers.Dense(4, activation="softmax"),
    ]
    return keras.Sequential([keras.Input((8, 8, 1)), *layers])


@pytest.fixture(scope="module")
def model():
    plain = small_model()
    return plain, sf.private_model(plain, owner="model-owner")


IMAGES = np.random.default_rng(2).random((10, 8, 8, 1)).astype(np.float32)

# --- the same bits --------------------------------------------------------------------------------------------


def test_many_operations_give_the_same_bits(cluster):
    f = sf.function(many_operations)
    here, there = here_and_there(cluster, lambda: f(known(X), known(X[::-1].copy(), "bob")))
    assert_same_bits(here, there)
    np.testing.assert_allclose(there[0].numpy(), 1.5 * X + X[::-1], atol=1e-3)


def test_a_model_predicts_the_same_bits(cluster, model):
    plain, private = model
    here, there = here_and_there(cluster, lambda: private.predict(IMAGES, receiver="client", batch_size=4))
    np.testing.assert_array_equal(here, there)
    np.testing.assert_allclose(there, plain(IMAGES).numpy(), atol=0.005)


def test_it_ran_at_the_workers_and_not_here(cluster, model, monkeypatch):
    def nothing(*_):
        raise AssertionError("it was computed here")

    monkeypatch.setattr("shareflow.runtime.local.LocalProgram.run", nothing)
    with cluster:
        model[1].predict(IMAGES[:1], receiver="client")
    with pytest.raises(AssertionError, match="computed here"):
        model[1].predict(IMAGES[:1], receiver="client")


def test_each_execution_has_masks_of_its_own(cluster):
    f = sf.function(lambda x: x.shared(sf.SPDZ()).reusable())
    with cluster:
        first, second = f(known(X)), f(known(X))
    for one, other in zip(parts(first), parts(second), strict=True):
        assert not np.array_equal(one, other)
    np.testing.assert_array_equal(first.reveal("alice").numpy(), second.reveal("alice").numpy())


def test_values_computed_here_are_used_there(cluster):
    w = known(X.T.copy(), "bob").shared(sf.SPDZ()).reusable()
    table = tf.constant([[1.0, 2.0, 3.0, 4.0]], tf.float64)
    f = sf.function(lambda x: ((x @ w) * table).reveal("client"))
    here, there = here_and_there(cluster, lambda: f(known(X)))
    assert_same_bits(here, there)


def test_shares_that_a_call_returned_go_into_the_next(cluster):
    f = sf.function(lambda x: nn.relu(x))
    g = sf.function(lambda x: x.reveal("client"))
    here, there = here_and_there(cluster, lambda: g(f(known(X))))
    assert_same_bits(here, there)
    np.testing.assert_allclose(there.numpy(), np.maximum(X, 0), atol=1e-4)


# --- variables ------------------------------------------------------------------------------------------------


def test_a_variable_changes_here_and_there(two_groups):
    total = sf.PrivateVariable(known(np.zeros(3)))

    @sf.function
    def add(x):
        total.assign(total + x)

    @sf.function
    def read(x):
        return (total * x).reveal("client")

    def compute():
        total.assign(known(np.zeros(3)))
        for value in (1.0, 2.0):
            add(known(np.full(3, value), "bob"))
        total.assign(total + 0.5)  # by this process, between two calls
        add(known(np.full(3, 4.0), "bob"))
        return [total.reveal("alice"), read(known(np.ones(3), "bob"))]

    here, there = here_and_there(two_groups, compute)
    assert_same_bits(here, there)
    np.testing.assert_allclose(there[1].numpy(), np.full(3, 7.5), atol=1e-3)
    # The other group sees what the first has changed.
    with two_groups:
        add(known(np.ones(3), "bob"))
        results = [r.numpy() for r in read.map([(known(np.ones(3), "bob"),)] * 6)]
    np.testing.assert_allclose(results, np.full((6, 3), 8.5), atol=1e-3)


def test_calls_with_effects_run_one_after_the_other(two_groups):
    total = sf.PrivateVariable(known(np.zeros(2)))

    @sf.function
    def add(x):
        total.assign(total + x)
        return total.reveal("client")

    with two_groups:
        steps = [r.numpy()[0] for r in add.map([(known(np.ones(2), "bob"),)] * 5)]
    np.testing.assert_allclose(steps, [1, 2, 3, 4, 5], atol=1e-3)


def test_a_variable_of_two_parties_that_changes_is_refused(cluster):
    shared = tf.Variable(np.zeros(2))

    @sf.function
    def f(x):
        with sf.Party("server0"):
            done = shared.assign_add([1.0, 1.0])
        with sf.Party("server1"), tf.control_dependencies([done]):
            y = sf.private_tensor(shared.read_value(), "server1")
        return (x * y).reveal("client")

    program = f.trace(known(np.ones(2))).program
    with cluster, pytest.raises(PlanError, match="passes the audit first"):
        f(known(np.ones(2)))
    with pytest.raises(PlacementError, match=r"used by one party alone; .* is used by 2"):
        cluster.run(program, program.values([tf.ones(2)]))


def test_a_program_that_leaks_is_refused(cluster):
    @sf.function
    def leak(x, y):
        product = x.shared(sf.SPDZ()) * y
        with sf.Party("server1"):
            other = tf.identity(product.share.components[0])  # server0's, not sent
        return sf.private_tensor(other, "server1")

    with cluster, pytest.raises(PlanError, match="was not sent"):
        leak(known(np.ones(2)), known(np.ones(2)))


# --- several groups -------------------------------------------------------------------------------------------


def test_groups_share_a_large_batch(two_groups, model, monkeypatch):
    # Split in two, as in this process with half the batch: the second half has the next index.
    with sf.insecure_session(7):
        here = model[1].predict(IMAGES, receiver="client", batch_size=5)
    groups, run = set(), cluster_module._Group.run
    at_once = threading.Barrier(2, timeout=60)

    def seen(group, *arguments):
        groups.add(group)
        at_once.wait()  # passes only if both groups are at work
        return run(group, *arguments)

    monkeypatch.setattr(cluster_module._Group, "run", seen)
    with sf.insecure_session(7), two_groups:
        there = model[1].predict(IMAGES, receiver="client", batch_size=100)
    np.testing.assert_array_equal(here, there)
    assert len(groups) == 2


@pytest.mark.parametrize(("count", "batch_size"), [(1, 32), (0, 32), (7, 2), (3, 3)])
def test_any_number_of_samples(two_groups, model, count, batch_size):
    with two_groups:
        scores = model[1].predict(IMAGES[:count], receiver="client", batch_size=batch_size)
    assert len(scores) == count
    np.testing.assert_allclose(scores, model[0](IMAGES).numpy()[:count], atol=0.005)


def test_results_come_in_the_order_of_the_calls(two_groups):
    f = sf.function(lambda x: (x * 2).reveal("client"))
    calls = [(known(np.full(1 if i % 2 else 5000, float(i))),) for i in range(12)]
    with two_groups:
        assert [r.numpy()[0] for r in f.map(calls)] == [2.0 * i for i in range(12)]


def test_threads_use_groups_side_by_side(two_groups):
    f = sf.function(square)
    failed = []

    def call(i):
        with two_groups:
            result = f(known(np.full(4, float(i)))).numpy()
            if not np.allclose(result, i * i, atol=1e-2):
                failed.append(i)

    f.trace(known(np.zeros(4)))
    threads = [threading.Thread(target=call, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failed
    assert not any(thread.is_alive() for thread in threads)


# --- placing --------------------------------------------------------------------------------------------------


def program_of(function, *arguments):
    return sf.function(function).trace(*arguments).program


def test_every_operation_on_a_value_of_a_party_is_pinned():
    program = program_of(many_operations, known(X), known(X[::-1].copy(), "bob"))
    unpinned = [
        operation.name
        for operation in program.graph.get_operations()
        if not operation.device and any(i.op.device for i in operation.inputs) and operation.type != "Identity"
    ]
    assert unpinned == []


def test_nodes_go_to_their_parties_and_nothing_else_crosses():
    program = program_of(many_operations, known(X), known(X[::-1].copy(), "bob"))
    placed = place(program, "p", lambda job: f"/job:{job or 'driver'}", lambda outside, device: "kept")
    at = {node.name: node.device for node in placed.definition.node}
    assert set(at.values()) == {f"/job:{job}" for job in (*PARTIES, "alice", "bob", "client", "driver")}
    for node in placed.definition.node:
        for reference in node.input:
            source = reference.removeprefix("^").partition(":")[0]
            # What is public may come from the driver, and the order of checks may cross, but no party's value.
            if at[source] not in (node.device, "/job:driver") and not reference.startswith("^"):
                assert "send." in source or node.op == "Identity", f"{source} -> {node.name}"
    assert "/job:driver" not in {at[name.partition(":")[0]] for name in placed.feeds}


def test_who_computes():
    program = program_of(many_operations, known(X), known(X[::-1].copy(), "bob"))
    assert computing_jobs(program) == set(PARTIES)
    assert computing_jobs(program_of(lambda x: (x + 1).reveal("bob"), known(X))) == set()


def test_a_captured_table_is_refused():
    table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer([1], [2.0], tf.int64), 0.0)

    @sf.local_computation("alice")
    def look(x):
        return table.lookup(tf.cast(x, tf.int64))

    program = program_of(lambda x: look(x).reveal("bob"), known(X))
    with pytest.raises(PlacementError, match="another resource, as a table"):
        place(program, "p", lambda job: f"/job:{job}", lambda outside, device: "kept")


# --- mistakes -------------------------------------------------------------------------------------------------


def test_a_value_that_cannot_be_encoded(cluster):
    f = sf.function(square)
    with cluster:
        with pytest.raises(EncodingError, match="finite"):
            f(known(np.array([1.0, np.nan])))
        np.testing.assert_allclose(f(known(np.array([1.0, 3.0]))).numpy(), [1, 9], atol=1e-3)


def test_a_party_without_a_worker(workers):
    listed = addresses(workers)
    del listed["dealer"]
    f = sf.function(square)
    with sf.Cluster(listed, connect_seconds=60), pytest.raises(PlacementError) as error:
        f(known(X))
    assert "dealer has none in this cluster of server0, server1" in str(error.value)
    assert "shareflow worker --party dealer" in str(error.value)


def test_timing_in_halves_is_refused(cluster):
    with cluster, pytest.raises(PlacementError, match="Call it outside of that block"):
        sf.function(lambda x: x.reveal("client")).timed(known(X))


@pytest.mark.parametrize(
    ("listed", "options", "text"),
    [
        ({}, {}, "none were given"),
        ({"server0": []}, {}, "server0 has no address"),
        ({"server0": "localhost"}, {}, "An address of server0 is 'host:port'.*got 'localhost'"),
        ({"server0": "http://a:1"}, {}, "'host:port'"),
        ({"server0": "a:99999"}, {}, "'host:port'"),
        ({"server0": 7000}, {}, "'host:port'.*got 7000"),
        ({"server0": [7000]}, {}, "'host:port'.*got 7000"),
        ({"server0": "a:1", "server1": ["b:1", "b:2"]}, {}, "as many workers as the others.*'server1': 2"),
        ({"server0": "a:1", "server1": "a:1"}, {}, "given more than once: a:1"),
        ({"shareflow_driver": "127.0.0.1:1"}, {}, "call the party otherwise"),
        ({"server0": "10.0.0.7:7000"}, {}, r"10.0.0.7:7000 cannot reach 127.0.0.1:0.*docs/cluster.md"),
        ({"server0": "10.0.0.7:7000"}, {"driver": "0.0.0.0:0"}, "0.0.0.0 is none"),
        ({"server0": "10.0.0.7:7000"}, {"driver": "driver.lab:0"}, "IPv4 address"),
        ({"server0": "127.0.0.1:1"}, {"run_seconds": 0}, "run_seconds is a time.*got 0"),
        ({"server0": "127.0.0.1:1"}, {"connect_seconds": float("nan")}, "connect_seconds"),
    ],
)
def test_addresses_that_cannot_be(listed, options, text):
    with pytest.raises(ConfigError, match=text):
        sf.Cluster(listed, **options)


def test_a_party_name_that_cannot_be():
    with pytest.raises(PlacementError, match="begins with a letter"):
        sf.Cluster({"0": "127.0.0.1:1"})


def test_workers_that_do_not_answer(workers):
    listed = addresses(workers) | {"server1": [NOBODY]}
    began = time.monotonic()
    with pytest.raises(ChannelError) as error, sf.Cluster(listed, connect_seconds=1.5):
        pass
    assert time.monotonic() - began < 30
    assert f"server1: The worker at {NOBODY} does not answer within 1.5 s. Start it there" in str(error.value)
    assert "server0" not in str(error.value)
    assert sf.function(lambda x: x.reveal("bob"))(known(X)) is not None, "no block was entered"


def test_workers_of_other_parties(workers):
    one, other = (workers[party][0].address for party in ("server0", "server1"))
    listed = addresses(workers) | {"server0": other, "server1": one}
    with pytest.raises(ChannelError) as error:
        sf.Cluster(listed, connect_seconds=60).connect()
    assert f"server0: The worker at {other} computes for server1." in str(error.value)
    assert f"server1: The worker at {one} computes for server0." in str(error.value)


def test_another_version(workers, monkeypatch):
    monkeypatch.setattr(cluster_module, "__version__", "9.9.9")
    with pytest.raises(ChannelError, match=r"runs shareflow \S+ and TensorFlow \S+, the driver shareflow 9.9.9"):
        sf.Cluster(addresses(workers), connect_seconds=60).connect()


def test_a_worker_without_native_kernels(workers, model):
    bare = Worker("dealer", "127.0.0.1:0", kernels=NO_KERNELS)
    listed = addresses(workers) | {"dealer": bare.address}
    with sf.Cluster(listed, connect_seconds=60), pytest.raises(ChannelError) as error:
        model[1].predict(IMAGES[:1], receiver="client")
    assert f"dealer: The worker at {bare.address} has no native kernels" in str(error.value)


def test_a_server_that_is_no_worker():
    _, address = start_server("127.0.0.1", 0)
    with pytest.raises(ChannelError, match=f"At {address} is no shareflow worker"):
        ask(address, 60)


def test_an_announcement_of_another_form(monkeypatch):
    monkeypatch.setattr(worker_module.json, "dumps", lambda *_, **__: "[1]")
    address = Worker("dealer", "127.0.0.1:0", kernels="avx2").address
    with pytest.raises(ChannelError, match="does not understand"):
        ask(address, 60)


# --- what a worker listens on ---------------------------------------------------------------------------------


def test_only_loopback_answers():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing: tells this machine's own address
            others = ["127.0.0.2", probe.getsockname()[0]]
        except OSError:
            others = ["127.0.0.2"]
    _, address = start_server("127.0.0.1", 0)
    port = int(address.rpartition(":")[2])
    socket.create_connection(("127.0.0.1", port), timeout=10).close()
    for host in others:
        with pytest.raises(OSError, match="timed out"):
            socket.create_connection((host, port), timeout=0.3)


def test_all_interfaces_when_asked():
    _, address = start_server("0.0.0.0", 0)
    socket.create_connection(("127.0.0.2", int(address.rpartition(":")[2])), timeout=10).close()


def test_who_connected_before_the_filter_is_found():
    with socket.create_server(("", 0)) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            interface.answer_only_at(port, "127.0.0.1")
    with socket.create_server(("", 0)) as listener:
        port = listener.getsockname()[1]
        # Not accepted by the listener, but the kernel has finished the handshake.
        with socket.create_connection(("127.0.0.2", port)), pytest.raises(ChannelError, match="Start again"):
            interface.answer_only_at(port, "127.0.0.1")


@pytest.mark.parametrize(
    ("listen", "text"),
    [
        ("0.0.0.0:0", "--listen 0.0.0.0:0 is open to the network. Add --allow-remote"),
        ("10.1.2.3:0", "is open to the network"),
        ("node7:0", "IPv4 address of this machine"),
        ("[::1]:0", "'host:port'"),
        ("7000", "'host:port'"),
    ],
)
def test_addresses_that_a_worker_refuses(listen, text):
    with pytest.raises(ConfigError, match=re.escape(text)):
        Worker("server0", listen, kernels="avx2")


def test_a_port_that_is_taken(workers):
    with pytest.raises(ChannelError, match="the port is taken"):
        Worker("server0", workers["server0"][0].address, kernels="avx2")


# --- workers that go away -------------------------------------------------------------------------------------


@pytest.fixture
def long_run():
    """Calls that take about a second, so that a worker can go away in the middle."""
    f = sf.function(lambda x: nn.softmax(x.shared(sf.SPDZ())).reveal("client"))
    x = known(np.zeros((1500, 40)))
    f.trace(x)
    return lambda: f(x)


def quick():
    f = sf.function(square)
    return f(known(np.array([3.0]))).numpy()[0]


def test_a_worker_killed_during_a_run_and_started_again(workers, long_run):
    cluster = sf.Cluster(addresses(workers), connect_seconds=60, run_seconds=60)
    victim = workers["server1"][0]
    with cluster:
        long_run()
        killer = threading.Timer(0.5, victim.kill)
        killer.start()
        began = time.monotonic()
        with pytest.raises(ChannelError) as error:
            while time.monotonic() - began < 50:
                long_run()
        killer.join()
        assert f"No answer from server1 at {victim.address}." in str(error.value)
        # The cluster goes on with a new worker at the old address.
        new = workers["server1"][0] = Process("server1", victim.port)
        new.ready()
        assert abs(quick() - 9) < 1e-3


@pytest.mark.parametrize("kind", [tf.errors.InvalidArgumentError, tf.errors.UnavailableError])
def test_a_rule_that_fails_as_a_worker_goes_away_is_not_the_data(workers, monkeypatch, kind):
    def failing(session, program, values):
        raise kind(None, None, f"assertion failed: [{in_graph('a value is too large')}]")

    with sf.Cluster(addresses(workers), connect_seconds=60, run_seconds=60) as cluster:
        quick()
        group = cluster._groups[0]
        monkeypatch.setattr(type(group._session), "run", failing)
        if kind is tf.errors.InvalidArgumentError:
            with pytest.raises(EncodingError, match="a value is too large"):
                quick()
        monkeypatch.setattr(group, "_missing_workers", lambda: "No answer from server1 at host:1. ")
        with pytest.raises(ChannelError, match=r"was lost: .* No answer from server1 at host:1\. The next"):
            quick()
        monkeypatch.undo()
        assert abs(quick() - 9) < 1e-3


@pytest.mark.slow
def test_a_worker_that_hangs(workers):
    cluster = sf.Cluster(addresses(workers), connect_seconds=2, run_seconds=2)
    hanging = workers["dealer"][0].process
    with cluster:
        quick()
        os.kill(hanging.pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            with pytest.raises(TimeLimitError, match=r"takes 2 s at most.*No answer from dealer at"):
                quick()
            with pytest.raises(ChannelError, match=r"dealer: .* does not answer within 2 s"):
                quick()
            assert time.monotonic() - began < 40
        finally:
            os.kill(hanging.pid, signal.SIGCONT)
        with sf.Cluster(addresses(workers), connect_seconds=60, run_seconds=60):
            assert abs(quick() - 9) < 1e-3


@pytest.mark.slow
def test_the_other_group_goes_on(workers):
    with sf.Cluster(addresses(workers, 2), connect_seconds=2, run_seconds=60) as cluster:
        quick()
        workers["server0"][0].process.send_signal(signal.SIGSTOP)
        try:
            cluster._groups[0].close()  # as after a failed run
            with pytest.raises(ChannelError, match="server0"):
                quick()
            for _ in range(3):
                assert abs(quick() - 9) < 1e-3
        finally:
            workers["server0"][0].process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_stops_when_told(workers, number):
    # Last: it ends workers that no test needs any more.
    process = workers["dealer" if number == signal.SIGTERM else "server1"][1].process
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert out == f"Worker stopped by {number.name}.\n"
    assert "Traceback" not in err
