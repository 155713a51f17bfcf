"""Chosen ReLUs as polynomials. An option: another function, near ReLU on a declared interval and far off beyond it.

Paper: Dahl et al. 2018, section 3. Which ones is decided in compiler/cost/kinds.py, by a calibration and a network.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

from shareflow.compiler.graph import Builder, Graph, Node, Note, Replacement
from shareflow.errors import EncodingError
from shareflow.nn.polynomial_fit import relu_polynomial


@dataclass(frozen=True)
class Polynomial:
    """What may stand in place of a ReLU.

    Args:
        degree: 1 to 16; even ones are best.
        bound: it interpolates max(x, 0) on [-bound, bound].

    Raises:
        EncodingError: degree or bound is not in its range.
    """

    degree: int
    bound: float

    def __post_init__(self) -> None:
        relu_polynomial(self.degree, self.bound)

    @classmethod
    def of(cls, given: Polynomial | tuple[int, float]) -> Polynomial:
        """Itself, or the pair (degree, bound).

        Raises:
            EncodingError: it is neither.
        """
        if isinstance(given, cls):
            return given
        if not isinstance(given, (tuple, list)) or len(given) != 2:
            raise EncodingError(f"A polynomial is allowed by its degree and bound, such as (2, 4.0); got {given!r}.")
        return cls(*given)

    @classmethod
    def parse(cls, text: str) -> Polynomial:
        """Of ``DEGREE,BOUND``, as a command takes it.

        Raises:
            EncodingError: it is not of this form.
        """
        degree, _, bound = text.partition(",")
        try:
            pair = int(degree), float(bound)
        except ValueError:
            raise EncodingError(
                f"A polynomial is allowed by its degree and bound, such as 2,4.0; got {text!r}."
            ) from None
        return cls(*pair)

    @cached_property
    def coefficients(self) -> tuple[float, ...]:
        """Lowest power first."""
        return tuple(float(value) for value in relu_polynomial(self.degree, self.bound))

    def __str__(self) -> str:
        return f"a polynomial of degree {self.degree} on [-{self.bound:g}, {self.bound:g}]"


def polynomial_relu(graph: Graph, names: Collection[str], polynomial: Polynomial) -> Graph:
    """The graph with the Relu nodes of these names replaced."""

    def visit(node: Node, build: Builder) -> Replacement:
        if node.op != "Relu" or node.name not in names:
            return None
        attributes = {"coefficients": list(polynomial.coefficients), "bound": polynomial.bound}
        return build.custom("shareflow.polynomial", node.inputs, node.shapes[0], node.dtypes[0], attributes, node.name)

    return graph.rewrite(visit, [Note("polynomial_relu", f"Relu as {polynomial}", len(names))] if names else [])
