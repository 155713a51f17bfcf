"""Ranges on samples, the encoding they choose, what is refused for overflow, and how often optimism fails."""

import json
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import shareflow as sf
from shareflow.compiler.calibration import Calibration, calibrate, ranges_of
from shareflow.compiler.front.source import Argument
from shareflow.compiler.model import Model, source_of
from shareflow.compiler.optimistic import MOST_FAILURES, require_rare_failures
from shareflow.compiler.overflow import MARGIN_BITS, excess_bits, overflows, require_fit
from shareflow.compiler.samples import Samples
from shareflow.compiler.step_by_step import insecure_steps, shared_parameters
from shareflow.compiler.watch import Watched
from shareflow.errors import DataError, EncodingError, PlacementError, ShapeError, UnsupportedModelError

HEAD = {"format": "shareflow calibration 1", "ranges": {}}
ARGUMENTS = {"x": Argument((3,), "float32"), "y": Argument((2, 2), "float32")}


def dense(first=1.0, second=1.0, final=None):
    """A model whose two layers have weights of these sizes: 4 inputs, 4, 3 scores."""
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(4, activation="relu", use_bias=True, name="first"),
            layers.Dense(3, name="second", activation=final),
        ]
    )
    model.get_layer("first").set_weights([np.full((4, 4), first), np.full(4, 0.5)])
    model.get_layer("second").set_weights([np.full((4, 3), second) * [1, 0.5, -1], np.zeros(3)])
    return model


def as_model(model, point=16):
    return Model(source_of(model), "model-owner", "client", sf.FixedPoint(point))


def ones(count=5, features=4):
    return np.linspace(0.5, 1.0, count * features).reshape(count, features).astype(np.float32)


def by_op(calibration, op, layer):
    (found,) = (one for one in calibration.ranges.values() if (one.op, one.layer) == (op, layer))
    return found


# --- samples --------------------------------------------------------------------------------------------------


def test_batches_are_of_one_size_and_the_last_is_filled_with_the_first():
    x, y = np.arange(15.0).reshape(5, 3), np.zeros((5, 2, 2))
    given = list(Samples.of(ARGUMENTS, {"x": x, "y": y}).batches(2))
    assert [new for new, _ in given] == [2, 2, 1]
    assert np.array_equal(given[-1][1]["x"], x[[4, 0]])
    assert given[0][1]["y"].shape == (2, 2, 2)
    assert given[0][1]["x"].dtype == np.float32


def test_a_count_takes_the_first():
    given = Samples.of({"x": ARGUMENTS["x"]}, np.arange(15.0).reshape(5, 3), 2)
    assert given.count == 2
    assert [inputs["x"].tolist() for _, inputs in given.batches(2)] == [[[0, 1, 2], [3, 4, 5]]]


def test_an_input_without_a_batch_axis_serves_all_samples():
    arguments = {"x": Argument((3,), "float32"), "table": Argument((2,), "float32", batched=False)}
    given = Samples.of(arguments, {"x": np.zeros((4, 3)), "table": np.ones(2)})
    assert [inputs["table"].shape for _, inputs in given.batches(3)] == [(2,), (2,)]


def test_a_model_without_batches_takes_one_sample_at_a_time():
    arguments = {"x": Argument((3,), "float32", batched=False)}
    given = Samples.of(arguments, np.arange(6.0).reshape(2, 3))
    assert [inputs["x"].tolist() for _, inputs in given.batches(8)] == [[0, 1, 2], [3, 4, 5]]
    assert given.number_of_batches(8) == 2


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({"x": np.zeros((5, 3))}, ShapeError, "for each input of the model: x, y; got x"),
        ({"x": np.zeros((5, 3)), "z": 0}, ShapeError, "got x, z"),
        ({"x": np.zeros((5, 4)), "y": np.zeros((5, 2, 2))}, ShapeError, r"an array \[n, 3\]; got shape \[5, 4\]"),
        ({"x": np.zeros(3), "y": np.zeros((5, 2, 2))}, ShapeError, r"got shape \[3\]"),
        ({"x": np.zeros((5, 3)), "y": np.zeros((4, 2, 2))}, ShapeError, "5 of 'x', 4 of 'y'"),
        ({"x": np.zeros((0, 3)), "y": np.zeros((0, 2, 2))}, ShapeError, "at least 1"),
        ({"x": np.full((5, 3), np.nan), "y": np.zeros((5, 2, 2))}, EncodingError, "15 of input 'x' are NaN"),
        ({"x": np.zeros((5, 3)), "y": np.full((5, 2, 2), -np.inf)}, EncodingError, "20 of input 'y' are NaN"),
        ({"x": np.full((5, 3), "a"), "y": np.zeros((5, 2, 2))}, ShapeError, "Samples are numbers"),
    ],
)
def test_samples_that_are_refused(given, error, text):
    with pytest.raises(error, match=text):
        Samples.of(ARGUMENTS, given)


