"""Metrics against scikit-learn, by hand, and by fractions."""

from fractions import Fraction

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, top_k_accuracy_score

from byol_tf.evaluation.metrics import (
    estimate,
    mean_average_precision,
    mean_per_class,
    measure,
    top_k,
    wilson,
)


@pytest.fixture
def data():
    random = np.random.RandomState(0)
    labels = random.choice(7, 500, p=[0.4, 0.3, 0.1, 0.05, 0.05, 0.05, 0.05])
    return random.randn(500, 7) + 1.5 * np.eye(7)[labels], labels


def eleven_points(scores, targets, ignored):
    """Average precision of one class, straight from its definition."""
    kept = [i for i in range(len(scores)) if not ignored[i]]
    positives = sum(targets[i] for i in kept)
    points = []
    for threshold in sorted({scores[i] for i in kept}):
        chosen = [i for i in kept if scores[i] >= threshold]
        found = sum(targets[i] for i in chosen)
        points.append(
            (Fraction(found, positives), Fraction(found, len(chosen)))
        )
    return sum(
        max(p for recall, p in points if recall >= Fraction(tenth, 10))
        for tenth in range(11)
    ) / Fraction(11)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_top_k_equals_scikit_learns(data, k):
    assert top_k(*data, k) == top_k_accuracy_score(data[1], data[0], k=k)


def test_top_k_by_hand():
    scores = np.array([[0.1, 0.5, 0.4], [0.3, 0.3, 0.4], [1, 1, 1]])
    labels = np.array([2, 0, 1])
    assert top_k(scores, labels, 1) == 0
    assert top_k(scores, labels, 2) == 1
    assert top_k(scores, labels, 3) == top_k(scores, labels, 5) == 1


def test_of_equal_scores_the_lower_class_goes_first():
    scores = np.zeros((4, 3))
    labels = np.arange(4) % 3
    assert top_k(scores, labels, 1) == 0.5
    assert top_k(scores, labels, 2) == 0.75


def test_mean_per_class_equals_scikit_learns(data):
    scores, labels = data
    expected = balanced_accuracy_score(labels, scores.argmax(axis=1))
    assert mean_per_class(scores, labels) == pytest.approx(expected, abs=1e-12)
    assert expected != pytest.approx(top_k(scores, labels), abs=1e-4)


def test_a_class_without_examples_is_left_out():
    scores = np.eye(3)[[0, 1, 1, 2]]
    assert mean_per_class(scores, np.array([0, 0, 1, 1])) == 0.5


@pytest.mark.parametrize("seed", range(5))
def test_average_precision_equals_its_definition(seed):
    random = np.random.RandomState(seed)
    targets = random.randint(0, 2, (30, 4)) * random.randint(0, 2, (30, 4))
    scores = np.round(random.randn(30, 4) + targets, 1)  # With equal scores.
    ignored = random.rand(30, 4) < 0.2
    expected = np.mean(
        [
            float(eleven_points(*columns))
            for columns in zip(
                scores.T.tolist(), targets.T.tolist(), ignored.T.tolist()
            )
        ]
    )
    measured = mean_average_precision(scores, targets, ignored)
    assert measured == pytest.approx(expected, abs=1e-12)
    assert measured != mean_average_precision(scores, targets)


def test_average_precision_by_hand():
    scores = np.array([[4.0], [3.0], [2.0], [1.0]])
    targets = np.array([[1], [0], [0], [1]])
    # Precision 1 up to recall 1/2 (t = 0 ... 0.5), then 2/4.
    measured = mean_average_precision(scores, targets)
    assert measured == pytest.approx((6 * 1 + 5 * 0.5) / 11)
    ignored = np.array([[0], [1], [1], [0]], bool)
    assert mean_average_precision(scores, targets, ignored) == 1


def test_recall_of_tenths_is_not_rounded():
    # Ten positives, a negative after each: 3/10 is reached by the third.
    scores = -np.arange(20.0)[:, None]
    targets = (np.arange(20) % 2 == 0)[:, None].astype(int)
    expected = float(
        eleven_points(scores[:, 0], targets[:, 0].tolist(), [0] * 20)
    )
    assert mean_average_precision(scores, targets) == pytest.approx(expected)


