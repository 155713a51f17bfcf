"""What a private model and a plan do alike with a model's steps: names, scales, and what is left to the receiver."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from shareflow.compiler.keras_layers import Step
from shareflow.party.party import Party
from shareflow.protocol.placement import private_tensor
from shareflow.protocol.tensor import PrivateTensor


def named(steps: Sequence[Step]) -> dict[str, Step]:
    """The steps by name; where models inside a model have layers of one name, the later ones get a number."""
    found: dict[str, Step] = {}
    for step in steps:
        name, count = step.name, 1
        while name in found:
            count += 1
            name = f"{step.name}_{count}"
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
