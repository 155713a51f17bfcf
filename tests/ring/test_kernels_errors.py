"""Wrong arguments: a clear error from the Python function, and from the op itself, never a crash."""

from typing import Any

import pytest
import tensorflow as tf

from shareflow.errors import KernelError, ShapeError
from shareflow.ring import kernels, reference


def z(*shape: int) -> tf.Tensor:
    return tf.zeros(shape, tf.int64)


IMAGE, FILTER = z(1, 4, 4, 1), z(1, 1, 1, 1)
GROUPS = {"bits": 63, "group": 4, "groups": 16}

CALLS: list[tuple[str, str, tuple[Any, ...], dict[str, Any]]] = [
    ("rank 2 or more", "matmul", (z(3), z(3, 4)), {}),
    ("equal inner dimensions, not 4 and 5", "matmul", (z(3, 4), z(5, 6)), {}),
    ("batch dimensions that broadcast", "matmul", (z(2, 3, 4), z(3, 4, 5)), {}),
    ("rank 4", "conv2d", (z(3, 4, 5), z(1, 1, 5, 5)), {}),
    ("padding must not be negative", "conv2d", (IMAGE, FILTER), {"padding": ((0, 0), (-1, 0))}),
    ("strides must be at least 1", "conv2d", (IMAGE, FILTER), {"strides": (0, 1)}),
    ("dilations must be at least 1", "conv2d", (IMAGE, FILTER), {"dilations": (1, 0)}),
    ("at least one element", "conv2d", (IMAGE, z(0, 1, 1, 1)), {}),
    ("larger than the padded image", "conv2d", (z(1, 1, 4, 1), z(3, 3, 1, 1)), {}),
    ("groups = 2", "conv2d", (z(1, 4, 4, 3), z(1, 1, 2, 2)), {"groups": 2}),
    (r"w.shape\[2\] = C", "depthwise_conv2d", (z(1, 4, 4, 3), z(1, 1, 2, 2)), {}),
    (r"bit planes \[64, 2\]", "from_bit_planes", (z(64, 1), [65]), {}),
    (r"packed in \[2\] words, not \[1\]", "unpack_bits", (z(1), [65]), {}),
    ("2 to 6 bits, not 7", "group_products", (z(5),), {"bits": 8, "group": 7, "groups": 2}),
    ("1 to 63 bits, not 64", "group_products", (z(5),), {"bits": 64, "group": 4, "groups": 16}),
    ("do not hold 63 bits", "group_products", (z(5),), {"bits": 63, "group": 4, "groups": 15}),
    (r"shape \[15, 16, 1\]", "group_polynomials", (z(5), z(15, 16, 2)), {**GROUPS, "leader": True}),
    ("radix 2 to 8, not 9", "gate_products", (z(2, 9, 1),), {"radix": 9, "last": True}),
    (r"\[2, 4 \* k, W\]", "gate_products", (z(2, 6, 1),), {"radix": 4, "last": True}),
    (
        r"shape \[15, 1, 1\]",
        "gate",
        (z(2, 4, 1), z(2, 4, 1), z(11, 1, 1)),
        {"radix": 4, "last": True, "leader": True},
    ),
    (
        "the shape of the values",
        "gate",
        (z(2, 4, 1), z(2, 4, 2), z(15, 1, 1)),
        {"radix": 4, "last": True, "leader": True},
    ),
    ("one shape", "truncate_opened", (z(3), z(4), z(3)), {"shift": 3, "leader": True}),
    ("0 to 62 bits, not 63", "truncate_opened", (z(3), z(3), z(3)), {"shift": 63, "leader": True}),
    ("0 to 63 bits, not 64", "shift_left", (z(3), 64), {}),
]

