"""The data generator: a data set of images with boxes, and batches of it without end."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence

from data_generator.batch_generation import BatchMaker
from data_generator.coco_parser import parse_coco
from data_generator.csv_parser import parse_csv
from data_generator.detection_dataset import DetectionDataset
from data_generator.errors import (
    AnnotationError,
    DatasetError,
    DegenerateBatchError,
    ImageSizeError,
)
from data_generator.image_reading import ImageReadError
from data_generator.voc_parser import VOC_CLASSES, parse_voc

__all__ = [
    "AnnotationError",
    "DataGenerator",
    "DatasetError",
    "DegenerateBatchError",
    "ImageReadError",
    "ImageSizeError",
]


class DataGenerator(DetectionDataset):
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

    def generate(
        self,
        batch_size: int = 32,
        shuffle: bool = True,
        transformations: Sequence[Callable] = (),
        label_encoder: Callable | None = None,
        returns: Collection[str] = frozenset({"processed_images", "encoded_labels"}),
        keep_images_without_gt: bool = False,
        degenerate_box_handling: str = "remove",
        seed: int | None = None,
        start_epoch: int = 0,
        on_image_error: str = "raise",
    ) -> Iterator[tuple]:
        """Generate batches without end; nothing happens before the first one is asked for.

        Each pass over the data set is cut into batches in order; the last one may be shorter.
        Images that are dropped make their batch smaller.

        Arguments:
            batch_size: The number of images to a batch.
            shuffle: Whether each pass takes the images in a new order.
            transformations: Callables `t(image, labels) -> (image, labels)`, or
                `t(image) -> image` for a data set without labels; applied in order. One that
                takes `return_inverter` or `rng` gets them where they are needed. One that gives
                None for the image drops it from the batch. The last one should be a `Resize` if
                images differ in size. Their attribute `labels_format` is set to this one's.
            label_encoder: `encoder(labels, diagnostics=False)`, called once per batch with the
                list of label arrays, for 'encoded_labels' and 'matched_anchors'.
            returns: The names of what a batch consists of. It is a tuple in this order:
                'processed_images': array `(batch, height, width, channels)`;
                'encoded_labels': what the encoder makes of the labels;
                'matched_anchors': what the encoder returns in addition with `diagnostics=True`;
                'processed_labels': list of arrays `(k, 5)`, after all transformations;
                'filenames': list of paths; 'image_ids': list of ids;
                'evaluation-neutral': list of lists with one boolean per processed box;
                'inverse_transform': per image a list of functions that take predictions back to
                the original image, to be applied in order; an empty list if there are no
                transformations;
                'original_images': list of arrays; 'original_labels': list of arrays `(k, 5)`.
                What is not available is None, and for what needs missing labels or a missing
                encoder there is a warning.
            keep_images_without_gt: Keep images without boxes, from the start or after the
                transformations; their labels are `(0, 5)` arrays.
            degenerate_box_handling: For boxes with xmin >= xmax or ymin >= ymax, or that are not
                finite, after the transformations: 'remove', 'warn' (and keep), 'raise', 'keep'.
            seed: With a seed, order and transformations are the same on every machine and in
                every run: the random numbers for an image come from the seed, the epoch and the
                position in the epoch. Without one, the order is different in each run, and
                transformations use generators of their own.
            start_epoch: The number of the first pass: a training that continues after 10 passes
                gets the batches of the uninterrupted one with `start_epoch=10`.
            on_image_error: For images that cannot be read: 'raise', or 'skip' them and list
                them in `skipped_images`.

        Yields:
            One tuple per batch.

        Raises:
            DatasetError: No data set is loaded, or its lists differ in length.
            DegenerateBatchError: Not one image of a batch is left.
            ImageSizeError: The images of a batch differ in size (a `DegenerateBatchError`).
            ImageReadError: An image cannot be read.
            ValueError: An argument is wrong.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        batches = BatchMaker(
            self,
            transformations,
            label_encoder,
            returns,
            keep_images_without_gt,
            degenerate_box_handling,
            seed,
            on_image_error,
        )
        epoch = start_epoch
        while True:
            order = batches.order(epoch, shuffle)
            for position in range(0, len(order), batch_size):
                yield batches.batch(order[position : position + batch_size], epoch, position)
            epoch += 1
