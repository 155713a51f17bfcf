"""Leaks planted in an honest plan's graphs: each is found, with the party, the node and the reason."""

import json

import pytest
import tensorflow as tf
from edited import Edited, found, network

from shareflow.errors import PlanError


def test_the_honest_plan_passes():
    audit = Edited().audit()
    assert audit.passed, audit.every_finding()
    assert not audit.assumed
    audit.require()
    predict = {graph.name: graph for graph in audit.graphs}["predict"]
    views = {view.party: view for view in predict.audit.views}
    # Only servers and the client are sent anything; every message to a server is proved to say nothing.
    assert set(views) == {"client", "server0", "server1"}
    counted = [message.to for message in predict.cost.messages]
    for server in ("server0", "server1"):
        assert len(views[server].removed) == counted.count(server) > 0
        assert not views[server].learned
    (result,) = predict.results
    assert (result.name, result.party, result.shape) == ("result", "client", (2, 2))
    assert result.depends_on == ("x of client", "state w1", "state w2")
    assert set(result.messages) == set(views["client"].learned) and len(result.messages) == 2


def test_an_edit_that_changes_nothing_is_no_finding():
    plan = Edited()
    nodes = list(plan.definition.node)
    del plan.definition.node[:]
    plan.definition.node.extend(reversed(nodes))
    for graph in plan.audit().graphs:
        assert not [f for f in graph.audit.findings if "steps" not in f.why], graph.audit.findings


# --- masks


def test_an_unmasked_send():
    plan = Edited()
    opening = plan.messages("opening", "server0", "server1")[1]
    masked = plan.feeding(opening)
    plan.nodes[opening].input[0] = masked.input[0]
    assert found(plan, "server1", opening, "hidden under no stream")
    finding = next(f for _, f in plan.audit().every_finding() if f.where == opening)
    # Reported with its path: from what is secret to the message.
    assert finding.path[-1] == opening and plan.nodes[finding.path[0]].op == "Placeholder"
    for one, after in zip(finding.path, finding.path[1:], strict=False):
        assert one in {name.partition(":")[0] for name in plan.nodes[after].input}


def test_a_mask_used_twice():
    plan = Edited()
    first, second = plan.messages("opening", "server0", "server1")[:2]
    # The second opening takes the first one's masks, at the server and at the dealer.
    shapes = {}
    for name in plan.streams("server0", "dealer"):
        shapes.setdefault(tuple(plan.nodes[name].attr["shape"].list.i), []).append(name)
    mask = plan.feeding(second).input[1]
    again = plan.feeding(first).input[1]
    number = plan.nodes[again].input[2]
    plan.nodes[mask].input[2] = number
    plan.nodes[mask].attr["shape"].CopyFrom(plan.nodes[again].attr["shape"])
    assert any("made in two shapes" in why or "another message too" in why for _, _, why in plan.findings())


def test_the_same_stream_hides_two_values():
    plan = Edited()
    opening = plan.messages("opening", "server0", "server1")[0]
    masked = plan.feeding(opening)
    value, mask = masked.input
    other = plan.joined("AddV2", "planted/twice", value, value, "server0")
    hidden = plan.joined("Sub", "planted/hidden", other, mask, "server0")
    sent = plan.send("opening", "server0", "server1", hidden)
    assert found(plan, "server1", opening, "reaches the receiver by another message too")
    assert found(plan, "server1", sent, "reaches the receiver by another message too")


def test_a_mask_that_is_in_the_value_that_it_hides():
    # (x + r) - r is x: the pad reaches the receiver by one message only, and hides nothing.
    plan = Edited()
    opening = plan.messages("opening", "server0", "server1")[0]
    masked = plan.feeding(opening)
    value, mask = masked.input
    masked.input[0] = plan.joined("AddV2", "planted/undone", value, mask, "server0")
    assert found(plan, "server1", opening, "is in the value that it hides too")


def test_a_mask_that_the_other_holder_puts_into_the_value():
    plan = Edited()
    opening = plan.messages("opening", "server0", "server1")[-1]
    masked = plan.feeding(opening)
    server, mask = masked.input[0], masked.input[1]
    number = plan.nodes[mask].input[2]
    value = next(t.int64_val[0] for t in [plan.nodes[number].attr["value"].tensor])
    shape = list(plan.nodes[mask].attr["shape"].list.i)
    at_dealer = plan.stream("dealer", "server0", value, shape, "planted/stream")
    pad = plan.stream("dealer", "server1", 77, shape, "planted/pad")
    correction = plan.joined("Sub", "planted/correction", at_dealer, pad, "dealer")
    sent = plan.send("correction", "dealer", "server0", correction)
    masked.input[0] = plan.joined("AddV2", "planted/undone", server, sent, "server0")
    assert found(plan, "server1", opening, "is in the value that it hides too")


def test_both_shares_to_one_party():
    plan = Edited("load")
    opening = plan.messages("opening", "server1", "server0")[0]
    plan.nodes[opening].input[0] = plan.feeding(opening).input[0]
    assert found(plan, "server0", opening, "it is hidden under no stream: the receiver sees the value")


