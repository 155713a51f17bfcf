"""Operations that a party outside the computation can do without TensorFlow, by TensorFlow's names.

Each has TensorFlow's meaning: its dtypes, int64 that wraps, rounding half to even. Elementary functions (exp, tanh ...)
and sums of floats are NumPy's, which differ from TensorFlow's by units in the last place.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from shareflow_client.operations import arrays, elementwise, reductions
from shareflow_client.operations.operation import Operation

OPERATIONS: Mapping[str, Operation] = MappingProxyType(
    {**elementwise.OPERATIONS, **arrays.OPERATIONS, **reductions.OPERATIONS}
)
"""The table. `Const`, `Assert` and `ShareflowUniform` are steps that need more than arrays: see steps.py."""
