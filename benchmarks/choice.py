"""Variants chosen for a network beside the defaults: predicted and measured, by parties in processes of their own.

Run from the root of the repository:

    sudo python -m benchmarks.choice --json results/choice.json --docs docs/cost.md   # loopback, LAN and WAN
    python -m benchmarks.choice --networks loopback --count 20                        # a quick look, without root

The programs: network B of the tf-encrypted paper with exact ReLU, 64 values sorted, the largest of 1000, and 10,000
comparisons, each of a client's values and an owner's. For each network shareflow.choose picks the variants; both plans
are then deployed as benchmarks.network does it, with the dealer's material made before, and executions timed one by one
at the client. Predictions are made of the plan, the nominal line and the machine's speeds alone, before anything runs.
Without root LAN and WAN are left out.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from rich.console import Console
from rich.table import Table

import shareflow as sf
from benchmarks.mnist import machine
from benchmarks.namespaces import NamespaceError, require_rights
from benchmarks.network import BenchmarkError, Subject, measure_singles, messages_of, with_block
from shareflow import networks, nn
from shareflow.compiler.cost.choose import Outlook, choose_plan
from shareflow.compiler.cost.decide import variant_text
from shareflow.compiler.cost.speeds import current_speeds
from shareflow.runtime.plan import Plan

NETWORKS = {"loopback": "loopback", "LAN": "lan", "WAN": "wan"}
COUNTS = {"loopback": 50, "LAN": 50, "WAN": 15}
SAMPLES, SEED = 16, 1
_BEGIN = "<!-- begin: figures of benchmarks.choice -->"
_OWNER, _CLIENT, _ONE = "model_owner", "client", "predict@1"


@dataclass(frozen=True)
class Program:
    """What is compiled: its plan, the owner's arrays, a client's samples, and what should come out."""

    name: str
    make: Callable[[], Plan]
    weights: Mapping[str, np.ndarray]
    inputs: np.ndarray
    expected: np.ndarray


@dataclass(frozen=True)
class Row:
    """One program on one network, in the default's variants or in those chosen; seconds."""

    program: str
    network: str
    way: str
    choices: str
    rounds: int
    online_bytes: int
    offline_bytes: int
    predicted: float
    waiting: float
    transfer: float
    computing: float
    measured: float
    p10: float
    p90: float
    load: float

    @property
    def deviation(self) -> float:
        """How far the prediction lies from what was measured, in parts of that."""
        return self.predicted / self.measured - 1


def programs() -> dict[str, Callable[[], Program]]:
    """All that are measured, by name; made when they are needed."""
    rng = np.random.default_rng(SEED)

    def network_b() -> Program:
        keras.utils.set_random_seed(SEED)
        model = networks.NETWORKS["B"]("relu")
        images = rng.random((SAMPLES, *networks.IMAGE_SHAPE), np.float32)

        def make() -> Plan:
            return sf.compile_model(model, owner=_OWNER, client=_CLIENT, batch_sizes=(1,))

        return Program("network B", make, sf.parameters_of(model), images, np.asarray(model(images)))

    def of(name: str, size: int, function: Callable[..., Any], plain: Callable[..., np.ndarray]) -> Program:
        weights = rng.integers(-(2**12), 2**12, size) / 256.0
        inputs = (rng.integers(-(2**12), 2**12, (SAMPLES, size)) / 256.0).astype(np.float32)

        def make() -> Plan:
            def load(w: sf.PrivateTensor) -> dict[str, sf.PrivateTensor]:
                return {"w": w}

            def predict(x: sf.PrivateTensor, w: sf.PrivateTensor) -> sf.PrivateTensor:
                return function(x, w).reveal(_CLIENT)

            return sf.plan(
                {
                    "load": sf.Entry(load, {"w": sf.Input(_OWNER, (size,), "float64")}, keeps=["w"]),
                    "predict": sf.Entry(predict, {"x": sf.Input(_CLIENT, (size,))}, batch_sizes=[1]),
                }
            )

        return Program(name, make, {"w": weights}, inputs, plain(inputs, weights))

    return {
        "network B": network_b,
        "sort 64": lambda: of("sort 64", 64, lambda x, w: nn.sort(x + w), lambda x, w: np.sort(x + w)),
        "argmax 1000": lambda: of(
            "argmax 1000", 1000, lambda x, w: nn.argmax(x + w), lambda x, w: np.argmax(x + w, -1)
        ),
        "10,000 comparisons": lambda: of(
            "10,000 comparisons", 10_000, lambda x, w: x + w >= 0, lambda x, w: (x + w >= 0).astype(float)
        ),
    }


def subject_of(program: Program, plan: Plan, outlook: Outlook, folder: Path) -> Subject:
    """What benchmarks.network deploys."""
    place = Path(tempfile.mkdtemp(dir=folder))
    file, weights, inputs = place / "program.plan", place / "weights.npz", place / "inputs.npy"
    plan.write(file)
    np.savez(weights, **program.weights)
    np.save(inputs, program.inputs)
    messages = messages_of(plan, program.weights, program.inputs[:1])
    return Subject(program.name, file, outlook.cost, messages, weights, inputs, program.expected)


