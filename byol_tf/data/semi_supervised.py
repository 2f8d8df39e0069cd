"""A part of the training images whose labels may be used.

Source: arXiv 2006.07733, section 4.2 and appendix D: 1% and 10% of ImageNet,
the lists of SimCLR (arXiv 2002.05709), which TFDS has as
`imagenet2012_subset/1pct` and `/10pct`.
"""

import numpy as np

from byol_tf.config import Config, ConfigError
from byol_tf.data.skipped import Skipped
from byol_tf.data.sources import Source
from byol_tf.data.splits import class_balanced, labels_of, subset
from byol_tf.data.tfds_source import class_labels, open_split, prepared_builder

# Share of the labels -> the part of ImageNet that the paper uses.
PUBLISHED = {0.01: "1pct", 0.1: "10pct"}


def is_imagenet(dataset: str) -> bool:
    """Whether `--dataset` names ImageNet in TFDS, of any version."""
    kind, _, name = dataset.partition(":")
    return kind == "tfds" and name.partition(":")[0] == "imagenet2012"


def semi_supervised(
    labels: np.ndarray, fraction: float, seed: int
) -> np.ndarray:
    """A share of the labelled images, of each class the same number.

    Args:
      labels: int [n]; images with a negative one are not drawn.
      fraction: of all labelled images, in (0, 1].
      seed: of the draws.

    Returns:
      int64, numbers of images, rising.

    Raises:
      ConfigError: if no image has a label.
    """
    if labels.ndim != 1 or not (labels >= 0).any():
        raise ConfigError(
            "--dataset has no images with one label each, of which a part "
            "could be used."
        )
    return class_balanced(labels, float(fraction), seed)


def open_labelled_part(
    train: Source,
    fraction: float,
    config: Config,
    skipped: Skipped,
    share: float | None = None,
) -> Source:
    """The training images whose labels may be used.

    Of `tfds:imagenet2012`, 1% and 10% are the published lists, read from a
    builder of their own; else they are drawn with `--seed`.

    Args:
      train: of `--dataset`.
      fraction: of the labelled images, in (0, 1].
      config: settings of the data.
      skipped: where images are noted that cannot be used.
      share: the same number of images as a share of `train`'s, if that is a
        part of the training images; by default `fraction`.

    Raises:
      ConfigError: if no image has a label, or the published list is not on
        disk.
    """
    if not (is_imagenet(config.dataset) and fraction in PUBLISHED):
        numbers = semi_supervised(
            labels_of(train), share or fraction, config.seed
        )
        return subset(train, numbers)
    name = f"imagenet2012_subset/{PUBLISHED[fraction]}"
    called = f"{fraction:.0%} of ImageNet's labels (tfds:{name})"
    builder = prepared_builder(name, config, called)
    labels = class_labels(builder)
    return open_split(builder, "train", labels, config, skipped, called)
