"""The handshake inside the stream: both ends agree on what they run and on a secret of this session only.

Setting. TLS 1.3 has already shown each end the other's certificate. D dials, L listens.
    D -> L  hello:  wire version, role, software version, names, plan fingerprint, certificate, nonce, X25519 public key
    L -> D  hello:  the same of L
    D -> L  confirm: HMAC-SHA256(confirm key of D, transcript)
    L -> D  confirm: HMAC-SHA256(confirm key of L, transcript)
transcript = SHA-256 over both hellos; secret = HKDF-SHA256(X25519 shared secret, salt = transcript).
Whatever one end saw differently from the other (names, plan, certificates, versions, nonces) gives another transcript,
and no confirmation fits. docs/wire-format.md has the bytes.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import struct
from dataclasses import dataclass

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from shareflow_client.errors import ChannelError

WIRE_VERSION = 1
MAGIC = b"shareflw"
NONCE_BYTES = 32
LABEL = b"shareflow link 1 "
_ROLES = {"party": 1, "client": 2}
_START = struct.Struct("<8sHB")
_LENGTH = struct.Struct("<H")


@dataclass(frozen=True)
class Hello:
    """What one end says of itself; `certificate` is the SHA-256 of its certificate (DER)."""

    role: str
    software: str
    name: str
    peer: str
    fingerprint: str
    certificate: bytes
    nonce: bytes
    public: bytes
    version: int = WIRE_VERSION

    def encode(self) -> bytes:
        """The only encoding of these values."""
        fields = (
            self.software.encode(),
            self.name.encode(),
            self.peer.encode(),
            self.fingerprint.encode(),
            self.certificate,
            self.nonce,
            self.public,
        )
        start = _START.pack(MAGIC, self.version, _ROLES[self.role])
        return start + b"".join(_LENGTH.pack(len(field)) + field for field in fields)


def decode_hello(data: bytes, mine: str) -> Hello:
    """The peer's hello; raises ChannelError for any other bytes than an encoding. `mine` is the own name."""
    if len(data) < _START.size or data[: len(MAGIC)] != MAGIC:
        raise ChannelError(
            "a link begins with the hello of shareflow, the other end sent something else: is its address right?"
        )
    _, version, role = _START.unpack_from(data)
    if version != WIRE_VERSION:
        raise ChannelError(
            f"both ends of a link speak the same wire version: {mine} speaks {WIRE_VERSION}, its peer {version}; "
            "install the same shareflow at both"
        )
    fields, at = [], _START.size
    while at < len(data):
        if at + _LENGTH.size > len(data):
            raise ChannelError("the peer's hello ends in the middle of a field")
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        fields.append(data[at : at + length])
        at += length
    roles = {number: name for name, number in _ROLES.items()}
    sizes = [len(field) for field in fields[4:]]
    if at != len(data) or len(fields) != 7 or role not in roles or sizes != [32, NONCE_BYTES, 32]:
        raise ChannelError("the peer's hello is not formed as wire version 1 has it")
    try:
        software, name, peer, fingerprint = (field.decode() for field in fields[:4])
    except UnicodeDecodeError:
        raise ChannelError("the peer's hello is not formed as wire version 1 has it: text that is not UTF-8") from None
    for text in (software, name, peer, fingerprint):
        if not text.isprintable() or len(text) > 255:
            raise ChannelError("the peer's hello is not formed as wire version 1 has it: a text that is not printable")
    return Hello(roles[role], software, name, peer, fingerprint, fields[4], fields[5], fields[6], version)


@dataclass(frozen=True)
class Session:
    """What a finished handshake gives; the secret is in memory only and never shown."""

    id: bytes
    peer: Hello
    _secret: bytes

    def __repr__(self) -> str:
        return f"Session(id={self.id.hex()}, peer={self.peer.name!r})"

    def key(self, info: bytes) -> bytes:
        """16 bytes for `info`, the same at both ends, different in each session."""
        return _expand(self._secret, b"key " + info, 16)


class Handshake:
    """One end's part of a handshake: my hello, the peer's hello, my confirmation, the peer's confirmation.

    `certificate` is the own one's SHA-256. Raises ChannelError wherever a rule of the handshake fails.
    """

    def __init__(
        self,
        *,
        dials: bool,
        name: str,
        peer: str,
        role: str,
        fingerprint: str,
        certificate: bytes,
        software: str,
    ) -> None:
        self._dials = dials
        self._private = X25519PrivateKey.generate()
        self.mine = Hello(
            role=role,
            software=software,
            name=name,
            peer=peer,
            fingerprint=fingerprint,
            certificate=certificate,
            nonce=secrets.token_bytes(NONCE_BYTES),
            public=self._private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw),
        )
        self._theirs: Hello | None = None
        self._transcript = b""
        self._secret = b""

    def receive(self, theirs: Hello) -> None:
        """Check the peer's hello against the own one and derive the session's secret."""
        mine = self.mine
        if theirs.name != mine.peer or theirs.peer != mine.name:
            raise ChannelError(
                f"each end of a link names the other: {mine.name} expects to talk to {mine.peer}, the other end is "
                f"{theirs.name} and expects {theirs.peer}; correct the address or the names in one configuration"
            )
        if theirs.fingerprint != mine.fingerprint:
            raise ChannelError(
                f"both ends of a link run the same plan: {mine.name} has {mine.fingerprint}, {theirs.name} has "
                f"{theirs.fingerprint}; give both the same plan file"
            )
        if theirs.nonce == mine.nonce or theirs.public == mine.public:
            raise ChannelError("the peer sent our own hello back; is the address our own?")
        first, second = (mine, theirs) if self._dials else (theirs, mine)
        self._transcript = transcript(first, second)
        try:
            shared = self._private.exchange(X25519PublicKey.from_public_bytes(theirs.public))
        except ValueError:
            raise ChannelError("the peer's X25519 public key gives no secret: it has small order") from None
        # HKDF-Extract with the transcript as salt.
        self._secret = hmac.digest(self._transcript, shared, "sha256")
        self._theirs = theirs

    def confirmation(self) -> bytes:
        """What shows the peer that this end has the same transcript and secret."""
        return self._confirmation(self._dials)

    def confirm(self, confirmation: bytes) -> Session:
        """The session, where the peer's confirmation fits; raises ChannelError where not."""
        if self._theirs is None:
            raise ChannelError("a confirmation comes after the hello")
        if not hmac.compare_digest(self._confirmation(not self._dials), confirmation):
            raise ChannelError(
                f"the confirmation of {self._theirs.name} does not fit: the two ends saw different handshakes; "
                "something between them changed bytes, or one of them is not what it says"
            )
        return Session(self._transcript[:16], self._theirs, self._secret)

    def _confirmation(self, of_dialing: bool) -> bytes:
        if not self._secret:
            raise ChannelError("a confirmation comes after the hello")
        key = _expand(self._secret, b"confirm dialing" if of_dialing else b"confirm listening", 32)
        return hmac.digest(key, self._transcript, "sha256")


def transcript(dialing: Hello, listening: Hello) -> bytes:
    """SHA-256 over both hellos, each with its length before it."""
    digest = hashlib.sha256(LABEL + b"transcript")
    for hello in (dialing.encode(), listening.encode()):
        digest.update(struct.pack("<I", len(hello)) + hello)
    return digest.digest()


def _expand(secret: bytes, info: bytes, length: int) -> bytes:
    return HKDFExpand(hashes.SHA256(), length, LABEL + info).derive(secret)
