"""Opening a data set by naming its files, in whichever format they are.

    train = open_dataset(["VOC2007/ImageSets/Main/trainval.txt"])
    val = open_dataset(["coco/annotations/instances_val2017.json"], ["coco/val2017"])

| format | a source is | its images |
| --- | --- | --- |
| Pascal VOC | an image set file: `FOLDER/ImageSets/Main/NAME.txt` | in `FOLDER/JPEGImages` |
| MS COCO | an annotations file, `.json` | in the folder given for it, or one beside the file |
| CSV | a file with a box a line, `.csv` | likewise |
| YOLO | a folder of images | there; labels in the folder `labels` that lies as `images` does |
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from data_generator.errors import AnnotationError
from data_generator.object_detection_2d_data_generator import DataGenerator
from data_generator.voc_parser import VOC_CLASSES, read_image_set, read_voc_annotation

BACKGROUND = "background"
_CLASSES_FILE = "classes.txt"
_WAYS_TO_NAME = (
    "Name an image set of Pascal VOC (FOLDER/ImageSets/Main/NAME.txt), an annotations file of COCO "
    "(.json), a .csv file, or a folder of images with labels of YOLO"
)


def open_dataset(
    sources: Sequence[str | Path],
    images_dirs: Sequence[str | Path] = (),
    class_names: Sequence[str] | None = None,
    use_difficult: bool = True,
    use_crowds: bool = True,
    in_memory: bool = False,
) -> DataGenerator:
    """Open a data set.

    Arguments:
        sources: Files or folders as in the table above, all of one format. One of CSV only.
        images_dirs: For COCO and CSV: the folder of the images of each source. Without it, it is
            looked for beside the annotations.
        class_names: All class names, 'background' first; None: those that the data name (see
            `find_class_names`).
        use_difficult: Whether objects that VOC marks as difficult are in the labels; an evaluation
            needs them there, to leave them out of account.
        use_crowds: Whether boxes that COCO marks as crowds are in the labels; likewise.
        in_memory: Whether to decode all images now and keep them.

    Returns:
        The data set; its `class_names` are set.

    Raises:
        AnnotationError: A file is missing, or cannot be read; the message names it.
        ValueError: The sources are of different formats, or the class names contradict the data.
    """
    sources = [Path(source) for source in sources]
    kind = dataset_format(sources)
    names = list(class_names) if class_names else find_class_names(sources)
    dataset = DataGenerator(load_images_into_memory=in_memory, verbose=False)
    if kind == "voc":
        folders = [_voc_folder(source) for source in sources]
        dataset.parse_xml(
            [folder / "JPEGImages" for folder in folders],
            sources,
            [folder / "Annotations" for folder in folders],
            classes=names,
            exclude_difficult=not use_difficult,
            verbose=False,
        )
    elif kind == "coco":
        folders = images_dirs or [_images_beside(path, _first_coco_image(path)) for path in sources]
        dataset.parse_json(
            folders,
            sources,
            ground_truth_available=True,
            exclude_crowd=not use_crowds,
            verbose=False,
        )
        _check_names(dataset.class_names, names, sources[0])
    elif kind == "csv":
        (source,) = sources
        folder = images_dirs[0] if images_dirs else _images_beside(source, _first_csv_image(source))
        dataset.parse_csv(folder, source, classes=names, verbose=False)
    else:
        labels = [_yolo_labels(source) for source in sources]
        dataset.parse_yolo(sources, labels, classes=names, verbose=False)
    return dataset


def dataset_format(sources: Sequence[str | Path]) -> str:
    """Tell the format of sources by what they are.

    Arguments:
        sources: As for `open_dataset`.

    Returns:
        ``'voc'``, ``'coco'``, ``'csv'`` or ``'yolo'``.

    Raises:
        AnnotationError: A source does not exist, or is none of these.
        ValueError: There is none, they are of different formats, or there are several CSV files.
    """
    kinds = {str(source): _format(Path(source)) for source in sources}
    if len(set(kinds.values())) != 1 or (len(kinds) > 1 and "csv" in kinds.values()):
        found = ", ".join(f"{source} ({kind})" for source, kind in kinds.items()) or "none"
        raise ValueError(f"Expected sources of one format, and of CSV a single one; got {found}.")
    return next(iter(kinds.values()))


def find_class_names(sources: Sequence[str | Path]) -> list[str]:
    """Find out the names of the classes of a data set.

    A `classes.txt` with one name a line counts, in the folder of the source or up to three above
    it. Else COCO's files name their categories, and VOC's objects have names (those of Pascal VOC
    come first, in its own order, then others in alphabetical order).

    Arguments:
        sources: As for `open_dataset`; name the training data, which have all classes.

    Returns:
        Class names, 'background' first.

    Raises:
        AnnotationError: The data have no names and there is no `classes.txt`.
    """
    sources = [Path(source) for source in sources]
    kind = dataset_format(sources)
    if kind == "coco":
        dataset = DataGenerator(verbose=False)
        dataset.parse_json([""], [sources[0]], ground_truth_available=True, verbose=False)
        return list(dataset.class_names)
    for folder in [sources[0], *sources[0].resolve().parents[:3]]:
        if (folder / _CLASSES_FILE).is_file():
            return read_class_names(folder / _CLASSES_FILE)
    if kind == "voc":
        return _names_of_voc_objects(sources)
    raise AnnotationError(
        f"{sources[0]}: the names of the classes are not known. Put a {_CLASSES_FILE} with one "
        "name a line beside it, in the order of the class ids (without the background), or pass "
        "the names"
    )


def read_class_names(path: str | Path) -> list[str]:
    """Read the class names of a text file, one a line, the background not among them.

    Returns:
        Class names, 'background' first.

    Raises:
        AnnotationError: The file cannot be read, is empty, or names a class twice.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise AnnotationError(f"{path}: cannot read the list of classes ({error})") from error
    names = [line.strip() for line in lines if line.strip()]
    if names[:1] == [BACKGROUND]:
        del names[0]
    if not names or len(set(names)) != len(names):
        raise AnnotationError(f"{path}: expected different class names, one a line; got {names}")
    return [BACKGROUND, *names]


