from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from data_generator.image_reading import ImageReadError
from misc_utils import detection
from misc_utils.detection import detect, video_frames

HEIGHT, WIDTH = 60, 90


class StubModel:
    """Answers with the same rows for each image and keeps what it was shown."""

    def __init__(self, rows, channels=3, mode="inference", **settings):
        self.rows = np.asarray(rows, dtype=np.float32)
        self.seen = []
        self.settings = SimpleNamespace(
            **{
                "img_height": HEIGHT,
                "img_width": WIDTH,
                "img_channels": channels,
                "mode": mode,
                "coords": "centroids",
                "normalize_coords": True,
                "confidence_thresh": 0.01,
                "iou_threshold": 0.45,
                **settings,
            }
        )

    def predict_on_batch(self, images):
        self.seen.append(images)
        return np.repeat(self.rows[np.newaxis], len(images), axis=0)


@pytest.fixture(autouse=True)
def _stub_settings(monkeypatch):
    """Let stub models speak for themselves, and real models as always."""
    read = detection.read_model_settings
    monkeypatch.setattr(
        detection,
        "read_model_settings",
        lambda model: getattr(model, "settings", None) or read(model),
    )


# Boxes in the model's 60 x 90 pixels; the model fills up with rows of the background class.
ROWS = [[2, 0.7, 9, 6, 45, 30], [1, 0.9, -9, 12, 90, 66], [3, 0.4, 0, 0, 9, 9], [0, 0, 0, 0, 0, 0]]
BEST, SECOND, THIRD = [1, 0.9, -9, 12, 90, 66], [2, 0.7, 9, 6, 45, 30], [3, 0.4, 0, 0, 9, 9]


def image(height=HEIGHT, width=WIDTH, channels=3):
    return np.full((height, width, channels), 7, dtype=np.uint8)


def scaled(row, x, y):
    return [*row[:2], row[2] * x, row[3] * y, row[4] * x, row[5] * y]


def test_boxes_are_in_pixels_of_the_image_and_not_rounded():
    (found,) = detect(StubModel(ROWS), image(height=100, width=135), clip_boxes=False)
    assert found.dtype == np.float32
    expected = [scaled(BEST, 1.5, 100 / 60), scaled(SECOND, 1.5, 100 / 60)]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_boxes_are_clipped_to_the_image_by_default():
    (found,) = detect(StubModel(ROWS), image(height=120, width=90))
    np.testing.assert_allclose(found[0, 2:], [0, 24, 90, 120])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"confidence_thresh": 0.3}, [BEST, SECOND, THIRD]),
        ({"confidence_thresh": 0.3, "top_k": 2}, [BEST, SECOND]),
        ({"confidence_thresh": 0.3, "top_k": "all"}, [BEST, SECOND, THIRD]),
        ({"confidence_thresh": 0.95}, np.empty((0, 6))),
    ],
)
def test_background_and_weak_detections_are_dropped(options, expected):
    (found,) = detect(StubModel(ROWS), image(), clip_boxes=False, **options)
    assert found.shape == np.shape(expected)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_one_image_gives_a_list_of_one_and_none_gives_none():
    model = StubModel(ROWS)
    assert len(detect(model, image())) == 1
    assert detect(model, []) == []
    assert detect(model, np.empty((0, 10, 10, 3), np.uint8)) == []
    assert len(model.seen) == 1


def test_a_batch_and_a_list_of_mixed_sizes_are_cut_into_batches():
    model = StubModel(ROWS)
    assert len(detect(model, np.zeros((5, 10, 20, 3), np.uint8), batch_size=2)) == 5
    assert [seen.shape for seen in model.seen] == [(n, HEIGHT, WIDTH, 3) for n in (2, 2, 1)]
    sizes = [(10, 20), (60, 90), (600, 30)]
    found = detect(model, [image(*size) for size in sizes], clip_boxes=False)
    for rows, (height, width) in zip(found, sizes, strict=True):
        np.testing.assert_allclose(
            rows[1], scaled(SECOND, width / WIDTH, height / HEIGHT), rtol=1e-6
        )
    assert all(seen.dtype == np.uint8 for seen in model.seen)