def test_a_stream_whose_key_the_receiver_holds():
    plan = Edited()
    opening = plan.messages("opening", "server0", "server1")[0]
    masked = plan.feeding(opening)
    shape = list(plan.nodes[masked.input[1]].attr["shape"].list.i)
    masked.input[1] = plan.stream("server0", "server1", 99, shape, "planted/stream")
    assert found(plan, "server1", opening, "whose key the receiver holds")


def test_a_stream_that_is_repeated_over_its_value():
    plan = Edited()
    opening = plan.messages("opening", "server0", "server1")[0]
    masked = plan.feeding(opening)
    masked.input[1] = plan.stream("server0", "dealer", 99, [1, 1], "planted/stream")
    assert found(plan, "server1", opening, "hidden under no stream")


@pytest.mark.parametrize("operation", ["Mul", "Maximum", "BitwiseAnd", "BitwiseOr"])
def test_a_stream_that_does_not_pad(operation):
    plan = Edited()
    opening = plan.messages("opening", "server0", "server1")[0]
    plan.feeding(opening).op = operation
    assert found(plan, "server1", opening, "hidden under no stream")


def test_a_correction_sent_in_clear():
    plan = Edited()
    correction = plan.messages("correction")[0]
    receiver = correction.rstrip("_0123456789").rstrip(".").rpartition(".")[2]
    plan.nodes[correction].input[0] = plan.feeding(correction).input[0]
    assert any(p == receiver and w == correction for p, w, _ in plan.findings())


def test_the_dealers_mask_sent_to_a_server():
    plan = Edited()
    opening = plan.messages("opening", "server0", "server1")[0]
    mask = plan.nodes[plan.feeding(opening).input[1]]
    number = plan.nodes[mask.input[2]].attr["value"].tensor.int64_val
    shape = list(mask.attr["shape"].list.i)
    whole = plan.stream("dealer", "server0", number[0] if number else 0, shape, "planted/mask")
    sent = plan.send("correction", "dealer", "server1", whole)
    assert found(plan, "server1", sent, "hidden under no stream")
    assert found(plan, "server1", opening, "reaches the receiver by another message too")


# --- results


def test_a_result_to_the_wrong_receiver():
    plan = Edited()
    first = plan.messages("result")[0]
    plan.send("result", "server0", "owner", plan.nodes[first].input[0])
    assert found(plan, "owner", "planted/send.result.server0.owner.", "no receiver of this program")


def test_a_result_to_a_server():
    plan = Edited()
    plan.manifest["receivers"]["predict"].append("server1")
    value = plan.feeding(plan.messages("result", "server0")[0]).input[0]
    sent = plan.send("result", "server0", "server1", value)
    assert found(plan, "server1", sent, "no receiver of this program")
    assert found(plan, "server1", "entry predict", "a party that computes receives results")


def test_a_result_that_nobody_declared():
    # Both shares of a weight, sent as honestly as a result is.
    plan = Edited()
    parts = [state["tensor"] for state in plan.info["state_in"] if state["state"] == "w2"]
    zero0 = plan.stream("server0", "server1", 99, [4, 2], "planted/zero0")
    zero1 = plan.stream("server1", "server0", 99, [4, 2], "planted/zero1")
    hidden0 = plan.joined("AddV2", "planted/hidden0", parts[0], zero0, "server0")
    hidden1 = plan.joined("Sub", "planted/hidden1", parts[3], zero1, "server1")
    sent0 = plan.send("result", "server0", "client", hidden0, "planted0")
    sent1 = plan.send("result", "server1", "client", hidden1, "planted1")
    del plan.definition.node[-3], plan.definition.node[-1]
    plan.joined("AddV2", "planted/weights", sent0, sent1, "client")
    assert found(plan, "client", sent0, "leads to no declared result")
    assert found(plan, "client", sent1, "leads to no declared result")


def test_a_part_that_is_sent_as_a_result():
    plan = Edited()
    first = plan.messages("result", "server0")[0]
    plan.nodes[first].input[0] = plan.feeding(first).input[0]
    assert found(plan, "client", first, "not of that form")


def test_a_results_zero_share_that_is_used_again():
    plan = Edited()
    first = plan.messages("result", "server0")[0]
    zero = plan.feeding(first).input[1]
    plan.identity("planted/kept", zero, "server0")
    assert found(plan, "client", first, "not of that form")


def test_the_same_sign_twice():
    plan = Edited()
    second = plan.messages("result", "server1")[0]
    plan.feeding(second).op = "AddV2"
    assert found(plan, "client", second, "not of that form")


def test_a_message_of_a_result_that_is_used_by_itself():
    plan = Edited()
    first = plan.messages("result", "server0")[0]
    plan.identity("planted/part", first, "client")
    assert found(plan, "client", first, "not of that form")


