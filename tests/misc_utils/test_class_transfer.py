"""Transferring classes: kept classes keep their logits, everything else its weights."""

from __future__ import annotations

import h5py
import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from misc_utils.class_transfer import transfer_weights
from misc_utils.model_weights import assign_weights, weights_by_layer
from misc_utils.predictor_heads import find_predictor_heads
from misc_utils.tensor_sampling_utils import sample_tensors
from models.keras_ssd7 import build_model
from ssd_encoder_decoder.class_names import get_class_names
from tests.legacy_files import keras2_weights, write_keras2_weights

SIZE = (64, 96, 3)
HEADS = ("classes4", "classes5", "classes6", "classes7")
COCO = {1: 3, 2: 80, 3: 17}


def randomised(model: keras.Model, seed: int) -> keras.Model:
    """Give a model random weights everywhere, also where Keras starts with zeros or ones."""
    rng = np.random.default_rng(seed)
    weights = {
        layer: [rng.uniform(0.01, 0.2, array.shape).astype(np.float32) for array in arrays]
        for layer, arrays in weights_by_layer(model).items()
    }
    assign_weights(model, weights, "random numbers")
    return model


def logits(model: keras.Model, image: np.ndarray) -> np.ndarray:
    """Return the class scores before the softmax, `(n_boxes, n_classes + 1)`."""
    before = keras.Model(model.input, model.get_layer("classes_concat").output)
    return keras.ops.convert_to_numpy(before(image))[0]


def vgg_like(n_classes: int, n_boxes: int = 4) -> keras.Model:
    """Make a small model with the predictor layers of SSD300, with normalised and plain sources."""
    inputs = keras.Input((6, 6, 3))
    x = keras.layers.Conv2D(5, 3, padding="same", name="conv1_1")(inputs)
    outputs = []
    for source in ("conv4_3_norm", "fc7"):
        for kind, n in (("conf", n_boxes * (n_classes + 1)), ("loc", n_boxes * 4)):
            outputs.append(keras.layers.Conv2D(n, 3, name=f"{source}_mbox_{kind}")(x))
    return keras.Model(inputs, outputs)


# ---------------------------------------------------------------------------- round trips


@pytest.mark.parametrize(
    ("before", "after", "class_map"),
    [
        (80, 3, COCO),
        (20, 12, {k: 21 - k for k in range(1, 11)} | {11: None}),
        (3, 5, {5: 1, 2: 2, 3: 3}),
        (4, 4, {1: 4, 2: 3, 3: 2, 4: 1}),
        (2, 3, {1: 2, 2: 2, 3: 2}),
        (5, 2, {}),
    ],
)
def test_kept_classes_have_the_logits_of_the_source(before, after, class_map):
    source = randomised(build_model(SIZE, before), 1)
    model = randomised(build_model(SIZE, after), 2)
    own = weights_by_layer(model)
    report = transfer_weights(source, model, class_map)

    image = np.random.default_rng(3).uniform(0, 1, (1, *SIZE)).astype(np.float32)
    new, old = logits(model, image), logits(source, image)
    kept = {0: 0} | {target: other for target, other in class_map.items() if other is not None}
    for target, other in kept.items():
        np.testing.assert_allclose(new[:, target], old[:, other], rtol=1e-5)
    # Classes that start afresh have the model's own weights, all other layers the source's.
    afresh = sorted(set(range(after + 1)) - set(kept))
    for layer, arrays in weights_by_layer(model).items():
        for array, was, other in zip(
            arrays, own[layer], weights_by_layer(source)[layer], strict=True
        ):
            if layer in HEADS:
                split = (*array.shape[:-1], 4, after + 1)
                np.testing.assert_array_equal(
                    array.reshape(split)[..., afresh], was.reshape(split)[..., afresh]
                )
            else:
                np.testing.assert_array_equal(array, other)
    assert report.classes == {target: kept.get(target) for target in range(1, after + 1)}
    assert list(report.resampled) == list(HEADS)
    assert len(report.copied) == 18
    assert not report.fresh


@pytest.fixture(scope="module")
def pair():
    return randomised(vgg_like(7), 1), vgg_like(4)


