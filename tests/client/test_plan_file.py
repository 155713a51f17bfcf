"""The container of a plan: read and written as the same bytes, and every damage refused with what to do about it."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import tracemalloc

import plans
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shareflow_client import plan_file
from shareflow_client.errors import PlanError
from shareflow_client.plan_file import PlanFile, canonical_json, read_plan_file

PLAN = PlanFile(plans.manifest(), plans.graphs())
BYTES = PLAN.to_bytes()
HEADER = struct.Struct("<8sIIQ")


def sealed(covered: bytes) -> bytes:
    return covered + hashlib.sha256(covered).digest()


def container(sections: list[tuple[bytes, bytes]], count: int | None = None, lengths=None) -> bytes:
    """A container of any sections, its hash right."""
    declared = lengths or [len(content) for _, content in sections]
    table = b"".join(
        struct.pack("<H", len(name)) + name + struct.pack("<Q", length)
        for (name, _), length in zip(sections, declared, strict=True)
    )
    body = table + b"".join(content for _, content in sections)
    return sealed(HEADER.pack(plan_file.MAGIC, 1, count or len(sections), HEADER.size + len(body) + 32) + body)


def refused(data: bytes, **options) -> str:
    with pytest.raises(PlanError) as error:
        PlanFile.from_bytes(data, **options)
    return str(error.value)


def sections() -> list[tuple[bytes, bytes]]:
    return [
        (b"manifest", canonical_json(plans.manifest())),
        *((f"graph:{name}".encode(), graph) for name, graph in sorted(plans.graphs().items())),
    ]


def test_what_is_written_is_read():
    read = PlanFile.from_bytes(BYTES)
    assert read.manifest == plans.manifest()
    assert read.graphs == plans.graphs()
    assert read.contents == PLAN.contents
    assert read.to_bytes() == BYTES
    assert read.fingerprint == PLAN.fingerprint == hashlib.sha256(BYTES[:-32]).hexdigest() == BYTES[-32:].hex()


def test_the_bytes_are_those_of_the_specification():
    assert container(sections()) == BYTES
    assert BYTES.startswith(b"\x89SFPLAN\n\x01\x00\x00\x00\x04\x00\x00\x00")


def test_the_fingerprint_is_the_same_in_every_version():
    assert PLAN.fingerprint == "cfdd4a0e806f704caf90551a0331dd29ad25a2bab8fa3c7cef06f3510c67326b"


def test_the_order_of_keys_and_graphs_does_not_matter():
    manifest = json.loads(json.dumps(plans.manifest()))
    shuffled = {key: manifest[key] for key in reversed(manifest)}
    graphs = {name: plans.graphs()[name] for name in reversed(plans.graphs())}
    assert PlanFile(shuffled, graphs).to_bytes() == BYTES


def test_every_change_changes_the_fingerprint():
    other = plans.manifest()
    other["protocol"]["settings"] += " "
    graphs = plans.graphs() | {"load": b"\0"}
    assert (
        len({PLAN.fingerprint, PlanFile(other, plans.graphs()).fingerprint, PlanFile(other, graphs).fingerprint}) == 3
    )


def test_the_manifest_is_the_plans_own():
    manifest = plans.manifest()
    plan = PlanFile(manifest, plans.graphs())
    manifest["parties"].append("stranger")
    assert plan.manifest == plans.manifest()


@given(st.integers(0, len(BYTES) - 1), st.integers(1, 255))
def test_any_changed_byte_is_refused(position, difference):
    damaged = bytearray(BYTES)
    damaged[position] ^= difference
    refused(bytes(damaged))


@given(st.integers(0, len(BYTES) - 1))
def test_any_truncation_is_refused(length):
    text = refused(BYTES[:length])
    assert "truncated" in text or length == 0


@given(st.binary(min_size=1, max_size=40))
def test_anything_that_follows_is_refused(more):
    assert "something follows it" in refused(BYTES + more)


@given(st.binary(max_size=200))
def test_what_is_no_plan_is_refused(data):
    refused(data)
    refused(plan_file.MAGIC + data)


@given(st.dictionaries(st.sampled_from(["predict@1", "predict@8", "load"]), st.binary(max_size=50), min_size=3))
def test_any_graphs_are_kept(graphs):
    assert PlanFile.from_bytes(PlanFile(plans.manifest(), graphs).to_bytes()).graphs == graphs


def test_a_newer_format_says_so():
    newer = bytearray(BYTES)
    newer[8:12] = struct.pack("<I", 2)
    text = refused(sealed(bytes(newer[:-32])))
    assert text.startswith("This plan has format 2; this version of shareflow reads format 1")
    assert "Update shareflow" in text
    assert "format is 1 or more" in refused(bytes(newer[:8]) + bytes(4) + bytes(newer[12:]))


def test_the_limit():
    assert PlanFile.from_bytes(BYTES, limit=len(BYTES)).fingerprint == PLAN.fingerprint
    text = refused(BYTES, limit=len(BYTES) - 1)
    assert text.startswith(f"A plan has at most {len(BYTES) - 1} bytes here; this one has {len(BYTES)}")
    assert "raise the limit" in text


def test_a_declared_length_takes_no_memory():
    for length in (1 << 29, 1 << 62):
        forged = sealed(HEADER.pack(plan_file.MAGIC, 1, 1, length) + b"\x08\x00manifest" + struct.pack("<Q", length))
        tracemalloc.start()
        refused(forged)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (container(sections()[1:]), "has a section 'manifest'; this one has none"),
        (container(sections()[:-1]), "without a graph: ['predict@8'], not in the manifest: none"),
        (container([*sections(), (b"graph:other", b"")]), "not in the manifest: ['other']"),
        (container([*sections(), (b"graph:load", b"")]), "each once; this one has 'graph:load'"),
        (container([*sections(), (b"weights", b"1")]), "this one has 'weights'"),
        (container([*sections(), (b"\xff", b"1")]), "are UTF-8; one is not"),
        (container([sections()[i] for i in (0, 2, 1, 3)]), "has one form only"),
        (container(sections(), count=3), "of "),
        (container(sections(), count=5), "s table lies within it"),
        (container(sections(), count=1 << 17), "has 1 to 65536 sections; this one says 131072"),
        (container(sections(), lengths=[1 << 63, 0, 0, 0]), "these declare 9223372036854775808"),
        (container([(b"manifest", b"{}"), *sections()[1:]]), "The manifest must have the key 'format'"),
        (container([(b"manifest", b"\xff"), *sections()[1:]]), "is ASCII JSON; this one is not"),
        (container([(b"manifest", b"{"), *sections()[1:]]), "is ASCII JSON; this one is not"),
        (container([(b"manifest", b"[" * 100_000), *sections()[1:]]), "is ASCII JSON; this one is not"),
        (container([(b"manifest", b"1" * 5000), *sections()[1:]]), "is ASCII JSON; this one is not"),
        (container([(b"manifest", b"NaN"), *sections()[1:]]), "made of JSON values"),
        (container([(b"manifest", sections()[0][1] + b" "), *sections()[1:]]), "has one form only"),
        (
            container([(b"manifest", sections()[0][1].replace(b"{", b'{"format":1,', 1)), *sections()[1:]]),
            "one form only",
        ),
        (b"", "it does not begin like one"),
        (b"PK\x03\x04" + bytes(100), "it does not begin like one"),
    ],
)
def test_containers_that_break_a_rule(data, error):
    assert error in refused(data)


def test_a_manifest_beyond_its_limit(monkeypatch):
    monkeypatch.setattr(plan_file, "MANIFEST_LIMIT", 100)
    assert "A manifest has at most 100 bytes" in refused(BYTES)
    with pytest.raises(PlanError, match="Leave the weights out of the graph"):
        PlanFile(plans.manifest(), plans.graphs())


@pytest.mark.parametrize(
    "value", [{1: 2}, {"a": float("nan")}, {"a": b"bytes"}, {"a": {None: 1}}, float("inf"), {"a": {1, 2}}]
)
def test_only_json_is_canonical(value):
    with pytest.raises(PlanError, match="made of JSON values with text as keys"):
        canonical_json(value)


def test_canonical_json():
    assert (
        canonical_json({"b": [1, 2.5, None, True], "a": {"ä": "\n"}})
        == b'{"a":{"\\u00e4":"\\n"},"b":[1,2.5,null,true]}'
    )


# ---- files -------------------------------------------------------------------------------------------------


def test_a_file_is_written_and_read(tmp_path):
    path = tmp_path / "model.plan"
    PLAN.write(path)
    PLAN.write(str(path))
    assert path.read_bytes() == BYTES
    assert read_plan_file(path).fingerprint == read_plan_file(str(path)).fingerprint == PLAN.fingerprint
    assert os.listdir(tmp_path) == ["model.plan"]


def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "model.plan"
    path.write_bytes(b"old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(PlanError, match=r"cannot be written to .*model.plan: No space left on device. Give a folder"):
        PLAN.write(path)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["model.plan"]


def test_where_nothing_can_be_written(tmp_path):
    with pytest.raises(PlanError, match="cannot be written to"):
        PLAN.write(tmp_path / "none" / "model.plan")
    with pytest.raises(PlanError, match="cannot be written to"):
        PLAN.write(tmp_path)
    assert os.listdir(tmp_path) == []


def test_files_that_are_no_plan(tmp_path):
    path = tmp_path / "model.plan"
    for missing in (path, tmp_path):
        with pytest.raises(PlanError, match=r"^/.*: A plan is a file; there is none here\. Give the path of a plan"):
            read_plan_file(missing)
    path.write_bytes(b"text")
    with pytest.raises(PlanError, match=r"model.plan: This is not a plan"):
        read_plan_file(path)
    path.write_bytes(BYTES[:-1])
    with pytest.raises(PlanError, match=r"model.plan: This plan is \d+ bytes long; \d+ are here: it is truncated"):
        read_plan_file(path)
    path.write_bytes(BYTES)
    with pytest.raises(PlanError, match=r"model.plan: A plan has at most 100 bytes here"):
        read_plan_file(path, limit=100)


def test_a_file_beyond_the_limit_is_not_read(tmp_path):
    path = tmp_path / "model.plan"
    with open(path, "wb") as file:
        file.write(BYTES[: HEADER.size])
        file.truncate(1 << 33)
    tracemalloc.start()
    with pytest.raises(PlanError, match="at most 1073741824 bytes here"):
        read_plan_file(path)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_is_not_ours_to_read(tmp_path):
    path = tmp_path / "model.plan"
    PLAN.write(path)
    path.chmod(0)
    with pytest.raises(PlanError, match="cannot be read: Permission denied"):
        read_plan_file(path)
