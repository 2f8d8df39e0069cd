"""Scenes: images with a truth for each place, to be had by their numbers.

What the truth is depends on the task: a mask of classes, boxes around objects,
or depths. A scene is read and augmented in NumPy, by a generator of its own,
which depends on seed and position alone: a stream begun at step k is the rest
of the one begun at step 0, however many scenes are read at once.
"""

import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import PIL.Image
import tensorflow as tf

from byol_tf.config import ConfigError
from byol_tf.data.images import decode, why_not
from byol_tf.data.index import SUFFIXES
from byol_tf.data.loading import ATTEMPTS, cores
from byol_tf.data.pipeline import example_order
from byol_tf.data.skipped import Skipped

# A scene: `image`, uint8 [height, width, 3], and the truth of its task.
Scene = dict[str, np.ndarray]

TEST_FOLDERS = ("test", "val", "validation")


class BadScene(ValueError):
    """Why a scene cannot be used."""


@dataclasses.dataclass(frozen=True)
class Scenes:
    """Scenes of one split.

    Attributes:
      size: their number.
      load: number -> scene; raises BadScene.
      name_of: number -> what to call it in a message.
      skipped: where those are noted that cannot be used.
    """

    size: int
    load: Callable[[int], Scene]
    name_of: Callable[[int], str]
    skipped: Skipped

    def load_or_note(self, number: int) -> Scene | None:
        """A scene; None for one that cannot be used, which is noted."""
        try:
            return self.load(number)
        except BadScene as error:
            self.skipped.note(self.name_of(number), str(error))
            return None

    def __iter__(self) -> Iterator[Scene]:
        """All scenes that can be used, once, in order; read ahead."""
        with ThreadPoolExecutor(cores()) as pool:
            ahead = []
            for number in range(self.size):
                ahead.append(pool.submit(self.load_or_note, number))
                if len(ahead) > 2 * cores():
                    yield from _there(ahead.pop(0).result())
            for future in ahead:
                yield from _there(future.result())


def _there(scene: Scene | None) -> list[Scene]:
    return [] if scene is None else [scene]


@dataclasses.dataclass(frozen=True)
class SceneSplits:
    """A data set for a dense task.

    Attributes:
      train: to learn from.
      test: to measure on.
      class_names: of the classes 0, 1, …; empty for depth.
      skipped: scenes of both that cannot be used.
      fingerprint: of which scenes there are.
      notes: what a reader should know of it, a sentence each.
    """

    train: Scenes
    test: Scenes
    class_names: tuple[str, ...]
    skipped: Skipped
    fingerprint: str
    notes: tuple[str, ...] = ()


def training_scenes(
    scenes: Scenes,
    batch_size: int,
    seed: int,
    augmented: Callable[[Scene, np.random.Generator], tuple[np.ndarray, ...]],
    signature: Sequence[tf.TensorSpec],
    first_step: int = 0,
    *,
    worker: int = 0,
    workers: int = 1,
) -> tf.data.Dataset:
    """The endless stream of batches, from a given step on.

    In the place of a scene that cannot be used stands another, which follows
    from its number.

    Args:
      scenes: to learn from.
      batch_size: scenes in a step, over all workers.
      seed: of order and augmentation.
      augmented: scene and generator -> arrays as in `signature`.
      signature: of one augmented scene; where a side is None, scenes are
        padded by zeros at its end.
      first_step: steps before it are left out.
      worker: which part of each batch this stream gives.
      workers: their number, a divisor of `batch_size`.

    Returns:
      A dataset of tuples of tensors, as `signature` with a batch's axis.
    """
    share = batch_size // workers

    def load(number, position):
        random = np.random.default_rng([seed, 2, int(position)])
        for attempt in range(ATTEMPTS):
            scene = scenes.load_or_note((int(number) + attempt) % scenes.size)
            if scene is not None:
                arrays = augmented(scene, random)
                return [
                    np.asarray(array, spec.dtype.as_numpy_dtype)
                    for array, spec in zip(arrays, signature, strict=True)
                ]
        scenes.skipped.give_up()
        scenes.skipped.check()

    def of_step(step):
        first = step * batch_size + worker * share
        # One by one: a batch may be longer than an epoch.
        positions = first + tf.range(share, dtype=tf.int64)
        numbers = tf.map_fn(
            lambda position: example_order(position[None], scenes.size, seed)[
                0
            ],
            positions,
        )
        return tf.data.Dataset.from_tensor_slices((numbers, positions))

    def one(number, position):
        loaded = tf.numpy_function(
            load, [number, position], [spec.dtype for spec in signature]
        )
        return tuple(
            tf.ensure_shape(array, spec.shape)
            for array, spec in zip(loaded, signature)
        )

    steps = tf.data.Dataset.range(first_step, np.iinfo(np.int64).max)
    examples = steps.flat_map(of_step).map(one, cores(), deterministic=True)
    # Sides that differ between scenes become the largest of the batch's.
    return examples.padded_batch(
        share, tuple(spec.shape for spec in signature), drop_remainder=True
    ).prefetch(2)


