"""How long logistic regression takes, beside scikit-learn's.

    python -m byol_tf.benchmarks.logistic_regression

Prints JSON. Both fit the same float32 features at the same strengths of the
same penalty, by turns in one process: ours, `evaluation.logistic`, and
scikit-learn's `LogisticRegression(solver="lbfgs")`. The features are the pixels
of bundled images, and random ones of the shape of a small transfer set, 2048
for each of 37 classes; both are standardised.

`to_optimum`: seconds from zero weights until the objective is above its optimum
by no more than the share DISTANCE. The fewest steps that get there are looked
for first, and are then what is timed.

`sweep`: seconds for all 45 strengths, each from the weights of the one before
(`warm_start`). Ours stops by its default tolerance. scikit-learn's is the
coarsest of PEER_TOLERANCES with which it ends as near to the optima, in nats an
example on average; if none does, the finest, and `matched` is false. The optima
are the lowest that was found, by either or by ours with a tolerance of EXACT.
"""

import argparse
import json
import os
import statistics
import time
import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from byol_tf.benchmarks.machine import environment
from byol_tf.data.bundled import open_bundled
from byol_tf.evaluation import logistic
from byol_tf.evaluation.logistic import STRENGTHS, Split, Weights, objective

DISTANCE = 1e-4
SINGLE_STRENGTHS = (100.0, 10.0, 1.0)
PEER_TOLERANCES = (1e-2, 1e-3, 1e-4, 1e-5)
MOST_STEPS = 2048
EXACT = 1e-9  # Nats an example, in float64.


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
    for name, split in (
        ("pixels", pixels(arguments.examples)),
        ("random", random_features(arguments.examples, arguments.length)),
    ):
        count, length = split.features.shape
        result[name] = {
            "examples": count,
            "length": length,
            "classes": int(split.labels.max()) + 1,
            "to_optimum": [
                to_optimum(split, l2, arguments.rounds)
                for l2 in SINGLE_STRENGTHS
            ],
            "sweep": sweep(split, every, arguments.rounds),
        }
    result["environment"]["load_after"] = os.getloadavg()[0]
    print(json.dumps(result, indent=2))


def pixels(count: int) -> Split:
    """Bundled images, standardised."""
    train = open_bundled().train
    return Split(
        standardised(train.images[:count].reshape(count, -1)),
        train.labels[:count],
    )


def random_features(count: int, length: int, classes: int = 37) -> Split:
    """Classes that overlap, on axes of falling variance, after a ReLU."""
    random = np.random.default_rng(0)
    labels = np.arange(count) % classes
    hidden = random.normal(size=(classes, 64))[labels]
    hidden += 2 * random.normal(size=(count, 64))
    mixing = random.normal(size=(64, length)) / np.arange(1, 65)[:, None] ** 0.5
    features = hidden @ mixing + random.normal(size=(count, length))
    return Split(standardised(np.maximum(features, 0)), labels)


def standardised(features: np.ndarray) -> np.ndarray:
    """float32, each of mean 0 and variance 1, or 0 throughout."""
    deviation = features.std(axis=0)
    features = features - features.mean(axis=0)
    return (features / np.maximum(deviation, 1e-6)).astype(np.float32)


def ours(
    split: Split, strengths, tolerance: float, steps: int
) -> list[Weights]:
    """The weights at each strength in turn."""
    return list(logistic.path(split, strengths, tolerance, steps))


def theirs(
    split: Split, strengths, tolerance: float, steps: int
) -> list[Weights]:
    """The same by scikit-learn."""
    classifier = LogisticRegression(
        solver="lbfgs", warm_start=True, tol=tolerance, max_iter=steps
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


SOLVERS = {"byol_tf": ours, "scikit-learn": theirs}


def to_optimum(split: Split, l2: float, rounds: int) -> dict:
    """Seconds of both until near the optimum of one strength."""
    exact = exact_split(split)
    best = objective(ours(exact, [l2], EXACT, MOST_STEPS)[0], exact, l2)

    def is_near(solver, steps):
        (weights,) = solver(split, [l2], 0.0, steps)
        return objective(weights, exact, l2) <= best * (1 + DISTANCE)

    steps = {
        name: fewest(lambda n, solver=solver: is_near(solver, n))
        for name, solver in SOLVERS.items()
    }
    result = {"l2": l2, "distance": DISTANCE, "steps": steps}
    if None in steps.values():
        return result
    return result | timed(
        {
            name: lambda solver=solver, name=name: solver(
                split, [l2], 0.0, steps[name]
            )
            for name, solver in SOLVERS.items()
        },
        rounds,
    )


def fewest(is_enough) -> int | None:
    """The least number of steps that is enough; None for MOST_STEPS."""
    high = 1
    while not is_enough(high):
        high *= 2
        if high > MOST_STEPS:
            return None
    low = high // 2
    while high - low > max(1, high // 32):
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high


def sweep(split: Split, strengths, rounds: int) -> dict:
    """Seconds of both for all strengths, equally near to the optima."""
    exact = exact_split(split)

    def objectives(weights):
        return np.array(
            [objective(w, exact, l2) for w, l2 in zip(weights, strengths)]
        )

    found = objectives(ours(split, strengths, logistic.TOLERANCE, 1000))
    best = objectives(ours(exact, strengths, EXACT, MOST_STEPS))
    for tolerance in PEER_TOLERANCES:
        peers = objectives(theirs(split, strengths, tolerance, 1000))
        best = np.minimum(best, np.minimum(found, peers))
        matched = bool(peers.mean() <= found.mean())
        if matched:
            break
    excess = {
        name: {
            "mean": float(np.mean(values - best) / len(split.labels)),
            "greatest": float(np.max(values - best) / len(split.labels)),
        }
        for name, values in (("byol_tf", found), ("scikit-learn", peers))
    }
    return {
        "strengths": len(strengths),
        "scikit-learn_tolerance": tolerance,
        "matched": matched,
        "nats_an_example_above_optimum": excess,
    } | timed(
        {
            "byol_tf": lambda: ours(split, strengths, logistic.TOLERANCE, 1000),
            "scikit-learn": lambda: theirs(split, strengths, tolerance, 1000),
        },
        rounds,
    )


def exact_split(split: Split) -> Split:
    """The same in float64."""
    return split._replace(features=split.features.astype(np.float64))


def timed(fits: dict, rounds: int) -> dict:
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
