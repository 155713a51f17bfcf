"""Looking up by private index, and attention."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from shareflow.errors import ShapeError
from shareflow.nn.normalization import softmax
from shareflow.nn.reduction import one_hot
from shareflow.protocol.arithmetic import matmul
from shareflow.protocol.operand import as_operand, private_operand
from shareflow.protocol.tensor import PrivateTensor

# Added to scores that must have no weight: far enough below the others for e^x to be 0.
_NEVER = -(2.0**12)


def embedding(indices: Any, table: Any) -> PrivateTensor:
    """Rows of a table [n, d], private or public, at private indices [...] from 0 to n - 1: [..., d].

    A one-hot vector times the table, so that nobody learns which row was read. Rounds: those of one_hot, a product.
    """
    table = as_operand(table)
    if len(table.shape) != 2:
        raise ShapeError(f"An embedding table has the shape [n, d]; got {tuple(table.shape)}.")
    return matmul(one_hot(indices, table.shape[0]), table)


def scaled_dot_product_attention(query: Any, key: Any, value: Any, mask: Any = None) -> PrivateTensor:
    """softmax(query key^T / sqrt(d)) value over the last two axes; ``mask`` is public, 1 where attention may go."""
    query = private_operand(query)
    scores = matmul(query, key, transpose_b=True) / math.sqrt(query.shape[-1])
    if mask is not None:
        # Far enough below every score for a weight of 0.
        scores = scores + (1.0 - np.asarray(mask)) * _NEVER
    return matmul(softmax(scores), value)


def multi_head_attention(
    query: Any,
    value: Any,
    kernels: tuple[Any, Any, Any, Any],
    biases: tuple[Any, Any, Any, Any] | None,
    heads: int,
    key: Any = None,
    mask: Any = None,
) -> PrivateTensor:
    """Attention in several heads, as Keras' MultiHeadAttention with its kernels flattened to matrices.

    Args:
        query, value, key: [batch, length, features]; the key is the value where it is not given.
        kernels: of query, key, value [features, heads * d] and of the output [heads * d, features].
        biases: for each of them, or None.
        heads: how many.
        mask: public [..., query length, value length], 1 where attention may go.
    """
    key = value if key is None else key
    projected = []
    for source, position in ((query, 0), (key, 1), (value, 2)):
        flat = matmul(source, kernels[position])
        flat = flat if biases is None else flat + biases[position]
        batch, length, width = flat.shape
        if width % heads:
            raise ShapeError(f"A width of {width} does not divide into {heads} heads.")
        projected.append(flat.reshape(batch, length, heads, width // heads).transpose(0, 2, 1, 3))
    mixed = scaled_dot_product_attention(projected[0], projected[1], projected[2], mask)
    batch, _, length, size = mixed.shape
    joined = mixed.transpose(0, 2, 1, 3).reshape(batch, length, heads * size)
    result = matmul(joined, kernels[3])
    return result if biases is None else result + biases[3]
