"""Decoding with LiteRT's kernel beside the decoding layers, on the same predictions."""

from __future__ import annotations

import keras
import numpy as np
import pytest

if keras.backend.backend() != "tensorflow":
    pytest.skip("models are exported with TensorFlow", allow_module_level=True)
pytest.importorskip("ai_edge_litert")

from misc_utils.export_litert import litert_nms, write_litert
from tests.decoding_cases import CASES, detections_of, pass_through
from tests.runtimes import load


def write(path, y_pred, function):
    model = pass_through(y_pred)
    signature = keras.InputSpec(shape=(None, *y_pred.shape[1:]), dtype="float32", name="images")
    write_litert(path, function, model, signature, {})


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_decodes_like_the_layer(case, tmp_path):
    y_pred, layer = case()
    path = tmp_path / "ssd.tflite"
    write(path, y_pred, lambda images: {"detections": layer.decode(images, litert_nms)})
    found = load(path)(y_pred)["detections"]
    expected = detections_of(layer, y_pred)
    np.testing.assert_array_equal(found[..., :2], expected[..., :2])
    np.testing.assert_allclose(found[..., 2:], expected[..., 2:], atol=1e-3)


def test_refuses_operations_that_are_not_built_in(tmp_path, capfd):
    y_pred = np.zeros((1, 2, 3), np.float32)

    def function(images):
        import tensorflow as tf

        return {"predictions": tf.bitwise.bitwise_and(tf.cast(images, tf.int32), 3)}

    path = tmp_path / "ssd.tflite"
    with pytest.raises(ValueError, match="operations that are not built into LiteRT"):
        write(path, y_pred, function)
    assert "BitwiseAnd" in capfd.readouterr().err, "the converter names the operation"
    assert not path.exists()
