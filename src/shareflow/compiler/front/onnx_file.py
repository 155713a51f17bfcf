"""Reads an ONNX file that nobody vouches for: sizes, the checker of onnx, and arrays beside it in its own folder.

What comes out is plain: nodes with Python values as attributes, and arrays. Nothing of onnx goes further.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shareflow.compiler.front.onnx_ops.call import compute_of
from shareflow.errors import DataError, UnsupportedModelError

# A protobuf of more bytes is not read by any library; arrays beside it may be larger.
MOST_BYTES = 1 << 31
MOST_BYTES_BESIDE = 1 << 35
MOST_NODES = 200_000
_OLDEST = 7
_STRING = 8
_GRAPH, _GRAPHS, _REFERENCE = 5, 10, ""


@dataclass(frozen=True)
class OnnxNode:
    """One node. Graphs among the attributes are :class:`OnnxGraph`; ``function``: what the op is made of, if that is
    how it is computed."""

    op: str
    domain: str
    opset: int
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    function: OnnxGraph | None = None


@dataclass(frozen=True)
class OnnxInput:
    """An input of the model: its type by ONNX's number; None or a name for an extent that is not fixed."""

    name: str
    kind: int
    shape: tuple[int | str | None, ...]


@dataclass(frozen=True)
class OnnxGraph:
    """Nodes in order, initialisers by name, names of inputs and outputs."""

    inputs: tuple[OnnxInput, ...]
    outputs: tuple[str, ...]
    nodes: tuple[OnnxNode, ...]
    arrays: Mapping[str, np.ndarray]


def read_onnx(path: Path) -> OnnxGraph:
    """The graph of a model.

    Raises:
        DataError: there is none, it is damaged, too large, or refers to files outside of its folder; or the package
            onnx is missing.
        UnsupportedModelError: parts that have no private form.
    """
    try:
        import onnx
        import onnx.inliner
    except ImportError:
        raise DataError(
            f"Reading '{path}' needs the package onnx, which is not installed: pip install 'shareflow[onnx]'."
        ) from None
    if not path.is_file():
        raise DataError(f"There is no model at '{path}'. Give the path of an .onnx file.")
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise DataError(f"An .onnx file has {MOST_BYTES:,} bytes at most; '{path}' has {size:,}. Save arrays apart.")
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf's decoder has errors of its own, by version
        raise _damaged(path, error) from None
    _load_beside(onnx, model, path)
    try:
        onnx.checker.check_model(str(path))
        if len(model.functions):
            model = onnx.inliner.inline_local_functions(model)
    except Exception as error:  # the checker's are C++ errors of several classes
        raise _damaged(path, error) from None
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    standard = opsets.get("", opsets.get("ai.onnx", 0))
    if standard and standard < _OLDEST:
        raise UnsupportedModelError(
            f"'{path.name}' is of opset {standard}; the oldest that is read is {_OLDEST}. Export it anew, or use "
            "onnx.version_converter."
        )
    reading = _Reading(onnx, opsets)
    try:
        return reading.graph(model.graph)
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> DataError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
    return DataError(f"'{path}' is no valid ONNX model: {reason} Export it again, and check it with onnx.checker.")


def _load_beside(onnx: Any, model: Any, path: Path) -> None:
    """Arrays in files of their own: in the model's folder, as long as they say, and nowhere else."""
    folder = path.resolve().parent
    total = 0
    for tensor in _tensors(model):
        if not onnx.external_data_helper.uses_external_data(tensor):
            continue
        entry = {item.key: item.value for item in tensor.external_data}
        place = (folder / entry.get("location", "")).resolve()
        if not entry.get("location") or not place.is_relative_to(folder) or not place.is_file():
            raise DataError(
                f"'{path}' keeps '{tensor.name}' in '{entry.get('location')}', which is no file in its own folder. Put "
                "the model and its data into one folder, and trust no model that reaches out of it."
            )
        offset, length = int(entry.get("offset", 0) or 0), entry.get("length")
        count = int(length) if length else place.stat().st_size - offset
        total += count
        if offset < 0 or count < 0 or offset + count > place.stat().st_size or total > MOST_BYTES_BESIDE:
            raise DataError(
                f"'{path}' asks for {count:,} bytes at {offset:,} of '{place.name}', which has "
                f"{place.stat().st_size:,}; all arrays have {MOST_BYTES_BESIDE:,} at most. Export it again."
            )
        with place.open("rb") as file:
            file.seek(offset)
            tensor.raw_data = file.read(count)
        tensor.data_location = 0
        del tensor.external_data[:]


def _tensors(model: Any) -> Iterator[Any]:
    """All arrays, in nodes and graphs within, too."""
    yield from _tensors_of(model.graph)
    for function in model.functions:
        yield from _tensors_in(function.node)


