"""The store's rows: a small map that is durable, changes in whole transactions, and shows tampering.

SQLite holds the rows; all of them are in memory too, read and verified once at the start, so that what is changed
on the disk later cannot change what this process knows.

    tag of the head = HMAC(head key, format, store id, plan, party, transaction, number of rows,
                           sum over rows of HMAC(row key, row) mod 2^256)

The sum is a multiset hash (Clarke et al. 2003, MSet-Add-Hash); it is never written itself, only its tag, so nothing
about the row tags is learned from the disk. A row that is edited, removed, added or put back from earlier makes the
head's tag wrong. A whole older copy has a right tag: that is what the witness is for.

Journal: WAL with synchronous=FULL. A commit is one fsync of the log, against three or more with a rollback journal.
"""

from __future__ import annotations

import hmac
import logging
import os
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path

from shareflow.runtime.store.keys import ID_BYTES, StoreKeys, fresh_key, joined
from shareflow.runtime.store.sealed_file import sync
from shareflow.runtime.store.witness import Witness
from shareflow_client.errors import StoreError

FORMAT = 1
_log = logging.getLogger(__name__)

_SCHEMA = (
    "CREATE TABLE head (one INTEGER PRIMARY KEY CHECK (one = 1), format INTEGER NOT NULL, store BLOB NOT NULL, "
    "plan TEXT NOT NULL, party TEXT NOT NULL, key_check BLOB NOT NULL, steps INTEGER NOT NULL, tag BLOB NOT NULL)",
    "CREATE TABLE entry (kind TEXT NOT NULL, name BLOB NOT NULL, value BLOB NOT NULL, PRIMARY KEY (kind, name)) "
    "WITHOUT ROWID",
)
# So many pages (of 4 KiB) of the log at most hold rows that are erased already.
_LOG_PAGES = 256
_WITNESSED = ("witnessed", b"")

Changes = Mapping[tuple[str, bytes], "bytes | None"]


