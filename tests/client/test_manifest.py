"""The manifest: what it says, typed; and for each of its rules a manifest that breaks it."""

from __future__ import annotations

import copy

import numpy as np
import plans
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shareflow_client.errors import PlanError
from shareflow_client.manifest import DTYPE_BYTES, Message, StateTensor, TensorInfo, parse_manifest

DELETE = object()


def changed(path: str, value):
    """The manifest with one value changed, or deleted; path parts are joined with spaces."""
    manifest = plans.manifest()
    *parents, last = [int(part) if part.isdigit() else part for part in path.split()]
    at = manifest
    for part in parents:
        at = at[part]
    if value is DELETE:
        del at[last]
    elif last == "append":
        at.append(value)
    else:
        at[last] = value
    return manifest


def refused(manifest) -> str:
    with pytest.raises(PlanError) as error:
        parse_manifest(manifest)
    text = str(error.value)
    assert text.startswith("The manifest")
    assert text.endswith("Have the plan compiled anew by a released version of shareflow.")
    return text


def test_everything_is_typed():
    manifest = parse_manifest(plans.manifest())
    assert manifest.computing == ("server0", "server1", "server2")
    assert manifest.external == ("client", "model_owner")
    assert manifest.entries["predict"].receivers == ("client",)
    assert manifest.entries["predict"].variants == ("predict@1", "predict@8")
    assert manifest.states["dense/kernel"].components[1].party == "server1"
    assert manifest.states["dense/kernel"].components[1].nbytes == 64
    graph = manifest.graphs["predict@8"]
    assert graph.batch == 8
    assert graph.inputs == (TensorInfo((8, 4), "float32", "x", "client", "x:0"),)
    assert graph.inputs[0].nbytes == 128
    assert graph.state_in[1] == StateTensor("dense/kernel", 1, "server1", "kernel1:0")
    part = graph.external["client"]
    assert part.sends == (Message((8, 4), "int64", "server0", "send.input.client.server0.:0"),)
    assert part.receives[0].peer == "server0"
    assert dict(part.results) == {"result": "y:0"}
    assert [step.op for step in part.steps] == ["Cast", "ShareflowUniform", "Sub", "Identity", "Cast"]
    assert manifest.graphs["load"].batch is None


def test_a_protocol_without_a_dealer():
    manifest = changed("protocol dealer", None)
    manifest["parties"].remove("server2")
    assert parse_manifest(manifest).computing == ("server0", "server1")


def test_what_is_parsed_is_read_only():
    manifest = parse_manifest(plans.manifest())
    with pytest.raises(TypeError):
        manifest.graphs["x"] = None
    with pytest.raises(AttributeError):
        manifest.parties = ()


G = "graphs predict@1"
C = f"{G} external client"


