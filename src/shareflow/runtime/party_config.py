"""The configuration of a party process: one TOML file of each organisation. docs/parties.md explains every key."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from shareflow_client import config
from shareflow_client.config import Address, Unfit
from shareflow_client.errors import ConfigError
from shareflow_client.link import LinkSettings
from shareflow_client.manifest import Manifest
from shareflow_client.tls import Identity, Trusted

# Executions to keep material for, where nothing else is said: of entries that keep no state, and of those that do.
_STOCK, _STOCK_OF_KEEPING = 8, 1
_STORAGE_KEY_BYTES = 32


@dataclass(frozen=True, kw_only=True)
class ServingSettings:
    """Table ``[serving]``: how a server computes. Times in seconds."""

    parallel: int = config.whole(default=4, low=1, high=256)
    batch_window: float = config.seconds(default=0.0, high=60.0)
    mix_clients: bool = config.switch(default=False)
    execution_limit: float = config.seconds(default=60.0, low=0.1)
    request_limit: float = config.seconds(default=120.0, low=0.1)
    most_waiting_rows: int = config.whole(default=10_000, low=1, high=1 << 30)
    prefetch: int = config.whole(default=32, low=1, high=1 << 20)
    prefetch_bytes: int = config.size(default="256 MiB", low=1)
    stock_bytes: int = config.size(default="1 GiB", low=1)
    # From the table [stock], and no key of this one.
    stock: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def target(self, manifest: Manifest, graph: str, nbytes: int) -> int:
        """Executions of a graph that the leader wants material for; 0 where the dealer is never asked by itself.

        ``nbytes``: the material of one. Where [stock] does not say, ``stock_bytes`` bounds it; but an entry's smallest
        graph has material for one execution, or nothing could be asked of the entry.
        """
        if graph in self.stock:
            return self.stock[graph]
        entry = manifest.entries[manifest.graphs[graph].entry]
        wanted = _STOCK_OF_KEEPING if entry.keeps else _STOCK
        return max(min(wanted, self.stock_bytes // max(nbytes, 1)), int(graph == entry.variants[0]))


@dataclass(frozen=True, kw_only=True)
class DealingSettings:
    """Table ``[dealing]``: how much may be on its way to a server, dealt and not stored yet."""

    window: int = config.whole(default=64, low=1, high=1 << 16)
    window_bytes: int = config.size(default="256 MiB", low=1)


@dataclass(frozen=True, kw_only=True)
class ClientRights:
    """A table ``[[clients]]``: who may ask, as which parties of the plan, and how much."""

    name: str = config.text(pattern=r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", form="a name as in the client's certificate")
    certificate: Path | None = config.file(default=None)
    authority: Path | None = config.file(default=None)
    acts_as: tuple[str, ...] = config.many(config.party(), at_least=1)
    most_rows: int = config.whole(default=1024, low=1, high=1 << 30)
    rows_per_minute: int = config.whole(default=6000, low=1, high=1 << 30)
    most_waiting: int = config.whole(default=4096, low=1, high=1 << 30)

    def __post_init__(self) -> None:
        if self.certificate is not None and self.authority is not None:
            raise Unfit("authority", "a client is known by its certificate or by an authority. Give one of the two")

    def trusted(self) -> Trusted:
        """Whom a listener takes for this client."""
        return Trusted(self.name, _content(self.certificate), _content(self.authority), role="client")


@dataclass(frozen=True, kw_only=True)
class PeerSettings:
    """A table ``[[parties]]``: another computing party, its certificate, and where it is dialed."""

    name: str = config.party()
    address: Address | None = config.address(default=None)
    certificate: Path = config.file()

    def trusted(self) -> Trusted:
        """The party by its pinned certificate."""
        return Trusted(self.name, _content(self.certificate))


@dataclass(frozen=True, kw_only=True)
class LinkLimits:
    """Table ``[links]``: connections to all peers. Times in seconds."""

    dead_after: float = config.seconds(default=20.0, low=2.0, high=3600.0)
    handshake_limit: float = config.seconds(default=10.0, low=0.5, high=300.0)
    most_per_peer: int = config.whole(default=8, low=1, high=1024)

    def settings(self) -> LinkSettings:
        """What a link takes of it."""
        return LinkSettings(dead_after=self.dead_after)


@dataclass(frozen=True, kw_only=True)
class LogSettings:
    """Table ``[log]``: what goes to standard error, and in which form."""

    level: str = config.choice("debug", "info", "warning", "error", default="info")
    format: str = config.choice("json", "text", default="json")


@dataclass(frozen=True, kw_only=True)
class PartyConfig:
    """The file of one party: servers and dealer alike."""

    name: str = config.party()
    plan: Path = config.file()
    fingerprint: str | None = config.fingerprint(default=None)
    listen: Address | None = config.address(default=None, any_port=True)
    health: Address | None = config.address(default=None, any_port=True)
    data: Path = config.path()
    storage_key: Path = config.secret_file()
    witness: Path | None = config.path(default=None)
    certificate: Path = config.file()
    private_key: Path = config.secret_file()
    grace: float = config.seconds(default=10.0, high=3600.0)
    parties: tuple[PeerSettings, ...] = config.tables(PeerSettings, at_least=2, distinct="name")
    clients: tuple[ClientRights, ...] = config.tables(ClientRights, distinct="name")
    serving: ServingSettings = config.table(ServingSettings)
    stock: Mapping[str, int] = config.named_values(config.whole(low=0, high=1 << 20))
    dealing: DealingSettings = config.table(DealingSettings)
    links: LinkLimits = config.table(LinkLimits)
    log: LogSettings = config.table(LogSettings)

    def __post_init__(self) -> None:
        for position, client in enumerate(self.clients, 1):
            if client.certificate is None and client.authority is None:
                raise Unfit(
                    f"clients[{position}]", f"{client.name} has neither certificate nor authority. Give one of the two"
                )
        if self.name in [peer.name for peer in self.parties]:
            raise Unfit("parties", f"lists the other parties; {self.name} is this one. Take it out")
        for position, peer in enumerate(self.parties, 1):
            own = _content(peer.certificate)
            same = [p.name for p in self.parties[: position - 1] if _content(p.certificate) == own]
            if same:
                key = f"parties[{position}].certificate"
                raise Unfit(key, f"is that of {same[0]} too; a certificate stands for one party. Give the other one")

    @property
    def serving_settings(self) -> ServingSettings:
        """The tables [serving] and [stock]."""
        return dataclasses.replace(self.serving, stock=self.stock)

    def identity(self) -> Identity:
        """Name, certificate and key of this party.

        Raises:
            ConfigError: the key is not that of the certificate, or of a kind that TLS does not take here.
        """
        return Identity(self.name, _content(self.certificate), _content(self.private_key))

    def storage_secret(self) -> bytes:
        """The key that the store is encrypted under, 32 bytes.

        Raises:
            ConfigError: the file has another size.
        """
        secret = _content(self.storage_key)
        if len(secret) != _STORAGE_KEY_BYTES:
            raise ConfigError(
                f"storage_key: the file has {_STORAGE_KEY_BYTES} random bytes; {self.storage_key} has {len(secret)}. "
                "`shareflow keys sign` makes one for each party."
            )
        return secret

    def dials(self, manifest: Manifest) -> tuple[PeerSettings, ...]:
        """The parties that this one connects to: the follower the leader, the dealer both servers."""
        leader, *_ = servers = manifest.protocol.servers
        if self.name == leader:
            return ()
        names = servers if self.name == manifest.protocol.dealer else (leader,)
        return tuple(peer for peer in self.parties if peer.name in names)

    def accepts(self, manifest: Manifest) -> tuple[Trusted, ...]:
        """Who may connect to this party: the parties that dial it, and clients."""
        dialed = self.dials(manifest)
        return (
            *(peer.trusted() for peer in self.parties if peer not in dialed),
            *(client.trusted() for client in self.clients),
        )

    def check(self, manifest: Manifest, fingerprint: str, file: str | os.PathLike[str]) -> None:
        """Compares the configuration with the plan. ``file`` is the one of which errors speak.

        Raises:
            ConfigError: they do not go together; the text names file and key.
        """

        def fail(key: str, text: str) -> NoReturn:
            raise ConfigError(f"{file}: {key}: {text}")

        if self.fingerprint is not None and self.fingerprint != fingerprint:
            fail(
                "fingerprint",
                f"must be that of the plan; {self.plan} has {fingerprint}. Get the plan that was agreed on.",
            )
        if self.name not in manifest.computing:
            fail(
                "name",
                f"must be a computing party of the plan: {', '.join(manifest.computing)}; it is {self.name!r}. Others "
                "use `shareflow predict --config` or `shareflow load --config`.",
            )
        others = [party for party in manifest.computing if party != self.name]
        for position, peer in enumerate(self.parties, 1):
            if peer.name not in others:
                fail(
                    f"[[parties]] #{position} name",
                    f"must be a computing party of the plan: {', '.join(others)}; it is {peer.name!r}. Clients stand "
                    "under [[clients]].",
                )
        missing = [party for party in others if party not in [peer.name for peer in self.parties]]
        if missing:
            fail("parties", f"must list every other computing party; {missing[0]} is missing. Add [[parties]].")
        for peer in self.dials(manifest):
            if peer.address is None:
                fail(
                    f"[[parties]] {peer.name} address",
                    f"{self.name} connects to {peer.name} and must know where. Add it, like 'host:7000'.",
                )
        if self.name == manifest.protocol.dealer:
            if self.listen is not None:
                fail("listen", "a dealer connects to the servers and listens to nobody. Take it out.")
            if self.clients:
                fail("clients", "stand at the servers; nobody sends the dealer requests. Take them out.")
        elif self.listen is None:
            fail("listen", "a server must listen for the other parties and clients. Add it, like '0.0.0.0:7000'.")
        for position, client in enumerate(self.clients, 1):
            if client.name in manifest.computing:
                key = f"[[clients]] #{position} name"
                fail(key, f"must not be that of a computing party; {client.name} is one. Rename the client.")
            unknown = [party for party in client.acts_as if party not in manifest.external]
            if unknown:
                fail(
                    f"[[clients]] #{position} acts_as",
                    f"names parties of the plan that do not compute: {', '.join(manifest.external) or 'none'}; "
                    f"{unknown[0]!r} is none of them. Correct it.",
                )
        for graph in self.stock:
            if graph not in manifest.graphs:
                fail(f"[stock] {graph}", f"must be a graph of the plan: {', '.join(manifest.graphs)}. Correct it.")


def read_party_config(path: str | os.PathLike[str]) -> PartyConfig:
    """The configuration in a file. What depends on the plan is compared by :meth:`PartyConfig.check`.

    Raises:
        ConfigError: the file cannot be used; the text names table and key.
    """
    return config.load(PartyConfig, path)


def _content(path: Path | None) -> bytes:
    if path is None:
        return b""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read any more: {error.strerror}. Look at its mode.") from None
