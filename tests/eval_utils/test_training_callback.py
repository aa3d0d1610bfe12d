"""Mean average precision during training: the evaluator's numbers, where Keras looks for them."""

from __future__ import annotations

import csv
import math

import keras
import numpy as np
import pytest

from data_generator.object_detection_2d_data_generator import DataGenerator
from data_generator.object_detection_2d_geometric_ops import Resize
from data_generator.object_detection_2d_photometric_ops import ConvertTo3Channels
from eval_utils.average_precision_evaluator import Evaluator
from eval_utils.training_callback import MeanAveragePrecision
from keras_loss_function.keras_ssd_loss import SSDLoss
from models.keras_ssd7 import build_model
from ssd_encoder_decoder.class_names import set_class_names
from ssd_encoder_decoder.ssd_input_encoder import SSDInputEncoder

SIZE = (64, 80)
CLASSES = ["background", "bright", "dark", "never seen"]
RESIZE = [ConvertTo3Channels(), Resize(*SIZE)]
NAMES = ["val_mAP", "val_AP_bright", "val_AP_dark", "val_AP_never seen"]


@pytest.fixture(scope="module")
def dataset():
    """Four images of another size than the model's input, each with a bright and a dark square."""
    rng = np.random.default_rng(0)
    data = DataGenerator(verbose=False)
    images, labels = [], []
    for _ in range(4):
        image = rng.integers(100, 140, (60, 70, 3)).astype(np.uint8)
        boxes = []
        for class_id, colour, left in ((1, 250, 0), (2, 5, 35)):
            x, y = left + int(rng.integers(0, 12)), int(rng.integers(0, 35))
            image[y : y + 22, x : x + 22] = colour
            boxes.append([class_id, x, y, x + 22, y + 22])
        images.append(image)
        labels.append(np.array(boxes))
    data.images, data.labels = images, labels
    data.filenames = data.image_ids = [f"image {i}" for i in range(4)]
    data.dataset_size, data.dataset_indices = 4, np.arange(4)
    data.class_names = CLASSES
    return data


def make_model(mode: str = "training", top_k: int = 200) -> keras.Model:
    keras.utils.set_random_seed(1)
    return build_model(
        (*SIZE, 3),
        len(CLASSES) - 1,
        mode=mode,
        top_k=top_k,
        scales=[0.2, 0.3, 0.4, 0.5, 0.6],
        aspect_ratios_global=[1.0],
        normalize_coords=True,
        subtract_mean=127.5,
        divide_by_stddev=127.5,
    )


def fit(dataset, callbacks, epochs=3, **arguments):
    """Train from the same start in the same way; return the model and the history."""
    model = make_model()
    model.compile(keras.optimizers.Adam(1e-4), loss=SSDLoss())
    batches = dataset.generate(
        4, shuffle=False, label_encoder=SSDInputEncoder.from_model(model), transformations=RESIZE
    )
    x, y = next(batches)
    history = model.fit(
        x,
        y,
        batch_size=2,
        epochs=epochs,
        shuffle=False,
        verbose=0,
        callbacks=callbacks,
        **arguments,
    )
    return model, history.history


