"""ONNX models as exporters write them: private predictions beside the reference of onnx; and files that are refused."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from tests.compiler.front.onnx_models import model, node, read, reference  # noqa: E402

import shareflow as sf  # noqa: E402
from shareflow.compiler.evaluate import evaluate  # noqa: E402
from shareflow.compiler.front.onnx_source import onnx_source  # noqa: E402
from shareflow.errors import DataError, UnsupportedModelError  # noqa: E402

BOUND = 2e-3


def real(*shape, seed=0, size=1.0):
    return (np.random.default_rng([seed, *shape]).uniform(-1, 1, shape) * size).astype(np.float32)


def batch_norm(name, channels):
    return {
        f"{name}.s": real(channels, seed=1) + 1.5,
        f"{name}.b": real(channels, seed=2),
        f"{name}.m": real(channels, seed=3),
        f"{name}.v": real(channels, seed=4) * 0.4 + 1,
    }


def residual():
    """A convolutional network with a residual block, as PyTorch exports it."""
    arrays = {
        "conv1.w": real(6, 3, 3, 3, size=0.4),
        "conv1.b": real(6),
        "conv2.w": real(6, 6, 3, 3, size=0.3),
        "fc.w": real(4, 6, size=0.5),
        "fc.b": real(4),
        **batch_norm("bn1", 6),
        **batch_norm("bn2", 6),
    }
    nodes = [
        node("Conv", ["x", "conv1.w", "conv1.b"], ["c1"], name="/conv1/Conv", pads=[1, 1, 1, 1]),
        node("BatchNormalization", ["c1", "bn1.s", "bn1.b", "bn1.m", "bn1.v"], ["n1"], name="/bn1/BatchNormalization"),
        node("Relu", ["n1"], ["r1"], name="/relu/Relu"),
        node("MaxPool", ["r1"], ["p1"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], name="/pool/MaxPool"),
        node("Conv", ["p1", "conv2.w"], ["c2"], name="/conv2/Conv", pads=[1, 1, 1, 1]),
        node("BatchNormalization", ["c2", "bn2.s", "bn2.b", "bn2.m", "bn2.v"], ["n2"], name="/bn2/BatchNormalization"),
        node("Add", ["n2", "p1"], ["s"], name="/Add"),
        node("Relu", ["s"], ["r2"], name="/relu_1/Relu"),
        node("GlobalAveragePool", ["r2"], ["g"], name="/avgpool/GlobalAveragePool"),
        node("Flatten", ["g"], ["f"], name="/Flatten"),
        node("Gemm", ["f", "fc.w", "fc.b"], ["y"], name="/fc/Gemm", transB=1),
    ]
    return model(nodes, {"x": np.zeros((1, 3, 8, 8), np.float32)}, arrays, batch="N"), real(3, 3, 8, 8)


def perceptron():
    """As scikit-learn's is exported: products, sums, and the class beside the scores."""
    arrays = {
        "coefficient": real(5, 6),
        "intercepts": real(1, 6),
        "coefficient1": real(6, 3),
        "intercepts1": real(1, 3),
    }
    nodes = [
        node("MatMul", ["input", "coefficient"], ["m"]),
        node("Add", ["m", "intercepts"], ["a"]),
        node("Relu", ["a"], ["r"]),
        node("MatMul", ["r", "coefficient1"], ["m1"]),
        node("Add", ["m1", "intercepts1"], ["a1"]),
        node("ArgMax", ["a1"], ["output_label"], axis=1, keepdims=0),
        node("Softmax", ["a1"], ["probabilities"], axis=1),
    ]
    outputs = ["output_label", "probabilities"]
    return model(nodes, {"input": np.zeros((1, 5), np.float32)}, arrays, outputs, batch="N"), real(4, 5)


