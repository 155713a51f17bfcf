"""How each TensorFlow op is computed on shares: one handler an op, in files by family."""

from shareflow.compiler.lower import activation as activation
from shareflow.compiler.lower import arithmetic as arithmetic
from shareflow.compiler.lower import array as array
from shareflow.compiler.lower import composite_ops as composite_ops
from shareflow.compiler.lower import division as division
from shareflow.compiler.lower import linear as linear
from shareflow.compiler.lower import pooling as pooling
from shareflow.compiler.lower import reduction as reduction
from shareflow.compiler.lower import structure as structure
from shareflow.compiler.lower.handler import lower as lower
from shareflow.compiler.lower.handler import supported as supported
