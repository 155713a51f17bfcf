"""Configuration: TOML files read into dataclasses that say what each key must be.

A table is a frozen dataclass, and each field says its kind::

    @dataclass(frozen=True, kw_only=True)
    class Listen:
        address: Address = address()
        keepalive: float = seconds(default=10, low=1, high=3600)

    @dataclass(frozen=True, kw_only=True)
    class Server:
        party: str = party()
        storage_key: Path = secret_file()
        listen: Listen = table(Listen)
        peers: tuple[Peer, ...] = tables(Peer, distinct="name")

    server = load(Server, "server0.toml")

A field without ``default`` must be given. Defaults are written as in TOML, and checked like what is given. Paths are
relative to the file. What depends on several keys is checked in ``__post_init__``, which raises :class:`Unfit`.
Every error is a ConfigError that begins with file, table and key: ``server0.toml: [listen] address: ...``.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
import stat
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn, TypeVar

from shareflow_client.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # the same module, for Python 3.10

SIZE_LIMIT = 1 << 20
"""The largest configuration file in bytes."""

T = TypeVar("T")
_REQUIRED: Any = object()
_PARTY = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,62}")
_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252})")
_SIZE = re.compile(r"([0-9]{1,15}) ?(B|KiB|MiB|GiB|TiB)")
_FINGERPRINT = re.compile(r"(?:[0-9a-fA-F]{2}:?){31}[0-9a-fA-F]{2}")
_UNITS = MappingProxyType({"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40})


class Unfit(ValueError):  # noqa: N818 - it becomes a ConfigError, where the file is known
    """Raised by the ``__post_init__`` of a table whose keys do not go together: the key, and what is wrong with it."""

    def __init__(self, key: str, text: str) -> None:
        super().__init__(f"{key}: {text}")
        self.key, self.text = key, text


@dataclass(frozen=True)
class Address:
    """A host, by name or number, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def load(kind: type[T], path: str | os.PathLike[str]) -> T:
    """The configuration in a TOML file, as the dataclass ``kind``.

    Raises:
        ConfigError: the file cannot be read, is no TOML, or a key is unknown, missing or not what it must be.
    """
    return read(kind, load_toml(path), path)


def read(kind: type[T], values: Mapping[str, Any], path: str | os.PathLike[str]) -> T:
    """The same of values that were read already. ``path`` is the file of which errors speak, and its folder is the
    one that paths are relative to."""
    return _table(kind, values, _Where(Path(path)))


def load_toml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The tables of a TOML file of at most 1 MiB.

    Raises:
        ConfigError: there is no such file, it cannot be read, is too large or is no TOML.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(SIZE_LIMIT + 1)
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read: {error.strerror or error}. Give the path of a TOML file that you may read."
        ) from None
    if len(data) > SIZE_LIMIT:
        raise ConfigError(f"{path}: has more than the {SIZE_LIMIT} bytes of a configuration. Check the path.")
    try:
        return tomllib.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: TOML is UTF-8; byte {error.start} is not. Save the file as UTF-8.") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: is not TOML: {error}. Correct it there; see https://toml.io.") from None


# ---- kinds of values ---------------------------------------------------------------------------------------


def text(default: Any = _REQUIRED, *, pattern: str = ".+", form: str = "text that is not empty") -> Any:
    """Text that matches ``pattern`` as a whole; ``form`` says in words what that is."""
    compiled = re.compile(pattern, re.DOTALL)

    def parse(value: Any, where: _Where) -> str:
        if not isinstance(value, str) or not compiled.fullmatch(value):
            where.must_be(form, value)
        return value

    return _field(parse, default)


def choice(*allowed: str, default: Any = _REQUIRED) -> Any:
    """One of these texts."""

    def parse(value: Any, where: _Where) -> str:
        if value not in allowed or not isinstance(value, str):
            near = _nearest(value, allowed)
            where.must_be(f"one of {', '.join(map(repr, allowed))}", value, f" Did you mean {near!r}?" if near else "")
        return value

    return _field(parse, default)


