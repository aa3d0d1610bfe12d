"""Functions of Keras models as TensorFlow SavedModels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras


def write_tensorflow_function(
    folder: Path,
    function: Callable[[Any], dict[str, Any]],
    model: keras.Model,
    images: keras.InputSpec,
) -> None:
    """Write a function as a SavedModel with the signature ``serving_default``.

    `keras.export.ExportArchive` does that, too, but in Keras 3.15 it stores all weights twice.

    Arguments:
        folder: the folder to write to.
        function: from a batch of images to the named outputs.
        model: what the function takes its weights from.
        images: shape, dtype and name of the input.
    """
    import tensorflow as tf

    module = tf.Module()
    module.weights = [variable.value for variable in model.variables]
    signature = tf.TensorSpec(images.shape, images.dtype, name=images.name)
    module.serve = tf.function(function, input_signature=[signature], autograph=False)
    tf.saved_model.save(module, str(folder), signatures=module.serve)
