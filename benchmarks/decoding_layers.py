"""Time the decoding layers on any backend, beside the decoders outside of a model.

    python -m benchmarks.decoding_layers
    KERAS_BACKEND=jax .venv-jax/bin/python -m benchmarks.decoding_layers
    KERAS_BACKEND=torch .venv-torch/bin/python -m benchmarks.decoding_layers

The predictions are those of `benchmarks.decoding`: 8,732 boxes and 20 classes, thousands of boxes
above a confidence of 0.01 and about 80 above 0.5. TensorFlow and JAX run compiled functions, as
`predict` does. The lower bound compares every confidence with the threshold, and nothing else.
TensorFlow's own combined NMS, which is not exact among equal scores, runs on that backend only.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import ops

from benchmarks.decoding import CONFIDENCE, IOU_THRESHOLD, SIZE, TOP_K, opencv, report
from keras_layers.keras_layer_DecodeDetections import DecodeDetections
from keras_layers.keras_layer_DecodeDetectionsFast import DecodeDetectionsFast
from ssd_encoder_decoder.box_coder import decode_boxes, to_corners
from ssd_encoder_decoder.ssd_output_decoder import decode_detections, decode_detections_fast
from tests.raw_predictions import golden_predictions


def compiled(function: Callable, shape: tuple[int, int]) -> Callable:
    """Return a function of a batch that runs as the backend runs models, and waits for the end."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        signature = [tf.TensorSpec((None, *shape), tf.float32)]
        function = tf.function(function, input_signature=signature)
    elif backend == "jax":
        import jax

        function = jax.jit(function)
    else:
        import torch

        function = torch.no_grad()(function)
    return lambda y_pred: ops.convert_to_numpy(function(y_pred))


def combined_nms(y_pred: object, confidence: float) -> object:
    """Decode all boxes and leave the rest to TensorFlow's NMS of all classes."""
    import tensorflow as tf

    columns = y_pred[..., -12:-8], y_pred[..., -8:-4], y_pred[..., -4:]
    boxes = to_corners(decode_boxes(*columns, "centroids", tf.exp, tf.stack), "centroids", tf.stack)
    return tf.image.combined_non_max_suppression(
        boxes[:, :, None] * SIZE["img_width"],
        y_pred[..., 1:-12],
        max_output_size_per_class=400,
        max_total_size=TOP_K,
        iou_threshold=IOU_THRESHOLD,
        score_threshold=confidence,
        clip_boxes=False,
    ).nmsed_boxes


def lower_bound(y_pred: object, confidence: float) -> object:
    """Count the confidences above the threshold."""
    return ops.sum(ops.cast(y_pred[..., 1:-12] > confidence, "int32"), axis=(1, 2))


def main() -> None:
    """Check that layers and decoders agree, then time them."""
    inputs = golden_predictions()
    images = np.concatenate([inputs["FULL"], inputs["FULL2"]])
    batches = [images[:1], np.concatenate([images[1:]] * 4)]
    print(f"{keras.backend.backend() + ', ms an image':58s}{'median':>8s}{'least':>8s}")
    for confidence in (CONFIDENCE, 0.5):
        layers = [
            cls(confidence, IOU_THRESHOLD, TOP_K, **SIZE)
            for cls in (DecodeDetections, DecodeDetectionsFast)
        ]
        decoders = (partial(decode_detections, iou_threshold=IOU_THRESHOLD), decode_detections_fast)
        rows = ops.convert_to_numpy(layers[0](images))
        for ours, expected in zip(rows, decoders[0](images, confidence, **SIZE), strict=True):
            expected = np.array(expected)
            expected = expected[np.argsort(-expected[:, 1], kind="stable")]
            np.testing.assert_allclose(ours[: len(expected)], expected, atol=2e-3)

        for batch in batches:
            title = f"confidence {confidence}, batch of {len(batch)}"
            y_pred = ops.convert_to_tensor(batch)
            functions = {type(layer).__name__: layer.__call__ for layer in layers}
            functions["lower bound"] = partial(lower_bound, confidence=confidence)
            if keras.backend.backend() == "tensorflow":
                functions["combined NMS"] = partial(combined_nms, confidence=confidence)
            for name, function in functions.items():
                work = partial(compiled(function, batch.shape[1:]), y_pred)
                report(f"{name}, {title}", work, len(batch))
            for name, decoder in zip(("full", "fast"), decoders, strict=True):
                work = partial(decoder, batch, confidence, **SIZE)
                report(f"NumPy decoder ({name}), {title}", work, len(batch))
    report("cv2.dnn.NMSBoxesBatched", lambda: [opencv(image) for image in images], len(images))


if __name__ == "__main__":
    main()
