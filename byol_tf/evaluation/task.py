"""What an evaluation protocol works on: an encoder, and labelled images."""

import contextlib
import dataclasses
import functools
import itertools
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from byol_tf.config import Config, ConfigError
from byol_tf.data.pipeline import evaluation_batches
from byol_tf.data.skipped import Skipped
from byol_tf.data.sources import DAMAGED, EncodedSource, Source
from byol_tf.evaluation import kept_results, metrics
from byol_tf.evaluation.features import (
    NotFinite,
    check_features,
    extract,
    features_of_gray,
)
from byol_tf.evaluation.kept_results import KeptResults

# Features are kept as float16 if they would take more than this as float32.
FLOAT32_BYTES = 2**30


class Row(NamedTuple):
    """One result of a protocol.

    Attributes:
      name: of what is measured, e.g. "k = 20" or "1 % of the labels".
      metric: one of metrics.METRICS.
      estimate: the figure and its 95% interval, in [0, 1].
      chosen: hyperparameters that were chosen, and by what figure.
    """

    name: str
    metric: str
    estimate: metrics.Estimate
    chosen: dict = {}

    @classmethod
    def of(cls, values: list) -> "Row":
        """From the list that JSON makes of a row."""
        name, metric, estimate, chosen = values
        return cls(name, metric, metrics.Estimate(*estimate), chosen)


@dataclasses.dataclass(frozen=True)
class Task:
    """An encoder, labelled images in three splits, and the settings.

    Attributes:
      encoder: float32 images [batch, height, width, 3] in [0, 1] -> features
        [batch, d].
      train: what classifiers learn from while hyperparameters are chosen.
      validation: what they are chosen on.
      training: both together, for the last classifier.
      test: what that one is measured on, once.
      class_names: of the labels 0, 1, …
      metric: that hyperparameters are chosen by, and that is reported.
      config: the settings.
      skipped: images that cannot be used.
      features_folder: for features, which several protocols share.
      folder: for what a protocol keeps, to go on from if it was killed.
      kept: its results so far.
    """

    encoder: keras.Model
    train: Source
    validation: Source
    training: Source
    test: Source
    class_names: tuple[str, ...]
    metric: str
    config: Config
    skipped: Skipped
    features_folder: pathlib.Path
    folder: pathlib.Path
    kept: KeptResults

    @property
    def num_classes(self) -> int:
        """Classes, c."""
        return len(self.class_names)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Those to report: top-5 beside top-1, if there are enough classes."""
        if self.metric == "top1" and self.num_classes > 5:
            return ("top1", "top5")
        return (self.metric,)

    def check(self) -> None:
        """Raises ConfigError as `num_features` does."""
        _ = self.num_features

    @functools.cached_property
    def num_features(self) -> int:
        """Length of a feature vector, d.

        Raises:
          ConfigError: if the encoder takes no images of this size, or gives no
            vector of finite numbers.
        """
        features = features_of_gray(self.encoder, self.config.image_size)
        if not np.isfinite(features).all():
            raise ConfigError("--encoder gives features that are not finite.")
        return features.shape[-1]

    def batches(self, source: Source, crop: float | None = None):
        """The centres of a split's images, without damaged ones, in order.

        Args:
          source: the split.
          crop: see `evaluation_batches`; by default --eval_crop.
        """
        crop = crop or self.config.eval_crop
        batches = evaluation_batches(source, self.config.image_size, crop)

        def sound(images, labels):
            rows = tf.reshape(labels, [tf.shape(labels)[0], -1])
            chosen = tf.reduce_any(rows != DAMAGED, axis=1)
            return images[chosen], labels[chosen]

        # A last batch of damaged images alone would be none.
        return batches.map(sound).filter(lambda images, _: len(images) > 0)

    def features(
        self, split: str, crop: float | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Features of a split's images and their labels, computed once.

        They are kept in files, so that a protocol that was killed, or another
        one, finds them.

        Args:
          split: "train", "validation" or "test".
          crop: see `batches`.

        Returns:
          float32 [n, d], memory-mapped, or float16 if those of all training
          images are more than FLOAT32_BYTES; and int32 [n] or [n, classes].

        Raises:
          ValueError: as `check_features`.
        """
        crop = crop or self.config.eval_crop
        source = getattr(self, split)
        stem = f"features-{split}-{crop:g}"
        path = self.features_folder / f"{stem}.npy"
        labels_path = self.features_folder / f"{stem}-labels.npy"
        try:
            return np.load(path, mmap_mode="r"), np.load(labels_path)
        except FileNotFoundError:
            pass
        except kept_results.DAMAGED as error:
            kept_results.say_damaged(path, error)
        size = 4 * self.training.size * self.num_features
        dtype = np.float32 if size <= FLOAT32_BYTES else np.float16
        with self._naming(source, split):
            features, labels = extract(
                self.encoder,
                self.batches(source, crop),
                f"features, {split}",
                path,
                dtype,
            )
        partial = labels_path.with_suffix(".partial.npy")
        np.save(partial, labels)
        partial.replace(labels_path)
        return features, labels

    def check_features(self, source: Source, split: str) -> None:
        """Finds out whether all features are finite, in one pass.

        Args:
          source: of the images.
          split: what to call it.

        Raises:
          ValueError: if some are not; it names the first such image.
        """
        with self._naming(source, split):
            check_features(
                self.encoder, self.batches(source), f"check, {split}"
            )

    @contextlib.contextmanager
    def _naming(self, source: Source, split: str) -> Iterator[None]:
        """Says of which image features are not finite."""
        try:
            yield
        except NotFinite as error:
            number, name = error.row, ""
            hint = " (of files --in_memory_gb=0 says which)"
            if isinstance(source, EncodedSource):
                damaged = source.skipped.reasons
                sound = (
                    number
                    for number in range(source.size)
                    if source.name_of(number) not in damaged
                )
                number = next(itertools.islice(sound, error.row, None))
                name, hint = f", {source.name_of(number)},", ""
            raise ValueError(
                f"the features that --encoder gives for image {number} of the "
                f"{split} split{name} are {error.what}; leave the image out"
                f"{hint}, or take another encoder."
            ) from error

    def rows(
        self, name: str, scores: np.ndarray, labels: np.ndarray, **chosen
    ) -> list[Row]:
        """A row for each of the task's metrics.

        Args:
          name: of the rows.
          scores: [n, c].
          labels: int [n], or [n, c] with 1, 0 and -1, which counts as neither.
          **chosen: see `Row`.
        """
        return [
            Row(
                name,
                metric,
                metrics.estimate(metric, scores, *targets_of(labels)),
                chosen,
            )
            for metric in self.metrics
        ]


def targets_of(labels: np.ndarray) -> tuple[np.ndarray, ...]:
    """Labels as `metrics` takes them: int [n], or 0 and 1, and what to ignore.

    Args:
      labels: int [n], or [n, c] with 1, 0 and -1.
    """
    if labels.ndim == 1:
        return (labels,)
    return (labels == 1).astype(np.int32), labels < 0
