import logging
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from tests.runtime.channel.pairs import (
    GUARD,
    PLAN,
    Seen,
    certify,
    dialed,
    identity,
    known,
    listening,
    pem,
    pin,
    raw_dialer,
)

from shareflow_client import tls
from shareflow_client.errors import ChannelError, ConfigError
from shareflow_client.link import UnreachableError
from shareflow_client.tls import Identity, Trusted
from shareflow_client.wire import FrameKind


def refused(rule, caplog, logged=None, **settings):
    """A dial that both ends refuse: the dialing one with the rule, the listening one in its log."""
    seen = Seen()
    with listening(seen, **settings.pop("listening", {})) as listener:
        began = time.monotonic()
        with caplog.at_level(logging.WARNING), pytest.raises(ChannelError, match=rule) as error:
            dialed(listener.port, Seen(), **settings)
        assert time.monotonic() - began < GUARD
        assert seen.links.empty()
    if logged is not None:
        assert logged in caplog.text
    return error.value


def connects(me, trusted):
    seen = Seen()
    with listening(seen, trusted) as listener:
        link = dialed(listener.port, Seen(), me)
        assert seen.link().peer == me.name
        link.close()


# --- TLS ------------------------------------------------------------------------------------------------------


def shake_hands(port, version):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(["h2"])
    with socket.create_connection(("127.0.0.1", port), timeout=GUARD) as plain, context.wrap_socket(plain) as secure:
        return secure.version()


def test_only_tls_13_is_spoken():
    with listening(Seen()) as listener:
        assert shake_hands(listener.port, ssl.TLSVersion.TLSv1_3) == "TLSv1.3"
        with pytest.raises((ssl.SSLError, ConnectionError)):
            shake_hands(listener.port, ssl.TLSVersion.TLSv1_2)
        assert not tls.accepts_tls12("127.0.0.1", listener.port)


def tls12_server(tmp_path):
    """The port of a server that speaks TLS 1.2 at most, with the certificate that is pinned for server1."""
    me = known("server1")
    (tmp_path / "pem").write_bytes(me.private_key_pem + me.certificate_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "pem")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    server = socket.create_server(("127.0.0.1", 0))
    answers = []

    def serve():
        plain, _ = server.accept()
        try:
            with plain, context.wrap_socket(plain, server_side=True) as secure:
                answers.append(secure.version())
        except OSError as error:
            answers.append(error)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return server, thread, answers


def test_a_dialing_end_speaks_only_tls_13(tmp_path):
    server, thread, answers = tls12_server(tmp_path)
    with server, pytest.raises(ChannelError):
        dialed(server.getsockname()[1], Seen(), time_limit=5)
    thread.join(GUARD)
    assert isinstance(answers[0], OSError)


LATE = """
import os
os.environ.pop("GRPC_SSL_CIPHER_SUITES", None)
import grpc
import sys
from shareflow_client.errors import ChannelError
from shareflow_client.tls import Identity, require_tls13
read = lambda name: open(f"{sys.argv[1]}/{name}", "rb").read()
try:
    require_tls13(Identity("server0", read("crt"), read("key")))
except ChannelError as error:
    print(error)
"""


@pytest.mark.parametrize(("program", "said"), [(LATE, True), (LATE.replace("import grpc\n", ""), False)])
def test_grpc_that_came_too_early_is_found(tmp_path, program, said):
    (tmp_path / "crt").write_bytes(known("server0").certificate_pem)
    (tmp_path / "key").write_bytes(known("server0").private_key_pem)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    run = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        check=True,
    )
    assert ("gRPC was imported before shareflow and still speaks 1.2" in run.stdout) == said


# --- who may connect ------------------------------------------------------------------------------------------


def test_a_stranger_is_refused(caplog):
    refused("it closed the connection when it saw our certificate", caplog, me=identity("server0"))


def test_a_listener_with_another_certificate_is_refused(caplog):
    rule = "no link to server1 at .* the certificate it shows is not the one pinned for it"
    refused(rule, caplog, to=pin(identity("server1")))


def test_who_has_the_name_but_not_the_key_is_refused():
    with pytest.raises(ConfigError, match="the private key of server0 belongs to its certificate"):
        replace(known("server0"), private_key_pem=known("server1").private_key_pem)


