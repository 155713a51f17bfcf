"""Rounds and bytes of functions at 16 fractional bits and of layouts of comparisons: as declared and as counted.

A change of a number here is a change of what users pay: make it on purpose, and run `python -m benchmarks.functions`
for docs/functions.md.
"""

import functools
import itertools
from pathlib import Path

import numpy as np
import pytest
from benchmarks.functions import (
    COMPARED_BITS,
    FUNCTION_HEADER,
    LAYOUT_HEADER,
    PRESETS,
    TABLES,
    counted,
    layout_table,
    markdown,
)
from nearness import ROWS, private, protocol

import shareflow as sf
from shareflow import nn
from shareflow.protocol.compare import non_negative
from shareflow.protocol.functionality.comparison import Layout, layout_for

DOCS = Path(__file__).resolve().parents[2] / "docs" / "functions.md"
N = 256

# Rounds; bytes an element from each server; bytes an element from the dealer to both.
COSTS = {
    "sigmoid(x)": (12, 207.75, 474.25),
    "tanh(x)": (12, 236.875, 527.125),
    "erf(x)": (12, 206.125, 401.875),
    "softplus(x)": (13, 239.75, 522.25),
    "gelu(x)": (13, 227.875, 408.125),
    "silu(x)": (13, 255.125, 584.875),
    "elu(x, alpha=1)": (13, 214.125, 417.875),
    "leaky_relu(x, slope=0.2)": (4, 13.125, 58.875),
    "hard_sigmoid(x)": (4, 18.25, 117.75),
    "hard_swish(x)": (6, 42.25, 141.75),
    "exp(x)": (13, 236.125, 695.875),
    "exp(x, high=0)": (13, 159.25, 382.75),
    "log(x)": (11, 319.75, 1110.25),
    "sqrt(x)": (13, 343.75, 1134.25),
    "rsqrt(x)": (13, 343.75, 1134.25),
    "reciprocal(y)": (19, 390, 1268),
    "reciprocal(y, positive=True)": (14, 355.75, 1150.25),
    "divide(x, y)": (19, 406, 1276),
    "divide(x, y, 1, 16, positive=True)": (14, 161.625, 302.375),
    "power(x, 2.5)": (26, 571.875, 1838.125),
    "sin(x)": (1, 8, 16),
    "cos(x)": (1, 8, 16),
    "tan(x)": (20, 270.5, 723.5),
    "softmax(x), of 10": (43, 208.025, 494.775),
    "log_softmax(x), of 10": (40, 182.025, 461.175),
    "layer_norm(x), of 16": (17, 37.0625, 81.0625),
    "l2_normalize(x), of 16": (17, 29.0625, 81.0625),
    "variance(x), of 16": (1, 8, 8),
    "standard_deviation(x), of 16": (15, 31.265625, 85.109375),
    "relu(x)": (4, 13.125, 58.875),
    "relu6(x)": (4, 18.25, 117.75),
    "clip(x, -1, 1)": (4, 18.25, 117.75),
    "absolute(x)": (4, 13.125, 58.875),
    "sign(x)": (4, 18.25, 71.75),
    "x >= 0": (4, 13.125, 42.875),
    "x < y": (4, 13.125, 42.875),
    "x == y": (4, 18.25, 55.75),
    "(x > 0) & (y > 0)": (5, 26.375, 86.125),
    "maximum(x, y)": (4, 13.125, 58.875),
    "minimum(x, y)": (4, 13.125, 58.875),
    "where(x > y, x, y)": (4, 21.125, 58.875),
    "floor(x)": (3, 9.125, 33.375),
    "ceil(x)": (3, 9.125, 33.375),
    "round(x)": (3, 9.125, 33.375),
    "right_shift(x, 3)": (3, 8.625, 24.875),
    "reduce_max(x), of 16": (16, 12.3046875, 55.1953125),
    "reduce_min(x), of 16": (16, 12.3046875, 55.1953125),
    "argmax(x), of 16": (16, 19.8046875, 69.1953125),
    "argmin(x), of 16": (16, 19.8046875, 69.1953125),
    "sort(x), of 16": (40, 51.6796875, 231.8203125),
    "top_k(x, 4)[0], of 16": (40, 51.6796875, 231.8203125),
    "one_hot(x, 16)": (3, 17.375, 123.625),
    "embedding(x, table), 16 rows of 8": (4, 145.375, 187.625),
}

