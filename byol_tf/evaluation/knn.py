"""k-nearest-neighbour classification on frozen features.

Source: Wu et al., arXiv 1805.01978, section 3.4 (cosine similarity, votes
weighted by exp(similarity / temperature)).

The bank may be larger than the memory: an array of float16, or a memory-mapped
one, is read once, a part at a time, and computed with in float32. Beside it
there are the queries in float32, a part of the bank, the similarities of some
queries to that part, and the neighbours found so far.
"""

from collections.abc import Sequence

import numpy as np
import tqdm

NEIGHBOURS = 20
# The numbers of neighbours that are reported.
PROTOCOL = (1, 5, 20, 200)
TEMPERATURE = 0.07
# Vectors of the bank, and queries, in one product of matrices.
_BANK_AT_ONCE = 16384
_QUERIES_AT_ONCE = 1024
# Products are of whole tiles: in the smallest ones BLAS adds up in another
# order, and equal vectors would not be equally similar.
_TILE = 256


def nearest(
    bank: np.ndarray, queries: np.ndarray, k: int, title: str = ""
) -> tuple[np.ndarray, np.ndarray]:
    """The k vectors of the bank most similar to each query.

    Args:
      bank: [n, d] of any float type, possibly memory-mapped.
      queries: [m, d].
      k: from 1 to n.
      title: of a progress bar; without one there is none.

    Returns:
      int64 [m, k], numbers of vectors, and float32 [m, k], their cosine
      similarities, the most similar first, and of equally similar ones that
      with the lower number. A vector of zeros has similarity 0 to all.

    Raises:
      ValueError: if the bank has fewer than k vectors, or vectors are not
        finite or not of one length.
    """
    _check_vectors(bank, queries, k)
    directions = _blank(len(queries), queries.shape[1])
    _directions(queries, 0, "query", directions)
    numbers = np.zeros((len(queries), k), np.int64)
    similarities = np.full((len(queries), k), -np.inf, np.float32)
    part = _blank(min(len(bank), _BANK_AT_ONCE), bank.shape[1])
    # Made once, for memory that is new is slow.
    products = np.empty(
        (min(len(directions), _QUERIES_AT_ONCE), len(part)), np.float32
    )
    for first in tqdm.trange(
        0,
        len(bank),
        _BANK_AT_ONCE,
        desc=title,
        unit="part",
        disable=not title,
        leave=False,
    ):
        some = bank[first : first + _BANK_AT_ONCE]
        _directions(some, first, "bank", part)
        for start in range(0, len(queries), _QUERIES_AT_ONCE):
            stop = min(start + _QUERIES_AT_ONCE, len(queries))
            tiles = directions[start : start + _QUERIES_AT_ONCE]
            scores = np.matmul(tiles, part.T, out=products[: len(tiles)])
            _merge(
                scores[: stop - start, : len(some)],
                first,
                numbers[start:stop],
                similarities[start:stop],
            )
    return numbers, similarities


def knn_accuracies(
    bank: np.ndarray,
    bank_labels: np.ndarray,
    queries: np.ndarray,
    query_labels: np.ndarray,
    ks: Sequence[int] = PROTOCOL,
    temperature: float = TEMPERATURE,
    title: str = "",
) -> dict[int, float]:
    """Share of the queries whose k neighbours elect their class, for each k.

    Of classes with equally many votes, the one with the lower label is elected.

    Args:
      bank: [n, d], see `nearest`.
      bank_labels: int [n].
      queries: [m, d].
      query_labels: int [m].
      ks: numbers of neighbours, each from 1 to n.
      temperature: of the votes; the lower, the more the nearest decide.
      title: of a progress bar; without one there is none.

    Returns:
      For each k the accuracy in [0, 1].

    Raises:
      ValueError: as for `nearest`; or if vectors and labels are not equally
        many, or a query has a label that no vector of the bank has.
    """
    _check_labels(bank, bank_labels, queries, query_labels)
    numbers, similarities = nearest(bank, queries, max(ks), title)
    classes, bank_labels = np.unique(bank_labels, return_inverse=True)
    query_labels = np.searchsorted(classes, query_labels)
    correct = dict.fromkeys(ks, 0)
    for start in range(0, len(queries), _QUERIES_AT_ONCE):
        some = slice(start, start + _QUERIES_AT_ONCE)
        elected = bank_labels[numbers[some]]
        # Relative to the nearest one's, so that there is always a vote.
        weights = np.exp(
            (similarities[some] - similarities[some, :1]).astype(np.float64)
            / temperature
        )
        votes = np.zeros((len(elected), len(classes)))
        rows = np.arange(len(elected))[:, None]
        counted = 0
        for k in sorted(correct):
            new = slice(counted, k)
            np.add.at(votes, (rows, elected[:, new]), weights[:, new])
            correct[k] += np.sum(votes.argmax(axis=1) == query_labels[some])
            counted = k
    return {k: float(correct[k] / len(queries)) for k in ks}


