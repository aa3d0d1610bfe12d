"""From true and false positives of one class to precision, recall and average precision.

Pure functions over plain arrays, in the order in which an evaluation needs them, after
`eval_utils.matching` has said which detections are true and which are false positives:

1. `precision_and_recall`: the precision/recall curve that their running totals draw,
2. `average_precision`: one number for the curve, by a rule of Pascal VOC or MS COCO.

A detection that lies on a neutral box (VOC: an object marked "difficult") is neither a true nor a
false positive: finding it earns nothing and costs nothing.
"""

from __future__ import annotations

import numpy as np

AVERAGE_PRECISION_MODES = ("sample", "integrate", "coco")

# Recalls are quotients of counts, and recall levels are quotients of small integers: two that are
# meant to be equal differ by about 1e-16, two that are not by far more than this.
_RECALL_TOLERANCE = 1e-12


def precision_and_recall(
    cumulative_true_positives: np.ndarray, cumulative_false_positives: np.ndarray, num_gt: int
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the precision/recall curve: one point for each detection that is let in.

    precision = TP / (TP + FP), the share of the detections that are right;
    recall = TP / number of objects, the share of the objects that are found.

    Arguments:
        cumulative_true_positives: `(n,)` running total over detections of falling confidence.
        cumulative_false_positives: `(n,)` running total likewise.
        num_gt: The number of ground truth boxes that count.

    Returns:
        Two `(n,)` float64 arrays: precisions (0 as long as there are only neutral detections) and
        recalls (NaN if there is nothing to recall).

    Example:
        Right, wrong, right: three detections, of four objects there are:

        >>> from eval_utils.average_precision import precision_and_recall
        >>> precisions, recalls = precision_and_recall([1, 1, 2], [0, 1, 1], num_gt=4)
        >>> precisions.round(2), recalls
        (array([1.  , 0.5 , 0.67]), array([0.25, 0.25, 0.5 ]))
    """
    true_positives = np.asarray(cumulative_true_positives, dtype=np.float64)
    detections = true_positives + np.asarray(cumulative_false_positives)
    precisions = np.divide(
        true_positives, detections, out=np.zeros_like(true_positives), where=detections > 0
    )
    recalls = true_positives / (num_gt if num_gt > 0 else np.nan)
    return precisions, recalls


def average_precision(
    precisions: np.ndarray,
    recalls: np.ndarray,
    mode: str = "sample",
    num_recall_points: int = 11,
) -> float:
    """Sum up a precision/recall curve in one number.

    Arguments:
        precisions: `(n,)` precisions, in the order of falling confidence.
        recalls: `(n,)` recalls in the same order, which therefore never fall; no NaN.
        mode: ``'sample'``: the mean precision at equidistant recall levels (Pascal VOC until 2009,
            with 11 levels); ``'integrate'``: the area under the curve (Pascal VOC since 2010);
            ``'coco'``: the mean precision at 101 recall levels, as MS COCO computes it.
        num_recall_points: The number of recall levels for ``'sample'``.

    Returns:
        The average precision, between 0 and 1; 0 if there are no detections.

    Raises:
        ValueError: if `mode` or `num_recall_points` is not as described.

    Example:
        >>> from eval_utils.average_precision import average_precision
        >>> precisions, recalls = [1.0, 0.5, 2 / 3], [0.25, 0.25, 0.5]
        >>> for mode in "sample", "integrate", "coco":
        ...     print(mode, round(average_precision(precisions, recalls, mode), 3))
        sample 0.455
        integrate 0.417
        coco 0.422
    """
    check_average_precision_mode(mode, num_recall_points)
    if mode == "integrate":
        return area_average_precision(precisions, recalls)
    if mode == "coco":
        return coco_average_precision(precisions, recalls)
    return sampled_average_precision(precisions, recalls, num_recall_points)


def check_average_precision_mode(mode: str, num_recall_points: int) -> None:
    """Raise a ValueError unless the arguments name a rule that `average_precision` knows."""
    if mode not in AVERAGE_PRECISION_MODES:
        raise ValueError(
            "The average precision mode must be 'sample' (mean precision at recall levels), "
            "'integrate' (area under the precision/recall curve) or 'coco' (mean precision at 101 "
            f"recall levels as in COCO); got {mode!r}."
        )
    if mode == "sample" and num_recall_points < 1:
        raise ValueError(
            "`num_recall_points` must be at least 1 (Pascal VOC 2007 uses 11, COCO 101); "
            f"got {num_recall_points!r}."
        )


def sampled_average_precision(
    precisions: np.ndarray, recalls: np.ndarray, num_recall_points: int = 11
) -> float:
    """Average the precision over equidistant recall levels from 0 to 1.

    The precision at a level is the greatest one at this recall or any higher one, and 0 where the
    curve does not reach the level (Everingham et al., "The Pascal Visual Object Classes (VOC)
    Challenge", 2010, section 4.2).

    Arguments:
        precisions: `(n,)` precisions, in the order of falling confidence.
        recalls: `(n,)` recalls in the same order; no NaN.
        num_recall_points: The number of levels, both ends included.

    Returns:
        The average precision, between 0 and 1.
    """
    # 3 of 10 objects reach the level 0.3, although linspace says 0.30000000000000004.
    levels = np.linspace(0.0, 1.0, num_recall_points) - _RECALL_TOLERANCE
    return _mean_precision_at(levels, precisions, recalls)


def coco_average_precision(precisions: np.ndarray, recalls: np.ndarray) -> float:
    """Average the precision over the recall levels 0, 0.01, ..., 1 exactly as MS COCO does.

    The same as `sampled_average_precision` with 101 levels, but for rounding: COCO compares
    floating-point numbers as they are, so that a curve may miss the level that it just reaches.
    Numbers that are to be compared with those of COCO's own evaluation need the same rule.

    Arguments:
        precisions: `(n,)` precisions, in the order of falling confidence.
        recalls: `(n,)` recalls in the same order; no NaN.

    Returns:
        The average precision, between 0 and 1.
    """
    return _mean_precision_at(np.linspace(0.0, 1.0, 101), precisions, recalls)


def area_average_precision(precisions: np.ndarray, recalls: np.ndarray) -> float:
    """Compute the area under the interpolated precision/recall curve.

    The rule of the Pascal VOC development kits since 2010: precision is made to fall with recall,
    then every step of recall, the one from 0 to the first recall included, counts with the
    precision at its end.

    Arguments:
        precisions: `(n,)` precisions, in the order of falling confidence.
        recalls: `(n,)` recalls in the same order; no NaN.

    Returns:
        The average precision, between 0 and 1.
    """
    recall_steps = np.diff(recalls, prepend=0.0)
    return float(np.sum(recall_steps * interpolated_precisions(precisions)))


def _mean_precision_at(levels: np.ndarray, precisions: np.ndarray, recalls: np.ndarray) -> float:
    """Average the interpolated precision over recall levels; 0 where the curve ends before one."""
    first_at_level = np.searchsorted(recalls, levels, side="left")
    return float(np.append(interpolated_precisions(precisions), 0.0)[first_at_level].mean())


def interpolated_precisions(precisions: np.ndarray) -> np.ndarray:
    """Replace each precision by the greatest one at this or any higher recall.

    Arguments:
        precisions: `(n,)` precisions, in the order of falling confidence.

    Returns:
        `(n,)` float64 precisions that never rise.
    """
    return np.maximum.accumulate(np.asarray(precisions, dtype=np.float64)[::-1])[::-1]
