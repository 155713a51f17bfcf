"""The grids of the other files once more under SPDZ: what is exact in the clear is exact on shares."""

import pytest
from lowering import check
from test_lower_arithmetic import NORMALISING, POWERS, QUOTIENTS, SUMS, UNARY, reals
from test_lower_array import MOVES
from test_lower_linear import CONVOLUTIONS, MORE_POOLS, TRANSPOSED_BOTH


@pytest.mark.parametrize("name", UNARY)
def test_functions_of_elements(name):
    function, x, units = UNARY[name]
    # Truncation may go up or down by one.
    check(lambda x: function(x), x, units=1.5 * units + 1, kind="spdz")


@pytest.mark.parametrize("name", QUOTIENTS)
def test_division(name):
    function, inputs, units = QUOTIENTS[name]
    check(function, *inputs, units=2 * units + 1, kind="spdz")


@pytest.mark.parametrize("name", POWERS)
def test_powers(name):
    function, inputs, units = POWERS[name]
    check(function, *inputs, units=2 * units + 1, kind="spdz", public=True)


@pytest.mark.parametrize("name", NORMALISING)
def test_normalising(name):
    function, units = NORMALISING[name]
    check(lambda x: function(x), reals(2, 3, 4), units=2 * units, kind="spdz")


@pytest.mark.parametrize("name", SUMS)
def test_sums_and_products(name):
    function, units = SUMS[name]
    check(lambda x, y: function(x, y), reals(4, 3), reals(4, 3, seed=1), units=units + 3, kind="spdz")


@pytest.mark.parametrize("name", MOVES)
def test_moves(name):
    function, x = MOVES[name]
    check(function, x, units=0, kind="spdz", public=True)


@pytest.mark.parametrize("name", [*CONVOLUTIONS, *TRANSPOSED_BOTH])
def test_convolutions(name):
    function, inputs = {**CONVOLUTIONS, **TRANSPOSED_BOTH}[name]
    parties = {"x": "alice", "y": "bob"}
    check(lambda x, y: function(x, y), *inputs, units=8, relative=1e-5, kind="spdz", parties=parties)


@pytest.mark.parametrize("name", MORE_POOLS)
def test_pooling(name):
    check(lambda x: MORE_POOLS[name](x), reals(1, 6, 6, 4), units=4, relative=4e-5, kind="spdz")
