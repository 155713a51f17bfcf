"""Graphs written by hand to be read otherwise than they run: names, devices, shapes, keys, operations, functions."""

import pytest
import tensorflow as tf
from edited import Edited, found, set_attribute

# --- who computes


def test_a_node_of_nobody_that_two_parties_feed():
    plan = Edited()
    a, b = plan.streams("server0", "dealer")[0], plan.streams("server1", "dealer")[0]
    plan.joined("AddV2", "planted/joined", a, b, "")
    assert found(plan, "", "planted/joined", "no party computes it: it uses values of server0 and server1")


def test_a_node_of_nobody_belongs_to_whose_value_it_uses():
    plan = Edited()
    part = plan.feeding(plan.messages("opening", "server0", "server1")[0]).input[0]
    plan.identity("planted/free", part, "")
    plan.identity("planted/other", "planted/free", "server1")
    assert found(plan, "server1", "planted/other", "a value of server0 is used by server1 and was not sent to it")


def test_a_constant_of_nobody_is_everybodys():
    plan = Edited()
    plan.constant("planted/constant", 3)
    for party in ("server0", "server1", "dealer"):
        plan.identity(f"planted/{party}", "planted/constant", party)
    audit = plan.audit()
    assert audit.passed, audit.every_finding()


@pytest.mark.parametrize(
    "device",
    [
        "/job:server1/job:server0",
        "/job:server0/replica:0/task:0",
        "/job:server0/device:CPU:0",
        "/device:CPU:0",
        "job:server0",
        "/job:server0 ",
        "/job:",
        "/Job:server0",
    ],
)
def test_devices_that_may_be_read_in_two_ways(device):
    plan = Edited()
    plan.constant("planted/constant", 3)
    plan.nodes["planted/constant"].device = device
    findings = plan.findings()
    assert any("planted/constant" in where and "device" in why for _, where, why in findings) or any(
        "TensorFlow makes no graph of it" in why for _, _, why in findings
    )


def test_a_value_used_without_being_sent():
    plan = Edited()
    part = plan.feeding(plan.messages("opening", "server0", "server1")[0]).input[0]
    plan.identity("planted/taken", part, "server1")
    assert found(plan, "server1", "planted/taken", "was not sent to it")


def test_a_message_used_by_a_third_party():
    plan = Edited()
    opening = plan.messages("opening", "server0", "server1")[0]
    plan.identity("planted/taken", opening, "dealer")
    assert found(plan, "dealer", "planted/taken", "was not sent to it")


def test_waiting_for_another_partys_node():
    plan = Edited()
    own = plan.streams("server0", "dealer")[0]
    plan.nodes[own].input.append("^" + plan.streams("server1", "dealer")[0])
    assert found(plan, "server0", own, "it waits for")


def test_a_placement_beside_another_partys_node():
    plan = Edited()
    other = plan.streams("server1", "dealer")[0]
    name = plan.constant("planted/constant", 3, "server0")
    plan.nodes[name].attr["_class"].list.s.append(b"loc:@" + other.encode())
    assert any("placed with" in why or "no graph of it" in why for _, _, why in plan.findings())


# --- names


def test_a_message_by_name_that_is_no_identity():
    plan = Edited()
    opening = plan.messages("opening", "server0", "server1")[0]
    set_attribute(plan.nodes[opening], "T", tf.int64)
    plan.nodes[opening].op = "Neg"
    assert found(plan, "server1", opening, "a message is sent by Identity; this is Neg")


@pytest.mark.parametrize(
    "name", ["send.gift.server0.server1.", "send.opening.server0.", "x/send.opening.a.b.more", "send.opening"]
)
def test_a_name_that_is_almost_a_messages(name):
    plan = Edited()
    plan.constant(name, 3, "server0")
    assert found(plan, "", name, "its name is a message's")


def test_a_message_pinned_to_another_than_its_sender():
    plan = Edited()
    opening = plan.messages("opening", "server0", "server1")[0]
    plan.nodes[opening].device = "/job:server1"
    assert found(plan, "server1", opening, "its name says server0 sends it, and it is pinned to /job:server1")


def test_a_message_to_its_sender():
    plan = Edited()
    stream = plan.streams("server0", "dealer")[0]
    sent = plan.send("opening", "server0", "server0", stream)
    assert found(plan, "server0", sent, "this one to its sender")


