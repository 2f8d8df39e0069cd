"""The protocols on pixels and small networks, against scikit-learn."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import tiny_encoder
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from byol_tf.config import Config, ConfigError
from byol_tf.data.bundled import open_bundled
from byol_tf.data.skipped import Skipped
from byol_tf.data.sources import ArraySource, EncodedSource
from byol_tf.evaluation import frozen_protocols, tuned_protocols
from byol_tf.evaluation.kept_results import KeptResults
from byol_tf.evaluation.protocols import PROTOCOLS
from byol_tf.evaluation.task import Task

TRAIN, VALIDATION, TEST = 400, 100, 300


def pixels() -> keras.Model:
    """An encoder without weights: the images' means over 4 x 4 pixels."""
    return keras.Sequential(
        [
            keras.Input([28, 28, 3]),
            keras.layers.AveragePooling2D(4),
            keras.layers.Flatten(),
        ]
    )


def part(source, start, count) -> ArraySource:
    chosen = slice(start, start + count)
    return ArraySource(source.images[chosen], source.labels[chosen])


def task(folder, encoder=None, **settings) -> Task:
    bundled = open_bundled()
    config = Config(
        image_size=28,
        eval_crop=1.0,
        **dict(knn_neighbours=(1, 5), classifier_batch_size=50) | settings,
    )
    return Task(
        encoder or pixels(),
        part(bundled.train, 0, TRAIN),
        part(bundled.train, TRAIN, VALIDATION),
        part(bundled.train, 0, TRAIN + VALIDATION),
        part(bundled.test, 0, TEST),
        bundled.class_names,
        "top1",
        config,
        Skipped(0.01),
        folder,
        folder,
        KeptResults(folder / "results.json"),
    )


def arrays(source):
    """Features and labels as NumPy has them."""
    images = source.images[..., 0].reshape(-1, 7, 4, 7, 4) / 255
    means = images.mean(axis=(2, 4)).reshape(len(images), -1)
    return np.repeat(means, 3, axis=1).astype(np.float32), source.labels


def rows_of(name, task):
    return list(PROTOCOLS[name].rows(task))


def test_knn(tmp_path):
    ours = task(tmp_path)
    features, labels = arrays(ours.training)
    queries, query_labels = arrays(ours.test)

    def votes(distances):
        return np.exp((1 - distances) / 0.07)

    rows = rows_of("knn", ours)
    assert [row.name for row in rows] == ["k = 1", "k = 5"]
    for row, k in zip(rows, (1, 5)):
        theirs = KNeighborsClassifier(k, metric="cosine", weights=votes)
        theirs.fit(features, labels)
        expected = theirs.score(queries, query_labels)
        assert row.estimate.value == pytest.approx(expected, abs=1e-9)
        assert row.estimate.low < expected < row.estimate.high


def test_transfer(tmp_path):
    ours = task(tmp_path)
    (row,) = rows_of("transfer", ours)
    splits = [arrays(s) for s in (ours.train, ours.validation, ours.test)]
    l2 = row.chosen["l2"]
    figures = row.chosen["validation"]
    assert len(figures) == 45
    assert figures[f"{l2:g}"] == max(figures.values())

    def theirs(l2, *parts):
        classifier = LogisticRegression(C=1 / l2, max_iter=2000, tol=1e-6)
        classifier.fit(*map(np.concatenate, zip(*parts)))
        return classifier

    score = theirs(l2, splits[0]).score(*splits[1])
    assert figures[f"{l2:g}"] == pytest.approx(score, abs=1.01 / VALIDATION)
    score = theirs(l2, *splits[:2]).score(*splits[2])
    assert row.estimate.value == pytest.approx(score, abs=1.01 / TEST)


