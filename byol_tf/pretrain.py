"""The job `pretrain`: images in, an encoder and the record of its training out.

It leaves in the run folder: config.json, flags.txt, metrics.jsonl,
tensorboard/, checkpoints/, skipped.txt (if an image could not be used),
encoder.keras, plots/, report.json and report.md.
"""

import math
import pathlib
import sys

import keras
import tensorflow as tf

from byol_tf import plots, report
from byol_tf.config import Config, ConfigError
from byol_tf.data.pipeline import open_dataset, training_batches
from byol_tf.data.service import check_service
from byol_tf.data.sources import Dataset
from byol_tf.model.batch_free import calibrate
from byol_tf.model.build import build_byol, recipes
from byol_tf.model.byol import BYOL
from byol_tf.training.checkpoints import Checkpoints
from byol_tf.training.cluster import Cluster, cluster_of
from byol_tf.training.doctor import Doctor, found
from byol_tf.training.monitors import Monitor
from byol_tf.training.run_folder import locked, open_run_folder
from byol_tf.training.run_log import RunLog, read_metrics
from byol_tf.training.shared_stop import SharedStopRequest
from byol_tf.training.signals import Interrupted, StopRequest, noting_signals
from byol_tf.training.strategy import (
    check_same_command,
    check_shares,
    distributed,
    make_strategy,
    naming_lost_workers,
    restored_by_all,
)

# Images for the data-dependent initialisation of --normalization=calibrated.
_CALIBRATION_IMAGES = 512
# The last row's figures that the report has on collapse.
_FIGURES = (
    "projection_std",
    "effective_rank",
    "eigenvalue_spread",
    "mean_cosine",
    "gradient_norm",
    "trust_ratio_min",
    "trust_ratio_median",
    "trust_ratio_max",
)


def run(config: Config) -> Config:
    """Trains, from the last checkpoint in the run folder if there is one.

    Returns:
      The settings, with those that the data decides.

    Raises:
      ConfigError: if the settings cannot work, before anything is written.
      Collapse: if nothing is learned any more, and --on_collapse is stop.
      WorkerLost: if another machine does not answer any more.
    """
    cluster = cluster_of(config)
    with naming_lost_workers(config):
        return _run(config, cluster)


def _run(config: Config, cluster: Cluster) -> Config:
    strategy = make_strategy(config)
    check_shares(config, strategy)
    dataset, config = open_dataset(config)
    config.check_batch(dataset.train.size)
    check_service(config, dataset.train)
    steps_per_epoch = dataset.train.size / config.batch_size
    total_steps = config.steps or int(config.epochs * steps_per_epoch)
    with strategy.scope():
        model = build_byol(
            config, total_steps, steps_per_epoch, len(dataset.class_names)
        )
    for note in dataset.notes:
        print(f"byol_tf: {note}", file=sys.stderr)
    if not cluster.is_chief:
        folder = pathlib.Path(config.run_dir)
        folder.mkdir(parents=True, exist_ok=True)
        dataset.skipped.keep_in(folder / f"skipped.{cluster.index}.txt")
        _train(config, model, dataset, folder, total_steps)
        return config
    with locked(config):
        folder = open_run_folder(config)
        dataset.skipped.keep_in(folder / "skipped.txt")
        _train(config, model, dataset, folder, total_steps)
        model.encoder.save(folder / "encoder.keras")
        _report(config, model, dataset, folder)
    return config


