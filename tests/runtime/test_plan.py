"""Plans: what they hold, that they are the same each time, and what cannot stand in one."""

from __future__ import annotations

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import shareflow as sf
from shareflow.errors import PlacementError, PlanError, ShapeError, UnsupportedModelError
from shareflow.networks import network_a
from shareflow.plan_audit import audited
from shareflow.runtime.rehearsal import insecure_rehearsal

X = sf.Input("client", (4,))


def model(seed=0):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(5, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )


def compiled(network=None, **options):
    return sf.compile_model(network or model(), owner="model-owner", client="client", batch_sizes=(1, 4), **options)


def double(x):
    return (x * 2.0).reveal("client")


# --- compiled models ----------------------------------------------------------------------------------------------


def test_a_plan_predicts_what_its_model_does(rng):
    network, session = model(), sf.insecure_session(1)
    network.layers[1].set_weights([rng.uniform(0.5, 2, 5), *rng.normal(size=(2, 5)), rng.uniform(0.5, 2, 5)])
    plan, x = compiled(network), rng.normal(size=(4, 4)).astype(np.float32)
    state = insecure_rehearsal(plan, "load", sf.parameters_of(network), session).state
    many = insecure_rehearsal(plan, "predict@4", {"x": x}, session, state).results["result"]
    one = insecure_rehearsal(plan, "predict@1", {"x": x[2:3]}, session, state).results["result"]
    np.testing.assert_allclose(many, network(x), atol=1e-4)
    np.testing.assert_allclose(one, network(x[2:3]), atol=1e-4)


def test_a_plan_is_read_as_it_was_written(tmp_path):
    plan = compiled()
    plan.write(tmp_path / "model.plan")
    again = sf.Plan.read(tmp_path / "model.plan")
    assert again.fingerprint == plan.fingerprint and again.manifest == plan.manifest
    assert list(again.manifest.graphs) == ["load", "predict@1", "predict@4"]
    assert audited(again).passed


def test_the_fingerprint_depends_on_layers_and_not_on_weights():
    wider = keras.Sequential([keras.Input((4,)), keras.layers.Dense(6), keras.layers.Dense(3)])
    coarse = sf.SPDZ(fixed_point=sf.FixedPoint(12))
    prints = [compiled(model(s)).fingerprint for s in (0, 1)]
    assert prints[0] == prints[1]
    assert len({prints[0], compiled(wider).fingerprint, compiled(protocol=coarse).fingerprint}) == 3


def test_the_fingerprint_is_the_same_in_another_process():
    program = (
        "import keras, shareflow as sf\n"
        "sf.function(lambda: None)\n"
        "m = keras.Sequential([keras.Input((4,)), keras.layers.Dense(5, activation='relu'),"
        " keras.layers.BatchNormalization(), keras.layers.Dense(3, activation='softmax')])\n"
        "print(sf.compile_model(m, owner='model-owner', client='client', batch_sizes=(1, 4)).fingerprint)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "7"}
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True)
    assert run.stdout.split()[-1] == compiled().fingerprint


def test_no_weight_is_in_a_plan():
    network = model()
    weights = [w for w in network.get_weights() if np.ptp(w)]
    data = compiled(network).file.to_bytes()
    for w in weights:
        for value in (w, w.astype(np.float64), np.rint(w.astype(np.float64) * 2**16).astype(np.int64)):
            assert value.tobytes() not in data and value.ravel()[:2].tobytes() not in data


def test_layers_of_one_name_in_nested_models_keep_their_own_weights(rng):
    def block():
        return keras.Sequential([keras.Input((4,)), keras.layers.Dense(4, name="same")])

    network = keras.Sequential([keras.Input((4,)), block(), block()])
    names = list(sf.parameters_of(network))
    assert len(names) == len(set(names)) == 4
    plan, session, x = compiled(network), sf.insecure_session(1), rng.normal(size=(1, 4)).astype(np.float32)
    state = insecure_rehearsal(plan, "load", sf.parameters_of(network), session).state
    result = insecure_rehearsal(plan, "predict@1", {"x": x}, session, state).results["result"]
    np.testing.assert_allclose(result, network(x), atol=1e-3)