def read_image(path: str) -> np.ndarray:
    """An image file as uint8 [height, width, 3].

    Raises:
      BadScene: if it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            encoded = file.read()
    except OSError as error:
        raise BadScene(f"{error.strerror or error}") from error
    return decode_image(encoded)


def decode_image(encoded: bytes) -> np.ndarray:
    """The same of the file's bytes."""
    try:
        return decode(tf.constant(encoded)).numpy()
    except Exception as error:  # Decoders raise errors of many kinds.
        raise BadScene(why_not(encoded)) from error


def resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """uint8 [height, width, channels], bilinear and antialiased."""
    return np.asarray(
        PIL.Image.fromarray(image).resize(
            (width, height), PIL.Image.Resampling.BILINEAR
        )
    )


def nearest_resized(truth: np.ndarray, height: int, width: int) -> np.ndarray:
    """A map of truths [h, w, …] in another size: each place's nearest one."""
    rows = ((np.arange(height) + 0.5) * len(truth) / height).astype(int)
    columns = (np.arange(width) + 0.5) * truth.shape[1] / width
    return truth[rows[:, None], columns.astype(int)]


def fingerprint_of(*parts) -> str:
    """Of anything that is the same text again in another process."""
    return hashlib.sha256(repr(parts).encode(errors="replace")).hexdigest()


def stamps_of(paths: Iterable[str]) -> list[tuple]:
    """Of each file its path, size and time of change; for a fingerprint."""
    stamps = []
    for path in paths:
        try:
            stat = os.stat(path)
            stamps.append((path, stat.st_size, stat.st_mtime_ns))
        except OSError:  # It is found again in its turn.
            stamps.append((path,))
    return stamps


def pairs_in(
    root: pathlib.Path, images: str, truths: str, suffixes: Sequence[str]
) -> tuple[list[tuple[str, str]], tuple[str, ...]]:
    """Files of images and of their truths, which have the same names.

    Args:
      root: the folder of a split.
      images: its sub-folder of images.
      truths: its sub-folder of truths.
      suffixes: that truths may have.

    Returns:
      The pairs; and a note of how many images have no truth, if any.

    Raises:
      ConfigError: if a folder is not there, or no image has a truth.
    """
    for name in (images, truths):
        if not (root / name).is_dir():
            raise ConfigError(
                f"{root / name} does not exist: a split has its images in "
                f"{images}/ and their truths, of the same names, in {truths}/."
            )
    found = {
        os.path.splitext(entry.name)[0]: entry.path
        for entry in os.scandir(root / truths)
        if os.path.splitext(entry.name)[1].lower() in suffixes
    }
    stems = [
        (entry.path, os.path.splitext(entry.name)[0])
        for entry in os.scandir(root / images)
        if os.path.splitext(entry.name)[1].lower() in SUFFIXES
    ]
    pairs = sorted((path, found[stem]) for path, stem in stems if stem in found)
    if not pairs:
        raise ConfigError(
            f"no image in {root / images} has a file of its name "
            f"({', '.join(suffixes)}) in {root / truths}."
        )
    alone = len(stems) - len(pairs)
    if not alone:
        return pairs, ()
    return pairs, (
        f"{alone:,} of {len(stems):,} images in {root / images} have no file "
        f"of their name in {root / truths}, and are left out.",
    )


def split_folders(root: pathlib.Path, flag: str) -> tuple[pathlib.Path, ...]:
    """The folders `train` and `test` (or `val`) of a data set.

    Raises:
      ConfigError: if one is missing.
    """
    if not root.is_dir():
        raise ConfigError(f"{flag}: {root} does not exist.")
    tests = [root / name for name in TEST_FOLDERS if (root / name).is_dir()]
    if not (root / "train").is_dir() or not tests:
        raise ConfigError(
            f"{flag}: {root} needs the sub-folders train and test (or val)."
        )
    return root / "train", tests[0]
