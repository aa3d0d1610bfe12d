"""Tests of the anchor suggestions."""

import numpy as np
import pytest

from data_generator.detection_dataset import DetectionDataset
from data_generator.object_detection_2d_data_generator import DataGenerator
from misc_utils.anchor_design import (
    kmeans_anchors,
    share_with_anchor,
    suggest_anchors,
    suggest_aspect_ratios,
    suggest_scales,
)
from ssd_encoder_decoder.ssd_input_encoder import SSDInputEncoder

MAPS = [(37, 37), (18, 18), (9, 9), (4, 4)]


def square_boxes(sides, seed=0, size=300):
    rng = np.random.default_rng(seed)
    sides = np.asarray(sides, float)
    corner = rng.uniform(0, 1, (len(sides), 2)) * (size - sides[:, np.newaxis])
    return np.column_stack([np.ones(len(sides)), corner, corner + sides[:, np.newaxis]])


def lamp_posts(n=200, ratio=1 / 3, seed=0):
    rng = np.random.default_rng(seed)
    height = rng.uniform(40, 120, n)
    size = np.column_stack([height * ratio, height])
    corner = rng.uniform(0, 150, (n, 2))
    return np.column_stack([np.ones(n), corner, corner + size])


@pytest.mark.parametrize(("low", "high"), [(15, 40), (30, 120), (60, 280)])
def test_suggested_scales_fit_better_than_the_default_ones(low, high):
    labels = [square_boxes(np.geomspace(low, high, 150))]
    scales = suggest_scales(labels, (300, 300), MAPS, (1.0,))
    assert len(scales) == 5
    assert all(a <= b for a, b in zip(scales[:-1], scales[1:], strict=True))
    share = {
        name: share_with_anchor(
            SSDInputEncoder(300, 300, 1, MAPS, scales=chosen, aspect_ratios_global=(1.0,)), labels
        )
        for name, chosen in {"default": None, "suggested": scales}.items()
    }
    assert share["suggested"] >= share["default"]
    assert share["suggested"] > 0.75


def test_small_objects_are_not_left_to_the_coarse_maps():
    # All objects are small. A series that only follows the sizes would put anchors of 20 pixels on
    # a map whose cells are 75 pixels apart.
    scales = suggest_scales([square_boxes(np.full(100, 20.0))], (300, 300), MAPS, (1.0,))
    assert 12 < scales[0] * 300 < 28
    assert scales[3] * 300 > 40


def test_scales_of_huge_objects_are_valid_for_the_anchor_layer():
    scales = suggest_scales([square_boxes(np.full(7, 290.0))], (300, 300), MAPS, (1.0,))
    assert max(scales[:-1]) <= 1
    SSDInputEncoder(300, 300, 1, MAPS, scales=scales)


def test_no_boxes_no_scales():
    with pytest.raises(ValueError, match="without any box"):
        suggest_scales([np.zeros((0, 5))], (300, 300), MAPS, (1.0,))


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ([(10, 10)] * 20, (1.0,)),
        ([(10, 10)] * 10 + [(10, 20)] * 10, (0.5, 1.0)),
        ([(30, 10)] * 20, (1.0, 3.0)),
        ([(10, 10)] * 99 + [(10, 20)], (1.0,)),  # 1 % is too rare
        ([(10, 10), (0, 20)], (1.0,)),  # a box without area says nothing
        ([], (1.0,)),
    ],
)
def test_ratios_are_those_that_occur(shapes, expected):
    labels = [[[1, 5, 5, 5 + width, 5 + height]] for width, height in shapes]
    assert suggest_aspect_ratios(labels) == pytest.approx(expected)


