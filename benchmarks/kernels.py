"""Measure the ring kernels: every instruction set of this CPU beside TensorFlow's own operations.

python -m benchmarks.kernels [--json PATH] [--repeats N]

One process with one thread and one with all of them run the same cases, because the number of threads is fixed when
the library is loaded. A cell is the median over the repeats, in the row's unit, and half the distance between the
quartiles in percent of it. With one thread the clock is the CPU time of the process, which does not count what else
the machine does; with more it is the wall clock, which does: measure on an idle machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

Run = Callable[[], Any]


@dataclass(frozen=True)
class Case:
    """One row: `work` is what a run does, in 10^9 of the unit."""

    name: str
    unit: str
    work: float
    run: Run
    tensorflow: Run | None = None
    reference: Run | None = None


PRODUCTS = [(1024, 1024, 1024), (128, 768, 128), (3136, 576, 64), (32, 800, 500), (1, 800, 500), (1, 784, 128)]
SAME = ((1, 1), (1, 1))
CONVOLUTIONS: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ((100, 28, 28, 1), (5, 5, 1, 20), {}),
    ((100, 12, 12, 20), (5, 5, 20, 50), {}),
    ((1, 224, 224, 3), (7, 7, 3, 64), {"strides": (2, 2), "padding": ((3, 3), (3, 3))}),
    ((1, 56, 56, 64), (3, 3, 64, 64), {"padding": SAME}),
    ((1, 56, 56, 64), (1, 1, 64, 256), {}),
    ((1, 14, 14, 256), (3, 3, 256, 256), {"padding": SAME}),
    ((1, 7, 7, 512), (3, 3, 512, 512), {"padding": SAME}),
]
VALUES = 1 << 20


def cases() -> Iterator[Case]:
    """All the rows; each makes its tensors when it is reached."""
    import numpy as np
    import tensorflow as tf

    from shareflow.ring import kernels, reference

    rng = np.random.default_rng(0)

    def words(*shape: int) -> tf.Tensor:
        return tf.constant(rng.integers(-(2**63), 2**63 - 1, shape, np.int64))

    for m, k, n in PRODUCTS:
        a, b = words(m, k), words(k, n)
        yield Case(
            f"matmul [{m}, {k}] x [{k}, {n}]",
            "GMAC/s",
            m * k * n / 1e9,
            partial(kernels.matmul, a, b),
            partial(tf.matmul, a, b),
        )
    for x_shape, w_shape, how in CONVOLUTIONS:
        x, w = words(*x_shape), words(*w_shape)
        out = kernels.conv2d(x, w, **how).shape
        yield Case(
            f"conv2d {list(x_shape)} * {list(w_shape)}",
            "GMAC/s",
            out.num_elements() * w_shape[0] * w_shape[1] * w_shape[2] / 1e9,
            partial(kernels.conv2d, x, w, **how),
            reference=partial(reference.conv2d, x, w, **how),
        )
    x, w = words(1, 56, 56, 128), words(3, 3, 128, 1)
    yield Case(
        "depthwise [1, 56, 56, 128] * [3, 3, 128, 1]",
        "GMAC/s",
        56 * 56 * 128 * 9 / 1e9,
        partial(kernels.depthwise_conv2d, x, w, padding=SAME),
        reference=partial(reference.depthwise_conv2d, x, w, padding=SAME),
    )

    size, width = VALUES * 8 / 1e9, VALUES // 64
    key = words(2)
    yield Case(
        "uniform, 2^20 words",
        "GB/s",
        size,
        partial(kernels.uniform, key, 1, 2, [VALUES]),
        partial(tf.random.stateless_uniform, [VALUES], key, None, None, tf.int64),
        partial(reference.uniform, key, 1, 2, [VALUES]),
    )
    values = [words(VALUES) for _ in range(6)]
    planes, packed = words(64, width), words(width)
    products, masks, gates = words(15, 16, width), words(2, 16, width), words(22, 4, width)
    groups = {"bits": 63, "group": 4, "groups": 16}
    leader = {"leader": True}
    bits: list[tuple[str, float, str, tuple[Any, ...], dict[str, Any]]] = [
        ("bit_planes, 2^20 values", 2, "bit_planes", (values[0],), {}),
        ("from_bit_planes, 2^20 values", 2, "from_bit_planes", (planes, [VALUES]), {}),
        ("pack_bits, 2^20 values", 1, "pack_bits", (values[0],), {}),
        ("unpack_bits, 2^20 values", 1, "unpack_bits", (packed, [VALUES]), {}),
        ("group_products, 16 groups of 4", 1 + 240 / 64, "group_products", (values[0],), groups),
        (
            "group_polynomials, 16 groups of 4",
            1 + 272 / 64,
            "group_polynomials",
            (values[0], products),
            groups | leader,
        ),
        ("gate_products, 4 of radix 4", 120 / 64, "gate_products", (masks,), {"radix": 4, "last": False}),
        (
            "gate, 4 of radix 4",
            160 / 64,
            "gate",
            (masks, masks, gates),
            {"radix": 4, "last": False, **leader},
        ),
        ("truncate_opened", 4, "truncate_opened", tuple(values[:3]), {"shift": 16, **leader}),
        ("multiply_bit", 5, "multiply_bit", (*values[:2], packed, *values[2:4]), leader),
        (
            "truncate_multiply_bit",
            7,
            "truncate_multiply_bit",
            (values[0], packed, *values[1:]),
            {"shift": 16, **leader},
        ),
        ("shift_left", 2, "shift_left", (values[0], 16), {}),
    ]
    for name, traffic, function, args, how in bits:
        yield Case(
            name,
            "GB/s",
            traffic * size,
            partial(getattr(kernels, function), *args, **how),
            reference=partial(getattr(reference, function), *args, **how),
        )


def speeds(run: Run, work: float, repeats: int) -> dict[str, float]:
    """Median, quartiles and extremes of the speed, in 10^9 of the unit a second."""
    clock = time.process_time if os.environ.get("SHAREFLOW_THREADS") == "1" else time.perf_counter
    start = time.perf_counter()
    run()
    inner = max(1, round(0.002 / max(time.perf_counter() - start, 1e-7)))
    run()
    found = []
    for _ in range(repeats):
        start = clock()
        for _ in range(inner):
            run()
        found.append(work * inner / (clock() - start))
    low, median, high = statistics.quantiles(found, n=4)
    return {"median": median, "low": low, "high": high, "least": min(found), "most": max(found)}


def measure(repeats: int) -> list[dict[str, Any]]:
    """All cases in this process."""
    from shareflow.ring import kernels

    rows = []
    for case in cases():
        row: dict[str, Any] = {"name": case.name, "unit": case.unit, "speeds": {}}
        if case.tensorflow is not None:
            row["speeds"]["tensorflow"] = speeds(case.tensorflow, case.work, repeats)
        if case.reference is not None:
            row["speeds"]["reference"] = speeds(case.reference, case.work, min(repeats, 3))
        for name in kernels.available()[:-1]:
            with kernels.forced(name):
                row["speeds"][name] = speeds(case.run, case.work, repeats)
        rows.append(row)
    return rows


def in_process(threads: int, repeats: int) -> list[dict[str, Any]]:
    """`measure` in a process with this many threads."""
    environment = {
        **os.environ,
        "SHAREFLOW_THREADS": str(threads),
        "TF_NUM_INTRAOP_THREADS": str(threads),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    environment.pop("SHAREFLOW_KERNELS", None)
    command = [sys.executable, "-m", "benchmarks.kernels", "--worker", "--repeats", str(repeats)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True)
    rows: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return rows


def show(title: str, rows: list[dict[str, Any]]) -> None:
    """Print the rows as a table."""
    from rich.console import Console
    from rich.table import Table

    columns = list(dict.fromkeys(name for row in rows for name in row["speeds"]))
    columns.sort(key=lambda name: ["tensorflow", "reference"].index(name) if name in ("tensorflow", "reference") else 2)
    table = Table(title=title)
    table.add_column("kernel")
    table.add_column("unit")
    for name in columns:
        table.add_column(name, justify="right")
    for row in rows:
        cells = []
        for name in columns:
            speed = row["speeds"].get(name)
            if speed is None:
                cells.append("")
                continue
            spread = 50 * (speed["high"] - speed["low"]) / speed["median"]
            cells.append(f"{speed['median']:.3g} ±{spread:.0f}%")
        table.add_row(row["name"], row["unit"], *cells)
    Console(width=None if sys.stdout.isatty() else 130).print(table)


def main() -> None:
    """Measure with one thread and with all, print tables, write JSON."""
    parser = argparse.ArgumentParser(description="Measure the ring kernels beside TensorFlow's operations.")
    parser.add_argument("--json", type=Path, default=Path("results/kernels.json"), help="where figures go")
    parser.add_argument("--repeats", type=int, default=15, help="runs of each case")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(measure(arguments.repeats)))
        return
    cpus = len(os.sched_getaffinity(0))
    results = {}
    for threads in sorted({1, cpus}):
        results[str(threads)] = rows = in_process(threads, arguments.repeats)
        show(f"Ring kernels, {threads} thread{'s' if threads > 1 else ''}", rows)
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps({"threads": results}, indent=1) + "\n")
    print(f"Figures: {arguments.json}")


if __name__ == "__main__":
    main()
