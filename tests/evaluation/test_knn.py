"""kNN against scikit-learn."""

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from byol_tf.evaluation.knn import knn_accuracy, nearest


@pytest.fixture
def data():
    random = np.random.RandomState(0)
    centres = random.randn(4, 6)
    labels = random.randint(0, 4, 3000)
    features = centres[labels] + 1.5 * random.randn(3000, 6)
    features = features.astype(np.float32)
    return features[:800], labels[:800], features[800:], labels[800:]


def test_neighbours_equal_scikit_learns(data):
    bank, _, queries, _ = data
    numbers, similarities = nearest(bank, queries, 5)
    reference = NearestNeighbors(n_neighbors=5, metric="cosine").fit(bank)
    distances, expected = reference.kneighbors(queries)
    np.testing.assert_array_equal(numbers, expected)
    np.testing.assert_allclose(1 - similarities, distances, atol=1e-5)


@pytest.mark.parametrize("k", [1, 20])
def test_accuracy_equals_scikit_learns(data, k):
    bank, labels, queries, query_labels = data
    reference = KNeighborsClassifier(
        k, metric="cosine", weights=lambda d: np.exp(-d / 0.07)
    ).fit(bank, labels)
    assert knn_accuracy(*data, k=k) == reference.score(queries, query_labels)
    assert 0.4 < knn_accuracy(*data, k=k) < 0.9


def test_more_neighbours_than_vectors():
    bank = np.eye(3, dtype=np.float32)
    numbers, _ = nearest(bank, bank, 20)
    np.testing.assert_array_equal(numbers[:, 0], [0, 1, 2])
    labels = np.arange(3)
    assert knn_accuracy(bank, labels, bank, labels) == 1


def test_zero_vectors_do_no_harm():
    zeros = np.zeros((4, 3), np.float32)
    labels = np.zeros(4, int)
    assert knn_accuracy(zeros, labels, zeros, labels) == 1
