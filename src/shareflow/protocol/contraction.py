"""Einstein sums of one or two tensors: diagonals, sums, transposes and one matrix product.

Labels of axes are characters; the axes that ``...`` stands for have labels too, which the caller has given them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import tensorflow as tf

Matmul = Callable[..., tf.Tensor]


def reduce(x: tf.Tensor, labels: str, kept: str) -> tuple[tf.Tensor, str]:
    """x [labels] without repetitions and without the labels that are not kept: diagonals and sums.

    Gives the tensor and its labels, in the order of their first places.
    """
    for label in dict.fromkeys(labels):
        while labels.count(label) > 1:
            x, labels = _diagonal(x, labels, label)
    gone = [axis for axis, label in enumerate(labels) if label not in kept]
    if gone:
        x = tf.reduce_sum(x, axis=gone)
    return x, "".join(label for label in labels if label in kept)


def _diagonal(x: tf.Tensor, labels: str, label: str) -> tuple[tf.Tensor, str]:
    """The elements whose places along the first two axes of this label are equal, along the first of them."""
    first = labels.index(label)
    second = labels.index(label, first + 1)
    rest = [axis for axis in range(len(labels)) if axis not in (first, second)]
    shape = x.shape.as_list()
    count = shape[first]
    flat = tf.reshape(tf.transpose(x, [*rest, first, second]), [*(shape[axis] for axis in rest), count * count])
    diagonal = flat[..., :: count + 1]
    back = list(range(len(rest)))
    back.insert(first, len(rest))
    if back != sorted(back):
        diagonal = tf.transpose(diagonal, back)
    return diagonal, labels[:second] + labels[second + 1 :]


def arrange(x: tf.Tensor, labels: str, result: str) -> tf.Tensor:
    """x [labels] as [result], which has the same labels in another order, some of them repeated (on diagonals)."""
    once = "".join(dict.fromkeys(result))
    x = _transposed(x, labels, once)
    for place, label in enumerate(result):
        if label in result[:place]:
            # The axis that the label had so far, and the new one: zero off their diagonal.
            size = x.shape[once.index(label)]
            shape = [1] * (len(once) + 1)
            shape[once.index(label)] = shape[-1] = size
            eye = tf.reshape(tf.eye(size, dtype=x.dtype), shape)
            x, once = x[..., tf.newaxis] * eye, once + label
    # Repeated axes stand last so far; those of one label are alike, so any of them may go to any of its places.
    places: dict[str, list[int]] = {}
    for axis, label in enumerate(once):
        places.setdefault(label, []).append(axis)
    order = [places[label].pop(0) for label in result]
    return x if order == sorted(order) else tf.transpose(x, order)


def contract(matmul: Matmul, x: tf.Tensor, y: tf.Tensor, *, labels: tuple[str, str], result: str) -> tf.Tensor:
    """The sum over what is not in ``result`` of x * y, which have these labels, as [result]."""
    left, right = labels
    x, left = reduce(x, left, right + result)
    y, right = reduce(y, right, left + result)
    batch = "".join(label for label in left if label in right and label in result)
    rows = "".join(label for label in left if label not in right)
    columns = "".join(label for label in right if label not in left)
    # In the order of the larger tensor, which then need not be transposed for it.
    inner_of = left if math.prod(x.shape) >= math.prod(y.shape) else right
    inner = "".join(label for label in inner_of if label in left and label in right and label not in result)
    sizes = dict(zip(left + right, (*x.shape, *y.shape), strict=True))
    shape = [sizes[label] for label in batch + rows + columns]
    if not inner:
        # Nothing is summed: every element of the one with every element of the other.
        p = tf.reshape(_transposed(x, left, batch + rows), [*_sizes(batch + rows, sizes), *(1 for _ in columns)])
        q = _transposed(y, right, batch + columns)
        q = tf.reshape(q, [*_sizes(batch, sizes), *(1 for _ in rows), *_sizes(columns, sizes)])
        product = p * q
    else:
        a, turned_a = _matrix(x, left, batch, rows, inner, sizes)
        b, turned_b = _matrix(y, right, batch, inner, columns, sizes)
        product = tf.reshape(matmul(a, b, transpose_a=turned_a, transpose_b=turned_b), shape)
    return arrange(product, batch + rows + columns, result)


def _matrix(
    x: tf.Tensor, labels: str, batch: str, rows: str, columns: str, sizes: dict[str, int]
) -> tuple[tf.Tensor, bool]:
    """x as [batch, rows, columns], or, where it lies in memory so, as [batch, columns, rows] and True."""
    turned = labels == batch + columns + rows and labels != batch + rows + columns
    first, second = (columns, rows) if turned else (rows, columns)
    x = _transposed(x, labels, batch + first + second)
    shape = [math.prod(_sizes(group, sizes)) for group in (first, second)]
    return tf.reshape(x, [math.prod(_sizes(batch, sizes)), *shape] if batch else shape), turned


def _transposed(x: tf.Tensor, labels: str, result: str) -> tf.Tensor:
    order = [labels.index(label) for label in result]
    return x if order == sorted(order) else tf.transpose(x, order)


def _sizes(labels: Sequence[str], sizes: dict[str, int]) -> list[int]:
    return [sizes[label] for label in labels]
