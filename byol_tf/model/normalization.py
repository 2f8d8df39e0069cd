"""Batch normalisation as in the official release.

Source: google-deepmind/deepmind-research `byol/utils/networks.py`, which uses
dm-haiku's `BatchNorm` and `ExponentialMovingAverage`.
"""

import contextlib
import contextvars

import keras
import tensorflow as tf

# In how many parts of a batch each is normalised by its own statistics.
_parts = contextvars.ContextVar("parts", default=1)

# The inputs for which TensorFlow has a fused kernel, with float32 variables.
_FUSED_DTYPES = (tf.float32, tf.bfloat16, tf.float16)


@contextlib.contextmanager
def statistics_apart(parts: int):
    """Within it, `BatchNorm` in training takes a batch for so many batches.

    Equal parts of it, one after the other, are normalised by their own
    statistics each, and the moving averages are updated by each in turn: it is
    as if there were a call for each part, but all other layers have one. Read
    when a graph is traced: a `tf.function` that was traced outside stays as it
    is.
    """
    token = _parts.set(parts)
    try:
        yield
    finally:
        _parts.reset(token)


def parts() -> int:
    """Of `statistics_apart`, where it is called; 1 outside."""
    return _parts.get()


@keras.saving.register_keras_serializable(package="byol_tf")
class BatchNorm(keras.layers.Layer):
    """Normalises by batch statistics, and keeps debiased moving averages.

    It differs from `keras.layers.BatchNormalization` in three ways, all of them
    the official release's:

    * The biased variance enters the moving average (no Bessel correction).
    * The moving averages are debiased, as in Adam: after n updates the stored
      value is the weighted mean of the n batch statistics seen so far, and the
      zeros that a plain moving average starts from have no part in it.
    * With several replicas the statistics are those of the global batch, by one
      all-reduce per call of means and mean squares packed together.

    Before the first update the moving mean is 0 and the moving variance 1.

    Args:
      momentum: decay of the moving averages, in [0, 1).
      epsilon: added to the variance.
      gamma_initializer: initial scale; the release has "zeros" for the last
        normalisation of a bottleneck block, if the block is to start as the
        identity.
      cross_replica: whether replicas share their statistics.

    Call arguments:
      inputs: float [batch, channels] or [batch, height, width, channels].
      training: True normalises by the batch's statistics and updates the
        moving averages; False normalises by the moving averages.

    Returns:
      A tensor of the shape and dtype of `inputs`.
    """

    def __init__(
        self,
        momentum: float = 0.9,
        epsilon: float = 1e-5,
        gamma_initializer="ones",
        cross_replica: bool = True,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.momentum = momentum
        self.epsilon = epsilon
        self.gamma_initializer = keras.initializers.get(gamma_initializer)
        self.cross_replica = cross_replica

    def build(self, input_shape):
        shape = (input_shape[-1],)
        # Equal on all replicas where these share statistics: no all-reduce.
        # Where they do not, the first replica's are kept.
        statistic = dict(
            trainable=False, autocast=False, aggregation="only_first_replica"
        )
        self.gamma = self.add_weight(
            name="gamma",
            shape=shape,
            initializer=self.gamma_initializer,
            autocast=False,
        )
        self.beta = self.add_weight(
            name="beta", shape=shape, initializer="zeros", autocast=False
        )
        self.moving_mean = self.add_weight(
            name="moving_mean", shape=shape, initializer="zeros", **statistic
        )
        self.moving_variance = self.add_weight(
            name="moving_variance", shape=shape, initializer="ones", **statistic
        )
        self.updates = self.add_weight(
            name="updates",
            shape=(),
            initializer="zeros",
            dtype="int64",
            **statistic,
        )

    @property
    def statistics(self) -> tuple[keras.Variable, ...]:
        """What a call in training updates."""
        return self.moving_mean, self.moving_variance, self.updates

    def call(self, inputs, training=False):
        if not training or parts() == 1:
            return self._normalised(inputs, training)
        return tf.concat(
            [self._normalised(x, training) for x in tf.split(inputs, parts())],
            0,
        )

    def _normalised(self, inputs, training: bool):
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        shared = training and self.cross_replica and replicas > 1
        fusable = (
            inputs.dtype in _FUSED_DTYPES and self.variable_dtype == "float32"
        )
        if fusable and not shared:
            outputs, mean, variance = self._fused(inputs, training)
        else:
            mean, variance = self.moving_mean, self.moving_variance
            if training:
                mean, variance = self._moments(inputs, shared)
            outputs = _scaled(
                inputs,
                mean,
                tf.math.rsqrt(variance + self.epsilon),
                tf.convert_to_tensor(self.gamma),
                tf.convert_to_tensor(self.beta),
            )
        if training:
            self._update_moving_averages(mean, variance)
        return outputs

    def _fused(self, inputs, training: bool):
        """All in one kernel; in training, the biased variance with it."""
        images = inputs if inputs.shape.rank == 4 else inputs[:, None, None, :]
        nothing = tf.zeros([0])
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=images,
            scale=self.gamma,
            offset=self.beta,
            mean=nothing if training else self.moving_mean,
            variance=nothing if training else self.moving_variance,
            epsilon=self.epsilon,
            is_training=training,
        )
        # The kernel returns the variance with Bessel's correction.
        count = tf.cast(tf.reduce_prod(tf.shape(images)[:3]), variance.dtype)
        variance *= (count - 1) / count
        return tf.reshape(outputs, tf.shape(inputs)), mean, variance

    def _moments(self, inputs, shared: bool):
        """Mean and biased variance over all axes but the last."""
        packed = _mean_and_mean_square(inputs, tf.as_dtype(self.variable_dtype))
        if shared:
            packed = tf.distribute.get_replica_context().all_reduce(
                tf.distribute.ReduceOp.MEAN, packed
            )
        mean, mean_square = tf.unstack(packed)
        # Below 0 by rounding, where the deviation is far below the mean.
        return mean, tf.maximum(mean_square - tf.square(mean), 0)

    def _update_moving_averages(self, mean, variance):
        # Haiku stores hidden = momentum * hidden + (1 - momentum) * statistic
        # and reads hidden / (1 - momentum ** updates). The value read obeys
        # this recursion, so it is what we store.
        self.updates.assign_add(1)
        updates = tf.cast(self.updates.value, self.variable_dtype)
        rate = (1 - self.momentum) / (1 - self.momentum**updates)
        for average, statistic in (
            (self.moving_mean, mean),
            (self.moving_variance, variance),
        ):
            change = rate * (tf.stop_gradient(statistic) - average)
            average.assign(average + change)

    def get_config(self):
        return {
            **super().get_config(),
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "gamma_initializer": keras.initializers.serialize(
                self.gamma_initializer
            ),
            "cross_replica": self.cross_replica,
        }


