"""SSD models.

Importing this package, or any of its modules, makes the library's layers and its loss known to
Keras. After that `keras.saving.load_model(path)` opens a saved model without `custom_objects`.
"""

import keras_layers.batch_normalization
import keras_layers.keras_layer_AnchorBoxes
import keras_layers.keras_layer_DecodeDetections
import keras_layers.keras_layer_DecodeDetectionsFast
import keras_layers.preprocessing
import keras_loss_function.keras_ssd_loss  # noqa: F401
