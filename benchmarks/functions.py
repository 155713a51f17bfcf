"""Errors and costs of the functions of shareflow.nn, and the layouts of comparisons: the tables of docs/functions.md.

python -m benchmarks.functions [--markdown PATH] [--fractional-bits N]

An error is the largest over a grid that covers the whole range a function is stated for: a fine step near 0, all powers
of two, the knots of splines and the ends, each with its two neighbours. It is in units of 2^-fractional_bits, times
max(1, |result|), against float64. Masks come from a seed, so a run repeats. Rounds and bytes are counted from the graph
of 64 elements or rows. Nothing here depends on how fast the machine is.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import shareflow as sf
from shareflow import nn
from shareflow.protocol.functionality.comparison import Layout, layout_for

Reals = NDArray[np.float64]
Inputs = Callable[[int], tuple[Reals, ...]]

COMPARED_BITS = (8, 16, 24, 32, 48, 63)
PRESETS = ("balanced", "latency", "bandwidth")
ROWS = 64


@dataclass(frozen=True)
class Row:
    """One function: how to call it, what it should give, on which inputs, and how far off it may be.

    ``units`` None: no error is stated for it as a whole. ``shapes``: what its cost is counted of; the first one's size
    is the number of elements.
    """

    name: str
    meaning: str
    units: float | None
    program: Callable[..., Any]
    real: Callable[..., Any]
    inputs: Inputs
    shapes: tuple[tuple[int, ...], ...] = ((ROWS,),)
    # What multiplies the stated error besides max(1, |result|).
    condition: Callable[..., Any] | None = None
    # Fractional bits of the first input where they are not the encoding's, and whether the others are masked already.
    bits: int | None = None
    loaded: bool = False


# --- inputs -----------------------------------------------------------------------------------------------------------


def limit(f: int) -> float:
    """The largest value that f fractional bits hold."""
    return sf.FixedPoint(f).limit


def on_grid(values: Any, f: int) -> Reals:
    """Rounded to what the encoding holds."""
    return np.rint(np.asarray(values, np.float64) * 2.0**f) / 2.0**f


def grid(f: int, low: float, high: float, dense: int = 2001, near: float = 32.0) -> Reals:
    """Values from low to high on the encoding's grid: a fine step near 0, powers of two, knots and ends +- 1 unit."""
    unit = 2.0**-f
    start, stop = max(low, -near), min(high, near)
    special = np.concatenate(
        [
            2.0 ** np.arange(-f, math.log2(limit(f)) + 1),
            -(2.0 ** np.arange(-f, math.log2(limit(f)) + 1)),
            # Knots of splines are at multiples of 1/16, those of exp at odd multiples of log 2.
            np.arange(math.ceil(start * 16), math.floor(stop * 16) + 1) / 16,
            math.log(2) * np.arange(-45, 45, 2),
            [0.0, low, high],
        ]
    )
    special = np.rint(special / unit)
    words = np.concatenate([special - 1, special, special + 1, np.rint(np.linspace(start, stop, dense) / unit)])
    values = np.unique(words) * unit
    return values[(values >= low) & (values <= high)]


def pairs(f: int, quotient: float) -> tuple[Reals, Reals]:
    """Dividends and divisors of both signs and all sizes, whose quotients stay below a limit."""
    rng = np.random.default_rng(f)
    exponents = rng.uniform(-f, math.log2(limit(f)), (2, 6000))
    x, y = on_grid(2.0**exponents * rng.choice([-1, 1], (2, 6000)), f)
    edge = grid(f, -limit(f), limit(f), 401, 8.0)
    edge = edge[edge != 0]
    x, y = np.concatenate([x, edge, edge, np.ones_like(edge)]), np.concatenate([y, edge, edge[::-1], edge])
    # Of x and y whose quotient is large, the dividend is taken down.
    y = np.where(y == 0, 2.0**-f, y)
    x = np.where(np.abs(x) < quotient * np.abs(y), x, on_grid(np.sign(x) * np.minimum(np.abs(y), 1.0), f))
    return x, y


def beside(x: Reals, y: Reals) -> tuple[Reals, Reals]:
    """The shorter one repeated to the length of the other."""
    size = max(x.size, y.size)
    return np.resize(x, size), np.resize(y, size)


