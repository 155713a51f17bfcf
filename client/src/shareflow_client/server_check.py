"""Whether a client's configuration works: each server is reached, is who it should be, and has the same plan."""

from __future__ import annotations

import datetime
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from cryptography import x509

from shareflow_client.client_config import ClientConfig, Server
from shareflow_client.config import Address
from shareflow_client.errors import ChannelError, PeerError, ShareflowError
from shareflow_client.link import Callbacks, Frame, FrameKind, Link, dial
from shareflow_client.session import CONTROL_LIMIT, read_control
from shareflow_client.tls import Identity, fingerprint

_TRIES = 3


@dataclass(frozen=True)
class CertificateReport:
    """A certificate: SHA-256 of its DER form, and the time in which it is valid."""

    fingerprint: str
    begins: datetime.datetime
    ends: datetime.datetime

    @property
    def days_left(self) -> int:
        """Whole days until it ends, negative where it has ended."""
        return (self.ends - datetime.datetime.now(datetime.timezone.utc)).days


@dataclass(frozen=True)
class ServerReport:
    """What was found of one server; ``error`` is None where all is well.

    ``round_trip`` is the shortest time of a TCP connection, ``linked`` that of the whole connection with TLS and
    handshake; both in seconds, None where there was none.
    """

    name: str
    address: Address
    certificates: tuple[CertificateReport, ...]
    software: str = ""
    round_trip: float | None = None
    linked: float | None = None
    error: ShareflowError | None = None


@dataclass(frozen=True)
class CheckReport:
    """What was found of a whole configuration. ``plan`` is the fingerprint that all servers agreed to."""

    name: str
    acts_as: str
    plan: str
    certificate: CertificateReport
    servers: tuple[ServerReport, ...]

    @property
    def passed(self) -> bool:
        """Whether this client can work."""
        return all(server.error is None for server in self.servers)


def check_servers(config: ClientConfig) -> CheckReport:
    """Connects to every server once, and asks nothing of it.

    Raises:
        ConfigError, PlanError: the configuration, or a file it names, cannot be used at all.
    """
    plan = config.read_plan()
    identity = config.identity()
    with ThreadPoolExecutor(len(config.servers)) as pool:
        found = pool.map(lambda server: _check(config, server, identity, plan.fingerprint), config.servers)
        servers = tuple(found)
    return CheckReport(config.name, config.acts_as, plan.fingerprint, _report(identity.certificate()), servers)


def _check(config: ClientConfig, server: Server, identity: Identity, plan: str) -> ServerReport:
    trusted = server.trusted()
    certificates = tuple(map(_report, trusted.pins()))
    round_trip = None
    try:
        round_trip = _round_trip(server.address, config.limits.connect)
        begin = time.perf_counter()
        link = dial(
            str(server.address),
            identity,
            trusted,
            plan=plan,
            callbacks=Callbacks(on_frame=_hear, on_close=lambda link, text: None, size_limit=_size_limit),
            settings=config.limits.link(),
            time_limit=config.limits.connect,
        )
        linked = time.perf_counter() - begin
        software = link.peer_software
        link.close("only checked the connection")
    except ChannelError as error:
        return ServerReport(server.name, server.address, certificates, round_trip=round_trip, error=error)
    return ServerReport(server.name, server.address, certificates, software, round_trip, linked)


def _round_trip(address: Address, limit: float) -> float:
    times = []
    for _ in range(_TRIES):
        begin = time.perf_counter()
        try:
            socket.create_connection((address.host, address.port), timeout=limit).close()
        except OSError as error:
            raise ChannelError(
                f"nobody answers at {address}: {error.strerror or error}. Check the address, that the server runs, and "
                "what stands between (firewall, VPN)."
            ) from None
        times.append(time.perf_counter() - begin)
    return min(times)


def _hear(link: Link, frame: Frame) -> None:
    if read_control(link.peer, frame.payload)["type"] != "notice":
        raise PeerError(f"Nothing was asked; {link.peer} sent an answer.")


def _size_limit(link: Link, kind: FrameKind, execution: int, round: int) -> int | None:
    return CONTROL_LIMIT if kind is FrameKind.CONTROL else None


def _report(certificate: x509.Certificate) -> CertificateReport:
    return CertificateReport(
        fingerprint(certificate).hex(), certificate.not_valid_before_utc, certificate.not_valid_after_utc
    )