def attention():
    """One head over four tokens, whose shapes are computed in the graph as PyTorch writes them."""
    arrays = {"q": real(6, 6), "k": real(6, 6), "v": real(6, 6), "ln.w": real(6) + 1.5, "ln.b": real(6)}
    arrays |= {"up": real(6, 8, size=0.5), "down": real(8, 6, size=0.5), "one": np.array([1]), "zero": np.array([0])}
    constant = {
        "root": np.float32(6**-0.5),
        "half": np.float32(0.5),
        "sqrt2": np.float32(2**0.5),
        "unit": np.float32(1),
    }
    nodes = [
        *(node("Constant", [], [key], value=numpy_helper.from_array(np.asarray(v))) for key, v in constant.items()),
        node("MatMul", ["x", "q"], ["qx"]),
        node("MatMul", ["x", "k"], ["kx"]),
        node("MatMul", ["x", "v"], ["vx"]),
        node("Transpose", ["kx"], ["kt"], perm=[0, 2, 1]),
        node("MatMul", ["qx", "kt"], ["scores"]),
        node("Mul", ["scores", "root"], ["scaled"]),
        node("Softmax", ["scaled"], ["weights"], axis=-1),
        node("MatMul", ["weights", "vx"], ["mixed"]),
        node("Add", ["mixed", "x"], ["sum"]),
        node("LayerNormalization", ["sum", "ln.w", "ln.b"], ["normal"], axis=-1),
        node("MatMul", ["normal", "up"], ["wide"]),
        node("Div", ["wide", "sqrt2"], ["over"]),
        node("Erf", ["over"], ["erf"]),
        node("Add", ["erf", "unit"], ["plus"]),
        node("Mul", ["wide", "plus"], ["times"]),
        node("Mul", ["times", "half"], ["gelu"]),
        node("MatMul", ["gelu", "down"], ["narrow"]),
        node("Shape", ["narrow"], ["shape"]),
        node("Gather", ["shape", "zero"], ["batch"]),
        node("Constant", [], ["rest"], value_ints=[-1]),
        node("Concat", ["batch", "rest"], ["flat"], axis=0),
        node("Reshape", ["narrow", "flat"], ["y"]),
    ]
    return model(nodes, {"x": np.zeros((1, 4, 6), np.float32)}, arrays, batch="N"), real(2, 4, 6)


def recurrent():
    """Token ids, a look-up, an LSTM and the last state."""
    arrays = {"table": real(7, 4), "w": real(1, 12, 4), "r": real(1, 12, 3), "b": real(1, 24), "fc": real(3, 2)}
    nodes = [
        node("Gather", ["tokens", "table"][::-1], ["e"]),
        node("Transpose", ["e"], ["t"], perm=[1, 0, 2]),
        node("LSTM", ["t", "w", "r", "b"], ["", "h"], hidden_size=3),
        node("Squeeze", ["h", "axis"], ["last"]),
        node("MatMul", ["last", "fc"], ["y"]),
    ]
    made = model(nodes, {"tokens": np.zeros((1, 3), np.int64)}, {**arrays, "axis": np.array([0])}, batch="N")
    return made, np.random.default_rng(0).integers(0, 7, (2, 3))


MODELS = {"residual": residual, "perceptron": perceptron, "attention": attention, "recurrent": recurrent}


def saved(made, folder):
    path = folder / "model.onnx"
    onnx.save(made, str(path))
    return path


def private_error(made, x, folder, protocol):
    private = sf.private_model(saved(made, folder), owner="model-owner", protocol=protocol)
    name = next(iter(private.model.source.inputs))
    found = private.predict({name: x}, receiver="client")
    found = list(found.values()) if isinstance(found, dict) else [found]
    wanted = reference(made, {made.graph.input[0].name: x})
    assert len(found) == len(wanted)
    return max(np.abs(a - b).max() for a, b in zip(found, wanted, strict=True))


@pytest.mark.parametrize("name", MODELS)
def test_predictions_in_the_clear_twin(name, tmp_path):
    assert private_error(*MODELS[name](), tmp_path, sf.Plain()) < BOUND


def test_predictions_on_shares(tmp_path):
    assert private_error(*residual(), tmp_path, sf.SPDZ()) < BOUND


def test_axes_move_only_at_the_ends(tmp_path):
    made, _ = residual()
    graph = read(made, tmp_path)
    moved = [n for n in graph.nodes if n.op == "Transpose" and graph.secret(n.outputs[0])]
    inputs = {value.node.op for n in graph.nodes if n.op == "Transpose" for value in n.inputs[:1]}
    assert inputs <= {"Input", "Parameter"}
    assert len(moved) == 0
    assert {n.layer for n in graph.nodes if n.op == "Conv2D"} == {"conv1/Conv", "conv2/Conv"}


