from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_generator.caffe_random_crop import CaffeRandomCrop
from data_generator.data_augmentation_chain_constant_input_size import (
    DataAugmentationConstantInputSize,
)
from data_generator.data_augmentation_chain_original_ssd import SSDDataAugmentation
from data_generator.data_augmentation_chain_satellite import DataAugmentationSatellite
from data_generator.data_augmentation_chain_variable_input_size import (
    DataAugmentationVariableInputSize,
)
from data_generator.object_detection_2d_geometric_ops import (
    Flip,
    RandomFlip,
    RandomRotate,
    RandomTranslate,
    Resize,
    Rotate,
    Translate,
)
from data_generator.object_detection_2d_patch_sampling_ops import (
    Crop,
    CropPad,
    Pad,
    PatchCoordinateGenerator,
    RandomPatch,
)
from data_generator.object_detection_2d_photometric_ops import (
    Brightness,
    ConvertTo3Channels,
    Gamma,
    HistogramEqualization,
)
from data_generator.pending_image import PendingImage, Window, cut_window, fill_colour
from data_generator.transformation import Transformation, TransformationChain

IMAGE = np.random.default_rng(0).integers(1, 256, (5, 7, 3), np.uint8)
COLOUR = (11, 22, 33)


@given(
    ymin=st.integers(-9, 9),
    xmin=st.integers(-9, 9),
    height=st.integers(1, 12),
    width=st.integers(1, 12),
)
def test_equals_looking_up_every_pixel(ymin, xmin, height, width):
    window = cut_window(IMAGE, ymin, xmin, height, width, COLOUR)
    assert window.shape == (height, width, 3)
    for row in range(height):
        for column in range(width):
            y, x = row + ymin, column + xmin
            inside = 0 <= y < 5 and 0 <= x < 7
            expected = IMAGE[y, x] if inside else COLOUR
            np.testing.assert_array_equal(window[row, column], expected)


def test_is_never_a_view():
    for window in (cut_window(IMAGE, 0, 0, 5, 7, 0), cut_window(IMAGE, 1, 1, 2, 2, 0)):
        assert not np.shares_memory(window, IMAGE)


def test_fractions_survive_in_float_images():
    window = cut_window(np.full((2, 2, 1), 0.25, np.float32), -1, 0, 3, 2, (0.75,))
    assert window[:, 0, 0].tolist() == [0.75, 0.25, 0.25]


@pytest.mark.parametrize(
    ("shape", "background", "expected"),
    [
        ((2, 2), (1, 2, 3), [1]),
        ((2, 2, 1), (1, 2, 3), [1]),
        ((2, 2, 3), (1, 2, 3), [1, 2, 3]),
        ((2, 2, 5), (1, 2, 3), [1, 2, 3, 3, 3]),
        ((2, 2, 3), 9, [9, 9, 9]),
    ],
)
def test_colours(shape, background, expected):
    assert fill_colour(np.zeros(shape), background) == expected


