"""The parts of the loss add up to what Keras reports as the loss."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from keras_loss_function.keras_ssd_loss import SSDLoss
from keras_loss_function.metrics import (
    ClassificationLoss,
    LocalizationLoss,
    NumberOfPositives,
    loss_metrics,
)

N_BOXES, N_COLUMNS = 6, 3 + 12  # two classes and the background


def targets(rng: np.random.Generator, kinds: list[list[int]]) -> np.ndarray:
    """Make targets from one class id for each box: 0 background, -1 neutral."""
    kinds = np.array(kinds)
    y_true = np.zeros((*kinds.shape, N_COLUMNS), np.float32)
    y_true[..., :3] = (kinds[..., np.newaxis] == np.arange(3)).astype(np.float32)
    y_true[..., 3:7] = rng.normal(size=(*kinds.shape, 4)) * (kinds > 0)[..., np.newaxis]
    return y_true


def problem() -> tuple[np.ndarray, np.ndarray]:
    """Five images, for batches of two: the second batch has no positives, the third one image."""
    rng = np.random.default_rng(3)
    kinds = [
        [1, 0, 0, 2, -1, 0],
        [0, 0, 0, 0, 0, 0],
        [0, -1, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0],
        [2, 2, 1, 0, 0, 0],
    ]
    return rng.normal(size=(5, 4)).astype(np.float32), targets(rng, kinds)


def make_model(loss: SSDLoss, learning_rate: float = 0.0) -> keras.Model:
    keras.utils.set_random_seed(5)
    inputs = keras.Input((4,))
    x = keras.layers.Dense(N_BOXES * N_COLUMNS, kernel_regularizer=keras.regularizers.L2(0.1))
    x = keras.layers.Reshape((N_BOXES, N_COLUMNS))(x(inputs))
    classes = keras.layers.Softmax()(x[..., :3])
    model = keras.Model(inputs, keras.layers.Concatenate()([classes, x[..., 3:]]))
    model.compile(keras.optimizers.SGD(learning_rate), loss=loss, metrics=loss_metrics(loss))
    return model


class RegularisationOfBatches(keras.callbacks.Callback):
    """Notes the regularisation at the start of each batch, where the loss is computed."""

    def __init__(self):
        super().__init__()
        self.values = []

    def on_train_batch_begin(self, batch, logs=None):
        self.values.append(float(keras.ops.convert_to_numpy(sum(self.model.losses))))


@pytest.mark.parametrize("n_neg_min", [0, 2])
@pytest.mark.parametrize("mining", ["batch", "per_image"])
def test_the_parts_add_up_over_an_epoch_of_unequal_batches(mining, n_neg_min):
    loss = SSDLoss(alpha=2.5, mining=mining, n_neg_min=n_neg_min)
    x, y = problem()
    model = make_model(loss)
    results = model.evaluate(x, y, batch_size=2, verbose=0, return_dict=True)
    regularisation = float(keras.ops.convert_to_numpy(sum(model.losses)))
    assert regularisation > 0.1
    parts = results["classification_loss"] + 2.5 * results["localization_loss"]
    assert results["loss"] == pytest.approx(parts + regularisation, rel=1e-5)
    assert results["n_positive"] == pytest.approx(5 / 5)


def test_the_parts_add_up_while_the_weights_change():
    loss = SSDLoss(alpha=0.5, n_neg_min=1)
    x, y = problem()
    model, noted = make_model(loss, learning_rate=0.01), RegularisationOfBatches()
    fitted = model.fit(
        x, y, batch_size=2, shuffle=False, verbose=0, callbacks=[noted], validation_data=(x, y)
    )
    logs = {name: values[0] for name, values in fitted.history.items()}
    assert noted.values[0] != noted.values[2]
    regularisation = np.average(noted.values, weights=[2, 2, 1])
    parts = logs["classification_loss"] + 0.5 * logs["localization_loss"]
    assert logs["loss"] == pytest.approx(parts + regularisation, rel=1e-5)
    assert {"val_classification_loss", "val_localization_loss", "val_n_positive"} <= set(logs)


def test_each_part_by_hand():
    # One positive with probability 1/4 for its class, one negative with 1/2: both count. The box is
    # off by 2 in one offset: smooth L1 is 2 - 0.5.
    y_true, y_pred = np.zeros((2, 1, 2, N_COLUMNS), np.float32)
    y_true[0, 0, 1] = y_true[0, 1, 0] = 1
    y_pred[0, 0, :3], y_pred[0, 1, :3] = (0.5, 0.25, 0.25), (0.5, 0.25, 0.25)
    y_pred[0, 0, 4] = 2.0
    y_pred[0, 1, 4] = 9.0  # the box of a negative does not count
    classification, localization, n_positive = loss_metrics(SSDLoss(alpha=7))
    for metric in (classification, localization, n_positive):
        metric.update_state(y_true, y_pred)
    assert float(classification.result()) == pytest.approx(np.log(4) + np.log(2))
    assert float(localization.result()) == pytest.approx(1.5)
    assert float(n_positive.result()) == 1.0


@pytest.mark.parametrize(
    ("weights", "dtype"), [([1, 2, 3, 0.5, 0.1], "float32"), ([1, 2, 3, 0, 1], "int64")]
)
def test_weights_of_images_weigh_as_in_the_loss(weights, dtype):
    loss = SSDLoss(alpha=2.0)
    x, y = problem()
    model = make_model(loss)
    model.compile("sgd", loss=loss, weighted_metrics=loss_metrics(loss))
    weights = np.array(weights, dtype)
    results = model.evaluate(x, y, batch_size=2, sample_weight=weights, verbose=0, return_dict=True)
    regularisation = float(keras.ops.convert_to_numpy(sum(model.losses)))
    parts = results["classification_loss"] + 2.0 * results["localization_loss"]
    assert results["loss"] == pytest.approx(parts + regularisation, rel=1e-5)


def test_a_model_with_the_metrics_can_be_saved_and_loaded(tmp_path):
    x, y = problem()
    model = make_model(SSDLoss(alpha=2.0, mining="per_image"))
    before = model.evaluate(x, y, verbose=0, return_dict=True)
    model.save(tmp_path / "model.keras")
    after = keras.saving.load_model(tmp_path / "model.keras").evaluate(
        x, y, verbose=0, return_dict=True
    )
    assert after == pytest.approx(before, rel=1e-6)


@pytest.mark.parametrize("metric", [ClassificationLoss, LocalizationLoss])
def test_other_losses_have_no_such_parts(metric):
    with pytest.raises(ValueError, match=r"takes an SSDLoss apart.*mse"):
        metric("mse")


def test_half_precision_is_computed_in_float32():
    _, y = problem()
    metric = NumberOfPositives()
    metric.update_state(keras.ops.cast(y, "bfloat16"))
    assert float(metric.result()) == 1.0
