"""Data sets for `fit`: which batches it gets, in which order, and in which form."""

from __future__ import annotations

import gc
import itertools
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from data_generator.batch_memory import SharedSlots, unnamed_files
from data_generator.errors import DatasetError
from data_generator.object_detection_2d_data_generator import DataGenerator
from data_generator.object_detection_2d_geometric_ops import Resize
from tests.data_generator.feed_parts import N_IMAGES, DropOdd, Encoder, Noise, write_images

REPOSITORY = Path(__file__).resolve().parents[2]
needs_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="tf.data is for TensorFlow"
)


@pytest.fixture
def generator(tmp_path) -> DataGenerator:
    return write_images(tmp_path)


def pydataset(generator, batch_size=4, **options):
    defaults = {"transformations": [Noise()], "label_encoder": Encoder(), "seed": 5}
    return generator.to_pydataset(batch_size, **{**defaults, **options})


def generated(generator, n_batches: int, **options) -> list[tuple]:
    batches = generator.generate(
        5, transformations=[Noise()], label_encoder=Encoder(), seed=5, **options
    )
    return list(itertools.islice(batches, n_batches))


def make_model() -> keras.Model:
    model = keras.Sequential(
        [keras.Input((16, 20, 3)), keras.layers.Flatten(), keras.layers.Dense(5)]
    )
    model.compile("sgd", "mse")
    return model


class Recorder(keras.Sequential):
    """A model that learns nothing and remembers what it is given."""

    def __init__(self):
        super().__init__([keras.Input((16, 20, 3)), keras.layers.Flatten(), keras.layers.Dense(5)])
        self.compile("sgd", run_eagerly=True)
        self.seen: list[tuple] = []

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        if not isinstance(x, keras.KerasTensor):
            self.seen.append((np.array(x), np.array(y)))
        return 0.0 * keras.ops.mean(y_pred)


def assert_same(batches, expected):
    for batch, wanted in zip(batches, expected, strict=True):
        assert isinstance(batch, tuple)
        for part, wanted_part in zip(batch, wanted, strict=True):
            np.testing.assert_array_equal(part, wanted_part)


# ------------------------------------------------------------------ PyDataset


@pytest.mark.parametrize("workers", [0, 2])
def test_fit_gets_the_batches_of_generate(generator, workers):
    dataset = pydataset(generator, 5, workers=workers)
    assert isinstance(dataset, keras.utils.PyDataset)
    assert len(dataset) == 2
    model = Recorder()
    model.fit(dataset, epochs=2, verbose=0)
    model.fit(dataset, epochs=1, verbose=0)
    dataset.close()
    assert dataset.epoch == 3
    if keras.backend.backend() == "jax":
        pytest.skip("with JAX, what a model is given cannot be recorded")
    assert_same(model.seen, generated(generator, 6))


def test_one_run_continues_another(generator):
    assert_same(pydataset(generator, 5, start_epoch=1), generated(generator, 4)[2:])


def test_batches_by_number(generator):
    dataset = pydataset(generator, 5, workers=1)
    expected = generated(generator, 4)
    assert_same([dataset[1], dataset[0], dataset[1]], [expected[1], expected[0], expected[1]])
    assert_same(dataset, expected[:2])  # a loop is an epoch
    assert_same([dataset[1]], [expected[3]])
    with pytest.raises(IndexError, match="batches 0 to 1, got 2"):
        dataset[2]
    dataset.close()


def test_a_look_of_keras_is_no_epoch(generator):
    dataset = pydataset(generator, 2)
    expected = [dataset[number] for number in range(5)]
    dataset.on_epoch_end()
    dataset.on_epoch_begin()
    dataset[3]
    dataset.on_epoch_end()
    assert_same(dataset, expected)


