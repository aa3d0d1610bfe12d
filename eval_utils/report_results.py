"""What a report is about: the results of a scorer, judged at one confidence threshold."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eval_utils.error_analysis import JudgedDetections, JudgedObjects, judge
from eval_utils.matched_class import MatchedClass
from eval_utils.object_sizes import COCO_SIZES, SizeScores, scores_by_size, tercile_sizes
from eval_utils.operating_point import OperatingPoint, best_operating_point, operating_point

if TYPE_CHECKING:
    from eval_utils.detection_scorer import DetectionScorer

OBJECT_SIZES = ("coco", "terciles")


@dataclass(frozen=True)
class ReportResults:
    """What all sections of a report look at.

    Attributes:
        scorer: The scorer; all of its stages have run.
        names: Class names by class id, or the ids themselves.
        classes: The matched classes from class 1 on.
        overall: The operating point of all classes together at the threshold of the report.
        detections: The detections from this threshold on.
        objects: All objects.
        sizes: The scores of each range of object sizes.
    """

    scorer: DetectionScorer
    names: list[str]
    classes: list[MatchedClass]
    overall: OperatingPoint
    detections: JudgedDetections
    objects: JudgedObjects
    sizes: list[SizeScores]

    @property
    def best_first(self) -> list[int]:
        """Class ids by falling average precision, those without ground truth last."""
        precisions = self.scorer.average_precisions
        ids = range(1, len(self.names))
        return sorted(ids, key=lambda c: math.inf if math.isnan(precisions[c]) else -precisions[c])

    @property
    def threshold(self) -> float:
        """The least confidence of the detections that the report is about."""
        return self.overall.threshold

    def detection_label(self, index: int) -> str:
        """Return class name and confidence of one of the detections."""
        name = self.names[self.detections.class_ids[index]]
        return f"{name} {self.detections.confidences[index]:.2f}"


def gather_results(
    scorer: DetectionScorer, confidence_thresh: float | None, object_sizes: str
) -> ReportResults:
    """Compute what a report shows.

    Arguments:
        scorer: A scorer, all stages of which have run.
        confidence_thresh: The threshold; None: where F1 of all classes together is best, or 0.5 if
            nothing is right at any.
        object_sizes: One of `OBJECT_SIZES`.

    Returns:
        The results.

    Raises:
        ValueError: if `object_sizes` is unknown.
    """
    if object_sizes not in OBJECT_SIZES:
        raise ValueError(
            f"`object_sizes` must be one of {', '.join(OBJECT_SIZES)}; got {object_sizes!r}."
        )
    classes = scorer.matched_classes[1:]
    if confidence_thresh is None:
        best = best_operating_point(classes)
        confidence_thresh = 0.5 if best is None else best.threshold
    settings = scorer.matching_settings
    detections, objects = judge(
        classes, confidence_thresh, settings["iou_threshold"], settings["border_pixels"]
    )
    return ReportResults(
        scorer,
        [str(name) for name in scorer.class_names or range(scorer.n_classes + 1)],
        classes,
        operating_point(classes, confidence_thresh),
        detections,
        objects,
        scores_by_size(
            scorer.matched_classes,
            COCO_SIZES if object_sizes == "coco" else tercile_sizes(classes),
            **settings,
            **scorer.average_precision_settings,
        ),
    )
