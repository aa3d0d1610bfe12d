"""Fine-tuning: freezing a part of a model, and learning rates that differ from part to part.

Trained layers need smaller steps than fresh ones, the first ones of the base network least of all:
edges and textures are the same everywhere.

    freeze(model, "conv3_3")
    optimizer = LearningRateMultipliers(
        keras.optimizers.SGD(1e-3, momentum=0.9),
        {"conv4_[123]/*": 0.1, "conv5_*": 0.1, "*/bias": 2.0},
    )
    model.compile(optimizer, loss)
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

import keras
from keras import ops


def layers_up_to(model: keras.Model, layer: str) -> list[str]:
    """List the layers whose output a layer depends on, and itself.

    That is what comes before it in the graph, which is not what comes before it in `model.layers`:
    SSD's heads hang on maps in the middle of the network.

    Arguments:
        model: A functional model.
        layer: Name of the layer.

    Returns:
        Names in the order of `model.layers`.

    Raises:
        ValueError: if the model has no such layer, or is not functional.
    """
    names = [each.name for each in model.layers]
    if layer not in names:
        similar = [name for name in names if name.startswith(layer)]
        similar = similar or get_close_matches(layer, names) or names
        raise ValueError(
            f"Model {model.name!r} has no layer {layer!r}; it has {', '.join(similar[:6])}."
        )
    if not getattr(model, "inputs", None):
        raise ValueError(f"Model {model.name!r} is not functional: it has no graph to follow.")
    part = keras.Model(model.inputs, model.get_layer(layer).output)
    before = {each.name for each in part.layers}
    return [name for name in names if name in before]


def freeze(model: keras.Model, up_to: str) -> list[str]:
    """Keep a layer, and all that its output depends on, from being trained.

    Frozen batch normalisation uses its running statistics, as in inference. Compile the model after
    this: what is trained is fixed then.

    Arguments:
        model: A functional model.
        up_to: Name of the last layer to freeze, such as ``'conv4_3'``.

    Returns:
        Names of the frozen layers that have weights.

    Raises:
        ValueError: if the model has no such layer.

    Example:
        >>> from misc_utils.fine_tuning import freeze
        >>> from models.keras_ssd7 import build_model
        >>> model = build_model((64, 64, 3), n_classes=2)
        >>> freeze(model, "conv2")
        ['conv1', 'bn1', 'conv2']
        >>> model.get_layer("conv3").trainable
        True
    """
    frozen = [model.get_layer(name) for name in layers_up_to(model, up_to)]
    for layer in frozen:
        layer.trainable = False
    return [layer.name for layer in frozen if layer.weights]


def unfreeze(model: keras.Model) -> None:
    """Let all layers of a model be trained. Compile the model after this.

    Arguments:
        model: Any model.
    """
    model.trainable = True
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            unfreeze(layer)
        layer.trainable = True


@keras.saving.register_keras_serializable(package="ssd_keras")
class LearningRateMultipliers(keras.optimizers.Optimizer):
    """An optimizer whose learning rate differs from variable to variable.

    It lets another optimizer take its step, and then makes the step of each variable longer or
    shorter. Where a step is proportional to the learning rate, as with SGD, Adam, AdamW, RMSprop
    and their like, weight decay included, that is the learning rate times the multiplier. (To scale
    gradients instead would change nothing with Adam, which divides by their size.)

    Caffe's SSD trains biases at twice the rate: ``{"*/bias": 2.0}``.

    Learning rate, schedules, clipping and weight decay are the other optimizer's; a moving average
    of the weights (`use_ema`) is taken over from it.

    Example:
        >>> import keras
        >>> from misc_utils.fine_tuning import LearningRateMultipliers
        >>> optimizer = LearningRateMultipliers(
        ...     keras.optimizers.SGD(1e-3), {"conv[12]_*": 0.1, "*/bias": 2.0}
        ... )
        >>> optimizer.multiplier("conv1_1/kernel"), optimizer.multiplier("conv6_1/bias")
        (0.1, 2.0)
    """

    def __init__(
        self,
        optimizer: keras.optimizers.Optimizer,
        multipliers: Mapping[str, float],
        name: str = "learning_rate_multipliers",
    ):
        """Wrap an optimizer.

        Arguments:
            optimizer: Any optimizer of Keras that was not used yet.
            multipliers: {pattern: multiplier}. Patterns are matched with the path of a variable,
                ``'conv1_1/kernel'`` for example, with * for anything, ? for any character and [ab]
                for one of some. A variable gets the product of all that match, 1 if none does.

        Raises:
            ValueError: if a multiplier is negative or not finite, or if the optimizer overwrites
                weights with their average (`ema_overwrite_frequency`).
        """
        optimizer = keras.optimizers.get(optimizer)
        if optimizer.ema_overwrite_frequency:
            raise ValueError(
                "`ema_overwrite_frequency` does not go with multipliers; got "
                f"{optimizer.ema_overwrite_frequency}. Use the average at the end instead "
                "(`misc_utils.training.averaged_weights`)."
            )
        for pattern, multiplier in multipliers.items():
            if not 0 <= multiplier < float("inf"):
                raise ValueError(
                    f"The multiplier of {pattern!r} must be 0 or greater; got {multiplier}. To "
                    "train backwards is never meant, and to stop training use 0 or `freeze`."
                )
        super().__init__(
            learning_rate=0.0,  # not used: see the property
            use_ema=optimizer.use_ema,
            ema_momentum=optimizer.ema_momentum,
            name=name,
        )
        optimizer.use_ema = False
        self.optimizer = optimizer
        self.multipliers = {str(key): float(value) for key, value in multipliers.items()}
        self._factors: list[float] = []

    def multiplier(self, path: str) -> float:
        """Return the multiplier of the variable with this path."""
        product = 1.0
        for pattern, multiplier in self.multipliers.items():
            if fnmatchcase(path, pattern):
                product *= multiplier
        return product

    def build(self, variables: list) -> None:
        """Make the optimizer's variables.

        Raises:
            ValueError: if a pattern matches no variable.
        """
        paths = [variable.path for variable in variables]
        for pattern in self.multipliers:
            if not any(fnmatchcase(path, pattern) for path in paths):
                raise ValueError(
                    f"No trainable variable matches {pattern!r}. Variables have paths such as "
                    f"{', '.join(paths[:4])}."
                )
        self._factors = [self.multiplier(path) for path in paths]
        self.optimizer.build(variables)
        super().build(variables)

    def apply(self, grads: list, trainable_variables: list | None = None) -> None:
        """Take one step.

        Arguments:
            grads: One gradient a variable.
            trainable_variables: The variables; needed for the first step.
        """
        if not self.built:
            self.build(list(trainable_variables))
        variables = self._trainable_variables
        scaled = [
            (variable, factor, ops.copy(variable))
            for variable, factor in zip(variables, self._factors, strict=True)
            if factor != 1
        ]
        self.optimizer.apply(grads, trainable_variables)
        for variable, factor, before in scaled:
            factor = ops.cast(factor, variable.dtype)
            variable.assign(before + factor * (ops.convert_to_tensor(variable) - before))
        if self.use_ema:
            self._update_model_variables_moving_average(variables)
        self._iterations.assign_add(1)

    def finalize_variable_values(self, var_list: list) -> None:
        """Put the average, if there is one, into the model, as Keras does when training ends.

        Arguments:
            var_list: The model's variables.
        """
        super().finalize_variable_values(var_list)
        if self.use_ema:
            # Model and average would share their memory, which JAX gives to the next step: twice.
            for average in self._model_variables_moving_average:
                average.assign(ops.convert_to_numpy(average).copy())

    @property
    def variables(self) -> list:
        """Own variables and those of the other optimizer."""
        return [*self._variables, *self.optimizer.variables]

    @property
    def learning_rate(self) -> Any:
        """The other optimizer's learning rate, which is also where it is set."""
        return self.optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate: Any) -> None:
        """Set the other optimizer's learning rate."""
        self.optimizer.learning_rate = learning_rate

    def scale_loss(self, loss: Any) -> Any:
        """Scale the loss as the other optimizer does, which scales the gradients back."""
        return self.optimizer.scale_loss(loss)

    def get_config(self) -> dict:
        """Return all constructor arguments."""
        optimizer = keras.saving.serialize_keras_object(self.optimizer)
        optimizer["config"]["use_ema"] = self.use_ema
        return {"optimizer": optimizer, "multipliers": dict(self.multipliers), "name": self.name}

    @classmethod
    def from_config(cls, config: dict, custom_objects: dict | None = None) -> Any:
        """Make the optimizer from its configuration."""
        config = dict(config)
        optimizer = keras.saving.deserialize_keras_object(
            config.pop("optimizer"), custom_objects=custom_objects
        )
        return cls(optimizer, **config)
