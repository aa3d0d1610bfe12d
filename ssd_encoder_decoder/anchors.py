"""Anchor boxes: their shapes, their centres, and the settings that describe them.

SSD lays the same few boxes of different shapes (anchors; the paper calls them default boxes, the
Caffe code priors) over every cell of several feature maps: small ones on the fine maps, large ones
on the coarse maps (paper, section 2.2). This module is the only place that computes them; the
`AnchorBoxes` layer and the `SSDInputEncoder` both call it, so they cannot disagree.
"""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bounding_box_utils.bounding_box_utils import check_box_format, convert_coordinates

Pair = tuple[float, float]


def anchors_per_cell(aspect_ratios: Sequence[float], two_boxes_for_ar1: bool) -> int:
    """Count the anchors of one feature map cell: one a ratio, and a second one for ratio 1."""
    return sum(2 if ratio == 1 and two_boxes_for_ar1 else 1 for ratio in aspect_ratios)


def anchor_shapes(
    size: float,
    aspect_ratios: Sequence[float],
    this_scale: float,
    next_scale: float,
    two_boxes_for_ar1: bool = True,
) -> np.ndarray:
    """Compute the widths and heights of the anchors of one feature map.

    All boxes of one scale s have the area (s * size)^2: a ratio r = width / height gives
    width = s * size * sqrt(r) and height = s * size / sqrt(r). Ratio 1 gets a second, larger box
    whose scale is the geometric mean of this map's and the next map's (paper, section 2.2).

    Arguments:
        size: The length that scales refer to, in pixels: the shorter side of the image.
        aspect_ratios: Ratios width / height, in the order of the predictor's channels.
        this_scale: Scale of this feature map, a fraction of `size`.
        next_scale: Scale of the next coarser feature map.
        two_boxes_for_ar1: Whether ratio 1 gets its second box, right after the first.

    Returns:
        float64 `(n_boxes, 2)` array of (width, height) in pixels.

    Example:
        One shape for each ratio, and a second, larger square:

        >>> from ssd_encoder_decoder.anchors import anchor_shapes
        >>> anchor_shapes(300, (1, 2, 0.5), this_scale=0.2, next_scale=0.37).round(1)
        array([[60. , 60. ],
               [81.6, 81.6],
               [84.9, 42.4],
               [42.4, 84.9]])
    """
    shapes = []
    for ratio in aspect_ratios:
        shapes.append((this_scale * size * np.sqrt(ratio), this_scale * size / np.sqrt(ratio)))
        if ratio == 1 and two_boxes_for_ar1:
            side = np.sqrt(this_scale * next_scale) * size
            shapes.append((side, side))
    return np.array(shapes, dtype=np.float64)


def pair_of(value: float | Sequence[float] | None, default: Pair, name: str) -> Pair:
    """Read a setting that may be one number for both axes, a (vertical, horizontal) pair or None.

    Arguments:
        value: None, a number (NumPy scalars included) or two numbers.
        default: What None stands for.
        name: The argument's name, for the error message.

    Returns:
        (vertical, horizontal) as floats.

    Raises:
        ValueError: for anything else.
    """
    if value is None:
        return default
    if isinstance(value, numbers.Real):
        return float(value), float(value)
    if np.ndim(value) == 0 and np.issubdtype(np.asarray(value).dtype, np.number):
        return float(value), float(value)
    if np.ndim(value) == 1 and len(value) == 2:
        return float(value[0]), float(value[1])
    raise ValueError(
        f"`{name}` must be None, a number, or a pair (vertical, horizontal); got {value!r}."
    )


@dataclass(frozen=True)
class AnchorGrid:
    """The anchors of one feature map, with the numbers they were made from.

    Attributes:
        boxes: float64 `(height, width, n_boxes, 4)` anchors.
        centers: (cy, cx): the cell centres in pixels, `(height,)` and `(width,)`.
        shapes: `(n_boxes, 2)` array of (width, height) in pixels, before any clipping.
        steps: (vertical, horizontal) distance between neighbouring centres in pixels.
        offsets: (vertical, horizontal) position of the first centre, in steps.
    """

    boxes: np.ndarray
    centers: tuple[np.ndarray, np.ndarray]
    shapes: np.ndarray
    steps: Pair
    offsets: Pair


