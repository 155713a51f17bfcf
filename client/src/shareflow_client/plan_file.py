"""The plan file: manifest and graphs of a private computation in one container, with its fingerprint.

    magic          8 bytes   89 53 46 50 4C 41 4E 0A  ("\\x89SFPLAN\\n")
    format         u32       1
    sections       u32       how many
    length         u64       of the whole file, the hash included
    table                    for each section: u16 length of its name, the name in UTF-8, u64 length of its bytes
    sections                 one after the other, in the order of the table: "manifest", then "graph:NAME" by name
    hash           32 bytes  SHA-256 of everything before it: the fingerprint

Numbers are little-endian. One plan has one form, so one fingerprint. docs/plan-format.md is the specification.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import struct
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from shareflow_client.errors import PlanError
from shareflow_client.manifest import Manifest, parse_manifest

MAGIC = b"\x89SFPLAN\n"
FORMAT = 1
LIMIT = 1 << 30
"""The largest plan that is read, in bytes, if the reader does not say otherwise."""
MANIFEST_LIMIT = 1 << 26
"""The largest manifest in bytes: it is parsed as a whole, and is no place for data."""
SECTION_LIMIT = 1 << 16

_HEADER = struct.Struct("<8sIIQ")
_NAME_LENGTH = struct.Struct("<H")
_LENGTH = struct.Struct("<Q")
_HASH = 32
_ANEW = "Get the file anew from who made the plan, and compare fingerprints with the other parties."


class PlanFile:
    """One plan: ``manifest`` (JSON values), ``contents`` (the same, typed and checked) and ``graphs`` by name.

    Raises:
        PlanError: the manifest breaks a rule of the format, or does not belong to these graphs.
    """

    def __init__(self, manifest: Mapping[str, Any], graphs: Mapping[str, bytes]) -> None:
        self._manifest = canonical_json(manifest)
        if len(self._manifest) > MANIFEST_LIMIT:
            _fail(f"A manifest has at most {MANIFEST_LIMIT} bytes; this one has {len(self._manifest)}.", _SMALLER)
        self.manifest: dict[str, Any] = json.loads(self._manifest)
        self.contents: Manifest = parse_manifest(self.manifest)
        self.graphs: dict[str, bytes] = {name: bytes(graphs[name]) for name in sorted(graphs)}
        if set(self.graphs) != set(self.contents.graphs):
            missing = sorted(set(self.contents.graphs) - set(self.graphs))
            extra = sorted(set(self.graphs) - set(self.contents.graphs))
            _fail(
                "A plan holds just the graphs that its manifest names; "
                f"without a graph: {missing or 'none'}, not in the manifest: {extra or 'none'}.",
                _ANEW,
            )

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the file without its last 32 bytes, in hexadecimal: what parties compare."""
        return self._bytes[-_HASH:].hex()

    def to_bytes(self) -> bytes:
        """The file. The same manifest and graphs give the same bytes."""
        return self._bytes

    @functools.cached_property
    def _bytes(self) -> bytes:
        sections = {"manifest": self._manifest} | {f"graph:{name}": graph for name, graph in self.graphs.items()}
        table = b"".join(
            _NAME_LENGTH.pack(len(name.encode())) + name.encode() + _LENGTH.pack(len(content))
            for name, content in sections.items()
        )
        length = _HEADER.size + len(table) + sum(map(len, sections.values())) + _HASH
        covered = b"".join((_HEADER.pack(MAGIC, FORMAT, len(sections), length), table, *sections.values()))
        return covered + hashlib.sha256(covered).digest()

    @classmethod
    def from_bytes(cls, data: bytes | memoryview, limit: int = LIMIT) -> PlanFile:
        """The plan that these bytes are.

        Raises:
            PlanError: the bytes are no plan, of a newer format, longer than ``limit``, damaged, truncated, followed
                by something, not in the one form that a plan has, or their manifest breaks a rule.
        """
        view = memoryview(data).cast("B")
        count = _header(bytes(view[: _HEADER.size]), len(view), limit)
        if hashlib.sha256(view[:-_HASH]).digest() != bytes(view[-_HASH:]):
            _fail("A plan ends with the SHA-256 of all before it; this one's differs: it is damaged.", _ANEW)
        sections = _sections(view, count)
        manifest = sections.pop("manifest")
        if len(manifest) > MANIFEST_LIMIT:
            _fail(f"A manifest has at most {MANIFEST_LIMIT} bytes; this one has {len(manifest)}.", _ANEW)
        plan = cls(_json(bytes(manifest)), {name.removeprefix("graph:"): bytes(g) for name, g in sections.items()})
        if plan._bytes != view:
            _fail("A plan has one form only: canonical JSON, sections in order; this one is written otherwise.", _ANEW)
        return plan

    def write(self, path: str | os.PathLike[str]) -> None:
        """Writes the file whole or not at all: beside it first, then renamed.

        Raises:
            PlanError: it cannot be written there.
        """
        target = Path(path)
        try:
            # A folder of its own, in the same file system: a rename there is one step.
            with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
                part = Path(folder) / "part"
                with open(part, "xb") as file:
                    file.write(self._bytes)
                    file.flush()
                    os.fsync(file.fileno())
                part.replace(target)
        except OSError as error:
            raise PlanError(
                f"The plan cannot be written to {target}: {error.strerror or error}. "
                "Give a folder that exists, can be written and has room."
            ) from None


