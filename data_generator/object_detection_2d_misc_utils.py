"""Bringing predictions back to the images they were made for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from data_generator.label_boxes import leave_unchanged


def apply_inverse_transforms(
    y_pred_decoded: Sequence[np.ndarray] | np.ndarray,
    inverse_transforms: Sequence[Sequence[Callable[[np.ndarray], np.ndarray] | None]],
) -> list[np.ndarray] | np.ndarray:
    """Undo for decoded predictions what transformations did to their images.

    Arguments:
        y_pred_decoded: Predictions in pixels of the transformed images, (class, confidence, box)
            by default: a list of one `(k, 6)` array an image, or a `(batch, k, 6)` array.
        inverse_transforms: For each image its inverters in the order in which to apply them, as
            the data generator returns them; None entries are skipped.

    Returns:
        The predictions in pixels of the original images, as new arrays in the same structure.

    Raises:
        ValueError: if the predictions are neither a list nor an array, or there are not as many
            images as lists of inverters.

    Example:
        >>> import numpy as np
        >>> from data_generator.object_detection_2d_geometric_ops import Resize
        >>> from data_generator.object_detection_2d_misc_utils import apply_inverse_transforms
        >>> image = np.zeros((600, 900, 3), np.uint8)
        >>> resized, inverter = Resize(300, 300)(image, return_inverter=True)
        >>> detections = [np.array([[1, 0.9, 10, 10, 50, 50]])]  # in pixels of the resized image
        >>> apply_inverse_transforms(detections, [[inverter]])
        [array([[  1. ,   0.9,  30. ,  20. , 150. , 100. ]])]
    """
    if not isinstance(y_pred_decoded, (list, np.ndarray)):
        raise ValueError(
            "`y_pred_decoded` must be a list of (k, 6) arrays or a (batch, k, 6) array; "
            f"got {type(y_pred_decoded).__name__}."
        )
    if len(y_pred_decoded) != len(inverse_transforms):
        raise ValueError(
            "There must be one list of inverters for each image: got predictions for "
            f"{len(y_pred_decoded)} images and {len(inverse_transforms)} lists."
        )
    originals = []
    for predictions, inverters in zip(y_pred_decoded, inverse_transforms, strict=True):
        predictions = leave_unchanged(predictions)
        if predictions.size > 0:
            for inverter in inverters:
                if inverter is not None:
                    predictions = inverter(predictions)
        originals.append(predictions)
    if isinstance(y_pred_decoded, list):
        return originals
    return np.stack(originals) if originals else y_pred_decoded.copy()
