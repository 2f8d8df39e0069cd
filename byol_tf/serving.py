"""An encoder as a SavedModel, and the proof that it gives the same features."""

import pathlib
import shutil

import keras
import numpy as np
import tensorflow as tf

from byol_tf.data.images import central_crop, decode_in_graph

# Accepted difference of a feature, as a share of the largest feature, by the
# encoder's dtype of computation: some ten roundings to it.
TOLERANCE = {"float16": 1e-2, "bfloat16": 8e-2}
FLOAT32_TOLERANCE = 1e-4


def export_saved_model(
    encoder: keras.Model, path: pathlib.Path, image_size: int, eval_crop: float
) -> None:
    """Writes an encoder for TensorFlow Serving, with two signatures.

    * `serving_default`: `images`, float32 [n, height, width, 3] in [0, 1], to
      `features`, float32 [n, d].
    * `encoded_images`: `encoded`, string [n], the bytes of image files, which
      are cropped and resized as in evaluation, to `features`.

    What stood at `path` is replaced when the new model is complete.
    """

    def features(batch):
        outputs = tf.cast(encoder(batch, training=False), tf.float32)
        return {"features": outputs}

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, None, None, 3], tf.float32, "images")
        ]
    )
    def from_images(images):
        return features(images)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "encoded")])
    def from_encoded(encoded):
        return features(
            tf.map_fn(
                lambda file: central_crop(
                    file, image_size, eval_crop, decode_in_graph
                ),
                encoded,
                fn_output_signature=tf.float32,
            )
        )

    partial = path.with_name(path.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    module = tf.Module()
    module.encoder = encoder
    tf.saved_model.save(
        module,
        str(partial),
        signatures={
            "serving_default": from_images,
            "encoded_images": from_encoded,
        },
    )
    shutil.rmtree(path, ignore_errors=True)
    partial.rename(path)


def max_abs_difference(
    encoder: keras.Model, path: pathlib.Path, batch: np.ndarray
) -> float:
    """Greatest difference of a feature between the encoder and its export.

    Raises:
      RuntimeError: if it is more than rounding explains.
    """
    served = tf.saved_model.load(str(path)).signatures["serving_default"]
    features = served(images=tf.constant(batch))["features"].numpy()
    expected = np.float32(encoder(tf.constant(batch), training=False))
    difference = float(np.max(np.abs(features - expected)))
    tolerance = TOLERANCE.get(encoder.compute_dtype, FLOAT32_TOLERANCE)
    if not difference <= tolerance * np.max(np.abs(expected)):
        raise RuntimeError(
            f"{path} gives features that differ by {difference} from those of "
            "the encoder it was exported from."
        )
    return difference
