"""Which labels may be used: drawn ones, and the published lists."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from byol_tf.config import Config, ConfigError
from byol_tf.data.semi_supervised import open_labelled_part, semi_supervised
from byol_tf.data.skipped import Skipped
from byol_tf.data.sources import ArraySource
from byol_tf.data.splits import labels_of

LABELS = np.arange(500, dtype=np.int32) % 5
IMAGES = np.arange(500).reshape(500, 1, 1, 1).astype(np.uint8)


@pytest.mark.parametrize("fraction, each", [(0.01, 1), (0.1, 10), (1, 100)])
def test_of_each_class_the_same(fraction, each):
    numbers = semi_supervised(LABELS, fraction, seed=3)
    assert np.bincount(LABELS[numbers]).tolist() == [each] * 5
    np.testing.assert_array_equal(
        numbers, semi_supervised(LABELS, fraction, seed=3)
    )


def test_without_labels_there_is_no_part():
    for labels in (np.full(4, -1), np.zeros((4, 20), int)):
        with pytest.raises(ConfigError, match="--dataset has no images with"):
            semi_supervised(labels, 0.1, seed=0)


def test_a_part_follows_from_the_seed():
    source = ArraySource(IMAGES, LABELS)

    def part(seed):
        config = Config(dataset="npz:x", seed=seed)
        return open_labelled_part(source, 0.1, config, Skipped())

    assert part(0).size == 50
    np.testing.assert_array_equal(part(0).images, part(0).images)
    assert not np.array_equal(part(0).images, part(1).images)
    numbers = semi_supervised(LABELS, 0.1, seed=1)
    np.testing.assert_array_equal(part(1).labels, LABELS[numbers])


@pytest.mark.parametrize(
    "fraction, name", [(0.01, "1pct"), (0.1, "10pct"), (0.3, None)]
)
def test_imagenets_lists_are_the_published_ones(
    fraction, name, tmp_path, monkeypatch
):
    source = ArraySource(IMAGES, LABELS)
    config = Config(dataset="tfds:imagenet2012:5.1.0", data_dir=str(tmp_path))

    def opened():
        return open_labelled_part(source, fraction, config, Skipped())

    if name is None:
        assert opened().size == 150
        return
    full_name = f"imagenet2012_subset/{name}"
    with pytest.raises(ConfigError, match=rf"{full_name}\) is not on disk.*"):
        opened()
    builder = tfds.builder(full_name, data_dir=tmp_path)

    def generators(self, _):
        image = np.zeros((8, 8, 3), np.uint8)
        return {
            "train": (
                (i, {"image": image, "label": 333 * i, "file_name": "n.JPEG"})
                for i in range(4)
            )
        }

    monkeypatch.setattr(type(builder), "_split_generators", generators)
    builder.download_and_prepare()
    part = opened()
    assert sorted(labels_of(part)) == [0, 333, 666, 999]
    encoded, _ = part.read(tf.constant(0, tf.int64))
    assert tf.io.decode_image(encoded).shape == [8, 8, 3]
