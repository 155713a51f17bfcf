"""The operations that a party may compute: a value of their inputs, and nothing else.

Whatever is not named here is refused: operations with state, files, random numbers, Python functions, collectives,
queues, TensorFlow's own sending and receiving, and operations that nobody thought of. A function that is called is pure
if its body is; all functions of a graph are looked into, called or not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from shareflow.audit.finding import Finding

_RING = """
    ShareflowBitPlanes ShareflowConv2d ShareflowDepthwiseConv2d ShareflowFromBitPlanes ShareflowGate
    ShareflowGateProducts ShareflowGroupPolynomials ShareflowGroupProducts ShareflowMatmul ShareflowMultiplyBit
    ShareflowPackBits ShareflowShift ShareflowTruncateMultiplyBit ShareflowTruncateOpened ShareflowUniform
    ShareflowUnpackBits
"""

_MATHEMATICS = """
    Abs AccumulateNV2 Acos Acosh Add AddN AddV2 All Any ApproximateEqual ArgMax ArgMin Asin Asinh Atan Atan2 Atanh
    BatchMatMul BatchMatMulV2 BatchMatMulV3 BesselI0e BesselI1e Betainc Bincount BitwiseAnd BitwiseOr BitwiseXor
    Bucketize Cast Ceil ClipByValue Conj Cos Cosh Cross CumulativeLogsumexp Cumprod Cumsum DenseBincount Digamma Div
    DivNoNan Einsum Elu EluGrad Equal Erf Erfc Erfinv EuclideanNorm Exp Expm1 Floor FloorDiv FloorMod Greater
    GreaterEqual Igamma Igammac InTopK InTopKV2 Inv InvGrad Invert IsFinite IsInf IsNan L2Loss LeftShift Less LessEqual
    Lgamma LinSpace Log Log1p LogSoftmax LogicalAnd LogicalNot LogicalOr MatMul Max Maximum Mean Min Minimum Mod Mul
    MulNoNan Ndtri Neg NextAfter NotEqual PopulationCount Pow Prod Range Real RealDiv Reciprocal ReciprocalGrad Relu
    Relu6 Relu6Grad ReluGrad RightShift Rint Round Rsqrt RsqrtGrad SegmentMax SegmentMean SegmentMin SegmentProd
    SegmentSum Select SelectV2 Selu SeluGrad Sigmoid SigmoidGrad Sign Sin Sinh Softmax Softplus SoftplusGrad Softsign
    SoftsignGrad Sqrt SqrtGrad Square SquaredDifference Sub Sum Tan Tanh TanhGrad TruncateDiv TruncateMod
    UnsortedSegmentMax UnsortedSegmentMin UnsortedSegmentProd UnsortedSegmentSum Xdivy Xlog1py Xlogy Zeta
"""

_ARRAYS = """
    BatchToSpace BatchToSpaceND Bitcast BroadcastArgs BroadcastGradientArgs BroadcastTo Concat ConcatV2 Const
    DepthToSpace Diag DiagPart EnsureShape ExpandDims ExtractImagePatches Fill Gather GatherNd GatherV2 GuaranteeConst
    Identity IdentityN InvertPermutation ListDiff LowerBound MatrixBandPart MatrixDiag MatrixDiagPart MatrixDiagPartV2
    MatrixDiagPartV3 MatrixDiagV2 MatrixDiagV3 MatrixSetDiag MatrixSetDiagV2 MatrixSetDiagV3 MirrorPad NoOp OneHot
    OnesLike Pack Pad PadV2 PreventGradient Rank Reshape Reverse ReverseSequence ReverseV2 Roll ScatterNd
    ScatterNdNonAliasingAdd SearchSorted Shape ShapeN Size Slice Snapshot SpaceToBatch SpaceToBatchND SpaceToDepth
    Split SplitV Squeeze StopGradient StridedSlice StridedSliceGrad TensorScatterAdd TensorScatterMax TensorScatterMin
    TensorScatterSub TensorScatterUpdate TensorStridedSliceUpdate Tile TopK TopKV2 Transpose Unique UniqueV2
    UniqueWithCounts UniqueWithCountsV2 Unpack UnravelIndex UpperBound Where ZerosLike
"""

_NETWORKS = """
    AdjustContrastv2 AdjustHue AdjustSaturation AvgPool AvgPool3D AvgPoolGrad BiasAdd BiasAddGrad BiasAddV1 Cholesky
    Conv2D Conv2DBackpropFilter Conv2DBackpropInput Conv3D Conv3DBackpropInputV2 CropAndResize
    DepthwiseConv2dNative DepthwiseConv2dNativeBackpropFilter DepthwiseConv2dNativeBackpropInput Dilation2D
    FusedBatchNorm FusedBatchNormGrad FusedBatchNormGradV3 FusedBatchNormV2 FusedBatchNormV3 HSVToRGB LRN LeakyRelu
    LeakyReluGrad MatrixDeterminant MatrixInverse MatrixSolve MatrixTriangularSolve MaxPool MaxPool3D MaxPoolGrad
    MaxPoolV2 Qr RGBToHSV ResizeArea ResizeBicubic ResizeBilinear ResizeNearestNeighbor ScaleAndTranslate
    SelfAdjointEigV2 SoftmaxCrossEntropyWithLogits SparseSoftmaxCrossEntropyWithLogits Svd
