"""What is measured at intervals while a model learns."""

import numpy as np
import tensorflow as tf

from byol_tf.data.pipeline import evaluation_batches
from byol_tf.data.sources import DAMAGED, Dataset
from byol_tf.evaluation.features import extract
from byol_tf.evaluation.knn import NEIGHBOURS, knn_accuracy
from byol_tf.model.byol import BYOL
from byol_tf.training import collapse, observation

# Images whose projections tell of a collapse.
COLLAPSE_IMAGES = 1024


class Monitor:
    """kNN accuracy on held-out images, and the collapse figures.

    Args:
      model: the model that learns.
      dataset: of which `bank` training images are compared with, and
        `bank // 5` test images are classified, evenly spaced because folders
        come class by class.
      image_size: of the encoder's images.
      crop: see `evaluation_batches`.
      bank: number of training images.
    """

    def __init__(
        self,
        model: BYOL,
        dataset: Dataset,
        image_size: int,
        crop: float,
        bank: int,
    ):
        self._model = model

        def some(source, count):
            numbers = evenly_spaced(source.size, count)
            return evaluation_batches(source, image_size, crop, numbers)

        # For the collapse doctor, [n, image_size, image_size, 3] in [0, 1].
        self.images = np.concatenate(
            [
                images[labels != DAMAGED]
                for images, labels in some(
                    dataset.train, observation.IMAGES
                ).as_numpy_iterator()
            ]
        )
        self._bank = some(dataset.train, bank)
        self._queries = None
        if dataset.test is not None:
            self._queries = some(dataset.test, bank // 5)

    def measure(self) -> dict[str, float]:
        """`collapse.figures` of the projections, and `knn_top1` with labels.

        What features that are not finite have no figure for is NaN.
        """
        features, labels = extract(self._model.encoder, self._bank)
        features, labels = _only(labels != DAMAGED, features, labels)
        chosen = evenly_spaced(len(features), COLLAPSE_IMAGES)
        figures = collapse.figures(self._project(features[chosen]))
        if self._queries is not None:
            queries, query_labels = extract(self._model.encoder, self._queries)
            figures["knn_top1"] = accuracy_of_sample(
                *_only(labels >= 0, features, labels), queries, query_labels
            )
        return figures

    def _project(self, features: np.ndarray) -> np.ndarray:
        projector = self._model.online.projector
        return projector(tf.constant(features), training=False).numpy()


def accuracy_of_sample(
    bank: np.ndarray,
    bank_labels: np.ndarray,
    queries: np.ndarray,
    query_labels: np.ndarray,
) -> float:
    """kNN accuracy where a class may lack, or the features be no numbers.

    Queries count if the bank has their class, and a bank of fewer than
    NEIGHBOURS votes as a whole.

    Args:
      bank: [n, d].
      bank_labels: int [n].
      queries: [m, d].
      query_labels: int [m]; below 0 where there is no label.

    Returns:
      In [0, 1]; NaN if no query counts, or a feature is not finite.
    """
    known = np.isin(query_labels, bank_labels)
    queries, query_labels = _only(known, queries, query_labels)
    finite = np.isfinite(bank).all() and np.isfinite(queries).all()
    if not known.any() or not finite:
        return float("nan")
    k = min(NEIGHBOURS, len(bank))
    return knn_accuracy(bank, bank_labels, queries, query_labels, k)


def _only(chosen: np.ndarray, *arrays: np.ndarray) -> list[np.ndarray]:
    return [array[chosen] for array in arrays]


def evenly_spaced(size: int, count: int) -> np.ndarray:
    """At most `count` of the numbers from 0 to `size - 1`, int [k]."""
    count = min(size, count)
    return np.arange(count) * size // count
