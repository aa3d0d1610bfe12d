"""SSD models.

Importing this package, or any of its modules, makes the library's layers, losses, metrics,
optimizers and schedules known to Keras. After that `keras.saving.load_model(path)` opens a saved
model without `custom_objects`.
"""

import misc_utils.fine_tuning
import misc_utils.training_schedules  # noqa: F401
from keras_layers import (  # noqa: F401
    batch_normalization,
    class_scores,
    keras_layer_AnchorBoxes,
    keras_layer_DecodeDetections,
    keras_layer_DecodeDetectionsFast,
    keras_layer_L2Normalization,
    preprocessing,
)
from keras_loss_function import keras_ssd_focal_loss, keras_ssd_loss, metrics  # noqa: F401
from models.backbone_ssd import ssd_from_backbone  # noqa: F401
