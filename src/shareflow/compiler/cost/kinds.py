"""The kinds of plan that a model may have, each where it is allowed; of these, the one with the least predicted time.

Truncation is exact, or optimistic where the calibration lets it fail seldom enough. A ReLU is exact, or a polynomial
where the user allows one and its bound covers the calibration's range. Both change results, if little or seldom, so
that nothing but a calibration or the user opens them. They go together: a polynomial truncates, which takes rounds
where truncation is exact.
"""

from __future__ import annotations

import dataclasses
import functools
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from shareflow.compiler.calibration import Calibration, Range, result_keys
from shareflow.compiler.cost.choose import PlanChoice, choose_plan
from shareflow.compiler.cost.network import Network
from shareflow.compiler.cost.speeds import Speeds, current_speeds
from shareflow.compiler.model import Model
from shareflow.compiler.optimistic import require_rare_failures, too_often
from shareflow.compiler.passes.polynomial_relu import Polynomial
from shareflow.compiler.polynomials import Replaceable, replaceable, with_polynomials
from shareflow.errors import EncodingError
from shareflow.nn.activation import polynomial as by_polynomial
from shareflow.nn.activation import relu
from shareflow.planning import Entry, Input, plan
from shareflow.protocol.functionality.truncation import Optimistic
from shareflow.protocol.spdz import SPDZ
from shareflow.protocol.tensor import PrivateTensor
from shareflow.runtime.plan import Plan

Make = Callable[[Model, SPDZ], Plan]
# The part of the time that has to be spared by what fails now and then, or is another function.
_WORTH = 0.01

_NO_PLAN = "no plan with it that is allowed is faster"


@dataclass(frozen=True)
class Kind:
    """One kind of plan that was looked at.

    Args:
        truncation: "exact" or "optimistic".
        polynomials: how many ReLUs are one.
        seconds: predicted, summed over the plan's graphs; None where the kind is not allowed.
        refused: why it is not.
        chosen: whether the plan is of this kind.
    """

    truncation: str
    polynomials: int
    seconds: float | None
    refused: str = ""
    chosen: bool = False

    def __str__(self) -> str:
        count = self.polynomials
        replaced = "" if not count else ", 1 ReLU as a polynomial" if count == 1 else f", {count} ReLUs as polynomials"
        return f"{self.truncation} truncation{replaced}"


@dataclass(frozen=True, eq=False)
class ModelChoice:
    """A model's plan in the kind and the variants of the least predicted time.

    Args:
        choice: the plan, its variants and predictions; ``default`` is the exact kind without choices.
        kinds: all that were looked at; those with a time first, best first.
        polynomial: that was allowed in place of a ReLU, if any.
        replaced: the ReLUs that it stands for.
        kept: ReLUs that stay exact although a polynomial was allowed, and why.
    """

    choice: PlanChoice
    kinds: tuple[Kind, ...]
    polynomial: Polynomial | None
    replaced: tuple[str, ...]
    kept: Mapping[str, str]

    @property
    def plan(self) -> Plan:
        """In this kind."""
        return self.choice.plan

    @property
    def chosen(self) -> Kind:
        """The plan's kind."""
        return next(kind for kind in self.kinds if kind.chosen)


@dataclass(frozen=True, eq=False)
class _Tried:
    kind: Kind
    choice: PlanChoice
    replaced: tuple[str, ...]
    kept: Mapping[str, str]


