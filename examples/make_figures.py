"""The figures of the README, drawn from the data and the detector that `make demo` leaves.

    make demo
    python examples/make_figures.py     # demo/ -> docs/images/

Needs the extra `examples`.
"""

from __future__ import annotations

import argparse
import io
import os
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

import models  # noqa: F401 (makes the layers known to Keras)
from bounding_box_utils.bounding_box_utils import iou
from data_generator.data_augmentation_chain_original_ssd import SSDDataAugmentation
from data_generator.object_detection_2d_data_generator import DataGenerator
from data_generator.object_detection_2d_geometric_ops import Resize
from misc_utils.detection import detect
from misc_utils.drawing import class_color
from misc_utils.files import write_bytes
from misc_utils.plotting import add_boxes, show_image
from ssd_encoder_decoder.box_coder import encode_boxes, to_corners
from ssd_encoder_decoder.ssd_input_encoder import SSDInputEncoder

ANCHOR, TRUTH = "#ff9d1e", "#38d939"  # colours of an anchor and of ground truth
DPI = 110
N_COLORS = 256  # of the palette of a PNG, which makes it several times smaller


def load_test_scenes(folder: Path) -> DataGenerator:
    """Read the test images of a folder of digit scenes."""
    names = (folder / "classes.txt").read_text(encoding="utf-8").split()
    dataset = DataGenerator(verbose=False)
    dataset.parse_xml(
        images_dirs=[folder / "JPEGImages"],
        image_set_filenames=[folder / "ImageSets" / "Main" / "test.txt"],
        annotations_dirs=[folder / "Annotations"],
        classes=["background", *names],
        verbose=False,
    )
    return dataset


def colors_of(class_ids: np.ndarray) -> list[tuple[float, ...]]:
    """Return the colours of classes as matplotlib wants them."""
    return [tuple(part / 255 for part in class_color(int(class_id))) for class_id in class_ids]


def overview(
    model: keras.Model, dataset: DataGenerator, scene: int = 92, maps: tuple[int, int] = (0, 1)
) -> Figure:
    """Draw the way from an image over the anchors on two feature maps to the detections.

    Arguments:
        model: An SSD in mode 'training'.
        dataset: The scenes.
        scene: Which of them to show.
        maps: Which of the feature maps to show, counted from the finest, 0.

    Returns:
        A figure of four panels.
    """
    size = model.input_shape[1:3]
    image, labels = Resize(*size)(dataset.get_image(scene), np.array(dataset.labels[scene]))
    encoder = SSDInputEncoder.from_model(model, neg_iou_limit=0.5)
    figure = Figure(figsize=(14.4, 3.2), layout="constrained")
    axes = figure.subplots(1, 4)
    show_image(axes[0], image, f"the image: {size[0]} x {size[1]} pixels")
    for axis, number in zip(axes[1:3], maps, strict=True):
        draw_feature_map(axis, encoder, number, image, labels)
    (rows,) = detect(model, image)
    show_image(axes[3], image, "the detections")
    for row, color in zip(rows, colors_of(rows[:, 0]), strict=True):
        add_boxes(axes[3], [row[2:]], color, [f"{dataset.class_names[int(row[0])]} {row[1]:.2f}"])
    return figure


def draw_feature_map(
    axis: Axes, encoder: SSDInputEncoder, number: int, image: np.ndarray, labels: np.ndarray
) -> None:
    """Draw the cells of a feature map, and those of its anchors that match an object."""
    height, width = image.shape[:2]
    pixels = [width, height] * 2 if encoder.normalize_coords else 1
    boxes = to_corners(encoder.boxes_list[number] * pixels, encoder.coords)
    rows, columns, n_shapes, _ = boxes.shape
    title = f"{rows} x {columns} cells, {n_shapes} anchors in each"
    show_image(axis, image, title, brightness=0.55)
    axis.vlines(np.linspace(0, width, columns + 1), 0, height, color="white", linewidth=0.3)
    axis.hlines(np.linspace(0, height, rows + 1), 0, width, color="white", linewidth=0.3)

    first = sum(grid[..., 0].size for grid in encoder.boxes_list[:number])
    target = encoder([labels])[0, first : first + rows * columns * n_shapes]
    class_ids = target[:, : encoder.n_classes].argmax(axis=1)
    matched = np.flatnonzero(class_ids)
    for box, color in zip(
        boxes.reshape(-1, 4)[matched], colors_of(class_ids[matched]), strict=True
    ):
        add_boxes(axis, [box], color, linewidth=1.6)