def party(default: Any = _REQUIRED) -> Any:
    """A party's name, as plans write it: 'model-owner' is read as 'model_owner'."""

    def parse(value: Any, where: _Where) -> str:
        if not isinstance(value, str) or not _PARTY.fullmatch(value):
            where.must_be("a party's name: letters, digits, '-' and '_', a letter first, at most 63", value)
        return value.replace("-", "_")

    return _field(parse, default)


def switch(default: Any = _REQUIRED) -> Any:
    """true or false."""

    def parse(value: Any, where: _Where) -> bool:
        if not isinstance(value, bool):
            where.must_be("true or false, without quotes", value)
        return value

    return _field(parse, default)


def whole(default: Any = _REQUIRED, *, low: int, high: int) -> Any:
    """A whole number from ``low`` to ``high``."""

    def parse(value: Any, where: _Where) -> int:
        if type(value) is not int or not low <= value <= high:
            where.must_be(f"a whole number from {low} to {high}", value)
        return value

    return _field(parse, default)


def number(default: Any = _REQUIRED, *, low: float, high: float, unit: str = "") -> Any:
    """A number from ``low`` to ``high``, read as a float."""

    def parse(value: Any, where: _Where) -> float:
        if type(value) not in (int, float) or not low <= value <= high:
            where.must_be(f"a number {f'of {unit} ' if unit else ''}from {low:g} to {high:g}", value)
        return float(value)

    return _field(parse, default)


def seconds(default: Any = _REQUIRED, *, low: float = 0.0, high: float = 86400.0 * 366) -> Any:
    """A duration in seconds: 0.005 is five milliseconds."""
    return number(default, low=low, high=high, unit="seconds")


def size(default: Any = _REQUIRED, *, low: int = 0, high: int = 1 << 50) -> Any:
    """A number of bytes: 65536, or '64 KiB'; units are B, KiB, MiB, GiB and TiB."""

    def parse(value: Any, where: _Where) -> int:
        match = _SIZE.fullmatch(value) if isinstance(value, str) else None
        count = int(match[1]) * _UNITS[match[2]] if match else value
        if type(count) is not int or not low <= count <= high:
            where.must_be(f"a size from {low} to {high} bytes, written like 65536 or '64 KiB'", value)
        return count

    return _field(parse, default)


def address(default: Any = _REQUIRED, *, any_port: bool = False) -> Any:
    """'host:port', read as an :class:`Address`; IPv6 as '[::1]:7000'. Port 0, any that is free, if ``any_port``."""
    lowest = 0 if any_port else 1

    def parse(value: Any, where: _Where) -> Address:
        host, colon, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
        bracketed = re.fullmatch(r"\[([0-9a-fA-F:.]{2,45})\]", host)
        if not colon or not (bracketed or _HOST.fullmatch(host)):
            where.must_be("'host:port', like 'server0.example.org:7000' or '[::1]:7000'", value)
        if not re.fullmatch("[0-9]{1,5}", port) or not lowest <= int(port) <= 65535:
            where.must_be(f"'host:port' with a port from {lowest} to 65535", value)
        return Address(bracketed[1] if bracketed else host, int(port))

    return _field(parse, default)


def fingerprint(default: Any = _REQUIRED) -> Any:
    """A SHA-256 in hexadecimal, 64 digits, with or without a colon between bytes; read without, in small letters."""

    def parse(value: Any, where: _Where) -> str:
        if not isinstance(value, str) or not _FINGERPRINT.fullmatch(value):
            where.must_be("a fingerprint: SHA-256 in 64 hexadecimal digits", value)
        return value.replace(":", "").lower()

    return _field(parse, default)


def path(default: Any = _REQUIRED) -> Any:
    """A path, relative to the configuration file, of something that need not exist yet."""
    return _field(_path, default)


def file(default: Any = _REQUIRED) -> Any:
    """The path of a file that exists and can be read."""

    def parse(value: Any, where: _Where) -> Path:
        found = _path(value, where)
        _status(found, where)
        return found

    return _field(parse, default)