def measured(
    program: Program, network: str, way: str, plan: Plan, outlook: Outlook, folder: Path, options: argparse.Namespace
) -> Row:
    """Deploys one plan on one network and times it.

    Raises:
        BenchmarkError: results are wrong, or servers send other than what is planned.
    """
    subject = subject_of(program, plan, outlook, folder)
    single, _ = measure_singles(subject, network, options.count or COUNTS[network], None, folder, options)
    prediction = outlook.prediction
    made = "; ".join(f"{site}: {variant_text(site, variant)}" for site, variant in outlook.choices.table)
    return Row(
        program=program.name,
        network=network,
        way=way,
        choices=made or "defaults",
        rounds=outlook.cost.rounds,
        online_bytes=outlook.cost.online_bytes,
        offline_bytes=outlook.cost.offline_bytes,
        predicted=prediction.seconds,
        waiting=prediction.latency,
        transfer=prediction.transfer,
        computing=prediction.computing,
        measured=single.median,
        p10=single.p10,
        p90=single.p90,
        load=single.load,
    )


HEADER = (
    "program", "network", "variants", "rounds", "online kB", "offline kB", "predicted ms", "measured ms", "p10 to p90",
    "off by",
)  # fmt: skip


def cells(row: Row) -> list[str]:
    """A row as it is shown."""
    return [
        row.program,
        row.network,
        row.way,
        str(row.rounds),
        f"{row.online_bytes / 1e3:.1f}",
        f"{row.offline_bytes / 1e3:.1f}",
        f"{1e3 * row.predicted:.1f}",
        f"{1e3 * row.measured:.1f}",
        f"{1e3 * row.p10:.1f} to {1e3 * row.p90:.1f}",
        f"{row.deviation:+.0%}",
    ]


def markdown(record: Mapping[str, Any]) -> str:
    """The figures of a record of `--json` as Markdown."""
    rows = [Row(**{k: v for k, v in row.items() if k != "deviation"}) for row in record["rows"]]
    lines = [HEADER, ["---", "---", "---", *["---:"] * 7], *map(cells, rows)]
    text = ["| " + " | ".join(line) + " |" for line in lines]
    text += ["", "What was chosen:", ""]
    text += [f"* {row.program}, {row.network}: {row.choices}." for row in rows if row.way == "chosen"]
    text += ["", f"Measured on {record['date'][:10]}, speeds of {record['speeds']}."]
    return "\n".join(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark as asked on the command line.

    Returns:
        0; 1 where something went wrong; 3 where loopback was measured and networks could not be made.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = programs()
    parser.add_argument("--programs", type=lambda text: text.split(";"), default=list(known), help="separated by ;")
    parser.add_argument("--networks", type=lambda text: text.split(","), default=list(NETWORKS))
    parser.add_argument("--count", type=int, help="executions that are timed; by default 50, over the WAN 15")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds between executions")
    parser.add_argument("--slow-start-after-idle", action="store_true", help="as in benchmarks.network")
    parser.add_argument("--share-cores", action="store_true", help="as in benchmarks.network")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--docs", type=Path, help="a page whose block of figures is written anew")
    options = parser.parse_args(arguments)
    unknown = [name for name in (*options.programs, *options.networks) if name not in (*known, *NETWORKS)]
    if unknown:
        parser.error(f"there is no {unknown[0]!r}; programs: {', '.join(known)}; networks: {', '.join(NETWORKS)}")
    console, wanted, refused = Console(width=None if sys.stdout.isatty() else 160), list(options.networks), None
    try:
        require_rights()
    except NamespaceError as error:
        if wanted != ["loopback"]:
            refused, wanted = str(error), [name for name in wanted if name == "loopback"]
    rows: list[Row] = []
    began, failure = time.monotonic(), None
    try:
        with tempfile.TemporaryDirectory(prefix="shareflow-choice-") as folder:
            for name in options.programs:
                program = known[name]()
                default = program.make()
                for network in wanted:
                    console.print(f"{time.monotonic() - began:4.0f} s  {name}, {network}", highlight=False)
                    choice = choose_plan(program.make, sf.SPDZ(), NETWORKS[network])
                    ways = [("default", default, choice.default[_ONE])]
                    if choice.choices:
                        ways.append(("chosen", choice.plan, choice.chosen[_ONE]))
                    rows += [measured(program, network, *way, Path(folder), options) for way in ways]
    except (BenchmarkError, NamespaceError, sf.errors.ShareflowError, RuntimeError) as error:
        failure = str(error)
    record = {
        "benchmark": "choice",
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(),
        "speeds": current_speeds().machine,
        "seconds": round(time.monotonic() - began, 1),
        "rows": [{**asdict(row), "deviation": row.deviation} for row in rows],
    }
    table = Table(*HEADER, title="Predicted and measured")
    for row in rows:
        table.add_row(*cells(row))
    console.print(table)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    if options.docs and failure is None:
        page = with_block(options.docs.read_text(encoding="utf-8"), markdown(record), _BEGIN)
        options.docs.write_text(page, encoding="utf-8")
    if failure is not None:
        console.print(f"error: {failure}", style="red", markup=False)
        return 1
    if refused:
        console.print(f"LAN and WAN were left out: {refused}", style="red", markup=False)
        return 3
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
