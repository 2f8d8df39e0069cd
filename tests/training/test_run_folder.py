"""Run folders: made, found again, refused."""

import dataclasses

import pytest

from byol_tf import command_line
from byol_tf.config import Config, ConfigError
from byol_tf.training import run_folder


def test_settings_are_written_in_both_forms(tmp_path):
    config = Config(run_dir=str(tmp_path / "a/b"), steps=5)
    folder = run_folder.open_run_folder(config)
    assert Config.load(folder / "config.json") == config
    flagfile = f"--flagfile={folder / 'flags.txt'}"
    assert command_line.parse(["main.py", flagfile]) == config


def test_the_same_run_may_go_on_and_another_may_not(tmp_path):
    config = Config(run_dir=str(tmp_path), tau_base=0.9)
    run_folder.open_run_folder(config)
    run_folder.open_run_folder(dataclasses.replace(config, log_every=1))
    other = dataclasses.replace(config, tau_base=0.5, seed=1)
    with pytest.raises(ConfigError, match="--run_dir") as error:
        run_folder.open_run_folder(other)
    assert "--seed=1 (0 there)" in str(error.value)
    assert "--tau_base=0.5 (0.9 there)" in str(error.value)
    assert Config.load(tmp_path / "config.json").tau_base == 0.9


def test_other_jobs_keep_out_of_another_run(tmp_path):
    run_folder.open_run_folder(Config(run_dir=str(tmp_path)))
    other = Config(run_dir=str(tmp_path), dataset="folder:x", mode="preview")
    with pytest.raises(
        ConfigError, match=r"--dataset=folder:x \(bundled there"
    ):
        run_folder.open_results_folder(other)


def test_looking_leaves_no_trace(tmp_path):
    run_folder.check_run_dir(Config(run_dir=str(tmp_path / "a/b/c")))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "open_folder",
    [
        run_folder.open_run_folder,
        run_folder.open_results_folder,
        run_folder.check_run_dir,
    ],
)
def test_a_folder_that_cannot_be_made(tmp_path, open_folder):
    (tmp_path / "file").write_text("in the way")
    config = Config(run_dir=str(tmp_path / "file" / "run"))
    with pytest.raises(ConfigError, match="--run_dir=.* cannot be written"):
        open_folder(config)


def test_an_encoder_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match="--run_dir=.* no encoder"):
        run_folder.encoder_path(Config(run_dir=str(tmp_path)))
    with pytest.raises(ConfigError, match=r"--encoder=.*x\.keras"):
        run_folder.encoder_path(Config(encoder=str(tmp_path / "x.keras")))


def test_a_folder_in_use_is_refused(tmp_path):
    config = Config(run_dir=str(tmp_path / "run"))
    with (
        run_folder.locked(config),
        pytest.raises(ConfigError, match="run_dir=.*run is in use"),
        run_folder.locked(config),
    ):
        pass
    with run_folder.locked(config):  # Free again.
        pass


def test_noresume_forgets_the_run_that_is_there(tmp_path):
    first = Config(run_dir=str(tmp_path), seed=1)
    run_folder.open_run_folder(first)
    (tmp_path / "checkpoints/step_000000001").mkdir(parents=True)
    (tmp_path / "protocols/knn").mkdir(parents=True)
    for name in ("metrics.jsonl", "skipped.txt", "notes.txt"):
        (tmp_path / name).write_text("x")
    for name in ("encoder.keras", "report.json", "report.md"):
        (tmp_path / name).write_text("x")
    with pytest.raises(ConfigError, match=r"--seed=2 \(1 there\)"):
        run_folder.check_run_dir(Config(run_dir=str(tmp_path), seed=2))
    again = Config(run_dir=str(tmp_path), seed=2, resume=False)
    run_folder.check_run_dir(again)
    run_folder.open_run_folder(again)
    assert Config.load(tmp_path / "config.json").seed == 2
    assert "--resume" not in (tmp_path / "flags.txt").read_text()
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"config.json", "flags.txt", "plots", "notes.txt"}
