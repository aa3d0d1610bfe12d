"""Ground truth boxes in, training targets out: the tensor that `SSDLoss` compares predictions with.

For every anchor of the model the target holds

    [one-hot class | 4 offsets | 4 anchor coordinates | 4 variances]

so that targets and predictions have the same layout, `(batch, n_boxes, n_classes + 12)`, and either
can be decoded without knowing anything else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bounding_box_utils.bounding_box_utils import border_width, convert_coordinates
from ssd_encoder_decoder.anchors import AnchorGrid, AnchorSettings, anchor_boxes
from ssd_encoder_decoder.box_coder import encode_boxes
from ssd_encoder_decoder.matching_utils import NO_MATCH, match_bipartite_greedy, match_multi
from ssd_encoder_decoder.model_settings import read_model_settings

# What `SSDInputEncoder.match` says of an anchor that is left out of the loss.
NEUTRAL = -2
# The similarity of an anchor that has been given away: below every threshold.
_TAKEN = -1


class DegenerateBoxError(Exception):
    """A ground truth box has no area, or is not made of finite numbers."""


class ClassIdError(ValueError, IndexError):
    """A ground truth box has a class id that the encoder was not made for.

    An `IndexError`, too: that is how such an id came to light in the original library.
    """


class SSDInputEncoder:
    """Turns ground truth labels into the targets an SSD model is trained on.

    The anchor settings must be those of the model. `SSDInputEncoder.from_model(model)` reads them
    from it, which is the way that cannot go wrong.

    Example:
        >>> import numpy as np
        >>> from ssd_encoder_decoder.ssd_input_encoder import SSDInputEncoder
        >>> encoder = SSDInputEncoder(100, 200, n_classes=2, predictor_sizes=[(6, 12), (3, 6)])
        >>> labels = [np.array([[2, 20, 30, 60, 80]]), np.zeros((0, 5))]  # one object; none
        >>> targets = encoder(labels)
        >>> targets.shape  # images, anchors, (background, 2 classes) + 12
        (2, 360, 15)
        >>> targets[..., :3].sum(axis=1).astype(int)  # anchors of each class, neutral ones aside
        array([[354,   0,   1],
               [360,   0,   0]])
    """

    def __init__(
        self,
        img_height: int,
        img_width: int,
        n_classes: int,
        predictor_sizes: Sequence[Sequence[int]] | np.ndarray,
        min_scale: float | None = 0.1,
        max_scale: float | None = 0.9,
        scales: Sequence[float] | None = None,
        aspect_ratios_global: Sequence[float] | None = (0.5, 1.0, 2.0),
        aspect_ratios_per_layer: Sequence[Sequence[float]] | None = None,
        two_boxes_for_ar1: bool = True,
        steps: Sequence | None = None,
        offsets: Sequence | None = None,
        clip_boxes: bool = False,
        variances: Sequence[float] = (0.1, 0.1, 0.2, 0.2),
        matching_type: str = "multi",
        pos_iou_threshold: float = 0.5,
        neg_iou_limit: float = 0.3,
        border_pixels: str = "half",
        coords: str = "centroids",
        normalize_coords: bool = True,
        background_id: int = 0,
        min_bipartite_iou: float = 0.0,
    ):
        """Compute the anchors and everything about them that does not depend on the labels.

        Arguments:
            img_height: Height of the model's input images in pixels.
            img_width: Width of the model's input images in pixels.
            n_classes: Number of object classes, without the background class.
            predictor_sizes: (height, width) of every predictor layer's feature map.
            min_scale: Smallest anchor scale, a fraction of the shorter image side.
            max_scale: Largest anchor scale; the scales between are evenly spaced.
            scales: One scale a predictor layer and a last one; wins over min_scale, max_scale.
            aspect_ratios_global: Ratios width / height of the anchors of every layer.
            aspect_ratios_per_layer: One list of ratios a layer; wins over the global list.
            two_boxes_for_ar1: Whether ratio 1 gets a second, larger box.
            steps: For each layer None, or the pixels between anchor centres (number or pair).
            offsets: For each layer None, or the first centre's position in steps.
            clip_boxes: Whether anchors are clipped to the image.
            variances: Four constants that divide the offsets.
            matching_type: ``'multi'``: the best anchor of every object, and every other anchor
                that overlaps an object well enough. ``'bipartite'``: only the former.
            pos_iou_threshold: IoU from which an anchor is matched in ``'multi'`` matching.
            neg_iou_limit: An unmatched anchor that overlaps an object at least this much is
                neither object nor background: it is left out of the loss (*neutral*). Caffe's SSD
                has no neutral boxes, which is `neg_iou_limit = pos_iou_threshold`.
            border_pixels: ``'half'``, ``'include'`` or ``'exclude'``; applied in pixels.
            coords: Format in which boxes are encoded, ``'centroids'`` in the paper.
            normalize_coords: Whether anchors are given in fractions of the image.
            background_id: Column of the background class. The loss and the decoders expect 0.
            min_bipartite_iou: An object whose best free anchor overlaps it no more than this gets
                none (0: any overlap will do; Caffe: 1e-6).

        Raises:
            ValueError: naming the argument that is not as described.
        """
        sizes = np.asarray(predictor_sizes)
        self.predictor_sizes = sizes[np.newaxis] if sizes.ndim == 1 else sizes
        if self.predictor_sizes.ndim != 2 or self.predictor_sizes.shape[1] != 2:
            raise ValueError(
                "`predictor_sizes` must hold one (height, width) pair a predictor layer; "
                f"got an array of shape {sizes.shape}."
            )
        settings = AnchorSettings.from_arguments(
            n_layers=len(self.predictor_sizes),
            min_scale=min_scale,
            max_scale=max_scale,
            scales=scales,
            aspect_ratios_global=aspect_ratios_global,
            aspect_ratios_per_layer=aspect_ratios_per_layer,
            two_boxes_for_ar1=two_boxes_for_ar1,
            steps=steps,
            offsets=offsets,
            clip_boxes=clip_boxes,
            variances=variances,
            coords=coords,
            normalize_coords=normalize_coords,
        )
        if matching_type not in ("multi", "bipartite"):
            raise ValueError(
                f"`matching_type` must be 'multi' or 'bipartite'; got {matching_type!r}."
            )
        if not 0 <= background_id <= n_classes:
            raise ValueError(
                f"`background_id` must be in 0..{n_classes} for {n_classes} classes; "
                f"got {background_id}."
            )
        self._border = border_width(border_pixels)
        self._settings = settings
        self.img_height = img_height
        self.img_width = img_width
        self.n_classes = n_classes + 1  # with the background class
        self.min_scale = min_scale
        self.max_scale = max_scale
        self.scales = np.array(settings.scales)
        self.aspect_ratios = [list(ratios) for ratios in settings.aspect_ratios]
        self.two_boxes_for_ar1 = settings.two_boxes_for_ar1
        self.steps = list(settings.steps)
        self.offsets = list(settings.offsets)
        self.clip_boxes = settings.clip_boxes
        self.variances = np.array(settings.variances)
        self.matching_type = matching_type
        self.pos_iou_threshold = pos_iou_threshold
        self.neg_iou_limit = neg_iou_limit
        self.border_pixels = border_pixels
        self.coords = coords
        self.normalize_coords = settings.normalize_coords
        self.background_id = background_id
        self.min_bipartite_iou = min_bipartite_iou
        per_layer = aspect_ratios_per_layer is not None and len(aspect_ratios_per_layer) > 0
        self.n_boxes = list(settings.n_boxes) if per_layer else settings.n_boxes[0]

        grids = [
            self._anchor_grid(tuple(size), **settings.layer_arguments(layer))
            for layer, size in enumerate(self.predictor_sizes.tolist())
        ]
        self.boxes_list = [grid.boxes for grid in grids]
        self.wh_list_diag = [grid.shapes for grid in grids]
        self.steps_diag = [grid.steps for grid in grids]
        self.offsets_diag = [grid.offsets for grid in grids]
        self.centers_diag = [grid.centers for grid in grids]
        self._prepare(np.concatenate([boxes.reshape(-1, 4) for boxes in self.boxes_list]))

    @classmethod
    def from_model(cls, model: Any, **overrides: Any) -> SSDInputEncoder:
        """Build the encoder that fits a model, from what the model itself says.

        Image size, number of classes, feature map sizes and every anchor setting are read back
        from the model's layers, also from a model loaded from a file.

        Arguments:
            model: A model of any mode made by one of the builders in `models`.
            **overrides: Constructor arguments about matching (`pos_iou_threshold`,
                `neg_iou_limit`, `matching_type`, ...), or others if you know what you do.

        Returns:
            The encoder.

        Raises:
            ValueError: if the model has no `AnchorBoxes` layers or no `predictions` layer.
        """
        settings = read_model_settings(model)
        anchors = settings.anchors
        arguments = {
            "img_height": settings.img_height,
            "img_width": settings.img_width,
            "n_classes": settings.n_classes,
            "predictor_sizes": settings.predictor_sizes,
            "scales": anchors.scales,
            "aspect_ratios_per_layer": anchors.aspect_ratios,
            "two_boxes_for_ar1": anchors.two_boxes_for_ar1,
            "steps": anchors.steps,
            "offsets": anchors.offsets,
            "clip_boxes": anchors.clip_boxes,
            "variances": anchors.variances,
            "coords": anchors.coords,
            "normalize_coords": anchors.normalize_coords,
        }
        return cls(**{**arguments, **overrides})

    def generate_anchor_boxes_for_layer(
        self,
        feature_map_size: tuple[int, int],
        aspect_ratios: Sequence[float],
        this_scale: float,
        next_scale: float,
        this_steps: float | Sequence[float] | None = None,
        this_offsets: float | Sequence[float] | None = None,
        diagnostics: bool = False,
    ) -> np.ndarray | tuple:
        """Compute the anchors of one predictor layer with this encoder's image and settings.

        Arguments:
            feature_map_size: (height, width) of the feature map.
            aspect_ratios: Ratios width / height of the anchors.
            this_scale: Scale of this layer, a fraction of the shorter image side.
            next_scale: Scale of the next layer.
            this_steps: None, a number, or (vertical, horizontal), in pixels.
            this_offsets: None, a number, or (vertical, horizontal), in steps.
            diagnostics: Whether to return the numbers behind the anchors, too.

        Returns:
            float64 `(height, width, n_boxes, 4)` anchors; with `diagnostics` the tuple
            (anchors, (cy, cx), widths and heights `(n_boxes, 2)`, steps, offsets), in pixels.
        """
        grid = self._anchor_grid(
            feature_map_size,
            **{
                **self._settings.layer_arguments(0),
                "aspect_ratios": aspect_ratios,
                "this_scale": this_scale,
                "next_scale": next_scale,
                "this_steps": this_steps,
                "this_offsets": this_offsets,
            },
        )
        if diagnostics:
            return grid.boxes, grid.centers, grid.shapes, grid.steps, grid.offsets
        return grid.boxes

    def _anchor_grid(self, feature_map_size: tuple[int, int], **arguments: Any) -> AnchorGrid:
        return anchor_boxes(feature_map_size, (self.img_height, self.img_width), **arguments)

    def _prepare(self, anchors: np.ndarray) -> None:
        """Set up what every call needs: the template and the anchors' corners in pixels."""
        self._anchors = anchors  # (n_boxes, 4) float64, in `coords`
        n_boxes = len(anchors)
        template = np.zeros((n_boxes, self.n_classes + 12), dtype=np.float32)
        template[:, -8:-4] = anchors
        template[:, -4:] = self.variances
        self._template = template
        self._background_template = template.copy()
        self._background_template[:, self.background_id] = 1

        # Matching happens in pixels, whatever the format and unit of the encoding.
        corners = anchors
        if self.coords != "corners":
            corners = convert_coordinates(corners, 0, f"{self.coords}2corners")
        if self.normalize_coords:
            corners = corners * self._image_scale
        # One contiguous float32 row for each of xmin, ymin, xmax, ymax: matching is bound by
        # memory traffic, and IoUs need no more precision than that.
        self._anchor_edges = np.ascontiguousarray(corners.T, dtype=np.float32)
        widths = corners[:, 2] - corners[:, 0] + self._border
        heights = corners[:, 3] - corners[:, 1] + self._border
        self._anchor_areas = (widths * heights).astype(np.float32)

    @property
    def _image_scale(self) -> np.ndarray:
        """(xmin, ymin, xmax, ymax) in pixels of a box that covers the whole image in fractions."""
        return np.array([self.img_width, self.img_height] * 2, dtype=np.float64)

    def generate_encoding_template(self, batch_size: int, diagnostics: bool = False):
        """Make a target tensor without any classes: zeros, then anchors where boxes will be.

        Arguments:
            batch_size: Number of images.
            diagnostics: Whether to return the numbers behind the anchors, too.

        Returns:
            float32 `(batch_size, n_boxes, n_classes + 12)`: zeros for the classes | anchors in the
            place of the offsets | anchors | variances. With `diagnostics` the tuple (template,
            centers_diag, wh_list_diag, steps_diag, offsets_diag).
        """
        template = np.repeat(self._template[np.newaxis], batch_size, axis=0)
        template[..., -12:-8] = template[..., -8:-4]
        if diagnostics:
            return (
                template,
                self.centers_diag,
                self.wh_list_diag,
                self.steps_diag,
                self.offsets_diag,
            )
        return template

    def __call__(
        self,
        ground_truth_labels: Sequence[np.ndarray],
        diagnostics: bool = False,
        empty: Callable[..., np.ndarray] = np.empty,
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Encode the labels of a batch of images.

        Arguments:
            ground_truth_labels: For each image an array `(k, 5)` with rows (class_id, xmin, ymin,
                xmax, ymax) in absolute pixels; an empty array for an image without objects.
            diagnostics: Whether to return the matched anchors, too.
            empty: `empty(shape, dtype)` makes the array of the targets, for those who want it in
                memory of their own.

        Returns:
            float32 `(batch, n_boxes, n_classes + 12)` targets: one-hot classes (all zeros for a
            neutral anchor) | offsets | anchors | variances. With `diagnostics` also a copy of it
            whose offsets are all zero: decoding that shows the matched anchors themselves.

        Raises:
            DegenerateBoxError: if a box has no width or no height, or a coordinate is not finite.
            ClassIdError: (a ValueError) if a class id is out of range, or the background's.
            ValueError: if labels have another shape. All three name the image's position in the
                batch, the first two also the box and its values.
        """
        template = self._background_template
        y_encoded = empty((len(ground_truth_labels), *template.shape), template.dtype)
        y_encoded[:] = template
        for i, labels in enumerate(ground_truth_labels):
            labels = np.asarray(labels, dtype=np.float64)
            if labels.size > 0:
                self._check_labels(labels, i)
                self._encode_image(y_encoded[i], labels)
        if diagnostics:
            y_matched_anchors = y_encoded.copy()
            y_matched_anchors[..., -12:-8] = 0
            return y_encoded, y_matched_anchors
        return y_encoded

    def _encode_image(self, target: np.ndarray, labels: np.ndarray) -> None:
        """Write the classes and offsets of one image's objects into its `(n_boxes, ...)` target."""
        matches = self.match(labels[:, 1:])
        target[matches == NEUTRAL, self.background_id] = 0
        anchors = np.flatnonzero(matches >= 0)
        objects = matches[anchors]
        target[anchors, : self.n_classes] = 0
        target[anchors, labels[objects, 0].astype(np.int64)] = 1
        target[anchors, -12:-8] = encode_boxes(
            self._in_anchor_format(labels[objects, 1:]),
            self._anchors[anchors],
            self.variances,
            self.coords,
        )

    def match(self, boxes: np.ndarray) -> np.ndarray:
        """Find for every anchor the box that it is matched with, if there is one.

        The targets are made by it, and so can be others: what else each anchor is to learn of its
        object.

        Arguments:
            boxes: `(k, 4)` boxes of one image as (xmin, ymin, xmax, ymax) in pixels.

        Returns:
            int64 `(n_boxes,)`: the row of the box, `NO_MATCH` (-1) for background, `NEUTRAL` (-2)
            for an anchor that the loss leaves out.

        Example:
            Every anchor learns the angle of its object:

            >>> import numpy as np
            >>> from ssd_encoder_decoder.ssd_input_encoder import SSDInputEncoder
            >>> encoder = SSDInputEncoder(100, 200, n_classes=2, predictor_sizes=[(6, 12), (3, 6)])
            >>> boxes = np.array([[20, 30, 60, 80], [120, 10, 180, 90]])
            >>> angles = np.array([0.1, -0.4])
            >>> matches = encoder.match(boxes)
            >>> targets = np.where(matches >= 0, angles[matches], 0)
            >>> targets.shape, sorted(set(targets.tolist()))
            ((360,), [-0.4, 0.0, 0.1])
        """
        matches = np.full(len(self._anchors), NO_MATCH, dtype=np.int64)
        if len(boxes) == 0:
            return matches
        similarities = self.similarities(boxes)  # (k, n_boxes)

        # First every object gets its best anchor, so that none goes without.
        best_anchors = match_bipartite_greedy(similarities, self.min_bipartite_iou)
        objects = np.flatnonzero(best_anchors != NO_MATCH)
        anchors = best_anchors[objects]
        matches[anchors] = objects
        similarities[:, anchors] = _TAKEN

        # Then every anchor that fits some object well gets that object.
        if self.matching_type == "multi":
            objects, anchors = match_multi(similarities, self.pos_iou_threshold)
            matches[anchors] = objects
            similarities[:, anchors] = _TAKEN

        # Anchors that fit an object half-way would be unfair examples of background.
        is_free = matches == NO_MATCH
        matches[is_free & (similarities.max(axis=0) >= self.neg_iou_limit)] = NEUTRAL
        return matches

    def similarities(self, boxes: np.ndarray) -> np.ndarray:
        """Compute the IoU of boxes with all anchors, which is what matching goes by.

        Arguments:
            boxes: `(k, 4)` boxes as (xmin, ymin, xmax, ymax) in pixels.

        Returns:
            float32 `(k, n_boxes)`.
        """
        edges = np.asarray(boxes, np.float32)[:, :, np.newaxis]  # (k, 4, 1)
        xmin, ymin, xmax, ymax = self._anchor_edges
        widths = np.minimum(edges[:, 2], xmax)
        widths -= np.maximum(edges[:, 0], xmin)
        heights = np.minimum(edges[:, 3], ymax)
        heights -= np.maximum(edges[:, 1], ymin)
        if self._border:
            widths += self._border
            heights += self._border
        np.maximum(widths, 0, out=widths)
        np.maximum(heights, 0, out=heights)
        intersections = np.multiply(widths, heights, out=widths)
        areas = (edges[:, 2] - edges[:, 0] + self._border) * (
            edges[:, 3] - edges[:, 1] + self._border
        )
        unions = np.subtract(areas + self._anchor_areas, intersections, out=heights)
        return np.divide(intersections, unions, out=intersections)

    def _in_anchor_format(self, boxes: np.ndarray) -> np.ndarray:
        """Bring `(k, 4)` boxes (corners, pixels) to the anchors' format and unit.

        The border effect is a matter of pixels, so it comes before the normalisation.
        """
        image_size = self._image_scale  # centroids: (cx, cy, w, h) are scaled alike
        if self.coords != "corners":
            boxes = convert_coordinates(boxes, 0, f"corners2{self.coords}", self.border_pixels)
        if self.coords == "minmax":
            image_size = image_size[[0, 2, 1, 3]]
        return boxes / image_size if self.normalize_coords else boxes

    def _check_labels(self, labels: np.ndarray, image: int) -> None:
        """Refuse labels that no target can be made of."""
        if labels.ndim != 2 or labels.shape[1] != 5:
            raise ValueError(
                f"Labels must have shape (k, 5): class_id, xmin, ymin, xmax, ymax. "
                f"Those of image {image} of the batch have shape {labels.shape}."
            )
        # With border_pixels='exclude' a box must be more than one pixel wide to have any width.
        least = max(0, -self._border)
        has_area = (labels[:, 3:5] > labels[:, 1:3] + least).all(axis=1)
        degenerate = ~(has_area & np.isfinite(labels).all(axis=1))
        if degenerate.any():
            box = int(np.argmax(degenerate))
            at_least = f" by more than {least} pixel (border_pixels='exclude')" if least else ""
            raise DegenerateBoxError(
                f"Box {box} of image {image} of the batch has no area or a coordinate that is not "
                f"finite: (class_id, xmin, ymin, xmax, ymax) = {labels[box].tolist()}. Expected "
                f"xmin < xmax and ymin < ymax{at_least}. Let the data generator remove such boxes "
                "(degenerate_box_handling='remove') or correct the annotation."
            )
        wrong = (labels[:, 0] < 0) | (labels[:, 0] >= self.n_classes)
        wrong |= labels[:, 0] != np.floor(labels[:, 0])
        wrong |= labels[:, 0] == self.background_id
        if wrong.any():
            box = int(np.argmax(wrong))
            raise ClassIdError(
                f"Box {box} of image {image} of the batch has class id {labels[box, 0]:g}, but "
                f"this encoder was made for {self.n_classes - 1} classes: expected a whole number "
                f"in 0..{self.n_classes - 1} other than {self.background_id}, the background. "
                "`n_classes` counts object classes without the background; if your ids start "
                "at 0, or if you included only some classes, map them to 1..n "
                "(remap_classes=True of the parsers)."
            )
