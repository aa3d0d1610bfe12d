"""Why a network does not learn: does the data set fit the anchors, and is it what it seems?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from bounding_box_utils.bounding_box_utils import convert_coordinates
from data_generator.dataset_statistics import FoundBox
from data_generator.detection_dataset import DetectionDataset
from data_generator.object_detection_2d_geometric_ops import Resize
from misc_utils.coordinate_check import suspect_coordinates
from misc_utils.drawing import draw_matches
from misc_utils.resized_labels import corner_labels
from ssd_encoder_decoder.ssd_input_encoder import SSDInputEncoder

if TYPE_CHECKING:
    import keras

# Upper limits of the size bins: square roots of the share of the image area.
_SIZE_BINS = (0.05, 0.1, 0.2, 0.4, 1.0)
_MAX_IMAGES = 1000
_MAX_LINES = 40
# From these shares on nobody needs other anchors: of all boxes, and of those of a class.
_ENOUGH, _ENOUGH_OF_CLASS = 0.95, 0.8


@dataclass(frozen=True)
class UnmatchedBox:
    """A ground truth box that no anchor fits well enough.

    Attributes:
        found: Where it is; its label is in pixels of the image file.
        size: (width, height) in pixels of the network's input.
        best_iou: Its IoU with the anchor that fits it best.
    """

    found: FoundBox
    size: tuple[float, float]
    best_iou: float

    def __str__(self) -> str:
        width, height = self.size
        return f"{self.found}: {width:.0f} x {height:.0f} pixels, best IoU {self.best_iou:.2f}"


@dataclass(frozen=True)
class Diagnosis:
    """What `diagnose` found; `str()` of it is a report that ends with what to do.

    Attributes:
        image_size: (height, width) of the network's input.
        iou_threshold: The IoU from which an anchor is matched to a box.
        n_images: How many images were looked at.
        class_names: Names by class id, or None.
        class_ids: int64 `(n,)`: the classes of the boxes that have an area.
        box_sizes: float64 `(n,)`: square roots of their shares of the image area.
        best_ious: float32 `(n,)`: the IoU of each with the anchor that fits it best.
        unmatched: The boxes below the threshold, the worst first.
        degenerate_boxes: Boxes of no width or height, or with coordinates that are not finite.
        wrong_class_ids: Boxes of a class that the encoder was not made for.
        suspicions: What the coordinates may really be, in sentences.
    """

    image_size: tuple[int, int]
    iou_threshold: float
    n_images: int
    class_names: Sequence[str] | None
    class_ids: np.ndarray
    box_sizes: np.ndarray
    best_ious: np.ndarray
    unmatched: list[UnmatchedBox] = field(repr=False)
    degenerate_boxes: list[FoundBox] = field(repr=False)
    wrong_class_ids: list[FoundBox] = field(repr=False)
    suspicions: list[str]

    @property
    def recall(self) -> float:
        """The share of boxes that some anchor fits well enough; NaN without boxes."""
        return _share(self.best_ious >= self.iou_threshold)

    @property
    def recall_per_class(self) -> dict[int, tuple[int, float]]:
        """{class id: (number of boxes, share of them that some anchor fits)}."""
        good = self.best_ious >= self.iou_threshold
        return {
            class_id: (
                int((self.class_ids == class_id).sum()),
                _share(good[self.class_ids == class_id]),
            )
            for class_id in np.unique(self.class_ids).tolist()
        }

    @property
    def recall_per_size(self) -> dict[tuple[float, float], tuple[int, float]]:
        """The same by size: {(from, to): (number, share)}; square roots of area shares."""
        good = self.best_ious >= self.iou_threshold
        table = {}
        for low, high in zip((0.0, *_SIZE_BINS), (*_SIZE_BINS, np.inf), strict=False):
            inside = (self.box_sizes > low) & (self.box_sizes <= high)
            if inside.any():
                table[low, high] = int(inside.sum()), _share(good[inside])
        return table

    @property
    def cures(self) -> list[str]:
        """What to do, most important first; one sentence of praise if nothing is wrong."""
        cures = list(self.suspicions)
        if self.wrong_class_ids:
            cures.append(
                f"{len(self.wrong_class_ids)} boxes have class ids that the encoder was not made "
                f"for; the first is {self.wrong_class_ids[0]}. Class ids are 1..n_classes: parse "
                "with remap_classes=True, or build the model with more classes"
            )
        if self.degenerate_boxes:
            cures.append(
                f"{len(self.degenerate_boxes)} boxes have no area; the first is "
                f"{self.degenerate_boxes[0]}. Parse with on_invalid_boxes='drop'"
            )
        if len(self.best_ious) and (self.recall < _ENOUGH or self._worst_classes()):
            height, width = self.image_size
            cures.append(
                f"{1 - self.recall:.0%} of the boxes have no anchor with an IoU of "
                f"{self.iou_threshold:g}: each of them trains one badly fitting anchor at most."
                f"{self._worst_size()}{self._worst_classes()} Ask "
                f"misc_utils.anchor_design.suggest_anchors(dataset, ({height}, {width}), ...) for "
                "scales and aspect ratios; if boxes are small, enlarge the input, or predict from "
                "an earlier layer"
            )
        if not len(self.best_ious):
            cures.append("There is no box with an area: is the data set loaded with its labels?")
        return cures or ["Nothing suspicious: the anchors fit the boxes."]

    def _worst_size(self) -> str:
        (low, high), (n, share) = min(self.recall_per_size.items(), key=lambda item: item[1][1])
        sides = " to ".join(f"{x * np.sqrt(np.prod(self.image_size)):.0f}" for x in (low, high))
        if not np.isfinite(high):
            return ""
        return f" Worst off are the {n} boxes of a size of {sides} pixels ({share:.0%} have one)."

    def _worst_classes(self) -> str:
        bad = {
            c: share for c, (_, share) in self.recall_per_class.items() if share < _ENOUGH_OF_CLASS
        }
        if not bad:
            return ""
        worst = sorted(bad, key=bad.get)[:5]
        listed = ", ".join(f"{self._class_name(c)} {bad[c]:.0%}" for c in worst)
        return f" Classes with the fewest: {listed}."

    def _class_name(self, class_id: int) -> str:
        known = self.class_names is not None and 0 <= class_id < len(self.class_names)
        return f"{class_id} {self.class_names[class_id]}" if known else str(class_id)

    def __str__(self) -> str:
        height, width = self.image_size
        lines = [
            f"{self.n_images} images, {len(self.best_ious)} boxes with an area; network input "
            f"{height} x {width} pixels (height x width)",
        ]
        if len(self.best_ious):
            lines += [
                f"Boxes with an anchor of IoU >= {self.iou_threshold:g}: {self.recall:.1%}; mean "
                f"of the best IoUs: {self.best_ious.mean():.2f}",
                *self._tables(),
            ]
        if self.unmatched:
            lines += ["", "Boxes that fit worst:", *(f"  {box}" for box in self.unmatched[:5])]
        return "\n".join([*lines, "", "What to do:", *(f"  - {cure}" for cure in self.cures)])

    def _tables(self) -> list[str]:
        lines = ["", "class                     boxes  with anchor"]
        for class_id, (n, share) in list(self.recall_per_class.items())[:_MAX_LINES]:
            lines.append(f"{self._class_name(class_id):22} {n:8} {share:12.1%}")
        lines += ["", "size (pixels of the input)  boxes  with anchor"]
        side = np.sqrt(np.prod(self.image_size))
        for (low, high), (n, share) in self.recall_per_size.items():
            bounds = f"{low * side:4.0f} to {high * side:4.0f}" if np.isfinite(high) else "larger"
            lines.append(f"{bounds:22} {n:8} {share:12.1%}")
        return lines


def diagnose(
    dataset: DetectionDataset,
    model_or_encoder: keras.Model | SSDInputEncoder,
    max_images: int = _MAX_IMAGES,
) -> Diagnosis:
    """Check a data set against the anchors of a model, as it is after the resize to its input.

        print(diagnose(train, model))

    Arguments:
        dataset: The data set, with labels.
        model_or_encoder: A model of any mode, or the encoder that will be used for the training.
        max_images: Of a larger data set, this many images, evenly picked, are looked at.

    Returns:
        The numbers, the boxes that deserve a look, and what to do about them.

    Raises:
        ValueError: The data set has no labels.
        DatasetError: The data set is empty, or its lists differ in length.
        ImageReadError: The size of an image cannot be read.

    Example:
        A box that fits the anchors of SSD7, and one that is too small for them:

        >>> import numpy as np
        >>> from data_generator.detection_dataset import DetectionDataset
        >>> from misc_utils.diagnose import diagnose
        >>> from models.keras_ssd7 import build_model
        >>> labels = [np.array([[1, 20, 30, 60, 80]]), np.array([[1, 10, 10, 14, 14]])]
        >>> data = DetectionDataset(filenames=["a.jpg", "b.jpg"], labels=labels)
        >>> data.images = [np.zeros((96, 128, 3), np.uint8)] * 2
        >>> found = diagnose(data, build_model((96, 128, 3), n_classes=1))
        >>> found.recall
        0.5
        >>> print(found.unmatched[0])  # and print(found) is the whole report
        b.jpg, box 0: (1.0, 10.0, 10.0, 14.0, 14.0): 4 x 4 pixels, best IoU 0.17
    """
    dataset.check()
    if dataset.labels is None:
        raise ValueError("Expected a data set with labels; this one has none to diagnose.")
    encoder = as_encoder(model_or_encoder)
    step = max(1.0, dataset.dataset_size / max_images)
    indices = [int(i * step) for i in range(min(max_images, dataset.dataset_size))]
    target = np.array([encoder.img_width, encoder.img_height] * 2, np.float64)

    all_boxes, all_sizes, unmatched = [np.zeros((0, 5))], [np.zeros((0, 2))], []
    class_ids, box_sizes, best_ious = [np.zeros(0)], [np.zeros(0)], [np.zeros(0, np.float32)]
    degenerate, wrong_ids = [], []
    for index in indices:
        labels = corner_labels(dataset, index)
        height, width = dataset.get_image_size(index)
        all_boxes.append(labels)
        all_sizes.append(np.tile((height, width), (len(labels), 1)))
        has_area = np.isfinite(labels).all(axis=1) & (labels[:, 3:] > labels[:, 1:3]).all(axis=1)
        is_known = (labels[:, 0] >= 1) & (labels[:, 0] < encoder.n_classes)
        degenerate += _found(dataset, index, labels, ~has_area)
        wrong_ids += _found(dataset, index, labels, ~is_known)

        resized = labels[has_area, 1:] * target / (width, height, width, height)
        ious = encoder.similarities(resized).max(axis=1)
        sides = resized[:, 2:] - resized[:, :2]
        class_ids.append(labels[has_area, 0])
        box_sizes.append(np.sqrt((sides / target[:2]).prod(axis=1)))
        best_ious.append(ious)
        for found, size, iou in zip(
            _found(dataset, index, labels, has_area), sides.tolist(), ious.tolist(), strict=True
        ):
            if iou < encoder.pos_iou_threshold:
                unmatched.append(UnmatchedBox(found, tuple(size), iou))
    boxes = np.concatenate(all_boxes)
    return Diagnosis(
        image_size=(encoder.img_height, encoder.img_width),
        iou_threshold=encoder.pos_iou_threshold,
        n_images=len(indices),
        class_names=dataset.class_names,
        class_ids=np.concatenate(class_ids).astype(np.int64),
        box_sizes=np.concatenate(box_sizes),
        best_ious=np.concatenate(best_ious),
        unmatched=sorted(unmatched, key=lambda box: box.best_iou),
        degenerate_boxes=degenerate,
        wrong_class_ids=wrong_ids,
        suspicions=suspect_coordinates(boxes[:, 1:], np.concatenate(all_sizes)),
    )


def matched_anchors_picture(
    dataset: DetectionDataset,
    model_or_encoder: keras.Model | SSDInputEncoder,
    index: int,
    min_size: int = 600,
) -> np.ndarray:
    """Draw the ground truth of an image, as the network sees it, with the anchors matched to it.

    Arguments:
        dataset: The data set, with labels.
        model_or_encoder: A model of any mode, or an encoder.
        index: The position of the image in the data set.
        min_size: See `drawing.draw_detections`.

    Returns:
        A new uint8 RGB image: ground truth dashed, each anchor a thin line of its class's colour.
    """
    encoder = as_encoder(model_or_encoder)
    labels = corner_labels(dataset, index)
    resize = Resize(encoder.img_height, encoder.img_width)
    image, labels = resize(dataset.get_image(index), labels)
    labels = labels[(labels[:, 3:] > labels[:, 1:3]).all(axis=1)]
    targets = encoder([labels])[0]
    classes = targets[:, : encoder.n_classes].copy()
    classes[:, encoder.background_id] = 0
    matched = targets[classes.any(axis=1)]  # neutral anchors have no class at all
    boxes = matched[:, -8:-4].astype(np.float64)
    if encoder.coords != "corners":
        boxes = convert_coordinates(boxes, 0, f"{encoder.coords}2corners")
    if encoder.normalize_coords:
        boxes *= [encoder.img_width, encoder.img_height] * 2
    anchors = np.column_stack([classes[classes.any(axis=1)].argmax(axis=1), boxes])
    return draw_matches(image, labels, anchors, dataset.class_names, min_size)


def as_encoder(model_or_encoder: keras.Model | SSDInputEncoder) -> SSDInputEncoder:
    """Return an encoder as it is, or the one that fits a model."""
    if isinstance(model_or_encoder, SSDInputEncoder):
        return model_or_encoder
    return SSDInputEncoder.from_model(model_or_encoder)


def _found(
    dataset: DetectionDataset, index: int, labels: np.ndarray, mark: np.ndarray
) -> list[FoundBox]:
    where = dataset.entry_name(index)
    return [
        FoundBox(index, box, tuple(labels[box].tolist()), where)
        for box in np.flatnonzero(mark).tolist()
    ]


def _share(marks: np.ndarray) -> float:
    return float(marks.mean()) if len(marks) else float("nan")
