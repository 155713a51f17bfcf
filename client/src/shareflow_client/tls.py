"""TLS 1.3 with pinned certificates, for gRPC.

gRPC for Python has no switch for a least TLS version. Its cipher list concerns TLS 1.2 only, so we leave in it one
suite that needs a pre-shared key, which neither end ever has: TLS 1.2 cannot be negotiated, TLS 1.3 is not touched.
gRPC reads the list when it is imported; `require_tls13` tries that it did: in every process that listens, and in one
that dials where something else imported gRPC before us.
"""

from __future__ import annotations

import datetime
import hashlib
import logging
import os
import socket
import ssl
import sys
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import NameOID

from shareflow_client.errors import ChannelError, ConfigError

GRPC_CAME_FIRST = "grpc" in sys.modules
NO_TLS12 = "ECDHE-PSK-CHACHA20-POLY1305"
os.environ["GRPC_SSL_CIPHER_SUITES"] = NO_TLS12
# The older event loop of gRPC writes on the thread that sends: a round trip is a fifth faster, 1 MiB a third.
os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_client,-event_engine_listener")

import grpc  # type: ignore[import-untyped]  # noqa: E402  the environment must be set before

_log = logging.getLogger(__name__)
__all__ = ["GRPC_CAME_FIRST", "Identity", "Trusted", "grpc"]


