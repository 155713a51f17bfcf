"""Operations that sum up along axes, and products of matrices. Sums have the dtype of what is summed."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import numpy as np

from shareflow_client.operations.operation import MANY, Operation, binary, require_float


def _along(reduce: Callable[..., Any]) -> Operation:
    def compute(x: np.ndarray, axes: np.ndarray, keep_dims: bool) -> Any:
        return reduce(x, axis=tuple(int(axis) for axis in axes.reshape(-1)), keepdims=keep_dims)

    return binary(compute, keep_dims="bool")


def _mean(x: np.ndarray, **where: Any) -> Any:
    require_float(x, "Mean")
    return np.mean(x, dtype=x.dtype, **where)


def _norm(x: np.ndarray, **where: Any) -> Any:
    require_float(x, "EuclideanNorm")
    return np.sqrt(np.sum(x * x, dtype=x.dtype, **where))


def _cumulative(accumulate: Callable[..., Any], start: int) -> Operation:
    def compute(x: np.ndarray, axis: np.ndarray, exclusive: bool, reverse: bool) -> Any:
        along = int(axis)
        given = np.flip(x, along) if reverse else x
        if exclusive:
            first = np.full_like(np.take(given, [0], axis=along), start) if given.shape[along] else given
            given = np.concatenate([first, np.delete(given, -1, axis=along)], axis=along) if given.size else given
        summed = accumulate(given, axis=along, dtype=x.dtype)
        return np.flip(summed, along) if reverse else summed

    return binary(compute, exclusive="bool", reverse="bool")


def _position(find: Callable[..., Any]) -> Operation:
    return binary(lambda x, axis, output_type: find(x, axis=int(axis)).astype(output_type), output_type="dtype")


def _matmul(x: np.ndarray, y: np.ndarray, transpose_x: bool, transpose_y: bool) -> np.ndarray:
    return np.matmul(np.swapaxes(x, -1, -2) if transpose_x else x, np.swapaxes(y, -1, -2) if transpose_y else y)


OPERATIONS: dict[str, Operation] = {
    "Sum": _along(lambda x, **where: np.sum(x, dtype=x.dtype, **where)),
    "Prod": _along(lambda x, **where: np.prod(x, dtype=x.dtype, **where)),
    "Mean": _along(_mean),
    "EuclideanNorm": _along(_norm),
    "Max": _along(np.max),
    "Min": _along(np.min),
    "All": _along(np.all),
    "Any": _along(np.any),
    "ArgMax": _position(np.argmax),
    "ArgMin": _position(np.argmin),
    "Cumsum": _cumulative(np.cumsum, 0),
    "Cumprod": _cumulative(np.cumprod, 1),
    "MatMul": binary(
        lambda x, y, transpose_a, transpose_b: _matmul(x, y, transpose_a, transpose_b),
        transpose_a="bool",
        transpose_b="bool",
    ),
    "BatchMatMulV2": binary(lambda x, y, adj_x, adj_y: _matmul(x, y, adj_x, adj_y), adj_x="bool", adj_y="bool"),
    "Einsum": Operation(
        lambda *arrays, equation: np.einsum(equation, *arrays), (1, MANY), MappingProxyType({"equation": "text"})
    ),
}
