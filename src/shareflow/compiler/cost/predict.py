"""Seconds of a program or of a step on a network, by where they go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from shareflow.audit.cost import Cost
from shareflow.audit.duration import predicted
from shareflow.compiler.cost.network import Network
from shareflow.compiler.cost.price import Price
from shareflow.compiler.cost.speeds import Speeds
from shareflow.compiler.cost.work import Work
from shareflow.party.party import Party

_WIRE = 1538 / 1448


@dataclass(frozen=True)
class Prediction:
    """Seconds of one execution. ``dealing`` is 0 where the dealer's part ran ahead."""

    latency: float
    transfer: float
    computing: float
    dealing: float = 0.0

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.latency + self.transfer + self.computing + self.dealing

    def with_computing(self, computing: float, dealing: float) -> Prediction:
        """The same with other computing, such as measured."""
        return replace(self, computing=computing, dealing=dealing)

    def __str__(self) -> str:
        parts = f"waiting {1e3 * self.latency:.2f}, transfer {1e3 * self.transfer:.2f}, computing"
        dealt = f", dealing {1e3 * self.dealing:.2f}" if self.dealing else ""
        return f"{1e3 * self.seconds:.2f} ms ({parts} {1e3 * self.computing:.2f}{dealt})"


def predict_program(
    cost: Cost, work: Work, servers: Sequence[Party], dealer: Party, network: Network, speeds: Speeds, offline: bool
) -> Prediction:
    """Of a traced program, whose cost and work were counted.

    Where parties are apart, both servers compute side by side, and owners before and receivers after them. In one
    process one part follows the other, and nothing is sent.

    Args:
        offline: whether the dealer's part counts, or ran ahead. In one process it always counts.
    """
    by_party = {party: speeds.of(vector) for party, vector in work.parties.items()}
    dealing = by_party.pop(dealer.job, 0.0)
    if not network.apart:
        return Prediction(0.0, 0.0, sum(by_party.values()) + speeds.start, dealing + speeds.start * bool(dealing))
    slowest = max((by_party.pop(server.job, 0.0) for server in servers), default=0.0)
    computing = slowest + sum(by_party.values()) + speeds.start
    line = predicted(cost, rtt=network.rtt, bandwidth=network.bandwidth)
    # A correction goes to the server that was sent less so far: each line carries about half.
    dealt = cost.offline_bytes / 2 if offline else 0.0
    return Prediction(
        line.latency + speeds.request + speeds.message * cost.rounds + (network.rtt / 2 if dealt else 0.0),
        line.transfer + 8 * dealt * _WIRE / network.bandwidth,
        computing,
        dealing + speeds.start if offline else 0.0,
    )


def seconds_of(price: Price, network: Network, speeds: Speeds, offline: bool) -> float:
    """Of one step inside a program: what it adds."""
    if not network.apart:
        return speeds.of(price.computing) + speeds.of(price.dealing)
    seconds = price.rounds * (network.rtt / 2 + speeds.message)
    seconds += 8 * (price.online / 2) * _WIRE / network.bandwidth + speeds.of(price.computing) / 2
    if offline:
        seconds += 8 * (price.offline / 2) * _WIRE / network.bandwidth + speeds.of(price.dealing)
    return seconds