# Group, gates, rounds; bits an element: online from each server, offline, and offline for each further threshold.
LAYOUTS = {
    (8, "balanced"): (3, (3,), 2, 7, 26, 5),
    (8, "latency"): (3, (3,), 2, 7, 26, 5),
    (8, "bandwidth"): (3, (3,), 2, 7, 26, 5),
    (16, "balanced"): (4, (4,), 2, 9, 75, 15),
    (16, "latency"): (4, (4,), 2, 9, 75, 15),
    (16, "bandwidth"): (3, (2, 3), 3, 19, 53, 11),
    (24, "balanced"): (3, (2, 4), 3, 25, 79, 23),
    (24, "latency"): (4, (6,), 2, 13, 173, 83),
    (24, "bandwidth"): (3, (2, 2, 2), 4, 29, 69, 13),
    (32, "balanced"): (4, (2, 4), 3, 25, 143, 23),
    (32, "latency"): (5, (7,), 2, 15, 394, 177),
    (32, "bandwidth"): (4, (2, 2, 2), 4, 29, 133, 13),
    (48, "balanced"): (4, (3, 4), 3, 33, 227, 47),
    (48, "latency"): (6, (8,), 2, 17, 871, 367),
    (48, "bandwidth"): (3, (2, 2, 2, 2), 5, 61, 141, 29),
    (63, "balanced"): (4, (4, 4), 3, 41, 343, 103),
    (63, "latency"): (4, (4, 4), 3, 41, 343, 103),
    (63, "bandwidth"): (4, (2, 2, 2, 2), 5, 61, 269, 29),
}


@functools.cache
def found(name):
    cost = counted(ROWS[name], sf.SPDZ())
    return cost.rounds, cost.online, cost.offline


@pytest.mark.parametrize("name", COSTS)
def test_the_cost_of_a_function(name):
    assert found(name) == COSTS[name]


def test_every_function_is_here():
    assert set(COSTS) == set(ROWS)
    # Made of others, of shapes of their own, or in another table: these have no row.
    composed = {"batch_norm", "conv2d", "dense", "depthwise_conv2d", "flatten", "polynomial", "polynomial_relu"}
    composed |= {"avg_pool2d", "global_avg_pool2d", "max_pool2d", "multi_head_attention", "left_shift"}
    composed |= {"scaled_dot_product_attention", "mish", "rms_norm"}
    composed |= {"conv1d", "conv3d", "conv1d_transpose", "conv2d_transpose", "conv3d_transpose", "einsum", "tensordot"}
    composed |= {"bias_add", "channels_first", "channels_last"}
    composed |= {f"{kind}_pool{axes}d" for kind in ("avg", "global_avg", "max") for axes in (1, 2, 3)}
    composed |= {"band_part", "batch_to_space_nd", "ceil_padding", "clip_by_value", "crop", "cumsum", "depth_to_space"}
    composed |= {"extract_patches", "gather", "gather_nd", "matrix_diag", "matrix_diag_part", "pad", "repeat"}
    composed |= {"resize_bilinear", "resize_nearest", "reverse", "roll", "scatter_nd", "space_to_batch_nd", "split"}
    composed |= {"space_to_depth", "strided_slice", "tensor_scatter_update", "tile", "unstack", "upsample2d"}
    public = {name for name, value in vars(nn).items() if callable(value) and not name.startswith("_")}
    assert public - composed == {name.partition("(")[0] for name in ROWS} & public
    text = DOCS.read_text(encoding="utf-8")
    assert [name for name in sorted(public) if f"`{name}" not in text] == []


