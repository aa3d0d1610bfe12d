"""Time the evaluation beside a plain loop and beside pycocotools, on the same data in one run.

    python -m benchmarks.evaluation

First the matching of 1,000 images with 200 detections each, then complete evaluations of a problem
of the size of the test set of Pascal VOC 2007: 4,952 images with 12,032 objects of 20 classes and
200 detections an image. The problems are random; every result is checked against the slower one.
"""

from __future__ import annotations

import contextlib
import io
import time
from statistics import median
from types import SimpleNamespace

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from benchmarks.timing import seconds
from bounding_box_utils.bounding_box_utils import iou
from eval_utils.coco_format import coco_detections, coco_ground_truth
from eval_utils.coco_utils import evaluate_coco
from eval_utils.detection_scorer import GT_FORMAT, DetectionScorer
from eval_utils.prediction_results import collect_predictions
from eval_utils.scoring import score_detections

N_DETECTIONS, N_CLASSES, SEED = 200, 20, 1
VOC_IMAGES, VOC_OBJECTS = 4952, 12032


def random_boxes(rng: np.random.Generator, n: int) -> np.ndarray:
    """Draw `(n, 4)` boxes (xmin, ymin, xmax, ymax) in an image of 500 x 375 pixels."""
    size = rng.uniform(20, 200, (n, 2))
    corner = rng.uniform(0, 1, (n, 2)) * (np.array([500, 375]) - size)
    return np.concatenate([corner, corner + size], axis=1)


def make_problem(
    rng: np.random.Generator, n_images: int, n_objects: int
) -> tuple[dict[int, np.ndarray], dict[int, np.ndarray]]:
    """Draw ground truth and detections by image, half of these near an object of the same class."""
    labels, detections = {}, {}
    counts = 1 + np.bincount(rng.integers(0, n_images, n_objects - n_images), minlength=n_images)
    for image, count in enumerate(counts.tolist(), start=1):
        objects = np.column_stack([rng.integers(1, N_CLASSES + 1, count), random_boxes(rng, count)])
        near = objects[rng.integers(0, count, N_DETECTIONS // 2)]
        near[:, 1:] += rng.normal(0, 12, near[:, 1:].shape)
        n_far = N_DETECTIONS - len(near)
        far = np.column_stack([rng.integers(1, N_CLASSES + 1, n_far), random_boxes(rng, n_far)])
        rows = np.concatenate([near, far])
        labels[image] = objects
        detections[image] = np.insert(rows, 1, rng.random(N_DETECTIONS), axis=1)
    return labels, detections


def match_in_a_loop(scorer: DetectionScorer, labels: dict[int, np.ndarray]) -> list[np.ndarray]:
    """Match one prediction after the other; return the true positives of each class."""
    results = [np.zeros(0)]
    for class_id, predictions in enumerate(scorer.prediction_results[1:], start=1):
        ranked = sorted(predictions, key=lambda prediction: -prediction[1])
        hits = np.zeros(len(ranked), dtype=int)
        taken = set()
        for i, (image_id, _, *box) in enumerate(ranked):
            objects = labels[image_id]
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


def pycocotools_stats(ground_truth: dict, detections: list[dict]) -> np.ndarray:
    """Compute the twelve numbers with pycocotools, without what it prints."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = ground_truth
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(detections), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


def benchmark_matching() -> None:
    """Time one stage."""
    labels, detections = make_problem(np.random.default_rng(SEED), n_images=1000, n_objects=2430)
    data_set = SimpleNamespace(
        labels=list(labels.values()), image_ids=list(labels), eval_neutral=None
    )
    scorer = DetectionScorer(N_CLASSES, data_set)
    scorer.prediction_results = collect_predictions(detections.items(), N_CLASSES)
    scorer.match_predictions(sorting_algorithm="stable", verbose=False)
    for fast, slow in zip(scorer.true_positives, match_in_a_loop(scorer, labels), strict=True):
        np.testing.assert_array_equal(fast, slow)

    fast = median(seconds(lambda: scorer.match_predictions(verbose=False), repetitions=7))
    slow = median(seconds(lambda: match_in_a_loop(scorer, labels), repetitions=3))
    print(f"matching 1,000 images x {N_DETECTIONS} detections, {N_CLASSES} classes, medians:")
    print(f"  match_predictions                 {fast:7.3f} s")
    print(f"  a loop over predictions with iou  {slow:7.3f} s   ({slow / fast:.0f} times as long)")


def benchmark_complete_evaluations() -> None:
    """Time everything from detections to the numbers."""
    labels, detections = make_problem(np.random.default_rng(SEED), VOC_IMAGES, VOC_OBJECTS)
    names = ["background", *(f"class {number}" for number in range(1, N_CLASSES + 1))]
    truth = coco_ground_truth(labels.values(), list(labels), names, GT_FORMAT)
    results = coco_detections(collect_predictions(detections.items(), N_CLASSES))

    times = {}
    for name, work in (
        ("score_detections", lambda: score_detections(labels, detections, N_CLASSES)),
        ("evaluate_coco", lambda: evaluate_coco(truth, results).stats),
        ("pycocotools", lambda: pycocotools_stats(truth, results)),
    ):
        start = time.perf_counter()
        times[name] = work(), time.perf_counter() - start
    (_, voc), (stats, coco), (expected, slow) = times.values()
    np.testing.assert_allclose(stats, expected, rtol=0, atol=1e-9)
    print(f"{VOC_IMAGES:,} images, {VOC_OBJECTS:,} objects, {len(results):,} detections, one run:")
    print(f"  score_detections (AP as in VOC)   {voc:7.3f} s")
    print(f"  evaluate_coco (12 numbers)        {coco:7.3f} s")
    print(f"  pycocotools (the same numbers)    {slow:7.3f} s   ({slow / coco:.1f} times as long)")


def main() -> None:
    """Run both benchmarks."""
    benchmark_matching()
    benchmark_complete_evaluations()


if __name__ == "__main__":
    main()
