"""Training of a dense task's network: with progress, to go on if it stops."""

import pathlib
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
import tqdm

from byol_tf.dense.dense_model import DenseModel
from byol_tf.evaluation.kept_results import KeptState
from byol_tf.training.signals import Interrupted, StopRequest, noting_signals
from byol_tf.training.strategy import distributed


class Diverged(ValueError):
    """Training came to a loss or weights that are no numbers."""


def train(
    model: DenseModel,
    batches: Callable[[int, int, int], tf.data.Dataset],
    batch_size: int,
    path: pathlib.Path,
    title: str,
    after_step: Callable[[], None] = lambda: None,
    on_write: Callable[[], None] = lambda: None,
) -> None:
    """Trains a compiled model for its `total_steps`.

    Every two minutes, on a signal and at the end its state is written, and the
    next call with the same path goes on from there.

    Args:
      model: to train, made in the scope of its strategy.
      batches: (first step, worker, number of workers) -> batches of that part.
      batch_size: of all workers.
      path: where the state is kept, an .npz file.
      title: of the progress bar.
      after_step: called after each; what it raises ends the training.
      on_write: called after each writing of the state.

    Raises:
      Interrupted: on a signal; the state is written.
      Diverged: if the loss or a weight is not finite.
    """
    with model.distribute_strategy.scope():
        model.optimizer.build(model.trainable_variables)
    state = KeptState(
        path, [*model.weights, *model.optimizer.variables], on_write=on_write
    )
    state.restore()
    first_step = int(model.optimizer.iterations.numpy())
    total_steps = model.total_steps
    stop = StopRequest()

    def end_of_step(batch, logs):
        done = int(model.optimizer.iterations.numpy())
        bar.update(done - bar.n)
        bar.set_postfix({name: f"{value:.3g}" for name, value in logs.items()})
        if not np.isfinite(logs["loss"]):
            raise Diverged(
                f"{title}: the loss is no number any more at step {done}; "
                "take a lower --dense_rate, or --dense_weight_decay."
            )
        if stop.number is not None:
            state.write()
            raise Interrupted(stop.number, done)
        state.write_at_times()
        after_step()

    if first_step < total_steps:
        data = distributed(
            lambda worker, workers: batches(first_step, worker, workers),
            batch_size,
            model.distribute_strategy,
        )
        with (
            tqdm.tqdm(
                total=total_steps, initial=first_step, desc=title, unit="step"
            ) as bar,
            noting_signals(stop),
        ):
            try:
                model.fit(
                    data,
                    steps_per_epoch=total_steps - first_step,
                    callbacks=[
                        keras.callbacks.LambdaCallback(
                            on_train_batch_end=end_of_step
                        )
                    ],
                    shuffle=False,
                    verbose=0,
                )
            except tf.errors.OpError:
                after_step()  # Says it better, if scenes are the cause.
                raise
        state.write()  # What follows need not train again.
    if not all(np.isfinite(weight).all() for weight in model.get_weights()):
        raise Diverged(
            f"{title}: training ended with weights that are no numbers; take "
            "a lower --dense_rate, or --dense_weight_decay."
        )
