"""What each party sees: uniform noise, the same whatever the secrets are, and no two pieces of it that match.

Sizes are multiples of 64, so that every bit of a packed plane stands for a value. Sessions are seeded: what is
tested is fixed, and a threshold that is passed once is passed always.
"""

from collections import Counter
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pytest
import tensorflow as tf

import shareflow as sf
from shareflow.party.send import Kind
from shareflow.party.session import current_session
from shareflow.protocol.functionality import dealer as dealer_module
from shareflow.protocol.functionality import opening as opening_module
from shareflow.share import stream as stream_module

N = 4096
WORDS = N // 64
PROTOCOL = sf.SPDZ()
SERVERS = ("server0", "server1")
UNIT = 2.0**-16

# Chi-square with 255 degrees of freedom is beyond these by chance once in a million, on either side.
TOO_EVEN, TOO_UNEVEN = 161.65, 377.08


@dataclass(frozen=True)
class Seen:
    """One message, or one stream that a party holds (then without kind and source)."""

    kind: Kind | None
    source: str | None
    to: str
    words: np.ndarray

    @property
    def name(self):
        what = f"{self.kind.value} from {self.source}" if self.kind else "stream"
        return f"{what} {self.words.shape}"


def play(program, seed, *secrets):
    """Runs a program eagerly in a seeded session: all messages in order, and what the program returned."""
    with sf.insecure_session(seed), sf.crossings() as seen:
        result = program(*secrets)
        return [Seen(c.kind, c.source.name, c.to.name, c.value.numpy()) for c in seen], result


def play_with_streams(monkeypatch, program, seed, *secrets):
    """The same, with the streams that each party made as well."""
    made = []
    original = stream_module.SharedStream.at

    def at(self, holder):
        fresh = holder not in self._made
        value = original(self, holder)
        if fresh:
            made.append(Seen(None, None, holder.name, value.numpy()))
        return value

    with monkeypatch.context() as patch:
        patch.setattr(stream_module.SharedStream, "at", at)
        messages, _ = play(program, seed, *secrets)
    return messages + made


# --- how leaks are found ----------------------------------------------------------------------------------------


def chi_square(data):
    """Of the bytes' 256 values against all being equally likely."""
    counts = np.bincount(np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8), minlength=256)
    expected = counts.sum() / 256
    assert expected >= 5, "too few bytes for a chi-square test"
    return float(((counts - expected) ** 2).sum() / expected)


def is_uniform(words):
    return TOO_EVEN < chi_square(words) < TOO_UNEVEN


def uneven_byte_positions(words):
    """Which of a word's eight bytes are not uniform: small numbers, for example, have the high ones 0."""
    columns = np.ascontiguousarray(words).reshape(-1).view(np.uint8).reshape(-1, 8)
    return [i for i in range(8) if not is_uniform(columns[:, i])]


def opened_values(messages):
    """What the servers learn by each opening: the sum of ring elements, the xor of bits, that they exchange."""
    openings = [m for m in messages if m.kind is Kind.OPENING]
    pairs = zip(openings[::2], openings[1::2], strict=True)
    return [
        first.words + second.words if first.words.shape == (N,) else first.words ^ second.words
        for first, second in pairs
    ]


def uneven_pairs(view):
    """Pairs of pieces of a view whose sum, difference or xor is not uniform."""
    found = []
    for one, other in combinations([piece for piece in view if piece.words.size >= 160], 2):
        if one.words.shape == other.words.shape:
            joins = (one.words + other.words, one.words - other.words, one.words ^ other.words)
            if not all(map(is_uniform, joins)):
                found.append((one.name, other.name))
    return found


def planes(name, words):
    """Rows of N bits: the planes of packed bits; the lowest and the highest bit of N ring elements."""
    if words.shape == (N,):
        for bit in (0, 63):
            packed = np.packbits((words.view(np.uint64) >> np.uint64(bit) & np.uint64(1)).astype(np.uint8))
            yield f"{name} bit {bit}", int.from_bytes(packed.tobytes(), "big")
    else:
        assert words.shape[-1] == WORDS
        order = words.reshape(-1, WORDS).view(np.uint8)
        for i, plane in enumerate(np.packbits(np.unpackbits(order, axis=1, bitorder="little"), axis=1)):
            yield f"{name} plane {i}", int.from_bytes(plane.tobytes(), "big")


def dependent_rows(rows):
    """Names of rows that are the xor of others before them, over all N columns; none for independent noise."""
    basis, found = {}, []
    for name, row in rows:
        while row:
            top = row.bit_length()
            if top not in basis:
                basis[top] = row
                break
            row ^= basis[top]
        else:
            found.append(name)
    return found


