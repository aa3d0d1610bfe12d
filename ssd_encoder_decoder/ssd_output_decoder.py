"""Raw network output -> detections, in NumPy.

Every decoder here is the same three steps in a different flavour:

1. choose the candidates: pairs of a box and a class with enough confidence;
2. decode their offsets into boxes (only theirs: of 8,732 boxes x 20 classes a few thousand pairs
   are left), in float64 whatever the network computed in;
3. select rows: greedy NMS, then the best `top_k`.

The layers in `keras_layers` do the same inside a model's graph.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bounding_box_utils.bounding_box_utils import BOX_FORMATS, border_width
from ssd_encoder_decoder.box_coder import decode_boxes, to_corners
from ssd_encoder_decoder.nms import check_iou_threshold, nms, nms_per_class

# The last axis of a raw prediction: class confidences | 4 offsets | 4 anchor coordinates | 4
# variances.
_N_BOX_COLUMNS = 12
_OFFSETS, _ANCHORS, _VARIANCES = slice(-12, -8), slice(-8, -4), slice(-4, None)


def decode_detections(
    y_pred: np.ndarray,
    confidence_thresh: float = 0.01,
    iou_threshold: float | None = 0.45,
    top_k: int | str = 200,
    input_coords: str = "centroids",
    normalize_coords: bool = True,
    img_height: float | None = None,
    img_width: float | None = None,
    border_pixels: str = "half",
    max_candidates_per_class: int | None = None,
) -> list[np.ndarray]:
    """Decode raw predictions the way the SSD paper evaluates them: NMS within each class.

    One anchor box may be reported for several classes; `decode_detections_fast` reports it once.

    Arguments:
        y_pred: `(batch, n_boxes, n_classes + 1 + 12)`, the output of a model in 'training' mode:
            confidences (background first) | 4 offsets | 4 anchor coordinates | 4 variances.
        confidence_thresh: A class counts for a box if its confidence is greater than this.
        iou_threshold: Boxes of a class whose IoU with a better one is greater than this are
            dropped (equality survives). None, and only None, switches NMS off.
        top_k: How many of an image's best detections to return, or ``'all'``.
        input_coords: The box format of the model: ``'centroids'``, ``'corners'`` or ``'minmax'``.
        normalize_coords: Whether the model works in fractions of the image; the detections are
            then multiplied by the image's size. Otherwise they keep the model's unit (pixels).
        img_height: Height, in pixels, that the returned boxes refer to.
        img_width: Width, in pixels, that the returned boxes refer to.
        border_pixels: ``'half'``, ``'include'`` or ``'exclude'``: how IoU measures boxes.
        max_candidates_per_class: Let only this many of the best boxes of each class into NMS. The
            original Caffe SSD uses 400; None, as in the original Keras SSD, uses all.

    Returns:
        One float64 array `(k, 6)` per image with rows (class_id, confidence, xmin, ymin, xmax,
        ymax), `(0, 6)` if nothing was found. Classes ascend and confidences descend within a class;
        where `top_k` leaves detections out, confidences descend throughout.

    Raises:
        ValueError: if an argument is not as described, or an image dimension is missing although
            `normalize_coords` is True.

    Example:
        An encoded target has the layout of a prediction, so decoding it gives the object back:

        >>> import numpy as np
        >>> from ssd_encoder_decoder.ssd_input_encoder import SSDInputEncoder
        >>> from ssd_encoder_decoder.ssd_output_decoder import decode_detections
        >>> encoder = SSDInputEncoder(100, 200, n_classes=2, predictor_sizes=[(6, 12), (3, 6)])
        >>> targets = encoder([np.array([[2, 20, 30, 60, 80]])])  # class, xmin, ymin, xmax, ymax
        >>> (detections,) = decode_detections(targets, img_height=100, img_width=200)
        >>> detections.round(2)  # class, confidence, xmin, ymin, xmax, ymax
        array([[ 2.,  1., 20., 30., 60., 80.]])
    """
    with_box_ids = decode_detections_debug(
        y_pred,
        confidence_thresh,
        iou_threshold,
        top_k,
        input_coords,
        normalize_coords,
        img_height,
        img_width,
        border_pixels=border_pixels,
        max_candidates_per_class=max_candidates_per_class,
    )
    return [detections[:, 1:].copy() for detections in with_box_ids]


def decode_detections_fast(
    y_pred: np.ndarray,
    confidence_thresh: float = 0.5,
    iou_threshold: float | None = 0.45,
    top_k: int | str = "all",
    input_coords: str = "centroids",
    normalize_coords: bool = True,
    img_height: float | None = None,
    img_width: float | None = None,
    border_pixels: str = "half",
) -> list[np.ndarray]:
    """Decode raw predictions with one NMS over all classes together.

    Every box takes part with its most confident class only, so there are far fewer candidates than
    in `decode_detections`, and two objects of different classes in the same place are one.

    Arguments:
        y_pred: As in `decode_detections`.
        confidence_thresh: A box whose best class is an object counts if the confidence is this or
            greater (unlike in `decode_detections`, equality counts).
        iou_threshold: As in `decode_detections`.
        top_k: As in `decode_detections`.
        input_coords: As in `decode_detections`.
        normalize_coords: As in `decode_detections`.
        img_height: As in `decode_detections`.
        img_width: As in `decode_detections`.
        border_pixels: As in `decode_detections`.

    Returns:
        One float64 array `(k, 6)` per image with rows (class_id, confidence, xmin, ymin, xmax,
        ymax) in descending order of confidence, `(0, 6)` if nothing was found. Without NMS, and if
        `top_k` leaves nothing out, rows are in the order of the anchor boxes.

    Raises:
        ValueError: As in `decode_detections`.
    """
    y_pred, box_decoder = _checked(
        y_pred, input_coords, normalize_coords, img_height, img_width, iou_threshold, border_pixels
    )
    max_detections = _max_detections(top_k)
    detections = []
    for image in y_pred:
        confidences = image[:, :-_N_BOX_COLUMNS]
        class_ids = confidences.argmax(axis=1)  # the first one, hence background, if equal
        scores = confidences[np.arange(len(class_ids)), class_ids]
        box_ids = np.flatnonzero((class_ids != 0) & (scores >= float(confidence_thresh)))
        class_ids, scores = class_ids[box_ids], scores[box_ids]
        boxes = box_decoder(image[box_ids])

        kept = nms(boxes, scores, iou_threshold, border_pixels, max_detections)
        if iou_threshold is None and len(kept) == len(box_ids):
            kept = np.sort(kept)
        detections.append(np.column_stack([class_ids[kept], scores[kept], boxes[kept]]))
    return detections


def decode_detections_debug(
    y_pred: np.ndarray,
    confidence_thresh: float = 0.01,
    iou_threshold: float | None = 0.45,
    top_k: int | str = 200,
    input_coords: str = "centroids",
    normalize_coords: bool = True,
    img_height: float | None = None,
    img_width: float | None = None,
    variance_encoded_in_target: bool = False,
    border_pixels: str = "half",
    max_candidates_per_class: int | None = None,
) -> list[np.ndarray]:
    """Decode like `decode_detections`, and say which anchor box each detection came from.

    `get_pred_layers` turns the box ids into predictor layers, which shows whether objects of a size
    are found by the layer meant for them.

    Arguments:
        y_pred: As in `decode_detections`.
        confidence_thresh: As in `decode_detections`.
        iou_threshold: As in `decode_detections`.
        top_k: As in `decode_detections`.
        input_coords: As in `decode_detections`.
        normalize_coords: As in `decode_detections`.
        img_height: As in `decode_detections`.
        img_width: As in `decode_detections`.
        variance_encoded_in_target: Whether the offsets are to be taken as they are, because the
            network learned them without the division by the variances (Caffe's option of this
            name).
        border_pixels: As in `decode_detections`.
        max_candidates_per_class: As in `decode_detections`.

    Returns:
        One float64 array `(k, 7)` per image with rows (box_id, class_id, confidence, xmin, ymin,
        xmax, ymax), `(0, 7)` if nothing was found; the order is that of `decode_detections`.

    Raises:
        ValueError: As in `decode_detections`.
    """
    y_pred, box_decoder = _checked(
        y_pred,
        input_coords,
        normalize_coords,
        img_height,
        img_width,
        iou_threshold,
        border_pixels,
        variance_encoded_in_target,
    )
    max_detections = _max_detections(top_k)
    detections = []
    for image in y_pred:
        scores = image[:, 1:-_N_BOX_COLUMNS].T  # (n_classes, n_boxes)
        candidates = np.flatnonzero(scores > float(confidence_thresh))  # class by class
        class_ids, box_ids = np.divmod(candidates, len(image))
        scores = scores[class_ids, box_ids]
        boxes = box_decoder(image[box_ids])

        # Ask for one detection more than wanted: if it is there, `top_k` leaves something out.
        wanted = None if max_detections is None else max_detections + 1
        kept = nms_per_class(
            boxes, scores, class_ids, iou_threshold, border_pixels, wanted, max_candidates_per_class
        )
        if len(kept) == wanted:
            kept = kept[:max_detections]
        else:
            kept = kept[np.argsort(class_ids[kept], kind="stable")]
        detections.append(
            np.column_stack([box_ids[kept], class_ids[kept] + 1, scores[kept], boxes[kept]])
        )
    return detections


def greedy_nms(
    y_pred_decoded: Sequence[np.ndarray],
    iou_threshold: float | None = 0.45,
    coords: str = "corners",
    border_pixels: str = "half",
) -> list[np.ndarray]:
    """Suppress overlapping detections, whatever their class.

    Arguments:
        y_pred_decoded: One array `(k, 6)` or wider per image with the confidence in column 1 and
            the box in columns 2 to 5; an image without detections may be any array of size 0.
        iou_threshold: Detections whose IoU with a better one is greater than this are dropped;
            None drops nothing.
        coords: The format of the boxes: ``'corners'``, ``'minmax'`` or ``'centroids'``.
        border_pixels: ``'half'``, ``'include'`` or ``'exclude'``: how IoU measures boxes.

    Returns:
        One array per image with the rows that survive, in descending order of confidence; `(0, 6)`
        for an image without detections.

    Raises:
        ValueError: if an image's array is not of that shape, or an argument is unknown.

    Example:
        >>> import numpy as np
        >>> from ssd_encoder_decoder.ssd_output_decoder import greedy_nms
        >>> cat, dog = [1, 0.9, 10, 10, 50, 50], [2, 0.8, 60, 10, 90, 40]
        >>> cat_again = [1, 0.7, 12, 10, 52, 50]
        >>> (survivors,) = greedy_nms([np.array([cat, cat_again, dog])])
        >>> survivors
        array([[ 1. ,  0.9, 10. , 10. , 50. , 50. ],
               [ 2. ,  0.8, 60. , 10. , 90. , 40. ]])
    """
    survivors = []
    for i, detections in enumerate(y_pred_decoded):
        detections = np.asarray(detections)
        if detections.size == 0:
            detections = detections.reshape(0, 6)
        if detections.ndim != 2 or detections.shape[1] < 6:
            raise ValueError(
                "`y_pred_decoded` must hold one array (k, 6) per image with rows (class_id, "
                f"confidence, 4 coordinates); image {i} has an array of shape {detections.shape}."
            )
        boxes = to_corners(detections[:, 2:6], coords)
        survivors.append(detections[nms(boxes, detections[:, 1], iou_threshold, border_pixels)])
    return survivors


def get_num_boxes_per_pred_layer(
    predictor_sizes: Sequence[Sequence[int]],
    aspect_ratios: Sequence[Sequence[float]],
    two_boxes_for_ar1: bool,
) -> list[int]:
    """Count the anchor boxes of each predictor layer.

    Arguments:
        predictor_sizes: (height, width) of each predictor layer's feature map.
        aspect_ratios: The aspect ratios of each layer.
        two_boxes_for_ar1: Whether a layer with the ratio 1 has a second, larger square box.

    Returns:
        One number per layer.

    Raises:
        ValueError: if the two sequences differ in length.

    Example:
        >>> from ssd_encoder_decoder.ssd_output_decoder import get_num_boxes_per_pred_layer
        >>> get_num_boxes_per_pred_layer([(38, 38), (19, 19)], [(1, 2, 0.5), (1, 2)], True)
        [5776, 1083]
    """
    if len(predictor_sizes) != len(aspect_ratios):
        raise ValueError(
            "`aspect_ratios` must hold one list of ratios for each predictor layer; got "
            f"{len(aspect_ratios)} for {len(predictor_sizes)} layers."
        )
    return [
        int(height) * int(width) * (len(ratios) + int(two_boxes_for_ar1 and 1 in ratios))
        for (height, width), ratios in zip(predictor_sizes, aspect_ratios, strict=True)
    ]


def get_pred_layers(
    y_pred_decoded: Sequence[np.ndarray], num_boxes_per_pred_layer: Sequence[int]
) -> list[list[int]]:
    """Find the predictor layer that each detection came from.

    Arguments:
        y_pred_decoded: What `decode_detections_debug` returns: box ids in column 0.
        num_boxes_per_pred_layer: Anchor boxes per layer, see `get_num_boxes_per_pred_layer`.

    Returns:
        For each image a list with the index of the predictor layer of every detection.

    Raises:
        ValueError: if a box id is negative, or not below the total number of boxes.
    """
    layer_ends = np.cumsum(num_boxes_per_pred_layer)
    layers = []
    for i, detections in enumerate(y_pred_decoded):
        box_ids = np.asarray(detections)[..., 0] if np.size(detections) else np.zeros(0)
        outside = (box_ids < 0) | (box_ids >= layer_ends[-1])
        if outside.any():
            row = int(np.argmax(outside))
            raise ValueError(
                f"Image {i}, detection {row} has the box id {box_ids[row]:g}, but "
                f"`num_boxes_per_pred_layer` describes {layer_ends[-1]} boxes. Do the detections "
                "come from decode_detections_debug and from a model with these layers?"
            )
        layers.append(np.searchsorted(layer_ends, box_ids, side="right").tolist())
    return layers


@dataclass(frozen=True)
class _BoxDecoder:
    """Turn rows of a raw prediction into corners in the unit that the caller wants."""

    coords: str
    scale: tuple[float, float]  # what x and y are multiplied by
    use_variances: bool

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Decode `(k, n_classes + 1 + 12)` rows to `(k, 4)` float64 corners."""
        columns = rows[:, -_N_BOX_COLUMNS:].astype(np.float64)
        variances = columns[:, _VARIANCES] if self.use_variances else np.ones(4)
        # An untrained network may ask for boxes of any size: infinite ones are its answer, then.
        with np.errstate(over="ignore", invalid="ignore"):
            boxes = decode_boxes(columns[:, _OFFSETS], columns[:, _ANCHORS], variances, self.coords)
            return to_corners(boxes, self.coords) * np.array(self.scale * 2)


