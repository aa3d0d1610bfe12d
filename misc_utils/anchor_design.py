"""Choosing anchors for a data set, and checking how well they fit."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from data_generator.detection_dataset import DetectionDataset
from misc_utils.resized_labels import labels_of_input_size
from ssd_encoder_decoder.ssd_input_encoder import SSDInputEncoder

# Ratios width / height that anchors may have, and how common a shape must be to get its own.
_CANDIDATE_RATIOS = (1 / 3, 1 / 2, 1.0, 2.0, 3.0)
_MIN_SHARE = 0.05
# The ratios of one layer's scale to the one before that are tried.
_SCALE_STEPS = (1.4, 1.6, 1.8, 2.0, 2.2)
_ENOUGH_BOXES = 300

_COMPARED = "the settings compared with"
_SERIES = "a geometric series of scales"
_ENOUGH_BOXES_TO_JUDGE = 1000
# Differences of worth (recall plus mean IoU) that are not worth more anchors.
_NEARLY_THE_SAME = 0.01
_MAX_KMEANS_STEPS = 100
_SAME_RATIO = 1.25


@dataclass(frozen=True)
class AnchorSuggestion:
    """Anchor settings that fit a data set; `str()` of it says how much better they do.

    Attributes:
        scales: One scale a predictor layer and a last one, fractions of the shorter image side.
        aspect_ratios_per_layer: The ratios width / height of each layer.
        origin: How these settings were found, such as 'k-means, 12 shapes'.
        iou_threshold: The IoU from which an anchor is taken to fit a box.
        recall_before: The share of boxes that an anchor of the settings compared with fits.
        recall_after: The same of the settings suggested.
        mean_iou_before: The mean IoU of the boxes with their best anchors, before.
        mean_iou_after: The same of the settings suggested.
        n_anchors_before: The number of anchors of an image, before.
        n_anchors_after: The same of the settings suggested.
    """

    scales: tuple[float, ...]
    aspect_ratios_per_layer: tuple[tuple[float, ...], ...]
    origin: str
    iou_threshold: float
    recall_before: float
    recall_after: float
    mean_iou_before: float
    mean_iou_after: float
    n_anchors_before: int
    n_anchors_after: int

    @property
    def arguments(self) -> dict[str, Any]:
        """The settings as arguments of a model builder, or of `SSDInputEncoder`."""
        return {
            "scales": list(self.scales),
            "aspect_ratios_per_layer": [list(ratios) for ratios in self.aspect_ratios_per_layer],
            "aspect_ratios_global": None,
        }

    def __str__(self) -> str:
        lines = [
            f"scales = {list(self.scales)}",
            f"aspect_ratios_per_layer = {list(map(list, self.aspect_ratios_per_layer))}",
            f"Found by: {self.origin}",
            f"Boxes with an anchor of IoU >= {self.iou_threshold:g}: {self.recall_before:.1%} "
            f"before, {self.recall_after:.1%} with these",
            f"Mean of the best IoUs: {self.mean_iou_before:.3f} before, "
            f"{self.mean_iou_after:.3f} with these",
            f"Anchors in an image: {self.n_anchors_before} before, "
            f"{self.n_anchors_after} with these",
        ]
        return "\n".join(lines)


def suggest_anchors(
    dataset: DetectionDataset,
    image_size: tuple[int, int],
    n_layers: int = 4,
    predictor_sizes: Sequence[tuple[int, int]] | None = None,
    compared_with: Mapping[str, Any] | None = None,
    max_boxes_per_cell: int = 6,
    iou_threshold: float = 0.5,
    seed: int = 0,
    keep_ratios: bool = False,
) -> AnchorSuggestion:
    """Find scales and aspect ratios that fit the objects of a data set.

        anchors = suggest_anchors(train, (300, 300), predictor_sizes=encoder.predictor_sizes)
        model = build_model((300, 300, 3), n_classes=4, **anchors.arguments)

    Three kinds of settings are proposed: those of `kmeans_anchors`; the geometric series of
    `suggest_scales` with the ratios of `suggest_aspect_ratios`; and that series with ratios found
    by k-means among the boxes of each layer's size. Shapes
    alone do not decide, because coarse maps have few anchors between which small objects are
    missed; so every proposal is judged by the anchors that it really gives. Among those of nearly
    the same worth, the one with the fewest anchors wins. The settings compared with take part as
    well, so that the suggestion is never worse than they are.

    Arguments:
        dataset: A data set with labels. Boxes are taken as they are after the resize to
            `image_size`, which may change their shapes.
        image_size: (height, width) of the network's input.
        n_layers: The number of predictor layers.
        predictor_sizes: (height, width) of each layer's feature map, as the builders return with
            `return_predictor_sizes`; wins over `n_layers`. None stands for maps of an eighth of
            the image and so on, each half as large as the one before, as SSD7 has them.
        compared_with: Arguments of `SSDInputEncoder` about anchors; None for its defaults, which
            are those of the SSD7 builder.
        max_boxes_per_cell: No layer gets more anchors at one place than this.
        iou_threshold: The IoU from which an anchor is taken to fit a box.
        seed: For k-means, and for the choice among more boxes than are needed.
        keep_ratios: Whether the aspect ratios stay those compared with, so that only scales are
            found: for weights whose predictors were trained for anchors of these shapes.

    Returns:
        The best settings found, beside those compared with. `arguments` of it are what to pass on.

    Raises:
        ValueError: The data set has no boxes with an area.

    Example:
        Lamp posts, seven times as high as wide:

        >>> import numpy as np
        >>> from data_generator.detection_dataset import DetectionDataset
        >>> from misc_utils.anchor_design import suggest_anchors
        >>> images = np.zeros((40, 300, 300, 3), np.uint8)
        >>> left, top = np.random.default_rng(0).uniform(0, 180, (2, 40))
        >>> labels = [np.array([[1, x, y, x + 15, y + 105]]) for x, y in zip(left, top)]
        >>> data = DetectionDataset(filenames=[f"{i}.jpg" for i in range(40)], labels=labels)
        >>> data.images = list(images)
        >>> print(suggest_anchors(data, (300, 300)))
        scales = [0.1323, 0.1323, 0.1323, 0.1323, 0.1587]
        aspect_ratios_per_layer = [[0.14], [0.14], [0.14], [0.14]]
        Found by: k-means, 4 shapes
        Boxes with an anchor of IoU >= 0.5: 0.0% before, 100.0% with these
        Mean of the best IoUs: 0.341 before, 0.739 with these
        Anchors in an image: 7160 before, 1790 with these
    """
    if predictor_sizes is None:
        predictor_sizes = [
            tuple(max(1, side // 2 ** (3 + layer)) for side in image_size)
            for layer in range(n_layers)
        ]
    rng = np.random.default_rng(seed)
    boxes = _all_boxes(labels_of_input_size(dataset, image_size))
    if len(boxes) == 0:
        raise ValueError("Cannot suggest anchors for a data set without any box that has an area.")
    boxes = rng.permutation(boxes)[:_ENOUGH_BOXES_TO_JUDGE]

    others = dict(compared_with or {})
    if keep_ratios:
        scales = _geometric_scales(boxes, image_size, predictor_sizes, others)
        found = {_SERIES: {"scales": scales}}
    else:
        found = dict(_proposals(boxes, image_size, predictor_sizes, max_boxes_per_cell, rng))
    proposals = {_COMPARED: others} | {name: {**others, **new} for name, new in found.items()}
    fits = {
        name: _fit(
            SSDInputEncoder(*image_size, 1, predictor_sizes, **settings), boxes, iou_threshold
        )
        for name, settings in proposals.items()
    }
    before = fits[_COMPARED]
    allowed = {
        name: fit
        for name, fit in fits.items()
        if fit.recall >= before.recall
        and (name == _COMPARED or keep_ratios or fit.boxes_per_cell <= max_boxes_per_cell)
    }
    best = max(fit.worth for fit in allowed.values())
    good = {name: fit for name, fit in allowed.items() if fit.worth >= best - _NEARLY_THE_SAME}
    name = min(good, key=lambda name: good[name].n_anchors)
    after = good[name]
    return AnchorSuggestion(
        scales=tuple(np.round(after.encoder.scales, 4).tolist()),
        aspect_ratios_per_layer=tuple(map(tuple, after.encoder.aspect_ratios)),
        origin=name,
        iou_threshold=iou_threshold,
        recall_before=before.recall,
        recall_after=after.recall,
        mean_iou_before=before.mean_iou,
        mean_iou_after=after.mean_iou,
        n_anchors_before=before.n_anchors,
        n_anchors_after=after.n_anchors,
    )


def suggest_scales(
    labels: Sequence[np.ndarray],
    image_size: tuple[int, int],
    predictor_sizes: Sequence[tuple[int, int]],
    aspect_ratios: Sequence[float],
) -> tuple[float, ...]:
    """Find the anchor scales that fit the objects of a data set best.

    Tried are geometric series, because IoU depends on the ratio of two sizes, not on their
    difference. A fine series has an anchor of about the right size for every object; but anchors of
    a coarse map lie far apart, and small ones on it miss the objects between them. So every series
    is judged by the anchors that it really gives: by the share of boxes that have one with an IoU
    of at least 0.5, plus the mean of the boxes' best IoUs.

    Arguments:
        labels: For each image `(k, 5)` rows (class_id, xmin, ymin, xmax, ymax) in pixels of the
            network's input.
        image_size: (height, width) of the network's input.
        predictor_sizes: (height, width) of each predictor layer's feature map.
        aspect_ratios: Ratios width / height that the anchors of all layers will have.

    Returns:
        One scale a layer and a last one, fractions of the shorter side of the image.

    Raises:
        ValueError: if there are no boxes.
    """
    boxes = _all_boxes(labels)
    if len(boxes) == 0:
        raise ValueError("Cannot suggest anchor scales for a data set without any box.")
    ratios = {"aspect_ratios_global": aspect_ratios}
    return _geometric_scales(boxes, image_size, predictor_sizes, ratios)


def _geometric_scales(
    boxes: np.ndarray,
    image_size: tuple[int, int],
    predictor_sizes: Sequence[tuple[int, int]],
    others: Mapping[str, Any],
) -> tuple[float, ...]:
    """Return the best series for boxes `(n, 5)` and all other settings of the anchors."""
    # A few hundred boxes, evenly picked, tell as much as all of them.
    boxes = boxes[:: max(1, len(boxes) // _ENOUGH_BOXES)]
    sizes = np.sqrt((boxes[:, 3] - boxes[:, 1]) * (boxes[:, 4] - boxes[:, 2])) / min(image_size)
    starts = np.geomspace(*np.quantile(sizes, (0.02, 0.5)), num=9)

    best_scales, best_score = None, -1.0
    for start, step in itertools.product(np.unique(starts), _SCALE_STEPS):
        # Only the extra scale behind the last layer may exceed the image.
        scales = np.minimum(start * step ** np.arange(len(predictor_sizes)), 1.0)
        scales = np.append(scales, scales[-1] * step)
        encoder = SSDInputEncoder(*image_size, 1, predictor_sizes, **{**others, "scales": scales})
        best_ious = encoder.similarities(boxes[:, 1:]).max(axis=1)
        score = (best_ious >= 0.5).mean() + best_ious.mean()
        if score > best_score:
            best_scales, best_score = scales, score
    return tuple(np.round(best_scales, 4).tolist())


def suggest_aspect_ratios(labels: Sequence[np.ndarray]) -> tuple[float, ...]:
    """Choose the anchor shapes that a data set needs from 1:3, 1:2, 1:1, 2:1 and 3:1.

    Arguments:
        labels: For each image `(k, 5)` rows (class_id, xmin, ymin, xmax, ymax) in pixels of the
            network's input, where resizing may have changed the shapes.

    Returns:
        The ratios width / height that are the nearest one (on a logarithmic scale) of at least
        5 % of the boxes; 1 always.
    """
    boxes = _all_boxes(labels)
    ratios = np.log((boxes[:, 3] - boxes[:, 1]) / (boxes[:, 4] - boxes[:, 2]))
    nearest = np.abs(ratios[:, np.newaxis] - np.log(_CANDIDATE_RATIOS)).argmin(axis=1)
    shares = np.bincount(nearest, minlength=len(_CANDIDATE_RATIOS)) / max(1, len(boxes))
    return tuple(
        ratio
        for ratio, share in zip(_CANDIDATE_RATIOS, shares, strict=True)
        if ratio == 1 or share >= _MIN_SHARE
    )


def share_with_anchor(
    encoder: SSDInputEncoder, labels: Sequence[np.ndarray], iou_threshold: float = 0.5
) -> float:
    """Measure how many ground truth boxes have an anchor that fits them well.

    Arguments:
        encoder: The encoder, whose anchors count.
        labels: For each image `(k, 5)` rows (class_id, xmin, ymin, xmax, ymax) in pixels of the
            network's input.
        iou_threshold: What counts as fitting well.

    Returns:
        The share of boxes whose best anchor has at least that IoU; NaN without boxes.
    """
    boxes = _all_boxes(labels)
    if len(boxes) == 0:
        return float("nan")
    return float((encoder.similarities(boxes[:, 1:]).max(axis=1) >= iou_threshold).mean())


def _all_boxes(labels: Sequence[np.ndarray]) -> np.ndarray:
    """Join the labels of all images, without boxes that have no area: float64 `(n, 5)`."""
    boxes = [np.asarray(b, dtype=np.float64).reshape(-1, 5) for b in labels]
    boxes = np.concatenate([np.zeros((0, 5)), *boxes])
    return boxes[(boxes[:, 3] > boxes[:, 1]) & (boxes[:, 4] > boxes[:, 2])]


class _Fit(NamedTuple):
    """How well the anchors of an encoder fit boxes, and how many there are."""

    encoder: SSDInputEncoder
    recall: float
    mean_iou: float
    n_anchors: int
    boxes_per_cell: int

    @property
    def worth(self) -> float:
        return self.recall + self.mean_iou


def _fit(encoder: SSDInputEncoder, boxes: np.ndarray, iou_threshold: float) -> _Fit:
    best_ious = encoder.similarities(boxes[:, 1:]).max(axis=1)
    return _Fit(
        encoder,
        recall=float((best_ious >= iou_threshold).mean()),
        mean_iou=float(best_ious.mean()),
        n_anchors=sum(anchors[..., 0].size for anchors in encoder.boxes_list),
        boxes_per_cell=max(anchors.shape[2] for anchors in encoder.boxes_list),
    )


def _proposals(
    boxes: np.ndarray,
    image_size: tuple[int, int],
    predictor_sizes: Sequence[tuple[int, int]],
    max_boxes_per_cell: int,
    rng: np.random.Generator,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield names and arguments of an encoder whose anchors may fit."""
    n_layers = len(predictor_sizes)
    shapes = boxes[:, 3:] - boxes[:, 1:3]

    def arguments(scales: Sequence[float], ratios: list[tuple[float, ...]]) -> dict[str, Any]:
        per_layer = {"aspect_ratios_per_layer": ratios, "aspect_ratios_global": None}
        return {"scales": scales, **per_layer}

    for n_shapes in range(1, max_boxes_per_cell):
        scales, ratios = kmeans_anchors(shapes, image_size, n_layers, n_shapes, rng)
        yield f"k-means, {n_shapes * n_layers} shapes", arguments(scales, ratios)
    ratios = suggest_aspect_ratios([boxes])
    scales = suggest_scales([boxes], image_size, predictor_sizes, ratios)
    yield _SERIES, arguments(scales, [ratios] * n_layers)
    for n_shapes in range(1, max_boxes_per_cell):
        ratios = _ratios_of_layers(shapes, image_size, scales, n_shapes, rng)
        yield f"{_SERIES}, k-means of {n_shapes} ratios", arguments(scales, ratios)


