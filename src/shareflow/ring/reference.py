"""The ring kernels in plain TensorFlow.

These are the oracle of every native kernel, and what runs where the native library is absent. All tensors are
int64 and stand for integers mod 2^64: sums and products wrap. `>>` in the formulas is a logical shift.

Bit-sliced values: 64 values of one bit are packed in one word. A plane of n values is W = ceil(n / 64) words;
value j is bit j % 64 of word j // 64. Padding bits are zero after packing and are ignored on unpacking.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from shareflow.errors import RandomnessError, ShapeError

Pair = tuple[int, int]
Padding = tuple[Pair, Pair]

_and = tf.bitwise.bitwise_and
_xor = tf.bitwise.bitwise_xor


# ---- argument rules, shared with the native kernels --------------------------------------------------------


def tensor(x: Any) -> tf.Tensor:
    """`x` as an int64 tensor."""
    return tf.convert_to_tensor(x, tf.int64)


def static_shape(x: tf.Tensor, what: str) -> tuple[int, ...]:
    """The shape of `x`, all of which must be known when the graph is built."""
    if not x.shape.is_fully_defined():
        raise ShapeError(f"{what} must have a static shape, not {x.shape}: give the function an input signature")
    return tuple(x.shape.as_list())


def words(count: int) -> int:
    """W, the number of words that hold one bit of `count` values."""
    return -(-count // 64)


def require(condition: bool, rule: str) -> None:
    """Raise a ShapeError with this text unless the condition holds."""
    if not condition:
        raise ShapeError(rule)


def matmul_shape(
    a: Sequence[int | None], b: Sequence[int | None], transpose_a: bool, transpose_b: bool
) -> list[int | None]:
    """The shape of a matrix product: batch dimensions broadcast, inner dimensions agree."""
    require(len(a) >= 2 and len(b) >= 2, f"matmul takes tensors of rank 2 or more, not shapes {a} and {b}")
    rows, inner_a = (a[-1], a[-2]) if transpose_a else (a[-2], a[-1])
    inner_b, columns = (b[-1], b[-2]) if transpose_b else (b[-2], b[-1])
    require(
        inner_a is None or inner_b is None or inner_a == inner_b,
        f"matmul takes equal inner dimensions, not {inner_a} and {inner_b} (shapes {a} and {b}, "
        f"transpose_a={transpose_a}, transpose_b={transpose_b})",
    )
    try:
        batch = tf.broadcast_static_shape(tf.TensorShape(a[:-2]), tf.TensorShape(b[:-2])).as_list()
    except ValueError:
        raise ShapeError(f"matmul takes batch dimensions that broadcast, not those of {a} and {b}") from None
    return [*batch, rows, columns]


def conv_output(
    x: Sequence[int], w: Sequence[int], strides: Pair, padding: Padding, dilations: Pair
) -> tuple[int, int]:
    """Height and width of a convolution of x [N, H, W, C] with a window w [kh, kw, ...]."""
    require(len(x) == 4 and len(w) == 4, f"a convolution takes an image and a filter of rank 4, not {x} and {w}")
    require(min(strides) >= 1, f"strides must be at least 1, not {strides}")
    require(min(dilations) >= 1, f"dilations must be at least 1, not {dilations}")
    require(min(*padding[0], *padding[1]) >= 0, f"padding must not be negative, not {padding}")
    require(w[0] >= 1 and w[1] >= 1, f"a filter window must hold at least one element, not {w[0]} x {w[1]}")
    sizes = []
    for size, window, stride, pad, dilation in zip(x[1:3], w[:2], strides, padding, dilations, strict=True):
        size = (size + sum(pad) - ((window - 1) * dilation + 1) + stride) // stride
        require(size >= 0, f"the window {w[:2]} is larger than the padded image {x[1:3]} with padding {padding}")
        sizes.append(size)
    return sizes[0], sizes[1]


def conv2d_shape(
    x: Sequence[int], w: Sequence[int], strides: Pair, padding: Padding, dilations: Pair, groups: int
) -> tuple[int, int, int, int]:
    """The shape of `conv2d`."""
    height, width = conv_output(x, w, strides, padding, dilations)
    require(
        groups >= 1 and x[3] == w[2] * groups and w[3] % groups == 0,
        f"conv2d takes C = groups * w.shape[2] and O a multiple of groups, not C = {x[3]}, "
        f"w.shape = {list(w)}, groups = {groups}",
    )
    return x[0], height, width, w[3]


def depthwise_shape(
    x: Sequence[int], w: Sequence[int], strides: Pair, padding: Padding, dilations: Pair
) -> tuple[int, int, int, int]:
    """The shape of `depthwise_conv2d`."""
    height, width = conv_output(x, w, strides, padding, dilations)
    require(x[3] == w[2], f"depthwise_conv2d takes w.shape[2] = C, not w.shape = {list(w)} and C = {x[3]}")
    return x[0], height, width, w[2] * w[3]


def check_stream(stream: Any, count: int) -> None:
    """Refuse what would run out of counter blocks: a stream outside [0, 2^31) or more than 2^33 elements."""
    if count > 1 << 33:
        raise RandomnessError(f"a stream gives at most 2^33 elements, not {count}: use several streams")
    known = stream if isinstance(stream, int) else tf.get_static_value(stream)
    if known is not None and not 0 <= int(known) < 1 << 31:
        raise RandomnessError(f"a stream id must be in [0, 2^31), not {int(known)}")


def check_planes(planes: tf.Tensor, shape: Sequence[int]) -> None:
    """The shape of the bit planes of values of this shape."""
    given, count = static_shape(planes, "bit planes"), math.prod(shape)
    require(
        given == (64, words(count)),
        f"{count} values have bit planes [64, {words(count)}], not {list(given)}",
    )


def check_packed(packed: tf.Tensor, shape: Sequence[int]) -> None:
    """The shape of packed bits, one for each value of this shape."""
    given, count = static_shape(packed, "packed bits"), math.prod(shape)
    require(given == (words(count),), f"{count} bits are packed in [{words(count)}] words, not {list(given)}")


def check_groups(bits: int, group: int, groups: int) -> None:
    """The ranges of the parameters of the group kernels."""
    require(2 <= group <= 6, f"a group has 2 to 6 bits, not {group}")
    require(1 <= bits <= 63, f"a carry is taken over 1 to 63 bits, not {bits}")
    require(groups * group >= bits, f"{groups} groups of {group} bits do not hold {bits} bits")


def gate_inputs(shape: Sequence[int], radix: int) -> int:
    """k, the number of gates fed by a tensor [2, radix * k, W]."""
    require(2 <= radix <= 8, f"a gate has radix 2 to 8, not {radix}")
    require(
        len(shape) == 3 and shape[0] == 2 and shape[1] % radix == 0,
        f"a gate of radix {radix} takes a tensor [2, {radix} * k, W], not {list(shape)}",
    )
    return shape[1] // radix


def check_products(products: tf.Tensor, expected: tuple[int, ...]) -> None:
    """The shape that the shared products must have."""
    given = static_shape(products, "shared products")
    require(given == expected, f"the shared products must have shape {list(expected)}, not {list(given)}")


def gate_terms(radix: int, last: bool) -> list[tuple[int | None, int]]:
    """The products of masks that a gate needs, in the order of `gate_products`.

    A term is (k, mask): the product of l_G[k], unless k is None, and of l_P[j] for each bit j of mask.
    First l_G[k] with each nonempty set of {l_P[j] : j > k}, for k = 0 .. radix-2; then the sets of two or more
    of the l_P (without l_P[0] in the last gate, which computes no P'). Within each part masks increase.
    """
    terms: list[tuple[int | None, int]] = []
    for k in range(radix - 1):
        terms += [(k, high << (k + 1)) for high in range(1, 1 << (radix - 1 - k))]
    terms += [(None, mask) for mask in range(1, 1 << radix) if mask.bit_count() >= 2 and not (last and mask & 1)]
    return terms


def gate_product_count(radix: int, last: bool) -> int:
    """m, how many products of masks one gate needs: 22 for radix 4, 15 when it is the last gate."""
    return len(gate_terms(radix, last))


def check_gate(m: tf.Tensor, l_share: tf.Tensor, products: tf.Tensor, radix: int, last: bool) -> tuple[int, int]:
    """(k, W) of the arguments of `gate`, whose shapes must fit."""
    shape = static_shape(m, "gate values")
    count = gate_inputs(shape, radix)
    given = static_shape(l_share, "shares of gate masks")
    require(
        given == shape,
        f"shares of gate masks must have the shape of the values, {list(shape)}, not {list(given)}",
    )
    check_products(products, (gate_product_count(radix, last), count, shape[2]))
    return count, shape[2]


# ---- bilinear ----------------------------------------------------------------------------------------------


def matmul(a: Any, b: Any, transpose_a: bool = False, transpose_b: bool = False) -> tf.Tensor:
    """Matrix product of a [..., M, K] and b [..., K, N] -> [..., M, N]; batch dimensions broadcast."""
    a, b = tensor(a), tensor(b)
    matmul_shape(a.shape.as_list(), b.shape.as_list(), transpose_a, transpose_b)
    return tf.matmul(a, b, transpose_a=transpose_a, transpose_b=transpose_b)


def _windows(x: tf.Tensor, w: tf.Tensor, size: Pair, strides: Pair, padding: Padding, dilations: Pair) -> Any:
    """For each (i, j) of the filter window: (i, j, the elements [N, H', W', C] of x that meet it)."""
    x = tf.pad(x, [[0, 0], list(padding[0]), list(padding[1]), [0, 0]])
    for i in range(w.shape[0]):
        for j in range(w.shape[1]):
            top, left = i * dilations[0], j * dilations[1]
            bottom = top + max(0, (size[0] - 1) * strides[0] + 1)
            right = left + max(0, (size[1] - 1) * strides[1] + 1)
            yield i, j, x[:, top : bottom : strides[0], left : right : strides[1], :]


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
    x, w = tensor(x), tensor(w)
    out = conv2d_shape(
        static_shape(x, "conv2d image"), static_shape(w, "conv2d filter"), strides, padding, dilations, groups
    )
    total = tf.zeros([groups, math.prod(out[:3]), out[3] // groups], tf.int64)
    for i, j, part in _windows(x, w, out[1:3], strides, padding, dilations):
        left = tf.transpose(tf.reshape(part, [math.prod(out[:3]), groups, w.shape[2]]), [1, 0, 2])
        right = tf.transpose(tf.reshape(w[i, j], [w.shape[2], groups, out[3] // groups]), [1, 0, 2])
        total += tf.matmul(left, right)
    return tf.reshape(tf.transpose(total, [1, 0, 2]), out)


def depthwise_conv2d(
    x: Any,
    w: Any,
    *,
    strides: Pair = (1, 1),
    padding: Padding = ((0, 0), (0, 0)),
    dilations: Pair = (1, 1),
) -> tf.Tensor:
    """Each channel of x [N, H, W, C] with its filters w [kh, kw, C, M] -> [N, H', W', C * M].

    Output channel c * M + m is channel c filtered with w[:, :, c, m].
    """
    x, w = tensor(x), tensor(w)
    out = depthwise_shape(
        static_shape(x, "depthwise image"), static_shape(w, "depthwise filter"), strides, padding, dilations
    )
    total = tf.zeros([*out[:3], w.shape[2], w.shape[3]], tf.int64)
    for i, j, part in _windows(x, w, out[1:3], strides, padding, dilations):
        total += part[..., tf.newaxis] * w[i, j]
    return tf.reshape(total, out)


# ---- randomness --------------------------------------------------------------------------------------------


def _aes_tables() -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]:
    """The S-box, and for each row its tables of SubBytes with and without MixColumns (FIPS 197, 5.1)."""
    exp = [1]
    for _ in range(254):  # powers of the generator 3 of GF(2^8)
        x = exp[-1] ^ (exp[-1] << 1)
        exp.append(x ^ 0x11B if x & 0x100 else x)
    inverse = [0] * 256
    for power, x in enumerate(exp):
        inverse[x] = exp[(255 - power) % 255]
    sbox = np.zeros(256, np.uint32)
    for x, y in enumerate(inverse):
        rotations = [(y << r | y >> (8 - r)) & 0xFF for r in range(5)]
        sbox[x] = np.bitwise_xor.reduce([0x63, *rotations])
    double = (sbox << 1) ^ np.where(sbox & 0x80, 0x11B, 0).astype(np.uint32)
    column = double | sbox << 8 | sbox << 16 | (double ^ sbox) << 24
    mixed = [(column << 8 * r | column >> (32 - 8 * r) % 32 if r else column) for r in range(4)]
    return sbox, mixed, [sbox << 8 * r for r in range(4)]


_SBOX, _MIXED, _PLAIN = _aes_tables()


def _look_up(table: np.ndarray, index: tf.Tensor) -> tf.Tensor:
    return tf.gather(tf.constant(table.view(np.int32)), index)


def _byte(x: tf.Tensor, row: int) -> tf.Tensor:
    return _and(tf.bitwise.right_shift(x, 8 * row), 0xFF)


def _aes_round_keys(key: tf.Tensor) -> list[tf.Tensor]:
    """FIPS 197, 5.2: the round keys, each [4] int32 columns with row r in bits 8r .. 8r+7."""
    columns = tf.unstack(tf.reshape(tf.bitcast(key, tf.int32), [4]))
    keys = [tf.stack(columns)]
    rcon = 1
    for _ in range(10):
        turned = tf.constant(rcon)
        for row in range(4):
            turned = _xor(turned, _look_up(_PLAIN[row], _byte(columns[3], (row + 1) % 4)))
        for c in range(4):
            columns[c] = turned = _xor(columns[c], turned)
        keys.append(tf.stack(columns))
        rcon = rcon << 1 ^ (0x11B if rcon & 0x80 else 0)
    return keys


def _aes_encrypt(key: tf.Tensor, blocks: tf.Tensor) -> tf.Tensor:
    """AES-128 of blocks [n, 2] under key [2], both as little-endian 64-bit words."""
    keys = _aes_round_keys(key)
    state = tf.transpose(tf.reshape(tf.bitcast(blocks, tf.int32), [-1, 4]))
    state = _xor(state, keys[0][:, tf.newaxis])
    for number in range(1, 11):
        tables = _MIXED if number < 10 else _PLAIN
        turned = keys[number][:, tf.newaxis]
        for row in range(4):  # ShiftRows: row r of column c comes from column c + r
            turned = _xor(turned, _look_up(tables[row], _byte(tf.roll(state, -row, 0), row)))
        state = turned
    return tf.bitcast(tf.reshape(tf.transpose(state), [-1, 2, 2]), tf.int64)


def uniform(key: Any, execution: Any, stream: Any, shape: Sequence[int]) -> tf.Tensor:
    """A stream of the PRG: `shape` uniform words, a function of key [2], execution [] and stream [] alone.

    AES-128 in counter mode. Block b encrypts the little-endian integer with high word `execution` and low
    word `stream << 32 | b`; the two words of its ciphertext are elements 2b and 2b + 1.
    """
    shape = tuple(shape)
    count = math.prod(shape)
    check_stream(stream, count)
    key, execution, stream = tensor(key), tensor(execution), tensor(stream)
    in_range = tf.debugging.Assert(
        tf.logical_and(stream >= 0, stream < 1 << 31), ["a stream id must be in [0, 2^31), not", stream]
    )
    with tf.control_dependencies([] if in_range is None else [in_range]):
        low = tf.bitwise.left_shift(stream, tensor(32)) + tf.range(-(-count // 2), dtype=tf.int64)
    blocks = tf.stack([low, tf.broadcast_to(execution, tf.shape(low))], axis=1)
    return tf.reshape(tf.reshape(_aes_encrypt(key, blocks), [-1])[:count], shape)


# ---- bits --------------------------------------------------------------------------------------------------


def shift_right_logical(x: Any, amount: int) -> tf.Tensor:
    """x >> amount, each element as an unsigned number."""
    require(0 <= amount <= 63, f"a shift is by 0 to 63 bits, not {amount}")
    unsigned = tf.bitcast(tensor(x), tf.uint64)
    return tf.bitcast(tf.bitwise.right_shift(unsigned, tf.constant(amount, tf.uint64)), tf.int64)


def shift_left(x: Any, amount: int) -> tf.Tensor:
    """x << amount, that is x * 2^amount."""
    require(0 <= amount <= 63, f"a shift is by 0 to 63 bits, not {amount}")
    return tf.bitwise.left_shift(tensor(x), tensor(amount))


def _blocks(x: tf.Tensor) -> tf.Tensor:
    """The flattened x, padded with zeros to [W, 64]."""
    count = math.prod(static_shape(x, "the tensor of bits"))
    flat = tf.pad(tf.reshape(x, [count]), [[0, words(count) * 64 - count]])
    return tf.reshape(flat, [words(count), 64])


def _transpose_bits(x: tf.Tensor) -> tf.Tensor:
    """Transpose each 64 x 64 bit matrix of x [W, 64]: bit i of word j becomes bit j of word i."""
    for step in (32, 16, 8, 4, 2, 1):  # swap the off-diagonal blocks of step x step bits
        mask = sum(1 << bit for bit in range(64) if not bit & step)
        low, high = tf.unstack(tf.reshape(x, [x.shape[0], 32 // step, 2, step]), axis=2)
        swap = _and(_xor(tf.bitwise.right_shift(low, tensor(step)), high), tensor(mask))
        low = _xor(low, shift_left(swap, step))
        x = tf.reshape(tf.stack([low, _xor(high, swap)], axis=2), x.shape)
    return x


def bit_planes(x: Any) -> tf.Tensor:
    """The bits of the flattened x -> [64, W], the least significant plane first."""
    return tf.transpose(_transpose_bits(_blocks(tensor(x))))


def from_bit_planes(planes: Any, shape: Sequence[int]) -> tf.Tensor:
    """The values [shape] whose bit planes are [64, W]."""
    planes, count = tensor(planes), math.prod(shape)
    check_planes(planes, shape)
    return tf.reshape(tf.reshape(_transpose_bits(tf.transpose(planes)), [-1])[:count], shape)


def pack_bits(x: Any) -> tf.Tensor:
    """Bit 0 of each value of the flattened x -> [W]."""
    bits = _and(_blocks(tensor(x)), tensor(1))
    return tf.reduce_sum(tf.bitwise.left_shift(bits, tf.range(64, dtype=tf.int64)), axis=1)


def unpack_bits(packed: Any, shape: Sequence[int]) -> tf.Tensor:
    """The packed bits [W] as values 0 and 1 of this shape."""
    packed, count = tensor(packed), math.prod(shape)
    check_packed(packed, shape)
    bits = _and(tf.bitwise.right_shift(packed[:, tf.newaxis], tf.range(64, dtype=tf.int64)), tensor(1))
    return tf.reshape(tf.reshape(bits, [-1])[:count], shape)


# ---- comparison: the carry of alpha + a out of the low `bits` bits -----------------------------------------


def _group_planes(x: tf.Tensor, bits: int, group: int, groups: int, filling: int) -> tf.Tensor:
    """Bit planes of x as [group, groups, W]; bit positions from `bits` on are filled with this word."""
    planes = bit_planes(x)[:bits]
    planes = tf.pad(planes, [[0, group * groups - bits], [0, 0]], constant_values=tensor(filling))
    return tf.transpose(tf.reshape(planes, [groups, group, planes.shape[1]]), [1, 0, 2])


def group_products(a: Any, *, bits: int, group: int, groups: int) -> tf.Tensor:
    """Products of the bits of each group of `group` bits of a -> [2^group - 1, groups, W].

    Entry s is the AND of the bits i of the group with bit i set in s + 1; positions from `bits` on hold 0.
    """
    check_groups(bits, group, groups)
    planes = _group_planes(tensor(a), bits, group, groups, 0)
    products = [tf.fill(planes.shape[1:], tensor(-1))]
    for i in range(group):
        products += [_and(product, planes[i]) for product in products]
    return tf.stack(products[1:])


def group_polynomials(alpha: Any, products: Any, *, bits: int, group: int, groups: int, leader: bool) -> tf.Tensor:
    """XOR shares [2, groups, W] of (G, P) of each group, from XOR shares of the products of the bits of a.

    With g_i = alpha_i & a_i and p_i = alpha_i ^ a_i: P = AND_i p_i and G = XOR_i g_i & AND_{j>i} p_j.
    alpha is public, of any shape; products [2^group - 1, groups, W] are those of `group_products`. Positions
    from `bits` on propagate (alpha_i = 1, a_i = 0). The leader adds the public terms.
    """
    check_groups(bits, group, groups)
    alpha, products = tensor(alpha), tensor(products)
    planes = _group_planes(alpha, bits, group, groups, -1)
    check_products(products, ((1 << group) - 1, groups, planes.shape[2]))
    # T[S] is a share of AND_{i in S} a_i & AND_{j folded} p_j; the bits fold from the top down.
    table = tf.concat([tf.fill([1, *products.shape[1:]], tensor(-1 if leader else 0)), products], axis=0)
    generate = tf.zeros(products.shape[1:], tf.int64)
    for i in reversed(range(group)):
        low, high = table[: 1 << i], table[1 << i :]
        generate = _xor(generate, _and(planes[i], high[0]))
        table = _xor(high, _and(planes[i], low))
    return tf.stack([generate, table[0]])


def gate_products(l: Any, *, radix: int, last: bool) -> tf.Tensor:  # noqa: E741 (the protocol's letter)
    """Products of the masks l [2, radix * k, W] that each of k gates needs -> [m, k, W].

    Inputs of gate t are the positions t * radix .. (t + 1) * radix - 1, significance increasing, of l[0] (masks
    of G) and l[1] (masks of P). The order of the m products is that of `gate_terms`.
    """
    masks = tensor(l)
    shape = static_shape(masks, "gate masks")
    inputs = tf.reshape(masks, [2, gate_inputs(shape, radix), radix, shape[2]])
    rows = []
    for k, mask in gate_terms(radix, last):
        row = tf.fill([inputs.shape[1], shape[2]], tensor(-1)) if k is None else inputs[0, :, k]
        for j in range(radix):
            if mask >> j & 1:
                row = _and(row, inputs[1, :, j])
        rows.append(row)
    return tf.stack(rows)


def gate(m: Any, l_share: Any, products: Any, *, radix: int, last: bool, leader: bool) -> tf.Tensor:
    """XOR shares [2, k, W] of (G', P') of k gates; [1, k, W], only G', when last.

    G' = XOR_k G_k & AND_{j>k} P_j and P' = AND_j P_j, where each value is v = m ^ l: m [2, radix * k, W] is
    public, l_share is an XOR share of l, products [m, k, W] an XOR share of `gate_products`. The leader adds
    the public terms.
    """
    m, l_share, products = tensor(m), tensor(l_share), tensor(products)
    count, width = check_gate(m, l_share, products, radix, last)
    public = tf.reshape(m, [2, count, radix, width])
    share = tf.reshape(l_share, [2, count, radix, width])
    terms: dict[tuple[int | None, int], tf.Tensor] = {(None, 0): tf.fill([count, width], tensor(-1 if leader else 0))}
    for j in range(radix):
        terms[j, 0] = share[0, :, j]
        terms[None, 1 << j] = share[1, :, j]
    terms |= dict(zip(gate_terms(radix, last), tf.unstack(products), strict=True))

    def product_of_p(k: int | None, low: int) -> tf.Tensor:
        """A share of l_G[k], unless k is None, times AND_{j >= low} P_j: expand every P_j = m_j ^ l_j."""
        table = [terms[k, high << low] for high in range(1 << (radix - low))]
        for j in range(low, radix):
            table = [_xor(table[i + 1], _and(public[1, :, j], table[i])) for i in range(0, len(table), 2)]
        return table[0]

    generate = tf.zeros([count, width], tf.int64)
    for k in range(radix):
        whole = _xor(_and(public[0, :, k], product_of_p(None, k + 1)), product_of_p(k, k + 1))
        generate = _xor(generate, whole)
    return tf.stack([generate] if last else [generate, product_of_p(None, 0)])


# ---- one pass over elements --------------------------------------------------------------------------------


def check_shift(shift: int) -> None:
    """The range of the fractional bits that exact-wrap truncation drops."""
    require(0 <= shift <= 62, f"truncation is by 0 to 62 bits, not {shift}")


def _opened_terms(opened: tf.Tensor, shift: int) -> tuple[tf.Tensor, tf.Tensor]:
    """P = (A >> f) - 2^(64-f) A63 - 2^(62-f) and q = -2^(64-f) (1 - A63): z >> f = P + (a >> f) + q v."""
    check_shift(shift)
    top = shift_right_logical(opened, 63)
    wrap = tensor(_signed(1 << (64 - shift)))
    constant = shift_right_logical(opened, shift) - wrap * top - tensor(1 << (62 - shift))
    return constant, wrap * (top - 1)


def _signed(value: int) -> int:
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


def truncate_opened(opened: Any, t: Any, v: Any, *, shift: int, leader: bool) -> tf.Tensor:
    """An additive share of z >> f by exact-wrap truncation, f = shift; all tensors have the shape of z.

    opened A = z + 2^62 - a is public; t and v are additive shares of a >> f and of bit 63 of a:
    z >> f = (A >> f) - 2^(64-f) A63 - 2^(62-f) + t - 2^(64-f) (1 - A63) v.
    """
    opened, t, v = same_shapes(opened, t, v)
    constant, factor = _opened_terms(opened, shift)
    share = t + factor * v
    return share + constant if leader else share


def same_shapes(*values: Any) -> tuple[tf.Tensor, ...]:
    """The values as int64 tensors, which must have one shape."""
    tensors = tuple(tensor(value) for value in values)
    shapes = [static_shape(x, "an elementwise kernel's argument") for x in tensors]
    require(len(set(shapes)) == 1, f"an elementwise kernel takes tensors of one shape, not {shapes}")
    return tensors


def multiply_bit(alpha: Any, a: Any, m_words: Any, l: Any, al: Any, *, leader: bool) -> tf.Tensor:  # noqa: E741
    """An additive share of x * d, for x = alpha + a and a bit d = m ^ lambda.

    alpha [...] is public, m_words [W] the packed public bits m; a, l and al [...] are additive shares of a, lambda
    and a * lambda: x d = alpha m + m a + (1 - 2m)(alpha lambda + a lambda).
    """
    alpha, a, l, al = same_shapes(alpha, a, l, al)  # noqa: E741
    m = unpack_bits(m_words, alpha.shape.as_list())
    share = m * a + (1 - 2 * m) * (alpha * l + al)
    return share + alpha * m if leader else share


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
    """An additive share of (z >> f) * d: `truncate_opened` and `multiply_bit` in one pass.

    opened A [...] and m_words [W] are public; t, v, l, tl and vl [...] are additive shares of a >> f, v = a63,
    lambda, and of the first two times lambda. With z >> f = P + t + q v:
    (z >> f) d = m P + m (t + q v) + (1 - 2m)(P lambda + tl + q vl).
    """
    opened, t, v, l, tl, vl = same_shapes(opened, t, v, l, tl, vl)  # noqa: E741
    constant, factor = _opened_terms(opened, shift)
    m = unpack_bits(m_words, opened.shape.as_list())
    share = m * (t + factor * v) + (1 - 2 * m) * (constant * l + tl + factor * vl)
    return share + m * constant if leader else share
