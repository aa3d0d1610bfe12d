import filecmp
import json
import sys
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest

from examples import digit_scenes
from examples.digit_scenes import (
    CLASSES,
    DIGIT_SHARES,
    MIN_CONTRAST,
    PHOTOGRAPH_PARTS,
    SPLITS,
    draw_scene,
    load_photographs,
    make_digit_scenes,
    split_digits,
)

COUNTS = {"n_train": 30, "n_val": 6, "n_test": 6}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Return a small data set, made once."""
    return make_digit_scenes(tmp_path_factory.mktemp("data") / "digits", **COUNTS)


def all_files(folder):
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


def test_the_directory_is_a_voc_data_set(scenes):
    ids = {path.stem: path.read_text().split() for path in (scenes / "ImageSets/Main").iterdir()}
    assert {name: len(of_set) for name, of_set in ids.items()} == {
        "train": 30,
        "val": 6,
        "trainval": 36,
        "test": 6,
    }
    assert ids["trainval"] == ids["train"] + ids["val"]
    assert not set(ids["trainval"]) & set(ids["test"])
    for image_id in ids["trainval"] + ids["test"]:
        image = cv2.imread(str(scenes / "JPEGImages" / f"{image_id}.jpg"))
        assert image.shape == (192, 256, 3)
        annotation = ElementTree.parse(scenes / "Annotations" / f"{image_id}.xml").getroot()
        assert annotation.findtext("filename") == f"{image_id}.jpg"
        size = [int(annotation.findtext(f"size/{tag}")) for tag in ("height", "width", "depth")]
        assert size == [192, 256, 3]
    assert (scenes / "classes.txt").read_text().split() == list(CLASSES[1:])
    assert "CC BY" in (scenes / "SOURCES.txt").read_text()


def test_boxes_lie_in_the_image_and_only_truncated_ones_may_be_cut(scenes):
    n_objects = 0
    for path in (scenes / "Annotations").iterdir():
        for node in ElementTree.parse(path).getroot().findall("object"):
            n_objects += 1
            assert node.findtext("name") in CLASSES[1:]
            assert node.findtext("difficult") == "0"
            box = [int(node.findtext(f"bndbox/{tag}")) for tag in ("xmin", "ymin", "xmax", "ymax")]
            xmin, ymin, xmax, ymax = box
            assert 0 <= xmin < xmax <= 256
            assert 0 <= ymin < ymax <= 192
            if node.findtext("truncated") == "1":
                assert xmin == 0 or ymin == 0 or xmax == 256 or ymax == 192
    assert n_objects > 50


def test_the_same_seed_gives_the_same_files_and_another_seed_others(scenes, tmp_path):
    again = make_digit_scenes(tmp_path / "again", **COUNTS)
    names = all_files(scenes)
    assert all_files(again) == names
    same, differing, missing = filecmp.cmpfiles(scenes, again, names, shallow=False)
    assert (same, differing, missing) == (names, [], [])

    other = make_digit_scenes(tmp_path / "other", **COUNTS, seed=1)
    images = [name for name in names if name.suffix == ".jpg"]
    assert not filecmp.cmpfiles(scenes, other, images, shallow=False)[0]


def test_a_smaller_data_set_is_the_beginning_of_a_larger_one(scenes, tmp_path):
    smaller = make_digit_scenes(tmp_path / "smaller", n_train=3, n_val=0, n_test=0)
    for name in ("JPEGImages/000003.jpg", "Annotations/000003.xml"):
        assert (smaller / name).read_bytes() == (scenes / name).read_bytes()


def test_no_scan_and_no_part_of_a_photograph_is_in_two_splits():
    scans = split_digits(seed=3)
    counts = np.array([len(scans[name]) for name in SPLITS])
    assert counts.sum() == 1797
    np.testing.assert_allclose(counts / 1797, DIGIT_SHARES, atol=0.005)
    for name in SPLITS:
        assert {class_id for class_id, _ in scans[name]} == set(range(1, 11))
    content = {name: {scan.tobytes() for _, scan in scans[name]} for name in SPLITS}
    assert not content["train"] & content["val"]
    assert not content["train"] & content["test"]
    assert not content["val"] & content["test"]

    covered = np.zeros((100, 100), dtype=int)
    for xmin, ymin, xmax, ymax in np.array(PHOTOGRAPH_PARTS) * 100:
        covered[int(ymin) : int(ymax), int(xmin) : int(xmax)] += 1
    assert covered.max() == 1


def test_photographs_are_rgb_images():
    photographs = load_photographs()
    assert len(photographs) == 14
    assert all(image.dtype == np.uint8 and image.shape[2] == 3 for image in photographs)
    coffee = photographs[4].mean(axis=(0, 1))
    assert coffee[0] > 1.5 * coffee[2]  # red before blue: the cup stands on a wooden table


def test_boxes_are_tight_around_ink_that_stands_out():
    """Digits on a plain background can be found again by their contrast."""
    grey = [np.full((300, 300, 3), 128, dtype=np.uint8)]
    scans = split_digits()["train"]
    n_classes_seen, n_empty = set(), 0
    for seed in range(40):
        image, objects = draw_scene(np.random.default_rng(seed), (160, 200), scans, grey)
        background = np.median(image.reshape(-1, 3), axis=0)
        differs = np.abs(image - background).max(axis=2) > MIN_CONTRAST * 0.4
        n_empty += not objects
        covered = np.zeros_like(differs)
        for entry in objects:
            n_classes_seen.add(entry["class_id"])
            xmin, ymin, xmax, ymax = entry["box"]
            inside = differs[ymin:ymax, xmin:xmax]
            for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]):
                assert edge.any(), (seed, entry)
            # Half-transparent edges of the ink reach at most a few pixels over the box.
            covered[max(ymin - 3, 0) : ymax + 3, max(xmin - 3, 0) : xmax + 3] = True
        assert not (differs & ~covered).any(), seed
    assert n_empty > 0
    assert n_classes_seen == set(range(1, 11))


def test_an_existing_result_is_kept(scenes, monkeypatch):
    monkeypatch.setattr(digit_scenes, "draw_scene", lambda *_: pytest.fail("must not draw again"))
    before = {name: (scenes / name).stat().st_mtime_ns for name in all_files(scenes)}
    assert make_digit_scenes(scenes, **COUNTS) == scenes
    assert {name: (scenes / name).stat().st_mtime_ns for name in all_files(scenes)} == before


def test_anything_else_in_the_way_is_refused_and_left_alone(scenes, tmp_path):
    with pytest.raises(FileExistsError, match="other settings"):
        make_digit_scenes(scenes, **COUNTS, seed=9)

    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(FileExistsError, match="holds no digit scenes"):
        make_digit_scenes(tmp_path, **COUNTS)
    with pytest.raises(FileExistsError, match="is a file"):
        make_digit_scenes(tmp_path / "thesis.tex", **COUNTS)
    assert (tmp_path / "thesis.tex").read_text() == "precious"
    assert len(list(tmp_path.iterdir())) == 1


def test_an_interruption_leaves_nothing_behind(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(digit_scenes, "draw_scene", interrupt)
    with pytest.raises(KeyboardInterrupt):
        make_digit_scenes(tmp_path / "digits", **COUNTS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_train": -1}, r"numbers of images >= 0.*\(-1, 200, 300\)"),
        ({"n_train": 0, "n_val": 0, "n_test": 0}, "one > 0"),
        ({"image_size": (64, 256)}, r">= 96 pixels, got \(64, 256\)"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        make_digit_scenes(tmp_path / "digits", **arguments)


def test_the_command_line_makes_the_same_data_set(tmp_path, monkeypatch, capsys):
    output = tmp_path / "digits"
    command = f"x --output {output} --train 2 --val 1 --test 1 --image-size 100 120 --seed 5"
    monkeypatch.setattr(sys, "argv", command.split())
    digit_scenes.main()
    assert capsys.readouterr().out == f"4 scenes in {output}\n"
    settings = json.loads((output / "settings.json").read_text())
    assert settings["image_size"] == [100, 120]
    assert settings["seed"] == 5
    assert settings["n_images"] == {"train": 2, "val": 1, "test": 1}
