"""Programs that several tests of runtimes use."""

from __future__ import annotations

import numpy as np

import shareflow as sf
from shareflow import nn
from shareflow.protocol.default import current_protocol

VECTOR, MATRIX, IMAGE = (4, 6), (6, 6), (2, 6, 6, 2)


def every_operation(x, y, m, image, kernel):
    """One result that depends on every operation there is, with inputs of two owners."""
    # What its owner knows is computed in plaintext there: only shares show what operations do.
    protocol = current_protocol()
    x, y, m, image, kernel = (value.shared(protocol) for value in (x, y, m, image, kernel))
    results = [
        x + y,
        x - y,
        -x,
        x * y,
        x / 4.0,
        x**3,
        x @ m,
        x > y,
        x <= 0.5,
        (x > 0) & (y > 0),
        (x > 0) | (y > 0),
        (x > 0) ^ (y > 0),
        ~(x > y),
        x == y,
        sf.concat([x, y], axis=0),
        sf.stack([x, y]),
        *sf.at_least(x, (0.25, 0.5)),
        x.reshape(6, 4).transpose(1, 0)[1:3],
        x.pad(((1, 0), (0, 1))),
        x.sum(axis=1),
        x.mean(axis=0),
        x.take([0, 2], axis=1),
        nn.relu(x),
        nn.relu6(x * 4.0),
        nn.clip(x, -0.5, 0.5),
        nn.polynomial(x, (0.5, 0.25, 0.125)),
        nn.polynomial_relu(x),
        nn.divide(x, nn.absolute(y) + 1.0),
        nn.reciprocal(nn.absolute(x) + 1.0),
        nn.sqrt(nn.absolute(x)),
        nn.rsqrt(nn.absolute(x) + 1.0),
        nn.exp(x),
        nn.log(nn.absolute(x) + 1.0),
        nn.power(nn.absolute(x) + 1.0, 0.5),
        nn.conv2d(image, kernel),
        nn.max_pool2d(image, 2),
        nn.avg_pool2d(image, 2),
        nn.global_avg_pool2d(image),
        nn.softmax(x),
        nn.layer_norm(x, np.ones(6), np.zeros(6)),
        nn.l2_normalize(x),
        nn.variance(x),
        nn.argmax(x),
        nn.reduce_max(x, axis=1),
        nn.reduce_min(x, axis=0),
        nn.sort(x),
        nn.one_hot(nn.argmax(x), 6),
        nn.round(x * 3.0),
        nn.floor(x * 3.0),
        nn.right_shift(x, 1),
        nn.maximum(x, y),
        nn.sign(x),
        nn.where(x > y, x, y),
        nn.sigmoid(x),
        nn.tanh(x),
        nn.gelu(x),
        nn.silu(x),
        nn.erf(x),
        nn.softplus(x),
        nn.elu(x),
        nn.leaky_relu(x),
        nn.hard_sigmoid(x),
        nn.hard_swish(x),
    ]
    return {f"result{i}": value.reveal("client") for i, value in enumerate(results)}


def inputs(rng):
    """Values for :func:`every_operation`, by name: (owner, array)."""
    shapes = {"x": VECTOR, "y": VECTOR, "m": MATRIX, "image": IMAGE, "kernel": (3, 3, 2, 3)}
    owners = {"x": "client", "y": "company", "m": "company", "image": "client", "kernel": "company"}
    return {name: (owners[name], rng.uniform(-1.5, 1.5, shape).astype(np.float32)) for name, shape in shapes.items()}