def test_initialisers_are_the_owners_and_constants_of_one_number_are_public(tmp_path):
    arrays = {"w": np.ones((3, 2), np.float32), "one": np.float32(2.5), "zeros": np.zeros(2, np.float32)}
    nodes = [
        node("Constant", [], ["half"], value_float=0.5),
        node("Constant", [], ["array"], value_floats=[0.25, 0.5]),
        node("Reshape", ["x", "form"], ["f"]),
        node("MatMul", ["f", "w"], ["m"]),
        node("Mul", ["m", "one"], ["n"]),
        node("Add", ["n", "zeros"], ["o"]),
        node("Mul", ["o", "half"], ["p"]),
        node("Add", ["p", "array"], ["y"]),
    ]
    made = model(nodes, {"x": np.zeros((1, 3), np.float32)}, {**arrays, "form": np.array([1, 3])})
    graph = read(made, tmp_path)
    owned = {n.name: n.shapes[0] for n in graph.parameters}
    assert sorted(owned.values()) == [(), (2,), (2,), (3, 2)]
    floats = [n for n in graph.nodes if n.op == "Constant" and n.dtypes[0] == "float32"]
    assert [float(n.attributes["value"]) for n in floats] == [0.5]


def test_a_plan_holds_no_weights(tmp_path):
    made, _ = perceptron()
    path = saved(made, tmp_path)
    options = {"owner": "model-owner", "client": "client", "batch_sizes": (1,)}
    plan = sf.compile_model(path, **options)
    for tensor in made.graph.initializer:
        array = numpy_helper.to_array(tensor)
        tensor.CopyFrom(numpy_helper.from_array(array + 1, tensor.name))
    assert sf.compile_model(saved(made, tmp_path), **options).fingerprint == plan.fingerprint
    names = sf.parameters_of(path)
    assert {value.shape for value in names.values()} >= {(5, 6), (6, 3)}


def test_weights_that_are_used_twice_are_shared_once(tmp_path):
    nodes = [node("MatMul", ["x", "w"], ["a"]), node("Relu", ["a"], ["b"]), node("MatMul", ["b", "w"], ["y"])]
    made = model(nodes, {"x": real(2, 4)}, {"w": real(4, 4)})
    assert len(read(made, tmp_path).parameters) == 1
    assert len(sf.parameters_of(tmp_path / "model.onnx")) == 1


def test_quantised_weights_are_the_owners(tmp_path):
    quantised = np.arange(-6, 6, dtype=np.int8).reshape(4, 3)
    nodes = [node("DequantizeLinear", ["q", "s"], ["w"], axis=1), node("MatMul", ["x", "w"], ["y"])]
    made = model(nodes, {"x": real(2, 4)}, {"q": quantised, "s": np.array([0.5, 0.25, 1], np.float32)}, opset=19)
    graph = read(made, tmp_path)
    assert {n.dtypes[0] for n in graph.parameters} == {"int8", "float32"}
    assert private_error(made, real(2, 4), tmp_path, sf.Plain()) < BOUND


def test_half_precision_is_computed_in_single(tmp_path):
    made = model(
        [node("MatMul", ["x", "w"])], {"x": real(2, 4).astype(np.float16)}, {"w": real(4, 3).astype(np.float16)}
    )
    (found,) = evaluate(read(made, tmp_path), {"x": real(2, 4)}).values()
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, real(2, 4) @ real(4, 3).astype(np.float16).astype(np.float32), atol=1e-5)


def body(nodes, inputs, outputs, arrays=()):
    def info(names):
        return [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in names]

    given = [numpy_helper.from_array(np.asarray(v), k) for k, v in dict(arrays).items()]
    graph = helper.make_graph(nodes, "body", info(inputs), info(outputs), given)
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.SetInParent()
    return graph


def test_a_branch_that_is_public_is_taken(tmp_path):
    yes = body([node("Add", ["x", "c"], ["t"])], [], ["t"], {"c": np.ones(3, np.float32)})
    no = body([node("Neg", ["x"], ["e"])], [], ["e"])
    for chosen in (True, False):
        made = model([node("If", ["on"], then_branch=yes, else_branch=no)], {"x": real(2, 3)}, {"on": np.array(chosen)})
        (found,) = evaluate(read(made, tmp_path), {"x": real(2, 3)}).values()
        np.testing.assert_allclose(found, real(2, 3) + 1 if chosen else -real(2, 3))


