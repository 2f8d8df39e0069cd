"""Batches: for training in an order that depends on seed and step alone."""

import dataclasses
import functools

import numpy as np
import tensorflow as tf

from byol_tf import augment
from byol_tf.config import Config, ConfigError
from byol_tf.data import images
from byol_tf.data.arrays import open_npz
from byol_tf.data.bundled import open_bundled
from byol_tf.data.folders import open_folder
from byol_tf.data.loading import cores, load_or_another, load_or_mark
from byol_tf.data.service import served_batches
from byol_tf.data.skipped import Skipped
from byol_tf.data.sources import ArraySource, Dataset, EncodedSource, Source
from byol_tf.data.tfds_source import open_tfds
from byol_tf.data.tfrecord_source import open_tfrecords


@functools.lru_cache(maxsize=1)  # The jobs of one command share it.
def open_dataset(config: Config) -> tuple[Dataset, Config]:
    """Opens `--dataset`, and settles what depends on its images.

    Returns:
      The data set, and the configuration with `image_size` and `eval_crop`.

    Raises:
      ConfigError: if there is no such data set, or the settings do not fit it.
    """
    kind, _, argument = config.dataset.partition(":")
    skipped = Skipped(config.max_corrupt_fraction)
    if kind == "bundled":
        dataset = open_bundled()
    elif kind == "folder":
        dataset = open_folder(argument, config, skipped)
    elif kind == "npz":
        dataset = open_npz(argument)
    elif kind == "tfrecord":
        dataset = open_tfrecords(argument, config, skipped)
    else:
        dataset = open_tfds(argument, config, skipped)
    splits = [s for s in (dataset.train, dataset.test) if s is not None]
    # Images in memory are without those that were damaged.
    in_memory = any(isinstance(split, ArraySource) for split in splits)
    skipped.total = sum(s.size for s in splits) + in_memory * len(skipped)
    skipped.check()
    if dataset.train.size < 2:
        raise ConfigError(
            f"--dataset={config.dataset} holds {dataset.train.size} image to "
            "learn from; BYOL needs two at least, and many to be of use."
        )

    whole = isinstance(dataset.train, ArraySource)
    if whole:
        fingerprint = dataset.train.fingerprint()
        dataset = dataclasses.replace(dataset, fingerprint=fingerprint)
    size = config.image_size
    if size is None:
        size = dataset.train.smallest if whole else 224
    for source in splits:
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
    recipes: tuple[augment.Recipe, ...],
    first_step: int = 0,
    *,
    worker: int = 0,
    workers: int = 1,
    parallel_calls: int | None = None,
    service: str = "",
) -> tf.data.Dataset:
    """The endless stream of batches, from a given step on.

    Which image stands where is a function of seed and position in the stream,
    and so are its random crops: a stream begun at step k is the rest of the one
    begun at step 0, however many calls run in parallel.

    An image that cannot be decoded is noted in `source.skipped`, and another,
    which follows from its number, stands in for it.

    Args:
      source: of the images.
      batch_size: images in a step, over all workers.
      image_size: height and width of the crops.
      seed: of order and crops.
      recipes: of the views, T and T' in pretraining, for the limits on the
        crops.
      first_step: steps before it are left out.
      worker: which part of each batch this stream gives; the parts of all
        workers, one after the other, are the batch.
      workers: their number, a divisor of `batch_size`.
      parallel_calls: images that are read and decoded at once; by default one
        for each core.
      service: HOST:PORT of a tf.data service that reads and crops the images,
        see `data.service`; by default that is done here.

    Returns:
      A dataset of (images, labels): uint8 [batch, height, width, channels] of
      whole images that fit in memory, else float32 [batch, recipes,
      image_size, image_size, 3], a crop of each for each view. Labels are int32
      [batch].
    """
    share, rest = divmod(batch_size, workers)
    if rest:
        raise ValueError(f"{workers} workers cannot share {batch_size} images.")
    parallel_calls = parallel_calls or cores()
    steps = tf.data.Dataset.range(first_step, np.iinfo(np.int64).max)

    def positions_of(step):
        first = step * batch_size + worker * share
        return first + tf.range(share, dtype=tf.int64)

    if isinstance(source, ArraySource):
        all_images, all_labels = map(
            tf.constant, (source.images, source.labels)
        )

        def load_batch(step):
            numbers = example_order(positions_of(step), source.size, seed)
            return (
                tf.gather(all_images, numbers),
                tf.gather(all_labels, numbers),
            )

        batches = steps.map(load_batch, parallel_calls)
        return batches.prefetch(tf.data.AUTOTUNE)

    def draw(step):
        positions = positions_of(step)
        numbers = example_order(positions, source.size, seed)
        return numbers, crop_draws(positions[0], share, seed, len(recipes))

    def load(number, draws, decode=images.decode):
        encoded, label = source.read(number)
        crops = images.random_crops(encoded, draws, image_size, recipes, decode)
        return crops, label

    if service:
        return served_batches(
            service, source, draw, load, first_step, parallel_calls
        )
    examples = load_or_another(
        source, steps.map(draw).unbatch(), load, parallel_calls
    )
    return examples.batch(share).prefetch(tf.data.AUTOTUNE)


