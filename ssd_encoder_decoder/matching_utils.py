"""Matching: which anchor is responsible for which ground truth box (SSD paper, section 2.2)."""

from __future__ import annotations

import numpy as np

NO_MATCH = -1


def match_bipartite_greedy(weight_matrix: np.ndarray, min_weight: float = 0.0) -> np.ndarray:
    """Give every ground truth box one anchor of its own, the best pairs first.

    Greedy, not optimal in total: the pair with the largest weight of all is matched, its row and
    column leave the game, and so on. Caffe's SSD does the same.

    Arguments:
        weight_matrix: `(m, n)` similarities (IoU), rows = ground truth boxes, columns = anchors.
            Not modified.
        min_weight: Only weights greater than this make a match. Zero means that an object which
            overlaps no anchor gets none; Caffe's own bound is 1e-6.

    Returns:
        int `(m,)`: the column matched to each row; -1 where a row found none, because all it had
        were weights up to `min_weight` or because others took its columns.

    Example:
        Both objects like anchor 0 best. The one that overlaps it more gets it:

        >>> import numpy as np
        >>> from ssd_encoder_decoder.matching_utils import match_bipartite_greedy
        >>> overlaps = np.array([[0.6, 0.5, 0.0], [0.8, 0.1, 0.3]])  # 2 objects, 3 anchors
        >>> match_bipartite_greedy(overlaps)
        array([1, 0])
    """
    weights = np.asarray(weight_matrix)
    n_rows, n_columns = weights.shape
    matches = np.full(n_rows, NO_MATCH, dtype=np.int64)
    if n_rows == 0 or n_columns == 0:
        return matches

    # Where no two rows want the same column, everybody simply gets the favourite one.
    favourites = np.argmax(weights, axis=1)
    best = weights[np.arange(n_rows), favourites]
    wanted = favourites[best > min_weight]
    if len(np.unique(wanted)) == len(wanted):
        matches[best > min_weight] = wanted
        return matches

    free_rows, free_columns = np.ones(n_rows, bool), np.ones(n_columns, bool)
    lowest = -np.inf
    for _ in range(min(n_rows, n_columns)):
        row = int(np.argmax(np.where(free_rows, best, lowest)))
        if not (free_rows[row] and best[row] > min_weight):
            break
        column = favourites[row]
        matches[row] = column
        free_rows[row], free_columns[column] = False, False
        # Only rows that wanted this column have to look for another one.
        for other in np.flatnonzero(free_rows & (favourites == column)):
            remaining = np.where(free_columns, weights[other], lowest)
            favourites[other] = np.argmax(remaining)
            best[other] = weights[other, favourites[other]]
    return matches


def match_multi(weight_matrix: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Match every anchor with its best ground truth box, if that is similar enough.

    One object may get many anchors: that makes learning easier, since the network may then give
    high scores to several overlapping anchors instead of having to single out one.

    Arguments:
        weight_matrix: `(m, n)` similarities (IoU), rows = ground truth boxes, columns = anchors.
            Not modified.
        threshold: A pair is kept if its weight is at least this.

    Returns:
        (row indices, column indices) of the pairs: two int arrays of equal length, columns
        ascending, the first row winning a tie.

    Example:
        >>> import numpy as np
        >>> from ssd_encoder_decoder.matching_utils import match_multi
        >>> overlaps = np.array([[0.6, 0.5, 0.0], [0.8, 0.1, 0.3]])  # 2 objects, 3 anchors
        >>> objects, anchors = match_multi(overlaps, threshold=0.5)
        >>> list(zip(objects.tolist(), anchors.tolist()))
        [(1, 0), (0, 1)]
    """
    weights = np.asarray(weight_matrix)
    if weights.shape[0] == 0:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    columns = np.flatnonzero(weights.max(axis=0) >= threshold)
    return np.argmax(weights[:, columns], axis=0), columns
