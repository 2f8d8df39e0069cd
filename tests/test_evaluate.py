"""The job `evaluate` by its protocols: report, resume and messages."""

import json
import re
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
from conftest import ROOT, run, save_images, tiny_encoder

from byol_tf.evaluation import task
from byol_tf.evaluation.features import extract
from byol_tf.main import main

FLAGS = (
    "--mode=evaluate",
    "--dataset=bundled",
    "--classifier_batch_size=500",
    "--linear_epochs=2",
    "--label_fractions=0.01",
    "--finetune_rates=0.05",
    "--finetune_epochs=2",
)


@pytest.fixture
def encoder_file(tmp_path):
    path = tmp_path / "run" / "encoder.keras"
    path.parent.mkdir()
    tiny_encoder().save(path)
    return path


@pytest.fixture
def small(tmp_path):
    """A data set of 240 and 80 images of 8 pixels, in four colours."""
    random = np.random.RandomState(0)
    arrays = {}
    for split, count in (("train", 240), ("test", 80)):
        labels = np.arange(count) % 4
        colours = np.array([[200, 0, 0], [0, 200, 0], [0, 0, 200], [90, 90, 0]])
        noise = random.randint(0, 55, (count, 8, 8, 3))
        arrays[f"{split}_images"] = (
            colours[labels][:, None, None] + noise
        ).astype(np.uint8)
        arrays[f"{split}_labels"] = labels
    np.savez(tmp_path / "small.npz", **arrays)
    return f"npz:{tmp_path / 'small.npz'}"


def evaluate(encoder_file, *flags) -> int:
    return main(["main.py", *FLAGS, f"--encoder={encoder_file}", *flags])


@pytest.mark.slow
def test_all_of_them(encoder_file, small, capfd):
    folder = encoder_file.parent
    flags = (
        f"--dataset={small}",
        "--protocols=knn,linear,linear_sweep,linear_cached,semi_supervised,"
        "finetune,transfer,transfer_finetune",
        "--label_fractions=0.1",
        "--knn_neighbours=1,20",
        "--transfer_steps=5",
        "--transfer_rates=0.01,0.1",
        "--transfer_weight_decays=0,1e-4",
    )
    assert evaluate(encoder_file, *flags) == 0, capfd.readouterr().err
    results = json.loads((folder / "report.json").read_text())["protocols"]
    assert [result["protocol"] for result in results] == [
        "knn", "linear", "linear_sweep", "linear_cached", "semi_supervised",
        "finetune", "transfer", "transfer_finetune",
    ]  # fmt: skip
    for result in results:
        chosen_on = {"train": 216, "validation": 24, "test": 80}
        if result["protocol"] in ("knn", "linear"):
            chosen_on = {"train": 240, "test": 80}
        assert result["images"] == chosen_on
        assert result["seed"] == 0
        assert any("no ResNet-50" in text for text in result["differs"])
        for row in result["rows"]:
            assert 0 <= row["low"] <= row["value"] <= row["high"] <= 1
    assert results[0]["rows"][0]["value"] > 0.9  # Colours are easy.
    tuned = results[-1]["rows"][0]["chosen"]
    assert len(tuned["validation"]) == 4
    text = (folder / "report.md").read_text()
    assert "| semi_supervised [5] |" in text
    # Where the paper has a figure, it stands there, and what is not alike.
    assert "| best rate | top-1 | " in text and "74.3 (ImageNet)" in text
    assert "--linear_epochs: 2, not 80" in text


def test_a_finished_one_is_not_measured_again(encoder_file, small, capfd):
    flags = (f"--dataset={small}", "--protocols=knn", "--knn_neighbours=1")
    report = encoder_file.parent / "report.json"
    assert evaluate(encoder_file, *flags) == 0
    first = report.read_text()
    assert evaluate(encoder_file, *flags) == 0
    assert report.read_text() == first  # Even the seconds.
    kept = list((encoder_file.parent / "protocols").rglob("results.json"))
    assert len(kept) == 1
    content = json.loads(kept[0].read_text())
    content["results"]["result"]["rows"][0]["value"] = 0.123
    kept[0].write_text(json.dumps(content))
    assert evaluate(encoder_file, *flags) == 0
    assert "0.123" in report.read_text()
    # With other settings it is, and what is kept of these remains.
    assert evaluate(encoder_file, *flags, "--seed=1") == 0
    assert "0.123" not in report.read_text()
    assert evaluate(encoder_file, *flags) == 0
    assert "0.123" in report.read_text()
    # With --noresume it is; other settings' results remain.
    kept = encoder_file.parent / "protocols"
    others = {path: path.read_text() for path in kept.rglob("results.json")}
    assert evaluate(encoder_file, *flags, "--noresume") == 0
    assert "0.123" not in report.read_text()
    changed = [p for p, text in others.items() if p.read_text() != text]
    assert len(others) == 2 and len(changed) == 1


