"""The linear classifier on data of known difficulty."""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegressionCV
from sklearn.preprocessing import StandardScaler

from byol_tf.evaluation.linear import linear_accuracy


def test_equals_scikit_learns_on_handwritten_digits():
    images, labels = load_digits(return_X_y=True)
    train, test = slice(0, 1200), slice(1200, None)
    measured = linear_accuracy(
        images[train], labels[train], images[test], labels[test]
    )
    scaler = StandardScaler().fit(images[train])
    reference = LogisticRegressionCV(
        Cs=4, cv=3, max_iter=1000, use_legacy_attributes=False
    ).fit(scaler.transform(images[train]), labels[train])
    expected = reference.score(scaler.transform(images[test]), labels[test])
    assert abs(measured - expected) < 0.02
    assert measured > 0.9


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
