"""Any tf.function, and the signatures of SavedModels."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from shareflow.compiler.front.source import Argument, Source
from shareflow.errors import UnsupportedModelError


def function_source(
    function: Any, inputs: Mapping[str, Argument] | None = None, outputs: Sequence[str] | None = None
) -> Source:
    """A Python function or tf.function of tensors.

    Args:
        function: its arguments are tensors; it returns a tensor, a list or a dict of them.
        inputs: by the names of its arguments; a tf.function with an input signature needs none.
        outputs: names of results, where it returns no dict.

    Raises:
        UnsupportedModelError: the inputs are not known.
    """
    arguments = dict(inputs) if inputs else _signature(function)
    traced = function if hasattr(function, "get_concrete_function") else tf.function(function, autograph=True)

    def trace(batch: int) -> Any:
        # Traced through a function of our own: fixed shapes, arguments by name, results in one order.
        def call(*given: tf.Tensor) -> Any:
            result = traced(**dict(zip(arguments, given, strict=True)))
            return tf.nest.flatten(result)

        specs = [tf.TensorSpec(a.full_shape(batch), a.dtype, name=name) for name, a in arguments.items()]
        return tf.function(call, autograph=False).get_concrete_function(*specs)

    names = tuple(outputs) if outputs else _result_names(traced, arguments)
    name = getattr(function, "__name__", getattr(function, "_name", "function"))
    return Source(str(name), arguments, names, trace, _scope)


def saved_model_source(folder: Path, signature: str = "serving_default") -> Source:
    """A signature of a SavedModel.

    Raises:
        UnsupportedModelError: no such signature; extents that are not known.
    """
    loaded = tf.saved_model.load(str(folder))
    if signature not in loaded.signatures:
        raise UnsupportedModelError(
            f"The SavedModel {folder.name} has no signature {signature!r}; it has: "
            f"{', '.join(loaded.signatures) or 'none'}. Save it with tf.saved_model.save(model, path, signatures=...)."
        )
    concrete = loaded.signatures[signature]
    arguments = {}
    for name, spec in concrete.structured_input_signature[1].items():
        arguments[name] = _argument(name, spec)
    names = tuple(sorted(concrete.structured_outputs))

    def trace(batch: int) -> Any:
        def call(*given: tf.Tensor) -> Any:
            results = concrete(**dict(zip(arguments, given, strict=True)))
            return [results[name] for name in names]

        # The loaded object must live as long as its functions.
        call.model = loaded  # type: ignore[attr-defined]
        specs = [tf.TensorSpec(a.full_shape(batch), a.dtype, name=name) for name, a in arguments.items()]
        return tf.function(call, autograph=False).get_concrete_function(*specs)

    return Source(folder.name, arguments, names if len(names) > 1 else ("result",), trace, _scope)


def _argument(name: str, spec: Any) -> Argument:
    if spec.shape.rank is None or any(extent is None for extent in spec.shape[1:]):
        raise UnsupportedModelError(
            f"Input {name!r} has shape {spec.shape}; all extents but the first, the batch, must be known. Save the "
            "model with an input signature of fixed extents."
        )
    batched = spec.shape.rank > 0 and spec.shape[0] is None
    return Argument(tuple(spec.shape[1:] if batched else spec.shape), spec.dtype.name, batched)


def _signature(function: Any) -> dict[str, Argument]:
    signature = getattr(function, "input_signature", None)
    if signature is None:
        raise UnsupportedModelError(
            "What a function takes must be known: give inputs={'x': shareflow.Argument((28, 28, 1), 'float32')}, or a "
            "tf.function with an input_signature."
        )
    names = list(function.function_spec.function_type.parameters) if hasattr(function, "function_spec") else []
    return {
        name: _argument(name, spec)
        for name, spec in zip(names or [f"x{i}" for i in range(len(signature))], signature, strict=False)
    }


def _result_names(traced: Any, arguments: Mapping[str, Argument]) -> tuple[str, ...]:
    specs = {name: tf.TensorSpec(a.full_shape(1), a.dtype) for name, a in arguments.items()}
    structure = traced.get_concrete_function(**specs).structured_outputs
    if isinstance(structure, dict):
        return tuple(str(key) for key in sorted(structure))
    count = len(tf.nest.flatten(structure))
    return ("result",) if count == 1 else tuple(f"result_{i}" for i in range(count))


def _scope(scope: str) -> str:
    """The scope without the calls that TensorFlow puts around."""
    parts = [part for part in scope.split("/") if not re.match(r"(Stateful)?PartitionedCall", part)]
    return "/".join(parts)
