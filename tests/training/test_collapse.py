"""The collapse figures at their limits."""

import numpy as np

from byol_tf.training.collapse import (
    MOST_SPREAD,
    effective_rank,
    eigenvalue_spread,
    figures,
    mean_cosine,
    projection_std,
)


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
    assert np.isnan(eigenvalue_spread(projections))
    assert np.isnan(mean_cosine(projections))
    assert set(figures(projections)) == {
        "projection_std",
        "effective_rank",
        "eigenvalue_spread",
        "mean_cosine",
    }


def test_spread_of_known_variances():
    # Unit vectors whose first two coordinates vary, by 0.3 and by 0.1.
    angles = np.arange(8) * np.pi / 4
    x, y = 0.3 * np.cos(angles), 0.1 * np.sin(angles)
    vectors = np.stack([x, y, np.sqrt(1 - x**2 - y**2)], axis=1)
    variances = np.var(vectors, axis=0)
    np.testing.assert_allclose(
        eigenvalue_spread(7 * vectors),
        variances.max() / variances.min(),
        rtol=1e-6,
    )


def test_spread_is_bounded():
    assert eigenvalue_spread(np.ones((8, 4))) == MOST_SPREAD
    line = np.linspace(-1, 1, 8)[:, None] * np.eye(4)[:1]
    assert eigenvalue_spread(line) == MOST_SPREAD
    random = np.random.RandomState(0).randn(5000, 16)
    assert 1 < eigenvalue_spread(random) < 1.3


def test_mean_cosine_over_pairs():
    vectors = np.random.RandomState(0).randn(6, 4) + 1
    cosines = [
        a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        for i, a in enumerate(vectors)
        for j, b in enumerate(vectors)
        if i != j
    ]
    np.testing.assert_allclose(mean_cosine(vectors), np.mean(cosines))
    assert mean_cosine(np.outer(np.arange(1, 6), [3.0, -4.0])) > 1 - 1e-12
    np.testing.assert_allclose(mean_cosine(np.eye(5)), 0, atol=1e-12)
    assert mean_cosine(np.zeros((5, 3))) == 0
