"""Models as ONNX files, decoding included.

Keras converts the network up to the raw predictions. The decoding layer does not go that way: ONNX
has an operation for the whole of non-maximum suppression, by the same rule as ours, which works on
batches. So decoding is written down here once more, in ONNX' own language, and put behind the
network; the tests check that both decode alike.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_layers.decoding import DecodingLayer
from keras_layers.keras_layer_DecodeDetections import DecodeDetections
from keras_layers.keras_layer_DecodeDetectionsFast import DecodeDetectionsFast
from misc_utils.files import write_bytes

# Stands for "not selected": less than every confidence.
_LOWEST = -3e38

# The shapes are (batch, n_boxes, 1), unless said otherwise. Variances are constants to multiply
# with, see `ssd_encoder_decoder.box_coder`.
_DECODING = """
<ir_version: {ir_version}, opset_import: ["" : {opset}]>
decoding (float[{batch}, {n_boxes}, {n_columns}] predictions)
    => (float[{batch}, {top_k}, 6] detections)
<
    int64[14] widths = {{1, {n_classes}, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}},
    float two = {{2.0}}, float zero = {{0.0}}, float lowest = {{{lowest}}},
    float[4] image_size = {{{x_unit}, {y_unit}, {x_unit}, {y_unit}}},
    int64[1] max_per_class = {{{max_per_class}}},
    float[1] iou_threshold = {{{iou_threshold}}},
    float[1] score_threshold = {{{score_threshold}}},
    int64[1] n_selectable = {{{n_selectable}}},
    int64 n_boxes = {{{n_boxes}}}, int64 one = {{1}},
    int64[2] one_row_an_image = {{0, -1}}, int64[1] last_axis = {{-1}},
    int64[6] fill = {{0, 0, 0, 0, {n_missing}, 0}}