def cells(line):
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def test_the_tables_of_the_docs_are_these():
    lines = [cells(line) for line in DOCS.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    tabled = {line[0]: line for line in lines if len(line) == len(FUNCTION_HEADER)}
    for name, row in ROWS.items():
        line = tabled[f"`{name}`"]
        rounds, online, offline = COSTS[name]
        stated = "exact" if row.units == 0 else f"{row.units:g}"
        assert [*line[:3], *line[4:]] == [
            f"`{name}`", row.meaning, stated, str(rounds), f"{online:.6g}", f"{offline:.6g}",
        ]  # fmt: skip
        assert float(line[3]) <= row.units
    assert markdown(LAYOUT_HEADER, layout_table()) in DOCS.read_text(encoding="utf-8")
    assert len(ROWS) == sum(map(len, TABLES.values()))


@pytest.mark.parametrize("bits", COMPARED_BITS)
@pytest.mark.parametrize("prefer", PRESETS)
def test_a_layout_is_what_the_graph_does(bits, prefer):
    plan = layout_for(bits, prefer)
    declared = (plan.group, plan.gates, plan.rounds, plan.online_bits, plan.offline_bits, plan.gate_bits)
    assert declared == LAYOUTS[bits, prefer]
    assert plan.covers >= bits
    x = private(np.zeros(N), where=protocol("spdz", comparison=sf.MaskedCarry(prefer=prefer))).reusable()
    c = sf.function(lambda x: non_negative(x, None if bits == 63 else 2.0 ** (bits - 16))).cost(x)
    assert c.rounds == plan.rounds
    assert c.bytes_by_link(offline=False) == {
        ("server0", "server1"): N * plan.online_bits / 8,
        ("server1", "server0"): N * plan.online_bits / 8,
    }
    assert c.offline_bytes == N * plan.offline_bits / 8


@pytest.mark.parametrize("bits", COMPARED_BITS)
def test_presets_are_the_best_at_what_they_are_for(bits):
    plans = {prefer: layout_for(bits, prefer) for prefer in PRESETS}

    def size(plan):
        return 2 * plan.online_bits + plan.offline_bits

    depth = range(1, 4)
    every = [
        Layout(group, gates)
        for group in range(2, 7)
        for n in depth
        for gates in itertools.product(range(2, 9), repeat=n)
        if Layout(group, gates).covers >= bits
    ]
    assert plans["latency"].rounds == min(plan.rounds for plan in every)
    assert size(plans["bandwidth"]) <= min(map(size, every))
    assert size(plans["bandwidth"]) <= size(plans["balanced"]) <= size(plans["latency"])
    assert plans["latency"].rounds <= plans["balanced"].rounds <= plans["bandwidth"].rounds


@pytest.mark.parametrize("prefer", PRESETS)
@pytest.mark.parametrize("name", ["sigmoid(x)", "exp(x)", "relu(x)", "argmax(x), of 16"])
def test_a_preset_does_for_functions_what_it_says(name, prefer):
    cost = counted(ROWS[name], protocol("spdz", comparison=sf.MaskedCarry(prefer=prefer)))
    rounds, online, offline = COSTS[name]
    if prefer == "latency":
        assert cost.rounds <= rounds
    if prefer == "bandwidth":
        assert 2 * cost.online + cost.offline < 2 * online + offline
    if prefer == "balanced":
        assert (cost.rounds, cost.online, cost.offline) == COSTS[name]


def test_rounds_do_not_grow_with_the_elements():
    for name in ("sigmoid(x)", "divide(x, y)", "softmax(x), of 10"):
        row = ROWS[name]
        inputs = [private(np.zeros((2 * shape[0], *shape[1:]))) for shape in row.shapes]
        assert sf.function(row.program).cost(*inputs).rounds == COSTS[name][0]


@pytest.mark.parametrize(("width", "levels"), [(2, 1), (4, 2), (5, 3), (16, 4), (17, 5)])
def test_rounds_of_a_maximum_grow_with_the_logarithm(width, levels):
    rounds = sf.function(lambda x: nn.reduce_max(x, -1)).cost(private(np.zeros((3, width)))).rounds
    assert rounds == 4 * levels
