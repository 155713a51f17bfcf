"""What the audit cannot account for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One thing that is not proved or not allowed.

    ``party`` is who could learn or do something by it ("" where it concerns all), ``where`` a node of the graph or a
    part of the manifest, ``path`` the nodes from what should stay secret to the message, where there is such a path.
    """

    party: str
    where: str
    why: str
    path: tuple[str, ...] = ()

    def to_json(self) -> dict[str, object]:
        """The fields by name."""
        return {"party": self.party, "where": self.where, "why": self.why, "path": list(self.path)}
