"""Which images a batch consists of, and what takes the place of those that are dropped."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from data_generator.batch_generation import BatchMaker
from data_generator.epoch_batches import EpochBatches
from data_generator.errors import DegenerateBatchError
from tests.data_generator.feed_parts import N_IMAGES, DropOdd, Encoder, Noise, write_images


def make(dataset, batch_size=4, shuffle=True, full_batches=False, **options) -> EpochBatches:
    maker = BatchMaker(dataset, **{"label_encoder": Encoder(), "seed": 5, **options})
    return EpochBatches(maker, batch_size, shuffle, full_batches)


def numbers(batch) -> list[int]:
    return batch[0][:, 0, 0, 0].tolist()


@pytest.fixture
def dataset(tmp_path):
    return write_images(tmp_path)


def test_they_are_the_batches_of_generate(dataset):
    batches = make(dataset, transformations=[Noise()])
    assert len(batches) == 3
    generated = dataset.generate(4, True, [Noise()], Encoder(), seed=5)
    for (epoch, number), expected in zip(
        itertools.product(range(2), range(3)), generated, strict=False
    ):
        for part, wanted in zip(batches.batch(epoch, number), expected, strict=True):
            np.testing.assert_array_equal(part, wanted)


def test_without_shuffling_every_epoch_has_the_order_of_the_data_set(dataset):
    batches = make(dataset, shuffle=False)
    for epoch in (0, 3):
        assert [numbers(batches.batch(epoch, n)) for n in range(3)] == [
            [0, 1, 2, 3],
            [4, 5, 6, 7],
            [8, 9],
        ]


def test_an_order_for_every_epoch(dataset):
    batches = make(dataset, batch_size=N_IMAGES)
    first, second = (numbers(batches.batch(epoch, 0)) for epoch in (0, 1))
    assert sorted(first) == sorted(second) == list(range(N_IMAGES))
    assert first != second
    assert numbers(batches.batch(0, 0)) == first


def test_full_batches_are_full_and_lose_no_image(dataset):
    batches, plain = make(dataset, full_batches=True), make(dataset)
    for number in range(3):
        found, expected = (numbers(b.batch(2, number)) for b in (batches, plain))
        assert len(found) == 4
        assert found[: len(expected)] == expected


def test_dropped_images_are_replaced_by_the_same_ones_every_time(dataset):
    one, other = (
        make(dataset, full_batches=True, transformations=[DropOdd(), Noise()]) for _ in range(2)
    )
    for number in (2, 0, 1):
        found, expected = one.batch(1, number), other.batch(1, number)
        assert found[0].shape == (4, 16, 20, 3)
        assert all(value % 2 == 0 for value in numbers(found))
        np.testing.assert_array_equal(found[0], expected[0])
    images = [batch[0] for batch in (one.batch(epoch, 2) for epoch in range(20))]
    added = {image[0, 0, 0] for batch in images for image in batch[2:]}
    assert added == {0, 2, 4, 6, 8}  # any image may step in


def test_replacements_of_one_batch_differ_in_their_random_numbers(tmp_path):
    dataset = write_images(tmp_path, 1)
    images = make(dataset, full_batches=True, transformations=[Noise()]).batch(0, 0)[0]
    assert len({image.tobytes() for image in images}) == 4


def test_images_without_objects_do_not_step_in(dataset):
    dataset.labels = [[] if i else [[1, 2, 3, 4, 5]] for i in range(N_IMAGES)]
    assert numbers(make(dataset, full_batches=True).batch(0, 1)) == [0, 0, 0, 0]
    kept = make(dataset, full_batches=True, keep_images_without_gt=True).batch(0, 2)
    assert len(set(numbers(kept))) > 1


def test_nothing_to_fill_up_with(dataset):
    dataset.labels = [[]] * N_IMAGES
    with pytest.raises(DegenerateBatchError, match=r"4 images are missing, and only 0 were found"):
        make(dataset, full_batches=True).batch(0, 0)

    def drop(image, labels):
        return None, None

    dataset.labels = [[[1, 2, 3, 4, 5]]] * N_IMAGES
    with pytest.raises(DegenerateBatchError, match=r"84 x function gave no image"):
        make(dataset, full_batches=True, transformations=[drop]).batch(0, 0)


@pytest.mark.parametrize("number", [-1, 3])
def test_numbers_of_batches_that_there_are_not(dataset, number):
    with pytest.raises(IndexError, match=rf"batches 0 to 2, got {number}"):
        make(dataset).batch(0, number)


def test_batch_size(dataset):
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        make(dataset, batch_size=0)