def relations(pieces, server, secrets):
    """Linear relations among the bits of all that a server holds, the secrets, and the constant 1.

    A sum of ring elements is, in the lowest bit, the xor: any whole-number relation with odd coefficients that
    ties messages and pads to a secret shows here, whichever and however many are tied. What is opened has rows of
    its own, as it follows from what the server holds by carries and products; but for the lowest bit of a sum.
    """
    view = [piece for piece in pieces if piece.to == server]
    rows = [("one", (1 << N) - 1)]
    for i, value in enumerate(opened_values(pieces)):
        rows += list(planes(f"opened {i}", value))[value.shape == (N,) :]
    rows += [row for i, secret in enumerate(secrets) for row in planes(f"secret {i}", secret)]
    rows += [row for i, piece in enumerate(view) for row in planes(f"{i}: {piece.name}", piece.words)]
    assert len(rows) < N - 64, "more rows than random ones of N bits are independent"
    return dependent_rows(rows)


# --- programs ---------------------------------------------------------------------------------------------------


def everything(images, kernel, other):
    """Inputs of two owners, and every kind of operation on them."""
    x = sf.private_tensor(images, "alice").shared(PROTOCOL)
    w = sf.private_tensor(kernel, "bob").shared(PROTOCOL)
    v = sf.private_tensor(other, "bob").shared(PROTOCOL)
    convolved = sf.nn.conv2d(x, w, padding="SAME")
    truncated = (x * v).ready()
    results = [
        convolved,
        sf.relu(convolved),
        sf.relu(x),
        truncated,
        truncated * x,
        x > v,
        (x > v) * v,
        sf.nn.max_pool2d(x, 2),
        sf.polynomial(x, [0.1, 0.5, 0.2]),
        sf.polynomial(v, [0.0, 0.5, 0.2, 0.1, 0.05]),
        sf.nn.dense(x.reshape(64, 64), v.reshape(64, 64)),
        sf.sigmoid(v),
    ]
    return [y.reveal("client").numpy() for y in results]


def images_of(seed):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(4, 8, 8, 16)), rng.normal(size=(3, 3, 16, 16)) / 12, rng.normal(size=(4, 8, 8, 16))


def flat(x, v):
    """The same on vectors of N: every message is of N ring elements, or of planes of N bits."""
    a = sf.private_tensor(x, "alice").shared(PROTOCOL)
    b = sf.private_tensor(v, "bob").shared(PROTOCOL)
    product = a * b
    results = [sf.relu(product), sf.relu(a), product.ready() * b, a >= b, sf.polynomial(b, [0.1, 0.5, 0.2])]
    return [y.reveal("client").numpy() for y in results]


def vectors_of(seed):
    rng = np.random.default_rng(seed)
    # Whole units, so that the lowest bit of the encoding is the secret's own.
    return rng.integers(-(2**18), 2**18, N) * UNIT, rng.integers(-(2**18), 2**18, N) * UNIT


def flat_secrets(x, v):
    """Words whose lowest and highest bits are bits of the inputs and of results, none the xor of others."""
    a, b = encode(x), encode(v)
    product, larger = a * b, (a >= b).astype(np.int64)
    return a, b, product & 1 | larger << 63, product >> 16 & 1 | (product >> 31 & 1) << 63


def encode(x):
    return np.rint(np.asarray(x) / UNIT).astype(np.int64)


@pytest.fixture(scope="module")
def messages():
    return play(everything, 1, *images_of(1))[0]


@pytest.fixture(scope="module")
def flat_messages():
    return play(flat, 2, *vectors_of(2))[0]


# --- uniform ----------------------------------------------------------------------------------------------------


def test_the_programs_compute_what_they_say():
    # Else the views would be of something else.
    images, kernel, other = images_of(1)
    _, results = play(everything, 1, images, kernel, other)
    convolved = tf.nn.conv2d(images, kernel, 1, "SAME").numpy()
    np.testing.assert_allclose(results[0], convolved, atol=0.002)
    np.testing.assert_allclose(results[1], np.maximum(convolved, 0), atol=0.002)
    np.testing.assert_allclose(results[3], images * other, atol=0.001)
    np.testing.assert_array_equal(results[5], np.rint(images / UNIT) > np.rint(other / UNIT))
    np.testing.assert_allclose(results[7], tf.nn.max_pool2d(images, 2, 2, "VALID").numpy(), atol=0.001)
    np.testing.assert_allclose(results[8], 0.1 + 0.5 * images + 0.2 * images**2, atol=0.001)


