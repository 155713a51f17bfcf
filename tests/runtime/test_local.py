"""The local runtime: what runs, in which order, and what its memory holds meanwhile."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

import shareflow as sf
from shareflow.runtime.definition import node_name, subgraph
from shareflow.runtime.memory_plan import in_trace_order

X = np.linspace(-2, 2, 24).reshape(4, 6)


def private(value=X, owner="alice"):
    return sf.private_tensor(value, owner=owner)


def definition(build):
    graph = tf.Graph()
    with graph.as_default():
        build()
    return graph.as_graph_def()


def ordered(graph_def):
    """Names in the only order that the control edges and inputs allow."""
    before = {node.name: {node_name(reference) for reference in node.input} for node in graph_def.node}
    order = []
    while len(order) < len(before):
        ready = [name for name, sources in before.items() if name not in order and sources <= set(order)]
        assert ready, "a cycle"
        order += ready
    return order


# --- the order


def test_each_node_waits_for_the_one_traced_before_it():
    def build():
        x = tf.compat.v1.placeholder(tf.int64, [2], name="x")
        tf.identity(x, name="late")
        tf.identity(x, name="later")
        tf.negative(x, name="last")

    graph = in_trace_order(definition(build))
    inputs = {node.name: list(node.input) for node in graph.node}
    assert inputs == {"x": [], "late": ["x"], "later": ["x", "^late"], "last": ["x", "^later"]}


def test_a_node_that_waits_for_a_later_one_makes_no_cycle():
    def build():
        x = tf.compat.v1.placeholder(tf.int64, [2], name="x")
        first = tf.identity(x, name="first")
        second = tf.identity(x, name="second")
        first.op._add_control_input(second.op)

    order = ordered(in_trace_order(definition(build)))
    assert order.index("second") < order.index("first")


def test_a_plan_is_ordered_nowhere_but_in_the_local_copy():
    program = sf.function(lambda x: sf.relu(x).reveal("bob")).trace(private()).program
    before = program.graph.as_graph_def()
    in_trace_order(program.graph.as_graph_def())
    assert program.graph.as_graph_def() == before


# --- the part that is run


def test_a_subgraph_has_what_its_fetches_need_and_nothing_else():
    def build():
        x = tf.compat.v1.placeholder(tf.int64, [2], name="x")
        half = tf.negative(x, name="half")
        with tf.control_dependencies([half]):
            tf.identity(tf.abs(half, name="whole"), name="end")
        tf.identity(x, name="unused")

    graph = definition(build)
    assert [node.name for node in subgraph(graph, ["end"]).node] == ["x", "half", "whole", "end"]
    part = subgraph(graph, ["end"], {"half"})
    # Its value is taken, and no longer waited for.
    assert {node.name: list(node.input) for node in part.node} == {"whole": ["half"], "end": ["whole"]}


def test_a_function_without_results_still_has_its_effects():
    variable = sf.PrivateVariable(private())

    @sf.function
    def double():
        variable.assign(variable.read() * 2)

    assert double() is None
    np.testing.assert_allclose(variable.reveal("bob").numpy(), 2 * X, atol=1e-3)
    double.timed()
    np.testing.assert_allclose(variable.reveal("bob").numpy(), 4 * X, atol=1e-3)


def test_an_argument_may_be_a_result():
    x, y = private(), private(owner="bob")
    same, product, public = sf.function(lambda x, y, z: (x, x * y, z))(x, y, tf.constant(X))
    np.testing.assert_array_equal(same.numpy(), X)
    np.testing.assert_array_equal(public.numpy(), X)
    np.testing.assert_allclose(product.reveal("carol").numpy(), X * X, atol=1e-3)


def test_halves_give_what_the_whole_gives():
    network = sf.function(lambda x, y: sf.relu(x @ y).reveal("carol"))
    x, y = private(), private(X.T, "bob")
    expected = np.maximum(X @ X.T, 0)
    np.testing.assert_allclose(network(x, y).numpy(), expected, atol=1e-3)
    for _ in range(2):
        result, timing = network.timed(x, y)
        np.testing.assert_allclose(result.numpy(), expected, atol=1e-3)
        assert timing.offline > 0 and timing.online > 0


def test_many_nodes_run_as_they_are_and_right(monkeypatch):
    monkeypatch.setattr("shareflow.runtime.local._FEW", 0)
    network = sf.function(lambda x: sf.relu(x).reveal("bob"))
    np.testing.assert_allclose(network(private()).numpy(), np.maximum(X, 0), atol=1e-4)


# --- memory

DEEP = """
import json, sys
import numpy as np
import shareflow as sf

def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmHWM"))

depth = int(sys.argv[1])
x = np.zeros(200_000)

@sf.function
def deep(x):
    for _ in range(depth):
        x = sf.relu(x)
    return x.sum().reveal("bob")

small = sf.private_tensor(np.zeros(2), "alice").shared(sf.SPDZ())
deep(small)
x = sf.private_tensor(x, "alice").shared(sf.SPDZ())
before = peak()
deep(x)
deep(x)
print(json.dumps(peak() - before))
"""


def _held(depth):
    run = subprocess.run([sys.executable, "-c", DEEP, str(depth)], capture_output=True, text=True, check=True)
    return json.loads(run.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self")
def test_memory_does_not_grow_with_depth():
    # The masks of 50 layers and what the dealer makes of them are 1.5 GB together; those of one are 30 MB.
    shallow, deep = _held(2), _held(50)
    assert deep < shallow + 300, (shallow, deep)
