"""How often optimistic truncation is expected to fail, and when that is too often.

Each server shifts its own share; an element z then comes out wrong, by about 2^(64 - f), with probability |z| / 2^64
(docs/protocols/spdz.md). A prediction of many large elements fails surely. Calibration sums |z| over all that is
truncated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shareflow.errors import UnsupportedModelError
from shareflow.protocol.functionality.truncation import Optimistic
from shareflow.protocol.protocol import Protocol

if TYPE_CHECKING:
    from shareflow.compiler.calibration import Calibration

# One failure in so many predictions of one sample is allowed.
MOST_FAILURES = 1e-6
_RULE = f"at most {MOST_FAILURES:g} wrong elements may be expected in one prediction"


def require_rare_failures(protocol: Protocol, calibration: Calibration | None) -> None:
    """Refuses optimistic truncation for a model where it would fail too often, or where nobody can say how often.

    Raises:
        UnsupportedModelError: more than :data:`MOST_FAILURES` failures are expected in one prediction; or there is no
            calibration.
    """
    if not isinstance(getattr(protocol, "truncation", None), Optimistic):
        return
    if calibration is None:
        raise UnsupportedModelError(
            f"Optimistic truncation: {_RULE}, and without a calibration nobody knows how many. Calibrate the model on "
            "samples, or leave truncation exact: SPDZ() without truncation=Optimistic()."
        )
    reason = too_often(calibration)
    if reason is not None:
        raise UnsupportedModelError(
            f"Optimistic truncation: {reason}. Use fewer fractional bits (now {calibration.fractional_bits}; with one "
            "less, a quarter as many fail), or leave truncation exact: SPDZ() without truncation=Optimistic()."
        )


def too_often(calibration: Calibration) -> str | None:
    """Why optimistic truncation is not allowed, and where most of it fails; None where it fails seldom enough."""
    expected = calibration.failures / calibration.batch
    if expected <= MOST_FAILURES:
        return None
    worst = max(calibration.ranges.values(), key=lambda found: found.failures)
    return (
        f"{_RULE}; here {expected:.2g} are, most of them in layer '{worst.layer}' ({worst.op}), whose results are "
        f"{worst.mean_size:.2g} in size"
    )