def kmeans_anchors(
    shapes: np.ndarray,
    image_size: tuple[int, int],
    n_layers: int,
    n_shapes: int,
    rng: np.random.Generator,
) -> tuple[tuple[float, ...], list[tuple[float, ...]]]:
    """Cluster the shapes of boxes with the distance 1 - IoU, and read anchor settings off them.

    The distance is that of YOLOv2 (Redmon and Farhadi, arXiv:1612.08242, section 2): with the
    Euclidean one, large boxes would count more than small ones. The clusters, ordered by area, are
    dealt to the layers. A layer's scale is the geometric mean of its clusters' sizes, its ratios
    are theirs; nearly equal ones become one, and those close to 1 become 1, which SSD gives a
    second box.

    Arguments:
        shapes: `(n, 2)` widths and heights in pixels of the network's input.
        image_size: (height, width) of the network's input.
        n_layers: The number of predictor layers.
        n_shapes: The number of clusters for each layer.
        rng: Chooses where the clusters start.

    Returns:
        One scale a layer and a last one, and the ratios of each layer.
    """
    centres = _cluster_shapes(shapes, n_layers * n_shapes, rng)
    centres = centres[np.argsort(centres.prod(axis=1))].reshape(n_layers, n_shapes, 2)
    sizes = np.exp(np.log(centres).mean(axis=(1, 2))) / min(image_size)
    last = sizes[-1] * (sizes[-1] / sizes[0]) ** (1 / max(1, n_layers - 1))
    scales = np.append(sizes, max(last, 1.2 * sizes[-1]))
    ratios = [_distinct_ratios(layer[:, 0] / layer[:, 1]) for layer in centres]
    return tuple(np.round(scales, 4).tolist()), ratios