def secret_file(default: Any = _REQUIRED) -> Any:
    """The path of a file that its owner alone may read or write: mode 0600 or 0400."""

    def parse(value: Any, where: _Where) -> Path:
        found = _path(value, where)
        mode = stat.S_IMODE(_status(found, where).st_mode)
        if mode & 0o177:
            where.fail(f"is a secret that only its owner may read; {found} has mode {mode:04o}. Run: chmod 600 {found}")
        return found

    return _field(parse, default)


# ---- lists and tables --------------------------------------------------------------------------------------


def many(kind: Any, default: Any = _REQUIRED, *, at_least: int = 0) -> Any:
    """A list of values of one kind, ``many(text())``, none twice, read as a tuple."""
    inner = kind.metadata["parse"]

    def parse(value: Any, where: _Where) -> tuple[Any, ...]:
        if not isinstance(value, (list, tuple)):
            where.must_be("a list, in square brackets", value)
        found = tuple(inner(item, where.number(position)) for position, item in enumerate(value, 1))
        for position, item in enumerate(found, 1):
            if item in found[: position - 1]:
                where.number(position).fail("is in the list twice. Take it out")
        if len(found) < at_least:
            where.fail(f"must have {at_least} items or more; it has {len(found)}. Add what is missing")
        return found

    return _field(parse, default)


def table(kind: type, *, optional: bool = False) -> Any:
    """A table ``[name]``, read as the dataclass ``kind``. Where it is absent it counts as empty, or gives None if
    ``optional``."""

    def parse(value: Any, where: _Where) -> Any:
        return _table(kind, value, where.table())

    return _field(parse, None if optional else {})


def tables(kind: type, *, at_least: int = 0, distinct: str = "") -> Any:
    """An array of tables ``[[name]]``, read as a tuple of the dataclass ``kind``. No two have the same value of the
    key ``distinct``."""

    def parse(value: Any, where: _Where) -> tuple[Any, ...]:
        if not isinstance(value, (list, tuple)):
            where.must_be(f"tables, each under [[{where.dotted}]]", value)
        found: list[Any] = []
        for position, item in enumerate(value, 1):
            inner = where.item(position)
            found.append(_table(kind, item, inner))
            named = [getattr(other, distinct) for other in found] if distinct else []
            if named and named[-1] in named[:-1]:
                inner.key(distinct).fail(f"must be another one in each table; {named[-1]} was there before. Rename one")
        if len(found) < at_least:
            where.fail(f"must be {at_least} tables or more; there are {len(found)}. Add [[{where.dotted}]]")
        return tuple(found)

    return _field(parse, ())


def named_tables(kind: type, *, pattern: str = r"[A-Za-z0-9_.-]{1,100}") -> Any:
    """Tables under names of the writer's choice, ``[clients.alice]``, read as a mapping from the name to ``kind``."""
    compiled = re.compile(pattern)

    def parse(value: Any, where: _Where) -> Mapping[str, Any]:
        if not isinstance(value, Mapping):
            where.must_be(f"tables, each under [{where.dotted}.NAME]", value)
        for name in value:
            if not compiled.fullmatch(name):
                where.must_be(f"tables with names that match {compiled.pattern}", name)
        here = where.table()
        return MappingProxyType({name: _table(kind, item, here.key(name).table()) for name, item in value.items()})

    return _field(parse, {})


def named_values(kind: Any, *, pattern: str = r"[\x21-\x7e]{1,200}") -> Any:
    """A table whose keys are names of the writer's choice, ``named_values(whole(low=0, high=9))``, read as a mapping
    from the name to a value of that kind. Where it is absent it counts as empty."""
    inner, compiled = kind.metadata["parse"], re.compile(pattern)

    def parse(value: Any, where: _Where) -> Mapping[str, Any]:
        if not isinstance(value, Mapping):
            where.must_be("a table", value)
        for name in value:
            if not compiled.fullmatch(name):
                where.must_be(f"a table with names that match {compiled.pattern}", name)
        here = where.table()
        return MappingProxyType({name: inner(item, here.key(name)) for name, item in value.items()})

    return _field(parse, {})


