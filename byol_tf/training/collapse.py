"""Has the representation collapsed? Figures that tell, on a set of projections.

A network that gives all images the same projection solves BYOL's loss; these
figures show whether it did.
"""

import numpy as np


def projection_std(projections: np.ndarray) -> float:
    """Standard deviation over images of l2-normalised projections.

    Args:
      projections: [n, d].

    Returns:
      The mean over the d dimensions: 0 if all projections point the same way,
      about 1 / sqrt(d) if they point in all directions.
    """
    norms = np.linalg.norm(projections, axis=1, keepdims=True)
    return float(
        np.mean(np.std(projections / np.maximum(norms, 1e-12), axis=0))
    )


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
