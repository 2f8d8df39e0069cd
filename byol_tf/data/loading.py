"""Loading encoded images: in parallel, in order, and past damaged ones.

A kernel that meets a damaged image raises an error, which would end the whole
stream. So each image is a stream of its own, that of the attempts to load it,
in which errors are ignored.
"""

import dataclasses
import os

import numpy as np
import tensorflow as tf

from byol_tf.data import images
from byol_tf.data.sources import DAMAGED, ArraySource, EncodedSource, Source

# How many images are tried in the place of one before training gives up.
ATTEMPTS = 50


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0))


def load_or_another(
    source: EncodedSource, examples: tf.data.Dataset, load, parallel_calls: int
) -> tf.data.Dataset:
    """Loads images in order; for a damaged one, another in its place.

    It goes on from the damaged one by the golden section of all images, so that
    its neighbours, which are often damaged as well, are not the next. Which one
    stands in is thus a function of which are damaged, and of nothing else.

    Args:
      source: of the images; those that failed are noted in its `skipped`.
      examples: a dataset of (number of an image, anything else).
      load: (number, anything else) -> tensors, in a graph.
      parallel_calls: how many are loaded at once.

    Returns:
      A dataset of what `load` gives. ATTEMPTS failures one after the other are
      an error in it.
    """
    stride = int(0.618 * source.size) | 1

    def at(number, attempt):
        return (number + attempt * stride) % source.size

    def note(number, attempts):
        for attempt in range(attempts):
            source.note(at(number, attempt))
        return attempts

    def in_log(number, attempts):
        return tf.numpy_function(note, [number, attempts], tf.int64)

    def one(number, anything):
        def attempt_at(attempt):
            return *load(at(number, attempt), anything), attempt

        def give_up(attempts):
            in_log(number, attempts)
            tf.numpy_function(source.skipped.give_up, [], [])
            return attempt_at(attempts)

        def without_failures(*loaded):
            *tensors, attempt = loaded
            tf.cond(
                attempt > 0,
                lambda: in_log(number, attempt),
                lambda: attempt,
            )
            return tuple(tensors)

        attempts = tf.data.Dataset.range(ATTEMPTS).map(attempt_at)
        last = tf.data.Dataset.range(ATTEMPTS, ATTEMPTS + 1).map(give_up)
        loaded = attempts.ignore_errors().concatenate(last).take(1)
        return loaded.map(without_failures)

    return _in_parallel(examples, one, parallel_calls)


def load_or_mark(
    source: EncodedSource, numbers: tf.data.Dataset, load, parallel_calls: int
) -> tf.data.Dataset:
    """Loads images in order; a damaged one is black and labelled DAMAGED.

    Where `load` leaves a side open, that of a damaged one is 0. A label of
    several places is DAMAGED in each.

    Args:
      source: of the images; those that failed are noted in its `skipped`.
      numbers: a dataset of numbers of images.
      load: number -> (image, int32 label of known shape), in a graph.
      parallel_calls: how many are loaded at once.
    """

    def note(number):
        source.note(number)
        return number

    def one(number):
        attempt = tf.data.Dataset.from_tensors(number)
        loaded = attempt.map(load)
        image, label = loaded.element_spec

        def mark(number):
            tf.numpy_function(note, [number], tf.int64)
            shape = [side or 0 for side in image.shape]
            return tf.zeros(shape, image.dtype), tf.fill(label.shape, DAMAGED)

        return loaded.ignore_errors().concatenate(attempt.map(mark)).take(1)

    return _in_parallel(numbers, one, parallel_calls)


def in_memory(
    source: EncodedSource, limit_gb: float, parallel_calls: int
) -> Source:
    """The images decoded, without damaged ones, if they all fit in memory.

    Args:
      source: of the images.
      limit_gb: GiB that they may take.
      parallel_calls: how many are decoded at once.

    Returns:
      An ArraySource; or `source`, if the images are of several shapes, or too
      many.
    """
    shape = source.shape
    if shape is None:
        return source
    if source.size * shape[0] * shape[1] * 3 > limit_gb * 2**30:
        return source

    def load(number):
        encoded, label = source.read(number)
        return images.decode(encoded), label

    examples = load_or_mark(
        source, tf.data.Dataset.range(source.size), load, parallel_calls
    )
    _, spec = examples.element_spec
    decoded = np.empty((source.size, *shape, 3), np.uint8)
    labels = np.empty((source.size, *spec.shape), np.int32)
    count = 0
    for image, label in examples.as_numpy_iterator():
        if (label == DAMAGED).all():
            continue
        if image.shape[:2] != shape:
            return dataclasses.replace(source, shape=None)
        decoded[count], labels[count] = image, label
        count += 1
    return ArraySource(decoded[:count], labels[:count])


def _in_parallel(examples, one, parallel_calls: int) -> tf.data.Dataset:
    """The elements of data sets of one element each, in order."""
    return examples.interleave(
        one,
        cycle_length=parallel_calls,
        num_parallel_calls=parallel_calls,
        deterministic=True,
    )