def rows(f: int, width: int = 10) -> Reals:
    """Rows of scores of many sizes: close together, far apart, equal, one far above the rest, all far below 0."""
    rng = np.random.default_rng(f)
    scales = np.repeat([0.01, 0.3, 1.0, 3.0, 10.0, 100.0], 100)
    scores = rng.normal(size=(600, width)) * scales[:, None]
    special = np.zeros((4, width))
    special[1, 0], special[2], special[3] = 30.0, -1000.0, np.linspace(-12, 0, width)
    return on_grid(np.concatenate([scores, special, special + 500.0]), f)


def samples(f: int) -> Reals:
    """Rows to normalise, of sizes from 1/4 to 30, with means beside 0."""
    rng = np.random.default_rng(f)
    sizes = np.repeat([0.25, 1.0, 5.0, 30.0], 100)[:, None]
    return on_grid(rng.normal(size=(400, 16)) * sizes + rng.normal(size=(400, 1)) * sizes, f)


def whole_range(f: int) -> tuple[Reals, ...]:
    """All that the encoding holds."""
    return (grid(f, -limit(f), limit(f)),)


def positive(f: int) -> tuple[Reals, ...]:
    """One unit to the largest value."""
    return (grid(f, 2.0**-f, limit(f)),)


def not_negative(f: int) -> tuple[Reals, ...]:
    """0 to the largest value."""
    return (grid(f, 0.0, limit(f)),)


# --- what they should give --------------------------------------------------------------------------------------------


def _sigmoid(x: Reals) -> Reals:
    tail = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + tail), tail / (1 + tail))


def _erf(x: Reals) -> Reals:
    return np.vectorize(math.erf, otypes=[np.float64])(x)


def _softmax(x: Reals) -> Reals:
    raised = np.exp(x - x.max(-1, keepdims=True))
    return raised / raised.sum(-1, keepdims=True)


def _log_softmax(x: Reals) -> Reals:
    shifted = x - x.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def _root(x: Reals) -> Reals:
    return np.sqrt(x.var(-1, keepdims=True) + 1e-3)


def _length(x: Reals) -> Reals:
    return np.sqrt((x * x).sum(-1, keepdims=True) + 1e-3)


def _largest_exponent(f: int) -> float:
    return (61 - 2 * f) * math.log(2)


# --- the table --------------------------------------------------------------------------------------------------------

SMOOTH = [
    Row("sigmoid(x)", "1 / (1 + e^-x)", 2, nn.sigmoid, _sigmoid, whole_range),
    Row("tanh(x)", "hyperbolic tangent", 2, nn.tanh, np.tanh, whole_range),
    Row("erf(x)", "error function", 2, nn.erf, _erf, whole_range),
    Row(
        "softplus(x)",
        "log(1 + e^x)",
        2,
        nn.softplus,
        lambda x: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))),
        whole_range,
    ),
    Row("gelu(x)", "x (1 + erf(x / √2)) / 2", 2, nn.gelu, lambda x: x * (1 + _erf(x / math.sqrt(2))) / 2, whole_range),
    Row("silu(x)", "x sigmoid(x)", 2, nn.silu, lambda x: x * _sigmoid(x), whole_range),
    Row(
        "elu(x, alpha=1)",
        "x where x > 0, else alpha (e^x - 1)",
        2,
        nn.elu,
        lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
        whole_range,
    ),
    Row(
        "leaky_relu(x, slope=0.2)",
        "x where x > 0, else slope x",
        2,
        nn.leaky_relu,
        lambda x: np.where(x > 0, x, 0.2 * x),
        lambda f: (grid(f, -0.2 * limit(f), 0.2 * limit(f)),),
    ),
    Row("hard_sigmoid(x)", "relu6(x + 3) / 6", 2, nn.hard_sigmoid, lambda x: np.clip(x + 3, 0, 6) / 6, whole_range),
    Row(
        "hard_swish(x)",
        "x relu6(x + 3) / 6",
        2,
        nn.hard_swish,
        lambda x: x * np.clip(x + 3, 0, 6) / 6,
        lambda f: (grid(f, -limit(f) / 8, limit(f) / 8),),
    ),
]