def test_a_loop_of_public_length_unrolls(tmp_path):
    steps = body(
        [
            node("Identity", ["go"], ["still"]),
            node("MatMul", ["state", "w"], ["next"]),
            node("Relu", ["next"], ["kept"]),
        ],
        ["i", "go", "state"],
        ["still", "next", "kept"],
    )
    made = model(
        [node("Loop", ["n", "yes", "x"], ["y", "all"], body=steps)],
        {"x": real(2, 3)},
        {"w": real(3, 3), "n": np.array(4), "yes": np.array(True)},
        ["y", "all"],
    )
    found = list(evaluate(read(made, tmp_path), {"x": real(2, 3)}).values())
    state, kept = real(2, 3), []
    for _ in range(4):
        state = state @ real(3, 3)
        kept.append(np.maximum(state, 0))
    np.testing.assert_allclose(found[0], state, atol=1e-6)
    np.testing.assert_allclose(found[1], np.stack(kept), atol=1e-6)


def test_functions_in_the_file_are_read(tmp_path):
    own = helper.make_function(
        "local", "twice", ["a"], ["b"], [node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 17)]
    )
    made = model([node("twice", ["x"], ["y"], domain="local")], {"x": real(2, 3)}, functions=[own])
    (found,) = evaluate(read(made, tmp_path), {"x": real(2, 3)}).values()
    np.testing.assert_allclose(found, 2 * real(2, 3))


def test_the_models_of_scikit_learn(tmp_path):
    arrays = {"coefficients": [1.0, -2.0, 0.5, -1.0, 2.0, -0.5], "intercepts": [0.1, -0.1]}
    scaler = node("Scaler", ["x"], ["s"], "ai.onnx.ml", offset=[0.5, 0.0, -0.5], scale=[2.0, 1.0, 0.5])
    linear = node(
        "LinearClassifier", ["s"], ["label", "scores"], "ai.onnx.ml", **arrays, classlabels_ints=[3, 7],
        post_transform="SOFTMAX", multi_class=1,
    )  # fmt: skip
    made = model([scaler, linear], {"x": real(4, 3)}, outputs=["label", "scores"])
    graph = read(made, tmp_path)
    assert len(graph.parameters) == 4
    label, scores = evaluate(graph, {"x": real(4, 3)}).values()
    want_label, want_scores = reference(made, {"x": real(4, 3)})
    np.testing.assert_allclose(scores, want_scores, atol=1e-5)
    assert label.tolist() == want_label.tolist()


# --- what is refused --------------------------------------------------------------------------------------------


def refused(made, folder, *words, error=UnsupportedModelError):
    with pytest.raises(error) as caught:
        sf.private_model(saved(made, folder), owner="model-owner", protocol=sf.Plain())
    for word in words:
        assert word in str(caught.value)


