"""TensorFlow Datasets: a small real one on disk, and those that are not."""

import socket

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from byol_tf.config import Config, ConfigError
from byol_tf.data import tfds_source
from byol_tf.data.pipeline import open_dataset
from byol_tf.data.skipped import Skipped
from byol_tf.data.sources import ArraySource, EncodedSource


class TinyPhotos(tfds.core.GeneratorBasedBuilder):
    """Twelve training and four validation images of two classes."""

    VERSION = tfds.core.Version("1.0.0")
    SHAPE = (None, None, 3)

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=self.SHAPE),
                    "label": tfds.features.ClassLabel(names=["no", "yes"]),
                }
            ),
        )

    def _split_generators(self, dl_manager):
        return {
            "train": self._examples(0, 12),
            "validation": self._examples(12, 16),
        }

    def _examples(self, first, last):
        for i in range(first, last):
            size = (20, 20, 3) if None not in self.SHAPE else (20 + i, 24, 3)
            image = np.full(size, i, np.uint8)
            yield i, {"image": image, "label": i % 2}

    _generate_examples = _examples


class SecondEdition(TinyPhotos, skip_registration=True):
    """The same under its first name, with eight images to learn from."""

    name = "tiny_photos"
    VERSION = tfds.core.Version("2.0.0")

    def _split_generators(self, dl_manager):
        return {"train": self._examples(0, 8)}


class TinyThumbnails(TinyPhotos):
    """The same, all of one size."""

    SHAPE = (20, 20, 3)


class TinyKinds(TinyPhotos):
    """With a coarser class and a mask, whose names come first."""

    def _info(self):
        features = {
            "a_mask": tfds.features.Image(shape=(None, None, 1)),
            "coarse_label": tfds.features.ClassLabel(names=["all"]),
            **super()._info().features,
        }
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features)
        )

    def _generate_examples(self, first, last):
        for i, example in super()._examples(first, last):
            mask = np.zeros((3, 3, 1), np.uint8)
            yield i, {**example, "a_mask": mask, "coarse_label": 0}

    _examples = _generate_examples


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    path = tmp_path_factory.mktemp("tfds")
    for kind in (TinyPhotos, SecondEdition, TinyThumbnails, TinyKinds):
        kind(data_dir=path).download_and_prepare()
    return str(path)


def config(data_dir, **settings) -> Config:
    return Config(batch_size=4, data_dir=data_dir, image_size=16, **settings)


def test_images_of_several_sizes(data_dir):
    dataset, _ = open_dataset(config(data_dir, dataset="tfds:tiny_photos"))
    assert isinstance(dataset.train, EncodedSource)
    assert (dataset.train.size, dataset.test.size) == (12, 4)
    assert dataset.class_names == ("no", "yes")
    seen = set()
    for i in range(12):
        encoded, label = dataset.train.read(tf.constant(i, tf.int64))
        value = int(tf.io.decode_image(encoded)[0, 0, 0])
        assert label == value % 2
        seen.add(value)
    assert seen == set(range(12))


def test_images_of_one_size_are_held_in_memory(data_dir):
    dataset, _ = open_dataset(config(data_dir, dataset="tfds:tiny_thumbnails"))
    assert isinstance(dataset.test, ArraySource)
    values = dataset.test.images[:, 0, 0, 0]
    assert sorted(values) == [12, 13, 14, 15]
    np.testing.assert_array_equal(dataset.test.labels, values % 2)


def test_image_and_label_go_before_others_of_their_kind(data_dir):
    dataset, _ = open_dataset(config(data_dir, dataset="tfds:tiny_kinds"))
    assert dataset.class_names == ("no", "yes")
    for i in range(12):
        encoded, label = dataset.train.read(tf.constant(i, tf.int64))
        image = tf.io.decode_image(encoded)
        assert image.shape[-1] == 3
        assert label == int(image[0, 0, 0]) % 2


def test_parts_of_splits(data_dir):
    dataset, _ = open_dataset(
        config(
            data_dir,
            dataset="tfds:tiny_photos",
            train_split="train[4:]",
            test_split="train[:4]",
        )
    )
    assert (dataset.train.size, dataset.test.size) == (8, 4)


def test_a_version(data_dir):
    sizes = {"": 12, ":1.0.0": 12, ":2.0.0": 8, ":2.*.*": 8}
    for version, size in sizes.items():
        name = f"tfds:tiny_photos{version}"
        settings = config(data_dir, dataset=name, test_split="train[:2]")
        assert open_dataset(settings)[0].train.size == size, name


@pytest.mark.parametrize(
    "settings, message",
    [
        (
            dict(dataset="tfds:tiny_photos:3.0.0"),
            "--dataset=tfds:tiny_photos:3.0.0: .*cannot be loaded at version",
        ),
        (dict(dataset="tfds:no_such_data"), "--dataset=tfds:no_such_data"),
        (dict(dataset="tfds:mnist"), "not on disk.*--data_dir.*--download"),
        (
            dict(dataset="tfds:tiny_photos", train_split="tuesday"),
            "--train_split=tuesday.*train",
        ),
    ],
)
def test_what_is_not_there_is_said_at_once(data_dir, settings, message):
    with pytest.raises(ConfigError, match=message) as error:
        open_dataset(config(data_dir, **settings))
    assert "\n" not in str(error.value)


def test_no_network_is_said_at_once(data_dir, monkeypatch):
    def refuse(address, timeout):
        raise OSError("unreachable")

    monkeypatch.setattr(socket, "create_connection", refuse)
    settings = config(data_dir, dataset="tfds:mnist", download=True)
    with pytest.raises(ConfigError, match="cannot be downloaded.*unreachable"):
        tfds_source.open_tfds("mnist", settings, Skipped())
