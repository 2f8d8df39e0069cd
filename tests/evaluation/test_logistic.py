"""Logistic regression: the optimum of scikit-learn's, and the protocol."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from byol_tf.evaluation import metrics
from byol_tf.evaluation.logistic import (
    STRENGTHS,
    Split,
    Weights,
    fit,
    objective,
    path,
    sweep,
    transfer,
)

EXACT = 1e-14  # The tolerance at which optima are compared.


def examples(classes=4, count=300, length=12, seed=0) -> Split:
    random = np.random.RandomState(seed)
    centres = np.random.RandomState(100).randn(classes, length)
    labels = np.arange(count) % classes
    features = centres[labels] + 2 * random.randn(count, length)
    # A mean and scales that differ, as of features after a ReLU.
    features = 5 + features * np.logspace(-1, 1, length)
    return Split(features, labels)


def multi_label(count=300, length=12, seed=0) -> Split:
    features = examples(4, count, length, seed).features
    random = np.random.RandomState(seed)
    slopes = np.random.RandomState(101).randn(length, 3)
    logits = (features - 5) / np.logspace(-1, 1, length) @ slopes
    noise = random.logistic(size=(count, 3))
    return Split(features, (logits + 2 * noise > 1).astype(int))


def reference(features, labels, c) -> Weights:
    classifier = LogisticRegression(C=c, tol=1e-10, solver="newton-cholesky")
    classifier.fit(features, labels)
    return Weights(classifier.coef_.T, classifier.intercept_)


def assert_equal(found, expected):
    np.testing.assert_allclose(found.kernel, expected.kernel, 1e-5, 1e-5)
    np.testing.assert_allclose(found.bias, expected.bias, 1e-5, 1e-5)


@pytest.mark.parametrize("l2", [1e3, 10.0, 0.1, 1e-3])
def test_optimum_is_scikit_learns(l2):
    split = examples()
    found = fit(*split[:2], l2, tolerance=EXACT)
    expected = reference(*split[:2], 1 / l2)
    assert_equal(found, expected)
    assert objective(found, split, l2) == pytest.approx(
        objective(expected, split, l2), rel=1e-10
    )


@pytest.mark.parametrize("l2", [1e3, 10.0, 0.1, 1e-3])
def test_two_classes_are_scikit_learns_at_half_the_penalty(l2):
    split = examples(classes=2)
    found = fit(*split[:2], l2, tolerance=EXACT)
    expected = reference(*split[:2], 2 / l2)
    difference = Weights(
        found.kernel[:, 1:] - found.kernel[:, :1],
        found.bias[1:] - found.bias[:1],
    )
    assert_equal(difference, expected)


@pytest.mark.parametrize("l2", [1e3, 10.0, 0.1, 1e-3])
def test_several_labels_are_one_classifier_each(l2):
    split = multi_label()
    found = fit(*split[:2], l2, tolerance=EXACT)
    columns = [reference(split[0], y, 1 / l2) for y in split.labels.T]
    expected = Weights(*map(np.hstack, zip(*columns)))
    assert_equal(found, expected)
    assert objective(found, split, l2) == pytest.approx(
        objective(expected, split, l2), rel=1e-10
    )


def test_ignored_examples_do_not_count():
    split = multi_label()
    ignored = np.random.RandomState(1).rand(300, 3) < 0.3
    (found,) = path(split._replace(ignored=ignored), [1.0], EXACT)
    for column in range(3):
        kept = ~ignored[:, column]
        expected = reference(
            split.features[kept], split.labels[kept, column], 1.0
        )
        assert_equal(
            Weights(found.kernel[:, [column]], found.bias[[column]]), expected
        )


def test_more_features_than_examples():
    split = examples(count=40, length=60)
    assert_equal(
        fit(*split[:2], 1.0, tolerance=EXACT), reference(*split[:2], 1.0)
    )


def test_float32_comes_to_the_same_loss():
    split = examples()
    small = split._replace(features=split.features.astype(np.float32))
    for l2 in (10.0, 0.1, 1e-4):
        found = objective(fit(*small[:2], l2), split, l2)
        exact = objective(fit(*split[:2], l2, tolerance=EXACT), split, l2)
        assert found == pytest.approx(exact, rel=1e-5)


def test_the_default_tolerance_is_near_the_optimum():
    split = examples()
    for l2, weights in zip(STRENGTHS, path(split, STRENGTHS)):
        exact = fit(*split[:2], l2, weights, tolerance=EXACT)
        excess = objective(weights, split, l2) - objective(exact, split, l2)
        assert -1e-9 < excess / 300 < 1e-5


def test_start_does_not_change_the_optimum():
    split = examples()
    start = fit(*split[:2], 100.0)
    # One step from the optimum itself stays there.
    exact = fit(*split[:2], 1.0, tolerance=EXACT)
    assert_equal(fit(*split[:2], 1.0, start, tolerance=EXACT), exact)
    assert_equal(fit(*split[:2], 1.0, exact, max_steps=1), exact)
    assert not np.allclose(start.kernel, exact.kernel, atol=1e-3)


def test_strengths_are_the_papers():
    assert len(STRENGTHS) == 45
    assert STRENGTHS[0] == pytest.approx(1e5)
    assert STRENGTHS[-1] == pytest.approx(1e-6)
    ratios = np.divide(STRENGTHS[1:], STRENGTHS[:-1])
    np.testing.assert_allclose(ratios, 10 ** (-11 / 44))


def test_sweep_chooses_the_best_of_validation():
    train, validation = examples(), examples(seed=1)
    strengths = [1.0, 1e4, 0.01, 100.0]
    chosen, found = sweep(train, validation, strengths)
    assert list(found) == [1e4, 100, 1, 0.01]
    for l2 in strengths:
        scores = fit(*train[:2], l2, tolerance=EXACT).scores(
            validation.features
        )
        # One example may lie on the border.
        expected = metrics.top_k(scores, validation.labels)
        assert abs(found[l2] - expected) < 1.5 / 300
    assert found[chosen] == max(found.values())


def test_of_equals_the_strongest_penalty_is_chosen():
    labels = np.arange(60) % 3
    split = Split(10 * np.eye(3)[labels], labels)
    chosen, found = sweep(split, split, [1e-3, 1e-2, 1e-1])
    assert set(found.values()) == {1}
    assert chosen == 1e-1


@pytest.mark.parametrize("metric", ["top1", "mean_per_class"])
def test_transfer_fits_both_splits_and_tests_once(metric):
    train, validation, test = (examples(seed=seed) for seed in range(3))
    result = transfer(train, validation, test, metric)
    assert result.l2, result.validation == sweep(train, validation)
    both = [np.concatenate(pair) for pair in zip(train[:2], validation[:2])]
    weights = fit(*both, result.l2, tolerance=EXACT)
    np.testing.assert_allclose(
        result.weights.scores(test.features),
        weights.scores(test.features),
        atol=0.05,
    )
    scores = result.weights.scores(test.features)
    assert result.test == metrics.estimate(metric, scores, test.labels)
    assert 0.6 < result.test.value < 1


def test_transfer_with_several_labels():
    train, validation, test = (multi_label(seed=seed) for seed in range(3))
    ignored = np.random.RandomState(0).rand(300, 3) < 0.1
    test = test._replace(ignored=ignored)
    result = transfer(train, validation, test, "voc_map", STRENGTHS[::4])
    assert len(result.validation) == 12
    scores = result.weights.scores(test.features)
    assert result.test == metrics.estimate("voc_map", scores, *test[1:])
    assert 0.6 < result.test.low < result.test.value < 1


def test_features_that_are_no_numbers():
    split = examples()
    split.features[3, 2] = np.nan
    with pytest.raises(ValueError, match="1 of 300 examples of train are not"):
        fit(*split[:2], 1.0)
    with pytest.raises(ValueError, match="of validation are not finite"):
        sweep(examples(), split)
    with pytest.raises(ValueError, match="of test are not finite"):
        transfer(examples(), examples(), split)


def test_labels_that_teach_nothing():
    features, labels, _ = examples()
    with pytest.raises(ValueError, match="All labels are of one class"):
        fit(features, np.zeros_like(labels), 1.0)
    with pytest.raises(ValueError, match="Class 2 has no example"):
        fit(features, np.where(labels == 2, 1, labels), 1.0)
    with pytest.raises(ValueError, match="Class 1 has no positive or no neg"):
        fit(features, np.stack([labels % 2, labels >= 0], axis=1), 1.0)


def test_classes_that_are_not_in_train():
    split = examples()
    other = split._replace(labels=np.where(split.labels == 0, 4, split.labels))
    with pytest.raises(ValueError, match="validation .* train has none: 4"):
        sweep(split, other)
    with pytest.raises(ValueError, match="test split .* train has none: 4"):
        transfer(split, split, other)


def test_a_class_may_lack_in_test():
    split, test = examples(), examples(seed=1)
    some = test.labels != 3
    test = test._replace(features=test.features[some], labels=test.labels[some])
    found = transfer(split, split, test, strengths=(1.0,))
    right = found.weights.scores(test.features).argmax(axis=1) == test.labels
    assert found.test.value == np.mean(right)


def test_sizes_that_do_not_fit():
    features, labels, _ = examples()
    with pytest.raises(ValueError, match="300 features and 299 labels"):
        fit(features, labels[1:], 1.0)
    with pytest.raises(ValueError, match="n > 0"):
        fit(features[:0], labels[:0], 1.0)
    with pytest.raises(ValueError, match="integers from 0"):
        fit(features, labels - 1, 1.0)
    with pytest.raises(ValueError, match="integers from 0"):
        fit(features, labels / 2, 1.0)
    with pytest.raises(ValueError, match="are 0 or 1"):
        fit(features, np.stack([labels, labels], axis=1), 1.0)
    with pytest.raises(ValueError, match="l2 is 0"):
        fit(features, labels, 0)
    with pytest.raises(ValueError, match="differ in their length"):
        sweep(Split(features, labels), Split(features[:, 1:], labels))
    ignored = np.zeros(len(labels), bool)
    with pytest.raises(ValueError, match="Only multi-label"):
        next(path(Split(features, labels, ignored), [1.0]))


def test_a_sweep_that_was_killed_goes_on():
    kept, computed = {}, []

    def once(name, compute):
        if name not in kept:
            computed.append(name)
            kept[name] = compute()
        return kept[name]

    train, validation = examples(count=200), examples(count=100, seed=1)
    l2, figures = sweep(train, validation, once=once)
    assert len(computed) == 45
    for name in computed[30:]:
        del kept[name]
    again, rest = sweep(train, validation, once=once)
    assert computed[45:] == computed[30:45]
    assert again == l2
    np.testing.assert_allclose(
        list(rest.values()), list(figures.values()), atol=0.011
    )
