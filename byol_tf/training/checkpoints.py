"""Checkpoints of a training: the model, the optimizer, and thereby the step."""

import pathlib
import shutil

import keras
import tensorflow as tf

from byol_tf.model.byol import BYOL

_NAME = "step_{:09d}"


class Checkpoints(keras.callbacks.Callback):
    """Saves every so many steps and at the end, and restores the newest.

    Each is a folder `step_000001000`, written under another name and then
    renamed, so that a folder of this name is complete.

    Args:
      model: a compiled model.
      folder: of the checkpoints.
      every: steps between two.
      keep: number of latest ones to keep.
    """

    def __init__(
        self, model: BYOL, folder: pathlib.Path, every: int, keep: int
    ):
        super().__init__()
        self._checkpoint = tf.train.Checkpoint(
            model=model, optimizer=model.optimizer
        )
        self._optimizer = model.optimizer
        self._folder = folder
        self._every = every
        self._keep = keep

    def restore(self) -> int:
        """Restores the newest one, if any; returns the number of steps done."""
        existing = self._existing()
        if not existing:
            return 0
        status = self._checkpoint.read(str(existing[-1] / "state"))
        status.assert_existing_objects_matched()
        return self._step()

    def save(self) -> None:
        """Writes a checkpoint of the current step and drops old ones."""
        path = self._folder / _NAME.format(self._step())
        if path.exists():
            return
        partial = path.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        self._checkpoint.write(str(partial / "state"))
        partial.rename(path)
        for old in self._existing()[: -self._keep]:
            shutil.rmtree(old)

    def on_train_batch_end(self, batch, logs=None):
        if self._step() % self._every == 0:
            self.save()

    def on_train_end(self, logs=None):
        self.save()

    def _step(self) -> int:
        return int(self._optimizer.iterations.numpy())

    def _existing(self) -> list[pathlib.Path]:
        return sorted(
            path
            for path in self._folder.glob("step_*")
            if path.suffix != ".partial"
        )
