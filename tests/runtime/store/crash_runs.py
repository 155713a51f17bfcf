"""Kills a process that uses a store at every point where it touches the disk, and looks at what is left.

Run by test_store_crash.py as a program of its own: it forks once for each point, which a process that has loaded
TensorFlow and its threads should not do. ``python crash_runs.py SCENARIO DIRECTORY`` prints how many points there
were. Each child stops itself by SIGKILL before its n-th call of the system or of SQLite, for every n until a run
comes to its end. Calls that write stop halfway. With "power", what was not made durable before is lost, too.
"""

from __future__ import annotations

import json
import os
import pathlib
import random
import shutil
import signal
import sqlite3
import sys
import threading
import time
import types
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[3] / "src" / "shareflow"
# The package without its __init__, which loads TensorFlow: the store needs none of it.
package = types.ModuleType("shareflow")
package.__path__ = [str(SOURCE)]
sys.modules["shareflow"] = package

import numpy as np  # noqa: E402

from shareflow.errors import RandomnessError  # noqa: E402
from shareflow.runtime.store import NewMaterial, Store  # noqa: E402
from shareflow_client.errors import StoreError  # noqa: E402

KEY, PLAN, GRAPH = bytes(range(32)), "ab" * 32, "predict@8"
real = {name: getattr(os, name) for name in ("open", "write", "pwrite", "fsync", "link")}
unlink_path = pathlib.Path.unlink


def opened(directory):
    return Store.open(directory / "store", KEY, plan_fingerprint=PLAN, party="server0", witness=directory / "witness")


def payload(index):
    """More than one chunk for one, so that files are half there, too."""
    return random.Random(index).randbytes(3000 + (index == 3) * (1 << 20))


def dealt_key(index):
    return random.Random(-index).randbytes(16)


def arrays(version):
    numbers = np.random.default_rng(version)
    return {"kernel": numbers.integers(0, 1 << 40, (300, 501)), "bias": numbers.integers(0, 9, 7, np.uint8)}


