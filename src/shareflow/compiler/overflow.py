"""When a value does not fit the ring, and what its owner is told.

A result z with s fractional bits stands as z 2^s, and truncation takes |z| 2^s < 2^62. Nobody sees a value that is
beyond: it wraps, and the prediction is noise. So it is refused before there is a plan, by the ranges of a calibration.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shareflow.compiler.watch import TRUNCATED_BITS
from shareflow.errors import EncodingError

if TYPE_CHECKING:
    from shareflow.compiler.calibration import Calibration, Range

# Left free for values that the samples did not show: four times the largest one that they did.
MARGIN_BITS = 2


def excess_bits(found: Range) -> float:
    """By how many bits a step's values are beyond what is allowed; 0 or less where they fit."""
    return max(found.bits - (TRUNCATED_BITS - MARGIN_BITS), found.inside_bits - TRUNCATED_BITS)


def overflow_text(found: Range) -> str:
    """The layer, what it reaches, and the rule."""
    named = f"layer '{found.layer}' ({found.op})"
    if found.bits > TRUNCATED_BITS - MARGIN_BITS:
        return (
            f"{named} reaches {found.size:.3g} in size on the samples: with the {found.fractional_bits} fractional "
            f"bits that it has there this takes {found.bits:.1f} bits, and {TRUNCATED_BITS - MARGIN_BITS} are allowed "
            f"({TRUNCATED_BITS}, less {MARGIN_BITS} for values that the samples did not show)."
        )
    return (
        f"{named} makes values on its way that take {found.inside_bits:.1f} bits on the samples, and {TRUNCATED_BITS} "
        "are there."
    )


def overflows(calibration: Calibration) -> list[Range]:
    """The results that do not fit, in the order in which they are computed."""
    return [found for found in calibration.ranges.values() if excess_bits(found) > 0]


def require_fit(calibration: Calibration) -> None:
    """Refuses an encoding with which a layer overflows.

    Raises:
        EncodingError: one does; the text names the first, its range, the rule and the ways out.
    """
    beyond = overflows(calibration)
    if beyond:
        more = f" {len(beyond) - 1} more results overflow, too." if len(beyond) > 1 else ""
        raise EncodingError(
            f"With {calibration.fractional_bits} fractional bits, {overflow_text(beyond[0])}{more} Use fewer "
            "fractional bits (calibrate finds how many), fewer for this layer alone (per_layer), or rescale its "
            "weights."
        )
