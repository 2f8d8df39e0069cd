"""The training step as an XLA program, run by JAX."""

import json
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT

SCRIPT = """
import json, pathlib, sys
from byol_tf.benchmarks.lower import lower
from byol_tf.config import Config
config = Config(
    encoder_depth=None, encoder_blocks=(1, 1), encoder_channels=(8, 16),
    stem_channels=8, image_size=16, batch_size=4, projector_hidden=16,
    projection_size=8, base_learning_rate=20.0, warmup_epochs=0.0,
)
lower(pathlib.Path(sys.argv[1]), config, views=sys.argv[2] == "views")
"""


@pytest.mark.slow
@pytest.mark.parametrize("start", ["views", "images"])
def test_jax_comes_to_the_same_losses(tmp_path, start):
    pytest.importorskip("jax", reason="requirements-bench.txt has it")
    subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path), start],
        check=True,
        cwd=ROOT,
    )
    # Without this package, as on another machine.
    script = (ROOT / "byol_tf/benchmarks/run_lowered.py").read_text()
    (tmp_path / "run_lowered.py").write_text(script)
    finished = subprocess.run(
        [sys.executable, "run_lowered.py", ".", "--steps=2"],
        check=True,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    found = json.loads(finished.stdout)
    assert len(found["losses"]) == 3
    np.testing.assert_allclose(found["losses_here"], found["losses"], rtol=1e-4)
    assert len(set(found["losses"])) == 3  # It learns.
    assert found["step_seconds"] > 0 and found["images_per_second"] > 0
