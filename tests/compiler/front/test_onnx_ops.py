"""Every ONNX op that is translated gives what onnx's reference gives, in each form that its versions have."""

import re
from pathlib import Path

import numpy as np
import pytest
from tests.compiler.front.onnx_models import check, model, node, read, reference

from shareflow.compiler.evaluate import evaluate
from shareflow.compiler.front.onnx_ops import supported

pytest.importorskip("onnx")


def real(*shape, seed=0, low=-2.0, high=2.0):
    return np.random.default_rng([seed, *shape]).uniform(low, high, shape).astype(np.float32)


def case(op, *inputs, arrays=None, opset=17, outputs=1, name="", domain="", **attributes):
    """An id, and a model of one node: positional arrays are private inputs, those by name constants after them."""
    named = {f"x{i}": np.asarray(value) for i, value in enumerate(inputs)}
    taken = [*named]
    for key, value in (arrays or {}).items():
        while key.startswith("at") and len(taken) < int(key[2:]):
            taken.append("")
        if value is not None:
            taken.append(key)
    arrays = {key: value for key, value in (arrays or {}).items() if value is not None}
    results = [f"y{i}" for i in range(outputs)]
    title = f"{op} {name}".strip() + (f" {opset}" if opset != 17 else "")
    return title, lambda: (
        model([node(op, taken, results, domain, **attributes)], named, arrays, results, opset),
        named,
    )


IMAGE = real(2, 4, 6, 7)
PLUS = real(2, 5, low=0.1)
K = real(6, 4, 3, 3)
FALSE_TRUE = np.array([[True, False, True], [False, False, True]])
INTS = np.array([[3, -5, 7], [-8, 2, 1]], np.int64)

