"""The collapse figures at their limits."""

import numpy as np

from byol_tf.training.collapse import effective_rank, projection_std


def test_all_directions():
    random = np.random.RandomState(0).randn(5000, 64)
    np.testing.assert_allclose(projection_std(random), 1 / 8, rtol=0.01)
    assert effective_rank(random) > 62


def test_one_direction_is_a_collapse_whatever_the_length():
    direction = np.random.RandomState(0).randn(64)
    lengths = np.random.RandomState(1).rand(500, 1) + 0.1
    assert projection_std(lengths * direction) < 1e-6
    assert effective_rank(lengths * direction) < 1.01


def test_rank_counts_equal_directions():
    basis = np.linalg.qr(np.random.RandomState(0).randn(64, 64))[0]
    for rank in (2, 5, 20):
        vectors = np.repeat(basis[:rank], 10, axis=0)
        np.testing.assert_allclose(effective_rank(vectors), rank, rtol=1e-3)


def test_zero_projections():
    assert projection_std(np.zeros((8, 4))) == 0
    assert np.isfinite(effective_rank(np.zeros((8, 4))))


def test_figures_of_projections_that_are_not_finite():
    projections = np.full((8, 4), np.nan)
    assert np.isnan(effective_rank(projections))
    assert np.isnan(projection_std(projections))
