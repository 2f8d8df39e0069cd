"""Protocols that train the whole network with labels.

Source: arXiv 2006.07733, section 4 and appendices C and D.
"""

import functools
import itertools
import re
from collections.abc import Callable, Iterator

import keras
import tqdm

from byol_tf.data.pipeline import classifier_batches
from byol_tf.data.semi_supervised import open_labelled_part
from byol_tf.data.sources import Source
from byol_tf.evaluation import metrics
from byol_tf.evaluation.features import extract
from byol_tf.evaluation.finetune import (
    Classifier,
    Diverged,
    batch_norm_momentum_of,
    fine_tuned,
)
from byol_tf.evaluation.kept_results import KeptState
from byol_tf.evaluation.task import Row, Task, targets_of

BATCH_SIZE, TRANSFER_BATCH_SIZE = 1024, 256


def finetune(task: Task) -> Iterator[Row]:
    """The whole network trained with all labels.

    Those of the validation split choose, and are learned from at the end.
    """
    yield from _fine_tuned_with(task, task.train, "all labels", task.training)


def semi_supervised(task: Task) -> Iterator[Row]:
    """The whole network trained with a part of the labels."""
    for fraction in task.config.label_fractions:
        # Of all labels; those of the validation split choose.
        share = min(fraction * task.training.size / task.train.size, 1.0)
        few = open_labelled_part(
            task.train, fraction, task.config, task.skipped, share
        )
        name = f"{100 * fraction:g} % of the labels"
        if few.size > 1.2 * fraction * task.training.size:
            name = f"{few.size} labels, one of each class"
        yield from _fine_tuned_with(task, few, name)


def _fine_tuned_with(
    task: Task, source: Source, name: str, last_source: Source | None = None
) -> list[Row]:
    """The best of --finetune_rates and --finetune_epochs.

    Args:
      task: of the protocol.
      source: to learn from while they are chosen.
      name: of the rows.
      last_source: to learn from for the test; by default `source`.
    """
    config = task.config
    last_source = last_source or source
    batch_size = min(config.classifier_batch_size or BATCH_SIZE, source.size)

    def tuned(title, rate, epochs, source=source):
        return _tuned(
            task,
            source,
            title,
            batch_size=batch_size,
            learning_rate=rate,
            total_steps=max(epochs * source.size // batch_size, 1),
        )

    grid = {
        f"rate {rate:g}, {epochs} epochs": {"rate": rate, "epochs": epochs}
        for rate, epochs in itertools.product(
            config.finetune_rates, config.finetune_epochs
        )
    }
    chosen = {"images": last_source.size, "batch_size": batch_size}
    _check_features(task, source, name)
    last_tuned = functools.partial(tuned, source=last_source)
    return _best(task, name, grid, tuned, last_tuned, chosen)


def transfer_finetune(task: Task) -> Iterator[Row]:
    """The whole network trained on other data, as in the paper's table 3."""
    config = task.config
    batch_size = min(
        config.classifier_batch_size or TRANSFER_BATCH_SIZE, task.train.size
    )

    def tuned(title, rate, weight_decay, source=task.train):
        return _tuned(
            task,
            source,
            title,
            batch_size=batch_size,
            learning_rate=rate,
            total_steps=config.transfer_steps,
            weight_decay=weight_decay / rate,
            batch_norm_momentum=batch_norm_momentum_of(
                source.size / batch_size
            ),
        )

    grid = {
        f"rate {rate:g}, decay {decay:g}": {"rate": rate, "weight_decay": decay}
        for rate, decay in itertools.product(
            config.transfer_rates, config.transfer_weight_decays
        )
    }
    with_all = functools.partial(tuned, source=task.training)
    chosen = {"batch_size": batch_size}
    _check_features(task, task.train, "fine-tuned")
    yield from _best(task, "fine-tuned", grid, tuned, with_all, chosen)


def _check_features(task: Task, source: Source, name: str) -> None:
    """Once, before the trainings: one pass, of the hundreds that they take.

    Args:
      task: whose `kept` remembers it.
      source: what is learned from.
      name: of the rows.

    Raises:
      ValueError: for an image with features that are not finite. Else every
        training would seem to diverge, whatever its rate.
    """
    for split, images in (
        (f"{name}/train", source),
        ("validation", task.validation),
        ("test", task.test),
    ):
        title = split.rpartition("/")[2]
        task.kept.once(
            f"{split}/finite",
            functools.partial(task.check_features, images, title),
        )


def _best(
    task: Task,
    name: str,
    grid: dict[str, dict],
    tuned: Callable,
    last_tuned: Callable,
    chosen: dict,
) -> list[Row]:
    """The rows of the best point of a grid; test images are used once.

    Args:
      task: whose `kept` has the rows, once they are there.
      name: of the rows.
      grid: and tuned: see `_swept`.
      last_tuned: like `tuned`, of the network to test.
      chosen: what else to say of the rows.
    """

    def rows():
        best, figures = _swept(task, name, grid, tuned)
        model = last_tuned(f"{name}, test", **best)
        scores, labels = extract(model, task.batches(task.test), "test")
        about = {**best, **chosen, "validation": figures}
        return task.rows(name, scores, labels, **about)

    return [Row.of(row) for row in task.kept.once(f"{name}/test", rows)]


def _swept(
    task: Task, name: str, grid: dict[str, dict], tuned: Callable
) -> tuple[dict, dict[str, float | None]]:
    """The point of a grid that is best on the validation split.

    Args:
      task: whose `kept` has the figures.
      name: of the sweep.
      grid: name of a point -> arguments of `tuned`.
      tuned: title and arguments -> Classifier.

    Returns:
      The arguments; and of each point the figure, None where training failed.

    Raises:
      ValueError: if it failed at all points.
    """

    def figure(point):
        try:
            model = tuned(f"{name}, {point}", **grid[point])
        except Diverged:  # Its rate is too high.
            return None
        scores, labels = extract(model, task.batches(task.validation))
        return metrics.measure(task.metric, scores, *targets_of(labels))

    figures = {}
    with tqdm.tqdm(grid, name, unit="point", leave=False) as bar:
        for point in bar:
            figures[point] = task.kept.once(
                f"{name}/{point}", functools.partial(figure, point)
            )
            sound = {k: v for k, v in figures.items() if v is not None}
            if sound:
                bar.set_postfix({task.metric: f"{max(sound.values()):.4f}"})
    if not sound:
        raise ValueError(
            f"{name}: training diverged at all learning rates; take lower ones."
        )
    return grid[max(sound, key=sound.get)], figures


def _tuned(
    task: Task,
    source: Source,
    title: str,
    *,
    batch_size: int,
    total_steps: int,
    **arguments,
) -> Classifier:
    config = task.config
    with tqdm.tqdm(
        total=total_steps, desc=title, unit="step", leave=False
    ) as bar:
        return fine_tuned(
            task.encoder,
            task.num_classes,
            lambda step: classifier_batches(
                source, batch_size, config.image_size, config.seed, step
            ),
            total_steps=total_steps,
            callbacks=(
                keras.callbacks.LambdaCallback(
                    on_train_batch_end=lambda batch, logs: bar.update()
                ),
            ),
            # One training at a time, known by its title.
            kept=functools.partial(
                KeptState,
                task.folder / f"{re.sub(r'[^a-z0-9.-]+', '_', title)}.npz",
                on_write=task.kept.write,
            ),
            seed=config.seed,
            **arguments,
        )
