"""TOML configurations: every kind of key, and for each way to get it wrong an error that names file, table and key."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shareflow_client import config
from shareflow_client.config import Address, Unfit, load, load_toml, read
from shareflow_client.errors import ConfigError

HEX = "0123456789abcdef" * 4


@dataclass(frozen=True, kw_only=True)
class Limits:
    rows: int = config.whole(default=8, low=1, high=1024)
    message: int = config.size(default="64 MiB", low=1)
    wait: float = config.seconds(default=0.005, high=60)


@dataclass(frozen=True, kw_only=True)
class Listen:
    address: Address = config.address(any_port=True)
    limits: Limits = config.table(Limits)


@dataclass(frozen=True, kw_only=True)
class Peer:
    name: str = config.party()
    address: Address = config.address()
    certificate: str = config.fingerprint()
    limits: Limits | None = config.table(Limits, optional=True)


@dataclass(frozen=True, kw_only=True)
class Customer:
    entries: tuple[str, ...] = config.many(config.text(), default=["predict"], at_least=1)


@dataclass(frozen=True, kw_only=True)
class Server:
    party: str = config.party()
    plan: Path = config.file()
    key: Path = config.secret_file()
    store: Path = config.path(default="store")
    log: str = config.choice("text", "json", default="json")
    metrics: Address | None = config.address(default=None)
    batching: bool = config.switch(default=True)
    share: float = config.number(default=0.5, low=0, high=1)
    listen: Listen = config.table(Listen)
    peers: tuple[Peer, ...] = config.tables(Peer, at_least=1, distinct="name")
    clients: Mapping[str, Customer] = config.named_tables(Customer)

    def __post_init__(self) -> None:
        if self.party in [peer.name for peer in self.peers]:
            raise Unfit("party", f"must not be a peer, too; {self.party!r} is. Rename it")


GOOD = f"""
party = "server0"
plan = "model.plan"
key = "keys/storage.key"

[listen]
address = "0.0.0.0:0"
limits.rows = 4

[[peers]]
name = "model-owner"
address = "[::1]:7001"
certificate = "{HEX}"

[[peers]]
name = "server1"
address = "server1.example.org:7001"
certificate = "{":".join(HEX[i : i + 2] for i in range(0, 64, 2)).upper()}"
limits = {{ message = "1 KiB", wait = 2 }}

[clients.alice]
[clients.bob]
entries = ["predict", "load"]
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "keys").mkdir()
    (tmp_path / "model.plan").write_bytes(b"plan")
    key = tmp_path / "keys" / "storage.key"
    key.write_bytes(b"k" * 32)
    key.chmod(0o600)
    return tmp_path


def loaded(folder: Path, text: str) -> Server:
    (folder / "server0.toml").write_text(text, encoding="utf-8")
    return load(Server, folder / "server0.toml")


def refused(folder: Path, text: str) -> str:
    with pytest.raises(ConfigError) as error:
        loaded(folder, text)
    return str(error.value).removeprefix(f"{folder}/")


def test_every_kind_is_read(folder):
    server = loaded(folder, GOOD)
    assert server == Server(
        party="server0",
        plan=folder / "model.plan",
        key=folder / "keys/storage.key",
        store=folder / "store",
        log="json",
        metrics=None,
        batching=True,
        share=0.5,
        listen=Listen(address=Address("0.0.0.0", 0), limits=Limits(rows=4, message=64 << 20, wait=0.005)),
        peers=(
            Peer(name="model_owner", address=Address("::1", 7001), certificate=HEX, limits=None),
            Peer(
                name="server1",
                address=Address("server1.example.org", 7001),
                certificate=HEX,
                limits=Limits(message=1024, wait=2.0),
            ),
        ),
        clients={"alice": Customer(entries=("predict",)), "bob": Customer(entries=("predict", "load"))},
    )
    assert [str(peer.address) for peer in server.peers] == ["[::1]:7001", "server1.example.org:7001"]


def test_paths_are_relative_to_the_file(folder, monkeypatch):
    monkeypatch.chdir("/")
    assert loaded(folder, GOOD).plan == folder / "model.plan"
    absolute = loaded(folder, GOOD.replace('"model.plan"', f'"{folder}/keys/../model.plan"'))
    assert absolute.plan == folder / "model.plan"


