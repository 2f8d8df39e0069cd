"""Runs that are killed end as if nobody had touched them."""

import json
import random
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
from conftest import ROOT, SMALL, run, save_images

STEPS = 200
KILLS = 2


def flags(tmp_path, name: str) -> list[str]:
    return [
        *SMALL,
        "--deterministic",
        f"--steps={STEPS}",
        "--checkpoint_every=7",
        "--monitor_every=30",
        "--max_corrupt_fraction=0.2",
        "--on_collapse=ignore",
        f"--dataset=folder:{tmp_path / 'photos'}",
        "--image_size=24",
        f"--run_dir={tmp_path / name}",
    ]


def start(tmp_path, name: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "byol_tf/main.py", *flags(tmp_path, name)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def rows(tmp_path, name: str) -> list[dict]:
    """The metrics but the times, as far as lines are whole."""
    path = tmp_path / name / "metrics.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [
        {
            key: value
            for key, value in json.loads(line).items()
            if key not in ("seconds", "images_per_second")
        }
        for line in lines
    ]


def steps_done(tmp_path, name: str) -> int:
    return rows(tmp_path, name)[-1]["step"] if rows(tmp_path, name) else 0


def stopped(tmp_path, name: str, step: int, how: signal.Signals):
    """Exit code and stderr of a run that gets a signal at about a step."""
    process = start(tmp_path, name)
    deadline = time.monotonic() + 250
    # The file still has the rows of the run before until this one begins.
    while process.poll() is None and steps_done(tmp_path, name) < step:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(how)
    _, stderr = process.communicate(timeout=100)
    return process.returncode, stderr


@pytest.mark.slow
def test_killed_runs_end_as_one_that_was_not(tmp_path):
    folder = tmp_path / "photos"
    save_images(folder, 30, (40, 30))
    save_images(folder, 30, (34, 38), first=30)
    (folder / "003.jpg").write_bytes(b"")  # Skipping is part of the order.
    (folder / "021.jpg").write_bytes((folder / "021.jpg").read_bytes()[:-90])
    seed = random.randrange(2**32)
    print("kills by seed", seed)
    at = sorted(random.Random(seed).sample(range(4, STEPS // 2), KILLS))

    whole = start(tmp_path, "whole")
    for step in at:
        code, _ = stopped(tmp_path, "killed", step, signal.SIGKILL)
        assert code == -signal.SIGKILL
    for how, exit_code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        # Past all rows that are there, so that training is under way.
        step = steps_done(tmp_path, "killed") + 10
        code, stderr = stopped(tmp_path, "killed", step, how)
        assert code == exit_code, stderr
        last = stderr.splitlines()[-1]
        assert last.startswith(f"byol_tf: interrupted by {how.name} at step")

    final = run(*flags(tmp_path, "killed"))
    assert final.returncode == 0, final.stderr
    assert whole.wait(timeout=200) == 0

    assert rows(tmp_path, "killed") == rows(tmp_path, "whole")
    steps = [row["step"] for row in rows(tmp_path, "killed")]
    assert steps == list(range(2, STEPS + 1, 2))
    a, b = (
        keras.saving.load_model(tmp_path / name / "encoder.keras")
        for name in ("killed", "whole")
    )
    for x, y in zip(a.weights, b.weights, strict=True):
        np.testing.assert_array_equal(x, y, err_msg=x.path)
    lists = [
        set((tmp_path / name / "skipped.txt").read_text().splitlines())
        for name in ("killed", "whole")
    ]
    assert lists[0] == lists[1] and len(lists[0]) == 2
