"""Dividing a data set: which of its images go into which part."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def split_indices(
    n_images: int,
    fractions: Sequence[float],
    seed: int | None = None,
    strata: Sequence[int] | None = None,
) -> list[np.ndarray]:
    """Divide the numbers 0..n-1 at random into parts of given sizes.

    Arguments:
        n_images: How many there are.
        fractions: The shares of the parts; if their sum is below 1, the rest is in no part.
        seed: The same seed gives the same parts.
        strata: For each image a number: images of the same number are divided alike.

    Returns:
        One ascending int64 array for each fraction; together they hold no index twice.

    Raises:
        ValueError: A fraction is not positive, they sum up to more than 1, or a part would be
            empty.
    """
    fractions = np.asarray(fractions, dtype=np.float64)
    if fractions.ndim != 1 or fractions.size == 0 or not (fractions > 0).all():
        raise ValueError(
            f"fractions must be a list of positive numbers such as (0.8, 0.2), got {fractions}"
        )
    total = fractions.sum()
    if total > 1 + 1e-9:
        raise ValueError(f"fractions must sum up to 1 at most, got {fractions} with sum {total:g}")
    shares = np.append(fractions, max(0.0, 1 - total))
    order = np.random.default_rng(seed).permutation(n_images)
    if strata is not None:
        order = order[np.argsort(np.asarray(strata)[order], kind="stable")]

    # Image by image to the part that lags behind most. However long a run of images of the same
    # stratum is, each part gets its share of the run, within one image.
    part_of = np.empty(n_images, np.int64)
    counts = np.zeros(len(shares))
    for position, image in enumerate(order, start=1):
        part_of[image] = np.argmax(shares * position - counts)
        counts[part_of[image]] += 1
    parts = [np.flatnonzero(part_of == part) for part in range(len(fractions))]
    if not all(part.size for part in parts):
        raise ValueError(
            f"fractions {fractions} of {n_images} images would leave a part without images"
        )
    return parts


def rarest_classes(class_ids_of_images: Sequence[np.ndarray]) -> list[int]:
    """Find for each image the class that occurs in the fewest images; -1 without objects.

    It is the rare classes that a random division may leave out of a part, so it is by them that
    images are told apart for a stratified one.

    Arguments:
        class_ids_of_images: The class ids of the boxes of each image.

    Returns:
        One class id per image.
    """
    present = [np.unique(ids).astype(np.int64) for ids in class_ids_of_images]
    frequency = np.bincount(np.concatenate([np.zeros(0, np.int64), *present]), minlength=1)
    return [int(ids[np.argmin(frequency[ids])]) if ids.size else -1 for ids in present]
