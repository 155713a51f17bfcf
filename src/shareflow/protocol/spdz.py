"""SPDZ with masked tensors, for two servers and a dealer.

Setting: servers S0, S1 compute; the dealer S2 helps with correlated randomness and never sees a message that
    depends on an input, so all it does can run ahead ("offline"). Semi-honest, no two collude.
Shares: additive <x>, masked <<x>>, masked bits. Ring: the integers mod 2^64.
Paper: Dahl et al. 2018, section 2, after Damgard et al. 2012; the sign and truncation are shareflow's own
    (docs/protocols/spdz.md).
Cost: masking x: 1 round, 8 bytes an element from each server, once a tensor. A bilinear operation on masked
    operands: no round; offline 8 bytes an element of the result. Sharing an input: 8 bytes an element from the
    owner to one server. Revealing: 1 round, 8 bytes an element from each server to the receiver.
Names: alpha, beta -> ``opened``; a, b -> ``mask``; a_i -> ``mask_parts[i]``; c = op(a, b) -> ``product``.
Leaks: shapes, scales and the program. Not provided: security against parties that deviate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import tensorflow as tf

from shareflow.errors import PlacementError
from shareflow.party.party import Party, as_party, at_each
from shareflow.party.send import Kind, send
from shareflow.party.session import current_execution
from shareflow.protocol.functionality.comparison import Comparison, MaskedCarry
from shareflow.protocol.functionality.dealer import correct, correct_bits
from shareflow.protocol.functionality.opening import open_bits, open_ring
from shareflow.protocol.functionality.truncation import OFFSET, ExactWrap, Truncation
from shareflow.protocol.op import (
    ADD,
    AND,
    AT_LEAST,
    BILINEAR,
    LINEAR,
    MULTIPLY,
    NON_NEGATIVE,
    NOT,
    POWERS,
    RELU,
    ROW,
    SHIFT_RIGHT,
    SINE,
    SUBTRACT,
    TRUNCATE,
    XOR,
    Op,
)
from shareflow.protocol.protocol import Protocol
from shareflow.protocol.rules import Rules
from shareflow.ring import kernels
from shareflow.ring.fixed_point import FixedPoint
from shareflow.ring.sine import sine
from shareflow.share.additive import Additive
from shareflow.share.boolean import MaskedBits
from shareflow.share.known import Known
from shareflow.share.masked import Masked
from shareflow.share.public import Public
from shareflow.share.share import Share, linear
from shareflow.share.stream import shared_stream

rules = Rules()

_LEADER = (True, False)


@dataclass(frozen=True)
class SPDZ(Protocol):
    """Two servers and a dealer, given as parties or by name.

    Raises:
        PlacementError: two of the three are one party.
    """

    servers: tuple[Party, Party] = field(default_factory=lambda: (Party("server0"), Party("server1")))
    dealer: Party = field(default_factory=lambda: Party("dealer"))
    fixed_point: FixedPoint = field(default_factory=FixedPoint)
    truncation: Truncation = field(default_factory=ExactWrap)
    comparison: Comparison = field(default_factory=MaskedCarry)

    rules: ClassVar[Rules] = rules

    def __post_init__(self) -> None:
        if not isinstance(self.servers, (tuple, list)) or len(self.servers) != 2:
            raise PlacementError(
                f"SPDZ has two servers, given as a pair; got {self.servers!r}. "
                "Write for example SPDZ(servers=('server0', 'server1'))."
            )
        server0, server1 = (as_party(server) for server in self.servers)
        object.__setattr__(self, "servers", (server0, server1))
        object.__setattr__(self, "dealer", as_party(self.dealer))
        if len(set(self.computing_parties)) != 3:
            raise PlacementError(
                "SPDZ needs three parties, no two of them one: who holds both shares, or a mask and what it "
                f"hides, sees everything. Got servers {server0}, {server1} and dealer {self.dealer}."
            )

    @property
    def computing_parties(self) -> tuple[Party, ...]:
        return (*self.servers, self.dealer)

    def share(self, known: Known, fractional_bits: int) -> Additive:
        """<x>: one server's part is a stream of the owner and that server, the other is sent x minus it."""
        owner = known.owner
        with owner:
            x = self.fixed_point.encode(known.value, fractional_bits)
        if owner in self.servers:
            # The other server's part is a stream that both have: nothing crosses.
            sender, keeper = owner, self.servers[1 - self.servers.index(owner)]
        else:
            sender = current_execution().lighter(self.servers, math.prod(x.shape), Kind.INPUT)
            keeper = self.servers[1 - self.servers.index(sender)]
        pad = shared_stream(owner, keeper, x.shape)
        with owner:
            rest = x - pad.at(owner)
        parts = {keeper: pad.at(keeper), sender: send(rest, owner, sender, Kind.INPUT)}
        return Additive(self.servers, (parts[self.servers[0]], parts[self.servers[1]]))

    def reveal(self, share: Share, receiver: Party) -> tf.Tensor:
        """x0 + x1 at the receiver, each part with a fresh share of zero: parts can say more than their sum."""
        x = self.rules.convert(self, share, Additive)
        server0, server1 = self.servers
        zero = shared_stream(server0, server1, x.shape)
        with server0:
            part0 = x.parts[0] + zero.at(server0)
        with server1:
            part1 = x.parts[1] - zero.at(server1)
        part0, part1 = send(part0, server0, receiver, Kind.RESULT), send(part1, server1, receiver, Kind.RESULT)
        with receiver:
            return part0 + part1

    def reusable(self, share: Share) -> Masked:
        """Masked: a model's weights are masked once, when they are loaded, and serve every prediction."""
        return self.rules.convert(self, share, Masked)


