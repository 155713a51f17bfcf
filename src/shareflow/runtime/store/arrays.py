"""Named arrays as one run of bytes, and back: little-endian, C order, each starting at a multiple of 64 bytes."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np

from shareflow_client.errors import StoreError

_ALIGN = 64


def pack(arrays: Mapping[str, np.ndarray]) -> tuple[list[dict[str, Any]], list[memoryview]]:
    """What describes the arrays (JSON), and their bytes. StoreError for a dtype that is not of plain numbers."""
    described: list[dict[str, Any]] = []
    buffers: list[memoryview] = []
    for name, given in arrays.items():
        value = np.asarray(given)
        if value.dtype.kind not in "biufc":
            raise StoreError(f"a state holds arrays of numbers, {name!r} has dtype {value.dtype}.")
        described.append({"name": name, "dtype": value.dtype.newbyteorder("<").str, "shape": list(value.shape)})
        if value.nbytes:
            # Arrays that are little-endian and contiguous already are not copied.
            flat = np.ascontiguousarray(value, value.dtype.newbyteorder("<")).reshape(-1).view(np.uint8)
            buffers += [flat.data, memoryview(bytes(-value.nbytes % _ALIGN))]
    return described, [buffer for buffer in buffers if len(buffer)]


def unpack(described: list[dict[str, Any]], payload: memoryview) -> dict[str, np.ndarray]:
    """The arrays: views of the payload, not copies."""
    arrays, start = {}, 0
    for entry in described:
        dtype, shape = np.dtype(entry["dtype"]), tuple(entry["shape"])
        size = dtype.itemsize * prod(shape)
        arrays[entry["name"]] = np.frombuffer(payload[start : start + size], dtype).reshape(shape)
        start += size + -size % _ALIGN
    return arrays