# --- ranges ---------------------------------------------------------------------------------------------------


def test_ranges_are_those_of_the_layers_over_all_samples():
    x = np.array([[1, 2, 3, 4], [-1, -1, -1, -1], [0.5, 0, 0, 0]], np.float32)
    found = calibrate(dense(), x, 2)
    assert (found.samples, found.batch, found.fractional_bits) == (3, 2, 16)
    product, relu = by_op(found, "MatMul", "first"), by_op(found, "Relu", "first")
    assert (product.low, product.high) == (-4, 10)
    assert (relu.low, relu.high) == (0, 10.5)
    # The last batch is filled up with the first sample.
    assert relu.mean_size == pytest.approx((10.5 + 0 + 1 + 10.5) / 4)
    assert product.fractional_bits == 32
    assert relu.fractional_bits == 16
    assert relu.elements == 8


def test_bits_are_those_of_the_untruncated_product():
    found = by_op(calibrate(dense(first=16.0), np.ones((1, 4), np.float32), 1), "MatMul", "first")
    assert found.size == 64
    assert found.bits == pytest.approx(6 + 32)
    assert found.used_bits == found.bits


def test_keys_depend_on_the_model_alone():
    # TensorFlow and Keras number what they make through the process.
    found = [calibrate(small_net(), np.zeros((6, 8, 8, 1), np.float32), batch) for batch in (1, 3)]
    assert list(found[0].ranges) == list(found[1].ranges)
    assert "conv2d/Conv2D" in found[0].ranges


def test_at_another_batch_size_a_graph_may_differ():
    weights = tf.Variable(np.eye(3, dtype=np.float32))

    def by_batch(x):
        y = tf.nn.relu(x @ weights)
        return y if x.shape[0] == 1 else tf.nn.relu(y - 1)

    model = Model(source_of(by_batch, {"x": ARGUMENTS["x"]}), "model-owner", "client", sf.FixedPoint())
    found = calibrate(model, np.ones((3, 3), np.float32), 3)
    assert model.calibrated(found).compiled(1).parameters
    assert model.calibrated(found, trust=2.0).compiled(3).parameters
    with pytest.raises(EncodingError, match=r"for batches of 3\. Calibrate for the same"):
        model.calibrated(found, trust=2.0).compiled(1)


def test_several_inputs_and_a_table():
    a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b")
    model = keras.Model([a, b], layers.Dense(2)(layers.Multiply()([a, b])))
    found = calibrate(model, {"a": np.full((2, 3), 3.0), "b": np.full((2, 3), -2.0)}, 2)
    (product,) = (one for one in found.ranges.values() if one.op == "Mul")
    assert (product.low, product.high) == (-6, -6)


def test_a_function_without_a_batch_axis():
    weights = tf.Variable(np.eye(3, dtype=np.float32) * 2)

    @tf.function(input_signature=[tf.TensorSpec([3, 3])])
    def twice(x):
        return x @ weights

    found = calibrate(twice, np.stack([np.eye(3), 5 * np.eye(3)]), 8)
    assert found.batch == 1
    assert max(one.high for one in found.ranges.values()) == 10


def test_nan_in_a_layer_names_it():
    model = dense()
    model.get_layer("second").set_weights([np.full((4, 3), np.inf), np.zeros(3)])
    with pytest.raises(EncodingError, match="MatMul of layer 'second' gives NaN or infinite"):
        calibrate(model, ones(), 2)


