"""Private predictions by three parties and a client as processes: on loopback, over a LAN and over a WAN.

Run from the root of the repository:

    sudo python -m benchmarks.network --json results/network.json --docs docs/network.md   # all of it
    python -m benchmarks.network --networks loopback --models A --count 20                 # a quick look, without root

For each of networks A, B and C of the tf-encrypted paper, with exact ReLU and random weights, batch 1: server0,
server1, the dealer and the client each run as a process, over gRPC with mutual TLS; for LAN and WAN each in a network
namespace of its own (benchmarks/namespaces.py). The dealer's material is made first; then the dealer is stopped, and
predictions are timed one by one at the client. Each server has a processor core of its own (``--share-cores`` leaves
that to the kernel). Beside the measured time stands the one that shareflow.audit.duration
predicts of the plan, where computing is what was measured on loopback. docs/network.md tells what the figures mean.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.table import Table

import shareflow as sf
from benchmarks.deployment import Deployment, a_core_each, environment
from benchmarks.mnist import machine
from benchmarks.namespaces import Line, NamespaceError, Network, joined, means_of, require_rights
from shareflow import networks
from shareflow.audit.cost import Cost
from shareflow.audit.duration import Duration, predicted
from shareflow.plan_audit import audited
from shareflow.runtime.plan import Plan
from shareflow.runtime.rehearsal import insecure_rehearsal

LINES = {"loopback": None, "LAN": Line(rtt=0.3e-3, bandwidth=1e9), "WAN": Line(rtt=40e-3, bandwidth=100e6)}
MODELS = tuple(networks.NETWORKS)
COUNTS = {"loopback": 100, "LAN": 100, "WAN": 20}
WARM_UPS = 10
SEED = 1

# Of issue 4, by network and model: seconds of one prediction at most, and predictions a second at least.
TARGET_SECONDS = {("loopback", "A"): 7e-3, ("loopback", "C"): 40e-3, ("WAN", "C"): 1.0}
TARGET_RATE = 100.0
TARGET_DEVIATION = 0.25

_ENTRY, _CLIENT, _OWNER = "predict", "client", "model_owner"
_ONE = f"{_ENTRY}@1"
_BATCHES = (1, 8)
# One full batch after the other: an execution of eight rows takes as long with three of them.
_SERVING = "parallel = 1\nbatch_window = 0.02"
_SLOW_START = Path("/proc/sys/net/ipv4/tcp_slow_start_after_idle")
_BEGIN, _END = "<!-- begin: figures of benchmarks.network -->", "<!-- end -->"


class BenchmarkError(Exception):
    """A measurement that cannot be made, or that shows something wrong."""


@dataclass(frozen=True)
class Single:
    """Predictions one by one: seconds at the client, and what the servers told each other in one of them.

    ``messages`` and ``bytes`` are of one server to the other; ``rtt`` is that of an echo between them before, 0 on
    loopback; ``predicted`` is None on loopback, where computing is
    measured. ``load`` is the mean of running processes just before.
    """

    network: str
    model: str
    count: int
    median: float
    p10: float
    p90: float
    largest_error: float
    rounds: int
    messages: int
    bytes: int
    planned_bytes: int
    rtt: float
    predicted: Duration | None
    load: float

    @property
    def deviation(self) -> float | None:
        """How far the measured time lies from the predicted, in parts of the measured one."""
        return None if self.predicted is None else self.predicted.seconds / self.median - 1


@dataclass(frozen=True)
class Many:
    """Predictions that clients ask for side by side, on loopback: answered in ``window`` seconds, and their latency."""

    model: str
    clients: int
    window: float
    predictions: int
    median: float
    p90: float
    rows_by_execution: float

    @property
    def rate(self) -> float:
        """Predictions a second."""
        return self.predictions / self.window


@dataclass(frozen=True)
class Subject:
    """A model made ready: its plan with the cost of a prediction, weights, inputs and what should come out."""

    letter: str
    plan: Path
    cost: Cost
    messages: int
    weights: Path
    inputs: Path
    expected: np.ndarray


class Parties(Deployment):
    """A deployment, each of whose processes may be in a network namespace."""

    network: Network | None = None

    def status(self, party: str) -> str:
        return self._at(party, lambda: super(Parties, self).status(party))

    def metrics(self, party: str) -> str:
        return self._at(party, lambda: super(Parties, self).metrics(party))

    def _at(self, party: str, ask: Callable[[], str]) -> str:
        return ask() if self.network is None else self.network.inside(party, ask)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark as asked on the command line.

    Returns:
        0; 1 where something went wrong; 3 where loopback was measured and networks could not be made.
    """
    options = _parser().parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 140)
    chosen, refused = list(options.networks), None
    if options.docs and not options.docs.exists():
        console.print(f"--docs {options.docs} is not there; its block of figures is rewritten, not made.", style="red")
        return 1
    if any(LINES[name] for name in chosen):
        try:
            require_rights()
        except NamespaceError as error:
            refused = str(error)
            chosen = [name for name in chosen if not LINES[name]]
    started = time.monotonic()
    singles: list[Single] = []
    many: list[Many] = []
    means: str | None = None
    failure = None
    try:
        with tempfile.TemporaryDirectory(prefix="shareflow-network-") as folder:
            for letter in options.models if chosen else ():
                with console.status(f"network {letter}: compiling"):
                    subject = prepared(letter, Path(folder))
                computing = None
                for name in chosen:
                    console.print(f"{time.monotonic() - started:4.0f} s  network {letter}, {name}", highlight=False)
                    count = options.count or COUNTS[name]
                    with console.status("starting the parties, dealing, measuring"):
                        found, means_here = measure_singles(subject, name, count, computing, Path(folder), options)
                    singles.append(found)
                    means = means_here or means
                    if LINES[name] is None:
                        computing = found.median
            if options.seconds and "C" in options.models and "loopback" in chosen:
                at = time.monotonic() - started
                console.print(f"{at:4.0f} s  network C, {options.clients} clients", highlight=False)
                with console.status("starting the parties, dealing, measuring"):
                    many.append(measure_many("C", Path(folder), options))
    except (BenchmarkError, NamespaceError, sf.errors.ShareflowError, RuntimeError) as error:
        failure = str(error)
    record = {
        "benchmark": "network",
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(),
        "lines": {name: None if line is None else asdict(line) for name, line in LINES.items()},
        "means": means,
        "a_core_each": not options.share_cores and bool(a_core_each(("first", "second"))),
        "seconds": round(time.monotonic() - started, 1),
        "singles": [{**asdict(one), "deviation": one.deviation} for one in singles],
        "many": [{**asdict(one), "rate": one.rate} for one in many],
    }
    console.print(table_of(singles))
    for one in many:
        console.print(sentence_of(one))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    if options.docs and failure is None:
        page = with_block(options.docs.read_text(encoding="utf-8"), markdown(record))
        options.docs.write_text(page, encoding="utf-8")
    else:
        console.print(markdown(record), markup=False, highlight=False, soft_wrap=True)
    if failure is not None:
        console.print(f"error: {failure}", style="red", markup=False)
        return 1
    if refused:
        console.print(f"LAN and WAN were left out: {refused}", style="red", markup=False)
        return 3
    return 0