ELEMENTARY = [
    Row("exp(x)", "e^x", 3, nn.exp, np.exp, lambda f: (grid(f, -limit(f), _largest_exponent(f)),)),
    Row(
        "exp(x, high=0)",
        "e^x for x ≤ 0",
        2,
        lambda x: nn.exp(x, high=0.0),
        np.exp,
        lambda f: (grid(f, -limit(f), 0.0),),
    ),
    Row("log(x)", "natural logarithm of x > 0", 1, nn.log, np.log, positive),
    Row("sqrt(x)", "square root of x ≥ 0", 1, nn.sqrt, np.sqrt, not_negative),
    Row("rsqrt(x)", "1 / √x for x > 0", 1, nn.rsqrt, lambda x: 1 / np.sqrt(x), positive),
    Row(
        "reciprocal(y)",
        "1 / y of either sign",
        2,
        nn.reciprocal,
        lambda y: 1 / y,
        lambda f: (on_grid(np.concatenate([positive(f)[0], -positive(f)[0]]), f)[1:],),
    ),
    Row(
        "reciprocal(y, positive=True)",
        "1 / y for y > 0",
        2,
        lambda y: nn.reciprocal(y, positive=True),
        lambda y: 1 / y,
        lambda f: (positive(f)[0][1:],),
    ),
    Row(
        "divide(x, y)",
        "x / y of either sign, both private",
        2,
        nn.divide,
        np.divide,
        lambda f: pairs(f, 2.0**f),
        ((ROWS,), (ROWS,)),
    ),
    Row(
        "divide(x, y, 1, 16, positive=True)",
        "x / y for y from 1 to 16",
        2,
        lambda x, y: nn.divide(x, y, 1.0, 16.0, positive=True),
        np.divide,
        lambda f: beside(grid(f, -1000.0, 1000.0), grid(f, 1.0, 16.0)),
        ((ROWS,), (ROWS,)),
    ),
    Row(
        "power(x, 2.5)",
        "x^2.5 for x > 0, by exp and log",
        8,
        lambda x: nn.power(x, 2.5),
        lambda x: x**2.5,
        lambda f: (grid(f, 0.05, 6.0),),
    ),
]


def _angles(f: int) -> tuple[Reals, ...]:
    # The constant 1 / 2 pi is rounded: the error grows with the angle.
    return (grid(f, -limit(f) / 4, limit(f) / 4),)


ELEMENTARY += [
    Row("sin(x)", "sine", 2, nn.sin, np.sin, _angles),
    Row("cos(x)", "cosine", 2, nn.cos, np.cos, _angles),
    Row(
        "tan(x)",
        "tangent, by both and a division",
        4,
        nn.tan,
        np.tan,
        lambda f: (grid(f, -1.5, 1.5),),
        condition=lambda x: 1 + np.tan(x) ** 2,
    ),
]

WIDTH = 10
NORMALISING = [
    Row("softmax(x), of 10", "e^x_i / Σ e^x_j", 2, nn.softmax, _softmax, lambda f: (rows(f, WIDTH),), ((ROWS, WIDTH),)),
    Row(
        "log_softmax(x), of 10",
        "x_i - log Σ e^x_j",
        3,
        nn.log_softmax,
        _log_softmax,
        lambda f: (rows(f, WIDTH),),
        ((ROWS, WIDTH),),
    ),
    Row(
        "layer_norm(x), of 16",
        "(x - mean) / √(variance + 0.001)",
        3,
        nn.layer_norm,
        lambda x: (x - x.mean(-1, keepdims=True)) / _root(x),
        lambda f: (samples(f),),
        ((ROWS, 16),),
        lambda x: np.maximum(1, 1 / _root(x)),
    ),
    Row(
        "l2_normalize(x), of 16",
        "x / √(Σ x² + 0.001)",
        4,
        nn.l2_normalize,
        lambda x: x / _length(x),
        lambda f: (samples(f),),
        ((ROWS, 16),),
        lambda x: np.maximum(1, 1 / _length(x)),
    ),
    Row(
        "variance(x), of 16",
        "mean of (x - mean)²",
        1,
        lambda x: nn.variance(x, -1),
        lambda x: x.var(-1),
        lambda f: (samples(f),),
        ((ROWS, 16),),
    ),
    Row(
        "standard_deviation(x), of 16",
        "√variance",
        2,
        lambda x: nn.standard_deviation(x, -1),
        lambda x: x.std(-1),
        lambda f: (samples(f),),
        ((ROWS, 16),),
    ),
]


def _wide(f: int) -> tuple[Reals, ...]:
    # A difference of two must fit as well.
    return (grid(f, -limit(f) / 2, limit(f) / 2),)


def _two(f: int) -> tuple[Reals, ...]:
    x = _wide(f)[0]
    return x, np.roll(x, 1) * np.resize([1, 1, -1], x.size)


def _lines(f: int, width: int = 16) -> tuple[Reals, ...]:
    """Rows with ties, of both signs."""
    rng = np.random.default_rng(f)
    near, far = rng.integers(-3, 4, (100, width)), rng.uniform(-1, 1, (100, width)) * limit(f) / 2
    return (on_grid(np.concatenate([near * 2.0**-f, far, np.full((1, width), -2.5)]), f),)


