"""What the published trained weights are, and how a model has to be built for each of them.

Weights only work with the anchors, the preprocessing and the classes that they were trained with,
and nothing in an `.h5` file says what these were. The usual trap: everything that has ever seen MS
COCO, the models fine-tuned on Pascal VOC after it included, has the smaller anchors of COCO.

    print(describe_weights())                       # all of them
    print(describe_weights("ssd300_voc0712"))       # one, with the builder's arguments
    load_published_weights(model, "VGG_VOC0712_SSD_300x300_iter_120000.h5")

Nothing is downloaded: files are local paths. The pages named are where files were published.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

from data_generator.voc_parser import VOC_CLASSES
from misc_utils.caffe_weights import load_caffe_weights
from misc_utils.default_boxes import box_orders, default_box_differences, default_boxes
from misc_utils.legacy_h5 import LoadReport, load_legacy_weights
from misc_utils.pretrained import Vgg16Report, load_vgg16_weights
from misc_utils.torchvision_weights import load_torchvision_weights, torchvision_ssd300_settings
from models import keras_ssd300, keras_ssd512
from models.keras_ssd300 import ssd_300
from models.keras_ssd512 import ssd_512
from ssd_encoder_decoder.model_settings import read_model_settings

COCO_CLASSES = (
    "background",
    *("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat"),
    *("traffic light", "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat"),
    *("dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "backpack"),
    *("umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball"),
    *("kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket"),
    *("bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple"),
    *("sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair"),
    *("couch", "potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse"),
    *("remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink"),
    *("refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier"),
    "toothbrush",
)
"""The 80 classes of MS COCO in the order of their category ids, after the background."""

_CAFFE_PAGE = "https://github.com/weiliu89/caffe/tree/ssd"
_KERAS_PAGE = "https://github.com/pierluigiferrari/ssd_keras"
_TORCHVISION_FILE = "https://download.pytorch.org/models/ssd300_vgg16_coco-b556d3b4.pth"
_PAPER = "arXiv:1512.02325v5"

_BUILDERS = {300: ssd_300, 512: ssd_512}
_SCALES = {
    (300, "VOC"): keras_ssd300.SCALES_VOC,
    (300, "COCO"): keras_ssd300.SCALES_COCO,
    (512, "VOC"): keras_ssd512.SCALES_VOC,
    (512, "COCO"): keras_ssd512.SCALES_COCO,
}
_BGR = "BGR of RGB images, minus (123, 117, 104): the builders' defaults"


@dataclass(frozen=True)
class PublishedWeights:
    """One set of published weights.

    Attributes:
        name: The name it has here.
        network: ``'SSD300'``, ``'SSD512'`` or ``'VGG-16'``.
        files: Names of the files that hold it.
        trained_on: The training data.
        class_names: Names by class id, background first; empty for a base network.
        anchors: Whose anchor scales it has, ``'VOC'`` or ``'COCO'``; empty for a base network.
        settings: The arguments of `ssd_300` or `ssd_512` that differ from their defaults.
        preprocessing: What the network does to images first.
        result: The published quality with its source, or empty if none is known for sure.
        page: Where it was published.
        sha256: The beginning of the file's SHA-256; empty if not known.
    """

    name: str
    network: str
    files: tuple[str, ...]
    trained_on: str
    class_names: tuple[str, ...]
    anchors: str
    settings: dict[str, Any]
    preprocessing: str
    result: str
    page: str
    sha256: str = ""

    @property
    def n_classes(self) -> int:
        """The number of object classes, without the background."""
        return self.settings.get("n_classes", 0)

    def __str__(self) -> str:
        lines = [
            f"{self.name}: {self.network}, trained on {self.trained_on}",
            f"  files: {', '.join(self.files)}",
            f"  published at: {self.page}",
            f"  published quality: {self.result or 'none known for sure'}",
            f"  preprocessing: {self.preprocessing}",
            f"  SHA-256: {self.sha256 + '...' if self.sha256 else 'not known, so not checked'}",
        ]
        if self.anchors:
            builder = "ssd_300" if self.network == "SSD300" else "ssd_512"
            arguments = ", ".join(f"{key}={value!r}" for key, value in self.settings.items())
            lines += [
                f"  anchors: those of {self.anchors}",
                f"  build with: {builder}({arguments})",
            ]
        else:
            lines.append("  load with: misc_utils.pretrained.load_vgg16_weights(model, path)")
        return "\n".join(lines)


def _ssd(name: str, size: int, stem: str, trained_on: str, family: str, anchors: str, result: str):
    class_names = COCO_CLASSES if family == "COCO" else VOC_CLASSES
    return PublishedWeights(
        name=f"ssd{size}_{name}",
        network=f"SSD{size}",
        files=(f"{stem}.h5", f"{stem}.caffemodel"),
        trained_on=trained_on,
        class_names=class_names,
        anchors=anchors,
        settings={
            "image_size": (size, size, 3),
            "n_classes": len(class_names) - 1,
            "scales": _SCALES[size, anchors],
        },
        preprocessing=_BGR,
        result=result,
        page=f"{_CAFFE_PAGE} (.caffemodel), {_KERAS_PAGE} (.h5)",
    )


def _all() -> tuple[PublishedWeights, ...]:
    voc07 = "% mAP on VOC2007 test"
    voc12 = "% mAP on VOC2012 test"
    entries = []
    for size, ported, plain, ft, ft_plus, coco, coco_steps in (
        (300, "77.5", "77.2", "81.2", "79.4", "25.1", 400000),
        (512, "79.8", "79.8", "83.2", "82.3", "28.8", 360000),
    ):
        side = f"{size}x{size}"
        entries += [
            _ssd("voc0712", size, f"VGG_VOC0712_SSD_{side}_iter_120000", "VOC 07+12 trainval",
                 "VOC", "VOC",
                 f"{plain}{voc07} ({_PAPER}); {ported}% for the .h5 file ({_KERAS_PAGE})"),
            _ssd("voc0712plus", size, f"VGG_VOC0712Plus_SSD_{side}_iter_240000",
                 "VOC 07 trainval and test, 12 trainval", "VOC", "VOC", ""),
            _ssd("voc0712_coco", size, f"VGG_VOC0712_SSD_{side}_ft_iter_120000",
                 "COCO, then VOC 07+12 trainval", "VOC", "COCO", f"{ft}{voc07} ({_PAPER})"),
            _ssd("voc0712plus_coco", size, f"VGG_VOC0712Plus_SSD_{side}_ft_iter_160000",
                 "COCO, then VOC 07 trainval and test, 12 trainval", "VOC", "COCO",
                 f"{ft_plus}{voc12} ({_PAPER})"),
            _ssd("coco", size, f"VGG_coco_SSD_{side}_iter_{coco_steps}", "COCO trainval35k",
                 "COCO", "COCO", f"{coco}% AP on COCO test-dev2015 ({_PAPER})"),
        ]  # fmt: skip
    torchvision = torchvision_ssd300_settings()
    entries += [
        PublishedWeights(
            name="torchvision_ssd300_coco",
            network="SSD300",
            files=("ssd300_vgg16_coco-b556d3b4.pth",),
            trained_on="COCO train2017",
            class_names=(),
            anchors="COCO",
            settings={
                key: torchvision[key]
                for key in ("image_size", "n_classes", "scales", "subtract_mean", "swap_channels")
            },
            preprocessing="RGB images, minus 255 (0.48235, 0.45882, 0.40784)",
            result="25.1% AP on COCO val2017 (torchvision's documentation)",
            page=_TORCHVISION_FILE,
            sha256="b556d3b4",  # torch.hub's convention: the file's name has its first digits
        ),
        PublishedWeights(
            name="vgg16_reduced",
            network="VGG-16",
            files=(
                "VGG_ILSVRC_16_layers_fc_reduced.h5",
                "VGG_ILSVRC_16_layers_fc_reduced.caffemodel",
            ),
            trained_on="ImageNet (ILSVRC)",
            class_names=(),
            anchors="",
            settings={},
            preprocessing=_BGR,
            result="",
            page=f"{_CAFFE_PAGE} (.caffemodel), {_KERAS_PAGE} (.h5)",
        ),
    ]
    return tuple(entries)


PUBLISHED_WEIGHTS = _all()
"""All published weights that are known here."""


def find_published_weights(name: str | os.PathLike) -> PublishedWeights:
    """Look up an entry.

    Arguments:
        name: Its name, or a path or name of one of its files.

    Returns:
        The entry.

    Raises:
        ValueError: if there is none; the message lists all.
    """
    for entry in PUBLISHED_WEIGHTS:
        if str(name) == entry.name or Path(name).name in entry.files:
            return entry
    raise ValueError(
        f"No published weights are known by the name '{name}'. Known are "
        f"{', '.join(entry.name for entry in PUBLISHED_WEIGHTS)}. If a file was renamed, say which "
        "of these it is; weights of your own load with "
        "`misc_utils.legacy_h5.load_legacy_weights`."
    )


def describe_weights(name: str | os.PathLike | None = None) -> str:
    """Say what published weights are and how to build a model for them.

    Arguments:
        name: As for `find_published_weights`; None for all.

    Returns:
        Text to print.

    Raises:
        ValueError: if there are no such weights.
    """
    entries = PUBLISHED_WEIGHTS if name is None else (find_published_weights(name),)
    return "\n\n".join(map(str, entries))


def load_published_weights(
    model: keras.Model,
    path: str | os.PathLike,
    name: str | None = None,
    skip_mismatch: bool = False,
) -> LoadReport | Vgg16Report:
    """Load a file of published weights; warn if the model was not built for them.

    Arguments:
        model: An `ssd_300` or `ssd_512`.
        path: The file: `.h5`, `.caffemodel` or `.pth`.
        name: Which weights these are, if the file has another name than it was published with.
        skip_mismatch: Whether layers whose weights have other shapes keep their own; otherwise they
            are an error.

    Returns:
        The report of what was loaded; print it.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if no such weights are known, if the file's SHA-256 is known and another one, or
            if the weights do not fit the model.
    """
    path = Path(path)
    entry = find_published_weights(path if name is None else name)
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no file of weights '{path}'. Nothing is downloaded; it was published at "
            f"{entry.page}."
        )
    if entry.sha256:
        _check_sha256(path, entry.sha256)
    if entry.network == "VGG-16":
        return load_vgg16_weights(model, path)
    if path.suffix == ".pth":
        return load_torchvision_weights(model, path, skip_mismatch)
    if not h5py.is_hdf5(path):
        return load_caffe_weights(model, path, skip_mismatch)
    _warn_of_other_anchors(model, entry)
    return load_legacy_weights(model, path, skip_mismatch=skip_mismatch)


def _check_sha256(path: Path, expected: str) -> None:
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if not found.startswith(expected):
        raise ValueError(
            f"'{path}' has the SHA-256 {found}; expected {expected}... . It is damaged or another "
            "file: fetch it again."
        )


def _default(size: int, argument: str) -> Any:
    """Return the default of a builder's argument, which all weights but torchvision's have."""
    return inspect.signature(_BUILDERS[size]).parameters[argument].default


def _warn_of_other_anchors(model: keras.Model, entry: PublishedWeights) -> None:
    """Warn if a model's anchors differ, in their order, too: an `.h5` file is loaded as it is."""
    size = entry.settings["image_size"][0]
    settings = read_model_settings(model)
    suffix = "_mbox_priorbox"
    sources = [layer.name.removesuffix(suffix) for layer in model.layers
               if layer.name.endswith(suffix)]  # fmt: skip
    ratios = _default(size, "aspect_ratios_per_layer")
    if len(sources) != len(ratios):
        differences = [f"{len(ratios)} predictor layers in the file, {len(sources)} in the model"]
    else:
        each = default_boxes(
            size,
            ratios,
            entry.settings["scales"],
            _default(size, "steps"),
            _default(size, "variances"),
        )
        boxes = dict(zip(sources, each, strict=True))
        differences = default_box_differences(settings, sources, boxes)
        differences += [
            f"{source}: the same boxes in another order"
            for source, order in box_orders(settings, sources, boxes).items()
            if not np.array_equal(order, np.arange(len(order)))
        ]
    if differences:
        warnings.warn(
            f"The model's anchors are not those that {entry.name} was trained with (those of "
            f"{entry.anchors}), so its boxes will be off. See `describe_weights({entry.name!r})`.\n"
            "  " + "\n  ".join(differences),
            stacklevel=3,
        )
