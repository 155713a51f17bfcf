"""What a client is told in its TOML file: who it is, which plan it runs, and which two servers it talks to."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from shareflow_client import config
from shareflow_client.config import Address, Unfit
from shareflow_client.errors import ConfigError, PlanError
from shareflow_client.link import LinkSettings
from shareflow_client.plan_file import PlanFile, read_plan_file
from shareflow_client.tls import Identity, Trusted


@dataclass(frozen=True, kw_only=True)
class Server:
    """A table ``[[servers]]``: a server of the plan, where it listens, and its exact certificate."""

    name: str = config.party()
    address: Address = config.address()
    certificate: Path = config.file()

    def trusted(self) -> Trusted:
        """The server as a peer, with its certificate pinned.

        Raises:
            ConfigError: the file cannot be read, or is no certificate.
        """
        return Trusted(self.name, certificate_pem=_read(self.certificate))


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The table ``[limits]``: seconds, and how often a request is tried again.

    ``connect`` is for one connection, ``answer`` for one request with all its tries, ``dead_after`` how long a server
    may be silent before its connection is given up.
    """

    connect: float = config.seconds(default=10, low=0.1, high=600)
    # Longer than the servers' request_limit by default: a server then tells why nothing came of a request.
    answer: float = config.seconds(default=150, low=0.1, high=86400)
    dead_after: float = config.seconds(default=20, low=1, high=600)
    retries: int = config.whole(default=3, low=0, high=100)

    def link(self) -> LinkSettings:
        """The settings of both links."""
        return LinkSettings(dead_after=self.dead_after)


@dataclass(frozen=True, kw_only=True)
class ClientConfig:
    """A client's configuration.

    ``name`` is the client's own, as in its certificate; ``acts_as`` the party of the plan that it stands for. ``rows``
    is the most samples of one request, ``in_flight`` how many requests of one call are under way at a time.
    """

    name: str = config.text(pattern=r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", form="a name as in the client's certificate")
    acts_as: str = config.party(default="client")
    plan: Path = config.file()
    fingerprint: str | None = config.fingerprint(default=None)
    certificate: Path = config.file()
    private_key: Path = config.secret_file()
    rows: int = config.whole(default=32, low=1, high=4096)
    in_flight: int = config.whole(default=4, low=1, high=64)
    limits: Limits = config.table(Limits)
    servers: tuple[Server, ...] = config.tables(Server, at_least=2, distinct="name")

    def __post_init__(self) -> None:
        if self.acts_as in {server.name for server in self.servers}:
            raise Unfit("acts_as", "a client is none of its servers. Name the party of the plan that gives the inputs")

    def identity(self) -> Identity:
        """Name, certificate and private key.

        Raises:
            ConfigError: a file cannot be read, is not in PEM form, or the two do not belong together.
        """
        return Identity(self.name, _read(self.certificate), _read(self.private_key), role="client")

    def read_plan(self) -> PlanFile:
        """The plan, after the checks that this client can run it with these servers.

        Raises:
            PlanError: the file is no plan, or another one than ``fingerprint`` says.
            ConfigError: the plan has other servers, or no external party ``acts_as``.
        """
        plan = read_plan_file(self.plan)
        if self.fingerprint is not None and plan.fingerprint != self.fingerprint:
            raise PlanError(
                f"{self.plan}: the plan is the one that was checked: the configuration gives the fingerprint "
                f"{self.fingerprint}, the file has {plan.fingerprint}. Get the right file, or check this one "
                "(shareflow audit) and give its fingerprint."
            )
        contents = plan.contents
        named, needed = {server.name for server in self.servers}, set(contents.protocol.servers)
        if named != needed:
            raise ConfigError(
                f"{self.plan}: [[servers]] are those of the plan, {', '.join(contents.protocol.servers)}; the "
                f"configuration has {', '.join(sorted(named))}. Name each server of the plan once."
            )
        if self.acts_as not in contents.external:
            raise ConfigError(
                f"{self.plan}: acts_as is a party of the plan that does not compute: "
                f"{', '.join(contents.external) or 'there is none'}; the configuration has {self.acts_as!r}."
            )
        return plan


def load_config(path: str | os.PathLike[str]) -> ClientConfig:
    """The configuration in a TOML file.

    Raises:
        ConfigError: names file, table and key.
    """
    return config.load(ClientConfig, path)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}. Check who may read it.") from None