class Faults:
    """Stops this process before its n-th disk operation."""

    def __init__(self, directory, stop_at, power):
        self.directory, self.stop_at, self.power, self.seen = directory, stop_at, power, 0
        self.made, self.unsynced, self.removed = {}, {}, []

    def point(self, half=None):
        self.seen += 1
        if self.seen != self.stop_at:
            return
        if half is not None:
            half()
        if self.power:
            self.lose_power()
        os.kill(os.getpid(), signal.SIGKILL)

    def lose_power(self):
        for path in self.unsynced.values():
            if os.path.exists(path):
                os.truncate(path, os.path.getsize(path) // 2)
        for path in self.made.values():
            if os.path.exists(path):
                unlink_path(Path(path))
        for spare, path in self.removed:
            if not os.path.exists(path):
                real["link"](spare, path)

    def install(self):
        fds = {}

        def ours(path):
            return "/material/" in str(path) or "/state/" in str(path)

        def open_file(path, flags, mode=0o777, **rest):
            self.point()
            new = not os.path.exists(path)
            fd = real["open"](path, flags, mode, **rest)
            fds[fd] = str(path)
            if ours(path) and flags & os.O_CREAT:
                self.unsynced[str(path)] = str(path)
                if new:
                    self.made[str(path)] = str(path)
            return fd

        def write(fd, data):
            self.point(lambda: real["write"](fd, bytes(data)[: len(data) // 2]))
            return real["write"](fd, data)

        def pwrite(fd, data, offset):
            self.point(lambda: real["pwrite"](fd, data[: len(data) // 2], offset))
            return real["pwrite"](fd, data, offset)

        def fsync(fd):
            self.point()
            real["fsync"](fd)
            path = fds.get(fd, "")
            self.unsynced.pop(path, None)
            for made in [made for made in self.made if os.path.dirname(made) == path]:
                del self.made[made]
            self.removed = [(spare, gone) for spare, gone in self.removed if os.path.dirname(gone) != path]

        def unlink(path, missing_ok=False):
            self.point()
            if ours(path) and path.exists() and str(path) not in self.made:
                spare = f"{self.directory}/spare{self.seen}"
                real["link"](path, spare)
                self.removed.append((spare, str(path)))
            unlink_path(path, missing_ok=missing_ok)

        faults = self

        class Database(sqlite3.Connection):
            def execute(self, *arguments):
                faults.point()
                result = super().execute(*arguments)
                faults.point()
                return result

            def executemany(self, *arguments):
                faults.point()
                return super().executemany(*arguments)

            def close(self):
                faults.point()
                super().close()

        connect = sqlite3.connect
        sqlite3.connect = lambda *arguments, **options: connect(*arguments, factory=Database, **options)
        os.open, os.write, os.pwrite, os.fsync = open_file, write, pwrite, fsync
        pathlib.Path.unlink = unlink


# --- scenarios: what a process does, and what must hold after it was stopped anywhere -----------------------------
# A child tells what it starts and what it has got; the parent knows no more than that.


def use_material(store, tell):
    def put(*indices):
        tell("put", indices)
        store.put_material_many(NewMaterial(GRAPH, i % 2, i, dealt_key(i), [payload(i)]) for i in indices)
        tell("put done", indices)

    def take(version, *indices):
        tell("take", indices)
        got = store.take(GRAPH, version, indices)
        assert all(bytes(m.payload) == payload(m.index) and m.key == dealt_key(m.index) for m in got)
        tell("take done", [m.index for m in got])

    put(2)
    put(3, 4, 6, 8)
    take(0, 2)
    take(0, 8, 4)
    put(5, 7)
    tell("spend", (6, 100))
    store.spend([6, 100])
    tell("spend done", (6, 100))
    take(1, 3)
    tell("spend", (5, 7))
    store.discard(1)
    tell("spend done", (5, 7))
    put(10, 12)


def check_material(store, events):
    given = {i for what, indices in events if what == "take done" for i in indices}
    lost = {i for what, indices in events if what == "spend done" for i in indices}
    there = {i for version in (0, 1) for i in store.available(GRAPH, version)}
    for index in given | lost:
        assert store.is_spent(index) and index not in there
        refused(lambda i=index: store.take(GRAPH, i % 2, [i]))
        refused(lambda i=index: store.put_material(GRAPH, i % 2, i, dealt_key(i), [b""]))
    ended = {i for what, indices in events if what == "put done" for i in indices}
    started = {i for what, indices in events if what in ("take", "spend") for i in indices}
    assert ended - started <= there, "what was put and not taken is there"
    for what, indices in events:
        if what in ("put", "take"):
            spent, kept = [store.is_spent(i) for i in indices], [i in there for i in indices]
            later = started if what == "put" else set()
            if not later & set(indices):
                assert len(set(spent)) == len(set(kept)) == 1, "one transaction: all or none"
    assert {int(name, 16) for name in os.listdir(store.directory / "material")} == there
    for index in there:
        (material,) = store.take(GRAPH, index % 2, [index])
        assert bytes(material.payload) == payload(index) and material.key == dealt_key(index)
    for index in {2, 3, 4, 5, 6, 7, 8, 10, 12} - there - given - lost:
        if not store.is_spent(index):
            store.put_material(GRAPH, 0, index, dealt_key(index), [payload(index)])


def use_state(store, tell):
    def put(version, based_on):
        tell("put", version)
        store.put_state(version, arrays(version), based_on=based_on)
        tell("put done", version)
        tell("current", version)
        store.set_current(version)
        tell("current done", version)

    put(1, None)
    put(9, 1)
    tell("drop", 1)
    store.drop_state(1)
    tell("drop done", 1)
    put(1, 9)


def check_state(store, events):
    told = [(what, version) for what, version in events]
    for version in store.versions():
        kept = store.state(version)
        assert all(np.array_equal(kept[name], value) for name, value in arrays(version).items())
    dropped = ("drop", 1) in told
    if ("put done", 9) in told:
        assert 9 in store.versions()
    if ("put done", 1) in told and not dropped:
        assert 1 in store.versions()
    if ("drop done", 1) in told and told.count(("put", 1)) == 1:
        assert 1 not in store.versions()
    done = [version for what, version in told if what == "current done"]
    tried = [version for what, version in told if what == "current"]
    assert store.current in {done[-1] if done else None, tried[-1] if tried else None}
    assert {int(name, 16) for name in os.listdir(store.directory / "state")} == set(store.versions())


def use_counter(store, tell):
    for count in (1, 5, 2, 1, 1000, 3):
        tell("given", list(store.next_indices(count)))
        store.remember("dealt", {"last": count})
        tell("fact", count)


def check_counter(store, events):
    given = [i for what, indices in events if what == "given" for i in indices]
    facts = [count for what, count in events if what == "fact"]
    assert len(set(given)) == len(given)
    assert min(store.next_indices(3)) > max(given, default=0)
    fact = store.recall("dealt")
    assert fact is not None if facts else fact in (None, {"last": 1})
    if fact is not None and facts:
        order = [1, 5, 2, 1, 1000, 3]
        assert fact["last"] in (facts[-1], *order[len(facts) : len(facts) + 1])


def nothing(store, tell):
    """Opening a store that needs repair is all."""


def check_repair(store, events):
    assert store.available(GRAPH, 0) == [2, 4]
    assert store.is_spent(6) and store.is_spent(8) and not store.is_spent(10)
    assert store.versions() == [3] and store.current is None
    assert sorted(os.listdir(store.directory / "material")) == [f"{2:016x}", f"{4:016x}"]
    assert os.listdir(store.directory / "state") == [f"{3:016x}"]
    assert [bytes(m.payload) for m in store.take(GRAPH, 0, [2, 4])] == [payload(2), payload(4)]
    assert store.next_indices(1).start == 8


def needs_repair(directory):
    with opened(directory) as store:
        store.put_material_many(NewMaterial(GRAPH, 0, i, dealt_key(i), [payload(i)]) for i in (2, 4, 6, 8))
        store.put_state(3, arrays(3), based_on=None)
        store.put_state(5, arrays(5), based_on=3)
        store.set_current(5)
        store.next_indices(7)
    folder = directory / "store" / "material"
    (folder / f"{6:016x}").unlink()
    (folder / f"{8:016x}").unlink()
    (folder / f"{10:016x}").write_bytes(b"never finished")
    (directory / "store" / "state" / f"{5:016x}").unlink()
    (directory / "store" / "state" / "stray").write_bytes(b"never finished")


SCENARIOS = {
    "material": (lambda directory: None, use_material, check_material),
    "state": (lambda directory: None, use_state, check_state),
    "counter": (lambda directory: None, use_counter, check_counter),
    "repair": (needs_repair, nothing, check_repair),
}


def refused(action):
    try:
        action()
    except RandomnessError:
        return
    raise AssertionError("a spent index was not refused")


def fork(work):
    """Runs work in a child that tells over a pipe; gives its id and the pipe."""
    out, into = os.pipe()
    child = os.fork()
    if child:
        os.close(into)
        return child, out
    try:
        os.close(out)
        lock = threading.Lock()

        def tell(what, about):
            with lock:
                real["write"](into, json.dumps([what, about]).encode() + b"\n")

        work(tell)
        os._exit(0)
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)


def told(pipe):
    with os.fdopen(pipe, "rb") as stream:
        return [json.loads(line) for line in stream]


def at_every_point(scenario, base, power):
    prepare, use, check = SCENARIOS[scenario]
    for stop_at in range(1, 10_000):
        directory = base / f"{scenario}{stop_at}"
        directory.mkdir(0o700)
        prepare(directory)
        faults = Faults(directory, stop_at, power)

        def work(tell, faults=faults, directory=directory):
            faults.install()
            with opened(directory) as store:
                use(store, tell)

        child, pipe = fork(work)
        events = told(pipe)
        status = os.waitpid(child, 0)[1]
        killed = os.WIFSIGNALED(status)
        assert killed or os.waitstatus_to_exitcode(status) == 0, "the child failed by itself"
        try:
            with opened(directory) as store:
                check(store, events)
            with opened(directory):
                pass
        except BaseException as error:
            raise AssertionError(f"stopped at point {stop_at}: {events}: {error}") from error
        shutil.rmtree(directory)
        if not killed:
            return stop_at - 1
    raise AssertionError("no end of points")


def at_any_time(base, rounds):
    """One store for all rounds, used by threads, killed when it happens."""
    directory, chance = base / "any", random.Random(1)
    directory.mkdir(0o700)
    given, taken = set(), set()

    def work(tell):
        def serve(store, lane):
            while True:
                indices = store.next_indices(3)
                tell("given", list(indices))
                store.put_material_many(NewMaterial(GRAPH, lane, i, dealt_key(i), [b"%d" % i * 500]) for i in indices)
                for material in store.take(GRAPH, lane, store.available(GRAPH, lane)[: chance.randint(1, 4)]):
                    assert bytes(material.payload) == b"%d" % material.index * 500
                    assert material.key == dealt_key(material.index)
                    tell("taken", material.index)

        store = opened(directory)
        tell("opened", 0)
        threads = [threading.Thread(target=serve, args=(store, lane), daemon=True) for lane in (1, 2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        raise AssertionError("a thread ended")

    for _ in range(rounds):
        child, pipe = fork(work)
        # In the first rounds it may still be opening.
        time.sleep(chance.uniform(0.001, 0.12))
        os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        assert os.WIFSIGNALED(status), "the child failed by itself"
        with os.fdopen(pipe, "rb") as stream:
            lines = [line for line in stream if line.endswith(b"\n")]
        for what, about in map(json.loads, lines):
            if what == "given":
                assert not given & set(about), "an index was given twice"
                given.update(about)
            elif what == "taken":
                assert about not in taken, "material was given twice"
                taken.add(about)
    with opened(directory) as store:
        for index in taken:
            assert store.is_spent(index)
        there = {i for lane in (1, 2) for i in store.available(GRAPH, lane)}
        assert not there & taken
        for lane in (1, 2):
            for material in store.take(GRAPH, lane, store.available(GRAPH, lane)):
                assert bytes(material.payload) == b"%d" % material.index * 500
    assert len(taken) > rounds
    return len(taken)


def hold(base):
    """Holds the store until it is killed."""
    try:
        store = opened(base)
    except StoreError as error:
        print(error, flush=True)
        return
    print(os.getpid(), store.versions(), flush=True)
    time.sleep(600)


if __name__ == "__main__":
    name, place = sys.argv[1], Path(sys.argv[2])
    if name == "any":
        print(at_any_time(place, int(sys.argv[3])))
    elif name == "hold":
        hold(place)
    else:
        print(at_every_point(name, place, power=sys.argv[3] == "power"))
