"""The tasks: inputs, the result in float64, the shareflow program, and what the peer's program is called.

A task is the same for both sides: the same float32 inputs, all of them secret, from one seed. Every result stays
shared, at a scale with which a program could go on computing.
"""

from __future__ import annotations

import fnmatch
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SEED = 1

Array = NDArray[Any]


@dataclass(frozen=True)
class Problem:
    """What one task computes, with data.

    ``inputs`` are float32: those of the parties first, then the weights, in the order of the peer's program.
    ``expected`` is the result in float64. ``program`` and ``layers`` name the peer's program (spu_parties.py).
    """

    inputs: tuple[Array, ...]
    expected: Array
    program: str
    layers: tuple[str, ...] = ()
    model: Any = None


@dataclass(frozen=True)
class Task:
    """One row of the comparison.

    ``needs`` are the names in shareflow.nn without which it is skipped. ``decides`` says that the result is made of
    decisions, whose error is counted and not measured. ``stored`` operands are masked beforehand, as private variables.
    """

    name: str
    title: str
    problem: Callable[[np.random.Generator], Problem]
    ours: Callable[..., Any] | None = None
    needs: tuple[str, ...] = ()
    decides: bool = False
    stored: bool = False

    def make(self) -> Problem:
        """Its problem; the same data whatever other tasks are run."""
        return self.problem(np.random.default_rng([SEED, zlib.crc32(self.name.encode())]))

    def missing(self) -> list[str]:
        """The functions that shareflow lacks for it."""
        import shareflow as sf

        return [name for name in self.needs if not hasattr(sf.nn, name)]


def choose(patterns: Sequence[str]) -> list[Task]:
    """The tasks whose names match one of the patterns, in the order of the registry.

    Raises:
        ValueError: a pattern matches no task.
    """
    unknown = [pattern for pattern in patterns if not fnmatch.filter(TASKS, pattern)]
    if unknown:
        raise ValueError(f"no task is called {', '.join(unknown)}; there are {', '.join(TASKS)}")
    return [task for name, task in TASKS.items() if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]


# --- networks


def _network(letter: str, pooling: str, batch: int) -> Callable[[np.random.Generator], Problem]:
    def problem(rng: np.random.Generator) -> Problem:
        from shareflow import networks

        model = networks.NETWORKS[letter]("relu", pooling=pooling)
        _randomise(model, rng)
        images = rng.uniform(0, 1, (batch, *networks.IMAGE_SHAPE)).astype(np.float32)
        layers, weights = folded(model, pooling)
        expected = run_layers(layers, images.astype(np.float64), weights)
        inputs = (images, *(weight.astype(np.float32) for weight in weights))
        return Problem(inputs, expected, "network", tuple(layers), model)

    return problem


def _randomise(model: Any, rng: np.random.Generator) -> None:
    """Weights of the size that training starts from, and a normalisation that is not the identity."""
    import keras

    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            channels = layer.gamma.shape[0]
            low_high = {"gamma": (0.8, 1.2), "beta": (-0.1, 0.1), "mean": (-0.1, 0.1), "variance": (0.5, 1.5)}
            layer.set_weights([rng.uniform(*bounds, channels).astype(np.float32) for bounds in low_high.values()])
        elif layer.weights:
            shape = tuple(layer.kernel.shape)
            kernel = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[:-1]))
            layer.set_weights([kernel.astype(np.float32), np.zeros(shape[-1], np.float32)])


def folded(model: Any, pooling: str) -> tuple[list[str], list[Array]]:
    """The model's layers by name, and kernel and bias of each linear one with its normalisation folded in, float64.

    The owner of the weights folds in plaintext before sharing: shareflow's compiler does so by itself, and the peer
    is given the folded weights.
    """
    import keras

    layers: list[str] = []
    weights: list[Array] = []
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            gamma, beta, mean, variance = (weight.astype(np.float64) for weight in layer.get_weights())
            scale = gamma / np.sqrt(variance + layer.epsilon)
            weights[-2:] = weights[-2] * scale, weights[-1] * scale + beta - mean * scale
        elif layer.weights:
            layers.append("conv" if isinstance(layer, keras.layers.Conv2D) else "dense")
            weights += [weight.astype(np.float64) for weight in layer.get_weights()]
        elif isinstance(layer, keras.layers.ReLU):
            layers.append("relu")
        elif isinstance(layer, keras.layers.Flatten):
            layers.append("flatten")
        else:
            layers.append(f"{pooling}-pool")
    return layers, weights


def run_layers(layers: Sequence[str], x: Array, weights: Sequence[Array]) -> Array:
    """The folded network in plaintext: the reference of both sides."""
    left = iter(weights)
    for layer in layers:
        if layer == "conv":
            kernel = next(left)
            windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], (1, 2))
            x = np.tensordot(windows, kernel, ((4, 5, 3), (0, 1, 2))) + next(left)
        elif layer == "dense":
            x = x @ next(left) + next(left)
        elif layer == "relu":
            x = np.maximum(x, 0)
        elif layer == "flatten":
            x = x.reshape(len(x), -1)
        else:
            windows = _windows(x)
            x = windows.max((2, 4)) if layer == "max-pool" else windows.mean((2, 4))
    return x


