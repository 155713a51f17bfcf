"""The store of a computing party: material that is used once, state that stays, and the dealer's counter.

Guarantees, also when the process or the machine stops at any point:

* an execution index that was ever put or spent is refused; :meth:`Store.take` gives an index once, and only after
  the disk has recorded that it is spent;
* a record or a state is there whole or not at all; the counter of indices never repeats;
* what is at rest is encrypted, and a change of it by others is noticed. Limits: docs/store.md.

    directory/lock           the process that uses it
    directory/ledger.sqlite  which indices are spent, what there is, each record's sealed key (ledger.py)
    directory/material/i     the dealer's messages for execution i (16 hexadecimal digits), sealed (sealed_file.py)
    directory/state/v        the arrays of state version v, sealed
"""

from __future__ import annotations

import json
import logging
import os
import struct
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from shareflow.errors import RandomnessError
from shareflow.runtime.store.arrays import pack, unpack
from shareflow.runtime.store.directory_lock import DirectoryLock
from shareflow.runtime.store.index_set import IndexSet
from shareflow.runtime.store.keys import SEAL_BYTES, fresh_key, joined
from shareflow.runtime.store.ledger import Ledger, no_store
from shareflow.runtime.store.sealed_file import (
    Buffer,
    SealedReader,
    SealedWriter,
    chunk_count,
    disk_error,
    read_sealed,
    sync,
    views,
    write_sealed,
)
from shareflow_client.errors import StoreError

_log = logging.getLogger(__name__)

DEALT_KEY_BYTES = 16
_FILE_KEY_BYTES = 32
_LARGEST = (1 << 64) - 1
_FACT_BYTES = 1 << 20
# Material up to this size is read when it is taken, more of it while it is used.
_AT_ONCE = 4 << 20

# Kinds of rows.
_MATERIAL, _SPENT, _STATE, _CURRENT, _COUNTER, _FACT = "material", "spent", "state", "current", "counter", "fact"
# A material's row: version, length, sealed (file key || dealt key), graph. A state's: length, sealed file key, JSON.
_MATERIAL_ROW = struct.Struct(f">QQ{_FILE_KEY_BYTES + DEALT_KEY_BYTES + SEAL_BYTES}s")
_STATE_ROW = struct.Struct(f">Q{_FILE_KEY_BYTES + SEAL_BYTES}s")


@dataclass(frozen=True)
class NewMaterial:
    """What the dealer sent one server for one execution, on its way into the store.

    ``graph``: such as "predict@8"; ``version``: the state version that it belongs to, 0 for none; ``index``: the
    execution's; ``key``: 16 secret bytes; ``payload``: the dealer's messages, in order.
    """

    graph: str
    version: int
    index: int
    key: bytes = field(repr=False)
    payload: Sequence[Buffer] = field(repr=False)


class ArrivingMaterial:
    """Material whose payload is written piece by piece, from :meth:`Store.begin_material`.

    In the end it goes to :meth:`Store.put_material_many`, or to :meth:`Store.abandon_material`.
    """

    def __init__(self, graph: str, version: int, index: int, secret: bytes, writer: SealedWriter) -> None:
        self.graph, self.version, self.index = graph, version, index
        self._secret, self._writer = secret, writer

    def __len__(self) -> int:
        return len(self._writer)

    def write(self, data: memoryview) -> None:
        """The next bytes. StoreError where they cannot be kept; nothing of the material is then."""
        self._writer.write(data)


class Material:
    """What one execution may use, once: the key shared with the dealer, and the dealer's messages.

    A large payload is on the disk still, without a name, and is read while the execution runs; so a change of it by
    others may be noticed only then.
    """

    def __init__(self, index: int, key: bytes, payload: memoryview | SealedReader) -> None:
        self.index, self.key = index, key
        self._payload = payload

    @property
    def payload(self) -> memoryview:
        """The dealer's messages, in order, in one buffer. StoreError as :meth:`read`."""
        payload = self._payload
        return payload.read(0, len(payload)) if isinstance(payload, SealedReader) else payload

    @property
    def nbytes(self) -> int:
        """Size of the payload."""
        return len(self._payload)

    @property
    def in_memory(self) -> bool:
        """Whether reading it takes no time."""
        return not isinstance(self._payload, SealedReader)

    def read(self, begin: int, size: int) -> memoryview:
        """So many bytes of the payload, of one thread at a time. StoreError where they were changed on the disk."""
        payload = self._payload
        return payload.read(begin, size) if isinstance(payload, SealedReader) else payload[begin : begin + size]

    def close(self) -> None:
        """Gives up what is not read yet."""
        if isinstance(self._payload, SealedReader):
            self._payload.close()


