"""What was measured, as tables, JSON and a plot."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

SETTING = (
    "shareflow runs its three parties in one process, without sockets; SPU runs three processes over loopback. Until "
    "shareflow's parties run apart, wall times are not like for like: CPU time of all parties and bytes are."
)

START, END = "<!-- peers table -->", "<!-- /peers table -->"


class PlotError(Exception):
    """The plot cannot be drawn."""


@dataclass(frozen=True)
class Side:
    """One side at one task. Seconds of each run; bytes that all parties send in one run.

    ``error`` is the largest against float64; of decisions, ``wrong`` counts those that differ.
    """

    wall: list[float]
    cpu: list[float]
    bytes: int | None
    error: float
    wrong: int | None = None
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def wall_median(self) -> float:
        """Seconds of wall clock."""
        return statistics.median(self.wall)

    @property
    def cpu_median(self) -> float:
        """Seconds of all cores and parties."""
        return statistics.median(self.cpu)

    @property
    def wall_quartiles(self) -> tuple[float, float]:
        """Between which half of the runs lie."""
        if len(self.wall) == 1:
            return self.wall[0], self.wall[0]
        low, _, high = statistics.quantiles(self.wall, n=4, method="inclusive")
        return low, high


@dataclass(frozen=True)
class Row:
    """One task. A side that was not measured is None; ``status`` says so in a word or two, ``note`` says why."""

    task: str
    title: str
    elements: int
    ours: Side | None = None
    peer: Side | None = None
    status: str = ""
    note: str = ""

    def ratios(self) -> dict[str, float | None]:
        """The peer's figure over ours: above 1 where shareflow takes less."""
        if self.ours is None or self.peer is None:
            return dict.fromkeys(("wall", "cpu", "bytes"))
        sent = self.peer.bytes / self.ours.bytes if self.peer.bytes and self.ours.bytes else None
        return {
            "wall": self.peer.wall_median / self.ours.wall_median,
            "cpu": self.peer.cpu_median / self.ours.cpu_median,
            "bytes": sent,
        }


# --- tables

_HEADERS = (
    "task",
    "ours, ms",
    "peer, ms",
    "wall x",
    "ours CPU, ms",
    "peer CPU, ms",
    "CPU x",
    "ours, MB",
    "peer, MB",
    "bytes x",
    "offline + online, ms",
    "rounds",
    "sends",
    "ours, error",
    "peer, error",
)


def _cells(row: Row) -> list[str]:
    if row.ours is None and row.peer is None:
        return [row.title, row.status, *[""] * (len(_HEADERS) - 2)]
    ratios, ours, peer = row.ratios(), row.ours, row.peer
    details = ours.details if ours else {}
    split = details.get("offline_seconds"), details.get("online_seconds")
    return [
        row.title,
        _wall(ours),
        _wall(peer) if peer else row.status,
        _ratio(ratios["wall"]),
        _milliseconds(ours.cpu_median if ours else None),
        _milliseconds(peer.cpu_median if peer else None),
        _ratio(ratios["cpu"]),
        _megabytes(ours.bytes if ours else None),
        _megabytes(peer.bytes if peer else None),
        _ratio(ratios["bytes"]),
        "" if None in split else f"{_milliseconds(split[0])} + {_milliseconds(split[1])}",
        str(details.get("rounds", "")),
        str((peer.details if peer else {}).get("sends", "")),
        _error(ours, row.elements),
        _error(peer, row.elements),
    ]


def rich_table(rows: Sequence[Row]) -> Table:
    """For the terminal; ratios green where shareflow takes less, red where it takes more."""
    table = Table(title="shareflow and SPU: medians of interleaved runs; x is the peer's figure over ours")
    for header in _HEADERS:
        table.add_column(header, justify="left" if header == "task" else "right")
    for row in rows:
        cells = _cells(row)
        for index, ratio in zip((3, 6, 9), row.ratios().values(), strict=True):
            if ratio is not None:
                colour = "green" if ratio >= 1 else "red"
                cells[index] = f"[{colour}]{cells[index]}[/{colour}]"
        table.add_row(*cells)
    return table


def markdown(rows: Sequence[Row], about: dict[str, Any]) -> str:
    """The table with where and how it was measured, for a page."""
    lines = [
        f"Measured {about['date'][:10]}: {about['machine']['cpu']}, {about['machine']['cores']} cores; "
        + ", ".join(f"{name} {version}" for name, version in about["versions"].items())
        + f"; {about['repeats']} turns a task and side; load average {_load(about, 'load_before')} before, "
        f"{_load(about, 'load_after')} after.",
        "",
        SETTING,
        "",
        "| " + " | ".join(_HEADERS) + " |",
        "|---|" + "---:|" * (len(_HEADERS) - 1),
    ]
    lines += ["| " + " | ".join(_cells(row)) + " |" for row in rows]
    remarks = notes(rows)
    lines += ["", *(f"- {remark}" for remark in remarks)] if remarks else []
    return "\n".join(lines) + "\n"


