"""Products of matrices."""

from __future__ import annotations

import re
import string

import numpy as np
import tensorflow as tf

from shareflow.compiler.front.onnx_ops.call import Call, computes, positive


@computes("MatMul")
def _matmul(call: Call) -> tf.Tensor:
    return product(call.tensor(0), call.tensor(1))


def product(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """x y as NumPy multiplies: vectors are rows on the left, columns on the right."""
    if len(x.shape) == 1:
        return tf.squeeze(product(x[tf.newaxis, :], y), -1 if len(y.shape) == 1 else -2)
    if len(y.shape) == 1:
        return tf.squeeze(product(x, y[:, tf.newaxis]), -1)
    if len(y.shape) == 2 and len(x.shape) > 2:
        # One product of matrices in place of many.
        *batch, inner = x.shape
        return tf.reshape(tf.matmul(tf.reshape(x, [-1, inner]), y), [*batch, y.shape[-1]])
    return tf.matmul(x, y)


@computes("Gemm")
def _gemm(call: Call) -> tf.Tensor:
    x, y = call.tensor(0), call.tensor(1)
    alpha, beta = call.get("alpha", 1.0), call.get("beta", 1.0)
    result = tf.matmul(x, y, transpose_a=bool(call.get("transA", 0)), transpose_b=bool(call.get("transB", 0)))
    if alpha != 1:
        result = result * tf.cast(alpha, result.dtype)
    if call.has(2) and beta:
        bias = call.tensor(2)
        result = result + (bias if beta == 1 else bias * tf.cast(beta, bias.dtype))
    return result


@computes("Einsum")
def _einsum(call: Call) -> tf.Tensor:
    values = [call.tensor(i) for i in range(len(call.inputs))]
    equation = str(call.get("equation")).replace(" ", "")
    if not re.fullmatch(r"[A-Za-z.,]+(->[A-Za-z.]*)?", equation):
        raise call.refuse(f"has the equation {equation!r}.", "Use letters, commas and one arrow.")
    if "->" not in equation:
        terms = equation.replace(",", "").replace("...", "")
        kept = "".join(sorted(c for c in set(terms) if terms.count(c) == 1))
        equation += "->" + ("..." if "..." in equation else "") + kept
    if len(values) == 1:
        return tf.einsum(equation, values[0])
    # Two at a time, from the left.
    *parts, result = re.split(",|->", equation)
    if any("." in part for part in (*parts, result)) or len(values) == 2:
        return tf.einsum(equation, *values)
    left, value = parts[0], values[0]
    for k, part in enumerate(parts[1:], 1):
        later = set("".join(parts[k + 1 :]) + result)
        kept = "".join(c for c in string.ascii_letters if c in {*left, *part} & later)
        kept = result if k == len(parts) - 1 else kept
        value = tf.einsum(f"{left},{part}->{kept}", value, values[k])
        left = kept
    return value


@computes("FusedMatMul", domain="com.microsoft")
def _fused(call: Call) -> tf.Tensor:
    result = tf.matmul(
        call.tensor(0), call.tensor(1), transpose_a=bool(call.get("transA", 0)), transpose_b=bool(call.get("transB", 0))
    )
    return result if call.get("alpha", 1.0) == 1 else result * call.get("alpha")


@computes("Trilu")
def _trilu(call: Call) -> tf.Tensor:
    shift = int(call.public(1, "a diagonal").reshape(-1)[0]) if call.has(1) else 0
    rows, columns = call.shape(0)[-2:]
    upper = bool(call.get("upper", 1))
    kept = np.triu(np.ones((rows, columns)), shift) if upper else np.tril(np.ones((rows, columns)), shift)
    x = call.tensor(0)
    return tf.where(tf.constant(kept.astype(bool)), x, tf.zeros_like(x))


@computes("CumSum")
def _cumsum(call: Call) -> tf.Tensor:
    axis = positive(call.numbers(1, "an axis")[0], call.rank(0), call)
    return tf.cumsum(call.tensor(0), axis, bool(call.get("exclusive", 0)), bool(call.get("reverse", 0)))


@computes("Attention")
def _attention(call: Call) -> tf.Tensor:
    """Scaled dot-product attention of opset 23, heads as an axis of their own or packed in the last."""
    if call.outputs > 1 or call.has(4) or call.has(5):
        raise call.refuse("keeps keys and values of earlier calls.", "Export the model without a cache.")
    if call.get("softcap", 0.0) or call.get("qk_matmul_output_mode", 0):
        raise call.refuse("caps its scores, or returns them.", "Export it without.")
    q, k, v = (call.tensor(i) for i in range(3))
    packed = len(q.shape) == 3
    if packed:
        heads, shared = int(call.get("q_num_heads")), int(call.get("kv_num_heads"))
        q, k, v = _heads(q, heads), _heads(k, shared), _heads(v, shared)
    groups = q.shape[1] // k.shape[1]
    if groups > 1:
        k, v = tf.repeat(k, groups, 1), tf.repeat(v, groups, 1)
    scale = call.get("scale") or float(q.shape[-1]) ** -0.5
    scores = tf.matmul(q, k, transpose_b=True) * tf.cast(scale, q.dtype)
    low = tf.cast(-1e4, q.dtype)
    if call.get("is_causal", 0):
        before = np.tril(np.ones((q.shape[2], k.shape[2]), bool))
        scores = tf.where(tf.constant(before), scores, low)
    if call.has(3):
        mask = call.tensor(3)
        scores = tf.where(mask, scores, low) if mask.dtype == tf.bool else scores + mask
    result = tf.matmul(tf.nn.softmax(scores), v)
    if not packed:
        return result
    batch, heads, length, depth = result.shape
    return tf.reshape(tf.transpose(result, [0, 2, 1, 3]), [batch, length, heads * depth])


def _heads(x: tf.Tensor, heads: int) -> tf.Tensor:
    batch, length, depth = x.shape
    return tf.transpose(tf.reshape(x, [batch, length, heads, depth // heads]), [0, 2, 1, 3])