>
{{
    background, confidences, dx, dy, dw, dh,
        anchor_cx, anchor_cy, anchor_width, anchor_height, v0, v1, v2, v3
        = Split <axis = 2> (predictions, widths)

    dx_v0 = Mul(dx, v0)
    move_x = Mul(dx_v0, anchor_width)
    cx = Add(move_x, anchor_cx)
    dy_v1 = Mul(dy, v1)
    move_y = Mul(dy_v1, anchor_height)
    cy = Add(move_y, anchor_cy)
    dw_v2 = Mul(dw, v2)
    stretch_x = Exp(dw_v2)
    width = Mul(stretch_x, anchor_width)
    dh_v3 = Mul(dh, v3)
    stretch_y = Exp(dh_v3)
    height = Mul(stretch_y, anchor_height)

    half_width = Div(width, two)
    half_height = Div(height, two)
    xmin = Sub(cx, half_width)
    ymin = Sub(cy, half_height)
    xmax = Add(cx, half_width)
    ymax = Add(cy, half_height)
    corners = Concat <axis = 2> (xmin, ymin, xmax, ymax)
    boxes = Mul(corners, image_size)
    {candidate_scores}
    all_scores = Transpose <perm = [0, 2, 1]> (candidates)
    scores_shape = Shape(all_scores)
    nothing = Expand(lowest, scores_shape)
    {scores}

    selected_ids = NonMaxSuppression (boxes, scores, max_per_class, iou_threshold, score_threshold)
    selected_scores = GatherND (scores, selected_ids)
    selected = ScatterND (nothing, selected_ids, selected_scores)
    selected_flat = Reshape (selected, one_row_an_image)
    best, best_ids = TopK <axis = 1> (selected_flat, n_selectable)

    nms_ids = Div (best_ids, n_boxes)
    box_ids = Mod (best_ids, n_boxes)
    box_index = Unsqueeze (box_ids, last_axis)
    {class_ids}
    class_column = Cast <to = 1> (class_ids)
    score_column = Unsqueeze (best, last_axis)
    best_boxes = GatherND <batch_dims = 1> (boxes, box_index)
    rows = Concat <axis = 2> (class_column, score_column, best_boxes)
    is_valid = Greater (score_column, lowest)
    valid_rows = Where (is_valid, rows, zero)
    detections = Pad (valid_rows, fill)
}}
"""

# Which of the candidates of a class enter NMS.
_ALL_ENTER = """
    scores = Identity (all_scores)"""
_BEST_ENTER = """
    n_entering = Constant <value_ints = [{n_entering}]> ()
    entering_scores, entering_ids = TopK <axis = 2> (all_scores, n_entering)
    scores = ScatterElements <axis = 2> (nothing, entering_ids, entering_scores)"""

# What the two decoding layers say in `candidate_scores` and `selected_classes`. TopK puts the lower
# index first among equals, as argmax does.
_CANDIDATE_SCORES = {
    DecodeDetections: """
    candidates = Identity (confidences)""",
    DecodeDetectionsFast: """
    just_one = Constant <value_ints = [1]> ()
    best_confidence, best_class = TopK <axis = 2> (confidences, just_one)
    beats_background = Greater (best_confidence, background)
    candidates = Where (beats_background, best_confidence, lowest)""",
}
_CLASS_IDS = {
    DecodeDetections: """
    nms_column = Unsqueeze (nms_ids, last_axis)
    class_ids = Add (nms_column, one)""",
    DecodeDetectionsFast: """
    class_index = GatherND <batch_dims = 1> (best_class, box_index)
    class_ids = Add (class_index, one)""",
}


def write_onnx(
    path: Path, raw_model: keras.Model, decoder: DecodingLayer | None, metadata: dict[str, str]
) -> None:
    """Write an ONNX file.

    Arguments:
        path: the file to make or to replace.
        raw_model: a model with one input named ``images`` and the raw predictions as its output.
        decoder: the decoding layer whose work is to be put behind it, or None.
        metadata: {key: value} for the file's `metadata_props`.

    Raises:
        ValueError: if `decoder` is a decoding layer of one's own.
    """
    import onnx

    model = _convert(raw_model)
    batch = raw_model.input_shape[0]
    if decoder is not None:
        head = onnx.parser.parse_model(_decoding_text(decoder, raw_model.output_shape, model))
        model = onnx.compose.merge_models(model, head, io_map=[("predictions", "predictions")])
    if batch is None:
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.helper.set_model_props(model, metadata)
    onnx.checker.check_model(model, full_check=True)
    write_bytes(path, model.SerializeToString())


def _convert(raw_model: keras.Model) -> Any:
    """Return the ONNX model that Keras makes of a network, its output named ``predictions``."""
    import onnx

    (images,) = raw_model.inputs
    signature = keras.InputSpec(shape=images.shape, dtype=images.dtype, name="images")
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # Keras asks NumPy 2 whether it still has `np.object`, and NumPy warns of the question.
        warnings.filterwarnings("ignore", r".*np\.object", FutureWarning)
        file = Path(folder) / "raw.onnx"
        raw_model.export(file, format="onnx", verbose=False, input_signature=[signature])
        return onnx.load(file)


def _decoding_text(decoder: DecodingLayer, raw_shape: tuple, network: Any) -> str:
    """Return the decoding layer in ONNX' language, for the opset of the network."""
    if type(decoder) not in _CANDIDATE_SCORES:
        raise ValueError(
            f"The decoding layer {type(decoder).__name__} has no ONNX counterpart: export the "
            "model in mode 'training', and decode its output outside of the model."
        )
    batch, n_boxes, n_columns = raw_shape
    n_classes = n_columns - 1 - 12  # without the background
    n_suppressions = n_classes if type(decoder) is DecodeDetections else 1
    n_entering = min(n_boxes, decoder.max_candidates_per_class or n_boxes)
    n_selectable = min(int(decoder.top_k), n_suppressions * n_boxes)
    (opset,) = (entry.version for entry in network.opset_import if entry.domain == "")
    return _DECODING.format(
        ir_version=network.ir_version,
        opset=opset,
        batch="batch" if batch is None else batch,
        n_boxes=n_boxes,
        n_columns=n_columns,
        n_classes=n_classes,
        top_k=int(decoder.top_k),
        lowest=_LOWEST,
        x_unit=_text(decoder.img_width if decoder.normalize_coords else 1),
        y_unit=_text(decoder.img_height if decoder.normalize_coords else 1),
        max_per_class=int(min(decoder.nms_max_output_size, decoder.top_k)),
        iou_threshold=_text(decoder.iou_threshold),
        score_threshold=_text(decoder.confidence_thresh),
        scores=_ALL_ENTER if n_entering == n_boxes else _BEST_ENTER.format(n_entering=n_entering),
        n_selectable=n_selectable,
        n_missing=int(decoder.top_k) - n_selectable,
        candidate_scores=_CANDIDATE_SCORES[type(decoder)],
        class_ids=_CLASS_IDS[type(decoder)],
    )


def _text(number: float) -> str:
    return repr(float(np.float32(number)))