def notes(rows: Sequence[Row]) -> list[str]:
    """With which threads the peer ran, and why figures are missing, a line a task."""
    lines = []
    by_setting: dict[str, list[str]] = {}
    for row in rows:
        if row.peer and "threads" in row.peer.details:
            by_setting.setdefault(row.peer.details["threads"], []).append(row.title)
    lines += [f"SPU is faster with {setting} and ran so at: {'; '.join(by_setting[setting])}" for setting in by_setting]
    return lines + [f"{row.title}: {' '.join(row.note.split())}" for row in rows if row.note]


def replace_table(page: str, table: str) -> str:
    """The page with the table between its markers.

    Raises:
        ValueError: the page has no such markers.
    """
    before, start, rest = page.partition(START)
    _, end, after = rest.partition(END)
    if not start or not end:
        raise ValueError(f"the page has no place for the table: {START} and then {END}")
    return f"{before}{START}\n\n{table.strip()}\n\n{END}{after}"


def record(rows: Sequence[Row], about: dict[str, Any]) -> str:
    """All samples, as JSON."""
    entries = [{**asdict(row), "ratios": row.ratios()} for row in rows]
    return json.dumps({"benchmark": "peers", "setting": SETTING, **about, "rows": entries}, indent=2) + "\n"


def plot(rows: Sequence[Row], about: dict[str, Any], file: Path) -> None:
    """Ratios of all tasks that both sides ran, as bars on a logarithmic axis.

    Raises:
        PlotError: matplotlib is missing.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise PlotError(
            "The plot is drawn with matplotlib, which is not installed. Install the extra with "
            "pip install 'shareflow[bench]', or leave the plot out with --no-plot."
        ) from None
    both = [row for row in rows if row.ours and row.peer]
    figure = Figure(figsize=(9, 1.8 + 0.5 * len(both)), layout="constrained")
    axes = figure.add_subplot()
    kinds = {
        "cpu": ("CPU time of all parties", "#1b6ca8"),
        "bytes": ("bytes of all parties", "#5aa469"),
        "wall": ("wall time (one process against three)", "#c9c9c9"),
    }
    for offset, (kind, (label, colour)) in enumerate(kinds.items()):
        known = [(place, ratio) for place, row in enumerate(both) if (ratio := row.ratios()[kind]) is not None]
        places = [place + (offset - 1) * 0.27 for place, _ in known]
        values = [ratio for _, ratio in known]
        # A bar on a logarithmic axis begins at 1: to its right shareflow takes less.
        bars = axes.barh(places, [value - 1 for value in values], 0.25, left=1, color=colour, label=label)
        for bar, value in zip(bars, values, strict=True):
            # Small bars to the left of 1 would hide their figure: it stands on the other side.
            axes.annotate(
                _ratio(value),
                (max(value, 1), bar.get_y() + bar.get_height() / 2),
                (3, 0),
                textcoords="offset points",
                va="center",
                fontsize=7,
            )
    axes.set_xscale("log")
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks(range(len(both)), [row.title for row in both])
    axes.invert_yaxis()
    axes.margins(x=0.12, y=0.01)
    axes.set_xlabel("SPU's figure over shareflow's: to the right of 1 shareflow takes less")
    machine = about["machine"]
    axes.set_title(f"shareflow and SPU on {machine['cpu']}, {machine['cores']} cores", fontsize=10)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8)
    FigureCanvasAgg(figure).print_png(str(file))


def _load(about: dict[str, Any], when: str) -> str:
    """Of the last minute: how many processes wanted a core."""
    return f"{about[when][0]:.1f}"


def _wall(side: Side | None) -> str:
    if side is None:
        return ""
    low, high = side.wall_quartiles
    return f"{_milliseconds(side.wall_median)} ({_milliseconds(low)}-{_milliseconds(high)})"


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else _three_digits(seconds * 1e3)


def _megabytes(count: int | None) -> str:
    return "" if count is None else _three_digits(count / 1e6)


def _ratio(value: float | None) -> str:
    return "" if value is None else _three_digits(value)


def _three_digits(value: float) -> str:
    """Three digits that count, and never an exponent."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 1 else f"{value:.3f}"


def _error(side: Side | None, elements: int) -> str:
    if side is None:
        return ""
    return f"{side.error:.1e}" if side.wrong is None else f"{side.wrong:,} of {elements:,}"