def test_a_message_of_unknown_shape():
    plan = Edited()
    stream = plan.streams("server0", "dealer")[0]
    flat = plan.add("Where", "planted/where", [stream], "server0", T=tf.int64)
    sent = plan.send("opening", "server0", "server1", flat)
    assert found(plan, "server1", sent, "a shape that is known beforehand")


def test_a_message_that_is_no_number():
    plan = Edited()
    plan.constant("planted/text", b"weights", "server0", tf.string)
    sent = plan.send("opening", "server0", "server1", "planted/text", dtype=tf.string)
    assert found(plan, "server1", sent, "a message is made of numbers")


def test_two_nodes_of_one_name():
    plan = Edited()
    plan.constant("planted/constant", 1)
    plan.definition.node.add().CopyFrom(plan.nodes["planted/constant"])
    assert found(plan, "", "planted/constant", "two nodes have this name")


def test_a_cycle():
    plan = Edited()
    one = plan.joined("AddV2", "planted/one", "planted/other", "planted/other", "server0")
    plan.identity("planted/other", one, "server0")
    assert any("it stands on a cycle" in why for _, _, why in plan.findings())


def test_an_input_that_is_not_there():
    plan = Edited()
    plan.identity("planted/lost", "nowhere", "server0")
    assert found(plan, "", "planted/lost", "is no node of the graph")


def test_a_definition_that_tensorflow_refuses():
    plan = Edited()
    plan.joined("AddV2", "planted/sum", plan.constant("planted/a", [1, 2]), plan.constant("planted/b", [1, 2, 3]), "")
    assert found(plan, "", "the graph", "TensorFlow makes no graph of it")


def test_an_operation_that_there_is_not():
    plan = Edited()
    plan.add("ShareflowGift", "planted/gift", [], "server0")
    assert found(plan, "", "ShareflowGift", "this program has no operation ShareflowGift")


# --- keys and streams


def test_a_key_sent_as_data():
    plan = Edited()
    sent = plan.send("opening", "server0", "server1", plan.key("server0", "dealer"))
    assert found(plan, "server0", sent, "is used for something other than a stream")


def test_a_key_that_is_computed_with():
    plan = Edited()
    key = plan.key("server0", "dealer")
    plan.joined("AddV2", "planted/more", key, key, "server0")
    assert found(plan, "server0", "planted/more", "is used for something other than a stream")


def test_an_execution_index_that_is_computed_with():
    plan = Edited()
    index = plan.execution("server0")
    plan.joined("AddV2", "planted/more", index, index, "server0")
    assert found(plan, "server0", "planted/more", "the execution index")


def test_a_stream_of_a_key_that_is_not_given():
    plan = Edited()
    own = plan.constant("planted/key", [1, 2], "server0")
    plan.stream("server0", "dealer", 90, [2], "planted/stream", key=own)
    assert found(plan, "server0", "planted/stream", "is none that this execution gives")


def test_a_stream_of_a_key_that_was_moved():
    plan = Edited()
    moved = plan.identity("planted/key", plan.key("server0", "dealer"), "server0")
    plan.stream("server0", "dealer", 90, [2], "planted/stream", key=moved)
    assert found(plan, "server0", "planted/stream", "is none that this execution gives")


def test_a_stream_of_another_execution():
    plan = Edited()
    own = plan.constant("planted/index", 1, "server0")
    plan.stream("server0", "dealer", 90, [2], "planted/stream", execution=own)
    assert found(plan, "server0", "planted/stream", "is not the index that this execution gives")


def test_a_stream_of_another_partys_execution_index():
    plan = Edited()
    plan.stream("server0", "dealer", 90, [2], "planted/stream", execution=plan.execution("server1"))
    assert found(plan, "server0", "planted/stream", "all three are one party")


def test_a_stream_of_another_partys_key():
    plan = Edited()
    plan.stream("server0", "dealer", 90, [2], "planted/stream", key=plan.key("server1", "dealer"))
    assert found(plan, "server0", "planted/stream", "all three are one party")


