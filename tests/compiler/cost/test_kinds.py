"""Truncation and polynomials are weighed where they are allowed, and the least by tracing is taken."""

import dataclasses
import functools
import itertools
import json
import re

import keras
import numpy as np
import pytest
from typer.testing import CliRunner

import shareflow as sf
from shareflow import nn
from shareflow.cli import app
from shareflow.compiler.calibration import Calibration, ranges_of
from shareflow.compiler.compile_model import choose_model, entries_of
from shareflow.compiler.cost.choose import choose_plan
from shareflow.compiler.cost.kinds import choose_kind
from shareflow.compiler.cost.network import NETWORKS, Network
from shareflow.compiler.cost.speeds import Speeds
from shareflow.compiler.cost.work import KINDS
from shareflow.compiler.evaluate import evaluate
from shareflow.compiler.model import Model, source_of
from shareflow.compiler.optimistic import MOST_FAILURES, too_often
from shareflow.compiler.passes.polynomial_relu import Polynomial
from shareflow.compiler.polynomials import replaceable, with_polynomials
from shareflow.compiler.step_by_step import insecure_steps, insecure_value, shared_parameters
from shareflow.errors import EncodingError, PlanError, UnsupportedModelError
from shareflow.runtime.plan import Plan

# Apart from what a machine does, so that rounds and bytes alone decide.
NO_WORK = Speeds((0.0,) * len(KINDS), 0.0, 0.0, 0.0)
FAR, SLOW, NARROW = Network(0.2, 1e9), Network(10e-3, 5e5), Network(1e-5, 1e5)
LAN = NETWORKS["lan"]
SQUARE = Polynomial(2, 4.0)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@functools.cache
def network_of_two():
    keras.utils.set_random_seed(4)
    dense = keras.layers.Dense
    return keras.Sequential(
        [
            keras.Input((6,)),
            dense(20, activation="relu", name="wide"),
            dense(8, activation="relu", name="narrow"),
            dense(3),
        ]
    )


@functools.cache
def samples():
    return np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)


@functools.cache
def calibrated(bits):
    return sf.calibrate(network_of_two(), samples(), fractional_bits=bits)


def chosen_for(network, **options):
    return choose_model(network_of_two(), network=network, owner="owner", client="client", batch_sizes=(1,), **options)


def prepared(bits):
    model = Model(source_of(network_of_two()), "owner", "client", sf.FixedPoint(bits))
    return model.calibrated(calibrated(bits)), sf.SPDZ(fixed_point=sf.FixedPoint(bits))


def traced(model, protocol):
    return sf.plan(entries_of(model, (1,), protocol), protocol)


def truncation_of(plan):
    return re.search(r"truncation=(\w+)", plan.manifest.protocol.settings)[1]


# The first ends in one polynomial with exact truncation, the second in two with optimistic truncation.
@pytest.mark.parametrize(
    ("line", "bits"),
    [
        (SLOW, 16),
        *(
            pytest.param(line, bits, marks=pytest.mark.slow)
            for line, bits in [(FAR, 9), (FAR, 16), (SLOW, 9), (LAN, 9), (LAN, 16), (NARROW, 9), (NARROW, 16)]
        ),
    ],
    ids=str,
)
def test_the_kind_is_the_least_of_all_that_are_traced(line, bits):
    model, exact = prepared(bits)
    calibration = model.calibration
    allowed = replaceable(model.compiled(1), calibration, SQUARE).allowed
    assert set(allowed) == {"wide/Relu", "narrow/Relu"}
    every = {}
    for truncation in (sf.ExactWrap(), sf.Optimistic()):
        protocol = dataclasses.replace(exact, truncation=truncation)
        for count in range(3):
            for keys in itertools.combinations(allowed, count):
                ranges = with_polynomials(calibration, allowed, keys, SQUARE)
                if isinstance(truncation, sf.Optimistic) and too_often(ranges):
                    continue
                make = functools.partial(traced, model.approximated(keys, SQUARE, ranges), protocol)
                every[type(truncation), keys] = choose_plan(make, protocol, line, speeds=NO_WORK).seconds
    # With 16 bits an optimistic polynomial fails too often, with 9 it does not.
    assert len(every) == (5 if bits == 16 else 8)
    found = choose_kind(model, exact, traced, (1,), line, polynomial=SQUARE, speeds=NO_WORK)
    least = min(kind.seconds for kind in found.kinds if kind.seconds is not None)
    assert least == pytest.approx(min(every.values()), rel=1e-9)
    # What changes results is taken where it spares a hundredth; each of three kinds may have been passed over for that.
    assert found.chosen.seconds == found.choice.seconds <= least / 0.99**3
    assert found.chosen.polynomials == len(found.replaced) == 2 - len(found.kept)
    assert max(every.values()) > min(every.values())
    assert sum(kind.chosen for kind in found.kinds) == 1


