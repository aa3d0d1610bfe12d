import json

import numpy as np
import pytest

from eval_utils.prediction_files import read_coco_predictions, read_predictions, write_predictions


def test_written_files_match_the_recorded_ones(golden, tmp_path):
    info = golden("parsers").info
    recorded = info["predict_on_dataset"][0]["results"]
    classes = [f"class_{class_id}" for class_id in range(21)]
    results = [
        [(str(n), *prediction[1:]) for n, prediction in enumerate(recorded.get(str(c), []))]
        for c in range(21)
    ]
    write_predictions(results, tmp_path / "comp_", classes)

    written = [(tmp_path / f"comp_{name}.txt").read_text() for name in classes[1:]]
    expected = info["write_predictions_to_txt"]["files"].values()
    assert sorted(text for text in written if text) == sorted(expected)
    assert len(written) == 20, "classes without predictions have an empty file"


@pytest.mark.parametrize(
    ("prediction", "line"),
    [
        ((42, 0.5, 1, 2, 3, 4), "000042 0.5 1.0 2.0 3.0 4.0"),
        (("000012", 0.123456, 1.26, 2.04, 3, 4), "000012 0.1235 1.3 2.0 3.0 4.0"),
        # int() would read this id, which VOC is full of, as the number 2008000345.
        (("2008_000345", 1.0, -0.04, 0, 1, 1), "2008_000345 1.0 0.0 0.0 1.0 1.0"),
        ((b"frame.7", 1.0, 0, 0, 1, 1), "frame.7 1.0 0.0 0.0 1.0 1.0"),
        (("1234567", np.float32(0.25), 0, 0, 1, 1), "1234567 0.25 0.0 0.0 1.0 1.0"),
    ],
)
def test_a_line_of_a_prediction_file(tmp_path, prediction, line):
    (path,) = write_predictions([[], [prediction]], f"{tmp_path}/det_")
    assert path == f"{tmp_path}/det_0001.txt"
    assert (tmp_path / "det_0001.txt").read_text() == line + "\n"


def test_a_wrong_number_of_class_names_is_refused(tmp_path):
    with pytest.raises(ValueError, match="2 names; got 1"):
        write_predictions([[], []], tmp_path / "det_", ["only one"])
    assert list(tmp_path.iterdir()) == []


def test_what_was_written_is_read(tmp_path):
    classes = ["background", "cat", "dog", "yak"]
    predictions = [
        [],
        [(42, 0.5, 1.0, 2.0, 3.5, 4.0), ("2008_000345", 0.25, 0.0, 0.0, 9.0, 9.0)],
        [],
        [("frame 7", 0.125, 5.0, 5.0, 6.0, 6.0), ("000012", 1.0, 0.0, 0.0, 1.0, 1.0)],
    ]
    write_predictions(predictions, tmp_path / "det_", classes)
    ids = [42, "2008_000345", "frame 7", "000012"]
    assert read_predictions(tmp_path / "det_", 3, ids, classes) == predictions


def test_files_by_class_id_and_from_other_tools(tmp_path):
    (tmp_path / "det_0001.txt").write_text("7 .5 1 2 3 4\n\n  000007\t1e-3 -1 -2 3 4")
    assert read_predictions(tmp_path / "det_", 1, [7]) == [
        [],
        [(7, 0.5, 1.0, 2.0, 3.0, 4.0), (7, 0.001, -1.0, -2.0, 3.0, 4.0)],
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a 0.5 1 2 3", "line 2: expected <image id> <confidence>.* got 'a 0.5 1 2 3'"),
        ("a 0.5 1 2 3 x", "line 2: expected <image id>"),
        ("a nan 1 2 3 4", "line 2: expected finite numbers"),
        ("b 0.5 1 2 3 4", "line 2: the data set holds no image 'b'"),
    ],
)
def test_a_line_that_makes_no_sense_is_named(tmp_path, line, message):
    (tmp_path / "det_0001.txt").write_text(f"a 0.5 1 2 3 4\n{line}\n")
    with pytest.raises(ValueError, match=r"det_0001\.txt, " + message):
        read_predictions(tmp_path / "det_", 1, ["a"])


def test_a_missing_file_is_named(tmp_path):
    write_predictions([[], []], tmp_path / "det_")
    with pytest.raises(FileNotFoundError, match=r"det_0002\.txt.*if only an empty one"):
        read_predictions(tmp_path / "det_", 2, [])


ENTRY = {"image_id": "a", "category_id": 18, "bbox": [1, 2, 3, 4], "score": 0.5}


def test_coco_results_are_read_by_class(tmp_path):
    expected = [[], [], [("a", 0.5, 1.0, 2.0, 4.0, 6.0)]]
    assert read_coco_predictions([ENTRY], 2, {17: 1, 18: 2}) == expected
    (tmp_path / "results.json").write_text(json.dumps([ENTRY]))
    assert read_coco_predictions(tmp_path / "results.json", 2, {17: 1, 18: 2}) == expected
    assert read_coco_predictions([{**ENTRY, "category_id": 2}], 2) == expected
    assert read_coco_predictions([], 1) == [[], []]


def test_a_category_that_is_no_class_is_named():
    with pytest.raises(
        ValueError, match=r"detections\[1\]: category_id 18 is no class.*known: 1, 2"
    ):
        read_coco_predictions([{**ENTRY, "category_id": 1}, ENTRY], 2)
