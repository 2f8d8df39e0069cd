"""A machine is lost in the midst of a training on two."""

import json
import os
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
from conftest import ROOT, SMALL, photos

from byol_tf.benchmarks.scaling import free_ports, tf_config


@pytest.fixture(scope="module")
def flags(tmp_path_factory):
    folder = photos(tmp_path_factory.mktemp("photos"))
    (folder / "train/odd/007.jpg").write_bytes(b"")
    return [
        *SMALL,
        "--strategy=multi_worker",
        f"--dataset=folder:{folder}",
        "--image_size=20",
        "--steps=24",
        "--monitor_every=24",
        "--checkpoint_every=5",
        "--deterministic",
        "--max_corrupt_fraction=0.2",
        "--on_collapse=ignore",
    ]


def start(flags, run_dir) -> list[subprocess.Popen]:
    """Both workers, each with the same command."""
    workers = [f"127.0.0.1:{port}" for port in free_ports(2)]
    return [
        subprocess.Popen(
            [sys.executable, "byol_tf/main.py", *flags, f"--run_dir={run_dir}"],
            cwd=ROOT,
            env=os.environ | {"TF_CONFIG": tf_config(workers, index)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]


def rows(run_dir) -> list[dict]:
    path = run_dir / "metrics.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines]


def finish(workers) -> None:
    said = [worker.communicate(timeout=400)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], said


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_the_other_stops_and_both_go_on(tmp_path, flags, lost):
    whole = tmp_path / "whole"
    finish(start(flags, whole))

    killed = tmp_path / "killed"
    workers = start(flags, killed)
    deadline = time.monotonic() + 300
    while not rows(killed) or rows(killed)[-1]["step"] < 8:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    workers[lost].send_signal(signal.SIGKILL)
    _, stderr = workers[1 - lost].communicate(timeout=60)
    assert workers[1 - lost].returncode == 1
    last = stderr.replace("\r", "\n").splitlines()[-1]
    assert last.startswith("byol_tf: a worker of TF_CONFIG is gone"), stderr
    assert "goes on from its last checkpoint" in last
    workers[lost].communicate()
    assert rows(killed)[-1]["step"] < 24
    finish(start(flags, killed))

    times = ("seconds", "images_per_second")
    one, other = (
        [{k: v for k, v in row.items() if k not in times} for row in rows(run)]
        for run in (whole, killed)
    )
    assert one == other
    assert [row["step"] for row in one] == list(range(2, 25, 2))
    a, b = (
        keras.saving.load_model(run / "encoder.keras")
        for run in (whole, killed)
    )
    for x, y in zip(a.weights, b.weights, strict=True):
        np.testing.assert_array_equal(x, y, err_msg=x.path)
    # Only the first worker writes results; the other lists what it met.
    assert {path.name for path in killed.iterdir()} >= {"report.md", "plots"}
    assert list(killed.glob("skipped*.txt"))
