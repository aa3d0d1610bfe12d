"""What decides the next random numbers of a model's layers, such as dropout: read and written."""

from __future__ import annotations

from collections.abc import Mapping

import keras


def random_states(model: keras.Model) -> dict[str, list]:
    """Return the states of a model's random generators.

    Keras does not save them with a model.

    Arguments:
        model: Any model.

    Returns:
        What `restore_random_states` takes, made of what JSON can hold.
    """
    variables = _seed_variables(model)
    states = {"layers": [keras.ops.convert_to_numpy(variable).tolist() for variable in variables]}
    if keras.backend.backend() == "torch":  # whose dropout draws from PyTorch's own generators
        import torch

        states["torch"] = torch.get_rng_state().tolist()
        states["cuda"] = [each.tolist() for each in torch.cuda.get_rng_state_all()]
    return states


def restore_random_states(model: keras.Model, states: Mapping[str, list]) -> None:
    """Set the states of a model's random generators.

    Arguments:
        model: The model, or another one with the same layers.
        states: What `random_states` returned; without any, nothing changes.
    """
    for variable, value in zip(_seed_variables(model), states.get("layers", []), strict=False):
        variable.assign(value)
    if keras.backend.backend() == "torch" and "torch" in states:
        import torch

        torch.set_rng_state(torch.tensor(states["torch"], dtype=torch.uint8))
        if len(states["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(
                [torch.tensor(each, dtype=torch.uint8) for each in states["cuda"]]
            )


def _seed_variables(model: keras.Model) -> list:
    return [v for v in model.variables if v.path.endswith("seed_generator_state")]
