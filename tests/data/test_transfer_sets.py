"""The transfer sets: the schemas of TFDS, with images of our own, and folders.

What is written to the disk are TFRecords by TFDS's own builders, whose
downloads alone are replaced.
"""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from conftest import save_images

from byol_tf.config import Config, ConfigError
from byol_tf.data.pipeline import evaluation_batches
from byol_tf.data.skipped import Skipped
from byol_tf.data.sources import ArraySource, EncodedSource
from byol_tf.data.splits import labels_of
from byol_tf.data.transfer_sets import (
    TRANSFER_SETS,
    open_transfer_set,
    voc_labels,
)
from byol_tf.evaluation.metrics import METRICS

# Classes, and labels of the images that the tests write.
CLASSES = {
    "food101": 101,
    "cifar10": 10,
    "cifar100": 100,
    "sun397": 397,
    "cars": 196,
    "voc2007": 20,
    "dtd": 47,
    "pets": 37,
    "caltech101": 102,
    "flowers": 102,
}
HELD_OUT = {
    "food101": 3,
    "cifar10": 3,
    "cifar100": 3,
    "sun397": 6,
    "cars": 6,
    "pets": 6,
    "caltech101": 3,
}
TRAIN = 30  # Ten images of each of three classes.
OFFICIAL = {"train": TRAIN, "validation": 6, "test": 9}


def zeros(feature):
    """An example of zeros for any feature but images and labels."""
    if isinstance(feature, tfds.features.FeaturesDict):
        return {key: zeros(inner) for key, inner in feature.items()}
    if isinstance(feature, tfds.features.Text):
        return "name"
    if isinstance(feature, tfds.features.Image):
        shape = [side or 8 for side in feature.shape]
        return np.zeros(shape, np.uint8)
    if isinstance(feature, tfds.features.BBoxFeature):
        return tfds.features.BBox(0.0, 0.0, 1.0, 1.0)
    if isinstance(feature, tfds.features.Sequence):
        return []
    return 0


def written(key, folder, monkeypatch, sizes):
    """Writes a data set of so many images; image i is of class i % 3."""
    name = TRANSFER_SETS[key].builder
    builder = tfds.builder(name, data_dir=folder)
    features = builder.info.features

    def examples(count):
        for i in range(count):
            example = zeros(features)
            example["image"] += np.uint8(i)
            if key == "voc2007":
                box = zeros(features["objects"].feature["bbox"])
                example["objects"] = [
                    {
                        "label": label,
                        "is_difficult": difficult,
                        "is_truncated": False,
                        "pose": 0,
                        "bbox": box,
                    }
                    for label, difficult in (
                        (i % 20, False),
                        (i % 20, True),
                        ((i + 1) % 20, True),
                    )[: i % 4]
                ]
            else:
                example["label"] = i % 3
            yield i, example

    def generators(self, _):
        return {split: examples(count) for split, count in sizes.items()}

    monkeypatch.setattr(type(builder), "_split_generators", generators)
    builder.download_and_prepare()


@pytest.fixture
def opened(tmp_path, monkeypatch):
    def open_one(key):
        wanted = TRANSFER_SETS[key]
        names = {wanted.train, wanted.test, wanted.validation}
        sizes = {n: OFFICIAL[n] for n in names if isinstance(n, str)}
        written(key, tmp_path, monkeypatch, sizes)
        config = Config(data_dir=str(tmp_path))
        return open_transfer_set(key, config, Skipped(0.01))

    return open_one


def loaded(source) -> tuple[np.ndarray, np.ndarray]:
    """The numbers under which images were written, and their labels."""
    ((images, labels),) = evaluation_batches(source, 8, 1.0)
    assert images.shape == (source.size, 8, 8, 3)
    return np.rint(images[:, 0, 0, 0] * 255).astype(int), labels.numpy()


def label_written(key, number):
    if key != "voc2007":
        return number % 3
    label = np.zeros(20, int)
    if number % 4 == 3:  # Difficult only.
        label[(number + 1) % 20] = -1
    if number % 4:
        label[number % 20] = 1
    return label


