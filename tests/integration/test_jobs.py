"""The command line, in real processes, as a user runs it."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT, SMALL, photos, run, save_images

from byol_tf.config import Config
from byol_tf.data.bundled import open_bundled
from byol_tf.main import main


@pytest.mark.slow
def test_quickstart_shortened(tmp_path, capfd):
    run_dir = tmp_path / "run"
    process = run(
        "--flagfile=flags/quickstart.flags",
        f"--run_dir={run_dir}",
        "--steps=12",
        "--monitor_every=6",
        "--log_every=4",
    )
    assert process.returncode == 0, process.stderr
    assert "12/12" in process.stderr  # The progress bar.

    report = json.loads((run_dir / "report.json").read_text())
    assert report["pretrain"]["steps"] == 12
    for name in ("seconds", "images_per_second", "final_loss"):
        assert report["pretrain"][name] > 0
    evaluation = report["evaluation"]
    for row in (evaluation, *evaluation["baselines"].values()):
        assert 0.3 < row["knn_top1"] < 1
        assert 0.3 < row["linear_top1"] < 1
    assert set(evaluation["baselines"]) == {"random_init", "raw_pixels"}
    # Figures of the bundled images that do not depend on any network.
    np.testing.assert_allclose(
        evaluation["baselines"]["raw_pixels"]["knn_top1"], 0.811, atol=0.002
    )
    assert 0 < report["collapse"]["projection_std"] < 0.125
    assert 1 < report["collapse"]["effective_rank"] <= 64
    assert report["export"]["max_abs_diff"] < 1e-3  # Of features up to 100.

    names = {path.name for path in run_dir.iterdir()}
    assert names >= {
        "config.json",
        "flags.txt",
        "checkpoints",
        "encoder.keras",
        "saved_model",
        "metrics.jsonl",
        "tensorboard",
        "plots",
        "report.md",
        "report.json",
    }
    assert not [path for path in run_dir.rglob("*.partial")]
    rows = [
        json.loads(line)
        for line in (run_dir / "metrics.jsonl").read_text().splitlines()
    ]
    assert [row["step"] for row in rows] == [4, 6, 8, 12]
    for row in (rows[1], rows[3]):
        assert {"knn_top1", "projection_std", "effective_rank"} <= set(row)
        assert row["trust_ratio_median"] > 0 and row["gradient_norm"] > 0
    # A healthy run raises nothing.
    assert not any("found" in row for row in rows)
    assert "Healthy" in (run_dir / "report.md").read_text()
    assert "byol_tf: warning" not in process.stderr
    assert Config.load(run_dir / "config.json").steps == 12
    encoder = keras.saving.load_model(run_dir / "encoder.keras")
    served = tf.saved_model.load(str(run_dir / "saved_model"))
    images = tf.random.uniform([3, 28, 28, 3])
    np.testing.assert_allclose(
        served.signatures["serving_default"](images=images)["features"],
        encoder(images),
        rtol=1e-4,
        atol=1e-4,
    )

    # The other signature decodes and crops to the size of the run's images.
    image = open_bundled().test.images[0]
    features = served.signatures["encoded_images"](
        encoded=tf.io.encode_png(image)[None]
    )["features"]
    np.testing.assert_allclose(
        features, encoder(image[None] / 255), rtol=1e-4, atol=1e-4
    )

    # The same command finds nothing left to do, and another seed is refused.
    flags = ["--flagfile=flags/quickstart.flags", f"--run_dir={run_dir}"]
    assert main(["main.py", *flags, "--steps=12", "--seed=5"]) == 2
    assert "--seed=5 (0 there)" in capfd.readouterr().err


@pytest.mark.slow
def test_a_folder_of_photos_and_the_other_modes(tmp_path):
    run_dir = tmp_path / "run"
    process = run(
        *SMALL,
        f"--dataset=folder:{photos(tmp_path / 'photos')}",
        f"--run_dir={run_dir}",
        "--image_size=24",
        "--steps=4",
    )
    assert process.returncode == 0, process.stderr
    first = json.loads((run_dir / "report.json").read_text())
    assert first["evaluation"]["test_images"] == 20

    (run_dir / "report.json").unlink()
    process = run("--mode=evaluate", f"--run_dir={run_dir}")
    assert process.returncode == 0, process.stderr
    second = json.loads((run_dir / "report.json").read_text())
    assert second["evaluation"] == first["evaluation"]

    elsewhere = tmp_path / "elsewhere"
    flags = ["--mode=export", f"--encoder={run_dir}"]
    assert main(["main.py", *flags, f"--run_dir={elsewhere}"]) == 0
    exported = json.loads((elsewhere / "report.json").read_text())
    assert exported["export"]["max_abs_diff"] < 1e-3

    flags = ["--mode=preview", f"--dataset=folder:{tmp_path / 'photos'}"]
    flags += ["--image_size=24", "--batch_size=8"]
    assert main(["main.py", *flags, f"--run_dir={tmp_path / 'preview'}"]) == 0
    assert (tmp_path / "preview/plots/augmented_pairs.png").exists()


@pytest.mark.slow
def test_unlabelled_photos_on_two_devices(tmp_path):
    save_images(tmp_path / "photos", 40)
    flags = [*SMALL, f"--dataset=folder:{tmp_path / 'photos'}", "--steps=3"]
    flags += ["--strategy=mirrored", "--logical_devices=2"]
    flags += ["--steps_per_execution=2", "--image_size=24"]
    # Elsewhere: collectives of two strategies mix in one process.
    process = run(*flags, f"--run_dir={tmp_path / 'run'}")
    assert process.returncode == 0, process.stderr
    text = (tmp_path / "run/report.md").read_text()
    assert "no held-out images with labels" in text
    report = json.loads((tmp_path / "run/report.json").read_text())
    assert "knn_top1" not in report["evaluation"]


def test_help_is_quick_and_needs_no_tensorflow():
    process = subprocess.run(
        [
            sys.executable,
            "-X",
            "importtime",
            "byol_tf/main.py",
            "--help",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0
    assert "--tau_base" in process.stdout
    assert "tensorflow" not in process.stderr


def test_help_may_be_cut_short():
    process = subprocess.run(
        f"{sys.executable} byol_tf/main.py --help | head -1",
        shell=True,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert process.stdout.startswith("byol_tf: self-supervised")
    assert process.stderr == ""


@pytest.mark.slow
def test_damage_above_the_limit_ends_with_a_checkpoint(tmp_path, capfd):
    damaged = photos(tmp_path / "photos") / "train/odd/007.jpg"
    damaged.write_bytes(damaged.read_bytes()[:-60])  # The header is sound.
    run_dir = tmp_path / "run"
    code = main(
        [
            "main.py",
            *SMALL,
            f"--dataset=folder:{tmp_path / 'photos'}",
            f"--run_dir={run_dir}",
            "--image_size=24",
            "--steps=8",
            "--max_corrupt_fraction=0",
        ]
    )
    assert code == 2
    line = capfd.readouterr().err.splitlines()[-1]
    assert line.startswith("byol_tf: --dataset: 1 of 80 images cannot be used")
    assert "--max_corrupt_fraction=0 allows" in line
    assert f"{run_dir / 'skipped.txt'} lists them" in line
    (listed,) = (run_dir / "skipped.txt").read_text().splitlines()
    assert listed.startswith(f"{damaged}\tdamaged (image file is truncated")
    (checkpoint,) = (run_dir / "checkpoints").iterdir()
    assert (checkpoint / "state.npz").is_file()


def bad_flag(tmp_path):
    return ["--learning_rate=1"], "--learning_rate is no flag"


def bad_missing_folder(tmp_path):
    return [f"--dataset=folder:{tmp_path / 'no'}"], "--dataset=folder:"


def bad_empty_folder(tmp_path):
    (tmp_path / "empty").mkdir()
    return [f"--dataset=folder:{tmp_path / 'empty'}"], "holds no image"


def bad_file(tmp_path):
    save_images(tmp_path / "photos", 3)
    (tmp_path / "photos/fake.png").write_text("no image")
    flags = [f"--dataset=folder:{tmp_path / 'photos'}"]
    return flags, "--max_corrupt_fraction=0.01 allows; the first is"


def bad_truncated_file(tmp_path):
    save_images(tmp_path / "photos", 3, size=(400, 300))
    file = tmp_path / "photos/001.jpg"
    file.write_bytes(file.read_bytes()[:2000])
    return [f"--dataset=folder:{tmp_path / 'photos'}"], "001.jpg: damaged"


def bad_encoder_for_pretraining(tmp_path):
    return [f"--encoder={tmp_path}"], "--encoder"


def bad_download(tmp_path):
    arguments = ["--dataset=tfds:cifar10", "--download"]
    return [*arguments, f"--data_dir={tmp_path}"], "cannot be downloaded"


def bad_small_images(tmp_path):
    return ["--image_size=64"], "--image_size=64"


def bad_batch(tmp_path):
    return ["--batch_size=20000"], "--batch_size=20000"


def bad_run_dir(tmp_path):
    (tmp_path / "file").write_text("x")
    return [f"--run_dir={tmp_path / 'file' / 'run'}"], "cannot be written"


def bad_tfds(tmp_path):
    arguments = ["--dataset=tfds:mnist", f"--data_dir={tmp_path}"]
    return arguments, "--data_dir"


def bad_encoder(tmp_path):
    return ["--mode=evaluate", f"--encoder={tmp_path}"], "--encoder"


def bad_keras_file(tmp_path):
    (tmp_path / "encoder.keras").write_text("no model")
    return [
        "--mode=export",
        f"--encoder={tmp_path}",
    ], "encoder.keras is no model"


def bad_flagfile(tmp_path):
    return ["--flagfile=flags/none.flags"], "flags/none.flags"


@pytest.mark.parametrize(
    "make",
    [
        bad_flag,
        bad_missing_folder,
        bad_empty_folder,
        bad_file,
        bad_truncated_file,
        bad_encoder_for_pretraining,
        bad_download,
        bad_small_images,
        bad_batch,
        bad_run_dir,
        bad_tfds,
        bad_encoder,
        bad_keras_file,
        bad_flagfile,
    ],
)
def test_bad_input_is_answered_by_one_line(tmp_path, make, capfd):
    arguments, message = make(tmp_path)
    run_dir = tmp_path / "run"
    code = main(["main.py", f"--run_dir={run_dir}", *SMALL, *arguments])
    lines = capfd.readouterr().err.strip().splitlines()
    assert code == 2
    assert len(lines) == 1, lines
    assert lines[0].startswith("byol_tf: ")
    assert message in lines[0]
    assert not os.path.exists(run_dir)


def test_nothing_else_is_written_to_a_terminal(tmp_path):
    # Of the case above, in a process of its own, with TensorFlow's start.
    run_dir = tmp_path / "run"
    process = run(f"--run_dir={run_dir}", *SMALL, *bad_file(tmp_path)[0])
    assert process.returncode == 2
    assert process.stdout == ""
    assert len(process.stderr.splitlines()) == 1, process.stderr
    assert not os.path.exists(run_dir)
