"""One node of an ONNX graph with its inputs' values, and the table of what each op computes in TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf

from shareflow.compiler.front.onnx_ops.laid import Laid, public_tensor
from shareflow.errors import UnsupportedModelError

# Public, or a tensor of parties' values; None for an optional input that is left out.
Value = np.ndarray | Laid
Compute = Callable[["Call"], Any]
C = TypeVar("C", bound=Compute)

_table: dict[tuple[str, str], Compute] = {}
# The names of one domain: that of ONNX itself.
_STANDARD = ("", "ai.onnx")
# Elements that a value may have in all: a file of a few bytes must not ask for all memory.
MOST_ELEMENTS = 1 << 28
# For ops that cannot be had: what does nearly the same.
_NEAREST = {
    **dict.fromkeys(
        ("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial"),
        "Draw random numbers outside, and give them as an input.",
    ),
    **dict.fromkeys(
        ("NonMaxSuppression", "Unique", "NonZero", "Compress"),
        "The shape of its result would tell of private values: end the private part before it.",
    ),
    **dict.fromkeys(
        ("TreeEnsembleClassifier", "TreeEnsembleRegressor", "TreeEnsemble"),
        "Export a linear model or a network of layers.",
    ),
    **dict.fromkeys(
        ("QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear"),
        "Export the model before quantisation, in float32, or in QuantizeLinear / DequantizeLinear form.",
    ),
    "ZipMap": "Convert without it: skl2onnx.convert_sklearn(..., options={'zipmap': False}).",
    "Det": "Compute determinants and inverses of what is the owner's before the export.",
    "STFT": "Compute spectra in plaintext at the client, before the private part.",
    "DFT": "Compute spectra in plaintext at the client, before the private part.",
    "StringNormalizer": "Strings stay outside: give numbers, as token ids.",
    "TfIdfVectorizer": "Strings stay outside: give numbers, as token ids.",
    "Tokenizer": "Strings stay outside: give numbers, as token ids.",
    "MaxUnpool": "Use Resize.",
    "RoiAlign": "Use public slices and Resize.",
}


@dataclass
class Call:
    """A node that is being computed.

    Args:
        op: such as "Conv".
        name: the node's, or one made from its place.
        opset: the version of its domain that the model asks for.
        attributes: as Python values and arrays.
        inputs: values; None where an optional one is left out.
        outputs: how many results the node names.
        weight: an array in the node's attributes as a tensor of the owner's.
        body: computes a graph that is an attribute, on these values.
        domain: whose op it is.
    """

    op: str
    name: str
    opset: int
    attributes: Mapping[str, Any]
    inputs: Sequence[Value | None]
    outputs: int
    weight: Callable[[str, np.ndarray], Laid]
    body: Callable[[str, Sequence[Value | None]], list[Value]]
    domain: str = ""

    def get(self, attribute: str, otherwise: Any = None) -> Any:
        """An attribute, or what it is where it is left out."""
        return self.attributes.get(attribute, otherwise)

    def has(self, index: int) -> bool:
        """Whether an optional input is given."""
        return index < len(self.inputs) and self.inputs[index] is not None

    def value(self, index: int) -> Value:
        """An input.

        Raises:
            UnsupportedModelError: it is left out.
        """
        value = self.inputs[index] if index < len(self.inputs) else None
        if value is None:
            raise self.refuse(f"needs input {index}.", "Export the model again.")
        return value

    def shape(self, index: int) -> tuple[int, ...]:
        """An input's shape in ONNX's order of axes."""
        return tuple(self.value(index).shape)

    def rank(self, index: int) -> int:
        """How many axes an input has."""
        return len(self.shape(index))

    def tensor(self, index: int) -> tf.Tensor:
        """An input with its axes in ONNX's order."""
        return tensor_of(self.value(index))

    def last(self, index: int) -> tf.Tensor:
        """An input with channels last."""
        value = self.value(index)
        return value.last if isinstance(value, Laid) else Laid(public_tensor(value)).last

    def lies_last(self, index: int) -> bool:
        """Whether an input already lies with channels last."""
        value = self.value(index)
        return isinstance(value, Laid) and value.lies_last

    def public(self, index: int, what: str) -> np.ndarray:
        """An input that all parties know; an initialiser at such a place is public, as the program is.

        Raises:
            UnsupportedModelError: it is private.
        """
        value = self.value(index)
        array = value if isinstance(value, np.ndarray) else value.array
        if array is None:
            raise self.refuse(
                f"takes {what} that all parties know; here it depends on private values, or on weights.",
                "Make it a constant before the export.",
            )
        return array

    def numbers(self, index: int, what: str) -> list[int]:
        """A public input of whole numbers, as a list."""
        return [int(n) for n in np.ravel(self.public(index, what))]

    def numbers_or(self, attribute: str, index: int, what: str) -> list[int] | None:
        """Whole numbers that older versions have as an attribute, newer ones as an input; None if in neither."""
        if attribute in self.attributes:
            return [int(n) for n in np.ravel(self.attributes[attribute])]
        return self.numbers(index, what) if self.has(index) else None

    def axis(self, index: int, otherwise: int) -> int:
        """The attribute ``axis`` from 0 on, for an input."""
        return positive(int(self.get("axis", otherwise)), self.rank(index), self)

    def checked(self, shape: Sequence[int]) -> list[int]:
        """A shape that memory can hold.

        Raises:
            UnsupportedModelError: too many elements, or a negative extent.
        """
        extents = [int(n) for n in shape]
        if any(n < 0 for n in extents) or int(np.prod(extents, dtype=object)) > MOST_ELEMENTS:
            raise self.refuse(f"makes a value of shape {extents}.", f"A value has {MOST_ELEMENTS:,} elements at most.")
        return extents

    def refuse(self, rule: str, way_out: str) -> UnsupportedModelError:
        """An error that names the op, its node and version."""
        return UnsupportedModelError(f"{self.title} {rule} {way_out}")

    @property
    def title(self) -> str:
        """Op, node and version, for people."""
        domain = "" if self.domain in _STANDARD else f" of {self.domain}"
        return f"ONNX op {self.op}{domain} (opset {self.opset}) at node '{self.name}'"


def tensor_of(value: Value) -> tf.Tensor:
    """A value as a tensor, its axes in ONNX's order."""
    return value.first if isinstance(value, Laid) else public_tensor(value)


def positive(axis: int, rank: int, call: Call) -> int:
    """An axis counted from the first.

    Raises:
        UnsupportedModelError: there is none such.
    """
    if not -rank <= axis < rank:
        raise call.refuse(f"has axis {axis} of a value with {rank} axes.", "Export the model again.")
    return axis % rank


def computes(*ops: str, domain: str = "") -> Callable[[C], C]:
    """Registers what ops compute. The function takes a :class:`Call`, and returns a value or a tuple of values:
    tensors with axes in ONNX's order, :class:`Laid`, or public arrays."""

    def register(compute: C) -> C:
        for op in ops:
            _table[domain, op] = compute
        return compute

    return register


def compute_of(domain: str, op: str) -> Compute | None:
    """What computes an op; None if nothing does."""
    return _table.get(("" if domain in _STANDARD else domain, op))


def supported() -> list[str]:
    """All ops that can be translated; those of another domain than ONNX's own with its name."""
    return sorted(f"{domain}.{op}".lstrip(".") for domain, op in _table)


def unsupported(call: Call) -> UnsupportedModelError:
    """The error for an op without a translation."""
    near = _NEAREST.get(
        call.op, "Replace it by supported ops (docs/models.md lists them), or end the private part before it."
    )
    return call.refuse("has no translation.", near)
