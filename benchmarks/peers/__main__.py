"""Runs shareflow and SecretFlow SPU on the same tasks, in turns, and compares them.

The peer gets a virtual environment of its own under --out-dir, made at the first run (Python 3.11; about 1 GB).
Each task runs in turns - ours, peer, ours, peer - on the same inputs, which are shared before. Results stay shared.
Written are peers.md, peers.json and peers.png. The method, and what the figures do not say, is in docs/peers.md.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib.metadata
import importlib.util
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.peers import report
from benchmarks.peers.peer import SETTING as PEER_SETTING
from benchmarks.peers.peer import Peer, PeerError, environment
from benchmarks.peers.report import Row, Side
from benchmarks.peers.tasks import SEED, TASKS, Problem, Task, choose

# A turn of quick tasks is several runs: about so long, and at most so many.
TURN_SECONDS = 0.2
TURN_RUNS = 10

EXAMPLES = """examples:
  python -m benchmarks.peers                                        all tasks; a quarter of an hour on two cores
  python -m benchmarks.peers --tasks 'network-?-1,relu' --repeats 3      (patterns as in a shell)
  python -m benchmarks.peers --tasks 'network-C-*' --skip-peer      shareflow alone
  python -m benchmarks.peers --peer-python /usr/bin/python3.11      the peer's interpreter
  python -m benchmarks.peers --update-docs docs/peers.md            also put the table into the page
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark as asked on the command line; the exit status."""
    options = _parser().parse_args(arguments)
    # A file or a pipe has no width of its own.
    console = Console(width=None if sys.stdout.isatty() else 220)
    if options.plot and not options.skip_peer and importlib.util.find_spec("matplotlib") is None:
        return _fail(
            console,
            "The plot is drawn with matplotlib, which is not installed. Install the extra with "
            "pip install 'shareflow[bench]', or leave the plot out with --no-plot.",
        )
    if options.update_docs and not options.update_docs.is_file():
        return _fail(console, f"There is no page {options.update_docs} to put the table into.")
    rows: list[Row] = []
    about = _about(options)
    with contextlib.ExitStack() as stack:
        peer = None
        if not options.skip_peer:
            try:
                with console.status("setting up the peer; the first time takes a minute"):
                    python = environment(options.out_dir / "peers" / "venv", options.peer_python)
                    peer = stack.enter_context(Peer(python))
                    about["versions"].update({f"peer's {name}": text for name, text in peer.versions().items()})
            except PeerError as error:
                return _fail(console, str(error))
        bar = stack.enter_context(_bar(console))
        progress = bar.add_task("", total=len(options.tasks) * (options.repeats + 1))
        try:
            for task in options.tasks:
                bar.update(progress, description=task.title, refresh=True)
                began = bar.tasks[progress].completed

                def advance() -> None:
                    bar.advance(progress)
                    bar.refresh()

                rows.append(compare(task, peer, options.repeats, advance))
                bar.update(progress, completed=began + options.repeats + 1, refresh=True)
        except KeyboardInterrupt:
            console.print("stopped; what was measured so far:", style="yellow")
    about["load_after"] = os.getloadavg()
    return _write(rows, about, options, console)


def compare(task: Task, peer: Peer | None, repeats: int, advance: Callable[[], None]) -> Row:
    """One task on both sides, in turns."""
    missing = task.missing()
    if missing:
        return Row(task.name, task.title, 0, status="not yet", note=f"shareflow.nn has no {', '.join(missing)} yet")
    # Here and not above, so that --help and tests of the rest need no TensorFlow.
    from benchmarks.peers.ours import Ours

    problem = task.make()
    elements, failure = problem.expected.size, ""
    try:
        ours = Ours(task, problem)
    except Exception as error:  # one task that fails must not take the others' figures with it
        return Row(task.name, task.title, elements, status="failed", note=f"{type(error).__name__}: {error}")
    loaded: dict[str, Any] = {}
    if peer:
        try:
            loaded = peer.load(problem)
        except PeerError as error:
            peer, failure = None, str(error)
    advance()
    our_times: list[tuple[float, float]] = []
    peer_times: list[tuple[float, float]] = []
    count = turn_runs(min(ours.run()[0] for _ in range(2)))
    try:
        peer_count = turn_runs(peer.run(1)[0][0]) if peer else 0
        for _ in range(repeats):
            # Of several runs the first warms the caches up that the other side has used, and is not counted.
            our_times += [ours.run() for _ in range(count + (count > 1))][count > 1 :]
            if peer:
                wall, cpu = peer.run(peer_count + (peer_count > 1))
                peer_times += list(zip(wall, cpu, strict=True))[peer_count > 1 :]
            advance()
        peer_output = peer.output() if peer else None
        if peer:
            peer.unload()
    except PeerError as error:
        peer_output, failure = None, str(error)
        our_times += [] if our_times else [ours.run()]
    offline, online = ours.halves(max(3, count))
    our_side = _side(
        our_times,
        ours.cost.online_bytes + ours.cost.offline_bytes,
        ours.output(),
        problem,
        task,
        {
            "rounds": ours.cost.rounds,
            "online_bytes": ours.cost.online_bytes,
            "offline_bytes": ours.cost.offline_bytes,
            "offline_seconds": offline,
            "online_seconds": online,
        },
    )
    peer_side = None
    if peer_output is not None:
        sent = loaded["bytes"]
        details = {
            "bytes_by_party": sent,
            "sends": max(loaded["sends"]) if None not in loaded["sends"] else "",
            "threads": loaded["threads"],
            "tried": loaded["tried"],
        }
        total = sum(sent) if None not in sent else None
        peer_side = _side(peer_times, total, peer_output, problem, task, details)
    return Row(task.name, task.title, elements, our_side, peer_side, "failed" if failure else "", failure)


def turn_runs(seconds: float) -> int:
    """Runs in one turn of a task that takes so long."""
    return max(1, min(TURN_RUNS, math.ceil(TURN_SECONDS / max(seconds, 1e-9))))


def _side(
    times: list[tuple[float, float]],
    sent: int | None,
    output: NDArray[np.float64],
    problem: Problem,
    task: Task,
    details: dict[str, Any],
) -> Side:
    difference = np.abs(output.reshape(problem.expected.shape) - problem.expected)
    return Side(
        wall=[wall for wall, _ in times],
        cpu=[cpu for _, cpu in times],
        bytes=sent,
        error=float(difference.max()),
        wrong=int((difference > 0.5).sum()) if task.decides else None,
        details=details,
    )


def _write(rows: list[Row], about: dict[str, Any], options: argparse.Namespace, console: Console) -> int:
    console.print(report.rich_table(rows))
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    console.print(f"{about['machine']['cpu']}, {about['machine']['cores']} cores; {versions}", highlight=False)
    console.print(report.SETTING, style="yellow")
    for note in report.notes(rows):
        console.print(note, style="yellow", markup=False)
    options.out_dir.mkdir(parents=True, exist_ok=True)
    table = report.markdown(rows, about)
    written = [options.out_dir / "peers.md", options.out_dir / "peers.json"]
    written[0].write_text(table, encoding="utf-8")
    written[1].write_text(report.record(rows, about), encoding="utf-8")
    if options.plot and any(row.ours and row.peer for row in rows):
        written.append(options.out_dir / "peers.png")
        try:
            report.plot(rows, about, written[-1])
        except report.PlotError as error:
            return _fail(console, str(error))
    if options.update_docs:
        page = options.update_docs.read_text(encoding="utf-8")
        try:
            options.update_docs.write_text(report.replace_table(page, table), encoding="utf-8")
        except ValueError as error:
            return _fail(console, f"{options.update_docs}: {error}")
        written.append(options.update_docs)
    console.print(f"written: {', '.join(map(str, written))}", markup=False, highlight=False)
    return 0


def _about(options: argparse.Namespace) -> dict[str, Any]:
    """What the figures depend on."""
    from benchmarks.mnist import machine

    found = machine()
    names = ("python", "shareflow", "tensorflow-cpu", "keras", "numpy")
    versions = {name: found.pop(name) for name in names if name in found}
    if versions.get("shareflow") == "not installed":
        import shareflow

        versions["shareflow"] = shareflow.__version__
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        versions["matplotlib"] = importlib.metadata.version("matplotlib")
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "seed": SEED,
        "repeats": options.repeats,
        "peer": None if options.skip_peer else PEER_SETTING,
        "machine": found,
        "versions": versions,
        "load_before": os.getloadavg(),
    }


def _bar(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    # Redrawn between turns alone: a thread that draws would take time from what is measured.
    return Progress(*columns, console=console, auto_refresh=False)


def _fail(console: Console, text: str) -> int:
    console.print(f"error: {text}", style="red", markup=False, highlight=False)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers",
        description=__doc__,
        epilog=EXAMPLES + "\ntasks:\n  " + "\n  ".join(TASKS),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--tasks", type=_tasks, default="*", help="names or patterns of tasks, with commas between; all if not given"
    )
    parser.add_argument("--repeats", type=_count, default=5, help="turns of each side at each task (default 5)")
    parser.add_argument("--skip-peer", action="store_true", help="measure shareflow alone")
    parser.add_argument("--peer-python", metavar="FILE", help="Python 3.11 for the peer; python3.11 on PATH by default")
    parser.add_argument("--out-dir", type=Path, default=Path("results"), help="for what is written (default results)")
    parser.add_argument("--no-plot", dest="plot", action="store_false", help="write no peers.png")
    parser.add_argument("--update-docs", type=Path, metavar="PAGE", help="put the table between the markers of a page")
    return parser


def _tasks(text: str) -> list[Task]:
    try:
        return choose(text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a whole number from 1 on; got {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
