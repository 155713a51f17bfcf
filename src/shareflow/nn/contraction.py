"""Einstein sums of private tensors: products, transposes, diagonals and sums by labels of axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from shareflow.errors import PlacementError, ShapeError
from shareflow.protocol import op as ops
from shareflow.protocol.arithmetic import product
from shareflow.protocol.operand import as_operand
from shareflow.protocol.tensor import PrivateTensor

_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_DOTS = "..."
# Labels for axes that the equation does not name: those of the dots, and those of length 1 that are broadcast.
_FIRST_DOT, _FIRST_SINGLE = 0x100, 0x1000


def einsum(equation: str, *operands: Any) -> PrivateTensor:
    """A sum of products of elements, in TensorFlow's notation: einsum('bij,bjk->bik', x, y).

    A label that stands twice in an operand takes the diagonal, twice in the result makes one; labels that the
    result lacks are summed. Axes that ``...`` stands for broadcast, those with labels do not. Without an arrow the
    result has the labels that stand once, in alphabetical order, after the dots. One operand: local. Two: one
    bilinear operation, as matmul. More are taken two at a time, the first private one with the others in their
    order.

    Raises:
        ShapeError: the equation is malformed, or does not fit the shapes.
        PlacementError: no operand is private.
    """
    values = [as_operand(value) for value in operands]
    labels, result = _labelled(equation, [tuple(value.shape) for value in values])
    first, total = next(((i, value) for i, value in enumerate(values) if isinstance(value, PrivateTensor)), (0, None))
    if total is None:
        raise PlacementError("einsum: no operand is private. Use TensorFlow's own operation.")
    named = labels[first]
    rest = [i for i in range(len(values)) if i != first]
    if not rest:
        return total.linear(ops.REARRANGE, labels=named, result=result)
    for number, i in enumerate(rest):
        needed = {*result, *(label for j in rest[number + 1 :] for label in labels[j])}
        joined = dict.fromkeys(named + labels[i])
        kept = "".join(label for label in joined if label in needed) if number < len(rest) - 1 else result
        total = product(ops.CONTRACT, total, values[i], labels=(named, labels[i]), result=kept)
        named = kept
    return total


def tensordot(x: Any, y: Any, axes: Any) -> PrivateTensor:
    """Sum of products over axes of both: a number n (the last n of x, the first n of y), or the axes of each.

    Raises:
        ShapeError: axes do not exist, differ in number or in length.
        PlacementError: neither operand is private.
    """
    x, y = as_operand(x), as_operand(y)
    ranks = len(x.shape), len(y.shape)
    if isinstance(axes, (int, np.integer)) and not isinstance(axes, bool):
        fits = 0 <= axes <= min(ranks)
        pairs = (tuple(range(ranks[0] - axes, ranks[0])), tuple(range(axes))) if fits else None
    else:
        pairs = _axes_of_each(axes, ranks)
    if pairs is None:
        raise ShapeError(
            "tensordot sums over a number of axes, or over as many axes of x as of y: axes=1, or axes=([1], [0]). "
            f"Got {axes!r} for shapes {tuple(x.shape)} and {tuple(y.shape)}."
        )
    left = [_LETTERS[i] for i in range(ranks[0])]
    right = [_LETTERS[-1 - i] for i in range(ranks[1])]
    for i, j in zip(*pairs, strict=True):
        right[j] = left[i]
    free = [label for label in left if label not in right] + [label for label in right if label not in left]
    return einsum(f"{''.join(left)},{''.join(right)}->{''.join(free)}", x, y)


def _axes_of_each(axes: Any, ranks: tuple[int, int]) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """The axes of both, from 0 on; None where they are not such a pair."""
    try:
        first, second = (np.atleast_1d(np.asarray(part, dtype=object)).tolist() for part in axes)
    except (TypeError, ValueError):
        return None
    both = []
    for part, rank in zip((first, second), ranks, strict=True):
        if any(not isinstance(i, (int, np.integer)) or isinstance(i, bool) or not -rank <= i < rank for i in part):
            return None
        both.append(tuple(int(i) % rank for i in part))
    if len(both[0]) != len(both[1]) or any(len(set(part)) != len(part) for part in both):
        return None
    return both[0], both[1]


def _labelled(equation: str, shapes: Sequence[tuple[int, ...]]) -> tuple[list[str], str]:
    """One label an axis for each operand and for the result, the axes of dots included."""
    if not isinstance(equation, str):
        raise ShapeError(f"An equation is a text such as 'ij,jk->ik'; got {type(equation).__name__}.")
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    terms = inputs.split(",")
    for term in (*terms, output):
        _check_term(equation, term)
    if len(terms) != len(shapes):
        raise ShapeError(f"einsum {equation!r} is of {len(terms)} operand(s); got {len(shapes)}.")
    dotted = [len(shape) - len(term.replace(_DOTS, "")) for term, shape in zip(terms, shapes, strict=True)]
    for term, shape, dots in zip(terms, shapes, dotted, strict=True):
        if dots < 0 or (dots > 0 and _DOTS not in term):
            raise ShapeError(f"einsum {equation!r}: the labels {term!r} do not fit the shape {shape}.")
    most = max(dotted)
    if not arrow:
        letters = inputs.replace(_DOTS, "").replace(",", "")
        once = "".join(sorted(label for label in set(letters) if letters.count(label) == 1))
        output = (_DOTS if _DOTS in inputs else "") + once
    if most and _DOTS not in output:
        raise ShapeError(
            f"einsum {equation!r}: the dots stand for {most} axes, and the result has none. Name the axes to sum over."
        )
    unknown = sorted(set(output.replace(_DOTS, "")) - set(inputs))
    if unknown:
        raise ShapeError(f"einsum {equation!r}: the result's label {unknown[0]!r} stands in no operand.")
    unnamed = "".join(chr(_FIRST_DOT + i) for i in range(most))
    labels = [term.replace(_DOTS, unnamed[most - own :]) for term, own in zip(terms, dotted, strict=True)]
    return _broadcast(equation, labels, shapes), output.replace(_DOTS, unnamed)


def _check_term(equation: str, term: str) -> None:
    letters = term.replace(_DOTS, "", 1)
    strange = sorted(set(letters) - set(_LETTERS))
    if strange:
        raise ShapeError(
            f"einsum {equation!r}: labels are letters, and '...' may stand once in each term; got {strange[0]!r}."
        )


def _broadcast(equation: str, labels: list[str], shapes: Sequence[tuple[int, ...]]) -> list[str]:
    """The labels, with another one for each axis of length 1 that is broadcast: it is summed away."""
    sizes: dict[str, int] = {}
    for term, shape in zip(labels, shapes, strict=True):
        for label, size in zip(term, shape, strict=True):
            if ord(label) >= _FIRST_DOT and 1 in (size, sizes.get(label)):
                sizes[label] = size if sizes.get(label, 1) == 1 else sizes[label]
            elif sizes.setdefault(label, size) != size:
                name = f"{label!r}" if ord(label) < _FIRST_DOT else "of the dots"
                raise ShapeError(
                    f"einsum {equation!r}: axes with one label have one length; the label {name} has {sizes[label]} "
                    f"and {size} in the shapes {', '.join(map(str, shapes))}."
                )
    names = []
    singles = _FIRST_SINGLE
    for term, shape in zip(labels, shapes, strict=True):
        name = ""
        for label, size in zip(term, shape, strict=True):
            if size != sizes[label]:
                label, singles = chr(singles), singles + 1
            name += label
        names.append(name)
    return names
