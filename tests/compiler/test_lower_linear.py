"""Matrix products, convolutions, their transposes and pooling on shares, against TensorFlow."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from lowering import check, graph_of, named, on_shares, reals, wholes

from shareflow.compiler.graph import Builder, Graph, Output
from shareflow.errors import UnsupportedModelError

BOTH = {"parties": {"x": "alice", "y": "bob"}}

MATRICES = [
    ((3, 4), (4, 5), False, False),
    ((4, 3), (4, 5), True, False),
    ((3, 4), (5, 4), False, True),
    ((4, 3), (5, 4), True, True),
    ((1, 1), (1, 1), False, False),
    ((0, 4), (4, 5), False, False),
    ((2, 3, 4), (2, 4, 5), False, False),
    ((2, 3, 4), (4, 5), False, False),
    ((2, 1, 3, 4), (3, 4, 5), False, False),
    ((2, 4, 3), (2, 5, 4), True, True),
]


@pytest.mark.parametrize("case", MATRICES, ids=str)
def test_matrix_products(case):
    left, right, a, b = case
    x, y = reals(*left, size=2), reals(*right, size=2, seed=1)
    check(lambda x, y: tf.linalg.matmul(x, y, a, b), x, y, units=3)
    check(lambda x: tf.linalg.matmul(x, tf.constant(y), a, b), x, units=3)
    check(lambda x: tf.linalg.matmul(x, tf.constant(y), a, b), x, units=3, public=True)
    check(lambda y: tf.linalg.matmul(tf.constant(x), y, a, b), y, units=3, public=True)


def test_matrix_products_of_two_parties_under_spdz():
    x, y = reals(3, 4, size=2), reals(4, 5, size=2, seed=1)
    for known in ([], ["x"], ["x", "y"]):
        check(lambda x, y: x @ y, x, y, units=3, kind="spdz", known=known, **BOTH)


def test_products_of_whole_numbers_are_exact():
    check(lambda x, y: x @ y, wholes(3, 4), wholes(4, 2, seed=1), units=0)
    check(lambda x, y: tf.einsum("ij,kj->ik", x, y), wholes(3, 4), wholes(2, 4, seed=1), units=0)


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("ij,jk->ik", ((2, 3), (3, 4))),
        ("bij,bkj->bik", ((2, 3, 4), (2, 5, 4))),
        ("bthd,bshd->bhts", ((2, 3, 2, 4), (2, 5, 2, 4))),
        ("bhts,bshd->bthd", ((2, 2, 3, 5), (2, 5, 2, 4))),
        ("abc,cde->abde", ((2, 3, 4), (4, 2, 3))),
        ("...ij,jk->...ik", ((2, 2, 3, 4), (4, 5))),
        ("i,i->", ((4,), (4,))),
        ("i,j->ij", ((4,), (3,))),
        ("ii,ij->j", ((3, 3), (3, 2))),
    ],
)
def test_einstein_sums(equation, shapes):
    x, y = reals(*shapes[0], size=2), reals(*shapes[1], size=2, seed=1)
    check(lambda x, y: tf.einsum(equation, x, y), x, y, units=4, **BOTH)
    check(lambda x: tf.einsum(equation, x, tf.constant(y)), x, units=4)


@pytest.mark.parametrize("equation", ["ij->ji", "ii->i", "ij->", "ijk->kj"])
def test_einstein_sums_of_one(equation):
    shape = (3, 3, 2)[: len(equation.split("->")[0])]
    check(lambda x: tf.einsum(equation, x), reals(*shape), units=0)


def test_other_products():
    check(lambda x, y: tf.tensordot(x, y, 2), reals(2, 3, 4, size=2), reals(3, 4, 2, size=2, seed=1), units=4)
    check(lambda x, y: tf.linalg.matvec(x, y), reals(2, 3, 4, size=2), reals(2, 4, size=2, seed=1), units=4)
    check(lambda x, y: tf.raw_ops.BatchMatMul(x=x, y=y, adj_y=True), reals(2, 3, 4), reals(2, 5, 4, seed=1), units=4)
    check(
        lambda x, y: tf.raw_ops.BatchMatMulV3(x=x, y=y, Tout=tf.float32), reals(2, 3, 4), reals(4, 5, seed=1), units=4
    )


def test_biases():
    x, bias = reals(2, 3, 3, 4), reals(4, seed=1)
    for known in ([], ["y"]):
        check(lambda x, y: tf.nn.bias_add(x, y), x, bias, units=0, known=known, **BOTH)
    check(lambda x: tf.nn.bias_add(x, tf.constant([1.0, 2, 3, 4])), x, units=0)
    check(lambda x, y: tf.nn.bias_add(x, y, data_format="NC..."), x, bias[:3], units=0)
    check(lambda x, y: tf.raw_ops.BiasAddV1(value=x, bias=y), x, bias, units=0)


# --- convolutions

WINDOWS = list(itertools.product([1, 2, 3], [1, 2], ["SAME", "VALID"], [1, 2]))


@pytest.mark.parametrize(("size", "stride", "padding", "dilation"), WINDOWS, ids=str)
def test_convolutions_of_images(size, stride, padding, dilation):
    if stride > 1 and dilation > 1:
        pytest.skip("TensorFlow has strides or dilations, not both")
    x, kernel = reals(2, 6, 7, 3, size=1), reals(size, size, 3, 4, size=1, seed=1)
    check(lambda x: tf.nn.conv2d(x, tf.constant(kernel), stride, padding, dilations=dilation), x, units=4)
    depthwise = reals(size, size, 3, 2, size=1, seed=2)

    def by_channel(x):
        return tf.nn.depthwise_conv2d(
            x, tf.constant(depthwise), [1, stride, stride, 1], padding, dilations=[dilation] * 2
        )

    check(by_channel, x, units=4)


@pytest.mark.parametrize(
    ("stride", "padding", "dilation"), itertools.product([1, 3], ["SAME", "VALID"], [1, 2]), ids=str
)
def test_convolutions_of_sequences_and_volumes(stride, padding, dilation):
    if stride > 1 and dilation > 1:
        pytest.skip("TensorFlow has strides or dilations, not both")
    kernel = tf.constant(reals(3, 2, 4, size=1))
    check(lambda x: tf.nn.conv1d(x, kernel, stride, padding, dilations=dilation), reals(2, 8, 2, size=1), units=4)
    deep = tf.constant(reals(2, 3, 2, 2, 3, size=1))
    strides = [1, stride, 1, stride, 1]
    dilations = [1, dilation, 1, 1, 1] if padding == "VALID" else [1] * 5
    check(lambda x: tf.nn.conv3d(x, deep, strides, padding, dilations=dilations), reals(1, 5, 6, 5, 2, size=1), units=4)


CONVOLUTIONS = {
    "two secrets": (lambda x, y: tf.nn.conv2d(x, y, 1, "SAME"), [reals(1, 5, 5, 2), reals(3, 3, 2, 3, seed=1)]),
    "computed kernel": (
        lambda x, y: tf.nn.conv2d(x, tf.nn.relu(y), 2, "VALID"),
        [reals(1, 5, 5, 2), reals(3, 3, 2, 3)],
    ),
    "different strides": (lambda x, y: tf.nn.conv2d(x, y, [1, 2], "SAME"), [reals(1, 5, 6, 2), reals(2, 3, 2, 3)]),
    "different dilations": (
        lambda x, y: tf.nn.conv2d(x, y, 1, "SAME", dilations=[1, 2]),
        [reals(1, 5, 6, 2), reals(2, 3, 2, 3)],
    ),
    "explicit padding": (
        lambda x, y: tf.nn.conv2d(x, y, 1, [[0, 0], [2, 0], [1, 3], [0, 0]]),
        [reals(1, 4, 4, 2), reals(3, 3, 2, 3)],
    ),
    "groups": (lambda x, y: tf.nn.conv2d(x, y, 1, "SAME"), [reals(1, 4, 4, 6), reals(3, 3, 2, 9)]),
    "even window": (lambda x, y: tf.nn.conv2d(x, y, 2, "SAME"), [reals(1, 5, 5, 2), reals(4, 4, 2, 3)]),
    "separable": (
        lambda x, y: tf.nn.separable_conv2d(x, y, tf.ones([1, 1, 4, 3]) / 4, [1, 1, 1, 1], "SAME"),
        [reals(1, 4, 4, 2), reals(3, 3, 2, 2)],
    ),
    "atrous": (lambda x, y: tf.nn.atrous_conv2d(x, y, 2, "SAME"), [reals(1, 6, 6, 2), reals(3, 3, 2, 3)]),
    "atrous convolution": (
        lambda x, y: tf.nn.convolution(x, y, 1, "VALID", dilations=2),
        [reals(1, 6, 6, 2), reals(3, 3, 2, 3)],
    ),
    "depthwise, two secrets": (
        lambda x, y: tf.nn.depthwise_conv2d(x, y, [1, 1, 1, 1], "SAME"),
        [reals(1, 4, 4, 3), reals(3, 3, 3, 2)],
    ),
    "depthwise, explicit padding": (
        lambda x, y: tf.nn.depthwise_conv2d(x, y, [1, 2, 2, 1], [[0, 0], [0, 1], [1, 2], [0, 0]]),
        [reals(1, 4, 4, 3), reals(3, 3, 3, 1)],
    ),
    "volume, two secrets": (
        lambda x, y: tf.nn.conv3d(x, y, [1, 1, 2, 1, 1], "SAME"),
        [reals(1, 3, 4, 4, 2), reals(2, 3, 3, 2, 2)],
    ),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions(name):
    function, inputs = CONVOLUTIONS[name]
    check(lambda x, y: function(x, y), *inputs, units=6, relative=1e-5, **BOTH)


@pytest.mark.parametrize("name", ["two secrets", "groups", "depthwise, two secrets", "volume, two secrets"])
def test_convolutions_under_spdz(name):
    function, inputs = CONVOLUTIONS[name]
    check(lambda x, y: function(x, y), *inputs, units=6, relative=1e-5, kind="spdz", known=["x"], **BOTH)


TRANSPOSED = [
    (size, stride, padding, extent)
    for size, stride, padding in itertools.product([2, 3], [1, 2, 3], ["SAME", "VALID"])
    for extent in (6, 7)
]


@pytest.mark.parametrize(("size", "stride", "padding", "extent"), TRANSPOSED, ids=str)
def test_transposed_convolutions(size, stride, padding, extent):
    """Also with SAME and extents that do not divide."""

    def count(n):
        return -(-n // stride) if padding == "SAME" else (n - size) // stride + 1

    rows, columns = count(extent), count(extent + 1)
    kernel = reals(size, size, 4, 3, size=1)
    x = reals(2, rows, columns, 3, size=1)
    check(
        lambda x: tf.nn.conv2d_transpose(x, tf.constant(kernel), [2, extent, extent + 1, 4], stride, padding),
        x,
        units=4,
    )
    line = reals(2, columns, 3, size=1)
    narrow = tf.constant(kernel[0])
    check(lambda x: tf.nn.conv1d_transpose(x, narrow, [2, extent + 1, 4], stride, padding), line, units=4)
    deep = tf.constant(reals(size, size, size, 2, 2, size=1))
    volume = reals(1, rows, columns, rows, 2, size=1)
    shape = [1, extent, extent + 1, extent, 2]
    check(lambda x: tf.nn.conv3d_transpose(x, deep, shape, [1] + [stride] * 3 + [1], padding), volume, units=6)


TRANSPOSED_BOTH = {
    "images": (
        lambda x, y: tf.nn.conv2d_transpose(x, y, [1, 6, 6, 2], 2, "SAME"),
        [reals(1, 3, 3, 3), reals(3, 3, 2, 3, seed=1)],
    ),
    "volumes": (
        lambda x, y: tf.nn.conv3d_transpose(x, y, [1, 3, 5, 4, 2], 2, "SAME"),
        [reals(1, 2, 3, 2, 3), reals(3, 3, 2, 2, 3, seed=1)],
    ),
    "explicit padding": (
        lambda x, y: tf.nn.conv2d_transpose(x, y, [1, 6, 6, 2], 2, [[0, 0], [1, 0], [0, 1], [0, 0]]),
        [reals(1, 3, 3, 3), reals(3, 3, 2, 3, seed=1)],
    ),
    "atrous": (
        lambda x, y: tf.nn.atrous_conv2d_transpose(x, y, [1, 6, 6, 2], 2, "SAME"),
        [reals(1, 6, 6, 3), reals(3, 3, 2, 3, seed=1)],
    ),
    "dilated": (
        lambda x, y: tf.nn.conv2d_transpose(x, y, [1, 6, 6, 2], 1, "SAME", dilations=2),
        [reals(1, 6, 6, 3), reals(3, 3, 2, 3, seed=1)],
    ),
    "depthwise": (
        lambda x, y: tf.nn.depthwise_conv2d_backprop_input([1, 5, 6, 3], y, x, [1, 2, 2, 1], "SAME"),
        [reals(1, 3, 3, 6), reals(3, 3, 3, 2, seed=1)],
    ),
}


@pytest.mark.parametrize("kind", ["plain", "spdz"])
@pytest.mark.parametrize("name", TRANSPOSED_BOTH)
def test_transposed_convolutions_of_two_secrets(name, kind):
    function, inputs = TRANSPOSED_BOTH[name]
    check(lambda x, y: function(x, y), *inputs, units=6, relative=1e-5, kind=kind, **BOTH)


# --- pooling

POOLS = list(itertools.product([1, 2, 3], [1, 2, 3], ["SAME", "VALID"]))


@pytest.mark.parametrize(("size", "stride", "padding"), POOLS, ids=str)
def test_pooling_of_images(size, stride, padding):
    x = reals(2, 7, 6, 2)
    check(lambda x: tf.nn.max_pool2d(x, size, stride, padding), x, units=0)
    check(lambda x: tf.nn.avg_pool2d(x, size, stride, padding), x, units=2, relative=4e-5)


@pytest.mark.parametrize(("size", "stride", "padding"), [(2, 2, "SAME"), (3, 2, "VALID"), (2, 1, "SAME")], ids=str)
def test_pooling_of_sequences_and_volumes(size, stride, padding):
    check(lambda x: tf.nn.max_pool1d(x, size, stride, padding), reals(2, 7, 3), units=0)
    check(lambda x: tf.nn.avg_pool1d(x, size, stride, padding), reals(2, 7, 3), units=2)
    check(lambda x: tf.nn.max_pool3d(x, size, stride, padding), reals(1, 4, 5, 3, 2), units=0)
    check(lambda x: tf.nn.avg_pool3d(x, size, stride, padding), reals(1, 4, 5, 3, 2), units=2)


MORE_POOLS = {
    "different": lambda x: tf.nn.max_pool2d(x, [2, 3], [1, 2], "VALID"),
    "different, mean": lambda x: tf.nn.avg_pool2d(x, [2, 3], [2, 1], "SAME"),
    "explicit padding": lambda x: tf.nn.max_pool2d(x, 3, 2, [[0, 0], [1, 1], [0, 2], [0, 0]]),
    "v2": lambda x: tf.raw_ops.MaxPoolV2(input=x, ksize=[1, 2, 2, 1], strides=[1, 2, 2, 1], padding="SAME"),
    "channels": lambda x: tf.nn.max_pool(x, [1, 1, 1, 2], [1, 1, 1, 2], "VALID"),
    "dilated": lambda x: tf.nn.pool(x, [2, 2], "MAX", padding="VALID", dilations=[2, 2]),
    "pool": lambda x: tf.nn.pool(x, [2, 2], "AVG", strides=[2, 1], padding="SAME"),
    "whole": lambda x: tf.reduce_mean(x, [1, 2]),
}


@pytest.mark.parametrize("name", MORE_POOLS)
def test_pooling(name):
    check(lambda x: MORE_POOLS[name](x), reals(2, 6, 6, 4), units=2, relative=4e-5)


def test_pooling_under_spdz():
    check(lambda x: tf.nn.max_pool2d(x, 3, 2, "SAME"), reals(1, 5, 5, 2), units=0, kind="spdz")
    check(lambda x: tf.nn.avg_pool2d(x, 3, 2, "SAME"), reals(1, 5, 5, 2), units=3, relative=4e-5, kind="spdz")
    check(lambda x: tf.nn.max_pool3d(x, 2, 2, "SAME"), reals(1, 3, 3, 3, 2), units=0, kind="spdz")


# --- channels first: TensorFlow computes these on a processor in few cases, so the channels-last op is the oracle


def _channels_first(op, attributes, right, *arrays):
    """The private result of an op on x with channels first, beside a result with channels last."""
    rank = right.ndim
    last_to_first = [0, rank - 1, *range(1, rank - 1)]
    build = Builder()
    names = ["x", "y"][: len(arrays)]
    shared = [arrays[0].transpose(last_to_first), *arrays[1:]]
    example = graph_of(lambda x, y: x if len(arrays) == 1 else (x, y), [shared[0], shared[-1]], {"y": "owner"})
    nodes = [build.add(node) for node in example.inputs[: len(arrays)]]
    shape = tuple(right.transpose(last_to_first).shape)
    output = build.custom(op, [Output(node) for node in nodes], shape, "float32", attributes)
    graph = Graph(tuple(build.nodes), {"result": output})
    (got,) = on_shares(graph, dict(zip(names, shared, strict=True)))
    np.testing.assert_allclose(got, right.transpose(last_to_first), atol=1e-3)


@pytest.mark.parametrize("padding", ["SAME", "VALID", "EXPLICIT"])
def test_convolutions_channels_first(padding):
    x, kernel = reals(1, 5, 6, 2), reals(3, 3, 2, 4)
    sides = [[0, 0], [1, 0], [0, 2], [0, 0]]
    right = tf.nn.conv2d(x, kernel, [2, 1], sides if padding == "EXPLICIT" else padding).numpy()
    first = {"strides": [1, 1, 2, 1], "dilations": [1, 1, 1, 1], "data_format": "NCHW", "padding": padding}
    first["explicit_paddings"] = [0, 0, 0, 0, 1, 0, 0, 2] if padding == "EXPLICIT" else []
    _channels_first("Conv2D", first, right, x, kernel)


def test_other_ops_channels_first():
    x = reals(1, 5, 6, 4)
    both = {"strides": [1, 1, 2, 2], "data_format": "NCHW", "padding": "SAME", "explicit_paddings": []}
    even = {**both, "dilations": [1, 1, 1, 1]}
    pool = {**both, "ksize": [1, 1, 2, 3]}
    _channels_first("MaxPool", pool, tf.nn.max_pool2d(x, [2, 3], 2, "SAME").numpy(), x)
    _channels_first("AvgPool", pool, tf.nn.avg_pool2d(x, [2, 3], 2, "SAME").numpy(), x)
    over = {**both, "ksize": [1, 2, 1, 1], "strides": [1, 2, 1, 1], "padding": "VALID"}
    _channels_first("MaxPool", over, tf.nn.max_pool(x, [1, 1, 1, 2], [1, 1, 1, 2], "VALID").numpy(), x)
    kernel = reals(3, 3, 4, 2)
    _channels_first(
        "DepthwiseConv2dNative", even, tf.nn.depthwise_conv2d(x, kernel, [1, 2, 2, 1], "SAME").numpy(), x, kernel
    )
    volume = reals(1, 4, 4, 3, 2)
    deep = {"strides": [1, 1, 2, 1, 2], "padding": "SAME", "data_format": "NCDHW", "dilations": [1] * 5}
    cube = reals(2, 2, 2, 2, 3)
    _channels_first("Conv3D", deep, tf.nn.conv3d(volume, cube, [1, 2, 1, 2, 1], "SAME").numpy(), volume, cube)
    _channels_first(
        "MaxPool3D",
        {**deep, "ksize": [1, 1, 2, 2, 1]},
        tf.nn.max_pool3d(volume, [2, 2, 1], [2, 1, 2], "SAME").numpy(),
        volume,
    )
    _channels_first(
        "AvgPool3D",
        {**deep, "ksize": [1, 1, 2, 2, 1]},
        tf.nn.avg_pool3d(volume, [2, 2, 1], [2, 1, 2], "SAME").numpy(),
        volume,
    )


# --- batch normalisation

BATCH_NORMS = [tf.raw_ops.FusedBatchNorm, tf.raw_ops.FusedBatchNormV2, tf.raw_ops.FusedBatchNormV3]


@pytest.mark.parametrize("op", BATCH_NORMS)
def test_batch_normalisation(op):
    scale, offset, mean, variance = (tf.Variable(reals(3, seed=i)) for i in range(4))

    def function(x):
        return op(
            x=x,
            scale=scale,
            offset=offset,
            mean=mean,
            variance=tf.square(variance) + 0.1,
            epsilon=1e-3,
            is_training=False,
        )[0]

    check(function, reals(2, 4, 4, 3), units=30, relative=1e-5)


def test_batch_normalisation_in_training_mode_is_refused():
    def function(x):
        ones = tf.ones([3])
        return tf.raw_ops.FusedBatchNormV3(x=x, scale=ones, offset=ones, mean=ones, variance=ones, is_training=True)[0]

    x = reals(2, 4, 4, 3)
    with pytest.raises(UnsupportedModelError, match="training mode"):
        on_shares(graph_of(function, [x]), named(function, [x]))


# --- what is refused


def test_a_dilation_that_tensorflow_mistakes_is_refused():
    function = lambda x: tf.nn.conv3d(x, tf.ones([1, 2, 2, 1, 1]), [1] * 5, "VALID", dilations=[1, 1, 2, 1, 1])  # noqa: E731
    with pytest.raises(UnsupportedModelError, match="differ for height and width"):
        on_shares(graph_of(function, [reals(1, 3, 4, 4, 1)]), {"x": reals(1, 3, 4, 4, 1)})


@pytest.mark.parametrize(
    ("op", "attributes"),
    [
        ("MaxPool", {"ksize": [1, 2, 2, 2], "strides": [1, 2, 2, 1], "padding": "VALID"}),
        ("AvgPool", {"ksize": [1, 1, 1, 2], "strides": [1, 1, 1, 1], "padding": "VALID"}),
        ("MaxPool", {"ksize": [1, 2, 2, 1], "strides": [2, 1, 1, 1], "padding": "VALID"}),
        ("MaxPool", {"ksize": [1, 1, 2, 2], "strides": [1, 1, 1, 1], "padding": "VALID", "data_format": "NCHW_VECT_C"}),
    ],
)
def test_windows_that_cannot_be_had(op, attributes):
    build = Builder()
    x = reals(1, 4, 4, 4)
    node = build.add(graph_of(lambda x: x, [x]).inputs[0])
    output = build.custom(op, [Output(node)], (1, 2, 2, 2), "float32", attributes)
    with pytest.raises(UnsupportedModelError, match=r"over batch or channels|no private form"):
        on_shares(Graph(tuple(build.nodes), {"result": output}), {"x": x})


@pytest.mark.parametrize(
    "function",
    [
        lambda x: tf.nn.max_pool_with_argmax(x, 2, 2, "VALID")[0],
        lambda x: tf.nn.fractional_max_pool(x, [1.0, 1.5, 1.5, 1.0], seed=1)[0],
        lambda x: tf.linalg.inv(x[0, :, :, 0]),
        lambda x: tf.linalg.cholesky(x[0, :, :, 0]),
        lambda x: tf.math.lgamma(x),
        lambda x: tf.math.atan(x),
        lambda x: tf.math.erfinv(x),
    ],
)
def test_ops_without_a_private_form_name_a_way_out(function):
    with pytest.raises(UnsupportedModelError, match=r"has no private form\. Use "):
        on_shares(graph_of(lambda x: function(x), [reals(1, 4, 4, 1)]), {"x": reals(1, 4, 4, 1)})
