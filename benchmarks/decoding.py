"""Time the decoders beside a plain loop and the NMS of other libraries, on the same predictions.

    python -m benchmarks.decoding

8,732 boxes and 20 classes, as SSD300 outputs them for Pascal VOC, made by the recipe of
`tests/golden/README.md`: 8 objects in the first image and 6 in the others, and thousands of boxes
above the confidence of 0.01 that evaluation asks for. The layers that decode within a model have a
benchmark of their own, `benchmarks.decoding_layers`.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

import numpy as np

from benchmarks.timing import seconds
from bounding_box_utils.bounding_box_utils import iou
from ssd_encoder_decoder.box_coder import decode_boxes, to_corners
from ssd_encoder_decoder.ssd_output_decoder import decode_detections, decode_detections_fast
from tests.raw_predictions import golden_predictions

CONFIDENCE, IOU_THRESHOLD, TOP_K, SIDE = 0.01, 0.45, 200, 300
SIZE = {"img_height": SIDE, "img_width": SIDE}


def candidates(image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the boxes `(k, 4)`, scores `(k,)` and class ids `(k,)` that enter NMS."""
    class_ids, box_ids = np.nonzero(image[:, 1:-12].T > CONFIDENCE)
    rows = image[box_ids].astype(np.float64)
    boxes = decode_boxes(rows[:, -12:-8], rows[:, -8:-4], rows[:, -4:], "centroids")
    boxes = to_corners(boxes, "centroids") * SIDE
    return boxes, image[box_ids, class_ids + 1], class_ids + 1


def plain_loop(image: np.ndarray) -> np.ndarray:
    """Decode with the textbook loop: class by class, box by box, one row of IoUs at a time."""
    boxes, scores, class_ids = candidates(image)
    kept = []
    for class_id in np.unique(class_ids):
        left = np.flatnonzero(class_ids == class_id)
        while len(left):
            best = left[np.argmax(scores[left])]
            kept.append(best)
            left = left[left != best]
            overlaps = iou(boxes[left], boxes[best], "corners", "element-wise")
            left = left[overlaps <= IOU_THRESHOLD]
    kept = np.array(kept)
    kept = kept[np.argsort(-scores[kept], kind="stable")[:TOP_K]]
    return np.column_stack([class_ids[kept], scores[kept], boxes[kept]])


def opencv(image: np.ndarray) -> np.ndarray:
    """Decode with OpenCV's NMS in C++."""
    import cv2

    boxes, scores, class_ids = candidates(image)
    corner_and_size = np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]])
    kept = cv2.dnn.NMSBoxesBatched(corner_and_size, scores, class_ids, CONFIDENCE, IOU_THRESHOLD)
    kept = kept[np.argsort(-scores[kept], kind="stable")[:TOP_K]]
    return np.column_stack([class_ids[kept], scores[kept], boxes[kept]])


def report(name: str, work: Callable[[], object], n_images: int, repetitions: int = 30) -> float:
    """Print the time of one image; return the median."""
    times = [1000 * t / n_images for t in seconds(work, repetitions)]
    median, least = statistics.median(times), min(times)
    print(f"{name:58s}{median:8.2f}{least:8.2f}")
    return median


def main() -> None:
    """Check that the ways agree, then time them."""
    inputs = golden_predictions()
    images = np.concatenate([inputs["FULL"], inputs["FULL2"]])
    expected = [plain_loop(image) for image in images]
    ours = decode_detections(images, CONFIDENCE, IOU_THRESHOLD, TOP_K, **SIZE)
    for rows, theirs in zip(ours, expected, strict=True):
        np.testing.assert_array_equal(rows, theirs)

    print(f"{'ms an image':58s}{'median':>8s}{'least':>8s}")
    n = len(images)
    loop = report("plain loop", lambda: [plain_loop(image) for image in images], n, 10)
    ours = report("decode_detections", lambda: decode_detections(images, **SIZE), n)
    report("cv2.dnn.NMSBoxesBatched", lambda: [opencv(image) for image in images], n)
    report("decode_detections, confidence 0.5", lambda: decode_detections(images, 0.5, **SIZE), n)
    report("decode_detections, all", lambda: decode_detections(images, top_k="all", **SIZE), n)
    report("decode_detections_fast", lambda: decode_detections_fast(images, CONFIDENCE, **SIZE), n)
    print(f"decode_detections is {loop / ours:.1f} times as fast as the plain loop.")


if __name__ == "__main__":
    main()
