"""Tests of showing rare classes more often."""

import numpy as np
import pytest

from misc_utils.class_balance import repeat_rare_classes


def image(*class_ids):
    return [[class_id, 0, 0, 9, 9] for class_id in class_ids]


def test_common_images_are_seen_once_and_rare_ones_more_often():
    labels = [image(1)] * 16 + [image(2)] * 4 + [image(3)]
    counts = np.bincount(repeat_rare_classes(labels))
    assert (counts[:16] == 1).all()
    assert (counts[16:20] == 2).all()  # sqrt(16 / 4)
    assert counts[20] == 4  # sqrt(16 / 1)


def test_an_image_follows_its_rarest_class_and_boxes_do_not_add_up():
    labels = [image(1)] * 15 + [image(1, 1, 1, 2)]
    counts = np.bincount(repeat_rare_classes(labels))
    assert counts[15] == 4
    assert counts[:15].tolist() == [1] * 15


def test_fractions_are_right_on_average_and_repeat_with_the_seed():
    labels = [image(1)] * 300 + [image(2)] * 150  # sqrt(2) times
    first, again = (repeat_rare_classes(labels, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    counts = np.bincount(first)[300:]
    assert set(counts) == {1, 2}
    assert counts.mean() == pytest.approx(np.sqrt(2), abs=0.12)


def test_images_without_objects_stay():
    assert repeat_rare_classes([image(1), [], np.zeros((0, 5))]).tolist() == [0, 1, 2]


def test_any_column_order():
    labels = [[[0, 0, 9, 9, 1]]] * 9 + [[[0, 0, 9, 9, 2]]]
    assert np.bincount(repeat_rare_classes(labels, class_id_column=4)).tolist() == [1] * 9 + [3]