UNARY = """
    Relu Sigmoid Tanh Softplus Softsign Erf Exp Neg Abs Sign Floor Ceil Round Sin Cos Sinh Cosh Asinh Atan
    HardSwish Elu Selu HardSigmoid LeakyRelu ThresholdedRelu Shrink Identity Reciprocal Hardmax
"""
CASES = [
    *(case(op, real(2, 5), opset=18) for op in UNARY.split()),
    *(case(op, real(2, 5), opset=20) for op in ("Gelu",)),
    *(case(op, PLUS) for op in ("Log", "Sqrt")),
    *(case(op, real(2, 5, low=-0.9, high=0.9)) for op in ("Acos", "Asin", "Atanh", "Tan")),
    case("Acosh", PLUS + 1),
    case("Mish", real(2, 5), opset=18),
    case("Gelu", real(2, 5), name="tanh", opset=20, approximate="tanh"),
    case("Celu", real(2, 5), alpha=1.5),
    case("Elu", real(2, 5), name="alpha", alpha=0.7),
    case("Selu", real(2, 5), name="alpha", alpha=1.2, gamma=0.8),
    case("Shrink", real(2, 5), name="bias", bias=0.3, lambd=0.9),
    case("LeakyRelu", real(2, 5), name="alpha", alpha=0.2),
    case("PRelu", IMAGE, arrays={"slope": real(4, 1, 1)}),
    *(case(op, real(2, 5), real(2, 5, seed=1)) for op in ("Add", "Sub", "Mul", "Div")),
    *(case(op, real(2, 3, 5), arrays={"c": real(3, 1)}, name="constant") for op in ("Add", "Sub", "Mul")),
    case("Div", INTS, arrays={"c": np.array(2, np.int64)}, name="whole"),
    case("Mod", INTS, arrays={"c": np.array([3, -3, 4], np.int64)}),
    case("Mod", INTS, arrays={"c": np.array([3, -3, 4], np.int64)}, name="fmod", fmod=1),
    *(case("Pow", PLUS, arrays={"c": np.float32(e)}, name=str(e)) for e in (2, 3, 0.5, -1, 1.7)),
    case("Pow", PLUS, arrays={"c": np.int64(2)}, name="whole exponent"),
    *(case(op, real(2, 3), real(2, 3, seed=1), real(3, seed=2)) for op in ("Sum", "Max", "Min", "Mean")),
    *(case(op, real(2, 3), real(2, 3, seed=1)) for op in ("Greater", "GreaterOrEqual", "Less", "LessOrEqual")),
    case("Equal", INTS, arrays={"c": INTS * [[1, 0, 1], [0, 1, 0]]}),
    *(case(op, FALSE_TRUE, arrays={"c": FALSE_TRUE[::-1]}) for op in ("And", "Or", "Xor")),
    case("Not", FALSE_TRUE),
    case("Where", FALSE_TRUE, real(2, 3), real(3)),
    case("Clip", real(2, 5), arrays={"low": np.float32(-0.5), "high": np.float32(1)}),
    case("Clip", real(2, 5), arrays={"low": np.float32(0), "high": np.float32(6)}, name="to 6"),
    case("Clip", real(2, 5), arrays={"low": np.float32(0)}, name="low"),
    case("Clip", real(2, 5), arrays={"at2": np.float32(1)}, name="high"),
    case("Clip", real(2, 5), opset=10, min=-0.5, max=1.0),
    case("Cast", real(2, 5), to=6),
    case("Cast", INTS, name="to real", to=1),
    case("Dropout", real(2, 5)),
    # products
    case("MatMul", real(2, 3), real(3, 4)),
    case("MatMul", real(2, 5, 3), arrays={"w": real(3, 4)}, name="many rows"),
    case("MatMul", real(2, 5, 3), real(2, 3, 4), name="batch"),
    case("MatMul", real(3), real(3), name="vectors"),
    case("MatMul", real(2, 5, 3), real(3), name="column"),
    case("Gemm", real(2, 3), arrays={"w": real(3, 4), "b": real(4)}),
    case(
        "Gemm",
        real(3, 2),
        arrays={"w": real(4, 3), "b": real(1)},
        name="turned",
        transA=1,
        transB=1,
        alpha=0.5,
        beta=2.0,
    ),
    case("Einsum", real(2, 3), real(3, 4), equation="ij,jk->ki"),
    case("Einsum", real(2, 3), real(3, 4), name="implicit", equation="ij, jk"),
    case("Einsum", real(2, 3), real(3, 4), real(4, 2), name="three", equation="ij,jk,kl->il"),
    case("Einsum", real(3, 3), name="trace", equation="ij->ji"),
    case("Trilu", real(2, 4, 4), arrays={"k": np.int64(1)}, upper=0),
    case("CumSum", real(2, 4), arrays={"axis": np.int64(1)}),
    case("CumSum", real(2, 4), arrays={"axis": np.int64(-1)}, name="other", exclusive=1, reverse=1),
    # convolutions
    case("Conv", IMAGE, arrays={"k": K}),
    case("Conv", IMAGE, arrays={"k": K, "b": real(6)}, name="padded", pads=[1, 1, 1, 1], strides=[2, 2]),
    case("Conv", IMAGE, arrays={"k": K, "b": real(6)}, name="uneven", pads=[0, 1, 2, 0], strides=[2, 1]),
    case("Conv", IMAGE, arrays={"k": K}, name="upper", auto_pad="SAME_UPPER", strides=[2, 2]),
    case("Conv", IMAGE, arrays={"k": K}, name="lower", auto_pad="SAME_LOWER", strides=[2, 2]),
    case("Conv", IMAGE, arrays={"k": K}, name="dilated", dilations=[2, 2], pads=[2, 2, 2, 2]),
    case("Conv", IMAGE, arrays={"k": real(6, 2, 3, 3)}, name="groups", group=2, pads=[1, 1, 1, 1]),
    case("Conv", IMAGE, arrays={"k": real(8, 1, 3, 3), "b": real(8)}, name="depthwise", group=4, pads=[1, 1, 1, 1]),
    case("Conv", IMAGE, arrays={"k": real(8, 1, 3, 3)}, name="depthwise uneven", group=4, strides=[2, 1]),
    case("Conv", real(2, 3, 9), arrays={"k": real(4, 3, 3), "b": real(4)}, name="line", pads=[2, 0], dilations=[2]),
    case(
        "Conv",
        real(1, 2, 5, 6, 4),
        arrays={"k": real(4, 2, 3, 3, 2), "b": real(4)},
        name="volume",
        pads=[1, 0, 0, 1, 1, 1],
    ),
    case(
        "Conv",
        real(1, 4, 5, 6, 4),
        arrays={"k": real(4, 2, 2, 2, 2)},
        name="volume groups",
        group=2,
        dilations=[2, 1, 2],
    ),
    case("ConvTranspose", IMAGE, arrays={"k": real(4, 3, 3, 3), "b": real(3)}),
    case("ConvTranspose", IMAGE, arrays={"k": real(4, 3, 4, 4)}, name="steps", strides=[2, 2], pads=[1, 1, 1, 1]),
    case(
        "ConvTranspose",
        IMAGE,
        arrays={"k": real(4, 3, 3, 3)},
        name="longer",
        strides=[2, 2],
        pads=[1, 1, 1, 1],
        output_padding=[1, 1],
    ),
    case(
        "ConvTranspose", IMAGE, arrays={"k": real(4, 3, 3, 3)}, name="uncropped", strides=[3, 2], output_padding=[2, 1]
    ),
    case("ConvTranspose", IMAGE, arrays={"k": real(4, 3, 2, 3)}, name="dilated", dilations=[2, 2]),
    case("ConvTranspose", real(2, 3, 5), arrays={"k": real(3, 2, 3)}, name="line", strides=[2]),
    case("ConvTranspose", real(1, 2, 3, 4, 2), arrays={"k": real(2, 3, 2, 2, 2)}, name="volume", strides=[2, 1, 2]),
    # pools
    case("MaxPool", IMAGE, kernel_shape=[2, 2], strides=[2, 2]),
    case("MaxPool", IMAGE, name="padded", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
    case("MaxPool", IMAGE, name="ceil", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
    case("MaxPool", IMAGE, name="same", kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER"),
    case("MaxPool", IMAGE, name="dilated", kernel_shape=[2, 2], dilations=[2, 2], strides=[2, 1]),
    case("MaxPool", real(2, 3, 9), name="line", kernel_shape=[3], strides=[2], pads=[1, 1]),
    case(
        "MaxPool",
        real(1, 2, 5, 6, 4),
        name="volume",
        kernel_shape=[3, 2, 2],
        strides=[2, 1, 2],
        pads=[1, 0, 0, 1, 1, 0],
    ),
    case("AveragePool", IMAGE, kernel_shape=[2, 2], strides=[2, 2]),
    case("AveragePool", IMAGE, name="padded", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
    case(
        "AveragePool",
        IMAGE,
        name="counted",
        kernel_shape=[3, 3],
        strides=[2, 2],
        pads=[1, 1, 1, 1],
        count_include_pad=1,
    ),
    case("AveragePool", IMAGE, name="uneven", kernel_shape=[3, 3], pads=[0, 1, 1, 0]),
    case("AveragePool", IMAGE, name="ceil", opset=19, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
    case(
        "AveragePool",
        IMAGE,
        name="ceil counted",
        opset=19,
        kernel_shape=[3, 3],
        strides=[2, 2],
        ceil_mode=1,
        pads=[1, 1, 1, 1],
        count_include_pad=1,
    ),
    case("AveragePool", real(2, 3, 9), name="line", kernel_shape=[3], strides=[2], pads=[1, 1]),
    case("AveragePool", real(1, 2, 5, 6, 4), name="volume", kernel_shape=[2, 2, 2], pads=[1, 1, 1, 0, 0, 0]),
    case("LpPool", IMAGE, opset=18, kernel_shape=[2, 2], strides=[2, 2]),
    *(case(op, IMAGE) for op in ("GlobalAveragePool", "GlobalMaxPool")),
    # norms
    *(
        case(
            "BatchNormalization",
            real(*shape),
            arrays={"s": real(4), "b": real(4), "m": real(4), "v": real(4, low=0.5)},
            name=str(len(shape)),
        )
        for shape in ((2, 4), (2, 4, 5), (2, 4, 3, 5))
    ),
    case("InstanceNormalization", IMAGE, arrays={"s": real(4), "b": real(4)}),
    case("GroupNormalization", IMAGE, arrays={"s": real(4), "b": real(4)}, opset=21, num_groups=2),
    case("LayerNormalization", real(2, 3, 5), arrays={"s": real(5), "b": real(5)}),
    case("LayerNormalization", real(2, 3, 5), arrays={"s": real(3, 5)}, name="two axes", axis=1, epsilon=1e-3),
    case("RMSNormalization", real(2, 3, 5), arrays={"s": real(5)}, opset=23),
    case("MeanVarianceNormalization", IMAGE),
    case("LpNormalization", real(2, 5)),
    case("LpNormalization", PLUS, name="1", p=1),
    *(case(op, real(2, 3, 4), opset=13) for op in ("Softmax", "LogSoftmax", "Hardmax")),
    case("Softmax", real(2, 3, 4), name="axis", axis=1),
    # reductions
    *(
        case(f"Reduce{kind}", PLUS.reshape(1, 2, 5), opset=13, axes=[1])
        if kind != "Sum"
        else case("ReduceSum", PLUS.reshape(1, 2, 5), opset=11, axes=[1])
        for kind in ("Sum", "Mean", "Max", "Min", "Prod", "SumSquare", "L1", "L2", "LogSum", "LogSumExp")
    ),
    *(
        case(f"Reduce{kind}", real(2, 3, 4), arrays={"axes": np.array([0, -1])}, opset=18, keepdims=0)
        for kind in ("Sum", "Mean", "Max", "Min")
    ),
    case("ReduceMean", real(2, 3), name="all", opset=18),
    case("ReduceSum", real(2, 3), name="none", noop_with_empty_axes=1),
    case("ArgMax", real(2, 5), axis=1),
    case("ArgMin", real(2, 5), keepdims=0, axis=-1),
    case("ArgMax", np.array([[1, 3, 3], [2, 2, 1]], np.float32), name="last", axis=1, select_last_index=1),
    case("TopK", real(3, 6), arrays={"k": np.array([2])}, outputs=2),
    case("TopK", real(3, 6), arrays={"k": np.array([2])}, outputs=2, name="least", largest=0, axis=0),
    # structure
    case("Reshape", real(2, 3, 4), arrays={"s": np.array([0, -1])}),
    *(case("Flatten", real(2, 3, 4), name=str(axis), axis=axis) for axis in (0, 1, 2, -1)),
    case("Transpose", real(2, 3, 4)),
    case("Transpose", real(2, 3, 4), name="perm", perm=[1, 0, 2]),
    case("Squeeze", real(2, 1, 3, 1)),
    case("Squeeze", real(2, 1, 3, 1), arrays={"a": np.array([-1])}, name="axis"),
    case("Squeeze", real(2, 1, 3, 1), opset=11, axes=[1]),
    case("Unsqueeze", real(2, 3), arrays={"a": np.array([0, -1])}),
    case("Unsqueeze", real(2, 3), opset=11, axes=[1]),
    case("Expand", real(2, 1, 3), arrays={"s": np.array([2, 4, 1])}),
    case("Tile", real(2, 3), arrays={"s": np.array([2, 1])}),
    case("Concat", real(2, 3), real(2, 2), arrays={"c": real(2, 1)}, axis=-1),
    case("Split", real(2, 6), arrays={"s": np.array([1, 3, 2])}, outputs=3, axis=1),
    case("Split", real(2, 6), opset=11, outputs=2, axis=1, split=[2, 4]),
    case("Split", real(2, 7), opset=18, outputs=3, axis=1, num_outputs=3),
    case(
        "Slice",
        real(5, 6),
        arrays={"s": np.array([1, -1]), "e": np.array([4, -6]), "a": np.array([0, 1]), "t": np.array([2, -2])},
    ),
    case(
        "Slice",
        real(5, 6),
        arrays={"s": np.array([4]), "e": np.array([-(2**62)]), "a": np.array([0]), "t": np.array([-1])},
        name="backwards",
    ),
    case("Gather", real(4, 3), arrays={"i": np.array([[0, -1], [2, 2]])}),
    case("Gather", real(4, 3), arrays={"i": np.array(1)}, name="one", axis=1),
    case("GatherElements", real(3, 3), arrays={"i": np.array([[0, -1, 2], [2, 0, 0]])}),
    case("GatherND", real(2, 3, 4), arrays={"i": np.array([[0, 1], [1, -1]])}),
    case("ScatterND", real(4, 2), arrays={"i": np.array([[0], [2]]), "u": real(2, 2)}),
    case("OneHot", np.array([[1, 0, 2]]), arrays={"d": np.array(4), "v": np.array([0.0, 1.0], np.float32)}),
    case("Pad", IMAGE, arrays={"p": np.array([0, 0, 1, 2, 0, 0, 0, 1]), "v": np.float32(1.5)}),
    *(
        case("Pad", IMAGE, arrays={"p": np.array([0, 1, 1, 2, 0, 0, 0, 1])}, name=m, mode=m)
        for m in ("reflect", "edge")
    ),
    case(
        "Pad",
        real(2, 3),
        arrays={"p": np.array([1, 2]), "v": np.float32(0), "a": np.array([-1])},
        opset=18,
        name="axes",
    ),
    case("DepthToSpace", real(1, 8, 2, 3), blocksize=2),
    case("DepthToSpace", real(1, 8, 2, 3), name="CRD", blocksize=2, mode="CRD"),
    case("SpaceToDepth", real(1, 2, 4, 6), blocksize=2),
    case("ReverseSequence", real(4, 2), arrays={"l": np.array([3, 4])}),
    # other sizes
    *(
        case(
            "Resize",
            IMAGE,
            arrays={"at2": np.array([1, 1, 2, 3], np.float32)},
            name=f"{mode} {rule}",
            mode=mode,
            coordinate_transformation_mode=rule,
        )
        for mode in ("linear", "nearest", "cubic")
        for rule in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
    ),
    *(
        case(
            "Resize",
            IMAGE,
            arrays={"at3": np.array([2, 4, 9, 3])},
            name=f"{r} to sizes",
            mode="nearest",
            nearest_mode=r,
        )
        for r in ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")
    ),
    case(
        "Resize",
        IMAGE,
        arrays={"at2": np.array([2.0, 3.0], np.float32)},
        opset=18,
        name="axes",
        axes=[2, 3],
        mode="nearest",
    ),
    # recurrent
    *(
        case(
            op,
            real(4, 2, 3),
            arrays={"w": real(1, g * 5, 3), "r": real(1, g * 5, 5, seed=1), "b": real(1, 2 * g * 5)},
            outputs=n,
            name="bias",
            hidden_size=5,
        )
        for op, g, n in (("RNN", 1, 2), ("GRU", 3, 2), ("LSTM", 4, 3))
    ),
    *(
        case(
            op, real(4, 2, 3), arrays={"w": real(1, g * 5, 3), "r": real(1, g * 5, 5, seed=1)}, outputs=2, hidden_size=5
        )
        for op, g in (("RNN", 1), ("GRU", 3), ("LSTM", 4))
    ),
    case(
        "GRU",
        real(4, 2, 3),
        arrays={"w": real(1, 15, 3), "r": real(1, 15, 5, seed=1), "b": real(1, 30)},
        outputs=2,
        name="torch",
        hidden_size=5,
        linear_before_reset=1,
    ),
    case(
        "LSTM",
        real(4, 2, 3),
        arrays={
            "w": real(1, 20, 3),
            "r": real(1, 20, 5),
            "b": real(1, 40),
            "at5": real(1, 2, 5),
            "c": real(1, 2, 5),
            "p": real(1, 15),
        },
        outputs=3,
        name="begins",
        hidden_size=5,
    ),
    # quantised weights
    case("DequantizeLinear", INTS.astype(np.int8), arrays={"s": np.float32(0.5), "z": np.int8(3)}, opset=19),
]


@pytest.mark.parametrize("make", [make for _, make in CASES], ids=[title for title, _ in CASES])
def test_an_op_gives_what_the_reference_gives(make, tmp_path):
    made, inputs = make()
    check(made, inputs, tmp_path, 2e-5)


# Where the reference follows another version of the op, or none: the formula of the specification.
X = real(2, 3, 4)
SPECIFIED = {
    "Softmax until 12": (
        case("Softmax", X, opset=11),
        lambda: np.exp(X) / np.exp(X).sum((1, 2), keepdims=True),
    ),
    "LogSoftmax until 12": (
        case("LogSoftmax", X, opset=12, axis=1),
        lambda: X - np.log(np.exp(X).sum((1, 2), keepdims=True)),
    ),
    "Hardmax until 12": (
        case("Hardmax", X, opset=11, axis=1),
        lambda: (X.max((1, 2), keepdims=True) == X).astype(np.float32),
    ),
    "Pad that cuts": (
        case("Pad", IMAGE, arrays={"p": np.array([0, 0, 1, -2, 0, 0, 0, 1])}),
        lambda: np.pad(IMAGE[..., 2:], ((0, 0), (0, 0), (1, 0), (0, 1))),
    ),
    "LRN": (
        case("LRN", IMAGE, size=3, alpha=0.3, beta=0.5, bias=2.0),
        lambda: (
            IMAGE
            / np.sqrt(2 + 0.1 * sum(np.pad(IMAGE**2, ((0, 0), (1, 1), (0, 0), (0, 0)))[:, i : i + 4] for i in range(3)))
        ),
    ),
    "ConvTranspose in groups": (
        case("ConvTranspose", IMAGE, arrays={"k": real(4, 2, 3, 3)}, strides=[2, 2], group=2),
        lambda: np.concatenate(
            [
                reference(model([node("ConvTranspose", ["x", "k"], strides=[2, 2])], {"x": x}, {"k": k}), {"x": x})[0]
                for x, k in zip(np.split(IMAGE, 2, 1), np.split(real(4, 2, 3, 3), 2), strict=True)
            ],
            1,
        ),
    ),
    "Upsample": (
        case("Upsample", IMAGE, arrays={"s": np.array([1, 1, 2, 3], np.float32)}, opset=9),
        lambda: IMAGE.repeat(2, 2).repeat(3, 3),
    ),
    "Pad of opset 9": (
        case("Pad", X, opset=9, pads=[0, 1, 0, 0, 0, 2], value=0.5),
        lambda: np.pad(X, ((0, 0), (1, 0), (0, 2)), constant_values=0.5),
    ),
}


@pytest.mark.parametrize("name", SPECIFIED)
def test_an_op_gives_what_the_specification_says(name, tmp_path):
    (_, make), wanted = SPECIFIED[name]
    made, inputs = make()
    graph = read(made, tmp_path)
    (found,) = evaluate(graph, inputs).values()
    np.testing.assert_allclose(found, wanted(), rtol=2e-5, atol=2e-6)


def test_cases_have_names_of_their_own():
    titles = [title for title, _ in CASES]
    assert len(set(titles)) == len(titles), sorted(t for t in titles if titles.count(t) > 1)


def test_the_guide_lists_what_is_translated():
    page = (Path(__file__).resolve().parents[3] / "docs" / "models.md").read_text()
    listed = re.search(r"<!-- onnx ops -->(.*)<!-- /onnx ops -->", page, re.DOTALL)[1]
    assert re.findall(r"`([\w.]+)`", listed) == supported()