def test_a_model_that_cannot_be_private_has_no_plan():
    with pytest.raises(UnsupportedModelError, match="MatrixInverse"):
        compiled(keras.Sequential([keras.Input((4, 4)), keras.layers.Lambda(tf.linalg.inv)]))


def test_a_message_count_is_the_plans_rounds():
    plan, session = sf.compile_model(network_a(), owner="o", client="client", batch_sizes=(1,)), sf.insecure_session(2)
    state = insecure_rehearsal(plan, "load", sf.parameters_of(network_a()), session).state
    run = insecure_rehearsal(plan, "predict@1", {"x": np.zeros((1, 28, 28, 1), np.float32)}, session, state)
    (predict,) = (graph for graph in audited(plan).graphs if graph.name == "predict@1")
    rounds = predict.cost.rounds
    for way in (("server0", "server1"), ("server1", "server0")):
        sent = [r for s, t, r, _ in run.messages if (s, t) == way]
        # One message a round each way; the plan's rounds count the input's and the result's, too.
        assert sorted(sent) == list(range(1, rounds - 1))
    sizes = sum(len(payload) for source, to, _, payload in run.messages if source != "dealer")
    assert sizes == predict.cost.online_bytes


# --- programs of several entries ----------------------------------------------------------------------------------


def test_state_stays_between_entries_and_changes(rng):
    def start(w):
        return {"w": w}

    def step(w, g):
        new = w - g
        return {"w": new, "size": (new * new).sum().reveal("owner")}

    def show(w):
        return w.reveal("client")

    plan = sf.plan(
        {
            "start": sf.Entry(start, {"w": sf.Input("owner", (3,))}, keeps=["w"]),
            "step": sf.Entry(step, {"g": sf.Input("client", (3,))}, keeps=["w"]),
            "show": sf.Entry(show),
        }
    )
    assert plan.manifest.entries["step"].uses == ("w",)
    session, w, g = sf.insecure_session(3), rng.normal(size=3), rng.normal(size=3)
    state = insecure_rehearsal(plan, "start", {"w": w}, session).state
    for count in (1, 2):
        run = insecure_rehearsal(plan, "step", {"g": g}, session, state)
        state = run.state
        np.testing.assert_allclose(run.results["size"], ((w - count * g) ** 2).sum(), atol=1e-3)
    np.testing.assert_allclose(
        insecure_rehearsal(plan, "show", {}, session, state).results["result"], w - 2 * g, atol=1e-3
    )
    assert audited(plan).passed


def test_inputs_of_several_owners_meet():
    def total(a, b):
        return {"a": (a + b).reveal("first"), "b": (a * b).reveal("second")}

    plan = sf.plan({"total": sf.Entry(total, {"a": sf.Input("first", (2,)), "b": sf.Input("second", (2,))})})
    given = {"a": np.array([1.0, -2.0]), "b": np.array([0.5, 4.0])}
    results = insecure_rehearsal(plan, "total", given, sf.insecure_session(3)).results
    np.testing.assert_allclose(results["a"], [1.5, 2.0], atol=1e-4)
    np.testing.assert_allclose(results["b"], [0.5, -8.0], atol=1e-3)
    assert plan.manifest.external == ("first", "second")


