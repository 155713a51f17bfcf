"""What a private model and a plan do alike with a model's steps: names, scales, and what is left to the receiver."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import tensorflow as tf

from shareflow.compiler.keras_layers import Step
from shareflow.party.party import Party
from shareflow.protocol.placement import private_tensor
from shareflow.protocol.tensor import PrivateTensor

# Where Keras begins a new word in the name of a layer that it names after its class.
_SNAKE = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def named(steps: Sequence[Step], layers: Iterable[Any]) -> dict[str, Step]:
    """The steps by name, in a way that depends on the model alone.

    Keras numbers the layers that the user did not name through the process: a model made twice has dense and dense_7.
    They are numbered anew, each class from the model's first. Where models inside a model have layers of one name, the
    later ones get a number.
    """
    counts: Counter[str] = Counter()
    renamed = {}
    for layer in layers:
        automatic = _SNAKE.sub("_", type(layer).__name__).lower()
        if re.fullmatch(rf"{automatic}(_\d+)?", layer.name) and layer.name not in renamed:
            renamed[layer.name] = f"{automatic}_{counts[automatic]}" if counts[automatic] else automatic
            counts[automatic] += 1
    found: dict[str, Step] = {}
    for step in steps:
        # A step's name is its layer's, or that with the activation's after it.
        of = [layer for layer in renamed if f"{step.name}_".startswith(f"{layer}_")]
        before = max(of, key=len, default="")
        base = renamed.get(before, "") + step.name.removeprefix(before)
        name, count = base, 1
        while name in found:
            count += 1
            name = f"{base}_{count}"
        found[name] = step
    return found


def scope_name(name: str) -> str:
    """A layer's name as TensorFlow's scope: such names have no other characters than these."""
    return "".join(c if c.isalnum() or c in "_.-" else "_" for c in name).lstrip("_.-") or "layer"


def kept_bits(parameter: str, fractional_bits: int) -> int:
    """The scale at which a parameter is kept: what is added to a product has the product's, so nothing is rounded."""
    return 2 * fractional_bits if parameter in ("bias", "offset") else fractional_bits


def finish(scores: PrivateTensor, receiver: Party, activation: str | None) -> PrivateTensor:
    """The model's last activation, in plaintext at the receiver of the scores."""
    if activation is None:
        return scores
    with receiver:
        return private_tensor(tf.nn.softmax(scores.plaintext), receiver)