@pytest.mark.parametrize(
    ("shape", "channels"),
    [((20, 30), 3), ((20, 30, 1), 3), ((20, 30, 4), 3), ((20, 30), 1), ((20, 30, 3), 1)]
    + [((20, 30, 4), 1), ((20, 30, 4), 4), ((20, 30, 3), 3), ((20, 30, 1), 1)],
)
def test_channels_are_made_to_fit_the_model(shape, channels):
    model = StubModel(ROWS, channels=channels)
    pixels = np.full(shape, 100, np.uint8)
    if shape[2:] == (4,) and channels != 4:
        pixels[..., 3] = 0  # alpha must not reach the model
    detect(model, pixels)
    assert model.seen[0].shape == (1, HEIGHT, WIDTH, channels)
    assert (model.seen[0] == 100).all()


def test_files_are_read_as_rgb_and_mixed_with_arrays(tmp_path):
    path = tmp_path / "red.png"
    cv2.imwrite(str(path), np.full((30, 45, 3), (0, 0, 255), np.uint8))
    model = StubModel(ROWS)
    found = detect(model, [path, image(), str(path)], clip_boxes=False)
    np.testing.assert_allclose(found[0][1], scaled(SECOND, 0.5, 0.5), rtol=1e-6)
    np.testing.assert_allclose(found[1][1], SECOND, rtol=1e-6)
    assert (model.seen[0][0] == (255, 0, 0)).all()
    assert np.array_equal(detect(model, path)[0], detect(model, [path])[0])


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ImageReadError, match=r"nowhere\.jpg"):
        detect(StubModel(ROWS), [image(), tmp_path / "nowhere.jpg"])


def test_an_iterator_is_read_lazily():
    taken = []

    def frames():
        for number in range(5):
            taken.append(number)
            yield image()

    found = detect(StubModel(ROWS), frames(), batch_size=2)
    assert taken == []
    next(found)
    assert taken == [0, 1]
    assert len(list(found)) == 4


def test_wrong_settings_are_reported_before_an_iterator_is_read():
    with pytest.raises(ValueError, match="batch_size >= 1, got 0"):
        detect(StubModel(ROWS), iter([image()]), batch_size=0)


def test_a_video_is_read_as_rgb(tmp_path):
    path = tmp_path / "blue.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (WIDTH, HEIGHT))
    for _ in range(3):
        writer.write(np.full((HEIGHT, WIDTH, 3), (255, 0, 0), np.uint8))
    writer.release()

    model = StubModel(ROWS)
    capture = cv2.VideoCapture(str(path))
    assert len(list(detect(model, capture, batch_size=1))) == 3
    assert model.seen[0][..., 2].min() > 200 > 50 > model.seen[0][..., 0].max()
    assert [frame.shape for frame in video_frames(path)] == [(HEIGHT, WIDTH, 3)] * 3
    with pytest.raises(ValueError, match=r"cannot open the video .*nowhere\.avi"):
        next(video_frames(tmp_path / "nowhere.avi"))


@pytest.mark.parametrize(
    ("images", "channels", "message"),
    [
        (np.zeros((5, 5, 3), np.float32), 3, r"uint8.*got float32 of shape \(5, 5, 3\)"),
        ([image(), np.zeros((5, 5, 2), np.uint8)], 3, "number 1 has 2 channels"),
        ([image(), np.zeros((5,), np.uint8)], 3, r"shape \(5,\) as image number 1"),
        (np.zeros((0, 5, 3), np.uint8), 3, "no pixels"),
        (image(), 4, "number 0 has 3 channels, which cannot become the 4"),
        (7, 3, "Expected a path, .* got int"),
    ],
)
def test_what_is_no_image_is_refused(images, channels, message):
    with pytest.raises(ValueError, match=message):
        detect(StubModel(ROWS, channels=channels), images)


def test_files_of_more_channels_than_colours(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((20, 30, 5), np.uint8))
    model = StubModel(ROWS, channels=5)
    (from_file,) = detect(model, tmp_path / "a.npy")
    (from_array,) = detect(model, np.zeros((20, 30, 5), np.uint8))
    np.testing.assert_array_equal(from_file, from_array)
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((20, 30, 3), np.uint8))
    with pytest.raises(ImageReadError, match="a.png: the image has 3 channels, but channels=5"):
        detect(model, tmp_path / "a.png")


