"""What a party outside the computation does itself: its steps of a plan's graph, with NumPy.

It splits its inputs into shares, masks them with streams that it shares with a server, and puts results together from
what the servers send. Nothing else of the graph is evaluated, and only what is sent or is a result.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from shareflow_client.errors import PeerError, PlanError, RequestError
from shareflow_client.manifest import DTYPE_BYTES, RANK_LIMIT, TENSOR_LIMIT, GraphInfo, Shaped, Step, TensorInfo
from shareflow_client.operations import OPERATIONS
from shareflow_client.operations.operation import NotComputedError, ValueRefusedError

CONST, ASSERT, UNIFORM = "Const", "Assert", "ShareflowUniform"
WAY_OUT = "Compute it before, and give its result as the input; or use operations of the list in docs/plan-format.md."

Streams = Callable[[str, int, tuple[int, ...]], np.ndarray]
"""(peer, number, shape) -> the stream of this execution that is shared with the peer: an int64 array."""

_STREAM_LIMIT = 1 << 31
_SPECIAL: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        CONST: {"dtype": "dtype", "shape": "ints", "data": "text"},
        ASSERT: {"message": "text"},
        UNIFORM: {"peer": "text", "stream": "int", "shape": "ints"},
    }
)
_INPUTS = MappingProxyType({CONST: (0, 0), ASSERT: (1, 1), UNIFORM: (0, 0)})
_KINDS: Mapping[str, Callable[[Any], bool]] = MappingProxyType(
    {
        "int": lambda value: type(value) is int and abs(value) < 1 << 63,
        "bool": lambda value: type(value) is bool,
        "float": lambda value: type(value) in (int, float),
        "text": lambda value: isinstance(value, str),
        "dtype": lambda value: isinstance(value, str) and value in DTYPE_BYTES,
        "ints": lambda value: isinstance(value, (list, tuple)) and all(map(_KINDS["int"], value)),
    }
)


def attributes_of(op: str) -> Mapping[str, str] | None:
    """Name and kind of each attribute that a step of this operation has, None for one that is not known."""
    if op in _SPECIAL:
        return _SPECIAL[op]
    return OPERATIONS[op].attributes if op in OPERATIONS else None


def supported(steps: Sequence[Step]) -> list[str]:
    """What in these steps cannot be evaluated: one line each, which names the node. Empty where all can."""
    problems = [problem for step in steps if (problem := _problem(step))]
    drawn: dict[tuple[str, int], str] = {}
    for step in steps:
        if step.op == UNIFORM and not _problem(step):
            stream = (step.attributes["peer"], step.attributes["stream"])
            if stream in drawn:
                problems.append(
                    f"{step.name!r} draws stream {stream[1]} with {stream[0]} as {drawn[stream]!r} does, but a mask is "
                    "used once"
                )
            drawn[stream] = step.name
    return problems


class Part:
    """The steps of one party in one graph, checked and in order. It can be started any number of times.

    Args:
        graph: of the plan's manifest.
        party: one of ``graph.external``.

    Raises:
        PlanError: the party has no part, a step cannot be evaluated, or what is sent depends on what is received.
    """

    def __init__(self, graph: GraphInfo, party: str) -> None:
        if party not in graph.external:
            raise PlanError(
                f"Graph {graph.name!r} has parts for {', '.join(graph.external) or 'no party'} outside of the "
                f"computation; {party!r} has none. Check the party's name, or ask for another entry."
            )
        external = graph.external[party]
        problems = supported(external.steps)
        if problems:
            raise PlanError(f"{party!r} cannot do its part of graph {graph.name!r}: {'; '.join(problems)}. {WAY_OUT}")
        self.graph = graph.name
        self.party = party
        self.inputs = {info.name: info for info in graph.inputs if info.party == party}
        self.sends = external.sends
        self.receives = {message.tensor: message for message in external.receives}
        self._results = {info.name: info for info in graph.results if info.party == party}
        self._constants = {f"{step.name}:0": _constant(step) for step in external.steps if step.op == CONST}
        before = _needed(external.steps, [message.tensor for message in self.sends])
        used = {name for step in before for name in step.inputs} | {message.tensor for message in self.sends}
        early = [name for name in self.receives if name in used]
        if early:
            raise PlanError(
                f"What {party!r} sends in graph {graph.name!r} is known before anything is received; it depends on "
                f"{early[0]!r}. Split the entry into two."
            )
        after = _needed(external.steps, [info.tensor for info in self._results.values()])
        after = [step for step in after if step.name not in {earlier.name for earlier in before}]
        self.streams = tuple(
            (step.attributes["peer"], step.attributes["stream"], tuple(step.attributes["shape"]))
            for step in (*before, *after)
            if step.op == UNIFORM
        )
        later = {name for step in after for name in step.inputs} | {info.tensor for info in self._results.values()}
        self._before = _with_last_uses(before, later | {message.tensor for message in self.sends})
        self._after = _with_last_uses(after, {info.tensor for info in self._results.values()})
        rules = [f"{step.name}:0" for step in before if step.op == ASSERT]
        rules = [rule for rule in rules if not any(step.op == UNIFORM for step in _needed(before, [rule]))]
        self._rules = _with_last_uses(_needed(before, rules), set())

    def check(self, inputs: Mapping[str, Any]) -> None:
        """Finds what :meth:`start` refuses in these inputs, and computes no more than that needs: no stream.

        Raises:
            RequestError, PlanError: as :meth:`start`.
        """
        Execution(self, self._given(inputs), _no_stream)._evaluate(self._rules)

    def start(self, inputs: Mapping[str, Any], streams: Streams) -> Execution:
        """One execution: checks the inputs, by name, and evaluates what is sent.

        Raises:
            RequestError: an input is missing, unknown, of another shape or dtype, or breaks a rule of the plan, such
                as the range of numbers. Nothing was sent.
            PlanError: a step does not have the shapes that the plan says.
        """
        execution = Execution(self, self._given(inputs), streams)
        execution._begin()
        return execution

    def _given(self, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        unknown = [name for name in inputs if name not in self.inputs]
        missing = [name for name in self.inputs if name not in inputs]
        if unknown or missing:
            raise RequestError(
                f"The inputs of {self.party!r} are {', '.join(self.inputs) or 'none'}; missing: "
                f"{', '.join(missing) or 'none'}, unknown: {', '.join(unknown) or 'none'}. Give each by its name."
            )
        return {info.tensor: _input(info, inputs[name]) for name, info in self.inputs.items()}


class Execution:
    """One evaluation of a part. Made by :meth:`Part.start`; remembers of what was computed what is needed later."""

    def __init__(self, part: Part, values: dict[str, np.ndarray], streams: Streams) -> None:
        self._part = part
        self._values = {**part._constants, **values}
        self._streams = streams
        self._sends: dict[str, np.ndarray] = {}

    def _begin(self) -> None:
        self._evaluate(self._part._before)
        self._sends = {message.tensor: self._declared(message.tensor, message) for message in self._part.sends}

    def sends(self) -> dict[str, np.ndarray]:
        """What is sent, by the name of the tensor, in the order of the plan; little-endian, in C order."""
        return dict(self._sends)

    def results(self, received: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The results by name, of all that was received, by the name of the tensor.

        Raises:
            PeerError: something is missing, was not expected, or has another shape or dtype than the plan says.
            RequestError: the values break a rule of the plan.
            PlanError: a step does not have the shapes that the plan says.
        """
        part = self._part
        if set(received) != set(part.receives):
            wrong = sorted(set(received) ^ set(part.receives))
            raise PeerError(
                f"In {part.graph!r} {part.party!r} gets {', '.join(part.receives) or 'nothing'}; {wrong[0]!r} is "
                f"{'missing' if wrong[0] in part.receives else 'not among them'}. The peer does not run this plan."
            )
        for name, message in part.receives.items():
            value = received[name]
            if value.shape != message.shape or value.dtype != np.dtype(message.dtype):
                raise PeerError(
                    f"{message.peer} sends {name!r} as {message.dtype} {list(message.shape)}; it came as {value.dtype} "
                    f"{list(value.shape)}. The peer does not run this plan."
                )
        self._values.update(received)
        self._evaluate(part._after)
        return {name: self._declared(info.tensor, info) for name, info in part._results.items()}

    def _declared(self, name: str, form: Shaped) -> np.ndarray:
        value = self._value(name)
        if value.shape != form.shape or value.dtype != np.dtype(form.dtype):
            raise PlanError(
                f"Tensor {name!r} of graph {self._part.graph!r} is declared as {form.dtype} {list(form.shape)}; its "
                f"steps make {value.dtype} {list(value.shape)}. Have the plan compiled anew."
            )
        return np.asarray(value, np.dtype(form.dtype).newbyteorder("<"), order="C")

    def _value(self, name: str) -> np.ndarray:
        if name not in self._values:
            raise PlanError(f"No step of graph {self._part.graph!r} makes {name!r}. Have the plan compiled anew.")
        return self._values[name]

    def _evaluate(self, steps: Sequence[tuple[Step, Sequence[str]]]) -> None:
        # int64 wraps, and 1 / 0 is infinite, without a word: as in TensorFlow.
        with np.errstate(all="ignore"):
            for step, used_up in steps:
                if step.op != CONST:
                    self._run(step)
                for name in used_up:
                    self._values.pop(name, None)

    def _run(self, step: Step) -> None:
        operands = [self._value(name) for name in step.inputs if not name.startswith("^")]
        if step.op == ASSERT:
            if not np.all(operands[0]):
                raise RequestError(step.attributes["message"])
            return
        if step.op == UNIFORM:
            attributes = step.attributes
            self._values[f"{step.name}:0"] = self._streams(
                attributes["peer"], attributes["stream"], tuple(attributes["shape"])
            )
            return
        try:
            made = OPERATIONS[step.op].compute(*operands, **step.attributes)
        except ValueRefusedError as error:
            raise RequestError(f"{_place(step)} has no result for these inputs: {error}. Correct the inputs.") from None
        except (ArithmeticError, LookupError, MemoryError, TypeError, ValueError) as error:
            # NumPy's own texts can hold values.
            why = f": {error}" if isinstance(error, NotComputedError) else ""
            forms = ", ".join(f"{x.dtype} {list(x.shape)}" for x in operands)
            raise PlanError(f"{_place(step)} cannot be computed of {forms}{why}. {WAY_OUT}") from None
        outputs = made if isinstance(made, tuple) else (made,)
        self._values.update({f"{step.name}:{k}": np.asarray(output) for k, output in enumerate(outputs)})


