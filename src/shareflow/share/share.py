"""What all kinds of shares have in common: components, each a tensor at a party."""

from __future__ import annotations

import abc
import weakref
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeVar

import tensorflow as tf

from shareflow.party.party import Party

S = TypeVar("S", bound="Share")


class Share(abc.ABC):
    """A value held by parties as components; ``parties[i]`` holds ``components[i]``.

    For a *linear* kind, a linear operation on the value is the same operation on each component, which its
    party computes alone (:func:`linear`).
    """

    linear: ClassVar[bool] = True

    def __init__(self) -> None:
        self._lifted: weakref.WeakKeyDictionary[Any, dict[type[Share], Share]] = weakref.WeakKeyDictionary()

    @property
    @abc.abstractmethod
    def parties(self) -> tuple[Party, ...]:
        """Who holds each component."""

    @property
    @abc.abstractmethod
    def components(self) -> tuple[tf.Tensor, ...]:
        """The tensors, in the order of ``parties``."""

    @abc.abstractmethod
    def with_components(self: S, components: Sequence[tf.Tensor]) -> S:
        """A share of the same kind and parties with other components."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The value's shape."""
        return tuple(self.components[0].shape)

    def lifted(self, kind: type[S]) -> S | None:
        """The form of that kind that was made of this share in the graph being built, if it was."""
        return self._lifted.get(_graph(), {}).get(kind)  # type: ignore[return-value]

    def keep(self, form: Share) -> None:
        """Remember another form of this share. It lives as long as the share, and in its graph alone."""
        self._lifted.setdefault(_graph(), {})[type(form)] = form


class _Eager:
    """Stands for the one 'graph' of eager execution."""


_EAGER = _Eager()


def _graph() -> Any:
    # A form that was masked while one graph was traced must never serve another: its mask would be used again.
    return _EAGER if tf.executing_eagerly() else tf.compat.v1.get_default_graph()


def linear(compute: Callable[..., tf.Tensor], *shares: S) -> S:
    """A linear operation on shares of one kind: each party applies it to its own components. Costs nothing."""
    first = shares[0]
    results = []
    for party, *own in zip(first.parties, *(share.components for share in shares), strict=True):
        with party:
            results.append(compute(*own))
    return first.with_components(results)


def template(share: S) -> S:
    """A share of the same kind and parties that holds no tensors: what remains to be known of its components."""
    return share.with_components([None] * len(share.parties))