class Store:
    """The open store of one party for one plan. Its methods may be called from any thread."""

    def __init__(self, directory: Path, lock: DirectoryLock, ledger: Ledger, reserve: int) -> None:
        """Use :meth:`open`."""
        self.directory = directory
        self._exclusive, self._ledger, self._reserve = lock, ledger, reserve
        self._process = os.getpid()
        self._closed = False
        self._lock = threading.RLock()
        self._writing: set[int] = set()  # indices whose files are being written
        self._taking: set[int] = set()  # indices whose files are being read, to be spent
        self._states_written: set[int] = set()
        self._spent = IndexSet((_number(first), _number(last)) for first, last in ledger.rows(_SPENT).items())
        self._there: dict[tuple[str, int], set[int]] = {}
        for name, row in ledger.rows(_MATERIAL).items():
            self._there.setdefault(_belongs(row), set()).add(_number(name))

    @classmethod
    def open(
        cls,
        directory: Path,
        storage_key: bytes,
        *,
        plan_fingerprint: str,
        party: str,
        create: bool = True,
        witness: Path | None = None,
        reserve: int = 16 << 20,
    ) -> Store:
        """Opens the party's store for a plan, or makes it; repairs what a crash left.

        ``storage_key``: 32 bytes, the same each time. ``create``: whether a new store may be made. ``witness``: a
        file on another disk by which an older copy of the store is noticed. ``reserve``: bytes of the disk that
        payloads leave free, so that spending can still be recorded when the disk is full of them.

        StoreError: another process holds it, the key is wrong, it is another plan's or party's, it was changed.
        """
        directory = Path(directory)
        if not create and not directory.is_dir():
            raise StoreError(no_store(directory))
        try:
            for folder in (directory, directory / "material", directory / "state"):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                folder.chmod(0o700)
            sync([directory.parent])
            lock = DirectoryLock(directory)
        except OSError as error:
            raise disk_error(error, f"making the store's directory {directory}") from None
        try:
            # A ledger is made together with the directory: files that wait for one are what a lost ledger left.
            create = create and not any(os.listdir(directory / folder) for folder in (_MATERIAL, _STATE))
            path = directory / "ledger.sqlite"
            ledger = Ledger(path, storage_key, plan_fingerprint, party, create=create, witness=witness)
            try:
                store = cls(directory, lock, ledger, reserve)
                store._recover()
            except BaseException:
                ledger.close()
                raise
        except BaseException as error:
            lock.release()
            if isinstance(error, OSError):
                raise disk_error(error, f"opening the store in {directory}") from None
            raise
        return store

    def close(self) -> None:
        """Closes the store; later calls raise StoreError. What other threads are just taking is not given."""
        with self._lock:
            if not self._closed and os.getpid() == self._process:
                self._closed = True
                self._ledger.close()
                self._exclusive.release()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # --- material -------------------------------------------------------------------------------------------------

    def put_material(self, graph: str, version: int, index: int, key: bytes, payload: Sequence[Buffer]) -> None:
        """Keeps the material of one execution; durable when it returns. Errors: :meth:`put_material_many`."""
        self.put_material_many([NewMaterial(graph, version, index, key, payload)])

    def begin_material(self, graph: str, version: int, index: int, key: bytes, length: int) -> ArrivingMaterial:
        """Begins to keep the material of one execution, whose payload of ``length`` bytes comes piece by piece.

        RandomnessError: the index was put or spent before. StoreError: the disk is full.
        """
        index = _index(index)
        self._claim(index)
        try:
            secret = self._secret_of(key, index)
            self._check_space(length)
            writer = SealedWriter(self._material_path(index), secret[:_FILE_KEY_BYTES], length)
            return ArrivingMaterial(graph, _index(version), index, secret, writer)
        except BaseException:
            with self._lock:
                self._writing.discard(index)
            raise

    def abandon_material(self, material: ArrivingMaterial) -> None:
        """The rest of it will not come: nothing of it is kept."""
        material._writer.discard()
        with self._lock:
            self._writing.discard(material.index)

    def put_material_many(self, records: Iterable[NewMaterial | ArrivingMaterial]) -> None:
        """Keeps material of many executions in one transaction: all or none, durable when it returns.

        The records may come from a generator: one payload at a time is held in memory.
        RandomnessError: an index was put or spent before. StoreError: the disk is full; nothing was kept.
        """
        rows: dict[int, bytes] = {}
        paths: list[Path] = []
        done = False

        def then() -> None:
            for index, row in rows.items():
                self._there.setdefault(_belongs(row), set()).add(index)

        try:
            for record in records:
                index = _index(record.index)
                if not isinstance(record, ArrivingMaterial):
                    self._claim(index)
                rows[index] = b""
                paths.append(self._material_path(index))
                rows[index] = self._write_material(record, paths[-1])
            if not rows:
                return
            try:
                sync([*paths, self.directory / "material"])
            except StoreError:
                with self._usable():
                    for index in rows:
                        self._refuse_spent(index)
                raise
            with self._usable():
                for index in rows:
                    self._refuse_spent(index)
                try:
                    self._ledger.commit({(_MATERIAL, _name(index)): row for index, row in rows.items()}, then)
                finally:
                    # Also after a failure whose outcome is unknown the files stay: opening the store decides.
                    done = self._ledger.broken or all(self._ledger.get(_MATERIAL, _name(index)) for index in rows)
        finally:
            if not done:
                _remove(paths)
            with self._lock:
                self._writing.difference_update(rows)

    def available(self, graph: str, version: int) -> list[int]:
        """Indices of the material there is for a graph and a state version, in order."""
        with self._usable():
            return sorted(self._there.get((graph, version), set()) - self._taking)

    def counts(self) -> dict[tuple[str, int], int]:
        """How much material there is, by graph and state version."""
        with self._usable():
            return {place: len(indices) for place, indices in self._there.items()}

    def take(self, graph: str, version: int, indices: Iterable[int]) -> list[Material]:
        """Spends the material of these executions, then gives it, in the order asked for.

        All or nothing, in one transaction: when it returns, the disk has recorded that they are spent, their keys
        are erased and their files removed. RandomnessError: one was spent before, is asked for twice or is just
        being taken. StoreError: one is not there, or was changed on the disk; then none is spent.
        """
        wanted = [_index(index) for index in indices]
        with self._usable():
            rows = {index: self._row_to_take(graph, version, index) for index in wanted}
            if len(rows) < len(wanted):
                raise RandomnessError("an execution index is used once, and it was asked for twice in one take.")
            self._taking.update(rows)
        try:
            materials = [self._read_material(graph, version, index, row) for index, row in rows.items()]
            with self._usable():
                for index in rows:
                    self._refuse_spent(index)
                self._record_spent(rows)
        finally:
            with self._lock:
                self._taking.difference_update(rows)
        _remove(map(self._material_path, rows))
        return materials

    def is_spent(self, index: int) -> bool:
        """Whether this index may never be used again (it may also be that it never was put)."""
        with self._usable():
            return _index(index) in self._spent

    def spend(self, indices: Iterable[int]) -> None:
        """Marks indices as spent, durably, and deletes their material; spent ones stay so.

        For indices that are lost, such as those which the other server has spent. It gives no right to use them.
        """
        marked = {_index(index) for index in indices}
        with self._usable():
            erased = self._record_spent(marked)
        _remove(map(self._material_path, erased))

    def discard(self, version: int) -> int:
        """Spends and deletes all material of a state version that is outdated; says how much it was."""
        with self._usable():
            gone = {index for (_, of), indices in self._there.items() if of == version for index in indices}
        self.spend(gone)
        return len(gone)

    # --- state ----------------------------------------------------------------------------------------------------

    def put_state(self, version: int, arrays: Mapping[str, np.ndarray], *, based_on: int | None) -> None:
        """Keeps what stays at the party after execution ``version``, whole or not at all; durable on return.

        ``based_on``: the version that it was computed from, which must be there; None for a first one.
        StoreError: the version is there already, ``based_on`` is not, or the disk is full.
        """
        if _index(version) == 0:
            raise StoreError("state version 0 means no state; versions are execution indices, from 1.")
        described, payload = pack(arrays)
        with self._usable():
            if self._ledger.get(_STATE, _name(version)) is not None or version in self._states_written:
                raise StoreError(f"state version {version} is there already; a version is written once.")
            if based_on is not None and self._ledger.get(_STATE, _name(based_on)) is None:
                raise StoreError(f"state version {version} is based on {based_on}, which is not there.")
            self._states_written.add(version)
        path, done = self._state_path(version), False
        try:
            key, length = fresh_key(), sum(map(len, payload))
            about = json.dumps({"based_on": based_on, "arrays": described}, separators=(",", ":")).encode("utf-8")
            self._check_space(length)
            write_sealed(path, key, payload)
            sync([path, self.directory / "state"])
            with self._usable():
                row = _STATE_ROW.pack(length, self._ledger.keys.seal(key, _state_identity(version, length, about)))
                try:
                    self._ledger.commit({(_STATE, _name(version)): row + about})
                finally:
                    done = self._ledger.broken or self._ledger.get(_STATE, _name(version)) is not None
        finally:
            if not done:
                _remove([path])
            with self._lock:
                self._states_written.discard(version)

    def state(self, version: int) -> dict[str, np.ndarray]:
        """The arrays of a version, read from the disk. StoreError: not there, or changed on the disk."""
        with self._usable():
            row = self._state_row(version)
            length, sealed = _STATE_ROW.unpack_from(row)
            about = row[_STATE_ROW.size :]
            what = f"state version {version}"
            key = self._ledger.keys.unseal(sealed, _state_identity(version, length, about), what)
        return unpack(json.loads(about)["arrays"], read_sealed(self._state_path(version), key, length, what))

    def versions(self) -> list[int]:
        """The state versions there are, in order."""
        with self._usable():
            return sorted(map(_number, self._ledger.rows(_STATE)))

    def based_on(self, version: int) -> int | None:
        """The version that a version was computed from."""
        with self._usable():
            return json.loads(self._state_row(version)[_STATE_ROW.size :])["based_on"]

    @property
    def current(self) -> int | None:
        """The version that executions use; None before the first."""
        with self._usable():
            name = self._ledger.get(_CURRENT)
            return None if name is None else _number(name)

    def set_current(self, version: int) -> None:
        """Makes a version that is there the current one; durable when it returns."""
        with self._usable():
            self._state_row(version)
            self._ledger.commit({(_CURRENT, b""): _name(version)})

    def drop_state(self, version: int) -> None:
        """Deletes a version. StoreError where it is the current one, or is not there."""
        with self._usable():
            self._state_row(version)
            if self._ledger.get(_CURRENT) == _name(version):
                raise StoreError(f"state version {version} is the current one. Make another version current first.")
            self._ledger.commit({(_STATE, _name(version)): None})
            # Under the lock: the version could be put again at once, under the same name.
            _remove([self._state_path(version)])

    # --- the dealer's counter, and small facts --------------------------------------------------------------------

    def next_indices(self, count: int) -> range:
        """The next execution indices, from 1; durable before it returns, so none is ever given twice."""
        if count < 1:
            raise StoreError(f"one or more execution indices can be asked for, not {count}.")
        with self._usable():
            last = _number(self._ledger.get(_COUNTER) or _name(0))
            if last + count > _LARGEST:
                raise StoreError(f"{count} more execution indices do not fit 64 bits after {last}. Make a new plan.")
            self._ledger.commit({(_COUNTER, b""): _name(last + count)})
            return range(last + 1, last + count + 1)

    def remember(self, name: str, value: Any) -> None:
        """Keeps a small JSON value under a name, sealed; durable when it returns; replaces what was there."""
        data = json.dumps(value, separators=(",", ":"), allow_nan=False).encode("utf-8")
        if len(data) > _FACT_BYTES:
            raise StoreError(f"a fact has at most {_FACT_BYTES} bytes of JSON, {name!r} has {len(data)}.")
        key = name.encode("utf-8")
        with self._usable():
            self._ledger.commit({(_FACT, key): self._ledger.keys.seal(data, joined(b"fact", key))})

    def recall(self, name: str, default: Any = None) -> Any:
        """What was remembered under a name, or the default."""
        key = name.encode("utf-8")
        with self._usable():
            sealed = self._ledger.get(_FACT, key)
            if sealed is None:
                return default
            return json.loads(self._ledger.keys.unseal(sealed, joined(b"fact", key), f"the fact {name!r}"))

    def forget(self, name: str) -> None:
        """Removes what was remembered under a name, if anything was."""
        with self._usable():
            row = (_FACT, name.encode("utf-8"))
            if self._ledger.get(*row) is not None:
                self._ledger.commit({row: None})

    # --- within ---------------------------------------------------------------------------------------------------

    @contextmanager
    def _usable(self) -> Iterator[None]:
        """Holds the lock, in the process that opened the store, while it is open."""
        if os.getpid() != self._process:
            # The memory of a forked child goes its own way: it would give out what its parent gives out.
            raise StoreError(f"the store was opened by process {self._process} and is used by it alone.")
        with self._lock:
            if self._closed:
                raise StoreError(f"the store in {self.directory} is closed.")
            yield

    def _recover(self) -> None:
        """Brings files and rows together after a crash: a file counts only with its row, and a row with its file."""
        try:
            files = {folder: set(os.listdir(self.directory / folder)) for folder in (_MATERIAL, _STATE)}
        except OSError as error:
            raise disk_error(error, f"listing {self.directory}") from None
        lost = [i for i in map(_number, self._ledger.rows(_MATERIAL)) if _file_name(i) not in files[_MATERIAL]]
        if lost:
            _log.warning("material of %d executions lost its files and is marked as spent: %s", len(lost), lost[:20])
            self._record_spent(lost)
        for version in [v for v in map(_number, self._ledger.rows(_STATE)) if _file_name(v) not in files[_STATE]]:
            _log.warning("state version %d lost its file and is dropped", version)
            current = self._ledger.get(_CURRENT) == _name(version)
            self._ledger.commit({(_STATE, _name(version)): None, **({(_CURRENT, b""): None} if current else {})})
        for folder in (_MATERIAL, _STATE):
            orphans = files[folder] - {_file_name(_number(name)) for name in self._ledger.rows(folder)}
            if orphans:
                _log.info("removing %d files of %s that were not finished, or are spent", len(orphans), folder)
                _remove(self.directory / folder / name for name in orphans)

    def _claim(self, index: int) -> None:
        """Reserves an index for writing. RandomnessError where it was put or spent before."""
        with self._usable():
            self._refuse_spent(index)
            if index in self._writing or self._ledger.get(_MATERIAL, _name(index)) is not None:
                raise RandomnessError(f"material for execution {index} was put before; an index is used once.")
            self._writing.add(index)

    def _refuse_spent(self, index: int) -> None:
        if index in self._spent:
            raise RandomnessError(f"execution index {index} is spent; randomness is used once. Take another index.")

    def _record_spent(self, indices: Iterable[int]) -> list[int]:
        """Marks as spent and erases the rows, in one transaction; gives those that had one. Holds the lock."""
        marked = [index for index in indices if index not in self._spent]
        if not marked:
            return []
        growth = self._spent.growth(marked)
        changes: dict[tuple[str, bytes], bytes | None] = {(_SPENT, _name(first)): None for first in growth.gone}
        changes |= {(_SPENT, _name(first)): _name(last) for first, last in growth.new}
        erased = {index: row for index in marked if (row := self._ledger.get(_MATERIAL, _name(index))) is not None}
        changes |= {(_MATERIAL, _name(index)): None for index in erased}

        def then() -> None:
            self._spent.grow(growth)
            for index, row in erased.items():
                place = _belongs(row)
                self._there[place].discard(index)
                if not self._there[place]:
                    del self._there[place]

        self._ledger.commit(changes, then)
        return list(erased)

    def _row_to_take(self, graph: str, version: int, index: int) -> bytes:
        self._refuse_spent(index)
        if index in self._taking:
            raise RandomnessError(f"execution index {index} is just being taken; randomness is used once.")
        row = self._ledger.get(_MATERIAL, _name(index))
        if row is None or _belongs(row) != (graph, version):
            found = "there is none" if row is None else "it belongs to {} of state version {}".format(*_belongs(row))
            raise StoreError(f"no material for execution {index} of {graph}, state version {version}: {found}.")
        return row

    def _write_material(self, record: NewMaterial | ArrivingMaterial, path: Path) -> bytes:
        """Writes the file, or what is missing of it, and gives the row."""
        version = _index(record.version)
        if isinstance(record, ArrivingMaterial):
            record._writer.finish()
            length, secret = len(record), record._secret
        else:
            payload, secret = views(record.payload), self._secret_of(record.key, record.index)
            length = sum(map(len, payload))
            self._check_space(length)
            write_sealed(path, secret[:_FILE_KEY_BYTES], payload)
        sealed = self._ledger.keys.seal(secret, _material_identity(record.graph, version, record.index, length))
        return _MATERIAL_ROW.pack(version, length, sealed) + record.graph.encode("utf-8")

    def _secret_of(self, key: bytes, index: int) -> bytes:
        """What is sealed in a material's row: the key of its file, then that which was dealt."""
        if len(key) != DEALT_KEY_BYTES:
            raise StoreError(f"a dealt key has {DEALT_KEY_BYTES} bytes, that of execution {index} has not.")
        return fresh_key() + key

    def _read_material(self, graph: str, version: int, index: int, row: bytes) -> Material:
        what = f"the material of execution {index} ({graph}, state version {version})"
        _, length, sealed = _MATERIAL_ROW.unpack_from(row)
        try:
            secret = self._ledger.keys.unseal(sealed, _material_identity(graph, version, index, length), what)
            place = (self._material_path(index), secret[:_FILE_KEY_BYTES], length, what)
            payload = read_sealed(*place) if length <= _AT_ONCE else SealedReader(*place)
        except StoreError as error:
            with self._usable():
                # Another thread may have spent it, and removed the file, meanwhile.
                self._refuse_spent(index)
            raise StoreError(f"{error} Mark it as spent at both servers, and take another.") from None
        return Material(index, secret[_FILE_KEY_BYTES:], payload)

    def _state_row(self, version: int) -> bytes:
        row = self._ledger.get(_STATE, _name(version))
        if row is None:
            raise StoreError(f"there is no state version {version}. There are: {self.versions() or 'none'}.")
        return row

    def _check_space(self, length: int) -> None:
        space = os.statvfs(self.directory)
        free, needed = space.f_bavail * space.f_frsize, length + 16 * chunk_count(length)
        if needed + self._reserve > free:
            raise StoreError(
                f"the disk is full: {needed} bytes are to be kept, {free} are free in {self.directory}, of which "
                f"{self._reserve} stay reserved. Nothing of it was kept. Free space, or keep less material ahead."
            )

    def _material_path(self, index: int) -> Path:
        return self.directory / _MATERIAL / _file_name(index)

    def _state_path(self, version: int) -> Path:
        return self.directory / _STATE / _file_name(version)


def _index(value: int) -> int:
    value = int(value)
    if not 0 <= value <= _LARGEST:
        raise StoreError(f"an execution index or state version has 64 bits without a sign; {value} does not fit.")
    return value


def _name(index: int) -> bytes:
    """An index as a row's name: SQLite's own integers have a sign."""
    return index.to_bytes(8, "big")


def _number(name: bytes) -> int:
    return int.from_bytes(name, "big")


def _file_name(index: int) -> str:
    return f"{index:016x}"


def _belongs(row: bytes) -> tuple[str, int]:
    """Graph and state version of a material's row."""
    return row[_MATERIAL_ROW.size :].decode("utf-8"), _number(row[:8])


def _material_identity(graph: str, version: int, index: int, length: int) -> bytes:
    return joined(b"material", graph.encode("utf-8"), _name(version), _name(index), _name(length))


def _state_identity(version: int, length: int, about: bytes) -> bytes:
    return joined(b"state", _name(version), _name(length), about)


def _remove(paths: Iterable[Path]) -> None:
    """Removes files that no longer count. One that cannot be removed now is removed when the store is opened."""
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            _log.warning("cannot remove %s: %s", path, error.strerror)