def read_plan_file(path: str | os.PathLike[str], limit: int = LIMIT) -> PlanFile:
    """The plan in a file of at most ``limit`` bytes; nothing is read of a larger one.

    Raises:
        PlanError: as :meth:`PlanFile.from_bytes`, or the file cannot be read. The text begins with the path.
    """
    try:
        if not Path(path).is_file():
            _fail("A plan is a file; there is none here.", "Give the path of a plan made by `shareflow compile`.")
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(_HEADER.size)
            _header(start, size, limit)
            data = start + file.read(size - len(start))
        return PlanFile.from_bytes(data, limit)
    except OSError as error:
        raise PlanError(
            f"{path}: the plan cannot be read: {error.strerror or error}. Check the path and who may read it."
        ) from None
    except PlanError as error:
        raise PlanError(f"{path}: {error}") from None


def canonical_json(value: Any) -> bytes:
    """JSON in the one form that a plan uses: ASCII, sorted keys, no spaces.

    Raises:
        PlanError: the value is not JSON: an object of another type, a key that is no text, NaN or infinity.
    """
    try:
        _check_keys(value)
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise PlanError(
            f"A manifest is made of JSON values with text as keys: {error}. Give Python's own dict, list, str, int, "
            "float, bool and None."
        ) from None
    return text.encode("ascii")


_SMALLER = "Leave the weights out of the graph: they are states, which a plan only describes."


def _check_keys(value: Any) -> None:
    # json.dumps writes 1 and "1" as the same key.
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"the key {key!r} is no text")
            _check_keys(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _check_keys(item)


def _header(start: bytes, size: int, limit: int) -> int:
    """How many sections there are, of a file of ``size`` bytes that begins so."""
    if start[: len(MAGIC)] != MAGIC[: len(start)] or not start:
        _fail("This is not a plan: it does not begin like one.", "Give a file made by `shareflow compile`.")
    if len(start) < _HEADER.size:
        _fail(f"A plan has at least {_HEADER.size + _HASH} bytes; this one has {size}: it is truncated.", _ANEW)
    _, version, count, length = _HEADER.unpack(start)
    if version > FORMAT:
        _fail(
            f"This plan has format {version}; this version of shareflow reads format {FORMAT} and older.",
            "Update shareflow, or have the plan compiled with the older version.",
        )
    if version < 1:
        _fail(f"A plan's format is 1 or more; this one says {version}.", _ANEW)
    if size > limit or length > limit:
        _fail(
            f"A plan has at most {limit} bytes here; this one has {size} and says {length}.",
            "Make the plan smaller, or raise the limit if you trust its maker.",
        )
    if size < length:
        _fail(f"This plan is {length} bytes long; {size} are here: it is truncated.", _ANEW)
    if size > length:
        _fail(f"This plan is {length} bytes long; {size} are here: something follows it.", _ANEW)
    if not 1 <= count <= SECTION_LIMIT:
        _fail(f"A plan has 1 to {SECTION_LIMIT} sections; this one says {count}.", _ANEW)
    if length < _HEADER.size + _HASH:
        _fail(f"A plan has at least {_HEADER.size + _HASH} bytes; this one has {length}.", _ANEW)
    return count


def _sections(view: memoryview, count: int) -> dict[str, memoryview]:
    """The sections by name. Every length is checked against the file's before anything is taken."""
    end = len(view) - _HASH
    position = _HEADER.size
    lengths: dict[str, int] = {}

    def take(size: int) -> memoryview:
        nonlocal position
        if position + size > end:
            _fail(f"A plan's table lies within it; this one's {count} sections do not.", _ANEW)
        position += size
        return view[position - size : position]

    for _ in range(count):
        (name_length,) = _NAME_LENGTH.unpack(take(_NAME_LENGTH.size))
        try:
            name = bytes(take(name_length)).decode("utf-8")
        except UnicodeDecodeError:
            _fail("The names of a plan's sections are UTF-8; one is not.", _ANEW)
        (length,) = _LENGTH.unpack(take(_LENGTH.size))
        if name in lengths or (name != "manifest" and not name.startswith("graph:")):
            _fail(f"A plan's sections are 'manifest' and 'graph:NAME', each once; this one has {name[:80]!r}.", _ANEW)
        lengths[name] = length
    if "manifest" not in lengths:
        _fail("A plan has a section 'manifest'; this one has none.", _ANEW)
    if sum(lengths.values()) != end - position:
        _fail(f"A plan's sections fill it; of {end - position} bytes these declare {sum(lengths.values())}.", _ANEW)
    return {name: take(length) for name, length in lengths.items()}


def _json(data: bytes) -> Any:
    try:
        return json.loads(data.decode("ascii"))
    except (ValueError, RecursionError) as error:
        raise PlanError(f"A plan's manifest is ASCII JSON; this one is not: {error}. {_ANEW}") from None


def _fail(rule: str, way_out: str) -> NoReturn:
    raise PlanError(f"{rule} {way_out}")