def choose_kind(
    model: Model,
    protocol: SPDZ,
    make: Make,
    sizes: Sequence[int],
    network: str | Network,
    *,
    weigh_truncation: bool = True,
    polynomial: Polynomial | None = None,
    speeds: Speeds | None = None,
) -> ModelChoice:
    """Traces the plan in each kind that is allowed, and takes the one with the least predicted time.

    Optimistic truncation and polynomials are taken where they spare at least a hundredth of it.

    Args:
        model: in the encoding of its calibration, if it has one.
        protocol: that the plan is for; where its truncation is optimistic, it stays so.
        make: traces the plan.
        sizes: batch sizes of the plan.
        network: as for :func:`shareflow.choose`.
        weigh_truncation: whether optimistic truncation is looked at where truncation is exact.
        polynomial: allowed in place of a ReLU; takes a calibration.
        speeds: as for :func:`shareflow.choose`.

    Raises:
        ConfigError: no such network.
        EncodingError: a polynomial without a calibration, or the calibration is of another graph.
        UnsupportedModelError: the protocol's truncation is optimistic, and would fail too often.
    """
    line, fast = Network.parse(network), speeds or current_speeds()
    calibration = model.calibration
    require_rare_failures(protocol, calibration)
    allowed = _replaceable(model, sizes, polynomial)
    tried: list[_Tried] = []
    refused: list[Kind] = []
    for name, meeting in _truncations(protocol).items():
        if name == "optimistic" and meeting is not protocol and not weigh_truncation:
            refused.append(Kind(name, 0, None, "truncation is said to be exact"))
            continue
        weighed: list[tuple[Model, tuple[str, ...]]] = [(model, ())]
        kept = dict(allowed.kept)
        if polynomial is not None and calibration is not None:
            replaced, slower = _cheaper(model, meeting, sizes, allowed.allowed, polynomial, line, fast)
            kept.update(slower)
            if replaced:
                ranges = with_polynomials(calibration, allowed.allowed, replaced, polynomial)
                weighed.append((model.approximated(replaced, polynomial, ranges), replaced))
        for candidate, replaced in weighed:
            reason = _refusal(name, candidate.calibration)
            if reason is not None:
                refused.append(Kind(name, len(replaced), None, reason))
                continue
            choice = choose_plan(functools.partial(make, candidate, meeting), meeting, line, speeds=fast)
            tried.append(_Tried(Kind(name, len(replaced), choice.seconds), choice, replaced, kept))
    # In the order in which they were looked at, exact before optimistic and ReLU before a polynomial: a failure now and
    # then, or a polynomial, has to be worth it.
    best = tried[0]
    for one in tried[1:]:
        if one.choice.seconds < (1 - _WORTH) * best.choice.seconds:
            best = one
    tried_by_time = sorted(tried, key=lambda one: one.choice.seconds)
    reasons = {name: _NO_PLAN for name in allowed.allowed if name not in best.replaced} | dict(best.kept)
    return ModelChoice(
        dataclasses.replace(best.choice, default=tried[0].choice.default),
        (*(dataclasses.replace(one.kind, chosen=one is best) for one in tried_by_time), *refused),
        polynomial,
        best.replaced,
        reasons,
    )


def _truncations(protocol: SPDZ) -> dict[str, SPDZ]:
    if isinstance(protocol.truncation, Optimistic):
        return {"optimistic": protocol}
    return {"exact": protocol, "optimistic": dataclasses.replace(protocol, truncation=Optimistic())}


def _refusal(truncation: str, calibration: Calibration | None) -> str | None:
    if truncation == "exact":
        return None
    if calibration is None:
        return "without a calibration nobody knows how often it fails"
    return too_often(calibration)


# --- ReLUs --------------------------------------------------------------------------------------------------------


def _replaceable(model: Model, sizes: Sequence[int], polynomial: Polynomial | None) -> Replaceable:
    """Those that may be replaced at all batch sizes: a prediction is the same function at each of them."""
    if polynomial is None:
        return Replaceable({}, {})
    if model.calibration is None:
        raise EncodingError(
            "A polynomial follows ReLU within its bound alone, so a calibration has to say what ReLUs take; there is "
            "none. Calibrate the model on samples."
        )
    found = Replaceable({}, {})
    for size in sizes:
        # The same at each, or the calibration is of another graph.
        found = replaceable(model.compiled(size), model.calibration, polynomial)
    return found


def _cheaper(
    model: Model,
    protocol: SPDZ,
    sizes: Sequence[int],
    allowed: Mapping[str, Range],
    polynomial: Polynomial,
    network: Network,
    speeds: Speeds,
) -> tuple[tuple[str, ...], dict[str, str]]:
    """The ReLUs that take less time as polynomials, summed over batch sizes; and the others."""
    point = protocol.fixed_point.fractional_bits
    priced: dict[tuple[tuple[int, ...], int], float] = {}

    def gain(shape: tuple[int, ...], bits: int) -> float:
        if (shape, bits) not in priced:
            exact, approximate = (
                _seconds_alone(step, shape, bits, protocol, network, speeds)
                for step in (relu, lambda x: by_polynomial(x, polynomial.coefficients, polynomial.bound))
            )
            priced[shape, bits] = exact - approximate
        return priced[shape, bits]

    gains: defaultdict[str, float] = defaultdict(float)
    for size in sizes:
        for output, key in result_keys(model.compiled(size)).items():
            if key in allowed:
                gains[key] += gain(output.shape, max(allowed[key].fractional_bits, point))
    slower = {key: "a polynomial is no faster there" for key in allowed if gains[key] <= 0}
    return tuple(key for key in allowed if key not in slower), slower


def _seconds_alone(
    step: Callable[[PrivateTensor], PrivateTensor],
    shape: tuple[int, ...],
    bits: int,
    protocol: SPDZ,
    network: Network,
    speeds: Speeds,
) -> float:
    """Of a plan that shares a value at the scale that it has in the model, computes this step, and reveals it."""

    def run(x: PrivateTensor) -> PrivateTensor:
        return step(x.shared(protocol, bits)).reveal("reader")

    entries = {"step": Entry(run, {"x": Input("owner", shape)})}
    return choose_plan(lambda: plan(entries, protocol), protocol, network, speeds=speeds).seconds
