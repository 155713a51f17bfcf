"""The command `shareflow-client`: predictions from a machine without TensorFlow. Exit codes: 0, 1 error, 2 usage."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from shareflow_client import __version__
from shareflow_client.array_files import csv_text
from shareflow_client.client_config import load_config
from shareflow_client.errors import ShareflowError
from shareflow_client.file_calls import call_files, load_files, predict_file
from shareflow_client.plan_file import read_plan_file
from shareflow_client.plan_summary import plan_lines, plan_values
from shareflow_client.server_check import check_servers
from shareflow_client.server_check_shown import check_lines, check_values

_EXAMPLES = """examples:
  shareflow-client inspect model.plan
  shareflow-client check --config client.toml
  shareflow-client predict --config client.toml images.npy --out scores.npy
  shareflow-client call compare --config client.toml --input left=a.npy --input right=b.npy --json
  shareflow-client load --config owner.toml --inputs weights.npz
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code; ``sys.argv`` if there are no arguments."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO if options.verbose else logging.WARNING, format="%(name)s: %(message)s")
    try:
        return options.run(options)
    except ShareflowError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted; what was asked is given up.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Who read our output has gone; closing it again at exit must not fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def run() -> NoReturn:
    """The command as it is installed."""
    sys.exit(main())


class ProgressBar:
    """A line on stderr that shows how far a call is, if stderr is a terminal. Called with (rows done, all rows)."""

    WIDTH = 30

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()
        self._begin = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        if not self._shown:
            return
        filled = self.WIDTH * done // max(total, 1)
        rate = done / max(time.monotonic() - self._begin, 1e-9)
        end = "\n" if done >= total else ""
        bar = f"\r[{'#' * filled:.<{self.WIDTH}}] {done}/{total} rows, {rate:.1f}/s "
        print(bar, end=end, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="shareflow-client",
        description="Private predictions: inputs are split here, results put together here, and nobody else sees them.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(
        name: str, run: Callable[[argparse.Namespace], int], about: str, example: str
    ) -> argparse.ArgumentParser:
        made = commands.add_parser(
            name,
            help=about,
            description=f"{about[0].upper()}{about[1:]}.",
            epilog=f"example:\n  shareflow-client {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        made.set_defaults(run=run)
        made.add_argument("--verbose", action="store_true", help="tell what happens on stderr")
        return made

    def with_config(made: argparse.ArgumentParser) -> None:
        made.add_argument("--config", required=True, metavar="FILE", help="the client's TOML file")

    def with_inputs(made: argparse.ArgumentParser) -> None:
        made.add_argument(
            "--input", action="append", default=[], metavar="NAME=FILE", type=_named, help="one input; may be repeated"
        )
        made.add_argument("--inputs", metavar="FILE", help="an .npz file with inputs by name")

    label = "what the entry's parties agreed on, for an entry that takes inputs of several"

    predict = command(
        "predict",
        _predict,
        "the result for each sample of a .npy file",
        "predict --config client.toml images.npy --out scores.csv",
    )
    with_config(predict)
    predict.add_argument("input", metavar="INPUT", help=".npy: samples [n, ...], or one sample")
    predict.add_argument("--out", metavar="FILE", help=".npy or .csv; without it the results are printed as CSV")
    predict.add_argument("--json", action="store_true", help="print the results as JSON")
    predict.add_argument("--entry", default="predict", help="entry of the plan (predict)")
    predict.add_argument("--label", default="", help=label)

    call = command(
        "call",
        _call,
        "the results of any entry, by name",
        "call compare --config client.toml --input left=a.npy --json",
    )
    with_config(call)
    call.add_argument("entry", metavar="ENTRY", help="entry of the plan; `inspect` lists them")
    with_inputs(call)
    call.add_argument("--out", metavar="FILE", help=".npz; .npy or .csv where there is one result")
    call.add_argument("--json", action="store_true", help="print the results as JSON")
    call.add_argument("--label", default="", help=label)

    load = command(
        "load",
        _load,
        "give the servers what they keep, such as weights",
        "load --config owner.toml --inputs weights.npz",
    )
    with_config(load)
    with_inputs(load)
    load.add_argument("--entry", default="load", help="entry of the plan (load)")
    load.add_argument("--label", default="", help=label)

    check = command("check", _check, "connect to all servers and tell who they are", "check --config client.toml")
    with_config(check)
    check.add_argument("--json", action="store_true", help="print as JSON")

    inspect = command("inspect", _inspect, "parties, entries and shapes of a plan", "inspect model.plan")
    inspect.add_argument("plan", metavar="PLAN", help="a plan file")
    inspect.add_argument("--json", action="store_true", help="print as JSON")
    return parser


def _named(text: str) -> tuple[str, str]:
    name, equals, path = text.partition("=")
    if not name or not equals or not path:
        raise argparse.ArgumentTypeError(f"NAME=FILE, as x=images.npy; got {text!r}")
    return name, path


def _named_once(given: Sequence[tuple[str, str]]) -> dict[str, str]:
    names = [name for name, _ in given]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        _parser().error(f"--input {twice[0]} is given twice")
    return dict(given)


def _notice(server: str, text: str) -> None:
    print(f"{server} says: {text}", file=sys.stderr)


def _predict(options: argparse.Namespace) -> int:
    result = predict_file(
        options.config,
        options.input,
        out=options.out,
        entry=options.entry,
        label=options.label,
        progress=ProgressBar(),
        on_notice=_notice,
    )
    if options.json:
        _print_json({"entry": options.entry, "result": result.tolist()})
    elif options.out is None:
        print(csv_text(result), end="")
    return 0


def _call(options: argparse.Namespace) -> int:
    results = call_files(
        options.config,
        options.entry,
        _named_once(options.input),
        archive=options.inputs,
        out=options.out,
        label=options.label,
        progress=ProgressBar(),
        on_notice=_notice,
    )
    if options.json:
        _print_json({"entry": options.entry, "results": {name: array.tolist() for name, array in results.items()}})
    elif options.out is None:
        for name, array in results.items():
            print(f"{name}: {array.dtype} {list(array.shape)}\n{np.array2string(array, threshold=1000)}")
    return 0


def _load(options: argparse.Namespace) -> int:
    version = load_files(
        options.config,
        _named_once(options.input),
        archive=options.inputs,
        entry=options.entry,
        label=options.label,
        on_notice=_notice,
    )
    print(f"Loaded; the state has version {version}.")
    return 0


def _check(options: argparse.Namespace) -> int:
    report = check_servers(load_config(options.config))
    if options.json:
        _print_json(check_values(report))
    else:
        print("\n".join(check_lines(report)))
    return 0 if report.passed else 1


def _inspect(options: argparse.Namespace) -> int:
    plan = read_plan_file(options.plan)
    if options.json:
        _print_json(plan_values(plan))
    else:
        print("\n".join(plan_lines(plan)))
    return 0


def _print_json(values: Mapping[str, Any]) -> None:
    json.dump(values, sys.stdout)
    print()
