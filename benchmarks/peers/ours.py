"""Our side: one task as a shareflow function on shared inputs, all parties in this process."""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

import shareflow as sf
from benchmarks.peers.tasks import Problem, Task
from shareflow.protocol.default import current_protocol


class Ours:
    """A task made ready: inputs shared, weights loaded, the graph traced."""

    def __init__(self, task: Task, problem: Problem) -> None:
        if not tf.config.experimental.get_synchronous_execution():
            raise RuntimeError("Calls are timed until they return, so they must not be asynchronous.")
        if problem.model is not None:
            model = sf.private_model(problem.model, owner="model-owner")
            compute: Any = model
            values = problem.inputs[:1]
        else:
            compute, values = task.ours, problem.inputs
        # Shared here, outside of what is timed; masking them is part of each run.
        self._inputs = [sf.private_tensor(value, "client").shared(current_protocol()) for value in values]
        if task.stored:
            # As private variables keep them: masked once, when they are loaded.
            self._inputs = [value.reusable() for value in self._inputs]
        # A product has twice the fractional bits. They are cut, as the peer does, so that results can be used on.
        self._function = sf.function(lambda *inputs: compute(*inputs).ready())
        self.cost = self._function.cost(*self._inputs)
        self._result = self._function(*self._inputs)

    def run(self) -> tuple[float, float]:
        """Seconds of one run, offline and online together: of wall clock, and of all cores."""
        cpu, wall = time.process_time(), time.perf_counter()
        self._result = self._function(*self._inputs)
        return time.perf_counter() - wall, time.process_time() - cpu

    def halves(self, runs: int) -> tuple[float, float]:
        """Median seconds of the dealer's part and of the rest, run one after the other."""
        self._function.timed(*self._inputs)
        timings = [self._function.timed(*self._inputs)[1] for _ in range(runs)]
        return statistics.median(t.offline for t in timings), statistics.median(t.online for t in timings)

    def output(self) -> NDArray[np.float64]:
        """The last run's result in plaintext."""
        return np.asarray(self._result.reveal("client").numpy(), np.float64)