def test_a_party_under_another_name_is_refused(caplog):
    both = [pin(known("server0")), pin(known("dealer"))]
    me = replace(known("server0"), name="dealer")
    rule = "the one shown is that of party server0, but the other end says that it is party dealer"
    refused(rule, caplog, logged=rule, me=me, listening={"trusted": both})


def test_another_role_than_the_certificate_stands_for_is_refused(caplog):
    rule = "says that it is client server0"
    refused(rule, caplog, logged=rule, me=replace(known("server0"), role="client"))


def test_a_listener_under_another_name_is_refused(caplog):
    rule = "server1 expects to talk to server0, the other end is server0 and expects server2"
    refused(rule, caplog, logged=rule, to=pin(known("server1"), "server2"))


def test_another_plan_is_refused(caplog):
    rule = f"same plan: server1 has {PLAN}, server0 has {'00' * 32}; give both the same plan file"
    refused(rule, caplog, logged=rule, plan="00" * 32)


@pytest.mark.parametrize(
    ("times", "rule"), [({"ends": -0.5}, "that of server0 expired"), ({"begins": 1}, "that of server0 begins")]
)
def test_the_own_certificate_is_within_its_time(times, rule):
    me = identity("server0", **times)
    with listening(Seen()) as listener, pytest.raises(ChannelError, match=rule):
        dialed(listener.port, Seen(), me)
    with pytest.raises(ChannelError, match=rule), listening(Seen(), me=me):
        pass


@pytest.mark.parametrize(
    ("times", "rule"), [({"ends": -0.5}, "that of server1 expired"), ({"begins": 1}, "that of server1 begins")]
)
def test_a_pinned_certificate_is_within_its_time(times, rule):
    with listening(Seen()) as listener, pytest.raises(ChannelError, match=rule):
        dialed(listener.port, Seen(), to=pin(identity("server1", **times)))


@pytest.mark.parametrize("times", [{"ends": -0.5}, {"begins": 1}])
def test_a_peer_out_of_its_time_is_refused_by_the_listening_end(times, caplog, monkeypatch):
    me = identity("server0", **times)
    with listening(Seen(), [pin(me), pin(known("dealer"))]) as listener:
        assert "a certificate for server0 is of no use" in caplog.text
        # This end's clock is wrong, or it does not care.
        monkeypatch.setattr(tls, "check_validity", lambda certificate, whose: None)
        with pytest.raises(ChannelError, match="closed the connection when it saw our certificate"):
            dialed(listener.port, Seen(), me)


@pytest.mark.parametrize(
    ("times", "rule"), [({"ends": -0.5}, "that of server0 expired"), ({"begins": 1}, "that of server0 begins")]
)
def test_validity_is_checked_apart_from_tls(times, rule):
    me = identity("server0", **times)
    with pytest.raises(ChannelError, match=rule):
        tls.identify(me.certificate_pem, [pin(me)])


@pytest.mark.parametrize("by", [None, certify("authority")], ids=["self-signed", "of an authority"])
def test_one_of_several_pinned_certificates_may_be_replaced(by):
    old, new, expired = (identity("server0", by=by, ends=ends) for ends in (5, 10, -0.5))
    trusted = Trusted("server0", expired.certificate_pem + old.certificate_pem + new.certificate_pem)
    for me in (old, new):
        connects(me, trusted=[trusted])


@pytest.mark.parametrize("by", [None, certify("authority")], ids=["self-signed", "of an authority"])
def test_while_the_listener_changes_its_certificate_both_are_pinned(by):
    new, expired = identity("server1", by=by), identity("server1", by=by, ends=-0.5)
    seen = Seen()
    with listening(seen, me=new) as listener:
        pins = Trusted("server1", expired.certificate_pem + known("server1").certificate_pem + new.certificate_pem)
        dialed(listener.port, Seen(), to=pins).close()
        assert seen.link().peer == "server0"


@pytest.mark.parametrize(
    "key", [ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 2048)], ids=["P-384", "RSA"]
)
def test_other_keys_that_tls_takes(key):
    me = identity("server0", key=key)
    connects(me, trusted=[pin(me)])


