import json
import math

import pytest

from eval_utils.coco_files import read_entry, read_json_list, read_json_object, write_json_list

ENTRY = {"image_id": 7, "category_id": 18, "bbox": [1, 2, 3, 4.5], "score": 1}


def test_a_detection_and_an_annotation():
    assert read_entry(ENTRY, "here", scored=True) == (7, 18, [1.0, 2.0, 3.0, 4.5], 1.0)
    annotation = {key: value for key, value in ENTRY.items() if key != "score"}
    assert read_entry(annotation, "here", scored=False)[:3] == (7, 18, [1.0, 2.0, 3.0, 4.5])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bbox": [1, 2, 3]}, r"here: expected .*'bbox' \(x, y, width, height\) and 'score'"),
        ({"bbox": None}, "here: expected"),
        ({"score": "high"}, "here: expected"),
        ({"score": math.inf}, "here: expected finite numbers"),
        ({"bbox": [1, 2, 3, math.nan]}, "here: expected finite numbers"),
        ({"bbox": [math.inf, 2, -math.inf, 4]}, "here: expected finite numbers"),
    ],
)
def test_an_entry_that_makes_no_sense_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        read_entry({**ENTRY, **change}, "here", scored=True)


@pytest.mark.parametrize("key", list(ENTRY))
def test_an_incomplete_detection_is_named(key):
    entry = {k: value for k, value in ENTRY.items() if k != key}
    with pytest.raises(ValueError, match=f"here: expected .*'{key}'"):
        read_entry(entry, "here", scored=True)


@pytest.mark.parametrize("entries", [[], [{"a": 1}], [{"a": 1.5}, {"b": "é"}]])
def test_lists_are_written_as_json(tmp_path, entries):
    write_json_list(tmp_path / "list.json", iter(entries))
    assert json.loads((tmp_path / "list.json").read_text()) == entries
    assert read_json_list(tmp_path / "list.json", "things") == (
        entries,
        str(tmp_path / "list.json"),
    )
    with pytest.raises(ValueError, match=r"list\.json: expected a dictionary.*got a list"):
        read_json_object(tmp_path / "list.json", "things")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_json_cannot_express_leaves_no_file(tmp_path, value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json_list(tmp_path / "list.json", [{"a": 1}, {"a": value}])
    assert list(tmp_path.iterdir()) == []


def test_an_older_list_stays_until_the_new_one_is_complete(tmp_path):
    path = tmp_path / "new" / "list.json"

    def entries():
        yield {"b": 2}
        raise KeyboardInterrupt

    write_json_list(path, [{"a": 1}])  # makes the folder
    with pytest.raises(KeyboardInterrupt):
        write_json_list(path, entries())
    assert json.loads(path.read_text()) == [{"a": 1}]
    assert list(path.parent.iterdir()) == [path]