@pytest.mark.slow
def test_few_bits_make_polynomials_and_optimism_worth_it():
    found = chosen_for("wan", calibration=calibrated(9), polynomial=(2, 4.0))
    assert str(found.chosen) == "optimistic truncation, 2 ReLUs as polynomials"
    assert truncation_of(found.plan) == "Optimistic"
    assert set(found.replaced) == {"wide/Relu", "narrow/Relu"} and not found.kept
    default, chosen = (way["predict@1"].cost.rounds for way in (found.choice.default, found.choice.chosen))
    # The default is the exact plan: ReLU takes four rounds, a polynomial two without truncation's.
    assert chosen <= default - 5


def test_without_a_calibration_truncation_is_exact_and_the_reason_is_told():
    found = chosen_for("wan")
    assert [(kind.truncation, kind.seconds is None, kind.chosen) for kind in found.kinds] == [
        ("exact", False, True),
        ("optimistic", True, False),
    ]
    assert "without a calibration nobody knows" in found.kinds[1].refused
    assert truncation_of(found.plan) == "ExactWrap"


def test_with_a_calibration_both_are_weighed():
    found = chosen_for("wan", calibration=calibrated(16))
    seconds = {kind.truncation: kind.seconds for kind in found.kinds}
    assert set(seconds) == {"exact", "optimistic"} and None not in seconds.values()
    # All truncation is inside of ReLU: optimism spares next to nothing, and is not worth a wrong element.
    assert 0.99 * seconds["exact"] < seconds["optimistic"] < seconds["exact"]
    assert found.chosen.truncation == "exact"
    assert truncation_of(found.plan) == "ExactWrap"
    plan = sf.compile_model(
        network_of_two(),
        owner="owner",
        client="client",
        batch_sizes=(1,),
        network="wan",
        calibration=calibrated(16),
    )
    assert plan.fingerprint == found.plan.fingerprint


def often_failing():
    found = calibrated(16)
    ranges = {name: dataclasses.replace(one, failures=1e-5) for name, one in found.ranges.items()}
    return dataclasses.replace(found, ranges=ranges)


def test_optimism_that_fails_too_often_is_not_looked_at():
    found = chosen_for("wan", calibration=often_failing())
    assert found.chosen.truncation == "exact" and truncation_of(found.plan) == "ExactWrap"
    (refused,) = (kind for kind in found.kinds if kind.seconds is None)
    assert refused.truncation == "optimistic" and re.search("1e-06 wrong elements .* here ", refused.refused)


def test_what_a_protocol_says_stays():
    exact = chosen_for("wan", calibration=calibrated(16), protocol=sf.SPDZ())
    assert truncation_of(exact.plan) == "ExactWrap"
    assert [kind.refused for kind in exact.kinds] == ["", "truncation is said to be exact"]
    optimistic = sf.SPDZ(truncation=sf.Optimistic())
    said = chosen_for("wan", calibration=calibrated(16), protocol=optimistic)
    assert truncation_of(said.plan) == "Optimistic" and [kind.truncation for kind in said.kinds] == ["optimistic"]
    with pytest.raises(UnsupportedModelError, match="without a calibration nobody knows"):
        chosen_for("wan", protocol=optimistic)
    with pytest.raises(UnsupportedModelError, match="1e-06 wrong elements"):
        chosen_for("wan", protocol=optimistic, calibration=often_failing())