def test_noresume_computes_features_once(encoder_file, small, monkeypatch):
    """Anew, but not for each protocol: both have the same images."""
    flags = (
        f"--dataset={small}",
        "--protocols=knn,linear_cached",
        "--knn_neighbours=1",
        "--noresume",
    )
    splits = []

    def counted(encoder, batches, title, *others):
        splits.append(title)
        return extract(encoder, batches, title, *others)

    monkeypatch.setattr(task, "extract", counted)
    once = ["features, train", "features, validation", "features, test"]
    assert evaluate(encoder_file, *flags) == 0
    assert splits == once
    assert evaluate(encoder_file, *flags) == 0
    assert splits == 2 * once


def test_data_of_a_long_path(encoder_file, tmp_path):
    """Longer than the name of a file may be."""
    root = tmp_path.joinpath(*3 * ["é" * 100])
    for split in ("train", "test"):
        for label in ("a", "b"):
            save_images(root / split / label, 4, size=(28, 28))
    flags = (
        f"--dataset=folder:{root}",
        "--protocols=knn",
        "--knn_neighbours=1",
        "--image_size=28",
    )
    assert evaluate(encoder_file, *flags) == 0
    assert "| knn [1] |" in (encoder_file.parent / "report.md").read_text()


def test_results_of_another_encoder_are_dropped(encoder_file, small):
    flags = (f"--dataset={small}", "--knn_neighbours=1")
    report = encoder_file.parent / "report.json"
    assert evaluate(encoder_file, *flags, "--protocols=knn,transfer") == 0
    keras.utils.set_random_seed(5)
    tiny_encoder().save(encoder_file)
    assert evaluate(encoder_file, *flags, "--protocols=knn") == 0
    results = json.loads(report.read_text())["protocols"]
    assert [result["protocol"] for result in results] == ["knn"]


def test_images_that_were_exchanged_are_measured_anew(encoder_file, tmp_path):
    root = tmp_path / "pets"
    for split, first in (("train", 0), ("test", 20)):
        for label in ("a", "b"):
            save_images(root / split / label, 6, size=(28, 28), first=first)
            first += 6
    report = encoder_file.parent / "report.json"
    flags = (
        "--protocols=transfer",
        f"--transfer_sets=pets:{root}",
        "--image_size=28",
    )
    assert evaluate(encoder_file, *flags) == 0
    first = json.loads(report.read_text())["protocols"][0]
    assert first["rows"][0]["metric"] == "mean_per_class"
    assert first["rows"][0]["paper"] == 90.4
    assert any("paper's 2,940 / 740" in note for note in first["notes"])
    save_images(root / "test" / "a", 6, size=(28, 28), first=100)
    for path in (root / "test" / "a").glob("02?.jpg"):
        path.unlink()
    assert evaluate(encoder_file, *flags) == 0
    second = json.loads(report.read_text())["protocols"][0]
    assert second["images"] == first["images"]
    assert second["fingerprints"]["train"] == first["fingerprints"]["train"]
    assert second["fingerprints"]["test"] != first["fingerprints"]["test"]


def three_classes(path, of_test: int) -> str:
    """The flag for nine images of three classes, and as many to test."""
    images = np.random.RandomState(0).randint(0, 255, (9, 8, 8, 3), np.uint8)
    np.savez(
        path,
        train_images=images,
        train_labels=np.arange(9) % 3,
        test_images=images,
        test_labels=np.arange(9) % of_test,
    )
    return f"--dataset=npz:{path}"


def test_a_class_without_test_images_is_noted(encoder_file, tmp_path):
    data = three_classes(tmp_path / "fewer.npz", of_test=2)
    flags = ("--protocols=knn", "--knn_neighbours=1")
    assert evaluate(encoder_file, data, *flags) == 0
    report = encoder_file.parent / "report.json"
    (result,) = json.loads(report.read_text())["protocols"]
    assert result["notes"] == ["no test image is of 1 of the 3 classes: 2."]
    text = (encoder_file.parent / "report.md").read_text()
    assert " No test image is of 1 of the 3 classes: 2.\n" in text


