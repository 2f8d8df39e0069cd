"""The machines of a training, as TF_CONFIG lists them.

TF_CONFIG is an environment variable that holds JSON, on the first of two
machines e.g. `{"cluster": {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]},
"task": {"type": "worker", "index": 0}}`.
"""

import dataclasses
import json
import os
import socket
import time

from byol_tf.config import Config, ConfigError


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Who takes part, and which of them this process is.

    Attributes:
      workers: "host:port" of each; the first is the chief, who writes.
      index: of this process.
    """

    workers: tuple[str, ...] = ("",)
    index: int = 0

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the results."""
        return self.index == 0


class WorkerLost(Exception):
    """Another machine of the cluster does not answer any more."""

    def __init__(self):
        super().__init__(
            "a worker of TF_CONFIG is gone, so this one stops. Start the same "
            "command on all machines again: the run goes on from its last "
            "checkpoint."
        )


def cluster_of(config: Config) -> Cluster:
    """The cluster of --strategy=multi_worker, by TF_CONFIG; else one machine.

    Raises:
      ConfigError: if TF_CONFIG cannot be followed.
    """
    if config.strategy != "multi_worker" or config.mode != "pretrain":
        return Cluster()
    text = os.environ.get("TF_CONFIG", "")
    if not text:
        raise ConfigError(
            "--strategy=multi_worker needs TF_CONFIG in the environment, which "
            'lists the machines: {"cluster": {"worker": ["HOST:PORT", …]}, '
            '"task": {"type": "worker", "index": 0}}.'
        )
    try:
        values = json.loads(text)
        jobs, task = values["cluster"], values["task"]
        others = set(jobs) - {"chief", "worker"}
        if others:
            raise ValueError(f"a job of type {min(others)!r}")
        workers = (*jobs.get("chief", ()), *jobs.get("worker", ()))
        index = int(task["index"])
        if task["type"] == "worker":
            index += len(jobs.get("chief", ()))
        elif task["type"] != "chief":
            raise ValueError(f"a task of type {task['type']!r}")
        if not 0 <= index < len(workers):
            raise ValueError(f"task {index} of {len(workers)}")
        for worker in workers:
            host, _, port = worker.rpartition(":")
            if not host or "/" in host or not 0 < int(port) < 2**16:
                raise ValueError(f"{worker!r} is no HOST:PORT")
        if len(set(workers)) < len(workers):
            raise ValueError("a worker is listed twice")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        said = f"no {error}" if isinstance(error, KeyError) else error
        raise ConfigError(
            f"TF_CONFIG cannot be read ({said}): {text[:100]}"
        ) from error
    return Cluster(workers, index)


def wait_for_workers(cluster: Cluster, seconds: float) -> None:
    """Waits until every other worker answers, as TensorFlow would without end.

    Until TensorFlow listens at this worker's port, this function does.

    Args:
      cluster: of this process.
      seconds: how long to wait.

    Raises:
      ConfigError: if one does not answer in time, or the port is taken.
    """
    port = int(cluster.workers[cluster.index].rpartition(":")[2])
    try:
        server = socket.create_server(("", port), backlog=128)
    except OSError as error:
        raise ConfigError(
            f"TF_CONFIG: worker {cluster.index} cannot listen at port {port}: "
            f"{error.strerror}."
        ) from error
    deadline = time.monotonic() + seconds
    with server:
        for number, worker in enumerate(cluster.workers):
            while number != cluster.index and not _answers(worker):
                if time.monotonic() > deadline:
                    raise ConfigError(
                        f"TF_CONFIG: worker {number}, {worker}, has not "
                        f"answered for {seconds:g} seconds "
                        "(--worker_timeout). Start it, or take it out of "
                        "TF_CONFIG on all machines."
                    )
                time.sleep(0.2)


def _answers(worker: str) -> bool:
    host, _, port = worker.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError:
        return False
    return True
