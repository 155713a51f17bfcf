"""What others do to the files of a store is noticed, and the error says what to do."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3

import numpy as np
import pytest

from shareflow.errors import RandomnessError
from shareflow.runtime.store import NewMaterial, Store
from shareflow.runtime.store.sealed_file import CHUNK_BYTES
from shareflow_client.errors import StoreError

KEY, PLAN, GRAPH = bytes(range(32)), "ab" * 32, "predict@8"
SEALED_CHUNK = CHUNK_BYTES + 16
ARRAYS = {"w": np.arange(300_000), "b": np.arange(3)}


def opened(directory, **changes):
    return Store.open(directory, **({"storage_key": KEY, "plan_fingerprint": PLAN, "party": "server0"} | changes))


def content(index):
    return np.random.default_rng(index).bytes(2 * CHUNK_BYTES + 1000)


def put(store, *indices, version=0):
    store.put_material_many(NewMaterial(GRAPH, version, i, b"k" * 16, [content(i)]) for i in indices)


@pytest.fixture
def place(tmp_path):
    """A store with four records, of which 4 is spent, and a state of version 9."""
    place = tmp_path / "store"
    with opened(place) as store:
        put(store, 1, 2, 3, 4)
        store.take(GRAPH, 0, [4])
        store.put_state(9, ARRAYS, based_on=None)
        store.set_current(9)
        store.remember("fact", [1])
        store.next_indices(5)
    return place


def material(place, index):
    return place / "material" / f"{index:016x}"


def edit(place, *statements):
    with sqlite3.connect(place / "ledger.sqlite") as database:
        for sql, *values in statements:
            assert database.execute(sql, values).rowcount != 0, "the edit hits a row"
    database.close()


# --- files --------------------------------------------------------------------------------------------------------


def flip(position):
    def change(path):
        data = bytearray(path.read_bytes())
        data[position] ^= 1
        path.write_bytes(data)

    return change


def swap_chunks(path):
    data = path.read_bytes()
    path.write_bytes(data[SEALED_CHUNK : 2 * SEALED_CHUNK] + data[:SEALED_CHUNK] + data[2 * SEALED_CHUNK :])


def cut(size):
    return lambda path: os.truncate(path, size)


def lengthen(path):
    path.write_bytes(path.read_bytes() + b"\0")


def of_another(path):
    """The file of record 2, which has the same length."""
    path.write_bytes((path.parent / f"{2:016x}").read_bytes())


CHANGES = {
    "first byte": flip(0), "first tag": flip(CHUNK_BYTES), "second chunk": flip(SEALED_CHUNK + 5),
    "last chunk": flip(2 * SEALED_CHUNK), "last byte": flip(-1), "swapped chunks": swap_chunks,
    "last chunk gone": cut(2 * SEALED_CHUNK), "one byte gone": cut(2 * SEALED_CHUNK + 1015), "empty": cut(0),
    "longer": lengthen, "another record's": of_another,
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("reopen", [True, False])
def test_a_changed_file(place, change, reopen):
    store = opened(place)
    if reopen:
        store.close()
    change(material(place, 1))
    if reopen:
        store = opened(place)
    with store:
        with pytest.raises(StoreError, match=r"the file of the material of execution 1 .*Mark it as spent at both"):
            store.take(GRAPH, 0, [3, 1])
        assert not store.is_spent(1) and not store.is_spent(3), "none was given, so none is spent"
        store.spend([1])
        assert [bytes(m.payload) for m in store.take(GRAPH, 0, [3, 2])] == [content(3), content(2)]


def test_two_files_swapped(place):
    one, two = material(place, 1), material(place, 2)
    one.rename(place / "aside")
    two.rename(one)
    (place / "aside").rename(two)
    with opened(place) as store:
        for index in (1, 2):
            with pytest.raises(StoreError, match=f"execution {index} .* was changed or is damaged"):
                store.take(GRAPH, 0, [index])


def test_a_link_to_another_file_is_not_followed(place):
    material(place, 1).unlink()
    material(place, 1).symlink_to(material(place, 2))
    with opened(place) as store, pytest.raises(StoreError):
        store.take(GRAPH, 0, [1])


@pytest.mark.parametrize("change", [flip(0), flip(-1), cut(100)])
def test_a_changed_state(place, change):
    change(place / "state" / f"{9:016x}")
    with opened(place) as store, pytest.raises(StoreError, match="the file of state version 9"):
        store.state(9)


def test_a_file_that_vanishes_while_the_store_is_open(place):
    with opened(place) as store:
        material(place, 1).unlink()
        (place / "state" / f"{9:016x}").unlink()
        with pytest.raises(StoreError, match=r"the file of the material of execution 1 .* is missing"):
            store.take(GRAPH, 0, [1])
        with pytest.raises(StoreError, match="the file of state version 9 is missing"):
            store.state(9)


def test_missing_files_are_found_at_the_start(place, caplog):
    material(place, 1).unlink()
    (place / "state" / f"{9:016x}").unlink()
    with caplog.at_level(logging.WARNING), opened(place) as store:
        assert "material of 1 executions lost its files and is marked as spent: [1]" in caplog.text
        assert "state version 9 lost its file" in caplog.text
        assert store.is_spent(1) and store.available(GRAPH, 0) == [2, 3]
        assert store.versions() == [] and store.current is None
        with pytest.raises(RandomnessError):
            put(store, 1)


def test_files_of_nobody_are_removed(place):
    (place / "material" / f"{77:016x}").write_bytes(b"x")
    (place / "state" / "x.tmp").write_bytes(b"x")
    shutil.copy(material(place, 1), material(place, 4))
    with opened(place) as store:
        assert sorted(os.listdir(place / "material")) == [f"{i:016x}" for i in (1, 2, 3)]
        assert os.listdir(place / "state") == [f"{9:016x}"]
        assert store.is_spent(4) and not store.is_spent(77)


# --- rows ---------------------------------------------------------------------------------------------------------


def name(index):
    return index.to_bytes(8, "big")


EDITS = {
    "spent range gone": [("DELETE FROM entry WHERE kind = 'spent'",)],
    "spent range moved": [("UPDATE entry SET name = ?, value = ? WHERE kind = 'spent'", name(50), name(50))],
    "spent range shrunk": [("UPDATE entry SET name = ? WHERE kind = 'spent'", name(5))],
    "index": [("UPDATE entry SET name = ? WHERE kind = 'material' AND name = ?", name(8), name(1))],
    "index of a spent one": [("UPDATE entry SET name = ? WHERE kind = 'material' AND name = ?", name(4), name(1))],
    "graph": [("UPDATE entry SET value = CAST(REPLACE(value, 'predict@8', 'predict@1') AS BLOB) "
               "WHERE kind = 'material' AND name = ?", name(1))],
    "version": [("UPDATE entry SET value = CAST(x'0000000000000001' || SUBSTR(value, 9) AS BLOB) "
                 "WHERE kind = 'material' AND name = ?", name(1))],
    "record gone": [("DELETE FROM entry WHERE kind = 'material' AND name = ?", name(1))],
    "record added": [("INSERT INTO entry SELECT kind, ?, value FROM entry WHERE kind = 'material' AND name = ?",
                      name(4), name(1))],
    "records swapped": [
        ("UPDATE entry SET name = x'00' WHERE kind = 'material' AND name = ?", name(1)),
        ("UPDATE entry SET name = ? WHERE kind = 'material' AND name = ?", name(1), name(2)),
        ("UPDATE entry SET name = ? WHERE kind = 'material' AND name = x'00'", name(2))],
    "kind": [("UPDATE entry SET kind = 'spend' WHERE kind = 'spent'",)],
    "type": [("UPDATE entry SET value = 'text' WHERE kind = 'counter'",)],
    "counter": [("UPDATE entry SET value = ? WHERE kind = 'counter'", name(2))],
    "current": [("UPDATE entry SET value = ? WHERE kind = 'current'", name(8))],
    "fact": [("UPDATE entry SET value = zeroblob(60) WHERE kind = 'fact'",)],
    "steps": [("UPDATE head SET steps = steps - 1",)],
    "negative steps": [("UPDATE head SET steps = -1",)],
    "tag": [("UPDATE head SET tag = zeroblob(32)",)],
    "head gone": [("DELETE FROM head",)],
    "trigger": [("CREATE TRIGGER t AFTER INSERT ON entry BEGIN DELETE FROM entry WHERE kind = 'spent'; END",)],
    "table gone": [("DROP TABLE entry",)],
}  # fmt: skip


@pytest.mark.parametrize("statements", EDITS.values(), ids=EDITS)
def test_an_edited_row(place, statements):
    edit(place, *statements)
    with pytest.raises(StoreError, match=r"(changed|no valid head|never wrote).*Find out who changed it.*sent anew"):
        opened(place)


def test_rows_of_earlier_do_not_pass(place):
    """The rows before a take, without the head: a spent index would look unspent."""
    earlier = place.parent / "earlier.sqlite"
    shutil.copy(place / "ledger.sqlite", earlier)
    with opened(place) as store:
        store.take(GRAPH, 0, [1])
    edit(
        place,
        ("ATTACH ? AS earlier", str(earlier)),
        ("DELETE FROM entry",),
        ("INSERT INTO entry SELECT * FROM earlier.entry",),
    )
    with pytest.raises(StoreError, match="were changed by someone else"):
        opened(place)


def test_an_edit_while_the_store_is_open_gives_nothing(place):
    """SQLite's lock keeps others out; one who writes to the file all the same changes nothing that is known."""
    with opened(place) as store:
        store.next_indices(1)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            sqlite3.connect(place / "ledger.sqlite", timeout=0).execute("DELETE FROM entry")
        (place / "ledger.sqlite").write_bytes(b"")
        with pytest.raises(RandomnessError):
            store.take(GRAPH, 0, [4])