def _bits(f: int) -> tuple[Reals, ...]:
    return np.array([0.0, 0.0, 1.0, 1.0]), np.array([0.0, 1.0, 0.0, 1.0])


LINES: Any = {"inputs": _lines, "shapes": ((ROWS, 16),)}
TWO: Any = {"inputs": _two, "shapes": ((ROWS,), (ROWS,))}
EXACT = [
    Row("relu(x)", "max(x, 0)", 0, nn.relu, lambda x: np.maximum(x, 0), whole_range),
    Row("relu6(x)", "min(max(x, 0), 6)", 0, nn.relu6, lambda x: np.clip(x, 0, 6), whole_range),
    Row("clip(x, -1, 1)", "x within limits", 0, lambda x: nn.clip(x, -1, 1), lambda x: np.clip(x, -1, 1), whole_range),
    Row("absolute(x)", "size", 0, nn.absolute, np.abs, whole_range),
    Row("sign(x)", "-1, 0 or 1", 0, nn.sign, np.sign, whole_range),
    Row("x >= 0", "a bit", 0, lambda x: x >= 0, lambda x: (x >= 0) * 1.0, whole_range),
    Row("x < y", "a bit", 0, lambda x, y: x < y, lambda x, y: (x < y) * 1.0, **TWO),
    Row("x == y", "a bit", 0, lambda x, y: x == y, lambda x, y: (x == y) * 1.0, **TWO),
    Row(
        "(x > 0) & (y > 0)",
        "two comparisons and a product of bits",
        0,
        lambda x, y: (x > 0) & (y > 0),
        lambda x, y: ((x > 0) & (y > 0)) * 1.0,
        **TWO,
    ),
    Row("maximum(x, y)", "the larger", 0, nn.maximum, np.maximum, **TWO),
    Row("minimum(x, y)", "the smaller", 0, nn.minimum, np.minimum, **TWO),
    Row(
        "where(x > y, x, y)",
        "choice by a private bit",
        0,
        lambda x, y: nn.where(x > y, x, y),
        lambda x, y: np.where(x > y, x, y),
        **TWO,
    ),
    Row("floor(x)", "down to a whole number", 0, nn.floor, np.floor, whole_range),
    Row("ceil(x)", "up to a whole number", 0, nn.ceil, np.ceil, whole_range),
    Row(
        "round(x)",
        "to the nearest, halves up",
        0,
        nn.round,
        lambda x: np.floor(x + 0.5),
        lambda f: (grid(f, -limit(f) / 2, limit(f) / 2),),
    ),
    Row(
        "right_shift(x, 3)",
        "x / 8, down to a multiple of a unit",
        1,
        lambda x: nn.right_shift(x, 3),
        lambda x: x / 8,
        whole_range,
    ),
    Row("reduce_max(x), of 16", "largest", 0, lambda x: nn.reduce_max(x, -1), lambda x: x.max(-1), **LINES),
    Row("reduce_min(x), of 16", "smallest", 0, lambda x: nn.reduce_min(x, -1), lambda x: x.min(-1), **LINES),
    Row("argmax(x), of 16", "place of the largest", 0, nn.argmax, lambda x: x.argmax(-1), **LINES),
    Row("argmin(x), of 16", "place of the smallest", 0, nn.argmin, lambda x: x.argmin(-1), **LINES),
    Row("sort(x), of 16", "ascending", 0, nn.sort, lambda x: np.sort(x, -1), **LINES),
    Row(
        "top_k(x, 4)[0], of 16",
        "the 4 largest",
        0,
        lambda x: nn.top_k(x, 4)[0],
        lambda x: -np.sort(-x, -1)[:, :4],
        **LINES,
    ),
    Row(
        "one_hot(x, 16)",
        "1 at place x",
        0,
        lambda x: nn.one_hot(x, 16),
        lambda x: np.eye(16)[x.astype(int)],
        lambda f: (np.arange(16.0),),
        bits=0,
    ),
    Row(
        "embedding(x, table), 16 rows of 8",
        "row x of a private table that is masked already",
        0,
        nn.embedding,
        lambda x, table: table[x.astype(int)],
        lambda f: (np.arange(16.0), on_grid(np.random.default_rng(f).normal(size=(16, 8)), f)),
        ((ROWS,), (16, 8)),
        bits=0,
        loaded=True,
    ),
]

