"""Rule tables: which code carries out an operation on given kinds of shares.

A table is a value. Its keys are an operation (or a class of operations) and the exact kinds of shares; tables
join with ``|`` and a clash is an error. Lifts say how one kind becomes another and what that costs; where no
rule fits the operands as they are, the cheapest lifts that make one fit are taken.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from shareflow.errors import MissingRuleError
from shareflow.protocol.op import BILINEAR, Op, OpClass
from shareflow.share.share import Share

Kinds = tuple[type[Share], ...]
Rule = Callable[..., Share]
# A kind that an operand can take, what that costs, and its rank among those that cost as much.
Form = tuple[type[Share], int, int]
R = TypeVar("R", bound=Rule)


@dataclass(frozen=True)
class Lift:
    """How a share becomes one of another kind. ``cost`` orders lifts: 0 is local, a round is 100."""

    convert: Callable[..., Share]
    cost: int


@dataclass(frozen=True)
class Rules:
    """Rules by operation and kinds, and lifts by kinds."""

    table: dict[tuple[Op | OpClass, Kinds], Rule] = field(default_factory=dict)
    lifts: dict[tuple[type[Share], type[Share]], Lift] = field(default_factory=dict)

    def rule(self, op: Op | OpClass, *kinds: type[Share]) -> Callable[[R], R]:
        """Registers ``rule(protocol, op, *shares, **attributes)`` for an operation, or for a class of them."""

        def register(rule: R) -> R:
            self._claim(self.table, (op, kinds), rule)
            return rule

        return register

    def lift(self, source: type[Share], to: type[Share], cost: int) -> Callable[[R], R]:
        """Registers ``convert(protocol, share)``."""

        def register(convert: R) -> R:
            self._claim(self.lifts, (source, to), Lift(convert, cost))
            return convert

        return register

    @staticmethod
    def _claim(table: dict[Any, Any], key: Any, value: Any) -> None:
        if key in table:
            raise MissingRuleError(f"Two rules for {key}: a table holds one. Remove one, or use another key.")
        table[key] = value

    def __or__(self, other: Rules) -> Rules:
        joined = Rules(dict(self.table), dict(self.lifts))
        for key, rule in other.table.items():
            self._claim(joined.table, key, rule)
        for pair, lift in other.lifts.items():
            self._claim(joined.lifts, pair, lift)
        return joined

    def find(self, op: Op, kinds: Kinds) -> Rule | None:
        """The rule for these kinds exactly: the operation's own before that of its class."""
        if (op, kinds) in self.table:
            return self.table[op, kinds]
        if op.kind is not BILINEAR and len(set(kinds)) == 1:
            # One rule for a class serves any number of operands of one kind.
            return self.table.get((op.kind, kinds[:1]))
        return self.table.get((op.kind, kinds))

    def apply(self, protocol: Any, op: Op, *shares: Share, **attributes: Any) -> Share:
        """Carries out the operation.

        Raises:
            MissingRuleError: no rule fits, whatever is lifted; the text lists the rules there are.
        """
        best: tuple[int, int, tuple[type[Share], ...], Rule] | None = None
        for choice in self._choices([list(self._forms(share)) for share in shares]):
            rule = self.find(op, tuple(kind for kind, _, _ in choice))
            if rule is None:
                continue
            cost = sum(cost for _, cost, _ in choice)
            # Among equals the form that holds more (masked before additive) keeps more openings away later.
            rank = sum(rank for _, _, rank in choice)
            if best is None or (cost, rank) < best[:2]:
                best = (cost, rank, tuple(kind for kind, _, _ in choice), rule)
        if best is None:
            raise MissingRuleError(self._missing(protocol, op, shares))
        operands = [self.convert(protocol, share, kind) for share, kind in zip(shares, best[2], strict=True)]
        return best[3](protocol, op, *operands, **attributes)

    @staticmethod
    def _choices(options: list[list[Form]]) -> Iterator[tuple[Form, ...]]:
        """A form for each operand. More than two are joined, by one rule for operands of one kind."""
        if len(options) <= 2:
            yield from itertools.product(*options)
            return
        by_kind = [{form[0]: form for form in forms} for forms in options]
        for kind in by_kind[0]:
            if all(kind in forms for forms in by_kind):
                yield tuple(forms[kind] for forms in by_kind)

    def convert(self, protocol: Any, share: Share, kind: type[Share]) -> Any:
        """The share as one of that kind; a form once made is kept with it."""
        if isinstance(share, kind):
            return share
        kept = share.lifted(kind)
        if kept is not None:
            return kept
        path = self._path(type(share), kind)
        if path is None:
            raise MissingRuleError(
                f"No way from {type(share).__name__} to {kind.__name__} in {type(protocol).__name__}."
            )
        made = share
        for lift in path:
            made = lift.convert(protocol, made)
        share.keep(made)
        return made

    def _forms(self, share: Share) -> Iterator[Form]:
        """Kinds this share can take: (kind, cost, rank), the share's own kind first in rank unless masked."""
        kinds = {type(share)} | {to for _, to in self.lifts}
        for kind in kinds:
            if isinstance(share, kind):
                yield kind, 0, 1
            elif share.lifted(kind) is not None:
                # Made already, and of a kind that costs to make: better than the share as it is.
                yield kind, 0, 0 if self._path_cost(type(share), kind) else 2
            else:
                cost = self._path_cost(type(share), kind)
                if cost is not None:
                    yield kind, cost, 2

    def _path(self, source: type[Share], to: type[Share]) -> list[Lift] | None:
        paths: dict[type[Share], list[Lift]] = {source: []}
        frontier = [source]
        while frontier:
            kind = frontier.pop(0)
            for (start, end), lift in self.lifts.items():
                if start is kind and end not in paths:
                    paths[end] = [*paths[kind], lift]
                    frontier.append(end)
        return paths.get(to)

    def _path_cost(self, source: type[Share], to: type[Share]) -> int | None:
        path = self._path(source, to)
        return None if path is None else sum(lift.cost for lift in path)

    def _missing(self, protocol: Any, op: Op, shares: tuple[Share, ...]) -> str:
        given = ", ".join(type(share).__name__ for share in shares)
        known = sorted(
            f"{key if isinstance(key, Op) else key.value}({', '.join(kind.__name__ for kind in kinds)})"
            for key, kinds in self.table
        )
        return (
            f"{type(protocol).__name__} has no rule for {op.name}({given}). It has: {'; '.join(known)}. "
            "Register one with @rules.rule, or use another protocol."
        )
