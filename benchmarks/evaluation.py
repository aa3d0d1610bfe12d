"""Time `match_predictions` beside the plain loop over predictions, on the same data in one run.

    python -m benchmarks.evaluation

1,000 images with 200 detections each, 20 classes, about 2.5 objects an image, as on Pascal VOC.
"""

from __future__ import annotations

from statistics import median
from types import SimpleNamespace

import numpy as np

from benchmarks.timing import seconds
from bounding_box_utils.bounding_box_utils import iou
from eval_utils.detection_scorer import DetectionScorer
from eval_utils.prediction_results import collect_predictions

N_IMAGES, N_DETECTIONS, N_CLASSES, SEED = 1000, 200, 20, 1


def random_boxes(rng: np.random.Generator, n: int) -> np.ndarray:
    """Draw `(n, 4)` boxes (xmin, ymin, xmax, ymax) in an image of 500 x 375 pixels."""
    size = rng.uniform(20, 200, (n, 2))
    corner = rng.uniform(0, 1, (n, 2)) * (np.array([500, 375]) - size)
    return np.concatenate([corner, corner + size], axis=1)


def make_scorer(rng: np.random.Generator) -> DetectionScorer:
    """Draw ground truth and detections, half of these near an object of the same class."""
    labels, detections = [], []
    for image in range(N_IMAGES):
        n_objects = 1 + rng.poisson(1.5)
        objects = np.column_stack(
            [rng.integers(1, N_CLASSES + 1, n_objects), random_boxes(rng, n_objects)]
        )
        near = objects[rng.integers(0, n_objects, N_DETECTIONS // 2)]
        near[:, 1:] += rng.normal(0, 12, near[:, 1:].shape)
        n_far = N_DETECTIONS - len(near)
        far = np.column_stack([rng.integers(1, N_CLASSES + 1, n_far), random_boxes(rng, n_far)])
        rows = np.concatenate([near, far])
        labels.append(objects)
        detections.append((f"{image:06d}", np.insert(rows, 1, rng.random(N_DETECTIONS), axis=1)))
    image_ids = [image_id for image_id, _ in detections]
    data_set = SimpleNamespace(labels=labels, image_ids=image_ids, eval_neutral=None)
    scorer = DetectionScorer(N_CLASSES, data_set)
    scorer.prediction_results = collect_predictions(detections, N_CLASSES)
    return scorer


def match_in_a_loop(scorer: DetectionScorer) -> list[np.ndarray]:
    """Match one prediction after the other; return the true positives of each class."""
    ids, labels = scorer.data_generator.image_ids, scorer.data_generator.labels
    boxes_of = dict(zip(ids, labels, strict=True))
    results = [np.zeros(0)]
    for class_id, predictions in enumerate(scorer.prediction_results[1:], start=1):
        ranked = sorted(predictions, key=lambda prediction: -prediction[1])
        hits = np.zeros(len(ranked), dtype=int)
        taken = set()
        for i, (image_id, _, *box) in enumerate(ranked):
            objects = boxes_of[image_id]
            objects = objects[objects[:, 0] == class_id, 1:]
            if len(objects) == 0:
                continue
            overlaps = iou(np.array(box), objects, "corners", "element-wise", "include")
            best = int(np.argmax(overlaps))
            if overlaps[best] >= 0.5 and (image_id, best) not in taken:
                taken.add((image_id, best))
                hits[i] = 1
        results.append(hits)
    return results


def main() -> None:
    """Check that both ways agree, then time them."""
    scorer = make_scorer(np.random.default_rng(SEED))
    scorer.match_predictions(sorting_algorithm="stable", verbose=False)
    for fast, slow in zip(scorer.true_positives, match_in_a_loop(scorer), strict=True):
        np.testing.assert_array_equal(fast, slow)

    fast = median(seconds(lambda: scorer.match_predictions(verbose=False), repetitions=7))
    slow = median(seconds(lambda: match_in_a_loop(scorer), repetitions=3))
    n_predictions = N_IMAGES * N_DETECTIONS
    print(f"{n_predictions:,} predictions, {N_CLASSES} classes, medians:")
    print(f"  match_predictions                 {fast:7.3f} s")
    print(f"  a loop over predictions with iou  {slow:7.3f} s   ({slow / fast:.0f} times as long)")


if __name__ == "__main__":
    main()