@pytest.mark.parametrize("part", [0, 20, 0.1, 0.5, 0.99])
def test_a_damaged_database(place, part):
    path = place / "ledger.sqlite"
    data = bytearray(path.read_bytes())
    start = part if isinstance(part, int) else int(part * len(data))
    data[start : start + 64] = bytes(byte ^ 0xFF for byte in data[start : start + 64])
    path.write_bytes(data)
    try:
        store = opened(place)
    except StoreError:
        return
    # It was unused space of a page.
    with store:
        assert store.is_spent(4) and store.available(GRAPH, 0) == [1, 2, 3]


def test_not_a_database(place):
    (place / "ledger.sqlite").write_bytes(b"not a database, but long enough to be looked at" * 100)
    with pytest.raises(StoreError, match=r"cannot be read as a store: file is not a database"):
        opened(place)


def test_another_database(place):
    with sqlite3.connect(place / "other") as database:
        database.execute("CREATE TABLE entry (a)")
    os.replace(place / "other", place / "ledger.sqlite")
    with pytest.raises(StoreError, match="is not a store of shareflow"):
        opened(place)


def test_a_later_format(place):
    edit(place, ("UPDATE head SET format = 2",))
    with pytest.raises(StoreError, match=r"has format 2, this shareflow reads 1"):
        opened(place)


