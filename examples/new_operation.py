"""Three ways to add an operation, from the one that needs least. docs/adding.md tells about them."""

import numpy as np
import tensorflow as tf

import shareflow as sf
from shareflow.party.party import at_each
from shareflow.protocol.functionality.dealer import correct
from shareflow.protocol.op import INTERACTIVE, LINEAR, Op
from shareflow.protocol.spdz import SPDZ, rules
from shareflow.share.additive import Additive
from shareflow.share.masked import Masked

# A linear operation: say what it does to ring elements and to reals. Every protocol has it at once.
CUMSUM = Op("cumsum", LINEAR, tf.cumsum, tf.cumsum)


def cumsum(x: sf.PrivateTensor, axis: int = 0) -> sf.PrivateTensor:
    """Running sums along an axis. Local."""
    return x.linear(CUMSUM, axis=axis)


# A function made of operations that are there. Every protocol that has those has it.
def absolute(x: sf.PrivateTensor) -> sf.PrivateTensor:
    """|x| = 2 max(x, 0) - x. Rounds: those of relu."""
    return 2 * sf.relu(x) - x


# An operation for which a protocol has something better than its general rule.
SQUARE = Op("square", INTERACTIVE, lambda x: x * x, lambda x: x * x)


@rules.rule(SQUARE, Masked)
def _square(spdz: SPDZ, op: Op, x: Masked) -> Additive:
    """<x^2>: x^2 = alpha^2 + 2 alpha a + a^2, and S2 corrects a^2. No round; offline 8 bytes an element."""
    with spdz.dealer:
        power = x.mask * x.mask

    def local(alpha: tf.Tensor, a: tf.Tensor, c: tf.Tensor, first: bool) -> tf.Tensor:
        return alpha * (alpha + 2 * a) + c if first else 2 * alpha * a + c

    dealt = correct(spdz.servers, spdz.dealer, power)
    parts = at_each(spdz.servers, local, x.opened, x.mask_parts, dealt, (True, False))
    return Additive(spdz.servers, (parts[0], parts[1]))


def square(x: sf.PrivateTensor) -> sf.PrivateTensor:
    """x^2, at twice the fractional bits. Rounds: masking x."""
    x = x.ready()
    protocol = x.protocol_of_shares()
    return sf.PrivateTensor(protocol.apply(SQUARE, x.share), 2 * x.fractional_bits, protocol)


def main() -> None:
    """Runs each operation on shares and, as its oracle, in the clear protocol."""
    values = np.array([1.5, -2.0, 0.25, -0.125])
    for protocol in (sf.SPDZ(), sf.Plain()):
        x = sf.private_tensor(values, "alice").shared(protocol)
        for operation in (cumsum, absolute, square):
            print(type(protocol).__name__, operation.__name__, operation(x).reveal("bob").numpy())


if __name__ == "__main__":
    main()
