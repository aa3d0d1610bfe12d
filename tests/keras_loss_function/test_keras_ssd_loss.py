"""The multibox loss: recorded losses and gradients, a slow reference, and what must always hold."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_loss_function.box_losses import box_losses
from keras_loss_function.keras_ssd_loss import LossOfEachImage, SSDLoss
from tests.gradients import gradient_by_prediction
from tests.slow_loss import slow_loss

N_CLASSES = 4  # with the background
POSITIVE, NEGATIVE, NEUTRAL = "positive", "negative", "neutral"


def value(tensor) -> np.ndarray:
    return keras.ops.convert_to_numpy(tensor)


def gradient(loss: SSDLoss, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
    """Return the gradient of the summed losses by the prediction."""
    return gradient_by_prediction(lambda tensor: loss.compute_loss(y_true, tensor), y_pred)


def random_batch(
    rng: np.random.Generator,
    batch_size: int = 3,
    n_boxes: int = 20,
    shares: tuple[float, float, float] = (0.2, 0.6, 0.2),
) -> tuple[np.ndarray, np.ndarray]:
    """Draw targets with positive, negative and neutral boxes in these shares, and predictions."""
    y_true = np.zeros((batch_size, n_boxes, N_CLASSES + 12), np.float32)
    kinds = rng.choice(3, (batch_size, n_boxes), p=shares)
    classes = np.where(kinds == 0, rng.integers(1, N_CLASSES, kinds.shape), 0)
    y_true[..., :N_CLASSES] = np.eye(N_CLASSES)[classes] * (kinds < 2)[..., np.newaxis]
    y_true[..., -12:-8] = rng.normal(size=(batch_size, n_boxes, 4)) * (kinds == 0)[..., np.newaxis]
    logits = rng.normal(0, 2, (batch_size, n_boxes, N_CLASSES))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    rest = rng.normal(0, 1.5, (batch_size, n_boxes, 12))
    return y_true, np.concatenate([probabilities, rest], axis=-1).astype(np.float32)


# ---------------------------------------------------------------------------- recorded numbers


def recorded_pair(recorded, case) -> list[np.ndarray]:
    """Return targets and predictions; the last eight columns, which play no role, are noise."""
    rng = np.random.default_rng(case["case"])
    pair = (recorded.arrays[case["y_true"]], recorded.arrays[case["y_pred"]])
    return [
        np.concatenate([a, rng.normal(size=(*a.shape[:2], 8))], axis=-1).astype(np.float32)
        for a in pair
    ]


def test_recorded_losses(golden):
    recorded = golden("ssd_loss")
    cases = [case for case in recorded.info["cases"] if "name" in case]
    for case in cases:
        y_true, y_pred = recorded_pair(recorded, case)
        loss = SSDLoss(**case["kwargs"])
        for made, name in (
            (loss.compute_loss(y_true, y_pred), "compute_loss"),
            (loss.log_loss(y_true[..., :-12], y_pred[..., :-12]), "log_loss"),
            (loss.smooth_L1_loss(y_true[..., -12:-8], y_pred[..., -12:-8]), "smooth_L1_loss"),
        ):
            expected = recorded.arrays[case[name]]
            np.testing.assert_allclose(
                value(made), expected, rtol=1e-5, atol=1e-5, err_msg=f"{case['name']}: {name}"
            )
    assert len(cases) == 32


def test_recorded_gradients(golden):
    recorded = golden("ssd_loss")
    cases = [case for case in recorded.info["cases"] if case.get("grad")]
    for case in cases:
        made = gradient(SSDLoss(**case["kwargs"]), *recorded_pair(recorded, case))
        expected = recorded.arrays[case["grad"]]
        np.testing.assert_allclose(
            made[..., :-8], expected, rtol=1e-5, atol=1e-5, err_msg=case["name"]
        )
        np.testing.assert_array_equal(made[..., -8:], 0)
    assert len(cases) == 6


def test_recorded_smooth_l1(golden):
    recorded = golden("ssd_loss")
    case = next(case for case in recorded.info["cases"] if case["case"] == "smooth_L1_4d")
    made = SSDLoss().smooth_L1_loss(
        recorded.arrays[case["y_true"]], recorded.arrays[case["y_pred"]]
    )
    np.testing.assert_allclose(value(made), recorded.arrays[case["output"]], rtol=1e-5, atol=1e-5)


# ---------------------------------------------------------------------------- the slow reference


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    neg_pos_ratio=st.sampled_from([0, 1, 3, 0.7, 2.5, 100]),
    n_neg_min=st.sampled_from([0, 1, 7, 1000]),
    alpha=st.sampled_from([0, 1, 0.5, 2]),
    mining=st.sampled_from(["batch", "per_image"]),
    shares=st.sampled_from([(0.2, 0.6, 0.2), (0, 0.8, 0.2), (0.5, 0, 0.5), (0.05, 0.95, 0)]),
    ties=st.booleans(),
)
def test_losses_are_those_of_the_slow_reference(seed, shares, ties, **arguments):
    y_true, y_pred = random_batch(np.random.default_rng(seed), shares=shares)
    if ties:
        y_pred[..., :N_CLASSES] = np.round(y_pred[..., :N_CLASSES], 1)
    made = value(SSDLoss(**arguments).compute_loss(y_true, y_pred))
    expected = slow_loss(y_true, y_pred, **arguments)
    assert made.dtype == np.float32
    np.testing.assert_allclose(made, expected, rtol=1e-4, atol=1e-4)


def boxes_of(kinds: list[str]) -> np.ndarray:
    """Make the targets of one image: its positives are of class 1, with offsets of 0."""
    classes = {POSITIVE: [0, 1, 0, 0], NEGATIVE: [1, 0, 0, 0], NEUTRAL: [0, 0, 0, 0]}
    return np.array([classes[kind] + [0] * 12 for kind in kinds], np.float32)


def certain_of_background(probabilities: list[float]) -> np.ndarray:
    """Make the predictions of one image: p for the background, the rest for class 1."""
    return np.array([[p, 1 - p, 0, 0] + [0] * 12 for p in probabilities], np.float32)


@pytest.mark.parametrize(
    ("mining", "expected"),
    [
        # One positive: three negatives are kept, the hardest of the batch; all are in image 1.
        ("batch", [0, 2 * 3 * np.log(4)]),
        # Caffe's rule: image 0, with its positive, keeps its own three; image 1 has none to keep.
        ("per_image", [2 * 3 * np.log(2), 0]),
    ],
)
def test_mining_by_hand(mining, expected):
    y_true = np.stack([boxes_of([POSITIVE] + [NEGATIVE] * 4), boxes_of([NEGATIVE] * 5)])
    y_pred = np.stack(
        [certain_of_background([0] + [0.5] * 4), certain_of_background([0.25] * 3 + [0.9] * 2)]
    )
    losses = value(SSDLoss(mining=mining).compute_loss(y_true, y_pred))
    np.testing.assert_allclose(losses, expected, rtol=1e-5, atol=1e-6)


def test_the_mean_over_the_batch_is_the_loss_of_the_paper():
    y_true, y_pred = random_batch(np.random.default_rng(3))
    n_positive = y_true[..., 1:N_CLASSES].sum()
    loss = SSDLoss(neg_pos_ratio=1000, alpha=0.5)  # every negative counts
    classes = -(y_true[..., :N_CLASSES] * np.log(y_pred[..., :N_CLASSES])).sum()
    distances = np.abs(y_true - y_pred)[..., -12:-8]
    boxes = np.where(distances < 1, 0.5 * distances**2, distances - 0.5).sum(axis=-1)
    boxes = (boxes * y_true[..., 1:N_CLASSES].any(axis=-1)).sum()
    expected = (classes + 0.5 * boxes) / n_positive
    np.testing.assert_allclose(value(loss(y_true, y_pred)), expected, rtol=1e-5)
    np.testing.assert_allclose(value(loss.compute_loss(y_true, y_pred)).mean(), expected, rtol=1e-5)


# ---------------------------------------------------------------------------- options


@given(seed=st.integers(0, 2**32 - 1), mining=st.sampled_from(["batch", "per_image"]))
@settings(max_examples=20)
def test_options_that_say_nothing_change_nothing(seed, mining):
    y_true, y_pred = random_batch(np.random.default_rng(seed))
    plain = SSDLoss(mining=mining)
    same = SSDLoss(
        mining=mining, class_weights=[1] * N_CLASSES, label_smoothing=0, box_loss="smooth_l1"
    )
    np.testing.assert_array_equal(
        value(same.compute_loss(y_true, y_pred)), value(plain.compute_loss(y_true, y_pred))
    )


def one_positive_and_four_negatives() -> tuple[np.ndarray, np.ndarray]:
    y_true = boxes_of([POSITIVE] + [NEGATIVE] * 4)[np.newaxis]
    y_pred = certain_of_background([0.25, 0.5, 0.9, 0.8, 0.75])[np.newaxis]
    return y_true, y_pred


def test_class_weights_by_hand():
    y_true, y_pred = one_positive_and_four_negatives()
    # Of class 1 with p = 0.75; the three hardest negatives have p = 0.5, 0.75 and 0.8.
    expected = 10 * -np.log(0.75) + 0.5 * -np.log([0.5, 0.75, 0.8]).sum()
    made = SSDLoss(class_weights=[0.5, 10, 99, 99]).compute_loss(y_true, y_pred)
    np.testing.assert_allclose(value(made), [expected], rtol=1e-6)
    # A background that weighs nothing is mined all the same, and costs nothing.
    made = SSDLoss(class_weights=[0, 1, 1, 1]).compute_loss(y_true, y_pred)
    np.testing.assert_allclose(value(made), [-np.log(0.75)], rtol=1e-6)


def test_label_smoothing_by_hand():
    y_true, y_pred = one_positive_and_four_negatives()
    y_pred[..., :N_CLASSES] = 0.96 * y_pred[..., :N_CLASSES] + 0.01  # no probability of 0
    p = y_pred[0, :, :N_CLASSES].astype(np.float64)
    smooth = [0.025, 0.925, 0.025, 0.025]  # 0.1 spread over four classes
    expected = -(smooth * np.log(p[0])).sum() - np.log(p[[1, 3, 4], 0]).sum()
    made = SSDLoss(label_smoothing=0.1).compute_loss(y_true, y_pred)
    np.testing.assert_allclose(value(made), [expected], rtol=1e-6)


def test_neutral_boxes_stay_neutral():
    y_true, y_pred = random_batch(np.random.default_rng(0), shares=(0, 0, 1))
    loss = SSDLoss(label_smoothing=0.1, class_weights=[1, 2, 3, 4], box_loss="giou", n_neg_min=5)
    np.testing.assert_array_equal(value(loss.compute_loss(y_true, y_pred)), 0)


@pytest.mark.parametrize("kind", ["giou", "diou", "ciou"])
def test_boxes_of_positives_are_compared(kind):
    y_true, y_pred = random_batch(np.random.default_rng(0))
    anchors = np.float32([0.5, 0.4, 0.2, 0.3, 0.1, 0.1, 0.2, 0.2])
    y_true[..., -8:] = y_pred[..., -8:] = anchors
    loss = SSDLoss(box_loss=kind)
    each = value(box_losses(kind, y_true[..., -12:], y_pred[..., -12:], "centroids"))
    positive = y_true[..., 1:N_CLASSES].any(axis=-1)
    expected = (each * positive).sum(axis=-1) / positive.sum() * len(y_true)
    np.testing.assert_allclose(value(loss.localization_loss(y_true, y_pred)), expected, rtol=1e-5)
    np.testing.assert_array_equal(
        value(loss.classification_loss(y_true, y_pred)),
        value(SSDLoss().classification_loss(y_true, y_pred)),
    )


def test_class_weights_for_another_number_of_classes_are_refused():
    y_true, y_pred = random_batch(np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"`class_weights`.*4 for this model; got 3"):
        SSDLoss(class_weights=[1, 2, 3]).compute_loss(y_true, y_pred)


# ---------------------------------------------------------------------------- what always holds


def test_nothing_to_learn_costs_nothing():
    y_true, _ = random_batch(np.random.default_rng(0), shares=(0.3, 0.7, 0))
    np.testing.assert_array_equal(value(SSDLoss().compute_loss(y_true, y_true)), 0)
    np.testing.assert_array_equal(gradient(SSDLoss(alpha=3), y_true, y_true)[..., -12:], 0)


def test_a_batch_of_neutral_boxes_costs_nothing():
    y_true, y_pred = random_batch(np.random.default_rng(0), shares=(0, 0, 1))
    for mining in ("batch", "per_image"):
        loss = SSDLoss(n_neg_min=5, mining=mining)
        np.testing.assert_array_equal(value(loss.compute_loss(y_true, y_pred)), 0)
        np.testing.assert_array_equal(gradient(loss, y_true, y_pred), 0)


@pytest.mark.parametrize("mining", ["batch", "per_image"])
def test_only_negative_images(mining):
    y_true, y_pred = random_batch(np.random.default_rng(0), shares=(0, 1, 0))
    np.testing.assert_array_equal(value(SSDLoss(mining=mining).compute_loss(y_true, y_pred)), 0)
    losses = value(SSDLoss(n_neg_min=3, mining=mining).compute_loss(y_true, y_pred))
    assert np.isfinite(losses).all()
    assert losses.sum() > 0


@given(seed=st.integers(0, 2**32 - 1), mining=st.sampled_from(["batch", "per_image"]))
def test_only_boxes_that_count_have_a_gradient(seed, mining):
    y_true, y_pred = random_batch(np.random.default_rng(seed))
    gradients = gradient(SSDLoss(mining=mining, neg_pos_ratio=1), y_true, y_pred)
    positive = y_true[..., 1:N_CLASSES].any(axis=-1)
    negative = y_true[..., 0] > 0
    n_kept = gradients[negative].any(axis=-1).sum()
    assert n_kept <= positive.sum()
    np.testing.assert_array_equal(gradients[~positive & ~negative], 0)
    np.testing.assert_array_equal(gradients[negative][:, -12:], 0)  # background has no box
    assert gradients[positive].any(axis=-1).all()


@given(seed=st.integers(0, 2**32 - 1), mining=st.sampled_from(["batch", "per_image"]))
def test_the_order_of_boxes_and_images_does_not_matter(seed, mining):
    rng = np.random.default_rng(seed)
    y_true, y_pred = random_batch(rng)
    loss = SSDLoss(mining=mining)
    expected = value(loss.compute_loss(y_true, y_pred))
    boxes, images = rng.permutation(y_true.shape[1]), rng.permutation(len(y_true))
    permuted = value(loss.compute_loss(y_true[:, boxes][images], y_pred[:, boxes][images]))
    np.testing.assert_allclose(permuted, expected[images], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mining", ["batch", "per_image"])
def test_a_batch_twice_costs_the_same(mining):
    y_true, y_pred = random_batch(np.random.default_rng(8))
    loss = SSDLoss(mining=mining)
    once = value(loss(y_true, y_pred))
    twice = value(loss(np.concatenate([y_true, y_true]), np.concatenate([y_pred, y_pred])))
    np.testing.assert_allclose(twice, once, rtol=1e-5)


extreme_numbers = st.sampled_from([0, 1, -1, 1e-30, 1e30, -1e30, 65504, 1e-7])


@given(
    seed=st.integers(0, 2**32 - 1),
    offsets=st.lists(extreme_numbers, min_size=4, max_size=4),
    probabilities=st.lists(st.sampled_from([0, 1, 1e-38, 0.5]), min_size=4, max_size=4),
    mining=st.sampled_from(["batch", "per_image"]),
    shares=st.sampled_from([(0.2, 0.6, 0.2), (0, 1, 0), (1, 0, 0), (0, 0, 1)]),
)
def test_extreme_predictions_give_finite_losses_and_gradients(
    seed, offsets, probabilities, mining, shares
):
    y_true, y_pred = random_batch(np.random.default_rng(seed), shares=shares)
    y_pred[:, ::2, -12:-8] = offsets
    y_pred[:, ::3, :N_CLASSES] = probabilities
    loss = SSDLoss(mining=mining, n_neg_min=2)
    assert np.isfinite(value(loss.compute_loss(y_true, y_pred))).all()
    assert np.isfinite(gradient(loss, y_true, y_pred)).all()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_computed_in_float32(dtype):
    y_true, y_pred = random_batch(np.random.default_rng(0))
    y_pred[0, 0, :N_CLASSES] = [0, 1, 0, 0]
    half = [keras.ops.cast(tensor, dtype) for tensor in (y_true, y_pred)]
    rounded = [value(keras.ops.cast(tensor, "float32")) for tensor in half]
    losses = SSDLoss().compute_loss(*half)
    assert keras.backend.standardize_dtype(losses.dtype) == "float32"
    np.testing.assert_array_equal(value(losses), value(SSDLoss().compute_loss(*rounded)))


# ---------------------------------------------------------------------------- use with Keras


def test_numbers_of_any_kind_and_one_object_used_again_and_again():
    # The original wanted an int, an int and a float, and each object worked once in graph mode.
    tf = pytest.importorskip("tensorflow")
    y_true, y_pred = random_batch(np.random.default_rng(0))
    loss = SSDLoss(neg_pos_ratio=np.float64(2.5), n_neg_min=np.int64(3), alpha=1)
    expected = slow_loss(y_true, y_pred, 2.5, 3, 1)
    in_graph = tf.function(loss.compute_loss, reduce_retracing=True)
    for n in (3, 3, 2, 1):
        if n == 3:
            np.testing.assert_allclose(in_graph(y_true, y_pred), expected, rtol=1e-4)
        assert in_graph(y_true[:n], y_pred[:n]).shape == (n,)
    np.testing.assert_allclose(value(loss.compute_loss(y_true, y_pred)), expected, rtol=1e-4)


def small_model() -> keras.Model:
    """Make a model whose output has the layout of a prediction tensor."""
    inputs = keras.Input((3,))
    x = keras.layers.Dense(20 * (N_CLASSES + 12), activation="sigmoid")(inputs)
    return keras.Model(inputs, keras.layers.Reshape((20, N_CLASSES + 12))(x))


@pytest.mark.parametrize("as_method", [False, True])
def test_training_saving_and_loading(as_method, tmp_path):
    loss = SSDLoss(neg_pos_ratio=2, n_neg_min=1, alpha=0.5, mining="per_image")
    y_true, _ = random_batch(np.random.default_rng(0))
    x = np.random.default_rng(1).normal(size=(3, 3)).astype(np.float32)
    model = small_model()
    model.compile("sgd", loss=loss.compute_loss if as_method else loss)
    expected = np.mean(slow_loss(y_true, model.predict(x, verbose=0), 2, 1, 0.5, "per_image"))
    np.testing.assert_allclose(model.evaluate(x, y_true, verbose=0), expected, rtol=1e-4)
    history = model.fit(x, y_true, epochs=10, verbose=0).history["loss"]
    assert history[-1] < history[0]

    model.save(tmp_path / "model.keras")
    # Existing scripts name the method among the custom objects; nothing needs to be named.
    for custom_objects in (None, {"compute_loss": SSDLoss().compute_loss}):
        loaded = keras.saving.load_model(tmp_path / "model.keras", custom_objects=custom_objects)
        np.testing.assert_allclose(
            loaded.evaluate(x, y_true, verbose=0), model.evaluate(x, y_true, verbose=0), rtol=1e-5
        )
        kept = loaded.loss.loss if as_method else loaded.loss
        assert kept.get_config() == loss.get_config()


def test_serialisation_keeps_every_argument():
    loss = SSDLoss(2.5, 4, 0.25, mining="per_image", reduction="sum", name="multibox")
    copy = keras.losses.deserialize(keras.losses.serialize(loss))
    assert copy.get_config() == loss.get_config()
    assert (copy.neg_pos_ratio, copy.n_neg_min, copy.alpha) == (2.5, 4, 0.25)
    assert (copy.mining, copy.reduction, copy.name) == ("per_image", "sum", "multibox")
    method = LossOfEachImage.from_config(loss.compute_loss.get_config())
    assert method.loss.get_config() == loss.get_config()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"neg_pos_ratio": -1}, "-1"),
        ({"n_neg_min": -1}, "-1"),
        ({"alpha": -0.5}, "-0.5"),
        ({"mining": "image"}, "batch, per_image.*'image'"),
        ({"alpha": float("nan")}, "`alpha`.*nan"),
        ({"alpha": "1"}, "`alpha` must be a number that is not negative; got '1'"),
        ({"neg_pos_ratio": None}, "`neg_pos_ratio`.*got None"),
        ({"class_weights": [1, -2]}, r"`class_weights`.*\[1, -2\]"),
        ({"class_weights": 3}, "`class_weights`.*3"),
        ({"label_smoothing": 1}, "`label_smoothing` must be in .*got 1"),
        ({"box_loss": "l2"}, "smooth_l1, giou, diou, ciou; got 'l2'"),
        ({"coords": "yolo"}, "yolo"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        SSDLoss(**arguments)


@pytest.mark.parametrize("shape", [(2, 20, 17), (2, 19, 16), (2, 200, 6), (20, 16), (3, 20, 16)])
def test_targets_for_another_model_are_refused(shape):
    y_true, _ = random_batch(np.random.default_rng(0), batch_size=2)
    with pytest.raises(ValueError, match=r"n_classes \+ 12.*\(2, 20, 16\)"):
        SSDLoss().compute_loss(y_true, np.ones(shape, np.float32))