# ---- reading -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Where:
    """A place in a file: ``shown`` is how the table is printed, ``dotted`` the key with its tables."""

    file: Path
    shown: str = ""
    dotted: str = ""
    arrays: str = ""
    name: str = ""

    def key(self, name: str) -> _Where:
        """A key of this table."""
        return dataclasses.replace(self, dotted=f"{self.dotted}.{name}".removeprefix("."), name=name)

    def table(self) -> _Where:
        """This key as a table."""
        return dataclasses.replace(self, shown=f"{self.arrays}[{self.dotted}] ", name="")

    def item(self, position: int) -> _Where:
        """One table of this key's array."""
        shown = f"{self.arrays}[[{self.dotted}]] #{position} "
        return dataclasses.replace(self, shown=shown, arrays=shown, name="")

    def number(self, position: int) -> _Where:
        """One item of this key's list."""
        return dataclasses.replace(self, name=f"{self.name}[{position}]")

    def fail(self, rule: str) -> NoReturn:
        place = f"{self.shown}{self.name}".strip()
        raise ConfigError(f"{self.file}: {f'{place}: ' if place else ''}{rule}.")

    def must_be(self, rule: str, value: Any, hint: str = "") -> NoReturn:
        given = repr(value)
        given = given if len(given) <= 60 else f"{given[:57]}..."
        self.fail(f"must be {rule}, not {given}.{hint or ' Correct it there'}".removesuffix("."))


def _field(parse: Callable[[Any, _Where], Any], default: Any) -> Any:
    """A dataclass field that knows how to read itself. A default is read like what is given, None stays None."""
    metadata: dict[str, Any] = {"parse": parse}
    if default is _REQUIRED:
        return dataclasses.field(metadata=metadata)

    def absent(where: _Where) -> Any:
        return None if default is None else parse(default, where)

    metadata["absent"] = absent
    return dataclasses.field(default_factory=lambda: absent(_Where(Path("default"))), metadata=metadata)


def _table(kind: type[T], values: Any, where: _Where) -> T:
    if not isinstance(values, Mapping):
        where.must_be("a table", values)
    # A field without a kind is not a key: the program sets it.
    fields = {f.name: f for f in dataclasses.fields(kind) if "parse" in f.metadata}  # type: ignore[arg-type]
    for key in values:
        if key not in fields:
            near = _nearest(key, fields)
            known = f"Did you mean {near!r}?" if near else f"Known here: {', '.join(fields)}."
            where.key(str(key)[:60]).fail(f"is no key that is known here. {known}".removesuffix("."))
    found = {}
    for key, field in fields.items():
        here = where.key(key)
        if key in values:
            found[key] = field.metadata["parse"](values[key], here)
        elif "absent" in field.metadata:
            found[key] = field.metadata["absent"](here)
        else:
            here.fail("is missing. Add it")
    try:
        return kind(**found)
    except Unfit as error:
        where.key(error.key).fail(error.text.removesuffix("."))


def _path(value: Any, where: _Where) -> Path:
    if not isinstance(value, str) or not value or len(value) > 4096 or not value.isprintable():
        # Perhaps the secret itself was written here: it is not printed.
        where.fail("must be the path of a file, as text of one line. Correct it there")
    return Path(os.path.abspath(where.file.parent / Path(value).expanduser()))


def _status(found: Path, where: _Where) -> os.stat_result:
    try:
        status = found.stat()
        if not stat.S_ISREG(status.st_mode):
            where.fail(f"must be a file; {found} is none. Correct the path")
        with open(found, "rb"):
            return status
    except OSError as error:
        where.fail(f"must be a file that can be read; {found}: {error.strerror or error}. Correct the path")


def _nearest(given: Any, known: Any) -> str | None:
    close = difflib.get_close_matches(given.replace("-", "_"), list(known), 1) if isinstance(given, str) else []
    return close[0] if close else None
