"""kNN against scikit-learn, and against plain NumPy in float64."""

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from byol_tf.evaluation import knn
from byol_tf.evaluation.knn import (
    PROTOCOL,
    knn_accuracies,
    knn_accuracy,
    nearest,
)

# Vectors of the bank, and queries, at once.
CHUNKS = [(16384, 1024), (29, 1), (1, 100), (100, 33), (799, 50)]


@pytest.fixture
def data():
    random = np.random.RandomState(0)
    centres = random.randn(4, 6)
    labels = random.randint(0, 4, 3000)
    features = centres[labels] + 1.5 * random.randn(3000, 6)
    features = features.astype(np.float32)
    return features[:800], labels[:800], features[800:], labels[800:]


@pytest.fixture(params=CHUNKS, ids=str)
def chunks(request, monkeypatch):
    bank, queries = request.param
    monkeypatch.setattr(knn, "_BANK_AT_ONCE", bank)
    monkeypatch.setattr(knn, "_QUERIES_AT_ONCE", queries)


def plain_nearest(bank, queries, k):
    def directions(vectors):
        vectors = vectors.astype(np.float64)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors / np.where(lengths == 0, 1, lengths)

    scores = directions(queries) @ directions(bank).T
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(scores, order, axis=1)


def plain_accuracy(bank, bank_labels, queries, query_labels, k, temperature):
    numbers, similarities = plain_nearest(bank, queries, k)
    correct = 0
    for row, similar, label in zip(
        numbers, similarities, query_labels, strict=True
    ):
        votes = {}
        for number, similarity in zip(row, similar, strict=True):
            weight = np.exp((similarity - 1) / temperature)
            elected = bank_labels[number]
            votes[elected] = votes.get(elected, 0) + weight
        correct += max(votes, key=votes.get) == label
    return correct / len(queries)


def test_neighbours_equal_scikit_learns(data):
    bank, _, queries, _ = data
    numbers, similarities = nearest(bank, queries, 5)
    reference = NearestNeighbors(n_neighbors=5, metric="cosine").fit(bank)
    distances, expected = reference.kneighbors(queries)
    np.testing.assert_array_equal(numbers, expected)
    np.testing.assert_allclose(1 - similarities, distances, atol=1e-5)


@pytest.mark.parametrize("temperature", [0.07, 0.3])
def test_accuracies_equal_scikit_learns(data, temperature):
    bank, labels, queries, query_labels = data
    accuracies = knn_accuracies(*data, temperature=temperature)
    assert tuple(accuracies) == PROTOCOL == (1, 5, 20, 200)
    for k, accuracy in accuracies.items():
        reference = KNeighborsClassifier(
            k, metric="cosine", weights=lambda d: np.exp(-d / temperature)
        ).fit(bank, labels)
        assert accuracy == reference.score(queries, query_labels)
        assert accuracy == plain_accuracy(*data, k, temperature)
        assert accuracy == knn_accuracy(*data, k, temperature)
    assert 0.4 < min(accuracies.values()) < max(accuracies.values()) < 0.9


def test_chunks_make_no_difference(data, chunks, monkeypatch):
    bank, _, queries, _ = data
    found = nearest(bank, queries[:90], 200)
    monkeypatch.undo()
    expected = nearest(bank, queries, 200)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other[:90])


def test_neighbours_are_the_most_similar(data):
    bank, _, queries, _ = data
    numbers, similarities = nearest(bank, queries, 200)
    expected, all_similarities = plain_nearest(bank, queries, 800)
    np.testing.assert_allclose(
        similarities, all_similarities[:, :200], atol=1e-6
    )
    by_number = np.zeros_like(all_similarities)
    np.put_along_axis(by_number, expected, all_similarities, axis=1)
    np.testing.assert_allclose(
        np.take_along_axis(by_number, numbers, axis=1), similarities, atol=1e-6
    )


def test_equally_similar_ones_come_by_number(chunks):
    random = np.random.RandomState(0)
    different = random.randn(9, 300).astype(np.float32)
    which = random.randint(0, 9, 250)
    queries = random.randn(30, 300)
    numbers, similarities = nearest(different[which], queries, 200)
    order, _ = plain_nearest(different, queries, 9)
    for row, best in zip(numbers, order, strict=True):
        expected = [np.flatnonzero(which == one) for one in best]
        np.testing.assert_array_equal(row, np.concatenate(expected)[:200])
    assert len(np.unique(similarities[0])) < 9


