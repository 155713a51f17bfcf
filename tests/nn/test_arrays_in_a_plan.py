"""A plan of the functions on arrays, windows and images: the audit passes, its graph holds what they are made of."""

import numpy as np
import pytest
import tensorflow as tf
from benchmarks.functions import on_grid
from nearness import private, value

import shareflow as sf
from shareflow import nn
from shareflow.audit.plan import audit_plan
from shareflow.runtime.external import steps_of
from shareflow_client.manifest import parse_manifest

IMAGE = (2, 4, 6, 4)


def every_function(x):
    """One result by each function, of an image batch."""
    line = x.reshape(-1)[:12]
    matrix = line.reshape(3, 4)
    return {
        "pad": nn.pad(x, [(0, 0), (1, 0), (0, 2), (0, 0)], value=1.5),
        "reflect": nn.pad(x, [(0, 0), (1, 2), (3, 0), (0, 0)], "REFLECT"),
        "tile": nn.tile(matrix, [2, 1]),
        "repeat": nn.repeat(matrix, [1, 0, 2], 0),
        "reverse": nn.reverse(x, 1),
        "roll": nn.roll(x, 2, 2),
        "gather": nn.gather(x, [[1, 0], [3, 3]], 1),
        "gather_batches": nn.gather(x, [[1, 0], [3, 3]], 1, 1),
        "gather_nd": nn.gather_nd(x, [[0, 1], [1, 3]]),
        "gather_private": nn.gather(matrix, nn.argmax(matrix), 1, 1),
        "scatter_nd": nn.scatter_nd([[4], [0], [4]], matrix, (5, 4)),
        "update": nn.tensor_scatter_update(matrix, [[2]], matrix[:1]),
        "slice": nn.strided_slice(x, [0, -1], [0, 0], [1, -2], begin_mask=1, end_mask=1),
        "split": nn.split(x, 3, 2)[1],
        "unstack": nn.unstack(x, -1)[1],
        "cumsum": nn.cumsum(x, 1, reverse=True),
        "diag": nn.matrix_diag(line),
        "diag_part": nn.matrix_diag_part(matrix),
        "band": nn.band_part(matrix, 0, 1),
        "space_to_depth": nn.space_to_depth(x, 2),
        "depth_to_space": nn.depth_to_space(x, 2),
        "space_to_batch": nn.space_to_batch_nd(x, [2, 2], [(0, 0), (0, 0)]),
        "batch_to_space": nn.batch_to_space_nd(x, [1, 2], [(0, 0), (1, 0)]),
        "patches": nn.extract_patches(x, 2, 2, "SAME"),
        "nearest": nn.resize_nearest(x, (3, 9)),
        "bilinear": nn.upsample2d(x, 2, "bilinear"),
        "bilinear_any": nn.resize_bilinear(x, (5, 4), align_corners=True),
        "max_pool": nn.max_pool2d(x, 3, 2, "SAME"),
        "max_pool3d": nn.max_pool3d(x[..., None], 2, 1),
        "avg_pool": nn.avg_pool2d(x, 3, 2, "SAME"),
        "avg_pool1d": nn.avg_pool1d(x[0], 2),
        "where": nn.where(np.eye(3, 4), matrix, -matrix),
        "clip": nn.clip_by_value(matrix, -np.ones((3, 1)), [0.0, 1.0, 2.0, 0.5]),
        "one_hot": nn.one_hot(nn.argmax(matrix), 4, 0),
        "sin": nn.sin(line),
        "cos": nn.cos(line),
    }


@pytest.fixture(scope="module")
def made():
    def predict(x):
        x = x.shared(sf.SPDZ())
        return {name: result.reveal("client") for name, result in every_function(x).items()}

    return sf.plan({"predict": sf.Entry(predict, {"x": sf.Input("client", IMAGE)})}, sf.SPDZ())


def test_the_plan_passes_its_audit(made):
    graphs = {name: made.definition(name) for name in made.file.manifest["graphs"]}
    audit = audit_plan(parse_manifest(made.file.manifest), graphs, steps_of)
    assert audit.passed, list(audit.every_finding())
    ops = {node.op for graph in graphs.values() for node in graph.node}
    assert ops >= {"MirrorPad", "Tile", "ReverseV2", "Roll", "GatherV2", "GatherNd", "ScatterNd", "Cumsum", "AddN",
                   "MatrixDiagV3", "MatrixDiagPartV3", "MatrixBandPart", "SpaceToDepth", "DepthToSpace",
                   "SpaceToBatchND", "BatchToSpaceND", "ExtractImagePatches"}  # fmt: skip


def test_shares_give_what_plaintext_gives(rng):
    x = on_grid(rng.normal(size=IMAGE), 16)
    known = every_function(sf.private_tensor(tf.constant(x), "alice"))
    for name, result in every_function(private(x)).items():
        np.testing.assert_allclose(value(result), known[name].numpy(), atol=12 * 2.0**-16, err_msg=name)
