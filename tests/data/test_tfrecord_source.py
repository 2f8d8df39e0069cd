"""TFRecord files of tf.train.Example, and what may be wrong with them."""

import io

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from byol_tf import augment
from byol_tf.config import Config, ConfigError
from byol_tf.data.pipeline import open_dataset, training_batches


def example(value: int, label=None, image="image/encoded", **names) -> bytes:
    """A photo of one colour, as a serialized tf.train.Example."""
    buffer = io.BytesIO()
    photo = np.full((20 + value, 24, 3), value, np.uint8)
    PIL.Image.fromarray(photo).save(buffer, "PNG")
    feature = {
        image: tf.train.Feature(
            bytes_list=tf.train.BytesList(value=[buffer.getvalue()])
        )
    }
    if label is not None:
        feature[names.get("name", "image/class/label")] = tf.train.Feature(
            int64_list=tf.train.Int64List(value=[label])
        )
    features = tf.train.Features(feature=feature)
    return tf.train.Example(features=features).SerializeToString()


def write(path, records):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)


def config(tmp_path, **settings) -> Config:
    settings = {"dataset": f"tfrecord:{tmp_path}/train-*"} | settings
    return Config(batch_size=4, image_size=16, **settings)


def read_all(source) -> list[tuple[int, int]]:
    """The value of each image's first pixel, and its label."""
    results = []
    for i in range(source.size):
        encoded, label = source.read(tf.constant(i, tf.int64))
        results.append((int(tf.io.decode_png(encoded)[0, 0, 0]), int(label)))
    return results


def test_files_labels_and_a_test_set(tmp_path):
    write(tmp_path / "train-0", [example(i, i % 3) for i in range(4)])
    write(tmp_path / "train-1", [example(i, i % 3) for i in range(4, 9)])
    write(tmp_path / "test-0", [example(i, i % 3) for i in range(20, 22)])
    dataset, _ = open_dataset(
        config(tmp_path, tfrecord_classes=3, tfrecord_test=f"{tmp_path}/test-*")
    )
    assert read_all(dataset.train) == [(i, i % 3) for i in range(9)]
    assert read_all(dataset.test) == [(20, 2), (21, 0)]
    assert dataset.class_names == ("0", "1", "2")


def test_names_of_features(tmp_path):
    records = [example(i, 1, image="photo", name="kind") for i in range(4)]
    write(tmp_path / "train-0", records)
    settings = config(
        tmp_path,
        tfrecord_image="photo",
        tfrecord_label="kind",
        tfrecord_classes=2,
    )
    dataset, _ = open_dataset(settings)
    assert read_all(dataset.train) == [(i, 1) for i in range(4)]


def test_without_classes_labels_are_not_used(tmp_path):
    write(tmp_path / "train-0", [example(i, 5) for i in range(4)])
    dataset, _ = open_dataset(config(tmp_path))
    assert read_all(dataset.train) == [(i, -1) for i in range(4)]
    assert dataset.class_names == () and dataset.test is None


def test_records_without_a_label_or_with_one_too_high(tmp_path):
    records = [example(i, i % 3) for i in range(8)]
    write(tmp_path / "train-0", [*records, example(8), example(9, 3)])
    dataset, _ = open_dataset(
        config(tmp_path, tfrecord_classes=3, max_corrupt_fraction=0.5)
    )
    batches = training_batches(
        dataset.train, 10, 16, 0, (augment.T, augment.T_PRIME)
    )
    _, labels = next(batches.as_numpy_iterator())
    assert set(labels) == {-1, 0, 1, 2}
    (name,) = dataset.skipped.reasons
    assert name == f"{tmp_path}/train-0, record 9"


def test_a_file_that_is_cut_short(tmp_path):
    write(tmp_path / "train-0", [example(i) for i in range(6)])
    path = tmp_path / "train-0"
    path.write_bytes(path.read_bytes()[:-10])
    dataset, _ = open_dataset(config(tmp_path, max_corrupt_fraction=0.5))
    assert dataset.train.size == 5
    assert "about 1 records" in dataset.skipped.reasons[str(path)]
    with pytest.raises(ConfigError, match="1 of 5 images .*at its end lost"):
        open_dataset(config(tmp_path))


def test_what_cannot_be_opened(tmp_path):
    with pytest.raises(ConfigError, match="names no file with a record"):
        open_dataset(config(tmp_path))
    write(tmp_path / "train-0", [b"what is this"])
    with pytest.raises(ConfigError, match="train-0 is no tf.train.Example"):
        open_dataset(config(tmp_path, seed=1))
    write(tmp_path / "train-0", [example(0, image="photo")])
    with pytest.raises(
        ConfigError,
        match="--tfrecord_image=image/encoded .*train-0, which has photo",
    ):
        open_dataset(config(tmp_path, seed=2))
    with pytest.raises(ConfigError, match="--tfrecord_label=image/class/label"):
        open_dataset(
            config(tmp_path, tfrecord_image="photo", tfrecord_classes=2)
        )
    with pytest.raises(ConfigError, match="--tfrecord_test goes with"):
        Config(tfrecord_test="x")