def test_nan_samples_are_refused():
    with pytest.raises(EncodingError, match="NaN"):
        calibrate(dense(), np.full((2, 4), np.nan), 2)


def test_samples_of_another_shape_are_refused():
    with pytest.raises(ShapeError, match=r"\[n, 4\]"):
        calibrate(dense(), np.zeros((2, 5)), 2)


# --- the watch ------------------------------------------------------------------------------------------------


def test_the_watch_sees_what_wraps():
    protocol = Watched()
    x = sf.private_tensor(np.array([2.0**20]), "alice").shared(protocol)
    protocol.watch.taken()
    y = x * x
    seen = protocol.watch.taken()
    assert seen.largest == 2.0**72
    assert seen.bits == 71
    # The ring's own value has wrapped to 0.
    assert y.reveal("carol").numpy() == 0
    assert protocol.watch.taken().largest == 0


def test_the_watch_sums_what_is_truncated():
    protocol = Watched()
    x = sf.private_tensor(np.array([1.0, -3.0]), "alice").shared(protocol)
    product = x * x
    protocol.watch.taken()
    product.ready()
    seen = protocol.watch.taken()
    assert seen.truncated == 9 * 2.0**32
    assert seen.truncated_sum == 10 * 2.0**32


def test_the_watch_sees_the_inside_of_a_layer():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.Softmax(), layers.Dense(2)])
    found = calibrate(model, ones(), 2)
    (softmax,) = (one for one in found.ranges.values() if "softmax" in one.op.lower())
    assert softmax.high <= 1
    assert softmax.inside_bits > softmax.bits


# --- the encoding ---------------------------------------------------------------------------------------------


def test_small_models_get_the_most_bits():
    assert calibrate(dense(), ones(), 2).fractional_bits == 16
    assert calibrate(dense(), ones(), 2, most=20).fractional_bits == 20


@pytest.mark.parametrize("size", [2.0**27, 2.0**29, 2.0**33])
def test_the_most_bits_that_fit_are_chosen(size):
    x = np.ones((1, 4), np.float32)
    found = calibrate(dense(first=size, second=2.0**-10), x, 1)
    bits = found.fractional_bits
    assert not overflows(found)
    assert bits < 16
    assert overflows(calibrate(dense(first=size, second=2.0**-10), x, 1, fractional_bits=bits + 1))
    # 4 * size at twice the bits, and the margin.
    assert math.log2(4 * size) + 2 * bits <= 62 - MARGIN_BITS


def test_what_fits_is_right_and_what_does_not_is_noise():
    model, x = dense(first=2.0**28), np.ones((1, 4), np.float32)
    wanted = model(x).numpy()
    found = calibrate(model, x, 1)
    for bits, close in ((found.fractional_bits, True), (16, False)):
        private = as_model(model, bits)
        compiled, protocol = private.compiled(1), sf.Plain(fixed_point=private.point)
        parameters = shared_parameters(compiled, private.parameters(1), private.owner, protocol)
        given = {"x": sf.private_tensor(x, "client").shared(protocol)}
        got = compiled.run(given, parameters, protocol)["result"].reveal("client").numpy()
        assert np.allclose(got, wanted, rtol=1e-3) == close


def test_an_overflow_is_refused_with_layer_range_rule_and_way_out():
    found = calibrate(dense(first=2.0**29), ones(), 2, fractional_bits=16)
    with pytest.raises(EncodingError) as caught:
        require_fit(found)
    text = str(caught.value)
    for part in ("16 fractional bits", "layer 'first' (MatMul)", "2.", "32 fractional", "60 are allowed", "Use fewer"):
        assert part in text
    with pytest.raises(EncodingError, match="layer 'first'"):
        as_model(dense(first=2.0**29)).calibrated(found)
    with pytest.raises(EncodingError, match="layer 'first'"):
        sf.compile_model(dense(first=2.0**29), owner="owner", client="client", batch_sizes=(1,), calibration=found)


