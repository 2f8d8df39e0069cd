"""Linear classification on frozen features."""

import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

# Inverse strengths of the l2 penalty to choose from.
STRENGTHS = (1e-3, 1e-2, 1e-1)
_ITERATIONS = 60


def linear_accuracy(
    features: np.ndarray,
    labels: np.ndarray,
    test_features: np.ndarray,
    test_labels: np.ndarray,
) -> float:
    """Test accuracy of multinomial logistic regression, in [0, 1].

    Features are standardised. The penalty is chosen on every tenth training
    example, and the classifier fitted anew on all of them; the test examples
    are used once, at the end. This is the paper's transfer protocol (arXiv
    2006.07733, appendix D) with a coarser grid.

    Args:
      features: [n, d].
      labels: int [n].
      test_features: [m, d].
      test_labels: int [m].
    """
    if len(set(labels)) == 1:
        return float(np.mean(test_labels == labels[0]))
    held_out = np.zeros(len(labels), bool)
    held_out[::10] = True
    if len(set(labels[~held_out])) < 2:
        held_out[:] = False  # Too few examples to choose on others.
    chosen = max(
        STRENGTHS,
        key=lambda strength: (
            _fit(features[~held_out], labels[~held_out], strength).score(
                features[held_out], labels[held_out]
            )
            if held_out.any()
            else -abs(np.log(strength))
        ),
    )
    return float(
        _fit(features, labels, chosen).score(test_features, test_labels)
    )


def _fit(features, labels, strength):
    classifier = make_pipeline(
        StandardScaler(),
        LogisticRegression(C=strength, max_iter=_ITERATIONS, tol=1e-3),
    )
    with warnings.catch_warnings():
        # So many steps are what there is time for; the rest changes little.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return classifier.fit(features, labels)
