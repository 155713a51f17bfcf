"""Where windows stand: strides, dilations and padding of convolutions and pools, as ONNX says them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from shareflow.compiler.front.onnx_ops.call import Call

Pairs = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Window:
    """Windows over some axes.

    Args:
        kernel, strides, dilations: one number for each axis.
        pads: what is added before and after, for each axis.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: Pairs

    def named(self, extents: Sequence[int]) -> str:
        """TensorFlow's name of the padding for an input of these extents: VALID, SAME or EXPLICIT."""
        if not any(sum(pair) for pair in self.pads):
            return "VALID"
        wanted = tuple(
            same(n, k, s, d) for n, k, s, d in zip(extents, self.kernel, self.strides, self.dilations, strict=True)
        )
        return "SAME" if self.pads == wanted else "EXPLICIT"


def same(extent: int, kernel: int, stride: int, dilation: int, lower: bool = False) -> tuple[int, int]:
    """Padding so that there are extent / stride windows, rounded up; what is odd goes to the end, or begin."""
    reach = (kernel - 1) * dilation + 1
    total = max((math.ceil(extent / stride) - 1) * stride + reach - extent, 0)
    small, large = total // 2, total - total // 2
    return (large, small) if lower else (small, large)


def window(call: Call, extents: Sequence[int], kernel: Sequence[int]) -> Window:
    """The windows of a call over an input of these extents.

    Raises:
        UnsupportedModelError: numbers that do not go together.
    """
    rank = len(extents)
    strides = tuple(call.get("strides") or [1] * rank)
    dilations = tuple(call.get("dilations") or [1] * rank)
    kind = call.get("auto_pad", "NOTSET")
    pads = list(call.get("pads") or [0] * 2 * rank)
    if len(kernel) != rank or len(strides) != rank or len(dilations) != rank or len(pads) != 2 * rank:
        raise call.refuse(f"has windows for another number of axes than {rank}.", "Export the model again.")
    if min(*kernel, *strides, *dilations, 1) < 1 or min(pads) < 0:
        raise call.refuse("has windows, steps or padding below what there can be.", "Export the model again.")
    if kind in ("SAME_UPPER", "SAME_LOWER"):
        lower = kind == "SAME_LOWER"
        each = zip(extents, kernel, strides, dilations, strict=True)
        pairs = tuple(same(n, k, s, d, lower) for n, k, s, d in each)
    elif kind == "VALID":
        pairs = ((0, 0),) * rank
    else:
        pairs = tuple((pads[i], pads[i + rank]) for i in range(rank))
    return Window(tuple(kernel), strides, dilations, pairs)


def full_pads(pads: Pairs) -> list[int]:
    """For TensorFlow's attribute ``explicit_paddings``, channels last."""
    return [0, 0, *(n for pair in pads for n in pair), 0, 0]


def pad_rows(pads: Pairs) -> list[list[int]]:
    """For ``tf.pad``, channels last."""
    return [[0, 0], *(list(pair) for pair in pads), [0, 0]]