def test_a_result_declared_for_another_party():
    plan = Edited()
    plan.info["results"][0]["party"] = "owner"
    plan.manifest["receivers"]["predict"] = ["client", "owner"]
    external = plan.info["external"]["client"]
    plan.info["external"]["owner"] = {"sends": [], "receives": [], "results": external["results"], "steps": []}
    external["results"] = []
    with pytest.raises(PlanError):
        plan.audit()  # the manifest itself is refused: owner has no such tensor
    plan.info["external"]["owner"]["steps"] = external["steps"]
    plan.info["external"]["owner"]["receives"] = external["receives"]
    plan.info["inputs"].append({**plan.info["inputs"][0], "name": "y", "party": "owner"})
    assert found(plan, "owner", plan.info["results"][0]["tensor"], "and client computes it")


# --- kinds of messages


@pytest.mark.parametrize(
    ("kind", "source", "to", "reason"),
    [
        ("opening", "server0", "client", "an opening goes from one server to the other"),
        ("opening", "dealer", "server0", "an opening goes from one server to the other"),
        ("input", "server0", "server1", "an input goes from its owner"),
        ("input", "dealer", "server1", "an input goes from its owner"),
        ("correction", "server0", "server1", "a correction goes from the dealer"),
        ("correction", "dealer", "client", "a correction goes from the dealer"),
        ("plaintext", "server0", "client", "plaintext is sent by the owner of data"),
        ("result", "dealer", "client", "a result is sent by the servers"),
        ("opening", "server0", "dealer", "sends to the dealer"),
        ("input", "client", "dealer", "sends to the dealer"),
    ],
)
def test_messages_that_parties_do_not_exchange(kind, source, to, reason):
    plan = Edited()
    source_stream = {
        "server0": ("server0", "dealer"),
        "dealer": ("dealer", "server0"),
        "client": ("client", "server1"),
    }[source]
    value = plan.stream(*source_stream, 98, [3], "planted/value")
    sent = plan.send(kind, source, to, value)
    assert found(plan, to, sent, reason)


def test_a_correction_that_depends_on_a_message():
    plan = Edited()
    correction = plan.messages("correction", "dealer", "server0")[0]
    opening = plan.messages("opening", "server0", "server1")[0]
    shape = list(plan.nodes[plan.feeding(opening).input[1]].attr["shape"].list.i)
    pad = plan.stream("server0", "client", 97, shape, "planted/pad", key=plan.key("server0", "dealer"))
    hidden = plan.joined("Sub", "planted/hidden", plan.feeding(opening).input[0], pad, "server0")
    sent = plan.send("opening", "server0", "dealer", hidden)
    masked = plan.feeding(correction)
    total = plan.add("Sum", "planted/sum", [sent, plan.constant("planted/axes", [0, 1], dtype=tf.int32)], "dealer")
    plan.nodes[total].attr["T"].type = tf.int64.as_datatype_enum
    plan.nodes[total].attr["Tidx"].type = tf.int32.as_datatype_enum
    masked.input[0] = plan.joined("AddV2", "planted/dependent", masked.input[0], total, "dealer")
    assert found(plan, "server0", correction, "a correction of dealer depends on a share or masked value")


def test_a_dealer_with_an_input():
    plan = Edited()
    plan.info["inputs"][0]["party"] = "dealer"
    with pytest.raises(PlanError):
        plan.audit()
    plan = Edited()
    plan.add("Placeholder", "planted/input", [], "dealer", dtype=tf.int64, shape=tf.TensorShape([3]))
    declared = {"name": "seen", "party": "dealer", "shape": [3], "dtype": "int64", "tensor": "planted/input:0"}
    plan.info["inputs"].append(declared)
    assert found(plan, "dealer", "planted/input:0", "inputs come from parties outside")


def test_plaintext_that_is_not_its_owners():
    plan = Edited()
    stream = plan.streams("client", "server1")[0]
    sent = plan.send("plaintext", "client", "owner", stream)
    assert found(plan, "owner", sent, "depends on a stream")


# --- report


def test_the_report_as_json_names_the_finding():
    plan = Edited()
    opening = plan.messages("opening", "server0", "server1")[1]
    plan.nodes[opening].input[0] = plan.feeding(opening).input[0]
    report = json.loads(json.dumps(plan.audit().to_json()))
    assert report["passed"] is False and report["graphs"]["load"]["passed"] is True
    findings = report["graphs"]["predict"]["findings"]
    assert {"server1"} == {finding["party"] for finding in findings}
    assert set(findings[0]) == {"party", "where", "why", "path"}


def test_a_plan_with_findings_is_not_to_be_run():
    plan = Edited()
    opening = plan.messages("opening", "server0", "server1")[1]
    plan.nodes[opening].input[0] = plan.feeding(opening).input[0]
    with pytest.raises(PlanError, match=r"does not pass the audit is not run.*server0.server1.*shareflow audit"):
        plan.audit().require()


def test_the_small_plan_is_made_once():
    assert network() is network()
