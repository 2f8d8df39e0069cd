"""The job `evaluate`: what is the representation of an encoder worth?

With --protocols by the paper's protocols, else by a quick comparison. Each
result is in the run folder's report as soon as it is there; what a protocol
keeps to go on from, if it is killed, is in the folder's `protocols/`.
"""

import dataclasses
import functools
import pathlib

import keras
import numpy as np

from byol_tf import report
from byol_tf.config import DENSE_PROTOCOLS, Config, ConfigError
from byol_tf.data.pipeline import open_dataset
from byol_tf.data.skipped import Skipped
from byol_tf.data.sources import Dataset, Source
from byol_tf.data.splits import (
    fingerprint_of,
    held_out,
    joined,
    labels_of,
    subset,
)
from byol_tf.data.transfer_sets import (
    IN_TFDS,
    TransferSplits,
    check_transfer_set,
    open_transfer_set,
)
from byol_tf.evaluation import paper
from byol_tf.evaluation.comparison import compare
from byol_tf.evaluation.features import features_of_gray
from byol_tf.evaluation.frozen_protocols import check_neighbours
from byol_tf.evaluation.kept_results import (
    KeptResults,
    folder_for,
    folder_name,
)
from byol_tf.evaluation.protocols import PROTOCOLS
from byol_tf.evaluation.task import Task
from byol_tf.model.build import load_encoder
from byol_tf.training.run_folder import (
    digest_of,
    encoder_path,
    locked,
    open_results_folder,
    pretraining_of,
)

# Settings that decide what the images look like, and which are in a split.
_OF_IMAGES = (
    "image_size",
    "eval_crop",
    "upscale_small_images",
    "validation_fraction",
    "train_split",
    "test_split",
    "tfrecord_test",
)

# The paper's validation split of ImageNet has so many images (appendix C).
MOST_VALIDATION_IMAGES = 10_009


@dataclasses.dataclass(frozen=True)
class _Data:
    """Images to measure on.

    Attributes:
      name: as the flags have it.
      splits: they.
      training: its train and validation together.
      skipped: images of it that cannot be used.
    """

    name: str
    splits: TransferSplits
    training: Source
    skipped: Skipped

    @functools.cached_property
    def fingerprints(self) -> dict[str, str]:
        """Which images there are in each split."""
        return {
            name: fingerprint_of(getattr(self.splits, name))
            for name in ("train", "validation", "test")
        }

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader should know of it, a sentence each."""
        train, test = map(labels_of, (self.training, self.splits.test))
        if train.ndim > 1:
            return self.splits.notes
        classes = np.unique(train[train >= 0])
        names = [
            self.splits.class_names[label]
            for label in np.setdiff1d(classes, test)
        ]
        if not names:
            return self.splits.notes
        listed = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
        return (
            *self.splits.notes,
            f"no test image is of {len(names)} of the {len(classes)} classes: "
            f"{listed}.",
        )


@dataclasses.dataclass(frozen=True)
class _Encoder:
    """What is measured.

    Attributes:
      model: images -> features.
      path: of its file.
      digest: of the file.
    """

    model: keras.Model
    path: pathlib.Path
    digest: str


def run(config: Config) -> Config:
    """Evaluates an encoder, and writes the result into the run folder's report.

    Returns:
      The settings, with those that the data decides.

    Raises:
      ConfigError: if there is no encoder, or the settings cannot work.
    """
    dense = set(config.protocols) & set(DENSE_PROTOCOLS)
    others = tuple(name for name in config.protocols if name not in dense)
    if dense and not others:
        return config
    path = encoder_path(config)
    if others:
        _run_protocols(config.resolved(protocols=others), path)
        return config
    dataset, config = open_dataset(config)
    encoder = load_encoder(path)
    features_of_gray(encoder, config.image_size)  # It raises what is wrong.
    folder = open_results_folder(config)
    of = {"encoder": digest_of(path)}
    if dataset.test is None:
        skipped = f"{config.dataset} has no held-out images with labels."
        report.set_evaluation(folder, of | {"skipped": skipped})
        return config
    dataset.skipped.keep_in(folder / "skipped.txt")
    evaluation = of | compare(config, dataset, encoder, folder)
    report.set_evaluation(folder, evaluation)
    if "skipped" not in evaluation:
        print(report.evaluation_text(evaluation))
    return config


def _run_protocols(config: Config, path: pathlib.Path) -> Config:
    """Each of --protocols on each of its data sets, one after the other."""
    own, sets = None, []
    for name in config.transfer_sets:
        sets += IN_TFDS if name == "all" else [name]
    for name in sets:
        check_transfer_set(name, config)
    if not sets or not all(PROTOCOLS[p].is_transfer for p in config.protocols):
        own, config = _own_data(config)
        if "knn" in config.protocols:  # Before others take their time.
            check_neighbours(config, own.training.size)
    else:
        config = config.resolved(
            image_size=config.image_size or 224,
            eval_crop=config.eval_crop or 0.875,
        )
    model = load_encoder(path)
    if not model.weights:
        raise ConfigError(f"--encoder: {path} holds a model without weights.")
    encoder = _Encoder(model, path, digest_of(path))
    folder = open_results_folder(config)
    begun = set()  # Folders that --noresume has emptied.
    with locked(config):
        for protocol in config.protocols:
            if not (sets and PROTOCOLS[protocol].is_transfer):
                _run_protocol(protocol, own, config, encoder, folder, begun)
                continue
            for name in sets:
                data = _transfer_data(name, config)
                _run_protocol(protocol, data, config, encoder, folder, begun)
    return config


def _run_protocol(
    protocol: str,
    data: _Data,
    config: Config,
    encoder: _Encoder,
    folder: pathlib.Path,
    begun: set[tuple],
) -> None:
    """Measures, or takes what was kept, and adds it to the report.

    Args:
      protocol: one of PROTOCOLS.
      data: to measure on.
      config: the settings.
      encoder: to measure.
      folder: of the run.
      begun: folders that --noresume has emptied, by parent and settings; added
        to.
    """
    of = {
        "encoder": encoder.digest,
        "data": data.fingerprints,
        **{name: getattr(config, name) for name in ("seed", *_OF_IMAGES)},
    }
    settings = {
        name: getattr(config, name) for name in PROTOCOLS[protocol].settings
    }
    place = folder / "protocols" / folder_name(data.name)

    def own(parent, of, **options):
        anew = not config.resume and (parent, str(of)) not in begun
        begun.add((parent, str(of)))
        return folder_for(parent, of, anew=anew, **options)

    work = own(place / protocol, of | settings)
    kept = KeptResults(work / "results.json")
    splits = data.splits
    data.skipped.keep_in(folder / "skipped.txt")

    def measure():
        task = Task(
            encoder.model,
            splits.train,
            splits.validation,
            data.training,
            splits.test,
            splits.class_names,
            splits.metric,
            config,
            data.skipped,
            own(place / "features", of, alone=True),
            work,
            kept,
        )
        task.check()
        rows = []
        for row in PROTOCOLS[protocol].rows(task):
            rows.append(_as_json(protocol, data.name, row, encoder.model))
            data.skipped.check()
        return {
            "protocol": protocol,
            "data": data.name,
            "encoder": encoder.digest,
            "rows": rows,
            "differs": paper.differences(
                protocol,
                config,
                pretraining_of(encoder.path),
                encoder.model,
                data.name,
                [row["chosen"].get("batch_size") for row in rows],
            ),
            "notes": list(data.notes),
            "images": _counts(data, PROTOCOLS[protocol].chooses),
            "fingerprints": data.fingerprints,
            "seed": config.seed,
            "settings": settings
            | {name: getattr(config, name) for name in _OF_IMAGES},
            "seconds": kept.seconds,
        }

    try:
        result = kept.once("result", measure)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(
            f"--protocols={protocol}, {data.name}: {error}"
        ) from error
    result |= {"encoder_path": str(encoder.path)}
    report.add_protocol(folder, result)
    print(report.protocols_text([result]))


def _counts(data, with_validation: bool) -> dict[str, int]:
    """Images in each split; those of validation stand with train's, or not."""
    counts = {
        name: getattr(data.splits, name).size for name in data.fingerprints
    }
    if not with_validation:
        counts["train"] += counts.pop("validation")
    return counts


