"""From a configuration file to a party that runs. Nothing starts before its plan passed the audit."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from shareflow.audit.plan import PlanAudit
from shareflow.errors import PlanError
from shareflow.plan_audit import audited
from shareflow.runtime.party_config import PartyConfig, read_party_config
from shareflow.runtime.party_process import PartyProcess
from shareflow.runtime.plan import Plan

_MOST_FINDINGS = 10


def require_audited(plan: Plan, audit: PlanAudit | None = None) -> None:
    """Refuses a plan that does not pass the audit, which is made here unless it is given.

    Raises:
        PlanError: with what was found.
    """
    audit = audit or audited(plan)
    if audit.passed:
        return
    found = [
        f"{f'graph {graph!r}, ' if graph else ''}{finding.where}: {finding.why}"
        for graph, finding in audit.every_finding()
    ]
    more = f"\n  and {len(found) - _MOST_FINDINGS} more" if len(found) > _MOST_FINDINGS else ""
    raise PlanError(
        f"A plan that does not pass the audit is not run; this one has {len(found)} findings:\n  "
        + "\n  ".join(found[:_MOST_FINDINGS])
        + f"{more}\nDo not run it; ask who compiled it."
    )


def read_party(config_path: str | os.PathLike[str], plan_path: str | os.PathLike[str] | None = None) -> PartyParts:
    """Configuration and audited plan of a party.

    Args:
        config_path: its TOML file.
        plan_path: the plan, where it is not the one that the configuration names; it is checked the same.

    Raises:
        ConfigError: the file cannot be used, or does not go with the plan; names file and key.
        PlanError: the plan cannot be read, or does not pass the audit.
    """
    config = read_party_config(config_path)
    if plan_path is not None:
        config = replace(config, plan=Path(plan_path))
    plan = Plan.read(config.plan)
    config.check(plan.manifest, plan.fingerprint, config_path)
    require_audited(plan)
    return PartyParts(config, plan)


class PartyParts(NamedTuple):
    """What a party runs by."""

    config: PartyConfig
    plan: Plan

    def start(self) -> PartyProcess:
        """Starts the party: see :class:`PartyProcess`."""
        return PartyProcess(self.config, self.plan)
