"""Gradients that cost time in place of memory.

Source: T. Chen et al., arXiv 1604.06174. `tf.recompute_grad` does the same in
eager mode. In a `tf.function` it saved nothing (TensorFlow 2.21, measured): the
graph optimizer removes what should put the second computation off, and nothing
makes the gradients of one function precede those of the next.
"""

from collections.abc import Callable

import tensorflow as tf


def recomputed(function: Callable) -> Callable:
    """`function`, run a second time for its gradient.

    What it computes on the way is not kept between the two runs, only its
    arguments are.

    Args:
      function: floating tensors -> a tensor. It must be pure, and read no
        variable: a variable's value is an argument.

    Returns:
      A function with the same result and the same gradients.
    """

    @tf.custom_gradient
    def result_and_gradients(*arguments):
        def gradients(upstream):
            with tf.GradientTape() as tape:
                later = [_after(upstream, arguments[0]), *arguments[1:]]
                tape.watch(later)
                result = function(*later)
            first, *others = tape.gradient(result, later, upstream)
            # All of them before the next function's begin: none keeps what was
            # computed for it waiting in memory.
            with tf.control_dependencies(others):
                return [tf.identity(first), *others]

        # Its own gradient is not used; it stops an eager tape from recording.
        return tf.recompute_grad(function)(*arguments), gradients

    return result_and_gradients


def _after(upstream, argument):
    """The argument, which cannot be had before `upstream` is there.

    By a sum, because XLA does not respect control dependencies.
    """
    number = tf.reshape(upstream, [-1])[0]
    zero = tf.minimum(tf.abs(number), 0)  # No constant to the optimizer.
    return argument + tf.cast(zero, argument.dtype)
