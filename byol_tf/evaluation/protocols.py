"""The paper's classification protocols, each a function from a task to rows.

Source: arXiv 2006.07733, section 4 and appendices C and D; the official
`byol/eval_experiment.py` for `linear`. `knn` is not in the paper.
"""

import functools
import itertools
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
import tqdm

from byol_tf.config import ConfigError
from byol_tf.data.pipeline import classifier_batches, example_order
from byol_tf.data.semi_supervised import open_labelled_part
from byol_tf.data.sources import Source
from byol_tf.evaluation import logistic, metrics
from byol_tf.evaluation.features import Stacked, extract
from byol_tf.evaluation.finetune import (
    Classifier,
    Diverged,
    batch_norm_momentum_of,
    fine_tuned,
)
from byol_tf.evaluation.kept_results import KeptState
from byol_tf.evaluation.knn import knn_accuracies
from byol_tf.evaluation.linear_protocol import BASE_RATES, LinearClassifiers
from byol_tf.evaluation.task import Row, Task, targets_of

# The release's learning rate of `linear` (`byol/configs/eval.py`).
RELEASE_RATE = 0.2
BATCH_SIZE, TRANSFER_BATCH_SIZE = 1024, 256
# Transfer to other data sets takes the whole shorter side (appendix D).
TRANSFER_CROP = 1.0


def knn(task: Task) -> Iterator[Row]:
    """Weighted votes of the nearest training images, for each k."""
    parts, labels = zip(*map(task.features, ("train", "validation")))
    bank, bank_labels = Stacked(*parts), np.concatenate(labels)
    queries, query_labels = task.features("test")
    most = max(task.config.knn_neighbours)
    if most > len(bank):
        raise ConfigError(
            f"--knn_neighbours={most} is more than there are labelled training "
            f"images ({len(bank)})."
        )
    accuracies = knn_accuracies(
        bank,
        bank_labels,
        queries,
        query_labels,
        task.config.knn_neighbours,
        title="kNN",
    )
    count = len(queries)
    for k, accuracy in accuracies.items():
        interval = metrics.wilson(round(accuracy * count), count)
        yield Row(f"k = {k}", "top1", metrics.Estimate(accuracy, *interval))


def linear(task: Task) -> Iterator[Row]:
    """The release's linear classifier, of all training images."""
    classifiers = _classifiers(task, "linear", (RELEASE_RATE,), task.training)
    features, labels = task.features("test")
    yield from task.rows(
        f"rate {RELEASE_RATE}",
        classifiers.scores(features, 0),
        labels,
        batch_size=classifiers.batch_size,
    )


def linear_sweep(task: Task) -> Iterator[Row]:
    """The paper's linear classifier: the best of five learning rates."""
    classifiers = _classifiers(task, "linear_sweep", BASE_RATES, task.train)
    yield from _best(task, classifiers)


def linear_cached(task: Task) -> Iterator[Row]:
    """`linear_sweep` on the centres of the images, without crops and flips."""
    features, labels = task.features("train")
    order_of = functools.partial(
        example_order, size=len(labels), seed=task.config.seed
    )

    def batches_from(batch_size, step):
        while True:
            positions = step * batch_size + np.arange(batch_size)
            numbers = order_of(tf.constant(positions, tf.int64)).numpy()
            yield features[numbers].astype(np.float32), labels[numbers]
            step += 1

    classifiers = _classifiers(
        task,
        "linear_cached",
        BASE_RATES,
        task.train,
        keras.layers.Identity(),
        batches_from,
        len(labels),
    )
    yield from _best(task, classifiers)


