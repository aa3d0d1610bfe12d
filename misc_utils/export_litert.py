"""Models as files for LiteRT (TensorFlow Lite), in its built-in operations alone.

LiteRT has a kernel for non-maximum suppression, but its rule is not quite ours: it also drops a box
whose IoU *equals* the threshold, takes boxes of equal scores in the arbitrary order of a heap, and
reports a box of no area again and again. Confident networks do output equal scores, and on a
telephone the same boxes should come out as on the computer that evaluated the model. `litert_nms`
asks that kernel in a way that makes the two rules one.
"""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_layers.nms import Selection
from misc_utils.files import atomic_path
from misc_utils.tensorflow_function import write_tensorflow_function


def write_litert(
    path: Path,
    function: Callable[[Any], dict[str, Any]],
    model: keras.Model,
    images: keras.InputSpec,
    metadata: dict[str, str],
) -> None:
    """Write a LiteRT file.

    Arguments:
        path: the file to make or to replace.
        function: from a batch of images to the named outputs.
        model: what the function takes its weights from.
        images: shape, dtype and name of the input.
        metadata: {file name: content}. Like all associated files of a LiteRT model they are put in
            a ZIP archive at the end of the file, which the runtime ignores and every unzip reads.

    Raises:
        ValueError: if the model needs operations that are not built into LiteRT.
    """
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as folder:
        write_tensorflow_function(Path(folder), function, model, images)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        # Without this restriction the file may call TensorFlow's kernels ("Flex"), which the
        # runtimes for telephones do not have.
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        try:
            content = converter.convert()
        except Exception as error:  # the converter's class of errors is not public
            raise ValueError(
                f"Model {model.name!r} needs operations that are not built into LiteRT: replace "
                "the layers that the converter names above, or export to 'onnx'. A base network "
                "of one's own is the likely place."
            ) from error
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
        with zipfile.ZipFile(temporary, "a") as associated_files:
            for name, text in metadata.items():
                associated_files.writestr(name, text)


def litert_nms(
    boxes: Any,
    scores: Any,
    iou_threshold: float,
    score_threshold: float,
    max_per_class: int,
    max_total: int,
    max_candidates_per_class: int | None = None,
) -> Selection:
    """Implement `keras_layers.nms.greedy_nms` so that LiteRT's kernel decides as it does.

    Among equals: LiteRT's `top_k` does put the earlier of equal scores first. So the boxes are
    sorted by it, and the kernel gets their ranks, which are all different, instead of the scores.

    At the threshold: an IoU is greater than a float if and only if it is at least the next float.

    Without area: such a box suppresses none and is suppressed by none. The same is true of a unit
    square far away from everything, which the kernel gets in its place.

    Arguments and result are those of `greedy_nms`; shapes must be static but for the batch.
    """
    import tensorflow as tf

    n_boxes, n_classes = scores.shape[1:]
    n_entering = min(n_boxes, max_candidates_per_class or n_boxes)
    max_per_class = min(max_per_class, max_total, n_entering)
    n_selectable = min(max_total, n_classes * max_per_class)
    ranks = np.arange(n_entering, 0, -1, dtype=np.float32)  # exact up to 2^24 boxes

    scores = tf.transpose(scores, (0, 2, 1))  # (batch, n_classes, n_boxes)
    scores, best_of_class = tf.math.top_k(scores, n_entering)  # (batch, n_classes, n_entering)
    keys = tf.where(scores > score_threshold, ranks, 0.0)

    positions, is_valid = tf.map_fn(
        partial(_select_in_image, iou_threshold=iou_threshold, max_per_class=max_per_class),
        (_with_area(boxes), best_of_class, keys),
        fn_output_signature=(
            tf.TensorSpec((n_classes, max_per_class), tf.int32),
            tf.TensorSpec((n_classes, max_per_class), tf.bool),
        ),
    )
    scores = tf.where(is_valid, tf.gather(scores, positions, batch_dims=2), -float("inf"))
    box_ids = tf.gather(best_of_class, positions, batch_dims=2)

    # Of all classes together the best, the lower class first among equals.
    scores, best = tf.math.top_k(tf.reshape(scores, (-1, n_classes * max_per_class)), n_selectable)
    box_ids = tf.gather(tf.reshape(box_ids, (-1, n_classes * max_per_class)), best, batch_dims=1)
    fill = [[0, 0], [0, max_total - n_selectable]]
    scores = tf.pad(scores, fill, constant_values=-float("inf"))
    is_valid = scores > -float("inf")
    box_ids = tf.pad(box_ids, fill)
    return Selection(
        boxes=tf.gather(boxes, box_ids, batch_dims=1),
        box_ids=box_ids,
        class_ids=tf.pad(best // max_per_class, fill),
        scores=tf.where(is_valid, scores, 0.0),
        is_valid=is_valid,
    )


def _select_in_image(image: tuple, iou_threshold: float, max_per_class: int) -> tuple[Any, Any]:
    """Apply the kernel to each class of an image.

    Arguments:
        image: float32 boxes `(n_boxes, 4)`; int32 box ids `(n_classes, n_entering)` in the order of
            their scores; their float32 keys, which descend, 0 for those that do not take part.
        iou_threshold: see `litert_nms`.
        max_per_class: see `litert_nms`.

    Returns:
        Positions among the box ids, and which of them are valid, both `(n_classes, max_per_class)`.
    """
    import tensorflow as tf

    def select_in_class(boxes, keys):
        if iou_threshold >= 1:  # nothing overlaps by more, and the kernel knows no such threshold
            n_valid = tf.reduce_sum(tf.cast(keys[:max_per_class] > 0.0, tf.int32))
            return tf.range(max_per_class), n_valid
        return tf.raw_ops.NonMaxSuppressionV4(
            boxes=boxes,
            scores=keys,
            max_output_size=max_per_class,
            iou_threshold=_next_float(iou_threshold),
            score_threshold=0.5,  # between the key 0 and the lowest rank
            pad_to_max_output_size=True,
        )

    boxes, best_of_class, keys = image
    selected = [
        select_in_class(tf.gather(boxes, best_of_class[class_id]), keys[class_id])
        for class_id in range(keys.shape[0])
    ]
    positions, n_valid = (tf.stack(parts) for parts in zip(*selected, strict=True))
    return positions, tf.range(max_per_class) < n_valid[:, tf.newaxis]


def _with_area(boxes: Any) -> Any:
    """Put distant unit squares in the place of `(batch, n_boxes, 4)` boxes that have no area."""
    import tensorflow as tf

    areas = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    has_area = tf.logical_and(areas > 0.0, areas < float("inf"))
    # They touch neither each other nor boxes of an image.
    left = -1e6 - 2.0 * np.arange(boxes.shape[1])
    squares = np.stack([left, left * 0, left + 1, left * 0 + 1], axis=-1).astype(np.float32)
    return tf.where(has_area[..., tf.newaxis], boxes, squares)


def _next_float(threshold: float) -> float:
    """Return the least float32 above a threshold, and no subnormal one, which runtimes flush."""
    above = np.nextafter(np.float32(threshold), np.float32(np.inf))
    return float(max(above, np.finfo(np.float32).tiny))
