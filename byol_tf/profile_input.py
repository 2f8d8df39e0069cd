"""The job `--profile_input`: does the input or the model limit the run?

It times the input alone, the training step alone and both together, says which
of them the run waits for, and which flag to turn. Nothing is written.
"""

import math

import tensorflow as tf

from byol_tf.config import Config
from byol_tf.data.loading import cores
from byol_tf.data.pipeline import open_dataset, training_batches
from byol_tf.data.service import check_service
from byol_tf.data.sources import ArraySource, Dataset
from byol_tf.data.stages import seconds_per_element, stage_times
from byol_tf.model.build import build_byol, recipes

# How long each measurement takes, at least.
SECONDS = 10

# Below this share of the time of a step, waiting for the input does not count.
NEGLIGIBLE = 0.1


def run(config: Config) -> Config:
    """Measures, and prints a table and the advice.

    Returns:
      The settings, with those that the data decides.

    Raises:
      ConfigError: if the settings cannot work.
    """
    dataset, config = open_dataset(config)
    config.check_batch(dataset.train.size)
    check_service(config, dataset.train)
    batches = training_batches(
        dataset.train,
        config.batch_size,
        config.image_size,
        config.seed,
        recipes(config),
        parallel_calls=config.parallel_calls,
        service=config.data_service,
    )
    print("Measuring for about a minute …", flush=True)
    seconds = {"input alone": seconds_per_element(batches, SECONDS)}
    model = build_byol(config, 10_000, 100, len(dataset.class_names))
    one = tf.data.Dataset.from_tensors(next(iter(batches))).repeat()
    seconds["training step alone"] = _seconds_per_step(model, one)
    seconds["both together"] = _seconds_per_step(model, batches)
    stages = {}
    if not isinstance(dataset.train, ArraySource):
        stages = stage_times(
            dataset.train, config.image_size, recipes(config), SECONDS / 5
        )
    print(table(seconds, stages, config.batch_size))
    shared = not tf.config.list_physical_devices("GPU")
    print(advice(config, dataset, seconds, stages, shared))
    dataset.skipped.check()
    return config


def _seconds_per_step(model, batches) -> float:
    """Mean time of a step of `fit`, once its graph is built."""

    def fit(steps):
        model.fit(batches, steps_per_epoch=steps, shuffle=False, verbose=0)

    fit(2)
    start = tf.timestamp()
    fit(2)
    steps = max(4, math.ceil(2 * SECONDS / float(tf.timestamp() - start)))
    start, before = tf.timestamp(), int(model.optimizer.iterations)
    fit(steps)
    # As many as whole executions of `steps_per_execution` took.
    steps = int(model.optimizer.iterations) - before
    return float(tf.timestamp() - start) / steps


def table(
    seconds: dict[str, float], stages: dict[str, float], batch_size: int
) -> str:
    """What was measured, as Markdown."""
    lines = [
        "",
        "| measured | ms per step | images per second |",
        "| --- | ---: | ---: |",
    ]
    for name, value in seconds.items():
        lines.append(
            f"| {name} | {1e3 * value:.1f} | {batch_size / value:,.0f} |"
        )
    if stages:
        lines += [
            "",
            "| of the input, for one image on one core | ms |",
            "| --- | ---: |",
            *(f"| {name} | {value:.2f} |" for name, value in stages.items()),
        ]
    return "\n".join(lines) + "\n"


def advice(
    config: Config,
    dataset: Dataset,
    seconds: dict[str, float],
    stages: dict[str, float],
    shared: bool,
) -> str:
    """What limits the run, and which flag to turn.

    Args:
      config: of the run.
      dataset: of the images.
      seconds: per step, of `input alone`, `training step alone` and `both
        together`.
      stages: see `data.stages.stage_times`; empty for images in memory.
      shared: whether input and training step run on the same processor.
    """
    of_input = seconds["input alone"]
    of_step = seconds["training step alone"]
    if shared:
        share = of_input / (of_input + of_step)
        limits = share > 0.5
        verdict = (
            f"Input and training step share {cores()} cores; the input takes "
            f"{share:.0%} of their time."
        )
    else:
        share = max(0.0, 1 - of_step / seconds["both together"])
        limits = share > NEGLIGIBLE
        verdict = (
            f"The training step waits for its images {share:.0%} of the time."
        )
    if not limits:
        return (
            f"COMPUTE limits this run. {verdict} To go faster: a smaller "
            f"--image_size (it is {config.image_size}) or encoder "
            "(--encoder_depth, --encoder_width), or a faster device; the "
            "input's flags will not help."
        )
    return (
        f"INPUT limits this run. {verdict} {_faster(config, dataset, stages)}"
    )


def _faster(config: Config, dataset: Dataset, stages: dict[str, float]) -> str:
    """Which flag makes the input faster."""
    source = dataset.train
    if isinstance(source, ArraySource):
        return (
            "The images are in memory already: lower --image_size, or take a "
            "machine with more cores."
        )
    calls = config.parallel_calls or cores()
    if calls < cores():
        return (
            f"Raise --parallel_calls from {calls} to {cores()}, the number of "
            "cores."
        )
    if source.shape:
        gigabytes = source.size * 3 * math.prod(source.shape) / 2**30
        return (
            f"All images have one size: --in_memory_gb={math.ceil(gigabytes)} "
            "decodes them once and keeps them, if there is that much memory."
        )
    slowest = max(stages, key=stages.get)
    if slowest == "read":
        return (
            "Most of it is reading: raise --parallel_calls above the number "
            f"of cores ({2 * calls}, say), or move the images to a faster disk."
        )
    if slowest == "decode":
        return (
            "Most of it is decoding: smaller copies of the files (shorter side "
            f"about {2 * config.image_size} pixels) or a lower --image_size "
            "with them decode faster; or take a machine with more cores."
        )
    return (
        "Most of it is resizing the crops: lower --image_size, or take a "
        "machine with more cores."
    )
