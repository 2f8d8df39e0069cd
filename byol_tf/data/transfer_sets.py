"""The twelve data sets of the paper's transfer protocol, by name.

Source: arXiv 2006.07733, section 4.2 and appendix D, whose splits are those of
SimCLR (arXiv 2002.05709) and of Kornblith et al. (arXiv 1805.08974). They come
through TensorFlow Datasets, or from a folder.

Where there is no official validation split, the paper does not say which
training images it holds out, only how many. Here it is the same share of each
class, drawn with seed 0: a tenth of Food-101, CIFAR and Birdsnap, a fifth of
SUN397, Cars and Pets, and 5 of the 30 images a class of Caltech-101.
"""

import dataclasses
import pathlib
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from byol_tf.config import Config, ConfigError
from byol_tf.data.folders import open_labelled_folder
from byol_tf.data.skipped import Skipped
from byol_tf.data.sources import ArraySource, Source
from byol_tf.data.splits import held_out, labels_of, subset
from byol_tf.data.tfds_source import (
    Labels,
    class_labels,
    open_split,
    prepared_builder,
)

VOC_CLASSES = 20
VALIDATION_FOLDERS = ("val", "validation")


@dataclasses.dataclass(frozen=True)
class TransferSet:
    """A data set of the protocol.

    Attributes:
      title: its name in the paper.
      builder: NAME[/CONFIG] in TFDS; None if TFDS does not have it.
      validation: split in TFDS; or the share of each class of the training
        images that is held out for it, in (0, 1).
      metric: top1, mean_per_class or voc_map; see `evaluation.metrics`.
      linear: the paper's figure for ResNet-50 with a linear classifier, %.
      finetuned: and fine-tuned, %.
      sizes: the paper's numbers of images in train, validation and test.
      train: split in TFDS.
      test: split in TFDS.
      note: where TFDS's images or splits differ from the paper's.
    """

    title: str
    builder: str | None
    validation: str | float
    metric: str
    linear: float
    finetuned: float
    sizes: tuple[int, int, int]
    train: str = "train"
    test: str = "test"
    note: str = ""


TRANSFER_SETS = {
    "food101": TransferSet(
        "Food101",
        "food101",
        1 / 10,
        "top1",
        75.3,
        88.5,
        (68_175, 7_575, 25_250),
        test="validation",
        note="TFDS calls the official test images validation.",
    ),
    "cifar10": TransferSet(
        "CIFAR10",
        "cifar10",
        1 / 10,
        "top1",
        91.3,
        97.8,
        (45_000, 5_000, 10_000),
    ),
    "cifar100": TransferSet(
        "CIFAR100",
        "cifar100",
        1 / 10,
        "top1",
        78.4,
        86.1,
        (44_933, 5_067, 10_000),
    ),
    "birdsnap": TransferSet(
        "Birdsnap",
        None,
        1 / 10,
        "top1",
        57.2,
        76.3,
        (42_405, 4_981, 2_443),
        note="TFDS does not have it.",
    ),
    "sun397": TransferSet(
        "SUN397",
        "sun397/standard-part1-120k",
        1 / 5,
        "top1",
        62.2,
        63.7,
        (15_880, 3_970, 19_850),
        note="The first partition; TFDS shrinks its images to 120,000 pixels "
        "at most.",
    ),
    "cars": TransferSet(
        "Cars",
        "cars196",
        1 / 5,
        "top1",
        67.8,
        91.6,
        (6_494, 1_650, 8_041),
    ),
    "aircraft": TransferSet(
        "Aircraft",
        None,
        1 / 2,
        "mean_per_class",
        60.6,
        88.1,
        (3_334, 3_333, 3_333),
        note="TFDS has it within visual_domain_decathlon only, shrunk to 72 "
        "pixels and without the test images' labels.",
    ),
    "voc2007": TransferSet(
        "VOC2007",
        "voc/2007",
        "validation",
        "voc_map",
        82.5,
        85.4,
        (2_501, 2_510, 4_952),
        note="A class of which an image shows difficult objects only is "
        "ignored there.",
    ),
    "dtd": TransferSet(
        "DTD",
        "dtd",
        "validation",
        "top1",
        75.5,
        76.2,
        (1_880, 1_880, 1_880),
        note="The first of its ten splits.",
    ),
    "pets": TransferSet(
        "Pets",
        "oxford_iiit_pet",
        1 / 5,
        "mean_per_class",
        90.4,
        91.7,
        (2_940, 740, 3_669),
    ),
    "caltech101": TransferSet(
        "Caltech-101",
        "caltech101",
        1 / 6,
        "mean_per_class",
        94.2,
        93.8,
        (2_550, 510, 6_084),
        note="TFDS draws the 30 training images a class, with a seed of its "
        "own, and counts the background as the 102nd class.",
    ),
    "flowers": TransferSet(
        "Flowers",
        "oxford_flowers102",
        "validation",
        "mean_per_class",
        96.1,
        97.0,
        (1_020, 1_020, 6_149),
    ),
}

# What `all` stands for: those that need no folder.
IN_TFDS = tuple(key for key, s in TRANSFER_SETS.items() if s.builder)


class TransferSplits(NamedTuple):
    """A data set that is open.

    Labels are int32, a scalar an image; of VOC2007 [20], with 1 for a class
    that the image shows, 0 for one that it does not, and -1 for one that does
    not count in it.
    """

    train: Source
    validation: Source
    test: Source
    class_names: tuple[str, ...]
    metric: str
    notes: tuple[str, ...]