def test_all_kinds_cross_on_the_links_of_the_protocol_and_on_no_other(messages):
    assert {(m.kind, m.source, m.to) for m in messages} == {
        (Kind.INPUT, "alice", "server0"),
        (Kind.INPUT, "bob", "server1"),
        (Kind.OPENING, "server0", "server1"),
        (Kind.OPENING, "server1", "server0"),
        (Kind.CORRECTION, "dealer", "server0"),
        (Kind.CORRECTION, "dealer", "server1"),
        (Kind.RESULT, "server0", "client"),
        (Kind.RESULT, "server1", "client"),
    }


def test_the_dealer_receives_nothing(messages, flat_messages):
    assert len(messages) > 100
    assert not [m.name for m in (*messages, *flat_messages) if m.to == "dealer"]


@pytest.mark.parametrize(
    ("kind", "source", "to"),
    [
        (Kind.INPUT, "alice", "server0"),
        (Kind.INPUT, "bob", "server1"),
        (Kind.OPENING, "server1", "server0"),
        (Kind.OPENING, "server0", "server1"),
        (Kind.CORRECTION, "dealer", "server0"),
        (Kind.CORRECTION, "dealer", "server1"),
        (Kind.RESULT, "server0", "client"),
        (Kind.RESULT, "server1", "client"),
    ],
)
def test_what_a_party_receives_is_uniform_in_every_byte_of_a_word(messages, kind, source, to):
    received = [m.words.ravel() for m in messages if (m.kind, m.source, m.to) == (kind, source, to)]
    words = np.concatenate(received)
    assert words.size >= 2560
    assert uneven_byte_positions(words) == []


def test_every_single_message_is_uniform(messages, flat_messages):
    # A leak in one message of many would be thinned out in their sum.
    for m in (*messages, *flat_messages):
        if m.words.size >= 160:
            assert is_uniform(m.words), m.name
        ones = np.unpackbits(np.ascontiguousarray(m.words).view(np.uint8)).astype(int)
        assert abs(ones.sum() - ones.size / 2) < 5 * np.sqrt(ones.size) / 2, m.name


def test_what_the_servers_open_is_uniform(flat_messages):
    opened = opened_values(flat_messages)
    assert len(opened) >= 12
    for value in opened:
        if value.size >= 160:
            assert is_uniform(value), value.shape
        ones = np.unpackbits(value.view(np.uint8)).astype(int)
        assert abs(ones.sum() - ones.size / 2) < 5 * np.sqrt(ones.size) / 2, value.shape


def test_a_zero_secret_looks_like_any_other():
    # The hardest input to hide: all zeros, in everything.
    messages, results = play(everything, 3, *(np.zeros_like(value) for value in images_of(1)))
    assert not results[0].any()
    for kind in (Kind.INPUT, Kind.OPENING, Kind.CORRECTION, Kind.RESULT):
        assert uneven_byte_positions(np.concatenate([m.words.ravel() for m in messages if m.kind is kind])) == []


# --- independent of the secrets -----------------------------------------------------------------------------------


def test_equal_inputs_give_equal_bits_and_another_seed_gives_others():
    first, again, other = (play(everything, seed, *images_of(4))[0] for seed in (5, 5, 6))
    assert len(first) == len(again) == len(other)
    for one, two, three in zip(first, again, other, strict=True):
        assert (one.kind, one.source, one.to) == (two.kind, two.source, two.to) == (three.kind, three.source, three.to)
        np.testing.assert_array_equal(one.words, two.words)
        assert (one.words != three.words).mean() > 0.99


def test_two_runs_of_one_session_share_no_message():
    with sf.insecure_session(5), sf.crossings() as seen:
        flat(*vectors_of(5))
        half = len(seen)
        flat(*vectors_of(5))
    for one, two in zip(seen[:half], seen[half:], strict=True):
        assert (one.value.numpy() != two.value.numpy()).mean() > 0.99


def test_corrections_do_not_depend_on_any_input():
    one, two = (play(everything, 7, *images_of(seed))[0] for seed in (8, 9))
    changed = Counter()
    for before, after in zip(one, two, strict=True):
        assert before.words.shape == after.words.shape
        if before.kind is Kind.CORRECTION:
            np.testing.assert_array_equal(before.words, after.words)
        elif not np.array_equal(before.words, after.words):
            changed[before.kind] += 1
    # The inputs did differ: all else shows it, through masks that stayed the same.
    assert set(changed) == {Kind.INPUT, Kind.OPENING, Kind.RESULT}


