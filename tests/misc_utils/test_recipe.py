"""Tests of training recipes."""

import argparse
import dataclasses
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from misc_utils.recipe import BACKBONES, Recipe, add_recipe_options, read_recipe, recipe_changes
from models import keras_ssd300, keras_ssd512

PRESETS = Path(__file__).parents[2] / "examples" / "presets"


def preset(*names):
    return read_recipe([PRESETS / f"{name}.toml" for name in names])


def changes(*arguments):
    parser = argparse.ArgumentParser()
    add_recipe_options(parser)
    return recipe_changes(parser.parse_args(arguments))


class TestPresets:
    """The numbers of the original: its solver and its network definitions."""

    def test_schedule_of_pascal_voc(self):
        recipe = preset("voc0712-ssd300")
        assert (recipe.optimizer, recipe.momentum, recipe.batch_size) == ("sgd", 0.9, 32)
        assert (recipe.learning_rate, recipe.decay_at) == (0.001, (80_000, 100_000))
        assert (recipe.steps, recipe.weight_decay, recipe.warmup_steps) == (120_000, 0.0005, 0)

    @pytest.mark.parametrize("name", ["coco-ssd300", "coco-ssd512"])
    def test_schedule_of_coco(self, name):
        assert preset(name).decay_at == (280_000, 360_000)
        assert preset(name).steps == 400_000

    @pytest.mark.parametrize(
        ("name", "size", "scales"),
        [
            ("voc0712-ssd300", 300, keras_ssd300.SCALES_VOC),
            ("voc0712-ssd512", 512, keras_ssd512.SCALES_VOC),
            ("coco-ssd300", 300, keras_ssd300.SCALES_COCO),
            ("coco-ssd512", 512, keras_ssd512.SCALES_COCO),
        ],
    )
    def test_anchors(self, name, size, scales):
        recipe = preset(name)
        assert (recipe.image_size, recipe.scales) == ((size, size), scales)
        n_long = {300: 3, 512: 4}[size]
        assert [len(ratios) for ratios in recipe.aspect_ratios] == [3, *[5] * n_long, 3, 3]

    def test_caffe_rules_go_on_top(self):
        recipe = preset("voc0712-ssd300", "caffe-faithful")
        assert recipe.differences(preset("voc0712-ssd300")) == [
            "caffe_network: True -> False",
            "augmentation: 'ssd-caffe' -> 'ssd'",
            "bias_rate: 2.0 -> 1.0",
            "mining: 'per_image' -> 'batch'",
            "max_candidates: 400 -> 0",
        ]

    @pytest.mark.parametrize("path", sorted(PRESETS.glob("*.toml")), ids=lambda path: path.stem)
    def test_every_one_is_read_and_commented(self, path):
        assert read_recipe([path])
        assert path.read_text(encoding="utf-8").startswith("# ")


def test_a_recipe_survives_being_written_and_read(tmp_path):
    recipe = preset("voc0712-ssd512").replace(
        classes=('a "b"', "ü", "7", "\x7f"),
        train=("C:\\data\\x.txt",),
        jit=True,
        class_weights=(1, 2.5),
    )
    (tmp_path / "recipe.toml").write_text(recipe.to_toml(), encoding="utf-8")
    assert read_recipe([tmp_path / "recipe.toml"]) == recipe


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), max_size=3))
def test_any_name_survives_being_written(names):
    recipe = Recipe(classes=tuple(names))
    assert tuple(tomllib.loads(recipe.to_toml())["classes"]) == recipe.classes


