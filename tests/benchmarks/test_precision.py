"""Every precision learns the same, and the table says what was measured."""

import pytest

from byol_tf.benchmarks import precision

# Twice the kNN accuracy by which runs differ that differ in rounding alone.
NOISE = 0.04


def measured(name, seed, learned, untrained, seconds):
    return {
        "precision": name,
        "seed": seed,
        "steps": 1,
        "learned": learned,
        "untrained": untrained,
        "seconds": seconds,
    }


def test_table_by_hand(capsys):
    precision.print_table(
        [
            measured("float32", 0, 0.70, 0.60, 10),
            measured("float32", 3, 0.75, 0.61, 20),
            measured("float64", 3, 0.7204, 0.61, 31),
        ]
    )
    assert capsys.readouterr().out.splitlines()[2:] == [
        "| precision | seed 0 | seed 3 | mean | not trained | seconds |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        "| float32 | 70.0 | 75.0 | 72.5 | 60.5 | 15 |",
        "| float64 |  | 72.0 | 72.0 | 61.0 | 31 |",
        "",
    ]


def test_a_run_that_fails_is_named():
    with pytest.raises(RuntimeError, match=r"float64 failed:[^$]*--steps=0"):
        precision.result("float64", 0, "--steps=0")


@pytest.mark.slow
def test_every_precision_learns_the_same():
    results = {
        name: precision.result(name, 0, "--steps=200")
        for name in precision.PRECISIONS
    }
    assert len(results) == 4
    float32 = results["float32"]["learned"]
    for name, result in results.items():
        assert result["precision"] == name
        assert result["learned"] > result["untrained"] + 0.01, results
        assert abs(result["learned"] - float32) < NOISE, results
