"""What a data set is: images that can be had by their numbers.

That is all the pipeline needs to put them in an order that is a function of
seed and step.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from byol_tf.config import ConfigError
from byol_tf.data import images

# The label of an image of unknown class.
UNLABELLED = -1

# Images of one size are kept decoded in memory up to this many bytes.
IN_MEMORY_BYTES = 2**30


@dataclasses.dataclass(frozen=True)
class ArraySource:
    """Images of one size, in memory.

    Attributes:
      images: uint8 [n, height, width, 1 or 3].
      labels: int32 [n], `UNLABELLED` where there is none.
    """

    images: np.ndarray
    labels: np.ndarray

    @property
    def size(self) -> int:
        """Number of images."""
        return len(self.images)

    @property
    def smallest(self) -> int:
        """The lesser of height and width."""
        return min(self.images.shape[1:3])


@dataclasses.dataclass(frozen=True)
class EncodedSource:
    """Image files of any size, read and decoded when they are needed.

    Attributes:
      size: number of images.
      read: int64 scalar tensor -> (the file's bytes, int32 label), in a graph.
      name_of: number of an image -> what to call it in a message.
      smallest: the least height or width among the images that were looked at
        when the source was opened; None if that was none.
    """

    size: int
    read: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
    name_of: Callable[[int], str]
    smallest: int | None


Source = ArraySource | EncodedSource


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Images to learn from, and others to evaluate on.

    Attributes:
      train: for pretraining.
      test: held-out images; None if there are none with labels.
      class_names: of the labels 0, 1, …; empty without labels.
    """

    train: Source
    test: Source | None
    class_names: tuple[str, ...]


def in_memory(source: EncodedSource, shape: tuple[int, int]) -> Source:
    """The decoded images, if that many of this height and width fit.

    Raises:
      ConfigError: if one cannot be decoded.
    """
    if source.size * shape[0] * shape[1] * 3 > IN_MEMORY_BYTES:
        return source
    decoded = np.empty((source.size, *shape, 3), np.uint8)
    labels = np.empty(source.size, np.int32)

    def load(index):
        encoded, label = source.read(index)
        return index, images.decode(encoded), label

    examples = tf.data.Dataset.range(source.size).map(
        load, tf.data.AUTOTUNE, deterministic=False
    )
    try:
        for index, image, label in examples.as_numpy_iterator():
            decoded[index] = image
            labels[index] = label
    except tf.errors.InvalidArgumentError as error:
        raise undecodable(source) or error from error
    return ArraySource(decoded, labels)


def undecodable(source: Source | None) -> ConfigError | None:
    """Looks for the first image that cannot be decoded, to name it."""
    if isinstance(source, EncodedSource):
        for number in range(source.size):
            encoded, _ = source.read(tf.constant(number, tf.int64))
            try:
                images.decode(encoded)
            except tf.errors.InvalidArgumentError:
                return ConfigError(
                    f"--dataset: {source.name_of(number)} is damaged and "
                    "cannot be decoded; remove it."
                )
    return None
