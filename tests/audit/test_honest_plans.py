"""Plans of honest programs pass as they come from a file: every operation's shapes, streams and messages."""

import keras
import pytest
import tensorflow as tf

import shareflow as sf
from shareflow import nn
from shareflow.audit.shapes import claims_falsely
from shareflow.compiler.compile_model import compile_model
from shareflow.plan_audit import audited
from shareflow.planning import Entry, Input, plan
from shareflow.ring import kernels
from shareflow.runtime.plan import Plan

PROGRAMS = {
    "square": lambda x, w: (x @ w) ** 2,
    "comparison": lambda x, w: (x @ w) > 0.5,
    "logic": lambda x, w: ((x @ w) > 0.5) & ((x @ w) < 2),
    "argmax": lambda x, w: nn.argmax(x @ w),
    "sort": lambda x, w: nn.sort(x @ w),
    "floor": lambda x, w: nn.floor(x @ w),
    "divide": lambda x, w: nn.divide(x @ w, w[:1] + 2),
    "softmax": lambda x, w: nn.softmax(x @ w),
    "layer norm": lambda x, w: nn.layer_norm(x @ w),
    "transposed": lambda x, w: sf.relu((x @ w).T),
}


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("protocol", [sf.SPDZ(), sf.SPDZ(truncation=sf.Optimistic())], ids=["exact", "optimistic"])
def test_a_program_of_two_owners(name, protocol, tmp_path):
    inputs = {"x": Input("alice", (3, 2)), "w": Input("bob", (2, 2))}
    made = plan({"run": Entry(lambda x, w: PROGRAMS[name](x, w).reveal("carol"), inputs)}, protocol)
    made.write(tmp_path / "run.plan")
    audit = audited(Plan.read(tmp_path / "run.plan"))
    assert audit.passed, audit.every_finding()[:5]
    (graph,) = audit.graphs
    assert graph.results[0].depends_on == ("x of alice", "w of bob")
    assert {party for party, _ in graph.audit.checks} == {"alice", "bob"}


def test_a_model_with_every_kind_of_product():
    model = keras.Sequential(
        [
            keras.Input((9, 9, 2)),
            keras.layers.Conv2D(4, 3, strides=2, padding="same", activation="relu"),
            keras.layers.DepthwiseConv2D(3, dilation_rate=2, depth_multiplier=2, padding="same"),
            keras.layers.BatchNormalization(),
            keras.layers.Conv2D(4, (1, 2), groups=2, activation="relu"),
            keras.layers.MaxPooling2D(2),
            keras.layers.Flatten(),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    made = compile_model(model, owner="owner", client="client", batch_sizes=(1, 3))
    audit = audited(made)
    assert audit.passed, audit.every_finding()[:5]
    by_name = {graph.name: graph for graph in audit.graphs}
    assert set(by_name) == {"load", "predict@1", "predict@3"}
    # That rows of different clients are apart is not proved, and said where it matters.
    assert not by_name["predict@1"].audit.assumed and by_name["predict@3"].audit.assumed
    assert any("rows of one batch" in text for text in audit.assumed)
    # What the servers keep comes from the owner alone.
    assert all(of.endswith(" of owner") for inputs in audit.states().values() for of in inputs)


def native_nodes():
    """One of each native operation, with attributes that matter, as TensorFlow has it in a graph."""
    graph = tf.Graph()
    with graph.as_default():

        def words(*shape):
            return tf.compat.v1.placeholder(tf.int64, shape)

        kernels.matmul(words(5, 2, 3), words(1, 4, 3), transpose_b=True)
        kernels.matmul(words(3, 2), words(3, 4), transpose_a=True)
        kernels.conv2d(words(2, 9, 8, 4), words(3, 2, 2, 6), strides=(2, 1), padding=((1, 0), (0, 2)), groups=2)
        kernels.depthwise_conv2d(words(2, 9, 8, 4), words(3, 2, 4, 3), dilations=(2, 3))
        kernels.uniform(words(2), words(), words(), (3, 5))
        kernels.bit_planes(words(3, 50))
        kernels.from_bit_planes(words(64, 3), (3, 50))
        kernels.pack_bits(words(3, 50))
        kernels.unpack_bits(words(3), (3, 50))
        kernels.group_products(words(130), bits=63, group=4, groups=16)
        kernels.group_polynomials(words(130), words(15, 16, 3), bits=63, group=4, groups=16, leader=True)
        for radix, last in ((4, False), (4, True), (2, True), (3, False)):
            products = kernels.gate_product_count(radix, last)
            kernels.gate_products(words(2, 2 * radix, 3), radix=radix, last=last)
            masks = words(2, 2 * radix, 3), words(2, 2 * radix, 3)
            kernels.gate(*masks, words(products, 2, 3), radix=radix, last=last, leader=False)
        kernels.shift_left(words(3, 4), 5)
        kernels.truncate_opened(words(3, 4), words(3, 4), words(3, 4), shift=5, leader=True)
    return [operation for operation in graph.get_operations() if operation.type.startswith("Shareflow")]


@pytest.mark.parametrize("operation", native_nodes(), ids=lambda operation: operation.name)
def test_shapes_of_native_operations_are_those_of_their_kernels(operation):
    inputs = [tuple(tensor.shape) for tensor in operation.inputs]
    shape = tuple(operation.outputs[0].shape)
    attributes = operation.node_def.attr
    assert not claims_falsely(operation.type, attributes, inputs, shape)
    assert claims_falsely(operation.type, attributes, inputs, (*shape[:-1], shape[-1] + 1))
    assert claims_falsely(operation.type, attributes, [None for _ in inputs], shape) is (
        "shape" not in attributes  # given by the attribute alone
    )
