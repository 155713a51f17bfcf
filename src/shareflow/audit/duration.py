"""How long an execution over a network takes, from what crosses in its graph.

A round costs the way from one party to another, not the way and back: both servers send at once. The client's input is
the first round and the result the last. Two more ways pass before the servers begin: the one that follows tells the one
that leads that the input has arrived there, and is told which execution to begin. The leading server sends its first
message along with that, and the two stay half a round trip apart until the end, so in all

    seconds = (rounds + 2) * rtt / 2 + bits / bandwidth + computing,

where the bits are those of the largest input, of the server that sends the other one more, and of the largest result:
an opening is one message each way, and while one server's is under way so is the other's.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from shareflow.audit.cost import Cost
from shareflow.party.send import Kind

# Ethernet frames of 1500 bytes carry 1448 bytes of a TCP stream and take 1538 on the wire.
_WIRE = 1538 / 1448
_BEGINNING = 2


@dataclass(frozen=True)
class Duration:
    """The seconds of one execution whose material is there, by where they go."""

    latency: float
    transfer: float
    computing: float

    @property
    def seconds(self) -> float:
        """All of it: the time from a client's question to its answer."""
        return self.latency + self.transfer + self.computing


def predicted(cost: Cost, *, rtt: float, bandwidth: float, computing: float = 0.0) -> Duration:
    """The time of one execution, where the lines between each two parties are alike and full duplex.

    Args:
        cost: of the graph. What the dealer sends is there before.
        rtt: seconds from one party to another and back.
        bandwidth: of a line in bit/s, each way.
        computing: seconds that all of it takes where the network takes none, such as on one machine.

    Raises:
        ValueError: a time below zero, or a bandwidth that is not above.
    """
    if rtt < 0 or computing < 0 or not bandwidth > 0:
        raise ValueError(
            f"Times are zero or more, and a bandwidth is above zero; got rtt={rtt}, computing={computing}, "
            f"bandwidth={bandwidth}."
        )
    lines: dict[Kind, Counter[tuple[str, str]]] = {}
    for message in cost.messages:
        if not message.offline:
            lines.setdefault(message.kind, Counter())[message.source, message.to] += message.bytes
    size = sum(max(line.values()) for line in lines.values())
    ways = cost.rounds + _BEGINNING if lines else 0
    return Duration(ways * rtt / 2, 8 * size * _WIRE / bandwidth, computing)