def test_a_stream_number_that_is_computed():
    plan = Edited()
    made = plan.stream("server0", "dealer", 90, [2], "planted/stream")
    number = plan.nodes[made].input[2]
    plan.nodes[made].input[2] = plan.joined("AddV2", "planted/number", number, number, "server0")
    assert found(plan, "server0", "planted/stream", "is no constant")


@pytest.mark.parametrize("number", [-1, 2**31, 2**32, 2**63 - 1])
def test_a_stream_number_that_runs_into_another(number):
    plan = Edited()
    plan.stream("server0", "dealer", number, [2], "planted/stream")
    assert found(plan, "server0", "planted/stream", "a stream's number is from 0 to 2^31 - 2")


def test_one_stream_in_two_shapes():
    plan = Edited()
    plan.stream("server0", "dealer", 90, [2], "planted/short")
    plan.stream("server0", "dealer", 90, [4], "planted/long")
    assert any("stream 90 of dealer and server0 is made in two shapes" in why for _, _, why in plan.findings())


def test_a_key_at_another_than_its_holder():
    plan = Edited()
    key = plan.key("server0", "dealer")
    plan.nodes[key].device = "/job:server1"
    assert found(plan, "server1", key, "its name says that server0 holds it, and it is pinned to server1")


def test_a_key_under_another_name():
    plan = Edited()
    plan.add("Placeholder", "planted/key.server0.dealer.", [], "server0", dtype=tf.int64, shape=tf.TensorShape([2]))
    assert found(plan, "server0", "planted/key.server0.dealer.", "no declared input or state, no key")
    stream = plan.stream("server0", "dealer", 90, [2], "planted/stream", key="planted/key.server0.dealer.")
    assert found(plan, "server0", stream, "is none that this execution gives")


def test_a_key_of_a_stranger():
    plan = Edited()
    plan.add("Placeholder", "key.server0.eve.", [], "server0", dtype=tf.int64, shape=tf.TensorShape([2]))
    assert found(plan, "server0", "key.server0.eve.", "there is no party eve")


def test_a_key_that_is_a_constant():
    plan = Edited()
    plan.constant("key.server0.owner.", [1, 2], "server0")
    assert found(plan, "server0", "key.server0.owner.", "its name is that of a key or execution index")


def test_a_key_that_an_owner_gives():
    plan = Edited()
    key = plan.key("client", "server1")
    declared = {"name": "seen", "party": "client", "shape": [2], "dtype": "int64", "tensor": f"{key}:0"}
    plan.info["inputs"].append(declared)
    assert found(plan, "client", key, "it is a key or execution index, and declared as seen of client")


def test_an_input_that_is_declared_twice():
    plan = Edited()
    plan.info["inputs"].append({**plan.info["inputs"][0], "name": "y"})
    assert found(plan, "client", plan.info["inputs"][0]["tensor"], "it is declared twice")


def test_a_key_that_is_kept():
    plan = Edited()
    key = plan.key("server0", "dealer")
    component = {"party": "server0", "shape": [2], "dtype": "int64"}
    plan.manifest["states"]["k"] = {"share": "Masked", "fractional_bits": 0, "shape": [2], "components": [component]}
    plan.manifest["entries"]["predict"]["keeps"] = ["k"]
    plan.info["state_out"].append({"state": "k", "component": 0, "party": "server0", "tensor": f"{key}:0"})
    assert found(plan, "server0", f"{key}:0", "a key or execution index leaves the graph")


# --- shapes


def test_a_shape_that_is_claimed_falsely():
    plan = Edited()
    native = next(n for n in plan.definition.node if n.op == "ShareflowMatmul")
    claim = native.attr["_output_shapes"].list.shape
    del claim[:]
    claim.add().CopyFrom(tf.TensorShape([1, 1]).as_proto())
    findings = plan.findings()
    assert any("is not what ShareflowMatmul gives" in why or "no graph of it" in why for _, _, why in findings)


def test_a_claimed_shape_does_not_make_a_short_stream_a_pad():
    # The value has as many elements as its party likes; it claims to have one.
    plan = Edited()
    part = plan.feeding(plan.messages("opening", "server0", "server1")[0]).input[0]
    rows = plan.add("Where", "planted/where", [part], "server0", T=tf.int64)
    plan.nodes[rows].attr["_output_shapes"].list.shape.add().CopyFrom(tf.TensorShape([1, 2]).as_proto())
    stream = plan.stream("server0", "dealer", 90, [1, 2], "planted/stream")
    hidden = plan.joined("Sub", "planted/hidden", rows, stream, "server0")
    sent = plan.send("opening", "server0", "server1", hidden)
    assert found(plan, "server1", sent, "hidden under no stream")


