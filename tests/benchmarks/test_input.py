"""The input's benchmark runs, and its JSON is what it says."""

import json
import math
import subprocess
import sys

import pytest
from conftest import ROOT


@pytest.mark.slow
def test_it_prints_json():
    process = subprocess.run(
        [sys.executable, "-m", "byol_tf.benchmarks.input"]
        + ["--seconds=0.3", "--rounds=1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    result = json.loads(process.stdout)
    assert result["environment"]["cores_used"] == 1
    for name, stages in (
        ("arrays_32", {"augment"}),
        ("jpegs_224", {"read", "decode", "resize", "augment"}),
    ):
        assert result[name]["byol_tf_pairs_per_second_per_core"] > 0
        assert set(result[name]["stages_ms"]) == stages
        # Decoding and resizing are differences, which noise can turn around.
        assert all(map(math.isfinite, result[name]["stages_ms"].values()))
        assert result[name]["stages_ms"]["augment"] > 0
        peer = "lightly" in result["environment"]
        assert ("ratio" in result[name]) == peer
    # More than a grey level: why JPEGs are not decoded at half their size.
    assert result["dct_scaling"]["mean_difference_in_grey_levels"] > 1
