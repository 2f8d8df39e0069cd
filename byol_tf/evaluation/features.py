"""The representation of a set of images: one vector each, and its label."""

import functools

import keras
import numpy as np
import tensorflow as tf
import tqdm

# Raw pixels are compared at this size at most.
RAW_PIXELS_SIDE = 32


def extract(
    encoder: keras.Model, batches: tf.data.Dataset, title: str = ""
) -> tuple[np.ndarray, np.ndarray]:
    """The frozen encoder's features of all images.

    Args:
      encoder: float32 images [batch, height, width, 3] in [0, 1] -> features.
      batches: of (images, labels).
      title: of a progress bar; without one there is none.

    Returns:
      float32 [n, d] and int32 [n].
    """
    return _collect(_compiled(encoder), batches, title)


@functools.lru_cache(maxsize=4)  # Monitoring asks again and again.
def _compiled(encoder: keras.Model):
    @tf.function(reduce_retracing=True)
    def features_of(images):
        return tf.cast(encoder(images, training=False), tf.float32)

    return features_of


def raw_pixels(
    batches: tf.data.Dataset, title: str = ""
) -> tuple[np.ndarray, np.ndarray]:
    """The images themselves as features, at most 32 x 32 pixels."""

    def pixels_of(images):
        side = min(images.shape[1], RAW_PIXELS_SIDE)
        if side < images.shape[1]:
            images = tf.image.resize(images, [side, side], antialias=True)
        return tf.reshape(images, [len(images), -1])

    features, labels = _collect(pixels_of, batches, title)
    channels = features.reshape(len(features), -1, 3)
    if (channels == channels[..., :1]).all():  # Gray: one channel says it all.
        features = channels[..., 0]
    return features, labels


def _collect(function, batches, title):
    bar = tqdm.tqdm(
        batches, title, unit="batch", disable=not title, leave=False
    )
    outputs = [
        (function(images).numpy(), label.numpy()) for images, label in bar
    ]
    return tuple(map(np.concatenate, zip(*outputs)))
