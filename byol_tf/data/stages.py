"""How long the stages of the input take."""

import time

import tensorflow as tf

from byol_tf import augment
from byol_tf.data import images
from byol_tf.data.pipeline import crop_draws, example_order
from byol_tf.data.sources import EncodedSource

_BATCH = 16
_ROUNDS = 3


def seconds_per_element(
    dataset: tf.data.Dataset, seconds: float, warm_up: int = 2
) -> float:
    """Mean time from one element of an endless data set to the next.

    Args:
      dataset: to read from.
      seconds: how long to read, at least.
      warm_up: elements that are not counted.
    """
    elements = iter(dataset)
    for _ in range(warm_up):
        next(elements)
    count, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        next(elements)
        count += 1
    return elapsed / count


def stage_times(
    source: EncodedSource,
    image_size: int,
    recipes: tuple[augment.Recipe, augment.Recipe],
    seconds: float,
) -> dict[str, float]:
    """Milliseconds that one image takes on one core, by stage.

    Args:
      source: of the images; they are taken in the order of training.
      image_size: of the crops.
      recipes: T and T', for the limits on the crops.
      seconds: how long to measure each of the three, at least.

    Returns:
      `read` the file, `decode` what lies around its two crops, `resize` them.
      Stages are told apart by leaving out the later ones, so that where others
      use the machine a short one can come out as less than nothing. They are
      measured in turn, and the round counts in which each was disturbed least.
    """

    def read(encoded, draws):
        return tf.strings.length(encoded)

    def decode(encoded, draws):
        boxes = images.random_boxes(draws, recipes)
        pixels, _ = images.decode_around(encoded, boxes)
        return pixels[0, 0]

    def resize(encoded, draws):
        crops = images.random_crops(encoded, draws, image_size, recipes)
        return crops[:, 0, 0]  # Nothing that is known without resizing.

    def stream(stage):
        def one(position):
            number = example_order(position[None], source.size, 0)[0]
            encoded, _ = source.read(number)
            return stage(encoded, crop_draws(position, 1, 0)[0])

        # Many to an element: Python takes its time with each.
        results = tf.data.Dataset.range(2**60).map(one)
        return results.ignore_errors().batch(_BATCH)

    streams = [stream(stage) for stage in (read, decode, resize)]
    rounds = [
        [seconds_per_element(s, seconds / _ROUNDS, 1) for s in streams]
        for _ in range(_ROUNDS)
    ]
    until_read, until_decoded, until_resized = (
        1e3 * min(times) / _BATCH for times in zip(*rounds)
    )
    return {
        "read": until_read,
        "decode": until_decoded - until_read,
        "resize": until_resized - until_decoded,
    }
