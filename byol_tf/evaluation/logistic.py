"""The paper's transfer protocol: logistic regression on frozen features.

Source: arXiv 2006.07733, appendix D: L-BFGS, an l2 penalty chosen among 45
values on the validation split, then a fit to training and validation together.

The objective, for examples x with targets y, is

    sum over examples of the cross-entropy of (x @ kernel + bias) against y
    + l2 / 2 * sum of kernel ** 2

with the softmax cross-entropy for labels of one class each, and with one
sigmoid cross-entropy a class (one-vs-rest) for multi-label targets. The bias
is not penalised. This is scikit-learn's `LogisticRegression(C=1 / l2)`; but of
two classes it fits one vector instead of two, and its C is then 2 / l2.

Before the path, features are centred and turned to their principal axes once
for all strengths, which changes neither the penalty nor the optimum. There the
curvature is nearly diagonal and known, so that L-BFGS starts from a step that
is nearly Newton's, and from the weights of the strength before.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import tqdm

from byol_tf.evaluation import metrics

STRENGTHS = tuple(np.logspace(5, -6, 45))
# Stops where the next step promises less, in nats an example.
TOLERANCE = 1e-6
MAX_STEPS = 1000
_HISTORY = 10


class Split(NamedTuple):
    """Features float [n, d] and their labels.

    Labels are int [n], or 0 and 1 [n, classes] for several labels an image;
    then `ignored`, bool [n, classes], marks those to leave out.
    """

    features: np.ndarray
    labels: np.ndarray
    ignored: np.ndarray | None = None


class Weights(NamedTuple):
    """Of the classifier: float64 kernel [d, classes] and bias [classes]."""

    kernel: np.ndarray
    bias: np.ndarray

    def scores(self, features: np.ndarray) -> np.ndarray:
        """Logits [n, classes] of features [n, d]."""
        return features @ self.kernel.astype(features.dtype) + self.bias


class Transfer(NamedTuple):
    """What `transfer` found: the test figure, and how it was chosen."""

    test: metrics.Estimate
    l2: float
    validation: dict[float, float]  # Strength -> figure.
    weights: Weights


def fit(
    features: np.ndarray,
    labels: np.ndarray,
    l2: float,
    start: Weights | None = None,
    tolerance: float = TOLERANCE,
    max_steps: int = MAX_STEPS,
) -> Weights:
    """The weights at the objective's minimum.

    Args:
      features: float32 or float64 [n, d]; products are in their type.
      labels: int [n], all of 0 to the greatest; or 0 and 1 [n, classes].
      l2: strength of the penalty, > 0.
      start: weights to start from.
      tolerance: see TOLERANCE.
      max_steps: of L-BFGS.

    Raises:
      ValueError: for features that are not finite, labels of one class alone,
        a class without examples, or sizes that do not fit.
    """
    problem = _Problem(Split(features, labels))
    return next(problem.path([l2], start, tolerance, max_steps))


def path(
    train: Split,
    strengths: Sequence[float],
    tolerance: float = TOLERANCE,
    max_steps: int = MAX_STEPS,
) -> Iterator[Weights]:
    """The weights at each strength in turn, each from those before it.

    Strengths should fall. Errors are those of `fit`.
    """
    return _Problem(train).path(strengths, None, tolerance, max_steps)


def sweep(
    train: Split,
    validation: Split,
    strengths: Sequence[float] = STRENGTHS,
    metric: str = "top1",
    title: str = "",
    once: Callable = lambda name, compute: compute(),
) -> tuple[float, dict[float, float]]:
    """The strength that is best on the validation split.

    Args:
      train: to fit.
      validation: to choose by.
      strengths: in any order; the strongest penalty is fitted first.
      metric: one of metrics.METRICS.
      title: of a progress bar; without one there is none.
      once: (name of a figure, function that computes it) -> the figure, perhaps
        one that was kept; see `KeptResults.once`.

    Returns:
      The chosen strength (the strongest of equals), and the validation figure
      of each.

    Raises:
      ValueError: as `fit`, and for splits whose classes differ.
    """
    _check_same_classes(train=train, validation=validation)
    strengths = sorted(map(float, strengths), reverse=True)
    fits = None

    def measured(l2):
        nonlocal fits
        if fits is None:  # The stronger ones were kept.
            fits = path(train, [s for s in strengths if s <= l2])
        scores = next(fits).scores(validation.features)
        return metrics.measure(metric, scores, *validation[1:])

    found = {}
    with tqdm.tqdm(
        strengths, title, unit="strength", disable=not title, leave=False
    ) as bar:
        for l2 in bar:
            found[l2] = once(f"l2 = {l2:g}", functools.partial(measured, l2))
            bar.set_postfix({metric: f"{max(found.values()):.4f}"})
    return max(found, key=found.get), found


def transfer(
    train: Split,
    validation: Split,
    test: Split,
    metric: str = "top1",
    strengths: Sequence[float] = STRENGTHS,
    title: str = "",
    once: Callable = lambda name, compute: compute(),
) -> Transfer:
    """The protocol: choose on validation, fit to both, test once.

    Args:
      train: and validation, test: the splits.
      metric: one of metrics.METRICS.
      strengths: of the penalty.
      title: of a progress bar; without one there is none.
      once: as for `sweep`.

    Raises:
      ValueError: as `fit`, and for splits whose classes differ.
    """
    _check_same_classes(train=train, validation=validation, test=test)
    l2, found = sweep(train, validation, strengths, metric, title, once)
    both = _joined(train, validation)
    stronger = [s for s in sorted(found, reverse=True) if s >= l2][-4:]
    *_, weights = path(both, stronger)
    scores = weights.scores(test.features)
    value = metrics.estimate(metric, scores, *test[1:])
    return Transfer(value, l2, found, weights)


def objective(weights: Weights, split: Split, l2: float) -> float:
    """What `fit` minimises, at these weights."""
    loss, _ = _loss(weights.scores(split.features), *_targets(split))
    return float(loss + l2 / 2 * np.sum(weights.kernel**2))


def _joined(a: Split, b: Split) -> Split:
    ignored = None
    if a.ignored is not None or b.ignored is not None:
        ignored = np.concatenate(
            [
                np.zeros(np.shape(s.labels), bool)
                if s.ignored is None
                else s.ignored
                for s in (a, b)
            ]
        )
    return Split(
        np.concatenate([a.features, b.features]),
        np.concatenate([a.labels, b.labels]),
        ignored,
    )


def _check_same_classes(**splits: Split) -> None:
    classes = {}
    for name, split in splits.items():
        _check(split, name)
        if np.ndim(split.labels) == 1:
            classes[name] = set(np.unique(split.labels).tolist())
        else:
            classes[name] = set(range(split.labels.shape[1]))
    for name, found in classes.items():
        unknown = sorted(found - classes["train"])
        if unknown:
            raise ValueError(
                f"The {name} split has examples of classes of which train has "
                f"none: {', '.join(map(str, unknown[:5]))}."
            )
        if splits[name].features.shape[1] != splits["train"].features.shape[1]:
            raise ValueError(
                f"The features of {name} and train differ in their length."
            )


def _check(split: Split, name: str) -> None:
    features, labels, ignored = split
    if np.ndim(features) != 2 or not np.size(features):
        raise ValueError(
            f"The features of {name} are [n, d] with n > 0, not "
            f"{list(np.shape(features))}."
        )
    if len(labels) != len(features):
        raise ValueError(
            f"The {name} split has {len(features)} features and "
            f"{len(labels)} labels."
        )
    if not np.isfinite(features).all():
        bad = (~np.isfinite(features).all(axis=1)).sum()
        raise ValueError(
            f"Features of {bad} of {len(features)} examples of {name} are not "
            "finite."
        )
    if np.ndim(labels) == 2:
        if not np.isin(labels, (0, 1)).all():
            raise ValueError(f"Multi-label targets of {name} are 0 or 1.")
        if ignored is not None and np.shape(ignored) != np.shape(labels):
            raise ValueError(
                f"Ignored of {name} has another shape than labels."
            )
    elif ignored is not None:
        raise ValueError("Only multi-label targets can be ignored.")
    elif not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0:
        raise ValueError(f"The labels of {name} are integers from 0.")


def _targets(split: Split):
    """0 and 1 [n, classes]; and the weight of each entry, None for softmax."""
    labels = np.asarray(split.labels)
    if labels.ndim == 1:
        classes = labels.max() + 1
        return np.eye(classes, dtype=split.features.dtype)[labels], None
    weights = np.ones(labels.shape, bool)
    if split.ignored is not None:
        weights &= ~np.asarray(split.ignored, bool)
    return labels.astype(split.features.dtype), weights


def _loss(logits, targets, weights):
    """The summed cross-entropy in float64, and its gradient by the logits."""
    if weights is None:
        logits = logits - logits.max(axis=1, keepdims=True)
        exponentials = np.exp(logits)
        totals = exponentials @ np.ones(logits.shape[1], logits.dtype)
        loss = np.sum(np.log(totals), dtype=np.float64)
        loss -= np.sum(logits[targets > 0], dtype=np.float64)
        return loss, exponentials / totals[:, None] - targets
    softplus = np.logaddexp(0, logits)
    losses = softplus - logits * targets
    loss = np.sum(losses * weights, dtype=np.float64)
    return loss, (np.exp(logits - softplus) - targets) * weights


class _Problem:
    """Features on their principal axes, with targets: fitted by L-BFGS."""

    def __init__(self, split: Split):
        _check(split, "train")
        features = np.asarray(split.features)
        if features.dtype not in (np.float32, np.float64):
            features = features.astype(np.float32)
        self._targets, self._weights = _targets(
            split._replace(features=features)
        )
        present = self._targets.sum(axis=0)
        if self._weights is None:
            if len(present) < 2:
                raise ValueError("All labels are of one class.")
            if not present.all():
                raise ValueError(
                    f"Class {int(np.argmin(present))} has no example in train."
                )
        else:
            positive = (self._targets * self._weights).sum(axis=0)
            counted = self._weights.sum(axis=0)
            if not ((positive > 0) & (positive < counted)).all():
                bad = int(np.argmin((positive > 0) & (positive < counted)))
                raise ValueError(
                    f"Class {bad} has no positive or no negative example in "
                    "train."
                )
        self._mean = features.mean(axis=0, dtype=np.float64)
        features = (features - self._mean).astype(features.dtype)
        axes = None
        if len(features) < features.shape[1]:  # They span no more than n axes.
            axes = np.linalg.qr(features.T)[0]
            features = features @ axes
        variances, turn = np.linalg.eigh(features.T @ features)
        self._axes = turn if axes is None else axes @ turn
        self._features = features @ turn
        # The last row is the bias's, as if of a feature that is 1.
        self._curvature = np.append(np.maximum(variances, 0), len(features))

    def path(self, strengths, start, tolerance, max_steps) -> Iterator[Weights]:
        point = np.zeros((len(self._curvature), self._targets.shape[1]))
        if start is not None:
            point[:-1] = self._axes.T @ start.kernel
            point[-1] = start.bias + self._mean @ start.kernel
        for l2 in strengths:
            if not l2 > 0:
                raise ValueError(f"The strength l2 is {l2}; it must be > 0.")
            point = self._minimise(point, l2, tolerance, max_steps)
            kernel = self._axes @ point[:-1]
            yield Weights(kernel, point[-1] - self._mean @ kernel)

    def _evaluate(self, point, l2):
        """The objective and its gradient, float64, and the curvature's mean."""
        small = point.astype(self._features.dtype)
        logits = self._features @ small[:-1] + small[-1]
        loss, error = _loss(logits, self._targets, self._weights)
        gradient = np.empty_like(point)
        gradient[:-1] = self._features.T @ error + l2 * point[:-1]
        gradient[-1] = error.sum(axis=0, dtype=np.float64)
        loss += l2 / 2 * np.sum(point[:-1] ** 2)
        # |p - y| averages 2 p (1 - p), where the classifier is calibrated.
        return loss, gradient, np.abs(error).mean(dtype=np.float64) / 2

    def _minimise(self, point, l2, tolerance, max_steps):
        """L-BFGS (Nocedal and Wright, algorithm 7.4), halving its steps."""
        loss, gradient, spread = self._evaluate(point, l2)
        penalty = np.append(np.full(len(point) - 1, l2), 0)
        inverse = 1 / (np.maximum(spread, 1e-6) * self._curvature + penalty)
        inverse = inverse[:, None].astype(self._features.dtype)
        history, dtype = [], self._features.dtype
        for _ in range(max_steps):
            direction = -_inverse_times(
                gradient.astype(dtype), history, inverse
            )
            slope = np.vdot(gradient, direction)
            if -slope / 2 <= tolerance * len(self._features):
                break
            step, rounding = 1.0, np.finfo(dtype).eps * abs(loss)
            while step > 1e-6:
                new_point = point + step * direction
                new_loss, new_gradient, _ = self._evaluate(new_point, l2)
                if new_loss <= loss + 1e-4 * step * slope + rounding:
                    break
                step /= 2
            else:
                break  # What is left is rounding.
            moved = (new_point - point).astype(dtype)
            changed = (new_gradient - gradient).astype(dtype)
            curvature = np.vdot(moved, changed)
            if curvature > 0:
                history = history[1 - _HISTORY :]
                history.append((moved, changed, 1 / curvature))
            point, loss, gradient = new_point, new_loss, new_gradient
        return point


def _inverse_times(vector, history, diagonal):
    """L-BFGS's inverse Hessian times a vector: the two-loop recursion."""
    factors = []
    for moved, changed, scale in reversed(history):
        factors.append(scale * np.vdot(moved, vector))
        vector -= factors[-1] * changed
    vector *= diagonal
    for (moved, changed, scale), factor in zip(history, reversed(factors)):
        vector += (factor - scale * np.vdot(changed, vector)) * moved
    return vector