def _train(
    config: Config,
    model: BYOL,
    dataset: Dataset,
    folder: pathlib.Path,
    total_steps: int,
) -> None:
    """From the last checkpoint to the end, or until a signal."""
    cluster, strategy = cluster_of(config), model.distribute_strategy
    stop = StopRequest()
    if len(cluster.workers) > 1:
        stop = SharedStopRequest(strategy, total_steps)
    checkpoints = Checkpoints(
        model,
        folder / "checkpoints",
        config,
        dataset.fingerprint,
        stop,
        cluster.is_chief,
    )
    check_same_command(config, dataset.fingerprint, cluster, strategy)
    first_step = restored_by_all(checkpoints, cluster, strategy)
    if first_step >= total_steps:
        return
    if first_step == 0 and config.normalization == "calibrated":
        _calibrate(config, model, dataset)

    def batches(worker: int, workers: int) -> tf.data.Dataset:
        return training_batches(
            dataset.train,
            config.batch_size,
            config.image_size,
            config.seed,
            recipes(config),
            first_step,
            worker=worker,
            workers=workers,
            parallel_calls=config.parallel_calls,
            service=config.data_service,
        )

    def stop_if_too_many_are_damaged(batch, logs):
        try:
            dataset.skipped.check()
        except ConfigError:  # The state is sound; only the limit is too low.
            checkpoints.save()
            raise

    # A row of the log is on the disk before a checkpoint of its step.
    logs = []
    if cluster.is_chief:
        logs = [_run_log(config, model, dataset, folder, first_step)]
    try:
        with noting_signals(stop):
            model.fit(
                distributed(batches, config.batch_size, strategy),
                steps_per_epoch=total_steps - first_step,
                callbacks=[
                    *logs,
                    checkpoints,
                    keras.callbacks.LambdaCallback(
                        on_train_batch_end=stop_if_too_many_are_damaged
                    ),
                ],
                shuffle=False,
                verbose=0,
            )
        if stop.number is not None:  # It came after the last step.
            raise Interrupted(stop.number, total_steps, cluster.is_chief)
    except tf.errors.OpError:
        dataset.skipped.check()  # Says it better, if this is the cause.
        raise
    finally:
        for log in logs:
            log.close()


def _calibrate(config: Config, model: BYOL, dataset: Dataset) -> None:
    """Both networks, on views of the first images; alike on all machines."""
    batches = training_batches(
        dataset.train,
        config.batch_size,
        config.image_size,
        config.seed,
        recipes(config),
        parallel_calls=config.parallel_calls,
    )
    images, _ = next(iter(batches))
    view1, _ = model.two_views(images[:_CALIBRATION_IMAGES])
    for network in (model.online, model.target):
        calibrate(network, view1)


def _run_log(
    config: Config,
    model: BYOL,
    dataset: Dataset,
    folder: pathlib.Path,
    first_step: int,
) -> RunLog:
    monitor = Monitor(
        model,
        dataset,
        config.image_size,
        config.eval_crop,
        config.monitor_images,
    )
    return RunLog(
        folder,
        monitor,
        Doctor(model, monitor.images, config.on_collapse),
        first_step=first_step,
        total_steps=model.total_steps,
        batch_size=config.batch_size,
        log_every=config.log_every,
        monitor_every=config.monitor_every or max(model.total_steps // 20, 1),
    )


def _report(
    config: Config, model: BYOL, dataset: Dataset, folder: pathlib.Path
) -> None:
    rows = read_metrics(folder / "metrics.jsonl")
    if not rows:
        raise ConfigError(
            f"--run_dir={folder} holds a finished training but no record of "
            "it, metrics.jsonl; choose another --run_dir."
        )
    last = rows[-1]
    seconds = sum(row["seconds"] for row in rows)
    images = sum(row["images_per_second"] * row["seconds"] for row in rows)
    parameters = sum(
        math.prod(v.shape) for v in model.encoder.trainable_variables
    )
    plots.plot_training(rows, folder, config.projection_size)
    report.update(
        folder,
        pretrain={
            "dataset": config.dataset,
            "encoder_parameters": parameters,
            "batch_size": config.batch_size,
            "steps": last["step"],
            "seconds": seconds,
            "images_per_second": images / seconds,
            "final_loss": last["repr_loss"],
            "negatives_weight": config.negatives_weight,
            "skipped_images": len(dataset.skipped),
        },
        collapse={
            "projection_size": config.projection_size,
            **{name: last[name] for name in _FIGURES if name in last},
            "found": found(rows),
        },
    )