@pytest.mark.parametrize("protocols", [["--protocols=knn"], []])
def test_an_encoder_of_two_outputs(
    encoder_file, small, tmp_path, protocols, capfd
):
    inputs = keras.Input([8, 8, 3])
    features = keras.layers.Dense(2)(keras.layers.Flatten()(inputs))
    path = tmp_path / "two.keras"
    keras.Model(inputs, [features, features]).save(path)
    flags = (f"--encoder={path}", f"--dataset={small}", *protocols)
    assert evaluate(encoder_file, *flags) == 2
    error = capfd.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("byol_tf: --encoder gives 2 outputs in a list")


def photos_of_two_classes(root, train: int, test: int):
    """A folder of so many images of each class."""
    for split, count in (("train", train), ("test", test)):
        for name in "ab":
            save_images(root / split / name, count, (8, 8), "png")
    return root


def test_a_last_batch_of_damaged_images(encoder_file, tmp_path):
    """256 sound images and then one that is not: a batch without any."""
    root = photos_of_two_classes(tmp_path / "photos", 4, 128)
    (root / "test" / "b" / "999.png").write_bytes(b"no image")
    flags = ("--protocols=knn,linear_cached", "--knn_neighbours=1")
    flags += ("--in_memory_gb=0", "--linear_epochs=1", "--image_size=8")
    assert evaluate(encoder_file, f"--dataset=folder:{root}", *flags) == 0
    report = encoder_file.parent / "report.json"
    results = json.loads(report.read_text())["protocols"]
    assert [result["protocol"] for result in results] == [
        "knn",
        "linear_cached",
    ]
    text = (encoder_file.parent / "report.md").read_text()
    assert f"Encoder: `{encoder_file}` (SHA-256 " in text


def test_no_sound_image_to_test(encoder_file, tmp_path, capfd):
    root = photos_of_two_classes(tmp_path / "photos", 40, 1)
    for path in root.glob("test/*/*.png"):
        path.write_bytes(path.read_bytes()[:60])
    flags = ("--protocols=knn", "--knn_neighbours=1", "--in_memory_gb=0")
    flags += ("--max_corrupt_fraction=0.1", "--image_size=8")
    assert evaluate(encoder_file, f"--dataset=folder:{root}", *flags) == 2
    error = capfd.readouterr().err.strip().splitlines()[-1]
    assert "no image of the test split can be used" in error


def test_transfer_of_one_image_a_class(encoder_file, tmp_path, capfd):
    root = photos_of_two_classes(tmp_path / "photos", 1, 1)
    flags = ("--protocols=transfer", f"--transfer_sets=pets:{root}")
    assert evaluate(encoder_file, "--image_size=8", *flags) == 2
    error = capfd.readouterr().err.strip().splitlines()[-1]
    assert f"--transfer_sets=pets:{root}: its validation split has no" in error


def test_transfer_of_labels_with_gaps(encoder_file, tmp_path):
    """Of 0, 1 and 2, and of 1, 3 and 9: the same figure."""
    images = np.random.RandomState(0).randint(0, 99, (60, 8, 8, 3), np.uint8)
    labels = np.arange(60) % 3
    images[np.arange(60), ..., labels] += 99  # Red, green and blue ones.
    values = []
    for numbers in ([0, 1, 2], [1, 3, 9]):
        path = tmp_path / f"{numbers[-1]}.npz"
        of = np.array(numbers)[labels]
        arrays = dict(train_images=images, test_images=images)
        np.savez(path, **arrays, train_labels=of, test_labels=of)
        flags = (f"--dataset=npz:{path}", "--protocols=transfer")
        assert evaluate(encoder_file, *flags) == 0
        report = encoder_file.parent / "report.json"
        results = json.loads(report.read_text())["protocols"]
        values.append(results[-1]["rows"][0]["value"])
    assert values[0] == values[1] > 0.7


@pytest.mark.slow
def test_one_that_was_killed_goes_on(encoder_file, small):
    """A real process, killed inside the second training of a sweep."""
    flags = [
        *FLAGS,
        f"--encoder={encoder_file}",
        f"--dataset={small}",
        "--protocols=finetune",
        "--finetune_rates=0.05,0.1",
        "--finetune_epochs=2",
    ]
    kept = encoder_file.parent / "protocols"
    process = subprocess.Popen(
        [sys.executable, "byol_tf/main.py", *flags], cwd=ROOT
    )
    for _ in range(9000):
        found = [path.read_text() for path in kept.rglob("results.json")]
        if any("rate 0.05" in text for text in found):
            break
        time.sleep(0.1)
    process.kill()
    process.wait()
    (path,) = kept.rglob("results.json")
    before = json.loads(path.read_text())
    assert "result" not in before["results"]
    assert run(*flags).returncode == 0
    (path,) = kept.rglob("results.json")
    after = json.loads(path.read_text())
    assert after["seconds"] > before["seconds"]
    assert before["results"].items() <= after["results"].items()
    chosen = after["results"]["result"]["rows"][0]["chosen"]
    assert set(chosen["validation"]) == {
        "rate 0.05, 2 epochs",
        "rate 0.1, 2 epochs",
    }


