"""Keras 3 models of any topology."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import keras
import tensorflow as tf

from shareflow.compiler.front.source import Argument, Source
from shareflow.errors import UnsupportedModelError

# Where Keras begins a new word in the name of a layer that it names after its class.
_WORD = re.compile(r"(?<=.)(?=[A-Z][a-z])|(?<=[a-z])(?=[A-Z])")


def keras_source(model: keras.Model, inputs: Mapping[str, Argument] | None = None) -> Source:
    """A built Keras model: Sequential, functional, nested or a subclass that has seen its inputs.

    Args:
        model: of any topology.
        inputs: by name, in place of what the model says: shapes that it leaves open, types, parties. A subclass does
            not know the types of its inputs.

    Raises:
        UnsupportedModelError: no Keras model; not built; extents that are not known; an input that there is not.
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
    structure = _input_structure(model)
    arguments, tensors = {}, tf.nest.flatten(structure)
    names = sorted(map(str, structure)) if isinstance(structure, dict) else _input_names(tensors)
    given = dict(inputs or {})
    unknown = set(given) - set(names)
    if unknown:
        raise UnsupportedModelError(
            f"Model '{model.name}' has no input {sorted(unknown)[0]!r}; its inputs are {', '.join(names)}."
        )
    for name, tensor in zip(names, tensors, strict=True):
        if name in given:
            arguments[name] = given[name]
            continue
        shape = tuple(tensor.shape[1:])
        if any(extent is None for extent in shape):
            raise UnsupportedModelError(
                f"Model '{model.name}' takes samples of shape {shape}; all extents but the batch must be known. "
                "Build it with keras.Input(shape=...) of fixed extents."
            )
        arguments[name] = Argument(shape, keras.backend.standardize_dtype(tensor.dtype))

    def trace(batch: int) -> Any:
        def call(*given: tf.Tensor) -> Any:
            return tf.nest.flatten(model(tf.nest.pack_sequence_as(structure, given), training=False))

        specs = [tf.TensorSpec(a.full_shape(batch), a.dtype, name=name) for name, a in arguments.items()]
        return tf.function(call, autograph=False).get_concrete_function(*specs)

    outputs = _output_names(model)
    return Source(model.name, arguments, outputs, trace, _layer_names(model))


def _input_structure(model: Any) -> Any:
    inputs = getattr(model, "_inputs_struct", None)
    if inputs is None:
        inputs = getattr(model, "inputs", None)
        inputs = inputs[0] if isinstance(inputs, list) and len(inputs) == 1 else inputs
    if inputs is not None:
        return inputs
    shapes = getattr(model, "_build_shapes_dict", None)
    if not shapes:
        raise UnsupportedModelError(
            f"Model '{model.name}' is a subclass that does not know its inputs' shape. Call it once on a sample, or "
            "give a tf.function with an input signature in place of the model."
        )
    found = [value for value in shapes.values() if value is not None]
    structure = found[0] if len(found) == 1 else found
    if _is_shape(structure):
        return keras.KerasTensor(structure, model.compute_dtype)
    return tf.nest.map_structure(lambda shape: keras.KerasTensor(shape, model.compute_dtype), structure)


def _is_shape(value: Any) -> bool:
    return isinstance(value, (tuple, list)) and all(n is None or isinstance(n, int) for n in value)


def _input_names(tensors: list[Any]) -> list[str]:
    if len(tensors) == 1:
        return ["x"]
    counts: Counter[str] = Counter()
    names = []
    for tensor in tensors:
        name = re.sub(r"\W", "_", tensor.name or "x")
        # A name that Keras numbered through the process says nothing.
        name = "x" if re.fullmatch(r"keras_tensor(_\d+)?|input_layer(_\d+)?", name) else name
        counts[name] += 1
        names.append(name if counts[name] == 1 else f"{name}_{counts[name]}")
    return names


def _output_names(model: Any) -> tuple[str, ...]:
    outputs = getattr(model, "_outputs_struct", None)
    if isinstance(outputs, dict) and len(outputs) > 1:
        return tuple(str(key) for key in sorted(outputs))
    count = len(tf.nest.flatten(outputs)) if outputs is not None else 1
    return ("result",) if count == 1 else tuple(f"result_{i}" for i in range(count))


def _layer_names(model: Any) -> Callable[[str], str]:
    """Scopes as layers, in a way that depends on the model alone.

    Keras numbers the layers that the user did not name through the process: a model made twice has dense and dense_7.
    They are numbered anew, each class from the model's first. To the scope of each call TensorFlow adds a number.
    """
    canonical: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for layer in _layers(model):
        if layer.name in canonical:
            continue
        automatic = _WORD.sub("_", type(layer).__name__).lower()
        if re.fullmatch(rf"{automatic}(_\d+)?", layer.name):
            canonical[layer.name] = f"{automatic}_{counts[automatic]}" if counts[automatic] else automatic
            counts[automatic] += 1
        else:
            canonical[layer.name] = layer.name

    root = canonical[model.name]

    def layer_of(scope: str) -> str:
        path = []
        for part in scope.split("/"):
            short = re.sub(r"_\d+$", "", part)
            name = canonical.get(short if short != part and short in canonical else part)
            if name is not None:
                path.append(name)
        # Bodies of loops repeat the whole scope: what counts comes after the model's own name.
        if root in path:
            path = path[len(path) - path[::-1].index(root) :] or path[-1:]
        return "/".join(path)

    return layer_of


def _layers(model: Any) -> Iterable[Any]:
    yield model
    yield from model._flatten_layers(include_self=False, recursive=True)