def test_defaults_hold_where_python_makes_the_table_too():
    assert Limits() == Limits(rows=8, message=64 << 20, wait=0.005)
    assert Customer().entries == ("predict",)


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ('party = "server0"', "", "party: is missing. Add it."),
        (
            'party = "server0"',
            'party = "server0"\npartie = 1',
            "partie: is no key that is known here. Did you mean 'party'?",
        ),
        (
            'party = "server0"',
            'party = "server0"\nzzz = 1',
            "zzz: is no key that is known here. Known here: party, plan",
        ),
        ('party = "server0"', 'party = "server 0"', "party: must be a party's name"),
        ('party = "server0"', "party = 5", "party: must be a party's name"),
        ('party = "server0"', 'party = "server1"', "party: must not be a peer, too; 'server1' is. Rename it."),
        ('"model.plan"', '"none.plan"', "plan: must be a file that can be read"),
        ('"model.plan"', '"keys"', "plan: must be a file; "),
        ('"model.plan"', "3", "plan: must be the path of a file"),
        ('"model.plan"', '"a\\u0000b"', "plan: must be the path of a file"),
        (
            'party = "server0"',
            'party = "server0"\nlog = "jsn"',
            "log: must be one of 'text', 'json', not 'jsn'. Did you",
        ),
        ('party = "server0"', 'party = "server0"\nlog = ["json"]', "log: must be one of 'text', 'json', not ['json']."),
        ('party = "server0"', 'party = "server0"\nmetrics = ":80"', "metrics: must be 'host:port'"),
        (
            'party = "server0"',
            'party = "server0"\nmetrics = "a:0"',
            "metrics: must be 'host:port' with a port from 1 to",
        ),
        ('party = "server0"', 'party = "server0"\nbatching = "yes"', "batching: must be true or false, without quotes"),
        ('party = "server0"', 'party = "server0"\nbatching = 1', "batching: must be true or false, without quotes"),
        ('party = "server0"', 'party = "server0"\nshare = 1.5', "share: must be a number from 0 to 1, not 1.5."),
        ('party = "server0"', 'party = "server0"\nshare = nan', "share: must be a number from 0 to 1, not nan."),
        ('party = "server0"', 'party = "server0"\nshare = true', "share: must be a number from 0 to 1, not True."),
        ("limits.rows = 4", "limits.rows = 0", "[listen.limits] rows: must be a whole number from 1 to 1024, not 0."),
        (
            "limits.rows = 4",
            "limits.rows = 4.0",
            "[listen.limits] rows: must be a whole number from 1 to 1024, not 4.0.",
        ),
        ("limits.rows = 4", "limits.rows = true", "[listen.limits] rows: must be a whole number"),
        (
            "limits.rows = 4",
            "limits.row = 4",
            "[listen.limits] row: is no key that is known here. Did you mean 'rows'?",
        ),
        ("limits.rows = 4", "limits = 4", "[listen.limits]: must be a table, not 4."),
        (
            "limits.rows = 4",
            "limits.wait = -1",
            "[listen.limits] wait: must be a number of seconds from 0 to 60, not -1.",
        ),
        ("limits.rows = 4", 'limits.wait = "1s"', "[listen.limits] wait: must be a number of seconds from 0 to 60"),
        ("limits.rows = 4", 'limits.message = "1 MB"', "[listen.limits] message: must be a size from 1 to"),
        ("limits.rows = 4", "limits.message = 0", "[listen.limits] message: must be a size from 1 to"),
        ('address = "0.0.0.0:0"', "", "[listen] address: is missing. Add it."),
        ('"0.0.0.0:0"', '"0.0.0.0:65536"', "[listen] address: must be 'host:port' with a port from 0 to 65535"),
        ('"0.0.0.0:0"', '"::1:80"', "[listen] address: must be 'host:port'"),
        ('"0.0.0.0:0"', "80", "[listen] address: must be 'host:port'"),
        ('"[::1]:7001"', '"::1"', "[[peers]] #1 address: must be 'host:port'"),
        (
            'name = "server1"',
            'name = "model_owner"',
            "[[peers]] #2 name: must be another one in each table; model_owner",
        ),
        ('message = "1 KiB"', 'message = "x"', "[[peers]] #2 [peers.limits] message: must be a size"),
        (
            f'"{HEX}"',
            f'"{HEX[1:]}"',
            "[[peers]] #1 certificate: must be a fingerprint: SHA-256 in 64 hexadecimal digits",
        ),
        (f'"{HEX}"', f'"{HEX}00"', "[[peers]] #1 certificate: must be a fingerprint"),
        (
            "[clients.alice]",
            "[clients.alice]\nentry = 1",
            "[clients.alice] entry: is no key that is known here. Did you",
        ),
        ("[clients.alice]", '[clients."a b"]', "clients: must be tables with names that match"),
        ('["predict", "load"]', '["predict", 5]', "[clients.bob] entries[2]: must be text that is not empty, not 5."),
        ('["predict", "load"]', '["load", "load"]', "[clients.bob] entries[2]: is in the list twice. Take it out."),
        ('["predict", "load"]', "[]", "[clients.bob] entries: must have 1 items or more; it has 0."),
        ('["predict", "load"]', '"predict"', "[clients.bob] entries: must be a list, in square brackets"),
        ("[clients.alice]\n[clients.bob]\nentries", "clients", "[[peers]] #2 clients: is no key that is known here."),
    ],
)
def test_what_is_wrong_is_named(folder, old, new, error):
    assert GOOD.count(old) == 1
    text = refused(folder, GOOD.replace(old, new))
    assert text.startswith(f"server0.toml: {error}")
    assert text.endswith((".", "?"))
    assert ".." not in text.replace("...", "")


