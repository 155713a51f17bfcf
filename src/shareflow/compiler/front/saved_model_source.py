"""Functions of SavedModels, and frozen graphs of TensorFlow 1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from shareflow.compiler.front.function_source import ONE, Traced, argument, plain_scope
from shareflow.compiler.front.source import Argument, Source
from shareflow.errors import DataError, UnsupportedModelError

_USUAL = ("serving_default", "serve")


def saved_model_source(
    folder: Path, signature: str | None = None, inputs: Mapping[str, Argument] | None = None
) -> Source:
    """One function of a SavedModel.

    Args:
        folder: with its saved_model.pb.
        signature: a signature, or a tf.function of the saved object; where there is one alone, or the usual
            ``serving_default`` or ``serve``, it need not be said.
        inputs: shapes by name, where the signature leaves extents open.

    Raises:
        DataError: it cannot be loaded.
        UnsupportedModelError: no such function; extents that are not known.
    """
    try:
        loaded = tf.saved_model.load(str(folder))
    except (ValueError, OSError, KeyError, TypeError, AttributeError, tf.errors.OpError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(f"'{folder}' is no SavedModel that TensorFlow can load: {reason} Save it again.") from None
    found = _functions(loaded)
    name = _chosen(folder, found, signature)
    concrete = found[name]
    positional, by_name = list(concrete.structured_input_signature)
    specs = dict(by_name)
    for k, spec in enumerate(tf.nest.flatten(positional)):
        if isinstance(spec, tf.TensorSpec):
            specs[spec.name or f"x{k}"] = spec
    given = dict(inputs or {})
    unknown = set(given) - set(specs)
    if unknown:
        raise UnsupportedModelError(
            f"{name!r} of '{folder.name}' has no input {sorted(unknown)[0]!r}; its inputs are {', '.join(specs)}."
        )
    arguments = {key: given[key] if key in given else argument(key, spec) for key, spec in specs.items()}

    def call(values: Sequence[tf.Tensor]) -> Any:
        if by_name:
            return concrete(**dict(zip(arguments, values, strict=True)))
        return concrete(*values)

    # The loaded object must live as long as its functions.
    call.loaded = loaded  # type: ignore[attr-defined]
    traced = Traced(call, arguments)
    names = (ONE,) if len(traced.names) == 1 else traced.names
    return Source(folder.name, arguments, names, traced.trace, plain_scope)


def _functions(loaded: Any) -> dict[str, Any]:
    """All that can be called: signatures, and functions of the object that were saved with one form of inputs."""
    found = dict(loaded.signatures)
    for name in dir(loaded):
        if name in found or (name.startswith("_") and name != "__call__") or name == "signatures":
            continue
        try:
            concrete: list[Any] = list(getattr(getattr(loaded, name), "concrete_functions", []))
        except (AttributeError, ValueError):
            continue
        if len(concrete) == 1:
            found[name] = concrete[0]
    return found


def _chosen(folder: Path, found: Mapping[str, Any], signature: str | None) -> str:
    if signature is None:
        usual = [name for name in _USUAL if name in found] or (list(found) if len(found) == 1 else [])
        if usual:
            return usual[0]
    elif signature in found:
        return signature
    there = ", ".join(sorted(found)) or "none"
    if signature is None and found:
        raise UnsupportedModelError(f"The SavedModel '{folder.name}' has several functions: {there}. Say signature=.")
    raise UnsupportedModelError(
        f"The SavedModel '{folder.name}' has no signature {signature or 'serving_default'!r}; it has: {there}. Save it "
        "with tf.saved_model.save(model, path, signatures=...)."
    )


def frozen_graph_source(path: Path, inputs: Mapping[str, Argument] | None = None) -> Source:
    """A GraphDef in which variables are constants, as TensorFlow 1 freezes it.

    Its inputs are its placeholders; its results, what nothing else takes.

    Raises:
        DataError: it is none.
        UnsupportedModelError: extents that are not known.
    """
    definition = tf.compat.v1.GraphDef()
    try:
        definition.ParseFromString(path.read_bytes())
        wrapped = tf.compat.v1.wrap_function(lambda: tf.compat.v1.import_graph_def(definition, name=""), [])
    except Exception as error:  # protobuf's decoder has errors of its own, by version
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(f"'{path}' is no frozen graph: {reason} Save the model as a SavedModel, or as ONNX.") from None
    operations = wrapped.graph.get_operations()
    places = [op for op in operations if op.type == "Placeholder"]
    taken = {tensor.name for op in operations for tensor in op.inputs}
    ends = [op for op in operations if op.outputs and op.type not in ("Placeholder", "Const", "NoOp")]
    results = [op.outputs[0] for op in ends if not any(tensor.name in taken for tensor in op.outputs)]
    if not places or not results:
        raise DataError(f"'{path}' has no placeholders, or no results: it is no frozen graph of a model.")
    given = dict(inputs or {})
    arguments = {
        op.name: given.get(op.name) or argument(op.name, tf.TensorSpec(op.outputs[0].shape, op.outputs[0].dtype))
        for op in places
    }
    pruned = wrapped.prune([op.outputs[0] for op in places], results)
    names = tuple(tensor.op.name.replace("/", "_") for tensor in results)
    traced = Traced(lambda values: pruned(*values), arguments)
    return Source(path.stem, arguments, names if len(names) > 1 else (ONE,), traced.trace, plain_scope)
