"""Models in files and folders, by what they are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import keras

from shareflow import keras_layers  # noqa: F401  (registers the layers that a model may hold)
from shareflow.compiler.front.keras_source import keras_source
from shareflow.compiler.front.onnx_source import onnx_source
from shareflow.compiler.front.saved_model_source import frozen_graph_source, saved_model_source
from shareflow.compiler.front.source import Argument, Source
from shareflow.errors import DataError, UnsupportedModelError


def saved_source(path: Path, inputs: Mapping[str, Argument] | None = None, signature: str | None = None) -> Source:
    """The model at a path: .keras or .h5 of Keras, .onnx, a SavedModel's folder, or a frozen graph (.pb).

    Args:
        path: where it is.
        inputs: shapes and types by name, where the model leaves them open.
        signature: which function of a SavedModel.

    Raises:
        DataError: there is none, or it cannot be read.
        UnsupportedModelError: it has no private form.
    """
    if not path.exists():
        raise DataError(f"There is no model at '{path}'. Save one with model.save('model.keras').")
    if path.is_dir():
        if not (path / "saved_model.pb").is_file():
            raise DataError(
                f"'{path}' is a folder without saved_model.pb, and so no model. Give a .keras or .onnx file, or the "
                "folder that model.export or tf.saved_model.save wrote."
            )
        return saved_model_source(path, signature, inputs)
    if signature is not None:
        raise UnsupportedModelError(f"A signature is a part of a SavedModel; '{path}' is a file. Leave it out.")
    suffix = path.suffix.lower()
    if suffix == ".onnx":
        return onnx_source(path, inputs)
    if suffix == ".pb":
        if path.name == "saved_model.pb":
            return saved_model_source(path.parent, None, inputs)
        return frozen_graph_source(path, inputs)
    return keras_source(load_keras(path), inputs)


def load_keras(path: Path) -> keras.Model:
    """A Keras model from a file.

    Raises:
        DataError: Keras cannot load it.
    """
    try:
        return keras.saving.load_model(path, compile=False)
    except (ValueError, TypeError, OSError, KeyError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"'{path}' is no model that Keras can load: {reason} Save one with model.save('model.keras')."
        ) from None
