"""The same program with the same seeds gives the same bits eagerly, traced, and cut into parties' parts.

The fourth way, TensorFlow's distributed runtime, is held to the traced one in test_cluster.py.
"""

from __future__ import annotations

import numpy as np
import pytest

import shareflow as sf
from runtime.programs import every_operation, inputs
from shareflow.compiler.compile_model import entries_of
from shareflow.compiler.model import Model, source_of
from shareflow.networks import network_b
from shareflow.runtime.rehearsal import insecure_rehearsal


def private(given):
    return {name: sf.private_tensor(value, owner) for name, (owner, value) in given.items()}


def plain(given):
    return {name: value for name, (_, value) in given.items()}


@pytest.fixture(scope="module")
def program():
    given = inputs(np.random.default_rng(5))
    entry = sf.Entry(every_operation, {n: sf.Input(owner, v.shape) for n, (owner, v) in given.items()})
    return sf.plan({"every": entry}), given


def test_every_operation_has_the_same_bits_eager_traced_and_split(program):
    plan, given = program
    with sf.insecure_session(seed=11):
        eager = {name: value.numpy() for name, value in every_operation(**private(given)).items()}
    with sf.insecure_session(seed=11):
        traced = {n: v.numpy() for n, v in sf.function(every_operation)(**private(given)).items()}
    split = insecure_rehearsal(plan, "every", plain(given), sf.insecure_session(seed=11)).results
    assert eager.keys() == traced.keys() == split.keys()
    for name, value in eager.items():
        np.testing.assert_array_equal(traced[name], value, err_msg=name)
        np.testing.assert_array_equal(split[name], value, err_msg=name)


@pytest.mark.slow
def test_other_seeds_give_other_messages_and_results_as_near(program):
    plan, given = program
    one, other = (insecure_rehearsal(plan, "every", plain(given), sf.insecure_session(seed=s)) for s in (1, 2))
    for (*way, first), (*same_way, second) in zip(sorted(one.messages), sorted(other.messages), strict=True):
        assert way == same_way and (first != second or len(first) <= 8)
    for name in one.results:
        np.testing.assert_allclose(one.results[name], other.results[name], atol=2e-2, err_msg=name)


def test_network_b_has_the_same_bits_eager_traced_and_split(rng):
    model = network_b(pooling="max")
    protocol = sf.SPDZ()
    parts = entries_of(Model(source_of(model), "owner", "client", protocol.fixed_point), (1, 3), protocol)

    def network(x, **weights):
        return parts["predict"].function(x=x, **parts["load"].function(**weights))

    x, weights = rng.random((3, 28, 28, 1)).astype(np.float32), sf.parameters_of(model)
    given = {"x": ("client", x)} | {name: ("owner", value) for name, value in weights.items()}
    forms = {name: sf.Input(owner, value.shape, value.dtype.name) for name, (owner, value) in given.items()}
    plan = sf.plan({"whole": sf.Entry(network, forms)}, sf.SPDZ())
    results = []
    for run in (network, sf.function(network)):
        with sf.insecure_session(seed=4):
            results.append(run(**private(given)).numpy())
    results.append(insecure_rehearsal(plan, "whole", plain(given), sf.insecure_session(seed=4)).results["result"])
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])
    np.testing.assert_allclose(results[0], model(x), atol=1e-3)
