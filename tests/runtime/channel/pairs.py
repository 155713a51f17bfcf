"""Identities, two ends of a link in one process, and peers that speak the wire format by hand."""

from __future__ import annotations

import contextlib
import datetime
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from queue import SimpleQueue

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from shareflow.runtime.channel.listener import DaemonThreads, Listener
from shareflow_client import wire
from shareflow_client.errors import ChannelError
from shareflow_client.handshake import Handshake, Hello, decode_hello
from shareflow_client.link import METHOD, SERVICE, Callbacks, Link, LinkSettings, dial
from shareflow_client.tls import Identity, Trusted, channel_credentials, fingerprint, grpc, server_credentials
from shareflow_client.wire import Frame, FrameKind

PLAN = "5f" * 32
GUARD = 30.0  # seconds after which a test gives up


def pem(key) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def certify(name: str, key=None, *, begins: float = -1, ends: float = 10, by=None, dns: str | None = None):
    """A certificate (valid from `begins` to `ends`, in days from now) and its key; self-signed without `by`."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.timezone.utc)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateBuilder(
        issuer_name=by[0].subject if by else subject,
        subject_name=subject,
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=now + datetime.timedelta(days=begins),
        not_valid_after=now + datetime.timedelta(days=ends),
    )
    if dns != "":
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(dns or name)]), critical=False)
    if not by:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    issuer = by[1] if by else key
    identifiers = (
        x509.SubjectKeyIdentifier.from_public_key(key.public_key()),
        x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key()),
    )
    for identifier in identifiers:
        builder = builder.add_extension(identifier, critical=False)
    return builder.sign(issuer, None if isinstance(issuer, ed25519.Ed25519PrivateKey) else hashes.SHA256()), key


def identity(name: str, role: str = "party", **settings) -> Identity:
    certificate, key = certify(name, **settings)
    return Identity(name, certificate.public_bytes(Encoding.PEM), pem(key), role)


@cache
def known(name: str, role: str = "party") -> Identity:
    """The identity that all tests share for this name."""
    return identity(name, role)


def pin(of: Identity, name: str | None = None) -> Trusted:
    return Trusted(name or of.name, certificate_pem=of.certificate_pem, role=of.role)


@dataclass
class Seen:
    """Callbacks that write down what comes."""

    limit: Callable = lambda link, kind, execution, round: 1 << 20
    frames: SimpleQueue[Frame] = field(default_factory=SimpleQueue)
    links: SimpleQueue[Link] = field(default_factory=SimpleQueue)
    ends: SimpleQueue[str] = field(default_factory=SimpleQueue)

    def callbacks(self, **other) -> Callbacks:
        made = Callbacks(
            on_frame=lambda link, frame: self.frames.put(frame),
            on_close=lambda link, text: self.ends.put(text),
            size_limit=lambda *asked: self.limit(*asked),
            on_link=self.links.put,
        )
        return replace(made, **other)

    def frame(self) -> Frame:
        return self.frames.get(timeout=GUARD)

    def end(self) -> str:
        return self.ends.get(timeout=GUARD)

    def link(self) -> Link:
        return self.links.get(timeout=GUARD)


@contextlib.contextmanager
def listening(seen: Seen, trusted=None, me: Identity | None = None, plan: str = PLAN, callbacks=None, **settings):
    listener = Listener(
        "127.0.0.1:0",
        me or known("server1"),
        [pin(known("server0"))] if trusted is None else trusted,
        plan=plan,
        callbacks=callbacks or seen.callbacks(),
        **settings,
    )
    try:
        yield listener
    finally:
        listener.close("the test is over")


def dialed(port: int, seen: Seen, me: Identity | None = None, to: Trusted | None = None, **settings) -> Link:
    settings.setdefault("callbacks", seen.callbacks())
    settings.setdefault("plan", PLAN)
    return dial(f"127.0.0.1:{port}", me or known("server0"), to or pin(known("server1")), **settings)


@contextlib.contextmanager
def pair(settings: LinkSettings | None = None, here: Seen | None = None, there: Seen | None = None):
    """(link of server0, what it saw, link of server1, what that saw)."""
    here, there = here or Seen(), there or Seen()
    with listening(there, settings=settings) as listener:
        link = dialed(listener.port, here, settings=settings)
        try:
            yield link, here, there.link(), there
        finally:
            link.close()


class Raw:
    """An end that says what a test wants: authenticated by TLS as `me`, all else by hand."""

    def __init__(self, me: Identity, name: str, dials: bool, incoming: Iterator[bytes] | None = None) -> None:
        self.me, self.dials, self.incoming = me, dials, incoming
        self.out: SimpleQueue[bytes | None] = SimpleQueue()
        self.number = 0
        self.handshake = Handshake(
            dials=dials,
            name=me.name,
            peer=name,
            role=me.role,
            fingerprint=PLAN,
            certificate=fingerprint(me.certificate()),
            software="by hand",
        )

    def say(self, kind: int, payload: bytes = b"") -> None:
        self.put(kind, payload, message=self.number)
        self.number += 1

    def put(self, kind, payload=b"", *, message, execution=0, round=0, total=None, offset=0) -> None:
        total = len(payload) if total is None else total
        self.out.put(
            wire.chunk(
                kind, [payload], execution=execution, round=round, message=message, total=total, offset=offset
            )
        )

    def hear(self) -> tuple[int, bytes]:
        data = next(self.incoming)
        return wire.read_header(data, "peer").kind, data[wire.HEADER.size :]

    def last_words(self) -> str:
        """The text of the CLOSE that the other end sends, whatever it sends before."""
        while True:
            kind, payload = self.hear()
            if kind == FrameKind.CLOSE:
                return payload.decode()

    def shake(self, hello: Callable[[Hello], Hello] = lambda mine: mine, confirm=lambda data: data) -> None:
        """The handshake, with what a test changes in it."""
        mine = hello(self.handshake.mine)
        self.handshake.mine = mine
        if self.dials:
            self.say(FrameKind.HELLO, mine.encode())
            self.handshake.receive(decode_hello(self.hear()[1], "by hand"))
            self.say(FrameKind.CONFIRM, confirm(self.handshake.confirmation()))
        else:
            theirs = decode_hello(self.hear()[1], "by hand")
            self.say(FrameKind.HELLO, mine.encode())
            with contextlib.suppress(ChannelError):
                self.handshake.receive(theirs)
            self.hear()
            self.say(FrameKind.CONFIRM, confirm(self.handshake.confirmation()))

    def sent(self) -> Iterator[bytes]:
        while (data := self.out.get()) is not None:
            yield data


@contextlib.contextmanager
def raw_dialer(port: int, me: Identity | None = None, to: Identity | None = None):
    me, to = me or known("server0"), to or known("server1")
    credentials, expected = channel_credentials(me, pin(to))
    options = [("grpc.ssl_target_name_override", expected), ("grpc.use_local_subchannel_pool", 1)]
    raw = Raw(me, to.name, dials=True)
    with grpc.secure_channel(f"127.0.0.1:{port}", credentials, options) as channel:
        raw.incoming = channel.stream_stream(f"/{SERVICE}/{METHOD}")(raw.sent(), timeout=GUARD)
        yield raw
        raw.out.put(None)


@contextlib.contextmanager
def raw_listener(script: Callable[[Raw], None], me: Identity | None = None, peer: str = "server0"):
    """The port of a server that runs `script` for each stream."""
    me = me or known("server1")

    def serve(incoming, context):
        raw = Raw(me, peer, dials=False, incoming=incoming)

        def run():
            with contextlib.suppress(grpc.RpcError, StopIteration, ChannelError):
                script(raw)

        threading.Thread(target=run, daemon=True).start()
        return raw.sent()

    server = grpc.server(DaemonThreads())
    handler = grpc.stream_stream_rpc_method_handler(serve)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),))
    port = server.add_secure_port("127.0.0.1:0", server_credentials(me, [pin(known("server0"))]))
    server.start()
    try:
        yield port
    finally:
        server.stop(None)
