"""Which ReLUs of a model may be polynomials, by its calibration, and what ranges they have then.

A polynomial follows ReLU on its interval alone, so that a node whose inputs went beyond on the samples stays exact.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from shareflow.compiler.calibration import Calibration, Range, ranges_of, result_keys
from shareflow.compiler.overflow import MARGIN_BITS
from shareflow.compiler.passes.polynomial_relu import Polynomial
from shareflow.compiler.private_graph import PrivateGraph
from shareflow.compiler.sharing import on_shares
from shareflow.compiler.watch import TRUNCATED_BITS, Sizes, Watched
from shareflow.nn.activation import polynomial as evaluated
from shareflow.protocol.placement import private_tensor
from shareflow.ring.fixed_point import FixedPoint

_POINTS = 1001


@dataclass(frozen=True)
class Replaceable:
    """The ReLUs of a model that meet shares, by :func:`shareflow.compiler.calibration.result_keys`.

    Args:
        allowed: those that the polynomial may replace, with the range of what each takes.
        kept: those that stay exact, and why.
    """

    allowed: dict[str, Range]
    kept: dict[str, str]


def replaceable(compiled: PrivateGraph, calibration: Calibration, polynomial: Polynomial) -> Replaceable:
    """Looks at each ReLU: the bound must cover what it took on the samples, and the ring must hold the polynomial.

    Raises:
        EncodingError: the calibration is of another graph.
    """
    keys, ranges = result_keys(compiled), ranges_of(compiled, calibration)
    found = Replaceable({}, {})
    for node in on_shares(compiled.steps, [parameter.output for parameter in compiled.parameters.values()]):
        if node.op != "Relu":
            continue
        key, taken = keys[node.outputs[0]], ranges[node.inputs[0]]
        bits = _sizes(polynomial, taken.fractional_bits, calibration.point).bits
        if taken.size > polynomial.bound:
            found.kept[key] = f"its inputs reach {taken.size:.3g}, beyond the bound {polynomial.bound:g}"
        elif bits > TRUNCATED_BITS - MARGIN_BITS:
            found.kept[key] = f"the polynomial takes {bits:.1f} bits, and {TRUNCATED_BITS - MARGIN_BITS} are allowed"
        else:
            found.allowed[key] = taken
    return found


def with_polynomials(
    calibration: Calibration, allowed: dict[str, Range], keys: Collection[str], polynomial: Polynomial
) -> Calibration:
    """The calibration with the ranges and failures of polynomials in place of these ReLUs'.

    Failures are those of values at the bound: more than there will be. Ranges of later steps stay those of the samples
    in the exact model.
    """
    ranges = dict(calibration.ranges)
    for key in keys:
        taken = allowed[key]
        sizes = _sizes(polynomial, taken.fractional_bits, calibration.point)
        values = np.polynomial.polynomial.polyval(np.linspace(taken.low, taken.high, _POINTS), polynomial.coefficients)
        ranges[key] = dataclasses.replace(
            ranges[key],
            op="shareflow.polynomial",
            low=float(values.min()),
            high=float(values.max()),
            inside_bits=sizes.bits,
            failures=sizes.truncated_sum * 2.0**-64 * ranges[key].elements,
        )
    return dataclasses.replace(calibration, ranges=ranges)


def _sizes(polynomial: Polynomial, fractional_bits: int, point: FixedPoint) -> Sizes:
    """What computing the polynomial of two elements, at both ends of its interval, takes of the ring."""
    protocol = Watched(fixed_point=point)
    bits = max(fractional_bits, point.fractional_bits)
    ends = private_tensor(np.array([-polynomial.bound, polynomial.bound]), "model-owner").shared(protocol, bits)
    evaluated(ends, polynomial.coefficients, polynomial.bound)
    return protocol.watch.taken()
