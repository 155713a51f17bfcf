"""Every error that shareflow raises on purpose.

ShareflowError
├── PlacementError        a value is not where it is needed, or a party is not known
│   └── NotRevealedError  a private value was read as if it were plaintext
├── EncodingError         a value does not fit the fixed-point encoding: NaN, infinite, out of range
├── ShapeError            shapes or dtypes that do not go together
├── MissingRuleError      a protocol has no rule for this operation on these shares
├── MixedProtocolsError   values of two protocols in one operation
├── ProtocolError         parts of a protocol that do not go together
├── RandomnessError       a use that would repeat a mask
├── UnsupportedModelError a Keras model, or a layer of it, that cannot be made private
├── KernelError           the native kernels are missing or cannot do what was forced
├── DataError             an input file or folder that cannot be read as asked
└── PlanError, ConfigError, ChannelError, PeerError, RequestError, StoreError, TimeLimitError
                          of plans, parties and clients on their own: shareflow_client/errors.py

Each text gives the rule, what was given, and the way out; none ever holds secret data.
"""

from __future__ import annotations

from shareflow_client.errors import (
    ChannelError,
    ConfigError,
    PeerError,
    PlanError,
    RequestError,
    ShareflowError,
    StoreError,
    TimeLimitError,
)

__all__ = [
    "ChannelError",
    "ConfigError",
    "DataError",
    "EncodingError",
    "KernelError",
    "MissingRuleError",
    "MixedProtocolsError",
    "NotRevealedError",
    "PeerError",
    "PlacementError",
    "PlanError",
    "ProtocolError",
    "RandomnessError",
    "RequestError",
    "ShapeError",
    "ShareflowError",
    "StoreError",
    "TimeLimitError",
    "UnsupportedModelError",
]


class PlacementError(ShareflowError):
    """A value is not at the party where it is needed, or a party is not known."""


class NotRevealedError(PlacementError, TypeError):
    """A private value was read as if it were plaintext.

    A TypeError too, so that TensorFlow leaves `tensor * private` to the private operand.
    """


class EncodingError(ShareflowError, ValueError):
    """A value cannot be held by the fixed-point encoding."""


class ShapeError(ShareflowError, ValueError):
    """Shapes or dtypes that do not go together."""


class MissingRuleError(ShareflowError, TypeError):
    """A protocol has no rule for an operation on these kinds of shares."""


class MixedProtocolsError(ShareflowError, TypeError):
    """Values of two protocols met in one operation."""


class ProtocolError(ShareflowError, ValueError):
    """Parts of a protocol, or their settings, that do not go together."""


class RandomnessError(ShareflowError):
    """A use of private operations that would repeat a mask."""


class UnsupportedModelError(ShareflowError, TypeError):
    """A Keras model, or one of its layers, that cannot be made private."""


class KernelError(ShareflowError):
    """The native kernels are missing, or cannot do what was forced."""


class DataError(ShareflowError):
    """An input file or folder that cannot be read as asked."""


# A check that is part of a graph can only fail with TensorFlow's own error; its text carries ours between these.
_OPEN, _CLOSE = "<shareflow: ", " :shareflow>"


def in_graph(text: str) -> str:
    """The text of an error for an assertion inside a graph."""
    return f"{_OPEN}{text}{_CLOSE}"


def from_graph(message: str) -> str | None:
    """Our text within TensorFlow's message, or None where it is not ours."""
    if _OPEN not in message or _CLOSE not in message:
        return None
    return message.split(_OPEN, 1)[1].split(_CLOSE, 1)[0]
