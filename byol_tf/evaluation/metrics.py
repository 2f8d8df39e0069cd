"""Figures of merit of scores against labels, each with a 95% interval.

Sources: Wilson, JASA 22 (1927); the percentile bootstrap over examples, Efron
and Tibshirani (1993); the PASCAL VOC2007 development kit, `VOCevalcls.m`.
"""

from typing import NamedTuple

import numpy as np

METRICS = ("top1", "top5", "mean_per_class", "voc_map")
RESAMPLES = 1000
_NORMAL_QUANTILE = 1.959963984540054  # of 97.5%


class Estimate(NamedTuple):
    """A figure and its 95% interval, all in [0, 1]."""

    value: float
    low: float
    high: float


def measure(
    metric: str,
    scores: np.ndarray,
    labels: np.ndarray,
    ignored: np.ndarray | None = None,
) -> float:
    """The figure alone, without an interval.

    Args:
      metric: one of METRICS.
      scores: [n, classes].
      labels: int [n]; for voc_map 0 or 1 [n, classes].
      ignored: bool [n, classes], for voc_map alone: VOC's "difficult".

    Raises:
      ValueError: as the function of that metric.
    """
    if metric == "voc_map":
        return mean_average_precision(scores, labels, ignored)
    if ignored is not None:
        raise ValueError(f"{metric} ignores no examples; voc_map does.")
    if metric == "mean_per_class":
        return mean_per_class(scores, labels)
    if metric in ("top1", "top5"):
        return top_k(scores, labels, int(metric[-1]))
    raise ValueError(f"No metric {metric!r}; there are {', '.join(METRICS)}.")


def estimate(
    metric: str,
    scores: np.ndarray,
    labels: np.ndarray,
    ignored: np.ndarray | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """The figure with its 95% interval.

    Accuracies get Wilson's interval. The others get the percentiles 2.5 and
    97.5 of `resamples` sets of n examples each, drawn with replacement; where
    every example is right, such an interval is a point.

    Args:
      metric: and scores, labels, ignored: as for `measure`.
      resamples: at least 1.
      seed: of the draws; the same seed gives the same interval.
    """
    value = measure(metric, scores, labels, ignored)
    count = len(scores)
    if metric in ("top1", "top5"):
        return Estimate(value, *wilson(round(value * count), count))
    if metric == "mean_per_class":
        resampled = _recalls_of(scores, labels)
    else:
        resampled = _precisions_of(scores, labels, ignored)
    random = np.random.default_rng(seed)
    values = []
    for _ in range(resamples):
        drawn = random.integers(count, size=count)
        values.append(resampled(np.bincount(drawn, minlength=count)))
    # A resample without any positive example of any class says nothing.
    return Estimate(value, *map(float, np.nanpercentile(values, [2.5, 97.5])))


def top_k(scores: np.ndarray, labels: np.ndarray, k: int = 1) -> float:
    """Share of the examples whose class is among the k of highest score.

    Of equal scores the lower class goes first, as in numpy.argmax. With k
    classes or fewer every example is right.

    Args:
      scores: [n, classes].
      labels: int [n].
      k: at least 1.

    Raises:
      ValueError: for no examples, a NaN, a label that is no class, or k < 1.
    """
    if k < 1:
        raise ValueError(f"k is {k}; it must be 1 or more.")
    return float(np.mean(_ranks(scores, labels) < k))


def mean_per_class(scores: np.ndarray, labels: np.ndarray) -> float:
    """Top-1 accuracy of each class, averaged over the classes.

    A class without examples is left out of the average.

    Args:
      scores: [n, classes].
      labels: int [n].

    Raises:
      ValueError: as for `top_k`.
    """
    return _recalls_of(scores, labels)(np.ones(len(labels)))


def mean_average_precision(
    scores: np.ndarray,
    targets: np.ndarray,
    ignored: np.ndarray | None = None,
) -> float:
    """VOC2007's average precision of each class, averaged over the classes.

    The precision at recall t is the highest at any recall of t or more, and
    the average is over t = 0, 0.1, ..., 1. Examples of equal score count
    together, so that their order does not matter. A class without positive
    examples is left out.

    Args:
      scores: [n, classes].
      targets: 0 or 1, [n, classes].
      ignored: bool [n, classes]; such an example is neither positive nor
        negative for that class (VOC's "difficult").

    Raises:
      ValueError: for no examples, a NaN, other shapes or targets, or no
        positive example of any class.
    """
    value = _precisions_of(scores, targets, ignored)(np.ones(len(scores), int))
    if np.isnan(value):
        raise ValueError("No class has a positive example.")
    return value


def wilson(right: int, count: int) -> tuple[float, float]:
    """Wilson's 95% interval of a share: `right` of `count` examples."""
    if not 0 <= right <= count or not count:
        raise ValueError(f"{right} of {count} examples is no share.")
    share, z2 = right / count, _NORMAL_QUANTILE**2
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = np.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    half *= _NORMAL_QUANTILE / (1 + z2 / count)
    # Rounding must not leave the share itself outside.
    low, high = min(centre - half, share), max(centre + half, share)
    return max(float(low), 0.0), min(float(high), 1.0)


def _check_scores(scores):
    if scores.ndim != 2 or not scores.size:
        raise ValueError(
            f"Scores are [n, classes] with n > 0, not {list(scores.shape)}."
        )
    if np.isnan(scores).any():
        rows = np.isnan(scores).any(axis=1).sum()
        raise ValueError(f"Scores of {rows} of {len(scores)} examples are NaN.")


def _ranks(scores, labels):
    """How many classes go before the right one, int [n]."""
    scores, labels = np.asarray(scores), np.asarray(labels)
    _check_scores(scores)
    count, classes = scores.shape
    if labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"{count} integer labels are needed, not {labels.dtype} "
            f"{list(labels.shape)}."
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"Labels go from {labels.min()} to {labels.max()}, and the scores "
            f"are of the classes 0 to {classes - 1}."
        )
    right = scores[np.arange(count), labels][:, None]
    lower = np.arange(classes) < labels[:, None]
    return ((scores > right) | ((scores == right) & lower)).sum(axis=1)


