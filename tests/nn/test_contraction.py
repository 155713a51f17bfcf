"""Einstein sums: as TensorFlow's operation, as Plain bit by bit, and in every mixture of operands."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

import shareflow as sf
from shareflow import nn
from shareflow.errors import PlacementError, ShapeError
from shareflow.plan_audit import audited
from shareflow.planning import Entry, Input, plan
from shareflow.protocol import op as ops
from shareflow.runtime.plan import Plan
from shareflow.share.known import Known

ONE = [
    ("ij->ji", (2, 3)),
    ("ii->", (3, 3)),
    ("ii->i", (3, 3)),
    ("i->ii", (3,)),
    ("i->iii", (2,)),
    ("iii->i", (2, 2, 2)),
    ("ij->jiji", (2, 3)),
    ("abcb->cab", (2, 3, 4, 3)),
    ("abab->ba", (2, 3, 2, 3)),
    ("abab->b", (2, 3, 2, 3)),
    ("ijk->", (2, 3, 4)),
    ("i->i", (0,)),
    ("ij->j", (0, 3)),
    ("->", ()),
    ("...->...", (2, 3)),
    ("...i->...", (2, 3)),
    ("i...->...", (3,)),
    ("a...b->b...a", (2, 3, 4, 5)),
    ("...ii->i...", (4, 2, 2)),
]
TWO = [
    ("ij,jk->ik", (3, 4), (4, 5)),
    ("ij,kj->ik", (3, 4), (5, 4)),
    ("ji,jk->ki", (3, 4), (3, 5)),
    ("ij,jk->i", (2, 3), (3, 4)),
    ("ij,jk->", (2, 3), (3, 4)),
    ("ij,jk->iik", (2, 3), (3, 4)),
    ("a,b->ab", (2,), (3,)),
    ("a,b->ba", (2,), (3,)),
    ("a,b->", (2,), (3,)),
    ("A,a->aA", (2,), (3,)),
    ("ab,a->ab", (2, 3), (2,)),
    ("ab,ab->ab", (2, 3), (2, 3)),
    ("ab,ab->", (2, 3), (2, 3)),
    ("aij,aij->aji", (2, 3, 4), (2, 3, 4)),
    (",->", (), ()),
    (",i->i", (), (3,)),
    ("bqhd,bkhd->bhqk", (2, 3, 2, 4), (2, 5, 2, 4)),
    ("bhqk,bkhd->bqhd", (2, 2, 3, 5), (2, 5, 2, 4)),
    ("abc,cde->abde", (2, 3, 4), (4, 2, 5)),
    ("abcd,cde->abe", (2, 3, 4, 2), (4, 2, 5)),
    ("abcd,dcbe->ae", (2, 3, 4, 5), (5, 4, 3, 2)),
    ("xaybz,bxa->zyx", (2, 3, 4, 5, 2), (5, 2, 3)),
    ("jiji,i->ji", (2, 3, 2, 3), (3,)),
    ("aab,bcc->ac", (2, 2, 3), (3, 4, 4)),
    ("ab,bc->ac", (2, 0), (0, 3)),
    ("ab,bc->ac", (0, 2), (2, 3)),
    ("...ij,...jk->...ik", (5, 1, 2, 3), (4, 3, 2)),
    ("...ij,jk->...ik", (5, 4, 2, 3), (3, 2)),
    ("...i,...i->...", (1, 3), (4, 3)),
    ("...i,...i->i...", (2, 3), (3,)),
    ("...,...->...", (2, 1), (1, 3)),
    ("a...b,b...c->...ca", (2, 1, 4, 3), (3, 5, 1, 2)),
    ("i,...->i...", (2,), ()),
]


def on_grid(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.rint(np.random.default_rng([seed, *shape]).uniform(-3, 3, shape) * 2**16) / 2**16


def values_of(shapes: Any) -> list[np.ndarray]:
    return [on_grid(shape, seed) for seed, shape in enumerate(shapes)]


def tensorflows(equation: str, values: list[np.ndarray]) -> np.ndarray:
    # The Python function refuses repeated labels in results, which the operation takes.
    if equation == ",i->i":
        return values[0] * values[1]
    return tf.raw_ops.Einsum(inputs=[tf.constant(v) for v in values], equation=equation).numpy()


def exactly(got: np.ndarray, wanted: np.ndarray) -> None:
    assert got.shape == wanted.shape
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-8)


def shared(value: np.ndarray, protocol: Any = None) -> Any:
    return sf.private_tensor(value, "alice").shared(protocol or sf.SPDZ())


@pytest.mark.parametrize(("equation", "shape"), ONE)
def test_of_one_tensor(equation, shape):
    (value,) = values_of([shape])
    with sf.crossings() as crossed:
        known = nn.einsum(equation, sf.private_tensor(value, "alice"))
        assert isinstance(known.share, Known)
    x = shared(value)
    with sf.crossings() as local:
        result = nn.einsum(equation, x)
    assert crossed == local == []
    wanted = tensorflows(equation, [value])
    exactly(known.numpy(), wanted)
    exactly(result.reveal("bob").numpy(), wanted)


@pytest.mark.parametrize(("equation", "first", "second"), TWO)
def test_of_two_private_tensors(equation, first, second):
    values = values_of([first, second])
    got, plain = (
        nn.einsum(equation, *(shared(v, protocol) for v in values)).reveal("bob").numpy()
        for protocol in (sf.SPDZ(), sf.Plain())
    )
    np.testing.assert_array_equal(got, plain)
    exactly(got, tensorflows(equation, values))


@pytest.mark.parametrize(("equation", "first", "second"), TWO)
@pytest.mark.parametrize("private", [0, 1])
def test_of_a_private_and_a_public_tensor(equation, first, second, private):
    values = values_of([first, second])
    operands: list[Any] = list(values)
    operands[private] = shared(values[private])
    with sf.crossings() as crossed:
        result = nn.einsum(equation, *operands)
    assert crossed == []
    exactly(result.reveal("bob").numpy(), tensorflows(equation, values))


@pytest.mark.parametrize(("equation", "first", "second"), TWO)
def test_what_one_party_knows_it_computes_alone(equation, first, second):
    values = values_of([first, second])
    with sf.crossings() as crossed:
        result = nn.einsum(equation, *(sf.private_tensor(v, "alice") for v in values))
        assert isinstance(result.share, Known)
    assert crossed == []
    exactly(result.numpy(), tensorflows(equation, values))


@pytest.mark.parametrize("private", [p for p in itertools.product((False, True), repeat=3) if any(p)])
@pytest.mark.parametrize("equation", ["ij,jk,kl->il", "ij,jk,kl", "ij,jk,kl->jl", "ij,jk,kl->"])
def test_of_three_tensors(equation, private):
    values = values_of([(2, 3), (3, 4), (4, 2)])
    operands = [shared(v) if own else v for v, own in zip(values, private, strict=True)]
    got = nn.einsum(equation, *operands).reveal("bob").numpy()
    wanted = np.einsum(equation, *values)
    assert got.shape == wanted.shape
    # One product is cut back before it meets the third: a unit each, times what it is multiplied by.
    np.testing.assert_allclose(got, wanted, rtol=0, atol=24 * 3 * 2.0**-16)


def test_three_with_dots():
    values = values_of([(3, 1, 2), (1, 4, 2), (4, 3)])
    operands = [sf.private_tensor(v, "alice") for v in values]
    wanted = np.einsum("...i,...i,...j->...j", values[0], values[1], values[2])
    exactly(nn.einsum("...i,...i,...j->...j", *operands).numpy(), wanted)


@pytest.mark.parametrize("equation", ["ij,jk", "ba,ac", "b a , a c", "...a,ab", "ij , jk -> k i"])
def test_without_an_arrow_or_with_blanks(equation):
    values = values_of([(2, 3), (3, 4)])
    exactly(nn.einsum(equation, *map(shared, values)).reveal("bob").numpy(), tf.einsum(equation, *values).numpy())


@pytest.mark.parametrize(
    "axes", [0, 1, 2, ([2, 1], [1, 0]), ([-1, 1], [-2, 0]), (2, 1), ([2], [1]), ((), ()), np.array([[1, 2], [0, 1]])]
)
def test_tensordot(axes):
    x, y = on_grid((2, 3, 4)), on_grid((3, 4, 5), 1)
    wanted_axes = axes
    if isinstance(axes, int) and axes == 1:
        y = on_grid((4, 5), 1)
    got = nn.tensordot(shared(x), shared(y), axes).reveal("bob").numpy()
    exactly(got, np.tensordot(x, y, wanted_axes))
    exactly(nn.tensordot(x, shared(y), axes).reveal("bob").numpy(), np.tensordot(x, y, wanted_axes))


# --- in the ring ----------------------------------------------------------------------------------------------


def words(shape: Any, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-(2**63), 2**63 - 1, shape, np.int64, endpoint=True)


@st.composite
def equations(draw: Any) -> tuple[str, str, str, dict[str, int]]:
    labels = draw(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=5, unique=True))
    sizes = {label: draw(st.integers(0 if label == "f" else 1, 4)) for label in labels}
    terms = [draw(st.lists(st.sampled_from(labels), max_size=4)) for _ in range(2)]
    present = sorted(set(terms[0] + terms[1]))
    result = draw(st.permutations(present))[: draw(st.integers(0, len(present)))]
    return *("".join(term) for term in terms), "".join(result), sizes


@settings(max_examples=150, deadline=None)
@given(equations(), st.integers(0, 1000))
def test_any_sum_of_products_in_the_ring(equation, seed):
    left, right, result, sizes = equation
    x, y = (words([sizes[label] for label in term], seed + i) for i, term in enumerate((left, right)))
    got = ops.CONTRACT.ring(tf.constant(x), tf.constant(y), labels=(left, right), result=result)
    np.testing.assert_array_equal(got, np.einsum(f"{left},{right}->{result}", x, y))


@pytest.mark.filterwarnings("ignore:overflow encountered in scalar")
@settings(max_examples=40, deadline=None)
@given(equations(), st.integers(0, 1000))
def test_it_is_bilinear(equation, seed):
    left, right, result, sizes = equation
    x, z = (words([sizes[label] for label in left], seed + i) for i in range(2))
    y, v = (words([sizes[label] for label in right], seed + 2 + i) for i in range(2))

    def contract(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return ops.CONTRACT.ring(tf.constant(a), tf.constant(b), labels=(left, right), result=result).numpy()

    np.testing.assert_array_equal(contract(x + 5 * z, y), contract(x, y) + 5 * contract(z, y))
    np.testing.assert_array_equal(contract(x, y - v), contract(x, y) - contract(x, v))


@st.composite
def dotted(draw: Any) -> tuple[str, list[tuple[int, ...]]]:
    """An equation of one to three terms with dots, and shapes whose dots broadcast."""
    sizes = {label: draw(st.integers(1, 3)) for label in "abcd"}
    dots = draw(st.lists(st.integers(1, 3), max_size=2))
    terms, shapes, used = [], [], 0
    for _ in range(draw(st.integers(1, 3))):
        labels = draw(st.lists(st.sampled_from("abcd"), max_size=3))
        place = draw(st.integers(-1, len(labels)))
        if place < 0:
            terms.append("".join(labels))
            shapes.append(tuple(sizes[label] for label in labels))
            continue
        own = [draw(st.sampled_from([1, n])) for n in dots[draw(st.integers(0, len(dots))) :]]
        used = max(used, len(own))
        terms.append("".join([*labels[:place], "...", *labels[place:]]))
        shapes.append((*(sizes[x] for x in labels[:place]), *own, *(sizes[x] for x in labels[place:])))
    present = sorted(set("".join(terms)) - {"."})
    result = list(draw(st.permutations(present))[: draw(st.integers(0, len(present)))])
    if used or draw(st.booleans()):
        result.insert(draw(st.integers(0, len(result))), "...")
    return ",".join(terms) + "->" + "".join(result), shapes


@settings(max_examples=150, deadline=None)
@given(dotted())
def test_any_equation_with_dots_is_numpys(case):
    equation, shapes = case
    values = values_of(shapes)
    got = nn.einsum(equation, *(sf.private_tensor(v, "alice") for v in values)).numpy()
    wanted = np.einsum(equation, *values)
    assert got.shape == wanted.shape
    np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-9)


# --- cost and plans -------------------------------------------------------------------------------------------


def test_masked_operands_multiply_without_a_round():
    x, y = shared(on_grid((2, 3, 4))), shared(on_grid((2, 5, 4)))
    program = sf.function(lambda x, y: nn.einsum("bij,bkj->bik", x, y))
    cost = program.cost(x, y)
    assert (cost.rounds, cost.offline_bytes) == (1, 8 * math.prod((2, 3, 5)))
    masked = program.cost(x.reusable(), y.reusable())
    assert (masked.rounds, masked.online_bytes, masked.offline_bytes) == (0, 0, 8 * math.prod((2, 3, 5)))


def test_an_operand_is_masked_once_for_all_sums():
    x, y = shared(on_grid((3, 3))), shared(on_grid((3, 3), 1))
    with sf.crossings() as crossed:
        nn.einsum("ij,jk->ik", x, y), nn.einsum("ij,kj->ki", x, y), nn.einsum("ii,jj->", x, y), x @ y
    assert [c.kind.value for c in crossed].count("opening") == 4


def test_bits_of_comparisons_are_operands():
    x = on_grid((3, 3))
    bits = shared(x) > 0
    wanted = (x > 0).astype(float)
    exactly(nn.einsum("ij->ji", bits).reveal("bob").numpy(), wanted.T)
    exactly(nn.einsum("ii->", bits).reveal("bob").numpy(), np.trace(wanted))
    exactly(nn.einsum("ij,jk->ik", bits, shared(x)).reveal("bob").numpy(), wanted @ x)
    exactly(
        nn.conv1d(bits[None], np.ones((2, 3, 1))).reveal("bob").numpy(),
        (wanted[:-1] + wanted[1:]).sum(1)[None, :, None],
    )


def test_a_square_is_masked_once():
    x = shared(on_grid((3, 4)))
    with sf.crossings() as crossed:
        got = nn.einsum("ij,ik->jk", x, x)
    assert [c.kind.value for c in crossed].count("opening") == 2
    exactly(got.reveal("bob").numpy(), on_grid((3, 4)).T @ on_grid((3, 4)))


PLANNED = ["abc,cbd->da", "aab,bcc->ac", "a...b,b...c->...ca", "ab,ab->ab"]
SHAPES = {"abc,cbd->da": ((2, 3, 4), (4, 3, 2)), "aab,bcc->ac": ((2, 2, 3), (3, 4, 4)),
          "a...b,b...c->...ca": ((2, 1, 4, 3), (3, 5, 1, 2)), "ab,ab->ab": ((2, 3), (2, 3))}  # fmt: skip


@pytest.mark.parametrize("equation", PLANNED)
def test_a_plan_passes_the_audit_and_a_function_gives_the_result(equation, tmp_path):
    values = values_of(SHAPES[equation])

    def program(x: Any, y: Any) -> Any:
        product = nn.einsum(equation, x, y)
        return nn.einsum("...ab->ba...", product).reveal("carol")

    inputs = {"x": Input("alice", values[0].shape), "y": Input("bob", values[1].shape)}
    plan({"run": Entry(program, inputs)}, sf.SPDZ()).write(tmp_path / "run.plan")
    audit = audited(Plan.read(tmp_path / "run.plan"))
    assert audit.passed, audit.every_finding()[:5]
    exactly(
        sf.function(program)(*map(shared, values)).numpy(),
        np.einsum("...ab->ba...", np.einsum(equation, *values)),
    )


def test_diagonals_in_plans(tmp_path):
    def program(x: Any, y: Any) -> Any:
        return nn.einsum("i->ii", nn.einsum("ii->i", x + y)).reveal("carol")

    inputs = {"x": Input("alice", (3, 3)), "y": Input("bob", (3, 3))}
    plan({"run": Entry(program, inputs)}, sf.SPDZ()).write(tmp_path / "run.plan")
    audit = audited(Plan.read(tmp_path / "run.plan"))
    assert audit.passed, audit.every_finding()[:5]


# --- what is refused ------------------------------------------------------------------------------------------

X, Y = np.zeros((2, 3)), np.zeros((3, 4))
REFUSED = [
    (r"of 2 operand\(s\); got 1", "ij,jk->ik", (X,)),
    (r"of 1 operand\(s\); got 2", "ij->i", (X, Y)),
    (r"the labels 'ijk' do not fit the shape \(2, 3\)", "ijk,jk->ik", (X, Y)),
    (r"the labels 'i' do not fit the shape", "i->i", (X,)),
    (r"the labels '...ijk' do not fit", "...ijk->i", (X,)),
    (r"the label 'j' has 3 and 4", "ij,kj->ik", (X, Y)),
    (r"the label 'i' has 2 and 3", "ii->i", (X,)),
    (r"the label 'j' has 1 and 3", "ij,jk->ik", (X[:, :1], Y)),
    (r"the label of the dots has 2 and 3", "...i,...i->...", (X, X[:, :, None] * np.ones((2, 3, 3)))),
    (r"label 'z' stands in no operand", "ij,jk->iz", (X, Y)),
    (r"labels are letters.*got '0'", "i0->i", (X,)),
    (r"got '\.'", "i.j->i", (X,)),
    (r"got '\.'", "......i->i", (X,)),
    (r"got '-'", "ij->i->j", (X,)),
    (r"got '-'", "i-j->i", (X,)),
    (r"the dots stand for 1 axes, and the result has none", "...i->i", (X,)),
    (r"the dots stand for 1 axes", "...i->", (X,)),
    (r"An equation is a text", ("ij",), (X,)),
]


@pytest.mark.parametrize(("match", "equation", "operands"), REFUSED)
@pytest.mark.parametrize("kind", ["shared", "known"])
def test_what_does_not_fit_is_refused_before_anything_is_sent(match, equation, operands, kind):
    first = sf.private_tensor(operands[0], "alice")
    first = first.shared(sf.SPDZ()) if kind == "shared" else first
    with sf.crossings() as crossed, pytest.raises(ShapeError, match=match):
        nn.einsum(equation, first, *operands[1:])
    assert crossed == []


@pytest.mark.parametrize(
    "axes", [3, -1, 2, True, 1.0, ([0], [0, 1]), ([0], [2]), ([5], [0]), ([0, 0], [0, 1]), None, "i"]
)
def test_axes_of_tensordot_that_do_not_fit(axes):
    x = sf.private_tensor(X, "alice").shared(sf.SPDZ())
    with pytest.raises(ShapeError):
        nn.tensordot(x, Y, axes)


def test_no_private_operand():
    with pytest.raises(PlacementError, match="no operand is private"):
        nn.einsum("ij,jk->ik", X, Y)
    with pytest.raises(PlacementError, match="no operand is private"):
        nn.tensordot(X, Y, 1)
