"""What a data set is: images that can be had by their numbers.

That is all the pipeline needs to put them in an order that is a function of
seed and step.
"""

import dataclasses
import hashlib
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from byol_tf.data import images
from byol_tf.data.skipped import Skipped

# The label of an image of unknown class, and of one that cannot be decoded.
UNLABELLED, DAMAGED = -1, -2


@dataclasses.dataclass(frozen=True)
class ArraySource:
    """Images of one size, in memory.

    Attributes:
      images: uint8 [n, height, width, 1 or 3].
      labels: int32 [n], `UNLABELLED` where there is none; or [n, classes], see
        `EncodedSource.read`.
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

    def fingerprint(self) -> str:
        """Of all pixels and labels."""
        digest = hashlib.sha256(np.ascontiguousarray(self.images))
        digest.update(np.ascontiguousarray(self.labels))
        return digest.hexdigest()


@dataclasses.dataclass(frozen=True)
class EncodedSource:
    """Image files of any size, read and decoded when they are needed.

    Attributes:
      size: number of images.
      read: int64 scalar tensor -> (the file's bytes, int32 label), in a graph.
        The label is a scalar; or of several labels an image, [classes]: 1 for
        those of the image, 0 for others, -1 where it does not count.
      name_of: number of an image -> what to call it in a message.
      smallest: the least height or width among the images that were looked at
        when the source was opened; None if that was none.
      skipped: where images are noted that cannot be used.
      shape: height and width, if all images that were looked at have the same.
      labels: int32 [n] or [n, classes], if they are known; else None until
        `splits.labels_of` has read them.
    """

    size: int
    read: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
    name_of: Callable[[int], str]
    smallest: int | None
    skipped: Skipped
    shape: tuple[int, int] | None = None
    labels: np.ndarray | None = dataclasses.field(default=None, compare=False)

    def note(self, number: int) -> None:
        """Puts an image on the list of those that cannot be used."""
        self.skipped.note(self.name_of(int(number)), self._reason(number))

    def _reason(self, number: int) -> str:
        try:
            encoded, _ = self.read(tf.constant(number, tf.int64))
        except tf.errors.NotFoundError:
            return "no such file"
        except tf.errors.PermissionDeniedError:
            return "no permission to read it"
        except tf.errors.OpError as error:
            return f"cannot be read ({type(error).__name__})"
        return images.why_not(encoded.numpy())


Source = ArraySource | EncodedSource


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Images to learn from, and others to evaluate on.

    Attributes:
      train: for pretraining.
      test: held-out images; None if there are none with labels.
      class_names: of the labels 0, 1, …; empty without labels.
      skipped: images of both that could not be used.
      fingerprint: of which images there are, in which order; a run that is
        resumed must find the same.
      notes: what a user should know of it, a sentence each.
    """

    train: Source
    test: Source | None
    class_names: tuple[str, ...]
    skipped: Skipped = dataclasses.field(default_factory=Skipped)
    fingerprint: str = ""
    notes: tuple[str, ...] = ()


def damaged(labels: np.ndarray) -> np.ndarray:
    """bool [n]: which of the labels, [n] or [n, classes], say DAMAGED."""
    return (labels.reshape(len(labels), -1) == DAMAGED).any(axis=1)
