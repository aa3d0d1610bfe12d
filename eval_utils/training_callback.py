"""Mean average precision during training, as a callback of Keras.

The only module of `eval_utils` that needs Keras.
"""

from __future__ import annotations

import inspect
import math

import keras

from data_generator.object_detection_2d_data_generator import DataGenerator
from eval_utils.average_precision_evaluator import Evaluator
from keras_layers.keras_layer_DecodeDetections import DecodeDetections
from ssd_encoder_decoder.class_names import check_same_classes
from ssd_encoder_decoder.model_settings import ModelSettings, read_model_settings

_FROM_THE_MODEL = ("img_height", "img_width", "decoding_pred_coords", "decoding_normalize_coords")
_FROM_HERE = ("self", "batch_size", "verbose")
_OTHER_RESULTS = ("return_precisions", "return_recalls", "return_average_precisions")


class MeanAveragePrecision(keras.callbacks.Callback):
    """Evaluates the model after an epoch, and adds the results to the logs.

        callbacks = [
            MeanAveragePrecision(val_dataset),  # before those that read its results
            keras.callbacks.ModelCheckpoint(
                "best.keras", monitor="val_mAP", mode="max", save_best_only=True
            ),
            keras.callbacks.CSVLogger("history.csv"),
        ]
        model.fit(batches, epochs=100, callbacks=callbacks)

    The logs get ``val_mAP``, and ``val_AP_<class name>`` for each class: exactly the numbers of an
    `Evaluator` with the same settings. They are then in the history, in the progress bar, and seen
    by all callbacks *behind this one* in the list: `EarlyStopping` and `ModelCheckpoint` (both need
    ``mode='max'``), `CSVLogger`, `TensorBoard`.

    Every epoch's logs have the same names, because `CSVLogger` keeps to those of the first epoch.
    In epochs that are not evaluated the values are NaN, which no callback takes for an improvement;
    the patience of `EarlyStopping` still counts epochs, so it should be several times `every`.
    The first epoch is always evaluated: Keras compares with the first value it sees, and nothing
    is better than NaN. The last one is, too. A class without ground truth has no average precision,
    hence NaN in all epochs.

    The model may be of any mode; its image size, classes and anchors are read from it. It is
    evaluated with the weights that it has at this moment: to evaluate averaged weights put
    `keras.callbacks.SwapEMAWeights(swap_on_epoch=True)` before this callback.

    Attributes:
        evaluator: The `Evaluator` with all results of the last evaluation, None before the first.
    """

    def __init__(
        self,
        dataset: DataGenerator,
        every: int = 1,
        batch_size: int = 32,
        prefix: str = "val_",
        decode_in_graph: bool = False,
        verbose: bool = False,
        **evaluation: object,
    ):
        """Keep the settings.

        Arguments:
            dataset: The images and labels to evaluate on. It is not changed.
            every: Evaluate after every so many epochs (and after the first and the last one).
            batch_size: The number of images predicted at a time.
            prefix: What the names in the logs start with: one for each data set, where several of
                these callbacks are used.
            decode_in_graph: Decode the output of a model in mode ``'training'`` with the layer
                `DecodeDetections` instead of `decode_detections`. This is faster, which matters if
                the network is small; the numbers are those of a model in mode ``'inference'``,
                which computes in float32 and measures boxes without the pixels under their borders
                when it suppresses overlapping ones.
            verbose: Whether to show a progress bar and the results of the classes.
            evaluation: Further arguments of `Evaluator.__call__`, for example
                ``average_precision_mode='integrate'`` or ``decoding_top_k=100``.

        Raises:
            ValueError: if the data set has no objects to find, or if `every` is not positive.
            TypeError: if `evaluation` has an argument that an evaluator does not take, or one that
                the model or this callback gives.
        """
        super().__init__()
        if every < 1:
            raise ValueError(f"`every` must be at least 1 epoch; got {every!r}.")
        if not any(len(boxes) > 0 for boxes in dataset.labels or ()):
            raise ValueError(
                "Evaluating during training needs a data set with objects to find; got one of "
                f"{dataset.get_dataset_size()} images without any box in its labels."
            )
        _check_arguments(evaluation)
        self.dataset = dataset
        self.every = every
        self.batch_size = batch_size
        self.prefix = prefix
        self.decode_in_graph = decode_in_graph
        self.verbose = verbose
        self.evaluation = evaluation
        self.evaluator: Evaluator | None = None
        self._settings: ModelSettings | None = None
        self._decoding_model: keras.Model | None = None
        self._is_first = True

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Read the model's settings, so that what does not fit is said before an epoch is over."""
        self._settings = read_model_settings(self.model)
        self._decoding_model = None
        self._is_first = True
        names, n_classes = self.dataset.class_names, self._settings.n_classes
        if names and len(names) != n_classes + 1:
            raise ValueError(
                f"The model has {n_classes} classes and the background, but the data set has "
                f"{len(names)} class names, that of the background included: {list(names)}."
            )
        check_same_classes(self._settings.class_names, names)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Evaluate if it is time to, and add the results to the logs."""
        is_last = self.model.stop_training or epoch + 1 == self.params.get("epochs")
        if self._is_first or is_last or (epoch + 1) % self.every == 0:
            results = self.evaluate()
        else:
            results = dict.fromkeys(self._names(), math.nan)
        self._is_first = False
        if logs is not None:
            logs.update(results)

    def evaluate(self) -> dict[str, float]:
        """Evaluate the model as it is now.

        Returns:
            What `on_epoch_end` adds to the logs.
        """
        settings = self._settings or read_model_settings(self.model)
        model, mode = self.model, settings.mode
        if self.decode_in_graph and mode == "training":
            model, mode = self._with_decoding(settings), "inference"
        self.evaluator = Evaluator(model, settings.n_classes, self.dataset, mode)
        mean = self.evaluator(
            settings.img_height,
            settings.img_width,
            self.batch_size,
            verbose=self.verbose,
            decoding_pred_coords=settings.coords,
            decoding_normalize_coords=settings.normalize_coords,
            **self.evaluation,
        )
        values = [mean, *self.evaluator.average_precisions[1:]]
        return dict(zip(self._names(), map(float, values), strict=True))

    def _with_decoding(self, settings: ModelSettings) -> keras.Model:
        """Return the model with a decoding layer behind it; the weights are the same."""
        if self._decoding_model is None:
            chosen = inspect.signature(Evaluator.__call__).bind_partial(**self.evaluation)
            chosen.apply_defaults()
            top_k = chosen.arguments["decoding_top_k"]
            decode = DecodeDetections(
                confidence_thresh=chosen.arguments["decoding_confidence_thresh"],
                iou_threshold=chosen.arguments["decoding_iou_threshold"],
                top_k=top_k,
                nms_max_output_size=top_k,  # no class can have more among the best of all
                coords=settings.coords,
                normalize_coords=settings.normalize_coords,
                img_height=settings.img_height,
                img_width=settings.img_width,
            )
            output = decode(self.model.outputs[0])
            self._decoding_model = keras.Model(self.model.inputs, output)
        return self._decoding_model

    def _names(self) -> list[str]:
        settings = self._settings or read_model_settings(self.model)
        classes = self.dataset.class_names or settings.class_names or range(settings.n_classes + 1)
        return [f"{self.prefix}mAP", *(f"{self.prefix}AP_{name}" for name in classes[1:])]


def _check_arguments(evaluation: dict[str, object]) -> None:
    """Raise a TypeError unless all arguments may be handed on to `Evaluator.__call__`."""
    given = (*_FROM_THE_MODEL, *_FROM_HERE, *_OTHER_RESULTS)
    allowed = [
        name for name in inspect.signature(Evaluator.__call__).parameters if name not in given
    ]
    for name in evaluation:
        if name not in allowed:
            reason = " (it is read from the model)" if name in _FROM_THE_MODEL else ""
            raise TypeError(
                f"MeanAveragePrecision takes no argument {name!r}{reason}. Those that it hands on "
                f"to the evaluator are: {', '.join(allowed)}."
            )
