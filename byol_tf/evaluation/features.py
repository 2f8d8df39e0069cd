"""The representation of a set of images: one vector each, and its label."""

import contextlib
import functools
import os
import pathlib
import re

import keras
import numpy as np
import tensorflow as tf
import tqdm

from byol_tf.config import ConfigError

# Raw pixels are compared at this size at most.
RAW_PIXELS_SIDE = 32


class NotFinite(ValueError):
    """Features that are NaN or infinite, or more than their type holds.

    Attributes:
      row: the number of the first such vector.
      what: what is wrong with it.
    """

    def __init__(self, row: int, dtype: np.dtype):
        self.row = row
        self.what = "not finite"
        if dtype == np.float16:
            most = np.finfo(dtype).max
            self.what += f", or more than {dtype} holds ({most:.5g})"
        super().__init__(f"Features of image {row} are {self.what}.")


def features_of_gray(encoder: keras.Model, image_size: int) -> np.ndarray:
    """The features of one gray image, float32 [1, d].

    Args:
      encoder: see `extract`.
      image_size: height and width.

    Raises:
      ConfigError: if it takes no such images, or gives no vector for one.
    """
    # A functional model may take any size, and make other features of it.
    all_inputs = getattr(encoder, "inputs", None) or ()
    if len(all_inputs) > 1:
        raise ConfigError(
            f"--encoder takes {len(all_inputs)} inputs, not images alone."
        )
    for inputs in all_inputs:
        if len(inputs.shape) != 4:
            raise ConfigError(
                f"--encoder takes {list(inputs.shape)}, not images [batch, "
                "height, width, 3]."
            )
        _, height, width, channels = inputs.shape
        if not {height, width} <= {None, image_size}:
            raise ConfigError(
                f"--encoder takes images of {height} x {width} pixels, not "
                f"of --image_size={image_size}."
            )
        if channels not in (None, 3):
            raise ConfigError(
                f"--encoder takes images with a last axis of {channels}, not "
                "of 3 channels, which gray images have as well: give it an "
                "input [height, width, 3]."
            )
    try:
        features = encoder(tf.fill([1, image_size, image_size, 3], 0.5))
    except Exception as error:  # Keras raises errors of many kinds here.
        raise ConfigError(
            f"--encoder takes no images of --image_size={image_size}: "
            f"{_reason(error)}"
        ) from error
    if not tf.is_tensor(features):
        count = len(tf.nest.flatten(features))
        raise ConfigError(
            f"--encoder gives {count} outputs in a {type(features).__name__}, "
            "not one vector an image; save a model of the one output that is "
            "the representation."
        )
    if features.shape.rank != 2:
        raise ConfigError(
            f"--encoder gives {list(features.shape)} for an image, not a "
            "vector [1, features]."
        )
    return tf.cast(features, tf.float32).numpy()


def _reason(error: Exception) -> str:
    """The first line that says something; Keras's first one does not."""
    # Without colours, and TensorFlow's names of nodes.
    plain = re.sub(r"\x1b\[[0-9;]*m|\{\{.*?\}\}| \[Op:.*", "", str(error))
    lines = [line.strip() for line in plain.splitlines()]
    lines = [x for x in lines if x and not x.startswith("Exception encounter")]
    return lines[0] if lines else type(error).__name__


def extract(
    encoder: keras.Model,
    batches: tf.data.Dataset,
    title: str = "",
    path: str | pathlib.Path | None = None,
    dtype: type = np.float16,
) -> tuple[np.ndarray, np.ndarray]:
    """The frozen encoder's features of all images.

    Args:
      encoder: float32 images [batch, height, width, 3] in [0, 1] -> features.
      batches: of (images, labels).
      title: of a progress bar; without one there is none.
      path: of a .npy file that keeps the features, where they are too many for
        the memory; it is there once it is whole.
      dtype: of the features in that file: numpy's float16 or float32.

    Returns:
      float32 [n, d], or with `path` the file, memory-mapped, `dtype` [n, d];
      and int32 [n].

    Raises:
      NotFinite: with `path`, if a feature is not finite in `dtype`.
    """
    if path is None:
        return _collect(_compiled(encoder), batches, title)
    return _keep(_compiled(encoder), batches, title, pathlib.Path(path), dtype)


