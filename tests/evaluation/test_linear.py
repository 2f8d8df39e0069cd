"""The linear classifier on data of known difficulty."""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from byol_tf.data.splits import held_out
from byol_tf.evaluation.linear import CANDIDATES, linear_accuracy


def test_equals_scikit_learns_on_handwritten_digits():
    images, labels = load_digits(return_X_y=True)
    train, test = slice(0, 1200), slice(1200, None)
    measured = linear_accuracy(
        images[train], labels[train], images[test], labels[test]
    )
    features = StandardScaler().fit(images[train]).transform(images)
    held = np.flatnonzero(held_out(labels[train])[0])
    rest = np.setdiff1d(np.arange(1200), held)

    def accuracy(l2, fitted, scored):
        classifier = LogisticRegression(C=1 / l2, max_iter=1000)
        classifier.fit(features[fitted], labels[fitted])
        return classifier.score(features[scored], labels[scored])

    chosen = max(CANDIDATES, key=lambda l2: accuracy(l2, rest, held))
    assert abs(measured - accuracy(chosen, train, test)) < 0.004
    assert measured > 0.9


def test_the_penalties_are_decades():
    np.testing.assert_allclose(CANDIDATES, [1000, 100, 10])


def test_classes_that_lack_or_have_one_example():
    random = np.random.RandomState(0)
    labels = np.array([2] * 20 + [5] * 20 + [9])
    features = np.eye(10)[labels] + 0.1 * random.randn(41, 10)
    assert linear_accuracy(features, labels, features, labels) >= 40 / 41
    test_labels = np.where(labels == 5, 7, labels)  # Never seen.
    found = linear_accuracy(features, labels, features, test_labels)
    assert 20 / 41 <= found <= 21 / 41
    alone = np.array([3, 8])
    assert linear_accuracy(np.eye(2), alone, np.eye(2), alone) == 1


def test_scale_of_the_features_does_not_matter():
    random = np.random.RandomState(0)
    labels = random.randint(0, 2, 400)
    features = random.randn(400, 3) + labels[:, None]
    scaled = features * [1e-4, 1.0, 1e4] + [0, 5, -1e5]
    half = slice(0, 200), slice(200, None)

    def accuracy(x):
        return linear_accuracy(
            x[half[0]], labels[half[0]], x[half[1]], labels[half[1]]
        )

    assert abs(accuracy(features) - accuracy(scaled)) < 0.02


def test_constant_features_give_the_commonest_class():
    labels = np.array([0] * 30 + [1] * 10)
    features = np.ones((40, 2))
    assert linear_accuracy(features, labels, features, labels) == 0.75


def test_a_handful_of_examples():
    features = np.array([[0.0], [1.0], [0.1], [0.9]])
    labels = np.array([0, 1, 0, 1])
    assert linear_accuracy(features, labels, features, labels) == 1


def test_a_single_class():
    features, labels = np.random.randn(6, 2), np.zeros(6, int)
    test_labels = np.array([0, 0, 0, 1, 1, 1])
    assert linear_accuracy(features, labels, features, test_labels) == 0.5