@pytest.mark.parametrize("peers", ["peers = []", "", "peers = 3", "peers = [1]"])
def test_arrays_of_tables_are_arrays_of_tables(folder, peers):
    head, rest = GOOD.split("[listen]")
    text = refused(folder, f"{head}\n{peers}\n[listen]{rest.split('[[peers]]')[0]}")
    assert text.startswith(("server0.toml: peers: must be", "server0.toml: [[peers]] #1: must be a table, not 1"))


def test_a_table_is_a_table(folder):
    assert refused(folder, f'listen = "x"\n{GOOD.split("[listen]")[0]}').startswith(
        "server0.toml: [listen]: must be a table, not 'x'."
    )


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o700, 0o601])
def test_a_secret_that_others_may_read_is_refused(folder, mode):
    (folder / "keys/storage.key").chmod(mode)
    text = refused(folder, GOOD)
    assert text.startswith("server0.toml: key: is a secret that only its owner may read; ")
    assert f"has mode {mode:04o}. Run: chmod 600" in text
    assert "k" * 8 not in text


def test_a_secret_may_be_read_only(folder):
    (folder / "keys/storage.key").chmod(0o400)
    assert loaded(folder, GOOD).key.name == "storage.key"


def test_a_secret_written_in_place_of_its_path_is_not_printed(folder):
    secret = "-----BEGIN PRIVATE KEY-----\\nMIIEvQIBADANBg\\n-----END PRIVATE KEY-----"
    assert "MIIE" not in refused(folder, GOOD.replace("keys/storage.key", secret))


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"party = ", "is not TOML: "),
        (b"a = 1\na = 2", "is not TOML: "),
        (b"a = '\xff'", "TOML is UTF-8; byte 5 is not."),
        (b"a = " + b"[" * 100_000, "is not TOML: "),
        (b"#" * (1 << 20) + b"#", "has more than the 1048576 bytes"),
    ],
)
def test_files_that_are_no_toml(tmp_path, content, error):
    (tmp_path / "a.toml").write_bytes(content)
    with pytest.raises(ConfigError) as raised:
        load_toml(tmp_path / "a.toml")
    assert str(raised.value).startswith(f"{tmp_path}/a.toml: {error}")


def test_files_that_cannot_be_read(tmp_path):
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(ConfigError, match=r"cannot be read: .*Give the path"):
            load_toml(path)


def test_a_file_of_exactly_the_limit_is_read(tmp_path):
    (tmp_path / "a.toml").write_bytes(b"a=1\n" + b"#" * ((1 << 20) - 4))
    assert load_toml(tmp_path / "a.toml") == {"a": 1}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_is_not_ours_to_read(folder):
    (folder / "model.plan").chmod(0)
    assert refused(folder, GOOD).startswith("server0.toml: plan: must be a file that can be read")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(VALUES, st.sampled_from(["party", "plan", "store", "log", "metrics", "share", "listen", "peers", "clients"]))
def test_whatever_stands_there_is_read_or_is_an_error_of_its_key(value, key):
    try:
        read(Server, {key: value}, "x.toml")
    except ConfigError as error:
        assert str(error).startswith("x.toml: ")
    else:
        pytest.fail("other keys are missing")


@given(st.integers(), st.integers(-5, 5), st.integers(6, 20))
def test_bounds_are_inclusive(value, low, high):
    @dataclass(frozen=True)
    class One:
        n: int = config.whole(low=low, high=high)

    if low <= value <= high:
        assert read(One, {"n": value}, "x").n == value
    else:
        with pytest.raises(ConfigError, match=f"from {low} to {high}, not {value}"):
            read(One, {"n": value}, "x")
