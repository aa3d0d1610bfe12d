import math
import subprocess
import sys

import cv2
import numpy as np
import pytest

from data_generator.detection_dataset import DetectionDataset
from misc_utils import plotting
from misc_utils.plotting import (
    add_boxes,
    plot_dataset,
    plot_history,
    plot_precision_recall,
    show_image,
)

NAN = math.nan
CSV = """epoch,learning_rate,loss,val_loss,val_mAP
0,0.001,9.0,8.0,NA
1,0.001,3.0,4.0,0.25
2,0.0001,1.0,2.0,
"""


def lines_of(axis):
    return {line.get_label(): line.get_xydata().tolist() for line in axis.get_lines()}


def test_a_history_file_of_keras_becomes_three_panels(tmp_path):
    (tmp_path / "history.csv").write_text(CSV)
    figure = plot_history(tmp_path / "history.csv", tmp_path / "plots" / "history.png")
    losses, precision, rate = figure.axes
    assert lines_of(losses) == {
        "loss": [[1, 9], [2, 3], [3, 1]],
        "val_loss": [[1, 8], [2, 4], [3, 2]],
    }
    assert lines_of(precision) == {"val_mAP": [[2, 0.25]]}
    assert lines_of(rate) == {"learning_rate": [[1, 0.001], [2, 0.001], [3, 0.0001]]}
    assert [axis.get_yscale() for axis in figure.axes] == ["log", "linear", "log"]
    assert precision.get_ylim() == (0, 1)
    assert cv2.imread(str(tmp_path / "plots" / "history.png")).std() > 0


def test_epochs_that_count_from_one_are_kept():
    (axis,) = plot_history({"epoch": [1, 2, 4], "loss": [3, 2, 1]}).axes
    assert lines_of(axis) == {"loss": [[1, 3], [2, 2], [4, 1]]}


def test_training_and_validation_share_a_colour():
    history = {"loss": [3, 2], "val_loss": [4, 3], "conf_loss": [2, 1], "val_conf_loss": [2, 2]}
    (axis,) = plot_history(history).axes
    look = {line.get_label(): (line.get_color(), line.get_linestyle()) for line in axis.get_lines()}
    assert look["loss"][0] == look["val_loss"][0] != look["conf_loss"][0]
    assert look["conf_loss"][0] == look["val_conf_loss"][0]
    assert {name: style for name, (_, style) in look.items()} == {
        "loss": "-",
        "val_loss": "--",
        "conf_loss": "-",
        "val_conf_loss": "--",
    }
    assert axis.get_yscale() == "linear"


def test_a_validation_column_may_be_shorter_and_values_not_finite():
    (axis,) = plot_history({"loss": [5.0, NAN, math.inf, 1.0], "val_loss": [2.0]}).axes
    assert lines_of(axis) == {"loss": [[1, 5], [4, 1]], "val_loss": [[1, 2]]}


@pytest.mark.parametrize("history", [{}, {"accuracy": [1]}, {"loss": []}, {"loss": [NAN]}])
def test_a_history_without_loss_is_refused(history):
    with pytest.raises(ValueError, match="column whose name ends with 'loss'"):
        plot_history(history)


def test_an_empty_history_file_is_refused(tmp_path):
    (tmp_path / "history.csv").write_text("")
    with pytest.raises(ValueError, match=r"got the columns \[\]"):
        plot_history(tmp_path / "history.csv")


def test_precision_recall_curves_are_listed_best_class_first(tmp_path):
    figure = plot_precision_recall(
        precisions=[[], [1, 0.5], [1, 1], [], []],
        recalls=[[], [0.5, 0.5], [0.5, 1], [], []],
        average_precisions=[0.0, 0.5, 1.0, NAN, 0.0],
        class_names=["background", "cat", "dog", "unicorn", "cow"],
        path=tmp_path / "curves.png",
    )
    (axis,) = figure.axes
    assert lines_of(axis) == {
        "1.000  dog": [[0.5, 1], [1, 1]],
        "0.500  cat": [[0.5, 1], [0.5, 0.5]],
        "0.000  cow": [],
        "n/a  unicorn": [],
    }
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(lines_of(axis))
    assert axis.get_title() == "mAP 0.500 over 3 classes"
    assert cv2.imread(str(tmp_path / "curves.png")).std() > 0


def test_none_is_no_average_precision():
    figure = plot_precision_recall([[], []], [[], []], [None, None], ["background", "cat"])
    assert figure.axes[0].get_title() == "mAP n/a"
    figure = plot_precision_recall([[], [1]], [[], [1]], [0, 1], ["background", "cat"])
    assert figure.axes[0].get_title() == "mAP 1.000 over 1 class"


def test_eighty_classes_have_eighty_looks_and_fit():
    names = ["background", *(f"class {i}" for i in range(80))]
    curves = [[0.5]] * 81
    figure = plot_precision_recall(curves, curves, [0.5] * 81, names)
    lines = figure.axes[0].get_lines()
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 80
    figure.draw_without_rendering()
    legend, page = figure.legends[0].get_window_extent(), figure.bbox
    assert legend.x0 > figure.axes[0].get_window_extent().x1  # beside the curves
    assert legend.y0 >= 0
    assert legend.x1 <= page.x1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[]], [[]], [0], ["background"]), r"got lengths \[1, 1, 1, 1\]"),
        (([[], []], [[], []], [0, 0], ["cat"]), r"got lengths \[2, 2, 2, 1\]"),
        (([[], [1, 1]], [[], [1]], [0, 0], ["background", "cat"]), "'cat'. has 1 recalls but 2"),
    ],
)
def test_sequences_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        plot_precision_recall(*arguments)


