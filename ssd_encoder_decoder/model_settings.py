"""What a model says about itself: image size, classes, mode, anchors.

An SSD model carries everything that is needed to make targets for it and to decode its output. This
module reads it back from the layers, also after the model was saved and loaded. It asks the layers'
configurations only and so needs no deep-learning framework itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ssd_encoder_decoder.anchors import AnchorSettings
from ssd_encoder_decoder.class_names import get_class_names

_MODES = {"DecodeDetections": "inference", "DecodeDetectionsFast": "inference_fast"}


@dataclass(frozen=True)
class ModelSettings:
    """The facts about an SSD model that surround its weights.

    Attributes:
        img_height: Height of the input in pixels.
        img_width: Width of the input in pixels.
        img_channels: Number of input channels.
        n_classes: Number of object classes, without the background class.
        mode: ``'training'``, ``'inference'`` or ``'inference_fast'``.
        predictor_sizes: (height, width) of each predictor layer's feature map.
        anchors: The anchor settings.
        confidence_thresh: The decoding layer's threshold; None in mode ``'training'``.
        iou_threshold: The decoding layer's NMS threshold; None in mode ``'training'``.
        top_k: The decoding layer's number of rows; None in mode ``'training'``.
        class_names: Names by class id, 'background' first; None if the model knows none.
    """

    img_height: int
    img_width: int
    img_channels: int
    n_classes: int
    mode: str
    predictor_sizes: tuple[tuple[int, int], ...]
    anchors: AnchorSettings
    confidence_thresh: float | None
    iou_threshold: float | None
    top_k: int | None
    class_names: tuple[str, ...] | None

    @property
    def coords(self) -> str:
        """The box format of the model's raw output."""
        return self.anchors.coords

    @property
    def normalize_coords(self) -> bool:
        """Whether the model's raw boxes are in fractions of the image."""
        return self.anchors.normalize_coords


def read_model_settings(model: Any) -> ModelSettings:
    """Read the settings of a model that was made by one of the builders in `models`.

    Arguments:
        model: A Keras model of any mode, freshly built or loaded.

    Returns:
        Its `ModelSettings`.

    Raises:
        ValueError: if the model has no `AnchorBoxes` layers or no layer named `predictions`.
    """
    anchor_layers = [layer for layer in model.layers if type(layer).__name__ == "AnchorBoxes"]
    if not anchor_layers:
        raise ValueError(
            f"Model {getattr(model, 'name', model)!r} has no AnchorBoxes layers, so its anchor "
            "settings cannot be read back. Is it a model made by `models.*`? If it was converted "
            "or built by hand, give the settings to SSDInputEncoder(...) yourself."
        )
    predictions = next((layer for layer in model.layers if layer.name == "predictions"), None)
    if predictions is None:
        raise ValueError(
            f"Model {getattr(model, 'name', model)!r} has no layer named 'predictions', whose "
            "shape tells the number of classes."
        )
    configs = [layer.get_config() for layer in anchor_layers]
    first = configs[0]
    last_layer = model.layers[-1]
    decoding = last_layer.get_config() if type(last_layer).__name__ in _MODES else {}
    class_names = get_class_names(model)
    return ModelSettings(
        img_height=first["img_height"],
        img_width=first["img_width"],
        img_channels=model.input_shape[-1],
        n_classes=predictions.output.shape[-1] - 12 - 1,
        mode=_MODES.get(type(last_layer).__name__, "training"),
        predictor_sizes=tuple(tuple(layer.output.shape[1:3]) for layer in anchor_layers),
        anchors=AnchorSettings.from_arguments(
            n_layers=len(configs),
            min_scale=None,
            max_scale=None,
            scales=[config["this_scale"] for config in configs] + [configs[-1]["next_scale"]],
            aspect_ratios_global=None,
            aspect_ratios_per_layer=[config["aspect_ratios"] for config in configs],
            two_boxes_for_ar1=first["two_boxes_for_ar1"],
            steps=[config["this_steps"] for config in configs],
            offsets=[config["this_offsets"] for config in configs],
            clip_boxes=first["clip_boxes"],
            variances=first["variances"],
            coords=first["coords"],
            normalize_coords=first["normalize_coords"],
        ),
        confidence_thresh=decoding.get("confidence_thresh"),
        iou_threshold=decoding.get("iou_threshold"),
        top_k=decoding.get("top_k"),
        class_names=None if class_names is None else tuple(class_names),
    )
