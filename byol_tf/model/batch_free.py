"""What stands in BatchNorm's place where no image may see the others.

Source: Richemond et al., "BYOL works even without batch statistics",
arXiv 2010.10241.
"""

import math

import keras
import tensorflow as tf

from byol_tf.model.distributed_fit import sublayers
from byol_tf.model.normalization import BatchNorm

# In a group of `GroupNorm`.
LEAST_CHANNELS = 4


class _ScaleAndOffset(keras.layers.Layer):
    """Has BatchNorm's two trainable vectors, and no statistics.

    Args:
      gamma_initializer: initial scale.
    """

    # What a call in training updates, as `BatchNorm` names it.
    statistics = ()

    def __init__(self, gamma_initializer="ones", **kwargs):
        super().__init__(**kwargs)
        self.gamma_initializer = keras.initializers.get(gamma_initializer)

    def build(self, input_shape):
        shape = (input_shape[-1],)
        self.gamma = self.add_weight(
            name="gamma",
            shape=shape,
            initializer=self.gamma_initializer,
            autocast=False,
        )
        self.beta = self.add_weight(
            name="beta", shape=shape, initializer="zeros", autocast=False
        )

    def get_config(self):
        return {
            **super().get_config(),
            "gamma_initializer": keras.initializers.serialize(
                self.gamma_initializer
            ),
        }


@keras.saving.register_keras_serializable(package="byol_tf")
class Affine(_ScaleAndOffset):
    """gamma * x + beta: BatchNorm without its normalisation."""

    def call(self, inputs, training=False):
        x = tf.cast(inputs, self.variable_dtype)
        return tf.cast(x * self.gamma + self.beta, inputs.dtype)


@keras.saving.register_keras_serializable(package="byol_tf")
class CalibratedAffine(Affine):
    """`Affine` that begins as BatchNorm would, on one batch of images.

    `calibrate` sets gamma and beta to what makes of that batch's activations
    what BatchNorm makes of them. From then on both are parameters like others:
    they learn, and the target's follow by moving average.
    """

    # Whether the next call calibrates.
    calibrating = False

    def call(self, inputs, training=False):
        if self.calibrating:
            x = tf.cast(inputs, self.variable_dtype)
            axes = list(range(x.shape.rank - 1))
            mean, variance = tf.nn.moments(x, axes)
            self.gamma.assign(self.gamma * tf.math.rsqrt(variance + 1e-5))
            self.beta.assign(self.beta - mean * self.gamma)
        return super().call(inputs)


@keras.saving.register_keras_serializable(package="byol_tf")
class GroupNorm(_ScaleAndOffset):
    """Group normalisation (Wu and He, arXiv 1803.08494).

    Each group of channels of one image has mean 0 and variance 1, before the
    scale and the offset.

    Args:
      groups: at most so many, all of one size, of `LEAST_CHANNELS` or more: a
        channel that is normalised alone, of one pixel, would be 0.
      epsilon: added to the variance.
      **kwargs: see `_ScaleAndOffset`.

    Call arguments:
      inputs: float [batch, channels] or [batch, height, width, channels].
      training: makes no difference.
    """

    def __init__(self, groups: int = 16, epsilon: float = 1e-5, **kwargs):
        super().__init__(**kwargs)
        self.groups = groups
        self.epsilon = epsilon

    def call(self, inputs, training=False):
        x = tf.cast(inputs, self.variable_dtype)
        centred = x - self._group_means(x)
        variance = self._group_means(tf.square(centred))
        scale = self.gamma * tf.math.rsqrt(variance + self.epsilon)
        return tf.cast(centred * scale + self.beta, inputs.dtype)

    def _group_means(self, x):
        """[batch, channels] or [batch, 1, 1, channels]: each its group's."""
        # Pixels first, then channels: both run along the memory.
        x = tf.reduce_mean(x, list(range(1, x.shape.rank - 1)), keepdims=True)
        channels = x.shape[-1]
        most = max(min(self.groups, channels // LEAST_CHANNELS), 1)
        groups = next(n for n in range(most, 0, -1) if channels % n == 0)
        parts = tf.reshape(x, [-1, groups, channels // groups])
        means = tf.reduce_mean(parts, 2, keepdims=True)
        means = tf.broadcast_to(means, tf.shape(parts))
        return tf.reshape(means, tf.shape(x))

    def get_config(self):
        return {
            **super().get_config(),
            "groups": self.groups,
            "epsilon": self.epsilon,
        }


@keras.saving.register_keras_serializable(package="byol_tf")
class StandardizedConv2D(keras.layers.Conv2D):
    """A convolution by standardised kernels (Qiao et al., arXiv 1903.10520).

    Of each output channel the weights have mean 0 and deviation
    1/sqrt(fan_in): activations keep their size, which that paper leaves to the
    normalisation that follows.
    """

    def convolution_op(self, inputs, kernel):
        kernel = standardized(tf.cast(kernel, self.variable_dtype))
        return super().convolution_op(inputs, tf.cast(kernel, inputs.dtype))


def standardized(kernel: tf.Tensor) -> tf.Tensor:
    """A kernel [height, width, in, out], standardised over all axes but out."""
    fan_in = math.prod(kernel.shape[:-1])
    mean, variance = tf.nn.moments(kernel, [0, 1, 2], keepdims=True)
    return (kernel - mean) * tf.math.rsqrt(fan_in * variance + 1e-8)


# What --normalization chooses among.
NORMALIZATIONS = {
    "batch": BatchNorm,
    "group": GroupNorm,
    "none": Affine,
    "calibrated": CalibratedAffine,
}


def normalization(kind: str, **arguments) -> keras.layers.Layer:
    """The layer of this kind in BatchNorm's place.

    Raises:
      ValueError: if there is no such kind.
    """
    if kind not in NORMALIZATIONS:
        raise ValueError(
            f"normalization={kind!r} is none of {', '.join(NORMALIZATIONS)}."
        )
    return NORMALIZATIONS[kind](**arguments)


def calibrate(network: keras.Model, images: tf.Tensor) -> None:
    """Calibrates a network's `CalibratedAffine` layers, in the forward order.

    Args:
      network: online or target.
      images: float [batch, height, width, 3] in [0, 1], some hundred views. In
        eager mode, and outside of a distribution strategy's scope.
    """
    layers = [
        layer
        for layer in sublayers(network)
        if isinstance(layer, CalibratedAffine)
    ]

    for layer in layers:
        layer.calibrating = True
    network(images)
    for layer in layers:
        layer.calibrating = False
