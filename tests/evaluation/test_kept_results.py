"""What is kept outlives the process, and belongs to its settings."""

import time

import keras
import numpy as np
import pytest

from byol_tf.evaluation.kept_results import KeptResults, KeptState, folder_for


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


def test_a_damaged_file_is_begun_again(tmp_path, capsys):
    path = tmp_path / "results.json"
    assert KeptResults(path).once("a", lambda: 1) == 1
    assert not capsys.readouterr().err
    path.write_text('{"a": 0.')
    assert KeptResults(path).once("a", lambda: 2) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"byol_tf: {path} is damaged (")


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
    other = folder_for(tmp_path, {"rate": 0.2})
    assert other != one
    assert (one / "file").exists()  # A sweep that is half done, perhaps.


def test_what_is_large_is_kept_once(tmp_path):
    one = folder_for(tmp_path, {"rate": 0.1}, alone=True)
    (one / "file").touch()
    assert folder_for(tmp_path, {"rate": 0.1}, alone=True) == one
    assert (one / "file").exists()
    folder_for(tmp_path, {"rate": 0.2}, alone=True)
    assert not one.exists()


def state(path, *values) -> tuple[KeptState, list[keras.Variable]]:
    variables = [keras.Variable(np.float32(value)) for value in values]
    return KeptState(path, variables), variables


def test_a_state_comes_back(tmp_path):
    path = tmp_path / "state.npz"
    kept, _ = state(path, [1, 2], 3)
    kept.restore()  # There is none yet.
    kept.write()
    other, variables = state(path, [0, 0], 0)
    other.restore()
    assert [v.numpy().tolist() for v in variables] == [[1, 2], 3]
    other.remove()
    assert not path.exists()


@pytest.mark.parametrize("kind", ["cut", "empty", "junk", "fewer", "other"])
def test_a_damaged_state_is_begun_again(tmp_path, capsys, kind):
    path = tmp_path / "state.npz"
    kept, _ = state(path, [1, 2], 3)
    kept.write()
    if kind == "fewer":
        state(path, [1, 2])[0].write()
    elif kind == "other":
        state(path, [1, 2, 3], 4)[0].write()
    else:
        whole = path.read_bytes()
        parts = {"cut": whole[: len(whole) // 2], "empty": b"", "junk": b"x"}
        path.write_bytes(parts[kind])
    other, variables = state(path, [5, 6], 7)
    other.restore()
    assert [v.numpy().tolist() for v in variables] == [[5, 6], 7]
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{path} is damaged" in line