def test_a_value_in_the_margin_is_refused_though_it_fits():
    # 2^28 * 2^32 = 2^60: within the ring, and no room for an input twice as large.
    model, x = dense(first=2.0**26 * 1.01, second=2.0**-20), np.ones((1, 4), np.float32)
    found = by_op(calibrate(model, x, 1, fractional_bits=16), "MatMul", "first")
    assert 60 < found.bits < 62
    assert 0 < excess_bits(found) < 0.1
    assert calibrate(model, x, 1).fractional_bits == 15


def test_nothing_fits():
    with pytest.raises(EncodingError, match=r"No encoding fits.*8 fractional bits.*'second' \(MatMul\).*Rescale"):
        calibrate(dense(first=2.0**24, second=2.0**24), ones(), 2)


def test_a_weight_that_cannot_be_encoded_is_named():
    with pytest.raises(EncodingError, match=r"Parameter 'first/kernel'.*Rescale"):
        calibrate(dense(first=2.0**47, second=2.0**-40), ones(), 2)


def test_weights_of_a_layer_alone_get_fewer_bits():
    model, x = dense(first=2.0**30, second=2.0**-20), ones()
    uniform, narrow = calibrate(model, x, 2), calibrate(model, x, 2, per_layer=True)
    assert uniform.fractional_bits < 16
    assert narrow.fractional_bits == 16
    assert set(narrow.parameter_bits) == {"first/kernel"}
    assert 4 <= narrow.parameter_bits["first/kernel"] < 16
    compiled = as_model(model).calibrated(narrow).compiled(1)
    assert compiled.parameters["first/kernel"].fractional_bits == narrow.parameter_bits["first/kernel"]
    # What is added to the product has its scale: nothing shifts the product up again.
    assert compiled.parameters["first/bias"].fractional_bits == 16 + narrow.parameter_bits["first/kernel"]
    assert compiled.parameters["second/kernel"].fractional_bits == 16


def test_fewer_bits_of_weights_keep_the_result():
    model, x = dense(first=2.0**30, second=0.3 * 2.0**-6), ones()
    wanted = model(x[:2]).numpy()
    errors = []
    for per_layer in (False, True):
        found = calibrate(model, x, 2, per_layer=per_layer)
        private = as_model(model).calibrated(found)
        compiled, protocol = private.compiled(2), sf.SPDZ(fixed_point=found.point)
        parameters = shared_parameters(compiled, private.parameters(2), private.owner, protocol)
        given = {"x": sf.private_tensor(x[:2], "client").shared(protocol)}
        got = compiled.run(given, parameters, protocol)["result"].reveal("client").numpy()
        errors.append(np.abs(got - wanted).max())
    # The second layer's small weights keep the bits that the first one would have cost them.
    assert errors[1] < errors[0]
    assert errors[1] < 0.01 * np.abs(wanted).max()


# --- files ----------------------------------------------------------------------------------------------------


def test_a_file_keeps_it(tmp_path):
    found = calibrate(dense(first=2.0**30, second=2.0**-20), ones(), 2, per_layer=True)
    found.save(tmp_path / "ranges.json")
    assert Calibration.load(tmp_path / "ranges.json") == found


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        json.dumps({"format": "another", "ranges": {}}),
        json.dumps({**HEAD, "ranges": {"x": {"low": 1}}}),
        json.dumps({**HEAD, "fractional_bits": 90, "batch": 1, "samples": 1}),
        json.dumps({**HEAD, "fractional_bits": 16, "batch": 1}),
    ],
)
def test_another_file_is_refused(tmp_path, content):
    (tmp_path / "ranges.json").write_text(content)
    with pytest.raises(DataError, match="is no calibration"):
        Calibration.load(tmp_path / "ranges.json")


def test_no_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="is no calibration"):
        Calibration.load(tmp_path / "ranges.json")


def test_a_calibration_of_another_model_is_refused():
    found = calibrate(dense(), ones(), 2)
    other = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="other")])
    with pytest.raises(EncodingError, match=r"layer 'other'.*another model.*Calibrate again"):
        as_model(other).calibrated(found).compiled(1)


def test_a_calibration_serves_other_batch_sizes():
    found = calibrate(dense(), ones(), 2)
    assert as_model(dense(), 20).calibrated(found).compiled(7).parameters


