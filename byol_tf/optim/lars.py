"""LARS, layer-wise adaptive rate scaling (You et al., arXiv 1708.03888).

Source: the official `byol/utils/optimizers.py`.
"""

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="byol_tf")
class LARS(keras.optimizers.Optimizer):
    """Momentum SGD whose step on a kernel is a fraction of the kernel's norm.

    For a kernel p with gradient g, learning rate lr and momentum buffer m:

        g <- g + weight_decay * p
        g <- g * trust_coefficient * ||p|| / ||g||    (unless a norm is 0)
        m <- momentum * m + g
        p <- p - lr * m

    Biases and BatchNorm parameters, which are the variables of rank 0 or 1,
    skip the first two lines: plain momentum at the full learning rate.

    Args:
      learning_rate: a float or a schedule, e.g. `WarmupCosine`.
      momentum: in [0, 1).
      weight_decay: l2 penalty, part of the gradient; not Keras's decoupled
        one, so it is not handed to the base class.
      trust_coefficient: eta in the LARS paper.
    """

    def __init__(
        self,
        learning_rate=0.2,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust_coefficient: float = 1e-3,
        name: str = "lars",
        **kwargs,
    ):
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        self.momentum = momentum
        self.l2_weight_decay = weight_decay
        self.trust_coefficient = trust_coefficient

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self.momentums = self.add_optimizer_variables(variables, "momentum")

    def momentum_of(self, variable):
        """The momentum buffer m of a variable."""
        return self.momentums[self._get_variable_index(variable)]

    def update_step(self, gradient, variable, learning_rate):
        gradient = tf.cast(gradient, variable.dtype)
        if variable.shape.rank > 1:
            gradient = self.decayed(gradient, variable)
            gradient *= self.trust_ratio(gradient, variable)
        # The last two lines in one operation, which reads and writes half as
        # much as two assignments.
        tf.raw_ops.ResourceApplyMomentum(
            var=_handle(variable),
            accum=_handle(self.momentum_of(variable)),
            lr=tf.cast(learning_rate, variable.dtype),
            grad=gradient,
            momentum=tf.constant(self.momentum, variable.dtype),
            use_locking=True,
        )

    def decayed(self, gradient, variable):
        """A kernel's gradient with that of the weight decay."""
        if not self.l2_weight_decay:
            return gradient
        return gradient + self.l2_weight_decay * variable

    def trust_ratio(self, gradient, variable):
        """trust_coefficient * ||p|| / ||g||, or 1 if a norm is 0; a scalar.

        Args:
          gradient: g, of `decayed`.
          variable: p, a kernel.
        """
        parameter_norm = _norm(tf.convert_to_tensor(variable))
        gradient_norm = _norm(gradient)
        ratio = self.trust_coefficient * parameter_norm / gradient_norm
        both_positive = (parameter_norm > 0) & (gradient_norm > 0)
        return tf.where(both_positive, ratio, tf.ones_like(ratio))

    def get_config(self):
        return {
            **super().get_config(),
            "momentum": self.momentum,
            "weight_decay": self.l2_weight_decay,
            "trust_coefficient": self.trust_coefficient,
        }


def _norm(x):
    """As `tf.norm`, in one operation that keeps no squares."""
    return tf.sqrt(2 * tf.nn.l2_loss(x))


def _handle(variable):
    """The resource of a Keras variable, or of TensorFlow's own."""
    if isinstance(variable, keras.Variable):
        variable = variable.value
    return variable.handle
