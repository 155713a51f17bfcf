"""TensorFlow's lists of tensors (TensorArray, loops of recurrent layers), while a graph is read, as Python's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from shareflow.compiler.graph import Builder, Output
from shareflow.errors import UnsupportedModelError


@dataclass(frozen=True)
class TensorList:
    """Items in order; None where nothing was written yet."""

    items: tuple[Output | None, ...]
    dtype: str


ListOp = Callable[..., list[Any]]
LIST_OPS: dict[str, ListOp] = {}


def _reads(op: str) -> Callable[[ListOp], ListOp]:
    def register(function: ListOp) -> ListOp:
        LIST_OPS[op] = function
        return function

    return register


def _index(value: Output) -> int:
    if value.constant is None:
        raise UnsupportedModelError(
            f"A list of tensors is read at a place that is private ('{value.name}'). Use tf.gather, which may take one."
        )
    return int(value.constant)


def _places(value: Output) -> np.ndarray:
    if value.constant is None:
        _index(value)
    return np.asarray(value.constant)


def _placed(build: Builder, items: TensorList, tensor: Output, places: Output) -> list[Any]:
    """A list with the rows of a tensor at these places."""
    rows = build.node("Unpack", [tensor], {"num": tensor.shape[0], "axis": 0}).outputs if tensor.shape[0] else ()
    found = list(items.items)
    for place, row in zip(np.ravel(_places(places)), rows, strict=True):
        found += [None] * (int(place) + 1 - len(found))
        found[int(place)] = row
    return [TensorList(tuple(found), items.dtype)]


def _dtype(attributes: Any) -> str:
    return attributes["element_dtype"].name


@_reads("TensorListReserve")
def _reserve(build: Builder, attributes: Any, shape: Output, count: Output) -> list[Any]:
    return [TensorList((None,) * _index(count), _dtype(attributes))]


@_reads("EmptyTensorList")
def _empty(build: Builder, attributes: Any, shape: Output, most: Output) -> list[Any]:
    return [TensorList((), _dtype(attributes))]


@_reads("TensorListFromTensor")
def _from_tensor(build: Builder, attributes: Any, tensor: Output, shape: Output) -> list[Any]:
    rows = build.node("Unpack", [tensor], {"num": tensor.shape[0], "axis": 0}).outputs if tensor.shape[0] else ()
    return [TensorList(tuple(rows), tensor.dtype)]


@_reads("TensorListSetItem")
def _set(build: Builder, attributes: Any, items: TensorList, place: Output, item: Output) -> list[Any]:
    at = _index(place)
    return [TensorList((*items.items[:at], item, *items.items[at + 1 :]), items.dtype)]


@_reads("TensorListGetItem")
def _get(build: Builder, attributes: Any, items: TensorList, place: Output, shape: Output) -> list[Any]:
    item = items.items[_index(place)]
    return [_filled(build, items, [item], shape)[0]]


@_reads("TensorListPushBack")
def _push(build: Builder, attributes: Any, items: TensorList, item: Output) -> list[Any]:
    return [TensorList((*items.items, item), items.dtype)]


@_reads("TensorListPopBack")
def _pop(build: Builder, attributes: Any, items: TensorList, shape: Output) -> list[Any]:
    last = _filled(build, items, items.items[-1:], shape)[0]
    return [TensorList(items.items[:-1], items.dtype), last]


@_reads("TensorListResize")
def _resize(build: Builder, attributes: Any, items: TensorList, count: Output) -> list[Any]:
    size = _index(count)
    return [TensorList((*items.items[:size], *[None] * (size - len(items.items))), items.dtype)]


@_reads("TensorListLength")
def _length(build: Builder, attributes: Any, items: TensorList) -> list[Any]:
    return [build.constant(len(items.items), "int32")]


@_reads("TensorListStack")
def _stack(build: Builder, attributes: Any, items: TensorList, shape: Output) -> list[Any]:
    return [build("Pack", *_filled(build, items, items.items, shape), axis=0)]


@_reads("TensorListGather")
def _gather(build: Builder, attributes: Any, items: TensorList, places: Output, shape: Output) -> list[Any]:
    chosen = [items.items[int(place)] for place in np.ravel(_places(places))]
    return [build("Pack", *_filled(build, items, chosen, shape), axis=0)]


@_reads("TensorListSplit")
def _split(build: Builder, attributes: Any, tensor: Output, shape: Output, lengths: Output) -> list[Any]:
    sizes = build.constant(_places(lengths), "int64")
    pieces = build.node("SplitV", [tensor, sizes, build.constant(0, "int32")], {"num_split": lengths.shape[0]})
    return [TensorList(pieces.outputs, tensor.dtype)]


@_reads("TensorListScatterV2")
def _scatter(
    build: Builder, attributes: Any, tensor: Output, places: Output, shape: Output, count: Output
) -> list[Any]:
    most = max([_index(count), *(int(place) + 1 for place in np.ravel(_places(places)))])
    return _placed(build, TensorList((None,) * most, tensor.dtype), tensor, places)


@_reads("TensorListScatterIntoExistingList")
def _scatter_into(build: Builder, attributes: Any, items: TensorList, tensor: Output, places: Output) -> list[Any]:
    return _placed(build, items, tensor, places)


@_reads("TensorListConcatLists")
def _join(build: Builder, attributes: Any, first: TensorList, second: TensorList) -> list[Any]:
    return [TensorList((*first.items, *second.items), first.dtype)]


@_reads("TensorListConcatV2")
def _concat(build: Builder, attributes: Any, items: TensorList, shape: Output, leading: Output) -> list[Any]:
    values = _filled(build, items, items.items, shape)
    lengths = build.constant([value.shape[0] for value in values], "int64")
    if len(values) == 1:
        return [values[0], lengths]
    return [build("ConcatV2", *values, build.constant(0, "int32")), lengths]


def _filled(build: Builder, items: TensorList, chosen: Sequence[Output | None], shape: Output) -> list[Output]:
    """Items, with zeros where nothing was written, as TensorFlow gives them."""
    if all(item is not None for item in chosen):
        return list(chosen)  # type: ignore[arg-type]
    known = next((item.shape for item in items.items if item is not None), None)
    if known is None and shape.constant is not None and np.all(shape.constant >= 0):
        known = tuple(int(n) for n in np.ravel(shape.constant))
    if known is None:
        raise UnsupportedModelError("A list of tensors is read before anything is written to it, and has no shape.")
    return [build.constant(np.zeros(known), items.dtype) if item is None else item for item in chosen]
