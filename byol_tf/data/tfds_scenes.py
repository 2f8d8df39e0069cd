"""Scenes of TensorFlow Datasets, read by number."""

from collections.abc import Callable

import tensorflow as tf

from byol_tf.config import Config
from byol_tf.data.scenes import (
    BadScene,
    Scene,
    Scenes,
    SceneSplits,
    decode_image,
    fingerprint_of,
)
from byol_tf.data.skipped import Skipped
from byol_tf.data.tfds_source import image_key, prepared_builder, records_of


def open_tfds_scenes(
    name: str,
    flag: str,
    config: Config,
    skipped: Skipped,
    truth_of: Callable[[object], tuple[dict, tuple[str, ...]]],
    read: Callable[[dict], Scene],
) -> SceneSplits:
    """Both splits of a data set in TFDS.

    Args:
      name: NAME[/CONFIG][:VERSION].
      flag: what to call it in a message.
      config: of --train_split and --test_split, and where TFDS keeps its files.
      skipped: where scenes are noted that cannot be used.
      truth_of: the builder -> which features are the truth, as
        `tfds.decode.PartialDecoding` takes them, and the names of the classes.
      read: an example in NumPy, its `image` decoded -> scene; raises BadScene.

    Raises:
      ConfigError: if it is not to be had, or has no such features.
    """
    builder = prepared_builder(name, config, flag)
    features, class_names = truth_of(builder)
    splits = builder.info.splits
    test = config.test_split or ("test" if "test" in splits else "validation")
    parts = {
        key: _of_split(builder, split, features, read, skipped, called)
        for key, split, called in (
            (
                "train",
                config.train_split,
                f"--train_split={config.train_split}",
            ),
            ("test", test, f"--test_split={test}"),
        )
    }
    skipped.total = sum(part.size for part in parts.values())
    sizes = [part.size for part in parts.values()]
    return SceneSplits(
        parts["train"],
        parts["test"],
        class_names,
        skipped,
        fingerprint_of(builder.info.full_name, config.train_split, test, sizes),
    )


def _of_split(builder, split, features, read, skipped, called) -> Scenes:
    count, example_of = examples_of(builder, split, features, skipped, called)

    def load(number):
        example = example_of(number)
        example["image"] = decode_image(example["image"])
        return read(example)

    name = builder.info.full_name
    return Scenes(
        count,
        load,
        lambda number: f"example {number} of tfds:{name}, {split}",
        skipped,
    )


def examples_of(
    builder, split: str, features: dict, skipped: Skipped, called: str
) -> tuple[int, Callable[[int], dict]]:
    """The number of examples of a split, and what gives one by its number.

    Args:
      builder: of the data set.
      split: e.g. train, or train[:90%].
      features: beside the image, as `tfds.decode.PartialDecoding` takes them.
      skipped: where lost records are noted.
      called: what to call the split in a message.

    Returns:
      The count; and number -> features in NumPy, `image` the bytes of a file.
    """
    import tensorflow_datasets as tfds

    records = records_of(builder, split, skipped, called)
    read_record = records.reader()
    image = image_key(builder)
    wanted = tfds.decode.PartialDecoding(
        {image: True, **features}
    ).extract_features(builder.info.features)
    undecoded = {image: tfds.decode.SkipDecoding()}

    def example_of(number):
        try:
            example = wanted.deserialize_example(
                read_record(tf.constant(number, tf.int64)), decoders=undecoded
            )
        except tf.errors.OpError as error:
            raise BadScene(
                f"cannot be read ({type(error).__name__})"
            ) from error
        example = tf.nest.map_structure(lambda value: value.numpy(), example)
        example["image"] = example.pop(image)
        return example

    return records.size, example_of
