"""The kernels of ring arithmetic: native ones where they are built, else the plain TensorFlow of `reference`.

Every function takes and gives int64 tensors that stand for integers mod 2^64. Formats and argument rules are
those of `shareflow.ring.reference`, function by function: that module is the oracle of this one.

SHAREFLOW_KERNELS chooses the instruction set: auto (the best one, and the reference if the library is absent), amx,
avx512, avx2, portable, or tensorflow for the reference. SHAREFLOW_THREADS limits the threads of one call.
"""

from __future__ import annotations

import ctypes
import math
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import tensorflow as tf

from shareflow.errors import KernelError
from shareflow.ring import reference
from shareflow.ring.reference import Padding, Pair, gate_product_count, gate_terms, words

__all__ = [
    "available",
    "bit_planes",
    "conv2d",
    "depthwise_conv2d",
    "forced",
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

LIBRARY = "_shareflow_kernels.so"
REFERENCE = "tensorflow"
INSTRUCTION_SETS = ("amx", "avx512", "avx2", "portable", REFERENCE)


class _Library:
    """The loaded native library: its ops, and the functions that choose its instruction set."""

    def __init__(self, path: Path) -> None:
        self.ops: ModuleType = tf.load_op_library(str(path))
        functions = ctypes.CDLL(str(path))  # the same library: it is loaded once
        self._available = functions.shareflow_available
        self._available.restype = ctypes.c_char_p
        self._instruction_set = functions.shareflow_instruction_set
        self._instruction_set.restype = ctypes.c_char_p
        self._use = functions.shareflow_use
        self._use.argtypes = [ctypes.c_char_p]

    def available(self) -> tuple[str, ...]:
        names: list[str] = []
        while (name := self._available(len(names))) is not None:
            names.append(name.decode())
        return tuple(names)

    def instruction_set(self) -> str:
        return str(self._instruction_set().decode())

    def use(self, name: str) -> bool:
        return bool(self._use(name.encode()))


def _find() -> Path:
    """Where the library is: beside this file, or, in an editable install, in the package's other folder."""
    folders = [Path(folder) for folder in sys.modules[__package__].__path__]
    for folder in folders:
        if (folder / LIBRARY).exists():
            return folder / LIBRARY
    raise FileNotFoundError(f"there is no {LIBRARY} in {' or '.join(map(str, folders))}")


def _load(asked: str) -> _Library | None:
    """The library, set to what SHAREFLOW_KERNELS asks; None for the reference."""
    if asked not in ("auto", *INSTRUCTION_SETS):
        choices = ", ".join(("auto", *INSTRUCTION_SETS))
        raise KernelError(f"SHAREFLOW_KERNELS must be one of {choices}, not {asked!r}")
    if asked == REFERENCE:
        return None
    build = "Build it with `pip install .` in the root of the source tree; docs/kernels.md tells how."
    try:
        library = _Library(_find())
    except (OSError, AttributeError, tf.errors.OpError) as error:
        reason = str(error).splitlines()[0]
        if asked != "auto":
            text = f"SHAREFLOW_KERNELS={asked} needs the native kernels, which are not loaded: {reason}. {build}"
            raise KernelError(text) from error
        warnings.warn(
            f"The native kernels are not loaded: {reason}. Plain TensorFlow takes their place, right but slow. {build}",
            RuntimeWarning,
            stacklevel=3,
        )
        return None
    if not library.use(asked):
        raise KernelError(
            f"SHAREFLOW_KERNELS={asked}: this CPU, its system or this build does not support {asked}. "
            f"It supports {', '.join(library.available())}; leave the variable out to get the best."
        )
    return library


_library = _load(os.environ.get("SHAREFLOW_KERNELS") or "auto")
_native = _library is not None


def _ops() -> Any:
    """The native ops; None when the reference is in use."""
    return _library.ops if _native and _library is not None else None


def instruction_set() -> str:
    """The instruction set in use: amx, avx512, avx2 or portable; tensorflow for the reference."""
    return _library.instruction_set() if _native and _library is not None else REFERENCE


def available() -> tuple[str, ...]:
    """The instruction sets that can be forced in this process, the best first."""
    return (*(_library.available() if _library is not None else ()), REFERENCE)


@contextmanager
def forced(name: str) -> Iterator[None]:
    """Use this instruction set inside the block: for tests and measurements.

    It holds for the whole process. A native op takes the instruction set of the time when it runs; between native
    ops and the reference, a graph keeps the choice of the time when it was traced.
    """
    global _native
    before = _native, instruction_set()
    if name == REFERENCE:
        _native = False
    elif _library is not None and _library.use(name):
        _native = True
    else:
        raise KernelError(f"{name} cannot be forced here; available: {', '.join(available())}")
    try:
        yield
    finally:
        _native = before[0]
        if _library is not None and before[0]:
            _library.use(before[1])


def _shaped(result: tf.Tensor, shape: Sequence[int | None]) -> tf.Tensor:
    """The result, with the static shape that follows from attributes, which native shape functions cannot see."""
    if not tf.executing_eagerly():
        result.set_shape(shape)
    return result


# ---- bilinear ------------------------------------------------------------------------------------------------


def matmul(a: Any, b: Any, transpose_a: bool = False, transpose_b: bool = False) -> tf.Tensor:
    """Matrix product of a [..., M, K] and b [..., K, N] -> [..., M, N]; batch dimensions broadcast."""
    ops = _ops()
    if ops is None:
        return reference.matmul(a, b, transpose_a, transpose_b)
    a, b = reference.tensor(a), reference.tensor(b)
    if a.shape.rank is None or b.shape.rank is None:
        return ops.shareflow_matmul(a, b, transpose_a=transpose_a, transpose_b=transpose_b)
    shape = reference.matmul_shape(a.shape.as_list(), b.shape.as_list(), transpose_a, transpose_b)
    return _shaped(ops.shareflow_matmul(a, b, transpose_a=transpose_a, transpose_b=transpose_b), shape)


def conv2d(
    x: Any,
    w: Any,
    *,
    strides: Pair = (1, 1),
    padding: Padding = ((0, 0), (0, 0)),
    dilations: Pair = (1, 1),
    groups: int = 1,
) -> tf.Tensor:
    """Convolution of x [N, H, W, C] with w [kh, kw, C / groups, O] -> [N, H', W', O].

    `padding` is ((top, bottom), (left, right)), in zeros.
    """
    ops = _ops()
    if ops is None:
        return reference.conv2d(x, w, strides=strides, padding=padding, dilations=dilations, groups=groups)
    x, w = reference.tensor(x), reference.tensor(w)
    shapes = reference.static_shape(x, "conv2d image"), reference.static_shape(w, "conv2d filter")
    shape = reference.conv2d_shape(*shapes, strides, padding, dilations, groups)
    result = ops.shareflow_conv2d(
        x, w, strides=strides, padding=[*padding[0], *padding[1]], dilations=dilations, groups=groups
    )
    return _shaped(result, shape)


def depthwise_conv2d(
    x: Any,
    w: Any,
    *,
    strides: Pair = (1, 1),
    padding: Padding = ((0, 0), (0, 0)),
    dilations: Pair = (1, 1),
) -> tf.Tensor:
    """Each channel of x [N, H, W, C] with its filters w [kh, kw, C, M] -> [N, H', W', C * M]."""
    ops = _ops()
    if ops is None:
        return reference.depthwise_conv2d(x, w, strides=strides, padding=padding, dilations=dilations)
    x, w = reference.tensor(x), reference.tensor(w)
    shapes = reference.static_shape(x, "depthwise image"), reference.static_shape(w, "depthwise filter")
    shape = reference.depthwise_shape(*shapes, strides, padding, dilations)
    result = ops.shareflow_depthwise_conv2d(
        x, w, strides=strides, padding=[*padding[0], *padding[1]], dilations=dilations
    )
    return _shaped(result, shape)


# ---- randomness ----------------------------------------------------------------------------------------------


def uniform(key: Any, execution: Any, stream: Any, shape: Sequence[int]) -> tf.Tensor:
    """A stream of the PRG: `shape` uniform words, a function of key [2], execution [] and stream [] alone.

    AES-128 in counter mode. Block b encrypts the little-endian integer with high word `execution` and low
    word `stream << 32 | b`; the two words of its ciphertext are elements 2b and 2b + 1.
    """
    ops = _ops()
    if ops is None:
        return reference.uniform(key, execution, stream, shape)
    shape = tuple(shape)
    reference.check_stream(stream, math.prod(shape))
    key, execution, stream = (reference.tensor(x) for x in (key, execution, stream))
    return _shaped(ops.shareflow_uniform(key, execution, stream, shape=shape), shape)


# ---- bits ----------------------------------------------------------------------------------------------------


def _count(x: tf.Tensor) -> int:
    return math.prod(reference.static_shape(x, "the tensor of bits"))


def shift_right_logical(x: Any, amount: int) -> tf.Tensor:
    """x >> amount, each element as an unsigned number."""
    ops = _ops()
    if ops is None or not 0 <= amount <= 63:
        return reference.shift_right_logical(x, amount)
    return ops.shareflow_shift(reference.tensor(x), amount=amount, left=False)


def shift_left(x: Any, amount: int) -> tf.Tensor:
    """x << amount, that is x * 2^amount."""
    ops = _ops()
    if ops is None or not 0 <= amount <= 63:
        return reference.shift_left(x, amount)
    return ops.shareflow_shift(reference.tensor(x), amount=amount, left=True)


def bit_planes(x: Any) -> tf.Tensor:
    """The bits of the flattened x -> [64, W], the least significant plane first."""
    ops = _ops()
    if ops is None:
        return reference.bit_planes(x)
    x = reference.tensor(x)
    return _shaped(ops.shareflow_bit_planes(x), [64, words(_count(x))])


def from_bit_planes(planes: Any, shape: Sequence[int]) -> tf.Tensor:
    """The values [shape] whose bit planes are [64, W]."""
    ops = _ops()
    if ops is None:
        return reference.from_bit_planes(planes, shape)
    planes = reference.tensor(planes)
    reference.check_planes(planes, shape)
    return _shaped(ops.shareflow_from_bit_planes(planes, shape=shape), shape)


def pack_bits(x: Any) -> tf.Tensor:
    """Bit 0 of each value of the flattened x -> [W]."""
    ops = _ops()
    if ops is None:
        return reference.pack_bits(x)
    x = reference.tensor(x)
    return _shaped(ops.shareflow_pack_bits(x), [words(_count(x))])


def unpack_bits(packed: Any, shape: Sequence[int]) -> tf.Tensor:
    """The packed bits [W] as values 0 and 1 of this shape."""
    ops = _ops()
    if ops is None:
        return reference.unpack_bits(packed, shape)
    packed = reference.tensor(packed)
    reference.check_packed(packed, shape)
    return _shaped(ops.shareflow_unpack_bits(packed, shape=shape), shape)


# ---- comparison ----------------------------------------------------------------------------------------------


def group_products(a: Any, *, bits: int, group: int, groups: int) -> tf.Tensor:
    """Products of the bits of each group of `group` bits of a -> [2^group - 1, groups, W].

    Entry s is the AND of the bits i of the group with bit i set in s + 1; positions from `bits` on hold 0.
    """
    ops = _ops()
    if ops is None:
        return reference.group_products(a, bits=bits, group=group, groups=groups)
    a = reference.tensor(a)
    reference.check_groups(bits, group, groups)
    result = ops.shareflow_group_products(a, bits=bits, group=group, groups=groups)
    return _shaped(result, [(1 << group) - 1, groups, words(_count(a))])


def group_polynomials(alpha: Any, products: Any, *, bits: int, group: int, groups: int, leader: bool) -> tf.Tensor:
    """XOR shares [2, groups, W] of (G, P) of each group, from XOR shares of the products of the bits of a.

    With g_i = alpha_i & a_i and p_i = alpha_i ^ a_i: P = AND_i p_i and G = XOR_i g_i & AND_{j>i} p_j.
    """
    ops = _ops()
    if ops is None:
        return reference.group_polynomials(alpha, products, bits=bits, group=group, groups=groups, leader=leader)
    alpha, products = reference.tensor(alpha), reference.tensor(products)
    reference.check_groups(bits, group, groups)
    width = words(_count(alpha))
    reference.check_products(products, ((1 << group) - 1, groups, width))
    result = ops.shareflow_group_polynomials(alpha, products, bits=bits, group=group, groups=groups, leader=leader)
    return _shaped(result, [2, groups, width])


def gate_products(l: Any, *, radix: int, last: bool) -> tf.Tensor:  # noqa: E741 (the protocol's letter)
    """Products of the masks l [2, radix * k, W] that each of k gates needs -> [m, k, W]: see `gate_terms`."""
    ops = _ops()
    if ops is None:
        return reference.gate_products(l, radix=radix, last=last)
    masks = reference.tensor(l)
    shape = reference.static_shape(masks, "gate masks")
    count = reference.gate_inputs(shape, radix)
    result = ops.shareflow_gate_products(masks, radix=radix, last=last)
    return _shaped(result, [gate_product_count(radix, last), count, shape[2]])


def gate(m: Any, l_share: Any, products: Any, *, radix: int, last: bool, leader: bool) -> tf.Tensor:
    """XOR shares [2, k, W] of (G', P') of k gates; [1, k, W], only G', when last.

    G' = XOR_k G_k & AND_{j>k} P_j and P' = AND_j P_j, where each value is v = m ^ l: m [2, radix * k, W] is
    public, l_share an XOR share of l, products [m, k, W] an XOR share of `gate_products`.
    """
    ops = _ops()
    if ops is None:
        return reference.gate(m, l_share, products, radix=radix, last=last, leader=leader)
    m, l_share, products = (reference.tensor(x) for x in (m, l_share, products))
    count, width = reference.check_gate(m, l_share, products, radix, last)
    result = ops.shareflow_gate(m, l_share, products, radix=radix, last=last, leader=leader)
    return _shaped(result, [1 if last else 2, count, width])


# ---- one pass over elements ----------------------------------------------------------------------------------


def truncate_opened(opened: Any, t: Any, v: Any, *, shift: int, leader: bool) -> tf.Tensor:
    """An additive share of z >> shift, from A = z + 2^62 - a opened and shares t, v of a >> shift and a63."""
    ops = _ops()
    if ops is None:
        return reference.truncate_opened(opened, t, v, shift=shift, leader=leader)
    reference.check_shift(shift)
    opened, t, v = reference.same_shapes(opened, t, v)
    return ops.shareflow_truncate_opened(opened, t, v, shift=shift, leader=leader)


def multiply_bit(alpha: Any, a: Any, m_words: Any, l: Any, al: Any, *, leader: bool) -> tf.Tensor:  # noqa: E741
    """An additive share of (alpha + a) * (m ^ lambda), from shares of a, lambda and a * lambda."""
    ops = _ops()
    if ops is None:
        return reference.multiply_bit(alpha, a, m_words, l, al, leader=leader)
    alpha, a, l, al = reference.same_shapes(alpha, a, l, al)  # noqa: E741
    m_words = reference.tensor(m_words)
    reference.check_packed(m_words, alpha.shape.as_list())
    return ops.shareflow_multiply_bit(alpha, a, m_words, l, al, leader=leader)


def truncate_multiply_bit(
    opened: Any,
    m_words: Any,
    t: Any,
    v: Any,
    l: Any,  # noqa: E741
    tl: Any,
    vl: Any,
    *,
    shift: int,
    leader: bool,
) -> tf.Tensor:
    """An additive share of (z >> shift) * (m ^ lambda): `truncate_opened` and `multiply_bit` in one pass."""
    ops = _ops()
    if ops is None:
        return reference.truncate_multiply_bit(opened, m_words, t, v, l, tl, vl, shift=shift, leader=leader)
    reference.check_shift(shift)
    opened, t, v, l, tl, vl = reference.same_shapes(opened, t, v, l, tl, vl)  # noqa: E741
    m_words = reference.tensor(m_words)
    reference.check_packed(m_words, opened.shape.as_list())
    return ops.shareflow_truncate_multiply_bit(opened, m_words, t, v, l, tl, vl, shift=shift, leader=leader)
