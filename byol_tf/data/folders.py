"""`--dataset=folder:PATH`: image files in folders."""

import dataclasses
import hashlib
import os
import pathlib
import tarfile
import unicodedata
import zipfile

import numpy as np
import tensorflow as tf

from byol_tf.config import Config, ConfigError
from byol_tf.data.index import (
    NO_IMAGE,
    SUFFIXES,
    Index,
    default_cache,
    index_folder,
)
from byol_tf.data.loading import cores, in_memory
from byol_tf.data.skipped import Skipped
from byol_tf.data.sources import (
    UNLABELLED,
    Dataset,
    EncodedSource,
    Source,
)
from byol_tf.data.splits import held_out

TEST_FOLDERS = ("test", "val", "validation")


def open_folder(path: str, config: Config, skipped: Skipped) -> Dataset:
    """A folder as a data set.

    With a sub-folder `train`, and `test`, `val` or `validation` beside it,
    these are the splits; else a tenth of the labelled images is held out.
    Within a split the first level of sub-folders are the classes, if there are
    two or more. Images that lie beside them have no label.

    Raises:
      ConfigError: if there is no such folder, or no image in it, or it is not
        clear which class an image is of.
    """
    root = pathlib.Path(path).expanduser()
    if not root.is_dir():
        raise ConfigError(f"--dataset=folder:{path} {_what_it_is(root)}")
    tests = [root / name for name in TEST_FOLDERS if (root / name).is_dir()]
    beside = _folders_beside_splits(root) if _is_split(root) else []
    if beside and not tests:
        raise ConfigError(
            f"--dataset: {root} holds train with sub-folders, and beside it "
            f"{', '.join(beside)}: is train a part of the images, or a class "
            f"of them? Name {root / 'train'}, or rename it."
        )
    if not tests and _is_split(root):
        root /= "train"
    notes = ()
    if not _is_split(root):
        images = _list_images(root, config, skipped)
        test, notes = held_out(images.labels, class_names=images.class_names)
        test_source = None
        if test.any():
            test_source = _open_files(images.of(test), config, skipped)
        train = images.of(~test)
    else:
        images = train = _list_images(root / "train", config, skipped)
        test_source = None
        if images.class_names and tests:
            if os.path.samefile(root / "train", tests[0]):
                raise ConfigError(
                    f"--dataset: {tests[0]} is the same folder as train."
                )
            test_images = _list_images(
                tests[0], config, skipped, images.class_names
            )
            test_source = _open_files(test_images, config, skipped)
    return Dataset(
        _open_files(train, config, skipped),
        test_source,
        images.class_names,
        skipped,
        fingerprint=train.fingerprint(),
        notes=images.notes + notes + _note_of(root, beside),
    )


def open_labelled_folder(
    root: pathlib.Path,
    config: Config,
    skipped: Skipped,
    known_classes: tuple[str, ...] = (),
    called: str = "--dataset",
) -> tuple[Source, tuple[str, ...]]:
    """All images below a folder, whose sub-folders are their classes.

    Args:
      root: the folder.
      config: settings of the data.
      skipped: where images are noted that cannot be used.
      known_classes: of the labels, if they are known; there may be no others.
      called: the flag that names the folder, in messages.

    Returns:
      The images, and the names of their classes.

    Raises:
      ConfigError: if there is no such folder, no image in it, or are no
        classes.
    """
    if not root.is_dir():
        raise ConfigError(f"{called}: {root} {_what_it_is(root)}")
    images = _list_images(root, config, skipped, known_classes, called)
    if not images.class_names:
        raise ConfigError(
            f"{called}: {root} has no sub-folders for its classes; make "
            f"{root}/CLASS/ for each, and put its images there."
        )
    return _open_files(images, config, skipped), images.class_names


def _folders_beside_splits(root: pathlib.Path) -> list[str]:
    splits = {"train", *TEST_FOLDERS}
    return sorted(
        path.name
        for path in root.iterdir()
        if path.is_dir()
        and path.name not in splits
        and not path.name.startswith(".")
    )


def _note_of(root: pathlib.Path, beside: list[str]) -> tuple[str, ...]:
    if not beside:
        return ()
    return (f"in {root}, beside the splits, not used: {', '.join(beside)}.",)


@dataclasses.dataclass(frozen=True)
class _Images:
    """Files of an index, with labels."""

    root: str
    names: np.ndarray
    shapes: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def of(self, chosen: np.ndarray) -> "_Images":
        """Some of them; `chosen` is bool [n]."""
        return dataclasses.replace(
            self,
            names=self.names[chosen],
            shapes=self.shapes[chosen],
            labels=self.labels[chosen],
        )

    def fingerprint(self) -> str:
        """Of the names and labels, in their order."""
        digest = hashlib.sha256(os.fsencode("\0".join(self.names)))
        digest.update(self.labels)
        return digest.hexdigest()