OPS: list[tuple[str, str, tuple[Any, ...], dict[str, Any]]] = [
    ("rank", "matmul", (z(3), z(3, 4)), {}),
    ("equal inner dimensions", "matmul", (z(3, 4), z(5, 6)), {}),
    ("broadcast", "matmul", (z(2, 3, 4), z(3, 4, 5)), {}),
    ("rank 4", "conv2d", (z(3, 4, 5), z(1, 1, 5, 5)), {}),
    ("not be negative", "conv2d", (IMAGE, FILTER), {"padding": [0, 0, 0, -1]}),
    ("four numbers", "conv2d", (IMAGE, FILTER), {"padding": [0]}),
    ("at least 1", "conv2d", (IMAGE, FILTER), {"strides": [0, 1]}),
    ("two numbers", "conv2d", (IMAGE, FILTER), {"dilations": [1]}),
    ("at least one element", "conv2d", (IMAGE, z(0, 1, 1, 1)), {}),
    ("larger than the padded", "conv2d", (z(1, 1, 4, 1), z(3, 3, 1, 1)), {}),
    ("C = 3", "conv2d", (z(1, 4, 4, 3), z(1, 1, 2, 2)), {"groups": 2}),
    ("groups must be", "conv2d", (IMAGE, FILTER), {"groups": 0}),
    ("C = 3", "depthwise_conv2d", (z(1, 4, 4, 3), z(1, 1, 2, 2)), {}),
    (r"key has shape \[2\]", "uniform", (z(3), 0, 0), {"shape": [2]}),
    ("scalars", "uniform", (z(2), z(1), 0), {"shape": [2]}),
    (r"in \[0, 2\^31\), not -1", "uniform", (z(2), 0, -1), {"shape": [2]}),
    ("negative dimension", "uniform", (z(2), 0, 0), {"shape": [-2]}),
    ("too many elements", "uniform", (z(2), 0, 0), {"shape": [2**40, 2**40]}),
    (r"at most 2\^33", "uniform", (z(2), 0, 0), {"shape": [2**34]}),
    (r"bit planes \[64, 2\]", "from_bit_planes", (z(64, 1),), {"shape": [65]}),
    (r"packed in \[2\]", "unpack_bits", (z(1),), {"shape": [65]}),
    ("2 to 6 bits", "group_products", (z(5),), {"bits": 8, "group": 7, "groups": 2}),
    ("do not hold", "group_products", (z(5),), {"bits": 8, "group": 4, "groups": -2}),
    ("shared products", "group_polynomials", (z(5), z(15, 16, 2)), {**GROUPS, "leader": True}),
    ("radix 2 to 8", "gate_products", (z(2, 9, 1),), {"radix": 9, "last": True}),
    ("takes a tensor", "gate_products", (z(2, 6, 1),), {"radix": 4, "last": True}),
    (
        "shared products",
        "gate",
        (z(2, 4, 1), z(2, 4, 1), z(11, 1, 1)),
        {"radix": 4, "last": True, "leader": True},
    ),
    ("one shape", "truncate_opened", (z(3), z(4), z(3)), {"shift": 3, "leader": True}),
    ("packed in", "multiply_bit", (z(3), z(3), z(2), z(3), z(3)), {"leader": True}),
    ("0 to 63 bits", "shift", (z(3),), {"amount": 64, "left": True}),
]


@pytest.mark.parametrize("module", [kernels, reference])
@pytest.mark.parametrize(("text", "name", "args", "how"), CALLS)
def test_functions(text: str, name: str, args: tuple[Any, ...], how: dict[str, Any], module: Any) -> None:
    with pytest.raises(ShapeError, match=text):
        getattr(module, name)(*args, **how)


@pytest.mark.skipif(kernels._library is None, reason="no native kernels")
@pytest.mark.parametrize(("text", "name", "args", "how"), OPS)
def test_ops(text: str, name: str, args: tuple[Any, ...], how: dict[str, Any]) -> None:
    """What reaches an op past the checks in Python, as from a saved graph."""
    assert kernels._library is not None
    with pytest.raises(tf.errors.InvalidArgumentError, match=text):
        getattr(kernels._library.ops, f"shareflow_{name}")(*args, **how)


def test_dynamic_shapes_are_refused() -> None:
    @tf.function(input_signature=[tf.TensorSpec([None], tf.int64)], autograph=False)
    def run(x: tf.Tensor) -> tf.Tensor:
        return kernels.bit_planes(x)

    with pytest.raises(ShapeError, match="must have a static shape"):
        run.get_concrete_function()


def test_forced_refuses_what_is_not_there() -> None:
    with pytest.raises(KernelError, match="cannot be forced here; available: "), kernels.forced("avx1024"):
        pass


def test_forced_restores() -> None:
    before = kernels.instruction_set()
    for name in kernels.available():
        with kernels.forced(name):
            assert kernels.instruction_set() == name
    assert kernels.instruction_set() == before
