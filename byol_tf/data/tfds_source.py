"""`--dataset=tfds:NAME[:VERSION]`: TensorFlow Datasets, read by number."""

import os
import socket
import urllib.parse
import urllib.request

import tensorflow as tf
from absl import logging

from byol_tf.config import Config, ConfigError
from byol_tf.data.loading import cores, in_memory
from byol_tf.data.skipped import Skipped
from byol_tf.data.sources import UNLABELLED, Dataset, EncodedSource, Source
from byol_tf.data.tfrecords import RecordFiles

# Seconds to wait for an answer before a download is called impossible.
CONNECT_TIMEOUT = 5


def open_tfds(name: str, config: Config, skipped: Skipped) -> Dataset:
    """A TFDS data set with an image, and perhaps a class, in each example.

    Raises:
      ConfigError: if it is not known, not on disk and not to be downloaded, or
        holds no images.
    """
    # Imported here: it is slow, and needed for no other source.
    import tensorflow_datasets as tfds

    logging.set_verbosity(logging.ERROR)  # What it warns of is said below.
    try:
        builder = tfds.builder(
            name, data_dir=os.path.expanduser(config.data_dir) or None
        )
    except (tfds.core.registered.DatasetNotFoundError, ValueError) as error:
        raise ConfigError(
            f"--dataset=tfds:{name} is no TensorFlow Dataset, and --data_dir "
            f"holds none of that name."
        ) from error
    except AssertionError as error:  # Its end names the versions there are.
        _, dataset, why = str(error).rpartition("Dataset ")
        raise ConfigError(f"--dataset=tfds:{name}: {dataset}{why}") from error
    if not builder.is_prepared():
        _prepare(name, builder, config)

    features = builder.info.features
    image = _first_key(features, tfds.features.Image)
    label = _first_key(features, tfds.features.ClassLabel)
    if image is None:
        raise ConfigError(f"--dataset=tfds:{name} holds no images.")
    undecoded = {image: tfds.decode.SkipDecoding()}
    splits = builder.info.splits

    def open_split(flag: str, split: str) -> Source:
        try:
            instructions = splits[split].file_instructions
        except (KeyError, ValueError, AssertionError) as error:
            raise ConfigError(
                f"--{flag}={split} is no split of tfds:{name}; it has "
                f"{', '.join(splits)}."
            ) from error
        records = RecordFiles()
        for part in instructions:
            end = None if part.take == -1 else part.skip + part.take
            path = os.fspath(part.filename)
            lost = records.add(path, slice(part.skip, end))
            if lost:
                skipped.note(
                    path, f"about {lost} records at its end lost", lost
                )
        read_record = records.reader()

        def read(index):
            example = features.deserialize_example(
                read_record(index), decoders=undecoded
            )
            return example[image], tf.cast(
                example[label] if label else UNLABELLED, tf.int32
            )

        def name_of(number):
            return f"example {number} of tfds:{name}, {split}"

        shape = features[image].shape[:2]
        if None in shape:
            return EncodedSource(records.size, read, name_of, None, skipped)
        source = EncodedSource(
            records.size, read, name_of, min(shape), skipped, shape
        )
        parallel_calls = config.parallel_calls or cores()
        return in_memory(source, config.in_memory_gb, parallel_calls)

    train = open_split("train_split", config.train_split)
    fingerprint = f"{builder.info.full_name} {train.size}"
    if label is None:
        return Dataset(train, None, (), skipped, fingerprint)
    test_split = config.test_split or (
        "test" if "test" in splits else "validation"
    )
    test = open_split("test_split", test_split)
    class_names = tuple(features[label].names)
    return Dataset(train, test, class_names, skipped, fingerprint)


def _first_key(features, kind: type) -> str | None:
    return next((k for k, f in features.items() if isinstance(f, kind)), None)


def _prepare(name: str, builder, config: Config) -> None:
    """Downloads a data set, or says at once why that cannot be."""
    if not config.download:
        raise ConfigError(
            f"--dataset=tfds:{name} is not on disk in {builder.data_path}; "
            "name its place by --data_dir, or add --download."
        )
    hosts = {urllib.parse.urlsplit(url).hostname for url in builder.url_infos}
    if "https" in urllib.request.getproxies():
        hosts = set()  # The proxy may reach what we do not.
    for host in sorted(hosts - {None}):
        try:
            socket.create_connection((host, 443), CONNECT_TIMEOUT).close()
        except OSError as error:
            raise ConfigError(
                f"--dataset=tfds:{name} cannot be downloaded: no connection to "
                f"{host} ({error}). Prepare it where there is one, and name "
                "its place by --data_dir."
            ) from error
    try:
        builder.download_and_prepare()
    except Exception as error:  # TFDS raises errors of many kinds here.
        raise ConfigError(
            f"--dataset=tfds:{name} could not be prepared: "
            f"{str(error).strip().splitlines()[0]}"
        ) from error
