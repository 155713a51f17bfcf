"""Private predictions by large networks over parties: three processes and mutual TLS, against one process.

Run from the root of the repository:

    python -m benchmarks.imagenet_parties                                   # SqueezeNet and ResNet-50
    python -m benchmarks.imagenet_parties --networks resnet50 --json FILE   # one, also for scripts

Both servers, the dealer and the client are processes of this machine, linked over loopback. Material is dealt before,
then the dealer's process is ended, so that a prediction is the servers' work alone. In turn are measured:

* a prediction in one process, dealing and online together;
* the *network's share*: the plan's messages, round by round in their sizes, between two processes that compute nothing,
  over the same kind of link; and reading one execution's material from a store;
* a prediction by the parties.

Of each the median counts. Each server has a processor core of its own, as on machines of their own; one process has
all.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.deployment import Deployment, a_core_each, deployed, environment, free_port
from benchmarks.mnist import machine
from benchmarks.network import await_stock
from shareflow.runtime.channel import Callbacks, FrameKind, Identity, Link, Listener, Trusted, dial
from shareflow.runtime.cut import Part, cut
from shareflow.runtime.part import PartProgram
from shareflow.runtime.plan import Plan
from shareflow.runtime.store import Store

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = REPOSITORY.parent / "shared" / "data"
# What the project aims for: so many times one process's seconds, and the network's share.
FACTOR = 1.5
_OWNER, _CLIENT, _GRAPH = "model-owner", "client", "predict@1"
_SERVERS = ("server0", "server1")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark as asked on the command line; the exit status."""
    about = __doc__.split("\n\n")[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.imagenet_parties", description=about)
    parser.add_argument("--networks", nargs="+", default=["squeezenet", "resnet50"], metavar="NAME")
    parser.add_argument("--runs", type=int, default=5, help="predictions that are timed")
    parser.add_argument("--data", type=Path, default=SHARED, help="the folder with weights and the sample image")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--answer", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.answer:
        folder, port, plan = options.answer
        _answer(Path(folder), int(port), Plan.read(plan))
        return 0
    console = Console(width=None if sys.stdout.isatty() else 160)
    found = []
    for name in options.networks:
        with tempfile.TemporaryDirectory() as folder, console.status(f"{name}: three processes"):
            found.append(measure_parties(name, options.data, options.runs, Path(folder)))
        console.print(table(found))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        record: dict[str, Any] = {"benchmark": "imagenet_parties", "date": now, "machine": machine(), "factor": FACTOR}
        record["results"] = found
        options.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return 0 if all(one["met"] for one in found) else 1


def measure_parties(name: str, data: Path, runs: int, folder: Path) -> dict[str, Any]:
    """One network over parties, and in this process at about the same time.

    Args:
        name: of :data:`benchmarks.imagenet_models.NETWORKS`.
        data: the folder with weights.
        runs: predictions that are timed; the disk has to hold the material of one more.
        folder: an empty one, for plan, keys and stores.

    Returns:
        Seconds (the median of the runs, and the first prediction's), bytes of traffic, highest memory by party.
    """
    import shareflow as sf
    from benchmarks.imagenet_models import NETWORKS
    from shareflow.compiler.model import Model, source_of
    from shareflow_client.client import Client

    network = NETWORKS[name](data)
    x, wanted = network.samples[:1], np.asarray(network.model(network.samples[:1], training=False))
    protocol = sf.SPDZ()
    private = sf.PrivateModel(Model(source_of(network.model), _OWNER, _CLIENT, protocol.fixed_point), protocol)
    private.predict(x, receiver=_CLIENT, progress=False)
    file = folder / f"{name}.plan"
    sf.compile_model(network.model, owner=_OWNER, client=_CLIENT, batch_sizes=(1,)).write(file)
    plan = Plan.read(file)
    parts = [cut(plan, _GRAPH, server) for server in _SERVERS]
    clients = {"owner": _party(plan, "load"), "hospital": _party(plan, "predict")}
    place = folder / "parties"
    place.mkdir()
    stock = {_GRAPH: runs + 1}
    tables = {"server0": f'[stock]\n"{_GRAPH}" = {runs + 1}\n'}
    seconds: dict[str, list[float]] = {"one": [], "messages": [], "reading": [], "parties": []}
    began = time.perf_counter()
    with deployed(place, file, clients, tables=tables, cores=a_core_each(_SERVERS)) as parties:
        starting = time.perf_counter() - began
        with Client(parties.config("owner")) as client:
            began = time.perf_counter()
            client.load(sf.parameters_of(network.model))
            loading = time.perf_counter() - began
        began = time.perf_counter()
        await_stock(parties, stock, 1800.0)  # type: ignore[arg-type]
        dealing = (time.perf_counter() - began) / (runs + 1)
        memory = {str(parties.dealer): _highest(parties, str(parties.dealer))}
        parties.kill(str(parties.dealer), signal.SIGTERM)
        with Client(parties.config("hospital")) as client, _exchange(parties, file, plan, parts[0]) as exchange:
            first, scores = _timed(lambda: client.predict(x))
            after_first = {server: _resident(parties, server) for server in _SERVERS}
            exchange()
            for _ in range(runs):
                seconds["one"].append(_timed(lambda: private.predict(x, receiver=_CLIENT, progress=False))[0])
                seconds["messages"].append(_timed(exchange)[0])
                seconds["reading"].append(_reading(folder, plan, parts[0]))
                seconds["parties"].append(_timed(lambda: client.predict(x))[0])
        memory |= {server: _highest(parties, server) for server in _SERVERS}
        growth = max(_resident(parties, server) - after_first[server] for server in _SERVERS)
    found = {what: statistics.median(times) for what, times in seconds.items()}
    allowed = FACTOR * found["one"] + found["messages"] + found["reading"]
    return {
        "network": name,
        "runs": runs,
        "one_process": found["one"],
        "messages": found["messages"],
        "reading": found["reading"],
        "allowed": allowed,
        "parties": found["parties"],
        "met": found["parties"] <= allowed,
        "first": first,
        "dealing": dealing,
        "loading": loading,
        "starting": starting,
        "online_bytes": sum(m.nbytes for part in parts for step in part.steps for m in step.sends),
        "offline_bytes": sum(part.corrections.nbytes for part in parts if part.corrections is not None),
        "rounds": len(parts[0].steps) - 1,
        "memory": memory,
        "growth": growth,
        "largest_error": float(np.abs(scores - wanted).max()),
        "load_average": os.getloadavg()[0],
        "all": seconds,
    }


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """The figures; green where the aim is met, red where not."""
    found = Table(title="Private predictions, batch 1: three processes over mutual TLS on loopback, and one process")
    found.add_column("network")
    headings = ("one process s", "messages s", "reading s", "allowed s", "parties s", "first s", "dealing s", "load s")
    for heading in (*headings, "rounds", "online MB", "offline MB", "memory GB", "growth MB", "error", "load average"):
        found.add_column(heading, justify="right")
    for row in rows:
        times = [f"{row[key]:.2f}" for key in ("one_process", "messages", "reading", "allowed")]
        found.add_row(
            row["network"],
            *times,
            f"[{'green' if row['met'] else 'red'}]{row['parties']:.2f}[/]",
            *(f"{row[key]:.2f}" for key in ("first", "dealing", "loading")),
            str(row["rounds"]),
            *(f"{row[key] / 1e6:,.0f}" for key in ("online_bytes", "offline_bytes")),
            " ".join(f"{row['memory'][party] / 1e9:.2f}" for party in (*_SERVERS, "dealer")),
            f"{row['growth'] / 1e6:,.0f}",
            f"{row['largest_error']:.1e}",
            f"{row['load_average']:.1f}",
        )
    found.caption = "memory: highest, of both servers and the dealer; growth: of a server, first run to last"
    return found


def _party(plan: Plan, entry: str) -> str:
    graph = plan.manifest.graphs[plan.manifest.entries[entry].variants[0]]
    return next(info.party for info in graph.inputs)


def _timed(run: Any) -> tuple[float, Any]:
    began = time.perf_counter()
    made = run()
    return time.perf_counter() - began, made


# --- the network's share ----------------------------------------------------------------------------------------


def _reading(folder: Path, plan: Plan, part: Part) -> float:
    """Seconds that a store takes to give one execution's material, in the pieces that a server asks for."""
    assert part.corrections is not None
    pieces = PartProgram(part).pieces
    with Store.open(folder / "store", bytes(32), plan_fingerprint=plan.fingerprint, party=part.party) as store:
        (index,) = store.next_indices(1)
        chunk = np.random.default_rng(1).bytes(1 << 20)
        arriving = store.begin_material(_GRAPH, 0, index, bytes(16), part.corrections.nbytes)
        for at in range(0, part.corrections.nbytes, len(chunk)):
            arriving.write(memoryview(chunk)[: part.corrections.nbytes - at])
        store.put_material_many([arriving])
        began = time.perf_counter()
        (material,) = store.take(_GRAPH, 0, [index])
        for piece in pieces:
            material.read(*piece)
        material.close()
        return time.perf_counter() - began


@contextmanager
def _exchange(parties: Deployment, file: Path, plan: Plan, part: Part) -> Iterator[Any]:
    """A function that sends the messages of one execution there and back, between this process and another."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.imagenet_parties", "--answer", str(parties.directory)]
    command += [str(port), str(file)]
    other = subprocess.Popen(command, env=environment(), cwd=REPOSITORY, stdout=subprocess.PIPE)
    try:
        assert other.stdout is not None and other.stdout.readline()
        end = _End(part)
        identity, trusted = _identity(parties.directory, _SERVERS[0]), _trusted(parties.directory, _SERVERS[1])
        link = dial(f"127.0.0.1:{port}", identity, trusted, plan=plan.fingerprint, callbacks=end.callbacks)
        number = iter(range(1, 1 << 62))
        yield lambda: end.run(link, next(number))
        link.close()
    finally:
        other.kill()
        other.wait()


class _End:
    """One end of the exchange: sends its message of each round, and waits for the other's."""

    def __init__(self, part: Part) -> None:
        self.sizes = {m.round: m.nbytes for step in part.steps for m in step.receives}
        self.own = {m.round: memoryview(bytes(m.nbytes)) for step in part.steps for m in step.sends}
        self.came: SimpleQueue[int] = SimpleQueue()
        self.link: SimpleQueue[Link] = SimpleQueue()
        self.callbacks = Callbacks(
            lambda link, frame: self.came.put(frame.round),
            lambda link, text: self.came.put(-1),
            lambda link, kind, execution, round_: self.sizes[round_],
            self.link.put,
        )

    def run(self, link: Link, execution: int) -> None:
        for round_ in sorted({*self.sizes, *self.own}):
            if round_ in self.own:
                link.send(FrameKind.DATA, [self.own[round_]], execution=execution, round=round_)
            if round_ in self.sizes and self.came.get() != round_:
                raise ConnectionError("the other end of the exchange is gone")


def _answer(folder: Path, port: int, plan: Plan) -> None:
    """The other end, for as long as the first one asks."""
    end = _End(cut(plan, _GRAPH, _SERVERS[1]))
    trusted = [_trusted(folder, _SERVERS[0])]
    listener = Listener(
        f"127.0.0.1:{port}", _identity(folder, _SERVERS[1]), trusted, plan=plan.fingerprint, callbacks=end.callbacks
    )
    print("listening", flush=True)
    link = end.link.get()
    try:
        for execution in range(1, 1 << 62):
            end.run(link, execution)
    except ConnectionError:
        listener.close()


def _identity(folder: Path, name: str) -> Identity:
    place = folder / name
    return Identity(name, (place / f"{name}.crt").read_bytes(), (place / f"{name}.key").read_bytes())


def _trusted(folder: Path, name: str) -> Trusted:
    return Trusted(name, (folder / name / f"{name}.crt").read_bytes())


# --- memory -----------------------------------------------------------------------------------------------------


def _highest(parties: Deployment, party: str) -> int:
    return _status(parties, party, "VmHWM")


def _resident(parties: Deployment, party: str) -> int:
    return _status(parties, party, "VmRSS")


def _status(parties: Deployment, party: str, key: str) -> int:
    for line in Path(f"/proc/{parties.processes[party].pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"This system does not tell {key} of a process in /proc.")


if __name__ == "__main__":
    sys.exit(main())
