"""Private machine learning in TensorFlow on secret shares."""

from shareflow import errors as errors
from shareflow import nn as nn
from shareflow.audit.cost import Cost as Cost
from shareflow.audit.view import Audit as Audit
from shareflow.compiler.private_model import PrivateModel as PrivateModel
from shareflow.compiler.private_model import private_model as private_model
from shareflow.function import function as function
from shareflow.nn import polynomial as polynomial
from shareflow.nn import relu as relu
from shareflow.nn import sigmoid as sigmoid
from shareflow.party.party import Party as Party
from shareflow.party.send import crossings as crossings
from shareflow.party.session import Session as Session
from shareflow.party.session import insecure_session as insecure_session
from shareflow.protocol.arithmetic import concat as concat
from shareflow.protocol.arithmetic import matmul as matmul
from shareflow.protocol.arithmetic import stack as stack
from shareflow.protocol.bound import insecure_checked_bounds as insecure_checked_bounds
from shareflow.protocol.compare import at_least as at_least
from shareflow.protocol.compare import non_negative as non_negative
from shareflow.protocol.functionality.comparison import MaskedCarry as MaskedCarry
from shareflow.protocol.functionality.truncation import ExactWrap as ExactWrap
from shareflow.protocol.functionality.truncation import Optimistic as Optimistic
from shareflow.protocol.placement import local_computation as local_computation
from shareflow.protocol.placement import private_input as private_input
from shareflow.protocol.placement import private_output as private_output
from shareflow.protocol.placement import private_tensor as private_tensor
from shareflow.protocol.plain import Plain as Plain
from shareflow.protocol.spdz import SPDZ as SPDZ
from shareflow.protocol.tensor import PrivateTensor as PrivateTensor
from shareflow.protocol.variable import PrivateVariable as PrivateVariable
from shareflow.ring.fixed_point import FixedPoint as FixedPoint

__version__ = "0.1.0"