def knn_accuracy(
    bank: np.ndarray,
    bank_labels: np.ndarray,
    queries: np.ndarray,
    query_labels: np.ndarray,
    k: int = NEIGHBOURS,
    temperature: float = TEMPERATURE,
) -> float:
    """`knn_accuracies` for one k."""
    return knn_accuracies(
        bank, bank_labels, queries, query_labels, (k,), temperature
    )[k]


def _merge(
    scores: np.ndarray,
    first: int,
    numbers: np.ndarray,
    similarities: np.ndarray,
) -> None:
    """Updates the nearest neighbours with a further part of the bank.

    Args:
      scores: similarities to that part, float32 [m, c].
      first: the number of the part's first vector; higher than all before.
      numbers: of the neighbours so far, [m, k]; changed.
      similarities: theirs, in descending order, [m, k]; changed.
    """
    k = numbers.shape[1]
    # One that is only as similar as the last neighbour has a higher number.
    chosen = scores > similarities[:, -1:]
    many = np.flatnonzero(np.count_nonzero(chosen, axis=1) > k)
    if len(many):  # More than k cannot stay.
        rows = scores[many]
        rank = rows.shape[1] - k
        least = np.partition(rows, rank, axis=1)[:, rank, None]
        chosen[many] = rows >= least
    rows, columns = np.divmod(np.flatnonzero(chosen), chosen.shape[1])
    counts = np.bincount(rows, minlength=len(scores))
    slots = k + np.arange(len(rows)) - (np.cumsum(counts) - counts)[rows]

    def joined(old, new, blank):
        wider = np.full((len(old), k + counts.max()), blank, old.dtype)
        wider[:, :k] = old
        wider[rows, slots] = new
        return wider

    # In the order of their numbers, which a stable sort keeps for equal ones.
    all_similarities = joined(similarities, scores[rows, columns], -np.inf)
    all_numbers = joined(numbers, first + columns, 0)
    order = np.argsort(-all_similarities, axis=1, kind="stable")[:, :k]
    similarities[:] = np.take_along_axis(all_similarities, order, axis=1)
    numbers[:] = np.take_along_axis(all_numbers, order, axis=1)


def _blank(count: int, length: int) -> np.ndarray:
    """Zeros for so many vectors, in whole tiles."""
    return np.zeros((-(-count // _TILE) * _TILE, length), np.float32)


def _directions(
    vectors: np.ndarray, first: int, name: str, result: np.ndarray
) -> None:
    """Writes vectors, scaled to length 1, into the first rows of `result`.

    Zeros stay zeros, and the other rows become zeros. `first` is the number of
    the first vector, and `name` what it is called, in messages.
    """
    result[len(vectors) :] = 0
    result = result[: len(vectors)]
    result[:] = vectors
    # Divided twice: squares of large numbers are infinite, of small ones zero.
    largest = np.maximum(result.max(axis=1), -result.min(axis=1))
    if not np.isfinite(largest).all():
        number = first + int(np.argmin(np.isfinite(largest)))
        raise ValueError(
            f"kNN: the features of {name} vector {number} are not finite."
        )
    result /= np.where(largest == 0, 1, largest)[:, None]
    lengths = np.sqrt(np.einsum("nd,nd->n", result, result))
    result /= np.where(lengths == 0, 1, lengths)[:, None]


def _check_vectors(bank: np.ndarray, queries: np.ndarray, k: int) -> None:
    if bank.ndim != 2 or bank.shape[1:] != queries.shape[1:]:
        raise ValueError(
            "kNN: bank and queries must be [n, d] and [m, d], and are "
            f"{list(bank.shape)} and {list(queries.shape)}."
        )
    if not 1 <= k <= len(bank):
        raise ValueError(
            f"kNN: {k} neighbours are asked of a bank of {len(bank)} vectors."
        )


def _check_labels(
    bank: np.ndarray,
    bank_labels: np.ndarray,
    queries: np.ndarray,
    query_labels: np.ndarray,
) -> None:
    for name, vectors, labels in (
        ("bank", bank, bank_labels),
        ("queries", queries, query_labels),
    ):
        if len(vectors) != len(labels) or not len(labels):
            raise ValueError(
                f"kNN: {name} of {len(vectors)} vectors and {len(labels)} "
                "labels; there must be equally many, and one at least."
            )
    unknown = np.setdiff1d(query_labels, bank_labels)
    if len(unknown):
        raise ValueError(
            f"kNN: {len(unknown)} labels of queries are in no vector of the "
            f"bank, such as {unknown[0]}."
        )
