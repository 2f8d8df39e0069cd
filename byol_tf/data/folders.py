"""`--dataset=folder:PATH`: image files in folders."""

import os
import pathlib

import numpy as np
import PIL.Image
import tensorflow as tf

from byol_tf.config import ConfigError
from byol_tf.data.sources import (
    UNLABELLED,
    Dataset,
    EncodedSource,
    Source,
    in_memory,
)

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif")
TEST_FOLDERS = ("test", "val", "validation")

# Of how many files the header is read when a folder is opened.
CHECKED_FILES = 50_000

# Without a test folder, one image in so many is held out for evaluation.
HELD_OUT = 10


def open_folder(path: str) -> Dataset:
    """A folder as a data set.

    With a sub-folder `train`, and `test`, `val` or `validation` beside it,
    these are the splits; else a tenth of the labelled images is held out.
    Within a split the first level of sub-folders are the classes; images that
    lie in the split's folder itself, or in one sub-folder only, have no labels.

    Raises:
      ConfigError: if there is no such folder, no image in it, or a file with
        the name of an image that is none.
    """
    root = pathlib.Path(path).expanduser()
    if not root.is_dir():
        problem = "is a file" if root.exists() else "does not exist"
        raise ConfigError(
            f"--dataset=folder:{path} {problem}; name a folder of images."
        )
    tests = [root / name for name in TEST_FOLDERS if (root / name).is_dir()]
    if not tests and _is_split(root):
        root /= "train"
    if not _is_split(root):
        files, labels, class_names = _list_images(root)
        test = _held_out(labels) if class_names else np.zeros(len(files), bool)
        return Dataset(
            _open_files(files[~test], labels[~test]),
            _open_files(files[test], labels[test]) if test.any() else None,
            class_names,
        )

    files, labels, class_names = _list_images(root / "train")
    train = _open_files(files, labels)
    if not (class_names and tests):
        return Dataset(train, None, class_names)
    files, labels, _ = _list_images(tests[0], class_names)
    return Dataset(train, _open_files(files, labels), class_names)


def _is_split(root: pathlib.Path) -> bool:
    """Whether `train` is a split of the images, and not a class of them."""
    train = root / "train"
    return train.is_dir() and (
        any((root / name).is_dir() for name in TEST_FOLDERS)
        or any(path.is_dir() for path in train.iterdir())
    )


def _held_out(labels: np.ndarray) -> np.ndarray:
    """bool [n]: a tenth of each class, and one at least of two or more."""
    chosen = np.zeros(len(labels), bool)
    random = np.random.RandomState(0)
    for label in np.unique(labels):
        members = random.permutation(np.flatnonzero(labels == label))
        if len(members) > 1:
            chosen[members[: max(1, len(members) // HELD_OUT)]] = True
    return chosen


def _image_files(root: pathlib.Path) -> list[str]:
    """All files below a folder that are named like images; follows links."""
    found, seen = [], set()
    for folder, subfolders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # A link back to where we have been.
            subfolders.clear()
            continue
        seen.add(real)
        found += [
            os.path.join(folder, name)
            for name in names
            if name.lower().endswith(SUFFIXES)
        ]
    return sorted(found)


def _list_images(
    root: pathlib.Path, known_classes: tuple[str, ...] = ()
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Paths, labels and class names of all images below a folder.

    With known classes, those are the labels, and there may be no others.
    """
    files = _image_files(root)
    if not files:
        raise ConfigError(
            f"--dataset: {root} holds no image ({', '.join(SUFFIXES)})."
        )
    parts = [os.path.relpath(file, root).split(os.sep) for file in files]
    found = {part[0] for part in parts}
    classes = known_classes or tuple(sorted(found))
    if len(classes) < 2 or any(len(part) == 1 for part in parts):
        if known_classes:
            raise ConfigError(
                f"--dataset: images in {root} lie in no class's sub-folder."
            )
        labels = np.full(len(files), UNLABELLED, np.int32)
        return np.array(files), labels, ()
    if foreign := sorted(found - set(classes)):
        raise ConfigError(
            f"--dataset: {root} has classes ({', '.join(foreign)}) that train "
            "has not."
        )
    number = {name: i for i, name in enumerate(classes)}
    labels = np.array([number[part[0]] for part in parts], np.int32)
    return np.array(files), labels, classes


def _open_files(files: np.ndarray, labels: np.ndarray) -> Source:
    """The files as a source, decoded in memory if they are small and alike."""
    sizes = _image_sizes(files)
    paths, all_labels = tf.constant(files), tf.constant(labels)

    def read(index):
        return tf.io.read_file(paths[index]), all_labels[index]

    source = EncodedSource(
        len(files), read, name_of=files.__getitem__, smallest=int(sizes.min())
    )
    if len(files) <= CHECKED_FILES and (sizes == sizes[0]).all():
        return in_memory(source, tuple(sizes[0]))
    return source


def _image_sizes(files: np.ndarray) -> np.ndarray:
    """int [k, 2]: height and width of (at most CHECKED_FILES of) the files."""
    step = -(-len(files) // CHECKED_FILES)
    sizes = []
    for file in files[::step]:
        try:
            with PIL.Image.open(file) as image:
                sizes.append((image.height, image.width))
        except (OSError, PIL.Image.DecompressionBombError) as error:
            raise ConfigError(
                f"--dataset: {file} is no image ({_reason(error)}); remove or "
                "rename it."
            ) from error
    return np.array(sizes)


def _reason(error: Exception) -> str:
    if isinstance(error, PIL.UnidentifiedImageError):
        return "of no known format"
    return str(error)