def test_a_short_epoch_is_continued_by_the_next(generator):
    dataset = pydataset(generator, 2)
    expected = [dataset[number] for number in range(5)]
    found = []
    for numbers in ([4, 0, 3], [2, 1]):  # in the order in which fit asks
        dataset.on_epoch_begin()
        found += [dataset[number] for number in numbers]
        dataset.on_epoch_end()
    assert_same(found, expected)
    assert dataset.epoch == 1


def test_without_shuffling_every_epoch_begins_with_the_first_image(generator):
    dataset = pydataset(generator, transformations=[], shuffle=False)
    for n_batches in (3, 2, 3):
        dataset.on_epoch_begin()
        found = [dataset[number][0][:, 0, 0, 0].tolist() for number in range(n_batches)]
        dataset.on_epoch_end()
        assert found == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]][:n_batches]


def test_evaluation_and_prediction_keep_the_order(generator):
    model = make_model()
    dataset = pydataset(generator, transformations=[], shuffle=False, workers=1)
    images = np.stack([generator.get_image(i) for i in range(N_IMAGES)])
    for _ in range(2):
        predictions = model.predict(dataset, verbose=0)
        np.testing.assert_allclose(predictions, model.predict(images, verbose=0), rtol=1e-5)
    targets = np.concatenate([y for _, y in dataset])
    expected = np.mean((predictions - targets) ** 2)
    assert model.evaluate(dataset, verbose=0) == pytest.approx(expected, rel=1e-4)
    dataset.close()


def test_validation_during_training(generator):
    train, val = pydataset(generator, workers=1), pydataset(generator, shuffle=False)
    history = make_model().fit(train, validation_data=val, epochs=2, verbose=0).history
    assert len(history["val_loss"]) == 2
    assert train.epoch == 2
    train.close()


def test_training_batches_have_one_size(generator):
    shapes = {x.shape for x, _ in pydataset(generator, transformations=[DropOdd()])}
    assert shapes == {(4, 16, 20, 3)}
    sizes = [len(x) for x, _ in pydataset(generator, full_batches=False)]
    assert sizes == [4, 4, 2]


def test_without_a_seed_every_data_set_is_different(generator):
    one, other = (pydataset(generator, seed=None) for _ in range(2))
    assert not np.array_equal(one[0][0], other[0][0])
    np.testing.assert_array_equal(one[0][0], one[0][0])


def test_skipped_images_are_listed(generator):
    Path(generator.filenames[3]).write_bytes(b"")
    dataset = pydataset(generator, on_image_error="skip", workers=1)
    for _ in dataset:
        pass
    dataset.close()
    assert list(dataset.skipped_images) == [generator.filenames[3]]
    assert dataset.skipped_images is generator.skipped_images


def to_tensor(array: np.ndarray):
    """Make a tensor that uses the memory of an array."""
    match keras.backend.backend():
        case "tensorflow":
            import tensorflow as tf

            return tf.experimental.dlpack.from_dlpack(array.__dlpack__())
        case "jax":
            import jax

            return jax.device_put(array, may_alias=True)  # copies arrays that are small
        case "torch":
            import torch

            return torch.from_numpy(array)


@pytest.mark.skipif(
    keras.backend.backend() == "tensorflow",
    reason="its operations abort on tensors in other people's memory; see tf.data below",
)
def test_tensors_keep_their_values(generator):
    expected = generated(generator, 30)
    dataset = pydataset(generator, 5, workers=1)
    dataset.on_epoch_begin()
    # The memory of batches that nobody holds is used again and again meanwhile.
    found = [tuple(to_tensor(part)[1:] for part in dataset[0]) for _ in range(30)]
    dataset.close()
    for batch, wanted in zip(found, expected, strict=True):
        values = tuple(keras.ops.convert_to_numpy(tensor) for tensor in batch)
        assert_same([values], [tuple(part[1:] for part in wanted)])