def anchor_boxes(
    feature_map_size: tuple[int, int],
    image_size: tuple[int, int],
    aspect_ratios: Sequence[float],
    this_scale: float,
    next_scale: float,
    two_boxes_for_ar1: bool = True,
    this_steps: float | Sequence[float] | None = None,
    this_offsets: float | Sequence[float] | None = None,
    clip_boxes: bool = False,
    coords: str = "centroids",
    normalize_coords: bool = True,
) -> AnchorGrid:
    """Compute the anchors of one feature map.

    Arguments:
        feature_map_size: (height, width) of the feature map in cells.
        image_size: (height, width) of the network's input in pixels.
        aspect_ratios: Ratios width / height of the anchors in a cell.
        this_scale: Scale of this map's anchors, a fraction of the image's shorter side.
        next_scale: Scale of the next coarser map (for the second box of ratio 1).
        two_boxes_for_ar1: Whether ratio 1 gets two boxes.
        this_steps: Pixels between neighbouring centres: a number, a (vertical, horizontal) pair,
            or None to spread the centres evenly over the image.
        this_offsets: Position of the first centre in steps from the top left corner, a number or
            a pair; None is 0.5, the centre of the first cell.
        clip_boxes: Whether boxes that reach beyond the image are cut off at its last pixel.
        coords: Format of the result: ``'centroids'``, ``'corners'`` or ``'minmax'``.
        normalize_coords: Whether the result is in fractions of the image, not pixels.

    Returns:
        An `AnchorGrid`.

    Raises:
        ValueError: if `coords`, `this_steps` or `this_offsets` is not as described.

    Example:
        Squares of 60 pixels over a map of 2 x 3 cells; the boxes of the first row:

        >>> from ssd_encoder_decoder.anchors import anchor_boxes
        >>> grid = anchor_boxes(
        ...     (2, 3), (200, 300), (1,), 0.3, 0.6, two_boxes_for_ar1=False, normalize_coords=False
        ... )
        >>> grid.boxes.shape  # rows of cells, columns of cells, boxes of a cell, coordinates
        (2, 3, 1, 4)
        >>> grid.boxes[0, :, 0]  # centre and size, in pixels
        array([[ 50.,  50.,  60.,  60.],
               [150.,  50.,  60.,  60.],
               [250.,  50.,  60.,  60.]])
    """
    check_box_format(coords)
    map_height, map_width = feature_map_size
    image_height, image_width = image_size
    shapes = anchor_shapes(
        min(image_height, image_width), aspect_ratios, this_scale, next_scale, two_boxes_for_ar1
    )
    steps = pair_of(this_steps, (image_height / map_height, image_width / map_width), "steps")
    offsets = pair_of(this_offsets, (0.5, 0.5), "offsets")
    cy, cx = (
        np.linspace(offset * step, (offset + cells - 1) * step, cells)
        for offset, step, cells in zip(offsets, steps, feature_map_size, strict=True)
    )

    boxes = np.empty((map_height, map_width, len(shapes), 4))
    boxes[..., 0] = cx[np.newaxis, :, np.newaxis]
    boxes[..., 1] = cy[:, np.newaxis, np.newaxis]
    boxes[..., 2:] = shapes
    boxes = convert_coordinates(boxes, 0, "centroids2corners")
    if clip_boxes:
        for axis, length in ((0, image_width), (1, image_height)):
            edges = boxes[..., axis::2]  # the min and the max edge on this axis
            edges[edges >= length] = length - 1
            edges[edges < 0] = 0
    if normalize_coords:
        boxes /= (image_width, image_height, image_width, image_height)
    if coords != "corners":
        boxes = convert_coordinates(boxes, 0, f"corners2{coords}")
    return AnchorGrid(boxes, (cy, cx), shapes, steps, offsets)