def _needed(steps: Sequence[Step], tensors: Sequence[str]) -> list[Step]:
    """The steps that these tensors depend on, in order."""
    nodes = {_node(tensor) for tensor in tensors}
    chosen = []
    for step in reversed(steps):
        if step.name in nodes:
            chosen.append(step)
            nodes.update(map(_node, step.inputs))
    return chosen[::-1]


def _with_last_uses(steps: Sequence[Step], kept: Iterable[str]) -> list[tuple[Step, tuple[str, ...]]]:
    """Each step, with the values that no step after it takes and that are not kept: they may be forgotten then."""
    needed = set(kept)
    found = []
    for step in reversed(steps):
        used = {name for name in step.inputs if not name.startswith("^")}
        found.append((step, tuple(used - needed)))
        needed |= used
    return found[::-1]


def _no_stream(peer: str, number: int, shape: tuple[int, ...]) -> np.ndarray:
    raise PlanError(f"No rule for inputs depends on stream {number} with {peer}. Have the plan compiled anew.")


def _place(step: Step) -> str:
    return f"Step {step.name!r} ({step.op})"


def _node(name: str) -> str:
    return name[1:] if name.startswith("^") else name.rpartition(":")[0]


def _problem(step: Step) -> str | None:
    """Why this step cannot be evaluated, or None."""
    kinds = attributes_of(step.op)
    if kinds is None:
        return f"{step.name!r} is an operation {step.op}, which cannot be computed without TensorFlow"
    count = sum(not name.startswith("^") for name in step.inputs)
    low, high = _INPUTS[step.op] if step.op in _INPUTS else OPERATIONS[step.op].inputs
    if not low <= count <= high:
        return f"{step.name!r} ({step.op}) has {low} to {high} inputs, not {count}"
    if set(step.attributes) != set(kinds):
        return f"{step.name!r} ({step.op}) has the attributes {sorted(kinds)}, not {sorted(step.attributes)}"
    for name, kind in kinds.items():
        if not _KINDS[kind](step.attributes[name]):
            return f"{step.name!r} ({step.op}) has an attribute {name!r} that is no {kind}"
    return _special_problem(step) if step.op in _SPECIAL else None


