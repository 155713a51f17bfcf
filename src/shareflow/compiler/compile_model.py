"""A model as a plan: its owner loads the weights, clients ask for predictions."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf

from shareflow.compiler.calibration import Calibration
from shareflow.compiler.cost.kinds import ModelChoice, choose_kind
from shareflow.compiler.cost.network import Network
from shareflow.compiler.front.source import Argument
from shareflow.compiler.model import Model, source_of
from shareflow.compiler.optimistic import require_rare_failures
from shareflow.compiler.parameters import check_same_parameters
from shareflow.compiler.passes.polynomial_relu import Polynomial
from shareflow.compiler.private_graph import finish
from shareflow.compiler.scope import scope_name
from shareflow.compiler.sharing import shared_inputs
from shareflow.errors import EncodingError, PlanError, UnsupportedModelError
from shareflow.party.party import Party
from shareflow.planning import Entry, Input, plan
from shareflow.protocol.default import current_protocol
from shareflow.protocol.protocol import Protocol
from shareflow.protocol.spdz import SPDZ
from shareflow.protocol.tensor import PrivateTensor
from shareflow.runtime.plan import Plan

P = TypeVar("P", bound=Protocol)

LOAD, PREDICT = "load", "predict"
# One row for a single request, more for those that wait together.
BATCH_SIZES = (1, 8, 32)
# Elements that one sample's values have in all: a model with more of them gains nothing from a batch, and a plan holds
# a graph for each batch size.
_LARGE = 1 << 21


def compile_model(
    model: Any,
    *,
    owner: Party | str,
    client: Party | str,
    parties: Mapping[str, Party | str] | None = None,
    inputs: Mapping[str, Argument] | None = None,
    signature: str | None = None,
    batch_sizes: Sequence[int] | None = None,
    protocol: Protocol | None = None,
    calibration: Calibration | None = None,
    trust_ranges: float | None = None,
    network: str | Network | None = None,
    polynomial: Polynomial | tuple[int, float] | None = None,
) -> Plan:
    """A plan with two entries: ``load`` takes the owner's weights and keeps them as masked shares; ``predict`` takes
    one sample of a client, and gives it the scores.

    The plan depends on the model's layers and shapes, and on no weight.

    Args:
        model: a built Keras 3 model of any topology, a tf.function, or the path of a saved model (docs/models.md).
        owner: the party that knows variables, and floating arrays in the code.
        client: the party that asks and alone learns the results.
        parties: other parties that bring inputs, by input name; before those that ``inputs`` name.
        inputs: shapes, types and parties by name, of a function that has no input signature.
        signature: which function of a SavedModel that has several.
        batch_sizes: a graph is traced for each; requests that wait together are computed together. By default 1, 8
            and 32, and 1 alone for large models.
        protocol: the current one by default; with a calibration, in its encoding.
        calibration: of the model on samples (docs/accuracy.md): a layer that overflows is refused.
        trust_ranges: with a calibration, comparisons look at so many times the samples' range alone: cheaper, and wrong
            for a value beyond.
        network: between the parties; comparisons and maxima are then computed as takes the least time on it
            (:func:`shareflow.choose`). With a calibration truncation may become optimistic for it, where that fails
            seldom enough and ``protocol`` is left out (docs/cost.md).
        polynomial: (degree, bound): ReLUs may be this polynomial, where that is faster on the network, and where the
            calibration's range is within the bound. **Results change**: check them.

    Raises:
        UnsupportedModelError: the model, or an op of it, cannot be made private; or optimistic truncation would fail
            too often, or without a calibration nobody knows how often.
        EncodingError: by the calibration a layer overflows; or it is of another model or encoding; or a polynomial is
            allowed without a calibration.
        PlanError: batch sizes, parties or options that do not go together.
    """
    if network is not None:
        choice = choose_model(
            model,
            network=network,
            owner=owner,
            client=client,
            parties=parties,
            inputs=inputs,
            signature=signature,
            batch_sizes=batch_sizes,
            protocol=protocol,
            calibration=calibration,
            trust_ranges=trust_ranges,
            polynomial=polynomial,
        )
        return choice.plan
    if polynomial is not None:
        raise PlanError(
            "Whether a ReLU becomes a polynomial follows from the network; none is given. Give one, such as 'wan', or "
            "make the model with PolynomialReLU (shareflow.keras_layers)."
        )
    meeting = protocol or current_protocol()
    prepared = Model(source_of(model, inputs, signature), owner, client, meeting.fixed_point, parties)
    prepared, meeting = calibrated(prepared, meeting, protocol is not None, calibration, trust_ranges)
    return plan(entries_of(prepared, batch_sizes, meeting), meeting)


def choose_model(
    model: Any,
    *,
    network: str | Network,
    owner: Party | str,
    client: Party | str,
    parties: Mapping[str, Party | str] | None = None,
    inputs: Mapping[str, Argument] | None = None,
    signature: str | None = None,
    batch_sizes: Sequence[int] | None = None,
    protocol: Protocol | None = None,
    calibration: Calibration | None = None,
    trust_ranges: float | None = None,
    polynomial: Polynomial | tuple[int, float] | None = None,
    weigh_truncation: bool | None = None,
) -> ModelChoice:
    """The plan of :func:`compile_model` for a network, with all that was weighed for it.

    Args:
        weigh_truncation: whether truncation may become optimistic where the calibration allows it; by default where no
            protocol is given, which would say how it truncates. The other arguments are those of ``compile_model``.

    Raises:
        ConfigError: no such network. And what ``compile_model`` raises.
    """
    meeting = protocol or current_protocol()
    if not isinstance(meeting, SPDZ):
        raise PlanError(f"A plan is for parties on their own, and so for SPDZ; got {type(meeting).__name__}.")
    allowed = None if polynomial is None else Polynomial.of(polynomial)
    if allowed is not None and trust_ranges is not None:
        raise PlanError(
            "Trusted ranges are those of the exact model, and polynomials change them. Leave out one of the two."
        )
    prepared = Model(source_of(model, inputs, signature), owner, client, meeting.fixed_point, parties)
    prepared, spdz = calibrated(prepared, meeting, protocol is not None, calibration, trust_ranges)
    return choose_kind(
        prepared,
        spdz,
        lambda kind, truncating: plan(entries_of(kind, batch_sizes, truncating), truncating),
        _sizes(prepared, batch_sizes) or (1,),
        network,
        weigh_truncation=protocol is None if weigh_truncation is None else weigh_truncation,
        polynomial=allowed,
    )


def calibrated(
    model: Model, protocol: P, chosen: bool, calibration: Calibration | None, trust_ranges: float | None
) -> tuple[Model, P]:
    """Model and protocol in the encoding of a calibration, if there is one.

    Args:
        chosen: whether the user named the protocol; then its encoding must be the calibration's.

    Raises:
        EncodingError: the two encodings differ, a layer overflows, or there are no ranges to trust.
    """
    if calibration is None:
        if trust_ranges is not None:
            raise EncodingError(
                "Trusting ranges takes a calibration that has them; there is none. Calibrate on samples."
            )
        return model, protocol
    if chosen and protocol.fixed_point != calibration.point:
        raise EncodingError(
            f"The calibration is for {calibration.fractional_bits} fractional bits, the protocol has "
            f"{protocol.fixed_point.fractional_bits}. Give the protocol fixed_point=calibration.point, or calibrate "
            "for its own."
        )
    meeting = dataclasses.replace(protocol, fixed_point=calibration.point)  # type: ignore[type-var]
    return model.calibrated(calibration, trust_ranges), meeting


def entries_of(model: Model, batch_sizes: Sequence[int] | None, protocol: Protocol) -> dict[str, Entry]:
    """The entries of :func:`compile_model`, before they are traced."""
    require_rare_failures(protocol, model.calibration)
    sizes = _sizes(model, batch_sizes)
    parameters = model.compiled(1).parameters
    for size in sizes:
        check_same_parameters(parameters, model.compiled(size).parameters, size)

    def load(**weights: PrivateTensor) -> dict[str, PrivateTensor]:
        kept = {}
        for name, value in weights.items():
            with tf.name_scope(scope_name(name)):
                kept[name] = value.shared(protocol, parameters[name].fractional_bits)
        return kept

    def predict(**values: PrivateTensor) -> PrivateTensor | dict[str, PrivateTensor]:
        first = next(iter(model.source.inputs))
        compiled = model.compiled(values[first].shape[0] if sizes else 1)
        inputs = shared_inputs(compiled.graph, {name: values[name] for name in model.source.inputs}, protocol)
        results = {
            name: finish(value.reveal(model.client), model.client, compiled.activations.get(name))
            for name, value in compiled.run(inputs, values, protocol).items()
        }
        return next(iter(results.values())) if len(results) == 1 else results

    names = tuple(parameters)
    arrays = {
        name: Input(model.owner, parameter.shape, parameter.output.dtype) for name, parameter in parameters.items()
    }
    brought = {
        name: Input(model.parties[name], argument.shape if _batched(model) else argument.full_shape(1), argument.dtype)
        for name, argument in model.source.inputs.items()
    }
    clash = set(arrays) & set(brought)
    if clash:
        raise UnsupportedModelError(f"Input {sorted(clash)[0]!r} has the name of a parameter. Rename the input.")
    entries = {PREDICT: Entry(predict, brought, uses=names, batch_sizes=sizes)}
    return {LOAD: Entry(load, arrays, keeps=names), **entries} if names else entries


def parameters_of(
    model: Any, inputs: Mapping[str, Argument] | None = None, signature: str | None = None
) -> dict[str, np.ndarray]:
    """The inputs of ``load`` for a model: what its owner shares, by name, batch normalisation folded in.

    Raises:
        UnsupportedModelError: as :func:`compile_model`.
    """
    point = current_protocol().fixed_point
    return Model(source_of(model, inputs, signature), "model-owner", "client", point).parameters()


def _sizes(model: Model, batch_sizes: Sequence[int] | None) -> tuple[int, ...]:
    if not _batched(model):
        return ()
    return tuple(_usual_sizes(model) if batch_sizes is None else batch_sizes)


def _batched(model: Model) -> bool:
    # Where an input has no batch axis, what is computed is one whole, and no rows.
    return bool(model.source.inputs) and all(argument.batched for argument in model.source.inputs.values())


def _usual_sizes(model: Model) -> tuple[int, ...]:
    steps = model.compiled(1).steps
    elements = sum(int(np.prod(shape)) for node in steps for shape in node.shapes)
    return (1,) if elements > _LARGE else BATCH_SIZES