def bad_name(tmp_path, small):
    return ["--protocols=kn"], "--protocols=kn is none of knn, linear"


def bad_neighbours(tmp_path, small):
    # Said before transfer takes its time.
    flags = [
        f"--dataset={small}",
        "--protocols=transfer,knn",
        "--knn_neighbours=500",
    ]
    return flags, "--knn_neighbours=500 is more than there are"


def bad_single(tmp_path, small):
    for label, count in (("a", 3), ("b", 1)):
        for split in ("train", "test"):
            save_images(tmp_path / "d" / split / label, count, size=(28, 28))
    flags = [f"--dataset=folder:{tmp_path / 'd'}", "--protocols=knn"]
    return flags, "one training image of class 'b'"


def bad_classes(tmp_path, small):
    data = three_classes(tmp_path / "other.npz", of_test=4)
    flags = [data, "--protocols=knn"]
    return flags, "test images of class '3'"


def bad_unlabelled(tmp_path, small):
    save_images(tmp_path / "plain", 6, size=(28, 28))
    flags = [f"--dataset=folder:{tmp_path / 'plain'}", "--protocols=knn"]
    return flags, "needs held-out images with labels"


def bad_size(tmp_path, small):
    encoder = keras.Sequential([keras.Input([9, 9, 3]), keras.layers.Flatten()])
    encoder.add(keras.layers.Dense(2))
    encoder.save(tmp_path / "other.keras")
    flags = [
        f"--encoder={tmp_path / 'other.keras'}",
        f"--dataset={small}",
        "--protocols=knn",
    ]
    return (
        flags,
        "--encoder takes images of 9 x 9 pixels, not of --image_size=8",
    )


def bad_weights(tmp_path, small):
    encoder = keras.Sequential([keras.Input([8, 8, 3]), keras.layers.Flatten()])
    encoder.save(tmp_path / "none.keras")
    flags = [
        f"--encoder={tmp_path / 'none.keras'}",
        f"--dataset={small}",
        "--protocols=knn",
    ]
    return flags, "a model without weights"


def bad_nan(tmp_path, small):
    encoder = tiny_encoder()
    encoder.set_weights([w * np.nan for w in encoder.get_weights()])
    encoder.save(tmp_path / "nan.keras")
    flags = [
        f"--encoder={tmp_path / 'nan.keras'}",
        f"--dataset={small}",
        "--protocols=knn",
    ]
    return flags, "--encoder gives features that are not finite"


def bad_set(tmp_path, small):
    flags = ["--protocols=transfer", "--transfer_sets=food"]
    return flags, "--transfer_sets=food is none of food101, cifar10"


def bad_set_without_its_protocol(tmp_path, small):
    flags = ["--protocols=knn", "--transfer_sets=dtd"]
    return flags, "--transfer_sets=dtd goes with --protocols=transfer"


def bad_set_after_others(tmp_path, small):
    flags = [
        f"--dataset={small}",
        "--protocols=knn,transfer",
        f"--transfer_sets=all,birdsnap:{tmp_path}",
        f"--data_dir={tmp_path}",
    ]
    return flags, "food101 .* is not on disk"


def bad_set_on_disk(tmp_path, small):
    flags = [
        "--protocols=transfer",
        "--transfer_sets=dtd",
        f"--data_dir={tmp_path}",
    ]
    return flags, "dtd .* is not on disk"


def bad_grid(tmp_path, small):
    return ["--protocols=finetune", "--finetune_rates="], "takes one at least"


@pytest.mark.parametrize(
    "make",
    [
        bad_name,
        bad_neighbours,
        bad_single,
        bad_classes,
        bad_unlabelled,
        bad_size,
        bad_weights,
        bad_nan,
        bad_set,
        bad_set_without_its_protocol,
        bad_set_after_others,
        bad_set_on_disk,
        bad_grid,
    ],
)
def test_bad_input_is_answered_by_one_line(
    tmp_path, encoder_file, small, make, capfd
):
    flags, expected = make(tmp_path, small)
    assert evaluate(encoder_file, *flags) == 2
    output = capfd.readouterr()
    assert "## Protocols" not in output.out  # Nothing was measured before.
    error = output.err.replace("\r", "\n").strip().splitlines()[-1]
    assert error.startswith("byol_tf: ")
    assert re.search(expected, error), error