def check_features(
    encoder: keras.Model, batches: tf.data.Dataset, title: str = ""
) -> None:
    """Raises NotFinite if a feature is; the others are as for `extract`."""
    count = 0
    for features, _ in _outputs(_compiled(encoder), batches, title):
        _check_finite(features, count)
        count += len(features)


def _check_finite(features: np.ndarray, first: int) -> None:
    """Raises NotFinite; `first` is the number of the first vector."""
    sound = np.isfinite(features).all(axis=1)
    if not sound.all():
        raise NotFinite(first + int(np.argmin(sound)), features.dtype)


@functools.lru_cache(maxsize=4)  # Monitoring asks again and again.
def _compiled(encoder: keras.Model):
    @tf.function(reduce_retracing=True)
    def features_of(images):
        return tf.cast(encoder(images, training=False), tf.float32)

    return features_of


def raw_pixels(
    batches: tf.data.Dataset, title: str = ""
) -> tuple[np.ndarray, np.ndarray]:
    """The images themselves as features, at most 32 x 32 pixels."""

    def pixels_of(images):
        side = min(images.shape[1], RAW_PIXELS_SIDE)
        if side < images.shape[1]:
            images = tf.image.resize(images, [side, side], antialias=True)
        return tf.reshape(images, [len(images), -1])

    features, labels = _collect(pixels_of, batches, title)
    channels = features.reshape(len(features), -1, 3)
    if (channels == channels[..., :1]).all():  # Gray: one channel says it all.
        features = channels[..., 0]
    return features, labels


class Stacked:
    """Several arrays of vectors as one, without a copy of all.

    Args:
      *parts: [n, d] each, possibly memory-mapped.
    """

    ndim = 2

    def __init__(self, *parts: np.ndarray):
        self._parts = parts
        self.shape = (sum(map(len, parts)), parts[0].shape[1])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        """A copy of consecutive rows."""
        first, last, _ = rows.indices(len(self))
        found = []
        for part in self._parts:
            found.append(part[max(first, 0) : max(last, 0)])
            first, last = first - len(part), last - len(part)
        return np.concatenate(found)


def _collect(function, batches, title):
    outputs = list(_outputs(function, batches, title))
    return tuple(map(np.concatenate, zip(*outputs)))


def _keep(function, batches, title, path, dtype):
    unfinished = path.with_name(path.name + ".part")
    labels = []
    count = 0
    try:
        with open(unfinished, "wb") as file:
            for features, some_labels in _outputs(function, batches, title):
                with np.errstate(over="ignore"):
                    features = features.astype(dtype)
                _check_finite(features, count)
                if not count:
                    _write_header(file, features.shape, dtype)
                file.write(features.tobytes())
                labels.append(some_labels)
                count += len(features)
            file.seek(0)
            _write_header(file, (count, *features.shape[1:]), dtype)
        os.replace(unfinished, path)
    except BaseException:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise
    return np.load(path, mmap_mode="r"), np.concatenate(labels)


def _write_header(file, shape, dtype):
    """Of a .npy file. It leaves room for however many rows there will be."""
    np.lib.format.write_array_header_1_0(
        file,
        {
            "descr": np.dtype(dtype).str,
            "fortran_order": False,
            "shape": shape,
        },
    )


def _outputs(function, batches, title):
    bar = tqdm.tqdm(
        batches, title, unit="batch", disable=not title, leave=False
    )
    count = 0
    for images, labels in bar:
        count += len(labels)
        yield function(images).numpy(), labels.numpy()
    if not count:
        split = title.removeprefix("features, ") or "a"
        raise ValueError(f"no image of the {split} split can be used.")