def _as_json(protocol, data_name, row, encoder) -> dict:
    known = paper.published(
        protocol, row.name, row.metric, data_name, paper.network_of(encoder)
    )
    figure, of = known or (None, None)
    return {
        "name": row.name,
        "metric": row.metric,
        **row.estimate._asdict(),
        "chosen": row.chosen,
        "paper": figure,
        "paper_data": of,
    }


def _own_data(config: Config) -> tuple[_Data, Config]:
    """--dataset, its labelled images in three splits."""
    dataset, config = open_dataset(config)
    if dataset.test is None:
        raise ConfigError(
            f"--protocols needs held-out images with labels, and --dataset="
            f"{config.dataset} has none."
        )
    training, test = _labelled(dataset.train), _labelled(dataset.test)
    if not training.size or not test.size:
        raise ConfigError(
            f"--protocols needs labels, and --dataset={config.dataset} has "
            f"{training.size} training and {test.size} test images with one."
        )
    labels = labels_of(training)
    _check_classes(dataset, labels, labels_of(test), config)
    count = min(
        round(config.validation_fraction * len(labels)), MOST_VALIDATION_IMAGES
    )
    chosen, _ = held_out(labels, count / len(labels), config.seed, total=count)
    splits = TransferSplits(
        subset(training, np.flatnonzero(~chosen)),
        subset(training, np.flatnonzero(chosen)),
        test,
        dataset.class_names,
        "top1",
        dataset.notes,
    )
    return _Data(config.dataset, splits, training, dataset.skipped), config


def _labelled(source: Source) -> Source:
    labels = labels_of(source)
    if (labels >= 0).all():
        return source
    return subset(source, np.flatnonzero(labels >= 0))


def _check_classes(
    dataset: Dataset, labels: np.ndarray, test_labels: np.ndarray, config
) -> None:
    """Raises ConfigError for classes that one cannot choose or test on."""
    names = dataset.class_names
    unknown = np.setdiff1d(test_labels, labels)
    if len(unknown):
        raise ConfigError(
            f"--dataset={config.dataset} has test images of class "
            f"{names[unknown[0]]!r}, of which it has no training image; give "
            "both splits the same classes."
        )
    classes, counts = np.unique(labels, return_counts=True)
    if len(classes) < 2:
        raise ConfigError(
            f"--dataset={config.dataset} has images of {len(classes)} class; "
            "a protocol needs two at least."
        )
    if counts.min() < 2:
        raise ConfigError(
            f"--dataset={config.dataset} has one training image of class "
            f"{names[classes[counts.argmin()]]!r}; to choose hyperparameters "
            "two are needed at least, add images or leave the class out."
        )


def _transfer_data(name: str, config: Config) -> _Data:
    """One of --transfer_sets."""
    skipped = Skipped(config.max_corrupt_fraction, f"--transfer_sets={name}")
    splits = open_transfer_set(name, config, skipped)
    training = joined(splits.train, splits.validation)
    return _Data(name, splits, training, skipped)
