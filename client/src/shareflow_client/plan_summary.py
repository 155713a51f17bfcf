"""What a plan is for, in short: who takes part, what can be asked, and in which shapes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from shareflow_client.plan_file import PlanFile


def plan_lines(plan: PlanFile) -> Iterator[str]:
    """The summary for people."""
    values = plan_values(plan)
    protocol = values["protocol"]
    yield f"fingerprint  {plan.fingerprint}"
    yield f"written by   shareflow {plan.contents.shareflow}"
    yield f"protocol     {protocol['name']}, {protocol['fractional_bits']} fractional bits"
    yield f"servers      {', '.join(protocol['servers'])}; dealer: {protocol['dealer'] or 'none'}"
    yield f"others       {', '.join(values['external']) or 'none'}"
    for name, entry in values["entries"].items():
        batches = f", batches of {', '.join(map(str, entry['batches']))}" if entry["batches"] else ""
        yield f"\n{name}{batches}"
        for way in ("inputs", "results"):
            for item in entry[way]:
                yield f"  {way[:-1]:<7} {item['name']}  {item['dtype']} {item['shape']}  of {item['party']}"
        for way in ("uses", "keeps"):
            if entry[way]:
                yield f"  {way:<7} {', '.join(entry[way])}"


def plan_values(plan: PlanFile) -> dict[str, Any]:
    """Parties, entries and the shapes of what goes in and out, as JSON values."""
    manifest = plan.contents
    entries = {}
    for name, entry in manifest.entries.items():
        graphs = sorted((manifest.graphs[variant] for variant in entry.variants), key=lambda graph: graph.batch or 0)

        def listed(infos: Sequence[Any], batched: bool = entry.batched) -> list[dict[str, Any]]:
            return [
                {
                    "name": info.name,
                    "party": info.party,
                    "dtype": info.dtype,
                    "shape": ["n", *info.shape[1:]] if batched else list(info.shape),
                }
                for info in infos
            ]

        entries[name] = {
            "batches": [graph.batch for graph in graphs if graph.batch is not None],
            "inputs": listed(graphs[0].inputs),
            "results": listed(graphs[0].results),
            "uses": list(entry.uses),
            "keeps": list(entry.keeps),
        }
    protocol = manifest.protocol
    return {
        "fingerprint": plan.fingerprint,
        "shareflow": manifest.shareflow,
        "protocol": {
            "name": protocol.name,
            "servers": list(protocol.servers),
            "dealer": protocol.dealer,
            "fractional_bits": protocol.fractional_bits,
        },
        "external": list(manifest.external),
        "entries": entries,
    }
