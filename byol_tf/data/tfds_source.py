"""`--dataset=tfds:NAME[:VERSION]`: TensorFlow Datasets, read by number."""

import os
import socket
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf
from absl import logging

from byol_tf.config import Config, ConfigError
from byol_tf.data.loading import cores, in_memory
from byol_tf.data.skipped import Skipped
from byol_tf.data.sources import UNLABELLED, Dataset, EncodedSource, Source
from byol_tf.data.tfrecords import RecordFiles

# Seconds to wait for an answer before a download is called impossible.
CONNECT_TIMEOUT = 5


class Labels(NamedTuple):
    """What the label of a TFDS example is.

    Attributes:
      features: those it is made of, as `tfds.decode.PartialDecoding` takes
        them.
      of: those features of an example -> int32 label, a scalar or [classes].
      class_names: of the labels.
    """

    features: dict
    of: Callable[[dict], tf.Tensor]
    class_names: tuple[str, ...]


def open_tfds(name: str, config: Config, skipped: Skipped) -> Dataset:
    """A TFDS data set with an image, and perhaps a class, in each example.

    Raises:
      ConfigError: if it is not known, not on disk and not to be downloaded, or
        holds no images.
    """
    builder = prepared_builder(name, config, f"--dataset=tfds:{name}")
    labels = class_labels(builder)
    train = open_split(
        builder,
        config.train_split,
        labels,
        config,
        skipped,
        f"--train_split={config.train_split}",
    )
    fingerprint = f"{builder.info.full_name} {train.size}"
    if not labels.class_names:
        return Dataset(train, None, (), skipped, fingerprint)
    test_split = config.test_split or (
        "test" if "test" in builder.info.splits else "validation"
    )
    test = open_split(
        builder,
        test_split,
        labels,
        config,
        skipped,
        f"--test_split={test_split}",
    )
    return Dataset(train, test, labels.class_names, skipped, fingerprint)


def prepared_builder(name: str, config: Config, called: str):
    """The `tfds.core.DatasetBuilder` of a data set that is on disk.

    Args:
      name: NAME[/CONFIG][:VERSION].
      config: `data_dir` and `download`.
      called: what to call it in a message.

    Raises:
      ConfigError: if it is not known, or not on disk and not to be downloaded.
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
            f"{called} is no TensorFlow Dataset, and --data_dir holds none of "
            "that name."
        ) from error
    except AssertionError as error:  # Its end names the versions there are.
        _, dataset, why = str(error).rpartition("Dataset ")
        raise ConfigError(f"{called}: {dataset}{why}") from error
    if not builder.is_prepared():
        _prepare(builder, config, called)
    if image_key(builder) is None:
        raise ConfigError(f"{called} holds no images.")
    return builder


def class_labels(builder) -> Labels:
    """The class of each example; without classes, UNLABELLED."""
    import tensorflow_datasets as tfds

    features = builder.info.features
    key = _key(features, "label", tfds.features.ClassLabel)
    if key is None:
        return Labels({}, lambda _: tf.constant(UNLABELLED), ())
    return Labels(
        {key: True},
        lambda example: tf.cast(example[key], tf.int32),
        tuple(features[key].names),
    )


def open_split(
    builder,
    split: str,
    labels: Labels,
    config: Config,
    skipped: Skipped,
    called: str,
) -> Source:
    """A split, or a part of one, by number; in memory if it is small.

    Args:
      builder: see `prepared_builder`.
      split: e.g. train, or train[:90%].
      labels: of its examples.
      config: settings of the data.
      skipped: where images are noted that cannot be used.
      called: what to call the split in a message.

    Raises:
      ConfigError: if there is no such split.
    """
    import tensorflow_datasets as tfds

    name = builder.info.full_name
    records = records_of(builder, split, skipped, called)
    read_record = records.reader()
    image = image_key(builder)
    # Nothing else is parsed: masks, for one, would be decoded.
    features = tfds.decode.PartialDecoding(
        {image: True, **labels.features}
    ).extract_features(builder.info.features)
    undecoded = {image: tfds.decode.SkipDecoding()}

    def read(index):
        example = features.deserialize_example(
            read_record(index), decoders=undecoded
        )
        return example[image], labels.of(example)

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


def records_of(builder, split: str, skipped: Skipped, called: str):
    """The `RecordFiles` of a split, or of a part of one; see `open_split`."""
    name, splits = builder.info.full_name, builder.info.splits
    try:
        instructions = splits[split].file_instructions
    except (KeyError, ValueError, AssertionError) as error:
        raise ConfigError(
            f"{called} is no split of tfds:{name}; it has {', '.join(splits)}."
        ) from error
    records = RecordFiles()
    for part in instructions:
        end = None if part.take == -1 else part.skip + part.take
        path = os.fspath(part.filename)
        lost = records.add(path, slice(part.skip, end))
        if lost:
            skipped.note(path, f"about {lost} records at its end lost", lost)
    return records


def image_key(builder) -> str | None:
    """What the image of an example is called; None if there is none."""
    import tensorflow_datasets as tfds

    return _key(builder.info.features, "image", tfds.features.Image)


def _key(features, usual: str, kind: type) -> str | None:
    """The feature of its usual name, or else the first one of a kind.

    CIFAR-100 has a `coarse_label` beside `label`, and comes back from the disk
    with that first.
    """
    found = [key for key, f in features.items() if isinstance(f, kind)]
    return usual if usual in found else next(iter(found), None)


def _prepare(builder, config: Config, called: str) -> None:
    """Downloads a data set, or says at once why that cannot be."""
    if not config.download:
        raise ConfigError(
            f"{called} is not on disk in {builder.data_path}; name its place "
            "by --data_dir, or add --download."
        )
    hosts = {urllib.parse.urlsplit(url).hostname for url in builder.url_infos}
    if "https" in urllib.request.getproxies():
        hosts = set()  # The proxy may reach what we do not.
    for host in sorted(hosts - {None}):
        try:
            socket.create_connection((host, 443), CONNECT_TIMEOUT).close()
        except OSError as error:
            raise ConfigError(
                f"{called} cannot be downloaded: no connection to {host} "
                f"({error}). Prepare it where there is one, and name its place "
                "by --data_dir."
            ) from error
    try:
        builder.download_and_prepare()
    except Exception as error:  # TFDS raises errors of many kinds here.
        raise ConfigError(
            f"{called} could not be prepared: "
            f"{str(error).strip().splitlines()[0]}"
        ) from error
