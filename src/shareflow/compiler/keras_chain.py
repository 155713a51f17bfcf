"""A Keras 3 model as a chain of layers, or the reason why it is none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras

from shareflow.errors import UnsupportedModelError


@dataclass(frozen=True)
class Link:
    """One layer of a chain. ``place`` tells a person where it stands."""

    layer: keras.layers.Layer
    place: str


def chain_of(model: keras.Model) -> tuple[tuple[int, ...], list[Link]]:
    """(shape of one sample, layers from first to last) of a Sequential or linear functional model.

    Models inside the model are taken apart.

    Raises:
        UnsupportedModelError: no Keras model, not built, several inputs or outputs, branches, a subclass.
    """
    if not isinstance(model, keras.Model):
        raise UnsupportedModelError(
            f"private_model takes a Keras 3 model; got {type(model).__name__}. Load one with keras.saving.load_model."
        )
    if not model.built:
        raise UnsupportedModelError(
            f"Model '{model.name}' has no input shape yet, and so no weights. Call it on a sample, or begin it with "
            "keras.Input(shape=...)."
        )
    layers = _walk(model)
    shape = model.inputs[0].shape[1:]
    if any(extent is None for extent in shape):
        raise UnsupportedModelError(
            f"Model '{model.name}' takes samples of shape {tuple(shape)}; all extents but the batch must be known. "
            "Build it with keras.Input(shape=...) of fixed extents."
        )
    links = [Link(layer, f"layer {i} of {len(layers)}") for i, layer in enumerate(layers, 1)]
    return tuple(shape), links


def _walk(model: keras.Model) -> list[Any]:
    if not isinstance(model, (keras.Sequential, keras.Model)) or not getattr(model, "inputs", None):
        raise UnsupportedModelError(
            f"Model '{model.name}' is a subclass, whose graph Keras does not know. So far Sequential and functional "
            "models are supported: rebuild it with keras.Sequential or keras.Model(inputs, outputs)."
        )
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise UnsupportedModelError(
            f"Model '{model.name}' has {len(model.inputs)} inputs and {len(model.outputs)} outputs; so far models with "
            "one of each are supported."
        )
    layers: list[Any] = []
    tensor, first = model.outputs[0], model.inputs[0]
    while tensor is not first:
        operation, node_index, _ = tensor._keras_history
        before = operation._inbound_nodes[node_index].input_tensors
        if len(before) != 1:
            raise UnsupportedModelError(
                f"Layer '{getattr(operation, 'name', operation)}' ({type(operation).__name__}) of model '{model.name}' "
                f"joins {len(before)} tensors; so far models that are one chain of layers are supported."
            )
        if isinstance(operation, keras.Model):
            layers[:0] = _walk(operation)
        elif not isinstance(operation, keras.layers.InputLayer):
            layers.insert(0, operation)
        tensor = before[0]
    return layers