@pytest.mark.parametrize(
    "key",
    [
        ed25519.Ed25519PrivateKey.generate(),
        rsa.generate_private_key(65537, 1024),
        ec.generate_private_key(ec.SECP224R1()),
    ],
    ids=["Ed25519", "RSA-1024", "P-224"],
)
def test_other_keys_that_it_does_not_take(key):
    with pytest.raises(ConfigError, match="ECDSA on P-256 or P-384, or RSA of 2048 bits"):
        identity("server0", key=key)


def test_the_names_in_a_pinned_certificate_are_free():
    certificate, key = certify("any text", dns="host.example.org")
    server = Identity("server1", certificate.public_bytes(Encoding.PEM), pem(key))
    certificate, key = certify("no dns name", dns="")
    me = Identity("server0", certificate.public_bytes(Encoding.PEM), pem(key))
    seen = Seen()
    with listening(seen, [pin(me)], server) as listener:
        dialed(listener.port, Seen(), me, pin(server)).close()
        assert seen.link().peer == "server0"


# --- clients of an authority ----------------------------------------------------------------------------------

AUTHORITY = certify("clients of the hospital")


def of_authority(name, by=AUTHORITY, **settings):
    return identity(name, "client", by=by, **settings)


def allowed(*names):
    authority = AUTHORITY[0].public_bytes(Encoding.PEM)
    return [Trusted(name, authority_pem=authority, role="client") for name in names]


def test_a_named_client_of_the_authority_is_taken():
    seen = Seen()
    with listening(seen, [pin(known("server0")), *allowed("ann", "ben")]) as listener:
        for name in ("ben", "ann"):
            link = dialed(listener.port, Seen(), of_authority(name))
            other = seen.link()
            assert (other.peer, other.role) == (name, "client")
            link.close()


def test_a_client_of_the_authority_that_is_not_named_is_refused(caplog):
    rule = "certificate is one that the configuration names, this is none of them: SHA-256 .* names eve"
    me = of_authority("eve")
    refused(rule, caplog, logged="names eve", me=me, listening={"trusted": allowed("ann")})


def test_a_client_under_the_name_of_another_is_refused(caplog):
    rule = "is that of client ann, but the other end says that it is client ben"
    me = replace(of_authority("ann"), name="ben")
    refused(rule, caplog, logged=rule, me=me, listening={"trusted": allowed("ann", "ben")})


def test_a_client_of_another_authority_is_refused(caplog):
    other = certify("clients of the hospital")
    me = of_authority("ann", by=other)
    refused("when it saw our certificate", caplog, me=me, listening={"trusted": allowed("ann")})


def test_an_authority_of_one_client_does_not_speak_for_another(caplog):
    # Both authorities are roots of TLS here; each may name its own clients only.
    other = certify("clients of the bank")
    bank = Trusted("carl", authority_pem=other[0].public_bytes(Encoding.PEM), role="client")
    me = of_authority("ann", by=other)
    refused("this is none of them", caplog, me=me, listening={"trusted": [*allowed("ann"), bank]})


def test_an_expired_client_is_refused(caplog):
    me = of_authority("ann", ends=-0.5)
    refused("that of ann expired", caplog, me=me, listening={"trusted": allowed("ann")})


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({"name": "a"}, "either a certificate or an authority"),
        ({"name": "a", "certificate_pem": b"x", "authority_pem": b"x"}, "either a certificate or an authority"),
        ({"name": "a", "certificate_pem": b"x"}, "in PEM form"),
        ({"name": "a", "authority_pem": b"x"}, "by its exact certificate"),
        ({"name": "a", "certificate_pem": b"x", "role": "friend"}, "party or client, that of a is 'friend'"),
    ],
)
def test_trust_that_cannot_be_written(settings, rule):
    with pytest.raises(ConfigError, match=rule):
        Trusted(**settings)


def test_an_authority_alone_is_not_dialed():
    with pytest.raises(ConfigError, match="give its certificate: an authority is not enough"):
        dialed(1, Seen(), to=allowed("ann")[0])


def test_no_private_key_is_shown():
    assert "PRIVATE" not in repr(known("server0"))


# --- limits ---------------------------------------------------------------------------------------------------


def test_nobody_there_is_unreachable():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(UnreachableError, match=f"no link to server1 at 127.0.0.1:{port}: nobody answers there"):
        dialed(port, Seen())


