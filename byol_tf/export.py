"""The job `export`: an encoder as a SavedModel, checked against itself."""

import numpy as np

from byol_tf import report
from byol_tf.config import Config
from byol_tf.model.build import load_encoder
from byol_tf.serving import export_saved_model, max_abs_difference
from byol_tf.training.run_folder import encoder_path, open_results_folder

# Random images on which export and original are compared.
_COMPARED = 16


def run(config: Config) -> Config:
    """Writes `saved_model/` into the run folder, and loads it back to compare.

    Returns:
      The settings, as they are.

    Raises:
      ConfigError: if there is no encoder, or the folder cannot be written.
    """
    path = encoder_path(config)
    encoder = load_encoder(path)
    folder = open_results_folder(config)
    size = config.image_size or 224
    images = np.random.RandomState(config.seed).rand(_COMPARED, size, size, 3)
    images = images.astype(np.float32)
    if not np.isfinite(encoder(images)).all():
        skipped = "The encoder's features are not finite."
        report.update(folder, export={"skipped": skipped})
        return config
    export_saved_model(
        encoder, folder / "saved_model", size, config.eval_crop or 1.0
    )
    difference = max_abs_difference(encoder, folder / "saved_model", images)
    report.update(folder, export={"max_abs_diff": difference})
    return config
