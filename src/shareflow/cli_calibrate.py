"""`shareflow calibrate`, and what commands show of variants that were chosen for a network."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from shareflow.compiler.cost.choose import PlanChoice
    from shareflow.compiler.cost.kinds import ModelChoice

NETWORK_HELP = (
    "Choose how comparisons, maxima and sorting are computed for this network: loopback, lan, wan, or a round trip and "
    "a bandwidth such as 40ms,100Mbit."
)


def add_to(app: typer.Typer) -> None:
    """Adds this command to the `shareflow` command."""
    app.command(
        "calibrate",
        epilog="**Examples**\n\n"
        "`shareflow calibrate` takes about ten seconds and keeps the table in your cache directory.\n\n"
        "`shareflow calibrate --out speeds.json --repeats 20` while the machine does nothing else.",
    )(calibrate)


def calibrate(
    out: Annotated[Path | None, typer.Option(help="Where to write the table, instead of the cache directory.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each program; the fastest counts.")] = 7,
) -> None:
    """Measure how fast this machine computes, for predictions and for `--network`.

    Small programs of all kinds of work are run, and seconds of each kind fitted to them. Nothing leaves the machine.
    """
    from shareflow.compiler.cost.calibrate import deviations, fitted, samples
    from shareflow.compiler.cost.speeds import calibrated_path
    from shareflow.compiler.cost.work import KINDS

    console = Console()
    began = time.perf_counter()
    with console.status("measuring"):
        measured = list(samples(repeats))
    speeds = fitted(measured)
    table = Table("program", title=speeds.machine)
    for heading in ("measured ms", "fitted ms", "off by"):
        table.add_column(heading, justify="right")
    for name, seconds, fit in deviations(speeds, measured):
        table.add_row(name, f"{1e3 * seconds:.2f}", f"{1e3 * fit:.2f}", f"{fit / seconds - 1:+.0%}")
    console.print(table)
    for kind, one in zip(KINDS, speeds.seconds, strict=True):
        console.print(f"{kind:12} {1e9 * one:8.3f} ns each", highlight=False)
    path = out or calibrated_path()
    speeds.write(path)
    console.print(f"Measured in {time.perf_counter() - began:.1f} s. The table is {path}.", soft_wrap=True)


def show_model_choice(console: Console, choice: ModelChoice) -> None:
    """Truncation and ReLUs, with all that was weighed; then variants and predictions."""
    table = Table("kind of plan", title="predicted, all graphs of the plan together")
    table.add_column("ms", justify="right")
    table.add_column("")
    for kind in choice.kinds:
        if kind.seconds is None:
            table.add_row(str(kind), "", f"not looked at: {kind.refused}")
        else:
            table.add_row(str(kind), f"{1e3 * kind.seconds:.2f}", "chosen" if kind.chosen else "")
    console.print(table)
    if choice.polynomial is not None:
        console.print(
            f"{len(choice.replaced)} of {len(choice.replaced) + len(choice.kept)} ReLUs as {choice.polynomial}"
            + (": results change, check them" if choice.replaced else ""),
            highlight=False,
            soft_wrap=True,
        )
        for name in choice.replaced:
            console.print(f"             {name}", highlight=False, soft_wrap=True)
        for name, reason in choice.kept.items():
            console.print(f"             {name} stays exact: {reason}", highlight=False, soft_wrap=True)
    show_choice(console, choice.choice)


def show_choice(console: Console, choice: PlanChoice) -> None:
    """Variants, and predictions of each graph of a plan, beside those without choices."""
    from shareflow.compiler.cost.decide import variant_text
    from shareflow.compiler.cost.speeds import is_shipped

    console.print(f"chosen for   {choice.network}", highlight=False, soft_wrap=True)
    for site, variant in choice.choices.table:
        console.print(f"             {site}: {variant_text(site, variant)}", highlight=False, soft_wrap=True)
    if not choice.choices:
        console.print("             the defaults: nothing else is faster", highlight=False)
    table = Table("graph", title="predicted, of one execution whose material is there")
    for heading in ("ms", "waiting", "transfer", "computing", "by default ms", "rounds"):
        table.add_column(heading, justify="right")
    for name, chosen in choice.chosen.items():
        seconds, default = chosen.prediction, choice.default[name]
        parts = (seconds.seconds, seconds.latency, seconds.transfer, seconds.computing, default.prediction.seconds)
        rounds = f"{chosen.cost.rounds} of {default.cost.rounds}"
        table.add_row(name, *(f"{1e3 * part:.2f}" for part in parts), rounds)
    console.print(table)
    if is_shipped(choice.speeds):
        console.print(
            f"Computing as on {choice.speeds.machine}, where shareflow was measured; `shareflow calibrate` measures "
            "this machine.",
            highlight=False,
        )