def anchor_offsets(model: keras.Model, dataset: DataGenerator, scene: int = 40) -> Figure:
    """Draw an anchor, its ground truth, and the four offsets from one to the other.

    Arguments:
        model: An SSD in mode 'training'.
        dataset: The scenes.
        scene: Which of them to show; its largest object is the one to look at.

    Returns:
        A figure of a picture and the arithmetic beside it.
    """
    image, labels = dataset.get_image(scene), np.array(dataset.labels[scene], dtype=float)
    x_min, y_min, x_max, y_max = max(labels[:, 1:], key=lambda box: np.prod(box[2:] - box[:2]))
    box = np.array([(x_min + x_max) / 2, (y_min + y_max) / 2, x_max - x_min, y_max - y_min])
    encoder = SSDInputEncoder.from_model(model)
    anchor = farthest_matched_anchor(encoder, box, image.shape[:2])

    figure = Figure(figsize=(11, 4.6), layout="constrained")
    axis, text = figure.subplots(1, 2, width_ratios=(1, 1.2))
    show_image(axis, image, brightness=0.7)
    for (cx, cy, width, height), color, style in ((anchor, ANCHOR, "--"), (box, TRUTH, "-")):
        add_boxes(
            axis, to_corners(np.array([[cx, cy, width, height]]), "centroids"), color, (), style
        )
        axis.plot(cx, cy, "o", color=color, markersize=5)
    axis.annotate("", box[:2], anchor[:2], arrowprops={"arrowstyle": "->", "color": "white"})
    draw_sides(axis, anchor, box)
    low = np.minimum(anchor[:2] - anchor[2:] / 2, box[:2] - box[2:] / 2) - 14
    high = np.maximum(anchor[:2] + anchor[2:] / 2, box[:2] + box[2:] / 2) + 14
    axis.set_xlim(low[0], high[0])
    axis.set_ylim(high[1], low[1])
    write_arithmetic(text, anchor, box, encoder.variances)
    return figure


def farthest_matched_anchor(
    encoder: SSDInputEncoder, box: np.ndarray, image_size: tuple[int, int]
) -> np.ndarray:
    """Return the anchor that lies farthest across and down from a box, of those that match it.

    Boxes are (cx, cy, width, height) in pixels of an image of `image_size` (height, width).
    """
    anchors = np.concatenate([boxes.reshape(-1, 4) for boxes in encoder.boxes_list])
    anchors = anchors * ([image_size[1], image_size[0]] * 2)  # they are fractions of the image
    similarities = iou(anchors, box, coords="centroids", mode="element-wise")
    matched = np.flatnonzero(similarities >= encoder.pos_iou_threshold)
    ways = np.abs(anchors[matched, :2] - box[:2]).min(axis=1)
    return anchors[matched[ways.argmax()]]


def draw_sides(axis: Axes, anchor: np.ndarray, box: np.ndarray) -> None:
    """Draw the widths and heights of anchor and box as arrows beside them."""
    left = min(anchor[0] - anchor[2] / 2, box[0] - box[2] / 2)
    bottom = max(anchor[1] + anchor[3] / 2, box[1] + box[3] / 2)
    arrow = {"arrowstyle": "<->", "shrinkA": 0, "shrinkB": 0, "linewidth": 1.5}
    for (cx, cy, width, height), color, name, gap in (
        (anchor, ANCHOR, "_a", 9),
        (box, TRUTH, "", 4),
    ):
        for start, end in (
            ((cx - width / 2, bottom + gap), (cx + width / 2, bottom + gap)),
            ((left - gap, cy - height / 2), (left - gap, cy + height / 2)),
        ):
            axis.annotate("", end, start, arrowprops={**arrow, "color": color})
        label = {"color": color, "fontsize": 13}
        axis.text(cx + width / 2 + 1, bottom + gap, f"$w{name}$", va="center", **label)
        axis.text(left - gap, cy + height / 2 + 1, f"$h{name}$", ha="center", va="top", **label)


