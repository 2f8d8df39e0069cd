"""The initial distribution of all kernels in the official release."""

import keras


def fan_in_truncated_normal() -> keras.initializers.Initializer:
    """A normal of deviation 1/sqrt(fan_in), truncated at two deviations.

    This is dm-haiku's default. Cutting the tails leaves a deviation of
    0.8796/sqrt(fan_in); Keras's `VarianceScaling` makes up for the cut, so the
    factor stands in its scale.
    """
    return keras.initializers.VarianceScaling(
        scale=0.87962566103423978**2,
        mode="fan_in",
        distribution="truncated_normal",
    )