def test_a_protocol_of_another_encoding_is_refused():
    found = calibrate(dense(), ones(), 2, fractional_bits=14)
    protocol = sf.SPDZ(fixed_point=sf.FixedPoint(16))
    with pytest.raises(EncodingError, match="for 14 fractional bits, the protocol has 16"):
        sf.compile_model(dense(), owner="owner", client="client", protocol=protocol, calibration=found)


def test_a_plan_has_the_encoding_of_its_calibration():
    found = calibrate(dense(), ones(), 2, fractional_bits=14)
    made = sf.compile_model(dense(), owner="owner", client="client", batch_sizes=(1,), calibration=found)
    other = sf.compile_model(
        dense(), owner="owner", client="client", batch_sizes=(1,), protocol=sf.SPDZ(fixed_point=sf.FixedPoint(14))
    )
    assert made.fingerprint == other.fingerprint


# --- optimistic truncation ------------------------------------------------------------------------------------


def test_failures_are_the_sum_of_what_is_truncated():
    x = np.ones((1, 4), np.float32)
    found = calibrate(dense(first=2.0), x, 1)
    # Four elements of 8.5 at 32 fractional bits, in the ReLU's truncation.
    assert found.failures == pytest.approx(4 * 8.5 * 2.0**32 * 2.0**-64)


def test_failures_grow_with_the_bits_and_the_batch():
    few, many = (calibrate(dense(), ones(), 2, fractional_bits=bits).failures for bits in (12, 16))
    assert many == pytest.approx(few * 2.0**8, rel=1e-3)
    single, double = (calibrate(dense(), ones(4), batch).failures for batch in (2, 4))
    assert double == pytest.approx(2 * single, rel=0.2)


def test_optimism_that_fails_too_often_is_refused():
    model = dense(first=2.0**14, second=2.0**-10)
    optimistic = sf.SPDZ(truncation=sf.Optimistic())
    often = calibrate(model, ones(), 2)
    assert often.failures / often.batch > MOST_FAILURES
    with pytest.raises(UnsupportedModelError, match=r"1e-06 wrong.*here .*'first'.*fewer fractional bits \(now 16"):
        require_rare_failures(optimistic, often)
    with pytest.raises(UnsupportedModelError, match="leave truncation exact"):
        sf.compile_model(model, owner="owner", client="client", protocol=optimistic, calibration=often)
    rarely = calibrate(model, ones(), 2, fractional_bits=9)
    require_rare_failures(sf.SPDZ(fixed_point=rarely.point, truncation=sf.Optimistic()), rarely)


def test_optimism_without_a_calibration_is_refused():
    optimistic = sf.SPDZ(truncation=sf.Optimistic())
    with pytest.raises(UnsupportedModelError, match="without a calibration nobody knows"):
        sf.compile_model(dense(), owner="owner", client="client", batch_sizes=(1,), protocol=optimistic)


def test_exact_truncation_needs_no_calibration():
    require_rare_failures(sf.SPDZ(), None)
    require_rare_failures(sf.Plain(), None)


def test_an_optimistic_plan_that_seldom_fails():
    found = calibrate(dense(), ones(), 2, fractional_bits=14)
    protocol = sf.SPDZ(fixed_point=found.point, truncation=sf.Optimistic())
    assert sf.compile_model(
        dense(), owner="owner", client="client", batch_sizes=(1,), protocol=protocol, calibration=found
    ).fingerprint


# --- trusted ranges -------------------------------------------------------------------------------------------


def small_net():
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(4, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )


def run_plain(private, x):
    compiled, protocol = private.compiled(len(x)), sf.Plain(fixed_point=private.point)
    parameters = shared_parameters(compiled, private.parameters(len(x)), private.owner, protocol)
    given = {"x": sf.private_tensor(x, "client").shared(protocol)}
    return compiled, given, parameters, protocol


