"""Sampling of weight tensors along their axes: making a trained layer smaller or larger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_FILLERS = ("gaussian", "zeros")


def sample_tensors(
    weights_list: Sequence[np.ndarray],
    sampling_instructions: Sequence[int | Sequence[int]],
    axes: Sequence[Sequence[int]] | None = None,
    init: Sequence[str] | None = None,
    mean: float = 0.0,
    stddev: float = 0.005,
    rng: np.random.Generator | int | None = None,
) -> list[np.ndarray]:
    """Pick entries along the axes of tensors that belong together, such as a kernel and its bias.

    Picking the output channels of a predictor's kernel that belong to a few of its classes, and the
    same ones from the bias:

        sample_tensors([kernel, bias], [3, 3, 512, channels], axes=[[3]])

    To move a whole model to other classes use `misc_utils.class_transfer`, which knows the channels
    itself.

    Arguments:
        weights_list: The tensors; the first one has the most axes.
        sampling_instructions: For each axis of the first tensor either a list or tuple of indices,
            which are picked in that order (repetitions allowed), or the number of entries wanted.
            Fewer than there are: entry 0 and a random choice of the others, in their order. More:
            entry 0 stays first, the others keep their order at random places, the places between
            are filled as `init` says.
        axes: For each further tensor, the axes of the first tensor that its own correspond to.
            Corresponding axes are sampled alike. Not needed for a single tensor.
        init: For each tensor what new places are filled with: ``'gaussian'`` (the default) or
            ``'zeros'``.
        mean: Mean of the Gaussian filler.
        stddev: Standard deviation of the Gaussian filler.
        rng: A generator or a seed, for random choices and fillers.

    Returns:
        New arrays, one a tensor: float64 if any axis grows, else of the tensors' own dtypes.

    Raises:
        ValueError: naming the argument that is not as described.

    Example:
        From a kernel and a bias for 4 classes to those for classes 0, 2 and 3:

        >>> import numpy as np
        >>> from misc_utils.tensor_sampling_utils import sample_tensors
        >>> kernel, bias = np.zeros((3, 3, 8, 4)), np.array([0.0, 0.1, 0.2, 0.3])
        >>> new_kernel, new_bias = sample_tensors([kernel, bias], [3, 3, 8, [0, 2, 3]], axes=[[3]])
        >>> new_kernel.shape, new_bias
        ((3, 3, 8, 3), array([0. , 0.2, 0.3]))
    """
    tensors = [np.asarray(tensor) for tensor in weights_list]
    if not tensors:
        raise ValueError("`weights_list` is empty; expected at least one tensor.")
    shape = tensors[0].shape
    _check_instructions(sampling_instructions, shape)
    all_axes = [list(range(len(shape))), *_checked_axes(tensors, axes)]
    if init is not None and len(init) != len(tensors):
        raise ValueError(
            f"`init` must have one entry for each of the {len(tensors)} tensors; got {init}."
        )

    rng = np.random.default_rng(rng)
    picks = [
        _pick(instruction, size, rng)
        for instruction, size in zip(sampling_instructions, shape, strict=True)
    ]
    # One axis that grows makes all of them filled arrays.
    grows = any(pick.size > len(pick.sources) for pick in picks)
    sampled = []
    for number, (tensor, own_axes) in enumerate(zip(tensors, all_axes, strict=True)):
        own_picks = [picks[axis] for axis in own_axes]
        values = tensor[np.ix_(*[pick.sources for pick in own_picks])]
        if grows:
            filler = "gaussian" if init is None else init[number]
            filled = _filler(filler, [pick.size for pick in own_picks], mean, stddev, rng)
            filled[np.ix_(*[pick.places for pick in own_picks])] = values
            values = filled
        sampled.append(values)
    return sampled


@dataclass(frozen=True)
class _Pick:
    """Entries `sources` of an axis go to the places `places` of a new axis of length `size`."""

    sources: np.ndarray
    places: np.ndarray
    size: int


def _pick(instruction: int | Sequence[int], size: int, rng: np.random.Generator) -> _Pick:
    if not isinstance(instruction, int):
        sources = np.array(instruction, dtype=np.intp)
        return _Pick(sources, np.arange(len(sources)), len(sources))
    if instruction <= size:
        return _Pick(_first_and_some(instruction, size, rng), np.arange(instruction), instruction)
    return _Pick(np.arange(size), _first_and_some(size, instruction, rng), instruction)


def _first_and_some(n: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """Choose `n` of `size` indices in ascending order, always with the first one.

    Index 0 of a layer of class scores is the background, which no detector can do without.
    """
    if n == size:
        return np.arange(size)
    others = rng.choice(np.arange(1, size), n - 1, replace=False)
    return np.concatenate([[0], np.sort(others)])


def _filler(
    init: str, shape: Sequence[int], mean: float, stddev: float, rng: np.random.Generator
) -> np.ndarray:
    if init not in _FILLERS:
        raise ValueError(f"`init` must hold {' or '.join(map(repr, _FILLERS))}; got {init!r}.")
    return np.zeros(shape) if init == "zeros" else rng.normal(mean, stddev, shape)


def _check_instructions(instructions: Sequence, shape: tuple[int, ...]) -> None:
    if not isinstance(instructions, list | tuple) or len(instructions) != len(shape):
        raise ValueError(
            "`sampling_instructions` must be a list or tuple with one entry for each of the "
            f"{len(shape)} axes of the first tensor, whose shape is {shape}; got {instructions!r}."
        )
    for axis, (instruction, size) in enumerate(zip(instructions, shape, strict=True)):
        if isinstance(instruction, list | tuple):
            wrong = [index for index in instruction if not -size <= index < size]
            if wrong:
                raise ValueError(
                    f"`sampling_instructions[{axis}]` has the indices {wrong}, but axis {axis} "
                    f"of the first tensor has {size} entries."
                )
        elif not isinstance(instruction, int) or isinstance(instruction, bool) or instruction < 1:
            raise ValueError(
                f"`sampling_instructions[{axis}]` must be a positive int, or a list or tuple of "
                f"indices; got {instruction!r} of type {type(instruction).__name__}."
            )


def _checked_axes(tensors: list[np.ndarray], axes: Sequence | None) -> list[list[int]]:
    """Return the axes of the further tensors, after comparing them with the first tensor."""
    further = tensors[1:]
    axes = [] if axes is None else axes
    if len(axes) != len(further):
        raise ValueError(
            f"`axes` must have one list for each of the {len(further)} tensors after the first; "
            f"got {axes!r}."
        )
    shape = tensors[0].shape
    for number, (tensor, own_axes) in enumerate(zip(further, axes, strict=True), start=1):
        fits = len(own_axes) == tensor.ndim and all(
            0 <= axis < len(shape) and shape[axis] == size
            for axis, size in zip(own_axes, tensor.shape, strict=True)
        )
        if not fits:
            raise ValueError(
                f"`axes[{number - 1}]` must name, for each axis of tensor {number} of shape "
                f"{tensor.shape}, the axis of equal length of the first tensor of shape {shape}; "
                f"got {own_axes!r}."
            )
    return [list(own_axes) for own_axes in axes]
