"""Tests of the training helpers."""

import json
import time

import keras
import numpy as np
import pytest

from misc_utils.training import (
    Budget,
    Checkpoints,
    NamedBatches,
    NonFiniteLossError,
    StopOnNonFiniteLoss,
    WarmupCosine,
    averaged_weights,
)


def small_model(**optimizer_arguments):
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2), keras.layers.Dense(1)])
    model.compile(optimizer=keras.optimizers.Adam(0.1, **optimizer_arguments), loss="mse")
    return model


def batches(n=100, value=1.0):
    rng = np.random.default_rng(0)
    for i in range(n):
        yield rng.normal(size=(8, 4)), np.full((8, 1), value), [f"{i}.jpg"]


def fit(model, callbacks, epochs=4, steps=5, data=None):
    return model.fit(
        iter(data or NamedBatches(batches())),
        steps_per_epoch=steps,
        epochs=epochs,
        verbose=0,
        shuffle=False,
        callbacks=callbacks,
    )


class TestBudget:
    def test_epochs_give_the_fraction(self):
        budget = Budget(steps_per_epoch=5, epochs=4)
        seen = []
        record = keras.callbacks.LambdaCallback(
            on_train_batch_begin=lambda batch, logs: seen.append(budget.fraction)
        )
        fit(small_model(), [budget, record])
        np.testing.assert_allclose(seen, np.arange(20) / 20)

    def test_minutes_stop_training_in_the_middle_of_an_epoch(self):
        budget = Budget(steps_per_epoch=5, minutes=1e-9)
        history = fit(small_model(), [budget], epochs=50)
        assert len(history.epoch) == 1
        assert budget.fraction == 1.0

    def test_seconds_before_an_interruption_count(self):
        budget = Budget(steps_per_epoch=5, minutes=10, seconds_before=590.0)
        budget.on_train_begin()
        budget.on_train_batch_begin(0)
        assert budget.fraction == pytest.approx(590 / 600, abs=0.01)
        assert budget.seconds >= 590

    def test_a_finished_run_has_no_budget_left(self):
        assert Budget(5, epochs=3).is_used_up(epochs_before=3)
        assert not Budget(5, epochs=3).is_used_up(epochs_before=2)
        assert Budget(5, minutes=1, seconds_before=60.0).is_used_up(epochs_before=0)
        assert not Budget(5, minutes=1, seconds_before=59.0).is_used_up(epochs_before=99)

    @pytest.mark.parametrize("arguments", [{}, {"epochs": 3, "minutes": 3.0}])
    def test_exactly_one_kind_of_budget(self, arguments):
        with pytest.raises(ValueError, match="either `epochs` or `minutes`"):
            Budget(steps_per_epoch=5, **arguments)


class TestWarmupCosine:
    def test_shape(self):
        schedule = WarmupCosine(Budget(5, epochs=1), peak=0.1, warmup=0.1, final=0.01)
        rates = [schedule.rate(fraction) for fraction in np.linspace(0, 1, 101)]
        assert np.argmax(rates) == 10
        assert rates[10] == pytest.approx(0.1)
        assert rates[5] == pytest.approx(0.05)
        assert rates[55] == pytest.approx((0.1 + 0.001) / 2)
        assert rates[100] == pytest.approx(0.001)
        assert rates[0] > 0

    def test_the_optimizer_gets_it(self):
        model = small_model()
        budget = Budget(5, epochs=4)
        schedule = WarmupCosine(budget, peak=0.1)
        fit(model, [budget, schedule])
        assert float(model.optimizer.learning_rate) == pytest.approx(schedule.rate(19 / 20))


class TestNonFiniteLoss:
    def test_the_batch_is_named(self):
        def poisoned():
            for i, (x, y, names) in enumerate(batches()):
                yield (x * np.nan if i == 7 else x), y, names

        data = NamedBatches(poisoned())
        with pytest.raises(NonFiniteLossError, match=r"at batch 2 of this epoch.*\n  7\.jpg"):
            fit(small_model(), [StopOnNonFiniteLoss(data)], data=data)

    def test_finite_losses_pass(self):
        data = NamedBatches(batches())
        assert len(fit(small_model(), [StopOnNonFiniteLoss(data)], data=data).epoch) == 4

    def test_old_names_are_forgotten(self):
        data = NamedBatches(batches(), keep=3)
        assert len(list(data)) == 100
        assert data.names(99) == ["99.jpg"]
        assert data.names(96) == []


