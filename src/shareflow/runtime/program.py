"""A program: one traced graph whose operations are pinned to parties.

It is only built here. How it runs is a runtime's business: in this process (:mod:`shareflow.runtime.local`), or
where the surrounding ``with`` block says (:mod:`shareflow.runtime.current`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from shareflow.party.party import Party
from shareflow.party.session import GraphExecution, current_session, trace

# Among a graph's effects, what it does in order but without a consequence for other runs.
_TRACELESS = ("Assert", "NoOp", "ReadVariableOp")


@dataclass(frozen=True)
class Program:
    """One entry of a private computation.

    ``arguments`` are placeholders in the order of the call; ``execution`` holds those of keys and indices;
    ``captures`` pairs tensors from outside (variables of the parties, arrays) with their placeholders.
    """

    graph: tf.Graph
    arguments: tuple[tf.Tensor, ...]
    captures: tuple[tuple[tf.Tensor, tf.Tensor], ...]
    execution: GraphExecution
    outputs: tuple[tf.Tensor, ...]
    effects: tuple[tf.Operation, ...]

    @property
    def leaves_traces(self) -> bool:
        """Whether a run leaves something behind that another may see, as a variable's new value."""
        return any(effect.type not in _TRACELESS for effect in self.effects)

    @property
    def returned(self) -> tuple[tf.Tensor, ...]:
        """What the function returned, each at its party: TensorFlow puts an identity, which is no party's and waits for
        the checks of all of them, behind each output."""
        marked = [output.op.type == "Identity" and not output.op.device for output in self.outputs]
        return tuple(o.op.inputs[0] if m else o for o, m in zip(self.outputs, marked, strict=True))

    @property
    def feeds(self) -> tuple[tf.Tensor, ...]:
        """All placeholders, in the order in which a run gives them."""
        return (
            *self.arguments,
            *(inside for _, inside in self.captures),
            *self.execution.keys.values(),
            *self.execution.indices.values(),
        )

    def values(self, arguments: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """A value for each of ``feeds``: one execution, under an index that the current session never gave before."""
        session = current_session()
        # As an array: TensorFlow keeps every tensor that it ever made of a Python number.
        index = tf.constant(np.array(session.next_index(), np.int64))
        return [
            *arguments,
            *(outside for outside, _ in self.captures),
            *(session.key(holder, peer) for holder, peer in self.execution.keys),
            *([index] * len(self.execution.indices)),
        ]


def build(
    function: Callable[..., Sequence[tf.Tensor]], arguments: Sequence[tuple[Party | None, tf.TensorSpec]]
) -> Program:
    """Traces a function of tensors, each of which belongs to a party (or to all, with None)."""

    def pinned(*values: tf.Tensor) -> list[tf.Tensor]:
        at_owner = []
        for value, (owner, _) in zip(values, arguments, strict=True):
            if owner is None:
                at_owner.append(value)
            else:
                with owner:
                    at_owner.append(tf.identity(value))
        return list(function(*at_owner))

    traced, execution = trace(pinned)
    specs = [spec for _, spec in arguments]
    concrete = tf.function(traced, autograph=False).get_concrete_function(*specs)
    graph: Any = concrete.graph
    given = len(concrete.inputs) - len(concrete.captured_inputs)
    return Program(
        graph=graph,
        arguments=tuple(concrete.inputs[:given]),
        captures=tuple(zip(concrete.captured_inputs, concrete.inputs[given:], strict=True)),
        execution=execution,
        outputs=tuple(concrete.outputs),
        effects=tuple(dict.fromkeys((*graph.control_outputs, *execution.effects))),
    )