def one_by_one(
    transformation: Transformation, image: np.ndarray, labels: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Call the parts of a chain one after another, so that each makes all of its pixels."""
    if isinstance(transformation, DataAugmentationConstantInputSize):
        transformation = transformation.sample(*image.shape[:2], labels, rng)
    if not isinstance(transformation, TransformationChain):
        return transformation(image, labels, rng=rng)
    for part in transformation.transformations:
        image, labels = one_by_one(part, image, labels, rng)
    return image, labels


ANYWHERE = PatchCoordinateGenerator(min_scale=0.2, max_scale=1.8)
CHAINS = {
    "SSD": lambda: SSDDataAugmentation(60, 70),
    "SSD as in Caffe": lambda: SSDDataAugmentation(60, 70, variant="caffe"),
    "SSD, grayscale stays": lambda: SSDDataAugmentation(60, 70, keep_channels=True),
    "constant": lambda: DataAugmentationConstantInputSize(background=(9, 8, 7)),
    "variable": lambda: DataAugmentationVariableInputSize(60, 70, background=(9, 8, 7)),
    "satellite": lambda: DataAugmentationSatellite(60, 70, background=(9, 8, 7)),
    "windows in windows": lambda: TransformationChain(
        [
            RandomPatch(ANYWHERE, background=(1, 2, 3)),
            RandomTranslate(prob=0.8, background=(4, 5, 6)),
            RandomPatch(ANYWHERE, background=(7, 8, 9)),
        ]
    ),
    "turned windows": lambda: TransformationChain(
        [
            RandomRotate(),
            RandomPatch(ANYWHERE, background=(1, 2, 3)),
            RandomFlip("vertical"),
            RandomRotate(),
            RandomPatch(PatchCoordinateGenerator(min_scale=0.3), background=(4, 5, 6)),
            RandomFlip(),
            CaffeRandomCrop(),
        ]
    ),
    "colours between windows": lambda: TransformationChain(
        [
            Brightness(5),
            RandomPatch(ANYWHERE, background=(1, 2, 3)),
            RandomRotate(),
            Gamma(0.7),
            RandomPatch(ANYWHERE),
            HistogramEqualization(),
            RandomFlip(),
            Brightness(9),
        ]
    ),
}
SCENE = np.random.default_rng(7).integers(0, 256, (83, 111, 3), np.uint8)
LABELS = np.array(
    [[1, 10, 10, 60, 70], [2, 50.5, 5, 70, 30], [3, 0, 0, 111, 83], [4, 90, 60, 97, 66]], np.float32
)


@pytest.mark.parametrize("make", CHAINS.values(), ids=CHAINS.keys())
@pytest.mark.parametrize("n_boxes", [0, 1, 4])
def test_a_chain_equals_its_parts_one_by_one(make, n_boxes):
    """The same draws give the same boxes and, but for an interpolated pixel, the same image."""
    chain = make()
    for seed in range(60):
        image, labels = chain(SCENE, LABELS[:n_boxes], rng=seed)
        expected_image, expected_labels = one_by_one(
            chain, SCENE, LABELS[:n_boxes], np.random.default_rng(seed)
        )
        np.testing.assert_array_equal(labels, expected_labels)
        assert image.dtype == expected_image.dtype
        np.testing.assert_array_equal(image, expected_image, err_msg=str(seed))


@pytest.mark.parametrize("shape", [(83, 111), (83, 111, 1), (83, 111, 4), (83, 111, 6)])
@pytest.mark.parametrize("name", ["SSD", "SSD, grayscale stays", "variable", "turned windows"])
def test_so_it_does_for_images_with_other_channels(shape, name):
    image = np.random.default_rng(3).integers(0, 256, shape, np.uint8)
    chain = CHAINS[name]()
    for seed in range(12):
        fused, labels = chain(image, LABELS, rng=seed)
        expected, expected_labels = one_by_one(chain, image, LABELS, np.random.default_rng(seed))
        np.testing.assert_array_equal(labels, expected_labels)
        np.testing.assert_array_equal(fused, expected)


def test_nothing_visible_is_background_of_the_right_type():
    """A crop of the expansion may miss the image altogether if there are no labels to meet."""
    gray = np.full((5, 7, 1), 200, np.uint8)
    chain = TransformationChain(
        [ConvertTo3Channels(), Pad(9, 9, 9, 9, COLOUR), Rotate(90), CropPad(0, 0, 4, 6)]
    )
    image = chain(gray)
    assert image.dtype == np.uint8
    assert image.shape == (4, 6, 3)
    assert (image == COLOUR).all()


class TestCountingPixels:
    """Only the pixels that are still visible are ever touched."""

    @pytest.fixture
    def counted(self, monkeypatch):
        counts = []

        def count(self, image):
            counts.append(image.shape[:2])
            return image

        monkeypatch.setattr(Brightness, "apply_image", count)
        return counts

    def test_colours_of_what_a_crop_leaves(self, counted):
        TransformationChain([Brightness(3), Rotate(90), Crop(10, 50, 20, 3), Flip()])(SCENE)
        assert counted == [(60, 51)]  # the crop of the turned image is 51 high and 60 wide

    def test_the_canvas_of_an_expansion_is_never_recoloured(self, counted):
        chain = [Brightness(3), CropPad(-999, -999, 9999, 9999), CropPad(990, 990, 20, 20)]
        assert TransformationChain(chain)(SCENE).shape == (20, 20, 3)
        assert counted == [(11, 11)]

    def test_pixels_are_made_before_they_are_mixed(self, counted):
        TransformationChain([Brightness(3), Resize(9, 9), Crop(0, 5, 0, 5)])(SCENE)
        assert counted == [SCENE.shape[:2]]


def test_result_is_never_a_view_of_the_input():
    for chain in (
        [Crop(1, 2, 3, 4)],
        [Crop(1, 2, 3, 4), Flip()],
        [Translate(0.1, 0.1)],
        [Rotate(180)],
        [Flip(), Flip()],
    ):
        assert not np.shares_memory(TransformationChain(chain)(SCENE), SCENE)
    assert PendingImage.of(SCENE).pixels() is SCENE


@given(
    first=st.tuples(*[st.integers(-5, 5)] * 2, *[st.integers(0, 6)] * 2),
    second=st.tuples(*[st.integers(-5, 5)] * 2, *[st.integers(0, 6)] * 2),
)
def test_intersection_holds_the_common_pixels(first, second):
    def pixels(window):
        return {
            (y, x)
            for y in range(window.ymin, window.ymin + window.height)
            for x in range(window.xmin, window.xmin + window.width)
        }

    first, second = Window(*first), Window(*second)
    common = first.intersection(second)
    assert common.height >= 0
    assert common.width >= 0
    assert pixels(common) == pixels(first) & pixels(second)
