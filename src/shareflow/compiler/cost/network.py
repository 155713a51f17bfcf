"""The network between the parties, as far as times depend on it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from shareflow.errors import ConfigError

_TIMES = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
_RATES = {"kbit": 1e3, "mbit": 1e6, "gbit": 1e9}
_NUMBER = re.compile(r"([0-9]*\.?[0-9]+)\s*([a-z/]*)")


@dataclass(frozen=True)
class Network:
    """Lines between each two parties, all alike, full duplex: both ends send at the full rate at once.

    Args:
        rtt: seconds from one party to another and back.
        bandwidth: of a line in bit/s, each way; infinite where parties share a process.
        apart: each party is a process of its own. Otherwise one process computes all parts, one after the other, and
            nothing waits for a message.
        name: for people.

    Raises:
        ConfigError: a time below zero, or a bandwidth that is not above.
    """

    rtt: float
    bandwidth: float
    apart: bool = True
    name: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.rtt < math.inf or not self.bandwidth > 0:
            raise ConfigError(
                "A network has a round trip of zero seconds or more and a bandwidth above zero; got "
                f"rtt={self.rtt}, bandwidth={self.bandwidth}."
            )

    @classmethod
    def parse(cls, text: str | Network) -> Network:
        """ "here", "loopback", "lan", "wan", or a round trip and a bandwidth such as "40ms,100Mbit".

        Raises:
            ConfigError: it is neither.
        """
        if isinstance(text, Network):
            return text
        named = NETWORKS.get(text.strip().lower())
        if named is not None:
            return named
        parts = text.lower().split(",")
        if len(parts) == 2:
            rtt, bandwidth = _quantity(parts[0], _TIMES, "ms"), _quantity(parts[1], _RATES, "mbit")
            if rtt is not None and bandwidth:
                return cls(rtt, bandwidth, name=text.strip())
        raise ConfigError(
            f"A network is one of {', '.join(NETWORKS)}, or the round trip and the bandwidth of a line, such as "
            f"'40ms,100Mbit' (us, ms, s; kbit, Mbit, Gbit); got {text!r}."
        )

    def __str__(self) -> str:
        if not self.apart:
            return f"{self.name or 'here'}: one process"
        line = f"round trip {1e3 * self.rtt:g} ms, {self.bandwidth / 1e6:g} Mbit/s each way"
        return f"{self.name}: {line}" if self.name else line


def _quantity(text: str, units: dict[str, float], usual: str) -> float | None:
    found = _NUMBER.fullmatch(text.strip())
    if found is None:
        return None
    unit = found[2].removesuffix("/s") if found[2] != "s" else "s"
    factor = units.get(unit or usual)
    return None if factor is None else float(found[1]) * factor


NETWORKS = {
    "here": Network(0.0, math.inf, apart=False, name="here"),
    "loopback": Network(0.0, math.inf, name="loopback"),
    "lan": Network(0.3e-3, 1e9, name="lan"),
    "wan": Network(40e-3, 100e6, name="wan"),
}
