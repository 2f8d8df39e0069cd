"""What is kept outlives the process, and belongs to its settings."""

import time

import pytest

from byol_tf.evaluation.kept_results import KeptResults, folder_for


def never():
    raise AssertionError("It was computed again.")


def test_a_result_is_computed_once(tmp_path):
    path = tmp_path / "results.json"
    kept = KeptResults(path)
    assert kept.once("a", lambda: 0.5) == 0.5
    with pytest.raises(ZeroDivisionError):
        kept.once("b", lambda: 1 / 0)
    again = KeptResults(path)  # Another process.
    assert again.once("a", never) == 0.5
    assert again.once("b", lambda: None) is None
    assert KeptResults(path).once("b", never) is None


def test_a_damaged_file_is_begun_again(tmp_path):
    path = tmp_path / "results.json"
    path.write_text('{"a": 0.')
    assert KeptResults(path).once("a", lambda: 2) == 2


def test_the_time_is_that_of_all_processes(tmp_path, monkeypatch):
    clock = iter([100.0, 103.0, 200.0, 204.0, 205.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    path = tmp_path / "results.json"
    KeptResults(path).once("a", lambda: 1)  # In 3 seconds.
    kept = KeptResults(path)
    kept.once("a", never)
    kept.once("b", lambda: 2)  # In 4 more.
    assert kept.seconds == 8.0


def test_other_settings_have_another_folder(tmp_path):
    one = folder_for(tmp_path, {"rate": 0.1})
    (one / "file").touch()
    assert folder_for(tmp_path, {"rate": 0.1}) == one
    assert (one / "file").exists()
    other = folder_for(tmp_path, {"rate": 0.2})
    assert other != one
    assert not one.exists()
