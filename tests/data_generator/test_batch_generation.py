"""Making batches: what enters them, in which order, and what chance may depend on."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from data_generator.batch_generation import RETURNS, BatchMaker
from data_generator.detection_dataset import DetectionDataset
from data_generator.errors import DatasetError, DegenerateBatchError, ImageSizeError
from data_generator.image_reading import ImageReadError
from ssd_encoder_decoder.ssd_input_encoder import SSDInputEncoder

N_IMAGES = 6
ALL_BUT_ENCODED = set(RETURNS) - {"encoded_labels", "matched_anchors"}


def make_dataset(**changes) -> DetectionDataset:
    """Make a data set in memory: image i is filled with i and has i % 3 boxes of class 1, 2."""
    dataset = DetectionDataset()
    dataset.images = [np.full((8, 10, 3), i, np.uint8) for i in range(N_IMAGES)]
    dataset.filenames = [f"{i}.jpg" for i in range(N_IMAGES)]
    dataset.labels = [[[k + 1, i, k, i + 2, k + 3] for k in range(i % 3)] for i in range(N_IMAGES)]
    dataset.image_ids = list(range(N_IMAGES))
    dataset.eval_neutral = [[k == 1 for k in range(i % 3)] for i in range(N_IMAGES)]
    dataset.dataset_size = N_IMAGES
    dataset.dataset_indices = np.arange(N_IMAGES)
    for name, value in changes.items():
        setattr(dataset, name, value)
    return dataset


def make(indices=range(N_IMAGES), dataset=None, epoch=0, position=0, **options) -> dict:
    """Make one batch, as a dictionary."""
    returns = options.setdefault("returns", ALL_BUT_ENCODED)
    options.setdefault("keep_images_without_gt", True)
    batch = BatchMaker(dataset or make_dataset(), **options).batch(indices, epoch, position)
    assert isinstance(batch, tuple)
    return dict(zip([name for name in RETURNS if name in returns], batch, strict=True))


def encoder(labels, diagnostics):
    assert diagnostics is False
    return [len(boxes) for boxes in labels]


class AnchorFinder:
    """Stands for SSDInputEncoder."""

    def generate_encoding_template(self):
        raise NotImplementedError

    def __call__(self, labels, diagnostics):
        return ("encoded", "matched") if diagnostics else "encoded"


class Shift:
    """A transformation with everything: random numbers, an inverter, a labels format."""

    labels_format = None

    def __call__(self, image, labels=None, return_inverter=False, rng=None):
        step = 1 if rng is None else int(rng.integers(1, 100))
        outputs = [image + np.uint8(step)]
        if labels is not None:
            moved = labels.copy()
            columns = [self.labels_format[name] for name in ("xmin", "xmax")]
            moved[:, columns] += step
            outputs.append(moved)
        if return_inverter:
            outputs.append(lambda predictions: predictions - step)
        return tuple(outputs) if len(outputs) > 1 else outputs[0]


def set_labels(*boxes):
    """Make a transformation that replaces the labels."""
    return lambda image, labels: (image, np.array(boxes))


# ------------------------------------------------------------------ what a batch consists of


def test_all_parts_without_transformations():
    batch = make([4, 1, 3])
    assert list(batch) == [name for name in RETURNS if name in ALL_BUT_ENCODED]
    assert batch["processed_images"].shape == (3, 8, 10, 3)
    assert batch["processed_images"].dtype == np.uint8
    assert batch["processed_images"][:, 0, 0, 0].tolist() == [4, 1, 3]
    assert [labels[:, 0].tolist() for labels in batch["processed_labels"]] == [[1], [1], []]
    assert [labels.shape for labels in batch["original_labels"]] == [(1, 5), (1, 5), (0, 5)]
    assert batch["filenames"] == ["4.jpg", "1.jpg", "3.jpg"]
    assert batch["image_ids"] == [4, 1, 3]
    assert batch["evaluation-neutral"] == [[False], [False], []]
    assert batch["inverse_transform"] == []
    assert [image[0, 0, 0] for image in batch["original_images"]] == [4, 1, 3]


def test_inverters_stand_in_reverse_order_and_originals_stay_original():
    dataset = make_dataset()
    stored = [image.copy() for image in dataset.images]

    def double(image, labels, return_inverter=False):
        image *= 2  # in place, as a careless user would
        labels[:, 1:] *= 2
        return image, labels, lambda predictions: predictions / 2

    batch = make([5], dataset, transformations=[Shift(), double])
    first, second = batch["inverse_transform"][0]
    assert second(first(np.array([12.0]))) == 12 / 2 - 1
    assert batch["processed_images"][0, 0, 0, 0] == (5 + 1) * 2
    assert batch["processed_labels"][0].tolist() == [[1, 12, 0, 16, 6], [2, 12, 2, 16, 8]]
    assert batch["original_images"][0][0, 0, 0] == 5
    assert batch["original_labels"][0].tolist() == dataset.labels[5]
    for image, before in zip(dataset.images, stored, strict=True):
        np.testing.assert_array_equal(image, before)


def test_optional_arguments_are_given_to_those_who_take_them():
    def plain(image, labels):
        return image, labels

    batch = make([1], transformations=[plain, Shift()], seed=0)
    assert len(batch["inverse_transform"][0]) == 1
    batch = make([1], transformations=[plain, Shift()], returns={"processed_images"})
    assert set(batch) == {"processed_images"}


def test_data_sets_without_labels():
    dataset = make_dataset(labels=None, eval_neutral=None, image_ids=None)
    with pytest.warns(
        UserWarning, match=r"generate\(\) gives None for \['evaluation-neutral', 'or"
    ):
        batch = make([0, 1], dataset, transformations=[Shift()], keep_images_without_gt=False)
    missing = [name for name, value in batch.items() if value is None]
    assert missing == ["processed_labels", "image_ids", "evaluation-neutral", "original_labels"]
    assert batch["processed_images"][:, 0, 0, 0].tolist() == [1, 2]
    assert len(batch["inverse_transform"]) == 2


def test_labels_format_is_handed_on():
    dataset = DetectionDataset(labels_output_format=["xmin", "ymin", "xmax", "ymax", "class_id"])
    other = make_dataset(labels_format=dataset.labels_format, labels=[[[1, 1, 3, 3, 7]]] * N_IMAGES)
    other.eval_neutral = None
    batch = make([0], other, transformations=[Shift()])
    assert batch["processed_labels"][0].tolist() == [[2, 1, 4, 3, 7]]


def test_bound_methods_can_be_transformations():
    class Tools:
        def same(self, image, labels):
            return image, labels

    assert make([1], transformations=[Tools().same])["processed_labels"][0].shape == (1, 5)


# ------------------------------------------------------------------ encoding


def test_the_encoder_is_called_once_with_all_labels():
    returns = {"processed_images", "encoded_labels"}
    batch = make(range(5), label_encoder=encoder, returns=returns)
    assert batch["encoded_labels"] == [0, 1, 2, 0, 1]


class TargetsOf8x10:
    """An encoder that says which images its targets are for."""

    img_height, img_width = 8, 10

    def __call__(self, labels, diagnostics):
        return "encoded"


def test_images_must_be_of_the_size_that_the_targets_are_for():
    def halve(image, labels):
        return image[::2, ::2], labels

    options = {"label_encoder": TargetsOf8x10(), "returns": {"processed_images", "encoded_labels"}}
    assert make(**options)["encoded_labels"] == "encoded"
    with pytest.raises(
        ImageSizeError, match=r"are 4 x 5 pixels .* targets for 8 x 10\. .* Resize\(8, 10\)"
    ):
        make(transformations=[halve], **options)
    only_images = {**options, "returns": {"processed_images"}}
    assert make(transformations=[halve], **only_images)["processed_images"].shape[1:3] == (4, 5)


def test_matched_anchors():
    returns = {"encoded_labels", "matched_anchors"}
    batch = make([1], label_encoder=AnchorFinder(), returns=returns)
    assert batch == {"encoded_labels": "encoded", "matched_anchors": "matched"}
    batch = make([1], label_encoder=AnchorFinder(), returns={"encoded_labels"})
    assert batch == {"encoded_labels": "encoded"}
    with pytest.warns(UserWarning, match="'matched_anchors'.*not an SSDInputEncoder"):
        batch = make([1], label_encoder=encoder, returns=returns)
    assert batch == {"encoded_labels": [1], "matched_anchors": None}


@pytest.mark.parametrize(
    "order",
    [("class_id", "xmin", "xmax", "ymin", "ymax"), ("ymax", "class_id", "xmax", "ymin", "xmin")],
)
def test_targets_do_not_depend_on_the_order_of_the_columns(order):
    encoder = SSDInputEncoder(8, 10, 2, [(4, 5)])
    label = {"class_id": 2, "xmin": 1, "ymin": 2, "xmax": 6, "ymax": 7}
    expected, matched = encoder([np.array([list(label.values())])], diagnostics=True)
    dataset = make_dataset(
        labels=[[[label[name] for name in order]]] * N_IMAGES,
        labels_format={name: order.index(name) for name in label},
        eval_neutral=None,
    )
    returns = {"encoded_labels", "matched_anchors", "processed_labels"}
    batch = make([1], dataset, label_encoder=encoder, returns=returns)
    assert batch["processed_labels"][0].tolist() == dataset.labels[1]
    np.testing.assert_array_equal(batch["encoded_labels"], expected)
    np.testing.assert_array_equal(batch["matched_anchors"], matched)


def test_no_encoder():
    with pytest.warns(
        UserWarning, match=r"None for \['encoded_labels'\], because there is no label"
    ):
        batch = make([1], returns={"processed_images", "encoded_labels"})
    assert batch["encoded_labels"] is None


# ------------------------------------------------------------------ images that are dropped


def test_images_without_ground_truth():
    batch = make(keep_images_without_gt=False)
    assert batch["image_ids"] == [1, 2, 4, 5]
    assert len(batch["processed_images"]) == len(batch["filenames"]) == 4
    assert [len(marks) for marks in batch["evaluation-neutral"]] == [1, 2, 1, 2]


def test_images_without_ground_truth_can_stay():
    batch = make([0, 3], transformations=[Shift()])
    assert [labels.shape for labels in batch["processed_labels"]] == [(0, 5), (0, 5)]
    assert batch["evaluation-neutral"] == [[], []]


@pytest.mark.parametrize("nothing", [None, (None, None), (None, None, None)])
def test_a_transformation_may_drop_an_image(nothing):
    calls = []

    def drop_odd(image, labels, return_inverter=False):
        if image[0, 0, 0] % 2:
            return nothing
        return image, labels, None

    def count(image, labels):
        calls.append(image)
        return image, labels

    batch = make(transformations=[drop_odd, count])
    assert batch["image_ids"] == [0, 2, 4]
    assert len(calls) == 3
    assert len(batch["inverse_transform"]) == len(batch["original_images"]) == 3


def careless(image, labels=None, return_inverter=False):
    return image


def more_careless(image, labels=None):
    return ()


@pytest.mark.parametrize(
    ("transformation", "dataset", "message"),
    [
        (careless, {}, r"careless at .* must return \(image, labels, inverter\); got 1 of these 3"),
        (careless, {"labels": None, "eval_neutral": None}, r"\(image, inverter\); got 1 of"),
        (more_careless, {}, r"\(image, labels\); got 0 of these 2"),
    ],
)
def test_a_transformation_that_forgets_something_is_named(transformation, dataset, message):
    returns = {"processed_images", "inverse_transform"}
    with pytest.raises(ValueError, match=f"The transformation .*{message}") as caught:
        make([1], make_dataset(**dataset), transformations=[transformation], returns=returns)
    assert caught.value.__notes__ == ["While transforming 1.jpg"]


@pytest.mark.parametrize("filenames", [None, [f"{i}.jpg" for i in range(N_IMAGES)]])
def test_dropping_works_without_filenames(filenames):
    batch = make(dataset=make_dataset(filenames=filenames), keep_images_without_gt=False)
    assert batch["image_ids"] == [1, 2, 4, 5]
    assert batch["filenames"] == (filenames and ["1.jpg", "2.jpg", "4.jpg", "5.jpg"])


def test_nothing_left():
    with pytest.raises(
        DegenerateBatchError, match=r"All 2 images .*2 x no ground truth.*keep_imag"
    ):
        make([0, 3], keep_images_without_gt=False)

    def drop(image, labels):
        return None, None

    with pytest.raises(DegenerateBatchError, match="1 x function gave no image"):
        make([1], transformations=[drop])


def test_unreadable_images():
    dataset = make_dataset(images=None, filenames=["none.jpg"] * N_IMAGES)
    with pytest.raises(ImageReadError, match="none.jpg"):
        make([1, 2], dataset)
    with pytest.raises(DegenerateBatchError, match="2 x the image cannot be read"):
        make([1, 2], dataset, on_image_error="skip")
    assert list(dataset.skipped_images) == ["none.jpg"]
    assert "No such file" in dataset.skipped_images["none.jpg"]


def test_images_are_only_read_if_needed():
    dataset = make_dataset(images=None)  # there are no such files
    returns = {"processed_labels", "image_ids"}
    assert make([1, 2], dataset, returns=returns)["image_ids"] == [1, 2]


def test_images_of_different_sizes():
    dataset = make_dataset()
    dataset.images[2] = np.zeros((9, 10, 3), np.uint8)
    message = r"1.jpg is \(8, 10, 3\) and 2.jpg is \(9, 10, 3\).*Add Resize\(height, width\)"
    with pytest.raises(ImageSizeError, match=message):
        make([1, 4, 2], dataset)
    assert issubclass(ImageSizeError, (DegenerateBatchError, ValueError))
    batch = make(dataset=dataset, returns={"original_images"})
    assert len(batch["original_images"]) == N_IMAGES


# ------------------------------------------------------------------ boxes that are dropped


GOOD, FLAT, SWAPPED = [1, 0, 0, 5, 5], [2, 3, 3, 3, 9], [3, 0, 9, 5, 2]
NAN, INF = [4, np.nan, 0, 5, 5], [5, 0, 0, np.inf, np.inf]


@pytest.mark.parametrize("bad", [FLAT, SWAPPED, NAN, INF])
def test_degenerate_boxes(bad):
    transformations = [set_labels(bad, GOOD, bad)]
    options = {"transformations": transformations, "returns": {"processed_labels"}}
    (labels,) = make([1], **options)["processed_labels"]
    assert labels.tolist() == [GOOD]
    np.testing.assert_array_equal(
        make([1], degenerate_box_handling="keep", **options)["processed_labels"][0],
        [bad, GOOD, bad],
    )
    message = rf"1.jpg: 2 of 3 boxes .*box 0, .'class_id': {bad[0]}"
    with pytest.raises(ValueError, match=message):
        make([1], degenerate_box_handling="raise", **options)
    with pytest.warns(UserWarning, match=message):
        labels = make([1], degenerate_box_handling="warn", **options)["processed_labels"][0]
    assert len(labels) == 3


@pytest.mark.parametrize("gone", [set_labels(FLAT), lambda image, labels: (image, [])])
def test_images_left_without_boxes(gone):
    options = {"transformations": [gone], "returns": {"processed_labels"}}
    assert make([1], **options)["processed_labels"][0].shape == (0, 5)
    with pytest.raises(DegenerateBatchError, match="1 x no box left after the transformations"):
        make([1], keep_images_without_gt=False, **options)


def test_degenerate_annotations_are_handled_without_transformations_too():
    dataset = make_dataset(labels=[[GOOD, FLAT]] * N_IMAGES, eval_neutral=[[0, 1]] * N_IMAGES)
    batch = make([0], dataset)
    assert batch["processed_labels"][0].tolist() == [GOOD]
    assert batch["evaluation-neutral"] == [[False]]
    assert batch["original_labels"][0].tolist() == [GOOD, FLAT]


@pytest.mark.parametrize("dtype", [np.int64, np.float32])
@pytest.mark.parametrize("kept", [[], [0], [1], [2, 0], [0, 1, 2]])
def test_marks_follow_their_boxes(dtype, kept):
    """Boxes 0..2 are marked F, T, F; one transformation selects, the next moves them."""
    boxes = np.array([[k + 1, k, k, k + 5, k + 5] for k in range(3)], dtype)
    dataset = make_dataset(
        labels=[boxes] * N_IMAGES, eval_neutral=[[False, True, False]] * N_IMAGES
    )
    batch = make([0], dataset, transformations=[lambda i, labels: (i, labels[kept]), Shift()])
    labels = batch["processed_labels"][0]
    assert labels.dtype == dtype
    assert labels.shape == (len(kept), 5)
    assert labels[:, 0].tolist() == [k + 1 for k in kept]
    assert batch["evaluation-neutral"] == [[[False, True, False][k] for k in kept]]


@pytest.mark.parametrize("kept", [[], [2, 1]])
def test_columns_of_ones_own_travel_with_their_box(kept):
    boxes = np.array([[k + 1, k, k, k + 5, k + 5, k / 2, -k] for k in range(3)], np.float32)
    dataset = make_dataset(
        labels=[boxes] * N_IMAGES,
        eval_neutral=[[False, True, False]] * N_IMAGES,
        labels_format={**make_dataset().labels_format, "angle": 5, "depth": 6},
    )
    batch = make([0], dataset, transformations=[lambda i, labels: (i, labels[kept]), Shift()])
    moved = boxes[kept] + [0, 1, 0, 1, 0, 0, 0]
    np.testing.assert_array_equal(batch["processed_labels"][0], moved)
    assert batch["evaluation-neutral"] == [[[False, True, False][k] for k in kept]]


def test_an_image_without_objects_has_ones_own_columns_too():
    labels_format = {**make_dataset().labels_format, "angle": 5}
    dataset = make_dataset(labels=[[]] * N_IMAGES, eval_neutral=None, labels_format=labels_format)
    assert make([0], dataset)["processed_labels"][0].shape == (0, 6)


def strip(image, labels):
    return image, labels[:, :5]


def move_all_columns(image, labels):
    return image, labels + [0, 1, 1, 1, 1, 1][: labels.shape[1]]


def scale_all_columns(image, labels):
    return image, labels * [1, 2, 2, 2, 2, 2][: labels.shape[1]]


def divide_all_columns_by_zero(image, labels):
    return image, np.where(np.arange(labels.shape[1]) < 5, labels, np.inf)


def clip_all_columns(image, labels):
    return image, np.clip(labels, 0, 300)


@pytest.mark.parametrize(
    "careless",
    [strip, move_all_columns, scale_all_columns, clip_all_columns, divide_all_columns_by_zero],
)
def test_marks_and_transformations_that_lose_the_tags_of_boxes(careless):
    """As long as no box is removed the marks are right; after that it would be a guess."""

    def drop_first(image, labels):
        return image, labels[1:]

    def drop_all(image, labels):
        return image, labels[:0]

    assert make([2], transformations=[careless])["evaluation-neutral"] == [[False, True]]
    assert make([2], transformations=[careless, drop_all])["evaluation-neutral"] == [[]]
    with pytest.raises(ValueError, match="2.jpg: .*eval_neutral cannot follow its boxes"):
        make([2], transformations=[careless, drop_first])


def test_marks_of_another_number_than_boxes():
    dataset = make_dataset(eval_neutral=[[True]] * N_IMAGES)
    with pytest.raises(DatasetError, match="2.jpg: labels has 2 boxes, but eval_neutral has 1"):
        make([2], dataset)


# ------------------------------------------------------------------ chance


def draws(seed, epoch=0, position=0, n=4) -> list[int]:
    batch = make(
        [5] * n, transformations=[Shift(), Shift()], seed=seed, epoch=epoch, position=position
    )
    return batch["processed_images"][:, 0, 0, 0].tolist()


def test_random_numbers_depend_on_seed_epoch_and_position_only():
    assert draws(1) == draws(1)
    assert draws(1, position=2, n=2) == draws(1)[2:], "other batch sizes give the same images"
    assert len(set(draws(1, n=20))) > 10
    assert draws(1) != draws(2)
    assert draws(1) != draws(1, epoch=1)
    assert draws(1, epoch=1) != draws(1, position=1)


def test_without_a_seed_transformations_use_their_own_generators():
    assert draws(None) == [5 + 1 + 1] * 4, "Shift moves by 1 without a generator"


def test_order():
    maker = BatchMaker(make_dataset(), seed=3, label_encoder=encoder)
    same = BatchMaker(make_dataset(), seed=3, label_encoder=encoder)
    orders = [maker.order(epoch).tolist() for epoch in range(20)]
    assert all(sorted(order) == list(range(N_IMAGES)) for order in orders)
    assert len({tuple(order) for order in orders}) > 10
    assert [same.order(epoch).tolist() for epoch in reversed(range(20))] == orders[::-1]
    assert maker.order(0, shuffle=False).tolist() == list(range(N_IMAGES))


def test_order_without_a_seed():
    orders = {tuple(BatchMaker(make_dataset(), label_encoder=encoder).order(0)) for _ in range(20)}
    assert len(orders) > 10


def test_the_global_generator_is_left_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    make(transformations=[Shift()], seed=0)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


# ------------------------------------------------------------------ wrong arguments


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"returns": {"images"}}, r"returns must be a set of names out of .*unknown: \['images'\]"),
        ({"returns": "filenames"}, "returns must be a set of names"),
        ({"degenerate_box_handling": "clip"}, "degenerate_box_handling must be one of .*'clip'"),
        ({"on_image_error": "ignore"}, "on_image_error must be one of .*got 'ignore'"),
        ({"transformations": Shift()}, "transformations must be a list, got one Shift"),
        (
            {"transformations": [lambda image, labels: (image, labels[0])]},
            r"1.jpg: the transformations made labels of the shape \(6,\); expected",
        ),
    ],
)
def test_wrong_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        make([1], **options)


def test_no_warning_when_nothing_is_missing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make([1], label_encoder=AnchorFinder(), returns=set(RETURNS))