# --- lifts ------------------------------------------------------------------------------------------------


@rules.lift(Public, Additive, cost=1)
def _public_to_additive(spdz: SPDZ, x: Public) -> Additive:
    server0, server1 = spdz.servers
    with server0:
        part0 = tf.identity(x.value)
    with server1:
        part1 = tf.zeros_like(x.value)
    return Additive(spdz.servers, (part0, part1))


@rules.lift(Additive, Masked, cost=100)
def mask(spdz: SPDZ, x: Additive) -> Masked:
    """<<x>> = open(x - a). One round, 8 bytes an element each way."""
    with tf.name_scope("mask"):
        opened, a = open_ring(spdz.servers, spdz.dealer, x.parts)
    return Masked(spdz.servers, spdz.dealer, opened, a.parts, a.whole)


@rules.lift(Masked, Additive, cost=0)
def _masked_to_additive(spdz: SPDZ, x: Masked) -> Additive:
    return x.additive()


@rules.lift(MaskedBits, Additive, cost=10)
def bits_to_ring(spdz: SPDZ, v: MaskedBits) -> Additive:
    """<v> as 0 or 1: v = m xor l = m + (1 - 2m) l, and S2 corrects l. No round; offline 8 bytes an element."""
    with spdz.dealer:
        hidden = v.unpack(v.mask)

    def local(words: tf.Tensor, own: tf.Tensor, first: bool) -> tf.Tensor:
        m = v.unpack(words)
        rest = (1 - 2 * m) * own
        return m + rest if first else rest

    parts = at_each(spdz.servers, local, v.opened, correct(spdz.servers, spdz.dealer, hidden), _LEADER)
    return Additive(spdz.servers, (parts[0], parts[1]))


# --- linear: each party on its own components ---------------------------------------------------------------


@rules.rule(LINEAR, Additive)
@rules.rule(LINEAR, Masked)
def _linear(spdz: SPDZ, op: Op, *shares: Share, **attributes: Any) -> Share:
    return linear(lambda *own: op.ring(*own, **attributes), *shares)


@rules.rule(ADD, Masked, Public)
def _add_public(spdz: SPDZ, op: Op, x: Masked, c: Public) -> Masked:
    return x.shift(c.value)


