from dataclasses import replace

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from shareflow_client import handshake as module
from shareflow_client.errors import ChannelError
from shareflow_client.handshake import MAGIC, Handshake, decode_hello


def ends(**other):
    alice = Handshake(
        dials=True, name="alice", peer="bob", role="client", fingerprint="ab", certificate=b"a" * 32, software="1"
    )
    settings = {"name": "bob", "peer": "alice", "role": "party", "fingerprint": "ab", "certificate": b"b" * 32}
    return alice, Handshake(dials=False, software="2", **{**settings, **other})


def exchange(alice, bob):
    bob.receive(decode_hello(alice.mine.encode(), "bob"))
    alice.receive(decode_hello(bob.mine.encode(), "alice"))
    return alice.confirm(bob.confirmation()), bob.confirm(alice.confirmation())


def test_both_ends_have_the_same_session():
    here, there = exchange(*ends())
    assert here.id == there.id
    assert len(here.id) == 16
    assert here.key(b"x") == there.key(b"x")
    assert len(here.key(b"x")) == 16
    assert here.key(b"x") != here.key(b"y")
    assert (here.peer.name, there.peer.name, there.peer.role, there.peer.software) == ("bob", "alice", "client", "1")


def test_each_session_is_another():
    sessions = [exchange(*ends())[0] for _ in range(3)]
    assert len({s.id for s in sessions}) == len({s.key(b"x") for s in sessions}) == 3


def test_the_keys_are_hkdf_of_the_shared_secret():
    alice, bob = ends()
    here, _ = exchange(alice, bob)
    shared = alice._private.exchange(bob._private.public_key())
    salt = module.transcript(alice.mine, bob.mine)
    key = HKDF(hashes.SHA256(), 16, salt=salt, info=b"shareflow link 1 key x").derive(shared)
    assert here.key(b"x") == key
    assert here.id == salt[:16]


def test_a_session_shows_no_secret():
    here, _ = exchange(*ends())
    assert here._secret.hex() not in repr(here)
    assert repr(here._secret) not in repr(here)


def test_a_hello_has_one_encoding():
    mine = ends()[0].mine
    data = mine.encode()
    assert decode_hello(data, "bob") == mine
    assert data.startswith(MAGIC + b"\1\0\2\1\0001\5\0alice\3\0bob\2\0ab\x20\0" + b"a" * 32)
    assert len(data) == 11 + 7 * 2 + 1 + 5 + 3 + 2 + 3 * 32


def damaged():
    data = ends()[0].mine.encode()
    yield b"", "begins with the hello"
    yield b"GET / HTTP/1.1\r\n", "begins with the hello"
    yield data[:-1], "not formed"
    yield data + b"\0", "middle of a field"
    yield data + b"\1\0x", "not formed"
    yield data[:10] + b"\7" + data[11:], "not formed"
    yield data[:8] + b"\2\0" + data[10:], "bob speaks 1, its peer 2; install the same"
    yield data.replace(b"alice", b"al\nce"), "printable"
    yield data.replace(b"alice", b"al\xffce"), "UTF-8"
    yield replace(ends()[0].mine, nonce=b"short").encode(), "not formed"
    yield replace(ends()[0].mine, public=b"short").encode(), "not formed"
    yield replace(ends()[0].mine, name="a" * 300).encode(), "printable"


@pytest.mark.parametrize(("data", "rule"), list(damaged()))
def test_another_hello_is_refused(data, rule):
    with pytest.raises(ChannelError, match=rule):
        decode_hello(data, "bob")


@pytest.mark.parametrize(
    ("other", "rule"),
    [
        ({"fingerprint": "cd"}, "same plan: bob has cd, alice has ab; give both the same plan file"),
        ({"name": "carol"}, "carol expects to talk to alice, the other end is alice and expects bob"),
        ({"peer": "carol"}, "bob expects to talk to carol, the other end is alice and expects bob"),
    ],
)
def test_ends_that_do_not_fit_say_both_values(other, rule):
    alice, bob = ends(**other)
    with pytest.raises(ChannelError, match=rule):
        bob.receive(alice.mine)


FIELDS = [
    {"certificate": b"c" * 32},
    {"nonce": bytes(32)},
    {"software": "3"},
    {"role": "party"},
]


@pytest.mark.parametrize("change", FIELDS)
def test_what_is_changed_on_the_way_breaks_the_confirmation(change):
    alice, bob = ends()
    bob.receive(replace(alice.mine, **change))
    alice.receive(bob.mine)
    with pytest.raises(ChannelError, match="confirmation of alice does not fit"):
        bob.confirm(alice.confirmation())
    with pytest.raises(ChannelError, match="confirmation of bob does not fit"):
        alice.confirm(bob.confirmation())


def test_someone_between_who_swaps_the_public_keys_is_seen():
    alice, bob = ends()
    mallory = ends()[0]
    bob.receive(replace(alice.mine, public=mallory.mine.public))
    alice.receive(replace(bob.mine, public=mallory.mine.public))
    with pytest.raises(ChannelError, match="does not fit"):
        bob.confirm(alice.confirmation())


def test_a_confirmation_is_not_the_own_one_sent_back():
    alice, bob = ends()
    bob.receive(alice.mine)
    with pytest.raises(ChannelError, match="does not fit"):
        bob.confirm(bob.confirmation())


@pytest.mark.parametrize("wrong", [b"", bytes(32), bytes(31)])
def test_a_wrong_confirmation_is_refused(wrong):
    alice, bob = ends()
    bob.receive(alice.mine)
    with pytest.raises(ChannelError, match="does not fit"):
        bob.confirm(wrong)


def test_an_own_hello_sent_back_is_refused():
    alice, _ = ends()
    with pytest.raises(ChannelError, match="own hello"):
        alice.receive(replace(alice.mine, name="bob", peer="alice"))


def test_a_public_key_of_small_order_is_refused():
    alice, bob = ends()
    with pytest.raises(ChannelError, match="small order"):
        bob.receive(replace(alice.mine, public=bytes(32)))


def test_nothing_is_confirmed_before_the_hello():
    alice, _ = ends()
    with pytest.raises(ChannelError, match="after the hello"):
        alice.confirmation()
    with pytest.raises(ChannelError, match="after the hello"):
        alice.confirm(bytes(32))