def multiply_then_compare(x, v):
    a = sf.private_tensor(x, "alice").shared(PROTOCOL)
    b = sf.private_tensor(v, "bob").shared(PROTOCOL)
    return (((a * b).ready()) >= 0).reveal("client").numpy()


def test_under_the_same_masks_openings_differ_by_the_secrets_difference():
    secrets = [vectors_of(seed) for seed in (10, 11)]
    (one, found), (two, found_too) = (play(multiply_then_compare, 12, *pair) for pair in secrets)
    (x, v), (x2, v2) = [(encode(x), encode(v)) for x, v in secrets]
    np.testing.assert_array_equal(found, (x * v + 2**15 >> 16) >= 0)

    inputs = [(a.words, b.words) for a, b in zip(one, two, strict=True) if a.kind is Kind.INPUT]
    np.testing.assert_array_equal(inputs[0][1] - inputs[0][0], x2 - x)
    np.testing.assert_array_equal(inputs[1][1] - inputs[1][0], v2 - v)

    before, after = opened_values(one), opened_values(two)
    np.testing.assert_array_equal(after[0] - before[0], x2 - x)
    np.testing.assert_array_equal(after[1] - before[1], v2 - v)
    np.testing.assert_array_equal(after[2] - before[2], x2 * v2 - x * v)
    # After truncation: by the quotients' difference, up to the unit that each rounds by.
    assert np.abs((after[3] - before[3]) - (x2 * v2 - x * v) / 2**16).max() <= 2
    # The last opening is the sign itself under a mask of one bit.
    signs = np.packbits((found != found_too).astype(np.uint8), bitorder="little").view(np.int64)
    np.testing.assert_array_equal(before[-1] ^ after[-1], signs)


def test_a_server_learns_nothing_from_a_message_that_its_own_streams_determine():
    # Of an input, one server's part is a stream: it stays the same whatever the secret is.
    def parts(x):
        with sf.insecure_session(13):
            return [part.numpy() for part in sf.private_tensor(x, "alice").shared(PROTOCOL).share.parts]

    one, two = (parts(vectors_of(seed)[0]) for seed in (14, 15))
    same = [np.array_equal(a, b) for a, b in zip(one, two, strict=True)]
    assert sorted(same) == [False, True]


# --- all that a party holds together ------------------------------------------------------------------------------


@pytest.mark.parametrize("server", SERVERS)
def test_no_two_pieces_of_a_servers_view_match(monkeypatch, server):
    pieces = play_with_streams(monkeypatch, flat, 16, *vectors_of(16))
    view = [piece for piece in pieces if piece.to == server]
    assert sum(piece.kind is None for piece in view) >= 10
    assert uneven_pairs(view) == []


@pytest.mark.parametrize("server", SERVERS)
def test_no_relation_ties_a_servers_view_to_a_secret(monkeypatch, server):
    x, v = vectors_of(17)
    pieces = play_with_streams(monkeypatch, flat, 17, x, v)
    assert relations(pieces, server, flat_secrets(x, v)) == []


def test_both_servers_together_would_know_everything(monkeypatch):
    # The relations do exist, for who holds both views: the check above is not blind.
    x, v = vectors_of(17)
    pieces = play_with_streams(monkeypatch, flat, 17, x, v)
    both = [Seen(p.kind, p.source, "both", p.words) for p in pieces if p.to in SERVERS and p.words.shape == (N,)]
    assert relations(both, "both", flat_secrets(x, v))


def test_the_shares_of_a_result_are_fresh_each_time():
    def twice(x):
        a = sf.private_tensor(x, "alice").shared(PROTOCOL)
        return [a.reveal("client").numpy() for _ in range(2)]

    messages, (one, two) = play(twice, 18, vectors_of(18)[0])
    np.testing.assert_array_equal(one, two)
    results = [m for m in messages if m.kind is Kind.RESULT]
    assert len(results) == 4
    # Of one result the two parts are tied by it; of two results, parts are not.
    assert uneven_pairs([results[0], results[2]]) == uneven_pairs([results[0], results[3]]) == []
    assert uneven_pairs([results[1], results[2]]) == uneven_pairs([results[1], results[3]]) == []
    np.testing.assert_array_equal(results[0].words + results[1].words, encode(one))


# --- planted leaks: the checks above find them ----------------------------------------------------------------------


def zero_mask(servers, dealer, shape, combine):
    zeros = tf.zeros(shape, tf.int64)
    return stream_module.Mask((zeros, zeros), zeros)