def _windows(x: Array) -> Array:
    """2 x 2 windows of images [n, h, w, c], as [n, h / 2, 2, w / 2, 2, c]."""
    n, h, w, c = x.shape
    return x.reshape(n, h // 2, 2, w // 2, 2, c)


# --- single operations


def _operation(
    program: str, plain: Callable[..., Array], *shapes: tuple[int, ...], scale: float = 1.0
) -> Callable[[np.random.Generator], Problem]:
    def problem(rng: np.random.Generator) -> Problem:
        inputs = tuple((scale * rng.standard_normal(shape)).astype(np.float32) for shape in shapes)
        expected = plain(*(value.astype(np.float64) for value in inputs))
        return Problem(inputs, np.asarray(expected, np.float64), program)

    return problem


def _matmul(m: int, k: int, n: int) -> Callable[[np.random.Generator], Problem]:
    # Entries of size k^-1/4, so that those of the product are about 1.
    return _operation("matmul", np.matmul, (m, k), (k, n), scale=k**-0.25)


def _plain_softmax(x: Array) -> Array:
    powers = np.exp(x - x.max(-1, keepdims=True))
    result: Array = powers / powers.sum(-1, keepdims=True)
    return result


def _nn(name: str, *arguments: Any, **options: Any) -> Callable[[Any], Any]:
    """The function of shareflow.nn, looked up when it is called: it may not be there yet."""

    def call(x: Any) -> Any:
        import shareflow as sf

        return getattr(sf.nn, name)(x, *arguments, **options)

    return call


def _registry() -> dict[str, Task]:
    million, images, scores = (10**6,), (1, 64, 64, 64), (100, 10)
    tasks = []
    for letter, poolings in {"A": ("",), "B": ("average", "max"), "C": ("average", "max")}.items():
        for pooling in poolings:
            for batch in (1, 10, 100):
                name = "-".join(filter(None, ("network", letter, pooling, str(batch))))
                title = f"network {letter}{pooling and f', {pooling} pooling'}, batch {batch}"
                tasks.append(Task(name, title, _network(letter, pooling or "average", batch)))
    tasks += [
        Task("matmul-128x784x128", "matmul 128 x 784 x 128", _matmul(128, 784, 128), lambda a, b: a @ b),
        Task("matmul-1024", "matmul 1024 x 1024 x 1024", _matmul(1024, 1024, 1024), lambda a, b: a @ b),
        Task("multiply", "multiply, 10^6", _operation("multiply", np.multiply, million, million), lambda a, b: a * b),
        Task(
            "matmul-128x784x128-stored",
            "matmul 128 x 784 x 128, stored",
            _matmul(128, 784, 128),
            lambda a, b: a @ b,
            stored=True,
        ),
        Task(
            "matmul-1024-stored",
            "matmul 1024 x 1024 x 1024, stored",
            _matmul(1024, 1024, 1024),
            lambda a, b: a @ b,
            stored=True,
        ),
        Task(
            "multiply-stored",
            "multiply, 10^6, stored",
            _operation("multiply", np.multiply, million, million),
            lambda a, b: a * b,
            stored=True,
        ),
        Task("relu", "ReLU, 10^6", _operation("relu", lambda x: np.maximum(x, 0), million), _nn("relu")),
        Task(
            "greater",
            "greater-than, 10^6",
            _operation("greater", np.greater, million, million),
            lambda a, b: a > b,
            decides=True,
        ),
        Task(
            "max-pool",
            "max-pool 2 x 2, (1, 64, 64, 64)",
            _operation("max-pool", lambda x: _windows(x).max((2, 4)), images),
            _nn("max_pool2d", 2),
        ),
        Task(
            "sigmoid",
            "sigmoid, 10^5",
            _operation("sigmoid", lambda x: 1 / (1 + np.exp(-x)), (10**5,), scale=3.0),
            _nn("sigmoid"),
            needs=("sigmoid",),
        ),
        Task(
            "softmax",
            "softmax, (100, 10)",
            _operation("softmax", _plain_softmax, scores, scale=2.0),
            _nn("softmax", axis=-1),
            needs=("softmax",),
        ),
        Task(
            "argmax",
            "argmax, (100, 10)",
            _operation("argmax", lambda x: x.argmax(-1), scores, scale=2.0),
            _nn("argmax", axis=-1),
            needs=("argmax",),
            decides=True,
        ),
    ]
    return {task.name: task for task in tasks}


TASKS: dict[str, Task] = _registry()
"""All tasks by name, in the order of the table. A new one is one more entry here and a program in spu_parties.py."""
