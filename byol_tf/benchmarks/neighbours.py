"""Time and memory of kNN, on a bank that is too large for float32.

    python -m byol_tf.benchmarks.neighbours --bank=1281167 --queries=1000

Prints JSON. The bank is made of random features of overlapping classes and kept
as float16 on disk, as `--protocols=knn` keeps a large one. `knn` classifies the
queries by it, for all k of the protocol. `peak_gib` is the process's, pages of
the file included that the system may drop. Seconds grow with the queries, and
with the bank.

`share_of_matmul`: how fast the similarities were, all in all, beside a single
product of matrices of this size that is measured in the same run.

`peer`: scikit-learn's fastest exact search for the same neighbours, on the
first --peer_bank vectors in memory as float32, by turns with ours on the same;
it has no bank on disk.
"""

import argparse
import json
import pathlib
import resource
import statistics
import tempfile
import time

import numpy as np
from sklearn.neighbors import NearestNeighbors

from byol_tf.benchmarks.machine import environment
from byol_tf.evaluation.knn import PROTOCOL, knn_accuracies, nearest

_AT_ONCE = 16384


def main(arguments=None) -> None:
    """Measures, and prints the result as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bank", type=int, default=200_000)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--length", type=int, default=2048, help="of a feature")
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--peer_bank", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=3, help="by turns")
    parser.add_argument(
        "--folder", help="for the bank's file, 2 bytes a number; else a new one"
    )
    options = parser.parse_args(arguments)
    features = Features(options.length, options.classes)
    queries, labels = features.some(-1, options.queries)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        bank, bank_labels = kept(
            features, options.bank, pathlib.Path(folder) / "bank.npy"
        )
        before = peak_gib()
        start = time.perf_counter()
        accuracies = knn_accuracies(
            bank, bank_labels, queries, labels, title="kNN"
        )
        seconds = time.perf_counter() - start
        after = peak_gib()
        peer = beside_peer(bank[: options.peer_bank], queries, options.rounds)
    products = options.bank * options.queries * options.length / seconds
    result = {
        "environment": environment("numpy", "scikit-learn"),
        "bank": [options.bank, options.length],
        "bank_gib": bank.nbytes / 2**30,
        "queries": options.queries,
        "accuracies": accuracies,
        "seconds": seconds,
        "peak_gib_before": before,
        "peak_gib": after,
        "share_of_matmul": products / matmul_rate(options.length),
        "peer": peer,
    }
    print(json.dumps(result, indent=2))


class Features:
    """Random ones, of classes that overlap.

    Args:
      length: d.
      classes: c.
    """

    def __init__(self, length: int, classes: int):
        random = np.random.default_rng(0)
        self._centres = random.normal(size=(classes, length)).astype(np.float32)

    def some(self, part: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Features, float32 [count, d], and labels; another `part`, others."""
        random = np.random.default_rng([1, part + 1])
        labels = random.integers(len(self._centres), size=count)
        shape = (count, self._centres.shape[1])
        noise = random.standard_normal(shape, np.float32)
        return 0.1 * self._centres[labels] + noise, labels


def kept(
    features: Features, count: int, path: pathlib.Path
) -> tuple[np.ndarray, np.ndarray]:
    """A bank as a float16 file, mapped into memory; and its labels."""
    labels = np.empty(count, np.int64)
    length = features.some(0, 1)[0].shape[1]
    bank = np.lib.format.open_memmap(path, "w+", np.float16, (count, length))
    for part, first in enumerate(range(0, count, _AT_ONCE)):
        size = min(_AT_ONCE, count - first)
        some = slice(first, first + size)
        bank[some], labels[some] = features.some(part, size)
    bank.flush()
    return np.load(path, mmap_mode="r"), labels


def beside_peer(bank: np.ndarray, queries: np.ndarray, rounds: int) -> dict:
    """Seconds of both for the nearest neighbours, by turns."""
    k = min(max(PROTOCOL), len(bank))
    bank = directions(bank)
    search = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(bank)
    # Of vectors of length 1 the nearest are the most similar.
    searches = {
        "byol_tf": lambda: nearest(bank, queries, k)[0],
        "scikit-learn": lambda: search.kneighbors(
            directions(queries), return_distance=False
        ),
    }
    seconds = {name: [] for name in searches}
    found = {}
    for _ in range(rounds):
        for name, run in searches.items():
            start = time.perf_counter()
            found[name] = run()
            seconds[name].append(time.perf_counter() - start)
    ours, theirs = (np.sort(numbers) for numbers in found.values())
    ratios = [b / a for a, b in zip(*seconds.values())]
    return {
        "bank": list(bank.shape),
        "seconds": {
            name: statistics.median(each) for name, each in seconds.items()
        },
        "ratio": statistics.median(ratios),
        "ratio_least": min(ratios),
        "ratio_greatest": max(ratios),
        # Rounding may exchange the last ones of the 200.
        "same_neighbours": float(np.mean(ours == theirs)),
    }


def directions(vectors: np.ndarray) -> np.ndarray:
    """float32, scaled to length 1."""
    vectors = vectors.astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def matmul_rate(length: int) -> float:
    """Products of numbers in a second, in one large product of matrices."""
    random = np.random.default_rng(0)
    a, b = (
        random.standard_normal((rows, length), np.float32)
        for rows in (1024, _AT_ONCE)
    )
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        a @ b.T
        seconds.append(time.perf_counter() - start)
    return len(a) * len(b) * length / min(seconds)


def peak_gib() -> float:
    """The most memory that this process has had at a time."""
    # In KiB on Linux.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
