"""SSDs on other base networks as files for other runtimes."""

from __future__ import annotations

import keras
import numpy as np
import pytest

if keras.backend.backend() != "tensorflow":
    pytest.skip("models are exported with TensorFlow", allow_module_level=True)

from keras import layers

from misc_utils.export import export_model
from models.backbone_ssd import ssd_from_backbone
from models.keras_ssd_densenet import ssd_densenet
from models.keras_ssd_inception_resnet_v2 import ssd_inception_resnet_v2
from models.keras_ssd_mobilenet_v2 import ssd_mobilenet_v2
from models.keras_ssd_resnet50 import ssd_resnet50
from tests.runtimes import FILES, load


def small_ssd(mode: str) -> keras.Model:
    inputs = keras.Input((48, 64, 3))
    x = layers.Conv2D(6, 3, strides=4, padding="same", use_bias=False, name="conv")(inputs)
    x = layers.BatchNormalization(name="bn")(x)
    backbone = keras.Model(inputs, layers.ReLU(6.0, name="fine")(x))
    return ssd_from_backbone(
        backbone,
        ["fine"],
        (48, 64, 3),
        2,
        mode,
        extra_filters=(8,),
        separable=True,
        subtract_mean=(123.68, 116.779, 103.939),
        divide_by_stddev=60,
        swap_channels=(2, 1, 0),
    )


def slow(*values) -> object:
    return pytest.param(*values, marks=pytest.mark.slow)


CASES = [
    *((small_ssd, format, "training") for format in FILES),
    (small_ssd, "onnx", "inference_fast"),
    *(
        slow(lambda mode: ssd_mobilenet_v2((96, 96, 3), 2, mode, alpha=0.35), format, mode)
        for format in FILES
        for mode in ("training", "inference")
    ),
    *(
        slow(lambda mode, build=build: build((80, 80, 3), 2, mode), format, "training")
        for build in (ssd_resnet50, ssd_densenet, ssd_inception_resnet_v2)
        for format in ("tf_saved_model", "onnx")
    ),
]


@pytest.mark.parametrize(("make", "format", "mode"), CASES)
def test_computes_what_the_model_computes(make, format, mode, tmp_path):
    keras.utils.set_random_seed(0)
    model = make(mode)
    images = np.random.default_rng(0).integers(0, 256, (2, *model.input_shape[1:]))
    images = images.astype(np.float32)
    expected = np.asarray(model.predict_on_batch(images))
    (found,) = load(export_model(model, tmp_path / FILES[format], format))(images).values()
    assert found.shape == expected.shape
    # Offsets of an untrained network may be large; classes and anchors are not.
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