@dataclass(frozen=True)
class AnchorSettings:
    """Everything that describes the anchors of a model except its image and feature map sizes.

    Make one with `AnchorSettings.from_arguments`, which validates.

    Attributes:
        scales: `n_layers + 1` scales, fractions of the image's shorter side; the last one serves
            the second box of ratio 1 on the last layer.
        aspect_ratios: For each layer the ratios width / height.
        two_boxes_for_ar1: Whether ratio 1 gets a second, larger box.
        steps: For each layer None, a number or a pair (see `anchor_boxes`).
        offsets: Likewise.
        clip_boxes: Whether anchors are clipped to the image.
        variances: The four constants that divide the offsets.
        coords: ``'centroids'``, ``'corners'`` or ``'minmax'``.
        normalize_coords: Whether coordinates are fractions of the image.
    """

    scales: tuple[float, ...]
    aspect_ratios: tuple[tuple[float, ...], ...]
    two_boxes_for_ar1: bool
    steps: tuple
    offsets: tuple
    clip_boxes: bool
    variances: tuple[float, float, float, float]
    coords: str
    normalize_coords: bool

    @classmethod
    def from_arguments(
        cls,
        n_layers: int,
        min_scale: float | None,
        max_scale: float | None,
        scales: Sequence[float] | None,
        aspect_ratios_global: Sequence[float] | None,
        aspect_ratios_per_layer: Sequence[Sequence[float]] | None,
        two_boxes_for_ar1: bool,
        steps: Sequence | None,
        offsets: Sequence | None,
        clip_boxes: bool,
        variances: Sequence[float],
        coords: str,
        normalize_coords: bool,
    ) -> AnchorSettings:
        """Validate the arguments that builders and encoder share, and fill in what is derived.

        Arguments:
            n_layers: Number of predictor layers.
            min_scale: Smallest scale, if `scales` is not given.
            max_scale: Largest scale (of the extra last one), if `scales` is not given.
            scales: `n_layers + 1` scales; wins over `min_scale` and `max_scale`.
            aspect_ratios_global: One list of ratios for all layers.
            aspect_ratios_per_layer: One list of ratios a layer; wins over the global list.
            two_boxes_for_ar1: As the attribute.
            steps: One entry a layer, or None for all.
            offsets: One entry a layer, or None for all.
            clip_boxes: As the attribute.
            variances: Four positive numbers.
            coords: As the attribute.
            normalize_coords: As the attribute.

        Returns:
            The settings.

        Raises:
            ValueError: naming the argument, what was expected and what was given.
        """
        # An empty list counts as "not given", as it always has.
        has_scales = scales is not None and len(scales) > 0
        has_layer_ratios = aspect_ratios_per_layer is not None and len(aspect_ratios_per_layer) > 0
        if not has_layer_ratios and aspect_ratios_global is None:
            raise ValueError(
                "`aspect_ratios_global` and `aspect_ratios_per_layer` cannot both be None."
            )
        if not has_scales and (min_scale is None or max_scale is None):
            raise ValueError("Give either `scales` or both `min_scale` and `max_scale`.")
        if has_scales:
            _check_length("scales", scales, n_layers + 1, "one a predictor layer and a last one")
            _check_positive("scales", scales)
        else:
            if not 0 < min_scale <= max_scale:
                raise ValueError(
                    "Expected 0 < min_scale <= max_scale; "
                    f"got min_scale={min_scale}, max_scale={max_scale}."
                )
            scales = np.linspace(min_scale, max_scale, n_layers + 1)
        if has_layer_ratios:
            _check_length("aspect_ratios_per_layer", aspect_ratios_per_layer, n_layers)
            layer_ratios = aspect_ratios_per_layer
        else:
            layer_ratios = [aspect_ratios_global] * n_layers
        for ratios in layer_ratios:
            _check_positive("aspect ratios", ratios)
        _check_length("variances", variances, 4, "for x, y, width and height")
        _check_positive("variances", variances)
        check_box_format(coords)
        for name, values in (("steps", steps), ("offsets", offsets)):
            if values is not None:
                _check_length(name, values, n_layers)
                for value in values:
                    pair_of(value, (0.0, 0.0), name)
        return cls(
            scales=tuple(float(scale) for scale in scales),
            aspect_ratios=tuple(tuple(float(r) for r in ratios) for ratios in layer_ratios),
            two_boxes_for_ar1=bool(two_boxes_for_ar1),
            steps=(None,) * n_layers if steps is None else tuple(_plain(v) for v in steps),
            offsets=(None,) * n_layers if offsets is None else tuple(_plain(v) for v in offsets),
            clip_boxes=bool(clip_boxes),
            variances=tuple(float(v) for v in variances),
            coords=coords,
            normalize_coords=bool(normalize_coords),
        )

    @property
    def n_layers(self) -> int:
        """The number of predictor layers."""
        return len(self.aspect_ratios)

    @property
    def n_boxes(self) -> tuple[int, ...]:
        """The number of anchors in a cell of each predictor layer."""
        return tuple(anchors_per_cell(r, self.two_boxes_for_ar1) for r in self.aspect_ratios)

    def layer_arguments(self, layer: int) -> dict:
        """Return the keyword arguments with which `anchor_boxes` makes the anchors of one layer."""
        return {
            "aspect_ratios": self.aspect_ratios[layer],
            "this_scale": self.scales[layer],
            "next_scale": self.scales[layer + 1],
            "two_boxes_for_ar1": self.two_boxes_for_ar1,
            "this_steps": self.steps[layer],
            "this_offsets": self.offsets[layer],
            "clip_boxes": self.clip_boxes,
            "coords": self.coords,
            "normalize_coords": self.normalize_coords,
        }


def _plain(value: object) -> float | tuple[float, float] | None:
    """Turn NumPy scalars and arrays into plain numbers and tuples, which any file format holds."""
    if value is None:
        return None
    return float(value) if np.ndim(value) == 0 else tuple(float(v) for v in value)


def _check_length(name: str, values: Sequence, expected: int, why: str = "one a layer") -> None:
    if len(values) != expected:
        raise ValueError(
            f"`{name}` must have {expected} entries ({why}); got {len(values)}: {values}."
        )


def _check_positive(name: str, values: Sequence[float]) -> None:
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0 or not np.all(array > 0):
        raise ValueError(f"All {name} must be greater than 0; got {list(values)}.")
