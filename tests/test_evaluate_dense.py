"""The dense protocols by the command line: trained, stopped, measured."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from conftest import ROOT, run, tiny_encoder
from generated_scenes import (
    scene,
    write_depth,
    write_detection,
    write_segmentation,
)

from byol_tf import evaluate_dense
from byol_tf.config import ConfigError
from byol_tf.main import main

FLAGS = (
    "--mode=evaluate",
    "--dense_steps=2",
    "--dense_batch_size=2",
    "--dense_size=32",
    "--dense_rate=0.01",
)


@pytest.fixture
def encoder_file(tmp_path):
    path = tmp_path / "run" / "encoder.keras"
    path.parent.mkdir()
    tiny_encoder().save(path)
    return path


@pytest.fixture
def data(tmp_path):
    """The flags for the data of all three."""
    write_segmentation(tmp_path / "masks", 6, 3, size=32)
    write_depth(tmp_path / "depths", 6, 3, size=32)
    write_detection(tmp_path / "boxes", 6, 3, size=32)
    return (
        f"--segmentation_data=folder:{tmp_path / 'masks'}",
        f"--depth_data=folder:{tmp_path / 'depths'}",
        f"--detection_data=coco:{tmp_path / 'boxes'}",
    )


def evaluate(encoder_file, *flags) -> int:
    return main(["main.py", *FLAGS, f"--run_dir={encoder_file.parent}", *flags])


def results(encoder_file) -> dict:
    report = json.loads((encoder_file.parent / "report.json").read_text())
    return {result["protocol"]: result for result in report["protocols"]}


def saved_model(encoder_file, name):
    """Where the network of the last result is."""
    sheet = encoder_file.parent / results(encoder_file)[name]["sheet"]
    return sheet.parent / "saved_model"


def test_both(encoder_file, data, capfd):
    folder = encoder_file.parent
    assert evaluate(encoder_file, "--protocols=segmentation,depth", *data) == 0
    found = results(encoder_file)
    (row,) = found["segmentation"]["rows"]
    assert row["metric"] == "miou" and row["paper"] == 76.3
    assert 0 <= row["low"] <= row["value"] <= row["high"] <= 1
    depth = {row["metric"]: row for row in found["depth"]["rows"]}
    assert list(depth) == ["delta1", "delta2", "delta3", "rms", "rel"]
    assert depth["rms"]["paper"] == 0.541 and depth["rms"]["value"] > 0
    assert depth["delta1"]["value"] <= depth["delta2"]["value"]
    text = (folder / "report.md").read_text()
    for name in ("segmentation", "depth"):
        assert f"]({found[name]['sheet']})" in text
        with PIL.Image.open(folder / found[name]["sheet"]) as sheet:
            assert sheet.width > 300
        differs = " ".join(found[name]["differs"])
        assert "steps 2, not" in differs and "no ResNet-50" in differs
    assert "0.541 (NYU v2)" in text and "76.3 (VOC2012)" in text

    # What is finished is not trained again.
    assert evaluate(encoder_file, "--protocols=segmentation,depth", *data) == 0
    assert results(encoder_file) == found


@pytest.mark.slow
def test_a_result_has_its_own_sheet_and_network(encoder_file, data):
    flags = ("--protocols=segmentation", data[0])
    first = {}
    for steps in (2, 3, 2):
        assert evaluate(encoder_file, *flags, f"--dense_steps={steps}") == 0
        result = results(encoder_file)["segmentation"]
        assert first.setdefault(steps, result) == result
        assert saved_model(encoder_file, "segmentation").is_dir()
    assert first[2]["sheet"] != first[3]["sheet"]
    # What somebody removed is made again, and measured with it.
    shutil.rmtree(saved_model(encoder_file, "segmentation"))
    assert evaluate(encoder_file, *flags) == 0
    assert saved_model(encoder_file, "segmentation").is_dir()
    # Other masks under the old names are others.
    again = results(encoder_file)["segmentation"]
    for path in (encoder_file.parents[1] / "masks/test/masks").iterdir():
        with PIL.Image.open(path) as mask:
            PIL.Image.fromarray(np.zeros_like(mask)).save(path)
    assert evaluate(encoder_file, *flags) == 0
    assert results(encoder_file)["segmentation"]["rows"] != again["rows"]


@pytest.mark.slow
def test_what_was_left_out_is_counted(encoder_file, data):
    """A list of what pretraining passed over does not count."""
    folder = encoder_file.parent
    (folder / "skipped.txt").write_text("old.jpg\tno image\n" * 9)
    boxes = encoder_file.parents[1] / "boxes"
    (boxes / "train" / "0001.png").write_bytes(b"no image")
    path = boxes / "annotations" / "instances_train.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["bbox"] = [90, 90, 5, 5]
    path.write_text(json.dumps(content))
    flags = ("--protocols=detection", data[2], "--max_corrupt_fraction=0.2")
    assert evaluate(encoder_file, *flags, "--dense_steps=6") == 0
    notes = " ".join(results(encoder_file)["detection"]["notes"])
    assert "1 of 9 images and 1 objects could not be used" in notes
    assert "of 9 images and 1 obj" in (folder / "report.md").read_text()


@pytest.fixture
def begun(encoder_file, data, monkeypatch):
    """Flags -> the network that the job would train, and its batches."""

    def begin(task, *flags):
        noted = []

        def stop(model, batches, *_):
            noted.append((model, batches(0, 0, 1)))
            raise ConfigError("That is enough.")

        monkeypatch.setattr(evaluate_dense, "train", stop)
        flags = ["--dense_size=32", f"--protocols={task}", *flags, *data]
        flags = [f"--run_dir={encoder_file.parent}", *flags]
        assert main(["main.py", "--mode=evaluate", *flags]) == 2
        (found,) = noted
        return found

    return begin


def rates(model, *steps) -> list[float]:
    found = []
    for step in steps:
        model.optimizer.iterations.assign(step)
        found.append(float(model.optimizer.learning_rate))
    return found


@pytest.mark.parametrize(
    "task, steps, half, weight_decay",
    [
        ("segmentation", 33000, 0.0015, 1e-4),
        ("detection", 24000, 0.01, 1e-4),
        ("depth", 7500, 0.08, 5e-4),
    ],
)
def test_the_rate_is_in_proportion_to_the_batch(
    begun, task, steps, half, weight_decay
):
    """Half of the published batch, and else the published recipe."""
    size = 128 if task == "depth" else 8
    model, batches = begun(task, f"--dense_batch_size={size}")
    assert rates(model, 0) == [pytest.approx(half)]
    assert model.total_steps == steps
    assert model.optimizer.l2_weight_decay == weight_decay
    assert batches.element_spec[0].shape[0] == size


def test_flags_stand_for_the_recipe(begun):
    flags = (
        *("--dense_batch_size=2", "--dense_rate=0.5", "--dense_steps=110"),
        *("--dense_weight_decay=0.25", "--dense_warmup=10"),
    )
    model, batches = begun("depth", *flags)
    # A straight line, and half of a cosine.
    expected = [0, 0.25, 0.5, 0.25, 0]
    np.testing.assert_allclose(
        rates(model, 0, 5, 10, 60, 110), expected, atol=1e-7
    )
    assert model.optimizer.l2_weight_decay == 0.25
    assert model.total_steps == 110
    images, depths = next(iter(batches))
    assert images.shape == (2, 32, 32, 3) and depths.shape == (2, 32, 32)
    model, _ = begun("segmentation", *flags)
    expected = [0.0005, 0.5 * 0.5005, 0.5, 0.5, 0.05, 0.005]
    np.testing.assert_allclose(
        rates(model, 0, 5, 10, 76, 77, 99), expected, rtol=1e-5
    )


def test_depth_begins_with_the_mean(begun):
    model, _ = begun("depth", "--dense_batch_size=2")
    expected = np.mean([scene(number, 32).depth for number in range(6)])
    assert float(model.output_conv.bias[0]) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("task", ["segmentation", "detection", "depth"])
def test_the_seed_decides(begun, task):
    """What the network begins with, and what it sees."""
    found = []
    for seed in (1, 1, 2):
        model, batches = begun(task, "--dense_batch_size=4", f"--seed={seed}")
        new = model.weights[len(model.encoder.weights) :]
        found.append(([w.numpy() for w in new], next(iter(batches))[0].numpy()))
    (weights, images), (same, same_images), (others, other_images) = found
    for one, another in zip(weights, same):
        np.testing.assert_array_equal(one, another)
    np.testing.assert_array_equal(images, same_images)
    assert any(np.any(one != another) for one, another in zip(weights, others))
    assert images.shape != other_images.shape or np.any(images != other_images)


@pytest.mark.parametrize("encoder", ["frozen", "finetuned"])
def test_only_a_frozen_encoder_stays(encoder_file, data, monkeypatch, encoder):
    """Bit by bit, BatchNorm's statistics with it."""
    trained = []

    def noted(model, *_):
        trained.append(model)
        return 0.0

    monkeypatch.setattr(evaluate_dense, "export_dense_model", noted)
    flags = ("--protocols=segmentation", f"--dense_encoder={encoder}")
    assert evaluate(encoder_file, *flags, *data) == 0
    before = keras.saving.load_model(encoder_file).get_weights()
    (model,) = trained
    changed = [
        np.any(old != new)
        for old, new in zip(before, model.encoder.get_weights(), strict=True)
    ]
    assert not any(changed) if encoder == "frozen" else all(changed)