@settings(max_examples=25)
@given(class_map=st.dictionaries(st.integers(1, 4), st.none() | st.integers(1, 7)))
def test_any_map_agrees_with_sampling_channels_by_hand(pair, class_map):
    source, model = pair
    randomised(model, 2)
    own, theirs = weights_by_layer(model), weights_by_layer(source)
    transfer_weights(source, model, class_map)
    result = weights_by_layer(model)
    for layer in ("conv4_3_norm_mbox_conf", "fc7_mbox_conf"):
        kernel, bias = (
            np.concatenate([ours, other], axis=-1)
            for ours, other in zip(own[layer], theirs[layer], strict=True)
        )
        channels = []  # of the model's channels followed by the source's
        for box in range(4):
            for target in range(5):
                other = 0 if target == 0 else class_map.get(target)
                channels.append(box * 5 + target if other is None else 20 + box * 8 + other)
        instructions = [*kernel.shape[:-1], channels]
        expected = sample_tensors([kernel, bias], instructions, axes=[[3]])
        for array, values in zip(result[layer], expected, strict=True):
            np.testing.assert_array_equal(array, values)


def test_there_and_back():
    model = randomised(build_model(SIZE, 3), 1)
    larger, again = build_model(SIZE, 6), build_model(SIZE, 3)
    transfer_weights(model, larger, {4: 1, 5: 2, 6: 3})
    transfer_weights(larger, again, {1: 4, 2: 5, 3: 6})
    for layer, arrays in weights_by_layer(again).items():
        assert all(map(np.array_equal, arrays, weights_by_layer(model)[layer])), layer


def test_all_kinds_of_sources(tmp_path):
    source = randomised(build_model(SIZE, 5), 1)
    source.save(tmp_path / "full.keras")
    source.save_weights(tmp_path / "only.weights.h5")
    with h5py.File(tmp_path / "legacy.h5", "w") as file:
        write_keras2_weights(file, keras2_weights(source))
    results = []
    for kind in (source, *(tmp_path / n for n in ("full.keras", "only.weights.h5", "legacy.h5"))):
        model = randomised(build_model(SIZE, 2), 2)
        report = transfer_weights(kind, model, {1: 5, 2: 1})
        results.append(weights_by_layer(model))
        expected = f"model {source.name!r}" if kind is source else f"'{kind}'"
        assert report.source == expected
    for other in results[1:]:
        for layer, arrays in other.items():
            assert all(map(np.array_equal, arrays, results[0][layer])), layer


# ---------------------------------------------------------------------------- names and report


@pytest.mark.parametrize("background", [(), ("background",)])
def test_classes_by_name(background):
    source, model = randomised(vgg_like(3), 1), vgg_like(2)
    report = transfer_weights(
        source,
        model,
        {"van": "car", "bike": None},
        class_names=(*background, "van", "bike"),
        source_class_names=(*background, "person", "dog", "car"),
    )
    assert report.classes == {1: 3, 2: None}
    assert "class 1 (van) <- 3 (car)" in str(report)
    assert "class 2 (bike) <- fresh start" in str(report)


def test_without_a_map_equal_names_are_paired():
    report = transfer_weights(
        vgg_like(3),
        vgg_like(2),
        class_names=["dog", "bike"],
        source_class_names=["person", "dog", "car"],
    )
    assert report.classes == {1: 2, 2: None}


@pytest.mark.parametrize("as_file", [False, True])
def test_names_that_models_know_need_not_be_given(as_file, tmp_path):
    source = randomised(build_model(SIZE, 3, class_names=["background", "cat", "dog", "car"]), 1)
    model = build_model(SIZE, 2, class_names=["background", "car", "bike"])
    if as_file:
        source.save(tmp_path / "source.keras")
    report = transfer_weights(tmp_path / "source.keras" if as_file else source, model)
    assert report.classes == {1: 3, 2: None}
    assert "class 1 (car) <- 3 (car)" in str(report)
    assert get_class_names(model) == ["background", "car", "bike"]
    # Names that are given win.
    given = transfer_weights(source, model, source_class_names=["bike", "car", "cat"])
    assert given.classes == {1: 2, 2: 1}


def test_names_and_ids_may_be_mixed():
    report = transfer_weights(
        vgg_like(3), vgg_like(2), {np.int64(2): "dog"}, source_class_names=["person", "dog", "car"]
    )
    assert report.classes == {1: None, 2: 2}


def test_the_report_is_readable(tmp_path):
    source = vgg_like(80)
    with h5py.File(tmp_path / "coco.h5", "w") as file:
        weights = keras2_weights(source)
        weights["fc8"] = {"fc8/kernel:0": np.zeros(2)}
        del weights["conv1_1"]
        write_keras2_weights(file, weights)
    report = transfer_weights(tmp_path / "coco.h5", vgg_like(2), {1: 3})
    assert str(report).splitlines() == [
        f"'{tmp_path / 'coco.h5'}': 80 classes -> 2 classes",
        "copied: 2 layers",
        "sub-sampled: conv4_3_norm_mbox_conf, 324 -> 12 channels",
        "sub-sampled: fc7_mbox_conf, 324 -> 12 channels",
        "fresh start: conv1_1, not in the source",
        "only in the source: fc8",
        "class 1 <- 3",
        "class 2 <- fresh start",
    ]
    assert "up-sampled: fc7_mbox_conf, 4 -> 8" in str(
        transfer_weights(vgg_like(1, 2), vgg_like(3, 2), {})
    )