# --- whose it is --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"storage_key": bytes(32)}, "the storage key is not the one"),
        ({"party": "server1"}, "belongs to 'server0', not to 'server1'"),
        ({"plan_fingerprint": "cd" * 32}, r"belongs to the plan abab.*, not to cdcd"),
    ],
)
def test_a_store_of_another(place, changes, text):
    before = (place / "ledger.sqlite").read_bytes()
    with pytest.raises(StoreError, match=text) as error:
        opened(place, **changes)
    assert KEY.hex() not in str(error.value) and repr(KEY) not in str(error.value)
    assert (place / "ledger.sqlite").read_bytes() == before
    with opened(place) as store:
        assert store.available(GRAPH, 0) == [1, 2, 3]


@pytest.mark.parametrize("column", ["party", "plan"])
def test_whose_it_is_cannot_be_edited(place, column):
    edit(place, (f"UPDATE head SET {column} = 'x'",))
    with pytest.raises(StoreError, match="were changed by someone else"):
        opened(place, **{"party" if column == "party" else "plan_fingerprint": "x"})


@pytest.mark.parametrize("length", [0, 16, 31, 33])
def test_a_storage_key_has_32_bytes(tmp_path, length):
    with pytest.raises(StoreError, match=f"32 bytes, this one has {length}"):
        opened(tmp_path / "store", storage_key=bytes(length))
    opened(tmp_path / "store").close()


