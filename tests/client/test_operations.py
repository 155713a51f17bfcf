"""Every operation of the client's table against TensorFlow's: value, shape and dtype, from node to step to NumPy."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from shareflow.runtime.external import steps_of
from shareflow_client.errors import PlanError, RequestError
from shareflow_client.manifest import ExternalPart, GraphInfo, Step, TensorInfo
from shareflow_client.operations import OPERATIONS
from shareflow_client.steps import Part

RNG = np.random.default_rng(5)
F32 = RNG.normal(size=(3, 4)).astype(np.float32)
F64 = RNG.normal(size=(3, 4)) * 3
POSITIVE = np.abs(F64) + 0.1
WITHIN = np.tanh(F64)
HALVES = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 3.49999, -7.0])
SPECIAL = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0])
I64 = RNG.integers(-(2**63), 2**63 - 1, size=(3, 4))
SMALL = RNG.integers(-9, 10, size=(3, 4))
EDGE = np.array([-(2**63), 2**63 - 1, -1, 0, 1])
BOOL = F64 > 0
CUBE = RNG.normal(size=(2, 3, 4))


def i32(*numbers):
    return np.array(numbers, np.int32)


def scalar(number, dtype=np.int32):
    return np.array(number, dtype)


def case(op, *inputs, **attributes):
    return pytest.param(op, inputs, attributes, id=f"{op}-{len(CASES)}")


CASES: list = []


def add(op, *inputs, **attributes):
    CASES.append(case(op, *inputs, **attributes))


for name in ("Add", "AddV2", "Sub", "Mul", "SquaredDifference", "Maximum", "Minimum"):
    add(name, F32, F32[0])
    add(name, F64, F64[:, :1])
    add(name, I64, I64[::-1].copy())
    add(name, EDGE, EDGE[::-1].copy())
    add(name, SMALL.astype(np.int32), scalar(7))
for name in ("Equal", "NotEqual", "Less", "LessEqual", "Greater", "GreaterEqual"):
    add(name, SMALL, SMALL.T.reshape(3, 4))
    add(name, F64, F64[0])
    add(name, SPECIAL, SPECIAL[:, None])
for name in ("RealDiv", "DivNoNan", "MulNoNan", "Atan2", "FloorDiv", "FloorMod"):
    add(name, F64, F64[::-1].copy())
    add(name, F32, F32[0])
for name in ("FloorDiv", "FloorMod"):
    add(name, SMALL, np.where(SMALL == 0, 3, SMALL)[::-1].copy())
add("RealDiv", F64, np.zeros(4))
add("DivNoNan", SPECIAL[3:], np.zeros(3))
add("MulNoNan", SPECIAL, np.zeros(6))
add("Pow", POSITIVE, F64)
add("Pow", SMALL, np.abs(SMALL))
add("AddN", [F64, F64 * 2, F64 - 1])
add("AddN", [I64, I64, I64])
add("BiasAdd", CUBE, np.arange(4.0))
add("ClipByValue", F64, scalar(-1.0, np.float64), scalar(0.5, np.float64))
for name in ("Neg", "Abs", "Sign", "Square"):
    for x in (F32, F64, SPECIAL, I64, EDGE, SMALL.astype(np.int32), scalar(-3.5, np.float64)):
        add(name, x)
for name in ("Round", "Rint", "Floor", "Ceil"):
    for x in (HALVES, HALVES.astype(np.float32), F64 * 1e9, SPECIAL):
        add(name, x)
for name in ("IsNan", "IsInf", "IsFinite"):
    add(name, SPECIAL)
for name in ("Sin", "Cos", "Tan", "Atan", "Sinh", "Cosh", "Tanh", "Exp", "Expm1", "Sigmoid", "Softplus", "Softsign"):
    add(name, F32)
    add(name, F64)
    add(name, np.array([-50.0, -5.0, 0.0, 5.0, 50.0]))
for name in ("Elu", "Selu", "Relu", "Relu6", "Softmax", "LogSoftmax"):
    add(name, F32)
    add(name, F64 * 5)
    add(name, F64 * 1e3)
add("Relu", EDGE)
add("Sigmoid", np.array([-1e9, 1e9, -800.0, 800.0]))
for name in ("Sqrt", "Rsqrt", "Log", "Log1p", "Reciprocal", "Inv"):
    add(name, POSITIVE)
    add(name, POSITIVE.astype(np.float32))
for name in ("Asin", "Acos"):
    add(name, WITHIN)
add("LeakyRelu", F32, alpha=0.3)
add("LeakyRelu", F64, alpha=0.3)
for name in ("LogicalAnd", "LogicalOr"):
    add(name, BOOL, BOOL[0])
add("LogicalNot", BOOL)
add("SelectV2", BOOL, F64, F64[0])
for name in ("BitwiseAnd", "BitwiseOr", "BitwiseXor"):
    add(name, I64, I64[0])
add("Invert", I64)
for name in ("LeftShift", "RightShift"):
    add(name, I64, np.array([0, 1, 32, 63]))
for dtype in ("int64", "int32", "int8", "uint8", "float32", "float64", "float16", "bool"):
    add("Cast", SMALL, DstT=dtype)
    add("Cast", np.abs(F64) * 20, DstT=dtype)
    add("Cast", BOOL, DstT=dtype)
add("Cast", I64, DstT="int32")
add("Cast", I64, DstT="float64")
add("Cast", F64 * 1e15, DstT="int64")
add("Bitcast", I64, type="float64")
add("Bitcast", F32, type="int32")
for name in ("Identity", "StopGradient", "PreventGradient", "Snapshot", "ZerosLike", "OnesLike"):
    add(name, F32) if name == "PreventGradient" else add(name, I64)
add("IdentityN", [F64, I64])
add("EnsureShape", F64, shape=[3, 4])
add("EnsureShape", F64, shape=[None, 4])
for dtype in ("int32", "int64"):
    add("Shape", CUBE, out_type=dtype)
    add("Size", CUBE, out_type=dtype)
add("Rank", CUBE)
add("Fill", i32(2, 3), scalar(2.5, np.float32))
add("Fill", i32(), scalar(7, np.int64))
add("Range", scalar(1), scalar(10), scalar(3))
add("Range", scalar(10), scalar(1), scalar(-4))
add("Range", scalar(0.0, np.float32), scalar(1.0, np.float32), scalar(0.3, np.float32))
for axis in (-1, 0, 1):
    add("OneHot", np.array([[0, 2], [-1, 5]]), scalar(3), scalar(1.5, np.float32), scalar(0.5, np.float32), axis=axis)
add("Reshape", CUBE, i32(4, -1))
add("Reshape", scalar(4.0, np.float64), i32(1, 1))
add("ExpandDims", CUBE, scalar(1))
add("ExpandDims", CUBE, scalar(-1))
add("Squeeze", CUBE[:1, :, :1], axis=[0])
add("Squeeze", CUBE[:1, :, :1], axis=[])
add("Squeeze", CUBE[:1, :, :1], axis=[-1])
add("Transpose", CUBE, i32(2, 0, 1))
add("ReverseV2", CUBE, i32(0, -1))
add("Roll", CUBE, i32(1, -2), i32(0, 2))
add("Roll", CUBE, scalar(5), scalar(1))
add("BroadcastTo", F64[0], i32(2, 3, 4))
add("Tile", F64, i32(2, 3))
add("Pad", F64, np.array([[1, 0], [0, 2]], np.int32))
add("PadV2", I64, np.array([[1, 0], [0, 2]], np.int32), scalar(-5, np.int64))
for mode in ("REFLECT", "SYMMETRIC"):
    add("MirrorPad", F64, np.array([[1, 2], [2, 0]], np.int32), mode=mode)
add("ConcatV2", [F64, F64 * 2], scalar(1))
add("ConcatV2", [F64, F64 * 2, F64[:1]], scalar(0))
add("Pack", [F64, F64 * 2], axis=1)
add("Pack", [scalar(1), scalar(2)], axis=0)
add("Unpack", CUBE, num=3, axis=1)
add("Split", scalar(1), CUBE[:, :2], num_split=2)
add("SplitV", CUBE, i32(1, -1), scalar(2), num_split=2)
add("Slice", CUBE, i32(0, 1, 1), i32(2, -1, 2))
MASKS = dict(begin_mask=0, end_mask=0, ellipsis_mask=0, new_axis_mask=0, shrink_axis_mask=0)
add("StridedSlice", CUBE, i32(0, 2), i32(2, -4), i32(1, -1), **MASKS)
add("StridedSlice", CUBE, i32(0, 1), i32(0, 9), i32(1, 2), **MASKS | {"begin_mask": 1, "end_mask": 3})
add("StridedSlice", CUBE, i32(0, -1), i32(0, 0), i32(1, 1), **MASKS | {"ellipsis_mask": 1, "shrink_axis_mask": 2})
add("StridedSlice", CUBE, i32(0, 1), i32(0, 2), i32(1, 1), **MASKS | {"new_axis_mask": 1, "shrink_axis_mask": 2})
add("GatherV2", CUBE, np.array([[2, 0], [1, 1]]), scalar(1))
add("GatherV2", CUBE, scalar(1, np.int64), scalar(-1))
add("GatherV2", CUBE, np.array([[2, 0], [1, 1]]), scalar(1), batch_dims=1)
add("GatherV2", CUBE, np.array([[2, 0], [1, 1]]), scalar(2), batch_dims=1)
add("GatherNd", CUBE, np.array([[0, 2], [1, 0]]))
add("GatherNd", CUBE, np.array([[1]]))
for name in ("Sum", "Prod", "Max", "Min", "Mean", "EuclideanNorm"):
    for axes in (i32(0), i32(0, 2), i32(), scalar(-1)):
        add(name, CUBE, axes, keep_dims=False)
    add(name, CUBE.astype(np.float32), i32(1), keep_dims=True)
for name in ("Sum", "Prod", "Max", "Min"):
    add(name, I64, i32(0), keep_dims=False)
    add(name, SMALL.astype(np.int32), i32(0), keep_dims=False)
for name in ("All", "Any"):
    add(name, BOOL, i32(0), keep_dims=False)
    add(name, BOOL, i32(0, 1), keep_dims=True)
for name in ("ArgMax", "ArgMin"):
    for dtype in ("int32", "int64"):
        add(name, CUBE, scalar(1), output_type=dtype)
for name in ("Cumsum", "Cumprod"):
    for exclusive in (False, True):
        for reverse in (False, True):
            add(name, CUBE, scalar(1), exclusive=exclusive, reverse=reverse)
            add(name, I64, scalar(0), exclusive=exclusive, reverse=reverse)
for transpose in ((False, False), (True, False), (False, True), (True, True)):
    x, y = (m.T.copy() if t else m for m, t in zip((F64, F64.T.copy()), transpose, strict=True))
    add("MatMul", x, y, transpose_a=transpose[0], transpose_b=transpose[1])
add("MatMul", I64, I64.T.copy(), transpose_a=False, transpose_b=False)
add("BatchMatMulV2", CUBE, CUBE[:1], adj_x=False, adj_y=True)
add("BatchMatMulV2", CUBE, F64, adj_x=True, adj_y=False)
add("Einsum", [CUBE, F64], equation="bij,kj->bik")
add("Einsum", [CUBE], equation="...ij->...ji")

# What adds floats in another order, or is an elementary function, differs by units in the last place.
# fmt: off
NEAR = {
    "Sin", "Cos", "Tan", "Asin", "Acos", "Atan", "Atan2", "Sinh", "Cosh", "Tanh", "Exp", "Expm1", "Log", "Log1p",
    "Sigmoid", "Softplus", "Softmax", "LogSoftmax", "Elu", "Selu", "Pow", "Rsqrt", "Reciprocal", "Inv", "FloorMod",
    "Sum", "Prod", "Mean", "EuclideanNorm", "Cumsum", "Cumprod", "MatMul", "BatchMatMulV2", "Einsum",
}
# fmt: on


def constant(value):
    return [tf.constant(v) for v in value] if isinstance(value, list) else tf.constant(value)


def outputs_of(op, inputs, attributes):
    raw = getattr(tf.raw_ops, op)
    names = [name for name in inspect.signature(raw).parameters if name not in attributes]
    made = raw(**dict(zip(names, inputs, strict=False)), **attributes)
    return list(made) if isinstance(made, (list, tuple)) else [made]


def part_of(op, inputs, attributes):
    """The operation at a client: placeholders are its inputs, and every output a result."""
    with tf.Graph().as_default() as graph, tf.device("/job:client"):

        def placeholder(value):
            return tf.compat.v1.placeholder(value.dtype, value.shape)

        given = [[placeholder(v) for v in value] if isinstance(value, list) else placeholder(value) for value in inputs]
        outputs = [tf.identity(output) for output in outputs_of(op, given, attributes)]
    flat_inputs, flat_values = tf.nest.flatten(given), tf.nest.flatten(list(inputs))
    steps = steps_of(graph.as_graph_def().node, "client")
    expected = outputs_of(op, [constant(value) for value in inputs], attributes)
    info = GraphInfo(
        name="graph",
        entry="entry",
        batch=None,
        inputs=tuple(
            TensorInfo(tuple(v.shape), v.dtype.name, f"i{k}", "client", t.name)
            for k, (t, v) in enumerate(zip(flat_inputs, flat_values, strict=True))
        ),
        results=tuple(
            TensorInfo(tuple(e.shape), e.dtype.name, f"o{k}", "client", t.name)
            for k, (t, e) in enumerate(zip(outputs, expected, strict=True))
        ),
        state_in=(),
        state_out=(),
        external={
            "client": ExternalPart(
                "client",
                (),
                (),
                {f"o{k}": t.name for k, t in enumerate(outputs)},
                tuple(Step(s["name"], s["op"], tuple(s["inputs"]), s["attributes"]) for s in steps),
            )
        },
    )
    return Part(info, "client"), {f"i{k}": v for k, v in enumerate(flat_values)}, [e.numpy() for e in expected]


def no_streams(*_):
    raise AssertionError("no stream is needed")


def evaluated(part, inputs):
    return list(part.start(inputs, no_streams).results({}).values())


@pytest.mark.parametrize(("op", "inputs", "attributes"), CASES)
def test_the_operation_is_tensorflows(op, inputs, attributes):
    part, values, expected = part_of(op, inputs, attributes)
    before = [value.copy() for value in values.values()]
    for ours, theirs in zip(evaluated(part, values), expected, strict=True):
        assert ours.dtype == theirs.dtype
        assert ours.shape == theirs.shape
        if op in NEAR and theirs.dtype.kind == "f":
            tolerance = 64 * np.finfo(theirs.dtype).eps
            np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)
        else:
            np.testing.assert_array_equal(ours, theirs)
    for value, kept in zip(values.values(), before, strict=True):
        np.testing.assert_array_equal(value, kept)


def test_every_operation_has_a_case():
    assert {parameter.values[0] for parameter in CASES} == set(OPERATIONS)
    assert len(OPERATIONS) > 100


def test_the_specification_lists_them():
    text = (Path(__file__).parents[2] / "docs" / "plan-format.md").read_text(encoding="utf-8")
    listed = text.split("<!-- operations -->")[1].split("<!-- end of operations -->")[0]
    found = re.findall(r"`(\w+)`(?: \[([^]]*)\])?", re.sub(r"\s+", " ", listed))
    assert {name: sorted(re.findall(r"\w+", taken)) for name, taken in found} == {
        name: sorted(operation.attributes) for name, operation in OPERATIONS.items()
    }


@pytest.mark.parametrize(
    ("op", "inputs", "attributes", "error"),
    [
        ("FloorDiv", (SMALL, SMALL * 0), {}, "'FloorDiv' .FloorDiv. has no result for these inputs: .*zero"),
        ("FloorMod", (SMALL, SMALL * 0), {}, "has no result"),
        ("Pow", (SMALL, -1 - np.abs(SMALL)), {}, "no negative powers"),
        ("GatherV2", (CUBE, np.array([4]), scalar(1)), {}, "an index is not in 0 ... 2"),
        ("GatherV2", (CUBE, np.array([-1]), scalar(1)), {}, "an index is not in 0 ... 2"),
        ("GatherNd", (CUBE, np.array([[0, 3]])), {}, "an index is not in 0 ... 2"),
        ("Range", (scalar(1), scalar(2), scalar(0)), {}, "a step that is not zero"),
    ],
)
def test_what_has_no_value_is_refused_like_in_tensorflow(op, inputs, attributes, error):
    with pytest.raises((tf.errors.OpError, ValueError)):
        outputs_of(op, [constant(value) for value in inputs], attributes)
    good = [np.ones_like(value) for value in inputs]
    part, _, _ = part_of(op, good, attributes)
    with pytest.raises(RequestError, match=error):
        evaluated(part, {f"i{k}": value for k, value in enumerate(inputs)})


def step_part(op, values, attributes, form=(3, 4), dtype="float64"):
    """A part of one step that no graph was made of."""
    inputs = tuple(TensorInfo(v.shape, v.dtype.name, f"i{k}", "client", f"i{k}:0") for k, v in enumerate(values))
    step = Step("node", op, tuple(info.tensor for info in inputs), attributes)
    result = TensorInfo(form, dtype, "o", "client", "node:0")
    external = ExternalPart("client", (), (), {"o": "node:0"}, (step,))
    part = Part(GraphInfo("g", "e", None, inputs, (result,), (), (), {"client": external}), "client")
    return evaluated(part, {f"i{k}": v for k, v in enumerate(values)})


@pytest.mark.parametrize(
    ("op", "values", "attributes"),
    [
        ("RealDiv", (SMALL, SMALL), {}),
        ("Mean", (SMALL, i32(0)), {"keep_dims": False}),
        ("Exp", (SMALL,), {}),
        # TensorFlow's operation makes zeros of integers.
        ("Round", (SMALL,), {}),
        ("AddV2", (F64, CUBE[0, :2]), {}),
        ("Bitcast", (F64,), {"type": "int32"}),
        ("Fill", (np.array([2**40, 2**40]), scalar(1.0, np.float64)), {}),
        ("Fill", (i32(-1), scalar(1.0, np.float64)), {}),
        ("BroadcastTo", (F64, np.array([2**40, 3, 4])), {}),
        ("Tile", (F64, np.array([2**40, 2**10])), {}),
        ("Pad", (F64, np.array([[2**50, 0], [0, 0]])), {}),
        ("OneHot", (SMALL, scalar(2**60, np.int64), F64[0, 0], F64[0, 0]), {"axis": -1}),
        ("Range", (scalar(0, np.int64), scalar(2**62, np.int64), scalar(1, np.int64)), {}),
        ("Reshape", (F64, i32(5, 5)), {}),
        ("MirrorPad", (F64, np.array([[3, 0], [0, 0]])), {"mode": "REFLECT"}),
        ("MirrorPad", (F64, np.array([[1, 0], [0, 0]])), {"mode": "WRAP"}),
        ("Unpack", (CUBE,), {"num": 4, "axis": 1}),
        ("SplitV", (CUBE, i32(1, 1), scalar(2)), {}),
        ("Einsum", (F64,), {"equation": "nonsense->"}),
        ("EnsureShape", (F64,), {"shape": [3, 5]}),
    ],
)
def test_a_step_without_meaning_is_an_error_of_the_plan(op, values, attributes):
    values = tuple(np.asarray(value) for value in values)
    with pytest.raises(PlanError, match=f"Step 'node' .{op}. cannot be computed of .*Compute it before"):
        step_part(op, values, attributes)


def test_a_result_of_another_form_is_an_error_of_the_plan():
    with pytest.raises(PlanError, match=r"'node:0' of graph 'g' is declared as float64 \[3, 5\]; its steps make"):
        step_part("Abs", (F64,), {}, form=(3, 5))
    with pytest.raises(PlanError, match=r"is declared as int64 .*; its steps make float64"):
        step_part("Abs", (F64,), {}, dtype="int64")