# --- what is measured -------------------------------------------------------------------------------------------


def prepared(letter: str, folder: Path, batches: Sequence[int] = (1,)) -> Subject:
    """Compiles a network with random weights, audits its plan, and counts the messages of a prediction.

    Raises:
        BenchmarkError: the servers' messages are not one each way in each of the plan's rounds.
    """
    keras.utils.set_random_seed(SEED)
    model = networks.NETWORKS[letter]("relu")
    plan = sf.compile_model(model, owner=_OWNER, client=_CLIENT, batch_sizes=tuple(batches))
    images = np.random.default_rng(SEED).random((64, *networks.IMAGE_SHAPE), np.float32)
    name = f"{letter}-{'-'.join(map(str, batches))}"
    file, weights, inputs = (folder / f"{name}{end}" for end in (".plan", "-weights.npz", "-inputs.npy"))
    plan.write(file)
    values = sf.parameters_of(model)
    np.savez(weights, **values)
    np.save(inputs, images)
    audit = audited(plan)
    audit.require()
    (cost,) = (graph.cost for graph in audit.graphs if graph.name == _ONE)
    messages = messages_of(plan, values, images[:1])
    # The first round of the plan is the client's input, the last one the result.
    if messages != cost.rounds - 2:
        raise BenchmarkError(
            f"Servers send each other one message in each round; network {letter} has {cost.rounds} rounds with input "
            f"and result, and each server sent {messages} messages."
        )
    return Subject(letter, file, cost, messages, weights, inputs, np.asarray(model(images)))