def test_a_class_without_positives_is_left_out():
    scores = np.array([[1.0, 5.0], [0.0, 6.0]])
    targets = np.array([[1, 0], [0, 0]])
    assert mean_average_precision(scores, targets) == 1


def test_wilson_of_the_literature():
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
    np.testing.assert_allclose(wilson(81, 263), [0.2553, 0.3662], atol=5e-5)
    np.testing.assert_allclose(wilson(15, 148), [0.0624, 0.1605], atol=5e-5)
    np.testing.assert_allclose(wilson(0, 20), [0, 0.1611], atol=5e-5)
    np.testing.assert_allclose(wilson(1, 29), [0.0061, 0.1718], atol=5e-5)
    assert wilson(20, 20)[1] == 1


def test_accuracies_have_wilsons_interval(data):
    value, low, high = estimate("top1", *data)
    assert value == top_k(*data)
    assert (low, high) == wilson(round(500 * value), 500)
    assert estimate("top5", *data).value == top_k(*data, 5)


def test_bootstrap_is_that_over_examples(data):
    scores, labels = data
    found = estimate("mean_per_class", *data, resamples=300, seed=3)
    random = np.random.default_rng(3)
    values = []
    for _ in range(300):
        drawn = random.integers(500, size=500)
        values.append(mean_per_class(scores[drawn], labels[drawn]))
    np.testing.assert_allclose(
        found[1:], np.percentile(values, [2.5, 97.5]), rtol=1e-12
    )
    assert found.low < found.value < found.high
    assert found == estimate("mean_per_class", *data, resamples=300, seed=3)
    assert found != estimate("mean_per_class", *data, resamples=300, seed=4)


def test_bootstrap_of_average_precision_is_that_over_examples():
    random = np.random.RandomState(0)
    targets = random.randint(0, 2, (60, 3))
    scores = np.round(random.randn(60, 3) + targets, 1)
    ignored = random.rand(60, 3) < 0.1
    found = estimate("voc_map", scores, targets, ignored, resamples=100)
    random = np.random.default_rng(0)
    values = []
    for _ in range(100):
        drawn = random.integers(60, size=60)
        values.append(
            mean_average_precision(
                scores[drawn], targets[drawn], ignored[drawn]
            )
        )
    np.testing.assert_allclose(
        found[1:], np.percentile(values, [2.5, 97.5]), rtol=1e-12
    )
    assert 0 < found.low < found.value < found.high < 1


SCORES, LABELS = np.eye(3), np.arange(3)


@pytest.mark.parametrize(
    ("metric", "scores", "labels", "message"),
    [
        ("top1", np.zeros((0, 3)), np.zeros(0, int), "n > 0"),
        ("top1", np.zeros(3), LABELS, "n > 0"),
        ("top1", SCORES * np.nan, LABELS, "3 of 3 examples are NaN"),
        ("top5", SCORES, LABELS + 1, "Labels go from 1 to 3"),
        ("mean_per_class", SCORES, LABELS - 1, "Labels go from -1 to 1"),
        ("mean_per_class", SCORES, LABELS[:2], "3 integer labels"),
        ("top1", SCORES, LABELS / 2, "3 integer labels"),
        ("voc_map", SCORES, LABELS, "Targets are 0 or 1"),
        ("voc_map", SCORES, 2 * np.eye(3), "Targets are 0 or 1"),
        ("voc_map", SCORES, np.zeros((3, 3)), "No class has a positive"),
        ("voc_map", SCORES * np.nan, np.eye(3), "are NaN"),
        ("top2", SCORES, LABELS, "No metric 'top2'"),
    ],
)
def test_bad_input(metric, scores, labels, message):
    for function in (measure, estimate):
        with pytest.raises(ValueError, match=message):
            function(metric, scores, labels)


def test_only_average_precision_ignores():
    with pytest.raises(ValueError, match="top1 ignores no examples"):
        measure("top1", SCORES, LABELS, np.zeros((3, 3), bool))
    with pytest.raises(ValueError, match="Ignored are 0 or 1"):
        measure("voc_map", SCORES, np.eye(3), np.zeros(3, bool))
    with pytest.raises(ValueError, match="k is 0"):
        top_k(SCORES, LABELS, 0)
    with pytest.raises(ValueError, match="no share"):
        wilson(0, 0)