def _checked(
    y_pred: np.ndarray,
    input_coords: str,
    normalize_coords: bool,
    img_height: float | None,
    img_width: float | None,
    iou_threshold: float | None,
    border_pixels: str,
    variance_encoded_in_target: bool = False,
) -> tuple[np.ndarray, _BoxDecoder]:
    """Validate what the decoders share; return the predictions as float32 or float64."""
    if input_coords not in BOX_FORMATS:
        raise ValueError(
            f"`input_coords` must be one of {', '.join(BOX_FORMATS)}; got {input_coords!r}."
        )
    if normalize_coords and (img_height is None or img_width is None):
        raise ValueError(
            "With `normalize_coords=True` boxes are fractions of the image, and `img_height` and "
            f"`img_width` are needed to turn them into pixels; got {img_height} and {img_width}."
        )
    check_iou_threshold(iou_threshold)
    border_width(border_pixels)

    y_pred = np.asarray(y_pred)
    if y_pred.ndim != 3 or y_pred.shape[2] < 2 + _N_BOX_COLUMNS:
        raise ValueError(
            "`y_pred` must have shape (batch, n_boxes, n_classes + 1 + 12): the confidences of the "
            "background and at least one class, 4 offsets, 4 anchor coordinates, 4 variances; got "
            f"{y_pred.shape}. Give a single image as y_pred[np.newaxis]. If the model was built "
            "for inference, its output is decoded already."
        )
    if y_pred.dtype not in (np.float32, np.float64):
        y_pred = y_pred.astype(np.float32)  # float16 is slow, and too coarse for thresholds
    scale = (float(img_width), float(img_height)) if normalize_coords else (1.0, 1.0)
    return y_pred, _BoxDecoder(input_coords, scale, not variance_encoded_in_target)


def _max_detections(top_k: int | str) -> int | None:
    """Translate `top_k` into a number, or None for all."""
    if isinstance(top_k, str) and top_k == "all":
        return None
    try:
        number = operator.index(top_k)
    except TypeError:
        number = 0
    if number < 1:
        raise ValueError(f"`top_k` must be a positive integer or 'all'; got {top_k!r}.")
    return number