TABLES = {"Smooth": SMOOTH, "Elementary": ELEMENTARY, "Statistics": NORMALISING, "Exact": EXACT}


# --- measuring --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Counted:
    """An element's share of what 64 elements or rows cost: rounds are those of all."""

    rounds: int
    online: float
    offline: float


def shared(row: Row, protocol: Any, arrays: Sequence[Reals]) -> list[sf.PrivateTensor]:
    """The inputs of a row as shares."""
    owned = [sf.private_tensor(array, f"owner-{i}") for i, array in enumerate(arrays)]
    tensors = [x.shared(protocol, row.bits) if not i else x.shared(protocol) for i, x in enumerate(owned)]
    return [tensors[0], *(x.reusable() if row.loaded else x for x in tensors[1:])]


def errors(row: Row, protocol: Any) -> Reals:
    """The distance to float64 of each result, in units times max(1, |result|) and the row's condition."""
    f = protocol.fixed_point.fractional_bits
    arrays = row.inputs(f)
    with protocol:
        got = row.program(*shared(row, protocol, arrays)).reveal("receiver").numpy()
    wanted = row.real(*arrays)
    if got.shape != wanted.shape:
        raise ValueError(f"{row.name}: shape {got.shape} instead of {wanted.shape}")
    size = np.maximum(1.0, np.abs(wanted))
    if row.condition is not None:
        size = size * row.condition(*arrays)
    return np.abs(got - wanted) / size * 2.0**f


def counted(row: Row, protocol: Any) -> Counted:
    """Rounds, bytes that each server sends, and bytes that the dealer sends to both."""
    inputs = shared(row, protocol, [np.zeros(shape) for shape in row.shapes])
    cost = sf.function(row.program).cost(*inputs)
    elements = inputs[0].size
    return Counted(cost.rounds, cost.online_bytes / 2 / elements, cost.offline_bytes / elements)


# --- printing ---------------------------------------------------------------------------------------------------------


def function_table(f: int) -> dict[str, list[list[str]]]:
    """Cells of the tables of functions."""
    tables = {}
    for title, rows_of_table in TABLES.items():
        cells = []
        for row in rows_of_table:
            protocol = sf.SPDZ(fixed_point=sf.FixedPoint(f))
            with sf.insecure_session(1):
                worst, cost = float(np.max(errors(row, protocol))), counted(row, protocol)
            stated = "exact" if row.units == 0 else f"{row.units:g}"
            found = "0" if worst == 0 else f"{worst:.2f}"
            cells.append(
                [
                    f"`{row.name}`",
                    row.meaning,
                    stated,
                    found,
                    f"{cost.rounds}",
                    f"{cost.online:.6g}",
                    f"{cost.offline:.6g}",
                ]
            )
        tables[title] = cells
    return tables


def layout_table() -> list[list[str]]:
    """Cells of the table of comparison layouts."""
    cells = []
    for bits in COMPARED_BITS:
        for prefer in PRESETS:
            plan: Layout = layout_for(bits, prefer)
            gates = " x ".join(map(str, plan.gates))
            sizes = (plan.online_bits / 8, plan.offline_bits / 8, plan.gate_bits / 8)
            cells.append([str(bits), prefer, str(plan.group), gates, str(plan.rounds), *(f"{n:g}" for n in sizes)])
    return cells


FUNCTION_HEADER = ["Function", "Meaning", "Error stated", "measured", "Rounds", "Online bytes", "Offline bytes"]
LAYOUT_HEADER = [
    "Bits",
    "Preset",
    "Group",
    "Gates",
    "Rounds",
    "Online bytes",
    "Offline bytes",
    "Each further threshold",
]


def markdown(header: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *cells]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints, and writes what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--markdown", type=Path, help="write the tables to this file, too")
    parser.add_argument("--fractional-bits", type=int, default=16)
    options = parser.parse_args(arguments)
    if options.markdown is not None and not options.markdown.parent.is_dir():
        parser.error(f"--markdown: the folder {options.markdown.parent} does not exist; make it first")
    console, text = Console(), []
    tables = {title: (FUNCTION_HEADER, cells) for title, cells in function_table(options.fractional_bits).items()}
    for title, (header, cells) in {**tables, "Comparisons": (LAYOUT_HEADER, layout_table())}.items():
        table = Table(*header, title=title)
        for line in cells:
            table.add_row(*(cell.strip("`") for cell in line))
        console.print(table)
        text.append(f"### {title}\n\n{markdown(header, cells)}\n")
    if options.markdown is not None:
        options.markdown.write_text("\n".join(text), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
