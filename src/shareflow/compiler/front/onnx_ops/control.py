"""Branches and loops whose conditions are public: they unroll."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from shareflow.compiler.front.onnx_ops.call import Call, Value, computes, positive, tensor_of
from shareflow.compiler.front.onnx_ops.laid import Laid

MOST_STEPS = 10_000


@computes("If")
def _if(call: Call) -> tuple[Value, ...]:
    chosen = np.ravel(call.public(0, "a condition"))
    return tuple(call.body("then_branch" if bool(chosen[0]) else "else_branch", []))


@computes("Loop")
def _loop(call: Call) -> tuple[Value, ...]:
    limit = int(np.ravel(call.public(0, "a number of steps"))[0]) if call.has(0) else MOST_STEPS + 1
    going: Any = np.ravel(call.public(1, "a condition"))[0] if call.has(1) else True
    state = [call.value(i) for i in range(2, len(call.inputs))]
    collected: list[list[Value]] = [[] for _ in range(call.outputs - len(state))]
    step = 0
    while step < limit and bool(going):
        if step >= MOST_STEPS:
            raise call.refuse(f"takes more than {MOST_STEPS:,} steps.", "Each is a part of the program: use fewer.")
        results = call.body("body", [np.array(step, np.int64), np.array(bool(going)), *state])
        verdict = results[0]
        if not isinstance(verdict, np.ndarray):
            raise call.refuse("ends when private values say so.", "Loop a public number of times.")
        going = verdict.reshape(-1)[0]
        state = results[1 : 1 + len(state)]
        for found, value in zip(collected, results[1 + len(state) :], strict=False):
            found.append(value)
        step += 1
    return (*state, *(tf.stack([tensor_of(v) for v in found]) for found in collected))


@computes("Scan")
def _scan(call: Call) -> tuple[Value, ...]:
    count = int(call.get("num_scan_inputs"))
    states = len(call.inputs) - count
    outputs = call.outputs - states
    state = [call.value(i) for i in range(states)]
    scanned = [call.tensor(states + i) for i in range(count)]
    given = _of(call, "scan_input_axes", count)
    axes = [positive(axis, len(x.shape), call) for axis, x in zip(given, scanned, strict=True)]
    backwards = _of(call, "scan_input_directions", count)
    rows = [tf.unstack(x, axis=a)[:: -1 if b else 1] for x, a, b in zip(scanned, axes, backwards, strict=True)]
    if len(rows[0]) > MOST_STEPS:
        raise call.refuse(f"takes {len(rows[0]):,} steps.", f"Each is a part of the program: {MOST_STEPS:,} at most.")
    collected: list[list[Value]] = [[] for _ in range(outputs)]
    for parts in zip(*rows, strict=True):
        results = call.body("body", [*state, *(Laid(part) for part in parts)])
        state = results[:states]
        for found, value in zip(collected, results[states:], strict=True):
            found.append(value)
    stacked = []
    for found, axis, reverse in zip(
        collected, _of(call, "scan_output_axes", outputs), _of(call, "scan_output_directions", outputs), strict=True
    ):
        stacked.append(tf.stack([tensor_of(v) for v in found[:: -1 if reverse else 1]], axis=int(axis)))
    return (*state, *stacked)


def _of(call: Call, attribute: str, count: int) -> list[int]:
    return [int(n) for n in call.get(attribute) or [0] * count]
