"""`fit` under every distribution strategy: what Keras 3.15 does not do yet.

Whatever is needed of Keras's private parts for that stands in this file, and
`tests/model/test_distributed_fit.py` fails when a new Keras can do without.
"""

import keras
import tensorflow as tf


def sublayers(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """A layer and all below it; Keras lists only those of models in public."""
    return list(layer._flatten_layers())


class DistributedFit(keras.Model):
    """A model whose `train_step` is repeated on all replicas by `fit`.

    `train_step` is given a replica's part of a batch and returns scalars; what
    `fit` hands to callbacks is their mean over all replicas, on all machines.
    For that to be a mean over images the parts have to be equally long; `fit`
    raises ValueError where they are not, before the step is taken.
    A subclass has `total_steps`, the planned number of optimizer steps.

    Keras's own train function fails under MultiWorkerMirroredStrategy, where it
    takes the mean over an axis that scalars do not have
    (keras-team/keras#20585), and, with more than one step per execution, under
    MirroredStrategy.
    """

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        """Nothing; the model is built.

        Under MultiWorkerMirroredStrategy Keras's takes the mean of a batch over
        the machines first, which images in uint8 do not have.
        """

    def make_train_function(self, force=False):
        """Builds `train_function`: an iterator over batches -> a dict of means.

        It takes `steps_per_execution` steps in one call, the one that reaches
        `total_steps` no more than are left, and returns the last one's figures.
        As always in Keras an epoch of other than a multiple of them is longer:
        10 steps of 4 in a call are 12.
        """
        if self.train_function is not None and not force:
            return
        strategy = self.distribute_strategy
        replicas = strategy.num_replicas_in_sync
        if self.jit_compile and replicas > 1:
            raise ValueError(
                "jit_compile=True works on one device only, not on "
                f"{replicas} replicas; leave it at "
                '"auto", or take False.'
            )

        def of_replica(part):
            with tf.control_dependencies(_equally_long(part, replicas)):
                return self.train_step(part)

        def one_step(batch):
            logs = strategy.run(of_replica, (batch,))
            return {
                name: strategy.reduce("MEAN", value, axis=None)
                for name, value in logs.items()
            }

        if not self.run_eagerly:
            one_step = tf.function(
                one_step,
                reduce_retracing=True,
                autograph=False,
                jit_compile=self.jit_compile,
            )

        def steps(iterator):
            count = self.steps_per_execution
            done = tf.cast(self.optimizer.iterations, "int32")
            left = self.total_steps - done
            if left > 0:  # Else somebody trains on, past the plan.
                count = tf.minimum(count, left)
            logs = one_step(next(iterator))
            for _ in tf.range(count - 1):
                logs = one_step(next(iterator))
            return logs

        if not self.run_eagerly:
            steps = tf.function(steps, reduce_retracing=True)
        if replicas > 1:
            steps = _naming_unequal(steps, replicas)
        self.train_function = steps


_UNEQUAL = (
    "fit: a batch cannot be shared equally by {0} replicas, as a smaller last "
    "one often cannot. Make batches by `.batch(n, drop_remainder=True)`, where "
    "n is a multiple of {0}."
)


def _equally_long(part, replicas: int) -> list[tf.Operation]:
    """What fails, on all replicas, if their parts of a batch differ in length.

    It costs nothing where the length is known beforehand, as it is with
    `drop_remainder=True`; else one sum over replicas.
    """
    first = tf.nest.flatten(part)[0]
    known = first.shape[0] is not None and not tf.executing_eagerly()
    if replicas == 1 or known:
        return []
    length = tf.shape(first, tf.int64)[0]
    total, squares = tf.unstack(
        tf.distribute.get_replica_context().all_reduce(
            tf.distribute.ReduceOp.SUM, tf.stack([length, length**2])
        )
    )
    variance_is_0 = replicas * squares == total**2
    message = _UNEQUAL.format(replicas)
    # In eager mode it raises, and there is no operation.
    operation = tf.debugging.Assert(variance_is_0, [message])
    return [] if operation is None else [operation]


def _naming_unequal(steps, replicas: int):
    """`steps`, but what `_equally_long` says becomes a ValueError."""
    message = _UNEQUAL.format(replicas)

    def train_function(iterator):
        try:
            return steps(iterator)
        except tf.errors.InvalidArgumentError as error:
            if message in str(error):
                raise ValueError(message) from None
            raise

    return train_function
