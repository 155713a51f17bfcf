"""The kernels of ring arithmetic: native ones where they are built, else the plain TensorFlow of `reference`.

Every function takes and gives int64 tensors that stand for integers mod 2^64. Formats and argument rules are
those of `shareflow.ring.reference`, function by function.
"""

from __future__ import annotations

from shareflow.ring.reference import (
    bit_planes,
    conv2d,
    depthwise_conv2d,
    from_bit_planes,
    gate,
    gate_product_count,
    gate_products,
    gate_terms,
    group_polynomials,
    group_products,
    matmul,
    multiply_bit,
    pack_bits,
    shift_left,
    shift_right_logical,
    truncate_multiply_bit,
    truncate_opened,
    uniform,
    unpack_bits,
    words,
)

__all__ = [
    "available",
    "bit_planes",
    "conv2d",
    "depthwise_conv2d",
    "from_bit_planes",
    "gate",
    "gate_product_count",
    "gate_products",
    "gate_terms",
    "group_polynomials",
    "group_products",
    "instruction_set",
    "matmul",
    "multiply_bit",
    "pack_bits",
    "shift_left",
    "shift_right_logical",
    "truncate_multiply_bit",
    "truncate_opened",
    "uniform",
    "unpack_bits",
    "words",
]


def instruction_set() -> str:
    """The instruction set in use: amx, avx512, avx2 or portable; tensorflow for the reference."""
    return "tensorflow"


def available() -> tuple[str, ...]:
    """The instruction sets that can be forced here, the best first."""
    return ("tensorflow",)
