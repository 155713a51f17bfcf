"""The audit of a plan as it stands in its file: before anything of it is run."""

from __future__ import annotations

from shareflow.audit.plan import PlanAudit, audit_plan
from shareflow.runtime.external import steps_of
from shareflow.runtime.plan import Plan


def audited(plan: Plan) -> PlanAudit:
    """What each party of a plan can learn, and what is wrong with it; nothing is run.

    `PlanAudit.require` raises where the plan is not to be run.

    Raises:
        PlanError: a graph that cannot be parsed.
    """
    return audit_plan(plan.manifest, {name: plan.definition(name) for name in plan.manifest.graphs}, steps_of)
