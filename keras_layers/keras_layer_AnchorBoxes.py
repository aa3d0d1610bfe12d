"""The layer that lays anchor boxes over a feature map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from ssd_encoder_decoder.anchors import AnchorSettings, anchor_boxes, anchors_per_cell


@keras.saving.register_keras_serializable(package="ssd_keras")
class AnchorBoxes(keras.layers.Layer):
    """Outputs the anchor boxes of a feature map, and their variances, as part of the model.

    With its anchors and variances inside, a model's output tells everything that is needed to
    decode it, and the anchors can be read back from a saved model
    (`SSDInputEncoder.from_model`).

    Input: `(batch, height, width, channels)`. Only height and width matter; both must be known
    when the layer is built.

    Output: float32 `(batch, height, width, n_boxes, 8)`: four anchor coordinates in the format
    `coords`, then the four variances. The layer has no weights: what it outputs is a constant of
    the graph, made once when the layer is built, in float32 under any dtype policy.

    Example:
        >>> from keras_layers.keras_layer_AnchorBoxes import AnchorBoxes
        >>> layer = AnchorBoxes(300, 300, this_scale=0.2, next_scale=0.37, aspect_ratios=(1.0, 2.0))
        >>> layer.compute_output_shape((None, 19, 19, 512))  # 3 boxes a cell: ratio 1 has two
        (None, 19, 19, 3, 8)
    """

    def __init__(
        self,
        img_height: int,
        img_width: int,
        this_scale: float,
        next_scale: float,
        aspect_ratios: Sequence[float] = (0.5, 1.0, 2.0),
        two_boxes_for_ar1: bool = True,
        this_steps: float | Sequence[float] | None = None,
        this_offsets: float | Sequence[float] | None = None,
        clip_boxes: bool = False,
        variances: Sequence[float] = (0.1, 0.1, 0.2, 0.2),
        coords: str = "centroids",
        normalize_coords: bool = False,
        **kwargs: Any,
    ):
        """Check and keep the settings of one predictor layer's anchors.

        Arguments:
            img_height: Height of the model's input in pixels.
            img_width: Width of the model's input in pixels.
            this_scale: Scale of this layer's anchors, in (0, 1]: a fraction of the shorter side.
            next_scale: Scale of the next coarser layer; may exceed 1.
            aspect_ratios: Ratios width / height.
            two_boxes_for_ar1: Whether ratio 1 gets a second box of scale
                sqrt(this_scale * next_scale).
            this_steps: Pixels between anchor centres: a number, (vertical, horizontal), or None
                for image size / feature map size.
            this_offsets: Position of the first centre in steps: a number, (vertical, horizontal),
                or None for 0.5.
            clip_boxes: Whether anchors are clipped to the image.
            variances: Four positive constants that divide the offsets.
            coords: ``'centroids'``, ``'corners'`` or ``'minmax'``.
            normalize_coords: Whether anchors are fractions of the image instead of pixels.
            **kwargs: Arguments of every Keras layer, such as `name`.

        Raises:
            ValueError: naming the argument that is not as described.
        """
        # The anchors are coordinates: half precision would move them by pixels.
        kwargs.setdefault("dtype", "float32")
        # Only the shape of the input matters, so there is nothing to cast.
        super().__init__(autocast=False, **kwargs)
        if not 0 < this_scale <= 1 or next_scale <= 0:
            raise ValueError(
                "`this_scale` must be in (0, 1] and `next_scale` greater than 0; "
                f"got this_scale={this_scale}, next_scale={next_scale}."
            )
        settings = AnchorSettings.from_arguments(
            n_layers=1,
            min_scale=None,
            max_scale=None,
            scales=[this_scale, next_scale],
            aspect_ratios_global=aspect_ratios,
            aspect_ratios_per_layer=None,
            two_boxes_for_ar1=two_boxes_for_ar1,
            steps=[this_steps],
            offsets=[this_offsets],
            clip_boxes=clip_boxes,
            variances=variances,
            coords=coords,
            normalize_coords=normalize_coords,
        )
        self.img_height = img_height
        self.img_width = img_width
        self.this_scale, self.next_scale = settings.scales
        self.aspect_ratios = list(settings.aspect_ratios[0])
        self.two_boxes_for_ar1 = two_boxes_for_ar1
        self.this_steps = settings.steps[0]
        self.this_offsets = settings.offsets[0]
        self.clip_boxes = clip_boxes
        self.variances = list(settings.variances)
        self.coords = coords
        self.normalize_coords = normalize_coords
        self.n_boxes = anchors_per_cell(self.aspect_ratios, two_boxes_for_ar1)
        self._settings = settings

    def build(self, input_shape: tuple) -> None:
        """Compute the anchors for the feature map's size."""
        _, map_height, map_width, _ = input_shape
        if map_height is None or map_width is None:
            raise ValueError(
                f"{self.name} needs a feature map of known height and width; got the shape "
                f"{tuple(input_shape)}. Give the model a fixed image size."
            )
        boxes = anchor_boxes(
            (map_height, map_width),
            (self.img_height, self.img_width),
            **self._settings.layer_arguments(0),
        ).boxes
        variances = np.broadcast_to(self.variances, boxes.shape)
        self._anchors = np.concatenate([boxes, variances], axis=-1).astype(np.float32)
        self.built = True

    def call(self, x: Any) -> Any:
        """Repeat the constant anchors for every image of the batch."""
        anchors = ops.convert_to_tensor(self._anchors[np.newaxis])
        return ops.broadcast_to(anchors, (ops.shape(x)[0], *self._anchors.shape))

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Return `(batch, height, width, n_boxes, 8)`."""
        batch, map_height, map_width, _ = input_shape
        return (batch, map_height, map_width, self.n_boxes, 8)

    def get_config(self) -> dict:
        """Return all constructor arguments."""
        return {
            **super().get_config(),
            "img_height": self.img_height,
            "img_width": self.img_width,
            "this_scale": self.this_scale,
            "next_scale": self.next_scale,
            "aspect_ratios": self.aspect_ratios,
            "two_boxes_for_ar1": self.two_boxes_for_ar1,
            "this_steps": self.this_steps,
            "this_offsets": self.this_offsets,
            "clip_boxes": self.clip_boxes,
            "variances": self.variances,
            "coords": self.coords,
            "normalize_coords": self.normalize_coords,
        }