@dataclass(frozen=True)
class Identity:
    """Who this process is: its name in the plan (or the client's name), certificate chain and private key (PEM)."""

    name: str
    certificate_pem: bytes
    private_key_pem: bytes = field(repr=False)
    role: str = "party"

    def __post_init__(self) -> None:
        try:
            key = load_pem_private_key(self.private_key_pem, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise ConfigError(f"a private key is in PEM form without a password, that of {self.name} is not") from None
        public = self.certificate().public_key()
        if key.public_key() != public:
            raise ConfigError(f"the private key of {self.name} belongs to its certificate; give the pair")
        curve = isinstance(public, ec.EllipticCurvePublicKey) and isinstance(public.curve, (ec.SECP256R1, ec.SECP384R1))
        if not curve and not (isinstance(public, rsa.RSAPublicKey) and public.key_size >= 2048):
            raise ConfigError(
                "a certificate's key is ECDSA on P-256 or P-384, or RSA of 2048 bits or more: TLS here takes no other; "
                f"that of {self.name} is not: make another (shareflow keys sign)"
            )

    def certificate(self) -> x509.Certificate:
        """The own certificate: the first of the chain."""
        return _load(self.certificate_pem, f"the certificate of {self.name}")[0]


@dataclass(frozen=True)
class Trusted:
    """A peer that may connect, or be connected to.

    `certificate_pem` pins: exactly this certificate (or one of these, while one is being replaced) is `name`'s.
    `authority_pem`, for clients only: any certificate that this authority signed for `name` (as DNS name, or as
    common name where there is none).
    """

    name: str
    certificate_pem: bytes = b""
    authority_pem: bytes = b""
    role: str = "party"

    def __post_init__(self) -> None:
        if self.role not in ("party", "client"):
            raise ConfigError(f"a peer's role is party or client, that of {self.name} is {self.role!r}")
        if bool(self.certificate_pem) == bool(self.authority_pem):
            raise ConfigError(f"a peer has either a certificate or an authority; give {self.name} one of the two")
        if self.authority_pem and self.role == "party":
            raise ConfigError(f"a party is trusted by its exact certificate; give that of {self.name}")
        _load(self.certificate_pem or self.authority_pem, f"the certificate for {self.name}")

    def pins(self) -> list[x509.Certificate]:
        """The pinned certificates, [] for one trusted by its authority."""
        return _load(self.certificate_pem, f"the certificate for {self.name}") if self.certificate_pem else []

    def pins_in_time(self) -> list[x509.Certificate]:
        """The pinned certificates that are valid now; raises ChannelError where none is."""
        valid = []
        for pin in self.pins():
            try:
                check_validity(pin, self.name)
            except ChannelError:
                continue
            valid.append(pin)
        if not valid and self.pins():
            check_validity(self.pins()[-1], self.name)
        return valid

    def fits(self, certificate: x509.Certificate) -> bool:
        """Whether the certificate is this peer's; validity in time is another question."""
        if self.certificate_pem:
            return fingerprint(certificate) in {fingerprint(pin) for pin in self.pins()}
        if self.name not in names(certificate):
            return False
        return any(_signed(certificate, by) for by in _load(self.authority_pem, f"the authority for {self.name}"))


def fingerprint(certificate: x509.Certificate) -> bytes:
    """SHA-256 of the certificate's DER form."""
    return hashlib.sha256(certificate.public_bytes(Encoding.DER)).digest()


def names(certificate: x509.Certificate) -> list[str]:
    """DNS names of the certificate, or its common name where it has no alternative names at all."""
    try:
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return [str(a.value) for a in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    return list(alternatives.get_values_for_type(x509.DNSName))


def check_validity(certificate: x509.Certificate, whose: str) -> None:
    """Raises ChannelError where the certificate is expired or not yet valid."""
    now = datetime.datetime.now(datetime.timezone.utc)
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now < begin:
        raise ChannelError(
            f"a certificate is used within its time, that of {whose} begins {begin:%Y-%m-%d %H:%M} UTC and it is "
            f"{now:%Y-%m-%d %H:%M} UTC: check the clock, or have it signed again"
        )
    if now > end:
        raise ChannelError(
            f"a certificate is used within its time, that of {whose} expired {end:%Y-%m-%d %H:%M} UTC: have a new one "
            "signed (shareflow keys sign) and give it to its peers"
        )


def identify(certificate_pem: bytes, trusted: Iterable[Trusted]) -> tuple[x509.Certificate, list[Trusted]]:
    """The certificate that TLS verified, and the peers it fits; raises ChannelError for none, and out of its time."""
    certificate = _load(certificate_pem, "the peer's certificate")[0]
    fitting = [peer for peer in trusted if peer.fits(certificate)]
    shown = f"SHA-256 {fingerprint(certificate).hex()}, names {', '.join(names(certificate)) or 'none'}"
    if not fitting:
        raise ChannelError(f"a peer's certificate is one that the configuration names, this is none of them: {shown}")
    check_validity(certificate, " or ".join(peer.name for peer in fitting))
    return certificate, fitting


def channel_credentials(identity: Identity, peer: Trusted) -> tuple[grpc.ChannelCredentials, str]:
    """Credentials that accept the pinned certificate of `peer` alone, and the name that TLS is to look for in it."""
    pins = peer.pins_in_time()
    if not pins:
        raise ConfigError(f"to connect to {peer.name}, give its certificate: an authority is not enough")
    check_validity(identity.certificate(), identity.name)
    named = names(pins[0])
    if not named:
        raise ConfigError(f"the certificate of {peer.name} has a DNS name, or a common name; this one has neither")
    # With exact pins the name proves nothing more; gRPC wants one that is in the certificate.
    expected = named[0].replace("*", "any") if named[0].startswith("*.") else named[0]
    roots = b"".join(pin.public_bytes(Encoding.PEM) for pin in pins)
    credentials = grpc.ssl_channel_credentials(roots, identity.private_key_pem, identity.certificate_pem)
    return credentials, expected


def server_credentials(identity: Identity, trusted: Sequence[Trusted]) -> grpc.ServerCredentials:
    """Credentials that ask for a certificate and take those of `trusted`, and what their authorities signed.

    Raises ConfigError where no certificate of `trusted` is valid now; one of several that is not is left out.
    """
    if not trusted:
        raise ConfigError("a listener has at least one trusted peer, there is none")
    check_validity(identity.certificate(), identity.name)
    roots: dict[bytes, None] = {}
    for peer in trusted:
        for root in _load(peer.certificate_pem or peer.authority_pem, f"the certificate for {peer.name}"):
            try:
                check_validity(root, peer.name)
            except ChannelError as error:  # left in, it would hide its successor of the same subject from TLS
                _log.warning("a certificate for %s is of no use: %s", peer.name, error)
            else:
                roots[root.public_bytes(Encoding.PEM)] = None
    if not roots:
        raise ConfigError("a listener has a trusted certificate that is valid now, all it has are out of their time")
    pair = (identity.private_key_pem, identity.certificate_pem)
    return grpc.ssl_server_credentials([pair], root_certificates=b"".join(roots), require_client_auth=True)


_checked = threading.Event()


def require_tls13(identity: Identity) -> None:
    """Raises ChannelError where this process's gRPC would still speak TLS 1.2. Tried once, on loopback."""
    if _checked.is_set():
        return
    server = grpc.server(ThreadPoolExecutor(1))
    pair = (identity.private_key_pem, identity.certificate_pem)
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    server.start()
    try:
        offered = accepts_tls12("127.0.0.1", port)
    finally:
        server.stop(None)
    if offered:
        raise ChannelError(
            "connections need TLS 1.3, but gRPC was imported before shareflow and still speaks 1.2: import shareflow "
            f"(or shareflow_client) before grpc, or set GRPC_SSL_CIPHER_SUITES={NO_TLS12} in the environment"
        )
    _checked.set()


def accepts_tls12(host: str, port: int) -> bool:
    """Whether the server at this address agrees to TLS 1.2. Nothing is sent, and who it is does not matter."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    with socket.create_connection((host, port), timeout=10) as plain:
        try:
            with context.wrap_socket(plain):
                return True
        except (ssl.SSLError, ConnectionError):
            return False


def _load(pem: bytes, what: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise ConfigError(f"{what} is a certificate in PEM form (-----BEGIN CERTIFICATE-----), this is not") from None


def _signed(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
