"""Learning rate and target decay rate as functions of the step.

Source: arXiv 2006.07733, sections 3.2 and 3.3; the official
`byol/utils/schedules.py`.
"""

import math

import keras
import tensorflow as tf


def cosine_decay(step: tf.Tensor, total_steps: int) -> tf.Tensor:
    """(1 + cos(pi * step / total_steps)) / 2: from 1 to 0, and then 0.

    In float64 whatever the model's dtype: in float32, 1 - tau would lose the
    last digits of the end of a long training.
    """
    progress = tf.cast(step, tf.float64) / max(total_steps, 1)
    return 0.5 * (1.0 + tf.cos(math.pi * tf.minimum(progress, 1.0)))


def cosine_tau(step: tf.Tensor, tau_base: float, total_steps: int) -> tf.Tensor:
    """The target's decay rate, 1 - (1 - tau_base) (cos(pi k / K) + 1) / 2.

    Args:
      step: k, an integer scalar, 0 for the first step.
      tau_base: its value at step 0, in [0, 1].
      total_steps: K; from then on tau is 1.

    Returns:
      A float64 scalar.
    """
    return 1.0 - (1.0 - tau_base) * cosine_decay(step, total_steps)


def warmup_tau(
    step: tf.Tensor, tau_base: float, tau_end: float, warmup_steps: int
) -> tf.Tensor:
    """From `tau_base` to `tau_end` in a straight line, and constant after.

    Args:
      step: an integer scalar, 0 for the first step.
      tau_base: its value at step 0, in [0, 1].
      tau_end: its value from step `warmup_steps` on, in [0, 1].
      warmup_steps: at least 1.

    Returns:
      A float64 scalar.
    """
    progress = tf.minimum(tf.cast(step, tf.float64) / warmup_steps, 1.0)
    return tau_base + (tau_end - tau_base) * progress


@keras.saving.register_keras_serializable(package="byol_tf")
class WarmupCosine(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up from 0, then cosine decay to 0, without restarts.

    The peak is `base_rate * batch_size / 256`.

    Args:
      base_rate: learning rate for a batch of 256 images.
      batch_size: images in a step, over all replicas.
      total_steps: at which the rate reaches 0.
      warmup_steps: at which it reaches its peak; 0 starts there.

    Raises:
      ValueError: if the warm-up is longer than the training.
    """

    def __init__(
        self,
        base_rate: float,
        batch_size: int,
        *,
        total_steps: int,
        warmup_steps: int = 0,
    ):
        if not 0 <= warmup_steps <= total_steps:
            raise ValueError(
                f"WarmupCosine: warmup_steps={warmup_steps} is not between 0 "
                f"and total_steps={total_steps}."
            )
        self.base_rate = base_rate
        self.batch_size = batch_size
        self.total_steps = total_steps
        self.warmup_steps = warmup_steps

    def __call__(self, step):
        peak = self.base_rate * self.batch_size / 256
        step = tf.cast(step, tf.float64)
        warmup = step / max(self.warmup_steps, 1)
        decay = cosine_decay(
            step - self.warmup_steps, self.total_steps - self.warmup_steps
        )
        rate = peak * tf.where(step < self.warmup_steps, warmup, decay)
        # The release rounds the rate to float32, whatever the model's dtype.
        return tf.cast(rate, tf.float32)

    def get_config(self):
        return {
            "base_rate": self.base_rate,
            "batch_size": self.batch_size,
            "total_steps": self.total_steps,
            "warmup_steps": self.warmup_steps,
        }


@keras.saving.register_keras_serializable(package="byol_tf")
class WarmupSteps(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up, then a tenth of the rate from each of some steps on.

    Source: MoCo's recipes for dense tasks (arXiv 1911.05722, section 4.2).

    Args:
      rate: before the first drop.
      drops: steps from which on it is a tenth of what it was.
      warmup_steps: at which it reaches `rate`; it rises from `rate / 1000`.
    """

    def __init__(
        self, rate: float, drops: tuple[int, ...] = (), warmup_steps: int = 0
    ):
        self.rate = rate
        self.drops = tuple(drops)
        self.warmup_steps = warmup_steps

    def __call__(self, step):
        step = tf.cast(step, tf.float32)
        rate = tf.constant(self.rate, tf.float32)
        for drop in self.drops:
            rate = tf.where(step < drop, rate, rate / 10)
        progress = tf.minimum(step / max(self.warmup_steps, 1), 1.0)
        if not self.warmup_steps:
            return rate
        return rate * (0.001 + 0.999 * progress)

    def get_config(self):
        return {
            "rate": self.rate,
            "drops": self.drops,
            "warmup_steps": self.warmup_steps,
        }
