"""float16 overflows: one replica's overflow concerns all."""

import tensorflow as tf


def agree_on_overflow(gradients: list) -> tuple[list, tf.Tensor]:
    """Makes an overflow on any replica one on all of them.

    Keras's `LossScaleOptimizer` leaves a step out if the gradients are not
    finite, but looks at those of the first replica alone.

    Args:
      gradients: of this replica; None where none flows.

    Returns:
      The gradients, all NaN if any replica's were not finite; and whether that
      is so, a bool scalar.
    """
    context = tf.distribute.get_replica_context()
    are_finite = [
        tf.reduce_all(tf.math.is_finite(gradient))
        for gradient in gradients
        if gradient is not None
    ]
    overflows = context.all_reduce(
        tf.distribute.ReduceOp.SUM,
        tf.cast(~tf.reduce_all(are_finite), tf.float32),
    )
    overflowed = overflows > 0

    def voided(gradient):
        nan = tf.constant(float("nan"), gradient.dtype)
        return tf.where(overflowed, nan, gradient)

    return [g if g is None else voided(g) for g in gradients], overflowed