def messages_of(plan: Plan, weights: Mapping[str, np.ndarray], image: np.ndarray) -> int:
    """Messages of a server to the other one in one prediction, counted in one that is run.

    Raises:
        BenchmarkError: the two servers do not send equally many.
    """
    session = sf.insecure_session(SEED)
    loaded = insecure_rehearsal(plan, "load", weights, session)
    (image_name,) = (tensor.name for tensor in plan.manifest.graphs[_ONE].inputs)
    done = insecure_rehearsal(plan, _ONE, {image_name: image}, session, loaded.state)
    first, second = plan.manifest.protocol.servers
    ways = [(source, to) for source, to, _, _ in done.messages]
    counts = ways.count((first, second)), ways.count((second, first))
    if counts[0] != counts[1]:
        raise BenchmarkError(f"Servers send each other equally many messages; it was {counts[0]} and {counts[1]}.")
    return counts[0]


def measure_singles(
    subject: Subject, name: str, count: int, computing: float | None, folder: Path, options: argparse.Namespace
) -> tuple[Single, str | None]:
    """Times predictions one by one; also the means by which the lines were made, if there were lines."""
    line, executions = LINES[name], count + WARM_UPS
    with contextlib.ExitStack() as stack:
        network = means = None
        rtt = 0.0
        if line is not None:
            network = stack.enter_context(joined((*_servers(subject.plan), "client"), line))
            means = means_of(network)
            rtt = network.round_trip(*_servers(subject.plan)[:2])
            if not options.slow_start_after_idle:
                keep_window(network)
        parties = stack.enter_context(
            running(
                subject,
                ["client"],
                {_ONE: executions},
                folder,
                network=network,
                tables="",
                share_cores=options.share_cores,
            )
        )
        load = os.getloadavg()[0]
        before = sent_bytes(parties)
        results = folder / "results.npy"
        said = ask(
            network,
            *("latency", str(parties.config("client")), str(subject.inputs)),
            *("--count", str(count), "--warm-ups", str(WARM_UPS), "--results", str(results)),
            *("--pause", str(options.pause)),
        )
        sent = [after - earlier for after, earlier in zip(sent_bytes(parties), before, strict=True)]
    planned = subject.cost.bytes_by_link(False)
    servers = Plan.read(subject.plan).manifest.protocol.servers
    ways = [planned[servers], planned[servers[::-1]]]
    if sent != [executions * way for way in ways]:
        raise BenchmarkError(
            f"Servers send what the plan says; {executions} predictions sent {sent} bytes each way, {ways} are planned "
            "for one."
        )
    found = np.load(results)
    wanted = subject.expected[(np.arange(count) + WARM_UPS) % len(subject.expected)]
    error = float(np.abs(found - wanted).max())
    if not error < 0.01:
        raise BenchmarkError(f"Private scores are those of the model up to 0.01; here they are off by {error:.3g}.")
    seconds = np.array(said["seconds"])
    forecast = None
    if line is not None and computing is not None:
        forecast = predicted(subject.cost, rtt=rtt, bandwidth=line.bandwidth, computing=computing)
    single = Single(
        network=name,
        model=subject.letter,
        count=count,
        median=float(np.median(seconds)),
        p10=float(np.percentile(seconds, 10)),
        p90=float(np.percentile(seconds, 90)),
        largest_error=error,
        rounds=subject.cost.rounds,
        messages=subject.messages,
        bytes=sent[0] // executions,
        planned_bytes=ways[0],
        rtt=rtt,
        predicted=forecast,
        load=load,
    )
    return single, means


