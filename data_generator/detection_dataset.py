"""A data set of images with boxes: what it consists of, and where it can come from."""

from __future__ import annotations

import copy
import os
import pickle
from collections.abc import Sequence
from typing import Self

import h5py
import numpy as np

from data_generator.annotations import (
    LABEL_COLUMNS,
    ParsedDataset,
    check_image_files,
    label_array,
    progress,
    read_text,
)
from data_generator.category_maps import CategoryMaps
from data_generator.dataset_split import rarest_classes, split_indices
from data_generator.dataset_statistics import DatasetStatistics, describe_dataset
from data_generator.errors import DatasetError
from data_generator.hdf5_dataset import (
    open_hdf5_dataset,
    read_hdf5_content,
    read_hdf5_image,
    read_hdf5_image_size,
    write_hdf5_dataset,
)
from data_generator.image_reading import read_image
from data_generator.image_size import read_image_size
from data_generator.object_detection_2d_geometric_ops import Resize
from data_generator.plain_pickle import load_plain_pickle


class DetectionDataset:
    """A data set of images with boxes.

    It comes from the constructor (lists, or files that hold them), from an HDF5 file, or from one
    of the parsers of `DataGenerator`.

    Labels of an image are boxes `(k, 5)` in absolute pixels: class id (from 1; 0 is the
    background), xmin, ymin, xmax, ymax, or in another order (`labels_output_format`). Images are
    uint8 RGB `(height, width, 3)`.

    Arguments:
        load_images_into_memory: Decode all images once and keep them; they must fit.
        hdf5_dataset_path: An HDF5 file that `create_hdf5_dataset` wrote.
        filenames: The image files: a list of paths, or the path of a file that lists them.
        filenames_type: What that file is: 'text' (one name per line, in `images_dir`) or
            'pickle' (a list of paths).
        images_dir: The folder of the images, for `filenames_type='text'`.
        labels: A list with the boxes of each image, or the path of a pickle of it.
        image_ids: A list with the id of each image, or the path of a pickle of it.
        eval_neutral: A list with one boolean per box for each image (True: an evaluation ignores
            the box), or the path of a pickle of it.
        labels_output_format: The order of the columns of labels. Behind the five there may be
            names of your own, of numbers that every box has, such as an angle: they travel with
            their box, and a `label_encoder` of yours finds them.
        verbose: Show progress bars; changes nothing else.
        image_channels: 3 for RGB, 1 for grayscale, None for what each file holds, or the number
            of channels that all files have: see `read_image`.

    Attributes:
        filenames, labels, image_ids, eval_neutral: One entry per image, or None. They keep
            their order: shuffling permutes indices, not these lists.
        images: The decoded images if they are in memory, else None.
        dataset_size: The number of images, 0 before anything is loaded.
        dataset_indices: int32 `(dataset_size,)`: the position in `images` or in the HDF5 file of
            the image that belongs to each entry of the lists.
        hdf5_dataset: The open HDF5 file, or None.
        labels_output_format: The order of the label columns.
        labels_format: {column name: position} of the labels.
        class_names: Names by class id, 'background' first, or None if they are not known.
        classes: The same list as `class_names`, by the name that the parsers' argument has.
        cats_to_names, classes_to_names, cats_to_classes, classes_to_cats: The category maps of
            `parse_json`: between COCO's category ids (cats) and the class ids 1..n (classes).
        invalid_boxes: One line for each annotated box of no size that a parser met.
        skipped_images: {file: reason} of the images that `generate` could not read.

    Raises:
        ValueError: An argument has the wrong type or value.
        AnnotationError: A text file or a pickle given cannot be read, or the pickle holds more
            than plain values (see `load_plain_pickle`).
        DatasetError: The HDF5 file cannot be read.
    """

    def __init__(
        self,
        load_images_into_memory: bool = False,
        hdf5_dataset_path: str | os.PathLike | None = None,
        filenames: Sequence[str] | str | None = None,
        filenames_type: str = "text",
        images_dir: str | None = None,
        labels: Sequence | str | None = None,
        image_ids: Sequence | str | None = None,
        eval_neutral: Sequence | str | None = None,
        labels_output_format: Sequence[str] = LABEL_COLUMNS,
        verbose: bool = True,
        image_channels: int | None = 3,
    ):
        names = tuple(labels_output_format)
        if sorted(names[:5]) != sorted(LABEL_COLUMNS) or len(set(names)) != len(names):
            raise ValueError(
                f"labels_output_format must be a permutation of {LABEL_COLUMNS}, and behind these "
                f"names of your own, if you like; got {names}"
            )
        self.labels_output_format = labels_output_format
        self.labels_format = {name: column for column, name in enumerate(names)}
        self.load_images_into_memory = load_images_into_memory
        self.image_channels = image_channels

        self.images: list[np.ndarray] | None = None
        self.dataset_size = 0
        self.dataset_indices = np.arange(0, dtype=np.int32)
        self.class_names = self.classes = None
        self.cats_to_names = self.classes_to_names = None
        self.cats_to_classes = self.classes_to_cats = None
        self.invalid_boxes: list[str] = []
        self.skipped_images: dict[str, str] = {}

        self.filenames = _load_filenames(filenames, filenames_type, images_dir)
        self.labels = _load_list("labels", labels)
        self.image_ids = _load_list("image_ids", image_ids)
        self.eval_neutral = _load_list("eval_neutral", eval_neutral)

        self.hdf5_dataset: h5py.File | None = None
        self.hdf5_dataset_path = hdf5_dataset_path
        if self.filenames is not None:
            self._set_size(len(self.filenames))
            if hdf5_dataset_path is None:
                self._load_images(verbose)
        if hdf5_dataset_path is not None:
            self.load_hdf5_dataset(verbose)

    def load_hdf5_dataset(self, verbose: bool = True) -> None:
        """Open `hdf5_dataset_path` and take the data set from it.

        The file stays open for reading; images are read from it when they are needed, unless
        they are loaded into memory. `filenames` is left as it is.

        Arguments:
            verbose: Show progress.

        Raises:
            DatasetError: The file is missing or not an HDF5 data set of this kind.
        """
        self.hdf5_dataset = open_hdf5_dataset(self.hdf5_dataset_path)
        content = read_hdf5_content(self.hdf5_dataset, self.labels_output_format)
        for name in ("labels", "image_ids", "eval_neutral", "class_names"):
            stored = getattr(content, name)
            if stored is not None:
                setattr(self, name, stored)
        if content.class_names is not None:
            self.classes = list(content.class_names)
        if content.category_ids is not None:
            self._set_category_maps(content.category_ids, content.class_names)
        self.images = None
        self._set_size(len(self.hdf5_dataset["images"]))
        self._load_images(verbose)

    def _adopt(self, parsed: ParsedDataset, check_images: bool, verbose: bool) -> None:
        """Make what a parser returned the data set; only then is the old one gone."""
        if check_images:
            check_image_files(parsed.filenames)
        self.hdf5_dataset = None  # a subset may share the file, so it closes with its last user
        self.images = None
        self.filenames = parsed.filenames
        self.image_ids = parsed.image_ids
        self.labels = parsed.labels
        self.class_names = parsed.class_names
        self.classes = None if parsed.class_names is None else list(parsed.class_names)
        self.cats_to_names = self.classes_to_names = None
        self.cats_to_classes = self.classes_to_cats = None
        self.invalid_boxes = parsed.invalid_boxes
        self.skipped_images = {}
        self._set_size(len(parsed.filenames))
        self._load_images(verbose)

    def _set_category_maps(
        self, category_ids: Sequence[int | str], class_names: Sequence[str]
    ) -> None:
        """Set the attributes that translate between COCO's category ids and class ids 1..n."""
        maps = CategoryMaps.of(dict(zip(category_ids, class_names[1:], strict=True)))
        self.cats_to_names = maps.cats_to_names
        self.classes_to_names = maps.classes_to_names
        self.cats_to_classes = maps.cats_to_classes
        self.classes_to_cats = maps.classes_to_cats

    def _set_size(self, size: int) -> None:
        self.dataset_size = size
        self.dataset_indices = np.arange(size, dtype=np.int32)

    def _load_images(self, verbose: bool) -> None:
        if not self.load_images_into_memory:
            return
        indices = progress(range(self.dataset_size), "Loading images into memory", verbose)
        self.images = [self.get_image(i) for i in indices]

    def get_image(self, index: int) -> np.ndarray:
        """Return the image of an entry: from memory, else from the HDF5 file, else from its file.

        Arguments:
            index: The position of the entry in `filenames`, `labels`, ...

        Returns:
            A new uint8 array `(height, width, channels)`.

        Raises:
            ImageReadError: The image file cannot be read.
        """
        if self.images is not None:
            return self.images[self.dataset_indices[index]].copy()
        if self.hdf5_dataset is not None:
            return read_hdf5_image(self.hdf5_dataset, self.dataset_indices[index])
        return read_image(self.filenames[index], self.image_channels)

    def __getstate__(self) -> dict:
        """In a pickle, the name of the open HDF5 file takes its place."""
        file = self.hdf5_dataset
        return {**self.__dict__, "hdf5_dataset": file and os.path.abspath(file.filename)}

    def __setstate__(self, state: dict) -> None:
        """Open the HDF5 file again."""
        self.__dict__.update(state)
        if self.hdf5_dataset is not None:
            self.hdf5_dataset = open_hdf5_dataset(self.hdf5_dataset)

    def __copy__(self) -> Self:
        """Share everything, the open HDF5 file included."""
        other = type(self).__new__(type(self))
        other.__dict__.update(self.__dict__)
        return other

    def get_image_size(self, index: int) -> tuple[int, int]:
        """Return the size of the image of an entry, without decoding it where that is possible.

        Arguments:
            index: The position of the entry in `filenames`, `labels`, ...

        Returns:
            (height, width) in pixels of the image that `get_image` returns.

        Raises:
            ImageReadError: The image file cannot be read.
            DatasetError: The HDF5 file is damaged.
        """
        if self.images is not None:
            height, width, _ = self.images[self.dataset_indices[index]].shape
            return height, width
        if self.hdf5_dataset is not None:
            return read_hdf5_image_size(self.hdf5_dataset, self.dataset_indices[index])
        return read_image_size(self.filenames[index])

    def split(
        self,
        fractions: Sequence[float] = (0.8, 0.2),
        seed: int | None = None,
        stratify: bool = False,
    ) -> list[Self]:
        """Divide the data set at random into parts, such as for training and validation.

        Arguments:
            fractions: The shares of the parts; if their sum is below 1, the rest is left out.
            seed: The same seed gives the same parts.
            stratify: Whether each part gets its share of every class, as far as whole images
                allow: images are divided by the rarest class that they show.

        Returns:
            One data set for each fraction, of the same kind, classes and formats, in the order of
            this one (see `subset`).

        Raises:
            ValueError: A fraction is not positive, they sum up to more than 1, or a part would be
                empty.
            DatasetError: No data set is loaded, or it has no labels to stratify by.

        Example:
            >>> from data_generator.detection_dataset import DetectionDataset
            >>> data = DetectionDataset(filenames=[f"{i}.jpg" for i in range(10)])
            >>> train, val = data.split((0.8, 0.2), seed=0)
            >>> len(train.filenames), val.filenames
            (8, ['0.jpg', '2.jpg'])
        """
        self.check()
        strata = None
        if stratify:
            if self.labels is None:
                raise DatasetError("stratify=True needs labels, but the data set has none")
            column, n_columns = self.labels_format["class_id"], len(self.labels_format)
            strata = rarest_classes(
                [label_array(boxes, "labels", n_columns)[:, column] for boxes in self.labels]
            )
        parts = split_indices(self.dataset_size, fractions, seed, strata)
        return [self.subset(part) for part in parts]

    def describe(self, read_image_sizes: bool = True) -> DatasetStatistics:
        """Gather what the data set consists of, and what may be wrong with it.

            print(train.describe())

        Arguments:
            read_image_sizes: Whether to read the sizes of the images, from the headers of their
                files; box sizes as shares of the image, and boxes out of it, are known only then.

        Returns:
            The numbers, and the boxes and images that deserve a look; `str()` of it is a report.
            `misc_utils.plotting.plot_dataset` draws it.

        Raises:
            DatasetError: No data set is loaded, or its lists differ in length.
        """
        return describe_dataset(self, read_image_sizes)

    def subset(self, indices: Sequence[int]) -> Self:
        """Make a data set of some of this one's entries, in any order, repetitions included.

        Images in memory and an open HDF5 file are shared, not copied.

        Arguments:
            indices: Positions in `filenames`, `labels`, ...; an index that occurs twice gives the
                image two entries.

        Returns:
            A new data set of the same kind.
        """
        part = copy.copy(self)
        for name in ("filenames", "labels", "image_ids", "eval_neutral"):
            entries = getattr(self, name)
            if entries is not None:
                setattr(part, name, [entries[i] for i in indices])
        part.dataset_size = len(indices)
        part.dataset_indices = self.dataset_indices[np.asarray(indices, dtype=np.int64)]
        part.skipped_images = {}
        return part

    def entry_name(self, index: int) -> str:
        """Name an entry for messages: its file, else its id, else its position."""
        if self.filenames is not None:
            return str(self.filenames[index])
        if self.image_ids is not None:
            return f"image {self.image_ids[index]!r}"
        return f"image number {index}"

    def check(self) -> None:
        """Check that there are images, and that all lists have one entry per image.

        Raises:
            DatasetError: They have not.
        """
        if self.dataset_size == 0:
            raise DatasetError(
                "No data set is loaded: pass filenames or hdf5_dataset_path to the constructor, or "
                "call one of the parsers"
            )
        for name in ("filenames", "labels", "image_ids", "eval_neutral"):
            entries = getattr(self, name)
            if entries is not None and len(entries) != self.dataset_size:
                raise DatasetError(
                    f"{name} has {len(entries)} entries, but the data set has "
                    f"{self.dataset_size} images: there must be one entry per image, or None"
                )

    def create_hdf5_dataset(
        self,
        file_path: str | os.PathLike = "dataset.h5",
        resize: Sequence[int] | bool = False,
        variable_image_size: bool = True,
        verbose: bool = True,
    ) -> None:
        """Write the data set, with decoded images, to an HDF5 file and use that from now on.

        The file is several times larger than JPEG files, and read without decoding them.

        Arguments:
            file_path: The file; an existing one is replaced, when the new one is complete.
            resize: False, or (height, width) in pixels to resize all images to. The boxes are
                resized with them, here and in the file.
            variable_image_size: Whether the images may differ in size; only stored.
            verbose: Show progress.

        Raises:
            DatasetError: No data set is loaded, or its lists differ in length.
            ImageReadError: An image file cannot be read.
            ValueError: `resize` is neither False nor two numbers.
        """
        self.check()
        transformation = None
        if resize:
            if resize is True or len(resize) != 2:
                raise ValueError(f"resize must be False or (height, width), got {resize!r}")
            height, width = resize
            transformation = Resize(height, width, labels_format=self.labels_format)
        labels = write_hdf5_dataset(
            file_path,
            (self._read_entry(i, transformation) for i in range(self.dataset_size)),
            self.dataset_size,
            image_ids=self.image_ids,
            eval_neutral=self.eval_neutral,
            class_names=self.class_names,
            category_ids=None if self.cats_to_names is None else list(self.cats_to_names),
            labels_output_format=self.labels_output_format,
            variable_image_size=variable_image_size and not resize,
            verbose=verbose,
        )
        self.hdf5_dataset = None
        self.hdf5_dataset_path = os.fspath(file_path)
        self.hdf5_dataset = open_hdf5_dataset(file_path)
        if self.images is not None:  # a subset has those of the whole: more, in another order
            self.images = [self.images[i] for i in self.dataset_indices]
        self._set_size(self.dataset_size)
        if resize:
            self.labels = labels
            self.images = None
            self._load_images(verbose)

    def _read_entry(
        self, index: int, transformation: Resize | None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Return an image and its labels as arrays, transformed if asked for."""
        image = self.get_image(index)
        if self.labels is None:
            return (image if transformation is None else transformation(image)), None
        labels = label_array(self.labels[index], self.entry_name(index), len(self.labels_format))
        return (image, labels) if transformation is None else transformation(image, labels)

    def save_dataset(
        self,
        filenames_path: str = "filenames.pkl",
        labels_path: str | None = None,
        image_ids_path: str | None = None,
        eval_neutral_path: str | None = None,
    ) -> None:
        """Pickle the lists whose path is given; the constructor reads them back.

        Arguments:
            filenames_path: Where to save `filenames`.
            labels_path: Where to save `labels`, or None.
            image_ids_path: Where to save `image_ids`, or None.
            eval_neutral_path: Where to save `eval_neutral`, or None.
        """
        for entries, path in (
            (self.filenames, filenames_path),
            (self.labels, labels_path),
            (self.image_ids, image_ids_path),
            (self.eval_neutral, eval_neutral_path),
        ):
            if path is not None:
                with open(path, "wb") as file:
                    pickle.dump(entries, file)

    def get_dataset(self) -> tuple:
        """Return the tuple (filenames, labels, image_ids, eval_neutral)."""
        return self.filenames, self.labels, self.image_ids, self.eval_neutral

    def get_dataset_size(self) -> int:
        """Return the number of images."""
        return self.dataset_size


def _load_filenames(
    filenames: Sequence[str] | str | None, filenames_type: str, images_dir: str | None
) -> Sequence[str] | None:
    """Return the paths of the images: as given, or from the file that lists them."""
    if not isinstance(filenames, str) or filenames_type == "pickle":
        return _load_list("filenames", filenames)
    if filenames_type != "text":
        raise ValueError(f"filenames_type must be 'text' or 'pickle', got {filenames_type!r}")
    names = (line.strip() for line in read_text(filenames, "list of filenames").splitlines())
    return [os.path.join(images_dir or "", name) for name in names if name]


def _load_list(name: str, value: Sequence | str | None) -> Sequence | None:
    """Return a list or tuple as it is, or the one pickled in the file of that name."""
    if isinstance(value, str):
        value = load_plain_pickle(value)
    if value is None or isinstance(value, (list, tuple)):
        return value
    raise ValueError(
        f"{name} must be a list or tuple with one entry per image, or the path of a file that "
        f"holds one, got {type(value).__name__}"
    )