"""

PURE = frozenset((*_RING.split(), *_MATHEMATICS.split(), *_ARRAYS.split(), *_NETWORKS.split()))

# Calls of functions, whose bodies are looked into. The stateful names are what TensorFlow writes where a body checks.
_CALLS = "Case If PartitionedCall StatefulPartitionedCall StatelessCase StatelessIf StatelessWhile While"
CALLS = frozenset(_CALLS.split())

# A check of a party's own values: it may end a run, which the others notice.
CHECK = "Assert"

# What a graph that runs in one process may hold besides: variables of one party, and printing there.
LOCAL = frozenset(
    (
        "AssignAddVariableOp",
        "AssignSubVariableOp",
        "AssignVariableOp",
        "PrintV2",
        "ReadVariableOp",
        "ResourceGather",
        "StringFormat",
        "VarIsInitializedOp",
        "VariableShape",
    )
)

# Attributes of TensorFlow's own that say nothing of what is computed or where.
_HARMLESS = frozenset(
    (
        "_class",  # looked at by the circuit: within one party
        "_collective_manager_ids",
        "_construction_context",
        "_has_manual_control_dependencies",
        "_input_shapes",  # of functions: shapes.py drops what follows from it
        "_lower_using_switch_merge",
        "_num_original_outputs",
        "_output_shapes",  # not believed: see shapes.py
        "_read_only_resource_inputs",
        "_user_specified_name",
    )
)


def called(attributes: Any) -> Iterator[str]:
    """Names of the functions that a node's attributes hold."""
    for value in attributes.values():
        which = value.WhichOneof("value")
        if which == "func":
            yield value.func.name
        elif which == "list":
            for function in value.list.func:
                yield function.name


def strange_attributes(attributes: Any) -> list[str]:
    """Attributes with a leading underscore that can steer where or how something is computed."""
    return sorted(key for key in attributes if key.startswith("_") and key not in _HARMLESS)


class Functions:
    """The functions of a graph: which are pure, and which hold checks.

    Args:
        library: the graph definition's.
        local: whether `LOCAL` operations are allowed.
    """

    def __init__(self, library: Any, local: bool) -> None:
        self._bodies = {function.signature.name: function for function in library.function}
        self._local = local
        calls = {
            name: {callee for node in function.node_def for callee in called(node.attr)}
            for name, function in self._bodies.items()
        }
        own = {
            name: {node.device for node in function.node_def} | ({CHECK} & {node.op for node in function.node_def})
            for name, function in self._bodies.items()
        }
        inside = _gathered(calls, own)
        self._checking = {name for name, found in inside.items() if CHECK in found}
        self._devices = {name: found - {CHECK} for name, found in inside.items()}

    def allowed(self, op: str) -> bool:
        """Whether a party may compute an operation of that type (for calls: if the bodies are pure)."""
        return op in PURE or op in CALLS or op == CHECK or (self._local and op in LOCAL)

    def checks(self, op: str, attributes: Any) -> bool:
        """Whether a node can end the run by a check, itself or in what it calls."""
        return op == CHECK or any(name in self._checking for name in called(attributes))

    def pinned_elsewhere(self, attributes: Any, party: str) -> str | None:
        """A device inside of what a node calls that is not its party's; None where there is none."""
        mine = {"", f"/job:{party}"} if party else {""}
        pinned = {device for name in called(attributes) for device in self._devices.get(name, set())}
        return min(pinned - mine, default=None)

    def problem(self, op: str, attributes: Any) -> str | None:
        """Why a node is not allowed; None where it is."""
        if not self.allowed(op):
            return f"the operation {op} is not on the list of those that only compute a value"
        strange = strange_attributes(attributes)
        if strange:
            return f"the attribute {strange[0]} can steer what is computed, or claim what is not so"
        names = list(called(attributes))
        if names and op not in CALLS:
            return f"the operation {op} has a function as attribute and is no call"
        missing = [name for name in names if name not in self._bodies]
        if missing:
            return f"it calls the function {missing[0]}, which the graph does not hold"
        return None

    def findings(self) -> Iterator[Finding]:
        """What is not allowed inside of the functions, called or not."""
        for name, function in self._bodies.items():
            odd = sorted(key for key in function.attr if key not in _HARMLESS)
            if odd:
                why = f"by the attribute {odd[0]} another function can run in its place"
                yield Finding("", f"function {name}", why)
            for node in function.node_def:
                where = f"function {name}: {node.name}"
                if node.op == "ShareflowUniform":
                    yield Finding("", where, "a stream is made inside of a function, which may run more than once")
                if (problem := self.problem(node.op, node.attr)) is not None:
                    yield Finding("", where, problem)


def _gathered(calls: dict[str, set[str]], own: dict[str, set[str]]) -> dict[str, set[str]]:
    """What each function holds of its own or of what it calls, directly or through one another."""
    found = {name: set(texts) for name, texts in own.items()}
    grown = True
    while grown:
        grown = False
        for name, callees in calls.items():
            more = {text for callee in callees for text in found.get(callee, set())} - found[name]
            if more:
                found[name] |= more
                grown = True
    return found
