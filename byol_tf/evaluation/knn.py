"""k-nearest-neighbour classification on frozen features.

Source: Wu et al., arXiv 1805.01978, section 3.4 (cosine similarity, votes
weighted by exp(similarity / temperature)).
"""

import numpy as np

NEIGHBOURS = 20
TEMPERATURE = 0.07
_QUERIES_AT_ONCE = 1024


def nearest(
    bank: np.ndarray, queries: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """The k vectors of the bank most similar to each query.

    Args:
      bank: [n, d].
      queries: [m, d].
      k: at most n.

    Returns:
      int [m, k], numbers of vectors, and float [m, k], their cosine
      similarities, the most similar first.
    """
    bank, queries = _normalized(bank).T, _normalized(queries)
    k = min(k, bank.shape[1])
    numbers, similarities = [], []
    for start in range(0, len(queries), _QUERIES_AT_ONCE):
        scores = queries[start : start + _QUERIES_AT_ONCE] @ bank
        best = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        values = np.take_along_axis(scores, best, axis=1)
        order = np.argsort(-values, axis=1, kind="stable")
        numbers.append(np.take_along_axis(best, order, axis=1))
        similarities.append(np.take_along_axis(values, order, axis=1))
    return np.concatenate(numbers), np.concatenate(similarities)


def knn_accuracy(
    bank: np.ndarray,
    bank_labels: np.ndarray,
    queries: np.ndarray,
    query_labels: np.ndarray,
    k: int = NEIGHBOURS,
    temperature: float = TEMPERATURE,
) -> float:
    """Share of the queries whose neighbours elect their class, in [0, 1]."""
    numbers, similarities = nearest(bank, queries, k)
    weights = np.exp((similarities - 1) / temperature)
    classes = max(bank_labels.max(), query_labels.max()) + 1
    votes = np.zeros((len(queries), classes))
    rows = np.arange(len(queries))[:, None]
    np.add.at(votes, (rows, bank_labels[numbers]), weights)
    return float(np.mean(votes.argmax(axis=1) == query_labels))


def _normalized(vectors: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(norms, 1e-12)
