"""Batches of a data set, in each of the forms that a training wants them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from data_generator.batch_generation import BatchMaker
from data_generator.batch_stream import BatchStream
from data_generator.detection_dataset import DetectionDataset
from data_generator.epoch_batches import EpochBatches
from data_generator.errors import DatasetError

if TYPE_CHECKING:
    from misc_utils.training_data import BatchDataset


class BatchSource(DetectionDataset):
    """A data set that gives batches: as a generator, a `PyDataset` or a `tf.data.Dataset`."""

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
                list of label arrays, for 'encoded_labels' and 'matched_anchors'. An
                `SSDInputEncoder` gets their columns in its own order. One that takes `empty` gets
                what to use for `np.empty`: worker processes have the array made where the training
                process sees it.
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
        maker = BatchMaker(
            self,
            transformations,
            label_encoder,
            returns,
            keep_images_without_gt,
            degenerate_box_handling,
            seed,
            on_image_error,
        )
        batches = EpochBatches(maker, batch_size, shuffle)
        for epoch in itertools.count(start_epoch):
            for number in range(len(batches)):
                yield batches.batch(epoch, number)

    def to_pydataset(
        self,
        batch_size: int = 32,
        transformations: Sequence[Callable] = (),
        label_encoder: Callable | None = None,
        shuffle: bool = True,
        seed: int | None = None,
        workers: int = 0,
        use_multiprocessing: bool = True,
        full_batches: bool | None = None,
        keep_images_without_gt: bool = False,
        degenerate_box_handling: str = "remove",
        on_image_error: str = "raise",
        start_epoch: int = 0,
    ) -> BatchDataset:
        """Make a `keras.utils.PyDataset` of batches `(images, targets)`, for every backend.

            train = generator.to_pydataset(32, [chain], encoder, seed=0, workers=4)
            model.fit(train, epochs=120, validation_data=val)

        The batches of an epoch are those of `generate` with the same seed, whatever the number of
        workers, but for `full_batches`. For an evaluation, use `shuffle=False`.

        Worker processes import this package, NumPy and OpenCV, and neither Keras nor the script.
        They get a copy of the data set, images in memory included, when the first batch is asked
        for; transformations and encoder must come from modules that can be imported. A
        transformation that takes no `rng` keeps its own state in every worker: if it draws random
        numbers, they depend on the number of workers, and may repeat.

        Arguments:
            batch_size: The number of images to a batch.
            transformations: As for `generate`; the images must all get one size.
            label_encoder: As for `generate`; required, as are labels.
            shuffle: Whether each epoch takes the images in a new order.
            seed: As for `generate`; None draws one, so that every run is different.
            workers: The number of workers that prepare batches ahead, two for each; 0 makes each
                batch when it is asked for. As many as there are cores to spare.
            use_multiprocessing: Whether workers are processes, else threads of this process, for
                transformations that cannot be sent to other processes.
            full_batches: Whether the places of dropped images, and those that the last batch of
                an epoch leaves empty, are filled with other images, drawn at random: compiled
                training steps want batches of one size. None: yes if `shuffle`.
            keep_images_without_gt: As for `generate`.
            degenerate_box_handling: As for `generate`.
            on_image_error: As for `generate`; `skipped_images` of this object and of the returned
                one list what the workers skipped.
            start_epoch: As for `generate`.

        Returns:
            A `misc_utils.training_data.BatchDataset`.

        Raises:
            DatasetError: No data set is loaded, its lists differ in length, or it has no labels.
            ValueError: An argument is wrong, or cannot be sent to worker processes.
        """
        # The only way from here to Keras; see tests/test_structure.py.
        from misc_utils.training_data import BatchDataset

        stream = self._batch_stream(
            batch_size,
            transformations,
            label_encoder,
            shuffle,
            seed,
            workers,
            use_multiprocessing,
            full_batches,
            keep_images_without_gt,
            degenerate_box_handling,
            on_image_error,
            start_epoch,
        )
        return BatchDataset(stream)

    def to_tf_dataset(
        self,
        batch_size: int = 32,
        transformations: Sequence[Callable] = (),
        label_encoder: Callable | None = None,
        shuffle: bool = True,
        seed: int | None = None,
        workers: int = 0,
        use_multiprocessing: bool = True,
        full_batches: bool | None = None,
        keep_images_without_gt: bool = False,
        degenerate_box_handling: str = "remove",
        on_image_error: str = "raise",
        start_epoch: int = 0,
        prefetch: int = 2,
    ) -> Any:  # a tf.data.Dataset
        """Make a `tf.data.Dataset` of batches `(images, targets)`; needs TensorFlow.

        For `fit` with TensorFlow, for `tf.distribute`, and for further steps of `tf.data`. It has
        one epoch, the next one each time it is gone through; for `fit` with `steps_per_epoch`, add
        `.repeat()`.

        Arguments: those of `to_pydataset`, and `prefetch`, the number of batches that TensorFlow
            holds ready as tensors.

        Returns:
            The data set. Images are of the shape and dtype that the transformations give, targets
            `(batch, n_boxes, n_classes + 12)`; the batch size is static with `full_batches`.

        Raises:
            ImportError: TensorFlow is not installed.
            DatasetError: As for `to_pydataset`.
            ValueError: As for `to_pydataset`.
        """
        from misc_utils.training_data import tf_dataset

        stream = self._batch_stream(
            batch_size,
            transformations,
            label_encoder,
            shuffle,
            seed,
            workers,
            use_multiprocessing,
            full_batches,
            keep_images_without_gt,
            degenerate_box_handling,
            on_image_error,
            start_epoch,
        )
        return tf_dataset(stream, prefetch)

    def _batch_stream(
        self,
        batch_size: int,
        transformations: Sequence[Callable],
        label_encoder: Callable | None,
        shuffle: bool,
        seed: int | None,
        workers: int,
        use_processes: bool,
        full_batches: bool | None,
        keep_images_without_gt: bool,
        degenerate_box_handling: str,
        on_image_error: str,
        start_epoch: int,
    ) -> BatchStream:
        """Return the stream of the batches that a model is trained on."""
        self.check()
        if self.labels is None:
            raise DatasetError("A model is trained on labels, but this data set has none")
        if label_encoder is None:
            raise ValueError(
                "label_encoder must be given: pass SSDInputEncoder.from_model(model), or use "
                "generate() for batches without targets"
            )
        maker = BatchMaker(
            self,
            transformations,
            label_encoder,
            keep_images_without_gt=keep_images_without_gt,
            degenerate_box_handling=degenerate_box_handling,
            # Drawn here if there is none, because workers must not draw one each.
            seed=np.random.SeedSequence(seed).entropy,
            on_image_error=on_image_error,
        )
        full_batches = shuffle if full_batches is None else full_batches
        batches = EpochBatches(maker, batch_size, shuffle, full_batches)
        return BatchStream(batches, workers, use_processes, start_epoch)
