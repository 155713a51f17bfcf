"""The client's part of real plans against the whole graph in TensorFlow: the same bits are sent, and come out."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import re

import keras
import numpy as np
import plans
import pytest
import tensorflow as tf

import shareflow as sf
from shareflow.compiler.compile_model import compile_model
from shareflow.errors import EncodingError
from shareflow.planning import Entry, Input, plan
from shareflow.runtime.definition import without_devices
from shareflow.runtime.external import steps_of
from shareflow_client.errors import PeerError, PlanError, RequestError
from shareflow_client.manifest import Step, parse_manifest
from shareflow_client.steps import Part, supported
from shareflow_client.stream import uniform

EXECUTION = (1 << 63) + 12345
KEY = re.compile(r"(?:.*/)?key\.(\w+)\.(\w+)\.(?:_\d+)?")


def key(one: str, other: str) -> bytes:
    return hashlib.sha256("-".join(sorted((one, other))).encode()).digest()[:16]


def streams(party: str, execution: int = EXECUTION):
    return lambda peer, stream, shape: uniform(key(party, peer), execution, stream, shape)


def whole_run(made, graph: str, inputs: dict[str, np.ndarray], fetches, states=None):
    """All parties' parts of a plan's graph in one TensorFlow session; what these tensors are."""
    definition = tf.compat.v1.GraphDef.FromString(made.file.graphs[graph])
    with tf.Graph().as_default() as whole:
        tf.graph_util.import_graph_def(without_devices(definition), name="")
    info = made.manifest.graphs[graph]
    feeds = {tensor.tensor: inputs[tensor.name] for tensor in info.inputs} | (states or {})
    for node in definition.node:
        if node.op == "Placeholder" and (match := KEY.fullmatch(node.name)):
            feeds[f"{node.name}:0"] = np.frombuffer(key(*match.groups()), "<i8")
        elif node.op == "Placeholder" and "execution." in node.name:
            feeds[f"{node.name}:0"] = np.array(EXECUTION, np.uint64).view(np.int64)
    with tf.compat.v1.Session(graph=whole) as session:
        return dict(zip(fetches, session.run(list(fetches), feeds), strict=True))


def states_of(made, graph: str) -> dict[str, np.ndarray]:
    """Any numbers: what stays at the servers concerns no client."""
    rng = np.random.default_rng(1)
    components = made.manifest.states
    return {
        state.tensor: rng.integers(-100, 100, components[state.state].components[state.component].shape)
        for state in made.manifest.graphs[graph].state_in
    }


def check(made, graph: str, party: str, inputs: dict[str, np.ndarray], near: bool = False) -> None:
    info = made.manifest.graphs[graph]
    part = Part(info, party)
    external = info.external[party]
    fetches = [message.tensor for message in (*external.sends, *external.receives)]
    fetches += [tensor for tensor in external.results.values() if tensor not in fetches]
    theirs = whole_run(made, graph, inputs, fetches, states_of(made, graph))
    execution = part.start({name: inputs[name] for name in part.inputs}, streams(party))
    sends = execution.sends()
    assert list(sends) == [message.tensor for message in external.sends]
    for name, value in sends.items():
        assert value.flags.c_contiguous
        assert value.dtype == theirs[name].dtype
        np.testing.assert_array_equal(value, theirs[name])
    results = execution.results({message.tensor: theirs[message.tensor] for message in external.receives})
    assert set(results) == set(external.results)
    for name, tensor in external.results.items():
        compare = np.testing.assert_allclose if near else np.testing.assert_array_equal
        compare(results[name], theirs[tensor])


@pytest.fixture(scope="module")
def network():
    model = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            keras.layers.Conv2D(3, 3),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dense(4, activation="softmax"),
        ]
    )
    return compile_model(model, owner="model-owner", client="client", batch_sizes=(1, 3))


@pytest.mark.parametrize("batch", [1, 3])
def test_a_network_s_client(network, batch, rng):
    x = rng.normal(size=(batch, 6, 6, 1)).astype(np.float32)
    check(network, f"predict@{batch}", "client", {"x": x}, near=True)


def test_a_network_s_owner(network, rng):
    inputs = network.manifest.graphs["load"].inputs
    weights = {info.name: rng.normal(size=info.shape).astype(info.dtype) for info in inputs}
    check(network, "load", "model_owner", weights)


def mixed(image, weights, offset):
    """Each owner computes what is its own in plaintext, with ordinary TensorFlow."""

    @sf.local_computation("client")
    def normalised(x):
        x = tf.cast(x, tf.float32) / 255.0
        mean = tf.reduce_mean(x, axis=[1, 2], keepdims=True)
        spread = tf.sqrt(tf.reduce_mean(tf.square(x - mean), axis=[1, 2], keepdims=True))
        return tf.reshape((x - mean) / (spread + 1e-3), [x.shape[0], -1])

    @sf.local_computation("model_owner")
    def standardised(w):
        return tf.transpose((w - tf.reduce_mean(w, axis=0)) / tf.math.reduce_std(w, axis=0))[:, :5]

    @sf.local_computation("client")
    def summary(y):
        shares = tf.nn.softmax(tf.clip_by_value(y, -20.0, 20.0))
        return tf.concat([shares, tf.reduce_max(shares, axis=1, keepdims=True), tf.cast(y > 0, y.dtype)], axis=1)

    scores = sf.relu(normalised(image) @ standardised(weights) + offset)
    return {"scores": summary(scores.reveal("client")), "known": scores.reveal("auditor")}


@pytest.fixture(scope="module")
def parties():
    inputs = {
        "image": Input("client", (4, 4), "uint8"),
        "weights": Input("model-owner", (7, 16), "float64"),
        "offset": Input("third", (), "float32"),
    }
    return plan(
        {
            "mixed": Entry(
                mixed,
                {name: dataclasses.replace(i, shape=(1, 4, 4)) if name == "image" else i for name, i in inputs.items()},
            )
        }
    )


@pytest.mark.parametrize("party", ["client", "model_owner", "third", "auditor"])
def test_parties_compute_in_plaintext(parties, party, rng):
    inputs = {
        "image": rng.integers(0, 256, (1, 4, 4)).astype(np.uint8),
        "weights": rng.normal(size=(7, 16)),
        "offset": np.array(0.5, np.float32),
    }
    assert party in parties.manifest.external
    # Means of floats are NumPy's: bits of what is encoded can differ by a unit; here they do not.
    check(parties, "mixed", party, inputs, near=True)


# ---- refused before anything is sent -----------------------------------------------------------------------


def test_values_that_cannot_be_encoded(network):
    part = Part(network.manifest.graphs["predict@1"], "client")
    for bad in (np.nan, np.inf, -np.inf, 1e12):
        x = np.zeros((1, 6, 6, 1), np.float32)
        x[0, 3, 2, 0] = bad
        with pytest.raises(RequestError, match="with 16 fractional bits a value is finite and at most") as error:
            part.start({"x": x}, streams("client"))
        assert not error.value.retry
        # The same text as without a plan, where it goes on with what was found.
        with pytest.raises(EncodingError) as encoding:
            sf.private_tensor(x, "client").shared(sf.SPDZ())
        assert str(encoding.value).startswith(str(error.value))


@pytest.mark.parametrize(
    ("inputs", "error"),
    [
        ({}, "inputs of 'client' are x; missing: x, unknown: none"),
        ({"x": np.zeros((1, 4)), "y": 1}, "missing: none, unknown: y"),
        ({"x": np.zeros((4,))}, r"Input 'x' has the shape \[1, 4\], not \[4\]. Reshape"),
        ({"x": np.zeros((2, 4))}, r"Input 'x' has the shape \[1, 4\], not \[2, 4\]"),
        ({"x": np.zeros((1, 4), np.complex64)}, "Input 'x' is float32, not complex64. Convert"),
        ({"x": [["a", "b", "c", "d"]]}, "Input 'x' is float32, not <U1"),
        ({"x": [[1, 2], [3]]}, "Input 'x' is an array; this is none"),
    ],
)
def test_inputs_of_another_form(inputs, error):
    part = Part(parse_manifest(plans.manifest()).graphs["predict@1"], "client")
    with pytest.raises(RequestError, match=error):
        part.start(inputs, streams("client"))


def test_lists_and_wider_floats_are_taken():
    part = Part(parse_manifest(plans.manifest()).graphs["predict@1"], "client")
    for x in ([[1, 2, 3, 4]], np.arange(1.0, 5.0)[None]):
        (sent,) = part.start({"x": x}, streams("client")).sends().values()
        mask = uniform(key("client", "server1"), EXECUTION, 0, (1, 4))
        np.testing.assert_array_equal(sent + mask, [[1, 2, 3, 4]])


def test_executions_are_masked_anew():
    part = Part(parse_manifest(plans.manifest()).graphs["predict@1"], "client")
    assert part.streams == (("server1", 0, (1, 4)),)
    sent = [next(iter(part.start({"x": np.ones((1, 4))}, streams("client", e)).sends().values())) for e in (1, 2)]
    assert not np.any(sent[0] == sent[1])


# ---- what peers send ---------------------------------------------------------------------------------------

ANSWER = "send.result.server0.client.:0"


@pytest.mark.parametrize(
    ("received", "error"),
    [
        ({}, "'send.result.server0.client.:0' is missing. The peer does not run this plan"),
        ({ANSWER: np.zeros((1, 2), np.int64), "other:0": np.zeros(1)}, "'other:0' is not among them"),
        ({ANSWER: np.zeros((2, 1), np.int64)}, r"server0 sends .* as int64 \[1, 2\]; it came as int64 \[2, 1\]"),
        ({ANSWER: np.zeros((1, 2), np.float64)}, r"it came as float64 \[1, 2\]"),
        ({ANSWER: np.zeros((1, 2), ">i8")}, r"it came as >i8 \[1, 2\]"),
    ],
)
def test_messages_of_another_form(received, error):
    execution = Part(parse_manifest(plans.manifest()).graphs["predict@1"], "client").start(
        {"x": np.ones((1, 4))}, streams("client")
    )
    with pytest.raises(PeerError, match=error):
        execution.results(received)
    good = {ANSWER: np.array([[3, -4]])}
    np.testing.assert_array_equal(execution.results(good)["result"], [[3.0, -4.0]])


# ---- plans that cannot be evaluated ------------------------------------------------------------------------


def with_step(changed: str, **change):
    manifest = plans.manifest()
    part = manifest["graphs"]["predict@1"]["external"]["client"]
    (step,) = [step for step in part["steps"] if step["op"] == changed][:1]
    step.update(change)
    return parse_manifest(manifest).graphs["predict@1"]


CONST = {"dtype": "float64", "shape": [2], "data": base64.b64encode(np.ones(2).tobytes()).decode()}


@pytest.mark.parametrize(
    ("op", "attributes", "error"),
    [
        ("PyFunc", {}, "'s' is an operation PyFunc, which cannot be computed without TensorFlow"),
        ("ReadFile", {}, "'s' is an operation ReadFile"),
        ("Abs", {}, "'s' (Abs) has 1 to 1 inputs, not 0"),
        ("Const", {}, "'s' (Const) has the attributes ['data', 'dtype', 'shape'], not []"),
        ("Const", CONST | {"extra": 1}, "has the attributes"),
        ("Const", CONST | {"dtype": "object"}, "'s' (Const) has an attribute 'dtype' that is no dtype"),
        ("Const", CONST | {"shape": [True]}, "'s' (Const) has an attribute 'shape' that is no ints"),
        ("Const", CONST | {"shape": [3]}, "'s' (Const) has 16 bytes for float64 [3]"),
        ("Const", CONST | {"shape": [-1]}, "has a shape that no tensor of a plan has"),
        ("Const", CONST | {"shape": [1 << 40]}, "has a shape that no tensor of a plan has"),
        ("Const", CONST | {"shape": [1] * 40}, "has a shape that no tensor of a plan has"),
        ("Const", CONST | {"data": "%%"}, "'s' (Const) has data that is no base64"),
        ("Const", CONST | {"data": "ä"}, "'s' (Const) has data that is no base64"),
        ("Const", CONST | {"data": 5}, "'s' (Const) has an attribute 'data' that is no text"),
        ("ShareflowUniform", {"peer": "server1", "stream": -1, "shape": [1]}, "a stream that is not in [0, 2^31)"),
        ("ShareflowUniform", {"peer": "server1", "stream": 1 << 31, "shape": [1]}, "a stream that is not in"),
        ("ShareflowUniform", {"peer": "server1", "stream": 0.0, "shape": [1]}, "'stream' that is no int"),
        ("ShareflowUniform", {"peer": 0, "stream": 0, "shape": [1]}, "'peer' that is no text"),
        ("ShareflowUniform", {"peer": "server1", "stream": 0, "shape": [-1]}, "has a shape that no tensor of a plan"),
        ("Assert", {"message": "no"}, "'s' (Assert) has 1 to 1 inputs, not 0"),
    ],
)
def test_steps_that_are_none(op, attributes, error):
    (problem,) = supported([Step("s", op, (), attributes)])
    assert error in problem


def test_steps_that_are_some():
    uniform_step = {"peer": "server1", "stream": 0, "shape": []}
    assert supported([Step("s", "Const", (), CONST), Step("u", "ShareflowUniform", ("^s",), uniform_step)]) == []


def test_a_stream_is_drawn_once():
    step = {"peer": "server1", "stream": 3, "shape": [1]}
    steps = [Step(name, "ShareflowUniform", (), step | {"peer": peer}) for name, peer in zip("abc", "xyx", strict=True)]
    (problem,) = supported(steps)
    assert problem == "'c' draws stream 3 with x as 'a' does, but a mask is used once"


def test_a_plan_with_such_steps_is_refused_at_once():
    graph = with_step("Sub", op="Magic")
    with pytest.raises(
        PlanError, match=r"'client' cannot do its part of graph 'predict@1': 'masked' is an operation Magic"
    ):
        Part(graph, "client")
    with pytest.raises(PlanError, match="has parts for client outside of the computation; 'stranger' has none"):
        Part(graph, "stranger")


def test_what_is_sent_does_not_depend_on_what_is_received():
    graph = with_step("Sub", inputs=[ANSWER, "mask:0"])
    with pytest.raises(PlanError, match=r"is known before anything is received; it depends on 'send.result"):
        Part(graph, "client")


def test_only_what_is_needed_is_evaluated():
    manifest = plans.manifest()
    part = manifest["graphs"]["predict@1"]["external"]["client"]
    idle = {"name": "idle", "op": "Reshape", "inputs": ["x:0", "x:0"], "attributes": {}}
    part["steps"].append(idle)
    execution = Part(parse_manifest(manifest).graphs["predict@1"], "client").start(
        {"x": np.ones((1, 4))}, streams("client")
    )
    assert execution.results({ANSWER: np.zeros((1, 2), np.int64)})
    # Named in a control input, it runs first.
    part["steps"].insert(0, part["steps"].pop())
    part["steps"][1]["inputs"].append("^idle")
    with pytest.raises(PlanError, match="Step 'idle'"):
        Part(parse_manifest(manifest).graphs["predict@1"], "client").start({"x": np.ones((1, 4))}, streams("client"))


# ---- from graphs to steps ----------------------------------------------------------------------------------


def nodes(build):
    with tf.Graph().as_default() as graph:
        build()
    return graph.as_graph_def().node


def test_operations_that_need_tensorflow_are_named_when_a_plan_is_made():
    def build():
        with tf.device("/job:client"):
            tf.raw_ops.Lgamma(x=tf.compat.v1.placeholder(tf.float32, [2]), name="special")

    with pytest.raises(
        PlanError,
        match=r"'client' computes without TensorFlow, but 'special' is an operation Lgamma.*Compute it before",
    ):
        steps_of(nodes(build), "client")
    assert steps_of(nodes(build), "server0") == []


def test_attributes_with_another_meaning_are_named():
    def build():
        with tf.device("/job:client"):
            x = tf.compat.v1.placeholder(tf.float32, [2, 3, 4, 4])
            tf.raw_ops.BiasAdd(value=x, bias=tf.zeros([3]), data_format="NCHW", name="bias")

    with pytest.raises(PlanError, match=r"'bias' .BiasAdd. is computed with data_format = 'NHWC' alone"):
        steps_of(nodes(build), "client")


def test_texts_are_no_constants():
    def build():
        with tf.device("/job:client"):
            tf.identity(tf.constant(["a"], name="text"))

    with pytest.raises(PlanError, match=r"'text' .Const. has an attribute 'dtype' that is no dtype"):
        steps_of(nodes(build), "client")


def test_keys_make_streams_alone():
    def build():
        with tf.device("/job:client"):
            tf.identity(tf.compat.v1.placeholder(tf.int64, [2], name="a/key.client.server1._1"), name="leak")

    with pytest.raises(PlanError, match=r"A key makes streams and nothing else; 'leak' .Identity. uses 'a/key"):
        steps_of(nodes(build), "client")


def test_assertions_without_our_text():
    def build():
        with tf.device("/job:client"):
            condition = tf.compat.v1.placeholder(tf.bool, [], name="c")
            tf.raw_ops.Assert(condition=condition, data=[condition], name="one")
            tf.raw_ops.Assert(condition=condition, data=[tf.constant("It is false.")], name="two")

    one, two = steps_of(nodes(build), "client")
    assert one["attributes"] == {"message": "The values break a rule of the plan: one."}
    assert two == {"name": "two", "op": "Assert", "inputs": ["c:0"], "attributes": {"message": "It is false."}}


def test_what_is_pinned_to_nobody_is_everybodys():
    def build():
        one = tf.constant(np.arange(3.0), name="one")
        tf.constant(2.0, name="unused")
        with tf.device("/job:client"):
            tf.multiply(one, one, name="square")
        with tf.device("/job:other"):
            tf.abs(one, name="others")

    steps = steps_of(nodes(build), "client")
    assert [step["name"] for step in steps] == ["one", "square"]
    assert base64.b64decode(steps[0]["attributes"]["data"]) == np.arange(3.0).tobytes()
