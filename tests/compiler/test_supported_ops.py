"""The page on supported operations names what there is, and nothing else."""

import re
from pathlib import Path

import pytest
import tensorflow as tf
from lowering import graph_of, on_shares, reals

from shareflow.compiler.decompositions import DECOMPOSITIONS
from shareflow.compiler.lower import supported
from shareflow.compiler.lower.handler import _NEAREST
from shareflow.errors import UnsupportedModelError

FUSED = ("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3")
PAGE = (Path(__file__).parents[2] / "docs" / "compiler-ops.md").read_text()


def listed():
    rows = re.findall(r"^\| ([A-Z][^|]*) \|", PAGE, re.MULTILINE)
    return [op for row in rows for op in row.split() if row != "Ops"]


def test_the_page_lists_every_op_once():
    names = listed()
    assert len(names) == len(set(names))
    # Documents add handlers when their code runs in the same process.
    there = {*supported(), *DECOMPOSITIONS, *FUSED} - {"Atan"}
    assert set(names) - there == set()
    assert there - set(names) == set()


@pytest.mark.parametrize("op", [*supported(), *DECOMPOSITIONS])
def test_names_are_tensorflow_s(op):
    assert hasattr(tf.raw_ops, op) or op in ("Atan",)


def test_no_op_is_both_there_and_not():
    assert not set(_NEAREST) & ({*supported(), *DECOMPOSITIONS} - {"Atan"})
    for op in _NEAREST:
        assert hasattr(tf.raw_ops, op), op


def test_an_op_without_a_handler_says_what_is_near():
    with pytest.raises(UnsupportedModelError, match=r"Lgamma of layer '' has no private form\. Use a polynomial fit"):
        on_shares(graph_of(lambda x: tf.math.lgamma(x), [reals(2)]), {"x": reals(2)})
    with pytest.raises(UnsupportedModelError, match=r"compiler-ops\.md lists them|an op like"):
        on_shares(graph_of(lambda x: tf.math.bessel_i1(x), [reals(2)]), {"x": reals(2)})


def test_all_that_is_missing_is_named_at_once():
    with pytest.raises(UnsupportedModelError, match="Also without: Lgamma"):
        on_shares(graph_of(lambda x: tf.math.digamma(tf.math.lgamma(x)), [reals(2)]), {"x": reals(2)})
