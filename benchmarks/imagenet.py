"""Private predictions by networks up to ImageNet's size: time, memory, traffic, and agreement with plaintext.

Run from the root of the repository:

    python -m benchmarks.imagenet                                   # all networks, one after the other
    python -m benchmarks.imagenet --networks squeezenet resnet50    # some
    python -m benchmarks.imagenet --json results/imagenet.json      # also for scripts

Each network is compiled, traced, loaded and asked in a process of its own, whose highest memory is that of the row:
model, plaintext, graph, all three parties and both halves of the computation included. "offline" and "online" are
measured one after the other; "together" is the whole graph, which runs both side by side. Traffic is counted from the
graph: what all parties send, were they apart.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.mnist import machine

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = REPOSITORY.parent / "shared" / "data"
# Seconds, bytes of memory and of traffic that the project aims for on two cores, batch 1.
TARGETS = {
    "resnet50": {"together": 8.0, "memory": 5e9, "traffic": 1.5e9, "compiling": 60.0},
    "densenet121": {"together": 20.0},
    "squeezenet": {"together": 4.0, "error": 1e-2},
}
# Samples that are compared with plaintext are predicted so many at a time.
_TOGETHER = 50
SETTING = "batch 1, all three parties in one process, no network"


@dataclass(frozen=True)
class Row:
    """What was measured of one network. Seconds, bytes; ``spread`` is the largest less the smallest of the runs."""

    network: str
    trained: bool
    products: int
    compiling: float
    tracing: float
    loading: float
    offline: float
    online: float
    together: float
    spread: float
    runs: int
    memory: int
    rounds: int
    online_bytes: int
    offline_bytes: int
    samples: int
    agreement: float
    largest_error: float
    mean_error: float
    plaintext_seconds: float
    plain_accuracy: float | None = None
    private_accuracy: float | None = None


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark as asked on the command line; the exit status."""
    from benchmarks.imagenet_models import NETWORKS

    parser = argparse.ArgumentParser(prog="python -m benchmarks.imagenet", description=__doc__.split("\n\n")[0])
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS), metavar="NAME")
    parser.add_argument("--runs", type=int, default=3, help="predictions that are timed")
    parser.add_argument("--samples", type=int, default=20, help="of several samples: how many are compared")
    parser.add_argument("--data", type=Path, default=SHARED, help="the folder with weights, sample image, cifar10.npz")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        print(json.dumps(asdict(measure(options.networks[0], options.data, options.runs, options.samples))))
        return 0
    console = Console(width=None if sys.stdout.isatty() else 160)
    rows, failed = [], []
    for name in options.networks:
        with console.status(f"{name}: compiling, tracing, loading, predicting"):
            command = [sys.executable, "-m", "benchmarks.imagenet", "--one", "--networks", name]
            command += ["--runs", str(options.runs), "--samples", str(options.samples), "--data", str(options.data)]
            done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
        if done.returncode:
            failed.append(name)
            console.print(f"{name} failed:\n{done.stderr[-2000:]}", style="red", markup=False)
            continue
        rows.append(Row(**json.loads(done.stdout.splitlines()[-1])))
        console.print(table(rows[-1:]) if len(options.networks) > 1 else "")
    console.print(table(rows))
    console.print(f"{SETTING}; traffic is what the parties would send.")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        record = {
            "benchmark": "imagenet",
            "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "setting": SETTING,
            "machine": machine(),
            "targets": TARGETS,
            "results": [asdict(row) for row in rows],
        }
        options.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return 1 if failed else 0


