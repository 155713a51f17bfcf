"""Maxima, their places, and sorting, along an axis: trees and networks, whose rounds grow with the logarithm."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tensorflow as tf

from shareflow.errors import ShapeError
from shareflow.nn.ranking import BINARY, NETWORK, RANKING, Maximum, Sorting, in_order, larger, tournament
from shareflow.nn.selection import chosen
from shareflow.protocol.arithmetic import concat
from shareflow.protocol.choices import chosen as chosen_variant
from shareflow.protocol.compare import bound_bits, stacked_at_least
from shareflow.protocol.operand import private_operand, public_beside
from shareflow.protocol.tensor import PrivateTensor, axes_of
from shareflow.share.known import Known


def reduce_max(x: Any, axis: Any = None, keepdims: bool = False, bound: float | None = None) -> PrivateTensor:
    """Maximum over one axis, several, or all.

    A tree of max(a, b) = b + [a >= b] (a - b). ``bound``: any two elements differ by less.
    Rounds: ceil(log2(n)) times masking and three.
    """
    x = private_operand(x)
    lines, axes = _lines(x, axis)
    largest, _ = max_tree(lines, None, bound)
    return largest.reshape(*[1 if i in axes else n for i, n in enumerate(x.shape)]) if keepdims else largest


def reduce_min(x: Any, axis: Any = None, keepdims: bool = False, bound: float | None = None) -> PrivateTensor:
    """Minimum over one axis, several, or all. Rounds: as reduce_max."""
    return -reduce_max(-private_operand(x), axis, keepdims, bound)


def argmax(x: Any, axis: int = -1, bound: float | None = None) -> PrivateTensor:
    """Place of the maximum along an axis, the first among equals; without fractional bits.

    The place is carried up the tree of reduce_max: one comparison's bit selects value and place.
    Rounds: as reduce_max. :func:`one_hot` makes a vector of it.
    """
    lines, _ = _lines(private_operand(x), axis)
    _, place = max_tree(lines, _places(lines), bound)
    return place


def argmin(x: Any, axis: int = -1, bound: float | None = None) -> PrivateTensor:
    """Place of the minimum along an axis, the first among equals. Rounds: as reduce_max."""
    return argmax(-private_operand(x), axis, bound)


def one_hot(places: Any, depth: int, axis: int = -1) -> PrivateTensor:
    """1 at a private place from 0 to depth - 1, else 0, along a new axis of the result: [..., depth].

    [place = j] = [place >= j] - [place >= j + 1], and comparing so small numbers takes few bits.
    Rounds: masking the places, then a comparison.
    """
    places = private_operand(places)
    if not isinstance(depth, int) or isinstance(depth, bool) or depth < 1:
        raise ShapeError(f"The depth of a one-hot vector is a whole number of at least 1; got {depth!r}.")
    along = one_axis(axis, places.ndim + 1)
    if isinstance(places.share, Known):
        return places.known_as(lambda value: tf.one_hot(tf.cast(value, tf.int64), depth, axis=along, dtype=value.dtype))
    reached = stacked_at_least(places, range(1, max(depth, 2)), bound=float(depth + 1))
    reached = reached[: depth - 1]
    ones = public_beside(places, np.ones((1, *places.shape)))
    below, above = concat([ones, reached], 0), concat([reached, ones * 0], 0)
    return (below - above).transpose(_first_to(along, places.ndim + 1))


def sort(x: Any, axis: int = -1, descending: bool = False, bound: float | None = None) -> PrivateTensor:
    """Sorted along an axis, by Batcher's odd-even merge sort.

    Rounds: about log2(n)^2 / 2 layers of masking and three.
    """
    x = private_operand(x)
    return _sorted(x, axis, None, bound)[0] if descending else -_sorted(-x, axis, None, bound)[0]


def top_k(x: Any, k: int, axis: int = -1, bound: float | None = None) -> tuple[PrivateTensor, PrivateTensor]:
    """The k largest along an axis, largest first, and their places. Rounds: as sort."""
    x = private_operand(x)
    along = one_axis(axis, x.ndim)
    if not isinstance(k, int) or isinstance(k, bool) or not 1 <= k <= x.shape[along]:
        raise ShapeError(f"top_k takes 1 to {x.shape[along]} of an axis of that length; got {k!r}.")
    return _sorted(x, along, _places(_lines(x, along)[0]), bound, k)


def max_tree(values: PrivateTensor, places: Any = None, bound: float | None = None) -> tuple[PrivateTensor, Any]:
    """Maximum over the first axis; places of the same shape are chosen along with it."""
    if not isinstance(values.share, Known) and values.shape[0] > 1:
        bits = bound_bits(values.fractional_bits, bound)
        site = Maximum(values.shape[0], math.prod(values.shape[1:]), bits, places is not None)
        widths = chosen_variant(site, BINARY)
        if widths:
            return tournament(values, places, widths, bound)
    while values.shape[0] > 1:
        even = values.shape[0] // 2 * 2
        # Neighbours meet, so that order is kept and the first of equals wins.
        pair = (slice(0, even, 2), slice(1, even, 2), slice(even, None))
        left, right, rest = (values[part] for part in pair)
        wins, values = larger(left, right, bound)
        values = concat([values, rest], 0)
        if places is not None:
            left, right, rest = (places[part] for part in pair)
            places = concat([right + chosen(wins, left - right), rest], 0)
    return values[0], places if places is None else places[0]


def _sorted(
    x: PrivateTensor, axis: int, places: Any, bound: float | None, first: int | None = None
) -> tuple[PrivateTensor, Any]:
    """The first ones along an axis or all, largest first; places [n, ...rest] are moved along."""
    along = one_axis(axis, x.ndim)
    values, _ = _lines(x, along)
    count = values.shape[0]
    back, wanted = _first_to(along, values.ndim), count if first is None else first
    if not isinstance(values.share, Known) and count > 1:
        bits = bound_bits(values.fractional_bits, bound)
        site = Sorting(count, math.prod(values.shape[1:]), bits, wanted, places is not None)
        if chosen_variant(site, NETWORK) == RANKING:
            values, places = in_order(values, places, wanted, bound)
            return values.transpose(back), None if places is None else places.transpose(back)
    for low, high in sorting_network(count):
        still = sorted(set(range(count)) - {*low, *high})
        order = np.argsort([*low, *high, *still])
        left, right = values.take(low), values.take(high)
        wins, upper = larger(left, right, bound)
        values = concat([upper, left + right - upper, values.take(still)], 0).take(order)
        if places is not None:
            left, right = places.take(low), places.take(high)
            upper = right + chosen(wins, left - right)
            places = concat([upper, left + right - upper, places.take(still)], 0).take(order)
    values, places = values[:wanted], None if places is None else places[:wanted]
    return values.transpose(back), None if places is None else places.transpose(back)


def sorting_network(count: int) -> list[tuple[list[int], list[int]]]:
    """Layers of Batcher's odd-even merge sort for any count (Knuth, TAOCP 3, 5.2.2, algorithm M)."""
    layers = []
    top = 1 << max((count - 1).bit_length() - 1, 0)
    p = top if count > 1 else 0
    while p:
        q, r, d = top, 0, p
        while True:
            low = [i for i in range(count - d) if i & p == r]
            if low:
                layers.append((low, [i + d for i in low]))
            if q == p:
                break
            d, q, r = q - p, q >> 1, p
        p >>= 1
    return layers


