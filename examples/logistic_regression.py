"""Figure 1 of the tf-encrypted paper: a client's input meets an owner's weights; the client alone sees the score.

The program is the paper's but for two lines: the import, and `tf.print` where TensorFlow 1 had `tf.Print`. The bodies
that the paper leaves open are filled with a small model.
"""

import tensorflow as tf

import shareflow as tfe


@tfe.private_input("model-owner")
def send_model_weights() -> tf.Tensor:
    return tf.constant([[0.5], [-1.25], [2.0]])


@tfe.private_input("prediction-client")
def send_input() -> tf.Tensor:
    return tf.constant([[1.0, 0.2, -0.4], [0.3, -0.6, 0.9]])


@tfe.private_output("prediction-client")
def receive_output(y: tf.Tensor):
    return tf.print(y)


w = send_model_weights()
x = send_input()
y = tfe.sigmoid(tfe.matmul(x, w))
op = receive_output(y)

with tfe.Session() as sess:
    sess.run(op)
