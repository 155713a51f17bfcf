"""A scale per channel after a linear layer goes into its kernel, and offsets one after the other become one.

So batch normalisation costs nothing: its owner multiplies the weights in plaintext before they are shared.
"""

from __future__ import annotations

from shareflow.compiler.graph import Builder, Graph, Node, Output, Replacement

_SUMS = ("AddV2", "Add", "BiasAdd", "Sub")
# The kernel's axes of output channels, from the last, for channels-last layers.
_LINEAR = {"Conv2D": 1, "Conv3D": 1, "MatMul": 1, "DepthwiseConv2dNative": 2}


def fold_affine(graph: Graph) -> Graph:
    """conv(x, W) * s as conv(x, W * s), and (y + b) + c as y + (b + c), where W, s, b, c are their owner's.

    A layer's product must have no other use: it would be computed twice.
    """
    return graph.rewrite(_Fold(graph))


class _Fold:
    def __init__(self, graph: Graph) -> None:
        self._knowledge = dict(graph.knowledge)
        self._shared = {n for value, users in graph.users.items() if len(users) > 1 for n in (value.node.name,)}
        self._shared |= {value.node.name for value in graph.results}
        self._alone: dict[Output, bool] = {}
        self._secret: dict[str, bool] = {
            node.name: any(graph.secret(o) for o in node.outputs) for node in graph.nodes
        }
        self._old = {node.name: node for node in graph.nodes}

    def __call__(self, node: Node, build: Builder) -> Replacement:
        replaced = self._replace(node, build)
        values = (replaced,) if isinstance(replaced, Output) else ()
        for value in values:
            # What stands for a node has that node's uses.
            self._alone[value] = node.name not in self._shared
        return replaced

    def _replace(self, node: Node, build: Builder) -> Replacement:
        if not self._secret[node.name]:
            return None
        if node.op == "Mul":
            for k in (0, 1):
                scaled = self._scale(node.inputs[k], node.inputs[1 - k], build)
                if scaled is not None:
                    return scaled
        if node.op in _SUMS and _channels_last(node):
            for k in (0, 1) if node.op != "Sub" else (0,):
                merged = self._merge(node.op, node.inputs[k], node.inputs[1 - k], build)
                if merged is not None:
                    return merged
        return None

    def _scale(self, y: Output, scale: Output, build: Builder) -> Output | None:
        if not self._owned(scale) or not _per_channel(scale, y) or not self._single(y):
            return None
        node = y.node
        if node.op in _LINEAR and self._owned(node.inputs[1]) and _channels_last(node):
            kernel = node.inputs[1]
            if node.attributes.get("transpose_b"):
                return None
            by = _as_kernel_scale(build, scale, kernel, _LINEAR[node.op])
            wider = build("Mul", kernel, by)
            return Output(build.node(node.op, (node.inputs[0], wider, *node.inputs[2:]), node.attributes, node.name))
        if node.op in _SUMS and _channels_last(node):
            for k in (0, 1):
                inner, offset = node.inputs[k], node.inputs[1 - k]
                if not self._owned(offset) or not _per_channel(offset, y):
                    continue
                scaled = self._scale(inner, scale, build)
                if scaled is None:
                    continue
                moved = build("Mul", offset, _flat(build, scale))
                if node.op == "Sub":
                    return build("Sub", *((scaled, moved) if k == 0 else (moved, scaled)))
                return build("AddV2", scaled, moved)
        return None

    def _merge(self, op: str, y: Output, offset: Output, build: Builder) -> Output | None:
        node = y.node
        if node.op not in ("AddV2", "Add", "BiasAdd") or not _channels_last(node) or not self._single(y):
            return None
        if not self._owned(offset) or not _per_channel(offset, y):
            return None
        for k in (0, 1):
            inner, first = node.inputs[k], node.inputs[1 - k]
            if self._owned(first) and _per_channel(first, y) and not self._owned(inner):
                both = build("Sub" if op == "Sub" else "AddV2", _flat(build, first), _flat(build, offset))
                return build("AddV2", inner, both)
        return None

    def _owned(self, value: Output) -> bool:
        """Known to one party at most, and no input of it."""
        name = value.node.name
        if name in self._secret:
            return not self._secret[name] and not self._from_input(value)
        return all(self._owned(v) for v in value.node.inputs)

    def _from_input(self, value: Output) -> bool:
        old = self._old[value.node.name]
        return any(n.op == "Input" for n in _sources(old))

    def _single(self, value: Output) -> bool:
        """Whether nothing but the node at hand uses a value."""
        return self._alone.get(value, value.node.name in self._old and value.node.name not in self._shared)


def _sources(node: Node) -> set[Node]:
    seen, waiting = set(), [node]
    while waiting:
        here = waiting.pop()
        if here not in seen:
            seen.add(here)
            waiting += [value.node for value in here.inputs]
    return seen


def _channels_last(node: Node) -> bool:
    return node.attributes.get("data_format", "NHWC") in ("NHWC", "NDHWC")


def _per_channel(value: Output, y: Output) -> bool:
    """One number for each channel of y (its last axis), or one for all."""
    shape = value.shape
    if len(shape) > len(y.shape) or any(n != 1 for n in shape[:-1]):
        return False
    return not shape or shape[-1] in (1, y.shape[-1])


def _flat(build: Builder, value: Output) -> Output:
    """[c] of [1, 1, 1, c]."""
    if len(value.shape) <= 1:
        return value
    return build("Reshape", value, build.constant([-1], "int32"))


def _as_kernel_scale(build: Builder, scale: Output, kernel: Output, axes: int) -> Output:
    """The scale in a shape that multiplies the kernel's output channels."""
    flat = _flat(build, scale)
    if axes == 1 or not flat.shape or flat.shape[0] == 1:
        return flat
    # A depthwise kernel's channels are its last two axes together.
    return build("Reshape", flat, build.constant(kernel.shape[-axes:], "int32"))