def _special_problem(step: Step) -> str | None:
    attributes = step.attributes
    if step.op == ASSERT:
        return None
    shape = attributes["shape"]
    itemsize = DTYPE_BYTES[attributes["dtype"]] if step.op == CONST else 8
    if len(shape) > RANK_LIMIT or any(size < 0 for size in shape) or math.prod(shape) * itemsize > TENSOR_LIMIT:
        return f"{step.name!r} ({step.op}) has a shape that no tensor of a plan has"
    if step.op == UNIFORM:
        fits = 0 <= attributes["stream"] < _STREAM_LIMIT
        return None if fits else f"{step.name!r} ({step.op}) has a stream that is not in [0, 2^31)"
    try:
        size = len(base64.b64decode(attributes["data"], validate=True))
    except (binascii.Error, ValueError):
        return f"{step.name!r} (Const) has data that is no base64"
    if size != math.prod(shape) * itemsize:
        return f"{step.name!r} (Const) has {size} bytes for {attributes['dtype']} {list(shape)}"
    return None


def _constant(step: Step) -> np.ndarray:
    data = base64.b64decode(step.attributes["data"])
    dtype = np.dtype(step.attributes["dtype"]).newbyteorder("<")
    return np.frombuffer(data, dtype).reshape(step.attributes["shape"]).astype(step.attributes["dtype"], copy=False)


def _input(info: TensorInfo, given: Any) -> np.ndarray:
    try:
        value = np.asarray(given)
    except ValueError:
        raise RequestError(f"Input {info.name!r} is an array; this is none. Give rows of equal length.") from None
    if not np.can_cast(value.dtype, info.dtype, "same_kind"):
        raise RequestError(f"Input {info.name!r} is {info.dtype}, not {value.dtype}. Convert it with astype.")
    if value.shape != info.shape:
        raise RequestError(
            f"Input {info.name!r} has the shape {list(info.shape)}, not {list(value.shape)}. Reshape it to that."
        )
    with np.errstate(over="ignore"):  # infinite then, which the plan's own rules refuse
        return value.astype(info.dtype)
