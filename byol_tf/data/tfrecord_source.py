"""`--dataset=tfrecord:GLOB`: files of tf.train.Example, by number of record."""

import glob
import hashlib
import os

import tensorflow as tf

from byol_tf.config import Config, ConfigError
from byol_tf.data.skipped import Skipped
from byol_tf.data.sources import UNLABELLED, Dataset, EncodedSource
from byol_tf.data.tfrecords import RecordFiles


def open_tfrecords(pattern: str, config: Config, skipped: Skipped) -> Dataset:
    """The records of all files that a pattern names.

    Raises:
      ConfigError: if there is none, or the records lack the features that
        `--tfrecord_image` and `--tfrecord_label` name.
    """
    train = _open(f"--dataset=tfrecord:{pattern}", pattern, config, skipped)
    test = None
    if config.tfrecord_test:
        flag = f"--tfrecord_test={config.tfrecord_test}"
        test = _open(flag, config.tfrecord_test, config, skipped)
    class_names = tuple(map(str, range(config.tfrecord_classes)))
    names = "\0".join(
        f"{path} {os.path.getsize(path)}" for path in _files(pattern)
    )
    fingerprint = hashlib.sha256(os.fsencode(names)).hexdigest()
    return Dataset(train, test, class_names, skipped, fingerprint)


def _files(pattern: str) -> list[str]:
    return sorted(
        filter(os.path.isfile, glob.glob(os.path.expanduser(pattern)))
    )


def _open(
    flag: str, pattern: str, config: Config, skipped: Skipped
) -> EncodedSource:
    records, places = RecordFiles(), []
    for path in _files(pattern):
        before = records.size
        try:
            lost = records.add(path)
        except OSError as error:
            raise ConfigError(
                f"{flag}: {path} cannot be read: {error.strerror}."
            ) from error
        if lost:
            skipped.note(path, f"about {lost} records at its end lost", lost)
        places += [(path, i) for i in range(records.size - before)]
    if not places:
        raise ConfigError(f"{flag} names no file with a record in it.")
    read_record = records.reader()
    _check_features(read_record, flag, places[0][0], config)

    classes = config.tfrecord_classes
    features = {
        config.tfrecord_image: tf.io.FixedLenFeature([], tf.string, ""),
    }
    if classes:
        features[config.tfrecord_label] = tf.io.FixedLenFeature(
            [], tf.int64, UNLABELLED
        )

    def read(index):
        example = tf.io.parse_single_example(read_record(index), features)
        label = tf.constant(UNLABELLED, tf.int64)
        if classes:
            label = example[config.tfrecord_label]
            tf.debugging.assert_less(label, tf.constant(classes, tf.int64))
        label = tf.maximum(label, UNLABELLED)
        return example[config.tfrecord_image], tf.cast(label, tf.int32)

    def name_of(number):
        path, record = places[number]
        return f"{path}, record {record}"

    return EncodedSource(records.size, read, name_of, None, skipped)


def _check_features(read_record, flag: str, path: str, config: Config) -> None:
    """Raises ConfigError if the first record has not what the flags say."""
    try:
        record = read_record(tf.constant(0, tf.int64)).numpy()
        found = tf.train.Example.FromString(record).features.feature
    except Exception as error:  # What protobuf raises depends on its version.
        raise ConfigError(
            f"{flag}: the first record of {path} is no tf.train.Example."
        ) from error
    wanted = {"tfrecord_image": "bytes_list"}
    if config.tfrecord_classes:
        wanted["tfrecord_label"] = "int64_list"
    for setting, kind in wanted.items():
        name = getattr(config, setting)
        if name not in found or found[name].WhichOneof("kind") != kind:
            what = "bytes" if kind == "bytes_list" else "a whole number"
            raise ConfigError(
                f"--{setting}={name} is no feature with {what} in {path}, "
                f"which has {', '.join(sorted(found)) or 'none'}."
            )
