import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from misc_utils.drawing import (
    class_color,
    draw_detections,
    draw_ground_truth,
    draw_matches,
    save_image,
)

GREY = 90
NAMES = ("background", "cat", "dog")
COORDINATES = st.one_of(st.floats(-300, 300), st.floats(-1e12, 1e12))


@pytest.fixture
def image():
    return np.full((120, 160, 3), GREY, dtype=np.uint8)


def test_a_detection_is_drawn_on_its_outermost_pixels(image):
    drawn = draw_detections(image, [[1, 0.9, 20, 50, 60, 90]], NAMES)
    changed = (drawn != GREY).any(axis=2)
    below_label = changed[50:]
    rows, columns = np.nonzero(below_label)
    assert (columns.min(), columns.max()) == (20, 59)  # edges 20 and 60: pixels 20 to 59
    assert (rows.min() + 50, rows.max() + 50) == (50, 89)
    assert not changed[53:87, 23:57].any()
    assert tuple(drawn[89, 40]) == class_color(1)
    assert changed[30:49, 20:60].any()  # the label stands above


def test_the_image_is_not_changed(image):
    before = image.copy()
    drawn = draw_detections(image, [[1, 0.9, 20, 30, 60, 90]], ground_truth=[[1, 25, 30, 60, 90]])
    assert np.array_equal(image, before)
    assert not np.shares_memory(drawn, image)


@pytest.mark.parametrize("empty", [[], np.empty((0, 6)), np.empty((0,))])
def test_nothing_to_draw_gives_a_copy(image, empty):
    drawn = draw_detections(image, empty, NAMES)
    assert np.array_equal(drawn, image)
    assert not np.shares_memory(drawn, image)


@pytest.mark.parametrize("shape", [(40, 50), (40, 50, 1), (40, 50, 3), (40, 50, 4)])
def test_images_of_any_channels_become_rgb(shape):
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    drawn = draw_detections(image, [])
    assert drawn.shape == (40, 50, 3)
    assert drawn.dtype == np.uint8
    first = image if image.ndim == 2 else image[..., 0]
    assert np.array_equal(drawn[..., 0], first)


def test_views_that_are_not_contiguous_are_drawn_on(image):
    mirrored = image[:, ::-1, ::-1]
    assert (draw_detections(mirrored, [[1, 0.9, 20, 30, 60, 90]]) != GREY).any()


def test_small_images_are_enlarged_by_a_whole_factor_with_their_boxes(image):
    drawn = draw_detections(image, [[1, 0.9, 20, 50, 60, 90]], min_size=400)
    assert drawn.shape == (360, 480, 3)
    assert tuple(drawn[269, 120]) == class_color(1)  # ymax 90 times 3: pixel 269
    assert draw_detections(image, [], min_size=160).shape == image.shape


def test_ground_truth_is_dashed_and_differs_from_a_detection(image):
    solid = draw_detections(image, [[1, 0.9, 20, 50, 60, 90]])
    dashed = draw_ground_truth(image, [[1, 20, 50, 60, 90]])
    assert len(np.unique(solid[89, 20:60], axis=0)) == 1
    colors = {tuple(color) for color in dashed[50, 20:60].tolist()}
    assert colors == {class_color(1), (255, 255, 255)}


def test_labels_stay_inside_and_do_not_cover_each_other():
    image = np.full((100, 400, 3), GREY, dtype=np.uint8)
    corners = [[0, 0, 30, 20], [370, 0, 400, 20], [0, 80, 30, 100], [370, 80, 400, 100]]
    for corner in corners:
        with_box = draw_detections(image, [[2, 0.87, *corner]], NAMES)
        # A label needs some 30 x 10 pixels of the colour of its class as its ground.
        assert (with_box == class_color(2)).all(axis=2).sum() > 200

    one_place = [[1, 0.9, 100, 40, 180, 60], [2, 0.8, 100, 40, 180, 60]]
    both = draw_detections(image, one_place, NAMES)
    for class_id in (1, 2):
        assert (both == class_color(class_id)).all(axis=2).sum() > 200