def test_a_missing_matplotlib_is_named_with_its_cure(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'ssd-keras\[examples\]'"):
        plot_history({"loss": [1]})


def test_no_window_system_and_no_early_import():
    """Importing the module needs no matplotlib; plotting leaves pyplot's state alone."""
    code = (
        "import sys; from misc_utils.plotting import plot_history;"
        "assert 'matplotlib' not in sys.modules;"
        "plot_history({'loss': [2, 1]}); assert 'matplotlib.pyplot' not in sys.modules"
    )
    root = plotting.__file__.rsplit("misc_utils", 1)[0]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)


class TestDataset:
    def statistics(self, labels, n_classes=3):
        dataset = DetectionDataset(
            filenames=[f"{i}.jpg" for i in range(len(labels))], labels=labels
        )
        dataset.images = [np.zeros((20, 30, 3), np.uint8)] * len(labels)
        dataset.class_names = ["background", *(f"class{i}" for i in range(1, n_classes + 1))]
        return dataset.describe()

    def test_panels(self, tmp_path):
        labels = [[[1, 0, 0, 15, 10], [3, 0, 0, 30, 20]], [[3, 3, 3, 9, 7]], []]
        figure = plot_dataset(self.statistics(labels), tmp_path / "new" / "a.png")
        bars, sizes, histogram = figure.axes
        assert [label.get_text() for label in bars.get_yticklabels()] == [
            "class3 3",
            "class1 1",
            "class2 2",
        ]
        assert [bar.get_width() for bar in bars.patches] == [2, 1, 0]
        points = sizes.collections[0].get_offsets()
        np.testing.assert_allclose(points, [[0.5, 0.5], [1, 1], [0.2, 0.2]])
        assert sum(bar.get_height() for bar in histogram.patches) == 3
        assert (tmp_path / "new" / "a.png").read_bytes()[:4] == b"\x89PNG"

    def test_many_classes(self):
        figure = plot_dataset(self.statistics([[[1, 0, 0, 15, 10]]], 100))
        assert len(figure.axes[0].patches) == 40
        assert figure.axes[0].get_title() == "boxes per class (60 more)"

    def test_no_boxes(self):
        with pytest.raises(ValueError, match="Expected statistics of a data set with boxes"):
            plot_dataset(self.statistics([[]]))


def new_axis():
    return plotting._figure_class()().subplots()


def test_an_image_fills_the_axes_and_gets_paler():
    axis = new_axis()
    image = np.full((10, 20, 3), 55, np.uint8)
    show_image(axis, image, "pale", brightness=0.5)
    (shown,) = axis.get_images()
    assert shown.get_extent() == [0, 20, 10, 0]
    assert (axis.get_xlim(), axis.get_ylim()) == ((0, 20), (10, 0))
    assert axis.get_title() == "pale"
    assert (np.asarray(shown.get_array()) == 155).all()
    assert (image == 55).all()


@pytest.mark.parametrize(
    ("image", "brightness"),
    [(np.zeros((4, 4)), 1), (np.zeros(4, np.uint8), 1), (np.zeros((4, 4), np.uint8), 2)],
)
def test_what_is_no_image_is_not_shown(image, brightness):
    with pytest.raises(ValueError, match="Expected a uint8 image"):
        show_image(new_axis(), image, brightness=brightness)


def test_boxes_are_added_with_their_labels():
    axis = new_axis()
    add_boxes(axis, np.array([[1, 2, 5, 4], [0, 0, 2, 3]]), "red", ["one", "two"], "--")
    assert [patch.get_bbox().extents.tolist() for patch in axis.patches] == [
        [1, 2, 5, 4],
        [0, 0, 2, 3],
    ]
    assert {patch.get_linestyle() for patch in axis.patches} == {"--"}
    assert [text.get_text() for text in axis.texts] == ["one", "two"]
    add_boxes(axis, np.empty((0, 4)))
    add_boxes(axis, [])
    assert len(axis.patches) == 2


@pytest.mark.parametrize(("boxes", "labels"), [(np.zeros((2, 5)), ()), (np.zeros((2, 4)), ["a"])])
def test_boxes_of_another_shape_or_with_other_labels_are_refused(boxes, labels):
    with pytest.raises(ValueError, match="Expected boxes"):
        add_boxes(new_axis(), boxes, labels=labels)


def test_labels_stay_in_the_picture():
    axis = new_axis()
    show_image(axis, np.zeros((100, 50, 3), np.uint8))
    add_boxes(axis, [[10, 40, 30, 60], [-5, 2, 30, 60]], labels=["above", "below the edge"])
    places = [(text.get_position(), text.get_va()) for text in axis.texts]
    assert places == [((10, 40), "bottom"), ((0, 2), "top")]