def _what_it_is(path: pathlib.Path) -> str:
    """What stands where there should be a folder, and what to do."""
    if not path.exists():
        return "does not exist; name a folder of images."
    if path.is_file() and zipfile.is_zipfile(path):
        return f"is an archive; unpack it (unzip {path}), and name the folder."
    if path.is_file() and tarfile.is_tarfile(path):
        return f"is an archive; unpack it (tar xf {path}), and name the folder."
    return "is a file; name a folder of images."


def _is_split(root: pathlib.Path) -> bool:
    """Whether `train` is a split of the images, and not a class of them."""
    train = root / "train"
    return train.is_dir() and (
        any((root / name).is_dir() for name in TEST_FOLDERS)
        or any(path.is_dir() for path in train.iterdir())
    )


def _list_images(
    root: pathlib.Path,
    config: Config,
    skipped: Skipped,
    known_classes: tuple[str, ...] = (),
    called: str = "--dataset",
) -> _Images:
    """All images below a folder, and their classes.

    With known classes, those are the labels, and there may be no others.
    """
    cache = pathlib.Path(config.cache_dir).expanduser()
    index = index_folder(
        str(root), cache if config.cache_dir else default_cache()
    )
    for name in index.irregular:
        skipped.note(str(root / name), "a pipe, socket or device, no file")
    names = np.array(index.names, object)
    if not len(names):
        raise ConfigError(
            f"{called}: {root} holds no image ({', '.join(SUFFIXES)})."
        )
    folders = [_first_folder(name) for name in index.names]
    found = sorted(set(folders) - {None})
    classes = known_classes or tuple(found)
    if len(classes) < 2:
        labels = np.full(len(names), UNLABELLED, np.int32)
        return _Images(index.root, names, index.shapes, labels, ())
    _check_classes(root, index, found, called)
    if foreign := sorted(set(found) - set(classes)):
        raise ConfigError(
            f"{called}: {root} has classes ({', '.join(foreign)}) that train "
            "has not."
        )
    loose = folders.count(None)
    if loose and known_classes:
        raise ConfigError(
            f"{called}: {loose} images in {root} lie in no class's sub-folder."
        )
    number = {name: i for i, name in enumerate(classes)} | {None: UNLABELLED}
    labels = np.array([number[folder] for folder in folders], np.int32)
    notes = ()
    if loose:
        notes = (
            f"{loose} of {len(names)} images lie in {root} itself, beside the "
            "classes' sub-folders: they are used without a label.",
        )
    return _Images(index.root, names, index.shapes, labels, classes, notes)


def _first_folder(name: str) -> str | None:
    folder, separator, _ = name.partition(os.sep)
    return folder if separator else None


def _check_classes(
    root: pathlib.Path, index: Index, classes, called: str
) -> None:
    """Raises ConfigError if two sub-folders might be one class."""
    seen = {}
    for name in classes:
        alike = unicodedata.normalize("NFKC", name).casefold().strip()
        if alike in seen:
            raise ConfigError(
                f"{called}: the sub-folders {seen[alike]!r} and {name!r} of "
                f"{root} differ in case or in invisible characters only: are "
                "they one class? Merge or rename them."
            )
        seen[alike] = name
    for first, link in index.linked_twice:
        if link.startswith(first):
            continue  # A loop: the way back to where we came from.
        if _first_folder(link) != _first_folder(first):
            raise ConfigError(
                f"{called}: {root / link} is a link to {root / first}, so its "
                "images would be of two classes; remove the link."
            )


def _open_files(images: _Images, config: Config, skipped: Skipped) -> Source:
    """The files as a source, decoded in memory if they are small and alike."""
    paths = [os.path.join(images.root, name) for name in images.names]
    encoded_paths = tf.constant([os.fsencode(path) for path in paths])
    all_labels = tf.constant(images.labels)

    def read(index):
        return tf.io.read_file(encoded_paths[index]), all_labels[index]

    shapes = images.shapes[images.shapes[:, 0] > NO_IMAGE]
    alike = len(shapes) and (shapes == shapes[0]).all()
    source = EncodedSource(
        len(paths),
        read,
        name_of=paths.__getitem__,
        smallest=int(shapes.min()) if len(shapes) else None,
        skipped=skipped,
        shape=tuple(map(int, shapes[0])) if alike else None,
        labels=images.labels,
    )
    for number in np.flatnonzero(images.shapes[:, 0] == NO_IMAGE):
        source.note(number)
    parallel_calls = config.parallel_calls or cores()
    return in_memory(source, config.in_memory_gb, parallel_calls)
