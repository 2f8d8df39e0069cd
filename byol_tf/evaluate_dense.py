"""The dense part of the job `evaluate`: segmentation, detection and depth.

For each of these --protocols a network on the encoder is trained and measured.
Its figures and a sheet of pictures are in the run folder's report. In
`protocols/DATA/PROTOCOL/SETTINGS/` are that sheet, the network as
`saved_model/`, what of the data could not be used, and, if the training was
stopped, what it goes on from.
"""

import dataclasses
import itertools
import pathlib
import sys

import keras
import tensorflow as tf

from byol_tf import report
from byol_tf.config import DENSE_PROTOCOLS, Config, ConfigError
from byol_tf.data.scenes import SceneSplits
from byol_tf.dense.dense_model import DenseModel, check_encoder
from byol_tf.dense.protocols import TASKS
from byol_tf.dense.serving import export_dense_model
from byol_tf.dense.task import DenseTask
from byol_tf.dense.training import train
from byol_tf.evaluation import paper
from byol_tf.evaluation.kept_results import (
    KeptResults,
    folder_for,
    folder_name,
)
from byol_tf.model.build import load_encoder
from byol_tf.optim.nesterov import Nesterov
from byol_tf.training.run_folder import (
    digest_of,
    encoder_path,
    locked,
    open_results_folder,
    pretraining_of,
)
from byol_tf.training.strategy import make_strategy

# Scenes on a sheet.
_DRAWN = 8
# Settings of --dense_… that a result depends on.
_SETTINGS = (
    *("seed", "train_split", "test_split"),
    *("dense_encoder", "dense_steps", "dense_batch_size", "dense_rate"),
    *("dense_weight_decay", "dense_size", "dense_warmup"),
)


@dataclasses.dataclass(frozen=True)
class _Settings:
    """How a network is trained; see `task.Recipe`."""

    steps: int
    batch_size: int
    rate: float
    weight_decay: float
    size: tuple[int, int]


def run(config: Config) -> Config:
    """Measures an encoder by the dense ones among --protocols.

    Returns:
      The settings, as they are.

    Raises:
      ConfigError: if there is no encoder, or the settings cannot work.
    """
    protocols = [name for name in config.protocols if name in DENSE_PROTOCOLS]
    if not protocols:
        return config
    path = encoder_path(config)
    for name in protocols:
        _check(config, name)
    strategy = make_strategy(config)
    for name in protocols:
        _check_shares(config, name, strategy)
    encoder = load_encoder(path)
    check_encoder(encoder)
    splits = {name: TASKS[name].open(config) for name in protocols}
    folder = open_results_folder(config)
    with locked(config):
        for name in protocols:
            _run_protocol(
                name, splits[name], config, encoder, path, folder, strategy
            )
    return config


def _check(config: Config, name: str) -> None:
    flag = TASKS[name].flag
    if not getattr(config, flag):
        raise ConfigError(
            f"--protocols={name} needs --{flag}: which data to learn from and "
            "to measure on."
        )
    if config.strategy == "multi_worker":
        raise ConfigError(
            f"--protocols={name} runs on one machine: leave out "
            "--strategy=multi_worker."
        )
    steps = _settings(config, TASKS[name]).steps
    if config.dense_warmup >= steps:
        raise ConfigError(
            f"--dense_warmup={config.dense_warmup} leaves nothing of the "
            f"{steps} steps of the training (--dense_steps)."
        )


def _check_shares(config: Config, name: str, strategy) -> None:
    batch_size = _settings(config, TASKS[name]).batch_size
    if batch_size % strategy.num_replicas_in_sync:
        raise ConfigError(
            f"--dense_batch_size={batch_size} cannot be shared equally by "
            f"{strategy.num_replicas_in_sync} replicas of --strategy="
            f"{config.strategy}."
        )


def _settings(config: Config, task: DenseTask) -> _Settings:
    """Those of the recipe, and what flags have in their place."""
    recipe = task.recipe
    batch_size = config.dense_batch_size or recipe.batch_size
    rate, decay = config.dense_rate, config.dense_weight_decay
    size = config.dense_size or recipe.size
    return _Settings(
        config.dense_steps or recipe.steps,
        batch_size,
        recipe.rate * batch_size / recipe.batch_size if rate is None else rate,
        recipe.weight_decay if decay is None else decay,
        (size[0], size[-1]),
    )


