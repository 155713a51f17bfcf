"""What each pass did to a model, and what it saved: for people."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table

from shareflow.compiler.estimate import Estimate, estimate
from shareflow.compiler.graph import Graph, Note
from shareflow.compiler.model import Model
from shareflow.compiler.passes import steps
from shareflow.compiler.passes.receiver_softmax import receiver_softmax


@dataclass(frozen=True)
class Improvement:
    """One pass, and the cost of the graph after it.

    Args:
        name: of the pass.
        notes: what it did, and how often.
        cost: of one batch, after it.
    """

    name: str
    notes: tuple[Note, ...]
    cost: Estimate


@dataclass(frozen=True)
class Explanation:
    """What all passes did to a model.

    Args:
        batch: samples in one prediction.
        before: the cost of the graph as it was read.
        improvements: in order; passes that did nothing are left out.
    """

    batch: int
    before: Estimate
    improvements: tuple[Improvement, ...]

    @property
    def after(self) -> Estimate:
        """The cost of the graph that runs."""
        return self.improvements[-1].cost if self.improvements else self.before

    def to_json(self) -> dict[str, object]:
        """The same as plain data."""
        return {
            "batch": self.batch,
            "before": _numbers(self.before),
            "passes": [
                {
                    "pass": step.name,
                    "did": [{"what": note.what, "count": note.count} for note in step.notes],
                    "after": _numbers(step.cost),
                }
                for step in self.improvements
            ],
            "after": _numbers(self.after),
        }

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        title = f"What the compiler did, for a batch of {self.batch}"
        table = Table(title=title, title_justify="left", box=box.SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))
        table.add_column("Saved by", no_wrap=True)
        for name, _, _ in _COLUMNS:
            table.add_column(name, justify="right", no_wrap=True)
        before, did = self.before, Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_row("(as it was read)", *(show(read(before)) for _, read, show in _COLUMNS), style="dim")
        for step in self.improvements:
            name = step.name.replace("_", " ")
            table.add_row(name, *_saved(before, step.cost))
            did.add_row(name, ", ".join(f"{note.what} {note.count}x" for note in step.notes))
            before = step.cost
        table.add_section()
        after = self.after
        table.add_row("(as it runs)", *(show(read(after)) for _, read, show in _COLUMNS), style="bold")
        yield table
        yield did
        yield ""
        yield (
            "Estimated from the graph; `shareflow audit` counts the plan itself. A minus is a cost. \"function\" "
            "counts elements of comparisons and other functions, \"cut\" those that are truncated by themselves."
        )
        if after.unknown:
            yield f"Not counted, as they have no private form: {', '.join(after.unknown)}."


def explain(model: Model, batch: int = 1) -> Explanation:
    """What the passes do to a model, one by one, and what each saves.

    Raises:
        UnsupportedModelError: the model cannot be read, or a pass refuses it.
    """
    graph = model.read(batch)
    before = _cost(graph, model)
    cost = before
    improvements: list[Improvement] = []
    for name, later in _steps(graph):
        notes = _new_notes(graph, later)
        if later is not graph:
            cost = _cost(later, model)
        if notes or cost != (improvements[-1].cost if improvements else before):
            improvements.append(Improvement(name, notes, cost))
        graph = later
    return Explanation(batch, before, tuple(improvements))


def _steps(graph: Graph) -> Iterator[tuple[str, Graph]]:
    for improve, later in steps(graph):
        graph = later
        yield improve.__name__, graph
    yield "receiver_softmax", receiver_softmax(graph)[0]


def _cost(graph: Graph, model: Model) -> Estimate:
    return estimate(graph, model.point)


def _new_notes(before: Graph, after: Graph) -> tuple[Note, ...]:
    counts = {(note.by, note.what): note.count for note in before.notes}
    more = (Note(note.by, note.what, note.count - counts.get((note.by, note.what), 0)) for note in after.notes)
    return tuple(note for note in more if note.count)


def _count(number: int) -> str:
    return _short(number, ("", "k", "M", "G", "T"))


def _bytes(number: int) -> str:
    return _short(number, ("B", "kB", "MB", "GB", "TB"))


def _short(number: int, units: tuple[str, ...]) -> str:
    """Three digits and a unit, so that a row of them fits a terminal."""
    size, place = float(abs(number)), 0
    while size >= 999.5 and place < len(units) - 1:
        size, place = size / 1000, place + 1
    digits = 0 if place == 0 or size >= 99.95 else 1 if size >= 9.995 else 2
    return f"{'-' if number < 0 else ''}{size:.{digits}f}{' ' if units[place] else ''}{units[place]}"


_COLUMNS: tuple[tuple[str, Callable[[Estimate], int], Callable[[int], str]], ...] = (
    ("Ops", lambda e: e.operations, _count),
    ("Rounds", lambda e: e.rounds, _count),
    ("Online", lambda e: e.online_bytes, _bytes),
    ("Offline", lambda e: e.offline_bytes, _bytes),
    ("MACs", lambda e: e.products, _count),
    ("function", lambda e: e.compared, _count),
    ("cut", lambda e: e.truncated, _count),
)


def _saved(before: Estimate, after: Estimate) -> list[str]:
    """The differences; nothing where there is none, with a minus where it is more."""
    found = []
    for _, read, show in _COLUMNS:
        difference = read(before) - read(after)
        found.append(show(difference) if difference else "")
    return found


def _numbers(cost: Estimate) -> dict[str, object]:
    return {
        "rounds": cost.rounds,
        "online_bytes": cost.online_bytes,
        "offline_bytes": cost.offline_bytes,
        "macs": cost.products,
        "compared": cost.compared,
        "truncated": cost.truncated,
        "operations": cost.operations,
        "not_counted": list(cost.unknown),
    }