def test_of_equal_votes_the_lower_label_wins():
    bank = np.array([[1, 0], [1, 0], [0, 1]])
    labels = np.array([7, -3, 7])
    query = np.array([[2, 0]])
    assert knn_accuracy(bank, labels, query, np.array([-3]), k=2) == 1
    assert knn_accuracy(bank, labels, query, np.array([7]), k=1) == 1


def test_neighbours_far_away_vote_at_any_temperature():
    bank = np.array([[0.0, 1], [0, 1], [-1, 0]])
    labels = np.array([1, 1, 0])
    query = np.array([[1.0, 0.1]])
    accuracy = knn_accuracy(bank, labels, query, labels[:1], 3, 1e-4)
    assert accuracy == 1


def test_float16_and_memory_mapped_banks(data, tmp_path):
    bank, labels, queries, query_labels = data
    np.save(tmp_path / "bank.npy", bank.astype(np.float16))
    mapped = np.load(tmp_path / "bank.npy", mmap_mode="r")
    halved = nearest(mapped, queries, 200)
    in_memory = nearest(bank.astype(np.float16), queries, 200)
    for one, other in zip(halved, in_memory, strict=True):
        np.testing.assert_array_equal(one, other)
    _, similarities = nearest(bank, queries, 200)
    np.testing.assert_allclose(halved[1], similarities, atol=5e-4)
    accuracies = knn_accuracies(mapped, labels, queries, query_labels)
    for k, accuracy in knn_accuracies(*data).items():
        assert abs(accuracies[k] - accuracy) < 0.005


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_lengths_do_not_matter(data, scale):
    bank, _, queries, _ = data
    numbers, _ = nearest(bank, queries, 5)
    scaled, _ = nearest(bank * np.float32(scale), queries, 5)
    assert np.mean(numbers == scaled) > 0.999


def test_zero_vectors_do_no_harm():
    zeros = np.zeros((4, 3), np.float32)
    labels = np.zeros(4, int)
    assert knn_accuracy(zeros, labels, zeros, labels, k=4) == 1
    numbers, similarities = nearest(zeros, np.ones((2, 3)), 3)
    np.testing.assert_array_equal(numbers, [[0, 1, 2]] * 2)
    np.testing.assert_array_equal(similarities, np.zeros((2, 3)))


def test_fewer_vectors_than_neighbours(data):
    bank, labels, queries, query_labels = data
    with pytest.raises(ValueError, match="20 neighbours .* of 19 vectors"):
        knn_accuracy(bank[:19], labels[:19], queries, query_labels)
    with pytest.raises(ValueError, match="0 neighbours"):
        nearest(bank, queries, 0)
    numbers, _ = nearest(bank[:19], queries, 19)
    assert set(numbers[0]) == set(range(19))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite(data, value, monkeypatch):
    monkeypatch.setattr(knn, "_BANK_AT_ONCE", 100)
    bank, _, queries, _ = data
    bank[700, 3] = value
    with pytest.raises(ValueError, match="of bank vector 700 are not finite"):
        nearest(bank, queries, 5)
    with pytest.raises(ValueError, match="of query vector 700 are not finite"):
        nearest(queries, bank, 5)


def test_labels_that_differ(data):
    bank, labels, queries, query_labels = data
    query_labels[5] = 11
    with pytest.raises(ValueError, match="1 labels .* such as 11"):
        knn_accuracies(bank, labels, queries, query_labels)
    labels[7] = 11  # And classes of the bank that no query has are welcome.
    query_labels[5] = 2
    knn_accuracies(bank, labels, queries, query_labels)


def test_arrays_that_do_not_fit(data):
    bank, labels, queries, query_labels = data
    with pytest.raises(ValueError, match="800 vectors and 799 labels"):
        knn_accuracy(bank, labels[1:], queries, query_labels)
    with pytest.raises(ValueError, match="0 vectors and 0 labels"):
        knn_accuracy(bank, labels, queries[:0], query_labels[:0])
    with pytest.raises(ValueError, match=r"\[800, 6\] and \[2200, 5\]"):
        nearest(bank, queries[:, 1:], 5)
