"""How long logistic regression takes, beside scikit-learn's.

    python -m byol_tf.benchmarks.logistic_regression

Prints JSON. Both fit the same float32 features with all 45 strengths of the
penalty, each from the weights of the one before (`warm_start`), by turns in one
process: ours, `evaluation.logistic.path`, and scikit-learn's
`LogisticRegression(solver="lbfgs")`. The features are the pixels of bundled
images, and random ones of the shape of a small transfer set, 2048 for each of
37 classes; both are standardised.

Ours stops by its default tolerance. scikit-learn's is the coarsest of
PEER_TOLERANCES with which its objective, in nats an example on average over the
strengths, is as low as ours; if none is, the finest, and `as_low` is false.

`above_lower`: by how many nats an example each objective is above the lower of
both, on average. `validation`: top-1 of the best strength on as many other
examples, which is what the protocol chooses by; and `same_answers`, the share
of those examples, over all strengths, to which both give the same class.
"""

import argparse
import json
import os
import statistics
import time
import warnings
from collections.abc import Callable, Sequence

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from byol_tf.benchmarks.machine import environment
from byol_tf.data.bundled import open_bundled
from byol_tf.evaluation import logistic
from byol_tf.evaluation.logistic import STRENGTHS, Split, Weights, objective

PEER_TOLERANCES = (1e-2, 1e-3, 1e-4, 1e-5)
MOST_STEPS = 1000


def main(arguments=None) -> None:
    """Measures, and prints the result as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=2000)
    parser.add_argument(
        "--length", type=int, default=2048, help="of the random features"
    )
    parser.add_argument(
        "--strengths", type=int, default=45, help="of the sweep"
    )
    parser.add_argument("--rounds", type=int, default=3, help="by turns")
    arguments = parser.parse_args(arguments)
    every = STRENGTHS[:: -(-len(STRENGTHS) // arguments.strengths)]
    result = {"environment": environment("numpy", "scikit-learn")}
    for name, (train, validation) in (
        ("pixels", pixels(arguments.examples)),
        ("random", random_features(arguments.examples, arguments.length)),
    ):
        count, length = train.features.shape
        result[name] = {
            "examples": count,
            "length": length,
            "classes": int(train.labels.max()) + 1,
            "strengths": len(every),
        } | sweep(train, validation, every, arguments.rounds)
    result["environment"]["load_after"] = os.getloadavg()[0]
    print(json.dumps(result, indent=2))


def pixels(count: int) -> tuple[Split, Split]:
    """Bundled images: so many to train on, and as many to validate on."""
    images = open_bundled().train
    count = min(count, len(images.labels) // 2)
    return halves(
        images.images[: 2 * count].reshape(2 * count, -1),
        images.labels[: 2 * count],
    )


def random_features(
    count: int, length: int, classes: int = 37
) -> tuple[Split, Split]:
    """Classes that overlap, on axes of falling variance, after a ReLU."""
    random = np.random.default_rng(0)
    labels = np.arange(2 * count) % classes
    hidden = random.normal(size=(classes, 64))[labels]
    hidden += 2 * random.normal(size=(2 * count, 64))
    mixing = random.normal(size=(64, length)) / np.arange(1, 65)[:, None] ** 0.5
    features = hidden @ mixing
    features += random.normal(size=features.shape)
    return halves(np.maximum(features, 0), labels)


def halves(features: np.ndarray, labels: np.ndarray) -> tuple[Split, Split]:
    """The first half and the second, standardised together."""
    features = standardised(features)
    half = len(labels) // 2
    return (
        Split(features[:half], labels[:half]),
        Split(features[half:], labels[half:]),
    )


def standardised(features: np.ndarray) -> np.ndarray:
    """float32, each of mean 0 and variance 1, or 0 throughout."""
    deviation = features.std(axis=0)
    features = features - features.mean(axis=0)
    return (features / np.maximum(deviation, 1e-6)).astype(np.float32)


def ours(
    split: Split,
    strengths: Sequence[float],
    tolerance: float = logistic.TOLERANCE,
) -> list[Weights]:
    """The weights at each strength in turn."""
    return list(logistic.path(split, strengths, tolerance, MOST_STEPS))


def theirs(
    split: Split, strengths: Sequence[float], tolerance: float
) -> list[Weights]:
    """The same by scikit-learn."""
    classifier = LogisticRegression(
        solver="lbfgs", warm_start=True, tol=tolerance, max_iter=MOST_STEPS
    )
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for l2 in strengths:
            classifier.set_params(C=1 / l2)
            classifier.fit(split.features, split.labels)
            kernel = classifier.coef_.T.astype(np.float64)
            bias = classifier.intercept_.astype(np.float64)
            found.append(Weights(kernel, bias))
    return found


def sweep(
    train: Split, validation: Split, strengths: Sequence[float], rounds: int
) -> dict:
    """Seconds of both for all strengths, the peer's at least as near."""
    exact = train._replace(features=train.features.astype(np.float64))

    def objectives(weights):
        return np.array(
            [objective(w, exact, l2) for w, l2 in zip(weights, strengths)]
        ) / len(train.labels)

    found = {"byol_tf": ours(train, strengths)}
    our_objectives = objectives(found["byol_tf"])
    for tolerance in PEER_TOLERANCES:
        found["scikit-learn"] = theirs(train, strengths, tolerance)
        peer_objectives = objectives(found["scikit-learn"])
        as_low = bool(peer_objectives.mean() <= our_objectives.mean())
        if as_low:
            break
    lower = np.minimum(our_objectives, peer_objectives)
    answers = {
        name: np.stack(
            [w.scores(validation.features).argmax(axis=1) for w in weights]
        )
        for name, weights in found.items()
    }
    right = {
        name: (each == validation.labels).mean(axis=1)
        for name, each in answers.items()
    }
    return {
        "scikit-learn_tolerance": tolerance,
        "as_low": as_low,
        "above_lower": {
            "byol_tf": float(np.mean(our_objectives - lower)),
            "scikit-learn": float(np.mean(peer_objectives - lower)),
        },
        "validation": {
            name: {
                "l2": float(strengths[each.argmax()]),
                "top1": float(each.max()),
            }
            for name, each in right.items()
        },
        "same_answers": float(
            np.mean(answers["byol_tf"] == answers["scikit-learn"])
        ),
    } | timed(
        {
            "byol_tf": lambda: ours(train, strengths),
            "scikit-learn": lambda: theirs(train, strengths, tolerance),
        },
        rounds,
    )


def timed(fits: dict[str, Callable], rounds: int) -> dict:
    """Seconds of each, by turns; and the peer's by ours, round for round."""
    seconds = {name: [] for name in fits}
    for _ in range(rounds):
        for name, fit in fits.items():
            start = time.perf_counter()
            fit()
            seconds[name].append(time.perf_counter() - start)
    ratios = [
        theirs / ours
        for ours, theirs in zip(seconds["byol_tf"], seconds["scikit-learn"])
    ]
    return {
        "seconds": {
            name: round(statistics.median(each), 4)
            for name, each in seconds.items()
        },
        "ratio": round(statistics.median(ratios), 2),
        "ratio_least": round(min(ratios), 2),
        "ratio_greatest": round(max(ratios), 2),
    }


if __name__ == "__main__":
    main()
