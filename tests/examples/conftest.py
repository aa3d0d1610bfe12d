"""What the tests of the scripts share: a few digit scenes, and an untrained detector for them."""

from __future__ import annotations

import keras
import pytest

from examples.digit_scenes import CLASSES, make_digit_scenes
from misc_utils.recipe import Recipe
from misc_utils.recipe_network import build_network


@pytest.fixture(scope="session")
def digit_scenes(tmp_path_factory):
    """A folder in Pascal VOC format: 10 images to train on, 4 for validation and 4 for tests."""
    folder = tmp_path_factory.mktemp("scenes") / "digits"
    return make_digit_scenes(folder, n_train=10, n_val=4, n_test=4, image_size=(96, 128))


@pytest.fixture(scope="session")
def detector_file(tmp_path_factory):
    """A `model.keras` with `classes.txt` beside it: SSD7 for digits that has learnt nothing."""
    keras.utils.set_random_seed(0)
    path = tmp_path_factory.mktemp("detector") / "model.keras"
    recipe = Recipe(backbone="ssd7", image_size=(64, 96))
    build_network(recipe, n_classes=len(CLASSES) - 1).save(path)
    path.with_name("classes.txt").write_text("\n".join(CLASSES[1:]) + "\n")
    return path


@pytest.fixture
def error_of(capsys):
    """A function that runs a script, which must end with code 2, and returns its line of error."""

    def run(main, *arguments):
        with pytest.raises(SystemExit) as stopped:
            main([str(argument) for argument in arguments])
        assert stopped.value.code == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1, lines
        return lines[0]

    return run