def fingerprint(dataset: DataGenerator) -> str:
    """Return a short text that differs if the images, their order or their boxes differ.

    The content of image files and where they lie make no difference.

    Arguments:
        dataset: A data set with labels.
    """
    digest = hashlib.sha256()
    ids = dataset.image_ids or [Path(name).stem for name in dataset.filenames]
    for image_id, labels in zip(ids, dataset.labels, strict=True):
        boxes = [[float(value) for value in box] for box in labels]
        digest.update(f"{image_id} {boxes}\n".encode())
    return digest.hexdigest()[:16]


def _format(source: Path) -> str:
    if source.is_dir():
        image_sets = sorted(source.glob("ImageSets/Main/*.txt"))
        if image_sets:
            names = ", ".join(path.name for path in image_sets[:6])
            raise AnnotationError(
                f"{source}: a folder of Pascal VOC has several image sets; name one of them, such "
                f"as {image_sets[0]} (there are {names})"
            )
        return "yolo"
    if not source.is_file():
        raise AnnotationError(f"{source}: there is no such file or folder. {_WAYS_TO_NAME}")
    kinds = {".json": "coco", ".csv": "csv", ".txt": "voc"}
    if source.suffix.lower() not in kinds:
        raise AnnotationError(f"{source}: no format is known for this file. {_WAYS_TO_NAME}")
    return kinds[source.suffix.lower()]


def _voc_folder(image_set: Path) -> Path:
    folder = image_set.resolve().parent.parent.parent
    if not (folder / "Annotations").is_dir():
        raise AnnotationError(
            f"{image_set}: expected an image set of Pascal VOC, FOLDER/ImageSets/Main/NAME.txt "
            f"beside FOLDER/Annotations, but there is no {folder / 'Annotations'}"
        )
    return folder


def _names_of_voc_objects(sources: Sequence[Path]) -> list[str]:
    found = set()
    for source in sources:
        folder = _voc_folder(source)
        for _, image_id in read_image_set(source):
            path = folder / "Annotations" / f"{image_id}.xml"
            found.update(item.name for item in read_voc_annotation(path))
    if not found:
        raise AnnotationError(f"{sources[0]}: no object has a name, so there is nothing to learn")
    known = [name for name in VOC_CLASSES if name in found]
    return [BACKGROUND, *known, *sorted(found.difference(known))]


def _yolo_labels(images_dir: Path) -> Path:
    """Find the folder of labels: `images` becomes `labels`, or the text files lie beside images."""
    parts = list(images_dir.resolve().parts)
    if "images" in parts:
        last = len(parts) - 1 - parts[::-1].index("images")
        labels = Path(*parts[:last], "labels", *parts[last + 1 :])
        if labels.is_dir():
            return labels
    if any(path.name != _CLASSES_FILE for path in images_dir.rglob("*.txt")):
        return images_dir
    raise AnnotationError(
        f"{images_dir}: no labels of YOLO: expected a folder 'labels' in place of 'images' in its "
        "path, or a .txt file beside each image"
    )


def _images_beside(annotations: Path, name: str) -> Path:
    """Find the folder that holds an image, in the places where it usually is."""
    folder, above = annotations.parent, annotations.resolve().parent.parent
    split = annotations.stem.removeprefix("instances_")
    places = [folder, *(f / n for f in (folder, above) for n in ("images", "JPEGImages", split))]
    for place in [*places, above, above / "images" / split]:
        if (place / name).is_file():
            return place
    raise AnnotationError(
        f"{annotations}: its first image, {name}, is not in the usual places beside it. Say which "
        "folder holds the images"
    )


def _first_coco_image(path: Path) -> str:
    try:
        images = json.loads(path.read_text(encoding="utf-8"))["images"]
        return images[0]["file_name"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise AnnotationError(
            f"{path}: expected a JSON file of COCO with 'images' that have a 'file_name' "
            f"({type(error).__name__}: {error})"
        ) from error


def _first_csv_image(path: Path) -> str:
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    if len(lines) < 2:
        raise AnnotationError(f"{path}: expected a line with the names of columns, and boxes")
    columns = [cell.strip().lower() for cell in lines[0].split(",")]
    known = ("image_name", "filename", "file_name", "image", "image_path", "path", "frame")
    position = next((columns.index(name) for name in known if name in columns), 0)
    return lines[1].split(",")[position].strip()


def _check_names(found: Sequence[str], expected: Sequence[str], source: Path) -> None:
    if list(found) != list(expected):
        raise ValueError(
            f"{source} has the classes {', '.join(found[1:])}; expected {', '.join(expected[1:])}."
        )