def _recalls_of(scores, labels):
    """A function from examples' weights [n] to the mean per-class accuracy."""
    right = _ranks(scores, labels) == 0

    def mean_recall(weights):
        found = np.bincount(labels, weights * right)
        counts = np.bincount(labels, weights)
        return float(np.mean(found[counts > 0] / counts[counts > 0]))

    return mean_recall


def _precisions_of(scores, targets, ignored):
    """A function from examples' weights, int [n], to the mAP, NaN for none."""
    scores, targets = np.asarray(scores), np.asarray(targets)
    _check_scores(scores)
    ignored = np.zeros(scores.shape, bool) if ignored is None else ignored
    for name, array in (("Targets", targets), ("Ignored", ignored)):
        if np.shape(array) != scores.shape or not np.isin(array, (0, 1)).all():
            raise ValueError(
                f"{name} are 0 or 1 of shape {list(scores.shape)}, as scores."
            )
    classes = []
    for score, target, without in zip(scores.T, targets.T, np.array(ignored).T):
        order = np.argsort(-score, kind="stable")
        order = order[~without.astype(bool)[order]]
        ends = np.append(np.diff(score[order]) != 0, True)[: len(order)]
        classes.append((order, target[order].astype(int), ends))

    def mean_precision(weights):
        values = [
            _eleven_points(weights[order], target, ends)
            for order, target, ends in classes
            if (weights[order] * target).any()
        ]
        return float(np.mean(values)) if values else np.nan

    return mean_precision


def _eleven_points(weights, target, ends):
    """Average precision of one class, examples by falling score.

    Args:
      weights: int [n], how often each example counts.
      target: 0 or 1, [n].
      ends: bool [n], whether the next score is another.
    """
    found = np.cumsum(weights * target)[ends]
    precision = found / np.maximum(np.cumsum(weights)[ends], 1)
    best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
    # Recall >= t / 10 in integers, which do not round.
    first = np.searchsorted(10 * found, np.arange(11) * found[-1])
    return best_from_here[first].mean()