SERVED = """
import numpy as np, sys, tensorflow as tf
loaded = tf.saved_model.load(sys.argv[1])
images = np.load(sys.argv[2])
outputs = loaded.signatures["serving_default"](images=tf.constant(images))
np.savez(sys.argv[3], **{k: v.numpy() for k, v in outputs.items()})
"""


@pytest.mark.slow
def test_what_is_served_elsewhere(encoder_file, data, tmp_path):
    """The networks, in a process without this package."""
    names = ("segmentation", "detection", "depth")
    assert evaluate(encoder_file, f"--protocols={','.join(names)}", *data) == 0
    random = np.random.default_rng(0)
    images = random.random((2, 40, 56, 3)).astype(np.float32)
    np.save(tmp_path / "images.npy", images)
    for name in names:
        saved = saved_model(encoder_file, name)
        paths = (saved, tmp_path / "images.npy", tmp_path / f"{name}.npz")
        subprocess.run(
            [sys.executable, "-c", SERVED, *map(str, paths)],
            check=True,
            cwd=tmp_path,
            env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        )
        here = tf.saved_model.load(str(saved)).signatures["serving_default"]
        expected = here(images=tf.constant(images))
        with np.load(tmp_path / f"{name}.npz") as outputs:
            assert set(outputs) == set(expected)
            for key, values in expected.items():
                assert np.isfinite(values).all()
                np.testing.assert_allclose(outputs[key], values, 1e-4, 1e-5)
    with np.load(tmp_path / "depth.npz") as outputs:
        assert outputs["depth"].shape == (2, 40, 56)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["segmentation", "detection", "depth"])