# --- polynomials --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_relu_beyond_the_bound_stays_exact():
    model, _ = prepared(9)
    compiled = model.compiled(1)
    reach = {
        node.layer: ranges_of(compiled, calibrated(9))[node.inputs[0]].size
        for node in compiled.steps
        if node.op == "Relu"
    }
    bound = (reach["wide"] + reach["narrow"]) / 2
    least, most = sorted(reach, key=reach.get)
    found = chosen_for("wan", calibration=calibrated(9), polynomial=(2, bound))
    assert found.replaced == (f"{least}/Relu",)
    assert re.fullmatch(rf"its inputs reach {reach[most]:.3g}, beyond the bound .*", found.kept[f"{most}/Relu"])
    none = replaceable(compiled, calibrated(9), Polynomial(2, min(reach.values()) * 0.9))
    assert not none.allowed and set(none.kept) == {"wide/Relu", "narrow/Relu"}


def test_a_bound_too_wide_for_the_ring_leaves_relus_exact():
    model, _ = prepared(16)
    found = replaceable(model.compiled(1), calibrated(16), Polynomial(2, 2.0**13))
    assert not found.allowed and all("60 are allowed" in reason for reason in found.kept.values())
    assert replaceable(model.compiled(1), calibrated(16), Polynomial(2, 2.0**10)).allowed


def test_chosen_relus_are_the_polynomial_at_each_batch_size():
    model, protocol = prepared(12)
    approximated = model.approximated(["narrow/Relu"], SQUARE, model.calibration)
    x = samples()[:4]
    first, second, last = (layer.get_weights() for layer in network_of_two().layers)
    hidden = np.maximum(x @ first[0] + first[1], 0) @ second[0] + second[1]
    wanted = np.polynomial.polynomial.polyval(hidden, SQUARE.coefficients) @ last[0] + last[1]
    for size in (1, 4):
        compiled = approximated.compiled(size)
        assert [node.op for node in compiled.steps if "elu" in node.op or "poly" in node.op] == [
            "Relu",
            "shareflow.polynomial",
        ]
        inputs = {next(iter(model.source.inputs)): x[:size]}
        (floating,) = evaluate(compiled.graph, inputs).values()
        np.testing.assert_allclose(floating, wanted[:size], atol=1e-5)
        for truncation in (sf.ExactWrap(), sf.Optimistic()):
            kind = dataclasses.replace(protocol, truncation=truncation)
            parameters = shared_parameters(compiled, approximated.parameters(size), model.owner, kind)
            given = {name: sf.private_tensor(value, "client") for name, value in inputs.items()}
            *_, (_, results) = insecure_steps(compiled, given, parameters, kind)
            np.testing.assert_allclose(insecure_value(results[0]), wanted[:size], atol=1e-2)
    assert [node.op for node in model.compiled(4).steps].count("Relu") == 2


def test_expected_failures_cover_those_that_happen():
    """An optimistic polynomial truncates at three times the bits: 2^-16 for each unit of its value."""
    count = 400_000
    model, protocol = prepared(16)
    allowed = replaceable(model.compiled(1), calibrated(16), SQUARE).allowed
    ranges = with_polynomials(calibrated(16), allowed, ["wide/Relu"], SQUARE).ranges["wide/Relu"]
    each = ranges.failures / ranges.elements
    optimistic = dataclasses.replace(protocol, truncation=sf.Optimistic())

    @sf.function
    def program(x):
        return nn.polynomial(x.shared(optimistic), SQUARE.coefficients, SQUARE.bound).reveal("reader")

    with sf.insecure_session(seed=7):
        got = program(sf.private_tensor(np.full(count, SQUARE.bound), "owner")).numpy()
    wrong = int((np.abs(got - np.polynomial.polynomial.polyval(SQUARE.bound, SQUARE.coefficients)) > 0.1).sum())
    assert 5 <= wrong <= 1.5 * count * each < 20 * wrong
    assert ranges.failures > MOST_FAILURES > calibrated(16).failures


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"network": "wan"}, EncodingError, "a calibration has to say what ReLUs take"),
        ({"calibration": True}, PlanError, "follows from the network; none is given"),
        ({"network": "wan", "calibration": True, "trust_ranges": 4}, PlanError, "polynomials change them"),
        ({"network": "moon", "calibration": True}, sf.errors.ConfigError, "A network is one of"),
        ({"network": "wan", "calibration": True, "polynomial": (0, 4.0)}, EncodingError, "from 1 to 16, got 0"),
        ({"network": "wan", "calibration": True, "polynomial": (2, -1.0)}, EncodingError, "positive finite"),
        ({"network": "wan", "calibration": True, "polynomial": 2}, EncodingError, r"such as \(2, 4.0\); got 2"),
    ],
)
def test_polynomials_that_are_refused(options, error, text):
    given = {"polynomial": (2, 4.0), **options}
    if "calibration" in options:
        given["calibration"] = calibrated(16)
    with pytest.raises(error, match=text):
        sf.compile_model(network_of_two(), owner="owner", client="client", batch_sizes=(1,), **given)


