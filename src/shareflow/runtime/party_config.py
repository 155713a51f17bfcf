"""The configuration of a party process: one TOML file of each organisation. docs/parties.md explains every key."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from shareflow_client import config
from shareflow_client.config import Unfit
from shareflow_client.manifest import Manifest

# Executions to keep material for, where nothing else is said: of entries that keep no state, and of those that do.
_STOCK, _STOCK_OF_KEEPING = 8, 1


@dataclass(frozen=True, kw_only=True)
class ServingSettings:
    """Table ``[serving]``: how a server computes. Times in seconds."""

    parallel: int = config.whole(default=4, low=1, high=256)
    batch_window: float = config.seconds(default=0.0, high=60.0)
    execution_limit: float = config.seconds(default=60.0, low=0.1)
    request_limit: float = config.seconds(default=120.0, low=0.1)
    most_waiting_rows: int = config.whole(default=10_000, low=1, high=1 << 30)
    prefetch: int = config.whole(default=32, low=1, high=1 << 20)
    prefetch_bytes: int = config.size(default="256 MiB", low=1)
    # From the table [stock], and no key of this one.
    stock: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def target(self, manifest: Manifest, graph: str) -> int:
        """Executions of a graph that the leader wants material for; 0 where the dealer is never asked by itself."""
        keeps = manifest.entries[manifest.graphs[graph].entry].keeps
        return self.stock.get(graph, _STOCK_OF_KEEPING if keeps else _STOCK)


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
