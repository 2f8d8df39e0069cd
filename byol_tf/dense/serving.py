"""A dense task's network as a SavedModel."""

import pathlib
import shutil

import numpy as np
import tensorflow as tf

from byol_tf.dense.dense_model import DenseModel


def export_dense_model(
    model: DenseModel, path: pathlib.Path, image: np.ndarray
) -> float:
    """Writes a network for TensorFlow Serving, and loads it back to compare.

    `serving_default`: `images`, float32 [n, height, width, 3] in [0, 1], to
    what `predictions` of the network gives. What stood at `path` is replaced
    when the new one is complete.

    Args:
      model: the network.
      path: of the folder.
      image: uint8 [height, width, 3], to compare on.

    Returns:
      The greatest difference of a number that it gives.

    Raises:
      RuntimeError: if it is more than rounding explains.
    """

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, None, None, 3], tf.float32, "images")
        ]
    )
    def from_images(images):
        return model.predictions(images)

    partial = path.with_name(path.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    module = tf.Module()
    module.weights = [weight.value for weight in model.weights]
    tf.saved_model.save(
        module, str(partial), signatures={"serving_default": from_images}
    )
    images = tf.constant(image[None] / np.float32(255), tf.float32)
    loaded = tf.saved_model.load(str(partial))
    served = loaded.signatures["serving_default"](images=images)
    difference = 0.0
    for name, expected in model.predict_one(images).items():
        expected = expected.numpy().astype(np.float64)
        found = served[name].numpy().astype(np.float64)
        difference = max(
            difference, float(np.abs(found - expected).max(initial=0))
        )
        if not np.allclose(found, expected, 1e-3, 1e-3):
            raise RuntimeError(
                f"{path} gives other {name} than the network it was exported "
                f"from: they differ by {difference:.1e}."
            )
    shutil.rmtree(path, ignore_errors=True)
    partial.rename(path)
    return difference
