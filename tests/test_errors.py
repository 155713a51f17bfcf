"""Bad input: each error gives the rule, what was given and the way out, and never a secret."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import shareflow as sf
from shareflow import errors, nn
from shareflow.errors import (
    EncodingError,
    MissingRuleError,
    MixedProtocolsError,
    NotRevealedError,
    PlacementError,
    ShapeError,
    ShareflowError,
)
from shareflow.party.session import current_session
from shareflow.protocol import op as ops
from shareflow.protocol.rules import Rules
from shareflow.share.additive import Additive
from shareflow.share.masked import Masked

# A value that is seen at once where a text should not hold it.
SECRET = 8675.309


def known(value: Any, owner: Any = "alice") -> sf.PrivateTensor:
    return sf.private_tensor(value, owner)


def shared(value: Any, owner: Any = "alice", protocol: Any = None) -> sf.PrivateTensor:
    return known(value, owner).shared(protocol or sf.SPDZ())


def x() -> sf.PrivateTensor:
    return shared(np.full((2, 3), SECRET))


def scalar() -> sf.PrivateTensor:
    return shared(SECRET)


def image(*shape: int) -> sf.PrivateTensor:
    return shared(np.full(shape or (1, 4, 4, 2), SECRET))


def expect(kind: type[Exception], *fragments: str, call: Callable[[], Any]) -> None:
    with pytest.raises(kind) as caught:
        call()
    text = str(caught.value)
    for fragment in fragments:
        assert fragment in text, text
    assert "8675" not in text
    # A sentence, not a dump.
    assert text.endswith((".", ")", "]")), text


# Each row: what is done; the error; the rule, what was given, the way out.
INPUTS = [
    ("text", lambda: known("secret"), ShapeError, ("made of real numbers", "string", "Cast it")),
    ("bytes", lambda: known(b"secret"), ShapeError, ("real numbers", "string", "Cast it")),
    ("complex", lambda: known(1j), ShapeError, ("real numbers", "complex128", "Cast it")),
    ("complex tensor", lambda: known(tf.constant(1j)), ShapeError, ("alice", "complex128", "float32")),
    ("ragged list", lambda: known([[1], [1, 2]]), ShapeError, ("array of numbers", "got list", "ragged", "one array")),
    ("ragged tensor", lambda: known(tf.ragged.constant([[1], [1, 2]])), ShapeError, ("got RaggedTensor", "Convert")),
    ("sparse", lambda: known(tf.sparse.from_dense([[1.0, 0.0]])), ShapeError, ("got SparseTensor", "Convert")),
    ("None", lambda: known(None), ShapeError, ("array of numbers", "got NoneType", "Convert")),
    ("None in a list", lambda: known([1.0, None]), ShapeError, ("array of numbers", "got list")),
    ("object", lambda: known(object()), ShapeError, ("array of numbers", "got object")),
    ("dict", lambda: known({"a": 1}), ShapeError, ("array of numbers", "got dict")),
    ("dates", lambda: known(np.array(["2020-01-01"], "datetime64[D]")), ShapeError, ("array of numbers", "Convert")),
    ("a huge whole number", lambda: known(2**70), ShapeError, ("array of numbers", "got int")),
    ("a private value", lambda: known(scalar()), PlacementError, ("plaintext at its owner", "private already")),
]

PARTIES = [
    ("owner None", lambda: known(1.0, None), PlacementError, ("by its name", "got NoneType", "'server0'")),
    ("owner a number", lambda: known(1.0, 3), PlacementError, ("by its name", "got int", "'server0'")),
    ("owner a list", lambda: known(1.0, ["alice"]), PlacementError, ("by its name", "got list")),
    ("owner a class", lambda: known(1.0, sf.Party), PlacementError, ("by its name", "got type")),
    ("empty name", lambda: known(1.0, ""), PlacementError, ("begins with a letter", "''", "model-owner")),
    ("name with a space", lambda: sf.Party("data owner"), PlacementError, ("letters, digits", "'data owner'")),
    ("name with a slash", lambda: sf.Party("job:a/b"), PlacementError, ("letters, digits", "'job:a/b'")),
    ("name with a dot", lambda: sf.Party("a.b"), PlacementError, ("letters, digits", "'a.b'")),
    ("name with a digit first", lambda: sf.Party("1st"), PlacementError, ("begins with a letter", "'1st'")),
    ("name with a newline", lambda: sf.Party("alice\n"), PlacementError, ("letters, digits", r"\n")),
    ("name not ASCII", lambda: sf.Party("ålice"), PlacementError, ("letters, digits", "ålice")),
    ("a number as a name", lambda: sf.Party(7), PlacementError, ("letters, digits", "7 is not")),
    ("reveal to None", lambda: x().reveal(None), PlacementError, ("named party", "got None", "reveal('client')")),
    ("reveal to a number", lambda: x().reveal(1), PlacementError, ("by its name", "got int")),
    ("reveal to several", lambda: x().reveal(["a", "b"]), PlacementError, ("by its name", "got list")),
    ("reveal to no name", lambda: x().reveal("no one!"), PlacementError, ("letters, digits", "'no one!'")),
    ("output to nobody", lambda: sf.private_output(None), PlacementError, ("by its name", "got NoneType")),
    ("input without a party", lambda: sf.private_input(lambda: 1.0), PlacementError, ("names its party", "Write")),
    ("elsewhere", lambda: sf.local_computation("bob")(lambda v: v)(known(SECRET)), PlacementError,
     ("computes at bob", "known to alice", "x.reveal('bob')")),
]  # fmt: skip

SETTINGS = [
    *(
        (f"fractional_bits {bits!r}", lambda bits=bits: sf.FixedPoint(bits), EncodingError,
         ("whole number from 8 to 24", f"got {bits!r}", "16 gives"))
        for bits in (7, 25, 0, -16, 16.0, "16", None, True)
    ),
    ("one server twice", lambda: sf.SPDZ(servers=("a", "a")), PlacementError, ("three parties", "a, a", "sees")),
    ("dealer a server", lambda: sf.SPDZ(dealer="server1"), PlacementError, ("three parties", "no two", "sees")),
    ("dealer a server by another spelling", lambda: sf.SPDZ(servers=("s-0", "s1"), dealer="s_0"), PlacementError,
     ("three parties", "s_0")),
    ("three servers", lambda: sf.SPDZ(servers=("a", "b", "c")), PlacementError, ("two servers", "'c'", "Write")),
    ("one name for two servers", lambda: sf.SPDZ(servers="ab"), PlacementError, ("two servers", "'ab'", "Write")),
    ("servers None", lambda: sf.SPDZ(servers=None), PlacementError, ("two servers", "None", "Write")),
    ("server a number", lambda: sf.SPDZ(servers=(1, 2)), PlacementError, ("by its name", "got int")),
    ("dealer None", lambda: sf.SPDZ(dealer=None), PlacementError, ("by its name", "got NoneType")),
    *(
        (f"carry {group} {gates}", lambda group=group, gates=gates: sf.MaskedCarry(group, gates), ValueError,
         ("covers the 63 bits", "group", "default"))
        for group, gates in [(4, (4,)), (2, (4, 4)), (6, (2, 5)), (0, (4, 4)), (4, ()), (3, (4, 5))]
    ),
]  # fmt: skip

ENCODING = [
    ("NaN", lambda: shared([1.0, np.nan]), EncodingError, ("16 fractional bits", "finite", "1 NaN", "Rescale")),
    ("infinite", lambda: shared([-np.inf, np.inf]), EncodingError, ("finite", "among 2", "2 infinite", "Rescale")),
    ("too large", lambda: shared(2.0**30 + 1), EncodingError, ("1.07374e+09", "1 too large", "fewer fractional")),
    ("all at once", lambda: shared([np.nan, np.inf, 1e300, SECRET]), EncodingError,
     ("among 4: 1 NaN, 1 infinite, 1 too large",)),
    ("too large at 20 bits", lambda: shared(2.0**23, protocol=sf.SPDZ(fixed_point=sf.FixedPoint(20))), EncodingError,
     ("20 fractional bits", "4.1943e+06")),
    ("plus NaN", lambda: x() + np.nan, EncodingError, ("finite", "1 NaN", "Rescale")),
    ("times infinity", lambda: x() * np.inf, EncodingError, ("finite", "1 infinite", "Rescale")),
    ("plus too much", lambda: x() + 1e10, EncodingError, ("at most", "1 too large", "Rescale")),
    ("compared with NaN", lambda: x() > np.nan, EncodingError, ("finite", "1 NaN")),
    ("divided by 0", lambda: x() / 0, EncodingError, ("not 0", "one or more", "Mask them out")),
    ("divided by 0.0 in an array", lambda: x() / np.array([1.0, 0.0, 2.0]), EncodingError, ("not 0", "Mask them out")),
    ("divided by NaN", lambda: x() / np.nan, EncodingError, ("finite", "1 NaN")),
    ("divided by too little", lambda: x() / 1e-30, EncodingError, ("at most", "too large")),
    ("an empty range", lambda: nn.clip(x(), 1, 1), EncodingError, ("low < high", "1 and 1")),
    ("a range with NaN", lambda: nn.clip(x(), np.nan, 1), EncodingError, ("low < high", "nan")),
    ("no coefficients", lambda: nn.polynomial(x(), []), EncodingError, ("at least one", "[]")),
    ("infinite coefficients", lambda: nn.polynomial(x(), [0, np.inf]), EncodingError, ("finite coefficients", "inf")),
]  # fmt: skip

SHAPES = [
    ("add", lambda: x() + np.ones(4), ShapeError, ("broadcasts as NumPy", "(2, 3)", "(4,)", "Reshape")),
    ("multiply", lambda: x() * shared(np.ones(2)), ShapeError, ("broadcasts as NumPy", "(2,)", "Reshape")),
    ("compare", lambda: x() > np.ones((3, 2)), ShapeError, ("broadcasts as NumPy", "(3, 2)")),
    ("add known", lambda: known(np.ones(3)) + known(np.ones(4)), ShapeError, ("broadcasts as NumPy", "(4,)")),
    ("divide known", lambda: known(np.ones(3)) / np.ones(4), ShapeError, ("broadcasts as NumPy", "(4,)")),
    ("matmul", lambda: x() @ x(), ShapeError, ("equal inner dimensions", "(2, 3)", "3 against 2")),
    ("matmul transposed", lambda: sf.matmul(x(), x().T, transpose_b=True), ShapeError, ("with transposes",)),
    ("matmul of batches", lambda: sf.matmul(image(2, 3, 4), image(3, 4, 2)), ShapeError, ("batch", "[2, 3, 4]")),
    ("matmul by a scalar", lambda: x() @ 2.0, ShapeError, ("vectors or matrices", "scalar", "Use *")),
    ("matmul of public", lambda: sf.matmul(np.eye(2), np.eye(2)), PlacementError, ("neither operand", "TensorFlow")),
    ("text operand", lambda: x() + "a", ShapeError, ("real numbers", "got str", "Convert")),
    ("bytes operand", lambda: x() * b"a", ShapeError, ("real numbers", "got bytes", "Convert")),
    ("complex operand", lambda: x() * 1j, ShapeError, ("real numbers", "complex", "Convert")),
    ("None operand", lambda: x() - None, ShapeError, ("real numbers", "NoneType", "Convert")),
    ("== None", lambda: x() == None, ShapeError, ("real numbers", "NoneType")),  # noqa: E711
    ("ragged operand", lambda: x() * [[1], [1, 2]], ShapeError, ("different lengths", "Pad")),
    ("ragged tensor operand", lambda: x() + tf.ragged.constant([[1], [2, 3]]), ShapeError, ("real numbers", "Ragged")),
    ("text tensor operand", lambda: x() * tf.constant("a"), ShapeError, ("real numbers", "string", "Cast")),
    ("reshape", lambda: x().reshape(4), ShapeError, ("number of elements", "(2, 3)", "(4,)")),
    ("reshape -1 -1", lambda: x().reshape(-1, -1), ShapeError, ("number of elements", "(-1, -1)")),
    ("reshape -1 4", lambda: x().reshape(-1, 4), ShapeError, ("number of elements", "(-1, 4)")),
    ("reshape -2 -3", lambda: x().reshape(-2, -3), ShapeError, ("whole numbers", "(-2, -3)")),
    ("reshape 2.0", lambda: x().reshape(2.0, 3), ShapeError, ("whole numbers", "2.0")),
    ("transpose twice", lambda: x().transpose(0, 0), ShapeError, ("each of the 2 axes once", "(0, 0)")),
    ("transpose too far", lambda: x().transpose(2, 1), ShapeError, ("each of the 2 axes once", "(2, 1)")),
    ("transpose too few", lambda: x().transpose(1), ShapeError, ("each of the 2 axes once", "(1,)")),
    ("broadcast", lambda: x().broadcast_to((2, 4)), ShapeError, ("(2, 3)", "does not broadcast", "(2, 4)")),
    ("broadcast to less", lambda: x().broadcast_to((3,)), ShapeError, ("does not broadcast", "(3,)")),
    ("sum axis", lambda: x().sum(2), ShapeError, ("-2 .. 1", "got 2")),
    ("sum axes twice", lambda: x().sum((0, -2)), ShapeError, ("each once", "(0, -2)")),
    ("sum axis 0.5", lambda: x().sum(0.5), ShapeError, ("-2 .. 1", "0.5")),
    ("mean of nothing", lambda: image(0, 3).mean(0), ShapeError, ("no elements", "(0, 3)", "[0]")),
    ("pad", lambda: x().pad(((1, 1),)), ShapeError, ("one pair of counts", "2 axes", "((1, 1),)")),
    ("pad negative", lambda: x().pad(((0, -1), (0, 0))), ShapeError, ("one pair of counts", "-1")),
    ("pad a number", lambda: x().pad(3), ShapeError, ("one pair of counts", "got 3")),
    ("concat", lambda: sf.concat([x(), image(3, 2)], 0), ShapeError, ("equal elsewhere", "(3, 2)")),
    ("concat ranks", lambda: sf.concat([x(), image(3)], 0), ShapeError, ("equal elsewhere", "(3,)")),
    ("concat axis", lambda: sf.concat([x(), x()], 2), ShapeError, ("axis 2", "2 axes")),
    ("stack", lambda: sf.stack([x(), x().T]), ShapeError, ("stack", "equal elsewhere", "(3, 2)")),
    ("concat nothing", lambda: sf.concat([], 0), PlacementError, ("no operand is private", "TensorFlow")),
    ("concat public", lambda: sf.concat([np.eye(2)], 0), PlacementError, ("no operand is private", "TensorFlow")),
    ("length of a scalar", lambda: len(scalar()), ShapeError, ("no length", "()")),
    ("flatten a scalar", lambda: nn.flatten(scalar()), ShapeError, ("batch axis", "scalar")),
]

INDICES = [
    ("out of range", lambda: x()[2], ("Index 2", "axis 0", "(2, 3)")),
    ("out of range, negative", lambda: x()[0, -4], ("Index -4", "axis 1", "(2, 3)")),
    ("out of range after ...", lambda: x()[..., 3], ("Index 3", "axis 1", "(2, 3)")),
    ("too many", lambda: x()[0, 0, 0], ("3 indices are too many", "(2, 3)")),
    ("of a scalar", lambda: scalar()[0], ("too many", "()")),
    ("two ...", lambda: x()[..., ...], ("one ...", "several")),
    ("a fraction", lambda: x()[1.0], ("whole numbers", "got float")),
    ("a truth value", lambda: x()[True], ("whole numbers", "got bool")),
    ("an array", lambda: x()[np.array([0, 1])], ("whole numbers", "got ndarray", "not there yet")),
    ("a list", lambda: x()[[0, 1]], ("whole numbers", "got list")),
    ("a private value", lambda: x()[scalar()], ("whole numbers", "got PrivateTensor", "not there yet")),
    ("text", lambda: x()["a"], ("whole numbers", "got str")),
]

IMAGES = [
    ("rank", lambda: nn.conv2d(x(), x()), ("[N, H, W, C]", "(2, 3)")),
    ("channels", lambda: nn.conv2d(image(), image(3, 3, 3, 1)), ("2 channels", "3 of the kernel", "1 group")),
    ("groups", lambda: nn.conv2d(image(), image(3, 3, 1, 3), groups=2), ("3 outputs", "2 group")),
    ("padding", lambda: nn.conv2d(image(), image(3, 3, 2, 1), padding="FULL"), ("'SAME', 'VALID'", "'FULL'")),
    ("negative padding", lambda: nn.conv2d(image(), image(3, 3, 2, 1), padding=((-1, 0), (0, 0))), ("padding -1",)),
    ("kernel too large", lambda: nn.conv2d(image(), image(5, 5, 2, 1)), ("window of 5", "extent of 4", "SAME")),
    ("dilated too far", lambda: nn.conv2d(image(), image(3, 3, 2, 1), dilations=2), ("window of 5", "dilated", "SAME")),
    ("strides 0", lambda: nn.conv2d(image(), image(3, 3, 2, 1), strides=0), ("strides", "at least 1", "got 0")),
    ("strides 1.5", lambda: nn.conv2d(image(), image(3, 3, 2, 1), strides=1.5), ("strides", "whole number", "1.5")),
    ("strides of three", lambda: nn.conv2d(image(), image(3, 3, 2, 1), strides=(1, 1, 1)), ("two of them",)),
    ("depthwise", lambda: nn.depthwise_conv2d(image(), image(3, 3, 3, 1)), ("[h, w, C, M]", "(3, 3, 3, 1)")),
    ("pool of a matrix", lambda: nn.max_pool2d(x()), ("[N, H, W, C]", "(2, 3)", "Add the axes")),
    ("pool too large", lambda: nn.avg_pool2d(image(), 5), ("window of 5", "extent of 4")),
    ("pool of 0", lambda: nn.max_pool2d(image(), 0), ("the window", "at least 1", "got 0")),
]

READING = [
    ("numpy", lambda: x().numpy(), ("one party knows", "server0, server1", "x.reveal('client').numpy()")),
    ("numpy of a variable", lambda: sf.PrivateVariable(x()).numpy(), ("one party knows", "reveal('client')")),
    ("bool", lambda: bool(scalar() > 0), ("no branch", "would reveal", "reveal it first")),
    ("bool of known", lambda: bool(known(SECRET)), ("no branch", "reveal it first")),
    ("and", lambda: x() and 1, ("no branch",)),
    ("in", lambda: 1.0 in x(), ("no branch",)),
    ("asarray", lambda: np.asarray(x()), ("NumPy array by itself", "x.reveal('client').numpy()")),
    ("asarray of known", lambda: np.asarray(known(SECRET)), ("NumPy array by itself", "reveal")),
    ("to a tensor", lambda: tf.convert_to_tensor(x()), ("by itself", "reveal")),
    ("a TensorFlow function", lambda: tf.exp(x()), ("by itself", "reveal")),
    ("plaintext", lambda: x().plaintext, ("no plaintext", "reveal it to a party")),
]  # fmt: skip

RULES = [
    ("private by private", lambda: x() / x(), ("by public values", "private", "reciprocal", "owner computes")),
    ("public by private", lambda: 1.0 / x(), ("by public values", "private", "reciprocal")),
    ("array by private", lambda: np.ones(3) / x(), ("by public values", "private")),
    *(
        (f"power {n!r}", lambda n=n: x() ** n, ("whole number of at least 1", f"got {n!r}", "polynomial"))
        for n in (0, -1, 0.5, 2.0, None, "2")
    ),
    ("private power", lambda: x() ** x(), ("whole number of at least 1", "PrivateTensor")),
]  # fmt: skip

TABLE = [
    *INPUTS,
    *PARTIES,
    *SETTINGS,
    *ENCODING,
    *SHAPES,
    *((name, call, ShapeError, fragments) for name, call, fragments in INDICES),
    *((name, call, ShapeError, fragments) for name, call, fragments in IMAGES),
    *((name, call, NotRevealedError, fragments) for name, call, fragments in READING),
    *((name, call, MissingRuleError, fragments) for name, call, fragments in RULES),
]


@pytest.mark.parametrize(("call", "kind", "fragments"), [pytest.param(*row[1:], id=row[0]) for row in TABLE])
def test_an_error_gives_the_rule_what_was_given_and_the_way_out(call, kind, fragments):
    expect(kind, *fragments, call=call)


TRACED = [row for row in [*ENCODING, *SHAPES] if row[2] in (ShapeError, PlacementError)]


@pytest.mark.parametrize(("call", "kind", "fragments"), [pytest.param(*row[1:], id=row[0]) for row in TRACED])
def test_a_shape_error_is_the_same_in_a_function(call, kind, fragments):
    expect(kind, *fragments, call=sf.function(call))


@pytest.mark.parametrize("program", [
    lambda v: v.shared(sf.SPDZ()),
    lambda v: v + known([1.0, 1.0], "bob"),
    lambda v: known([1.0, 1.0], "bob") * v,
    lambda v: sf.concat([known([1.0], "bob"), v], 0),
], ids=["share", "add", "multiply", "concat"])  # fmt: skip
@pytest.mark.parametrize("bad", [np.nan, np.inf, -1e12, 2.0**30 * 1.001])
def test_a_bad_value_is_an_encoding_error_in_eager_mode_and_in_a_function(program, bad):
    traced = sf.function(lambda v: program(v).reveal("receiver"))
    good = known([1.0, SECRET])
    for run in (program, traced):
        expect(EncodingError, "16 fractional bits", "finite", "1.07374e+09", "Rescale",
               call=lambda run=run: run(known([SECRET, bad])))  # fmt: skip
        run(good)


def test_a_bad_value_is_found_before_anything_crosses():
    with sf.crossings() as seen, pytest.raises(EncodingError):
        shared([SECRET, np.nan])
    assert seen == []


def test_values_of_two_protocols_do_not_mix():
    one = x()
    for other in (sf.SPDZ(truncation=sf.Optimistic()), sf.Plain(), sf.SPDZ(dealer="another"),
                  sf.SPDZ(fixed_point=sf.FixedPoint(12))):  # fmt: skip
        y = shared(np.ones((2, 3)), "bob", other)
        for call in (
            lambda y=y: one + y,
            lambda y=y: y * one,
            lambda y=y: one @ y.T,
            lambda y=y: one > y,
            lambda y=y: sf.concat([one, y], 0),
        ):
            expect(MixedProtocolsError, "live in one protocol", "SPDZ(", "Reveal one", "share it anew", call=call)
    # As the text says.
    y = shared(np.ones((2, 3)), "bob", sf.Plain())
    np.testing.assert_allclose((one + y.reveal("bob")).reveal("receiver").numpy(), SECRET + 1, atol=2.0**-16)
    expect(MixedProtocolsError, "no protocol yet", "x.shared(protocol)", call=lambda: known(1.0).at_scale(20))


def test_a_missing_rule_lists_the_rules_there_are():
    share = x().share
    expect(
        MissingRuleError,
        "Plain has no rule for add(Additive, Additive)",
        "It has: ",
        "linear(Clear)",
        "bilinear(Clear, Clear)",
        "@rules.rule",
        call=lambda: sf.Plain().apply(ops.ADD, share, share),
    )
    with pytest.raises(MissingRuleError) as caught:
        sf.SPDZ().apply(ops.Op("gather", ops.INTERACTIVE, abs, abs), share)
    text = str(caught.value)
    for known_rule in ("bilinear(Masked, Masked)", "truncate(Additive)", "relu(Masked)", "linear(Additive)"):
        assert known_rule in text


def test_two_rules_for_one_thing_are_refused():
    rules = Rules()

    @rules.rule(ops.ADD, Additive)
    def _first(protocol, op, value):
        return value

    with pytest.raises(MissingRuleError, match="Two rules for"):

        @rules.rule(ops.ADD, Additive)
        def _second(protocol, op, value):
            return value

    with pytest.raises(MissingRuleError, match="Two rules for"):
        rules | rules
    rules.lift(Additive, Masked, cost=1)(_first)
    with pytest.raises(MissingRuleError, match="Two rules for"):
        rules.lift(Additive, Masked, cost=2)(_first)
    assert (rules | Rules()).table == rules.table
    with pytest.raises(MissingRuleError, match="No way from Masked to Additive"):
        rules.convert(sf.SPDZ(), x().reusable().share, Additive)


def test_an_argument_of_unknown_shape_is_refused():
    @tf.function(autograph=False)
    def body(tensor):
        return known(tensor).plaintext

    with pytest.raises(ShapeError, match=r"shape that all parties know; got \(None,\)\. Set it with tf\.ensure_shape"):
        body.get_concrete_function(tf.TensorSpec([None], tf.float64))


def test_there_is_always_a_receiver():
    assert inspect.signature(sf.PrivateTensor.reveal).parameters["receiver"].default is inspect.Parameter.empty
    with pytest.raises(TypeError, match="receiver"):
        x().reveal()


def test_every_error_is_in_the_tree_and_described():
    classes = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, Exception)]
    assert len(classes) >= 10
    for kind in classes:
        assert issubclass(kind, ShareflowError)
        assert kind.__doc__
        assert kind.__name__ in (errors.__doc__ or "")
    assert issubclass(NotRevealedError, PlacementError)
    for kind in (EncodingError, ShapeError):
        assert issubclass(kind, ValueError), "as Python's own for a bad value"
    for kind in (MissingRuleError, MixedProtocolsError, NotRevealedError):
        assert issubclass(kind, TypeError), "as Python's own for operands that do not go together"


def test_texts_of_the_graph_come_back_as_they_were():
    text = "Encoding: a rule. A way out."
    assert errors.from_graph("assertion failed: [" + errors.in_graph(text) + "] [Op:Assert]") == text
    assert errors.from_graph("TensorFlow's own") is None
    assert errors.from_graph(errors.in_graph(text)[:-3]) is None


def test_other_errors_of_tensorflow_are_not_called_encoding_errors():
    @sf.local_computation("alice")
    def fail(value):
        with tf.control_dependencies([tf.debugging.assert_less(value, tf.ones_like(value), message="not ours")]):
            return tf.identity(value)

    f = sf.function(lambda v: fail(v).reveal("receiver"))
    f(known([0.5]))
    with pytest.raises(tf.errors.InvalidArgumentError, match="not ours"):
        f(known([2.0]))


def test_an_error_leaves_nothing_behind(session):
    protocol = sf.SPDZ()
    with pytest.raises(EncodingError), sf.Session(), protocol, sf.crossings():
        shared(np.nan)
    assert current_session() is session
    with pytest.raises(ShapeError):
        sf.function(lambda v: v + np.ones(7))(x())
    assert tf.executing_eagerly()
    np.testing.assert_allclose((x() + 1).reveal("receiver").numpy(), SECRET + 1, atol=2.0**-16)