def test_a_model_that_drops_what_is_asked_for_is_refused():
    model = StubModel(ROWS, confidence_thresh=0.6)
    with pytest.raises(ValueError, match=r"confidence_thresh=0\.6 .*above 0\.5 were asked for"):
        detect(model, image())
    assert len(detect(model, image(), confidence_thresh=0.6)[0]) == 2


def test_a_model_with_its_own_nms_warns_of_another_iou_threshold():
    with pytest.warns(UserWarning, match=r"iou_threshold=0\.45; iou_threshold=0\.3 has no effect"):
        detect(StubModel(ROWS), image(), iou_threshold=0.3)


def test_boxes_beyond_all_measure_stay_finite():
    huge = [[1, 0.9, -1e38, -1e38, 1e38, 1e38]]
    (clipped,) = detect(StubModel(huge), image(height=600, width=900))
    np.testing.assert_allclose(clipped[0, 2:], [0, 0, 900, 600])
    (found,) = detect(StubModel(huge), image(height=600, width=900), clip_boxes=False)
    assert np.isfinite(found).all()


def raw_prediction(scores, box, anchor):
    """One row of a raw prediction for an anchor (cx, cy, w, h) and the offsets to a box."""
    variances = [0.1, 0.1, 0.2, 0.2]
    center = [(box[i] - anchor[i]) / anchor[i + 2] / variances[i] for i in (0, 1)]
    size = [np.log(box[i] / anchor[i]) / variances[i] for i in (2, 3)]
    return [*scores, *center, *size, *anchor, *variances]


def test_raw_predictions_of_a_training_model_are_decoded():
    box, anchor = [0.5, 0.25, 0.2, 0.4], [0.45, 0.3, 0.3, 0.3]
    rows = [
        raw_prediction([0.1, 0.2, 0.7], box, anchor),
        raw_prediction([0.1, 0.1, 0.8], [0.5, 0.26, 0.2, 0.4], anchor),  # suppresses the first
        raw_prediction([0.2, 0.6, 0.2], [0.5, 0.25, 0.2, 0.4], anchor),  # another class
        raw_prediction([0.6, 0.2, 0.2], [0.1, 0.1, 0.1, 0.1], anchor),
    ]
    (found,) = detect(StubModel(rows, mode="training"), image(height=100, width=200))
    expected = [[2, 0.8, 80, 6, 120, 46], [1, 0.6, 80, 5, 120, 45]]
    np.testing.assert_allclose(found, expected, rtol=1e-4)

    loose = detect(StubModel(rows, mode="training"), image(), iou_threshold=0.99, top_k=2)
    assert loose[0][:, 1].tolist() == pytest.approx([0.8, 0.7])


def test_a_real_model_agrees_with_itself_in_all_modes():
    """The same weights find the same boxes, decoded inside or outside of the model."""
    import keras

    from models.keras_ssd7 import build_model

    keras.utils.set_random_seed(3)
    settings = {
        "image_size": (64, 96, 3),
        "n_classes": 2,
        "scales": [0.1, 0.3, 0.5, 0.7, 0.9],
        "variances": [0.1, 0.1, 0.2, 0.2],
        "normalize_coords": True,
        "subtract_mean": 127.5,
        "divide_by_stddev": 127.5,
    }
    training = build_model(mode="training", **settings)
    inference = build_model(
        mode="inference", confidence_thresh=0.1, nms_max_output_size=4000, **settings
    )
    inference.set_weights(training.get_weights())

    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (h, w, 3), np.uint8) for h, w in [(64, 96), (100, 50), (32, 48)]]
    options = {"confidence_thresh": 0.6, "top_k": 50, "batch_size": 2}
    outside, inside = (detect(model, images, **options) for model in (training, inference))
    assert sum(map(len, outside)) > 0
    for first, second in zip(outside, inside, strict=True):
        assert first.shape == second.shape
        np.testing.assert_allclose(first, second, rtol=1e-3, atol=1e-2)
