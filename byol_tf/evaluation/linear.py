"""Linear classification on frozen features."""

import numpy as np

from byol_tf.data.splits import held_out
from byol_tf.evaluation.logistic import STRENGTHS, Split, fit, path

# Of the l2 penalty: 1000, 100 and 10. To choose among them, and in the end.
CANDIDATES = STRENGTHS[8:17:4]
COARSE, FINE = 1e-3, 1e-4  # Tolerances, in nats an example.


def linear_accuracy(
    features: np.ndarray,
    labels: np.ndarray,
    test_features: np.ndarray,
    test_labels: np.ndarray,
) -> float:
    """Test accuracy of multinomial logistic regression, in [0, 1].

    Features are standardised. The penalty is chosen on a tenth of each class
    of the training examples, and the classifier fitted anew on all of them; the
    test examples are used once, at the end. This is the paper's transfer
    protocol (arXiv 2006.07733, appendix D) with a coarser grid.

    Args:
      features: [n, d].
      labels: int [n].
      test_features: [m, d].
      test_labels: int [m].
    """
    classes, numbers = np.unique(labels, return_inverse=True)
    if len(classes) == 1:
        return float(np.mean(test_labels == labels[0]))
    mean = features.mean(axis=0, dtype=np.float64)
    deviation = features.std(axis=0, dtype=np.float64)
    deviation[deviation == 0] = 1

    def standardised(some):
        return ((some - mean) / deviation).astype(np.float32)

    features = standardised(features)
    l2, start = _chosen(features, numbers)
    weights = fit(features, numbers, l2, start, FINE)
    found = weights.scores(standardised(test_features)).argmax(axis=1)
    return float(np.mean(classes[found] == test_labels))


def _chosen(features, labels):
    """The penalty that is best on held-out examples, and its weights."""
    held, _ = held_out(labels)
    train = Split(features[~held], labels[~held])
    best, chosen = -1, None
    for l2, weights in zip(CANDIDATES, path(train, CANDIDATES, COARSE)):
        scores = weights.scores(features[held])
        right = np.sum(scores.argmax(axis=1) == labels[held])
        if right > best:
            best, chosen = right, (l2, weights)
    return chosen
