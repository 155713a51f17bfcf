"""A small certificate authority, for organisations that have none.

Each organisation runs its own and gives the others only the certificates it signed: links pin certificates, so nothing
needs to trust this authority, and any other certificates serve as well. Keys are ECDSA on P-256, which every TLS takes.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from shareflow.runtime.store.keys import fresh_key
from shareflow_client.errors import ConfigError
from shareflow_client.tls import fingerprint

AUTHORITY_CERTIFICATE, AUTHORITY_KEY, STORAGE_KEY = "authority.crt", "authority.key", "storage.key"
KINDS = ("party", "client")
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_BEFORE = datetime.timedelta(minutes=10)  # clocks of different machines differ


@dataclass(frozen=True)
class Description:
    """What a certificate says, for people; `kind` is authority, party, client or other (not made here)."""

    name: str
    kind: str
    fingerprint: str
    begins: datetime.datetime
    ends: datetime.datetime
    hosts: tuple[str, ...]


def init_authority(
    directory: str | Path, name: str = "shareflow authority", *, days: int = 3650, overwrite: bool = False
) -> Path:
    """Make an authority's key and certificate in `directory`; gives the certificate's path.

    Raises ConfigError where there is one and `overwrite` is not set: what it signed would no longer fit.
    """
    directory = Path(directory)
    paths = [directory / AUTHORITY_CERTIFICATE, directory / AUTHORITY_KEY]
    _refuse_existing(paths, overwrite)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = _builder(subject, subject, key.public_key(), _end(days))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    certificate = builder.sign(key, hashes.SHA256())
    _make(directory)
    _write(paths[1], _private(key), 0o600)
    _write(paths[0], certificate.public_bytes(Encoding.PEM), 0o644)
    return paths[0]


def sign(
    directory: str | Path,
    name: str,
    kind: str = "party",
    hosts: Sequence[str] = (),
    days: int = 825,
    *,
    into: str | Path | None = None,
    overwrite: bool = False,
) -> Path:
    """Make a key, and a certificate of the authority in `directory`, for a party or client of this name.

    Gives the new directory (`into`, else `directory`/`name`), with `<name>.key`, `<name>.crt`, `authority.crt`, and for
    a party `storage.key`. The certificate holds the name and `hosts` (DNS names, addresses). Raises ConfigError for
    names and times that cannot be, and for files that exist unless `overwrite` is set. A storage key is never
    replaced: what the party has stored could not be read any more.
    """
    if kind not in KINDS:
        raise ConfigError(f"a certificate is for a party or a client, not for {kind!r}")
    if not _NAME.fullmatch(name):
        raise ConfigError(f"a name has 1 to 63 letters, digits, '_', '-' and '.', {name!r} has others")
    directory = Path(directory)
    authority, signing = _authority(directory)
    end = _end(days)
    if end > authority.not_valid_after_utc:
        raise ConfigError(
            f"a certificate ends before that of its authority, which ends {authority.not_valid_after_utc:%Y-%m-%d}; "
            f"{days} days are too many: give fewer, or make a new authority"
        )
    target = directory / name if into is None else Path(into)
    paths = [target / f"{name}.key", target / f"{name}.crt"]
    _refuse_existing(paths, overwrite)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, f"shareflow {kind}"),
            x509.NameAttribute(NameOID.COMMON_NAME, name),
        ]
    )
    builder = _builder(subject, authority.subject, key.public_key(), end)
    alternatives = [x509.DNSName(name), *(_alternative(host) for host in hosts if host != name)]
    builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(signs_certificates=False), critical=True)
    both = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    builder = builder.add_extension(both, critical=False)
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key())
    certificate = builder.add_extension(issuer, critical=False).sign(signing, hashes.SHA256())
    _make(target)
    _write(paths[0], _private(key), 0o600)
    _write(paths[1], certificate.public_bytes(Encoding.PEM), 0o644)
    if target.resolve() != directory.resolve():
        _write(target / AUTHORITY_CERTIFICATE, authority.public_bytes(Encoding.PEM), 0o644)
    if kind == "party" and not (target / STORAGE_KEY).exists():
        _write(target / STORAGE_KEY, fresh_key(), 0o600)
    return target


def describe(certificate_path: str | Path) -> Description:
    """What the (first) certificate of a PEM file says. Raises ConfigError where it is none."""
    certificate = _certificate(Path(certificate_path))
    found = [str(a.value) for a in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    units = [str(a.value) for a in certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)]
    try:
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        hosts = [str(entry.value) for entry in alternatives]
    except x509.ExtensionNotFound:
        hosts = []
    try:
        authority = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        authority = False
    ours = [kind for kind in KINDS if f"shareflow {kind}" in units]
    return Description(
        name=(found or hosts or ["without a name"])[0],
        kind=ours[0] if ours else "authority" if authority else "other",
        fingerprint=fingerprint(certificate).hex(),
        begins=certificate.not_valid_before_utc,
        ends=certificate.not_valid_after_utc,
        hosts=tuple(hosts),
    )


def _authority(directory: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    certificate = _certificate(directory / AUTHORITY_CERTIFICATE)
    try:
        key = load_pem_private_key((directory / AUTHORITY_KEY).read_bytes(), password=None)
    except OSError as error:
        raise ConfigError(
            f"to sign, the authority's key is needed, {directory / AUTHORITY_KEY} cannot be read ({error.strerror}): "
            "make an authority first (shareflow keys init)"
        ) from None
    except (ValueError, TypeError):
        raise ConfigError(f"{directory / AUTHORITY_KEY} is a private key in PEM form, this is not") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise ConfigError(f"{AUTHORITY_KEY} and {AUTHORITY_CERTIFICATE} in {directory} belong together, these do not")
    return certificate, key


def _certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"the certificate {path} cannot be read: {error.strerror}") from None
    except ValueError:
        raise ConfigError(f"{path} is a certificate in PEM form (-----BEGIN CERTIFICATE-----), this is not") from None


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, end: datetime.datetime
) -> x509.CertificateBuilder:
    begin = datetime.datetime.now(datetime.timezone.utc) - _BEFORE
    builder = x509.CertificateBuilder(issuer_name=issuer, subject_name=subject, public_key=key)
    return builder.serial_number(x509.random_serial_number()).not_valid_before(begin).not_valid_after(end)


def _end(days: int) -> datetime.datetime:
    if days < 1:
        raise ConfigError(f"a certificate is valid for at least a day, {days} were given")
    return datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=days)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    if not re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", host):
        raise ConfigError(f"a host is a DNS name or an address, without scheme and port; {host!r} is not")
    return x509.DNSName(host)


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _refuse_existing(paths: Sequence[Path], overwrite: bool) -> None:
    there = [str(path) for path in paths if path.exists()]
    if there and not overwrite:
        raise ConfigError(f"keys are not replaced unasked, {' and '.join(there)} exist: set overwrite to replace them")


def _make(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"the directory {directory} cannot be made: {error.strerror}") from None


def _write(path: Path, content: bytes, mode: int) -> None:
    """The whole file or none: written beside it, with its mode from the start, then renamed."""
    beside = path.with_name(f".{path.name}.new")
    try:
        beside.unlink(missing_ok=True)
        with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from None
