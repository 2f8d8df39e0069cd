"""Schedules against the formulas of the paper, in NumPy."""

import keras
import numpy as np
import pytest

from byol_tf import WarmupCosine, cosine_tau
from byol_tf.optim.schedules import warmup_tau


def test_tau_follows_the_papers_formula():
    steps = np.array([0, 1, 250, 500, 999, 1000, 2000])
    progress = np.minimum(steps, 1000) / 1000
    expected = 1 - (1 - 0.996) * (np.cos(np.pi * progress) + 1) / 2
    measured = [cosine_tau(step, 0.996, 1000) for step in steps]
    np.testing.assert_allclose(measured, expected, rtol=1e-6)
    assert measured[0] == 0.996
    assert measured[-1] == 1


def test_tau_warms_up_in_a_straight_line():
    measured = [warmup_tau(k, 0.996, 0.999, 1000) for k in (0, 250, 1000, 5000)]
    np.testing.assert_allclose(
        measured, [0.996, 0.99675, 0.999, 0.999], rtol=1e-12
    )


def test_learning_rate_warms_up_and_decays():
    schedule = WarmupCosine(0.2, 4096, total_steps=1000, warmup_steps=100)
    peak = 0.2 * 4096 / 256
    assert schedule(0) == 0
    np.testing.assert_allclose(schedule(50), peak / 2, rtol=1e-6)
    np.testing.assert_allclose(schedule(100), peak, rtol=1e-6)
    np.testing.assert_allclose(schedule(550), peak / 2, rtol=1e-5)
    np.testing.assert_allclose(schedule(1000), 0, atol=1e-6)
    np.testing.assert_allclose(schedule(1500), 0, atol=1e-6)


def test_no_warmup_starts_at_the_peak():
    schedule = WarmupCosine(0.2, 256, total_steps=10)
    np.testing.assert_allclose(schedule(0), 0.2, rtol=1e-6)


def test_warmup_as_long_as_the_training():
    schedule = WarmupCosine(1.0, 256, total_steps=10, warmup_steps=10)
    np.testing.assert_allclose(schedule(9), 0.9, rtol=1e-6)


def test_warmup_longer_than_the_training_is_refused():
    with pytest.raises(ValueError, match="warmup_steps=11"):
        WarmupCosine(0.2, 256, total_steps=10, warmup_steps=11)


def test_config_round_trip():
    schedule = WarmupCosine(0.3, 512, total_steps=70, warmup_steps=7)
    copy = keras.optimizers.schedules.deserialize(
        keras.optimizers.schedules.serialize(schedule)
    )
    assert copy.get_config() == schedule.get_config()
    assert copy(33) == schedule(33)