def _lines(x: PrivateTensor, axis: Any) -> tuple[PrivateTensor, list[int]]:
    """The reduced axes as one first axis, [n, ...rest]. Only differences are masked, which are half as many."""
    axes = axes_of(axis, x.ndim)
    rest = [i for i in range(x.ndim) if i not in axes]
    count = int(np.prod([x.shape[i] for i in axes]))
    if not count:
        raise ShapeError(f"There is no largest of no elements: shape {x.shape}, axes {axes}.")
    return x.transpose([*axes, *rest]).reshape(count, *[x.shape[i] for i in rest]), axes


def one_axis(axis: Any, rank: int) -> int:
    """The one axis that is meant, from 0 to rank - 1.

    Raises:
        ShapeError: there is no such axis, or several are given.
    """
    axes = axes_of(axis, rank)
    if len(axes) != 1:
        raise ShapeError(f"This function works along one axis; got {axis}. Reshape several into one first.")
    return axes[0]


def _first_to(axis: int, rank: int) -> list[int]:
    """The order of axes that moves the first one to a place."""
    order = list(range(1, rank))
    order.insert(axis, 0)
    return order


def _places(lines: PrivateTensor) -> PrivateTensor:
    """The number of each line, as public as it is."""
    numbers = np.arange(lines.shape[0]).reshape(-1, *[1] * (lines.ndim - 1))
    return public_beside(lines, np.broadcast_to(numbers, lines.shape))
