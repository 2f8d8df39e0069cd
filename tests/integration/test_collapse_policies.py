"""--on_collapse through the command line: exit codes, lines, what is left."""

import json

import keras
import numpy as np
import pytest
from conftest import save_images

from byol_tf import pretrain
from byol_tf.main import main
from byol_tf.model.build import build_byol


class Identity(keras.layers.Layer):
    def call(self, inputs, training=False):
        return inputs


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for split, first, count in (("train", 0, 48), ("test", 48, 16)):
        for i in range(first, first + count):
            name = "even" if i % 2 == 0 else "odd"
            save_images(folder / split / name, 1, (24, 24), first=i)
    return folder


def run(run_dir, photos, *flags, capsys) -> tuple[int, list[str]]:
    """Exit code and the program's own lines on stderr."""
    code = main(
        [
            "main.py",
            f"--dataset=folder:{photos}",
            f"--run_dir={run_dir}",
            "--encoder_blocks=1",
            "--encoder_channels=8",
            "--stem_channels=8",
            "--projector_hidden=16",
            "--projection_size=8",
            "--batch_size=16",
            "--monitor_images=40",
            "--warmup_epochs=0",
            "--log_every=5",
            *flags,
        ]
    )
    lines = capsys.readouterr().err.replace("\r", "\n").splitlines()
    return code, [line for line in lines if line.startswith("byol_tf: ")]


def rows(run_dir) -> list[dict]:
    def no_constant(name):
        raise AssertionError(f"{name} is no JSON")

    return [
        json.loads(line, parse_constant=no_constant)
        for line in (run_dir / "metrics.jsonl").read_text().splitlines()
    ]


@pytest.mark.slow
def test_a_loss_that_is_not_finite(tmp_path, photos, capsys):
    flags = ("--base_learning_rate=1e30", "--steps=6", "--checkpoint_every=1")
    code, lines = run(tmp_path, photos, *flags, capsys=capsys)
    assert code == 1
    (line,) = lines
    assert line.startswith("byol_tf: training stopped at step ")
    assert "is too high" in line
    assert "--base_learning_rate" in line
    assert "--on_collapse=warn" in line
    assert rows(tmp_path)[-1]["found"][0] == "not finite"
    assert not (tmp_path / "encoder.keras").exists()
    for state in (tmp_path / "checkpoints").rglob("*.npz"):
        with np.load(state) as arrays:
            assert all(np.isfinite(array).all() for array in arrays.values())

    ignored = (*flags, "--on_collapse=ignore")
    code, lines = run(tmp_path, photos, *ignored, capsys=capsys)
    assert (code, lines) == (0, [])
    assert rows(tmp_path)[-1]["step"] == 6
    assert rows(tmp_path)[-1]["loss"] is None
    text = (tmp_path / "report.md").read_text()
    assert "Found: not finite; learning rate too high" in text
    assert "features are not finite" in text


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Gradients do not exist")
def test_collapsed_projections(tmp_path, photos, capsys, monkeypatch):
    def without_predictor(*arguments):
        model = build_byol(*arguments)
        model.online.predictor = Identity()
        model.target.predictor = Identity()
        return model

    monkeypatch.setattr(pretrain, "build_byol", without_predictor)
    flags = (
        "--base_learning_rate=16",
        "--steps=90",
        "--monitor_every=20",
        "--checkpoint_every=50",
    )
    code, lines = run(tmp_path, photos, *flags, capsys=capsys)
    assert code == 1
    warning, last = lines
    assert warning.startswith("byol_tf: warning: step 20: The predictor is")
    assert "the projections have collapsed" in last
    assert "The predictor is missing" in last
    assert rows(tmp_path)[-1]["step"] < 90

    warned = (*flags, "--on_collapse=warn")
    code, lines = run(tmp_path, photos, *warned, capsys=capsys)
    assert code == 0
    assert 1 <= len(lines) <= 2
    assert "have collapsed" in lines[-1]
    text = (tmp_path / "report.md").read_text()
    assert "Found: collapsed projections; predictor missing." in text
