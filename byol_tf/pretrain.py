"""The job `pretrain`: images in, an encoder and the record of its training out.

It leaves in the run folder: config.json, flags.txt, metrics.jsonl,
tensorboard/, checkpoints/, encoder.keras, plots/, report.json and report.md.
"""

import contextlib
import math
import pathlib

import tensorflow as tf

from byol_tf import report
from byol_tf.config import Config, ConfigError
from byol_tf.data.pipeline import open_dataset, training_batches
from byol_tf.data.sources import Dataset, undecodable
from byol_tf.model.build import build_byol, recipes
from byol_tf.training.checkpoints import Checkpoints
from byol_tf.training.doctor import Doctor, found
from byol_tf.training.monitors import Monitor
from byol_tf.training.run_folder import open_run_folder
from byol_tf.training.run_log import RunLog, read_metrics

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
    """
    dataset, config = open_dataset(config)
    if config.batch_size > dataset.train.size:
        raise ConfigError(
            f"--batch_size={config.batch_size} is more than --dataset="
            f"{config.dataset} has images ({dataset.train.size})."
        )
    steps_per_epoch = dataset.train.size / config.batch_size
    total_steps = config.steps or int(config.epochs * steps_per_epoch)
    model = build_byol(
        config, total_steps, steps_per_epoch, len(dataset.class_names)
    )
    folder = open_run_folder(config)

    checkpoints = Checkpoints(
        model,
        folder / "checkpoints",
        config.checkpoint_every,
        config.keep_checkpoints,
    )
    first_step = checkpoints.restore()
    with _naming_damaged_images(dataset):
        monitor = Monitor(
            model,
            dataset,
            config.image_size,
            config.eval_crop,
            config.monitor_images,
        )
    doctor = Doctor(model, monitor.images, config.on_collapse)
    log = RunLog(
        folder,
        monitor,
        doctor,
        first_step=first_step,
        total_steps=total_steps,
        batch_size=config.batch_size,
        log_every=config.log_every,
        monitor_every=config.monitor_every or max(total_steps // 20, 1),
        checkpoint_every=config.checkpoint_every,
    )
    if first_step < total_steps:
        batches = training_batches(
            dataset.train,
            config.batch_size,
            config.image_size,
            config.seed,
            recipes(config),
            first_step,
        )
        try:
            with _naming_damaged_images(dataset):
                model.fit(
                    batches,
                    steps_per_epoch=total_steps - first_step,
                    callbacks=[log, checkpoints],
                    shuffle=False,
                    verbose=0,
                )
        except KeyboardInterrupt:
            if doctor.parameters_are_finite():
                checkpoints.save()
            raise
        finally:
            log.close()
    model.encoder.save(folder / "encoder.keras")
    _report(config, model, folder)
    return config


@contextlib.contextmanager
def _naming_damaged_images(dataset: Dataset):
    """Turns TensorFlow's error on an image into one that names its file."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        damaged = undecodable(dataset.train) or undecodable(dataset.test)
        raise damaged or error from error


def _report(config: Config, model, folder: pathlib.Path) -> None:
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
    report.plot_training(rows, folder, config.projection_size)
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
        },
        collapse={
            "projection_size": config.projection_size,
            **{name: last[name] for name in _FIGURES if name in last},
            "found": found(rows),
        },
    )
