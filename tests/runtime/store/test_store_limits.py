"""A disk that is full or fails: nothing half-written counts, nothing is given without a record."""

from __future__ import annotations

import errno
import os
import sqlite3
import subprocess

import numpy as np
import pytest

from shareflow.errors import RandomnessError
from shareflow.runtime.store import NewMaterial, Store
from shareflow_client.errors import StoreError

KEY, PLAN, GRAPH = bytes(range(32)), "ab" * 32, "predict@8"
SIZE = 300_000


def opened(directory, **changes):
    return Store.open(directory, KEY, plan_fingerprint=PLAN, party="server0", **changes)


def put(store, *indices):
    store.put_material_many(NewMaterial(GRAPH, 0, i, b"k" * 16, [bytes([i % 256]) * SIZE]) for i in indices)


@pytest.fixture
def small_disk(tmp_path):
    """4 MiB of memory as a disk."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", place], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def fill(store):
    """Puts until the disk is full; gives the indices that were put."""
    for index in range(1, 100):
        try:
            put(store, index)
        except StoreError as error:
            assert "the disk is full" in str(error) and "Free space" in str(error)
            return list(range(1, index))
    raise AssertionError("the disk was never full")


def test_a_full_disk(small_disk):
    with opened(small_disk / "store", reserve=0) as store:
        there = fill(store)
        assert len(there) > 5
        assert store.available(GRAPH, 0) == there
        assert sorted(os.listdir(store.directory / "material")) == [f"{i:016x}" for i in there]
        with pytest.raises(StoreError, match="the disk is full"):
            store.put_state(5, {"w": np.zeros(SIZE)}, based_on=None)
        assert store.versions() == [] and os.listdir(store.directory / "state") == []
    with opened(small_disk / "store", reserve=0) as store:
        assert store.available(GRAPH, 0) == there, "it opens on the full disk, too"
        assert [bytes(m.payload) for m in store.take(GRAPH, 0, there[:2])] == [bytes([i]) * SIZE for i in there[:2]]
        put(store, there[-1] + 1)


def test_no_room_even_for_rows(small_disk):
    """Something else takes the last byte: no index is given until it can be recorded as spent."""
    with opened(small_disk / "store", reserve=0) as store:
        there = fill(store)
        given = []
        with open(small_disk / "other", "wb", buffering=0) as other:
            try:
                while True:
                    other.write(bytes(4096))
            except OSError:
                pass
        with pytest.raises(StoreError, match=r"the disk is full: the store .* cannot record a change"):
            for _ in range(10_000):
                given += store.next_indices(1)
        with pytest.raises(StoreError, match="cannot record a change"):
            store.take(GRAPH, 0, there[:1])
        assert not store.is_spent(there[0])
        os.unlink(small_disk / "other")
        assert store.next_indices(1).start == len(given) + 1
        assert len(store.take(GRAPH, 0, there)) == len(there)
    with opened(small_disk / "store", reserve=0) as store:
        assert all(map(store.is_spent, there))
        assert store.next_indices(1).start == len(given) + 2


def test_no_room_for_a_new_store(small_disk):
    (small_disk / "store").mkdir()
    with open(small_disk / "other", "wb", buffering=0) as other, pytest.raises(OSError):
        while True:
            other.write(bytes(4096))
    for _ in range(2):
        with pytest.raises(StoreError, match="the disk is full"):
            opened(small_disk / "store")
    os.unlink(small_disk / "other")
    with opened(small_disk / "store", reserve=0) as store:
        put(store, 1)


def test_the_reserve_leaves_room_to_spend(small_disk):
    with opened(small_disk / "store", reserve=1 << 20) as store:
        there = fill(store)
        free = os.statvfs(small_disk)
        assert free.f_bavail * free.f_frsize >= 1 << 20
        assert len(store.take(GRAPH, 0, there)) == len(there)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
@pytest.mark.parametrize("fails_at", [1, 2, 3])
def test_a_write_without_room(tmp_path, monkeypatch, code, fails_at):
    calls, write = [], os.write

    def full(file, data):
        calls.append(file)
        if len(calls) == fails_at:
            write(file, data[: len(data) // 2])
            raise OSError(code, os.strerror(code))
        return write(file, data)

    with opened(tmp_path / "store") as store:
        put(store, 9)
        monkeypatch.setattr(os, "write", full)
        with pytest.raises(StoreError, match="the disk is full"):
            put(store, 1, 2, 3)
        monkeypatch.undo()
        assert len(calls) == fails_at
        assert store.available(GRAPH, 0) == [9]
        assert os.listdir(store.directory / "material") == [f"{9:016x}"]
        put(store, 1, 2, 3)


def test_writes_that_take_a_part(tmp_path, monkeypatch):
    write = os.write
    with opened(tmp_path / "store") as store:
        monkeypatch.setattr(os, "write", lambda file, data: write(file, data[: 1 + len(data) // 3]))
        put(store, 1)
        monkeypatch.undo()
        assert bytes(store.take(GRAPH, 0, [1])[0].payload) == b"\1" * SIZE


@pytest.mark.parametrize("call", ["fsync", "open"])
def test_a_failing_disk(tmp_path, monkeypatch, call):
    with opened(tmp_path / "store") as store:

        def fails(*arguments):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        monkeypatch.setattr(os, call, fails)
        with pytest.raises(StoreError, match="the store's disk failed while"):
            put(store, 1)
        monkeypatch.undo()
        assert store.counts() == {} and os.listdir(store.directory / "material") == []
        put(store, 1)
        monkeypatch.setattr(os, "open", fails)
        with pytest.raises(StoreError, match="the store's disk failed while opening"):
            store.take(GRAPH, 0, [1])
        monkeypatch.undo()
        assert len(store.take(GRAPH, 0, [1])) == 1


class Failing(sqlite3.Connection):
    """Fails at the commit: before it is done, or after it (the disk has it, and nobody knows)."""

    when = ""
    error: BaseException = sqlite3.OperationalError("disk I/O error")

    def execute(self, sql, *arguments):
        commits = sql == "COMMIT"
        if commits and Failing.when == "before":
            raise Failing.error
        result = super().execute(sql, *arguments)
        if commits and Failing.when == "after":
            raise Failing.error
        return result


@pytest.fixture
def failing(monkeypatch):
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: connect(*a, factory=Failing, **k))
    monkeypatch.setattr(Failing, "when", "")
    return Failing


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("error", [sqlite3.OperationalError("disk I/O error"), KeyboardInterrupt()])
def test_after_a_failed_commit_the_store_stops(tmp_path, failing, monkeypatch, when, error):
    store = opened(tmp_path / "store")
    put(store, 1, 2)
    first = store.next_indices(1)
    store.put_state(7, {"w": np.ones(3)}, based_on=None)
    monkeypatch.setattr(failing, "error", error)
    failing.when = when
    expected = KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else StoreError
    with pytest.raises(expected):
        store.take(GRAPH, 0, [1])
    failing.when = ""
    for action in (
        lambda: store.take(GRAPH, 0, [2]),
        lambda: store.next_indices(1),
        lambda: put(store, 3),
        lambda: store.spend([5]),
        lambda: store.put_state(8, {}, based_on=None),
    ):
        with pytest.raises(StoreError, match=r"stopped after an error .* reopen it"):
            action()
    store.close()
    with opened(tmp_path / "store") as again:
        assert again.is_spent(1) == (when == "after")
        assert again.available(GRAPH, 0) == ([2] if when == "after" else [1, 2])
        assert again.next_indices(1).start == first.stop
        assert np.array_equal(again.state(7)["w"], np.ones(3)) and again.versions() == [7]


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_put_whose_commit_failed(tmp_path, failing, when):
    store = opened(tmp_path / "store")
    failing.when = when
    with pytest.raises(StoreError, match="disk failed while recording"):
        put(store, 1, 2)
    failing.when = ""
    store.close()
    with opened(tmp_path / "store") as again:
        if when == "after":
            assert [bytes(m.payload) for m in again.take(GRAPH, 0, [1, 2])] == [b"\1" * SIZE, b"\2" * SIZE]
        else:
            assert again.counts() == {} and os.listdir(again.directory / "material") == []
            put(again, 1, 2)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_state_whose_commit_failed(tmp_path, failing, when):
    store = opened(tmp_path / "store")
    failing.when = when
    with pytest.raises(StoreError, match="disk failed while recording"):
        store.put_state(3, {"w": np.arange(4)}, based_on=None)
    failing.when = ""
    store.close()
    with opened(tmp_path / "store") as again:
        assert again.versions() == ([3] if when == "after" else [])
        if when == "after":
            assert list(again.state(3)["w"]) == [0, 1, 2, 3]


def test_rows_without_room(tmp_path, failing, monkeypatch):
    """SQLite's own "full": taken back, and the store goes on."""
    with opened(tmp_path / "store") as store:
        put(store, 1)
        monkeypatch.setattr(failing, "error", sqlite3.OperationalError("database or disk is full"))
        failing.when = "before"
        with pytest.raises(StoreError, match="cannot record a change, and nothing changed"):
            store.take(GRAPH, 0, [1])
        with pytest.raises(StoreError, match="nothing changed"):
            put(store, 2)
        with pytest.raises(StoreError, match="nothing changed"):
            store.put_state(3, {"w": np.ones(2)}, based_on=None)
        failing.when = ""
        assert store.available(GRAPH, 0) == [1] and store.versions() == []
        assert os.listdir(store.directory / "state") == []
        put(store, 2)
        assert [m.index for m in store.take(GRAPH, 0, [1, 2])] == [1, 2]
    with opened(tmp_path / "store") as again:
        assert again.is_spent(1) and again.is_spent(2)


