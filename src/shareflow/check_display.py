"""Showing a check of a model's accuracy to people: in the terminal with rich."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from shareflow.compiler.calibration import MOST_BITS
from shareflow.compiler.check import Check, LayerCheck
from shareflow.compiler.overflow import MARGIN_BITS
from shareflow.compiler.watch import TRUNCATED_BITS

_NAMES = {"plain": "fixed point", "private": "private"}


def check_report(check: Check) -> RenderableType:
    """The layers, the results, where drift begins, and the verdict."""
    parts: list[RenderableType] = [layers_table(check), results_table(check)]
    calibration = check.calibration
    parts.append(
        Text(
            f"Optimistic truncation would get {calibration.failures / calibration.batch:.2g} elements wrong in one "
            "prediction."
        )
    )
    parts += [Text(sentence, style="yellow") for sentence in drift_sentences(check)]
    parts.append(_verdict(check))
    return Group(*parts)


def layers_table(check: Check) -> Table:
    """One row a layer: its size, the bits of the ring that it takes, and its errors from floating point."""
    table = Table(
        title=f"Errors from floating point: {check.samples} samples, "
        f"{check.calibration.fractional_bits} fractional bits"
    )
    table.add_column("\nlayer", overflow="fold")
    table.add_column("\nlargest", justify="right")
    table.add_column(f"bits\nof {TRUNCATED_BITS}", justify="right")
    for which in check.compared:
        table.add_column(f"{_NAMES[which]}\nmax", justify="right")
        table.add_column("\nmean", justify="right")
    drift = check.drift
    for layer in check.layers:
        style = "bold red" if drift is not None and layer is drift[1] else ""
        errors = [f"{value:.1e}" for which in check.compared for value in _two(layer, which)]
        bits = Text(f"{layer.used_bits:.1f}", style="bold red" if layer.overflows else "")
        table.add_row(Text(layer.name, style=style), f"{layer.size:.3g}", bits, *errors)
    return table


def results_table(check: Check) -> Table:
    """One row a result of the model, as its receiver gets it."""
    table = Table(title="Results, compared with floating point")
    table.add_column("\nresult")
    for which in check.compared:
        table.add_column(f"{_NAMES[which]}\nsame class", justify="right")
        table.add_column("\nmax", justify="right")
        table.add_column("\nmean", justify="right")
    for one in check.results:
        cells = []
        for which in check.compared:
            same = f"{one.agreeing[which]} of {check.samples}" if which in one.agreeing else ""
            cells += [same, f"{one.errors[which].largest:.1e}", f"{one.errors[which].mean:.1e}"]
        table.add_row(Text(one.name), *cells)
    return table


def drift_sentences(check: Check) -> list[str]:
    """Where results begin to go wrong, and which layer overflows first; none where all is well."""
    found = []
    if check.drift is not None:
        which, layer = check.drift
        found.append(
            f"Drift begins in layer '{layer.name}' ({layer.op}), {_NAMES[which]}: errors up to {layer.own[which]:.2g} "
            f"of its largest value, {layer.before[which]:.2g} before it."
        )
        room = TRUNCATED_BITS - MARGIN_BITS - max(layer.used_bits for layer in check.layers)
        bits = min(check.calibration.fractional_bits + int(room // 2), MOST_BITS)
        if not check.overflowing and bits > check.calibration.fractional_bits:
            found.append(f"No layer overflows, and there is room: more fractional bits round less. Try --bits {bits}.")
    for layer in check.overflowing[:1]:
        found.append(
            f"Layer '{layer.name}' takes {layer.used_bits:.1f} of {TRUNCATED_BITS} bits, of which {MARGIN_BITS} are "
            "kept free: it overflows. Leave out --bits to have fewer chosen, give --per-layer, or rescale its weights."
        )
    return found


def _two(layer: LayerCheck, which: str) -> tuple[float, float]:
    return layer.errors[which].largest, layer.errors[which].mean


def _verdict(check: Check) -> Text:
    if check.passed:
        return Text(
            f"Passed: every class is the same, errors are within {check.tolerance:g} of max(1, largest result).",
            style="green",
        )
    reasons = [f"{count} samples have another class" for count in {max(check.disagreements.values())} if count]
    if max(check.worst.values()) > check.tolerance:
        reasons.append(f"errors reach {max(check.worst.values()):.2g}, and {check.tolerance:g} are allowed")
    if check.overflowing:
        reasons.append(f"{len(check.overflowing)} layers overflow")
    return Text(f"Failed: {'; '.join(reasons)}.", style="bold red")
