"""What a store promises while nothing goes wrong: material once, state whole, a counter that goes on."""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from shareflow.errors import RandomnessError
from shareflow.runtime.store import Material, NewMaterial, Store
from shareflow.runtime.store.sealed_file import CHUNK_BYTES
from shareflow_client.errors import StoreError

KEY, PLAN, GRAPH = bytes(range(32)), "ab" * 32, "predict@8"
LARGEST = 2**64 - 1


def opened(directory, **changes):
    return Store.open(directory, **({"storage_key": KEY, "plan_fingerprint": PLAN, "party": "server0"} | changes))


@pytest.fixture
def place(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def store(place):
    with opened(place) as store:
        yield store


def dealt(index):
    return index.to_bytes(8, "little") * 2


def put(store, *indices, graph=GRAPH, version=0, payload=(b"correction",)):
    store.put_material_many(NewMaterial(graph, version, i, dealt(i), payload) for i in indices)


# --- material -----------------------------------------------------------------------------------------------------


def test_material_is_given_as_it_was_put(store):
    words = np.arange(5, dtype=np.int64)
    store.put_material(GRAPH, 7, 3, b"k" * 16, [b"ab", memoryview(b"cd"), bytearray(b"e"), words, b""])
    assert store.available(GRAPH, 7) == [3]
    (material,) = store.take(GRAPH, 7, [3])
    assert (material.index, material.key) == (3, b"k" * 16)
    assert isinstance(material.payload, memoryview)
    assert bytes(material.payload) == b"abcde" + words.tobytes()
    assert store.available(GRAPH, 7) == []


@pytest.mark.parametrize("length", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES])
@pytest.mark.parametrize("cuts", [1, 3])
def test_any_length_in_any_buffers(store, length, cuts):
    content = np.random.default_rng(length).bytes(length)
    parts = [content[k * length // cuts : (k + 1) * length // cuts] for k in range(cuts)]
    store.put_material(GRAPH, 0, 1, dealt(1), parts)
    assert bytes(store.take(GRAPH, 0, [1])[0].payload) == content


def test_no_payload_at_all(store):
    put(store, 1, payload=())
    assert bytes(store.take(GRAPH, 0, [1])[0].payload) == b""


def test_order_is_as_asked_for(store):
    put(store, 5, 9, 2)
    assert store.available(GRAPH, 0) == [2, 5, 9]
    assert [m.index for m in store.take(GRAPH, 0, [9, 2])] == [9, 2]
    assert store.take(GRAPH, 0, []) == []


def test_graphs_and_versions_are_apart(store):
    put(store, 1, 2)
    put(store, 3, version=4)
    put(store, 5, graph="predict@1", version=4)
    assert store.counts() == {(GRAPH, 0): 2, (GRAPH, 4): 1, ("predict@1", 4): 1}
    assert store.available("train", 0) == []
    store.take(GRAPH, 0, [1, 2])
    assert store.counts() == {(GRAPH, 4): 1, ("predict@1", 4): 1}


@pytest.mark.parametrize("wrong", [("predict@1", 0), (GRAPH, 1)])
def test_material_of_another_graph_or_version_is_not_given(store, wrong):
    put(store, 1)
    with pytest.raises(StoreError, match=r"no material for execution 1 .* it belongs to predict@8 of state version 0"):
        store.take(*wrong, [1])
    assert store.available(GRAPH, 0) == [1]


def test_an_index_is_taken_once(store, place):
    put(store, 1, 2)
    store.take(GRAPH, 0, [1])
    with pytest.raises(RandomnessError, match="index 1 is spent"):
        store.take(GRAPH, 0, [1])
    with pytest.raises(RandomnessError, match="index 1 is spent"):
        store.take(GRAPH, 0, [2, 1])
    assert store.available(GRAPH, 0) == [2], "all or nothing"
    store.close()
    with opened(place) as again:
        assert again.is_spent(1) and not again.is_spent(2)
        with pytest.raises(RandomnessError):
            again.take(GRAPH, 0, [1])
        assert [m.key for m in again.take(GRAPH, 0, [2])] == [dealt(2)]


def test_an_index_twice_in_one_take(store):
    put(store, 1)
    with pytest.raises(RandomnessError, match="asked for twice"):
        store.take(GRAPH, 0, [1, 1])
    assert store.available(GRAPH, 0) == [1]


def test_an_index_that_is_not_there(store):
    put(store, 1)
    with pytest.raises(StoreError, match=r"no material for execution 2 .* there is none"):
        store.take(GRAPH, 0, [1, 2])
    assert store.available(GRAPH, 0) == [1] and not store.is_spent(1)


@pytest.mark.parametrize("spend", [lambda s: s.take(GRAPH, 0, [1]), lambda s: s.spend([1]), lambda s: None])
def test_an_index_is_put_once(store, place, spend):
    put(store, 1)
    spend(store)
    for again in (1, 2):
        with pytest.raises(RandomnessError, match=r"index 1 is spent|execution 1 was put before"):
            put(store, 1, graph="other", version=again, payload=[b"other"])
    left = store.available(GRAPH, 0)
    assert [bytes(m.payload) for m in store.take(GRAPH, 0, left)] == [b"correction"] * len(left)


def test_a_batch_is_put_wholly_or_not(store, place):
    put(store, 4)
    with pytest.raises(RandomnessError, match="execution 4 was put before"):
        put(store, 3, 4, 5)
    with pytest.raises(RandomnessError, match="execution 6 was put before"):
        put(store, 6, 6)
    with pytest.raises(StoreError, match="a dealt key has 16 bytes, that of execution 8 has not"):
        store.put_material_many([NewMaterial(GRAPH, 0, 7, dealt(7), []), NewMaterial(GRAPH, 0, 8, b"short", [])])

    def breaks():
        yield NewMaterial(GRAPH, 0, 9, dealt(9), [b"x"])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.put_material_many(breaks())
    assert store.available(GRAPH, 0) == [4]
    assert os.listdir(place / "material") == [f"{4:016x}"]
    put(store, 3, 5, 6, 7, 8, 9)
    assert store.available(GRAPH, 0) == [3, 4, 5, 6, 7, 8, 9]


def test_spend_deletes_and_lasts(store, place):
    put(store, 1, 2)
    store.spend([2, 2, 50, LARGEST])
    store.spend([2])
    assert store.available(GRAPH, 0) == [1]
    assert os.listdir(place / "material") == [f"{1:016x}"]
    store.close()
    with opened(place) as again:
        assert [again.is_spent(i) for i in (0, 1, 2, 3, 49, 50, 51, LARGEST)] == [0, 0, 1, 0, 0, 1, 0, 1]
        with pytest.raises(RandomnessError, match="index 50 is spent"):
            put(again, 50)


def test_discard_of_a_version(store, place):
    put(store, 1)
    put(store, 2, 3, version=1)
    put(store, 4, version=1, graph="predict@1")
    assert store.discard(1) == 3
    assert store.discard(1) == 0
    assert store.counts() == {(GRAPH, 0): 1}
    assert all(store.is_spent(i) for i in (2, 3, 4))
    assert os.listdir(place / "material") == [f"{1:016x}"]


def test_all_of_64_bits(store, place):
    indices = [0, 1, 2**31, 2**63 - 1, 2**63, 2**63 + 1, LARGEST - 1, LARGEST]
    put(store, *reversed(indices), version=LARGEST)
    store.close()
    with opened(place) as again:
        assert again.available(GRAPH, LARGEST) == indices
        assert [m.key for m in again.take(GRAPH, LARGEST, indices)] == [dealt(i) for i in indices]
    with opened(place) as again:
        assert all(again.is_spent(i) for i in indices)
        assert not any(again.is_spent(i) for i in (2, 2**31 - 1, 2**63 - 2, 2**63 + 2, LARGEST - 2))


@pytest.mark.parametrize("index", [-1, 2**64])
def test_no_more_than_64_bits(store, index):
    for action in (
        lambda: store.put_material(GRAPH, 0, index, b"k" * 16, []),
        lambda: store.put_material(GRAPH, index, 1, b"k" * 16, []),
        lambda: store.take(GRAPH, 0, [index]),
        lambda: store.spend([index]),
        lambda: store.is_spent(index),
        lambda: store.put_state(index, {}, based_on=None),
    ):
        with pytest.raises(StoreError, match="64 bits without a sign"):
            action()
    assert store.counts() == {}


def test_spent_indices_are_kept_as_ranges(store, place):
    for first in range(0, 1000, 50):
        store.spend(range(first, first + 50))
    store.close()
    with sqlite3.connect(place / "ledger.sqlite") as database:
        rows = database.execute("SELECT name, value FROM entry WHERE kind = 'spent'").fetchall()
    assert rows == [(bytes(8), (999).to_bytes(8, "big"))]


def test_takes_of_many_threads_do_not_overlap(store):
    indices = range(1, 301)
    put(store, *indices)
    taken, refused = [], []

    def work(seed):
        order = np.random.default_rng(seed).permutation(indices)
        for k in range(0, len(order), 3):
            try:
                taken.extend(store.take(GRAPH, 0, map(int, order[k : k + 3])))
            except RandomnessError:
                refused.append(k)
        for index in store.available(GRAPH, 0):
            try:
                taken.extend(store.take(GRAPH, 0, [index]))
            except RandomnessError:
                refused.append(index)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(m.index for m in taken) == list(indices)
    assert refused and all(m.key == dealt(m.index) for m in taken)


def test_puts_of_many_threads_do_not_overlap(store):
    done, refused = [], []

    def work(lane):
        for index in range(100):
            try:
                put(store, index, payload=[b"%d" % lane])
                done.append((index, lane))
            except RandomnessError:
                refused.append(index)

    threads = [threading.Thread(target=work, args=(lane,)) for lane in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 100 and len(refused) == 300
    got = {(m.index, int(bytes(m.payload))) for m in store.take(GRAPH, 0, range(100))}
    assert got == set(done)


def test_what_is_spent_while_it_is_read_is_not_given(store, monkeypatch):
    """Another thread spends an index between the reading of its file and the commit."""
    put(store, 1, 2)
    read = store._read_material

    def reads(graph, version, index, row):
        material = read(graph, version, index, row)
        if index == 2:
            store.spend([1])
        return material

    monkeypatch.setattr(store, "_read_material", reads)
    with pytest.raises(RandomnessError, match="index 1 is spent"):
        store.take(GRAPH, 0, [1, 2])
    assert store.available(GRAPH, 0) == [2]


def test_what_is_spent_while_it_is_written_is_not_kept(store, place):
    def records():
        yield NewMaterial(GRAPH, 0, 1, dealt(1), [b"x"])
        assert store.available(GRAPH, 0) == []
        store.spend([1])
        yield NewMaterial(GRAPH, 0, 2, dealt(2), [b"x"])

    with pytest.raises(RandomnessError, match="index 1 is spent"):
        store.put_material_many(records())
    assert store.counts() == {} and os.listdir(place / "material") == []
    put(store, 2)


# --- state --------------------------------------------------------------------------------------------------------

ARRAYS = {
    "dense/kernel": np.arange(12, dtype=np.int64).reshape(3, 4) - 6,
    "dense/bias": np.array([1, 2**64 - 1], np.uint64),
    "bits": np.array([[True], [False], [True]]),
    "scalar": np.float32(1.5) * np.ones(()),
    "none": np.zeros((0, 3)),
    "transposed": np.arange(6, dtype=np.int32).reshape(2, 3).T,
    "big-endian": np.arange(3, dtype=">i8"),
}


def test_state_is_given_as_it_was_put(store, place):
    store.put_state(5, ARRAYS, based_on=None)
    store.put_state(LARGEST, {}, based_on=5)
    store.close()
    with opened(place) as again:
        kept = again.state(5)
        assert list(kept) == list(ARRAYS)
        for name, value in ARRAYS.items():
            np.testing.assert_array_equal(kept[name], value)
            assert kept[name].shape == value.shape and kept[name].dtype == value.dtype.newbyteorder("<")
        assert again.state(LARGEST) == {}
        assert again.versions() == [5, LARGEST]
        assert (again.based_on(5), again.based_on(LARGEST)) == (None, 5)


def test_large_state(store):
    weights = np.random.default_rng(0).integers(0, 2**63, (700, 600))
    store.put_state(1, {"a": weights, "b": weights[:, ::2]}, based_on=None)
    kept = store.state(1)
    assert np.array_equal(kept["a"], weights) and np.array_equal(kept["b"], weights[:, ::2])


def test_the_current_version(store, place):
    assert store.current is None
    store.put_state(1, ARRAYS, based_on=None)
    assert store.current is None
    store.set_current(1)
    store.put_state(2, ARRAYS, based_on=1)
    assert store.current == 1
    with pytest.raises(StoreError, match="state version 1 is the current one"):
        store.drop_state(1)
    store.set_current(2)
    store.drop_state(1)
    assert os.listdir(place / "state") == [f"{2:016x}"]
    store.close()
    with opened(place) as again:
        assert again.current == 2 and again.versions() == [2]


def test_versions_that_are_not_there(store):
    store.put_state(1, ARRAYS, based_on=None)
    for action in (store.state, store.set_current, store.drop_state, store.based_on):
        with pytest.raises(StoreError, match=r"there is no state version 2. There are: \[1\]"):
            action(2)
    with pytest.raises(StoreError, match="is based on 2, which is not there"):
        store.put_state(3, ARRAYS, based_on=2)
    with pytest.raises(StoreError, match="state version 1 is there already"):
        store.put_state(1, {}, based_on=None)
    with pytest.raises(StoreError, match="version 0 means no state"):
        store.put_state(0, {}, based_on=None)
    assert store.versions() == [1] and set(store.state(1)) == set(ARRAYS)


@pytest.mark.parametrize("value", [np.array([object()]), np.array(["text"]), np.zeros(2, "i4,f8")])
def test_a_state_holds_numbers(store, place, value):
    with pytest.raises(StoreError, match="arrays of numbers, 'x' has dtype"):
        store.put_state(1, {"x": value}, based_on=None)
    assert store.versions() == [] and os.listdir(place / "state") == []
    store.put_state(1, ARRAYS, based_on=None)


# --- the counter, and facts ---------------------------------------------------------------------------------------


def test_the_counter_goes_on(store, place):
    assert store.next_indices(3) == range(1, 4)
    assert store.next_indices(1) == range(4, 5)
    store.close()
    with opened(place) as again:
        assert again.next_indices(2) == range(5, 7)


def test_the_counter_ends(store):
    with pytest.raises(StoreError, match="do not fit 64 bits"):
        store.next_indices(2**64)
    assert store.next_indices(LARGEST - 1)[-1] == LARGEST - 1
    assert list(store.next_indices(1)) == [LARGEST]
    with pytest.raises(StoreError, match="do not fit 64 bits"):
        store.next_indices(1)


@pytest.mark.parametrize("count", [0, -1])
def test_no_indices(store, count):
    with pytest.raises(StoreError, match="one or more"):
        store.next_indices(count)


def test_counters_of_many_threads_do_not_overlap(store):
    given = []

    def work():
        for count in range(1, 30):
            given.extend(store.next_indices(count))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(given) == list(range(1, 4 * sum(range(1, 30)) + 1))


def test_facts_last(store, place):
    store.remember("dealing", {"last": 2**64, "peers": ["server0"], "ü": None})
    store.remember("gone", 1)
    store.remember("dealing", {"last": 3})
    store.forget("gone")
    store.forget("never")
    store.close()
    with opened(place) as again:
        assert again.recall("dealing") == {"last": 3}
        assert again.recall("gone") is None and again.recall("gone", 7) == 7


def test_a_fact_is_small(store):
    with pytest.raises(StoreError, match="at most 1048576 bytes"):
        store.remember("x", "a" * 2**20)
    assert store.recall("x") is None


# --- the directory ------------------------------------------------------------------------------------------------


def test_only_the_owner_may_read(store, place):
    put(store, 1)
    store.put_state(1, ARRAYS, based_on=None)
    store.remember("x", 1)
    found = {path: stat.S_IMODE(path.stat().st_mode) for path in [place, *place.rglob("*")]}
    assert {path.name for path in found} >= {"lock", "ledger.sqlite", "ledger.sqlite-wal", f"{1:016x}"}
    assert all(mode == (0o700 if path.is_dir() else 0o600) for path, mode in found.items())


def test_permissions_are_narrowed(place):
    place.mkdir(mode=0o755)
    opened(place).close()
    assert stat.S_IMODE(place.stat().st_mode) == 0o700


def test_nothing_secret_is_readable(store, place):
    secret = b"sixteen secrets!"
    store.put_material(GRAPH, 0, 1, secret, [secret * 10])
    store.put_state(2, {"x": np.frombuffer(secret * 4, np.int64)}, based_on=None)
    store.remember("fact", secret.decode())
    assert secret.decode() not in repr(NewMaterial(GRAPH, 0, 1, secret, [secret]))
    assert secret.decode() not in repr(Material(1, secret, memoryview(secret)))
    store.close()
    for path in place.rglob("*"):
        assert path.is_dir() or (secret not in path.read_bytes() and KEY not in path.read_bytes())


def test_a_taken_key_is_erased(store, place):
    put(store, 1, 2)
    sealed = {i: bytes(store._ledger.get("material", i.to_bytes(8, "big")))[16:] for i in (1, 2)}
    store.take(GRAPH, 0, [1])
    assert os.listdir(place / "material") == [f"{2:016x}"]
    store.close()
    content = b"".join(path.read_bytes() for path in place.iterdir() if path.is_file())
    assert sealed[2] in content, "the test looks at the right bytes"
    assert sealed[1] not in content


def test_each_commit_waits_for_the_disk(store):
    database = store._ledger._database
    assert database.execute("PRAGMA synchronous").fetchone() == (2,)
    assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert database.execute("PRAGMA secure_delete").fetchone() == (1,)


def test_one_store_of_a_directory_in_a_process(store, place):
    with pytest.raises(StoreError, match=f"held by process {os.getpid()}"):
        opened(place)
    store.close()
    opened(place).close()


def test_a_closed_store(store):
    put(store, 1)
    store.close()
    store.close()
    for action in (lambda: store.take(GRAPH, 0, [1]), lambda: store.next_indices(1), lambda: put(store, 2)):
        with pytest.raises(StoreError, match="is closed"):
            action()


def test_a_store_that_must_exist(place):
    with pytest.raises(StoreError, match="there is no store in"):
        opened(place, create=False)
    assert not place.exists()
    opened(place).close()
    opened(place, create=False).close()


def test_a_lost_ledger_is_not_made_anew(store, place):
    """It would forget what was spent."""
    put(store, 1)
    store.close()
    (place / "ledger.sqlite").unlink()
    for _ in range(2):
        with pytest.raises(StoreError, match=r"its ledger is gone.*a new store is made in an empty one"):
            opened(place)
        assert os.listdir(place / "material") == [f"{1:016x}"]
    sqlite3.connect(place / "ledger.sqlite").close()
    with pytest.raises(StoreError, match="its ledger is gone"):
        opened(place)


def test_large_records_need_the_memory_of_a_chunk(store):
    size = 64 * CHUNK_BYTES
    payload = np.full(size // 8, 7)
    tracemalloc.start()
    try:
        store.put_material(GRAPH, 0, 1, dealt(1), [payload[:999], payload[999:]])
        assert tracemalloc.get_traced_memory()[1] < 8 * CHUNK_BYTES
        (material,) = store.take(GRAPH, 0, [1])
        assert (material.nbytes, material.in_memory) == (size, False)
        pieces = b"".join(bytes(material.read(begin, 4096)) for begin in (0, CHUNK_BYTES - 8, size - 4096))
        assert tracemalloc.get_traced_memory()[1] < 8 * CHUNK_BYTES
    finally:
        tracemalloc.stop()
    assert np.array_equal(np.frombuffer(pieces, np.int64), np.full(3 * 512, 7))
    assert np.array_equal(np.frombuffer(material.payload, np.int64), payload)


LARGE = 5 * CHUNK_BYTES + 12345


def content(size=LARGE):
    return np.random.default_rng(3).bytes(size)


@pytest.mark.parametrize("step", [1000, CHUNK_BYTES, CHUNK_BYTES + 1, LARGE])
def test_material_that_comes_in_pieces_is_kept_whole(store, place, step):
    data = content()
    arriving = store.begin_material(GRAPH, 3, 1, dealt(1), len(data))
    for at in range(0, len(data), step):
        piece = bytearray(data[at : at + step])
        arriving.write(memoryview(piece))
        piece[:] = bytes(len(piece))  # its memory is used for other things then
    assert store.available(GRAPH, 3) == []
    store.put_material_many([arriving])
    store.close()
    with opened(place) as again:
        (material,) = again.take(GRAPH, 3, [1])
        assert os.listdir(place / "material") == []
        assert (material.key, bytes(material.payload)) == (dealt(1), data)


def test_material_that_does_not_come_whole_is_not_kept(store, place):
    short, abandoned = (store.begin_material(GRAPH, 0, i, dealt(i), 100) for i in (1, 2))
    for arriving in (short, abandoned):
        arriving.write(memoryview(bytes(99)))
    with pytest.raises(RandomnessError):
        store.begin_material(GRAPH, 0, 2, dealt(2), 100)
    with pytest.raises(StoreError, match=r"100 bytes were to be kept.*99 came"):
        store.put_material_many([short])
    store.abandon_material(abandoned)
    assert os.listdir(place / "material") == []
    for i in (1, 2):
        store.put_material(GRAPH, 0, i, dealt(i), [b"x"])
    assert store.available(GRAPH, 0) == [1, 2]


def test_material_that_still_arrives_is_refused_where_it_was_spent_meanwhile(store, place):
    arriving = store.begin_material(GRAPH, 0, 1, dealt(1), 3)
    arriving.write(memoryview(b"abc"))
    store.spend([1])
    with pytest.raises(RandomnessError):
        store.put_material_many([arriving])
    assert os.listdir(place / "material") == []


def test_a_late_change_of_large_material_is_noticed_when_it_is_read(store, place):
    data = content()
    store.put_material(GRAPH, 0, 1, dealt(1), [data])
    path = place / "material" / f"{1:016x}"
    sealed = bytearray(path.read_bytes())
    sealed[3 * (CHUNK_BYTES + 16) + 5] ^= 1
    path.write_bytes(sealed)
    (material,) = store.take(GRAPH, 0, [1])
    assert material.read(0, 3 * CHUNK_BYTES) == data[: 3 * CHUNK_BYTES]
    with pytest.raises(StoreError, match="changed or is damaged"):
        material.read(3 * CHUNK_BYTES - 1, 2)
    with pytest.raises(ValueError, match="were asked for"):
        material.read(LARGE - 1, 2)


def test_a_directory_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="making the store's directory"):
        opened(Path(tmp_path / "file" / "store"))


def test_a_forked_child_may_not_use_it(store, monkeypatch):
    put(store, 1)
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with pytest.raises(StoreError, match="is used by it alone"):
        store.take(GRAPH, 0, [1])
    store.close()
    monkeypatch.undo()
    assert len(store.take(GRAPH, 0, [1])) == 1, "the child closed nothing of its parent"