X = {"x": np.zeros((2, 4), np.float32)}
UNSUPPORTED = {
    "an op without a translation": (lambda: model([node("Det", ["x"], name="the det")], {"x": real(2, 2)}), "Det"),
    "random numbers": (lambda: model([node("RandomNormalLike", ["x"])], X), "Draw random numbers outside"),
    "another domain": (lambda: model([node("Fancy", ["x"], domain="org.ex")], X), "Fancy of org.ex (opset 1)"),
    "training": (
        lambda: model(
            [node("Dropout", ["x", "r", "t"])], X, {"r": np.float32(0.5), "t": np.array(True)}
        ),
        "training mode",
    ),
    "a shape that is private": (
        lambda: model([node("Cast", ["x"], ["s"], to=7), node("Reshape", ["x", "s"])], {"x": np.ones(1, np.float32)}),
        "all parties know",
    ),
    "too large": (lambda: model([node("Expand", ["x", "s"])], X, {"s": np.array([1 << 40, 2, 4])}), "elements at most"),
    "a branch that is private": (
        lambda: model(
            [
                node("ReduceSum", ["x"], ["s"], keepdims=0),
                node("Cast", ["s"], ["on"], to=9),
                node("If", ["on"], then_branch=body([node("Neg", ["x"], ["t"])], [], ["t"]),
                     else_branch=body([node("Abs", ["x"], ["e"])], [], ["e"])),
            ],
            X,
        ),
        "all parties know",
    ),
    "forests": (
        lambda: model([node("TreeEnsembleRegressor", ["x"], domain="ai.onnx.ml")], X),
        "Export a linear model",
    ),
    "an old version": (lambda: model([node("Relu", ["x"])], X, opset=5), "opset 5"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_what_has_no_private_form_is_named(name, tmp_path):
    make, words = UNSUPPORTED[name]
    refused(make(), tmp_path, words)


def test_the_error_names_op_node_and_version(tmp_path):
    made = model([node("Det", ["x"], name="/head/Det")], {"x": real(2, 2)})
    refused(made, tmp_path, "ONNX op Det (opset 17) at node 'head/Det'", "before the export")


def test_open_extents_are_asked_for_and_may_be_given(tmp_path):
    made = model([node("MatMul", ["x", "w"])], {"x": real(2, 3, 4)}, {"w": real(4, 2)})
    made.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
    made.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "length"
    refused(made, tmp_path, "['N', 'length', 4]", "shareflow.Argument")
    source = onnx_source(tmp_path / "model.onnx", {"x": sf.Argument((3, 4))})
    private = sf.private_model(source, owner="model-owner", protocol=sf.Plain())
    found = private.predict(real(2, 3, 4), receiver="client")
    np.testing.assert_allclose(found, real(2, 3, 4) @ real(4, 2), atol=BOUND)
    with pytest.raises(UnsupportedModelError, match="no input 'z'"):
        onnx_source(tmp_path / "model.onnx", {"z": sf.Argument((3, 4))})


def test_strings_stay_outside(tmp_path):
    made = model([node("Identity", ["x"])], X)
    made.graph.input[0].type.tensor_type.elem_type = TensorProto.STRING
    refused(made, tmp_path, "strings")


@pytest.mark.parametrize("content", [b"", b"\x08\x07hello", b"PK\x03\x04 a zip", b"\xff" * 100])
def test_a_damaged_file(content, tmp_path):
    (tmp_path / "bad.onnx").write_bytes(content)
    with pytest.raises(DataError, match="no valid ONNX model"):
        sf.private_model(tmp_path / "bad.onnx", owner="model-owner")


def test_a_model_that_the_checker_refuses(tmp_path):
    made = model([node("Relu", ["nothing"])], X)
    refused(made, tmp_path, "nothing", error=DataError)


def test_an_array_that_is_shorter_than_it_says(tmp_path):
    made = model([node("MatMul", ["x", "w"])], X, {"w": real(4, 2)})
    made.graph.initializer[0].dims[0] = 4000
    refused(made, tmp_path, "no valid ONNX model", error=DataError)


def beside(folder, location="weights.bin", length=None, offset=0):
    """A model whose array lies in a file of its own."""
    made = model([node("MatMul", ["x", "w"])], X, {"w": real(4, 2)})
    tensor = made.graph.initializer[0]
    (folder / "weights.bin").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entries = {"location": location, "offset": str(offset)} | ({"length": str(length)} if length else {})
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    return made


def test_arrays_beside_the_model(tmp_path):
    x = real(2, 4)
    private = sf.private_model(saved(beside(tmp_path), tmp_path), owner="model-owner", protocol=sf.Plain())
    np.testing.assert_allclose(private.predict(x, receiver="client"), x @ real(4, 2), atol=BOUND)


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/hostname", "", "missing.bin", "link.bin"])
def test_arrays_are_read_from_the_models_folder_alone(location, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    made = beside(folder, location)
    (tmp_path / "weights.bin").write_bytes(bytes(32))
    (folder / "link.bin").symlink_to(tmp_path / "weights.bin")
    refused(made, folder, "in its own folder", error=DataError)


def test_arrays_beside_have_the_bytes_that_they_should(tmp_path):
    refused(beside(tmp_path, length=1 << 20), tmp_path, "1,048,576 bytes", error=DataError)
    refused(beside(tmp_path, offset=1 << 20), tmp_path, "Export it again", error=DataError)


def test_a_file_that_is_too_large(tmp_path, monkeypatch):
    path = saved(residual()[0], tmp_path)
    monkeypatch.setattr("shareflow.compiler.front.onnx_file.MOST_BYTES", 100)
    with pytest.raises(DataError, match="100 bytes at most"):
        onnx_source(path)


def test_without_the_package_the_way_to_it_is_told(tmp_path, monkeypatch):
    path = saved(residual()[0], tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(DataError, match=r"pip install 'shareflow\[onnx\]'"):
        onnx_source(path)
