"""RNN, GRU and LSTM: what the inputs add is one product for all steps; the steps follow one another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from shareflow.compiler.front.onnx_ops.call import Call, computes
from shareflow.compiler.front.onnx_ops.elementwise import hard_sigmoid
from shareflow.compiler.front.onnx_ops.laid import public_tensor

Activation = Callable[[tf.Tensor], tf.Tensor]
Step = Callable[[tf.Tensor, tuple[tf.Tensor, ...]], tuple[tf.Tensor, ...]]


def _activations(call: Call, direction: int, usual: list[str]) -> list[Activation]:
    names = list(call.get("activations") or [])
    count = len(usual)
    chosen = names[direction * count : (direction + 1) * count] or usual
    alphas, betas = list(call.get("activation_alpha") or []), list(call.get("activation_beta") or [])
    return [_activation(call, str(name), alphas, betas) for name in chosen]


def _activation(call: Call, name: str, alphas: list[float], betas: list[float]) -> Activation:
    known: dict[str, Activation] = {
        "relu": tf.nn.relu,
        "tanh": tf.tanh,
        "sigmoid": tf.sigmoid,
        "softsign": tf.nn.softsign,
        "softplus": tf.math.softplus,
    }
    lower = name.lower()
    if lower in known:
        return known[lower]
    if lower == "hardsigmoid":
        alpha, beta = alphas.pop(0) if alphas else 0.2, betas.pop(0) if betas else 0.5
        return lambda x: hard_sigmoid(x, alpha, beta)
    if lower == "leakyrelu":
        slope = alphas.pop(0) if alphas else 0.01
        return lambda x: tf.nn.leaky_relu(x, slope)
    if lower == "elu" and not alphas:
        return tf.nn.elu
    raise call.refuse(f"has the activation {name!r}.", "Use Tanh, Sigmoid, Relu, HardSigmoid, LeakyRelu or Softsign.")


def _run(call: Call, gates: int, states: int, step_of: Callable[..., Step]) -> tuple[tf.Tensor, ...]:
    """All steps in all directions: results [time, directions, batch, units], then the last states."""
    if call.get("clip"):
        raise call.refuse("clips its gates.", "Export the model without clip.")
    batch_first = bool(call.get("layout", 0))
    x = call.tensor(0)
    if batch_first:
        x = tf.transpose(x, [1, 0, 2])
    time, batch, features = x.shape
    directions = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}.get(
        str(call.get("direction", "forward"))
    )
    if directions is None:
        raise call.refuse(f"runs {call.get('direction')!r}.", "Use forward, reverse or bidirectional.")
    lengths = np.ravel(call.public(4, "lengths")) if call.has(4) else np.full(batch, time)
    units = call.shape(2)[-1]
    ends, all_results = [], []
    for direction, backwards in enumerate(directions):
        kernel, recurrent = call.tensor(1)[direction], call.tensor(2)[direction]
        bias = call.tensor(3)[direction] if call.has(3) else None
        begins = []
        for k in range(states):
            given = call.has(5 + k)
            begin = call.tensor(5 + k) if given else None
            if begin is not None and batch_first:
                begin = tf.transpose(begin, [1, 0, 2])
            begins.append(tf.zeros([batch, units], x.dtype) if begin is None else begin[direction])
        taken = tf.matmul(tf.reshape(x, [time * batch, features]), kernel, transpose_b=True)
        if bias is not None:
            taken = taken + bias[: gates * units]
        taken = tf.reshape(taken, [time, batch, gates * units])
        step = step_of(call, direction, recurrent, None if bias is None else bias[gates * units :], units)
        state = tuple(begins)
        results: dict[int, tf.Tensor] = {}
        for t in range(time - 1, -1, -1) if backwards else range(time):
            new = step(taken[t], state)
            here = t < lengths
            if not np.all(here):
                kept = public_tensor(np.repeat(here[:, np.newaxis], units, 1))
                new = tuple(tf.where(kept, fresh, old) for fresh, old in zip(new, state, strict=True))
                results[t] = tf.where(kept, new[0], tf.zeros_like(new[0]))
            else:
                results[t] = new[0]
            state = new
        ends.append(state)
        all_results.append(tf.stack([results[t] for t in range(time)]))
    y = tf.stack(all_results, 1)
    last = [tf.stack([end[k] for end in ends]) for k in range(states)]
    if batch_first:
        y = tf.transpose(y, [2, 0, 1, 3])
        last = [tf.transpose(value, [1, 0, 2]) for value in last]
    return (y, *last)


def _parts(x: tf.Tensor, count: int) -> list[tf.Tensor]:
    return tf.split(x, count, -1)


@computes("RNN")
def _rnn(call: Call) -> tuple[tf.Tensor, ...]:
    def step_of(call: Call, direction: int, recurrent: Any, bias: Any, units: int) -> Step:
        (f,) = _activations(call, direction, ["Tanh"])

        def step(taken: tf.Tensor, state: tuple[tf.Tensor, ...]) -> tuple[tf.Tensor, ...]:
            total = taken + tf.matmul(state[0], recurrent, transpose_b=True)
            return (f(total if bias is None else total + bias),)

        return step

    return _run(call, 1, 1, step_of)


@computes("GRU")
def _gru(call: Call) -> tuple[tf.Tensor, ...]:
    def step_of(call: Call, direction: int, recurrent: Any, bias: Any, units: int) -> Step:
        f, g = _activations(call, direction, ["Sigmoid", "Tanh"])
        after = bool(call.get("linear_before_reset", 0))
        gates, candidate = recurrent[: 2 * units], recurrent[2 * units :]
        gate_bias, own_bias = (None, None) if bias is None else (bias[: 2 * units], bias[2 * units :])

        def step(taken: tf.Tensor, state: tuple[tf.Tensor, ...]) -> tuple[tf.Tensor, ...]:
            (h,) = state
            total = taken[:, : 2 * units] + tf.matmul(h, gates, transpose_b=True)
            z, r = _parts(f(total if gate_bias is None else total + gate_bias), 2)
            inner = tf.matmul(h if after else r * h, candidate, transpose_b=True)
            if own_bias is not None:
                inner = inner + own_bias
            new = g(taken[:, 2 * units :] + (r * inner if after else inner))
            # (1 - z) new + z h
            return (new + z * (h - new),)

        return step

    return _run(call, 3, 1, step_of)


@computes("LSTM")
def _lstm(call: Call) -> tuple[tf.Tensor, ...]:
    if call.get("input_forget", 0):
        raise call.refuse("couples its input and forget gates.", "Export it with separate gates.")

    def step_of(call: Call, direction: int, recurrent: Any, bias: Any, units: int) -> Step:
        f, g, h_of = _activations(call, direction, ["Sigmoid", "Tanh", "Tanh"])
        peep = tf.split(call.tensor(7)[direction], 3, -1) if call.has(7) else None

        def step(taken: tf.Tensor, state: tuple[tf.Tensor, ...]) -> tuple[tf.Tensor, ...]:
            h, c = state
            total = taken + tf.matmul(h, recurrent, transpose_b=True)
            if bias is not None:
                total = total + bias
            i, o, forget, fresh = _parts(total, 4)
            if peep is not None:
                i, forget = i + peep[0] * c, forget + peep[2] * c
            c = f(forget) * c + f(i) * g(fresh)
            if peep is not None:
                o = o + peep[1] * c
            return f(o) * h_of(c), c

        return step

    return _run(call, 4, 2, step_of)