def test_an_address_in_use_is_told():
    with listening(Seen()) as listener, pytest.raises(ChannelError, match="cannot listen at"):
        type(listener)(
            f"127.0.0.1:{listener.port}",
            known("server1"),
            [pin(known("server0"))],
            plan=PLAN,
            callbacks=Seen().callbacks(),
        )


def test_a_listener_whose_peers_are_all_out_of_time_is_refused():
    expired = [pin(identity("server0", ends=-0.5))]
    with pytest.raises(ConfigError, match="out of their time"), listening(Seen(), expired):
        pass


def test_a_listener_without_peers_is_refused():
    with pytest.raises(ConfigError, match="at least one trusted peer"), listening(Seen(), trusted=()) as _:
        pass


def test_a_peer_has_so_many_links(caplog):
    seen = Seen()
    with listening(seen, most_per_peer=2) as listener:
        links = [dialed(listener.port, Seen()) for _ in range(2)]
        with pytest.raises(ChannelError, match="at most 2 links, server0 has as many"):
            dialed(listener.port, Seen())
        links[0].close()
        seen.end()
        links[0] = dialed(listener.port, Seen())
        for link in links:
            link.close()


def test_a_handshake_has_a_time_limit(caplog):
    with (
        listening(Seen(), handshake_limit=0.3) as listener,
        raw_dialer(listener.port) as raw,
        pytest.raises((tls.grpc.RpcError, StopIteration)),
    ):
        raw.say(FrameKind.HELLO, raw.handshake.mine.encode())
        raw.hear()
        raw.hear()
    assert "no handshake within 0.3 s" in caplog.text


def test_so_many_handshakes_are_pending():
    with listening(Seen(), most_pending=1) as listener, raw_dialer(listener.port) as raw:
        raw.say(FrameKind.HELLO, raw.handshake.mine.encode())
        raw.hear()
        with pytest.raises(UnreachableError, match="1 handshakes are pending; try later"):
            dialed(listener.port, Seen())


def test_who_says_nothing_before_tls_is_cut_off():
    with (
        listening(Seen(), handshake_limit=0.5) as listener,
        socket.create_connection(("127.0.0.1", listener.port), timeout=GUARD) as silent,
    ):
        rest = b"-"
        while rest:
            try:
                rest = silent.recv(1000)
            except ConnectionError:
                break


def changed(raw, **change):
    raw.handshake.mine = replace(raw.handshake.mine, **change)
    raw.say(FrameKind.HELLO, raw.handshake.mine.encode())


@pytest.mark.parametrize(
    ("script", "rule"),
    [
        (lambda raw: raw.shake(confirm=lambda data: bytes(32)), "confirmation of server0 does not fit"),
        (lambda raw: changed(raw, version=7), "server1 speaks 1, its peer 7"),
        (lambda raw: changed(raw, certificate=bytes(32)), "takes TLS apart"),
        (lambda raw: changed(raw, public=bytes(32)), "small order"),
        (lambda raw: raw.say(FrameKind.CONTROL, b"{}"), "HELLO is next in the handshake, server0 sent something else"),
        (lambda raw: raw.say(FrameKind.HELLO, bytes(9000)), "HELLO is next"),
    ],
)
def test_a_lying_dialer_is_refused(script, rule, caplog):
    seen = Seen()
    with listening(seen) as listener, raw_dialer(listener.port) as raw:
        script(raw)
        assert rule in raw.last_words()
        assert seen.links.empty()
    assert rule in caplog.text
    assert "refused a connection from" in caplog.text


def test_links_of_many_peers_at_once():
    names = [f"client{k}" for k in range(8)]
    seen = Seen()
    with listening(seen, allowed(*names)) as listener:
        links = []
        threads = [
            threading.Thread(target=lambda n=n: links.append(dialed(listener.port, Seen(), of_authority(n))))
            for n in names
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {seen.link().peer for _ in names} == set(names)
        assert len(listener.links) == 8
        for link in links:
            link.send(FrameKind.CONTROL, link.session_id)
        assert {bytes(seen.frame().payload) for _ in names} == {link.session_id for link in links}
        listener.close("maintenance")
        for link in links:
            with pytest.raises(ChannelError, match="server1 closed the link: maintenance"):
                while True:
                    link.send(FrameKind.CONTROL, b"x")
                    time.sleep(0.01)
        assert listener.links == []
