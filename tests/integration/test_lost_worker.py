"""One of two machines is lost in the midst of a training, or told to stop."""

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

STEPS = 60


@pytest.fixture(scope="module")
def flags(tmp_path_factory):
    folder = photos(tmp_path_factory.mktemp("photos"))
    (folder / "train/odd/007.jpg").write_bytes(b"")
    return [
        *SMALL,
        "--strategy=multi_worker",
        f"--dataset=folder:{folder}",
        "--image_size=20",
        f"--steps={STEPS}",
        f"--monitor_every={STEPS}",
        "--checkpoint_every=5",
        "--deterministic",
        "--max_corrupt_fraction=0.2",
        "--on_collapse=ignore",
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, flags):
    """The run folder of a training that nothing disturbed."""
    run_dir = tmp_path_factory.mktemp("whole")
    finish(start(flags, run_dir))
    return run_dir


def start(flags, run_dir, of_second=()) -> list[subprocess.Popen]:
    """Both workers, each with the same command, or with other flags as well."""
    workers = [f"127.0.0.1:{port}" for port in free_ports(2)]
    return [
        subprocess.Popen(
            [
                *(sys.executable, "byol_tf/main.py"),
                *flags,
                f"--run_dir={run_dir}",
                *(of_second if index else ()),
            ],
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
    said = [worker.communicate(timeout=900)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], said


def wait_for_step(workers, run_dir, step) -> None:
    deadline = time.monotonic() + 600
    while not rows(run_dir) or rows(run_dir)[-1]["step"] < step:
        assert time.monotonic() < deadline
        assert [worker.poll() for worker in workers] == [None, None]
        time.sleep(0.05)


def last_line(stderr) -> str:
    return stderr.replace("\r", "\n").splitlines()[-1]


def assert_same_end(whole, disturbed, every=2) -> None:
    """Bit for bit; the disturbed one has a row of metrics `every` steps."""
    times = ("seconds", "images_per_second")
    one, other = (
        [{k: v for k, v in row.items() if k not in times} for row in rows(run)]
        for run in (whole, disturbed)
    )
    assert [row["step"] for row in one] == list(range(2, STEPS + 1, 2))
    assert other == [row for row in one if row["step"] % every == 0]
    a, b = (
        keras.saving.load_model(run / "encoder.keras")
        for run in (whole, disturbed)
    )
    for x, y in zip(a.weights, b.weights, strict=True):
        np.testing.assert_array_equal(x, y, err_msg=x.path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "flag, message",
    [
        ("--seed=1", "other flags than the first: --seed=1 (0 there)."),
        ("--dataset=folder:/nowhere", "folder:/nowhere does not exist"),
    ],
)
def test_a_machine_that_was_started_with_other_flags(
    tmp_path, flags, flag, message
):
    workers = start(flags, tmp_path, [flag])
    said = [last_line(worker.communicate(timeout=300)[1]) for worker in workers]
    assert [worker.returncode for worker in workers] == [1, 2], said
    assert said[0].startswith("byol_tf: a worker of TF_CONFIG is gone")
    assert message in said[1]


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_the_other_stops_and_both_go_on(tmp_path, flags, whole, lost):
    workers = start(flags, tmp_path)
    wait_for_step(workers, tmp_path, 8)
    workers[lost].send_signal(signal.SIGKILL)
    _, stderr = workers[1 - lost].communicate(timeout=60)
    assert workers[1 - lost].returncode == 1
    last = last_line(stderr)
    assert last.startswith("byol_tf: a worker of TF_CONFIG is gone"), stderr
    assert "goes on from its last checkpoint" in last
    workers[lost].communicate()
    assert rows(tmp_path)[-1]["step"] < STEPS
    finish(start(flags, tmp_path))

    assert_same_end(whole, tmp_path)
    # Only the first worker writes results; the other lists what it met.
    assert {path.name for path in tmp_path.iterdir()} >= {"report.md", "plots"}
    assert list(tmp_path.glob("skipped*.txt"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "told, how, steps_per_execution",
    [
        (1, signal.SIGTERM, 1),
        (0, signal.SIGTERM, 1),
        (1, signal.SIGINT, 4),
    ],
)
def test_a_signal_to_one_stops_both_after_the_same_step(
    tmp_path, flags, whole, told, how, steps_per_execution
):
    flags = [*flags, f"--steps_per_execution={steps_per_execution}"]
    workers = start(flags, tmp_path)
    wait_for_step(workers, tmp_path, 8)
    workers[told].send_signal(how)
    said = [last_line(worker.communicate(timeout=100)[1]) for worker in workers]
    assert [worker.returncode for worker in workers] == [128 + how] * 2, said

    newest = max((tmp_path / "checkpoints").iterdir()).name
    step = int(newest.removeprefix("step_"))
    assert 8 <= step < STEPS and step % steps_per_execution == 0
    stopped = f"byol_tf: interrupted by {how.name} at step {step}; "
    assert said == [
        stopped + "the same command goes on from there.",
        stopped + "the checkpoint is the first worker's to write. The same "
        "command on all machines goes on from it.",
    ]
    finish(start(flags, tmp_path))
    assert_same_end(whole, tmp_path, max(2, steps_per_execution))
