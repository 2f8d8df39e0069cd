"""The job `preview`: a picture of the augmented views."""

import numpy as np
import tensorflow as tf

from byol_tf import augment, plots
from byol_tf.config import Config
from byol_tf.data.pipeline import (
    evaluation_batches,
    example_order,
    open_dataset,
    training_batches,
)
from byol_tf.model.build import recipes
from byol_tf.training.run_folder import open_results_folder

_IMAGES = 10


def run(config: Config) -> Config:
    """Draws images of the first batch, each with its two views.

    The picture is `plots/augmented_pairs.png` in the run folder.

    Returns:
      The settings, with those that the data decides.
    """
    dataset, config = open_dataset(config)
    folder = open_results_folder(config)
    count = min(_IMAGES, config.batch_size)
    batches = training_batches(
        dataset.train, count, config.image_size, config.seed, recipes(config)
    )
    batch, _ = next(iter(batches))
    view1, view2 = augment.views(
        batch, [config.seed, 0], config.image_size, recipes(config)
    )
    numbers = example_order(
        tf.range(count, dtype=tf.int64), dataset.train.size, config.seed
    )
    originals, _ = next(
        iter(
            evaluation_batches(
                dataset.train, config.image_size, 1.0, numbers.numpy()
            )
        )
    )
    path = folder / "plots" / "augmented_pairs.png"
    plots.draw_views(*map(np.asarray, (originals, view1, view2)), path)
    print(path)
    return config