@tf.custom_gradient
def _scaled(inputs, mean, inverse_deviation, gamma, beta):
    """(inputs - mean) * inverse_deviation * gamma + beta.

    In the dtype of the parameters, returned in that of `inputs`. For the
    gradient no more than `inputs` is kept, in their own dtype: TensorFlow's
    would keep `inputs - mean` as well, in float32 where they are in bfloat16.
    """
    scale = gamma * inverse_deviation
    centred = tf.cast(inputs, gamma.dtype) - mean

    def gradients(upstream):
        axes = _all_but_last(upstream)
        centred = tf.cast(_later(inputs, upstream), gamma.dtype) - mean
        upstream = tf.cast(upstream, gamma.dtype)
        of_beta = tf.reduce_sum(upstream, axes)
        of_scale = tf.reduce_sum(upstream * centred, axes)
        return (
            tf.cast(upstream * scale, inputs.dtype),
            -scale * of_beta,
            gamma * of_scale,
            inverse_deviation * of_scale,
            of_beta,
        )

    return tf.cast(centred * scale + beta, inputs.dtype), gradients


def _mean_and_mean_square(inputs, dtype):
    """[2, channels] in `dtype`, over all axes but the last.

    For the gradient no more than `inputs` is kept, as above.
    """
    axes = _all_but_last(inputs)

    @tf.custom_gradient
    def moments(inputs):
        cast = tf.cast(inputs, dtype)

        def gradient(upstream):
            of_mean, of_mean_square = tf.unstack(upstream)
            cast = tf.cast(_later(inputs, upstream), dtype)
            count = tf.size(inputs) // tf.shape(inputs)[-1]
            total = of_mean + 2 * of_mean_square * cast
            return tf.cast(total / tf.cast(count, dtype), inputs.dtype)

        squares = tf.reduce_mean(tf.square(cast), axes)
        return tf.stack([tf.reduce_mean(cast, axes), squares]), gradient

    return moments(inputs)


def _all_but_last(inputs) -> list[int]:
    return list(range(inputs.shape.rank - 1))


def _later(inputs, upstream):
    """`inputs`, but not before `upstream` is there.

    Else the graph optimizer takes what is computed of them for the same as in
    the forward pass, and keeps that. `recompute` adds a zero for the same
    purpose, which XLA obeys as well; what is computed again here is little.
    """
    with tf.control_dependencies([upstream]):
        return tf.identity(inputs)