class TestCheckpoints:
    def test_round_trip_keeps_weights_optimizer_and_state(self, tmp_path):
        model = small_model()
        fit(model, [])
        checkpoints = Checkpoints(tmp_path / "checkpoints")
        assert checkpoints.load() is None
        checkpoints.save(4, model, {"best": 0.5, "history": [{"loss": 1.0}]})
        loaded, state = checkpoints.load()
        assert state == {"epoch": 4, "best": 0.5, "history": [{"loss": 1.0}]}
        assert int(loaded.optimizer.iterations) == int(model.optimizer.iterations) == 20
        # The next step from both is the same: weights and moments are all there.
        x, y, _ = next(batches())
        assert loaded.train_on_batch(x, y) == pytest.approx(model.train_on_batch(x, y), rel=1e-6)
        for a, b in zip(loaded.get_weights(), model.get_weights(), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6)

    def test_only_the_last_one_is_kept(self, tmp_path):
        model = small_model()
        fit(model, [], epochs=1)
        checkpoints = Checkpoints(tmp_path)
        for epoch in (1, 2, 12):
            checkpoints.save(epoch, model, {})
        assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-000012"]
        assert checkpoints.load()[1]["epoch"] == 12

    def test_an_unfinished_one_is_ignored_and_replaced(self, tmp_path):
        model = small_model()
        fit(model, [], epochs=1)
        checkpoints = Checkpoints(tmp_path)
        checkpoints.save(1, model, {})
        killed = tmp_path / "unfinished-000002"  # what a killed process leaves behind
        killed.mkdir()
        (killed / "model.keras").write_bytes(b"half a file")
        assert checkpoints.load()[1]["epoch"] == 1
        checkpoints.save(2, model, {})
        assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-000002"]

    def test_the_state_is_plain_json(self, tmp_path):
        Checkpoints(tmp_path).save(3, small_model(), {"seconds": 1.5})
        state = json.loads((tmp_path / "checkpoint-000003" / "state.json").read_text())
        assert state.pop("random_states")["layers"] == []  # there is no dropout in this model
        assert state == {"seconds": 1.5, "epoch": 3}

    def test_the_last_one_has_the_highest_number(self, tmp_path):
        checkpoints = Checkpoints(tmp_path)
        model = small_model()
        fit(model, [], epochs=1)
        checkpoints.save(999_999, model, {})
        (tmp_path / "checkpoint-999999").rename(tmp_path / "kept")
        checkpoints.save(1_000_000, model, {})
        (tmp_path / "kept").rename(tmp_path / "checkpoint-999999")
        assert checkpoints.load()[1]["epoch"] == 1_000_000

    def test_one_that_is_being_replaced_counts_until_the_new_one_is_there(self, tmp_path):
        checkpoints = Checkpoints(tmp_path)
        model = small_model()
        fit(model, [], epochs=1)
        checkpoints.save(5, model, {"which": "old"})
        (tmp_path / "checkpoint-000005").rename(tmp_path / "replaced-000005")  # killed here
        assert checkpoints.load()[1]["which"] == "old"
        checkpoints.save(5, model, {"which": "new"})
        assert checkpoints.load()[1]["which"] == "new"
        assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-000005"]

    def test_dropout_goes_on_with_the_same_random_numbers(self, tmp_path):
        inputs = keras.Input((4,))
        outputs = keras.layers.Dense(3)(keras.layers.Dropout(0.5)(inputs))
        model = keras.Model(inputs, outputs)
        model.compile(keras.optimizers.SGD(0.1), "mse")
        x, y = np.ones((8, 4), np.float32), np.ones((8, 3), np.float32)
        model.fit(x, y, epochs=3, verbose=0)
        Checkpoints(tmp_path).save(3, model, {})
        expected = [float(model.train_on_batch(x, y)) for _ in range(5)]
        loaded, _ = Checkpoints(tmp_path).load()
        found = [float(loaded.train_on_batch(x, y)) for _ in range(5)]
        np.testing.assert_allclose(found, expected, rtol=1e-5)
        assert len(set(expected)) == 5  # each step draws anew


class TestAveragedWeights:
    def test_the_average_is_there_and_goes(self):
        model = small_model(use_ema=True, ema_momentum=0.9)
        x, y, _ = next(batches())
        averages = None
        for _ in range(30):
            model.train_on_batch(x, y)
            own = model.trainable_variables[0].numpy()
            averages = own if averages is None else 0.9 * averages + 0.1 * own
        with averaged_weights(model) as same:
            assert same is model
            np.testing.assert_allclose(model.trainable_variables[0], averages, rtol=1e-5)
        np.testing.assert_array_equal(model.trainable_variables[0], own)
        assert np.abs(own - averages).max() > 1e-3

    @pytest.mark.parametrize("use_ema", [False, True])
    def test_without_an_average_nothing_changes(self, use_ema):
        model = small_model(use_ema=use_ema)
        before = [w.copy() for w in model.get_weights()]
        with averaged_weights(model):
            for a, b in zip(model.get_weights(), before, strict=True):
                np.testing.assert_array_equal(a, b)

    def test_own_weights_return_after_an_error(self):
        model = small_model(use_ema=True)
        x, y, _ = next(batches())
        for _ in range(3):
            model.train_on_batch(x, y)
        own = model.get_weights()
        with pytest.raises(KeyError), averaged_weights(model):
            raise KeyError
        for a, b in zip(model.get_weights(), own, strict=True):
            np.testing.assert_array_equal(a, b)


def test_budget_clock_starts_with_training():
    budget = Budget(5, minutes=1)
    budget._start -= 1000  # building the model took long
    budget.on_train_begin()
    time.sleep(0.01)
    assert 0.01 <= budget.seconds < 1
