"""Max-pooling before ReLU: the same result, with one comparison for each window in place of one for each element.

Both are monotone, so they can change places. In a chain the ReLU's output has no other use.
"""

from __future__ import annotations

from shareflow.nn import activation
from shareflow.nn import layer as nn

Layers = tuple[tuple[str, nn.Layer], ...]

_MONOTONE = (activation.relu, activation.relu6)


def pool_before_relu(layers: Layers) -> Layers:
    """The layers with each max-pooling moved before a ReLU that stands right before it."""
    moved = list(layers)
    for i in range(len(moved) - 1):
        (_, first), (_, second) = moved[i], moved[i + 1]
        if isinstance(first, nn.Activation) and first.function in _MONOTONE and isinstance(second, nn.MaxPool2D):
            moved[i], moved[i + 1] = moved[i + 1], moved[i]
    return tuple(moved)