def test_linear_on_features_computed_once(tmp_path):
    ours = task(tmp_path, linear_epochs=30)
    rows = rows_of("linear_cached", ours)
    assert [row.metric for row in rows] == ["top1", "top5"]
    chosen = rows[0].chosen
    assert set(map(float, chosen["validation"])) == {0.4, 0.3, 0.2, 0.1, 0.05}
    best = chosen["validation"][str(chosen["base_rate"])]
    assert best == max(chosen["validation"].values())
    assert rows[0].estimate.value > 0.55  # By chance 0.1.
    assert rows[1].estimate.value > rows[0].estimate.value


@pytest.mark.parametrize("name", ["linear", "linear_sweep"])
def test_linear_on_crops(tmp_path, name):
    rows = rows_of(name, task(tmp_path, linear_epochs=15))
    assert rows[0].estimate.value > 0.4
    assert (tmp_path / f"{name}.npz").exists()


SMALL_GRID = dict(finetune_rates=(0.05, 1e-4), finetune_epochs=(3,))


def test_fine_tuning_chooses_on_validation(tmp_path):
    ours = task(tmp_path, tiny_encoder(), **SMALL_GRID)
    rows = rows_of("finetune", ours)
    chosen = rows[0].chosen
    assert chosen["rate"] == 0.05  # The other one moves nothing.
    figures = chosen["validation"]
    assert figures["rate 0.05, 3 epochs"] > figures["rate 0.0001, 3 epochs"]
    assert chosen["images"] == ours.training.size > TRAIN


@pytest.mark.slow
def test_a_part_of_the_labels(tmp_path):
    ours = task(
        tmp_path, tiny_encoder(), label_fractions=(0.05, 0.5), **SMALL_GRID
    )
    rows = rows_of("semi_supervised", ours)
    names = {row.name: row.chosen["images"] for row in rows}
    assert names == {"5 % of the labels": 25, "50 % of the labels": 250}


def test_a_share_with_less_than_one_label_a_class(tmp_path):
    ours = task(
        tmp_path, tiny_encoder(), label_fractions=(0.001,), **SMALL_GRID
    )
    rows = rows_of("semi_supervised", ours)
    assert rows[0].name == "10 labels, one of each class"


def test_a_sweep_that_was_killed_goes_on(tmp_path, monkeypatch):
    """What was measured is not trained again."""
    rates = []

    def tuned(encoder, classes, batches_from, *, learning_rate, **arguments):
        rates.append(learning_rate)
        if len(rates) == 2:
            raise KeyboardInterrupt
        return lambda images, training: np.eye(10, dtype=np.float32)[
            np.zeros(len(images), int)
        ]

    monkeypatch.setattr(tuned_protocols, "fine_tuned", tuned)
    monkeypatch.setattr(
        tuned_protocols,
        "extract",
        lambda model, batches, title="": (
            np.eye(10, dtype=np.float32)[np.zeros(TEST, int)],
            np.arange(TEST) % 10,
        ),
    )
    settings = dict(finetune_rates=(0.1, 0.2, 0.3), finetune_epochs=(1,))
    with pytest.raises(KeyboardInterrupt):
        rows_of("finetune", task(tmp_path, **settings))
    rows = rows_of("finetune", task(tmp_path, **settings))
    assert rates == [0.1, 0.2, 0.2, 0.3, 0.1]  # The last one for the test.
    assert rows[0].estimate.value == 0.1
    # Finished, the test images are not looked at again.
    monkeypatch.setattr(tuned_protocols, "extract", None)
    assert rows_of("finetune", task(tmp_path, **settings)) == rows


@pytest.mark.slow
def test_rates_that_are_too_high_are_passed_over(tmp_path):
    settings = dict(finetune_rates=(1e30, 0.05), finetune_epochs=(1,))
    ours = task(tmp_path, tiny_encoder(), **settings)
    chosen = rows_of("finetune", ours)[0].chosen
    assert chosen["validation"]["rate 1e+30, 1 epochs"] is None
    assert chosen["rate"] == 0.05
    settings["finetune_rates"] = (1e30,)
    tmp_path = tmp_path / "other"
    tmp_path.mkdir()
    with pytest.raises(ValueError, match="take lower ones"):
        rows_of("finetune", task(tmp_path, tiny_encoder(), **settings))