def write_arithmetic(
    axis: Axes, anchor: np.ndarray, box: np.ndarray, variances: np.ndarray
) -> None:
    """Write down how the four offsets come about, in symbols and in numbers."""
    axis.axis("off")
    (ax, ay, aw, ah), (x, y, w, h) = anchor, box
    vx, vy, vw, vh = variances
    dx, dy, dw, dh = encode_boxes(box, anchor, variances, "centroids")
    note = {"fontsize": 12, "va": "center"}
    axis.text(0, 0.93, "dashed: an anchor, in the pixels of the image", color=ANCHOR, **note)
    axis.text(0, 0.83, "solid: the ground truth that it is matched with", color=TRUTH, **note)
    formulas = (
        (r"\Delta x = \frac{(x - x_a) / w_a}{v_x}", f"({x:.1f} - {ax:.1f}) / {aw:.1f}", vx, dx),
        (r"\Delta y = \frac{(y - y_a) / h_a}{v_y}", f"({y:.1f} - {ay:.1f}) / {ah:.1f}", vy, dy),
        (r"\Delta w = \frac{\ln(w / w_a)}{v_w}", rf"\ln({w:.1f} / {aw:.1f})", vw, dw),
        (r"\Delta h = \frac{\ln(h / h_a)}{v_h}", rf"\ln({h:.1f} / {ah:.1f})", vh, dh),
    )
    for number, (symbols, numerator, variance, result) in enumerate(formulas):
        line = rf"${symbols} = \frac{{{numerator}}}{{{variance:g}}} = {result:.2f}$"
        axis.text(0, 0.63 - 0.18 * number, line, fontsize=18, va="center")


def augmentation(
    model: keras.Model, dataset: DataGenerator, scene: int = 101, n_versions: int = 7
) -> Figure:
    """Draw an image, and what `SSDDataAugmentation` makes of it.

    Arguments:
        model: Any model; only the size of its input matters.
        dataset: The scenes.
        scene: Which of them to show.
        n_versions: How many random versions to show beside the original.

    Returns:
        A figure of two rows of panels.
    """
    height, width = model.input_shape[1:3]
    chain = SSDDataAugmentation(height, width, rng=0)
    image, labels = dataset.get_image(scene), np.array(dataset.labels[scene])
    versions = [(image, labels), *(chain(image, labels) for _ in range(n_versions))]
    n_columns = (len(versions) + 1) // 2
    figure = Figure(figsize=(2.9 * n_columns, 4.6), layout="constrained")
    for axis, (version, boxes) in zip(figure.subplots(2, n_columns).flat, versions, strict=True):
        show_image(axis, version, "original" if version is image else "")
        for row, color in zip(boxes, colors_of(boxes[:, 0]), strict=True):
            add_boxes(axis, [row[1:]], color, linewidth=1.6)
    return figure


FIGURES: dict[str, Callable[[keras.Model, DataGenerator], Figure]] = {
    "overview": overview,
    "anchor_offsets": anchor_offsets,
    "augmentation": augmentation,
}


def write_png(figure: Figure, path: Path) -> None:
    """Write a figure as a small PNG, in one step."""
    drawn, reduced = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=DPI)
    picture = Image.open(drawn).convert("RGB").quantize(N_COLORS)
    picture.save(reduced, format="png", optimize=True)
    write_bytes(path, reduced.getvalue())


def main(arguments: list[str] | None = None) -> None:
    """Draw all figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--demo", type=Path, default=Path("demo"), help="what `make demo` made")
    parser.add_argument(
        "--output", type=Path, default=Path("docs/images"), help="folder for the figures"
    )
    options = parser.parse_args(arguments)
    model_file = options.demo / "ssd7" / "model.keras"
    if not model_file.exists():
        parser.error(f"{model_file} does not exist: run `make demo` first, or pass --demo")
    model = keras.saving.load_model(model_file)
    dataset = load_test_scenes(options.demo / "digit_scenes")
    for name, draw in FIGURES.items():
        write_png(draw(model, dataset), options.output / f"{name}.png")


if __name__ == "__main__":
    main()
