"""Reads TensorFlow's graph of a traced function into ours.

Functions are inlined; what no result needs is passed over, with checks and prints; what follows from constants alone is
computed at once, so that shape arithmetic vanishes; loops and branches whose conditions are public unroll; lists of
tensors become the tensors. An op that a result needs and that draws random numbers, hides its shape or reads what the
same call wrote is an error that names it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.function_def_to_graph import function_def_to_graph

from shareflow.compiler.composite import plain_meaning
from shareflow.compiler.decompositions import DECOMPOSITIONS
from shareflow.compiler.evaluate import evaluate
from shareflow.compiler.graph import INPUT, PARAMETER, Builder, Graph, Node, Output
from shareflow.compiler.inference import attributes_of, compute, result_types
from shareflow.compiler.mark import parse_mark
from shareflow.compiler.negative_zero import without_negative_zero
from shareflow.compiler.tensor_list import LIST_OPS, TensorList
from shareflow.errors import UnsupportedModelError

# Steps that a loop may unroll to.
MOST_STEPS = 10_000
# Bytes that folding may make of a public value: beyond, the op stays.
_LARGEST_CONSTANT = 1 << 26
_ALIASES = {
    *("Identity", "IdentityN", "StopGradient", "PreventGradient", "Snapshot", "EnsureShape", "CheckNumerics"),
    "PlaceholderWithDefault",
}
# Checks and prints: what they do has no result, and a private value is nobody's to print.
_EFFECTS = {"NoOp", "Assert", "PrintV2", "Print", "StringFormat"}
# Variables that a call writes keep their values: that is refused where something reads one behind it.
_WRITES = re.compile(r"Assign(Add|Sub)?VariableOp|ResourceScatter.*|ResourceApply.*")
_CALLS = {"PartitionedCall", "StatefulPartitionedCall"}
_SHAPES = {"Shape", "ShapeN", "Size", "Rank"}
# What reaches out of the graph. Constants are folded by computing them, so none of these is ever run.
_OUTSIDE = re.compile(r"File|PyFunc|Reader|Dataset|Iterator|Summary|Checkpoint|Restore|Save|Collective|^(Send|Recv)$")
_RANDOM = re.compile(r"Random|Multinomial|Dropout|Stateless(Uniform|Normal|Truncated)|Bernoulli")


@dataclass(frozen=True)
class _Variable:
    """A resource: what stands behind it is read at its owner.

    ``key`` tells variables apart: TensorFlow calls all that were not named by the same name.
    """

    key: int
    name: str
    read: Callable[[], np.ndarray]
    shape: tuple[int, ...]
    dtype: str


Value = Output | TensorList | _Variable
Names = Callable[[str], str]


def read(
    concrete: Any,
    inputs: Mapping[str, str],
    outputs: Sequence[str],
    owner: str,
    layer_of: Names | None = None,
    arrays_are_public: bool = False,
) -> Graph:
    """A concrete function as a graph.

    Args:
        concrete: of ``tf.function``, all shapes known.
        inputs: parties by input names, in the order of the function's own arguments.
        outputs: names of its results, in their order.
        owner: the party that knows variables, and floating arrays that stand in the code.
        layer_of: the layer of a scope.
        arrays_are_public: floating arrays in the code are part of the program that all parties see.

    Raises:
        UnsupportedModelError: the function cannot be read; the text names the op and its layer.
    """
    reader = _Reader(concrete, owner, layer_of or (lambda scope: scope), arrays_are_public)
    given = concrete.inputs[: len(concrete.inputs) - len(concrete.captured_inputs)]
    arguments: list[Value] = []
    for tensor, (name, party) in zip(given, inputs.items(), strict=True):
        if not tensor.shape.is_fully_defined():
            raise UnsupportedModelError(f"Input {name!r} has shape {tensor.shape}; all extents are known. Say them.")
        arguments.append(reader.leaf(INPUT, name, tuple(tensor.shape), tensor.dtype.name, party, name=name))
    captured = [reader.capture(outside) for outside in concrete.captured_inputs]
    results = reader.function(concrete.graph, (*arguments, *captured), "")
    named = {}
    for name, value in zip(outputs, results, strict=True):
        if not isinstance(value, Output):
            raise UnsupportedModelError(f"Result {name!r} is no tensor. Return tensors alone.")
        named[name] = value
    return Graph(tuple(reader.build.nodes), named).pruned()


class _Reader:
    def __init__(self, concrete: Any, owner: str, layer_of: Names, arrays_are_public: bool) -> None:
        self.build = Builder()
        self.owner = owner
        self.layer_of = layer_of
        self.arrays_are_public = arrays_are_public
        self._definitions = {f.signature.name: f for f in concrete.graph.as_graph_def().library.function}
        self._graphs: dict[str, Any] = {}
        self._needed: dict[Any, set[Any]] = {}
        self._written: set[int] = set()
        self._parameters: dict[int, Output] = {}
        self._variables = {id(v.handle): v for v in _variables(concrete)}

    # --- leaves

    def leaf(self, op: str, path: str, shape: tuple[int, ...], dtype: str, party: str, **attributes: Any) -> Output:
        """An Input or a Parameter."""
        node = Node(op, (), {"party": party, **attributes}, path, self.layer_of(path), (shape,), (dtype,))
        return Output(self.build.add(node))

    def capture(self, outside: Any) -> Value:
        """A value from outside of the function: a variable, or an array that the code refers to."""
        if outside.dtype == tf.resource:
            variable = self._variables.get(id(outside))
            if variable is None:
                raise UnsupportedModelError(
                    f"The function refers to {outside}, which is no variable. Tables and iterators stay outside of a "
                    "private computation: look values up before, and give the tensors."
                )
            return _Variable(id(outside), variable.name, variable.numpy, tuple(variable.shape), variable.dtype.name)
        return self._array(outside.numpy(), "captured")

    def _array(self, value: np.ndarray, path: str) -> Output:
        """An array in the code: the owner's, if it may be weights."""
        # Zeros and ones are how loops and layers begin; they say nothing of a model.
        # Eight-bit numbers are no shapes or axes, but may be weights that were quantised.
        numbers = value.dtype.kind in "iub" and value.dtype.name not in ("int8", "uint8")
        plain = numbers or value.size <= 1 or bool(np.all(value == 0) or np.all(value == 1))
        if self.arrays_are_public or plain:
            self.build.layer = self.layer_of(path.rpartition("/")[0])
            return self.build.constant(value)
        return self.leaf(
            PARAMETER, path, value.shape, value.dtype.name, self.owner, source=lambda: value, kind="array", array=value
        )

    def _read_variable(self, variable: _Variable, path: str) -> Output:
        if variable.key in self._written:
            raise UnsupportedModelError(
                f"'{path}' reads the variable {variable.name!r} that the same call writes. Variables are read, never "
                "written, in a private computation: trace the model for inference (training=False), or pass the state "
                "as an input and an output."
            )
        if variable.key not in self._parameters:
            name = variable.name.removesuffix(":0")
            self._parameters[variable.key] = self.leaf(
                PARAMETER, name, variable.shape, variable.dtype, self.owner, source=variable.read, kind="variable"
            )
        return self._parameters[variable.key]

    # --- functions

    def function(self, graph: Any, arguments: Sequence[Value], scope: str) -> list[Value]:
        """The results of a function's body on these arguments."""
        values: dict[str, Value] = {t.name: v for t, v in zip(graph.inputs, arguments, strict=True)}
        needed = self._needed_of(graph)
        for operation in graph.get_operations():
            if operation.type == "Placeholder" and operation.outputs[0].name in values:
                continue
            if any(tensor.dtype == tf.resource for tensor in operation.inputs):
                self._note_writes(operation, [values.get(tensor.name) for tensor in operation.inputs])
            if operation not in needed:
                continue
            results = self._operation(operation, values, scope)
            for tensor, value in zip(operation.outputs, results, strict=False):
                values[tensor.name] = value
        missing = [tensor.name for tensor in graph.outputs if tensor.name not in values]
        if missing:
            raise UnsupportedModelError(f"The function's result {missing[0]!r} has no value.")
        return [values[tensor.name] for tensor in graph.outputs]

    def _needed_of(self, graph: Any) -> set[Any]:
        """The operations whose results the function's results are made of: checks and prints are not among them."""
        if graph not in self._needed:
            found: set[Any] = set()
            waiting = [tensor.op for tensor in graph.outputs]
            while waiting:
                operation = waiting.pop()
                if operation not in found:
                    found.add(operation)
                    waiting += [tensor.op for tensor in operation.inputs]
            self._needed[graph] = found
        return self._needed[graph]

    def _note_writes(self, operation: Any, given: Sequence[Value | None]) -> None:
        """Remembers which variables an operation writes, and the functions that it calls."""
        if _WRITES.fullmatch(operation.type):
            if isinstance(given[0], _Variable):
                self._written.add(given[0].key)
            return
        for body in self._called(operation):
            arguments = given[len(given) - len(body.inputs) :]
            inside = {tensor.name: value for tensor, value in zip(body.inputs, arguments, strict=True)}
            for inner in body.get_operations():
                if any(tensor.dtype == tf.resource for tensor in inner.inputs):
                    self._note_writes(inner, [inside.get(tensor.name) for tensor in inner.inputs])

    def _called(self, operation: Any) -> list[Any]:
        if operation.type in self._definitions:
            return [self._body(operation.type)]
        names = [
            operation.get_attr(a).name
            for a in ("f", "body", "then_branch", "else_branch")
            if a in operation.node_def.attr
        ]
        if "branches" in operation.node_def.attr:
            names += [branch.name for branch in operation.get_attr("branches")]
        return [self._body(name) for name in names if name in self._definitions]

    def _body(self, name: str) -> Any:
        if name not in self._graphs:
            self._graphs[name] = function_def_to_graph(self._definitions[name])
        return self._graphs[name]

    def _operation(self, operation: Any, values: Mapping[str, Value], scope: str) -> Sequence[Value]:
        op, path = operation.type, f"{scope}/{operation.name}".strip("/")
        if op in _EFFECTS:
            return []
        given = [values[tensor.name] for tensor in operation.inputs if tensor.name in values]
        if len(given) != len(operation.inputs):
            if not operation.outputs:
                return []
            raise UnsupportedModelError(f"{op} '{path}' takes what has no value: the result of a check or an effect.")
        if op == "Const":
            return [self._array(tf.make_ndarray(operation.get_attr("value")), path)]
        if op in _ALIASES:
            return given
        if op == "ReadVariableOp" and isinstance(given[0], _Variable):
            return [self._read_variable(given[0], path)]
        if op in _CALLS or op in self._definitions:
            return self._call(operation, given, path)
        if op in ("While", "StatelessWhile"):
            return self._loop(operation, given, path)
        if op in ("If", "StatelessIf", "Case", "StatelessCase"):
            return self._branch(operation, given, path)
        if op in LIST_OPS:
            self.build.layer = self.layer_of(path.rpartition("/")[0])
            return LIST_OPS[op](self.build, attributes_of(operation), *given)
        if op == "VariableShape" and isinstance(given[0], _Variable):
            return [self.build.constant(np.array(given[0].shape, operation.outputs[0].dtype.name))]
        if op == "ResourceGatherNd" and isinstance(given[0], _Variable) and isinstance(given[1], Output):
            table = self._read_variable(given[0], path)
            self.build.layer = self.layer_of(path.rpartition("/")[0])
            return [self.build("GatherNd", table, given[1])]
        if op == "ResourceGather" and isinstance(given[0], _Variable) and isinstance(given[1], Output):
            table = self._read_variable(given[0], path)
            self.build.layer = self.layer_of(path.rpartition("/")[0])
            batch = operation.get_attr("batch_dims")
            axis = self.build.constant(batch, "int32")
            return [self.build("GatherV2", table, given[1], axis, batch_dims=batch)]
        if _WRITES.fullmatch(op) and isinstance(given[0], _Variable):
            return [self._read_variable(given[0], path)]
        if not all(isinstance(value, Output) for value in given):
            raise UnsupportedModelError(
                f"{op} '{path}' works on a variable or a list of tensors itself, which inference does not. Variables "
                "are read, never written, in a private computation."
            )
        return self._node(operation, given, path)  # type: ignore[arg-type]

    def _node(self, operation: Any, given: Sequence[Output], path: str) -> Sequence[Output]:
        op = operation.type
        if _OUTSIDE.search(op):
            raise UnsupportedModelError(
                f"{op} '{path}' reaches out of the computation, to files or to Python. Do that before, and give "
                "what comes of it as an input or a variable."
            )
        if _RANDOM.search(op):
            raise UnsupportedModelError(
                f"{op} '{path}' draws random numbers, so inference would differ each time. Trace the model with "
                "training=False, or draw them outside and give them as an input."
            )
        layer = self.layer_of(path.rpartition("/")[0])
        self.build.layer = layer
        if op in _SHAPES:
            return self._shape(operation, given)
        attributes = attributes_of(operation)
        if op in DECOMPOSITIONS:
            return DECOMPOSITIONS[op](self.build, attributes, *given)
        simpler = without_negative_zero(op, given, self.build)
        if simpler is not None:
            return [simpler]
        constants = [value.constant for value in given if value.constant is not None]
        if len(constants) == len(given) and operation.outputs:
            results = [r.numpy() for r in compute(op, [tf.constant(c) for c in constants], attributes)]
            if sum(r.nbytes for r in results) <= max([_LARGEST_CONSTANT, *(c.nbytes for c in constants)]):
                return [self.build.constant(r) for r in results]
        shapes = [tensor.shape for tensor in operation.outputs]
        if all(shape.is_fully_defined() for shape in shapes):
            types = [(tuple(t.shape), t.dtype.name) for t in operation.outputs]
        else:
            types, given = self._types(op, given, attributes, path)
        if op in ("ZerosLike", "OnesLike"):
            ((shape, dtype),) = types
            return [self.build.constant(np.full(shape, op == "OnesLike", dtype))]
        node = Node(op, tuple(given), attributes, path, layer, *_split(types))
        return self.build.add(node).outputs

    def _types(
        self, op: str, given: Sequence[Output], attributes: Mapping[str, Any], path: str
    ) -> tuple[list[tuple[tuple[int, ...], str]], Sequence[Output]]:
        """Types of the results; and the inputs, of which those that decide a shape are public."""
        try:
            return result_types(op, [(v.shape, v.dtype, v.constant) for v in given], attributes), given
        except UnsupportedModelError:
            # What arrays in the code alone decide is public where it decides a shape: the shape is.
            public = [self._from_arrays(value) for value in given]
            try:
                types = result_types(
                    op, [(v.shape, v.dtype, c) for v, c in zip(given, public, strict=True)], attributes
                )
            except UnsupportedModelError as error:
                raise UnsupportedModelError(
                    f"{op} '{path}': {error} Shapes are public and known before; give sizes as Python numbers."
                ) from None
            kept = [
                value if array is None or "float" in value.dtype else self.build.constant(array)
                for value, array in zip(given, public, strict=True)
            ]
            return types, kept

    def _from_arrays(self, value: Output) -> np.ndarray | None:
        """A value that follows from public ones and arrays in the code, if this one does."""
        if value.constant is not None:
            return value.constant
        waiting, seen = [value.node], {value.node}
        while waiting:
            node = waiting.pop()
            if node.op == INPUT or (node.op == PARAMETER and "array" not in node.attributes):
                return None
            fresh = {v.node for v in node.inputs} - seen
            seen |= fresh
            waiting += fresh
        return evaluate(Graph(tuple(self.build.nodes), {}), {}, [value])[value]

    def _shape(self, operation: Any, given: Sequence[Output]) -> list[Output]:
        dtype = operation.outputs[0].dtype.name
        if operation.type == "Size":
            return [self.build.constant(int(np.prod(given[0].shape)), dtype)]
        if operation.type == "Rank":
            return [self.build.constant(len(given[0].shape), dtype)]
        return [self.build.constant(np.array(value.shape, dtype)) for value in given]

    # --- calls, loops, branches

    def _call(self, operation: Any, given: Sequence[Value], path: str) -> Sequence[Value]:
        name = operation.get_attr("f").name if operation.type in _CALLS else operation.type
        definition = self._definitions[name]
        implements = definition.attr["_implements"].s.decode() if "_implements" in definition.attr else ""
        if implements.startswith("shareflow."):
            return [self._composite(implements, operation, given, path)]
        return self.function(self._body(name), given, path)

    def _composite(self, implements: str, operation: Any, given: Sequence[Value], path: str) -> Output:
        op, attributes = parse_mark(implements)
        values = [value for value in given if isinstance(value, Output)]
        if plain_meaning(op) is None or len(values) < len(given) or not values:
            raise UnsupportedModelError(f"'{path}' is marked as {op}, which this version does not know.")
        tensor = operation.outputs[0]
        shape = tuple(tensor.shape) if tensor.shape.is_fully_defined() else values[0].shape
        self.build.layer = self.layer_of(path.rpartition("/")[0])
        return self.build.custom(op, values, shape, tensor.dtype.name, attributes, path)

    def _loop(self, operation: Any, given: Sequence[Value], path: str) -> Sequence[Value]:
        condition = self._body(operation.get_attr("cond").name)
        body = self._body(operation.get_attr("body").name)
        state = list(given)
        for step in range(MOST_STEPS + 1):
            (verdict,) = self.function(condition, state, f"{path}/condition")
            if not isinstance(verdict, Output) or verdict.constant is None:
                raise UnsupportedModelError(
                    f"The loop '{path}' ends when private values say so, which would tell how long it ran. Loop a "
                    "public number of times, and keep the result with tf.where."
                )
            if not verdict.constant:
                return state
            if step < MOST_STEPS:
                state = self.function(body, state, f"{path}/step_{step}")
        raise UnsupportedModelError(
            f"The loop '{path}' takes more than {MOST_STEPS:,} steps; each is a part of the program. Use shorter "
            "sequences, or call the private step again and again."
        )

    def _branch(self, operation: Any, given: Sequence[Value], path: str) -> Sequence[Value]:
        chooses, arguments = given[0], given[1:]
        if not isinstance(chooses, Output) or chooses.constant is None:
            raise UnsupportedModelError(
                f"The branch '{path}' is chosen by a private value, which would tell what it is. Compute both sides "
                "and choose with tf.where."
            )
        if operation.type in ("Case", "StatelessCase"):
            branches = operation.get_attr("branches")
            number = int(chooses.constant)
            name = branches[number if 0 <= number < len(branches) else -1].name
        else:
            name = operation.get_attr("then_branch" if np.all(chooses.constant) else "else_branch").name
        return self.function(self._body(name), arguments, path)


def _split(types: Sequence[tuple[tuple[int, ...], str]]) -> tuple[tuple[tuple[int, ...], ...], tuple[str, ...]]:
    return tuple(shape for shape, _ in types), tuple(dtype for _, dtype in types)


def _variables(concrete: Any) -> Iterable[Any]:
    found = {id(v.handle): v for v in (*concrete.graph.variables, *concrete.variables) if hasattr(v, "handle")}
    return found.values()