@pytest.mark.slow
def test_fine_tuning_on_other_data(tmp_path):
    ours = task(
        tmp_path,
        tiny_encoder(),
        transfer_steps=80,
        transfer_rates=(0.1,),
        transfer_weight_decays=(0.0, 1e-3),
    )
    (row, _) = rows_of("transfer_finetune", ours)
    assert set(row.chosen["validation"]) == {
        "rate 0.1, decay 0",
        "rate 0.1, decay 0.001",
    }
    assert row.estimate.value > 0.3  # By chance 0.1.


@pytest.mark.slow
def test_several_labels_an_image(tmp_path):
    """Classes in pairs: an image is of two, and one does not count."""
    ours = task(
        tmp_path,
        transfer_steps=40,
        transfer_rates=(0.05,),
        transfer_weight_decays=(0.0,),
    )

    def several(source):
        labels = np.zeros((source.size, 10), np.int32)
        labels[np.arange(source.size), source.labels] = 1
        labels[np.arange(source.size), (source.labels + 1) % 10] = 1
        labels[:, 9] = np.where(labels[:, 9] == 0, -1, 1)
        labels[::7, 9] = 0
        return ArraySource(source.images, labels)

    splits = {
        name: several(getattr(ours, name))
        for name in ("train", "validation", "training", "test")
    }
    ours = dataclasses.replace(ours, metric="voc_map", **splits)
    (linear,) = rows_of("transfer", ours)
    assert linear.metric == "voc_map"
    assert linear.estimate.value > 0.7
    tuned = dataclasses.replace(ours, encoder=tiny_encoder())
    (fine,) = rows_of("transfer_finetune", tuned)
    assert fine.estimate.value > 0.35  # By chance about 0.2.


def test_more_neighbours_than_images(tmp_path):
    with pytest.raises(ConfigError, match="--knn_neighbours=501 is more"):
        rows_of("knn", task(tmp_path, knn_neighbours=(1, 501)))


def test_an_encoder_of_another_size(tmp_path):
    other = keras.Sequential([keras.Input([32, 32, 3]), keras.layers.Flatten()])
    with pytest.raises(
        ConfigError, match="of 32 x 32 pixels, not of --image_size=28"
    ):
        task(tmp_path, other).check()


def test_an_encoder_that_gives_maps(tmp_path):
    other = keras.Sequential(
        [keras.Input([28, 28, 3]), keras.layers.AveragePooling2D(4)]
    )
    with pytest.raises(ConfigError, match=r"\[1, 7, 7, 3\] for an image"):
        task(tmp_path, other).check()


def test_features_that_are_not_finite(tmp_path):
    encoder = keras.Sequential(
        [
            keras.Input([28, 28, 3]),
            keras.layers.Flatten(),
            keras.layers.Rescaling(float("nan")),
        ]
    )
    with pytest.raises(ConfigError, match="not finite"):
        task(tmp_path, encoder).check()


def bright_is_nan() -> keras.Model:
    """An encoder without a feature for images that are all white."""
    inputs = keras.Input([28, 28, 3])
    features = keras.layers.Conv2D(2, 3)(inputs)
    mean = keras.layers.GlobalAveragePooling2D()
    dark = keras.ops.log(1 - mean(inputs))
    return keras.Model(
        inputs, keras.layers.Concatenate()([mean(features), dark])
    )


def with_white(ours: Task, split: str, number: int) -> Task:
    source = getattr(ours, split)
    images = source.images.copy()
    images[number] = 255
    changed = ArraySource(images, source.labels)
    return dataclasses.replace(ours, **{split: changed})