# ---------------------------------------------------------------------------- refusals


def check_refused(source, model, message, *arguments, **keywords):
    before = weights_by_layer(model)
    with pytest.raises(ValueError, match=message):
        transfer_weights(source, model, *arguments, **keywords)
    for layer, arrays in weights_by_layer(model).items():
        assert all(map(np.array_equal, arrays, before[layer])), layer


@pytest.mark.parametrize(
    ("class_map", "names", "message"),
    [
        ({3: 1}, {}, "class 3, but the classes of the model are 1 to 2"),
        ({1: 4}, {}, "class 4, but the classes of the source are 1 to 3"),
        ({0: 0}, {}, "the background, 0, is always kept"),
        ({True: 1}, {}, "class True"),
        ({1.5: 1}, {}, "class 1.5"),
        ({"dog": 1}, {}, "has the name 'dog': pass `class_names` for the model"),
        ({1: "dog"}, {}, "has the name 'dog': pass `source_class_names` for the source"),
        ({"cat": 1}, {"class_names": ["dog", "car"]}, "'cat', which .* has 0 times: dog, car"),
        ({"dog": 1}, {"class_names": ["dog", "dog"]}, "'dog', which .* has 2 times"),
        ({"dog": 1, 1: 2}, {"class_names": ["dog", "car"]}, r"lists class 1 \(dog\) twice"),
        ({}, {"class_names": ["dog"]}, "must have 2 names, or 3 with the background first; got 1"),
        ({}, {"source_class_names": "abcdef"}, "must have 3 names"),
        (None, {"class_names": ["dog", "car"]}, "Without a `class_map` classes are paired by name"),
    ],
)
def test_wrong_classes(class_map, names, message):
    check_refused(vgg_like(3), vgg_like(2), message, class_map, **names)


def test_another_number_of_boxes():
    source, model = vgg_like(3, n_boxes=6), vgg_like(2)
    check_refused(source, model, "fc7_mbox_conf: 6 boxes a cell in the source, 4 in the model", {})
    before = weights_by_layer(model)
    report = transfer_weights(source, model, {1: 1}, skip_mismatch=True)
    assert report.copied == ("conv1_1",)
    assert len(report.fresh) == 4
    assert "fresh start: fc7_mbox_conf, 6 boxes a cell" in str(report)
    assert np.array_equal(weights_by_layer(model)["fc7_mbox_conf"][0], before["fc7_mbox_conf"][0])


def test_other_image_channels():
    check_refused(
        build_model((64, 96, 1), 3),
        build_model(SIZE, 2),
        r"conv1: \(5, 5, 1, 32\) \+ \(32,\) in the source, \(5, 5, 3, 32\)",
        {},
    )


def test_a_layer_of_scores_without_its_layer_of_offsets(tmp_path):
    weights = keras2_weights(vgg_like(2))
    del weights["fc7_mbox_loc"]
    with h5py.File(tmp_path / "w.h5", "w") as file:
        write_keras2_weights(file, weights)
    message = "fc7_mbox_conf: without a fitting layer 'fc7_mbox_loc' beside it in the source"
    check_refused(tmp_path / "w.h5", vgg_like(2), message, {})


def test_models_without_predictor_layers():
    inputs = keras.Input((4,))
    plain = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    check_refused(plain, vgg_like(2), "The source model .* has no layers of class scores", {})
    check_refused(vgg_like(2), plain, "The model has no layers of class scores", {})


def test_layers_that_disagree_about_the_number_of_classes(tmp_path):
    weights = keras2_weights(vgg_like(3))
    weights["fc7_mbox_conf"] = keras2_weights(vgg_like(5))["fc7_mbox_conf"]
    with h5py.File(tmp_path / "w.h5", "w") as file:
        write_keras2_weights(file, weights)
    message = "different numbers of classes: {'conv4_3_norm_mbox_conf': 3, 'fc7_mbox_conf': 5}"
    check_refused(tmp_path / "w.h5", vgg_like(2), message, {})


def test_the_heads_of_ssd7_are_those_that_are_tested():
    shapes = {
        layer: [array.shape for array in arrays]
        for layer, arrays in weights_by_layer(build_model(SIZE, 2)).items()
    }
    assert tuple(find_predictor_heads(shapes)) == HEADS