def test_an_input_of_another_shape_than_declared():
    plan = Edited()
    plan.info["inputs"][0]["shape"] = [2, 4]
    assert found(plan, "client", plan.info["inputs"][0]["tensor"], "is declared as float32[2, 4]")


# --- what comes in and what leaves


def test_a_value_from_outside_that_nobody_declared():
    plan = Edited()
    plan.add("Placeholder", "planted/outside", [], "server0", dtype=tf.int64, shape=tf.TensorShape([2]))
    assert found(plan, "server0", "planted/outside", "no declared input or state, no key and no execution index")


def test_an_input_pinned_to_another_than_its_owner():
    plan = Edited()
    name = plan.info["inputs"][0]["tensor"].partition(":")[0]
    plan.nodes[name].device = "/job:server0"
    assert found(plan, "server0", name, "it is declared to be given by client and is pinned to server0")


def test_a_state_pinned_to_another_than_its_keeper():
    plan = Edited()
    state = plan.info["state_in"][0]
    name = state["tensor"].partition(":")[0]
    plan.nodes[name].device = "/job:server1"
    assert state["party"] == "server0"
    assert found(plan, "server1", name, "it is declared to be given by server0 and is pinned to server1")


def test_a_state_kept_by_another_than_computes_it():
    plan = Edited("load")
    one = next(s for s in plan.info["state_out"] if (s["state"], s["component"]) == ("w1", 0))
    other = next(s for s in plan.info["state_out"] if (s["state"], s["component"]) == ("w1", 1))
    one["tensor"], other["tensor"] = other["tensor"], one["tensor"]
    assert found(plan, "server0", one["tensor"], "it is declared to be server0's, and server1 computes it")


def test_a_result_that_is_not_there():
    plan = Edited("load")
    plan.info["state_out"][0]["tensor"] = "nowhere:0"
    assert found(plan, "server0", "nowhere:0", "the graph has no such tensor")


# --- operations


@pytest.mark.parametrize(
    ("op", "inputs", "attributes"),
    [
        ("WriteFile", ["text", "text"], {}),
        ("ReadFile", ["text"], {}),
        ("PrintV2", ["text"], {"output_stream": b"stderr", "end": b""}),
        ("RandomUniform", ["shape"], {"T": tf.int64, "dtype": tf.float32}),
        ("VarHandleOp", [], {"dtype": tf.int64, "shape": tf.TensorShape([2]), "shared_name": b"shared"}),
        ("TensorArrayV3", ["scalar"], {"dtype": tf.int64}),
        ("FIFOQueueV2", [], {"shared_name": b"queue"}),
        ("CollectiveBcastRecv", [], {"T": tf.int64, "group_size": 2, "group_key": 1, "instance_key": 1}),
        ("PlaceholderWithDefault", ["scalar"], {"dtype": tf.int32, "shape": tf.TensorShape([])}),
        ("DebugIdentity", ["scalar"], {"T": tf.int32}),
    ],
)
def test_operations_that_do_more_than_compute_a_value(op, inputs, attributes):
    plan = Edited()
    plan.constant("planted/text", b"/tmp/x", "server0", tf.string)
    plan.constant("planted/shape", [2], "server0")
    plan.constant("planted/scalar", 1, "server0", tf.int32)
    plan.add(op, "planted/op", [f"planted/{name}" for name in inputs], "server0", **attributes)
    if op == "CollectiveBcastRecv":
        set_attribute(plan.nodes["planted/op"], "shape", tf.TensorShape([2]))
    if op == "FIFOQueueV2":
        plan.nodes["planted/op"].attr["component_types"].list.type.append(tf.int64.as_datatype_enum)
    assert found(plan, "server0", "planted/op", f"the operation {op} is not on the list")