def test_the_file_of_another_store(place, tmp_path):
    """The same party, plan, key, index and length: the store's id makes the difference."""
    with opened(tmp_path / "second") as second:
        put(second, 1)
        shutil.copy(tmp_path / "second" / "material" / f"{1:016x}", material(place, 1))
    with opened(place) as store, pytest.raises(StoreError, match="was changed or is damaged"):
        store.take(GRAPH, 0, [1])


# --- an older copy ------------------------------------------------------------------------------------------------


def snapshot(place, to):
    shutil.copytree(place, to)


def restore(place, copy):
    shutil.rmtree(place)
    shutil.copytree(copy, place)


@pytest.fixture
def witness(tmp_path):
    return tmp_path / "elsewhere"


def test_the_witness_sees_an_older_copy(place, tmp_path, witness):
    with opened(place, witness=witness) as store:
        store.next_indices(1)
    snapshot(place, tmp_path / "copy")
    with opened(place, witness=witness) as store:
        store.take(GRAPH, 0, [1])
    restore(place, tmp_path / "copy")
    with pytest.raises(StoreError, match=r"is an older copy: it has seen \d+ transactions, its witness \d+"):
        opened(place, witness=witness)


def test_the_witness_sees_a_copy_from_before_its_time(place, tmp_path, witness):
    snapshot(place, tmp_path / "copy")
    with opened(place, witness=witness) as store:
        store.take(GRAPH, 0, [1])
    restore(place, tmp_path / "copy")
    with pytest.raises(StoreError, match="is an older copy"):
        opened(place, witness=witness)


def test_the_witness_sees_a_new_store_in_its_place(place, witness):
    opened(place, witness=witness).close()
    shutil.rmtree(place)
    for _ in range(2):
        with pytest.raises(StoreError, match="belongs to another store, or was changed"):
            opened(place, witness=witness)
    witness.unlink()
    opened(place, witness=witness).close()


@pytest.mark.parametrize("change", [lambda p: p.write_bytes(b""), lambda p: p.write_bytes(bytes(128)), flip(8)])
def test_a_changed_witness(place, witness, change):
    opened(place, witness=witness).close()
    data = witness.read_bytes()
    witness.write_bytes(data[:64])  # one slot, so that the change hits the only one
    change(witness)
    with pytest.raises(StoreError, match="belongs to another store, or was changed"):
        opened(place, witness=witness)


def test_a_witness_that_is_gone(place, witness, caplog):
    opened(place, witness=witness).close()
    witness.unlink()
    with pytest.raises(StoreError, match=r"is gone. Put it back; or, .* open the store once without"):
        opened(place, witness=witness)
    with caplog.at_level(logging.WARNING):
        opened(place).close()
    assert "had a witness and is opened without" in caplog.text
    with opened(place, witness=witness) as store:
        store.take(GRAPH, 0, [1])
    with opened(place, witness=witness) as store:
        assert store.is_spent(1)


def test_a_witness_that_lags_behind_is_brought_up(place, witness, tmp_path):
    """As after a crash between the commit and the witness's note."""
    with opened(place, witness=witness) as store:
        before = witness.read_bytes()
        store.take(GRAPH, 0, [1])
    witness.write_bytes(before)
    snapshot(place, tmp_path / "copy")
    with opened(place, witness=witness) as store:
        store.take(GRAPH, 0, [2])
    restore(place, tmp_path / "copy")
    with pytest.raises(StoreError, match="is an older copy"):
        opened(place, witness=witness)


def test_a_witness_that_cannot_be_written(place, tmp_path):
    with pytest.raises(StoreError, match="cannot be used"):
        opened(place, witness=tmp_path / "no folder" / "witness")


def test_without_a_witness_an_older_copy_passes(place, tmp_path):
    """The limit that docs/store.md states: this server alone cannot see it, the other server does."""
    snapshot(place, tmp_path / "copy")
    with opened(place) as store:
        store.take(GRAPH, 0, [1])
    restore(place, tmp_path / "copy")
    with opened(place) as store:
        assert not store.is_spent(1)
