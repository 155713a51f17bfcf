"""Where models come from: Keras, SavedModel, tf.function."""
