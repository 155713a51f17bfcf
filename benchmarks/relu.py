"""Exact ReLU by size, layout and declared bound: milliseconds, rounds and bytes, all three parties in one process.

Run from the root of the repository:

    python -m benchmarks.relu
    python -m benchmarks.relu --sizes 128,16384 --runs 50 --markdown relu.md
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

import shareflow as sf
from shareflow.ring import kernels

# A value of a network is seldom larger; then only 4 + 16 bits lie below its sign.
BOUND = 16.0
SETTINGS = tuple((prefer, bound) for bound in (None, BOUND) for prefer in ("balanced", "latency", "bandwidth"))


@dataclass(frozen=True)
class Row:
    """Exact ReLU on ``size`` elements; milliseconds are medians, with quartiles, of offline and online together."""

    size: int
    prefer: str
    bound: float | None
    milliseconds: float
    lower: float
    upper: float
    offline: float
    online: float
    rounds: int
    online_bytes: float
    offline_bytes: float


def measure(size: int, prefer: str, bound: float | None, runs: int) -> Row:
    """Times one setting; inputs are shared before, masking them is part of the run, and results are checked."""
    protocol = sf.SPDZ(comparison=sf.MaskedCarry(prefer=prefer))
    values = np.random.default_rng(size).uniform(-8, 8, size)
    x = sf.private_tensor(values, "client").shared(protocol)
    relu = sf.function(lambda x: sf.relu(x, bound=bound))
    result = relu(x)
    if np.abs(result.reveal("client").numpy() - np.maximum(values, 0)).max() > 2.0**-16:
        raise RuntimeError("a result is wrong")
    times = []
    for _ in range(runs):
        began = time.perf_counter()
        relu(x)
        times.append(1e3 * (time.perf_counter() - began))
    relu.timed(x)
    halves = [relu.timed(x)[1] for _ in range(max(3, runs // 3))]
    lower, _, upper = statistics.quantiles(times, n=4)
    cost = relu.cost(x)
    return Row(
        size,
        prefer,
        bound,
        statistics.median(times),
        lower,
        upper,
        1e3 * statistics.median(half.offline for half in halves),
        1e3 * statistics.median(half.online for half in halves),
        cost.rounds,
        cost.online_bytes / size,
        cost.offline_bytes / size,
    )


HEADER = ("elements", "bound", "prefer", "ms", "quartiles", "offline + online ms", "rounds", "online B", "offline B")


def cells(row: Row) -> list[str]:
    """A row as it is shown; bytes an element, of all parties."""
    return [
        f"{row.size:,}",
        "" if row.bound is None else f"{row.bound:g}",
        row.prefer,
        f"{row.milliseconds:.2f}",
        f"{row.lower:.2f}-{row.upper:.2f}",
        f"{row.offline:.2f} + {row.online:.2f}",
        str(row.rounds),
        f"{row.online_bytes:.2f}",
        f"{row.offline_bytes:.2f}",
    ]


def markdown(rows: Sequence[Row]) -> str:
    """The same as a table in Markdown."""
    lines = [HEADER, ["---"] * len(HEADER), *map(cells, rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark as asked on the command line; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=lambda text: [int(n) for n in text.split(",")], default=[128, 1 << 14, 1 << 20])
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--markdown", type=Path, help="also write the table here")
    parser.add_argument("--json", type=Path, default=Path("results/relu.json"))
    options = parser.parse_args(arguments)
    console = Console(width=None if os.isatty(1) else 120)
    wanted = [(size, prefer, bound) for size in options.sizes for prefer, bound in SETTINGS]
    rows = [measure(*setting, options.runs) for setting in track(wanted, "exact ReLU", console=Console(stderr=True))]
    machine = f"{os.cpu_count()} cores, {platform.machine()}, kernels {kernels.instruction_set()}"
    table = Table(title=f"Exact ReLU, three parties in one process; {machine}")
    for name in HEADER:
        table.add_column(name, justify="left" if name == "prefer" else "right")
    for row in rows:
        table.add_row(*cells(row))
    console.print(table)
    if options.markdown:
        options.markdown.write_text(markdown(rows))
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps({"machine": machine, "rows": [asdict(row) for row in rows]}, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