@pytest.mark.parametrize(
    ("entries", "error", "text"),
    [
        ({}, PlanError, "at least one entry"),
        ({"two words": sf.Entry(double, {"x": X})}, PlanError, "identifier"),
        ({"f": sf.Entry(double)}, PlanError, "'x' is neither"),
        ({"f": sf.Entry(double, {"x": X}, keeps=["w"])}, PlanError, "does not return"),
        ({"f": sf.Entry(double, {"x": X}, uses=["w"])}, PlanError, "no entry before it keeps"),
        ({"f": sf.Entry(double, {"x": X}, batch_sizes=[2])}, PlanError, "without 1"),
        ({"f": sf.Entry(double, {"x": X}, batch_sizes=[1, 1])}, PlanError, "once each"),
        ({"f": sf.Entry(double, {"x": X}, batch_sizes=[0])}, PlanError, "at least 1"),
        ({"f": sf.Entry(lambda x: {"w": x}, {"x": X}, keeps=["w"], batch_sizes=[1])}, PlanError, "one request"),
        ({"f": sf.Entry(lambda x: (x * x).sum().reveal("client"), {"x": X}, batch_sizes=[1, 2])}, PlanError, "axis"),
        ({"f": sf.Entry(lambda x: x.shared(sf.SPDZ()), {"x": X})}, PlanError, "revealed to a party"),
        ({"f": sf.Entry(lambda x: x.reveal("server1"), {"x": X})}, PlacementError, "a computing party"),
        ({"f": sf.Entry(lambda x: tf.constant(1.0), {"x": X})}, PlanError, "private tensors"),
        ({"f": sf.Entry(double, {"x": sf.Input("client", (None, 4))})}, ShapeError, "whole numbers"),
        ({"f": sf.Entry(double, {"x": sf.Input("client", (0, 4))})}, ShapeError, "at least 1"),
    ],
)
def test_what_cannot_stand_in_a_plan_is_refused(entries, error, text):
    with pytest.raises(error, match=text):
        sf.plan(entries)


def test_values_from_outside_are_refused():
    outside = sf.PrivateVariable(sf.private_tensor(np.ones(4), "owner"))
    with pytest.raises(PlanError, match="from outside"):
        sf.plan({"f": sf.Entry(lambda x: (x * outside).reveal("client"), {"x": X})})


def test_states_that_are_never_there_together_cannot_be_used_together():
    def keep(name):
        return sf.Entry(lambda x: {name: x}, {"x": X}, keeps=[name])

    both = sf.Entry(lambda a, b: (a + b).reveal("client"))
    with pytest.raises(PlanError, match="begins anew"):
        sf.plan({"first": keep("a"), "second": keep("b"), "both": both})
    second = sf.Entry(lambda x, a: {"b": x + a * 0.0}, {"x": X}, keeps=["b"])
    assert list(sf.plan({"first": keep("a"), "second": second, "both": both}).manifest.graphs) == [
        *("both", "first", "second"),
    ]


def test_a_state_has_one_form():
    def keep(x):
        return {"w": x}

    first, second = sf.Entry(keep, {"x": X}, keeps=["w"]), sf.Entry(keep, {"x": sf.Input("client", (5,))}, keeps=["w"])
    with pytest.raises(PlanError, match=r"one form.* masked \[5\] with 16 .* masked \[4\] with 16"):
        sf.plan({"first": first, "second": second})
    finer = sf.Entry(lambda w, x: {"w": w * x}, {"x": X}, keeps=["w"])
    with pytest.raises(PlanError, match=r"with 32 fractional bits, one before as .* \.at_scale\(16\)"):
        sf.plan({"first": first, "finer": finer})


def test_a_client_that_would_have_to_stay_is_refused():
    def twice(x):
        once = (x.shared(sf.SPDZ()) * 2.0).reveal("client")
        return (once * 3.0).shared(sf.SPDZ()).reveal("client")

    with pytest.raises(PlanError, match="two entries"):
        sf.plan({"f": sf.Entry(twice, {"x": X})}, sf.SPDZ())


def test_a_plan_needs_parties_that_compute():
    with pytest.raises(PlanError, match="SPDZ"):
        sf.plan({"f": sf.Entry(double, {"x": X})}, sf.Plain())


def test_a_check_of_bounds_has_no_place_in_a_plan():
    def relu(x):
        return sf.relu(x.shared(sf.SPDZ()), bound=1.0).reveal("client")

    with sf.insecure_checked_bounds(), pytest.raises(PlanError, match="leads to none"):
        sf.plan({"f": sf.Entry(relu, {"x": X})}, sf.SPDZ())
