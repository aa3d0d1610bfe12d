"""The decoding written in ONNX' language beside the decoding layers, on the same predictions."""

from __future__ import annotations

import keras
import numpy as np
import pytest

if keras.backend.backend() != "tensorflow":
    pytest.skip("models are exported with TensorFlow", allow_module_level=True)
pytest.importorskip("onnx")
pytest.importorskip("tf2onnx")

from keras_layers.decoding import DecodingLayer
from keras_layers.keras_layer_DecodeDetections import DecodeDetections
from misc_utils.export_onnx import write_onnx
from tests.decoding_cases import CASES, detections_of, pass_through, predictions
from tests.runtimes import load


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_decodes_like_the_layer(case, tmp_path):
    y_pred, layer = case()
    write_onnx(tmp_path / "ssd.onnx", pass_through(y_pred), layer, {})
    found = load(tmp_path / "ssd.onnx")(y_pred)["detections"]
    expected = detections_of(layer, y_pred)
    np.testing.assert_array_equal(found[..., :2], expected[..., :2])
    np.testing.assert_allclose(found[..., 2:], expected[..., 2:], atol=1e-3)


def test_a_decoding_layer_of_ones_own_is_refused(tmp_path):
    class WeightedFusion(DecodingLayer):
        pass

    layer = WeightedFusion(normalize_coords=False)
    with pytest.raises(ValueError, match="WeightedFusion has no ONNX counterpart: export .* 'tra"):
        write_onnx(tmp_path / "ssd.onnx", pass_through(predictions()), layer, {})


def test_the_file_uses_standard_operations_only(tmp_path):
    import onnx

    path = tmp_path / "ssd.onnx"
    layer = DecodeDetections(normalize_coords=False)
    write_onnx(path, pass_through(predictions()), layer, {"key": "value"})
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert {node.domain for node in model.graph.node} == {""}
    assert [node.op_type for node in model.graph.node].count("NonMaxSuppression") == 1
    assert [(prop.key, prop.value) for prop in model.metadata_props] == [("key", "value")]