def classifier_batches(
    source: Source,
    batch_size: int,
    image_size: int,
    seed: int,
    first_step: int = 0,
    *,
    parallel_calls: int | None = None,
) -> tf.data.Dataset:
    """The endless stream of batches that classifiers learn from.

    Args:
      source: of images, all with labels.
      batch_size: and image_size, seed, first_step, parallel_calls: as for
        `training_batches`.

    Returns:
      A dataset of (images, labels): float32 [batch, image_size, image_size, 3]
      in [0, 1], a random crop of each image, flipped or not.
    """
    recipe = augment.CROP_AND_FLIP
    batches = training_batches(
        source,
        batch_size,
        image_size,
        seed,
        (recipe,),
        first_step,
        parallel_calls=parallel_calls,
    )

    def crop_and_flip(step, batch):
        images, labels = batch
        (view,) = augment.views(
            images,
            tf.stack([seed, tf.cast(step, tf.int32)]),
            image_size,
            (recipe,),
        )
        return view, labels

    steps = batches.enumerate(first_step).map(crop_and_flip, tf.data.AUTOTUNE)
    return steps.prefetch(tf.data.AUTOTUNE)


def crop_draws(
    position: tf.Tensor, count: int, seed: int, views: int = 2
) -> tf.Tensor:
    """Uniform numbers for the crops of images from a position on.

    Returns:
      float32 [count, views, images.CROP_DRAWS] in [0, 1).
    """
    number = views * images.CROP_DRAWS
    draws = augment.Draws([seed, 1], count, number, position)
    numbers = [draws.uniform(0, 1) for _ in range(number)]
    return tf.reshape(
        tf.stack(numbers, axis=1), [count, views, images.CROP_DRAWS]
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
      in [0, 1] and int32 [batch] or, of several labels an image, [batch,
      classes]; an image that cannot be decoded is labelled DAMAGED.
    """
    if numbers is None:
        numbers = np.arange(source.size)
    dataset = tf.data.Dataset.from_tensor_slices(numbers.astype(np.int64))
    if isinstance(source, EncodedSource):

        def load(number):
            encoded, label = source.read(number)
            return images.central_crop(encoded, image_size, crop), label

        dataset = load_or_mark(source, dataset, load, cores())
        return dataset.batch(batch_size).prefetch(tf.data.AUTOTUNE)

    all_images, all_labels = map(tf.constant, (source.images, source.labels))

    def load_batch(batch):
        crops = images.central_crops(
            tf.gather(all_images, batch), image_size, crop
        )
        return crops, tf.gather(all_labels, batch)

    dataset = dataset.batch(batch_size).map(load_batch, tf.data.AUTOTUNE)
    return dataset.prefetch(tf.data.AUTOTUNE)