@pytest.mark.skipif(os.name != "posix", reason="processes cannot share memory")
def test_tensors_keep_the_memory_of_their_batch():
    size = 2**22
    with unnamed_files(1, size) as files:
        slots = SharedSlots(files, size)
    slot = slots.take()
    tensor = to_tensor(slots.lend(slot).view(np.float32).reshape(2, -1))
    gc.collect()
    assert slots.take() is None
    slots.look(slot)[:] = 1
    assert np.array(tensor).all()  # it is the same memory
    del tensor
    gc.collect()
    assert slots.take() == slot


def test_an_exception_in_a_worker_ends_fit(generator):
    Path(generator.filenames[3]).write_bytes(b"")
    dataset = pydataset(generator, workers=1, shuffle=False)
    with pytest.raises(Exception, match=r"3\.png: the image file is empty"):  # in any wrapping
        make_model().fit(dataset, verbose=0)
    dataset.close()


def test_what_training_needs(generator):
    with pytest.raises(ValueError, match=r"SSDInputEncoder\.from_model"):
        generator.to_pydataset()
    with pytest.raises(DatasetError, match="No data set is loaded"):
        DataGenerator().to_pydataset(label_encoder=Encoder())
    generator.labels = None
    with pytest.raises(DatasetError, match="has none"):
        generator.to_pydataset(label_encoder=Encoder())


# ------------------------------------------------------------------ tf.data


def tf_dataset(generator, batch_size=5, **options):
    defaults = {"transformations": [Noise()], "label_encoder": Encoder(), "seed": 5}
    return generator.to_tf_dataset(batch_size, **{**defaults, **options})


@needs_tensorflow
@pytest.mark.parametrize("workers", [0, 1])
def test_tf_data_gives_the_batches_of_generate(generator, workers):
    dataset = tf_dataset(generator, workers=workers)
    assert int(dataset.cardinality()) == 2
    found = [batch for _ in range(15) for batch in dataset.as_numpy_iterator()]
    assert_same(found, generated(generator, 30))


@needs_tensorflow
def test_specifications_are_static(generator):
    images, targets = tf_dataset(generator, transformations=[Resize(30, 40)]).element_spec
    assert images.shape.as_list() == [5, 30, 40, 3]
    assert images.dtype == "uint8"
    assert targets.shape.as_list() == [5, 5]
    assert targets.dtype == "float32"
    images, _ = tf_dataset(generator, shuffle=False).element_spec
    assert images.shape.as_list() == [None, 16, 20, 3]


@needs_tensorflow
def test_tf_data_in_fit(generator):
    model = make_model()
    model.fit(tf_dataset(generator).repeat(), steps_per_epoch=3, epochs=2, verbose=0, shuffle=False)
    assert int(model.optimizer.iterations) == 6


@needs_tensorflow
def test_an_epoch_that_was_broken_off_begins_again(generator):
    dataset = tf_dataset(generator, prefetch=0)
    next(iter(dataset))
    assert_same(dataset.as_numpy_iterator(), generated(generator, 2))


def test_tf_data_without_tensorflow(generator, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(ImportError, match=r"to_tf_dataset needs TensorFlow.*to_pydataset"):
        tf_dataset(generator)


DISTRIBUTED = """
import sys
from pathlib import Path
import keras, tensorflow as tf
from tests.data_generator.feed_parts import write_images
from tests.misc_utils.test_training_data import make_model, pydataset, tf_dataset
(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
generator = write_images(Path(sys.argv[1]))
with strategy.scope():
    model = make_model()
history = model.fit(tf_dataset(generator, 4, workers=1), epochs=2, verbose=0).history
shapes = []
strategy.run(lambda x, y: shapes.append(x.shape[0]), args=next(iter(
    strategy.experimental_distribute_dataset(tf_dataset(generator, 4)))))
print(strategy.num_replicas_in_sync, shapes, len(history["loss"]))
"""


@needs_tensorflow
@pytest.mark.slow
def test_tf_distribute_shares_each_batch(tmp_path):
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", DISTRIBUTED, str(tmp_path)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.stdout.splitlines()[-1:] == ["2 [2, 2] 2"], result.stderr[-3000:]