class Ledger:
    """The rows of one store, by kind and name. Not thread-safe: its store has the lock."""

    def __init__(
        self, path: Path, storage_key: bytes, plan_fingerprint: str, party: str, *, create: bool, witness: Path | None
    ) -> None:
        self._path, self._plan, self._party = path, plan_fingerprint, party
        self._rows: dict[str, dict[bytes, bytes]] = {}
        self._sum = self._count = self._steps = 0
        self._broken = ""
        self._witness: Witness | None = None
        if not path.exists():
            if not create:
                raise StoreError(no_store(path.parent))
            # SQLite gives its log the same permissions.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=16)
        try:
            self._open(storage_key, create)
            self._meet(witness)
        except BaseException as error:
            self._close_files()
            if isinstance(error, sqlite3.Error):
                raise StoreError(_why(path, error)) from None
            raise

    @property
    def steps(self) -> int:
        """Number of transactions so far."""
        return self._steps

    @property
    def keys(self) -> StoreKeys:
        return self._keys

    @property
    def broken(self) -> bool:
        """Whether it stopped after a failure, so that only the disk knows which changes it holds."""
        return bool(self._broken)

    def rows(self, kind: str) -> Mapping[bytes, bytes]:
        """All rows of this kind. Not a copy."""
        return self._rows.get(kind, {})

    def get(self, kind: str, name: bytes = b"") -> bytes | None:
        return self.rows(kind).get(name)

    def commit(self, changes: Changes, then: Callable[[], None] | None = None) -> None:
        """Sets these rows, removes those that are None: all or nothing, and durable when it returns.

        ``then`` brings what else is in memory up to date; it is called once the disk has the change.

        StoreError where the disk is full: then nothing changed. After any other failure it is not known what the
        disk holds, and every later call is refused until the store is opened again.
        """
        if self._broken:
            raise StoreError(f"the store stopped after an error ({self._broken}). Check the disk, then reopen it.")
        total, count = self._sum, self._count
        for (kind, name), value in changes.items():
            old = self.get(kind, name)
            if old is not None:
                total, count = total - self._tag(kind, name, old), count - 1
            if value is not None:
                total, count = total + self._tag(kind, name, value), count + 1
        total %= 1 << 256
        gone = [row for row, value in changes.items() if value is None]
        kept = [(*row, value) for row, value in changes.items() if value is not None]
        try:
            self._database.execute("BEGIN IMMEDIATE")
            self._database.executemany("DELETE FROM entry WHERE kind = ? AND name = ?", gone)
            self._database.executemany("INSERT OR REPLACE INTO entry VALUES (?, ?, ?)", kept)
            self._database.execute(
                "UPDATE head SET steps = ?, tag = ?", (self._steps + 1, self._head(self._steps + 1, count, total))
            )
            self._database.execute("COMMIT")
            self._sum, self._count, self._steps = total, count, self._steps + 1
            for (kind, name), value in changes.items():
                if value is None:
                    self._rows.get(kind, {}).pop(name, None)
                else:
                    self._rows.setdefault(kind, {})[name] = value
            if then is not None:
                then()
            if self._witness is not None:
                self._witness.note(self._steps)
        except BaseException as error:
            if isinstance(error, sqlite3.OperationalError) and "is full" in str(error) and self._undo():
                raise StoreError(
                    f"the disk is full: the store in {self._path.parent} cannot record a change, and nothing changed. "
                    "Free space and try again."
                ) from None
            # An interrupt is as bad as a failing disk: memory and disk may differ.
            self._broken = f"{type(error).__name__}: {error}"
            if isinstance(error, (sqlite3.Error, OSError)):
                raise StoreError(
                    f"the store's disk failed while recording a change: {error}. Nothing that depended on it was given "
                    "out. Check the disk, then reopen the store."
                ) from None
            raise

    def close(self) -> None:
        self._close_files()

    # --- opening --------------------------------------------------------------------------------------------------

    def _open(self, storage_key: bytes, create: bool) -> None:
        # A file that someone else wrote may hold triggers and views; and no index file in shared memory is needed.
        for setting in ("trusted_schema=OFF", "cell_size_check=ON", "locking_mode=EXCLUSIVE", "secure_delete=ON"):
            self._database.execute(f"PRAGMA {setting}")
        (journal,) = self._database.execute("PRAGMA journal_mode=WAL").fetchone()
        if journal != "wal":
            raise StoreError(f"a store needs a disk that SQLite's log works on; {self._path.parent} is on none.")
        self._database.execute("PRAGMA synchronous=FULL")
        self._database.execute(f"PRAGMA wal_autocheckpoint={_LOG_PAGES}")
        schema = {sql for (sql,) in self._database.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")}
        if not schema:
            if not create:
                raise StoreError(no_store(self._path.parent))
            self._create(storage_key)
        elif schema != set(_SCHEMA):
            raise StoreError(f"{self._path} is not a store of shareflow, or its tables were changed. {_REPLACE}")
        self._load(storage_key)
        sync([self._path.parent])

    def _create(self, storage_key: bytes) -> None:
        self._id = fresh_key()[:ID_BYTES]
        self._keys = StoreKeys(storage_key, self._id)
        self._database.execute("BEGIN IMMEDIATE")
        for table in _SCHEMA:
            self._database.execute(table)
        head = (FORMAT, self._id, self._plan, self._party, self._keys.check, 0, self._head(0, 0, 0))
        self._database.execute("INSERT INTO head VALUES (1, ?, ?, ?, ?, ?, ?, ?)", head)
        self._database.execute("COMMIT")
        _log.info("made a new store for %s in %s", self._party, self._path.parent)

    def _load(self, storage_key: bytes) -> None:
        where = f"the store in {self._path.parent}"
        row = self._database.execute("SELECT format, store, plan, party, key_check, steps, tag FROM head").fetchone()
        if row is None or tuple(map(type, row)) != (int, bytes, str, str, bytes, int, bytes):
            raise StoreError(f"{where} has no valid head. {_REPLACE}")
        version, self._id, plan, party, check, self._steps, tag = row
        if version != FORMAT:
            raise StoreError(f"{where} has format {version}, this shareflow reads {FORMAT}. Use the one that made it.")
        if party != self._party:
            raise StoreError(
                f"{where} belongs to {party!r}, not to {self._party!r}. Give each party its own directory."
            )
        if plan != self._plan:
            raise StoreError(
                f"{where} belongs to the plan {plan[:16]}..., not to {self._plan[:16]}... "
                "Give each plan its own directory."
            )
        self._keys = StoreKeys(storage_key, self._id)
        if not hmac.compare_digest(check, self._keys.check):
            raise StoreError(f"the storage key is not the one that {where} was made with. Give that key file.")
        for kind, name, value in self._database.execute("SELECT kind, name, value FROM entry"):
            if (type(kind), type(name), type(value)) != (str, bytes, bytes):
                raise StoreError(f"{where} holds a row that it never wrote. {_REPLACE}")
            self._rows.setdefault(kind, {})[name] = value
            self._sum += self._tag(kind, name, value)
            self._count += 1
        self._sum %= 1 << 256
        if not 0 <= self._steps < 1 << 63 or not hmac.compare_digest(
            tag, self._head(self._steps, self._count, self._sum)
        ):
            raise StoreError(f"the rows of {where} were changed by someone else, or are damaged. {_REPLACE}")

    def _meet(self, path: Path | None) -> None:
        """Compares with the witness: the store must not be older than what it saw."""
        witnessed = self.get(*_WITNESSED) is not None
        if path is None:
            if witnessed:
                _log.warning("the store in %s had a witness and is opened without", self._path.parent)
                self.commit({_WITNESSED: None})
            return
        if witnessed and not path.exists():
            raise StoreError(
                f"the witness {path} of the store in {self._path.parent} is gone. Put it back; or, if you know why it "
                "is gone, open the store once without a witness."
            )
        try:
            witness = Witness(path, self.keys, self._id)
            try:
                last = witness.last()
                if last > self._steps:
                    raise StoreError(
                        f"the store in {self._path.parent} is an older copy: it has seen {self._steps} transactions, "
                        f"its witness {last}. Material that was used would be used again. {_REPLACE}"
                    )
                # It may be behind: the process ended between a commit and its note.
                witness.note(self._steps)
                self._witness = witness
                if not witnessed:
                    self.commit({_WITNESSED: b""})
            except BaseException:
                self._witness = None
                witness.close()
                raise
        except OSError as error:
            raise StoreError(f"the witness {path} cannot be used: {error.strerror}.") from None

    def _close_files(self) -> None:
        self._database.close()
        if self._witness is not None:
            self._witness.close()
            self._witness = None

    def _undo(self) -> bool:
        """Takes back a transaction that the disk had no room for."""
        try:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            return not self._database.in_transaction
        except sqlite3.Error:
            return False

    def _tag(self, kind: str, name: bytes, value: bytes) -> int:
        return self._keys.row_tag(joined(kind.encode("utf-8"), name, value))

    def _head(self, steps: int, count: int, total: int) -> bytes:
        numbers = (number.to_bytes(8, "little") for number in (FORMAT, steps, count))
        texts = (self._plan.encode("utf-8"), self._party.encode("utf-8"))
        return self._keys.head_tag(joined(b"head", *numbers, total.to_bytes(32, "little"), self._id, *texts))


def no_store(directory: Path) -> str:
    """The text where a new store is not wanted, or would take the place of one that lost its ledger."""
    return (
        f"there is no store in {directory}, or its ledger is gone. Give the store's directory; a new store is made in "
        "an empty one."
    )


def _why(path: Path, error: sqlite3.Error) -> str:
    """The text for an error of SQLite while a store is opened: the disk's fault, or the file's."""
    if "is full" in str(error):
        return f"the disk is full: the store in {path.parent} cannot be opened. Free space and try again."
    if isinstance(error, sqlite3.OperationalError):
        return f"{path} cannot be opened: {error}. Check the disk. Where the file itself was changed: {_REPLACE}"
    return f"{path} cannot be read as a store: {error}. {_REPLACE}"


_REPLACE = (
    "Find out who changed it; then move the directory away, start with an empty one, and have what it kept sent anew: "
    "models loaded, material dealt."
)
