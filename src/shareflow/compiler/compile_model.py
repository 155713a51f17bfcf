"""A Keras model as a plan: its owner loads the weights, clients ask for predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from shareflow.compiler.keras_chain import chain_of
from shareflow.compiler.keras_layers import Step, convert
from shareflow.compiler.model_steps import finish, kept_bits, named, scope_name
from shareflow.compiler.pool_before_relu import pool_before_relu
from shareflow.nn.layer import Layer
from shareflow.party.party import Party, as_party
from shareflow.planning import Entry, Input, array_inputs, plan
from shareflow.protocol.default import current_protocol
from shareflow.protocol.protocol import Protocol
from shareflow.protocol.tensor import PrivateTensor
from shareflow.runtime.plan import Plan

LOAD, PREDICT = "load", "predict"
# One row for a single request, more for those that wait together.
BATCH_SIZES = (1, 8, 32)


def compile_model(
    model: keras.Model,
    *,
    owner: Party | str,
    client: Party | str,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    protocol: Protocol | None = None,
) -> Plan:
    """A plan with two entries: ``load`` takes the owner's weights and keeps them as masked shares; ``predict`` takes
    one sample [*input_shape] (float32) of a client, and gives it the scores.

    The plan depends on the model's layers and shapes, and on no weight.

    Args:
        model: a built Sequential or linear functional Keras 3 model.
        owner: the party that knows the weights.
        client: the party that asks and alone learns the result.
        batch_sizes: a graph is traced for each; requests that wait together are computed together.
        protocol: the current one by default.

    Raises:
        UnsupportedModelError: the model, or one of its layers, cannot be made private.
        PlanError: batch sizes or parties that do not go together.
    """
    meeting = protocol or current_protocol()
    return plan(entries_of(model, as_party(owner), as_party(client), batch_sizes, meeting), meeting)


def entries_of(
    model: keras.Model, owner: Party, client: Party, batch_sizes: Sequence[int], protocol: Protocol
) -> dict[str, Entry]:
    """The entries of :func:`compile_model`, before they are traced."""
    shape, links = chain_of(model)
    found, final = convert(links)
    steps = named(found, [link.layer for link in links])
    parameters = _parameters(steps)
    scale = protocol.fixed_point.fractional_bits

    def load(**weights: PrivateTensor) -> dict[str, PrivateTensor]:
        kept = {}
        for name, value in weights.items():
            with tf.name_scope(scope_name(name)):
                kept[name] = value.shared(protocol, kept_bits(name.rpartition("/")[2], scale))
        return kept

    def predict(x: PrivateTensor, **weights: PrivateTensor) -> PrivateTensor:
        layers = pool_before_relu(tuple((name, _layer(name, step, weights)) for name, step in steps.items()))
        y = x.shared(protocol)
        for name, layer in layers:
            with tf.name_scope(scope_name(name)):
                y = layer(y)
        return finish(y.reveal(client), client, final)

    names = tuple(parameters)
    return {
        LOAD: Entry(load, array_inputs(parameters, owner), keeps=names),
        PREDICT: Entry(predict, {"x": Input(client, shape)}, uses=names, batch_sizes=tuple(batch_sizes)),
    }


def parameters_of(model: keras.Model) -> dict[str, np.ndarray]:
    """The inputs of ``load`` for a model: its weights by name, batch normalisation folded in.

    Raises:
        UnsupportedModelError: as :func:`compile_model`.
    """
    links = chain_of(model)[1]
    return _parameters(named(convert(links)[0], [link.layer for link in links]))


def _parameters(steps: Mapping[str, Step]) -> dict[str, np.ndarray]:
    return {f"{name}/{part}": value for name, step in steps.items() for part, value in step.parameters.items()}


def _layer(name: str, step: Step, weights: Mapping[str, Any]) -> Layer:
    return step.make(**{part: weights[f"{name}/{part}"] for part in step.parameters})
