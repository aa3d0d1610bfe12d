"""Which boxes are worth keeping after an image was cut, and which cuts are worth keeping.

A box belongs to an image if it overlaps it enough, by one of three criteria:

``'center_point'``  the centre of the box lies in the image;
``'area'``          the share of the box's area that lies in the image is within bounds;
``'iou'``           the IoU of the box and the image is within bounds.

`BoxFilter` keeps the boxes that pass, `ImageValidator` says whether enough of them do, and
`BoundGenerator` draws the bounds anew for every image, as the SSD paper does for its crops.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bounding_box_utils.bounding_box_utils import border_width, iou, widened
from data_generator.label_boxes import LABELS_FORMAT, as_label_array, box_columns

OVERLAP_CRITERIA = ("center_point", "area", "iou")


class BoundGenerator:
    """Draw a pair of lower and upper overlap bounds at random."""

    def __init__(
        self,
        sample_space: Sequence[Sequence[float | None]] = (
            (0.1, None),
            (0.3, None),
            (0.5, None),
            (0.7, None),
            (0.9, None),
            (None, None),
        ),
        weights: Sequence[float] | None = None,
        rng: np.random.Generator | int | None = None,
    ):
        """Set up the pairs to draw from.

        Arguments:
            sample_space: (lower, upper) pairs; None stands for 0 as lower and 1 as upper bound.
            weights: The probability of each pair; equal ones by default.
            rng: A generator or a seed, used where a call does not bring its own.

        Raises:
            ValueError: if an element is no pair, a lower bound exceeds its upper bound, or there
                are not as many weights as pairs.
        """
        self.sample_space = []
        for bounds in sample_space:
            if len(bounds) != 2:
                raise ValueError(
                    f"Every element of `sample_space` must be a pair of bounds; got {bounds!r}."
                )
            lower = 0.0 if bounds[0] is None else bounds[0]
            upper = 1.0 if bounds[1] is None else bounds[1]
            _check_bounds((lower, upper), "sample_space")
            self.sample_space.append([lower, upper])
        self.sample_space_size = len(self.sample_space)

        if weights is None:
            weights = [1.0 / self.sample_space_size] * self.sample_space_size
        if len(weights) != self.sample_space_size:
            raise ValueError(
                "`weights` must hold one probability for each pair of bounds: expected "
                f"{self.sample_space_size}, got {len(weights)}."
            )
        self.weights = weights
        self.rng = np.random.default_rng(rng)

    def __call__(self, rng: np.random.Generator | None = None) -> list[float]:
        """Draw one pair; returns [lower, upper]."""
        rng = self.rng if rng is None else rng
        return list(self.sample_space[rng.choice(self.sample_space_size, p=self.weights)])


class BoxFilter:
    """Keep the boxes that pass up to three tests: overlap with the image, area, extent.

    Example:
        >>> import numpy as np
        >>> from data_generator.object_detection_2d_image_boxes_validation_utils import BoxFilter
        >>> keep = BoxFilter(overlap_criterion="center_point", check_min_area=False)
        >>> labels = np.array([[1, -50, 10, 40, 60], [2, -10, 10, 80, 60]])
        >>> keep(labels, image_height=100, image_width=100)  # the first one's centre is outside
        array([[  2, -10,  10,  80,  60]])
    """

    def __init__(
        self,
        check_overlap: bool = True,
        check_min_area: bool = True,
        check_degenerate: bool = True,
        overlap_criterion: str = "center_point",
        overlap_bounds: Sequence[float] | BoundGenerator = (0.3, 1.0),
        min_area: float = 16,
        labels_format: Mapping[str, int] | None = None,
        border_pixels: str = "half",
    ):
        """Choose the tests.

        Arguments:
            check_overlap: Whether boxes must overlap the image as `overlap_criterion` demands.
            check_min_area: Whether boxes need an area of at least `min_area`.
            check_degenerate: Whether boxes with xmax <= xmin or ymax <= ymin are removed.
            overlap_criterion: ``'center_point'``, ``'area'`` or ``'iou'`` (see the module).
            overlap_bounds: (lower, upper) for ``'area'`` and ``'iou'``, or a `BoundGenerator`
                that draws them for each call.
            min_area: In square pixels, measured without a border effect.
            labels_format: Column positions by name.
            border_pixels: ``'half'``, ``'include'`` or ``'exclude'``, for the overlap criteria
                ``'area'`` and ``'iou'``.

        Raises:
            ValueError: if the criterion, the bounds or `border_pixels` are not as described.
        """
        _check_criterion(overlap_criterion, overlap_bounds, border_pixels)
        self.check_overlap = check_overlap
        self.check_min_area = check_min_area
        self.check_degenerate = check_degenerate
        self.overlap_criterion = overlap_criterion
        self.overlap_bounds = overlap_bounds
        self.min_area = min_area
        self.labels_format = dict(LABELS_FORMAT if labels_format is None else labels_format)
        self.border_pixels = border_pixels

    def __call__(
        self,
        labels: np.ndarray,
        image_height: int | None = None,
        image_width: int | None = None,
        rng: np.random.Generator | None = None,
    ) -> np.ndarray:
        """Filter the labels of one image.

        Arguments:
            labels: `(n, 5)` labels in the format `self.labels_format`, in pixels.
            image_height: In pixels; only the overlap test needs it.
            image_width: In pixels; only the overlap test needs it.
            rng: For the draws of a `BoundGenerator`.

        Returns:
            The rows that pass every test, in their order, as a new array.

        Raises:
            ValueError: if the overlap test has to be made without an image size.
        """
        labels = as_label_array(labels, self.labels_format)
        boxes = labels[:, box_columns(self.labels_format)]
        return labels[self.mask(boxes, image_height, image_width, rng)]

    def mask(
        self,
        boxes: np.ndarray,
        image_height: int | None = None,
        image_width: int | None = None,
        rng: np.random.Generator | None = None,
    ) -> np.ndarray:
        """Say which boxes pass.

        Arguments:
            boxes: `(n, 4)` corners (xmin, ymin, xmax, ymax) in pixels.
            image_height: As in a call.
            image_width: As in a call.
            rng: As in a call.

        Returns:
            `(n,)` bool.

        Raises:
            ValueError: if the overlap test has to be made without an image size.
        """
        boxes = widened(boxes)
        widths, heights = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
        keep = np.ones(len(boxes), bool)
        if self.check_degenerate:
            keep &= (widths > 0) & (heights > 0)
        if self.check_min_area:
            keep &= widths * heights >= self.min_area
        if self.check_overlap:
            if image_height is None or image_width is None:
                raise ValueError(
                    "The overlap of boxes with the image cannot be checked without `image_height` "
                    f"and `image_width`; got {image_height} and {image_width}. Pass them, or "
                    "build the BoxFilter with check_overlap=False."
                )
            bounds = self.overlap_bounds
            if isinstance(bounds, BoundGenerator):
                bounds = bounds(rng)
            keep &= overlaps(
                boxes, image_height, image_width, self.overlap_criterion, bounds, self.border_pixels
            )
        return keep


class ImageValidator:
    """Say whether an image, usually a patch of a larger one, still shows enough of the objects."""

    def __init__(
        self,
        overlap_criterion: str = "center_point",
        bounds: Sequence[float] | BoundGenerator = (0.3, 1.0),
        n_boxes_min: int | str = 1,
        labels_format: Mapping[str, int] | None = None,
        border_pixels: str = "half",
    ):
        """Choose the demands.

        Arguments:
            overlap_criterion: ``'center_point'``, ``'area'`` or ``'iou'`` (see the module).
            bounds: (lower, upper) for ``'area'`` and ``'iou'``, or a `BoundGenerator`. May be
                replaced at any time.
            n_boxes_min: How many boxes must meet the criterion: a positive number, or ``'all'``.
            labels_format: Column positions by name.
            border_pixels: ``'half'``, ``'include'`` or ``'exclude'``.

        Raises:
            ValueError: if an argument is not as described.
        """
        _check_criterion(overlap_criterion, bounds, border_pixels)
        is_count = isinstance(n_boxes_min, (int, np.integer)) and not isinstance(n_boxes_min, bool)
        if not (n_boxes_min == "all" or (is_count and n_boxes_min > 0)):
            raise ValueError(
                f"`n_boxes_min` must be a positive integer or 'all'; got {n_boxes_min!r}."
            )
        self.overlap_criterion = overlap_criterion
        self.bounds = bounds
        self.n_boxes_min = n_boxes_min
        self.labels_format = dict(LABELS_FORMAT if labels_format is None else labels_format)
        self.border_pixels = border_pixels

    def __call__(
        self,
        labels: np.ndarray,
        image_height: int,
        image_width: int,
        rng: np.random.Generator | None = None,
    ) -> bool:
        """Judge one image.

        Arguments:
            labels: `(n, 5)` labels in the format `self.labels_format`, in pixels of this image;
                boxes may reach beyond it.
            image_height: In pixels.
            image_width: In pixels.
            rng: For the draws of a `BoundGenerator`.

        Returns:
            Whether at least `n_boxes_min` boxes meet the criterion. No box at all is enough for
            ``'all'``.
        """
        labels = as_label_array(labels, self.labels_format)
        boxes = labels[:, box_columns(self.labels_format)]
        return self.accepts(boxes, image_height, image_width, rng)

    def accepts(
        self,
        boxes: np.ndarray,
        image_height: int,
        image_width: int,
        rng: np.random.Generator | None = None,
        bounds: Sequence[float] | None = None,
    ) -> bool:
        """Judge `(n, 4)` corners in pixels, by `bounds` if given instead of `self.bounds`."""
        size = np.array([image_height]), np.array([image_width])
        return bool(self.accepts_each(boxes[np.newaxis], *size, rng, bounds)[0])

    def accepts_each(
        self,
        boxes: np.ndarray,
        image_heights: np.ndarray,
        image_widths: np.ndarray,
        rng: np.random.Generator | None = None,
        bounds: Sequence[float] | None = None,
    ) -> np.ndarray:
        """Judge several images at once, such as different patches of the same image.

        Arguments:
            boxes: `(m, n, 4)` corners in pixels of each of the m images.
            image_heights: `(m,)` in pixels.
            image_widths: `(m,)` in pixels.
            rng: For the draws of a `BoundGenerator`, one for each image.
            bounds: (lower, upper) overlap to demand of all images instead of `self.bounds`.

        Returns:
            `(m,)` bool.
        """
        if bounds is None:
            bounds = self.bounds
            if isinstance(bounds, BoundGenerator):
                drawn = np.array([bounds(rng) for _ in boxes])  # (m, 2)
                bounds = drawn[:, :1], drawn[:, 1:]
        good = overlaps(
            boxes,
            image_heights[:, np.newaxis],
            image_widths[:, np.newaxis],
            self.overlap_criterion,
            bounds,
            self.border_pixels,
        )
        n_needed = boxes.shape[1] if self.n_boxes_min == "all" else self.n_boxes_min
        return np.count_nonzero(good, axis=1) >= n_needed


def overlaps(
    boxes: np.ndarray,
    image_height: int | np.ndarray,
    image_width: int | np.ndarray,
    criterion: str,
    bounds: Sequence[float | np.ndarray],
    border_pixels: str = "half",
) -> np.ndarray:
    """Say which boxes overlap an image enough.

    Arguments:
        boxes: `(..., 4)` corners (xmin, ymin, xmax, ymax) in pixels.
        image_height: In pixels; a number, or an array that broadcasts to the boxes.
        image_width: In pixels; likewise.
        criterion: ``'center_point'``, ``'area'`` or ``'iou'`` (see the module).
        bounds: (lower, upper); likewise. The upper one is included; the lower one is included for
            ``'area'`` unless it is 0, since a box outside the image must never pass.
        border_pixels: ``'half'``, ``'include'`` or ``'exclude'``.

    Returns:
        `(...)` bool.
    """
    boxes = widened(boxes)
    xmin, ymin, xmax, ymax = (boxes[..., side] for side in range(4))
    if criterion == "center_point":
        cx, cy = (xmin + xmax) / 2, (ymin + ymax) / 2
        return (cx >= 0) & (cx <= image_width - 1) & (cy >= 0) & (cy <= image_height - 1)

    lower, upper = bounds
    if criterion == "iou":
        image_boxes = np.zeros(boxes.shape, np.int64)
        image_boxes[..., 2] = image_width
        image_boxes[..., 3] = image_height
        pairs = image_boxes.reshape(-1, 4), boxes.reshape(-1, 4)
        shares = iou(*pairs, "corners", "element-wise", border_pixels).reshape(xmin.shape)
        return (shares > lower) & (shares <= upper)

    d = border_width(border_pixels)
    left, right = (np.clip(x, 0, image_width - 1) for x in (xmin, xmax))
    top, bottom = (np.clip(y, 0, image_height - 1) for y in (ymin, ymax))
    whole = (xmax - xmin + d) * (ymax - ymin + d)
    inside = (right - left + d) * (bottom - top + d)
    enough = np.where(np.equal(lower, 0), inside > 0, inside >= lower * whole)
    return enough & (inside <= upper * whole)


def _check_criterion(
    criterion: str, bounds: Sequence[float] | BoundGenerator, border_pixels: str
) -> None:
    if criterion not in OVERLAP_CRITERIA:
        raise ValueError(
            f"`overlap_criterion` must be one of {', '.join(OVERLAP_CRITERIA)}; got {criterion!r}."
        )
    border_width(border_pixels)  # raises for an unknown setting
    if isinstance(bounds, BoundGenerator):
        return
    if not (isinstance(bounds, (list, tuple)) and len(bounds) == 2):
        raise ValueError(
            "The overlap bounds must be a (lower, upper) pair in a list or tuple, or a "
            f"BoundGenerator; got {bounds!r}."
        )
    _check_bounds(bounds, "overlap bounds")


def _check_bounds(bounds: Sequence[float], name: str) -> None:
    if bounds[0] > bounds[1]:
        raise ValueError(
            f"A lower bound must not exceed its upper bound ({name}); got "
            f"lower={bounds[0]}, upper={bounds[1]}."
        )
