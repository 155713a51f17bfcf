"""What one operation of an external party is: a function of arrays, and the attributes that it takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np


class ValueRefusedError(ValueError):
    """An operation has no result for these values: a division by zero, an index that is out of range."""


class NotComputedError(TypeError):
    """An operation is asked of shapes, dtypes or attributes for which it has no meaning here."""


@dataclass(frozen=True)
class Operation:
    """``compute(*arrays, **attributes)`` gives an array, or a tuple of them where the operation has several outputs.

    Args:
        compute: the meaning, of arrays that have the shapes and dtypes TensorFlow allows.
        inputs: the least and the largest number of arrays.
        attributes: name and kind ("int", "bool", "float", "text", "dtype", "ints") of each that is needed.
        fixed: attributes for which one value alone is computed here; a plan that has another is refused when made.
    """

    compute: Callable[..., Any]
    inputs: tuple[int, int]
    attributes: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    fixed: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


MANY = 1 << 16


def unary(compute: Callable[..., Any], **attributes: str) -> Operation:
    """An operation of one array."""
    return Operation(compute, (1, 1), MappingProxyType(attributes))


def binary(compute: Callable[..., Any], **attributes: str) -> Operation:
    """An operation of two arrays."""
    return Operation(compute, (2, 2), MappingProxyType(attributes))


def require_float(x: np.ndarray, operation: str) -> None:
    """Raises a NotComputedError where an operation is asked of integers, whose meaning in TensorFlow is another one."""
    if x.dtype.kind != "f":
        raise NotComputedError(f"{operation} is computed of float16, float32 and float64, not of {x.dtype}")