def test_suggestions_raise_the_share_of_boxes_with_an_anchor():
    labels = [lamp_posts(100, ratio=1 / 7), [], lamp_posts(100, ratio=1 / 7, seed=1)]
    ratios = suggest_aspect_ratios(labels)
    suggested = SSDInputEncoder(
        300,
        300,
        1,
        MAPS,
        scales=suggest_scales(labels, (300, 300), MAPS, ratios),
        aspect_ratios_global=ratios,
    )
    default = SSDInputEncoder(300, 300, 1, MAPS)
    before, after = (share_with_anchor(encoder, labels, 0.4) for encoder in (default, suggested))
    assert after > before + 0.2


def test_share_counts_boxes_by_their_best_anchor():
    encoder = SSDInputEncoder(100, 100, 1, [(1, 1)], scales=[0.5, 1.0], two_boxes_for_ar1=False)
    exact = [1, 25, 25, 75, 75]  # the anchor itself
    half = [1, 25, 25, 75, 50]  # the upper half of it; the 2:1 anchor has IoU 0.61 with it
    far = [1, 0, 0, 10, 10]
    assert share_with_anchor(encoder, [[exact, far], [half]], 0.5) == pytest.approx(2 / 3)
    assert share_with_anchor(encoder, [[exact, far], [half]], 0.9) == pytest.approx(1 / 3)


def test_share_without_boxes_is_unknown():
    encoder = SSDInputEncoder(100, 100, 1, [(4, 4)])
    assert np.isnan(share_with_anchor(encoder, [np.zeros((0, 5))]))


class TestKMeans:
    def test_clear_clusters_are_found(self):
        rng = np.random.default_rng(0)
        small, tall, large = (20, 20), (30, 120), (200, 200)
        noise = rng.uniform(0.95, 1.05, (3, 50, 2))
        shapes = np.concatenate([noise[i] * shape for i, shape in enumerate((small, tall, large))])
        scales, ratios = kmeans_anchors(shapes, (300, 400), 3, 1, np.random.default_rng(0))
        np.testing.assert_allclose(scales[:3], [20 / 300, 60 / 300, 200 / 300], rtol=0.03)
        assert ratios[0] == ratios[2] == (1.0,)
        assert ratios[1] == pytest.approx((0.25,), rel=0.05)
        assert scales[3] > scales[2]

    def test_ratios_of_one_layer(self):
        shapes = np.array([(20, 40), (40, 20), (21, 40), (28, 28)] * 20, float)
        scales, ratios = kmeans_anchors(shapes, (100, 100), 1, 4, np.random.default_rng(0))
        assert len(ratios) == 1
        assert 1.0 in ratios[0]
        assert min(ratios[0]) == pytest.approx(0.5, abs=0.03)
        assert max(ratios[0]) == pytest.approx(2, abs=0.03)
        assert len(scales) == 2

    def test_fewer_boxes_than_clusters(self):
        scales, ratios = kmeans_anchors(
            np.array([[10.0, 10.0]]), (50, 50), 4, 3, np.random.default_rng(0)
        )
        assert len(scales) == 5
        assert ratios == [(1.0,)] * 4