def test_a_calibration_of_another_model_is_refused():
    keras.utils.set_random_seed(5)
    other = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3, activation="relu", name="other")])
    with pytest.raises(EncodingError, match="another model"):
        chosen_for("wan", calibration=sf.calibrate(other, samples()), polynomial=(2, 4.0))


# --- commands -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kinds")
    network_of_two().save(folder / "two.keras")
    np.save(folder / "x.npy", samples())
    calibrated(9).save(folder / "nine.json")
    return folder


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})


def compiled_by(files, out, *options):
    done = run("compile", files / "two.keras", "--out", out, "--batch", 1, *options)
    return done, " ".join(done.output.replace("│", " ").split())


@pytest.mark.slow
def test_compile_shows_all_kinds(files, tmp_path):
    ranges = ("--calibration", files / "nine.json", "--network", "wan")
    done, text = compiled_by(files, tmp_path / "a.plan", *ranges, "--allow-polynomial", "2,4")
    assert done.exit_code == 0, done.output
    assert re.search(r"optimistic truncation, 2 ReLUs as polynomials [\d.]+ chosen", text)
    for kind in ("exact truncation", "optimistic truncation", "exact truncation, 2 ReLUs as polynomials"):
        assert re.search(rf"{kind} [\d.]+ ", text)
    assert "2 of 2 ReLUs as a polynomial of degree 2 on [-4, 4]: results change" in text
    assert truncation_of(Plan.read(tmp_path / "a.plan")) == "Optimistic"
    done, text = compiled_by(files, tmp_path / "b.plan", *ranges, "--exact-truncation", "--allow-polynomial", "2,0.01")
    assert done.exit_code == 0, done.output
    assert "not looked at: truncation is said to be exact" in text and "0 of 2 ReLUs" in text
    assert "wide/Relu stays exact: its inputs reach" in text
    assert truncation_of(Plan.read(tmp_path / "b.plan")) == "ExactWrap"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--allow-polynomial", "2,4"), "--network may decide"),
        (("--exact-truncation",), "--network may decide"),
        (("--allow-polynomial", "2", "--network", "wan"), "such as 2,4.0; got '2'"),
        (("--allow-polynomial", "2,4", "--network", "wan"), "a calibration has to say"),
    ],
)
def test_compile_refuses(files, tmp_path, options, text):
    done, said = compiled_by(files, tmp_path / "a.plan", *options)
    assert done.exit_code != 0 and text in said
    assert not (tmp_path / "a.plan").exists()


def test_check_compares_polynomials_with_the_exact_model(files, tmp_path):
    arguments = ("check", files / "two.keras", files / "x.npy", "--count", 4, "--json")
    exact = json.loads(run(*arguments).stdout)
    done = run(*arguments, "--allow-polynomial", "2,4", "--save", tmp_path / "ranges.json")
    found = json.loads(done.stdout)
    assert exact["polynomials"] == [] and found["polynomials"] == ["narrow/Relu", "wide/Relu"]
    # Against the polynomials each layer is right, against the exact model the result is not.
    assert max(layer["errors"]["private"]["max"] for layer in found["layers"]) < 5e-3
    for which in ("plain", "private"):
        assert exact["results"][0]["errors"][which]["max"] < 1e-3 < 0.05 < found["results"][0]["errors"][which]["max"]
    assert not found["passed"] and done.exit_code == 1
    # What is kept is what compile takes: of the exact model.
    assert {one.op for one in Calibration.load(tmp_path / "ranges.json").ranges.values()} >= {"Relu"}
    text = run(*arguments[:-1], "--no-private", "--allow-polynomial", "2,4").output
    assert "2 of 2 ReLUs as a polynomial of degree 2 on [-4, 4]." in text and "results with the exact model" in text
    assert run(*arguments, "--allow-polynomial", "2,4", "--trust-ranges", 4).exit_code == 2
