"""The data generator: a data set of images with boxes, and batches of it without end."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from data_generator.batch_source import BatchSource
from data_generator.coco_parser import parse_coco
from data_generator.csv_parser import parse_csv
from data_generator.errors import (
    AnnotationError,
    DatasetError,
    DegenerateBatchError,
    ImageSizeError,
)
from data_generator.image_reading import ImageReadError
from data_generator.voc_parser import VOC_CLASSES, parse_voc
from data_generator.yolo_parser import parse_yolo

__all__ = [
    "AnnotationError",
    "DataGenerator",
    "DatasetError",
    "DegenerateBatchError",
    "ImageReadError",
    "ImageSizeError",
]


class DataGenerator(BatchSource):
    """A data set of images with boxes, and a generator of batches from it.

        train = DataGenerator()
        train.parse_xml(["VOC2007/JPEGImages"], ["VOC2007/ImageSets/Main/trainval.txt"],
                        ["VOC2007/Annotations"])
        batches = train.generate(32, transformations=[...], label_encoder=encoder, seed=0)
        images, targets = next(batches)

    Data sets come from the constructor, whose arguments are those of `DetectionDataset`, from an
    HDF5 file, or from one of the parsers. Attributes are those of `DetectionDataset`.
    """

    def parse_csv(
        self,
        images_dir: str,
        labels_filename: str,
        input_format: Sequence[str] | None = "header",
        include_classes: str | Collection[int | str] = "all",
        random_sample: float | bool = False,
        ret: bool = False,
        verbose: bool = True,
        classes: Sequence[str] | None = None,
        remap_classes: bool = False,
        on_invalid_boxes: str = "keep",
        check_images: bool = False,
        seed: int | None = None,
        delimiter: str = ",",
    ) -> tuple | None:
        """Load a data set from a CSV file with one box per line.

        A line with a name and otherwise empty cells (`image.jpg,,,,,`) is an image without
        objects. Images are sorted by name. The id of an image is its name without suffix
        (`a.1.png` is `a.1`).

        Arguments:
            images_dir: The folder that the image names in the file are relative to.
            labels_filename: The CSV file: UTF-8; numbers may have decimals.
            input_format: The names 'image_name', 'xmin', 'xmax', 'ymin', 'ymax', 'class_id' in
                the order of the file's first six columns; a first line whose coordinates are
                not numbers is then skipped. Or 'header' (or None): the first line names the
                columns, in any order, in capitals or not; 'filename', 'file_name', 'image',
                'image_path', 'path' and 'frame' mean the image name, 'class', 'class_name',
                'label' and 'category' the class. Other columns are ignored.
            include_classes: 'all', or the class ids (or names, with `classes`) to keep. Images
                left without a row do not become part of the data set.
            random_sample: False, or the probability with which each image is kept.
            ret: Whether to return the data set as well.
            verbose: Show progress.
            classes: Names by class id, 'background' first; the class column may then hold names.
            remap_classes: Number the classes kept 1..n; needs `include_classes` or `classes`.
            on_invalid_boxes: For boxes of no size: 'keep' (see `invalid_boxes`; `generate`
                deals with them), 'drop' or 'raise'. Coordinates that are not finite are an error
                unless they are dropped.
            check_images: Check that all image files exist.
            seed: For `random_sample`.
            delimiter: The character between cells.

        Returns:
            None, or with `ret` the tuple (images, filenames, labels, image_ids).

        Raises:
            AnnotationError: The file cannot be read as described; it names line and value.
            EmptyAnnotationsError: No image is left (an `IndexError` as well).
            ValueError: An argument is wrong.

        Example:
            >>> from data_generator.object_detection_2d_data_generator import DataGenerator
            >>> with open("labels.csv", "w") as file:
            ...     print("image_name,xmin,xmax,ymin,ymax,class_id", file=file)
            ...     print("a.jpg,10,50,20,80,1", file=file)
            ...     print("b.jpg,,,,,", file=file)  # an image without objects
            >>> data = DataGenerator()
            >>> data.parse_csv("images", "labels.csv", classes=["background", "car"], verbose=False)
            >>> data.filenames
            ['images/a.jpg', 'images/b.jpg']
            >>> data.labels  # class_id, xmin, ymin, xmax, ymax
            [array([[ 1, 10, 20, 50, 80]]), array([], shape=(0, 5), dtype=int64)]
        """
        if labels_filename is None:
            raise ValueError("labels_filename must be given to parse a CSV file")
        self.images_dir = images_dir
        self.labels_filename = labels_filename
        self.input_format = input_format
        self.include_classes = include_classes
        parsed = parse_csv(
            images_dir,
            labels_filename,
            input_format,
            include_classes=include_classes,
            random_sample=random_sample,
            classes=classes,
            remap_classes=remap_classes,
            on_invalid_boxes=on_invalid_boxes,
            seed=seed,
            labels_output_format=self.labels_output_format,
            delimiter=delimiter,
        )
        self._adopt(parsed, check_images, verbose)
        return (self.images, self.filenames, self.labels, self.image_ids) if ret else None

    def parse_xml(
        self,
        images_dirs: Sequence[str],
        image_set_filenames: Sequence[str],
        annotations_dirs: Sequence[str] = (),
        classes: Sequence[str] = VOC_CLASSES,
        include_classes: str | Collection[int | str] = "all",
        exclude_truncated: bool = False,
        exclude_difficult: bool = False,
        ret: bool = False,
        verbose: bool = True,
        remap_classes: bool = False,
        on_invalid_boxes: str = "keep",
        check_images: bool = False,
    ) -> tuple | None:
        """Load data sets in the XML format of Pascal VOC.

        The three lists of paths are parallel: one entry per image set. Images are looked for
        with the suffixes of `voc_parser.IMAGE_SUFFIXES`, '.jpg' first. Coordinates are taken as
        they are; VOC counts pixels from 1, and the original SSD does not shift them either.

        Arguments:
            images_dirs: The folder of the images of each set.
            image_set_filenames: The text file of each set: one image id per line.
            annotations_dirs: The folder of the XML files of each set; none at all for images
                without ground truth.
            classes: All class names that occur, 'background' first; the class id of a name is
                its position.
            include_classes: 'all', or the class ids or names to keep. An image left without
                objects stays in the data set.
            exclude_truncated: Leave out boxes marked as truncated.
            exclude_difficult: Leave out boxes marked as difficult.
            ret: Whether to return the data set as well.
            verbose: Show progress.
            remap_classes: Number the classes kept 1..n, in ascending order of their ids.
            on_invalid_boxes: As for `parse_csv`.
            check_images: Check that all image files exist.

        Returns:
            None, or with `ret` the tuple (images, filenames, labels, image_ids, eval_neutral).

        Raises:
            AnnotationError: A file is missing or cannot be read; it names file, object, value.
            ValueError: An argument is wrong.

        Example:
            >>> from data_generator.object_detection_2d_data_generator import DataGenerator
            >>> from misc_utils.files import write_text
            >>> write_text("VOC/ImageSets/train.txt", "000001")
            >>> box = "<xmin>20</xmin><ymin>30</ymin><xmax>60</xmax><ymax>80</ymax>"
            >>> tags = f"<object><name>dog</name><bndbox>{box}</bndbox></object>"
            >>> write_text("VOC/Annotations/000001.xml", f"<annotation>{tags}</annotation>")
            >>> data = DataGenerator()
            >>> data.parse_xml(
            ...     ["VOC/JPEGImages"],
            ...     ["VOC/ImageSets/train.txt"],
            ...     ["VOC/Annotations"],
            ...     classes=["background", "cat", "dog"],
            ...     verbose=False,
            ... )
            >>> data.filenames, data.labels
            (['VOC/JPEGImages/000001.jpg'], [[[2, 20, 30, 60, 80]]])
        """
        self.images_dirs = images_dirs
        self.annotations_dirs = annotations_dirs
        self.image_set_filenames = image_set_filenames
        self.include_classes = include_classes
        parsed = parse_voc(
            images_dirs,
            image_set_filenames,
            annotations_dirs,
            classes=classes,
            include_classes=include_classes,
            exclude_truncated=exclude_truncated,
            exclude_difficult=exclude_difficult,
            remap_classes=remap_classes,
            on_invalid_boxes=on_invalid_boxes,
            labels_output_format=self.labels_output_format,
            verbose=verbose,
        )
        self._adopt(parsed, check_images, verbose)
        self.eval_neutral = parsed.eval_neutral
        lists = (self.images, self.filenames, self.labels, self.image_ids, self.eval_neutral)
        return lists if ret else None

    def parse_json(
        self,
        images_dirs: Sequence[str],
        annotations_filenames: Sequence[str],
        ground_truth_available: bool = False,
        include_classes: str | Collection[int | str] = "all",
        ret: bool = False,
        verbose: bool = True,
        remap_classes: bool = False,
        exclude_crowd: bool = False,
        on_invalid_boxes: str = "keep",
        check_images: bool = False,
    ) -> tuple | None:
        """Load data sets in the JSON format of MS COCO.

        Category ids of COCO have gaps; the labels get class ids 1..n in the order of the first
        file's categories. The category maps are attributes of this object afterwards. Boxes
        around crowds (`iscrowd`) are marked in `eval_neutral`: an evaluation leaves them out.

        Arguments:
            images_dirs: The folder of the images of each file.
            annotations_filenames: The JSON files.
            ground_truth_available: Whether the files have annotations.
            include_classes: 'all', or the categories to keep: their ids as in the file (with
                gaps), or their names. An image left without objects stays in the data set.
            ret: Whether to return the data set as well.
            verbose: Show progress.
            remap_classes: Number the categories kept 1..n; the category maps then hold only them.
            exclude_crowd: Leave out the boxes around crowds (`iscrowd`).
            on_invalid_boxes: As for `parse_csv`.
            check_images: Check that all image files exist.

        Returns:
            None, or with `ret` the tuple (images, filenames, labels, image_ids).

        Raises:
            AnnotationError: A file is missing or cannot be read; it names file, entry, value.
            ValueError: An argument is wrong.

        Example:
            >>> import json
            >>> from data_generator.object_detection_2d_data_generator import DataGenerator
            >>> from misc_utils.files import write_text
            >>> dog = {"id": 5, "image_id": 7, "category_id": 18, "bbox": [20, 30, 40, 50]}
            >>> annotations = {
            ...     "categories": [{"id": 17, "name": "cat"}, {"id": 18, "name": "dog"}],
            ...     "images": [{"id": 7, "file_name": "7.jpg", "width": 200, "height": 100}],
            ...     "annotations": [dog],
            ... }
            >>> write_text("train.json", json.dumps(annotations))
            >>> data = DataGenerator()
            >>> data.parse_json(
            ...     ["images"], ["train.json"], ground_truth_available=True, verbose=False
            ... )
            >>> data.class_names, data.labels
            (['background', 'cat', 'dog'], [[[2, 20, 30, 60, 80]]])
        """
        self.images_dirs = images_dirs
        self.annotations_filenames = annotations_filenames
        self.include_classes = include_classes
        parsed, maps = parse_coco(
            images_dirs,
            annotations_filenames,
            ground_truth_available=ground_truth_available,
            include_classes=include_classes,
            remap_classes=remap_classes,
            exclude_crowd=exclude_crowd,
            on_invalid_boxes=on_invalid_boxes,
            labels_output_format=self.labels_output_format,
            verbose=verbose,
        )
        self._adopt(parsed, check_images, verbose)
        if ground_truth_available:
            self.eval_neutral = parsed.eval_neutral
        self._set_category_maps(list(maps.cats_to_names), maps.classes_to_names)
        return (self.images, self.filenames, self.labels, self.image_ids) if ret else None

    def parse_yolo(
        self,
        images_dirs: Sequence[str],
        labels_dirs: Sequence[str],
        classes: Sequence[str] | str,
        include_classes: str | Collection[int | str] = "all",
        ret: bool = False,
        verbose: bool = True,
        remap_classes: bool = False,
        on_invalid_boxes: str = "keep",
    ) -> tuple | None:
        """Load data sets in the text format of YOLO.

        Each image has a text file of the same name, with a line `class cx cy width height` for
        each box: class numbers from 0, the rest in fractions of the image. An image without such
        a file, or with an empty one, has no objects. The size of the images, needed for boxes in
        pixels, is read from their headers.

        Arguments:
            images_dirs: The folders of images, which may have folders inside.
            labels_dirs: For each of them the folder of the text files.
            classes: Class names, 'background' first and YOLO's class 0 next; or the path of a
                text file with the names of YOLO's classes, one per line ('classes.txt').
            include_classes: 'all', or the class ids (YOLO's numbers plus 1) or names to keep. An
                image left without objects stays in the data set.
            ret: Whether to return the data set as well.
            verbose: Show progress.
            remap_classes: Number the classes kept 1..n, in ascending order of their ids.
            on_invalid_boxes: As for `parse_csv`.

        Returns:
            None, or with `ret` the tuple (images, filenames, labels, image_ids).

        Raises:
            AnnotationError: A file is missing or cannot be read; it names file, line, value.
            ValueError: An argument is wrong.

        Example:
            >>> from pathlib import Path
            >>> import numpy as np
            >>> from data_generator.object_detection_2d_data_generator import DataGenerator
            >>> from misc_utils.drawing import save_image
            >>> save_image("photos/a.png", np.zeros((100, 200, 3), np.uint8))
            >>> _ = Path("photos/a.txt").write_text("1 0.5 0.5 0.2 0.4")
            >>> data = DataGenerator()
            >>> classes = ["background", "cat", "dog"]
            >>> data.parse_yolo(["photos"], ["photos"], classes, verbose=False)
            >>> data.labels  # a dog, 40 x 40 pixels, in the middle
            [array([[  2.,  80.,  30., 120.,  70.]], dtype=float32)]
        """
        self.images_dirs = images_dirs
        self.labels_dirs = labels_dirs
        self.include_classes = include_classes
        parsed = parse_yolo(
            images_dirs,
            labels_dirs,
            classes,
            include_classes=include_classes,
            remap_classes=remap_classes,
            on_invalid_boxes=on_invalid_boxes,
            labels_output_format=self.labels_output_format,
            verbose=verbose,
        )
        self._adopt(parsed, False, verbose)
        return (self.images, self.filenames, self.labels, self.image_ids) if ret else None