def test_planted_an_opening_without_a_mask_is_found(monkeypatch):
    x, v = vectors_of(19)
    monkeypatch.setattr(opening_module, "fresh_mask", zero_mask)
    pieces = play_with_streams(monkeypatch, flat, 19, x, v)
    opened = opened_values(pieces)
    assert any(np.array_equal(value, encode(x)) for value in opened)
    assert sum(not is_uniform(value) for value in opened if value.size >= 160) >= 4
    for server in SERVERS:
        assert relations(pieces, server, flat_secrets(x, v))


def test_planted_a_sign_opened_without_a_mask_is_found(monkeypatch):
    original = opening_module.fresh_mask

    def only_signs_bare(servers, dealer, shape, combine):
        bare = tuple(shape) == (WORDS,)
        return (zero_mask if bare else original)(servers, dealer, shape, combine)

    x, v = vectors_of(20)
    monkeypatch.setattr(opening_module, "fresh_mask", only_signs_bare)
    pieces = play_with_streams(monkeypatch, flat, 20, x, v)
    # What is opened is still the sign xor a63, and uniform. But alpha = x - a is known and x is small: a63 is known.
    assert all(is_uniform(piece.words) for piece in pieces if piece.words.size >= 160)
    for server in SERVERS:
        assert relations(pieces, server, flat_secrets(x, v))


def test_planted_a_mask_used_twice_is_found(monkeypatch):
    kept = {}
    original = opening_module.fresh_mask

    def same_mask(servers, dealer, shape, combine):
        key = tuple(shape)
        if key not in kept:
            kept[key] = original(servers, dealer, shape, combine)
        return kept[key]

    x, v = vectors_of(21)
    monkeypatch.setattr(opening_module, "fresh_mask", same_mask)
    pieces = play_with_streams(monkeypatch, flat, 21, x, v)
    # Each opening by itself looks uniform: only the joint view shows the leak.
    opened = opened_values(pieces)
    assert all(is_uniform(value) for value in opened if value.size >= 160)
    assert uneven_pairs([Seen(Kind.OPENING, "a server", "both", value) for value in opened])
    for server in SERVERS:
        assert relations(pieces, server, flat_secrets(x, v))


def test_opened_values_have_no_relation_with_the_secrets_either(monkeypatch):
    # The counterpart of the planted reuse: all opened values, and the secrets, are independent.
    x, v = vectors_of(21)
    pieces = play_with_streams(monkeypatch, flat, 21, x, v)
    opened = [Seen(Kind.OPENING, "a server", "both", value) for value in opened_values(pieces)]
    rows = [row for i, secret in enumerate(flat_secrets(x, v)) for row in planes(f"secret {i}", secret)]
    rows += [row for i, piece in enumerate(opened) for row in planes(f"{i}: {piece.name}", piece.words)]
    assert dependent_rows(rows) == []
    assert uneven_pairs(opened) == []


def test_planted_a_dealers_pad_used_twice_is_found(monkeypatch):
    kept = {}
    original = dealer_module.shared_stream

    def same_stream(one, other, shape):
        key = one, other, tuple(shape)
        if key not in kept:
            kept[key] = original(one, other, shape)
        return kept[key]

    x, v = vectors_of(22)
    monkeypatch.setattr(dealer_module, "shared_stream", same_stream)
    messages, _ = play(flat, 22, x, v)
    corrections = [m for m in messages if m.kind is Kind.CORRECTION]
    assert all(is_uniform(m.words) for m in corrections)
    assert any(uneven_pairs([m for m in corrections if m.to == server]) for server in SERVERS)


def test_planted_streams_that_begin_anew_are_found(monkeypatch):
    def restarting(x, v):
        shares = []
        for value in (x, v):
            # An execution that has the index, and so the streams, of the one before.
            session = current_session()
            session._eager, session._indices = None, iter([1])
            shares.append(sf.private_tensor(value, "alice").shared(PROTOCOL))
        return shares

    x, v = vectors_of(23)
    pieces = play_with_streams(monkeypatch, restarting, 23, x, v)
    view = [piece for piece in pieces if piece.kind is Kind.INPUT]
    assert all(is_uniform(piece.words) for piece in view)
    assert uneven_pairs(view)
    np.testing.assert_array_equal(view[0].words - view[1].words, encode(x) - encode(v))


def test_planted_an_input_sent_in_the_clear_is_found():
    x = vectors_of(24)[0]
    assert not is_uniform(encode(x))
    assert uneven_byte_positions(encode(x)) == [2, 3, 4, 5, 6, 7]
