"""Checkpoints: everything comes back; the last good one stays."""

import json
import resource
import shutil

import numpy as np
import pytest
from conftest import tiny_model

from byol_tf.config import Config, ConfigError
from byol_tf.training.checkpoints import Checkpoints
from byol_tf.training.signals import Interrupted, StopRequest


def step(model):
    random = np.random.RandomState(int(model.optimizer.iterations.numpy()))
    view1, view2 = random.rand(2, 4, 12, 12, 3).astype(np.float32)
    return model.update(view1, view2, np.array([0, 1, 2, -1], np.int32))


def open_checkpoints(model, folder, every=1, keep=2, **arguments):
    config = Config(checkpoint_every=every, keep_checkpoints=keep)
    return Checkpoints(model, folder, config, **arguments)


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    model = tiny_model()
    checkpoints = open_checkpoints(model, folder, keep=3)
    for _ in range(3):
        step(model)
        checkpoints.on_train_batch_end(0)
    return folder


@pytest.fixture
def three(trained, tmp_path):
    """A folder with checkpoints of steps 1, 2 and 3, and the model."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    model = tiny_model()
    open_checkpoints(model, tmp_path).restore()
    return tmp_path, model


def test_a_restored_model_goes_on_as_the_first_would_have(three):
    folder, first = three
    second = tiny_model()
    assert open_checkpoints(second, folder).restore() == 3
    step(first), step(second)
    for a, b in zip(first.weights, second.weights, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=a.path)
    variables = zip(
        first.optimizer.variables, second.optimizer.variables, strict=True
    )
    for a, b in variables:
        np.testing.assert_array_equal(a, b, err_msg=a.path)


def test_only_the_latest_are_kept(tmp_path):
    model = tiny_model()
    checkpoints = open_checkpoints(model, tmp_path, every=2)
    for _ in range(7):
        step(model)
        checkpoints.on_train_batch_end(0)
    checkpoints.on_train_end()
    assert names(tmp_path) == ["step_000000006", "step_000000007"]


def test_there_is_one_after_so_many_seconds_too(tmp_path, monkeypatch):
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    model = tiny_model()
    config = Config(checkpoint_every=1000, checkpoint_every_seconds=60)
    checkpoints = Checkpoints(model, tmp_path, config)
    for _ in range(8):
        step(model)
        now += 25.0
        checkpoints.on_train_batch_end(0)
    assert names(tmp_path) == ["step_000000003", "step_000000006"]


def test_what_a_checkpoint_says_of_itself(three):
    folder, _ = three
    about = json.loads((folder / "step_000000002/checkpoint.json").read_text())
    assert about["step"] == 2
    assert about["seed"] == 0
    assert Config.of(about["config"]) == Config(
        checkpoint_every=1, keep_checkpoints=3
    )
    assert about["versions"]["tensorflow"].startswith("2.21")
    assert about["versions"]["keras"].startswith("3.15")


def cut_short(checkpoint):
    state = checkpoint / "state.npz"
    state.write_bytes(state.read_bytes()[:-1000])


def flip_a_bit(checkpoint):
    state = checkpoint / "state.npz"
    content = bytearray(state.read_bytes())
    content[len(content) // 2] ^= 1
    state.write_bytes(content)


def lose_the_state(checkpoint):
    (checkpoint / "state.npz").unlink()


def lose_the_description(checkpoint):
    (checkpoint / "checkpoint.json").unlink()


def garble_the_description(checkpoint):
    (checkpoint / "checkpoint.json").write_text('{"step": 3')


def empty_both(checkpoint):
    for path in checkpoint.iterdir():
        path.write_bytes(b"")


DAMAGES = (
    cut_short,
    flip_a_bit,
    lose_the_state,
    lose_the_description,
    garble_the_description,
    empty_both,
)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_newest_one_is_passed_over(three, damage, capfd):
    folder, _ = three
    damage(folder / "step_000000003")
    model = tiny_model()
    checkpoints = open_checkpoints(model, folder, keep=1)
    assert checkpoints.restore() == 2
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert "step_000000003 is damaged" in line
    # The step is done again, and the good ones go only then.
    assert "step_000000002" in names(folder)
    step(model)
    checkpoints.save()
    assert names(folder) == ["step_000000003", "step_000000003.damaged"]
    assert open_checkpoints(tiny_model(), folder).restore() == 3


def test_if_all_are_damaged_nothing_begins_again_unasked(three):
    folder, _ = three
    for path in folder.iterdir():
        cut_short(path)
    with pytest.raises(ConfigError, match="is whole.*--noresume"):
        open_checkpoints(tiny_model(), folder).restore()


def test_an_unfinished_checkpoint_is_no_checkpoint(three):
    folder, _ = three
    (folder / "step_000000004.partial").mkdir()
    (folder / "step_000000004.partial" / "state.npz").write_text("torn")
    assert open_checkpoints(tiny_model(), folder).restore() == 3
    assert not list(folder.glob("*.partial"))


@pytest.fixture
def full_disk():
    """Files cannot grow past 10 kB, as if there were no room for more."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_the_last_good_one(three, full_disk, capfd):
    folder, model = three
    checkpoints = open_checkpoints(model, folder, keep=1)
    step(model)
    checkpoints.on_train_batch_end(0)  # Training goes on.
    assert "no checkpoint at step 4" in capfd.readouterr().err
    assert names(folder)[-1] == "step_000000003"
    with pytest.raises(OSError):  # But it does not end as if all were well.
        checkpoints.on_train_end()
    assert open_checkpoints(tiny_model(), folder).restore() == 3


def test_no_folder_to_write_into(tmp_path, capfd):
    (tmp_path / "checkpoints").write_text("a file")
    model = tiny_model()
    checkpoints = open_checkpoints(model, tmp_path / "checkpoints")
    step(model)
    checkpoints.on_train_batch_end(0)
    assert "no checkpoint at step 1" in capfd.readouterr().err


def test_a_state_that_is_not_finite_is_not_saved(three):
    folder, model = three
    step(model)
    model.online.weights[0].assign(model.online.weights[0] * np.nan)
    open_checkpoints(model, folder).save()
    assert names(folder)[-1] == "step_000000003"


def test_other_settings_are_refused(three):
    folder, _ = three
    config = Config(seed=3, tau_base=0.9)
    with pytest.raises(ConfigError, match=r"--seed=3 \(0 there\), .*tau_base"):
        Checkpoints(tiny_model(), folder, config).restore()


def test_other_images_are_refused(three):
    folder, _ = three
    with pytest.raises(ConfigError, match="--dataset=bundled .*other images"):
        open_checkpoints(tiny_model(), folder, fingerprint="new").restore()


def test_another_version_of_a_library_is_said(three, capfd):
    folder, _ = three
    path = folder / "step_000000003/checkpoint.json"
    path.write_text(path.read_text().replace('"keras": "3.', '"keras": "2.'))
    assert open_checkpoints(tiny_model(), folder).restore() == 3
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert "the run began with keras 2." in line


def test_a_signal_stops_after_a_checkpoint(tmp_path):
    model, stop = tiny_model(), StopRequest()
    checkpoints = open_checkpoints(model, tmp_path, every=100, stop=stop)
    step(model)
    checkpoints.on_train_batch_end(0)
    step(model)
    stop.number = 15
    with pytest.raises(Interrupted, match="SIGTERM at step 2"):
        checkpoints.on_train_batch_end(0)
    assert names(tmp_path) == ["step_000000002"]


def test_nothing_to_restore(tmp_path):
    assert open_checkpoints(tiny_model(), tmp_path / "none").restore() == 0