@rules.rule(ADD, Public, Masked)
def _public_add(spdz: SPDZ, op: Op, c: Public, x: Masked) -> Masked:
    return x.shift(c.value)


@rules.rule(SUBTRACT, Masked, Public)
def _subtract_public(spdz: SPDZ, op: Op, x: Masked, c: Public) -> Masked:
    return x.shift(-c.value)


# --- bilinear -----------------------------------------------------------------------------------------------


@rules.rule(BILINEAR, Additive, Public)
@rules.rule(BILINEAR, Masked, Public)
def _by_public(spdz: SPDZ, op: Op, x: Share, c: Public, **attributes: Any) -> Share:
    return linear(lambda own: op.ring(own, c.value, **attributes), x)


@rules.rule(BILINEAR, Public, Additive)
@rules.rule(BILINEAR, Public, Masked)
def _public_by(spdz: SPDZ, op: Op, c: Public, x: Share, **attributes: Any) -> Share:
    return linear(lambda own: op.ring(c.value, own, **attributes), x)


@rules.rule(BILINEAR, Masked, Masked)
def bilinear(spdz: SPDZ, op: Op, x: Masked, y: Masked, **attributes: Any) -> Additive:
    """<op(x, y)>, with no round. x = alpha + a, y = beta + b; S2 corrects c = op(a, b):

    z0 = op(alpha, beta + b0) + op(a0, beta) + c0
    z1 = op(alpha, b1)        + op(a1, beta) + c1

    S0 may as well add on x's side, op(alpha + a0, beta) + op(alpha, b0): it adds where the tensor is smaller.
    """

    def product(left: tf.Tensor, right: tf.Tensor) -> tf.Tensor:
        return op.ring(left, right, **attributes)

    with spdz.dealer:
        c = product(x.mask, y.mask)
    c0, c1 = correct(spdz.servers, spdz.dealer, c)
    server0, server1 = spdz.servers
    (alpha, alpha1), (beta, beta1) = x.opened, y.opened
    (a0, a1), (b0, b1) = x.mask_parts, y.mask_parts
    x0, y0 = x.lifted(Additive), y.lifted(Additive)
    with server0:
        if y0 is not None or (x0 is None and math.prod(y.shape) <= math.prod(x.shape)):
            z0 = product(alpha, y.additive().parts[0]) + product(a0, beta) + c0
        else:
            z0 = product(x.additive().parts[0], beta) + product(alpha, b0) + c0
    with server1:
        z1 = product(alpha1, b1) + product(a1, beta1) + c1
    return Additive(spdz.servers, (z0, z1))


# --- interactive --------------------------------------------------------------------------------------------


@rules.rule(POWERS, Masked)
def powers(spdz: SPDZ, op: Op, x: Masked, *, coefficients: tuple[int, ...]) -> Additive:
    """<c1 x + c2 x^2 + ... + cd x^d> in the ring, from the one opening of x.

    x^k = sum_i binomial(k, i) alpha^(k-i) a^i, and S2 corrects a^2 ... a^d. No round; offline 8 (d - 1) bytes.
    """
    degree = len(coefficients)
    dealt: list[tuple[tf.Tensor, tf.Tensor]] = [x.mask_parts]
    with spdz.dealer:
        power = x.mask
    for _ in range(2, degree + 1):
        with spdz.dealer:
            power = power * x.mask
        dealt.append(correct(spdz.servers, spdz.dealer, power))

    def local(alpha: tf.Tensor, first: bool, *mask_powers: tf.Tensor) -> tf.Tensor:
        alphas = [tf.ones_like(alpha)]
        for _ in range(degree):
            alphas.append(alphas[-1] * alpha)
        terms = []
        for i in range(0 if first else 1, degree + 1):
            public = tf.add_n(
                [alphas[k - i] * _word(coefficients[k - 1] * math.comb(k, i)) for k in range(max(i, 1), degree + 1)]
            )
            terms.append(public * mask_powers[i - 1] if i else public)
        return tf.add_n(terms)

    parts = at_each(spdz.servers, local, x.opened, _LEADER, *dealt)
    return Additive(spdz.servers, (parts[0], parts[1]))


