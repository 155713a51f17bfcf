"""Calling any TensorFlow op by its name: to compute it, or to learn the shapes of its results."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.framework import op_def_registry

from shareflow.errors import UnsupportedModelError

# Ops whose results' shapes follow from the values of inputs, all but those at these positions, as TensorFlow finds out
# when it computes them.
_SHAPED_BY_VALUES = {"DynamicPartition": (0,), "SegmentMean": (0,), "SegmentSum": (0,)}


@functools.cache
def _definition(op: str) -> Any:
    definition = op_def_registry.get(op)
    if definition is None:
        raise UnsupportedModelError(f"TensorFlow has no op {op!r}. A library that defines it may have to be imported.")
    return definition


@functools.cache
def _given_attributes(op: str) -> tuple[str, ...]:
    """The attributes that do not follow from the inputs."""
    definition = _definition(op)
    inferred = set()
    for argument in definition.input_arg:
        inferred |= {argument.type_attr, argument.number_attr, argument.type_list_attr}
    return tuple(a.name for a in definition.attr if a.name not in inferred and not a.name.startswith("_"))


@functools.cache
def _function(op: str) -> tuple[Any, dict[str, str]]:
    """The op as a Python function, and the names that its arguments have there, by those of its definition."""
    function = getattr(tf.raw_ops, op, None)
    if function is None:
        raise UnsupportedModelError(f"TensorFlow's op {op!r} cannot be called by itself.")
    definition = _definition(op)
    parameters = [name for name in inspect.signature(function).parameters if name != "name"]
    names = [argument.name for argument in definition.input_arg]
    names += list(_given_attributes(op))
    # Where Python has another name for one, it stands at the same place among those that are left.
    found = {name: name for name in names if name in parameters}
    left = [name for name in parameters if name not in names]
    found.update(zip((name for name in names if name not in found), left, strict=False))
    return function, found


def attributes_of(operation: tf.Operation) -> dict[str, Any]:
    """An operation's attributes as Python values, those that follow from its inputs left out."""
    return {name: _plain(operation.get_attr(name)) for name in _given_attributes(operation.type)}


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if type(value).__name__ == "TensorShapeProto":
        return tf.TensorShape(value)
    return value


def compute(op: str, inputs: Sequence[Any], attributes: Mapping[str, Any]) -> list[Any]:
    """The results of a TensorFlow op on tensors, eager or in the graph being built."""
    function, names = _function(op)
    arguments: dict[str, Any] = {}
    position = 0
    defined = _definition(op).input_arg
    # Lists of an op with several are of one length: indices and data of DynamicStitch.
    lists = sum(bool(argument.number_attr or argument.type_list_attr) for argument in defined)
    count = (len(inputs) - len(defined) + lists) // max(lists, 1)
    for argument in defined:
        if argument.number_attr or argument.type_list_attr:
            arguments[names[argument.name]] = list(inputs[position : position + count])
            position += count
        else:
            arguments[names[argument.name]] = inputs[position]
            position += 1
    given = {names[name]: attributes[name] for name in _given_attributes(op) if name in attributes}
    results = function(**arguments, **given)
    if results is None or isinstance(results, tf.Operation):
        return []
    if isinstance(results, tf.Tensor):
        return [results]
    flat: list[Any] = []
    for result in results:
        flat += result if isinstance(result, list) else [result]
    return flat


def result_types(
    op: str, inputs: Sequence[tuple[tuple[int, ...], str, np.ndarray | None]], attributes: Mapping[str, Any]
) -> list[tuple[tuple[int, ...], str]]:
    """Shape and type of each result, for inputs given as (shape, type, value if it is public).

    Raises:
        UnsupportedModelError: the shape of a result follows from values that are not public.
    """
    key = _key(op, inputs, attributes)
    if key is not None and key in _known_types:
        return list(_known_types[key])
    found = _inferred_types(op, inputs, attributes)
    if key is not None:
        if len(_known_types) >= _MOST_KNOWN_TYPES:
            _known_types.clear()
        _known_types[key] = found
    return list(found)


# Unrolled loops ask for the same again at every step, and TensorFlow takes a millisecond for each answer.
_known_types: dict[Any, list[tuple[tuple[int, ...], str]]] = {}
_MOST_KNOWN_TYPES = 1 << 14
_LARGEST_IN_KEY = 1 << 10


def _key(
    op: str, inputs: Sequence[tuple[tuple[int, ...], str, np.ndarray | None]], attributes: Mapping[str, Any]
) -> Any:
    """What the types follow from, as a key; None where that is large."""
    if any(value is not None and value.nbytes > _LARGEST_IN_KEY for _, _, value in inputs):
        return None
    given = tuple((s, d, None if value is None else value.tobytes()) for s, d, value in inputs)
    return op, given, repr(sorted(attributes.items(), key=lambda item: item[0]))


def _inferred_types(
    op: str, inputs: Sequence[tuple[tuple[int, ...], str, np.ndarray | None]], attributes: Mapping[str, Any]
) -> list[tuple[tuple[int, ...], str]]:
    moved = _SHAPED_BY_VALUES.get(op)
    if moved is not None and all(value is not None or i in moved for i, (_, _, value) in enumerate(inputs)):
        zeros = [np.zeros(shape, dtype) if value is None else value for shape, dtype, value in inputs]
        return [(tuple(r.shape), r.dtype.name) for r in compute(op, [tf.constant(z) for z in zeros], attributes)]
    with tf.Graph().as_default():
        feeds = [
            tf.constant(value) if value is not None else tf.compat.v1.placeholder(dtype, shape)
            for shape, dtype, value in inputs
        ]
        results = compute(op, feeds, attributes)
    for result in results:
        if not result.shape.is_fully_defined():
            if result is not results[0] and op.startswith("FusedBatchNorm"):
                # What training alone would use has no shape at inference.
                result.set_shape([0])
                continue
            raise UnsupportedModelError(f"The shape of {op}'s result is not known beforehand: {result.shape}.")
    return [(tuple(result.shape), result.dtype.name) for result in results]
