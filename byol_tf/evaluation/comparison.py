"""What a frozen encoder is worth, quickly: beside no training, and pixels."""

import pathlib

import keras
import numpy as np

from byol_tf import plots
from byol_tf.config import Config
from byol_tf.data.pipeline import evaluation_batches
from byol_tf.data.sources import Dataset
from byol_tf.evaluation.features import extract, raw_pixels
from byol_tf.evaluation.knn import NEIGHBOURS, knn_accuracy, nearest
from byol_tf.evaluation.linear import linear_accuracy

# Rows and columns of the picture of nearest neighbours.
_QUERIES, _NEAREST = 10, 6


def compare(
    config: Config, dataset: Dataset, encoder: keras.Model, folder: pathlib.Path
) -> dict:
    """kNN and linear accuracy of an encoder, beside what it should exceed.

    That is the same network with its random initialisation, and the images' raw
    pixels, with --baselines. Draws `plots/neighbours.png`.

    Args:
      config: of the run, with its `image_size` and `eval_crop`.
      dataset: with test images.
      encoder: images -> features.
      folder: of the run.

    Returns:
      The section `evaluation` of the report; only why it is `skipped`, if the
      labels or the features do not allow one.
    """
    keras.utils.set_random_seed(config.seed)
    random_init = type(encoder).from_config(encoder.get_config())

    def batches_of(source, numbers=None):
        return evaluation_batches(
            source, config.image_size, config.eval_crop, numbers
        )

    learned, splits, labelled = [], [], []
    for name, source in (("train", dataset.train), ("test", dataset.test)):
        features, labels = extract(
            encoder, batches_of(source), f"features, {name}"
        )
        dataset.skipped.check()
        numbers = np.flatnonzero(labels >= 0)
        learned += [features[numbers], labels[numbers]]
        labelled.append(numbers)
        splits.append(batches_of(source, numbers))
    skipped = None
    if not all(map(len, labelled)):
        skipped = f"{config.dataset} has no images with labels in both splits."
    elif not all(np.isfinite(features).all() for features in learned[::2]):
        skipped = "The encoder's features are not finite."
    elif not np.isin(learned[3], learned[1]).all():
        skipped = (
            f"{config.dataset} has test images of classes that no training "
            "image is of."
        )
    if skipped:
        return {"skipped": skipped}
    _draw_neighbours(
        config, dataset, learned, labelled, folder / "plots/neighbours.png"
    )

    def random_features():
        return [
            array
            for name, batches in zip(("train", "test"), splits)
            for array in extract(
                random_init, batches, f"random encoder, {name}"
            )
        ]

    baselines = {}
    if config.baselines:
        baselines = {
            "random_init": _accuracies(*random_features()),
            "raw_pixels": _accuracies(
                *(array for batches in splits for array in raw_pixels(batches))
            ),
        }
    return _accuracies(*learned) | {
        "dataset": config.dataset,
        "baselines": baselines,
        "neighbours": min(NEIGHBOURS, len(labelled[0])),
        "train_images": len(labelled[0]),
        "test_images": len(labelled[1]),
    }


def _accuracies(features, labels, test_features, test_labels) -> dict:
    arrays = (features, labels, test_features, test_labels)
    return {
        "knn_top1": knn_accuracy(*arrays, k=min(NEIGHBOURS, len(features))),
        "linear_top1": linear_accuracy(*arrays),
    }


def _draw_neighbours(
    config: Config, dataset: Dataset, learned, labelled, path
) -> None:
    """The first test image of each class, and those most like it.

    Args:
      config: of the run.
      dataset: of the images.
      learned: features and labels, of training and test images.
      labelled: which images these are, by number.
      path: of the picture.
    """
    features, _, test_features, test_labels = learned
    _, firsts = np.unique(test_labels, return_index=True)
    queries = firsts[:_QUERIES]
    count = min(_NEAREST, len(features))
    numbers, _ = nearest(features, test_features[queries], count)
    train_numbers, test_numbers = labelled

    def named(source, chosen):
        batches = evaluation_batches(
            source, config.image_size, config.eval_crop, chosen
        )
        return [
            (image, dataset.class_names[label])
            for images, labels in batches.as_numpy_iterator()
            for image, label in zip(images, labels)
        ]

    found = iter(named(dataset.train, train_numbers[numbers.flatten()]))
    plots.draw_neighbours(
        named(dataset.test, test_numbers[queries]),
        [[next(found) for _ in row] for row in numbers],
        path,
    )
