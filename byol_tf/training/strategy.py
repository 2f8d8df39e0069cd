"""`--strategy`: on which devices a step is computed."""

import contextlib
import dataclasses
import functools
import hashlib
import os
import pathlib
from collections.abc import Callable

import tensorflow as tf

from byol_tf.config import Config, ConfigError, as_text
from byol_tf.training.checkpoints import Checkpoints
from byol_tf.training.cluster import (
    Cluster,
    WorkerLost,
    cluster_of,
    wait_for_workers,
)

_NOT_SHARED = "is not one folder that all machines see"

# What may differ between machines.
_OF_A_MACHINE = (
    "run_dir",
    "data_dir",
    "cache_dir",
    "download",
    "data_service",
    "parallel_calls",
    "worker_timeout",
    "resume",
)

# What an operation fails with when another machine is gone.
_LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError,
    tf.errors.InternalError,
)


def make_strategy(config: Config) -> tf.distribute.Strategy:
    """The distribution strategy of a configuration.

    To be called before any other operation of TensorFlow: devices are made, and
    machines connected, here.

    Raises:
      ConfigError: if a device is not there.
    """
    if config.logical_devices > 1:
        tf.config.set_logical_device_configuration(
            tf.config.list_physical_devices("CPU")[0],
            [tf.config.LogicalDeviceConfiguration()] * config.logical_devices,
        )
    if config.strategy != "multi_worker":
        os.environ.pop("TF_CONFIG", None)  # MirroredStrategy would heed it.
    return {
        "none": _none,
        "mirrored": _mirrored,
        "multi_worker": _multi_worker,
        "tpu": _tpu,
    }[config.strategy](config)


def check_shares(config: Config, strategy: tf.distribute.Strategy) -> None:
    """Raises ConfigError if the replicas cannot share a batch equally."""
    replicas = strategy.num_replicas_in_sync
    if config.batch_size % (replicas * config.micro_batches):
        raise ConfigError(
            f"--batch_size={config.batch_size} cannot be shared equally by "
            f"{replicas} replicas of --strategy={config.strategy} and "
            f"--micro_batches={config.micro_batches}: take a multiple of "
            f"{replicas * config.micro_batches}."
        )
    if config.batch_size < 2 * replicas * config.micro_batches:
        raise ConfigError(
            f"--batch_size={config.batch_size} leaves one image to each of "
            f"{replicas} replicas and {config.micro_batches} micro-batches; "
            "take two at least."
        )


def _none(config: Config) -> tf.distribute.Strategy:
    return tf.distribute.get_strategy()


def _mirrored(config: Config) -> tf.distribute.Strategy:
    there = [
        f"{device.device_type}:{device.name.rpartition(':')[2]}"
        for kind in ("GPU", "CPU")
        for device in tf.config.list_logical_devices(kind)
    ]
    gpus = [device for device in there if device.startswith("GPU")]
    devices = list(config.devices) or gpus or there
    for device in devices:
        if device.upper() not in there:
            raise ConfigError(
                f"--devices={as_text(config.devices)}: there is no {device}, "
                f"but {', '.join(there)}."
            )
    if len(set(map(str.upper, devices))) < len(devices):
        raise ConfigError(
            f"--devices={as_text(config.devices)} names a device twice."
        )
    return tf.distribute.MirroredStrategy(devices)


def _multi_worker(config: Config) -> tf.distribute.Strategy:
    wait_for_workers(cluster_of(config), config.worker_timeout)
    return tf.distribute.MultiWorkerMirroredStrategy()


def _tpu(config: Config) -> tf.distribute.Strategy:
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(
            config.tpu, config.tpu_zone or None, config.tpu_project or None
        )
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (ValueError, OSError, tf.errors.OpError) as error:
        reason = str(error).strip() or type(error).__name__
        raise ConfigError(
            f"--tpu={config.tpu}: no TPU is reached: {reason.splitlines()[0]}"
        ) from error
    return tf.distribute.TPUStrategy(resolver)