def test_the_most_confident_detection_is_on_top(image):
    rows = [[1, 0.9, 20, 50, 60, 90], [2, 0.8, 20, 50, 60, 90]]
    assert tuple(draw_detections(image, rows)[89, 40]) == class_color(1)
    assert tuple(draw_detections(image, rows[::-1])[89, 40]) == class_color(1)


def test_colours_are_distinct():
    colors = np.array([class_color(class_id) for class_id in range(21)])
    distances = np.abs(colors[:, None] - colors[None]).sum(axis=2)
    assert distances[~np.eye(21, dtype=bool)].min() > 30
    first_ten = distances[:10, :10][~np.eye(10, dtype=bool)]
    assert first_ten.min() > 60


@settings(max_examples=60, deadline=None)
@given(
    boxes=st.lists(st.tuples(*[COORDINATES] * 4), max_size=4),
    size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
)
def test_any_finite_box_on_any_image_can_be_drawn(boxes, size):
    rows = [[1, 0.5, *box] for box in boxes]
    labels = [[2, *box] for box in boxes]
    drawn = draw_detections(np.zeros(size, np.uint8), rows, NAMES, labels)
    assert drawn.shape == (*size, 3)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[1, 0.5, 0, 0, 10]], r"array \(n, 6\), got shape \(1, 5\)"),
        (np.zeros((2, 3, 6)), r"shape \(2, 3, 6\).*pass the entry of the image"),
        ([[1, 0.5, 0, 0, 10, np.nan]], "finite numbers .* row 0"),
        ([[3, 0.5, 0, 0, 10, 10]], "Class id 3 has no name among the 3 .*'background'"),
        ([[-1, 0.5, 0, 0, 10, 10]], "Class id -1 has no name"),
    ],
)
def test_wrong_detections_are_refused(image, rows, message):
    with pytest.raises(ValueError, match=message):
        draw_detections(image, rows, NAMES)


@pytest.mark.parametrize(
    "image",
    [np.zeros((4, 4, 3)), np.zeros((4, 4, 2), np.uint8), np.zeros((2, 4, 4, 3), np.uint8)],
)
def test_wrong_images_are_refused(image):
    with pytest.raises(ValueError, match="Expected a uint8 image"):
        draw_detections(image, [])
    with pytest.raises(ValueError, match="got shape"):
        draw_detections(np.zeros((0, 4, 3), np.uint8), [])


def test_class_names_can_be_a_mapping(image):
    drawn = draw_detections(image, [[7, 0.9, 20, 50, 60, 90]], {7: "cat"})
    assert np.array_equal(drawn, draw_detections(image, [[7, 0.9, 20, 50, 60, 90]], ["cat"] * 8))


def test_an_image_is_saved_as_rgb(tmp_path, image):
    image[..., 0] = 200
    save_image(tmp_path / "new" / "red.png", image)
    assert np.array_equal(cv2.imread(str(tmp_path / "new" / "red.png"))[..., ::-1], image)
    assert len(list((tmp_path / "new").iterdir())) == 1


@pytest.mark.parametrize("name", ["picture", "picture.docx"])
def test_an_unknown_format_is_refused(tmp_path, image, name):
    with pytest.raises(ValueError, match=f"suffix such as '.png'.*{name}"):
        save_image(tmp_path / name, image)
    assert list(tmp_path.iterdir()) == []


def test_matches_are_thin_lines_below_the_ground_truth():
    image = np.zeros((60, 80, 3), np.uint8)
    anchors = np.array([[1, 10, 10, 40, 30], [2, 50, 5, 70, 25]])
    picture = draw_matches(
        image, np.array([[1, 10, 10, 40, 30]]), anchors, ["background", "a", "b"]
    )
    assert not image.any()
    np.testing.assert_array_equal(picture[5, 60], class_color(2))
    assert not picture[6, 60].any()
    dashes = {tuple(color) for color in picture[10, 10:40].tolist()}
    assert dashes == {class_color(1), (255, 255, 255)}  # the dashed box covers its anchor
    assert draw_matches(image, np.zeros((0, 5)), np.zeros((0, 5))).any() == np.False_
    with pytest.raises(ValueError, match=r"anchors \(class_id, xmin, ymin, xmax, ymax\)"):
        draw_matches(image, np.zeros((0, 5)), np.zeros((1, 6)))