@rules.rule(SINE, Masked)
def _sine(spdz: SPDZ, op: Op, x: Masked, *, bits: int, result_bits: int) -> Additive:
    """<sin(x)> of an angle whose turn divides the ring, so that alpha + a may wrap:

    sin(alpha + a) = sin(alpha) cos(a) + cos(alpha) sin(a)

    S2 corrects cos(a) and sin(a); sin(alpha) and cos(alpha) are public words, the same at both servers. No round;
    offline 16 bytes an element.
    """
    quarter = 1 << bits - 2

    def both(angle: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        own, ahead = (sine(angle + turn, bits=bits, result_bits=result_bits) for turn in (0, quarter))
        return own, ahead

    with spdz.dealer:
        sin_a, cos_a = both(x.mask)
    dealt = [correct(spdz.servers, spdz.dealer, value) for value in (sin_a, cos_a)]

    def local(alpha: tf.Tensor, own_sin: tf.Tensor, own_cos: tf.Tensor) -> tf.Tensor:
        sin_alpha, cos_alpha = both(alpha)
        return sin_alpha * own_cos + cos_alpha * own_sin

    parts = at_each(spdz.servers, local, x.opened, *dealt)
    return Additive(spdz.servers, (parts[0], parts[1]))


def _word(value: int) -> int:
    """A whole number mod 2^64, as int64 holds it."""
    return (value + (1 << 63)) % (1 << 64) - (1 << 63)


@rules.rule(TRUNCATE, Masked)
@rules.rule(TRUNCATE, Additive)
def _truncate(spdz: SPDZ, op: Op, z: Share, *, bits: int) -> Additive:
    return spdz.truncation.truncate(spdz.rules.convert(spdz, z, spdz.truncation.needs), bits)


@rules.rule(NON_NEGATIVE, Masked)
def _non_negative(spdz: SPDZ, op: Op, x: Masked, *, size: int) -> MaskedBits:
    return spdz.comparison.at_least(x, size=size).row()


@rules.rule(AT_LEAST, Masked)
def _at_least(spdz: SPDZ, op: Op, x: Masked, *, thresholds: tuple[int, ...], size: int) -> MaskedBits:
    return spdz.comparison.at_least(x, thresholds, size)


@rules.rule(ROW, MaskedBits)
def _row(spdz: SPDZ, op: Op, v: MaskedBits, *, number: int) -> MaskedBits:
    return v.row(number)


@rules.rule(NOT, MaskedBits)
def _not(spdz: SPDZ, op: Op, v: MaskedBits) -> MaskedBits:
    return v.invert()


@rules.rule(NOT, Additive)
@rules.rule(NOT, Masked)
def _not_ring(spdz: SPDZ, op: Op, v: Share) -> Share:
    """1 - v on ring elements that are 0 or 1."""
    return spdz.apply(ADD, linear(tf.negative, v), Public(tf.constant(1, tf.int64)))


@rules.rule(XOR, MaskedBits, MaskedBits)
def _xor(spdz: SPDZ, op: Op, v: MaskedBits, w: MaskedBits) -> Share:
    """<<v xor w>>: m xor m' under the mask l xor l'. Local."""
    if (v.shape, v.rows) != (w.shape, w.rows):
        return _xor_ring(spdz, op, spdz.rules.convert(spdz, v, Masked), spdz.rules.convert(spdz, w, Masked))
    xor = tf.bitwise.bitwise_xor
    opened = at_each(spdz.servers, xor, v.opened, w.opened)
    with spdz.dealer:
        mask = xor(v.mask, w.mask)
    return v.with_components((*opened, mask))


@rules.rule(XOR, Masked, Masked)
def _xor_ring(spdz: SPDZ, op: Op, v: Masked, w: Masked) -> Share:
    """v + w - 2 v w on ring elements that are 0 or 1."""
    both = bilinear(spdz, MULTIPLY, v, w)
    return linear(lambda a, b, ab: a + b - 2 * ab, v.additive(), w.additive(), both)


@rules.rule(AND, MaskedBits, MaskedBits)
def _and(spdz: SPDZ, op: Op, v: MaskedBits, w: MaskedBits) -> Share:
    """<<v and w>> = (m xor l)(m' xor l'), S2 correcting l, l' and l l'; the result is opened. One round, 1 bit each."""
    if (v.shape, v.rows) != (w.shape, w.rows):
        return bilinear(spdz, MULTIPLY, spdz.rules.convert(spdz, v, Masked), spdz.rules.convert(spdz, w, Masked))
    servers, dealer = spdz.servers, spdz.dealer
    both, xor = tf.bitwise.bitwise_and, tf.bitwise.bitwise_xor
    with dealer:
        product = both(v.mask, w.mask)
    dealt = (correct_bits(servers, dealer, words) for words in (v.mask, w.mask, product))

    def local(m: tf.Tensor, n: tf.Tensor, k: tf.Tensor, l: tf.Tensor, kl: tf.Tensor, first: bool) -> tf.Tensor:  # noqa: E741
        share = xor(xor(both(m, l), both(n, k)), kl)
        return xor(share, both(m, n)) if first else share

    parts = at_each(servers, local, v.opened, w.opened, *dealt, _LEADER)
    opened, mask = open_bits(servers, dealer, (parts[0], parts[1]))
    return v.with_components((*opened, mask.whole))


@rules.rule(AND, Masked, Masked)
def _and_ring(spdz: SPDZ, op: Op, v: Masked, w: Masked) -> Share:
    return bilinear(spdz, MULTIPLY, v, w)


@rules.rule(MULTIPLY, MaskedBits, Masked)
def select(spdz: SPDZ, op: Op, d: MaskedBits, x: Masked) -> Additive:
    """<d x> for a bit d = m xor l: alpha m + m a + (1 - 2m)(alpha l + a l), S2 correcting l and a l.

    The bit needs no masking as a ring element: no round. Offline 16 bytes an element.
    """
    if d.shape != x.shape or d.rows != 1:
        if d.rows == 1 and tf.broadcast_static_shape(tf.TensorShape(d.shape), tf.TensorShape(x.shape)) == d.shape:
            x = linear(lambda own: tf.broadcast_to(own, d.shape), x)
        else:
            return bilinear(spdz, op, spdz.rules.convert(spdz, d, Masked), x)
    return _select(spdz, d, x, _deal_bit(spdz, d))


@rules.rule(MULTIPLY, Masked, MaskedBits)
def _select_swapped(spdz: SPDZ, op: Op, x: Masked, d: MaskedBits) -> Additive:
    return select(spdz, op, d, x)


Parts = tuple[tf.Tensor, tf.Tensor]


def _deal_bit(spdz: SPDZ, d: MaskedBits) -> tuple[tf.Tensor, Parts]:
    """The dealer's l as ring elements, and the servers' parts of it."""
    with spdz.dealer:
        hidden = d.unpack(d.mask)
    return hidden, correct(spdz.servers, spdz.dealer, hidden)


def _select(spdz: SPDZ, d: MaskedBits, x: Masked, bit: tuple[tf.Tensor, Parts]) -> Additive:
    hidden, l = bit  # noqa: E741 - the formula's letter
    with spdz.dealer:
        hidden_mask = hidden * x.mask
    al = correct(spdz.servers, spdz.dealer, hidden_mask)

    def local(
        alpha: tf.Tensor, a: tf.Tensor, m: tf.Tensor, own_l: tf.Tensor, own_al: tf.Tensor, first: bool
    ) -> tf.Tensor:
        return kernels.multiply_bit(alpha, a, m, own_l, own_al, leader=first)

    parts = at_each(spdz.servers, local, x.opened, x.mask_parts, d.opened, l, al, _LEADER)
    return Additive(spdz.servers, (parts[0], parts[1]))


@rules.rule(SHIFT_RIGHT, Masked)
def _shift_right(spdz: SPDZ, op: Op, z: Masked, *, bits: int) -> Additive:
    """<floor(z / 2^bits)>, exactly: z' = z + 2^62 and A = z' - a give

    floor(z / 2^k) = (A >> k) + (a >> k) + carry_k - 2^(64-k) w - 2^(62-k)

    with carry_k out of the low k bits of A + a (a comparison of k bits) and w as in truncation.py.
    Rounds: those of the comparison. Besides it offline 24 bytes an element.
    """
    offset = z.shift(tf.constant(OFFSET, tf.int64))
    carry = bits_to_ring(spdz, spdz.comparison.carry(offset, bits))
    t, v = ExactWrap.mask_parts(z, bits)
    rest = at_each(
        spdz.servers,
        lambda opened, own_t, own_v, first: kernels.truncate_opened(opened, own_t, own_v, shift=bits, leader=first),
        offset.opened,
        t,
        v,
        _LEADER,
    )
    return linear(tf.add, carry, Additive(spdz.servers, (rest[0], rest[1])))


@rules.rule(RELU, Masked)
@rules.rule(RELU, Additive)
def relu(spdz: SPDZ, op: Op, x: Share, *, bits: int, size: int) -> Additive:
    """<max(x, 0) / 2^bits>. A truncation that costs nothing goes first; another rides in the comparison."""
    if bits and spdz.truncation.needs is Additive:
        x, bits, size = _truncate(spdz, op, x, bits=bits), 0, max(size - bits + 1, 1)
    return masked_relu(spdz, spdz.rules.convert(spdz, x, Masked), bits, size)


def masked_relu(spdz: SPDZ, x: Masked, bits: int, size: int) -> Additive:
    """<max(x, 0) / 2^bits>, truncated in the comparison's openings: d = [x >= 0] = m xor l, then

    x d = (alpha + a)(m + (1 - 2m) l) = alpha m + m a + (1 - 2m)(alpha l + a l)

    with S2 correcting l and a l. With truncation a stands for the linear expression of truncation.py in
    t = a >> bits and v = a63, and S2 corrects l, t, v, t l, v l. What is compared is then the truncated value y, which
    has fewer bits: max(y, 0) is the same whether d = [y >= 0] or [x >= 0].

    Rounds: those of the comparison. Offline besides it: 16 bytes an element, 40 with truncation.
    """
    servers, dealer = spdz.servers, spdz.dealer
    if not bits:
        d = spdz.comparison.at_least(x, size=size).row()
        return _select(spdz, d, x, _deal_bit(spdz, d))
    t, v = ExactWrap.mask_parts(x, bits)
    y = ExactWrap.shifted(x, t, bits)
    d = spdz.comparison.at_least(y, size=ExactWrap.shifted_size(bits, size)).row()
    hidden, l = _deal_bit(spdz, d)  # noqa: E741 - the formula's letter
    with dealer:
        whole_t = y.mask * hidden
        whole_v = kernels.shift_right_logical(x.mask, 63) * hidden
    tl, vl = correct(servers, dealer, whole_t), correct(servers, dealer, whole_v)

    def truncate_and_select(
        alpha: tf.Tensor,
        m: tf.Tensor,
        own_t: tf.Tensor,
        own_v: tf.Tensor,
        own_l: tf.Tensor,
        own_tl: tf.Tensor,
        own_vl: tf.Tensor,
        first: bool,
    ) -> tf.Tensor:
        opened = ExactWrap.offset(alpha, bits)
        return kernels.truncate_multiply_bit(opened, m, own_t, own_v, own_l, own_tl, own_vl, shift=bits, leader=first)

    parts = at_each(servers, truncate_and_select, x.opened, d.opened, t, v, l, tl, vl, _LEADER)
    return Additive(servers, (parts[0], parts[1]))