def test_tensorflows_own_sending():
    plan = Edited()
    plan.constant("planted/scalar", 1, "server0", tf.int32)
    plan.add("_HostSend", "planted/op", ["planted/scalar"], "server0", T=tf.int32, tensor_name=b"x", send_device=b"a")
    plan.nodes["planted/op"].attr["recv_device"].s = b"b"
    plan.nodes["planted/op"].attr["send_device_incarnation"].i = 1
    findings = plan.findings()
    assert any("_HostSend" in why or "no graph of it" in why for _, _, why in findings)


def test_a_python_function():
    plan = Edited()
    plan.constant("planted/scalar", 1, "server0", tf.int32)
    plan.add("PyFunc", "planted/op", ["planted/scalar"], "server0", token=b"pyfunc_0")
    plan.nodes["planted/op"].attr["Tin"].list.type.append(tf.int32.as_datatype_enum)
    plan.nodes["planted/op"].attr["Tout"].list.type.append(tf.int32.as_datatype_enum)
    assert found(plan, "server0", "planted/op", "the operation PyFunc is not on the list")


def test_a_check_of_what_a_server_sees():
    plan = Edited()
    stream = plan.streams("server0", "dealer")[0]
    zero = plan.constant("planted/zero", 0, "server0")
    flag = plan.add("Less", "planted/less", [stream, zero], "server0", T=tf.int64)
    axes = plan.constant("planted/axes", [0, 1], "server0", tf.int32)
    every = plan.add("All", "planted/all", [flag, axes], "server0", Tidx=tf.int32)
    plan.add("Assert", "planted/check", [every, plan.constant("planted/text", b"!", "server0", tf.string)], "server0")
    plan.nodes["planted/check"].attr["T"].list.type.append(tf.string.as_datatype_enum)
    assert found(plan, "server0", "planted/check", "a check depends on a stream")


def test_the_checks_of_inputs_are_told():
    (load, predict) = Edited().audit().graphs
    assert {party for party, _ in load.audit.checks} == {"owner"}
    assert {party for party, _ in predict.audit.checks} == {"client"}


def test_an_attribute_that_steers():
    plan = Edited()
    name = plan.constant("planted/constant", 3, "server0")
    plan.nodes[name].attr["_kernel"].s = b"other"
    assert found(plan, "server0", name, "the attribute _kernel can steer")


# --- functions


def calling(plan, body, party="server0"):
    """Adds a call of a function of one int64 matrix at a party, and the function."""
    graph = tf.Graph()
    with graph.as_default():
        value = tf.compat.v1.placeholder(tf.int64, [2, 3])
        tf.function(body, autograph=False)(value)
    library = graph.as_graph_def().library
    plan.definition.library.CopyFrom(library)
    call = next(n for n in graph.as_graph_def().node if n.op.endswith("PartitionedCall"))
    plan.add(call.op, "planted/call", [plan.streams(party, "dealer")[0]], party)
    for key, value in call.attr.items():
        plan.nodes["planted/call"].attr[key].CopyFrom(value)


def test_a_function_that_only_computes_is_allowed():
    plan = Edited()
    calling(plan, lambda x: tf.while_loop(lambda y: tf.reduce_sum(y) < 10, lambda y: (y + 1,), (x,))[0])
    audit = plan.audit()
    assert audit.passed, audit.every_finding()


def test_a_function_that_writes():
    plan = Edited()
    calling(plan, lambda x: (tf.io.write_file("/tmp/x", "y"), x + 1)[1])
    assert any("function" in where and "WriteFile" in why for _, where, why in plan.findings())


def test_a_loop_in_a_function_that_draws():
    plan = Edited()

    def body(x):
        return tf.while_loop(
            lambda y: tf.reduce_sum(y) < 10, lambda y: (y + tf.random.uniform([2, 3], 0, 9, tf.int64),), (x,)
        )[0]

    calling(plan, body)
    assert any("function" in where and "Random" in why for _, where, why in plan.findings())


def test_a_function_pinned_elsewhere():
    plan = Edited()

    def body(x):
        with tf.device("/job:server1"):
            return x + 1

    calling(plan, body)
    assert found(plan, "server0", "planted/call", "what it calls is pinned to '/job:server1'")


def test_a_function_that_another_can_replace():
    plan = Edited()
    calling(plan, lambda x: x + 1)
    plan.definition.library.function[0].attr["api_implements"].s = b"x"
    assert any("api_implements" in why for _, _, why in plan.findings())


