"""The benchmark of logistic regression: equal problems, and its JSON."""

import json

import numpy as np
import pytest

from byol_tf.benchmarks import logistic_regression as benchmark
from byol_tf.evaluation.logistic import objective


def test_both_come_to_the_same_optimum():
    split = benchmark.random_features(60, 8, classes=3)
    exact = benchmark.exact_split(split)
    for l2 in (100.0, 1.0):
        values = [
            objective(solver(split, [l2], 1e-8, 2000)[0], exact, l2)
            for solver in benchmark.SOLVERS.values()
        ]
        assert values[0] == pytest.approx(values[1], rel=1e-5)


@pytest.mark.parametrize("least", [1, 2, 7, 30])
def test_the_fewest_steps(least):
    assert benchmark.fewest(lambda steps: steps >= least) == least


def test_more_than_the_most_steps_are_none():
    assert benchmark.fewest(lambda steps: False) is None


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
        assert [each["l2"] for each in found["to_optimum"]] == [100, 10, 1]
        for each in [found["sweep"], found["to_optimum"][0]]:
            assert min(each["seconds"].values()) > 0
            assert each["ratio_least"] <= each["ratio"]
            assert each["ratio"] <= each["ratio_greatest"]
        assert found["sweep"]["strengths"] == 5
        above = found["sweep"]["nats_an_example_above_optimum"]
        assert 0 <= above["byol_tf"]["mean"] < 1e-4
    assert np.isfinite(result["environment"]["load_after"])
