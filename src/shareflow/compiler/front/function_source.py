"""Python functions, tf.functions, and methods of modules."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from shareflow.compiler.front.source import Argument, Source
from shareflow.errors import UnsupportedModelError

ONE = "result"


def function_source(
    function: Any, inputs: Mapping[str, Argument] | None = None, outputs: Sequence[str] | None = None
) -> Source:
    """A Python function or tf.function of tensors, or a method that is one.

    Args:
        function: its arguments are tensors; it returns a tensor, a list or a dict of them.
        inputs: by the names of its arguments; a tf.function with an input signature needs none.
        outputs: names of results, where it returns no dict.

    Raises:
        UnsupportedModelError: the inputs are not known, or are not those of the function.
    """
    arguments = dict(inputs) if inputs else _signature(function)
    _check_names(function, arguments)
    traced = function if hasattr(function, "get_concrete_function") else tf.function(function, autograph=True)
    named = Traced(lambda given: traced(**dict(zip(arguments, given, strict=True))), arguments)
    names = tuple(outputs) if outputs else named.names
    if len(names) != len(named.names):
        raise UnsupportedModelError(f"The function has {len(named.names)} results; {len(names)} names were given.")
    name = getattr(function, "__name__", getattr(function, "_name", None)) or type(function).__name__
    return Source(str(name), arguments, names, named.trace, plain_scope)


class Traced:
    """A function of tensors in the order of its arguments, traced at fixed shapes; its results in one order."""

    def __init__(self, call: Callable[[Sequence[tf.Tensor]], Any], arguments: Mapping[str, Argument]) -> None:
        self._call = call
        self._arguments = arguments
        self.names: tuple[str, ...] = ()
        # Names of results are known once it is traced.
        self._first = self._trace(1)

    def trace(self, batch: int) -> Any:
        """The concrete function for a batch size."""
        return self._first if batch == 1 else self._trace(batch)

    def _trace(self, batch: int) -> Any:
        def call(*given: tf.Tensor) -> list[tf.Tensor]:
            result = self._call(given)
            self.names = tuple(result_names(result))
            return [tf.convert_to_tensor(value) for value in tf.nest.flatten(result)]

        specs = [tf.TensorSpec(a.full_shape(batch), a.dtype, name=name) for name, a in self._arguments.items()]
        return tf.function(call, autograph=False).get_concrete_function(*specs)


def result_names(result: Any) -> list[str]:
    """Names for what a function returns: a dict's keys, places in a list; "result" for one alone.

    Raises:
        UnsupportedModelError: it returns nothing.
    """
    paths = list(_paths(result))
    if not paths or any(value is None for value in tf.nest.flatten(result)):
        raise UnsupportedModelError("The function returns None. Return a tensor, a list or a dict of tensors.")
    if paths == [()]:
        return [ONE]
    return ["_".join((ONE, *path) if path[0].isdigit() else path) for path in paths]


def _paths(result: Any) -> Any:
    """Where each tensor stands, in the order of tf.nest."""
    if isinstance(result, Mapping):
        for key in sorted(result):
            yield from ((re.sub(r"\W", "_", str(key)), *path) for path in _paths(result[key]))
    elif isinstance(result, (list, tuple)):
        names = getattr(result, "_fields", None) or [str(i) for i in range(len(result))]
        for name, value in zip(names, result, strict=True):
            yield from ((name, *path) for path in _paths(value))
    else:
        yield ()


def argument(name: str, spec: Any) -> Argument:
    """An input by its TensorSpec.

    Raises:
        UnsupportedModelError: it is no tensor, or extents but the first are not known.
    """
    if not isinstance(spec, tf.TensorSpec):
        raise UnsupportedModelError(
            f"Input {name!r} is a {type(spec).__name__} in the signature. Take each tensor as an argument of its own."
        )
    if spec.shape.rank is None or any(extent is None for extent in spec.shape[1:]):
        raise UnsupportedModelError(
            f"Input {name!r} has shape {spec.shape}; all extents but the first, the batch, must be known. Give "
            f"inputs={{'{name}': shareflow.Argument(shape, '{spec.dtype.name}')}}, or fix them in the signature."
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
    names = list(_parameters(function) or {}) or [f"x{i}" for i in range(len(signature))]
    return {name: argument(name, spec) for name, spec in zip(names, signature, strict=False)}


def _parameters(function: Any) -> dict[str, inspect.Parameter] | None:
    try:
        return dict(inspect.signature(getattr(function, "python_function", function)).parameters)
    except (TypeError, ValueError):
        return None


def _check_names(function: Any, arguments: Mapping[str, Argument]) -> None:
    parameters = _parameters(function)
    if parameters is None:
        return
    kinds = {parameter.kind for parameter in parameters.values()}
    by_name = {n for n, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    unknown = [name for name in arguments if name not in by_name]
    if unknown and inspect.Parameter.VAR_KEYWORD not in kinds:
        raise UnsupportedModelError(
            f"The function has no argument {unknown[0]!r}; it has {', '.join(sorted(by_name)) or 'none by name'}. Name "
            "inputs as its arguments are."
        )
    missing = [n for n in by_name if n not in arguments and parameters[n].default is inspect.Parameter.empty]
    if missing:
        raise UnsupportedModelError(
            f"The function takes {sorted(missing)[0]!r}, too. Give inputs for all arguments that have no default."
        )


def plain_scope(scope: str) -> str:
    """The scope without the calls that TensorFlow puts around."""
    parts = [part for part in scope.split("/") if not re.match(r"(Stateful)?PartitionedCall", part)]
    return "/".join(parts)
