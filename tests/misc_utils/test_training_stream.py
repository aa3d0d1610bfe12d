"""Tests of the batches of a training that can be interrupted anywhere."""

import cv2
import keras
import numpy as np
import pytest

from data_generator.image_reading import ImageReadError
from data_generator.object_detection_2d_data_generator import DataGenerator
from data_generator.object_detection_2d_photometric_ops import RandomBrightness
from misc_utils.training_stream import TrainingStream


class FirstBox:
    """An encoder of the simplest kind: the first box of each image."""

    def __call__(self, labels, diagnostics=False):
        return np.stack([boxes[0] for boxes in labels]).astype(np.float32)


@pytest.fixture
def dataset(tmp_path):
    names, labels = [], []
    for number in range(7):
        names.append(str(tmp_path / f"{number}.png"))
        cv2.imwrite(names[-1], np.full((8, 8, 3), 20 * number, np.uint8))
        labels.append(np.array([[1, number, 0, number + 1, 4]]))
    return DataGenerator(filenames=names, labels=labels, verbose=False)


def stream(dataset, **options):
    return TrainingStream(
        dataset, 2, [RandomBrightness(-20, 20, 1.0)], FirstBox(), **{"seed": 3, **options}
    )


def taken(stream, indices):
    return [tuple(part.copy() for part in stream[index]) for index in indices]


def assert_equal(expected, found):
    for one, two in zip(expected, found, strict=True):
        for a, b in zip(one, two, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_stream_that_begins_later_goes_on_with_the_same_batches(dataset):
    expected = taken(stream(dataset), range(11))
    assert stream(dataset).batches_per_epoch == 4
    for first_step in (1, 4, 6):
        found = taken(stream(dataset, first_step=first_step), range(11 - first_step))
        assert_equal(expected[first_step:], found)


@pytest.mark.parametrize("workers", [0, 1])
def test_what_keeps_a_batch_from_being_made_is_remembered(dataset, workers, tmp_path):
    (tmp_path / "5.png").write_bytes(b"no picture")
    batches = stream(dataset, workers=workers)
    assert batches.failure is None
    with pytest.raises(ImageReadError, match=r"5\.png") as raised:
        taken(batches, range(4))
    assert batches.failure is raised.value
    batches.close()


def test_workers_change_nothing(dataset):
    expected = taken(stream(dataset, first_step=3), range(6))
    with_worker = stream(dataset, first_step=3, workers=1)
    assert_equal(expected, taken(with_worker, range(6)))
    with_worker.close()


@pytest.mark.parametrize("looks", [[0], [0, 1], [0, 1, 0, 1], [0, 5, 2]])
def test_looking_ahead_changes_nothing(dataset, looks):
    expected = taken(stream(dataset), range(6))
    looked_at = stream(dataset)
    taken(looked_at, looks)
    assert_equal(expected, taken(looked_at, range(6)))


def test_an_epoch_has_all_images_once_and_fills_up(dataset):
    batches = taken(stream(dataset), range(4))
    found = np.concatenate([targets[:, 1] for _, targets in batches])
    assert len(found) == 8
    assert set(found[:7]) == set(range(7))


def test_names_of_a_batch(dataset):
    batches = stream(dataset)
    _, targets = batches[0]
    assert [name[-5:] for name in batches.names(0)] == [f"{n:.0f}.png" for n in targets[:, 1]]
    assert batches.names(77) == []


def test_fit_trains_on_the_batches_in_order(dataset):
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, keras.layers.Dense(5)(keras.layers.Flatten()(inputs)))
    model.compile(keras.optimizers.SGD(0.0), "mse")
    losses = []
    record = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: losses.append(logs["loss"])
    )
    batches = stream(dataset, first_step=2)
    arguments = {"epochs": 5, "shuffle": False, "verbose": 0, "callbacks": [record]}
    model.fit(batches, steps_per_epoch=1, **arguments)
    expected = [model.evaluate(*batch, verbose=0) for batch in taken(stream(dataset), range(2, 7))]
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
