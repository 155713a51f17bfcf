"""Measures how fast this machine computes: small programs of all kinds of work, timed, and seconds fitted to them.

Each program is run in two halves, the dealer's and the rest. Its work is counted from its graph; the seconds of each
kind of work are those, none below zero, that come nearest to the measured times, near in proportion: a program of a
millisecond counts as much as one of a second.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shareflow import nn
from shareflow.compiler.cost.speeds import Speeds
from shareflow.compiler.cost.work import KINDS, work_of
from shareflow.errors import DataError
from shareflow.function import Function, function
from shareflow.party.party import Party
from shareflow.party.session import Session
from shareflow.protocol.choices import Choices
from shareflow.protocol.compare import non_negative
from shareflow.protocol.functionality.comparison import Compared, Layout
from shareflow.protocol.placement import private_tensor
from shareflow.protocol.spdz import SPDZ
from shareflow.protocol.tensor import PrivateTensor
from shareflow.ring import kernels

# Seconds that a round takes between processes of one machine besides computing, and a client's request besides its
# rounds: a line through what benchmarks.network measured on loopback, where the shipped table is from (docs/cost.md). A
# command in one process cannot measure them.
MESSAGE, REQUEST = 0.42e-3, 1.5e-3

_LAYOUTS = (Layout(4, (4, 4)), Layout(6, (4, 3)), Layout(2, (2, 2, 2, 2, 2)), Layout(3, (3, 7)))
_SIZES = (64, 4096, 65536)
_MOST_STEPS = 20_000


@dataclass(frozen=True)
class Sample:
    """One program measured: seconds and work of each of its halves."""

    name: str
    seconds: tuple[float, float]
    work: tuple[NDArray[np.float64], NDArray[np.float64]]


def samples(repeats: int = 5, sizes: Sequence[int] = _SIZES) -> Iterator[Sample]:
    """Measures one program after the other."""
    protocol = SPDZ()
    with Session():
        for name, choices, program, shapes in _programs(sizes):
            arguments = [_zeros(shape, protocol) for shape in shapes]
            yield _measured(name, function(program), choices, arguments, protocol, repeats)


Case = tuple[str, Choices, Callable[..., PrivateTensor], tuple[tuple[int, ...], ...]]


def _programs(sizes: Sequence[int]) -> Iterator[Case]:
    none = Choices()
    for size in sizes:
        for layout in _LAYOUTS:
            yield f"compare {size}, {layout}", Choices(((Compared(63, size), layout),)), non_negative, ((size,),)
        yield f"relu {size}", none, lambda x, y: nn.relu(x * y), ((size,), (size,))
        yield f"sum of products {size}", none, lambda x, y: (x * y + x * 0.5).sum().at_scale(16), ((size,), (size,))
        yield f"chain {size}", none, lambda x, y: ((x * y).at_scale(16) * y).at_scale(16), ((size,), (size,))
    for rows, inner, columns in ((1, 256, 64), (32, 512, 128), (128, 1024, 256)):
        name = f"matrix product {rows} x {inner} x {columns}"
        yield name, none, lambda x, y: x @ y, ((rows, inner), (inner, columns))
    for width, channels in ((14, 8), (28, 16)):
        shapes = ((1, width, width, channels), (3, 3, channels, 2 * channels))
        yield f"convolution {width} x {width} x {channels}", none, lambda x, y: nn.conv2d(x, y), shapes
    yield "maximum of 64", none, lambda x: nn.reduce_max(x, 0), ((64, 16),)
    yield "sort 16", none, lambda x: nn.sort(x, 0), ((16, 64),)


def _zeros(shape: tuple[int, ...], protocol: SPDZ) -> PrivateTensor:
    # Times do not depend on values.
    return private_tensor(np.zeros(shape), Party("owner")).shared(protocol)


def _measured(
    name: str,
    program: Function[Callable[..., PrivateTensor]],
    choices: Choices,
    arguments: Sequence[PrivateTensor],
    protocol: SPDZ,
    repeats: int,
) -> Sample:
    with choices:
        traced = program.trace(*arguments)
        program.timed(*arguments)
        timings = [program.timed(*arguments)[1] for _ in range(repeats)]
    work = work_of(traced.program.graph, (*traced.program.outputs, *traced.program.effects))
    dealer = protocol.dealer.job
    # The least: what else runs on the machine only adds.
    seconds = min(t.offline for t in timings), min(t.online for t in timings)
    return Sample(name, seconds, (work.of(dealer), work.others(dealer)))


def fitted(measured: Sequence[Sample]) -> Speeds:
    """The speeds that come nearest to what was measured.

    Raises:
        DataError: there are fewer halves than kinds of work.
    """
    rows, times = [], []
    for sample in measured:
        for seconds, work in zip(sample.seconds, sample.work, strict=True):
            if work.any():
                rows.append(np.append(work, 1.0) / seconds)
                times.append(1.0)
    if len(rows) <= len(KINDS):
        raise DataError(f"Speeds of {len(KINDS)} kinds of work take more than {len(rows)} measurements.")
    found = not_negative_least_squares(np.array(rows), np.array(times))
    return Speeds(tuple(map(float, found[:-1])), float(found[-1]), MESSAGE, REQUEST, machine(), "measured now")


def not_negative_least_squares(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """x of no negative entry for which |a x - b| is least, by Lawson and Hanson's active sets (1974, chapter 23)."""
    scale = np.linalg.norm(a, axis=0)
    scale[scale == 0] = 1.0
    a = a / scale
    x = np.zeros(a.shape[1])
    free = np.zeros(a.shape[1], bool)
    for _ in range(_MOST_STEPS):
        gradient = a.T @ (b - a @ x)
        if free.all() or gradient[~free].max() <= 1e-10:
            break
        free[np.argmax(np.where(free, -np.inf, gradient))] = True
        while True:
            trial = np.zeros_like(x)
            trial[free] = np.linalg.lstsq(a[:, free], b, rcond=None)[0]
            if trial[free].min() > 0:
                x = trial
                break
            # As far as the first entry that would fall below zero, which is then held there.
            falling = free & (trial <= 0)
            step = np.min(x[falling] / (x[falling] - trial[falling]))
            x = x + step * (trial - x)
            free &= x > 1e-14
            x[~free] = 0.0
            if not free.any():
                break
    return x / scale


def deviations(speeds: Speeds, measured: Sequence[Sample]) -> list[tuple[str, float, float]]:
    """(program, measured seconds, predicted seconds) of each, both halves together."""
    return [
        (
            sample.name,
            sum(sample.seconds),
            sum(speeds.of(work) + speeds.start for work in sample.work if work.any()),
        )
        for sample in measured
    ]


def machine() -> str:
    """This machine in words."""
    return f"{_processor()}, {os.cpu_count()} cores, kernels {kernels.instruction_set()}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