def measure_many(letter: str, folder: Path, options: argparse.Namespace) -> Many:
    """Times predictions that clients ask for side by side, on loopback, rows of different clients going together."""
    subject = prepared(letter, folder, _BATCHES)
    clients = [f"client{number}" for number in range(options.clients)]
    # Enough at three times the target with full batches, or at the target with batches of a third.
    rows = 3 * TARGET_RATE * options.seconds
    stock = {f"{_ENTRY}@{size}": max(int(rows / size), 20) for size in _BATCHES if size > 1} | {_ONE: 20}
    tables = f"[serving]\nmix_clients = true\n{options.serving}\n"
    with running(
        subject, clients, stock, folder, network=None, tables=tables, share_cores=options.share_cores
    ) as parties:
        before = executions_of(parties)
        said = ask(
            None,
            *("throughput", str(subject.inputs), *(str(parties.config(client)) for client in clients)),
            *("--seconds", str(options.seconds)),
        )
        after = executions_of(parties)
    seconds = np.array(said["seconds"])
    rows, executions = (later - earlier for later, earlier in zip(after, before, strict=True))
    return Many(
        model=letter,
        clients=options.clients,
        window=said["window"],
        predictions=said["predictions"],
        median=float(np.median(seconds)),
        p90=float(np.percentile(seconds, 90)),
        rows_by_execution=rows / executions,
    )


# --- parties ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def running(
    subject: Subject,
    clients: Sequence[str],
    stock: Mapping[str, int],
    folder: Path,
    *,
    network: Network | None,
    tables: str,
    share_cores: bool,
) -> Iterator[Parties]:
    """Servers that have the weights and this much material, the dealer stopped again."""
    servers = Plan.read(subject.plan).manifest.protocol.servers
    stocked = "[stock]\n" + "".join(f'"{graph}" = {count}\n' for graph, count in stock.items())
    everyone = _servers(subject.plan)
    with tempfile.TemporaryDirectory(dir=folder) as place:
        parties = Parties(
            Path(place),
            subject.plan,
            {"owner": _OWNER, **dict.fromkeys(clients, _CLIENT)},
            hosts={name: network.address(name) for name in everyone} if network else {},
            tables={servers[0]: tables + stocked, servers[1]: tables},
            prefix={name: network.prefix(name) for name in everyone} if network else {},
            cores={} if share_cores else a_core_each(servers),
        )
        parties.network = network
        try:
            parties.start()
            parties.await_links()
            ask(network, "load", str(parties.config("owner")), str(subject.weights))
            await_stock(parties, stock)
            parties.kill(str(parties.dealer), signal.SIGTERM)
            yield parties
        finally:
            parties.stop()


def await_stock(parties: Parties, stock: Mapping[str, int], seconds: float = 180.0) -> None:
    """Waits until the leader has all material that was asked for.

    Raises:
        BenchmarkError: it is not there in time.
    """
    deadline = time.monotonic() + seconds
    while True:
        found = [json.loads(parties.status(server) or "{}").get("stock", {}) for server in parties.servers]
        if all(part.get(graph, 0) >= count for part in found for graph, count in stock.items()):
            return
        if time.monotonic() > deadline or any(process.poll() is not None for process in parties.processes.values()):
            log = parties.log(parties.servers[0]).read_text()[-2000:]
            raise BenchmarkError(f"The material was not there within {seconds:g} s: {found} of {dict(stock)}.\n{log}")
        time.sleep(0.2)