def distributed(
    batches: Callable[[int, int], tf.data.Dataset],
    batch_size: int,
    strategy: tf.distribute.Strategy,
):
    """Batches for `fit`, each shared out among replicas in their order.

    Args:
      batches: (worker, number of workers) -> the parts of global batches that
        are that worker's, see `training_batches`.
      batch_size: of the global batch.
      strategy: of the model.
    """
    replicas = strategy.num_replicas_in_sync
    if replicas == 1:
        return batches(0, 1)

    def of_worker(context):
        parts = batches(context.input_pipeline_id, context.num_input_pipelines)
        return parts.rebatch(batch_size // replicas)

    return strategy.distribute_datasets_from_function(of_worker)


@contextlib.contextmanager
def naming_lost_workers(config: Config):
    """Within it, what TensorFlow says of a lost machine is `WorkerLost`."""
    try:
        yield
    except _LOST as error:
        if config.strategy != "multi_worker":
            raise
        raise WorkerLost from error


def check_same_command(
    config: Config,
    fingerprint: str,
    cluster: Cluster,
    strategy: tf.distribute.Strategy,
) -> None:
    """Raises ConfigError if machines were started with other flags or images.

    Args:
      config: of this machine; the chief's is in the run folder.
      fingerprint: of the data set, see `Dataset`.
      cluster: of this process.
      strategy: over all machines.
    """
    if len(cluster.workers) == 1:
        return
    _sum(strategy, 0)  # The chief has written its settings.
    saved = pathlib.Path(config.run_dir) / "config.json"
    if not saved.is_file():
        raise ConfigError(f"--run_dir={config.run_dir} {_NOT_SHARED}.")
    chief = Config.load(saved)
    differences = [
        f"--{field.name}={as_text(getattr(config, field.name))} "
        f"({as_text(getattr(chief, field.name)) or 'none'} there)"
        for field in dataclasses.fields(Config)
        if field.name not in _OF_A_MACHINE
        and getattr(config, field.name) != getattr(chief, field.name)
    ]
    if differences:
        raise ConfigError(
            "this machine was started with other flags than the first: "
            f"{', '.join(differences)}."
        )
    digest = hashlib.sha256(fingerprint.encode()).digest()
    if not _all_equal(strategy, int.from_bytes(digest[:3], "big")):
        raise ConfigError(
            f"--dataset={config.dataset} holds other images on one machine "
            "than on another."
        )


def restored_by_all(
    checkpoints: Checkpoints,
    cluster: Cluster,
    strategy: tf.distribute.Strategy,
) -> int:
    """Restores on every machine; returns the number of steps done.

    Raises:
      ConfigError: see `Checkpoints.restore`; or if the machines do not see the
        same checkpoint.
    """
    if len(cluster.workers) == 1:
        return checkpoints.restore()
    # The chief first, for it may remove a damaged one.
    if cluster.is_chief:
        step = checkpoints.restore()
        _sum(strategy, 0)
    else:
        _sum(strategy, 0)
        step = checkpoints.restore()
    if not _all_equal(strategy, step):
        raise ConfigError(
            f"--run_dir {_NOT_SHARED}: on this one the last checkpoint is of "
            f"step {step}, on another it is not."
        )
    return step


def _all_equal(strategy: tf.distribute.Strategy, number: int) -> bool:
    """Whether all replicas have the same number, below 2**24."""
    replicas = strategy.num_replicas_in_sync
    total, squares = _sum(strategy, number), _sum(strategy, number**2)
    return replicas * squares == total**2  # The variance is 0.


def _sum(strategy: tf.distribute.Strategy, number: int) -> int:
    """The sum of every replica's number; waits for all machines."""
    return int(summing(strategy)(tf.constant(number, tf.int64)))


@functools.lru_cache(maxsize=1)
def summing(strategy: tf.distribute.Strategy):
    """A function: a tensor of each replica -> the sum; waits for all."""

    @tf.function
    def summed(numbers):
        numbers = strategy.run(tf.identity, [numbers])
        return strategy.reduce(tf.distribute.ReduceOp.SUM, numbers, axis=None)

    return summed
