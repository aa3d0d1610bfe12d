"""Diagnosis of data sets: shares counted by hand, and reports that say the cure."""

from __future__ import annotations

import numpy as np
import pytest

from data_generator.detection_dataset import DetectionDataset
from misc_utils.diagnose import diagnose, matched_anchors_picture
from ssd_encoder_decoder.ssd_input_encoder import SSDInputEncoder
from tests.blood_cells import few_images


def make_dataset(labels, size=(100, 200), **arguments) -> DetectionDataset:
    dataset = DetectionDataset(
        filenames=[f"{i}.jpg" for i in range(len(labels))], labels=labels, **arguments
    )
    rng = np.random.default_rng(0)
    dataset.images = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in labels]
    dataset.class_names = ["background", "square", "bar"]
    return dataset


@pytest.fixture
def encoder() -> SSDInputEncoder:
    """Square anchors of 25 pixels, centred at 12.5, 37.5, ... of an input of 100 x 100."""
    return SSDInputEncoder(
        100,
        100,
        2,
        [(4, 4)],
        scales=[0.25, 0.5],
        aspect_ratios_global=[1.0],
        two_boxes_for_ar1=False,
    )


# Images are 200 wide and become 100, so a square there is twice as wide here.
FITS = [1, 0, 0, 50, 25]  # an anchor itself
HALF = [2, 0, 0, 100, 25]  # twice as wide: IoU 0.5
TINY = [2, 0, 0, 10, 5]  # IoU 1 / 25
FLAT = [1, 5, 5, 5, 9]


def test_boxes_are_measured_after_the_resize(encoder):
    found = diagnose(make_dataset([[FITS, HALF], [], [TINY, FLAT]]), encoder)
    np.testing.assert_allclose(found.best_ious, [1, 0.5, 0.04], rtol=1e-6)
    np.testing.assert_allclose(found.box_sizes, [0.25, np.sqrt(0.125), 0.05])
    assert found.recall == pytest.approx(2 / 3)
    assert found.recall_per_class == {1: (1, 1.0), 2: (2, 0.5)}
    assert {size: n for size, (n, _) in found.recall_per_size.items()} == {
        (0.0, 0.05): 1,
        (0.2, 0.4): 2,
    }
    (box,) = found.unmatched
    assert (box.found.index, box.found.box, box.size) == (2, 0, (5, 5))
    (box,) = found.degenerate_boxes
    assert (box.index, box.box, box.label) == (2, 1, tuple(FLAT))
    assert found.suspicions == []  # of so few boxes, one is a slip


def test_the_report_says_the_cure(encoder):
    text = str(diagnose(make_dataset([[FITS, HALF], [TINY] * 3 + [FLAT]]), encoder))
    for part in (
        "2 images, 5 boxes with an area; network input 100 x 100 pixels",
        "Boxes with an anchor of IoU >= 0.5: 40.0%",
        "2 bar                         4        25.0%",
        "1.jpg, box 0: (2.0, 0.0, 0.0, 10.0, 5.0): 5 x 5 pixels, best IoU 0.04",
        "What to do:",
        "60% of the boxes have no anchor with an IoU of 0.5",
        "Worst off are the 3 boxes of a size of 0 to 5 pixels (0% have one)",
        "Classes with the fewest: 2 bar 25%.",
        "suggest_anchors(dataset, (100, 100), ...)",
        "1 boxes have no area; the first is 1.jpg, box 3",
        "on_invalid_boxes='drop'",
    ):
        assert part in text, text


def test_nothing_wrong(encoder):
    found = diagnose(make_dataset([[FITS], [FITS]]), encoder)
    assert found.cures == ["Nothing suspicious: the anchors fit the boxes."]


def test_a_rare_class_is_not_outvoted(encoder):
    found = diagnose(make_dataset([[FITS] * 99, [TINY]]), encoder)
    assert found.recall == 0.99
    assert "Classes with the fewest: 2 bar 0%" in found.cures[0]


def test_classes_of_another_model(encoder):
    found = diagnose(make_dataset([[FITS, [0, *FITS[1:]]], [[3, *FITS[1:]]]]), encoder)
    assert [(box.index, box.box) for box in found.wrong_class_ids] == [(0, 1), (1, 0)]
    assert "2 boxes have class ids that the encoder was not made for" in found.cures[0]
    assert "3 " in str(found)  # has no name, and does not need one


def test_wrong_order_of_coordinates(encoder):
    boxes = [[1, x, x + 40, 10, 30] for x in range(0, 150, 5)]  # xmin, xmax, ymin, ymax
    found = diagnose(make_dataset([boxes]), encoder)
    assert "would be as (xmin, xmax, ymin, ymax): check the order" in found.cures[0]


def test_other_columns_and_thresholds(encoder):
    order = ["xmin", "ymin", "xmax", "ymax", "class_id"]
    labels = [[[*FITS[1:], 1], [*HALF[1:], 2]]]
    encoder.pos_iou_threshold = 0.6
    found = diagnose(make_dataset(labels, labels_output_format=order), encoder)
    np.testing.assert_allclose(found.best_ious, [1, 0.5])
    assert (found.iou_threshold, found.recall) == (0.6, 0.5)


def test_large_data_sets_are_sampled_evenly(encoder):
    dataset = make_dataset([[[1, 0, 0, 50, 25 - 0.1 * i]] for i in range(20)])
    found = diagnose(dataset, encoder, max_images=5)
    assert found.n_images == 5
    np.testing.assert_allclose(found.best_ious, 1 - 0.016 * np.arange(5), rtol=1e-5)


def test_without_boxes(encoder):
    found = diagnose(make_dataset([[], []]), encoder)
    assert np.isnan(found.recall)
    assert "There is no box with an area" in str(found)
    dataset = make_dataset([[]])
    dataset.labels = None
    with pytest.raises(ValueError, match="Expected a data set with labels"):
        diagnose(dataset, encoder)


@pytest.mark.parametrize("coords", ["centroids", "corners", "minmax"])
@pytest.mark.parametrize("normalize_coords", [True, False])
def test_picture_of_matched_anchors(coords, normalize_coords):
    encoder = SSDInputEncoder(
        100,
        100,
        2,
        [(4, 4)],
        scales=[0.25, 0.5],
        aspect_ratios_global=[1.0],
        two_boxes_for_ar1=False,
        coords=coords,
        normalize_coords=normalize_coords,
    )
    labels = [[[1, 50, 25, 100, 50], FLAT]]
    dataset = make_dataset(labels)
    dataset.images = [np.zeros((100, 200, 3), np.uint8)]
    picture = matched_anchors_picture(dataset, encoder, 0, min_size=0)
    assert picture.shape == (100, 100, 3)
    rows, columns = np.nonzero(picture.any(axis=2)[:48])  # above the label below the box
    assert (rows.min(), columns.min(), columns.max()) == (25, 25, 49)
    assert matched_anchors_picture(dataset, encoder, 0, min_size=300).shape == (300, 300, 3)


def test_a_model_brings_its_encoder(real_data):
    from models.keras_ssd7 import build_model

    model = build_model((240, 320, 3), n_classes=3)
    dataset = few_images(real_data, 4)
    found = diagnose(dataset, model)
    assert found.image_size == (240, 320)
    assert found.recall == diagnose(dataset, SSDInputEncoder.from_model(model)).recall > 0.5
    assert matched_anchors_picture(dataset, model, 0).shape == (480, 640, 3)