@pytest.mark.parametrize(
    ("path", "value", "error"),
    [
        ("format", 2, "The manifest's format must be 1, not 2."),
        ("format", True, "format must be 1, not True"),
        ("format", DELETE, "The manifest must have the key 'format'"),
        ("extra", 1, "The manifest has the unknown key 'extra'; known are format, shareflow"),
        ("shareflow", 1, "The manifest's shareflow must be text"),
        ("shareflow", "x" * 2001, "at most 2000 characters, not 'xxx"),
        ("protocol", [], "The manifest's protocol must be an object, not []"),
        ("protocol servers", ["server0"], "protocol.servers must be two parties or more"),
        ("protocol servers", ["server0", "server0"], "must name each once; 'server0' is there twice"),
        ("protocol servers 1", "stranger", "protocol.servers[1] must be a party of the plan (client, model_owner"),
        ("protocol dealer", "server0", "protocol.dealer must be another party than the servers"),
        ("protocol fractional_bits", 63, "must be a whole number from 0 to 62, not 63"),
        ("protocol fractional_bits", 16.0, "must be a whole number from 0 to 62, not 16.0"),
        ("parties", "client", "The manifest's parties must be a list, not 'client'"),
        ("parties append", "client", "parties must name each once; 'client' is there twice"),
        ("parties append", "model-owner", "parties[5] must be a party: letters"),
        ("receivers predict", DELETE, "must name the receivers of each entry; there are none for 'predict'"),
        ("receivers other", [], "receivers.other must belong to an entry; there is no entry 'other'"),
        ("receivers predict", ["stranger"], "receivers.predict[0] must be a party of the plan"),
        ("receivers predict", [], "results[0].party must be a receiver of 'predict' (there is none), not 'client'"),
        ("entries predict variants", [], "entries.predict.variants must name a graph or more"),
        ("entries predict variants append", "load", "entries.predict must name graphs of its own as variants; 'load'"),
        ("entries predict variants append", "other", "must name graphs of its own as variants; 'other' is none"),
        ("entries predict variants", ["predict@1"], "graphs['predict@8'] must be one of the variants of its entry"),
        ("entries predict batched", 1, "entries.predict.batched must be true or false, not 1"),
        ("entries predict batched", False, "batch must be null, as its entry 'predict' is not batched, not 1"),
        ("entries predict uses", ["other"], "entries.predict.uses[0] must be a state of the plan (dense/kernel)"),
        ("entries predict uses", [], "state_in[0].state must be one of the uses of 'predict' (there is none)"),
        ("entries load keeps", ["dense/kernel"] * 2, "must name each once; 'dense/kernel' is there twice"),
        ("entries ä", {}, "The manifest's entries has names of 1 to 200 printable ASCII characters"),
        ("states dense/kernel components", [], "must not be empty: a state is kept by someone"),
        ("states dense/kernel components 0 party", "x", "states['dense/kernel'].components[0].party must be a party"),
        ("states dense/kernel components 0 dtype", "float99", "must be a dtype that a plan can hold (bool, int8"),
        ("states dense/kernel shape", [-1], "states['dense/kernel'].shape[0] must be a whole number from 0 to"),
        (f"{G} entry", "other", "graphs['predict@1'].entry must be an entry of the plan (predict, load), not 'other'"),
        (f"{G} entry", "load", "must be one of the variants of its entry 'load', which are load"),
        (f"{G} batch", None, "batch must be a whole number from 1 to 1048576, not None"),
        (f"{G} batch", 0, "batch must be a whole number from 1"),
        (f"{G} batch", 8, "entries.predict must have variants of different batches, not [8, 8]"),
        (f"{G} inputs 0 dtype", "string", "inputs[0].dtype must be a dtype that a plan can hold"),
        (f"{G} inputs 0 dtype", ["int64"], "inputs[0].dtype must be a dtype that a plan can hold"),
        (f"{G} inputs 0 shape", [1, -4], "inputs[0].shape[1] must be a whole number from 0 to 2147483647, not -4"),
        (f"{G} inputs 0 shape", [1, None], "inputs[0].shape[1] must be a whole number"),
        (f"{G} inputs 0 shape", [1, True], "inputs[0].shape[1] must be a whole number"),
        (f"{G} inputs 0 shape", 4, "inputs[0].shape must be a list of at most 32 dimensions, not 4"),
        (f"{G} inputs 0 shape", [1] * 33, "inputs[0].shape must be a list of at most 32 dimensions"),
        (f"{G} inputs 0 shape", [1 << 20, 1 << 20], "inputs[0].shape must be a shape of at most 68719476736 elements"),
        (
            f"{G} inputs 0 shape",
            [1 << 20, 1 << 15],
            "inputs[0].shape must be that of at most 68719476736 bytes of float32",
        ),
        (f"{G} inputs 0 party", "stranger", "inputs[0].party must be a party of the plan"),
        (f"{G} inputs 0 party", "model_owner", "steps[0] ('cast') uses 'x:0', which nothing before it makes"),
        (f"{G} inputs 0 tensor", "x", "inputs[0].tensor must be a tensor's name like 'node:0', not 'x'"),
        (
            f"{G} inputs append",
            plans.manifest()["graphs"]["predict@1"]["inputs"][0],
            "have each name once; 'x' is there",
        ),
        (f"{G} results 0 name", "a b", "results[0].name must be a name, not 'a b'"),
        (f"{G} state_in 0 component", 2, "state_in[0].component must be a whole number from 0 to 1, not 2"),
        (f"{G} state_in 0 party", "server1", "state_in[0].party must be the party that keeps the component (server0)"),
        (
            f"{G} state_in 0",
            DELETE,
            "must have each component of the uses of 'predict'; 'dense/kernel', component 0, is",
        ),
        (f"{G} state_in 1 component", 0, "state_in[1].party must be the party that keeps the component (server0)"),
        (f"{G} state_out append", {}, "state_out[0] must have the key 'state'"),
        ("graphs load state_out", [], "must have each component of the keeps of 'load'"),
        (f"{G} external", {}, "external must have the part of 'client', whose 'x' the graph has"),
        (
            f"{G} external server0",
            {},
            "external must be of parties that do not compute (client, model_owner), not 'server0'",
        ),
        (f"{C} sends 0 to", "model_owner", "sends[0].to must be a party that computes (server0, server1, server2)"),
        (f"{C} sends 0 tensor", "other:0", "sends[0].tensor must be made by a step or be given, not 'other:0'"),
        (
            f"{C} sends append",
            plans.manifest()["graphs"]["predict@1"]["external"]["client"]["sends"][0],
            "each tensor once",
        ),
        (f"{C} receives 0 from", "client", "receives[0].from must be a party that computes"),
        (f"{C} results 0 name", "other", "results must be the results of 'client' in the graph, {'result': 'y:0'}"),
        (f"{C} results 0 tensor", "cast:0", "results must be the results of 'client' in the graph"),
        (f"{C} results append", {"name": "result", "tensor": "y:0"}, "results must be the results of 'client'"),
        (f"{C} results", [], "results must be the results of 'client' in the graph"),
        (f"{C} steps 0 inputs 0", "none:0", "steps[0] ('cast') uses 'none:0', which nothing before it makes"),
        (f"{C} steps 0 inputs 0", "masked:0", "steps[0] ('cast') uses 'masked:0', which nothing before it makes"),
        (f"{C} steps 0 inputs 0", "cast:0", "steps[0] ('cast') uses 'cast:0', which nothing before it makes"),
        (f"{C} steps 0 inputs 0", "^y", "steps[0] ('cast') uses '^y', which nothing before it makes"),
        (f"{C} steps 0 inputs 0", "x", "steps[0].inputs[0] must be a tensor like 'node:0' or '^node', not 'x'"),
        (f"{C} steps 0 inputs 0", "x:00", "must be a tensor like 'node:0' or '^node'"),
        (f"{C} steps 1 name", "cast", "steps must have each node once; 'cast' is there twice"),
        (f"{C} steps 1 op", 7, "steps[1].op must be text"),
        (f"{C} steps 1 attributes", None, "steps[1].attributes must be an object, not None"),
    ],
)
def test_rules(path, value, error):
    assert error in refused(changed(path, value))


@pytest.mark.parametrize("value", [None, [], "text", 5, {}])
def test_what_is_no_manifest(value):
    refused(value)


def places(value, path=()):
    yield path
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from places(value[key], (*path, key))


PLACES = [path for path in places(plans.manifest()) if path and "attributes" not in path[:-1]]
JSON = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just([]) | st.just({})


@given(
    st.sampled_from(PLACES), JSON | st.lists(JSON, max_size=2) | st.dictionaries(st.text(max_size=3), JSON, max_size=2)
)
def test_whatever_stands_in_a_place_is_taken_or_a_plan_error(path, value):
    manifest = copy.deepcopy(plans.manifest())
    at = manifest
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    try:
        parse_manifest(manifest)
    except PlanError as error:
        assert str(error).startswith("The manifest")


def test_dtypes_are_numpys():
    assert {name: np.dtype(name).itemsize for name in DTYPE_BYTES} == dict(DTYPE_BYTES)
