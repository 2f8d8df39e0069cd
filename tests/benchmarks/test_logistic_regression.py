"""The benchmark of logistic regression: equal problems, and its JSON."""

import json

import numpy as np
import pytest

from byol_tf.benchmarks import logistic_regression as benchmark
from byol_tf.evaluation.logistic import objective


def test_both_come_to_the_same_optimum():
    split, _ = benchmark.random_features(60, 8, classes=3)
    split = split._replace(features=split.features.astype(np.float64))
    for l2 in (100.0, 1.0):
        values = [
            objective(fit(split, [l2], 1e-8)[0], split, l2)
            for fit in (benchmark.ours, benchmark.theirs)
        ]
        assert values[0] == pytest.approx(values[1], rel=1e-5)


def test_halves_are_standardised_together():
    features = np.random.default_rng(0).normal(3, 2, size=(40, 5))
    train, validation = benchmark.halves(features, np.arange(40) % 2)
    assert len(train.labels) == len(validation.labels) == 20
    both = np.concatenate([train.features, validation.features])
    np.testing.assert_allclose(both.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(both.std(axis=0), 1, atol=1e-6)


@pytest.mark.slow
def test_it_prints_json(capsys):
    benchmark.main(
        ["--examples=120", "--length=16", "--strengths=5", "--rounds=2"]
    )
    result = json.loads(capsys.readouterr().out)
    assert result["environment"]["cores"] >= 1
    for name, classes in (("pixels", 10), ("random", 37)):
        found = result[name]
        assert (found["examples"], found["classes"]) == (120, classes)
        assert found["strengths"] == 5
        assert min(found["seconds"].values()) > 0
        assert found["ratio_least"] <= found["ratio"]
        assert found["ratio"] <= found["ratio_greatest"]
        assert 0 <= found["above_lower"]["byol_tf"] < 1e-3
        assert found["same_answers"] > 0.95
        top1 = [each["top1"] for each in found["validation"].values()]
        assert abs(top1[0] - top1[1]) < 0.03
    assert np.isfinite(result["environment"]["load_after"])