def test_a_function_that_is_not_there():
    plan = Edited()
    calling(plan, lambda x: x + 1)
    del plan.definition.library.function[:]
    assert any("does not hold" in why or "no graph of it" in why for _, _, why in plan.findings())


def hidden_call(plan, body):
    """A message of what a function gives, under a stream as large as that seems to be."""
    calling(plan, body)
    stream = plan.stream("server0", "dealer", 90, [2, 3], "planted/stream")
    hidden = plan.joined("Sub", "planted/hidden", "planted/call", stream, "server0")
    return plan.send("opening", "server0", "server1", hidden)


def test_a_loop_that_grows_its_value_and_says_it_does_not():
    plan = Edited()

    def body(x):
        grown = tf.while_loop(
            lambda y: tf.shape(y)[0] < 100,
            lambda y: (tf.concat([y, y], 0),),
            (x,),
            shape_invariants=(tf.TensorShape([None, 3]),),
        )[0]
        return tf.ensure_shape(grown, [None, 3])

    sent = hidden_call(plan, body)
    for function in plan.definition.library.function:
        for node in function.node_def:
            if node.op == "StatelessWhile":
                del node.attr["output_shapes"]
    plan.nodes["planted/call"].attr["_output_shapes"].list.shape.add().CopyFrom(tf.TensorShape([2, 3]).as_proto())
    assert found(plan, "server1", sent, "hidden under no stream")


def test_what_a_function_gives_has_a_shape_when_it_was_ensured():
    plan = Edited()
    calling(plan, lambda x: x + 1)
    plan.add("EnsureShape", "planted/ensured", ["planted/call"], "server0", T=tf.int64, shape=tf.TensorShape([2, 3]))
    stream = plan.stream("server0", "dealer", 90, [2, 3], "planted/stream")
    hidden = plan.joined("Sub", "planted/hidden", "planted/ensured", stream, "server0")
    plan.send("opening", "server0", "server1", hidden)
    audit = plan.audit()
    assert audit.passed, audit.every_finding()


def test_what_a_function_gives_has_no_shape_otherwise():
    plan = Edited()
    assert found(plan, "server1", hidden_call(plan, lambda x: x + 1), "hidden under no stream")


# --- the parts of parties outside


def test_steps_of_a_client_that_are_not_the_graphs():
    plan = Edited()
    steps = plan.info["external"]["client"]["steps"]
    subtraction = next(step for step in steps if step["op"] == "Sub")
    subtraction["op"] = "AddV2"
    assert found(plan, "client", "predict: external.client", f"its steps are not the graph's: {subtraction['name']}")


def test_a_step_left_out():
    plan = Edited()
    steps = plan.info["external"]["client"]["steps"]
    (check,) = [step for step in steps if step["op"] == "Assert"]
    for step in steps:
        step["inputs"] = [name for name in step["inputs"] if name != f"^{check['name']}"]
    steps.remove(check)
    assert any("its steps are not the graph's" in why for _, _, why in plan.findings())


def test_a_client_that_is_to_send_another_tensor():
    plan = Edited()
    (sent,) = plan.info["external"]["client"]["sends"]
    sent["tensor"] = plan.nodes[sent["tensor"].partition(":")[0]].input[0].partition(":")[0] + ":0"
    assert any("what it sends is not what it sends in the graph" in why for _, _, why in plan.findings())


# --- the manifest


def test_a_protocol_that_the_audit_does_not_know():
    plan = Edited()
    plan.manifest["protocol"]["name"] = "Plain"
    assert found(plan, "", "protocol", "the audit proves SPDZ")


def test_a_graph_that_is_missing():
    plan = Edited()
    del plan.definitions["load"]
    assert found(plan, "", "load", "the plan has none of that name")


def test_a_graph_that_says_it_is_old():
    plan = Edited()
    plan.definition.versions.producer = 12
    assert found(plan, "", "the graph", "it says it is of version 12")


def test_the_audit_changes_no_graph():
    plan = Edited()
    before = plan.definition.SerializeToString(deterministic=True)
    plan.audit()
    assert plan.definition.SerializeToString(deterministic=True) == before
