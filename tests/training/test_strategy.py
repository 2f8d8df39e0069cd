"""Which devices and machines take part, and what is said if they cannot."""

import concurrent.futures
import json
import socket
import subprocess
import sys
import time

import pytest
import tensorflow as tf
from conftest import ROOT

from byol_tf.benchmarks.scaling import free_ports
from byol_tf.config import Config, ConfigError
from byol_tf.training.cluster import Cluster, cluster_of, wait_for_workers
from byol_tf.training.strategy import check_shares, make_strategy

WORKERS = ["10.0.0.1:2222", "10.0.0.2:2222"]


def tf_config(task_type="worker", index=0, **jobs):
    jobs = jobs or {"worker": WORKERS}
    return json.dumps(
        {"cluster": jobs, "task": {"type": task_type, "index": index}}
    )


@pytest.mark.parametrize(
    "text, index",
    [
        (tf_config(index=1), 1),
        (tf_config("chief", chief=WORKERS[:1], worker=WORKERS[1:]), 0),
        (tf_config("worker", chief=WORKERS[:1], worker=WORKERS[1:]), 1),
    ],
)
def test_cluster(monkeypatch, text, index):
    monkeypatch.setenv("TF_CONFIG", text)
    cluster = cluster_of(Config(strategy="multi_worker"))
    assert cluster == Cluster(tuple(WORKERS), index)
    assert cluster.is_chief == (index == 0)


def test_a_chief_alone(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", tf_config("chief", chief=WORKERS[:1]))
    cluster = cluster_of(Config(strategy="multi_worker"))
    assert cluster == Cluster(tuple(WORKERS[:1]), 0)


@pytest.mark.parametrize("text", ["no JSON", ""])
def test_without_the_strategy_tf_config_is_not_read(
    monkeypatch, mirrored, text
):
    monkeypatch.setenv("TF_CONFIG", text)
    assert cluster_of(Config()) == Cluster()
    assert cluster_of(Config(strategy="multi_worker", mode="export")) == (
        Cluster()
    )
    config = Config(strategy="mirrored", devices=("CPU:0",))
    assert make_strategy(config).num_replicas_in_sync == 1


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "needs TF_CONFIG"),
        ("{no JSON", "cannot be read"),
        ("[]", "cannot be read"),
        ('{"cluster": {}}', "no 'task'"),
        (tf_config(worker=["10.0.0.1"]), "'10.0.0.1' is no HOST:PORT"),
        (tf_config(worker=["10.0.0.1:0"]), "'10.0.0.1:0' is no HOST:PORT"),
        (tf_config(index=2), "task 2 of 2"),
        (tf_config("ps"), "a task of type 'ps'"),
        (tf_config(worker=WORKERS, ps=["10.0.0.3:1"]), "a job of type 'ps'"),
        (tf_config(worker=WORKERS[:1] * 2), "a worker is listed twice"),
        (tf_config(worker=["http://10.0.0.1:2"]), "is no HOST:PORT"),
    ],
)
def test_a_tf_config_that_cannot_be_followed(monkeypatch, text, message):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ConfigError, match=message):
        cluster_of(Config(strategy="multi_worker"))


def test_devices(mirrored):
    assert mirrored.num_replicas_in_sync == 2
    one = make_strategy(Config(strategy="mirrored", devices=("CPU:1",)))
    assert one.num_replicas_in_sync == 1
    assert make_strategy(Config()) is tf.distribute.get_strategy()


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(devices=("GPU:7",)), "there is no GPU:7, but CPU:0, CPU:1"),
        (dict(devices=("toaster",)), "there is no toaster"),
        (dict(devices=("CPU:0", "cpu:0")), "names a device twice"),
    ],
)
def test_devices_that_are_not_there(settings, message):
    with pytest.raises(ConfigError, match=message):
        make_strategy(Config(strategy="mirrored", **settings))


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(batch_size=33), "cannot be shared equally by 2 replicas"),
        (dict(batch_size=6, micro_batches=2), "take a multiple of 4"),
        (dict(batch_size=2), "leaves one image"),
    ],
)
def test_batches_that_cannot_be_shared(mirrored, settings, message):
    with pytest.raises(ConfigError, match=message):
        check_shares(Config(strategy="mirrored", **settings), mirrored)


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(logical_devices=2), "--logical_devices=2 goes with"),
        (dict(devices=("CPU:0",)), "--devices=CPU:0 goes with"),
        (dict(tpu="local"), "--tpu=local goes with --strategy=tpu"),
        (
            dict(strategy="mirrored", jit_compile="on"),
            "works on one device only",
        ),
        (dict(deterministic=True, jit_compile="on"), "--deterministic"),
        (dict(strategy="mirrored", profile_input=True), "one device"),
        (dict(batch_size=32, micro_batches=3), "no multiple of --micro_batch"),
        (dict(precision="float8"), "none of float32, mixed_bfloat16"),
    ],
)
def test_settings_that_do_not_go_together(settings, message):
    with pytest.raises(ConfigError, match=message):
        Config(**settings)


def test_a_worker_that_does_not_come_up():
    ports = free_ports(3)
    cluster = Cluster(tuple(f"127.0.0.1:{port}" for port in ports), 1)
    with (
        socket.create_server(("127.0.0.1", ports[0])),
        pytest.raises(ConfigError, match="worker 2, 127.*--worker_timeout"),
    ):
        wait_for_workers(cluster, 0.5)


def test_workers_wait_for_each_other():
    workers = tuple(f"127.0.0.1:{port}" for port in free_ports(2))
    with concurrent.futures.ThreadPoolExecutor() as pool:
        first = pool.submit(wait_for_workers, Cluster(workers, 0), 20)
        time.sleep(0.3)
        assert not first.done()
        # Goes on at once; TensorFlow listens then in its place.
        wait_for_workers(Cluster(workers, 1), 20)
        with socket.create_server(
            ("127.0.0.1", int(workers[1].rpartition(":")[2]))
        ):
            first.result()


def test_a_port_that_is_taken():
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        cluster = Cluster((f"127.0.0.1:{port}", "127.0.0.1:1"), 0)
        with pytest.raises(ConfigError, match=f"listen at port {port}"):
            wait_for_workers(cluster, 0.5)


def test_a_tpu_that_is_not_there():
    process = subprocess.run(
        [sys.executable, "byol_tf/main.py", "--strategy=tpu", "--tpu=local"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert process.returncode == 2, process.stderr
    (line,) = process.stderr.splitlines()
    assert line.startswith("byol_tf: --tpu=local: no TPU is reached")
