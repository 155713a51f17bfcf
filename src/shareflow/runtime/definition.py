"""Graph definitions: what TensorFlow writes of a graph, cut and renamed without changing what it computes."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator
from typing import Any


def rename_functions(definition: Any, new_name: Callable[[str], str]) -> None:
    """Gives the functions of a GraphDef's library other names, in place, wherever they are called."""
    renamed = {f.signature.name: new_name(f.signature.name) for f in definition.library.function}
    for function in definition.library.function:
        function.signature.name = renamed[function.signature.name]
    for gradient in definition.library.gradient:
        gradient.function_name = renamed.get(gradient.function_name, gradient.function_name)
        gradient.gradient_func = renamed.get(gradient.gradient_func, gradient.gradient_func)
    for node in nodes(definition):
        node.op = renamed.get(node.op, node.op)
        for called in _called(node):
            called.name = renamed.get(called.name, called.name)


def without_devices(definition: Any) -> Any:
    """The GraphDef with no node pinned. Functions that it calls get new names, as their bodies change."""
    rename_functions(definition, lambda name: f"{name}_unpinned")
    for node in nodes(definition):
        node.device = ""
    return definition


def nodes(definition: Any) -> Iterator[Any]:
    """All nodes of a GraphDef, those in the bodies of its functions too."""
    for body in (definition.node, *(function.node_def for function in definition.library.function)):
        yield from body


def node_name(reference: str) -> str:
    """The node of an input: ``a`` of "a", "a:1" and "^a"."""
    return reference.removeprefix("^").partition(":")[0]


def needed(definition: Any, fetches: Iterable[str], given: Container[str] = ()) -> set[str]:
    """Names of the nodes that the fetched nodes depend on, themselves included.

    Args:
        given: nodes whose values are there: neither they nor what they alone depend on are needed.
    """
    inputs = {node.name: node.input for node in definition.node}
    waiting, seen = list(fetches), set()
    while waiting:
        name = waiting.pop()
        if name not in seen and name not in given:
            seen.add(name)
            waiting += [node_name(reference) for reference in inputs[name]]
    return seen


def subgraph(definition: Any, fetches: Iterable[str], given: Container[str] = ()) -> Any:
    """The part of a GraphDef that `needed` names, with the whole library; its nodes keep their order.

    The nodes left still take from the given ones, but wait for none of them: a value that is there is not waited for.
    """
    kept = needed(definition, fetches, given)
    part = type(definition)(versions=definition.versions, library=definition.library)
    for node in definition.node:
        if node.name in kept:
            copy = part.node.add()
            copy.CopyFrom(node)
            if any(reference.startswith("^") for reference in node.input):
                still = [r for r in node.input if not (r.startswith("^") and node_name(r) in given)]
                copy.input[:] = still
    return part


def called_functions(definition: Any) -> set[str]:
    """Names of the library's functions that the graph's nodes call, directly or through one another."""
    bodies = {function.signature.name: function.node_def for function in definition.library.function}
    waiting, seen = list(definition.node), set()
    while waiting:
        node = waiting.pop()
        for name in (node.op, *(called.name for called in _called(node))):
            if name in bodies and name not in seen:
                seen.add(name)
                waiting += bodies[name]
    return seen


def _called(node: Any) -> Iterator[Any]:
    for attribute in node.attr.values():
        if attribute.HasField("func"):
            yield attribute.func
        elif attribute.HasField("list"):
            yield from attribute.list.func
