"""Nesterov's momentum as the release has it for its classifiers.

Source: optax's `trace(nesterov=True)`, which the official
`byol/eval_experiment.py` calls.
"""

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="byol_tf")
class Nesterov(keras.optimizers.Optimizer):
    """Momentum SGD that looks one step ahead.

    For a parameter p with gradient g, learning rate lr and momentum buffer m:

        g <- g + weight_decay * p
        m <- momentum * m + g
        p <- p - lr * (momentum * m + g)

    Keras's `SGD(nesterov=True)` has the learning rate in its buffer, which is
    another method as soon as the rate changes.

    Args:
      learning_rate: a float or a schedule.
      momentum: in [0, 1).
      weight_decay: l2 penalty of kernels, the variables of rank 2 or more; part
        of the gradient, not Keras's decoupled one.
    """

    def __init__(
        self,
        learning_rate=0.1,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        name: str = "nesterov",
        **kwargs,
    ):
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        self.momentum = momentum
        self.l2_weight_decay = weight_decay

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self.momentums = self.add_optimizer_variables(variables, "momentum")

    def update_step(self, gradient, variable, learning_rate):
        learning_rate = tf.cast(learning_rate, variable.dtype)
        gradient = tf.cast(gradient, variable.dtype)
        momentum = self.momentums[self._get_variable_index(variable)]
        if variable.shape.rank > 1:
            gradient += self.l2_weight_decay * variable
        self.assign(momentum, self.momentum * momentum + gradient)
        ahead = self.momentum * momentum + gradient
        self.assign_sub(variable, learning_rate * ahead)

    def get_config(self):
        return {
            **super().get_config(),
            "momentum": self.momentum,
            "weight_decay": self.l2_weight_decay,
        }
