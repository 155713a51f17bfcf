"""A Keras model trained in the clear by its owner, and private predictions for a client.

The model reads scikit-learn's 8 x 8 digits. Its owner never sees an image, the client never sees a weight, and the
three computing parties see neither.
"""

import keras
import numpy as np
from sklearn.datasets import load_digits

import shareflow as sf


def train() -> tuple[keras.Model, np.ndarray, np.ndarray]:
    """A small convolutional network, and the digits that it was not trained on."""
    digits = load_digits()
    images, labels = digits.images[..., np.newaxis].astype(np.float32) / 16, digits.target
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(16, 3, padding="same"),
            keras.layers.BatchNormalization(momentum=0.9),
            keras.layers.ReLU(),
            keras.layers.MaxPooling2D(2),
            keras.layers.Flatten(),
            keras.layers.Dense(32, activation="relu"),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(images[:1500], labels[:1500], epochs=8, batch_size=32, verbose=0)
    return model, images[1500:], labels[1500:]


def main() -> None:
    """Trains, predicts in private and in the clear, and compares."""
    model, images, labels = train()
    private = sf.private_model(model, owner="model-owner")
    probabilities = private.predict(images, receiver="client", batch_size=100)
    plain = model.predict(images, verbose=0)

    print(private.summary())
    print(f"right in private {np.mean(probabilities.argmax(1) == labels):.1%}", end=", ")
    print(f"in the clear {np.mean(plain.argmax(1) == labels):.1%}")
    print(f"same digit {np.mean(probabilities.argmax(1) == plain.argmax(1)):.1%}", end=", ")
    print(f"largest difference of a probability {np.abs(probabilities - plain).max():.5f}")
    cost = private.cost(batch_size=1)
    print(f"one image: {cost.rounds} rounds, {cost.online_bytes:,} bytes online, {cost.offline_bytes:,} dealt ahead")


if __name__ == "__main__":
    main()
