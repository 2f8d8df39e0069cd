"""The benchmark of a step's memory."""

import json

import pytest

from byol_tf.benchmarks import peers, step_memory


@pytest.mark.slow
def test_recomputing_takes_less_for_an_image(monkeypatch, capsys):
    monkeypatch.setattr(peers, "versions", dict)
    ours = ("float32", "float32, recompute")
    ours = {name: step_memory.OURS[name] for name in ours}
    monkeypatch.setattr(step_memory, "OURS", ours)
    step_memory.main(
        [
            *("--depth=50", "--size=96", "--batches", "4", "12"),
            *("--hidden=16", "--projection=8"),
        ]
    )
    result = json.loads(capsys.readouterr().out)
    memory = result["memory_mib"]
    assert set(memory) == set(ours)
    image = {name: row["of_an_image"] for name, row in memory.items()}
    assert 0 < image["float32, recompute"] < 0.8 * image["float32"]
    row = memory["float32"]
    assert row["peaks"][0] == pytest.approx(
        row["of_all_else"] + 4 * row["of_an_image"]
    )