def test_trusted_ranges_are_bounds_of_comparisons():
    model, x = small_net(), np.random.default_rng(0).normal(size=(6, 8, 8, 1)).astype(np.float32)
    found = calibrate(model, x, 2)
    compiled = as_model(model).calibrated(found, trust=2.0).compiled(2)
    nodes, ranges = {node.op: node for node in compiled.steps}, ranges_of(compiled, found)
    before = ranges[nodes["Relu"].inputs[0]]
    assert nodes["Relu"].attributes["bound"] == pytest.approx(2 * before.size, rel=0.02)
    before = ranges[nodes["MaxPool"].inputs[0]]
    assert nodes["MaxPool"].attributes["bound"] == pytest.approx(2 * (before.high - before.low), rel=0.02)
    plain = as_model(model).calibrated(found).compiled(2)
    assert not any("bound" in node.attributes for node in plain.steps)


def test_trusted_ranges_are_right_within_and_cheaper():
    model, x = small_net(), np.random.default_rng(0).normal(size=(2, 8, 8, 1)).astype(np.float32)
    found = calibrate(model, x, 2)
    costs = []
    for trust in (None, 2.0):
        private = as_model(model).calibrated(found, trust)
        compiled, protocol = private.compiled(2), sf.SPDZ(fixed_point=found.point)
        parameters = shared_parameters(compiled, private.parameters(2), private.owner, protocol)

        @sf.function
        def predict(x, compiled=compiled, parameters=parameters, protocol=protocol):
            return compiled.run({"x": x.shared(protocol)}, parameters, protocol)["result"].reveal("client")

        given = sf.private_tensor(x, "client")
        with sf.insecure_checked_bounds():
            assert np.allclose(predict(given).numpy(), model(x).numpy(), atol=1e-3)
        cost = predict.cost(sf.private_tensor(x.astype(np.float64), "client"))
        costs.append((cost.offline_bytes, cost.online_bytes))
    assert costs[1][0] < 0.9 * costs[0][0]
    assert costs[1][1] < costs[0][1]


def test_a_value_beyond_a_trusted_range_is_caught_where_bounds_are_checked():
    model, x = small_net(), np.random.default_rng(0).normal(size=(2, 8, 8, 1)).astype(np.float32)
    private = as_model(model).calibrated(calibrate(model, x, 2), trust=1.5)
    compiled, given, parameters, protocol = run_plain(private, 10 * x)
    with sf.insecure_checked_bounds(), pytest.raises(UnsupportedModelError, match="beyond its declared bound"):
        compiled.run(given, parameters, protocol)


@pytest.mark.parametrize("margin", [0.5, 0.0, -1.0, float("nan")])
def test_a_margin_below_one_is_refused(margin):
    with pytest.raises(EncodingError, match="at least 1"):
        as_model(small_net()).calibrated(calibrate(small_net(), np.zeros((1, 8, 8, 1)), 1), margin).compiled(1)


def test_trusting_without_ranges_is_refused():
    with pytest.raises(EncodingError, match="takes a calibration"):
        sf.compile_model(dense(), owner="owner", client="client", trust_ranges=4.0)


# --- looking at every step ------------------------------------------------------------------------------------


def test_looking_at_steps_is_refused_in_a_traced_function():
    private = as_model(dense())
    compiled, given, parameters, protocol = run_plain(private, ones(2))

    @sf.function
    def leak(x):
        next(insecure_steps(compiled, {"x": x}, parameters, protocol))
        return x

    with pytest.raises(PlacementError, match="in this process alone"):
        leak(sf.private_tensor(ones(2), "client"))
    assert next(insecure_steps(compiled, given, parameters, protocol))


def test_a_private_model_by_a_calibration():
    model = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(8, activation="relu"), keras.layers.Dense(3, name="last")]
    )
    x = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)
    ranges = sf.calibrate(model, x)
    usual = sf.private_model(model, owner="owner")
    trusting = sf.private_model(model, owner="owner", calibration=ranges, trust_ranges=4)
    np.testing.assert_allclose(trusting.predict(x, receiver="client"), model(x), atol=1e-3)
    assert trusting.cost(1).online_bytes < usual.cost(1).online_bytes
    other = sf.SPDZ(fixed_point=sf.FixedPoint(ranges.fractional_bits - 4))
    with pytest.raises(EncodingError, match="fractional bits"):
        sf.private_model(model, owner="owner", protocol=other, calibration=ranges)
    with pytest.raises(EncodingError, match="Calibrate on samples"):
        sf.private_model(model, owner="owner", trust_ranges=4)
