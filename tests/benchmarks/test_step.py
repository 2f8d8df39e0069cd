"""The benchmark of the training step: its contestants and what it prints."""

import json
import math

import pytest

from byol_tf.benchmarks import counting, step
from byol_tf.benchmarks.alternation import Contestant, by_turns, ratio
from byol_tf.benchmarks.our_step import OurStep
from byol_tf.model.resnet import ResNet

SMALL = dict(depth=18, size=32, batch=2, hidden=16, projection=8)


@pytest.mark.slow
def test_operations_of_the_graph_are_those_that_are_counted():
    """But for taps in the padding, which only the count has."""
    found = OurStep(**{**SMALL, "size": 96}).flops()
    counted = counting.count(ResNet(18), 96, 16, 8).step_macs
    # The stem's images need no gradient.
    assert 0.9 < found / (2 * SMALL["batch"] * counted) < 1.1


def test_ratios():
    assert ratio([1, 2, 4], [3, 3, 3]) == (1.5, 0.75, 3.0)


@pytest.mark.slow
def test_two_contestants():
    contestants = {
        name: Contestant(
            "byol_tf.benchmarks.our_step", {**SMALL, "optimizer": name}
        )
        for name in ("lars", "sgd")
    }
    seconds = by_turns(contestants, rounds=2, steps=2)
    assert {name: len(s) for name, s in seconds.items()} == {
        "lars": 2,
        "sgd": 2,
    }
    parts = contestants["lars"].ask("parts", rounds=1)
    assert parts["step"] > parts["target_forward"] > 0
    assert contestants["sgd"].ask("memory") > 2**20
    for contestant in contestants.values():
        contestant.close()


@pytest.mark.slow
def test_a_contestant_that_fails():
    contestant = Contestant("byol_tf.benchmarks.our_step", {"depth": 19})
    with pytest.raises(RuntimeError, match="exit code 1"):
        contestant.ask("steps", count=1)


@pytest.mark.slow
def test_the_command(monkeypatch, capsys):
    monkeypatch.setattr(
        step, "SETTINGS", {"small": dict(depth=18, size=32, batch=2)}
    )
    step.main(
        [
            *("--hidden=16", "--projection=8", "--rounds=1", "--steps=1"),
            "--lightly",
        ]
    )
    result = json.loads(capsys.readouterr().out)
    (found,) = result["settings"]
    assert set(found["steps"]) >= {"float32", "mixed_bfloat16, augmented"}
    for row in found["steps"].values():
        assert row["images_per_second"] == pytest.approx(
            2000 / row["milliseconds"]
        )
    assert all(map(math.isfinite, found["parts_milliseconds"].values()))
    assert result["operations_per_second"]["matmul_float32"] > 1e8
