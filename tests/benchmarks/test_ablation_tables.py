"""The ablations' tables: by hand, and of several seeds."""

import json

import numpy as np
import pytest

from byol_tf import plots
from byol_tf.benchmarks import ablation_tables

GOOD = {
    "row": "base",
    "changed": [],
    "published": "72.5",
    "seed": 0,
    "knn_top1": 0.4321,
    "linear_top1": 0.5,
    "untrained": {"knn_top1": 0.3, "linear_top1": 0.35},
    "note": "",
    "found": [],
    "seconds": 61.4,
}
FLAT = GOOD | {
    "row": "no_predictor",
    "changed": ["--predictor=none"],
    "published": "",
    "untrained": None,
    "found": ["collapsed projections", "predictor missing"],
}
FAILED = {
    "row": "no_predictor",
    "changed": ["--predictor=none"],
    "published": "0.1",
    "seed": 1,
    "failure": "no | space",
}


def test_table_by_hand():
    lines = ablation_tables.markdown([GOOD, FLAT, FAILED]).splitlines()
    assert lines[2:] == [
        "| base | nothing | 0 | 43.2 | 50.0 | healthy | 72.5 | 61 |",
        "| no_predictor | `--predictor=none` | 0 | 43.2 | 50.0 | collapsed "
        "projections; predictor missing |  | 61 |",
        "| no_predictor | `--predictor=none` | 1 |  |  | **failed**: no / "
        "space | 0.1 |  |",
        "| not trained | the encoder of base | 0 | 30.0 | 35.0 |  |  |  |",
    ]


def test_several_seeds_have_mean_and_deviation():
    untrained = {"knn_top1": 0.4, "linear_top1": 0.39}
    seeds = [
        GOOD | {"knn_top1": 0.40},
        GOOD | {"seed": 1, "knn_top1": 0.42, "untrained": untrained},
        GOOD | {"seed": 2, "knn_top1": 0.47, "untrained": None},
    ]
    lines = ablation_tables.markdown([*seeds, FLAT, FAILED]).splitlines()
    # By hand: mean 43, deviations -3, -1 and 4, sqrt(26 / 2) = 3.61.
    assert lines[5] == (
        "| base | nothing | **mean of 3** | **43.0 ± 3.6** | **50.0 ± 0.0** |"
        "  | 72.5 |  |"
    )
    assert [line.split(" | ")[2] for line in lines[6:]] == [
        "0",
        "1",
        "0",
        "1",
        "**mean of 2**",
    ]
    assert "| **35.0 ± 7.1** | **37.0 ± 2.8** |" in lines[-1]
    (summary,) = ablation_tables.over_seeds([*seeds, FLAT, FAILED])
    assert (summary["row"], summary["seeds"]) == ("base", [0, 1, 2])
    assert summary["knn_top1"]["mean"] == pytest.approx(0.43)
    shares = [result["knn_top1"] for result in seeds]
    assert summary["knn_top1"]["std"] == pytest.approx(np.std(shares, ddof=1))


def test_files(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        plots, "draw_accuracies", lambda *arguments: drawn.append(arguments)
    )
    results = [GOOD, GOOD | {"seed": 1, "knn_top1": 0.5}, FLAT, FAILED]
    ablation_tables.write(
        results, "npz:a", ["--steps=9"], ["no_flip, seed 0"], tmp_path
    )
    record = json.loads((tmp_path / "ablations.json").read_text())
    assert record["results"] == results
    assert record["over_seeds"] == ablation_tables.over_seeds(results)
    assert record["environment"]["tensorflow"]
    text = (tmp_path / "ablations.md").read_text()
    assert "\n\nImages: `npz:a`. In all rows: `--steps=9`. Changes" in text
    assert text.endswith("have other settings: no_flip, seed 0.\n")
    ((accuracies, untrained, collapsed, path),) = drawn
    assert accuracies == {"base": [0.4321, 0.5], "no_predictor": [0.4321]}
    assert untrained == pytest.approx(0.3)
    assert collapsed == {"no_predictor"}
    assert path == tmp_path / "ablations.png"