@pytest.mark.parametrize(
    "name, split",
    [
        ("knn", "train"),
        ("linear", "training"),
        ("linear", "test"),
        ("finetune", "train"),
        ("transfer_finetune", "validation"),
    ],
)
def test_the_image_that_has_no_features(tmp_path, name, split):
    """Nothing is trained in vain, and no rate is blamed."""
    settings = dict(finetune_rates=(0.1,), finetune_epochs=(1,))
    ours = task(tmp_path, bright_is_nan(), linear_epochs=1, **settings)
    called = "train" if split == "training" else split
    with pytest.raises(
        ValueError,
        match=f"image 7 of the {called} split are not finite; leave",
    ):
        rows_of(name, with_white(ours, split, 7))


def test_the_file_that_has_no_features(tmp_path):
    """Its number counts the damaged images before it."""
    for number in range(5):
        image = np.full((28, 28, 3), 255 * (number == 3), np.uint8)
        encoded = tf.io.encode_png(image)
        (tmp_path / f"{number}.png").write_bytes(encoded.numpy())
    (tmp_path / "1.png").write_bytes(b"none")
    files = tf.constant([str(tmp_path / f"{n}.png") for n in range(5)])
    skipped = Skipped(0.5)
    source = EncodedSource(
        5,
        lambda number: (tf.io.read_file(files[number]), tf.constant(0)),
        lambda number: files[number].numpy().decode(),
        28,
        skipped,
    )
    ours = task(tmp_path, bright_is_nan())
    with pytest.raises(
        ValueError, match=r"image 3 of .*3\.png, are not finite"
    ):
        ours.check_features(source, "train")
    assert len(skipped) == 1


@pytest.mark.parametrize("name", ["test-1.npy", "test-1-labels.npy"])
def test_features_that_were_cut_off_are_made_anew(tmp_path, name, capsys):
    ours = task(tmp_path)
    expected, labels = map(np.array, ours.features("test"))
    path = tmp_path / f"features-{name}"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    features, found = task(tmp_path).features("test")
    assert "is damaged" in capsys.readouterr().err
    np.testing.assert_array_equal(features, expected)
    np.testing.assert_array_equal(found, labels)
    task(tmp_path).features("test")
    assert "damaged" not in capsys.readouterr().err


def test_features_are_computed_once(tmp_path):
    ours = task(tmp_path)
    features, labels = ours.features("test")
    expected, expected_labels = arrays(ours.test)
    np.testing.assert_allclose(features, expected, 1e-5, 1e-6)
    np.testing.assert_array_equal(labels, expected_labels)
    other = dataclasses.replace(ours, encoder=tiny_encoder())
    np.testing.assert_array_equal(other.features("test")[0], features)


def test_features_of_a_large_set_are_float16(tmp_path, monkeypatch):
    monkeypatch.setattr("byol_tf.evaluation.task.FLOAT32_BYTES", 1000)
    # Less than the training images take, more than the validation images.
    monkeypatch.setattr(
        "byol_tf.evaluation.task.FLOAT32_BYTES", 4 * 147 * TRAIN
    )
    banks = []

    def accuracies(bank, *others, **arguments):
        banks.append(bank)
        return {1: 0.5}

    monkeypatch.setattr(frozen_protocols, "knn_accuracies", accuracies)
    ours = task(tmp_path)
    rows_of("knn", ours)
    for name in ("train", "validation", "test"):
        features, _ = ours.features(name)
        assert features.dtype == np.float16
        assert isinstance(features, np.memmap)
    (bank,) = banks
    assert bank.shape == (TRAIN + VALIDATION, 147)
    middle = bank[TRAIN - 3 : TRAIN + 2]
    assert middle.dtype == np.float16
    expected, _ = arrays(ours.training)
    np.testing.assert_allclose(
        middle, expected[TRAIN - 3 : TRAIN + 2], rtol=1e-3, atol=1e-3
    )
