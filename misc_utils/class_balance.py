"""Seeing rare classes more often."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def repeat_rare_classes(
    labels: Sequence[np.ndarray], seed: int = 0, class_id_column: int = 0
) -> np.ndarray:
    """Choose how often each image of a data set is seen in an epoch, so that rare classes count.

    Repeat factor sampling (Gupta et al., LVIS, arXiv:1908.03195, section 5): a class in the share f
    of the images asks for its images sqrt(t / f) times, and an image follows its rarest class. Here
    t is the share of the most common class. The square root is the compromise: balancing fully
    would show the few images of a rare class so often that a network learns them by heart.

    Arguments:
        labels: For each image `(k, 5)` labels.
        seed: Decides how fractions are rounded.
        class_id_column: Column of the class id.

    Returns:
        int array of image indices for `DataGenerator.subset`: ascending, each at least once.
    """
    classes = [
        np.unique([row[class_id_column] for row in boxes]).astype(np.int64) for boxes in labels
    ]
    n_images = np.bincount(np.concatenate([np.zeros(0, np.int64), *classes]), minlength=1)
    factor = np.sqrt(n_images.max() / np.maximum(n_images, 1))
    wanted = np.array([factor[ids].max(initial=1.0) for ids in classes])
    # 2.3 times is twice for seven images of ten and three times for the others.
    repeats = np.floor(wanted + np.random.default_rng(seed).random(len(wanted))).astype(np.int64)
    return np.repeat(np.arange(len(classes)), repeats)