@pytest.mark.parametrize("key", sorted(CLASSES))
def test_every_builder(key, opened):
    splits, wanted = opened(key), TRANSFER_SETS[key]
    classes = CLASSES[key]
    assert len(splits.class_names) == len(set(splits.class_names)) == classes
    assert splits.metric == wanted.metric
    test = OFFICIAL["validation" if key == "food101" else "test"]
    validation = HELD_OUT.get(key, OFFICIAL["validation"])
    train = TRAIN - HELD_OUT.get(key, 0)
    sizes = (train, validation, test)
    assert tuple(source.size for source in splits[:3]) == sizes
    is_small = key.startswith("cifar")
    seen = []
    for source in splits[:3]:
        assert isinstance(source, ArraySource if is_small else EncodedSource)
        numbers, labels = loaded(source)
        expected = [label_written(key, number) for number in numbers]
        np.testing.assert_array_equal(labels, expected)
        assert labels.dtype == np.int32
        np.testing.assert_array_equal(labels_of(source), labels)
        seen.append(numbers)
    if key in HELD_OUT:
        # Of each class the same; together they are the official images.
        assert set(np.bincount(seen[1] % 3)) == {validation // 3}
        assert sorted(np.concatenate(seen[:2])) == list(range(TRAIN))
        assert "of each class of train" in " ".join(splits.notes)
    assert f"the paper's {wanted.sizes[0]:,} / " in splits.notes[-1]


@pytest.mark.parametrize(
    "objects, shown, ignored",
    [
        ([], [], []),
        ([(3, False)], [3], []),
        ([(3, True)], [], [3]),
        ([(3, True), (3, False), (19, True)], [3], [19]),
        ([(0, False), (0, False), (7, False), (2, True)], [0, 7], [2]),
    ],
)
def test_voc_labels(objects, shown, ignored):
    labels = voc_labels(
        tf.constant([label for label, _ in objects], tf.int64),
        tf.constant([difficult for _, difficult in objects], tf.bool),
    )
    assert labels.dtype == tf.int32
    assert np.flatnonzero(labels == 1).tolist() == shown
    assert np.flatnonzero(labels == -1).tolist() == ignored
    assert np.count_nonzero(labels == 0) == 20 - len(shown + ignored)


def test_a_drawn_validation_split_is_always_the_same(opened):
    first, second = (opened("cifar10").validation for _ in range(2))
    np.testing.assert_array_equal(first.images, second.images)


def test_the_table():
    assert len(TRANSFER_SETS) == 12
    assert {each.metric for each in TRANSFER_SETS.values()} <= set(METRICS)
    # Ours hold out as many as the paper's, where classes are of one size.
    for key, of_class in (
        ("food101", 750),
        ("cifar10", 5000),
        ("sun397", 50),
        ("caltech101", 30),
    ):
        wanted = TRANSFER_SETS[key]
        held = CLASSES[key] * int(of_class * wanted.validation + 1e-9)
        assert wanted.sizes[:2] == (CLASSES[key] * of_class - held, held)


def photos(root, **counts):
    """Folders SPLIT/CLASS of so many images a class."""
    for split, count in counts.items():
        for name in ("cat", "dog"):
            save_images(root / split / name, count)
    return root


@pytest.mark.parametrize("validation", ["val", "validation"])
def test_a_folder_with_its_own_validation_split(tmp_path, validation):
    photos(tmp_path, train=4, **{validation: 3}, test=5)
    splits = open_transfer_set(f"aircraft:{tmp_path}", Config(), Skipped())
    assert [source.size for source in splits[:3]] == [8, 6, 10]
    assert splits.class_names == ("cat", "dog")
    assert splits.metric == "mean_per_class"
    assert labels_of(splits.validation).tolist() == [0] * 3 + [1] * 3


def test_a_folder_without_one(tmp_path):
    photos(tmp_path, train=10, test=2)
    save_images(tmp_path / "train" / "emu", 1)
    config = Config(in_memory_gb=0)
    splits = open_transfer_set(f"birdsnap:{tmp_path}", config, Skipped())
    assert [source.size for source in splits[:3]] == [19, 2, 4]
    assert sorted(labels_of(splits.validation)) == [0, 1]
    assert splits.metric == "top1"
    assert splits.notes == (
        "validation is 0.1 of each class of train, drawn with seed 0.",
        "1 of the classes have one image only, which is not held out: emu.",
        "train, validation and test have 19 / 2 / 4 images, the paper's "
        "42,405 / 4,981 / 2,443.",
    )


def test_damaged_images_stop_it_if_there_are_many(tmp_path):
    photos(tmp_path, train=10, test=2)
    (tmp_path / "train/cat/000.jpg").write_text("no image")
    name = f"birdsnap:{tmp_path}"
    with pytest.raises(ConfigError, match="1 of 24 images cannot be used"):
        open_transfer_set(name, Config(), Skipped(0.01))
    splits = open_transfer_set(name, Config(), Skipped(0.05))
    assert sum(source.size for source in splits[:3]) in (23, 24)


@pytest.mark.parametrize(
    "name, message",
    [
        ("mnist", "--transfer_sets=mnist is none of food101, cifar10"),
        ("birdsnap", r"birdsnap is not among.*birdsnap:PATH, with train/CLASS"),
        ("aircraft", r"aircraft is not among.*aircraft:PATH, with train/CLASS"),
        ("aircraft:/nowhere", "/nowhere/train does not exist"),
        ("voc2007:/nowhere", "VOC2007 has several labels"),
        ("cars", r"cars \(tfds:cars196\) is not on disk.*--data_dir.*--down"),
    ],
)
def test_what_is_not_there_is_said_in_a_line(name, message, tmp_path):
    with pytest.raises(ConfigError, match=message) as error:
        open_transfer_set(name, Config(data_dir=str(tmp_path)), Skipped())
    assert "\n" not in str(error.value)


def test_a_folder_without_classes(tmp_path):
    save_images(tmp_path / "train", 3)
    with pytest.raises(ConfigError, match="train has no sub-folders for its"):
        open_transfer_set(f"pets:{tmp_path}", Config(), Skipped())