def open_transfer_set(
    name: str, config: Config, skipped: Skipped
) -> TransferSplits:
    """Opens one of TRANSFER_SETS.

    Args:
      name: a key of TRANSFER_SETS; or KEY:PATH for a folder that holds the
        same images as train/CLASS/… and test/CLASS/…, and perhaps
        val/CLASS/….
      config: settings of the data; of TFDS, `data_dir` and `download`.
      skipped: where images are noted that cannot be used.

    Raises:
      ConfigError: if there is no such set, or it is not to be had.
    """
    check_transfer_set(name, config)
    key, _, folder = name.partition(":")
    wanted = TRANSFER_SETS[key]
    if folder:
        root = pathlib.Path(folder).expanduser()
        opened = _open_folder(key, root, config, skipped)
    else:
        opened = _open_builder(key, config, skipped)
    sources, class_names, notes = opened
    train, validation, test = sources
    if validation is None:
        chosen, alone = held_out(
            labels_of(train), wanted.validation, class_names=class_names
        )
        validation = subset(train, np.flatnonzero(chosen))
        train = subset(train, np.flatnonzero(~chosen))
        notes += (
            f"validation is {wanted.validation:.3g} of each class of train, "
            "drawn with seed 0.",
            *alone,
        )
    sizes = tuple(source.size for source in (train, validation, test))
    if 0 in sizes:
        empty = ("train", "validation", "test")[sizes.index(0)]
        raise ConfigError(
            f"--transfer_sets={name}: its {empty} split has no images; two of "
            "each class to train on, and one to test on, are the least."
        )
    if sizes != wanted.sizes:
        notes += (
            f"train, validation and test have {_listed(sizes)} images, the "
            f"paper's {_listed(wanted.sizes)}.",
        )
    # Images in memory are without those that were damaged.
    whole = any(isinstance(source, ArraySource) for source in sources)
    skipped.total = sum(sizes) + whole * len(skipped)
    skipped.check()
    return TransferSplits(
        train, validation, test, class_names, wanted.metric, notes
    )


def check_transfer_set(name: str, config: Config) -> None:
    """Finds out whether `open_transfer_set` will find the images.

    Args:
      name: and config: as for it.

    Raises:
      ConfigError: if not.
    """
    key, _, folder = name.partition(":")
    if key not in TRANSFER_SETS:
        raise ConfigError(
            f"--transfer_sets={name} is none of {', '.join(TRANSFER_SETS)}, "
            "nor KEY:PATH for a folder of one of them."
        )
    if folder:
        train = pathlib.Path(folder).expanduser() / "train"
        if TRANSFER_SETS[key].metric == "voc_map":
            raise ConfigError(
                f"--transfer_sets={name}: an image of "
                f"{TRANSFER_SETS[key].title} has several labels, which folders "
                "cannot say; leave the folder out for TFDS's."
            )
        if not train.is_dir():
            raise ConfigError(
                f"--transfer_sets={name}: {train} does not exist; it holds a "
                "sub-folder a class."
            )
        return
    _prepared(key, config)


def voc_labels(classes: tf.Tensor, difficult: tf.Tensor) -> tf.Tensor:
    """What an image of VOC is labelled with, from its objects.

    Args:
      classes: int64 [objects], in [0, 20).
      difficult: bool [objects].

    Returns:
      int32 [20]: 1 for a class with an object that is not difficult, -1 for
      one with difficult objects only, else 0.
    """
    of_class = tf.one_hot(classes, VOC_CLASSES, True, False)
    shown = tf.reduce_any(of_class & ~difficult[:, None], axis=0)
    there = tf.reduce_any(of_class, axis=0)
    return tf.cast(shown, tf.int32) - tf.cast(there & ~shown, tf.int32)


def _voc(builder) -> Labels:
    return Labels(
        {"objects": {"label", "is_difficult"}},
        lambda example: voc_labels(
            example["objects"]["label"], example["objects"]["is_difficult"]
        ),
        tuple(builder.info.features["objects"]["label"].names),
    )


def _open_builder(key: str, config: Config, skipped: Skipped):
    """((train, validation or None, test), class names, notes) of TFDS."""
    wanted = TRANSFER_SETS[key]
    builder, called = _prepared(key, config)
    several = wanted.metric == "voc_map"
    labels = _voc(builder) if several else class_labels(builder)

    def split(name):
        return open_split(
            builder, name, labels, config, skipped, f"{called}: {name}"
        )

    official = isinstance(wanted.validation, str)
    sources = (
        split(wanted.train),
        split(wanted.validation) if official else None,
        split(wanted.test),
    )
    return sources, labels.class_names, tuple(filter(None, [wanted.note]))


def _prepared(key: str, config: Config):
    """The builder of a set, and what to call it."""
    wanted = TRANSFER_SETS[key]
    if wanted.builder is None:
        raise ConfigError(
            f"--transfer_sets: {key} is not among TensorFlow Datasets: name a "
            f"folder of its images, {key}:PATH, with train/CLASS/… and "
            "test/CLASS/… in it."
        )
    called = f"{key} (tfds:{wanted.builder})"
    return prepared_builder(wanted.builder, config, called), called


def _open_folder(key: str, root, config: Config, skipped: Skipped):
    """The same of a folder."""
    called = f"--transfer_sets={key}:{root}"
    train, class_names = open_labelled_folder(
        root / "train", config, skipped, called=called
    )

    def split(name):
        return open_labelled_folder(
            root / name, config, skipped, class_names, called
        )

    validation = None
    for name in VALIDATION_FOLDERS:
        if (root / name).is_dir():
            validation, _ = split(name)
            break
    test, _ = split("test")
    return (train, validation, test), class_names, ()


def _listed(sizes: tuple[int, ...]) -> str:
    return " / ".join(f"{size:,}" for size in sizes)
