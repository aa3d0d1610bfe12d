"""The batch sampler of the original SSD in Caffe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bounding_box_utils.bounding_box_utils import iou
from data_generator.label_boxes import box_columns
from data_generator.random_transformation import RandomTransformation
from data_generator.window import CropPad


class CaffeCrop(CropPad):
    """A crop that treats boxes as Caffe does.

    It keeps the boxes whose centre lies in the patch, borders included, and clips them to it, from
    edge to edge. (`CropPad` clips to the middle of the last pixel, as it were: [0, width - 1].)
    """

    def apply_labels(
        self,
        labels: np.ndarray,
        height: int,
        width: int,
        rng: np.random.Generator | None = None,
    ) -> np.ndarray:
        """Move, choose and clip the boxes; arguments and result as of the method it replaces."""
        labels = self.move_labels(labels, height, width)
        columns = box_columns(self.labels_format)
        edges = np.array([self.patch_width, self.patch_height])  # (x, y)
        corners = labels[:, columns].reshape(-1, 2, 2)  # (box, lower or upper, x or y)
        centers = corners.mean(axis=1)
        kept = ((centers >= 0) & (centers <= edges)).all(axis=1)
        labels = labels[kept]
        labels[:, columns] = np.clip(corners[kept], 0, edges).reshape(-1, 4)
        return labels


class CaffeRandomCrop(RandomTransformation):
    """Draw one of seven ways to crop, among those that turn out to be possible.

    The ways: the whole image; a patch that at least one object overlaps by an IoU of .1, .3, .5, .7
    or .9; any patch. Each has 50 trials. A patch has scale^2 times the area of the image and an
    aspect ratio that is relative to that of the image, drawn from those with which the patch fits
    into the image. (Section 2.2 of the SSD paper, `batch_sampler` in its training script.)
    """

    def __init__(
        self,
        min_overlaps: Sequence[float | None] = (0.1, 0.3, 0.5, 0.7, 0.9, None),
        n_trials_max: int = 50,
        min_scale: float = 0.3,
        max_scale: float = 1.0,
        min_aspect_ratio: float = 0.5,
        max_aspect_ratio: float = 2.0,
        labels_format: Mapping[str, int] | None = None,
        rng: np.random.Generator | int | None = None,
    ):
        """Set the demands.

        Arguments:
            min_overlaps: The least IoU of each way besides the whole image; None demands nothing.
            n_trials_max: How many patches each way tries.
            min_scale: The least scale.
            max_scale: The largest scale, at most 1.
            min_aspect_ratio: The least width / height, both as fractions of the image's.
            max_aspect_ratio: The largest width / height, both as fractions of the image's.
            labels_format: Column positions by name.
            rng: A generator or a seed, used where a call does not bring its own.

        Raises:
            ValueError: if a range is empty, or patches would be larger than the image.
        """
        super().__init__(labels_format=labels_format, rng=rng)
        if not 0 < min_scale <= max_scale <= 1:
            raise ValueError(
                "The scales must satisfy 0 < min_scale <= max_scale <= 1; "
                f"got {min_scale} and {max_scale}."
            )
        if not 0 < min_aspect_ratio <= 1 <= max_aspect_ratio:
            raise ValueError(
                "The aspect ratios must satisfy 0 < min_aspect_ratio <= 1 <= max_aspect_ratio, "
                f"so that every scale has one; got {min_aspect_ratio} and {max_aspect_ratio}."
            )
        self.min_overlaps = list(min_overlaps)
        self.n_trials_max = n_trials_max
        self.scales = min_scale, max_scale
        self.aspect_ratios = min_aspect_ratio, max_aspect_ratio

    def draw(
        self, height: int, width: int, labels: np.ndarray | None, rng: np.random.Generator
    ) -> CaffeCrop | None:
        """Try all ways, and draw one of the patches; None stands for the whole image.

        Without labels no overlap is demanded. Images without objects stay whole.
        """
        if labels is not None and len(labels) == 0:
            return None
        patches = self.draw_patches(height, width, rng)  # (ways, trials, 4)
        if labels is None:
            good = np.ones(patches.shape[:2], bool)
        else:
            good = self._are_good(patches, labels[:, box_columns(self.labels_format)])
        possible = np.flatnonzero(good.any(axis=1))
        way = rng.integers(len(possible) + 1)
        if way == len(possible):
            return None
        way = possible[way]
        left, top, right, bottom = patches[way, good[way].argmax()].tolist()
        size = max(1, int(bottom - top)), max(1, int(right - left))
        return CaffeCrop(int(top), int(left), *size, labels_format=self.labels_format)

    def draw_patches(self, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
        """Draw the patches of all trials of all ways.

        Arguments:
            height: Of the image, in pixels.
            width: Of the image, in pixels.
            rng: The generator to draw from.

        Returns:
            `(ways, trials, 4)` corners (xmin, ymin, xmax, ymax) in pixels, with fractions.
        """
        shape = len(self.min_overlaps), self.n_trials_max
        scale = rng.uniform(*self.scales, shape)
        # width = scale * sqrt(ratio) and height = scale / sqrt(ratio) must both be at most 1.
        least, largest = self.aspect_ratios
        ratio = rng.uniform(np.maximum(least, scale**2), np.minimum(largest, 1 / scale**2))
        size = np.stack([scale * np.sqrt(ratio), scale / np.sqrt(ratio)], axis=-1)
        size = np.minimum(size, 1)  # rounding errors
        corner = rng.uniform(0, 1 - size)
        return np.concatenate([corner, corner + size], axis=-1) * [width, height, width, height]

    def _are_good(self, patches: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        overlaps = iou(patches.reshape(-1, 4), boxes, "corners")  # (ways * trials, n)
        best = overlaps.max(axis=1).reshape(patches.shape[:2])
        demanded = [-1 if bound is None else bound for bound in self.min_overlaps]
        return best >= np.array(demanded)[:, np.newaxis]
