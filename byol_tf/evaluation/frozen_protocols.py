"""Protocols on frozen features: neighbours, linear classifiers, regression.

Source: arXiv 2006.07733, section 4 and appendices C and D; the official
`byol/eval_experiment.py` for `linear`. `knn` is not in the paper.
"""

import functools
from collections.abc import Callable, Iterator

import keras
import numpy as np
import tensorflow as tf

from byol_tf.config import Config, ConfigError
from byol_tf.data.pipeline import classifier_batches, example_order
from byol_tf.data.sources import Source
from byol_tf.evaluation import logistic, metrics
from byol_tf.evaluation.features import Stacked
from byol_tf.evaluation.kept_results import KeptState
from byol_tf.evaluation.knn import knn_accuracies
from byol_tf.evaluation.linear_protocol import BASE_RATES, LinearClassifiers
from byol_tf.evaluation.task import Row, Task, targets_of

# The release's learning rate of `linear` (`byol/configs/eval.py`).
RELEASE_RATE = 0.2
BATCH_SIZE = 1024
# Transfer to other data sets takes the whole shorter side (appendix D).
TRANSFER_CROP = 1.0


def knn(task: Task) -> Iterator[Row]:
    """Weighted votes of the nearest training images, for each k."""
    parts, labels = zip(*map(task.features, ("train", "validation")))
    bank, bank_labels = Stacked(*parts), np.concatenate(labels)
    queries, query_labels = task.features("test")
    check_neighbours(task.config, len(bank))
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


def check_neighbours(config: Config, images: int) -> None:
    """Raises ConfigError if `knn` needs more training images than these."""
    most = max(config.knn_neighbours)
    if most > images:
        raise ConfigError(
            f"--knn_neighbours={most} is more than there are labelled training "
            f"images ({images}); give numbers up to that."
        )


def linear(task: Task) -> Iterator[Row]:
    """The release's linear classifier, of all training images."""
    features, labels = task.features("test")  # First: it checks them.
    classifiers = _classifiers(task, "linear", (RELEASE_RATE,), task.training)
    yield from task.rows(
        f"rate {RELEASE_RATE}",
        classifiers.scores(features, 0),
        labels,
        batch_size=classifiers.batch_size,
    )


def linear_sweep(task: Task) -> Iterator[Row]:
    """The paper's linear classifier: the best of five learning rates."""
    for split in ("validation", "test"):  # First: it checks them.
        task.features(split)
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
    try:
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
    except ValueError:
        task.check_features(source, "train")  # Perhaps it is one image.
        raise
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
    features, labels = zip(
        *(
            task.features(name, TRANSFER_CROP)
            for name in ("train", "validation", "test")
        )
    )
    if labels[0].ndim == 1:  # Of classes that there are, 0, 1, …
        classes = np.unique(labels[0])
        labels = [np.searchsorted(classes, of_split) for of_split in labels]
    splits = [
        logistic.Split(np.asarray(of_split, np.float32), *targets_of(targets))
        for of_split, targets in zip(features, labels)
    ]
    found = logistic.transfer(
        *splits,
        task.metric,
        title="logistic regression",
        once=lambda name, compute: task.kept.once(f"transfer/{name}", compute),
    )
    validation = {f"{l2:g}": value for l2, value in found.validation.items()}
    chosen = {"l2": found.l2, "validation": validation}
    yield Row("logistic regression", task.metric, found.test, chosen)
