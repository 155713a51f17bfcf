"""SavedModels of Keras, of modules and of TensorFlow 1, and frozen graphs."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import shareflow as sf
from shareflow.compiler.front.saved import saved_source
from shareflow.errors import DataError, UnsupportedModelError

BOUND = 1e-3
ROWS = np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32)


def predicted(path, given=ROWS, **options):
    return sf.private_model(path, owner="model-owner", protocol=sf.Plain(), **options).predict(given, receiver="client")


class Net(tf.Module):
    """With two functions, a variable that both use, and an array that stands in the code."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.kernel = tf.Variable(rng.normal(size=(4, 3)).astype(np.float32))
        # Named as the one before: TensorFlow calls both "Variable".
        self.bias = tf.Variable(rng.normal(size=3).astype(np.float32))
        self.table = rng.normal(size=(3, 2)).astype(np.float32)

    @tf.function(input_signature=[tf.TensorSpec([None, 4], name="rows")])
    def scores(self, rows):
        return {"scores": tf.nn.relu(rows @ self.kernel + self.bias)}

    @tf.function(input_signature=[tf.TensorSpec([None, 4], name="rows"), tf.TensorSpec([None, 2], name="more")])
    def joint(self, rows, more):
        hidden = rows @ self.kernel + self.bias
        return {"sum": hidden @ self.table + more, "hidden": hidden}


@pytest.fixture(scope="module")
def net():
    return Net()


@pytest.fixture(scope="module")
def saved(net, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "net"
    tf.saved_model.save(net, str(folder), signatures={"scores": net.scores, "joint": net.joint})
    return folder


def test_what_keras_exports(tmp_path):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(5, activation="relu"), layers.Dense(3)])
    model.export(tmp_path / "exported", verbose=False)
    np.testing.assert_allclose(predicted(tmp_path / "exported"), model(ROWS).numpy(), atol=BOUND)
    np.testing.assert_allclose(predicted(tmp_path / "exported" / "saved_model.pb"), model(ROWS).numpy(), atol=BOUND)


def test_a_signature_is_chosen(net, saved):
    np.testing.assert_allclose(predicted(saved, signature="scores"), net.scores(ROWS)["scores"].numpy(), atol=BOUND)


def test_several_inputs_and_results_by_their_names(net, saved):
    more = ROWS[:, :2] * 2
    found = predicted(saved, {"rows": ROWS, "more": more}, signature="joint")
    for name, wanted in net.joint(ROWS, more).items():
        np.testing.assert_allclose(found[name], wanted.numpy(), atol=BOUND)


def test_variables_and_arrays_in_the_code_are_the_owners(net, saved):
    found = sf.parameters_of(saved, signature="joint")
    shapes = sorted(value.shape for value in found.values())
    assert shapes == [(3,), (3, 2), (4, 3)]
    np.testing.assert_allclose(next(v for v in found.values() if v.shape == (3, 2)), net.table)


def test_which_signature_is_asked_for(saved):
    with pytest.raises(UnsupportedModelError, match="several functions: joint, scores"):
        predicted(saved)
    with pytest.raises(UnsupportedModelError, match="no signature 'other'; it has: joint"):
        predicted(saved, signature="other")


def test_functions_that_were_saved_without_signatures(net, tmp_path):
    tf.saved_model.save(net, str(tmp_path / "net"))
    np.testing.assert_allclose(
        predicted(tmp_path / "net", signature="scores"), net.scores(ROWS)["scores"].numpy(), atol=BOUND
    )


def test_open_extents_are_asked_for_and_may_be_given(tmp_path):
    module = tf.Module()
    module.kernel = tf.Variable(np.eye(3, dtype=np.float32) * 2)
    signature = [tf.TensorSpec([None, None, 3], name="x")]
    module.f = tf.function(lambda x: {"y": tf.einsum("bni,ij->bnj", x, module.kernel)}, input_signature=signature)
    tf.saved_model.save(module, str(tmp_path / "m"), signatures=module.f)
    x = np.ones((2, 5, 3), np.float32)
    with pytest.raises(UnsupportedModelError, match="inputs="):
        predicted(tmp_path / "m", x)
    np.testing.assert_allclose(predicted(tmp_path / "m", x, inputs={"x": sf.Argument((5, 3))}), 2 * x, atol=BOUND)
    with pytest.raises(UnsupportedModelError, match="no input 'z'"):
        predicted(tmp_path / "m", x, inputs={"z": sf.Argument((5, 3))})


def first_version(path):
    """A network of TensorFlow 1: its graph, and what it computes on ROWS."""
    graph = tf.Graph()
    with graph.as_default(), tf.compat.v1.Session() as session:
        x = tf.compat.v1.placeholder(tf.float32, [None, 4], name="x")
        rng = np.random.default_rng(3)
        kernel = tf.compat.v1.get_variable("kernel", initializer=rng.normal(size=(4, 3)).astype(np.float32))
        y = tf.nn.relu(tf.matmul(x, kernel), name="y")
        session.run(tf.compat.v1.global_variables_initializer())
        wanted = session.run(y, {x: ROWS})
        if path.suffix == ".pb":
            frozen = tf.compat.v1.graph_util.convert_variables_to_constants(session, graph.as_graph_def(), ["y"])
            path.write_bytes(frozen.SerializeToString())
        else:
            tf.compat.v1.saved_model.simple_save(session, str(path), {"x": x}, {"y": y})
    return wanted


@pytest.mark.parametrize("name", ["old", "frozen.pb"])
def test_models_of_the_first_version(name, tmp_path):
    wanted = first_version(tmp_path / name)
    np.testing.assert_allclose(predicted(tmp_path / name), wanted, atol=BOUND)
    (weights,) = sf.parameters_of(tmp_path / name).values()
    assert weights.shape == (4, 3)


def test_a_plan_of_a_saved_model_holds_no_weights(net, saved, tmp_path):
    other = Net()
    other.kernel.assign(net.kernel + 1)
    other.table = net.table * 2
    tf.saved_model.save(other, str(tmp_path / "net"), signatures={"joint": other.joint})
    options = {"owner": "model-owner", "client": "client", "batch_sizes": (1,), "signature": "joint"}
    one = sf.compile_model(saved, **options)
    assert sf.compile_model(tmp_path / "net", **options).fingerprint == one.fingerprint


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none.keras", None, "no model at"),
        ("folder/", None, "without saved_model.pb"),
        ("bad.pb", b"hello", "no frozen graph"),
        ("empty.pb", b"", "no placeholders"),
        ("bad.h5", b"hello", "no model that Keras can load"),
        ("bad/saved_model.pb", b"hello", "no SavedModel that TensorFlow can load"),
    ],
)
def test_what_is_no_model(name, content, words, tmp_path):
    path = tmp_path / name
    if name.endswith("/"):
        path.mkdir()
    elif content is not None:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    with pytest.raises(DataError, match=words):
        saved_source(path)


def test_a_signature_is_for_saved_models(tmp_path):
    (tmp_path / "m.keras").write_bytes(b"")
    with pytest.raises(UnsupportedModelError, match="a part of a SavedModel"):
        saved_source(tmp_path / "m.keras", signature="serve")
    with pytest.raises(UnsupportedModelError, match="a part of a SavedModel"):
        sf.private_model(lambda x: x, owner="model-owner", signature="serve")