def _run_protocol(
    name: str,
    splits: SceneSplits,
    config: Config,
    encoder: keras.Model,
    path: pathlib.Path,
    folder: pathlib.Path,
    strategy: tf.distribute.Strategy,
) -> None:
    """Trains and measures, or takes what was kept; adds it to the report."""
    task = TASKS[name]
    data = getattr(config, task.flag)
    settings = {key: getattr(config, key) for key in _SETTINGS}
    digest = digest_of(path)
    if next(iter(splits.test), None) is None:
        raise ConfigError(
            f"--{task.flag}={data}: none of its {splits.test.size} test images "
            "can be used."
        )
    for note in splits.notes:
        print(f"byol_tf: {note}", file=sys.stderr)
    work = folder_for(
        folder / "protocols" / folder_name(data) / name,
        {"encoder": digest, "data": splits.fingerprint, **settings},
        anew=not config.resume,
    )
    splits.skipped.keep_in(work / "skipped.txt")
    sheet, saved_model = work / "sheet.png", work / "saved_model"
    results, state = work / "results.json", work / "state.npz"
    if not (sheet.exists() and saved_model.exists()):
        results.unlink(missing_ok=True)  # They are made again, with it.
    kept = KeptResults(results)

    def measure():
        task.check(splits)
        used = _settings(config, task)
        model = _network(task, splits, config, encoder, used, strategy)
        train(
            model,
            lambda first_step, worker, workers: task.batches(
                splits.train,
                used.batch_size,
                used.size,
                config.seed,
                first_step,
                worker,
                workers,
            ),
            used.batch_size,
            state,
            name,
            splits.skipped.check,
            kept.write,
        )
        figures = task.figures(model, splits)
        splits.skipped.check()
        first = list(itertools.islice(splits.test, _DRAWN))
        task.draw(
            model,
            first,
            splits.class_names,
            sheet,
        )
        difference = export_dense_model(model, saved_model, first[0]["image"])
        return {
            "protocol": name,
            "data": data,
            "encoder": digest,
            "rows": [
                {
                    "name": f"{config.dense_encoder} encoder",
                    "metric": metric,
                    **estimate._asdict(),
                    "chosen": {},
                    "paper": task.published.get(metric),
                    "paper_data": task.published_data,
                }
                for metric, estimate in figures.items()
            ],
            "differs": _differences(config, task, used, path, encoder),
            "notes": [
                *splits.notes,
                *_left_out(splits, work.relative_to(folder)),
                f"`{saved_model.relative_to(folder)}`, loaded back, differs by "
                f"at most {difference:.1e}.",
            ],
            "sheet": str(sheet.relative_to(folder)),
            "images": {
                "train": splits.train.size,
                "test": splits.test.size,
            },
            "seed": config.seed,
            "settings": settings,
            "seconds": kept.seconds,
        }

    try:
        result = kept.once("result", measure)
        state.unlink(missing_ok=True)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"--protocols={name}, {data}: {error}") from error
    result |= {"encoder_path": str(path)}
    report.add_protocol(folder, result)
    print(report.protocols_text([result]))


def _left_out(splits: SceneSplits, work: pathlib.Path) -> list[str]:
    """What of the data was not used, in a sentence."""
    skipped, found = splits.skipped, []
    if len(skipped):
        found.append(f"{len(skipped)} of {skipped.total} images")
    if skipped.parts:
        found.append(f"{skipped.parts} objects")
    if not found:
        return []
    return [
        f"{' and '.join(found)} could not be used: `{work / 'skipped.txt'}`."
    ]


def _network(
    task, splits, config, encoder, used: _Settings, strategy
) -> DenseModel:
    """Compiled; its new weights are drawn by --seed."""
    keras.utils.set_random_seed(config.seed)
    with strategy.scope():
        model = task.network(
            encoder,
            splits,
            used.size,
            total_steps=used.steps,
            frozen=config.dense_encoder == "frozen",
        )
        schedule = task.recipe.schedule(
            used.rate, used.steps, config.dense_warmup
        )
        model.compile(Nesterov(schedule, weight_decay=used.weight_decay))
    return model


def _differences(
    config: Config,
    task: DenseTask,
    used: _Settings,
    path: pathlib.Path,
    encoder: keras.Model,
) -> list[str]:
    """In what a measurement differs from the paper's: a few words each."""
    recipe = task.recipe
    found = [f"data: {getattr(config, task.flag)}, not {task.published_data}"]
    found += paper.encoder_differences(encoder, pretraining_of(path))
    found += task.differs
    if config.dense_encoder == "frozen":
        found.append("the encoder stays as it is")
    for key, value in dataclasses.asdict(used).items():
        published = getattr(recipe, key)
        if value != published and key != "rate":
            found.append(f"{key.replace('_', ' ')} {value}, not {published}")
    if config.dense_rate is not None:
        found.append(f"rate {config.dense_rate:g}")
    return found