def measure(name: str, data: Path, runs: int, samples: int) -> Row:
    """One network, in this process."""
    import shareflow as sf
    from benchmarks.imagenet_models import NETWORKS
    from shareflow.compiler.estimate import estimate
    from shareflow.compiler.model import Model, source_of

    network = NETWORKS[name](data)
    began = time.perf_counter()
    protocol = sf.SPDZ()
    prepared = Model(source_of(network.model), "model-owner", "client", protocol.fixed_point)
    compiled = prepared.compiled(1)
    compiling = time.perf_counter() - began
    began = time.perf_counter()
    private = sf.PrivateModel(prepared, protocol)
    loading = time.perf_counter() - began
    x = network.samples[:1]
    began = time.perf_counter()
    found = [private.predict(x, receiver="client", progress=False)]
    tracing = time.perf_counter() - began
    times = []
    for _ in range(runs):
        began = time.perf_counter()
        private.predict(x, receiver="client", progress=False)
        times.append(time.perf_counter() - began)
    cost = private.cost(1)
    memory = _highest_memory()
    count = min(samples, len(network.samples))
    if count > 1:
        rest = network.samples[1:count]
        found.append(private.predict(rest, receiver="client", batch_size=_TOGETHER, progress=False))
    scores = np.concatenate(found)
    network.model(x, training=False)
    began = time.perf_counter()
    network.model(x, training=False)
    plain_seconds = time.perf_counter() - began
    plain = np.asarray(network.model(network.samples[:count], training=False))
    # The first one prepares the two parts.
    halves = [private.timed(x) for _ in range(1 + max(runs, 1))][1:]
    return Row(
        network=name,
        trained=network.trained,
        products=estimate(compiled.graph).products,
        compiling=compiling,
        tracing=tracing,
        loading=loading,
        offline=statistics.median(half.offline for half in halves),
        online=statistics.median(half.online for half in halves),
        together=statistics.median(times),
        spread=max(times) - min(times),
        runs=runs,
        memory=memory,
        rounds=cost.rounds,
        online_bytes=cost.online_bytes,
        offline_bytes=cost.offline_bytes,
        samples=count,
        agreement=float((plain.argmax(-1) == scores.argmax(-1)).mean()),
        largest_error=float(np.abs(plain - scores).max()),
        mean_error=float(np.abs(plain - scores).mean()),
        plaintext_seconds=plain_seconds,
        plain_accuracy=_accuracy(plain, network.labels),
        private_accuracy=_accuracy(scores, network.labels),
    )


def _accuracy(scores: NDArray[Any], labels: NDArray[Any] | None) -> float | None:
    return None if labels is None else float((scores.argmax(-1) == labels[: len(scores)]).mean())


def _highest_memory() -> int:
    """Bytes that this process held at most."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("This system does not tell the highest memory of a process (VmHWM in /proc/self/status).")


def table(rows: Sequence[Row]) -> Table:
    """The figures; green where a target is met, red where not."""
    found = Table(title=f"Private predictions ({SETTING})")
    found.add_column("network")
    headings = ("GMAC", "compile s", "first s", "load s", "offline s", "online s", "together s", "spread", "memory GB")
    for heading in (*headings, "rounds", "online MB", "offline MB", "all MB", "same class", "largest error"):
        found.add_column(heading, justify="right")
    for row in rows:
        target = TARGETS.get(row.network, {})
        found.add_row(
            row.network + ("" if row.trained else " *"),
            f"{row.products / 1e9:.2f}",
            _judged(row.compiling, target.get("compiling"), ".1f"),
            f"{row.tracing:.1f}",
            f"{row.loading:.1f}",
            f"{row.offline:.2f}",
            f"{row.online:.2f}",
            _judged(row.together, target.get("together"), ".2f"),
            f"{row.spread:.2f}",
            _judged(row.memory, target.get("memory"), ".2f", 1e9),
            str(row.rounds),
            f"{row.online_bytes / 1e6:,.1f}",
            f"{row.offline_bytes / 1e6:,.1f}",
            _judged(row.online_bytes + row.offline_bytes, target.get("traffic"), ",.1f", 1e6),
            f"{row.agreement:.1%} of {row.samples}",
            _judged(row.largest_error, target.get("error"), ".1e"),
        )
    notes = ["* random weights: cost, and agreement with plaintext"] if any(not row.trained for row in rows) else []
    notes += [
        f"{row.network}: {row.plain_accuracy:.2%} right in plaintext, {row.private_accuracy:.2%} privately"
        for row in rows
        if row.plain_accuracy is not None and row.private_accuracy is not None
    ]
    found.caption = "\n".join(notes)
    return found


def _judged(value: float, target: float | None, form: str, unit: float = 1.0) -> str:
    text = f"{value / unit:{form}}"
    if target is None:
        return text
    return f"[{'green' if value <= target else 'red'}]{text}[/]"


if __name__ == "__main__":
    sys.exit(main())
