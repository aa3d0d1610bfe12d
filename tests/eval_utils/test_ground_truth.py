import numpy as np
import pytest

from eval_utils.ground_truth import image_key, number_images, read_ground_truth

FORMAT = {"class_id": 0, "xmin": 1, "ymin": 2, "xmax": 3, "ymax": 4}
ROW = [2, 10, 20, 30, 40]


def read(labels, image_ids=None, n_classes=3, gt_format=FORMAT, eval_neutral=None):
    image_ids = range(len(labels)) if image_ids is None else image_ids
    return read_ground_truth(labels, image_ids, n_classes, gt_format, eval_neutral)


@pytest.mark.parametrize("image_id", [7, "7", b"7", np.int64(7), np.str_("7")])
def test_one_key_for_an_id_in_every_type(image_id):
    assert image_key(image_id) == "7"


def test_ids_of_mixed_types_and_lengths_get_numbers():
    ids = [3, "000012", "a" * 100, b"bytes", np.int32(44)]
    assert number_images(ids) == {"3": 0, "000012": 1, "a" * 100: 2, "bytes": 3, "44": 4}


def test_images_with_the_same_id_are_pooled_with_a_warning():
    with pytest.warns(UserWarning, match="3 images have only 2 different ids.*'frame'"):
        truth = read([[ROW], [ROW], [ROW]], image_ids=["frame", "other", "frame"])
    assert truth.images.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    "labels",
    [
        [[ROW], [], [ROW, ROW]],
        [np.array([ROW]), np.empty((0, 5)), np.array([ROW, ROW])],
        [np.array([ROW], dtype="float32"), np.empty((0, 0)), np.array([ROW, ROW], dtype="uint8")],
        [np.array([ROW]), np.array([]), [tuple(ROW), np.array(ROW)]],
    ],
    ids=["lists", "arrays", "dtypes and an image of shape (0, 0)", "mixed"],
)
def test_labels_of_any_form_and_dtype(labels):
    truth = read(labels)
    assert truth.images.tolist() == [0, 2, 2]
    assert truth.class_ids.tolist() == [2, 2, 2]
    assert truth.neutral.tolist() == [False] * 3
    np.testing.assert_array_equal(truth.boxes, [[10, 20, 30, 40]] * 3)
    assert truth.boxes.dtype == np.float64


def test_coordinates_are_not_rounded():
    assert read([[[1, 0.25, 0.5, 7.75, 8.125]]]).boxes.tolist() == [[0.25, 0.5, 7.75, 8.125]]


def test_columns_follow_the_label_format():
    gt_format = {"class_id": 4, "xmin": 0, "xmax": 1, "ymin": 2, "ymax": 3}
    truth = read([[[10, 30, 20, 40, 2]]], gt_format=gt_format)
    assert truth.class_ids.tolist() == [2]
    assert truth.boxes.tolist() == [[10, 20, 30, 40]]


def test_boxes_of_one_class_keep_their_order():
    labels = [[[1, 0, 0, 1, 1], [2, 0, 0, 2, 2]], [[1, 0, 0, 3, 3]]]
    truth = read(labels, eval_neutral=[[False, True], [True]])
    ones = truth.of_class(1)
    assert ones.images.tolist() == [0, 1]
    assert ones.boxes[:, 2].tolist() == [1, 3]
    assert ones.neutral.tolist() == [False, True]
    assert truth.of_class(3).boxes.shape == (0, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": [[ROW]], "image_ids": ["a", "b"]}, "`image_ids` has 2 entries"),
        ({"labels": [[ROW]], "eval_neutral": [[True], []]}, "`eval_neutral` has 2 entries"),
        (
            {"labels": [[], [ROW]], "eval_neutral": [[], [True, False]]},
            "Image 1 has 1 boxes, but 2",
        ),
        ({"labels": [[ROW[:4]]]}, r"image 0 must be a \(k, 5\) array.*\(1, 4\)"),
        ({"labels": [[ROW], ROW]}, r"image 1 must be.*shape \(5,\)"),
        (
            {"labels": [[ROW, [4, 0, 0, 1, 1]]], "image_ids": ["x"]},
            "Box 1 of image 'x'.*class id 4",
        ),
        ({"labels": [[[0, 0, 0, 1, 1]]]}, "class id 0.*count classes from 0"),
        ({"labels": [[[1.5, 0, 0, 1, 1]]]}, "class id 1.5"),
    ],
)
def test_labels_that_make_no_sense_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        read(**arguments)