def _ratios_of_layers(
    shapes: np.ndarray,
    image_size: tuple[int, int],
    scales: Sequence[float],
    n_shapes: int,
    rng: np.random.Generator,
) -> list[tuple[float, ...]]:
    """Cluster, for each layer, the ratios of the boxes whose size is nearest to its scale."""
    sizes = np.sqrt(shapes.prod(axis=1)) / min(image_size)
    distance = np.abs(np.log(sizes)[:, np.newaxis] - np.log(scales[:-1]))
    layers = distance.argmin(axis=1)
    unit_shapes = shapes / np.sqrt(shapes.prod(axis=1, keepdims=True))
    ratios = []
    for layer in range(len(scales) - 1):
        members = unit_shapes[layers == layer]
        if len(members) < 10 * n_shapes:  # too few to tell from: the ratios of all boxes
            members = unit_shapes
        centres = _cluster_shapes(members, n_shapes, rng)
        ratios.append(_distinct_ratios(centres[:, 0] / centres[:, 1]))
    return ratios


def _cluster_shapes(shapes: np.ndarray, n_clusters: int, rng: np.random.Generator) -> np.ndarray:
    """Return `(n_clusters, 2)` mean shapes, found by k-means that starts as k-means++ does."""
    centres = shapes[rng.integers(len(shapes), size=1)]
    while len(centres) < n_clusters:
        distance = 1 - _shape_ious(shapes, centres).max(axis=1) + 1e-6
        centres = np.vstack([centres, shapes[rng.choice(len(shapes), p=distance / distance.sum())]])
    nearest = None
    for _ in range(_MAX_KMEANS_STEPS):
        before, nearest = nearest, _shape_ious(shapes, centres).argmax(axis=1)
        if before is not None and (before == nearest).all():
            break
        for cluster in np.unique(nearest):  # one that has lost all its boxes stays where it is
            centres[cluster] = np.median(shapes[nearest == cluster], axis=0)
    return centres


def _shape_ious(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the `(n, k)` IoUs of boxes `(n, 2)` and `(k, 2)` with the same centre."""
    overlap = np.minimum(first[:, np.newaxis], second).prod(axis=2)
    return overlap / (first.prod(axis=1)[:, np.newaxis] + second.prod(axis=1) - overlap)


def _distinct_ratios(ratios: np.ndarray) -> tuple[float, ...]:
    distinct: list[float] = []
    for ratio in np.sort(ratios).tolist():
        ratio = 1.0 if abs(np.log(ratio)) < np.log(_SAME_RATIO) else round(ratio, 2)
        if not distinct or ratio > distinct[-1] * _SAME_RATIO:
            distinct.append(ratio)
    return tuple(distinct)
