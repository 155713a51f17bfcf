"""What the tests of functions share: protocols, inputs, and the comparison with float64.

The functions, their oracles, their ranges and the errors they state are the rows of benchmarks.functions, from which
docs/functions.md is made.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from benchmarks.functions import ELEMENTARY, EXACT, NORMALISING, SMOOTH, Row, errors, shared

import shareflow as sf

ROWS = {row.name: row for row in (*SMOOTH, *ELEMENTARY, *NORMALISING, *EXACT)}
BITS = (8, 12, 16, 20)
KINDS = {"spdz": sf.SPDZ, "plain": sf.Plain}
SETTINGS = {
    "optimistic": {"truncation": sf.Optimistic()},
    "latency": {"comparison": sf.MaskedCarry(prefer="latency")},
    "bandwidth": {"comparison": sf.MaskedCarry(prefer="bandwidth")},
}


def protocol(kind: str, bits: int = 16, **settings: Any) -> Any:
    return KINDS[kind](fixed_point=sf.FixedPoint(bits), **settings)


def private(values: Any, bits: int = 16, where: Any = None, scale: int | None = None) -> sf.PrivateTensor:
    """Shares of an array, at a protocol of so many bits."""
    known = sf.private_tensor(np.asarray(values, np.float64), "alice")
    return known.shared(where or protocol("spdz", bits), scale)


def value(x: sf.PrivateTensor) -> np.ndarray:
    return x.reveal("receiver").numpy()


def check(row: Row, where: Any) -> None:
    """Every result within what is stated; functions that are stated to be exact give exactly float64's."""
    found = errors(row, where)
    assert found.size
    worst = np.unravel_index(np.argmax(found), found.shape)
    assert np.max(found) <= row.units, f"{row.name}: {np.max(found):.2f} units at {worst}, {row.units} are stated"


def small(row: Row, bits: int = 16, most: int = 200) -> list[np.ndarray]:
    """Some of a row's inputs, of size up to 8."""
    arrays = [np.asarray(array) for array in row.inputs(bits)]
    if row.loaded:
        return arrays
    fits = np.all([np.max(np.abs(a.reshape(len(a), -1)), axis=1) <= 8 for a in arrays], axis=0)
    places = np.flatnonzero(fits)
    places = places[:: max(1, len(places) // most)]
    assert len(places) >= min(len(fits), 5)
    return [array[places] for array in arrays]


def at(row: Row, arrays: list[np.ndarray]) -> Row:
    """The row with other inputs."""
    return Row(
        row.name, row.meaning, row.units, row.program, row.real, lambda f: arrays, row.shapes, row.condition, row.bits
    )


def check_traced(row: Row) -> None:
    """A function of it, twice: the same bounds under other masks, and what the eager operations give."""
    where, arrays = protocol("spdz"), small(row)

    @sf.function
    def traced(*xs: sf.PrivateTensor) -> sf.PrivateTensor:
        return row.program(*xs).reveal("receiver")

    inputs = shared(row, where, arrays)
    wanted = np.asarray(row.real(*arrays))
    size = np.maximum(1, np.abs(wanted)) * (1 if row.condition is None else row.condition(*arrays))
    for _ in range(2):
        got = traced(*inputs).numpy()
        assert got.shape == wanted.shape
        assert np.all(np.abs(got - wanted) <= row.units * size * 2.0**-16 + 1e-12)
    eager = value(row.program(*shared(row, where, arrays)))
    assert np.all(np.abs(got - eager) <= 2 * row.units * size * 2.0**-16 + 1e-12)


def check_product(row: Row) -> None:
    """The result of a product, with twice the fractional bits, is as good an operand as any."""
    where, arrays = protocol("spdz"), small(row)
    one = sf.private_tensor(np.asarray(1.0), "bob").shared(where)
    inputs = [x * one for x in shared(row, where, arrays)]
    assert inputs[0].fractional_bits > 16 or row.bits == 0
    wanted = np.asarray(row.real(*arrays))
    size = np.maximum(1, np.abs(wanted)) * (1 if row.condition is None else row.condition(*arrays))
    got = value(row.program(*inputs))
    assert got.shape == wanted.shape
    assert np.all(np.abs(got - wanted) <= (row.units + (row.units > 0)) * size * 2.0**-16 + 1e-12)


def check_setting(row: Row, setting: str, bits: int = 16) -> None:
    """Other truncations and layouts of comparisons give results as good."""
    check(at(row, small(row, bits)), protocol("spdz", bits, **SETTINGS[setting]))


def check_known(row: Row) -> None:
    """An owner's plaintext stays there, as ordinary TensorFlow."""
    arrays = small(row)
    with sf.crossings() as crossed:
        result = row.program(*(sf.private_tensor(array, "alice") for array in arrays))
        got = result.numpy()
    assert crossed == []
    np.testing.assert_allclose(got, row.real(*arrays), rtol=1e-6, atol=1e-12)


SHAPES = [(), (1,), (65,), (130,), (0,), (3, 5), (2, 0, 3), (2, 3, 4, 5)]


def check_shape(row: Row, shape: tuple[int, ...]) -> None:
    """An elementwise function at a shape."""
    count = int(np.prod(shape))
    arrays = [np.resize(array, count).reshape(shape) for array in small(row)]
    got = value(row.program(*shared(row, protocol("spdz"), arrays)))
    wanted = np.asarray(row.real(*arrays)) if count else np.zeros(shape)
    assert got.shape == shape
    size = np.maximum(1, np.abs(wanted)) * (1 if row.condition is None else row.condition(*arrays))
    assert np.all(np.abs(got - wanted) <= row.units * size * 2.0**-16 + 1e-12)