def _tensors_of(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    yield from _tensors_in(graph.node)


def _tensors_in(nodes: Iterable[Any]) -> Iterator[Any]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _tensors_of(graph)


class _Reading:
    def __init__(self, onnx: Any, opsets: Mapping[str, int]) -> None:
        self.onnx = onnx
        self.opsets = opsets
        self._counts: dict[str, Iterator[int]] = {}
        self._names: set[str] = set()
        self._nodes = 0

    def graph(self, graph: Any) -> OnnxGraph:
        if len(graph.sparse_initializer):
            raise UnsupportedModelError(
                f"Graph '{graph.name}' has sparse initialisers. Make them dense: what is zero is not public."
            )
        arrays = {tensor.name: self.array(tensor) for tensor in graph.initializer}
        inputs = tuple(self.input(value) for value in graph.input if value.name not in arrays)
        nodes = tuple(self.node(node) for node in graph.node)
        return OnnxGraph(inputs, tuple(value.name for value in graph.output), nodes, arrays)

    def array(self, tensor: Any) -> np.ndarray:
        if tensor.data_type == _STRING:
            raise UnsupportedModelError(
                f"'{tensor.name}' is an array of strings. Strings stay outside of a private computation: give numbers."
            )
        array = np.asarray(self.onnx.numpy_helper.to_array(tensor))
        if (array.dtype.kind == "f" and array.dtype.itemsize >= 4) or array.dtype.kind in "iub":
            return array
        # Half precision and what is shorter, which NumPy does not know: in single precision.
        return array.astype(np.int8 if "int" in array.dtype.name else np.float32)

    def input(self, value: Any) -> OnnxInput:
        tensor = value.type.tensor_type
        if not value.type.HasField("tensor_type") or not tensor.HasField("shape"):
            raise UnsupportedModelError(
                f"Input '{value.name}' is no tensor of known shape. Export the model with the shapes of its inputs."
            )
        shape = tuple(int(d.dim_value) if d.HasField("dim_value") else d.dim_param or None for d in tensor.shape.dim)
        return OnnxInput(value.name, tensor.elem_type, shape)

    def node(self, node: Any, given: Mapping[str, Any] | None = None) -> OnnxNode:
        """A node; ``given``: attributes of the function that it stands in."""
        self._nodes += 1
        if self._nodes > MOST_NODES:
            raise UnsupportedModelError(f"The model has more than {MOST_NODES:,} nodes. Split it.")
        attributes = {}
        for attribute in node.attribute:
            if attribute.ref_attr_name:
                if given and attribute.ref_attr_name in given:
                    attributes[attribute.name] = given[attribute.ref_attr_name]
            else:
                attributes[attribute.name] = self.attribute(attribute)
        domain = "" if node.domain == "ai.onnx" else node.domain
        made = OnnxNode(
            node.op_type,
            domain,
            self.opsets.get(domain, self.opsets.get("ai.onnx", 1) if not domain else 1),
            self.name(node),
            tuple(node.input),
            tuple(node.output),
            attributes,
        )
        known = compute_of(domain, node.op_type) is not None or node.op_type == "Constant"
        return made if known else self._as_function(made)

    def _as_function(self, node: OnnxNode) -> OnnxNode:
        """An op that ONNX itself defines by others, by those."""
        try:
            schema = self.onnx.defs.get_schema(node.op, node.opset, node.domain)
        except Exception:  # a schema that there is not: the op is named as unsupported when it is computed
            return node
        if not schema.has_function:
            return node
        given = {
            name: self.attribute(attribute.default_value)
            for name, attribute in schema.attributes.items()
            if attribute.default_value.name
        }
        given.update(node.attributes)
        body = schema.function_body
        inputs = tuple(OnnxInput(name, 0, ()) for name in body.input)
        nodes = tuple(self.node(inner, given) for inner in body.node)
        return dataclasses.replace(node, function=OnnxGraph(inputs, tuple(body.output), nodes, {}))

    def attribute(self, attribute: Any) -> Any:
        value = self.onnx.helper.get_attribute_value(attribute)
        return self._plain(value)

    def _plain(self, value: Any) -> Any:
        if isinstance(value, bytes):
            return value.decode("utf-8", "replace")
        if isinstance(value, self.onnx.TensorProto):
            return self.array(value)
        if isinstance(value, self.onnx.GraphProto):
            return self.graph(value)
        if isinstance(value, (int, float, str)):
            return value
        if isinstance(value, Sequence) or hasattr(value, "__iter__"):
            return [self._plain(item) for item in value]
        raise UnsupportedModelError(f"An attribute is a {type(value).__name__}. Convert the model before the export.")

    def name(self, node: Any) -> str:
        """A name of its own in the way of TensorFlow's scopes."""
        wanted = re.sub(r"[^A-Za-z0-9_./\\-]", "_", node.name).strip("/")
        wanted = re.sub(r"/+", "/", re.sub(r"^[^A-Za-z0-9.]+", "", wanted))
        wanted = wanted or f"{node.op_type.lower()}"
        count = next(self._counts.setdefault(wanted, itertools.count()))
        name = wanted if not count else f"{wanted}_{count}"
        while name in self._names:
            name += "_"
        self._names.add(name)
        return name
