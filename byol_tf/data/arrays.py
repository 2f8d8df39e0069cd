"""`--dataset=npz:PATH`: arrays in a NumPy archive."""

import pathlib

import numpy as np

from byol_tf.config import ConfigError
from byol_tf.data.sources import UNLABELLED, ArraySource, Dataset
from byol_tf.data.splits import held_out, subset

# Names under which images and labels are looked for; the first that is there.
TRAIN = (("train_images", "train_labels"), ("x_train", "y_train"))
TEST = (("test_images", "test_labels"), ("x_test", "y_test"))
ALONE = ("images", "labels")

MOST_CLASSES = 1_000_000


def open_npz(path: str) -> Dataset:
    """Arrays of images, and of labels if there are any.

    The archive holds `train_images`, `train_labels`, `test_images` and
    `test_labels`; or `x_train`, `y_train`, `x_test`, `y_test`; or `images` and
    `labels`. Only the training images are required. They are [n, height, width]
    or [n, height, width, 1, 3 or 4]: uint8, uint16 or floats in [0, 1].
    Labels are whole numbers [n]; a negative one says that the class is not
    known. Without test images a tenth of the labelled ones is held out.

    Raises:
      ConfigError: if it is no such archive.
    """
    flag = f"--dataset=npz:{path}"
    arrays = _read(pathlib.Path(path).expanduser(), flag)
    train = next((pair for pair in (*TRAIN, ALONE) if pair[0] in arrays), None)
    if train is None:
        raise ConfigError(
            f"{flag} holds no train_images, x_train or images, but "
            f"{', '.join(sorted(arrays)) or 'nothing'}."
        )
    source = _source(arrays, *train, flag)
    test = next((pair for pair in TEST if set(pair) <= set(arrays)), None)
    notes = ()
    if test:
        test_source = _source(arrays, *test, flag)
    else:
        chosen, notes = held_out(source.labels)
        test_source = None
        if chosen.any():
            test_source = subset(source, np.flatnonzero(chosen))
        source = subset(source, np.flatnonzero(~chosen))
    highest = max(s.labels.max() for s in (source, test_source) if s)
    classes = tuple(map(str, range(highest + 1)))
    return Dataset(source, test_source, classes, notes=notes)


def _read(path: pathlib.Path, flag: str) -> dict[str, np.ndarray]:
    try:
        archive = np.load(path)
        if isinstance(archive, np.ndarray):
            raise ConfigError(
                f"{flag} is one array; save it by numpy.savez(PATH, "
                "images=array)."
            )
        with archive:
            return dict(archive)
    except ConfigError:
        raise
    except FileNotFoundError as error:
        raise ConfigError(f"{flag} does not exist.") from error
    except IsADirectoryError as error:
        raise ConfigError(
            f"{flag} is a folder; did you mean --dataset=folder:{path}?"
        ) from error
    except Exception as error:  # Of a damaged file, errors of many kinds.
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"{flag} is no archive of arrays that numpy.savez writes: {reason}"
        ) from error


def _source(arrays, images_name: str, labels_name: str, flag: str):
    images = _as_bytes(arrays[images_name], f"{flag}: {images_name}")
    if labels_name not in arrays:
        labels = np.full(len(images), UNLABELLED, np.int32)
        return ArraySource(images, labels)
    labels = arrays[labels_name].reshape(-1)
    if len(labels) != len(images):
        raise ConfigError(
            f"{flag}: {labels_name} is {list(arrays[labels_name].shape)}, not "
            f"a label for each of the {len(images)} {images_name}."
        )
    if not np.issubdtype(labels.dtype, np.integer):
        raise ConfigError(
            f"{flag}: {labels_name} is {labels.dtype}; labels are whole "
            "numbers from 0 on."
        )
    if labels.max() >= MOST_CLASSES:
        raise ConfigError(
            f"{flag}: {labels_name} has a {labels.max()}; labels are numbers "
            f"of classes, below {MOST_CLASSES:,}."
        )
    labels = labels.astype(np.int64)
    return ArraySource(images, np.maximum(labels, UNLABELLED).astype(np.int32))


def _as_bytes(images: np.ndarray, name: str) -> np.ndarray:
    """uint8 [n, height, width, 1 or 3] of what the archive holds."""
    if not images.size:
        raise ConfigError(f"{name} is {list(images.shape)}: it holds no pixel.")
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[-1] not in (1, 3, 4):
        hint = ""
        if images.ndim == 4 and images.shape[1] in (1, 3):
            hint = "; put the channels last"
        raise ConfigError(
            f"{name} is {list(images.shape)}, not [n, height, width, 1, 3 or "
            f"4]{hint}."
        )
    images = images[..., :3]  # Transparency is dropped.
    if images.dtype == np.uint8:
        return np.ascontiguousarray(images)
    if images.dtype == np.uint16:
        return (images >> 8).astype(np.uint8)
    if not np.issubdtype(images.dtype, np.floating):
        raise ConfigError(
            f"{name} is {images.dtype}; images are uint8, uint16 or floats in "
            "[0, 1]."
        )
    if not (images.min(initial=0) >= 0 and images.max(initial=0) <= 1):
        raise ConfigError(
            f"{name} has values outside of [0, 1], or that are no numbers."
        )
    return np.round(images * 255).astype(np.uint8)
