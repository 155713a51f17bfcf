"""Ordinary TensorFlow at one party: inputs, local computations and outputs.

The decorated functions run in plaintext at the named party. What they return is known to that party alone; it
stays plaintext there until it meets a value of another.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf

from shareflow.errors import PlacementError, ShapeError
from shareflow.party.party import Party, as_party
from shareflow.protocol.tensor import PrivateTensor, PrivateValue
from shareflow.share.known import Known

F = TypeVar("F", bound=Callable[..., Any])


def private_tensor(value: Any, owner: Party | str) -> PrivateTensor:
    """A value that its owner knows: the start of every private computation. Nothing is sent yet.

    Raises:
        ShapeError: it is no tensor of real numbers, or its shape is not known.
    """
    party, given = as_party(owner), type(value).__name__
    if isinstance(value, PrivateValue):
        raise PlacementError("An input is plaintext at its owner; got a value that is private already.")
    if isinstance(value, (int, float, list, tuple)):
        # TensorFlow would hold Python's numbers with 24 bits; an encoding takes up to 46.
        with contextlib.suppress(ValueError, NotImplementedError):
            value = np.asarray(value)
    try:
        with party:
            tensor = tf.convert_to_tensor(value)
    except (TypeError, ValueError):
        raise ShapeError(
            f"An input of {party} is a tensor or array of numbers; got {given}, which is none "
            "(ragged lists are not). Convert it to one array."
        ) from None
    if not (tensor.dtype.is_floating or tensor.dtype.is_integer or tensor.dtype.is_bool):
        raise ShapeError(
            f"An input of {party} is made of real numbers; got {tensor.dtype.name}. Cast it to float32 first."
        )
    if not tensor.shape.is_fully_defined():
        raise ShapeError(
            f"An input of {party} has a shape that all parties know; got {tensor.shape}. "
            "Set it with tf.ensure_shape, or pass batches of one size."
        )
    if not tensor.dtype.is_floating:
        with party:
            tensor = tf.cast(tensor, tf.float64)
    return PrivateTensor(Known(party, tensor))


def private_input(owner: Party | str) -> Callable[[F], Callable[..., Any]]:
    """Decorates a function that yields the owner's data: its tensors become private inputs of that party.

    >>> @private_input("model-owner")
    ... def weights():
    ...     return tf.ones([3, 1])
    """
    return _at_party(owner)


def local_computation(party: Party | str) -> Callable[[F], Callable[..., Any]]:
    """Decorates a function on values that the party knows; its results are known to that party.

    Raises:
        PlacementError: an argument is shared, or known to another party. Reveal it to this one first.
    """
    return _at_party(party)


def private_output(receiver: Party | str) -> Callable[[F], Callable[..., Any]]:
    """Decorates a function that receives results: its private arguments are revealed to the receiver first."""
    party = as_party(receiver)

    def decorate(function: F) -> Callable[..., Any]:
        local = _at_party(party)(function)

        @functools.wraps(function)
        def receive(*arguments: Any, **options: Any) -> Any:
            def reveal(value: Any) -> Any:
                return value.reveal(party) if isinstance(value, PrivateValue) else value

            return local(*tf.nest.map_structure(reveal, arguments), **tf.nest.map_structure(reveal, options))

        return receive

    return decorate


def _at_party(party: Party | str) -> Callable[[F], Callable[..., Any]]:
    if callable(party) and not isinstance(party, Party):
        raise PlacementError(
            "The decorator names its party; none was given. Write for example @private_input('model-owner')."
        )
    owner = as_party(party)

    def decorate(function: F) -> Callable[..., Any]:
        @functools.wraps(function)
        def at_party(*arguments: Any, **options: Any) -> Any:
            def plain(value: Any) -> Any:
                if not isinstance(value, PrivateValue):
                    return value
                share = value.read().share
                if not isinstance(share, Known) or share.owner != owner:
                    holder = share.owner if isinstance(share, Known) else "shares"
                    raise PlacementError(
                        f"{getattr(function, '__name__', 'The function')} computes at {owner} on what {owner} knows; "
                        f"an argument is known to {holder}. Reveal it first: x.reveal('{owner}')."
                    )
                return share.value

            with owner:
                result = function(*tf.nest.map_structure(plain, arguments), **tf.nest.map_structure(plain, options))
            return tf.nest.map_structure(lambda value: _known(value, owner), result)

        return at_party

    return decorate


def _known(value: Any, owner: Party) -> Any:
    # An operation without a value, such as tf.print in a graph, has an effect at its party and no result.
    if value is None or isinstance(value, (tf.Operation, PrivateValue)):
        return value
    return private_tensor(value, owner)