class TestChanges:
    def test_every_setting_has_an_option(self):
        parser = argparse.ArgumentParser()
        add_recipe_options(parser)
        text = parser.format_help()
        for setting in dataclasses.fields(Recipe):
            assert f"--{setting.name.replace('_', '-')}" in text

    def test_defaults_are_shown_as_they_are_typed(self, monkeypatch):
        monkeypatch.setenv("COLUMNS", "1000")
        parser = argparse.ArgumentParser()
        add_recipe_options(parser)
        text = parser.format_help()
        for end in ("pixels [300 300]", "VGG-16 [ssd300]", "too [true]", "Pascal VOC [empty]"):
            assert end in text

    def test_nothing_is_changed_by_default(self):
        assert changes() == {}

    def test_values_get_their_types(self):
        assert changes(
            *("--steps", "5", "--learning-rate", "1e-2", "--jit", "--no-flip"),
            *("--scales", "0.1", "0.2", "--aspect-ratios", "[1,2]", "[1]", "--classes", "1", "two"),
        ) == {
            "steps": 5,
            "learning_rate": 0.01,
            "jit": True,
            "flip": False,
            "scales": [0.1, 0.2],
            "aspect_ratios": [[1, 2], [1]],
            "classes": ["1", "two"],
        }

    @pytest.mark.parametrize(
        ("change", "expected"),
        [
            ({"steps": 1200}, (800, 1000)),
            ({"steps": 1}, (1,)),
            ({"steps": 1200, "decay_at": [5]}, (5,)),
            ({"batch_size": 16}, (80_000, 100_000)),
        ],
    )
    def test_decays_keep_their_share_of_the_steps(self, change, expected):
        recipe = read_recipe([PRESETS / "voc0712-ssd300.toml"], change)
        assert recipe.decay_at == expected

    @pytest.mark.parametrize(
        ("change", "expected"),
        [
            ({"steps": 100}, 3),
            ({"steps": 20_000}, 600),
            ({"steps": 100, "warmup_steps": 50}, 50),
            ({"steps": 10_000}, 300),
        ],
    )
    def test_so_does_the_warm_up(self, change, expected):
        assert read_recipe([PRESETS / "ssd7.toml"], change).warmup_steps == expected

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("warmup_steps = 'x'", "`warmup_steps` must be a whole number"),
            ("decay_at = 5", "`decay_at` must be a list"),
            ("steps = 0", "`steps` must be at least 1; got -7"),
        ],
    )
    def test_wrong_values_are_named_all_the_same(self, line, message, tmp_path):
        (tmp_path / "wrong.toml").write_text(line)
        with pytest.raises(ValueError, match=message):
            read_recipe([tmp_path / "wrong.toml"], {"steps": -7})

    @pytest.mark.parametrize("backbone", BACKBONES[1:])
    def test_another_network_has_its_own_anchors(self, backbone):
        recipe = read_recipe([PRESETS / "voc0712-ssd300.toml"], {"backbone": backbone})
        assert recipe.scales == recipe.aspect_ratios == ()
        given_too = {"backbone": backbone, "scales": [0.2, 0.3]}
        assert read_recipe([PRESETS / "voc0712-ssd300.toml"], given_too).scales == (0.2, 0.3)

    def test_the_same_network_keeps_them(self):
        recipe = read_recipe([PRESETS / "voc0712-ssd300.toml"], {"network": "ssd300"})
        assert recipe.scales == keras_ssd300.SCALES_VOC


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("steps", 0, "at least 1"),
        ("steps", 1.5, "a whole number"),
        ("batch_size", True, "a whole number"),
        ("learning_rate", -1.0, "must not be negative"),
        ("confidence_thresh", 50.0, "from 0 to 1"),
        ("neg_iou_limit", float("nan"), "from 0 to 1"),
        ("learning_rate", float("nan"), "must not be negative"),
        ("learning_rate", "fast", "a number"),
        ("optimizer", "lion", "one of sgd, adam, adamw"),
        ("flip", 1, "true or false"),
        ("scales", 0.1, "a list"),
        ("scales", [0.1, -0.2], "positive numbers"),
        ("aspect_ratios", [[1, "2"]], "positive numbers"),
        ("image_size", [300], "height and width"),
        ("image_size", [300.5, 300], "height and width"),
        ("decay_at", [2, 1], "ascend"),
        ("decay_at", [2, 2], "ascend"),
        ("validate_every", 1500, "multiple of `checkpoint_every`"),
    ],
)
def test_bad_values_are_explained(setting, value, message):
    with pytest.raises(ValueError, match=message) as caught:
        Recipe(**{setting: value})
    assert f"`{setting}`" in str(caught.value)


def test_unknown_settings_name_their_file(tmp_path):
    (tmp_path / "mine.toml").write_text("stepps = 3\n")
    with pytest.raises(ValueError, match=r"mine\.toml.*stepps"):
        read_recipe([tmp_path / "mine.toml"])


def test_a_file_that_is_no_toml_is_named(tmp_path):
    (tmp_path / "mine.toml").write_text("steps: 3\n")
    with pytest.raises(ValueError, match=r"mine\.toml' is no TOML"):
        read_recipe([tmp_path / "mine.toml"])
    with pytest.raises(FileNotFoundError, match=r"none\.toml"):
        read_recipe([tmp_path / "none.toml"])
