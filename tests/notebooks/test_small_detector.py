"""The detector that notebooks share: trained once, with options that the training script takes."""

import pytest

from examples.train_ssd7 import parse_arguments
from notebooks import small_detector


@pytest.fixture
def calls(monkeypatch):
    """Replace the training, which takes minutes, and note what it was asked for."""
    noted = []
    monkeypatch.setattr(small_detector, "train_ssd7", noted.append)
    return noted


@pytest.mark.parametrize(("quick", "epochs"), [(True, 2), (False, 10)])
def test_training_is_asked_for_what_the_script_understands(calls, tmp_path, quick, epochs):
    folder, output = tmp_path / "my data", tmp_path / "results"
    assert small_detector.train_once(folder, output, quick) == output / "model.keras"
    options = parse_arguments(calls[0])
    assert (options.data, options.output, options.epochs) == (folder, output, epochs)
    assert tuple(options.image_size) == (144, 192)
    assert options.resume


def test_a_model_that_is_there_is_kept(calls, tmp_path):
    (tmp_path / "model.keras").write_bytes(b"a model")
    small_detector.train_once(tmp_path, tmp_path)
    assert not calls


@pytest.mark.parametrize("quick", [True, False])
def test_data_of_quick_runs_are_few(monkeypatch, tmp_path, quick):
    monkeypatch.setattr(
        small_detector, "make_digit_scenes", lambda folder, *counts: (folder, counts)
    )
    folder, counts = small_detector.make_data(tmp_path, quick)
    assert folder == tmp_path / "digit_scenes"
    assert (sum(counts) < 200) == quick