def sent_bytes(parties: Parties) -> list[int]:
    """What each server has sent the other one in executions."""
    first, second = parties.servers
    return [
        int(metric(parties.metrics(server), "shareflow_bytes_sent_total", peer=peer))
        for server, peer in ((first, second), (second, first))
    ]


def executions_of(parties: Parties) -> tuple[int, int]:
    """Rows that the leader has computed, and in how many executions."""
    text = parties.metrics(parties.servers[0])
    return int(metric(text, "shareflow_rows_total", entry=_ENTRY)), int(
        sum(metric(text, "shareflow_executions_total", graph=f"{_ENTRY}@{n}", outcome="ok") for n in _BATCHES)
    )


def metric(text: str, name: str, **labels: str) -> float:
    """A value in Prometheus' text form; 0 where it was never counted."""
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return float(sample.value)
    return 0.0


def ask(network: Network | None, *arguments: str) -> Any:
    """Runs the client's side, in its namespace if there is one, and gives what it says.

    Raises:
        BenchmarkError: it failed.
    """
    prefix = network.prefix("client") if network else ()
    command = [*prefix, sys.executable, "-m", "benchmarks.network_client", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment(), check=False)
    if done.returncode:
        raise BenchmarkError(f"The client failed at `{arguments[0]}`:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def keep_window(network: Network) -> None:
    """Lets a connection that was idle go on at the speed that it had, as docs/network.md advises for servers."""
    for name in network.names:
        network.inside(name, lambda: _SLOW_START.write_text("0"))


def _servers(plan: Path) -> tuple[str, ...]:
    protocol = Plan.read(plan).manifest.protocol
    return (*protocol.servers, str(protocol.dealer))


# --- what is shown ----------------------------------------------------------------------------------------------


def table_of(singles: Sequence[Single]) -> Table:
    """One row a measurement, medians within their targets green."""
    table = Table(title="One prediction at a time, exact ReLU, batch 1")
    for header in ("network", "model"):
        table.add_column(header)
    for header in ("median ms", "p10", "p90", "predicted ms", "off by", "rounds", "kB each way", "load"):
        table.add_column(header, justify="right")
    for one in singles:
        target = TARGET_SECONDS.get((one.network, one.model))
        off = one.deviation
        table.add_row(
            one.network,
            one.model,
            _judged(_ms(one.median), None if target is None else one.median < target),
            _ms(one.p10),
            _ms(one.p90),
            "" if one.predicted is None else _ms(one.predicted.seconds),
            "" if off is None else _judged(f"{off:+.0%}", abs(off) <= TARGET_DEVIATION),
            str(one.rounds),
            f"{one.bytes / 1e3:.1f}",
            f"{one.load:.1f}",
        )
    return table


def sentence_of(one: Many) -> str:
    """What was measured of clients side by side."""
    return (
        f"{one.clients} clients side by side, network {one.model}, loopback: "
        f"{_judged(f'{one.rate:.0f} predictions a second', one.rate >= TARGET_RATE)} over {one.window:g} s, latency "
        f"{_ms(one.median)} ms (median), {_ms(one.p90)} ms (p90), {one.rows_by_execution:.1f} rows an execution"
    )


def markdown(record: Mapping[str, Any]) -> str:
    """The figures of a record of `--json` as Markdown."""
    lines = [
        "| network | model | measured, ms | p10 to p90 | predicted, ms | ways | bytes | computing | off by |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for one in record["singles"]:
        forecast = one["predicted"]
        cells = ["", "", "", "", ""]
        if forecast is not None:
            parts = (forecast["latency"], forecast["transfer"], forecast["computing"])
            cells = [_ms(sum(parts)), *map(_ms, parts), f"{one['deviation']:+.0%}"]
        span = f"{_ms(one['p10'])} to {_ms(one['p90'])}"
        lines.append("| " + " | ".join([one["network"], one["model"], _ms(one["median"]), span, *cells]) + " |")
    lines += [
        "",
        "| model | rounds | a server's messages to the other | its bytes to the other | planned |",
        "|---|---:|---:|---:|---:|",
    ]
    seen: dict[str, Mapping[str, Any]] = {one["model"]: one for one in record["singles"]}
    for letter, one in seen.items():
        cells = [letter, str(one["rounds"]), str(one["messages"]), f"{one['bytes']:,}", f"{one['planned_bytes']:,}"]
        lines.append("| " + " | ".join(cells) + " |")
    for many in record["many"]:
        lines += [
            "",
            f"Network {many['model']}, {many['clients']} clients side by side on loopback: {many['rate']:.0f} "
            f"predictions a second over {many['window']:g} s; latency {_ms(many['median'])} ms (median), "
            f"{_ms(many['p90'])} ms (p90); {many['rows_by_execution']:.1f} rows an execution.",
        ]
    by_network = {one["network"]: one["count"] for one in record["singles"]}
    counts = ", ".join(f"{count} on {name}" for name, count in by_network.items())
    made = f", lines by {record['means']}" if record["means"] else ""
    echoes = {one["network"]: one["rtt"] for one in record["singles"] if one["rtt"]}
    if echoes:
        made += "; an echo took " + ", ".join(f"{rtt * 1e3:.2f} ms on {name}" for name, rtt in echoes.items())
    cores = "each server on a core of its own" if record["a_core_each"] else "servers on any core"
    lines += ["", f"Measured on {record['date'][:10]}, {cores}; predictions timed: {counts}{made}."]
    return "\n".join(lines)


def with_block(text: str, figures: str, begin_mark: str = _BEGIN) -> str:
    """A page of documentation with new figures in its block.

    Raises:
        BenchmarkError: the page has no such block.
    """
    before, begin, rest = text.partition(begin_mark)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise BenchmarkError(
            f"The page that --docs names has a block between {begin_mark!r} and {_END!r}; it has none."
        )
    return f"{before}{begin}\n{figures}\n{end}{after}"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.0f}" if seconds >= 0.0995 else f"{seconds * 1e3:.1f}"


def _judged(text: str, met: bool | None) -> str:
    if met is None:
        return text
    return f"[green]{text}[/green]" if met else f"[red]{text}[/red]"


# --- the command line -------------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.network",
        description="Private predictions by parties in processes of their own: loopback, LAN and WAN.",
        epilog="LAN and WAN need root; without it they are left out, and the exit status is 3.",
    )
    parser.add_argument("--networks", type=_choices(tuple(LINES)), default=",".join(LINES))
    parser.add_argument("--models", type=_choices(MODELS), default=",".join(MODELS))
    parser.add_argument("--count", type=_count, help=f"predictions timed; by network {COUNTS} if not said")
    parser.add_argument("--clients", type=_count, default=8, help="side by side, for the throughput of network C")
    parser.add_argument("--seconds", type=float, default=10.0, help="of the throughput's measurement; 0 leaves it out")
    parser.add_argument("--serving", default=_SERVING, help="further lines of both servers' [serving] for it")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds between one prediction and the next")
    parser.add_argument(
        "--slow-start-after-idle",
        action="store_true",
        help="leave the kernel's tcp_slow_start_after_idle as it is on LAN and WAN, rather than turn it off",
    )
    parser.add_argument(
        "--share-cores", action="store_true", help="let servers run on any core, rather than each on one of its own"
    )
    parser.add_argument("--json", type=Path, help="also write the results here, such as results/network.json")
    parser.add_argument("--docs", type=Path, help="rewrite the block of figures of this page, such as docs/network.md")
    return parser


def _choices(allowed: tuple[str, ...]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        chosen = text.split(",")
        wrong = [name for name in chosen if name not in allowed]
        if wrong:
            raise argparse.ArgumentTypeError(f"choose from {','.join(allowed)}; got {','.join(wrong)}")
        return [name for name in allowed if name in chosen]

    return parse


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a whole number from 1 on; got {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
