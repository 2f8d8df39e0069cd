"""Has the representation collapsed? Figures that tell, on a set of projections.

A network that gives all images the same projection solves BYOL's loss; these
figures show whether it did.
"""

import numpy as np

# The spread of eigenvalues is reported up to here; beyond, they are rounding.
MOST_SPREAD = 1e9


class Collapse(RuntimeError):
    """A training that learns nothing any more; the message says why."""


def figures(projections: np.ndarray) -> dict[str, float]:
    """All figures below of projections [n, d], by the functions' names."""
    functions = (
        projection_std,
        effective_rank,
        eigenvalue_spread,
        mean_cosine,
    )
    return {function.__name__: function(projections) for function in functions}


def projection_std(projections: np.ndarray) -> float:
    """Standard deviation over images of l2-normalised projections.

    Args:
      projections: [n, d].

    Returns:
      The mean over the d dimensions: 0 if all projections point the same way,
      about 1 / sqrt(d) if they point in all directions.
    """
    return float(np.mean(np.std(_normalized(projections), axis=0)))


def effective_rank(projections: np.ndarray) -> float:
    """RankMe (Garrido et al., arXiv 2210.02885, equation 1).

    Args:
      projections: [n, d].

    Returns:
      The exponential of the entropy of the normalised singular values, from 1
      (all on one line) to min(n, d); NaN if a projection is not finite.
    """
    if not np.isfinite(projections).all():
        return float("nan")
    values = np.linalg.svd(projections.astype(np.float64), compute_uv=False)
    shares = values / max(values.sum(), 1e-12) + 1e-7
    return float(np.exp(-np.sum(shares * np.log(shares))))


def eigenvalue_spread(projections: np.ndarray) -> float:
    """Largest over smallest eigenvalue of the covariance.

    Args:
      projections: [n, d]; they are l2-normalised.

    Returns:
      From 1 (the same variance in all directions) to `MOST_SPREAD`, which
      stands for everything above, and for no variance at all; NaN if a
      projection is not finite.
    """
    if not np.isfinite(projections).all():
        return float("nan")
    covariance = np.cov(_normalized(projections), rowvar=False)
    values = np.linalg.eigvalsh(np.atleast_2d(covariance))
    smallest, largest = values[0], values[-1]
    if smallest * MOST_SPREAD <= largest:
        return MOST_SPREAD
    return float(largest / smallest)


def mean_cosine(projections: np.ndarray) -> float:
    """Mean cosine similarity of two different images' projections.

    Args:
      projections: [n, d], n at least 2.

    Returns:
      1 if all point the same way, about 0 if they point in all directions; a
      projection that is 0 counts as orthogonal to all others.
    """
    directions = _normalized(projections)
    count = len(directions)
    # The sum over all pairs is the square of the sum; less those of one image.
    every_pair = np.sum(np.square(directions.sum(axis=0)))
    own = np.sum(np.square(directions))
    return float((every_pair - own) / (count * (count - 1)))


def _normalized(projections: np.ndarray) -> np.ndarray:
    projections = projections.astype(np.float64)
    norms = np.linalg.norm(projections, axis=1, keepdims=True)
    return projections / np.maximum(norms, 1e-12)
