"""Fine-tuning: encoder and a new linear classifier, trained with labels.

Source: arXiv 2006.07733, section 4 and appendices C (parts of the labels) and D
(other data sets). It is not in the official release.
"""

from collections.abc import Callable, Iterable

import keras
import numpy as np
import tensorflow as tf

from byol_tf.evaluation.kept_results import KeptState
from byol_tf.optim.nesterov import Nesterov
from byol_tf.optim.schedules import WarmupCosine


class Diverged(ValueError):
    """Training ended with a loss or weights that are no numbers."""


@keras.saving.register_keras_serializable(package="byol_tf")
class Classifier(keras.Model):
    """An encoder and a linear classifier on its features.

    Args:
      encoder: images -> features [batch, d].
      num_classes: c; the classifier's weights are 0 at first, so that the
        encoder's first gradient is not a random classifier's.
    """

    def __init__(self, encoder: keras.Model, num_classes: int, **kwargs):
        super().__init__(**kwargs)
        self.encoder = encoder
        self.num_classes = num_classes
        self.head = keras.layers.Dense(
            num_classes, kernel_initializer="zeros", dtype="float32"
        )

    def call(self, images, training=False):
        """Logits, float32 [batch, c]."""
        return self.head(self.encoder(images, training=training))

    def get_config(self):
        return {
            **super().get_config(),
            "encoder": keras.saving.serialize_keras_object(self.encoder),
            "num_classes": self.num_classes,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        encoder = keras.saving.deserialize_keras_object(
            config.pop("encoder"), custom_objects=custom_objects
        )
        return cls(encoder, **config)


def fine_tuned(
    encoder: keras.Model,
    num_classes: int,
    batches_from: Callable[[int], Iterable],
    *,
    learning_rate: float,
    total_steps: int,
    weight_decay: float = 0.0,
    batch_norm_momentum: float | None = None,
    callbacks: tuple[keras.callbacks.Callback, ...] = (),
    kept: Callable[[list[keras.Variable]], KeptState] | None = None,
    seed: int = 0,
) -> Classifier:
    """Trains a copy of the encoder, and a classifier, on labelled images.

    By Nesterov's momentum and a cosine schedule, on the cross-entropy.
    BatchNorm normalises by the batch's statistics.

    Args:
      encoder: where to begin from; it stays as it is.
      num_classes: c.
      batches_from: number of steps to leave out -> batches of (images, int
        labels [batch]), augmented; `total_steps` of them, or more. For several
        labels an image they are [batch, c]: 1, 0, and below 0 where neither is
        to be learned.
      learning_rate: at the first step.
      total_steps: after which it is 0.
      weight_decay: l2 penalty of kernels. The paper's is divided by the
        learning rate: hand that over.
      batch_norm_momentum: of the moving averages; by default the encoder's.
        The paper has `batch_norm_momentum_of(steps_per_epoch)`.
      callbacks: of `fit`.
      kept: all variables -> where their state is kept, to go on from if the
        process was killed; it is removed at the end.
      seed: of dropout and the like in a foreign encoder.

    Raises:
      Diverged: if the loss or weights are not finite at the end.
    """
    keras.utils.set_random_seed(seed)
    copy = type(encoder).from_config(encoder.get_config())
    copy.set_weights(encoder.get_weights())
    if batch_norm_momentum is not None:
        for layer in copy._flatten_layers():
            if hasattr(layer, "moving_variance"):
                layer.momentum = batch_norm_momentum
    model = Classifier(copy, num_classes)
    schedule = WarmupCosine(learning_rate, 256, total_steps=total_steps)
    model.compile(
        Nesterov(schedule, weight_decay=weight_decay), loss=_cross_entropy
    )
    first_step, state = 0, None
    if kept is not None:
        batch, _ = next(iter(batches_from(0)))
        model(batch[:1])
        model.optimizer.build(model.trainable_variables)
        state = kept([*model.weights, *model.optimizer.variables])
        state.restore()
        first_step = int(model.optimizer.iterations)
        callbacks = (
            *callbacks,
            keras.callbacks.LambdaCallback(
                on_train_batch_end=lambda step, logs: state.write_at_times()
            ),
        )
    loss = 0.0
    if first_step < total_steps:
        history = model.fit(
            batches_from(first_step),
            steps_per_epoch=total_steps - first_step,
            callbacks=[*callbacks, keras.callbacks.TerminateOnNaN()],
            shuffle=False,
            verbose=0,
        )
        loss = history.history["loss"][-1]
    if state is not None:
        state.remove()
    if not all(np.isfinite(x).all() for x in (loss, *model.get_weights())):
        raise Diverged(
            f"fine-tuning at a learning rate of {learning_rate:g} ended "
            "with no numbers; take a lower one."
        )
    return model


def _cross_entropy(labels, logits):
    """Of each example, [batch]; Keras hands labels over as floats."""
    if labels.shape.rank == 1 or labels.shape[-1] != logits.shape[-1]:
        return tf.nn.sparse_softmax_cross_entropy_with_logits(
            tf.cast(tf.reshape(labels, [-1]), tf.int32), logits
        )
    losses = tf.nn.sigmoid_cross_entropy_with_logits(
        tf.cast(labels, logits.dtype), logits
    )
    return tf.reduce_sum(tf.where(labels < 0, 0.0, losses), axis=-1)


def batch_norm_momentum_of(steps_per_epoch: float) -> float:
    """The paper's decay of BatchNorm's moving averages, in [0.9, 1)."""
    return max(1 - 10 / steps_per_epoch, 0.9)