def _classifiers(
    task: Task,
    name: str,
    rates: tuple[float, ...],
    source: Source,
    encoder: Callable | None = None,
    batches_from: Callable | None = None,
    size: int | None = None,
) -> LinearClassifiers:
    """Linear classifiers that were trained; see `LinearClassifiers.fit`."""
    config = task.config
    size = size or source.size
    batch_size = min(config.classifier_batch_size or BATCH_SIZE, size)

    def crops_from(batch_size, step):
        return classifier_batches(
            source, batch_size, config.image_size, config.seed, step
        )

    classifiers = LinearClassifiers(
        task.num_features,
        task.num_classes,
        base_rates=rates,
        batch_size=batch_size,
        total_steps=max(config.linear_epochs * size // batch_size, 1),
        seed=config.seed,
    )
    classifiers.fit(
        encoder or task.encoder,
        functools.partial(batches_from or crops_from, batch_size),
        name,
        KeptState(
            task.folder / f"{name}.npz",
            classifiers.variables,
            on_write=task.kept.write,
        ),
    )
    return classifiers


def _best(task: Task, classifiers: LinearClassifiers) -> list[Row]:
    """The rows of the classifier that is best on the validation split."""
    features, labels = task.features("validation")
    figures = [
        metrics.top_k(classifiers.scores(features, k), labels)
        for k in range(len(classifiers.base_rates))
    ]
    best = int(np.argmax(figures))
    features, labels = task.features("test")
    return task.rows(
        "best rate",
        classifiers.scores(features, best),
        labels,
        base_rate=classifiers.base_rates[best],
        batch_size=classifiers.batch_size,
        validation=dict(zip(map(str, classifiers.base_rates), figures)),
    )


def transfer(task: Task) -> Iterator[Row]:
    """Logistic regression on frozen features, the best of 45 l2 penalties."""
    splits = []
    for name in ("train", "validation", "test"):
        features, labels = task.features(name, TRANSFER_CROP)
        features = np.asarray(features, np.float32)
        splits.append(logistic.Split(features, *targets_of(labels)))
    found = logistic.transfer(
        *splits,
        task.metric,
        title="logistic regression",
        once=lambda name, compute: task.kept.once(f"transfer/{name}", compute),
    )
    validation = {f"{l2:g}": value for l2, value in found.validation.items()}
    chosen = {"l2": found.l2, "validation": validation}
    yield Row("logistic regression", task.metric, found.test, chosen)


def finetune(task: Task) -> Iterator[Row]:
    """The whole network trained with all labels of the training split."""
    yield from _fine_tuned_with(task, task.train, "all labels")


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


def _fine_tuned_with(task: Task, source: Source, name: str) -> list[Row]:
    """The best of --finetune_rates and --finetune_epochs."""
    config = task.config
    batch_size = min(config.classifier_batch_size or BATCH_SIZE, source.size)

    def tuned(title, rate, epochs):
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

    def rows():
        best, figures = _swept(task, name, grid, tuned)
        model = tuned(f"{name}, test", **best)
        scores, labels = extract(model, task.batches(task.test), "test")
        return task.rows(
            name,
            scores,
            labels,
            **best,
            images=source.size,
            batch_size=batch_size,
            validation=figures,
        )

    return [Row.of(row) for row in task.kept.once(f"{name}/test", rows)]


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
    best, figures = _swept(task, "transfer_finetune", grid, tuned)
    model = tuned("fine-tuning, test", **best, source=task.training)
    scores, labels = extract(model, task.batches(task.test), "test")
    yield from task.rows(
        "fine-tuned",
        scores,
        labels,
        **best,
        batch_size=batch_size,
        validation=figures,
    )


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


class Protocol(NamedTuple):
    """A protocol, and the settings that its result depends on.

    Attributes:
      rows: computes it.
      settings: names of fields of `Config`.
      is_transfer: whether it is of --transfer_sets.
    """

    rows: Callable[[Task], Iterator[Row]]
    settings: tuple[str, ...]
    is_transfer: bool = False


_LINEAR = ("linear_epochs", "classifier_batch_size")
_GRID = ("finetune_rates", "finetune_epochs", "classifier_batch_size")

# By the names of --protocols.
PROTOCOLS = {
    "knn": Protocol(knn, ("knn_neighbours",)),
    "linear": Protocol(linear, _LINEAR),
    "linear_sweep": Protocol(linear_sweep, _LINEAR),
    "linear_cached": Protocol(linear_cached, _LINEAR),
    "semi_supervised": Protocol(semi_supervised, ("label_fractions", *_GRID)),
    "finetune": Protocol(finetune, _GRID),
    "transfer": Protocol(transfer, (), True),
    "transfer_finetune": Protocol(
        transfer_finetune,
        (
            "transfer_steps",
            "transfer_rates",
            "transfer_weight_decays",
            "classifier_batch_size",
        ),
        True,
    ),
}
