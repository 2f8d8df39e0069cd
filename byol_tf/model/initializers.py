"""The initial distribution of all kernels in the official release."""

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="byol_tf")
class _DrawnInFloat32(keras.initializers.VarianceScaling):
    """Gives a seed the same kernels in every dtype, but for rounding."""

    def __call__(self, shape, dtype=None):
        dtype = keras.backend.standardize_dtype(dtype)
        return tf.cast(super().__call__(shape, "float32"), dtype)


def fan_in_truncated_normal() -> keras.initializers.Initializer:
    """A normal of deviation 1/sqrt(fan_in), truncated at two deviations.

    This is dm-haiku's default. Cutting the tails leaves a deviation of
    0.8796/sqrt(fan_in); Keras's `VarianceScaling` makes up for the cut, so the
    factor stands in its scale.
    """
    return _DrawnInFloat32(
        scale=0.87962566103423978**2,
        mode="fan_in",
        distribution="truncated_normal",
    )