class TestSuggestAnchors:
    def dataset(self, boxes, size=(300, 300)):
        dataset = DetectionDataset(filenames=["a.jpg"], labels=[boxes])
        dataset.images = [np.zeros((*size, 3), np.uint8)]
        return dataset

    @pytest.mark.parametrize(
        "boxes",
        [lamp_posts(), square_boxes(np.geomspace(8, 40, 100))],
        ids=["lamp posts", "small squares"],
    )
    def test_they_fit_better_and_can_be_passed_on(self, boxes):
        found = suggest_anchors(self.dataset(boxes), (300, 300), predictor_sizes=MAPS)
        encoder = SSDInputEncoder(300, 300, 1, MAPS, **found.arguments)
        assert share_with_anchor(encoder, [boxes]) == pytest.approx(found.recall_after, abs=0.01)
        default = SSDInputEncoder(300, 300, 1, MAPS)
        assert share_with_anchor(default, [boxes]) == pytest.approx(found.recall_before)
        assert found.recall_after > found.recall_before + 0.1
        assert sum(anchors[..., 0].size for anchors in encoder.boxes_list) == found.n_anchors_after
        for part in (f"scales = {list(found.scales)}", "Found by: ", f"{found.recall_after:.1%} w"):
            assert part in str(found)

    def test_boxes_are_taken_after_the_resize(self):
        wide = lamp_posts(ratio=1) * (1, 3, 1, 3, 1)  # in an image that is three times as wide
        found = suggest_anchors(self.dataset(wide, (300, 900)), (300, 300), predictor_sizes=MAPS)
        same = suggest_anchors(self.dataset(lamp_posts(ratio=1)), (300, 300), predictor_sizes=MAPS)
        assert found == same

    def test_good_settings_stay(self):
        boxes = np.array([[1, 8 * i, 8 * i, 8 * i + 32, 8 * i + 32] for i in range(20)])
        settings = {
            "scales": [0.32, 0.33],
            "aspect_ratios_global": [1.0],
            "two_boxes_for_ar1": False,
        }
        found = suggest_anchors(
            self.dataset(boxes, (200, 200)),
            (100, 100),
            predictor_sizes=[(25, 25)],
            compared_with={**settings, "scales": [0.16, 0.2]},
        )
        assert found.recall_after >= found.recall_before == 1
        assert found.n_anchors_after <= found.n_anchors_before

    def test_the_seed_makes_it_repeatable(self):
        dataset = self.dataset(lamp_posts())
        assert suggest_anchors(dataset, (300, 300)) == suggest_anchors(dataset, (300, 300))

    def test_limits(self):
        found = suggest_anchors(self.dataset(lamp_posts()), (300, 300), 3, max_boxes_per_cell=3)
        assert len(found.scales) == 4
        assert max(len(r) + (1.0 in r) for r in found.aspect_ratios_per_layer) <= 3

    def test_ratios_may_stay_as_they_are(self):
        boxes = lamp_posts(ratio=1 / 2)
        settings = {
            "scales": [0.5, 0.6, 0.7, 0.8, 0.9],
            "aspect_ratios_global": None,
            "aspect_ratios_per_layer": [[0.5], [1.0, 0.5], [1.0, 2.0, 0.5], [1.0] * 5],
            "steps": [8, 16, 32, 64],
        }
        found, free = (
            suggest_anchors(
                self.dataset(boxes),
                (300, 300),
                predictor_sizes=MAPS,
                compared_with=settings,
                max_boxes_per_cell=4,
                keep_ratios=keep,
            )
            for keep in (True, False)
        )
        assert found.aspect_ratios_per_layer == ((0.5,), (1.0, 0.5), (1.0, 2.0, 0.5), (1.0,) * 5)
        assert found.n_anchors_after == found.n_anchors_before
        assert found.recall_after > found.recall_before + 0.3
        assert free.aspect_ratios_per_layer != found.aspect_ratios_per_layer
        encoder = SSDInputEncoder(300, 300, 1, MAPS, **{**settings, **found.arguments})
        assert share_with_anchor(encoder, [boxes]) == pytest.approx(found.recall_after, abs=0.01)

    def test_no_boxes(self):
        with pytest.raises(ValueError, match="without any box that has an area"):
            suggest_anchors(self.dataset([[1, 5, 5, 5, 9]]), (300, 300))

    @pytest.mark.parametrize("name", ["bccd", "road_signs"])
    def test_real_data(self, real_data, name):
        folder = real_data / name
        data = DataGenerator()
        data.parse_xml(
            [str(folder / "JPEGImages")],
            [str(folder / "ImageSets" / "Main" / "train.txt")],
            [str(folder / "Annotations")],
            classes=["background", *(folder / "classes.txt").read_text().split()],
            verbose=False,
        )
        found = suggest_anchors(data, (240, 320))
        assert found.recall_after >= found.recall_before
        assert found.mean_iou_after > found.mean_iou_before