class Order(keras.callbacks.Callback):
    """Notes what it finds in the logs."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append({name: logs[name] for name in NAMES if name in logs})


def test_the_logs_have_exactly_the_numbers_of_an_evaluator(dataset):
    before, after = Order(), Order()
    # A model that has hardly learnt finds something at least if little overlap is enough.
    settings = {"average_precision_mode": "integrate", "matching_iou_threshold": 0.1}
    callback = MeanAveragePrecision(dataset, batch_size=3, **settings)
    model, history = fit(dataset, [before, callback, after])

    evaluator = Evaluator(model, 3, dataset, model_mode="training")
    mean = evaluator(*SIZE, 3, verbose=False, **settings)
    last = {name: history[name][-1] for name in NAMES}
    expected = dict(zip(NAMES, [mean, *evaluator.average_precisions[1:]], strict=True))
    assert last == pytest.approx(expected, abs=0, nan_ok=True)
    assert mean > 0, "a test of zeros would pass without any evaluation"
    assert math.isnan(last["val_AP_never seen"])
    assert before.seen == [{}] * 3
    assert [list(seen) for seen in after.seen] == [NAMES] * 3
    assert callback.evaluator.mean_average_precision == mean


@pytest.mark.parametrize(
    ("every", "epochs", "evaluated"),
    [(1, 3, [0, 1, 2]), (2, 5, [0, 1, 3, 4]), (10, 3, [0, 2])],
)
def test_epochs_between_evaluations_are_nan(dataset, monkeypatch, every, epochs, evaluated):
    callback = MeanAveragePrecision(dataset, every=every)
    callback.set_model(make_model())
    callback.model.stop_training = False  # as `fit` does at its start
    callback.set_params({"epochs": epochs})
    monkeypatch.setattr(callback, "evaluate", lambda: dict.fromkeys(NAMES, 0.5))
    callback.on_train_begin()
    found = []
    for epoch in range(epochs):
        logs = {"loss": 1.0}
        callback.on_epoch_end(epoch, logs)
        assert list(logs) == ["loss", *NAMES]
        if not math.isnan(logs["val_mAP"]):
            found.append(epoch)
    assert found == evaluated


def test_what_keras_offers_can_use_the_results(dataset, tmp_path, monkeypatch):
    values = iter([0.2, 0.5, 0.4, 0.4])
    callback = MeanAveragePrecision(dataset, every=2)
    monkeypatch.setattr(callback, "evaluate", lambda: dict.fromkeys(NAMES, next(values)))
    path = str(tmp_path / "{epoch}.weights.h5")
    watching = {"monitor": "val_mAP", "mode": "max"}
    fit(
        dataset,
        [
            callback,
            keras.callbacks.ModelCheckpoint(
                path, save_best_only=True, save_weights_only=True, **watching
            ),
            keras.callbacks.EarlyStopping(patience=4, **watching),
            keras.callbacks.CSVLogger(tmp_path / "history.csv"),
        ],
        epochs=20,
    )
    # Evaluated are the epochs 1, 2, 4 and 6. The second is the best; four later, the patience ends.
    assert sorted(p.name for p in tmp_path.glob("*.h5")) == ["1.weights.h5", "2.weights.h5"]
    with open(tmp_path / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    column = [float(row["val_mAP"]) for row in rows]
    assert column == pytest.approx([0.2, 0.5, math.nan, 0.4, math.nan, 0.4], nan_ok=True)


def test_evaluating_does_not_disturb_training(dataset):
    with_callback, history = fit(dataset, [MeanAveragePrecision(dataset, every=2)])
    without, plain_history = fit(dataset, [])
    assert history["loss"] == plain_history["loss"]
    for a, b in zip(with_callback.get_weights(), without.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_decoding_in_the_graph_gives_the_numbers_of_an_inference_model(dataset):
    settings = {"matching_iou_threshold": 0.01, "decoding_top_k": 100}
    callback = MeanAveragePrecision(dataset, decode_in_graph=True, **settings)
    model, history = fit(dataset, [callback], epochs=2)
    decoding = make_model("inference", top_k=100)
    decoding.set_weights(model.get_weights())
    evaluator = Evaluator(decoding, 3, dataset, "inference")
    mean = evaluator(*SIZE, 32, matching_iou_threshold=0.01, verbose=False)
    assert history["val_mAP"][-1] == pytest.approx(mean, abs=1e-6)
    assert mean > 0
    outside = MeanAveragePrecision(dataset, border_pixels="half", **settings)
    outside.set_model(model)
    results = outside.evaluate()
    # Another rule for the pixels under borders in the last matching, too.
    assert results["val_mAP"] == pytest.approx(mean, abs=0.05)


@pytest.mark.parametrize("mode", ["training", "inference", "inference_fast"])
def test_models_of_every_mode(dataset, mode):
    callback = MeanAveragePrecision(dataset, prefix="test_")
    callback.set_model(make_model(mode))
    results = callback.evaluate()
    mean = Evaluator(callback.model, 3, dataset, mode)(*SIZE, 2, verbose=False)
    assert results["test_mAP"] == mean


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"every": 0}, ValueError, "at least 1 epoch; got 0"),
        ({"img_height": 300}, TypeError, r"'img_height' \(it is read from the model\)"),
        ({"iou": 0.5}, TypeError, r"no argument 'iou'.*matching_iou_threshold"),
        ({"return_recalls": True}, TypeError, "no argument 'return_recalls'"),
    ],
)
def test_wrong_arguments_are_named_before_training(dataset, arguments, error, message):
    with pytest.raises(error, match=message):
        MeanAveragePrecision(dataset, **arguments)


@pytest.mark.parametrize("labels", [None, [], [[], []]])
def test_a_data_set_without_objects_is_refused_before_training(labels):
    data = DataGenerator(verbose=False)
    data.labels = labels
    with pytest.raises(ValueError, match="without any box"):
        MeanAveragePrecision(data)


def test_a_data_set_of_other_classes_is_refused_before_training(dataset):
    other = dataset.__copy__()
    other.class_names = ["background", "cat"]
    callback = MeanAveragePrecision(other)
    callback.set_model(make_model())
    with pytest.raises(ValueError, match="3 classes.*2 class names"):
        callback.on_train_begin()


def test_classes_in_another_order_are_refused_before_training(dataset):
    model = make_model()
    set_class_names(model, ["background", "dark", "bright", "never seen"])
    callback = MeanAveragePrecision(dataset)
    callback.set_model(model)
    with pytest.raises(ValueError, match="'bright' is number 2 of the model, but number 1"):
        callback.on_train_begin()


def test_a_data_set_without_names_has_those_of_the_model(dataset):
    model = make_model()
    set_class_names(model, CLASSES)
    nameless = dataset.__copy__()
    nameless.class_names = None
    callback = MeanAveragePrecision(nameless)
    callback.set_model(model)
    assert list(callback.evaluate()) == NAMES
    assert callback.evaluator.class_names == CLASSES
