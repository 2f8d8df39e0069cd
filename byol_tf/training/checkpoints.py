"""Checkpoints of a training: both networks, the optimizer, and so the step."""

import pathlib
import shutil

import keras
import numpy as np

from byol_tf.model.byol import BYOL

_NAME = "step_{:09d}"
_STATE = "state.npz"


class Checkpoints(keras.callbacks.Callback):
    """Saves every so many steps and at the end, and restores the newest.

    Each is a folder `step_000001000` with one array for every variable. It is
    written under another name and then renamed, so a folder of this name is
    complete.

    Args:
      model: a compiled model with a built optimizer.
      folder: of the checkpoints.
      every: steps between two.
      keep: number of latest ones to keep.
    """

    def __init__(
        self, model: BYOL, folder: pathlib.Path, every: int, keep: int
    ):
        super().__init__()
        self._optimizer = model.optimizer
        # By number: Keras counts up the names in a variable's path.
        self._variables = {
            f"{owner}/{i}": variable
            for owner, variables in (
                ("online", model.online.weights),
                ("target", model.target.weights),
                ("optimizer", model.optimizer.variables),
            )
            for i, variable in enumerate(variables)
        }
        self._folder = folder
        self._every = every
        self._keep = keep

    def restore(self) -> int:
        """Restores the newest one, if any; returns the number of steps done."""
        existing = self._existing()
        if not existing:
            return 0
        with np.load(existing[-1] / _STATE) as state:
            for name, variable in self._variables.items():
                variable.assign(state[name])
        return self._step()

    def save(self) -> None:
        """Writes a checkpoint of the current step and drops old ones."""
        path = self._folder / _NAME.format(self._step())
        if path.exists():
            return
        partial = path.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        arrays = {
            name: keras.ops.convert_to_numpy(variable)
            for name, variable in self._variables.items()
        }
        np.savez(partial / _STATE, **arrays)
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
