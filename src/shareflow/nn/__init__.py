"""Functions and layers of neural networks, made only of operations."""

from shareflow.nn.activation import clip as clip
from shareflow.nn.activation import polynomial as polynomial
from shareflow.nn.activation import polynomial_relu as polynomial_relu
from shareflow.nn.activation import relu as relu
from shareflow.nn.activation import relu6 as relu6
from shareflow.nn.activation import sigmoid as sigmoid
from shareflow.nn.linear import batch_norm as batch_norm
from shareflow.nn.linear import conv2d as conv2d
from shareflow.nn.linear import dense as dense
from shareflow.nn.linear import depthwise_conv2d as depthwise_conv2d
from shareflow.nn.linear import flatten as flatten
from shareflow.nn.pooling import avg_pool2d as avg_pool2d
from shareflow.nn.pooling import global_avg_pool2d as global_avg_pool2d
from shareflow.nn.pooling import max_pool2d as max_pool2d
