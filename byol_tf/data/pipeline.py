"""Batches: for training in an order that depends on seed and step alone."""

import functools

import numpy as np
import tensorflow as tf

from byol_tf import augment
from byol_tf.config import Config, ConfigError
from byol_tf.data import images
from byol_tf.data.bundled import open_bundled
from byol_tf.data.folders import open_folder
from byol_tf.data.sources import ArraySource, Dataset, EncodedSource, Source
from byol_tf.data.tfds_source import open_tfds


@functools.lru_cache(maxsize=1)  # The jobs of one command share it.
def open_dataset(config: Config) -> tuple[Dataset, Config]:
    """Opens `--dataset`, and settles what depends on its images.

    Returns:
      The data set, and the configuration with `image_size` and `eval_crop`.

    Raises:
      ConfigError: if there is no such data set, or the settings do not fit it.
    """
    kind, _, argument = config.dataset.partition(":")
    if kind == "bundled":
        dataset = open_bundled()
    elif kind == "folder":
        dataset = open_folder(argument)
    else:
        dataset = open_tfds(argument, config)

    whole = isinstance(dataset.train, ArraySource)
    size = config.image_size
    if size is None:
        size = dataset.train.smallest if whole else 224
    for source in filter(None, (dataset.train, dataset.test)):
        smallest = source.smallest
        if smallest and smallest < size and not config.upscale_small_images:
            raise ConfigError(
                f"--image_size={size} is more than an image of "
                f"--dataset={config.dataset} has ({smallest} pixels); lower "
                "it, or add --upscale_small_images."
            )
    crop = config.eval_crop
    if crop is None:
        crop = 1.0 if whole and dataset.train.smallest == size else 0.875
    return dataset, config.resolved(image_size=size, eval_crop=crop)


def training_batches(
    source: Source,
    batch_size: int,
    image_size: int,
    seed: int,
    recipes: tuple[augment.Recipe, augment.Recipe],
    first_step: int = 0,
) -> tf.data.Dataset:
    """The endless stream of batches, from a given step on.

    Which image stands where is a function of the seed, and so are the random
    crops; a stream begun at step k is the rest of the one begun at step 0.

    Returns:
      A dataset of (images, labels): uint8 [batch, height, width, channels] of
      whole images that fit in memory, else float32 [batch, 2, image_size,
      image_size, 3], two crops of each. Labels are int32 [batch].
    """
    if isinstance(source, ArraySource):
        all_images, all_labels = map(
            tf.constant, (source.images, source.labels)
        )

        def load(step):
            positions = step * batch_size + tf.range(batch_size, dtype=tf.int64)
            numbers = example_order(positions, source.size, seed)
            return tf.gather(all_images, numbers), tf.gather(
                all_labels, numbers
            )

        return (
            tf.data.Dataset.range(first_step, np.iinfo(np.int64).max)
            .map(load, tf.data.AUTOTUNE)
            .prefetch(tf.data.AUTOTUNE)
        )

    def load_crops(position):
        number = example_order(position[None], source.size, seed)[0]
        encoded, label = source.read(number)
        crop_seed = augment.fold_in([seed, 1], position)
        crops = images.two_crops(encoded, crop_seed, image_size, recipes)
        return crops, label

    return (
        tf.data.Dataset.range(first_step * batch_size, np.iinfo(np.int64).max)
        .map(load_crops, tf.data.AUTOTUNE)
        .batch(batch_size, drop_remainder=True)
        .prefetch(tf.data.AUTOTUNE)
    )


def example_order(positions: tf.Tensor, size: int, seed: int) -> tf.Tensor:
    """Which image stands at each position of the endless stream.

    Every epoch, `size` positions long, is a permutation of all images of its
    own.

    Args:
      positions: int64 [n], consecutive, n at most `size`.
      size: number of images.
      seed: of the order.

    Returns:
      int64 [n], numbers of images in [0, size).
    """

    def permuted(epoch):
        return tf.random.experimental.index_shuffle(
            positions % size,
            tf.stack([tf.cast(seed, tf.int64), epoch]),
            tf.constant(size - 1, tf.int64),
        )

    epochs = positions // size
    first, last = epochs[0], epochs[-1]  # The same one, or neighbours.
    return tf.where(epochs == first, permuted(first), permuted(last))


def evaluation_batches(
    source: Source,
    image_size: int,
    crop: float,
    numbers: np.ndarray | None = None,
    batch_size: int = 256,
) -> tf.data.Dataset:
    """The centres of images, once, in order, without randomness.

    Args:
      source: of the images.
      image_size: height and width of the result.
      crop: share of an image's shorter side that is kept.
      numbers: of the images; by default all.
      batch_size: of the batches; the last one may be smaller.

    Returns:
      A dataset of (images, labels): float32 [batch, image_size, image_size, 3]
      in [0, 1] and int32 [batch].
    """
    if numbers is None:
        numbers = np.arange(source.size)
    dataset = tf.data.Dataset.from_tensor_slices(numbers.astype(np.int64))
    if isinstance(source, EncodedSource):

        def load(number):
            encoded, label = source.read(number)
            return images.central_crop(encoded, image_size, crop), label

        dataset = dataset.map(load, tf.data.AUTOTUNE).batch(batch_size)
        return dataset.prefetch(tf.data.AUTOTUNE)

    all_images, all_labels = map(tf.constant, (source.images, source.labels))

    def load_batch(batch):
        crops = images.central_crops(
            tf.gather(all_images, batch), image_size, crop
        )
        return crops, tf.gather(all_labels, batch)

    dataset = dataset.batch(batch_size).map(load_batch, tf.data.AUTOTUNE)
    return dataset.prefetch(tf.data.AUTOTUNE)
