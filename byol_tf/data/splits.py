"""Parts of a data set: chosen by class and seed, as sources of their own."""

import dataclasses
import hashlib

import numpy as np
import tensorflow as tf

from byol_tf.data.loading import cores, load_or_mark
from byol_tf.data.skipped import Skipped
from byol_tf.data.sources import ArraySource, EncodedSource, Source

# Without test images, this share of each class is held out for evaluation.
HELD_OUT = 0.1


def subset(source: Source, numbers: np.ndarray) -> Source:
    """Some images of a source, in the order of their numbers.

    Args:
      source: of the images; what cannot be used is noted under the same name.
      numbers: int [k], of images in `source`.
    """
    numbers = np.asarray(numbers, np.int64)
    if isinstance(source, ArraySource):
        return ArraySource(source.images[numbers], source.labels[numbers])
    places = tf.constant(numbers)

    def read(index):
        return source.read(places[index])

    def name_of(number):
        return source.name_of(int(numbers[number]))

    labels = None if source.labels is None else source.labels[numbers]
    return dataclasses.replace(
        source, size=len(numbers), read=read, name_of=name_of, labels=labels
    )


def labels_of(source: Source) -> np.ndarray:
    """All labels, without decoding an image.

    Labels of files are known from their folders. Those of records are read
    once, with the bytes of the images, and kept in the source.

    Returns:
      int32 [n] or [n, classes]; UNLABELLED where there is none, and DAMAGED
      for a record that cannot be read.
    """
    if source.labels is None:
        # The source stays what it is: only what was read is kept.
        object.__setattr__(source, "labels", _read_labels(source))
    return source.labels


def _read_labels(source: EncodedSource) -> np.ndarray:
    def load(number):
        _, label = source.read(number)
        return tf.zeros([0]), label

    numbers = tf.data.Dataset.range(source.size)
    examples = load_or_mark(source, numbers, load, cores()).batch(1024)
    return np.concatenate(
        [labels for _, labels in examples.as_numpy_iterator()]
    )


def class_balanced(
    labels: np.ndarray, amount: int | float, seed: int
) -> np.ndarray:
    """Examples drawn at random, of each class the same number.

    A class that has fewer gives all it has, and every class gives one at
    least.

    Args:
      labels: int [n]; examples with a negative one are not drawn.
      amount: int, examples of each class; or float in (0, 1], the share of all
        labelled examples. What does not divide by the classes goes to the
        largest ones.
      seed: of the draws.

    Returns:
      int64, numbers of examples, rising.

    Raises:
      ValueError: for an amount that is neither.
    """
    is_share = isinstance(amount, float)
    if amount <= 0 or (is_share and amount > 1):
        raise ValueError(
            f"{amount} is neither a number of examples (1, 2, …) nor a share "
            "of them (0 < share <= 1.0)."
        )
    members = _members(labels)
    counts = [len(numbers) for numbers in members.values()]
    if is_share:
        quotas = _equal_quotas(counts, round(amount * sum(counts)))
    else:
        quotas = np.minimum(counts, amount)
    random = np.random.default_rng(seed)
    chosen = [
        random.permutation(numbers)[: max(1, quota)]
        for numbers, quota in zip(members.values(), quotas)
    ]
    return np.sort(np.concatenate([np.empty(0, np.int64), *chosen]))


def _equal_quotas(counts, total: int) -> np.ndarray:
    """int [classes] that sum up to `total`, alike as far as counts allow."""
    quotas = np.zeros(len(counts), int)
    for i, number in enumerate(np.argsort(counts, kind="stable")):
        quotas[number] = min(counts[number], total // (len(counts) - i))
        total -= quotas[number]
    return quotas


def held_out(
    labels: np.ndarray,
    fraction: float = HELD_OUT,
    seed: int = 0,
    class_names: tuple[str, ...] = (),
    total: int = 0,
) -> tuple[np.ndarray, tuple[str, ...]]:
    """A share of each class, rounded down, but one at least of two or more.

    Args:
      labels: int [n]; examples with a negative one are not held out.
      fraction: of each class, in (0, 1).
      seed: of the draws.
      class_names: of the labels; by default they are numbers.
      total: examples to hold out at least: one more of each of those classes
        that were rounded down by most, as far as need be.

    Returns:
      bool [n], what is held out; and a sentence if there are classes of which
      nothing could be, because they have one example only.
    """
    chosen = np.zeros(len(labels), bool)
    random = np.random.RandomState(seed)
    alone, drawn = [], []
    for label, members in _members(labels).items():
        members = random.permutation(members)
        if len(members) == 1:
            alone.append(class_names[label] if class_names else str(label))
            continue
        # 30 * (1 / 6) is a little below or above 5.
        count = max(1, int(len(members) * fraction + 1e-9))
        chosen[members[:count]] = True
        if count + 1 < len(members):
            drawn.append((count - len(members) * fraction, members[count]))
    drawn.sort(key=lambda pair: pair[0])  # Of equals the first class.
    missing = max(total - np.count_nonzero(chosen), 0)
    for _, member in drawn[:missing]:
        chosen[member] = True
    if not alone:
        return chosen, ()
    names = ", ".join(alone[:5]) + (", …" if len(alone) > 5 else "")
    return chosen, (
        f"{len(alone)} of the classes have one image only, which is not held "
        f"out: {names}.",
    )


def _members(labels: np.ndarray) -> dict[int, np.ndarray]:
    """Class -> the rising numbers of its examples."""
    order = np.argsort(labels, kind="stable")
    classes, starts = np.unique(labels[order], return_index=True)
    parts = np.split(order, starts[1:])
    return {int(c): part for c, part in zip(classes, parts) if c >= 0}


def fingerprint_of(source: Source) -> str:
    """Of pixels and labels in memory; of files their names and labels."""
    if isinstance(source, ArraySource):
        return source.fingerprint()
    names = "\0".join(map(source.name_of, range(source.size)))
    digest = hashlib.sha256(names.encode(errors="surrogateescape"))
    digest.update(np.ascontiguousarray(labels_of(source)))
    return digest.hexdigest()


def joined(first: Source, second: Source) -> Source:
    """The images of two sources with the same classes, one after the other."""
    if (
        isinstance(first, ArraySource)
        and isinstance(second, ArraySource)
        and first.images.shape[1:] == second.images.shape[1:]
    ):
        return ArraySource(
            np.concatenate([first.images, second.images]),
            np.concatenate([first.labels, second.labels]),
        )
    first, second = _as_files(first), _as_files(second)

    def read(index):
        return tf.cond(
            index < first.size,
            lambda: first.read(index),
            lambda: second.read(index - first.size),
        )

    def name_of(number):
        if number < first.size:
            return first.name_of(number)
        return second.name_of(number - first.size)

    sides = [s.smallest for s in (first, second) if s.smallest is not None]
    return EncodedSource(
        first.size + second.size,
        read,
        name_of,
        min(sides, default=None),
        first.skipped,
        first.shape if first.shape == second.shape else None,
        np.concatenate([labels_of(first), labels_of(second)]),
    )


def _as_files(source: Source) -> EncodedSource:
    """Images in memory as if each were a PNG file."""
    if isinstance(source, EncodedSource):
        return source
    images, labels = map(tf.constant, (source.images, source.labels))

    def read(index):
        return tf.io.encode_png(images[index]), labels[index]

    return EncodedSource(
        source.size,
        read,
        lambda number: f"image {number} in memory",
        source.smallest,
        Skipped(),
        source.images.shape[1:3],
        source.labels,
    )
