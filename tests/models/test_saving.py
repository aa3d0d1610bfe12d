"""Every model in every mode survives files, clones and configurations, also in another process."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_loss_function.keras_ssd_loss import SSDLoss
from keras_loss_function.metrics import loss_metrics
from models.keras_ssd7 import build_model
from models.keras_ssd300 import SCALES_VOC, ssd_300
from models.keras_ssd512 import SCALES_COCO, ssd_512
from ssd_encoder_decoder.class_names import get_class_names, set_class_names
from ssd_encoder_decoder.model_settings import read_model_settings
from ssd_encoder_decoder.ssd_input_encoder import SSDInputEncoder

REPOSITORY = Path(__file__).resolve().parents[2]
MODES = ("training", "inference", "inference_fast")
NAMES = ["background", "zoë's cat", "dog"]


def make_ssd7(mode: str) -> keras.Model:
    return build_model(
        (64, 96, 3),
        2,
        mode,
        steps=[8, (16, 15), 32, None],
        offsets=[0.5, 0.4, (0.3, 0.6), None],
        subtract_mean=[120, 110, 100],
        divide_by_stddev=58.0,
        swap_channels=[2, 1, 0],
        clip_boxes=True,
        class_names=NAMES,
    )


def make_ssd300(mode: str) -> keras.Model:
    # The default steps: they are the ones that the original lost when a model was saved.
    return ssd_300((300, 300, 3), 2, mode, scales=SCALES_VOC)


def make_ssd512(mode: str) -> keras.Model:
    return ssd_512((257, 260, 3), 2, mode, scales=SCALES_COCO, steps=None)


def slow(value) -> object:
    return pytest.param(value, marks=pytest.mark.slow)


every_model = pytest.mark.parametrize("make", [make_ssd7, slow(make_ssd300), slow(make_ssd512)])
every_mode = pytest.mark.parametrize("mode", MODES)


def image_for(model: keras.Model) -> np.ndarray:
    shape = (1, *model.input_shape[1:])
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.float32)


def output_of(model: keras.Model) -> np.ndarray:
    return model.predict(image_for(model), verbose=0)


def configs_of(model: keras.Model) -> list[dict]:
    """Return the layers' configurations as JSON has them: with lists where there were tuples."""
    # All but the input's, whose name a clone does not keep.
    configs = [keras.saving.serialize_keras_object(layer) for layer in model.layers[1:]]
    return json.loads(json.dumps(configs))


@every_model
@every_mode
def test_files(make, mode, tmp_path):
    model = make(mode)
    expected = output_of(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    assert configs_of(loaded) == configs_of(model)
    np.testing.assert_array_equal(output_of(loaded), expected)
    if mode == "training":  # the encoder's anchors come from the loaded model's settings
        template = SSDInputEncoder.from_model(loaded).generate_encoding_template(1)
        np.testing.assert_array_equal(template[..., -8:], expected[..., -8:])

    model.save_weights(tmp_path / "model.weights.h5")
    fresh = make(mode)
    assert not np.array_equal(output_of(fresh), expected)
    fresh.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(output_of(fresh), expected)


def test_weights_serve_every_mode(tmp_path):
    trained = make_ssd7("training")
    trained.save_weights(tmp_path / "model.weights.h5")
    for mode in MODES[1:]:
        model = make_ssd7(mode)
        model.load_weights(tmp_path / "model.weights.h5")
        for ours, theirs in zip(model.get_weights(), trained.get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)


@every_model
def test_clones_and_configurations(make):
    model = make("inference")
    for copy in (
        keras.models.clone_model(model),
        keras.Model.from_config(model.get_config()),
        keras.models.model_from_json(model.to_json()),
    ):
        assert configs_of(copy) == configs_of(model)
        assert [w.path for w in copy.weights] == [w.path for w in model.weights]
        copy.set_weights(model.get_weights())
        np.testing.assert_array_equal(output_of(copy), output_of(model))


FRESH_PROCESS = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    import keras, numpy as np
    import models
    from ssd_encoder_decoder.class_names import get_class_names

    for path in Path(sys.argv[1]).glob("*.keras"):
        model = keras.saving.load_model(path, safe_mode=True)
        shape = (1, *model.input_shape[1:])
        image = np.random.default_rng(0).integers(0, 256, shape).astype(np.float32)
        np.save(path.with_suffix(".npy"), model.predict(image, verbose=0))
        names = "\\n".join(get_class_names(model) or [])
        path.with_suffix(".txt").write_text(names, encoding="utf-8")
    """
)


@every_model
def test_a_process_that_only_imports_models(make, tmp_path):
    expected = {}
    for mode in MODES:
        model = make(mode)
        model.save(tmp_path / f"{mode}.keras")
        expected[mode] = output_of(model)
    command = [sys.executable, "-W", "ignore", "-c", FRESH_PROCESS, str(tmp_path)]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True)
    for mode in MODES:
        np.testing.assert_array_equal(np.load(tmp_path / f"{mode}.npy"), expected[mode])
        names = (tmp_path / f"{mode}.txt").read_text(encoding="utf-8")
        assert names.splitlines() == (get_class_names(model) or [])


def test_a_process_that_only_imports_models_loads_a_compiled_model(tmp_path):
    model = make_ssd7("training")
    loss = SSDLoss()
    model.compile(keras.optimizers.SGD(0.01), loss=loss, metrics=loss_metrics(loss))
    model.save(tmp_path / "compiled.keras")
    command = [sys.executable, "-W", "ignore", "-c", FRESH_PROCESS, str(tmp_path)]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True)
    np.testing.assert_array_equal(np.load(tmp_path / "compiled.npy"), output_of(model))


# ---------------------------------------------------------------------- files of earlier versions


def as_before_names(model: keras.Model) -> keras.Model:
    """Return a model as it was built before models had class names: with a layer of Keras."""
    config = json.loads(model.to_json())
    for layer in config["config"]["layers"]:
        if layer["class_name"] == "Predictions":
            del layer["config"]["class_names"]
            layer |= {"module": "keras.layers", "class_name": "Concatenate"}
            layer |= {"registered_name": None}
    before = keras.models.model_from_json(json.dumps(config))
    assert type(before.get_layer("predictions")) is keras.layers.Concatenate
    before.set_weights(model.get_weights())
    return before


@every_mode
def test_files_without_a_place_for_names(mode, tmp_path):
    model = make_ssd7(mode)
    before = as_before_names(model)
    before.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_array_equal(output_of(loaded), output_of(model))
    assert get_class_names(loaded) is None
    settings = read_model_settings(loaded)
    assert (settings.mode, settings.n_classes, settings.class_names) == (mode, 2, None)
    with pytest.raises(ValueError, match=r"saved before models had names.*new\.set_weights"):
        set_class_names(loaded, NAMES)

    before.save_weights(tmp_path / "model.weights.h5")
    fresh = make_ssd7(mode)
    fresh.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(output_of(fresh), output_of(model))
    assert get_class_names(fresh) == NAMES
