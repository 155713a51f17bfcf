"""ONNX's ops in TensorFlow, in files by family."""

from shareflow.compiler.front.onnx_ops import classical as classical
from shareflow.compiler.front.onnx_ops import control as control
from shareflow.compiler.front.onnx_ops import convolution as convolution
from shareflow.compiler.front.onnx_ops import elementwise as elementwise
from shareflow.compiler.front.onnx_ops import linear as linear
from shareflow.compiler.front.onnx_ops import normalization as normalization
from shareflow.compiler.front.onnx_ops import pooling as pooling
from shareflow.compiler.front.onnx_ops import recurrent as recurrent
from shareflow.compiler.front.onnx_ops import reduction as reduction
from shareflow.compiler.front.onnx_ops import resize as resize
from shareflow.compiler.front.onnx_ops import structure as structure
from shareflow.compiler.front.onnx_ops.call import supported as supported