def test_stopped_training_goes_on(encoder_file, data, task):
    """A real signal; the resumed run ends as one that was not stopped.

    Not bit for bit: the order of sums may depend on the process.
    """
    flags = [
        *FLAGS,
        f"--run_dir={encoder_file.parent}",
        f"--protocols={task}",
        "--dense_steps=300",
        "--deterministic",
        *data,
    ]
    process = subprocess.Popen(
        [sys.executable, "byol_tf/main.py", *flags],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    seen = ""
    while "loss=" not in seen:
        seen += process.stderr.read(1)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    error = process.communicate(timeout=300)[1]
    assert process.returncode == 128 + signal.SIGTERM
    last = error.strip().splitlines()[-1]
    assert last.startswith("byol_tf: interrupted by SIGTERM at step ")
    assert last.endswith("the same command goes on from there.")
    assert len(list(encoder_file.parent.rglob("state.npz"))) == 1

    def weights():
        saved = saved_model(encoder_file, task)
        reader = tf.train.load_checkpoint(str(saved / "variables/variables"))
        return {
            name: reader.get_tensor(name)
            for name in reader.get_variable_to_shape_map()
            if name != "_CHECKPOINTABLE_OBJECT_GRAPH"
        }

    assert run(*flags).returncode == 0
    stopped = weights()
    assert not list(encoder_file.parent.rglob("state.npz"))
    begun_anew = run(*flags, "--noresume")
    assert begun_anew.returncode == 0
    whole = weights()
    assert len(whole) > 20 and set(stopped) == set(whole)
    for name in whole:
        np.testing.assert_allclose(
            stopped[name], whole[name], rtol=2e-3, atol=2e-4
        )


@pytest.mark.slow
def test_two_devices(encoder_file, data):
    finished = run(
        *FLAGS,
        f"--run_dir={encoder_file.parent}",
        "--protocols=segmentation,depth,detection",
        "--strategy=mirrored",
        "--logical_devices=2",
        "--dense_batch_size=4",
        "--dense_encoder=frozen",
        *data,
    )
    assert finished.returncode == 0, finished.stderr[-2000:]
    assert set(results(encoder_file)) == {"segmentation", "depth", "detection"}


def foreign(tmp_path, data):
    inputs = keras.Input([32, 32, 3])
    features = keras.layers.GlobalAveragePooling2D()(inputs)
    keras.Model(inputs, features).save(tmp_path / "foreign.keras")
    flags = (f"--encoder={tmp_path / 'foreign.keras'}", data[0])
    return flags, "has no feature maps"


def several_machines(tmp_path, data):
    return ("--strategy=multi_worker", data[0]), "runs on one machine"


def nothing_to_test(tmp_path, data):
    for path in (tmp_path / "masks" / "test" / "masks").glob("*.png"):
        path.write_bytes(b"no image")
    return data[:1], "none of its 3 test images can be used"


def no_objects(tmp_path, data):
    path = tmp_path / "boxes" / "annotations" / "instances_val.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"annotations": []}))
    flags = ("--protocols=detection", data[2])
    return flags, "none of its 3 test images has an object that counts"


def too_many_bad(tmp_path, data):
    for path in (tmp_path / "masks" / "train" / "masks").glob("*.png"):
        path.write_bytes(b"no image")
    return data[:1], "6 of 9 images cannot be used"


@pytest.mark.parametrize(
    "flags, message",
    [
        ((), "--protocols=segmentation needs --segmentation_data"),
        (("--segmentation_data=nowhere",), "name voc:PATH"),
        (("--dense_size=32,32,32",), "more than a height and a width"),
        (("--mode=pretrain",), "goes with --mode=evaluate only"),
        (("--dense_rate=1e30", "--dense_steps=4"), "take a lower --dense_rate"),
        (foreign, "has no feature maps"),
        (several_machines, "runs on one machine"),
        (nothing_to_test, "none of its 3 test images can be used"),
        (too_many_bad, "6 of 9 images cannot be used"),
        (no_objects, "none of its 3 test images has an object that counts"),
        (("--dense_warmup=2",), "--dense_warmup=2 leaves nothing of the 2"),
    ],
)
def test_bad_input_is_answered_by_one_line(
    encoder_file, data, tmp_path, flags, message, capfd
):
    if callable(flags):
        flags, message = flags(tmp_path, data)
    elif flags and flags[0].startswith(("--dense_rate", "--dense_warmup")):
        flags = (*flags, data[0])
    code = evaluate(encoder_file, "--protocols=segmentation", *flags)
    assert code == 2
    error = capfd.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("byol_tf: ") and message in error
