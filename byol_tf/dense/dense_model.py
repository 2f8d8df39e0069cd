"""What the networks of all dense tasks have in common."""

import functools

import keras
import tensorflow as tf

from byol_tf.config import ConfigError
from byol_tf.model.distributed_fit import DistributedFit


class DenseModel(DistributedFit):
    """A network on an encoder's feature maps, that `fit` trains.

    A subclass gives `losses` and `predictions`.

    Args:
      encoder: with `feature_maps`, as `ResNet` has.
      total_steps: planned length of the training.
      frozen: whether the encoder stays as it is, BatchNorm's statistics with
        it, and only what is new learns.
    """

    def __init__(
        self,
        encoder: keras.Model,
        total_steps: int = 1,
        frozen: bool = False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.encoder = encoder
        self.total_steps = total_steps
        self.frozen = frozen
        if frozen:  # BatchNorm too is in inference mode then.
            encoder.trainable = False

    def make_train_function(self, force=False):
        """See `DistributedFit`."""
        with self.distribute_strategy.scope():  # Too late in a step's graph.
            self.optimizer.build(self.trainable_variables)
        super().make_train_function(force)

    def train_step(self, batch):
        """One step; returns the losses and `loss`, their sum."""
        with tf.GradientTape() as tape:
            losses = self.losses(*batch)
            loss = tf.add_n(list(losses.values()))
            # Keras sums gradients over replicas.
            replicas = tf.distribute.get_strategy().num_replicas_in_sync
            scaled_loss = self.optimizer.scale_loss(loss / replicas)
        gradients = tape.gradient(scaled_loss, self.trainable_variables)
        self.optimizer.apply(gradients, self.trainable_variables)
        return {"loss": loss, **losses}

    def losses(self, *batch) -> dict[str, tf.Tensor]:
        """Of a replica's part of a batch: name -> mean over its images."""
        raise NotImplementedError

    def predictions(self, images) -> dict[str, tf.Tensor]:
        """What is served, of float images [n, h, w, 3] in [0, 1]."""
        raise NotImplementedError

    @functools.cached_property
    def predict_one(self):
        """`predictions` as one graph, for batches of any size."""
        return tf.function(self.predictions, reduce_retracing=True)

    def maps_of(self, images, training: bool, groups: int | None = None):
        """The encoder's feature maps; see `ResNet.feature_maps`."""
        training = training and not self.frozen
        return self.encoder.feature_maps(images, training, groups)

    def get_config(self):
        return {
            **super().get_config(),
            "encoder": keras.saving.serialize_keras_object(self.encoder),
            "total_steps": self.total_steps,
            "frozen": self.frozen,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        encoder = keras.saving.deserialize_keras_object(
            config.pop("encoder"), custom_objects=custom_objects
        )
        return cls(encoder, **config)


def mean_over_replicas(value: tf.Tensor) -> tf.Tensor:
    """Of a tensor that each replica has; no gradient passes through it."""
    value = tf.stop_gradient(value)
    if tf.distribute.get_strategy().num_replicas_in_sync == 1:
        return value
    context = tf.distribute.get_replica_context()
    return context.all_reduce(tf.distribute.ReduceOp.MEAN, value)


def most_of_replicas(value: tf.Tensor) -> tf.Tensor:
    """The greatest of a scalar that each replica has; without a gradient."""
    value = tf.stop_gradient(value)
    if tf.distribute.get_strategy().num_replicas_in_sync == 1:
        return value
    context = tf.distribute.get_replica_context()
    return tf.reduce_max(context.all_gather(value[None], axis=0))


def check_encoder(encoder: keras.Model) -> None:
    """Raises ConfigError if an encoder has no feature maps."""
    if not hasattr(encoder, "feature_maps"):
        raise ConfigError(
            f"--encoder: {type(encoder).__name__} has no feature maps, which "
            "segmentation, detection and depth need; byol_tf.ResNet has."
        )


def copy_of(encoder: keras.Model, **changed) -> keras.Model:
    """An encoder of its own with the same weights.

    Args:
      encoder: a `ResNet`; it stays as it is.
      **changed: of its configuration, e.g. `output_stride`.
    """
    copy = type(encoder).from_config({**encoder.get_config(), **changed})
    copy.set_weights(encoder.get_weights())
    return copy


def as_floats(images) -> tf.Tensor:
    """Images in [0, 1], from uint8 or floats."""
    if images.dtype == tf.uint8:
        return tf.cast(images, tf.float32) / 255.0
    return tf.cast(images, tf.float32)
