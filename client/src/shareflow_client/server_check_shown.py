"""What a check of the servers found, as lines for people and as JSON values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from shareflow_client.server_check import CertificateReport, CheckReport

_WARN_DAYS = 30


def check_lines(report: CheckReport) -> Iterator[str]:
    """What was found, for people."""
    yield f"client  {report.name}, acts as {report.acts_as}"
    yield from _certificate_lines(report.certificate)
    yield f"plan    {report.plan}"
    for server in report.servers:
        yield f"\n{server.name}  {server.address}"
        for certificate in server.certificates:
            yield from _certificate_lines(certificate)
        if server.round_trip is not None:
            yield f"  round trip   {1000 * server.round_trip:.2f} ms"
        if server.error is not None:
            yield f"  FAILED       {type(server.error).__name__}: {server.error}"
        elif server.linked is not None:
            yield f"  connected    in {1000 * server.linked:.1f} ms, shareflow {server.software}, same plan"
    yield f"\n{'All servers answer.' if report.passed else 'Not all servers answer.'}"


def _certificate_lines(certificate: CertificateReport) -> Iterator[str]:
    yield f"  certificate  SHA-256 {certificate.fingerprint}"
    soon = ": have a new one signed" if certificate.days_left < _WARN_DAYS else ""
    times = f"{certificate.begins:%Y-%m-%d} to {certificate.ends:%Y-%m-%d}"
    yield f"  valid        {times}, {certificate.days_left} days left{soon}"


def check_values(report: CheckReport) -> dict[str, Any]:
    """What was found, as JSON values."""
    def of_certificate(certificate: CertificateReport) -> dict[str, Any]:
        return {
            "sha256": certificate.fingerprint,
            "begins": certificate.begins.isoformat(),
            "ends": certificate.ends.isoformat(),
        }

    return {
        "name": report.name,
        "acts_as": report.acts_as,
        "plan": report.plan,
        "passed": report.passed,
        "certificate": of_certificate(report.certificate),
        "servers": [
            {
                "name": server.name,
                "address": str(server.address),
                "certificates": [of_certificate(certificate) for certificate in server.certificates],
                "software": server.software,
                "round_trip_seconds": server.round_trip,
                "connect_seconds": server.linked,
                "error": None if server.error is None else f"{type(server.error).__name__}: {server.error}",
            }
            for server in report.servers
        ],
    }
