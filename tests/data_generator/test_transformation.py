"""One table of all transformations, and the properties that every one of them must have."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

from data_generator.caffe_random_crop import CaffeRandomCrop
from data_generator.data_augmentation_chain_constant_input_size import (
    DataAugmentationConstantInputSize,
)
from data_generator.data_augmentation_chain_original_ssd import (
    SSDDataAugmentation,
    SSDExpand,
    SSDPhotometricDistortions,
    SSDRandomCrop,
)
from data_generator.data_augmentation_chain_satellite import DataAugmentationSatellite
from data_generator.data_augmentation_chain_variable_input_size import (
    DataAugmentationVariableInputSize,
)
from data_generator.label_boxes import InverterChain, leave_unchanged
from data_generator.object_detection_2d_geometric_ops import (
    Flip,
    RandomFlip,
    RandomRotate,
    RandomScale,
    RandomTranslate,
    Resize,
    ResizeRandomInterp,
    Rotate,
    Scale,
    Translate,
)
from data_generator.object_detection_2d_image_boxes_validation_utils import (
    BoundGenerator,
    BoxFilter,
    ImageValidator,
)
from data_generator.object_detection_2d_patch_sampling_ops import (
    Crop,
    CropPad,
    Pad,
    PatchCoordinateGenerator,
    RandomMaxCropFixedAR,
    RandomPadFixedAR,
    RandomPatch,
    RandomPatchInf,
)
from data_generator.object_detection_2d_photometric_ops import (
    Brightness,
    ChannelSwap,
    Contrast,
    ConvertColor,
    ConvertDataType,
    ConvertTo3Channels,
    Gamma,
    HistogramEqualization,
    Hue,
    RandomBrightness,
    RandomChannelSwap,
    RandomContrast,
    RandomGamma,
    RandomHistogramEqualization,
    RandomHue,
    RandomSaturation,
    Saturation,
)
from data_generator.photometric_distortion import PhotometricDistortion
from data_generator.transformation import Transformation, TransformationChain

HEIGHT, WIDTH = 48, 64
COLUMN_ORDER = {"class_id": 4, "xmin": 0, "ymin": 1, "xmax": 2, "ymax": 3}

PHOTOMETRIC = {
    "ConvertColor": lambda: ConvertColor(),
    "ConvertColor GRAY": lambda: ConvertColor(to="GRAY"),
    "ConvertDataType": lambda: ConvertDataType("uint8"),
    "ConvertTo3Channels": lambda: ConvertTo3Channels(),
    "Hue": lambda: Hue(20),
    "RandomHue": lambda: RandomHue(),
    "Saturation": lambda: Saturation(0.4),
    "RandomSaturation": lambda: RandomSaturation(),
    "Brightness": lambda: Brightness(30),
    "RandomBrightness": lambda: RandomBrightness(),
    "Contrast": lambda: Contrast(1.5),
    "RandomContrast": lambda: RandomContrast(),
    "Gamma": lambda: Gamma(0.6),
    "RandomGamma": lambda: RandomGamma(),
    "HistogramEqualization": lambda: HistogramEqualization(),
    "RandomHistogramEqualization": lambda: RandomHistogramEqualization(),
    "ChannelSwap": lambda: ChannelSwap((2, 0, 1)),
    "RandomChannelSwap": lambda: RandomChannelSwap(),
    "PhotometricDistortion": lambda: PhotometricDistortion(),
    "PhotometricDistortion, contrast last": lambda: PhotometricDistortion(contrast_last=True),
    "SSDPhotometricDistortions": lambda: SSDPhotometricDistortions(),
    "SSDPhotometricDistortions, Caffe": lambda: SSDPhotometricDistortions("caffe"),
}
# None of these loses a box or clips it, so that everything they do can be undone.
GEOMETRIC = {
    "Resize": lambda: Resize(96, 112),
    "ResizeRandomInterp": lambda: ResizeRandomInterp(96, 112),
    "Flip": lambda: Flip(),
    "Flip vertical": lambda: Flip("vertical"),
    "RandomFlip": lambda: RandomFlip(),
    "Translate": lambda: Translate(0.1, -0.2, clip_boxes=False),
    "RandomTranslate": lambda: RandomTranslate(prob=0.8, clip_boxes=False),
    "Scale up": lambda: Scale(1.5, clip_boxes=False),
    "Scale down": lambda: Scale(0.75, clip_boxes=False),
    "RandomScale": lambda: RandomScale(prob=0.8, clip_boxes=False),
    "Rotate 90": lambda: Rotate(90),
    "Rotate 180": lambda: Rotate(180),
    "Rotate 270": lambda: Rotate(270),
    "RandomRotate": lambda: RandomRotate(prob=0.8),
    "CropPad": lambda: CropPad(-5, 4, 40, 70, clip_boxes=False),
    "Crop": lambda: Crop(3, 2, 1, 4, clip_boxes=False),
    "Pad": lambda: Pad(3, 2, 1, 4),
    "RandomPatch": lambda: RandomPatch(
        PatchCoordinateGenerator(min_scale=0.5, max_scale=1.5), clip_boxes=False
    ),
    "RandomPatchInf": lambda: RandomPatchInf(
        PatchCoordinateGenerator(min_scale=0.5, max_scale=1.5), clip_boxes=False
    ),
    "RandomMaxCropFixedAR": lambda: RandomMaxCropFixedAR(1.0, clip_boxes=False),
    "RandomPadFixedAR": lambda: RandomPadFixedAR(3.0),
    "SSDExpand": lambda: SSDExpand(background=0),
}
# These filter and clip.
LOSSY = {
    "Translate": lambda: Translate(0.4, 0.4, box_filter=BoxFilter()),
    "RandomTranslate": lambda: RandomTranslate(
        prob=0.8, box_filter=BoxFilter(), image_validator=ImageValidator()
    ),
    "RandomScale": lambda: RandomScale(
        prob=0.8, box_filter=BoxFilter(), image_validator=ImageValidator()
    ),
    "CropPad": lambda: CropPad(10, 10, 30, 30, box_filter=BoxFilter()),
    "RandomPatch": lambda: RandomPatch(
        PatchCoordinateGenerator(),
        BoxFilter(overlap_criterion="area", overlap_bounds=BoundGenerator()),
        ImageValidator("iou", BoundGenerator()),
    ),
    "RandomPatchInf": lambda: RandomPatchInf(
        PatchCoordinateGenerator(), BoxFilter(), ImageValidator("iou"), BoundGenerator()
    ),
    "RandomMaxCropFixedAR": lambda: RandomMaxCropFixedAR(0.5, BoxFilter(), ImageValidator()),
    "SSDRandomCrop": lambda: SSDRandomCrop(),
    "CaffeRandomCrop": lambda: CaffeRandomCrop(),
    "SSDDataAugmentation": lambda: SSDDataAugmentation(40, 50),
    "SSDDataAugmentation, Caffe": lambda: SSDDataAugmentation(40, 50, variant="caffe"),
    "DataAugmentationVariableInputSize": lambda: DataAugmentationVariableInputSize(40, 50),
    "DataAugmentationSatellite": lambda: DataAugmentationSatellite(40, 50),
    "DataAugmentationConstantInputSize": lambda: DataAugmentationConstantInputSize(),
    "TransformationChain": lambda: TransformationChain([Flip(), RandomScale(), Rotate(90)]),
}
TABLE = {
    **{f"photometric: {name}": make for name, make in PHOTOMETRIC.items()},
    **{f"geometric: {name}": make for name, make in GEOMETRIC.items()},
    **{f"lossy: {name}": make for name, make in LOSSY.items()},
}
KEEPS_CHANNELS = {
    **GEOMETRIC,
    **{name: PHOTOMETRIC[name] for name in ("Brightness", "Contrast", "Gamma", "RandomBrightness")},
}


def each(table: dict):
    return pytest.mark.parametrize("make", table.values(), ids=table.keys())


@pytest.fixture
def image():
    return np.random.default_rng(5).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


@pytest.fixture
def labels():
    return np.array(
        [[1, 4, 5, 30, 25.5], [2, 20.25, 12, 60, 44], [3, 40, 6, 52, 20], [1, 8, 8, 9, 40]],
        np.float32,
    )


@each(TABLE)
def test_call_forms(make, image, labels):
    transformation = make()
    assert isinstance(transformation, Transformation)
    assert isinstance(transformation(image, rng=1), np.ndarray)
    alone, inverter = transformation(image, return_inverter=True, rng=1)
    assert alone.ndim == 3
    assert inverter is None or callable(inverter)
    with_labels = transformation(image, labels, rng=1)
    assert len(with_labels) == 2
    assert len(transformation(image, labels, True, rng=1)) == 3


@each(TABLE)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_labels_keep_dtype_and_columns(make, image, labels, dtype):
    for seed in range(8):
        _, moved = make()(image, labels.astype(dtype), rng=seed)
        is_caffe = getattr(make(), "variant", None) == "caffe"  # which never rounds boxes
        assert moved.dtype == (np.float32 if is_caffe and dtype == np.int64 else dtype)
        assert moved.ndim == 2
        assert moved.shape[1] == 5
        assert set(moved[:, 0]) <= {1, 2, 3}


@each(TABLE)
@pytest.mark.parametrize("n_boxes", [0, 1, 4])
def test_any_number_of_boxes(make, image, labels, n_boxes):
    for seed in range(4):
        _, moved = make()(image, labels[:n_boxes], rng=seed)
        assert moved.shape[1] == 5
        assert len(moved) <= n_boxes


@each(TABLE)
def test_labels_of_an_image_without_objects_may_be_an_empty_list(make, image):
    _, moved = make()(image, [], rng=0)
    assert moved.shape == (0, 5)
    assert moved.dtype == np.float32


@each(TABLE)
def test_input_is_never_modified(make, image, labels):
    image_before, labels_before = image.copy(), labels.copy()
    for seed in range(6):
        make()(image, labels, rng=seed)
        np.testing.assert_array_equal(image, image_before)
        np.testing.assert_array_equal(labels, labels_before)


@each(TABLE)
def test_a_seed_decides_everything(make, image, labels):
    first, second = make(), make()
    for seed in range(6):
        image1, labels1 = first(image, labels, rng=seed)
        image2, labels2 = second(image, labels, rng=np.random.default_rng(seed))
        np.testing.assert_array_equal(image1, image2)
        np.testing.assert_array_equal(labels1, labels2)


@each(TABLE)
def test_the_global_random_state_is_left_alone(make, image, labels):
    before = copy.deepcopy(np.random.get_state())  # noqa: NPY002
    for _ in range(3):
        make()(image, labels)
    after = np.random.get_state()  # noqa: NPY002
    np.testing.assert_array_equal(before[1], after[1])
    assert before[2] == after[2]


@each(TABLE)
def test_another_column_order_changes_nothing_else(make, image, labels):
    usual, other = make(), make()
    other.labels_format = COLUMN_ORDER  # assigned from outside, as the data generator does
    for seed in range(6):
        image1, labels1 = usual(image, labels, rng=seed)
        image2, labels2 = other(image, labels[:, [1, 2, 3, 4, 0]], rng=seed)
        np.testing.assert_array_equal(image1, image2)
        np.testing.assert_array_equal(labels1, labels2[:, [4, 0, 1, 2, 3]])


@each(TABLE)
def test_further_columns_travel_with_their_box(make, image, labels):
    """So a caller can find out which boxes were filtered, and keep its flags beside them."""
    numbered = np.column_stack([labels, np.arange(len(labels), dtype=np.float32)])
    for seed in range(6):
        _, expected = make()(image, labels, rng=seed)
        _, moved = make()(image, numbered, rng=seed)
        np.testing.assert_array_equal(moved[:, :5], expected)
        np.testing.assert_array_equal(moved[:, 0], labels[moved[:, 5].astype(int), 0])


@each(TABLE)
def test_survives_pickling(make, image, labels):
    transformation = make()
    restored = pickle.loads(pickle.dumps(transformation))
    image1, labels1, inverter = transformation(image, labels, True, rng=3)
    image2, labels2 = restored(image, labels, rng=3)
    np.testing.assert_array_equal(image1, image2)
    np.testing.assert_array_equal(labels1, labels2)
    pickle.dumps(inverter)


@each({**PHOTOMETRIC, **GEOMETRIC})
def test_inverter_undoes_what_happened_to_the_boxes(make, image, labels):
    labels = labels.astype(np.float64)
    for seed in range(10):
        _, moved, inverter = make()(image, labels, True, rng=seed)
        predictions = np.column_stack([moved[:, 0], np.full(len(moved), 0.9), moved[:, 1:]])
        before = predictions.copy()
        restored = inverter(predictions)
        np.testing.assert_array_equal(predictions, before)  # inverters return new arrays
        np.testing.assert_array_equal(restored[:, :2], before[:, :2])
        np.testing.assert_allclose(restored[:, 2:], labels[:, 1:], atol=1e-9)


@each({**PHOTOMETRIC, **GEOMETRIC})
def test_inverter_follows_the_column_order_one_column_later(make, image, labels):
    transformation = make()
    _, moved, inverter = transformation(image, labels, True, rng=7)
    transformation.labels_format = COLUMN_ORDER
    *_, other = transformation(image, labels[:, [1, 2, 3, 4, 0]], True, rng=7)
    predictions = np.column_stack([moved[:, 0], moved[:, 0] / 10, moved[:, 1:]])
    # Column order of the labels: box, class; so predictions are something, box, class.
    reordered = predictions[:, [1, 2, 3, 4, 5, 0]]
    np.testing.assert_allclose(
        other(reordered)[:, [5, 0, 1, 2, 3, 4]], inverter(predictions), rtol=1e-6
    )


@each(GEOMETRIC)
def test_boxes_follow_the_pixels(make):
    """Paint a box, transform, and find it again where its label went."""
    box = np.array([[1, 22, 16, 42, 34]], np.float64)
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[16:34, 22:42] = 255
    for seed in range(10):
        painted, moved = make()(image, box, rng=seed)
        rows, columns = np.nonzero(painted[:, :, 0] > 127)
        height, width = painted.shape[:2]
        found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        visible = np.clip(moved[0, 1:], 0, [width, height, width, height])
        # Interpolation may leave an edge between two pixels; everything else is exact.
        np.testing.assert_allclose(found, visible, atol=1.01)


@each(KEEPS_CHANNELS)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
@pytest.mark.parametrize("channels", [None, 1, 2, 3, 4, 5, 9])
def test_images_keep_dtype_and_channels(make, dtype, channels):
    shape = (HEIGHT, WIDTH) if channels is None else (HEIGHT, WIDTH, channels)
    image = np.random.default_rng(2).integers(0, 256, shape).astype(dtype)
    for seed in range(3):
        changed = make()(image, rng=seed)
        assert changed.dtype == dtype
        assert changed.shape[2:] == shape[2:]


@each(KEEPS_CHANNELS)
def test_channels_are_treated_alike(make):
    """Nine channels, which OpenCV takes in portions, come out like each channel alone."""
    image = np.random.default_rng(4).integers(0, 256, (HEIGHT, WIDTH, 9), np.uint8)
    together = make()(image, rng=6)
    for channel in range(9):
        alone = make()(np.ascontiguousarray(image[:, :, channel]), rng=6)
        difference = np.abs(together[:, :, channel].astype(int) - alone)
        assert difference.max() <= 1  # interpolations round by channel number


@pytest.mark.parametrize("bad", [np.zeros(3), np.zeros((2, 4, 4, 3)), "image.jpg", None])
def test_what_is_no_image_is_rejected(bad):
    with pytest.raises(ValueError, match="Flip expects an image array"):
        Flip()(bad)


@pytest.mark.parametrize("bad", [np.ones(5), np.ones((2, 4)), np.ones((1, 2, 5))])
def test_what_are_no_labels_is_rejected(image, bad):
    with pytest.raises(ValueError, match="labels of one image"):
        Flip()(image, bad)


def test_box_filter_of_another_type_is_rejected():
    with pytest.raises(ValueError, match="`box_filter` must be None or a BoxFilter; got str"):
        Resize(10, 10, box_filter="area")


def test_filter_comes_before_clipping(image):
    """A box of which a tenth is left is removed, though what is left would be a fine box."""
    labels = np.array([[1, 0, 0, 60, 40]], np.float32)
    shift = Translate(0, 0.9, box_filter=BoxFilter(check_min_area=False))
    assert shift(image, labels)[1].shape == (0, 5)
    assert Translate(0, 0.9)(image, labels)[1].tolist() == [[1, 58, 0, 63, 40]]


class TestChain:
    def test_applies_in_order(self, image, labels):
        chain = TransformationChain([Resize(24, 32), Pad(1, 2, 3, 4)])
        resized, halved = Resize(24, 32)(image, labels)
        expected_image, expected_labels = Pad(1, 2, 3, 4)(resized, halved)
        chain_image, chain_labels = chain(image, labels)
        np.testing.assert_array_equal(chain_image, expected_image)
        np.testing.assert_array_equal(chain_labels, expected_labels)

    def test_inverter_is_flat_and_goes_backwards(self, image, labels):
        labels = labels.astype(np.float64)
        inner = TransformationChain([Rotate(90), Brightness(3), Crop(1, 2, 3, 4, False)])
        chain = TransformationChain([Resize(30, 90), inner, Flip()])
        _, moved, inverter = chain(image, labels, return_inverter=True)
        assert isinstance(inverter, InverterChain)
        assert len(inverter) == 4  # brightness moves nothing
        predictions = np.insert(moved, 1, 0.5, axis=1)
        np.testing.assert_allclose(inverter(predictions)[:, 2:], labels[:, 1:], atol=1e-9)
        one_by_one = predictions
        for undo in inverter:
            one_by_one = undo(one_by_one)
        np.testing.assert_array_equal(one_by_one, inverter(predictions))

    def test_stops_when_the_image_is_dropped(self, image, labels):
        never = RandomPatch(
            PatchCoordinateGenerator(max_scale=0.4),
            image_validator=ImageValidator("iou", (0.99, 1)),
            can_fail=True,
        )
        chain = TransformationChain([Flip(), never, Resize(5, 5)])
        assert chain(image, labels, True, rng=0) == (None, None, None)

    def test_empty_inverter_copies(self, image):
        _, inverter = TransformationChain([Brightness(3)])(image, return_inverter=True)
        predictions = np.ones((2, 6))
        assert inverter == []
        assert inverter(predictions) is not predictions


def test_leave_unchanged_is_the_inverter_of_what_does_not_act(image, labels):
    *_, inverter = RandomFlip(prob=0)(image, labels, True)
    assert inverter is leave_unchanged
