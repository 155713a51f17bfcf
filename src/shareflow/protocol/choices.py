"""Which variant computes an operation, where there are several with the same result.

A *site* is an operation of one size, such as a comparison of 46 bits of 6,400 elements; a *variant* is one way to
compute it, such as a layout of its gates. Functions ask :func:`chosen` while a program is traced. Without a choice they
take their default. All parties run the graph that was traced, so that they cannot choose differently; a plan names the
choices that it was traced with in its settings.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from shareflow.errors import ProtocolError

V = TypeVar("V")
C = TypeVar("C", bound="Chooser")


class Site(abc.ABC):
    """An operation of one size. Final subclasses are frozen dataclasses, which stand next to what computes them."""

    @abc.abstractmethod
    def require(self, variant: Any) -> None:
        """Raises a ProtocolError where this is no variant of it, which names the rule and what was given."""


class Chooser(abc.ABC):
    """Who is asked for variants. ``with chooser:`` has what is traced inside the block computed so."""

    @abc.abstractmethod
    def variant(self, site: Site, default: Any) -> Any:
        """What is chosen for a site, or the default."""

    @property
    @abc.abstractmethod
    def table(self) -> tuple[tuple[Site, Any], ...]:
        """Pairs of a site and its variant, for those sites that do not take their default."""

    def __enter__(self: C) -> C:
        _entered.set((*_entered.get(), self))
        return self

    def __exit__(self, *exception: Any) -> None:
        _entered.set(_entered.get()[:-1])


@dataclass(frozen=True)
class Choices(Chooser):
    """Variants by site, as they were decided.

    Args:
        table: pairs of a site and its variant; sites that are not named take their default.

    Raises:
        ProtocolError: a variant that is none of its site, or a site named twice.
    """

    table: tuple[tuple[Site, Any], ...] = ()

    def __post_init__(self) -> None:
        for site, variant in self.table:
            if not isinstance(site, Site):
                raise ProtocolError(f"Choices are pairs of a site and a variant; {type(site).__name__} is no site.")
            site.require(variant)
        if len({site for site, _ in self.table}) < len(self.table):
            raise ProtocolError(
                "Choices name each site once; one is there twice. Leave out all but one of its variants."
            )

    @classmethod
    def of(cls, variants: Mapping[Site, Any]) -> Choices:
        """In an order that depends on what is chosen alone."""
        return cls(tuple(sorted(variants.items(), key=repr)))

    def variant(self, site: Site, default: Any) -> Any:
        return next((variant for other, variant in self.table if other == site), default)

    def __bool__(self) -> bool:
        return bool(self.table)

    def __str__(self) -> str:
        return "; ".join(f"{site}: {variant}" for site, variant in self.table) or "defaults"


NONE = Choices()
# Innermost last; each thread has its own.
_entered: ContextVar[tuple[Chooser, ...]] = ContextVar("choices", default=())


def current_choices() -> Chooser:
    """Who is asked in the innermost such block; elsewhere nothing is chosen."""
    return _entered.get()[-1] if _entered.get() else NONE


def chosen(site: Site, default: V) -> V:
    """The variant for a site in what is traced now."""
    return cast(V, current_choices().variant(site, default))
