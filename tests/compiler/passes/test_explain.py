"""The estimate against the cost of the traced program, and the table of what passes saved."""

import io
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from rich.console import Console
from tracing import CLIENT, OWNER, cost, graph_of, graph_of_model

import shareflow as sf
from shareflow.compiler.estimate import estimate
from shareflow.compiler.explain import explain
from shareflow.compiler.model import Model, source_of
from shareflow.compiler.passes import optimize
from shareflow.errors import UnsupportedModelError


def small():
    return keras.Sequential(
        [
            keras.Input((9, 9, 2)),
            layers.Conv2D(3, 3, use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.MaxPooling2D(2),
            layers.Conv2D(4, 2, padding="same", activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3),
        ]
    )


def recurrent():
    return keras.Sequential([keras.Input((2, 3)), layers.Dense(3), layers.GRU(2), layers.Dense(1)])


def gelus():
    front = [keras.Input((6,)), layers.Dense(8, activation="gelu"), layers.LayerNormalization()]
    return keras.Sequential([*front, layers.Dense(2, activation="sigmoid")])


@pytest.mark.parametrize("improve", [optimize, lambda graph: graph], ids=["improved", "as read"])
@pytest.mark.parametrize("build, tolerance", [(small, 0.0), (gelus, 0.02), (recurrent, 0.05)])
def test_an_estimate_is_near_the_cost_of_the_program(build, tolerance, improve):
    graph = improve(graph_of_model(build(), 1))
    found, (counted, _) = estimate(graph), cost(graph)
    assert not found.unknown
    assert found.rounds == pytest.approx(counted.rounds, rel=tolerance, abs=0)
    assert found.online_bytes == pytest.approx(counted.online_bytes, rel=tolerance, abs=0)
    assert found.offline_bytes == pytest.approx(counted.offline_bytes, rel=tolerance, abs=0)


def test_products_are_counted_as_written_on_paper():
    def count(function, *shapes):
        return estimate(graph_of(function, *shapes)).products

    kernel = np.ones((3, 3, 4, 5), np.float32) / 3
    assert count(lambda x: x @ np.full((4, 5), 0.3, np.float32), (2, 4)) == 2 * 4 * 5
    assert count(lambda x: tf.matmul(x, x, transpose_a=True), (2, 4)) == 2 * 4 * 4
    assert count(lambda x: tf.nn.conv2d(x, kernel, 1, "VALID"), (1, 5, 5, 4)) == 9 * 5 * 36
    assert count(lambda x: tf.nn.conv2d(x, kernel[:, :, :2, :4], 1, "VALID"), (1, 5, 5, 4)) == 9 * 4 * 18
    assert count(lambda x: tf.nn.depthwise_conv2d(x, kernel[..., :2], [1] * 4, "VALID"), (1, 5, 5, 4)) == 9 * 8 * 9
    assert count(lambda x: tf.einsum("ab,cb->ac", x, x), (2, 4)) == 2 * 2 * 4
    assert count(lambda x: tf.nn.relu(x), (2, 4)) == 0


def test_a_graph_with_no_private_form_says_so():
    found = estimate(graph_of(lambda x: tf.linalg.det(x), (3, 3)))
    assert found.unknown == ("MatrixDeterminant",)


def model():
    return Model(source_of(small()), OWNER, CLIENT, sf.FixedPoint())


def test_an_explanation_tells_each_pass_and_what_it_saved():
    explanation = explain(model(), 2)
    names = [step.name for step in explanation.improvements]
    assert "fold_affine" in names and "pool_before_relu" in names
    folded = next(step for step in explanation.improvements if step.name == "fold_affine")
    assert {note.what for note in folded.notes} >= {"scale into the layer before"}
    assert explanation.after.rounds < explanation.before.rounds
    assert explanation.after.online_bytes < explanation.before.online_bytes
    assert explanation.after == estimate(model().compiled(2).graph)


def test_notes_of_a_pass_are_its_own():
    for step in explain(model()).improvements:
        assert all(note.count > 0 for note in step.notes)
        assert len({note.what for note in step.notes}) == len(step.notes)


def test_the_table_is_for_people_and_the_json_for_programs():
    explanation = explain(model(), 2)
    console = Console(file=io.StringIO(), width=160)
    console.print(explanation)
    text = console.file.getvalue()
    for words in (
        "batch of 2",
        "fold affine",
        "scale into the layer before 1x",
        "as it was read",
        "as it runs",
        "Rounds",
    ):
        assert words in text
    data = json.loads(json.dumps(explanation.to_json()))
    assert data["batch"] == 2 and data["after"]["rounds"] == explanation.after.rounds
    assert [step["pass"] for step in data["passes"]] == [step.name for step in explanation.improvements]


def test_a_model_with_nothing_to_improve_has_a_short_table():
    plain = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    explanation = explain(Model(source_of(plain), OWNER, CLIENT, sf.FixedPoint()))
    assert explanation.improvements == () and explanation.after == explanation.before


def test_a_model_that_cannot_be_read_is_refused():
    source = source_of(tf.function(lambda x: tf.random.normal((2,)) + x), {"x": _argument()})
    with pytest.raises(UnsupportedModelError, match="random"):
        explain(Model(source, OWNER, CLIENT, sf.FixedPoint()))


def _argument():
    from shareflow.compiler.front.source import Argument

    return Argument((2,), batched=False)
