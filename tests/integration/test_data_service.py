"""Real servers of a tf.data service are killed while a training reads."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT, SMALL, photos, run

from byol_tf.benchmarks.scaling import free_ports


def server(*arguments) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "byol_tf.data_server", *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def ready(process: subprocess.Popen) -> subprocess.Popen:
    assert " at " in process.stdout.readline()
    return process


def steps(run_dir) -> int:
    """How many the run has in its record."""
    path = run_dir / "metrics.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return json.loads(lines[-1])["step"] if lines else 0


def wait_for_step(run_dir, step: int) -> None:
    deadline = time.monotonic() + 300
    while steps(run_dir) < step:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def killed(process: subprocess.Popen) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.mark.slow
def test_a_training_does_not_notice(tmp_path):
    folder = photos(tmp_path / "photos")
    (folder / "train/odd/007.jpg").write_bytes(b"")
    flags = [
        *SMALL,
        f"--dataset=folder:{folder}",
        "--image_size=20",
        "--in_memory_gb=0",
        "--steps=240",
        "--monitor_every=240",
        "--deterministic",
        "--max_corrupt_fraction=0.2",
        "--on_collapse=ignore",
    ]
    plain = tmp_path / "plain"
    assert run(*flags, f"--run_dir={plain}").returncode == 0

    first, second, third = free_ports(3)
    dispatcher = ("dispatcher", f"--port={first}", f"--work_dir={tmp_path}/d")
    to_it = f"--dispatcher=127.0.0.1:{first}"
    worker = ("worker", f"--port={second}", to_it)
    servers = {
        "dispatcher": ready(server(*dispatcher)),
        "worker": ready(server(*worker)),
        "lost": ready(server("worker", f"--port={third}", to_it)),
    }
    served = tmp_path / "served"
    training = subprocess.Popen(
        [
            sys.executable,
            "byol_tf/main.py",
            *flags,
            f"--run_dir={served}",
            f"--data_service=127.0.0.1:{first}",
        ],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for_step(served, 10)
        killed(servers["worker"])
        servers["worker"] = server(*worker)
        wait_for_step(served, 60)
        killed(servers["dispatcher"])
        servers["dispatcher"] = server(*dispatcher)
        wait_for_step(served, 140)
        killed(servers["lost"])
        _, stderr = training.communicate(timeout=400)
    finally:
        training.kill()
        for process in servers.values():
            killed(process)
    assert training.returncode == 0, stderr

    def weights(run_dir):
        return (
            run_dir / "saved_model/variables/variables.data-00000-of-00001"
        ).read_bytes()

    assert weights(served) == weights(plain)
    assert (served / "skipped.txt").read_text() == (
        plain / "skipped.txt"
    ).read_text()


def test_a_port_that_is_taken():
    (port,) = free_ports(1)
    first = ready(server("dispatcher", f"--port={port}"))
    second = subprocess.run(
        [
            sys.executable,
            *("-m", "byol_tf.data_server", "dispatcher", f"--port={port}"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    first.terminate()
    assert first.wait(60) == 128 + signal.SIGTERM
    assert second.returncode == 1
    assert f"--port={port} cannot be used" in second.stderr


def test_no_dispatcher_for_a_worker():
    first, second = free_ports(2)
    result = subprocess.run(
        [
            sys.executable,
            *("-m", "byol_tf.data_server", "worker", f"--port={first}"),
            f"--dispatcher=127.0.0.1:{second}",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 1
    assert f"--dispatcher=127.0.0.1:{second} is not reached" in result.stderr