def test_a_witness_that_fails(tmp_path, monkeypatch):
    """The disk has the change, its witness not: nothing is given, and the store stops until it is reopened."""
    with opened(tmp_path / "store", witness=tmp_path / "witness") as store:
        put(store, 1, 2)

        def fails(*arguments):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        monkeypatch.setattr(os, "pwrite", fails)
        with pytest.raises(StoreError, match="disk failed while recording"):
            store.take(GRAPH, 0, [1])
        monkeypatch.undo()
        with pytest.raises(StoreError, match="stopped after an error"):
            store.take(GRAPH, 0, [2])
    with opened(tmp_path / "store", witness=tmp_path / "witness") as store:
        with pytest.raises(RandomnessError):
            store.take(GRAPH, 0, [1])
        assert len(store.take(GRAPH, 0, [2])) == 1


def test_a_file_that_cannot_be_removed_is_removed_later(tmp_path, monkeypatch):
    with opened(tmp_path / "store") as store:
        put(store, 1)

        def fails(*arguments, **options):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        monkeypatch.setattr("pathlib.Path.unlink", fails)
        assert len(store.take(GRAPH, 0, [1])) == 1
        monkeypatch.undo()
        assert os.listdir(store.directory / "material") == [f"{1:016x}"]
    with opened(tmp_path / "store") as store:
        assert os.listdir(store.directory / "material") == []
