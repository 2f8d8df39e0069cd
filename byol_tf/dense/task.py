"""What a dense task is: its data, its network, its figures, its pictures."""

import functools
import pathlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
import tqdm

from byol_tf.config import Config
from byol_tf.data.scenes import (
    Scene,
    Scenes,
    SceneSplits,
    training_scenes,
)
from byol_tf.dense.dense_model import DenseModel
from byol_tf.evaluation.metrics import RESAMPLES, Estimate
from byol_tf.optim.schedules import WarmupCosine, WarmupSteps


class Recipe(NamedTuple):
    """How a network is trained, as published.

    Attributes:
      steps: of the optimizer.
      batch_size: images in a step.
      rate: learning rate for a batch of that size; for another one it is
        proportional.
      weight_decay: l2 penalty of kernels.
      size: height and width that it is trained on; see the task.
      drops: shares of the training at which the rate becomes a tenth; none for
        a cosine.
    """

    steps: int
    batch_size: int
    rate: float
    weight_decay: float
    size: tuple[int, int]
    drops: tuple[float, ...] = ()

    def schedule(self, rate: float, steps: int, warmup: int):
        """Of the learning rate, for a training of so many steps."""
        if self.drops:
            drops = tuple(round(share * steps) for share in self.drops)
            return WarmupSteps(rate, drops, warmup)
        return WarmupCosine(rate, 256, total_steps=steps, warmup_steps=warmup)


class DenseTask:
    """One of segmentation, detection and depth; the protocol of its name.

    Attributes:
      recipe: the published one.
      flag: that names the data.
      published: metric -> the paper's figure, for ResNet-50.
      published_data: of which data these are.
      differs: in what it is always another protocol than the published one, a
        few words each.
    """

    recipe: Recipe
    flag: str
    published: dict[str, float]
    published_data: str
    differs: tuple[str, ...]

    def open(self, config: Config) -> SceneSplits:
        """Its data; raises ConfigError if they are not to be had."""
        raise NotImplementedError

    def check(self, splits: SceneSplits) -> None:
        """Raises ValueError if nothing could be learned or measured."""

    def network(
        self,
        encoder: keras.Model,
        splits: SceneSplits,
        size: tuple[int, int],
        **options,
    ) -> DenseModel:
        """Its network on a copy of an encoder.

        Args:
          encoder: a `ResNet`; it stays as it is.
          splits: with the names of the classes.
          size: that it is trained on, see `Recipe`.
          **options: see `DenseModel`.
        """
        raise NotImplementedError

    def batches(
        self,
        scenes: Scenes,
        batch_size: int,
        size: tuple[int, int],
        seed: int,
        first_step: int,
        worker: int,
        workers: int,
    ) -> tf.data.Dataset:
        """The arguments of the network's `losses`, see `training_scenes`."""
        return training_scenes(
            scenes,
            batch_size,
            seed,
            functools.partial(self.augmented, size=size),
            self.signature(size),
            first_step,
            worker=worker,
            workers=workers,
        )

    def augmented(
        self, scene: Scene, random: np.random.Generator, size: tuple[int, int]
    ) -> tuple[np.ndarray, ...]:
        """What the network learns from a scene; `random` decides."""
        raise NotImplementedError

    def signature(self, size: tuple[int, int]) -> tuple[tf.TensorSpec, ...]:
        """Of what `augmented` gives."""
        raise NotImplementedError

    def figures(
        self, model: DenseModel, splits: SceneSplits
    ) -> dict[str, Estimate]:
        """Metric -> figure, of all test scenes."""
        raise NotImplementedError

    def draw(
        self,
        model: DenseModel,
        scenes: Sequence[Scene],
        class_names: Sequence[str],
        path: pathlib.Path,
    ) -> None:
        """A sheet of scenes: image, truth and prediction beside each other."""
        raise NotImplementedError


def with_progress(scenes: Scenes, title: str) -> Iterable[Scene]:
    """All scenes that can be used, with a progress bar."""
    return tqdm.tqdm(scenes, title, scenes.size, unit="image", leave=False)


def bootstrapped(
    figure, parts: Sequence[np.ndarray], resamples: int = RESAMPLES
) -> Estimate:
    """A figure of all scenes, and its 95% interval by resampling scenes.

    Args:
      figure: (parts, weights) -> float.
      parts: what it needs of each scene.
      resamples: sets of scenes that are drawn, with seed 0.
    """
    parts, count = np.asarray(parts), len(parts)
    random = np.random.default_rng(0)
    values = []
    for _ in range(resamples):
        drawn = random.integers(count, size=count)
        weights = np.bincount(drawn, minlength=count)
        values.append(figure(parts, weights))
    value = figure(parts, np.ones(count))
    return Estimate(value, *map(float, np.nanpercentile(values, [2.5, 97.5])))
