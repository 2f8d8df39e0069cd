"""Checkpoints of a training: whole, or not there.

Each is a folder, `step_000001000`, with

* `state.npz`: an array for every variable of both networks (BatchNorm's
  statistics among them) and of the optimizer, whose `iterations` are the step;
* `checkpoint.json`: step, seed, configuration, data set, library versions, and
  the checksum of the other file.

It is written under another name, forced to the disk and then renamed, so a
folder of this name was complete once; the checksum tells whether it still is.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import platform
import shutil
import sys
import time

import keras
import numpy as np
import tensorflow as tf
import tqdm

from byol_tf.config import Config, ConfigError
from byol_tf.model.byol import BYOL
from byol_tf.training.signals import Interrupted, StopRequest

_NAME = "step_{:09d}"
_STATE, _ABOUT = "state.npz", "checkpoint.json"
_VERSIONS = {
    "python": platform.python_version(),
    "tensorflow": tf.__version__,
    "keras": keras.__version__,
    "numpy": np.__version__,
}


class Checkpoints(keras.callbacks.Callback):
    """Saves every so many steps and seconds and at the end; restores.

    Args:
      model: a compiled model with a built optimizer.
      folder: of the checkpoints.
      config: of the run; `checkpoint_every`, `checkpoint_every_seconds` and
        `keep_checkpoints` are heeded.
      fingerprint: of the data set.
      stop: when it is agreed on, training stops with a checkpoint.
      is_chief: whether this process writes; all of them restore.

    Raises:
      Interrupted: in `fit`, when `stop` is agreed on.
    """

    def __init__(
        self,
        model: BYOL,
        folder: pathlib.Path,
        config: Config,
        fingerprint: str = "",
        stop: StopRequest | None = None,
        is_chief: bool = True,
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
        self._config = config
        self._fingerprint = fingerprint
        self._stop = stop or StopRequest()
        self._is_chief = is_chief
        self._saved_step = self._seen_step = 0
        self._saved_time = time.monotonic()

    def restore(self) -> int:
        """Restores the newest whole one; returns the number of steps done.

        Damaged ones that are newer are renamed to `….damaged`, with a warning.

        Raises:
          ConfigError: if the run had other settings or other images, or there
            are checkpoints and none is whole.
        """
        for remains in self._folder.glob("*.partial"):
            shutil.rmtree(remains, ignore_errors=True)
        existing = self._existing()
        for path in reversed(existing):
            try:
                about, state = _read(path)
                self._check_shapes(state)
            except _Damaged as damage:
                damaged = path.with_suffix(".damaged")
                shutil.rmtree(damaged, ignore_errors=True)
                path.rename(damaged)
                _warn(f"{path} is damaged ({damage}) and passed over.")
                continue
            self._check_same_run(about)
            for name, variable in self._variables.items():
                variable.assign(state[name])
            self._saved_step = self._seen_step = self._step()
            return self._saved_step
        if existing:
            raise ConfigError(
                f"--run_dir: no checkpoint in {self._folder} is whole any "
                "more; choose another --run_dir, or begin again by --noresume."
            )
        return 0

    def save(self) -> None:
        """Writes a checkpoint of the current step and drops old ones.

        A state that is not finite is not worth it, and not written.

        Raises:
          OSError: if it cannot be written; those before are left as they were.
        """
        step = self._step()
        if step == self._saved_step or not self._is_chief:
            return
        arrays = {
            name: keras.ops.convert_to_numpy(variable)
            for name, variable in self._variables.items()
        }
        self._saved_time = time.monotonic()
        if not all(np.isfinite(array).all() for array in arrays.values()):
            return  # The collapse doctor has the word.
        path = self._folder / _NAME.format(step)
        partial = path.with_suffix(".partial")
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            with (partial / _STATE).open("wb") as file:
                np.savez(file, **arrays)
                _to_disk(file)
            about = self._about(step, _sha256(partial / _STATE))
            with (partial / _ABOUT).open("w") as file:
                json.dump(about, file, indent=2)
                _to_disk(file)
            partial.rename(path)
            _folder_to_disk(self._folder)
        except OSError:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        self._saved_step = step
        for old in self._existing()[: -self._config.keep_checkpoints]:
            old.rename(old.with_suffix(".partial"))
            shutil.rmtree(old.with_suffix(".partial"), ignore_errors=True)

    def on_train_batch_end(self, batch, logs=None):
        before, self._seen_step = self._seen_step, self._step()
        number = self._stop.agreed(self._seen_step)
        if number is not None:
            self.save()
            raise Interrupted(number, self._seen_step, self._is_chief)
        seconds = time.monotonic() - self._saved_time
        due = passed(self._config.checkpoint_every, before, self._seen_step)
        if not due and seconds < self._config.checkpoint_every_seconds:
            return
        try:
            self.save()
        except OSError as error:  # The disk may have room again next time.
            _warn(f"no checkpoint at step {self._step()}: {error}")

    def on_train_end(self, logs=None):
        self.save()

    def _step(self) -> int:
        return int(self._optimizer.iterations.numpy())

    def _existing(self) -> list[pathlib.Path]:
        return sorted(
            path for path in self._folder.glob("step_*") if not path.suffix
        )

    def _about(self, step: int, checksum: str) -> dict:
        return {
            "step": step,
            "seed": self._config.seed,
            "config": dataclasses.asdict(self._config),
            "dataset": self._fingerprint,
            "versions": _VERSIONS,
            "sha256": {_STATE: checksum},
        }

    def _check_shapes(self, state: dict[str, np.ndarray]) -> None:
        for name, variable in self._variables.items():
            if name not in state or state[name].shape != variable.shape:
                raise _Damaged("it is of another network")

    def _check_same_run(self, about: dict) -> None:
        differences = self._config.differences(Config.of(about["config"]))
        if differences:
            raise ConfigError(
                f"--run_dir: the checkpoints in {self._folder} are of a run "
                f"with other settings: {', '.join(differences)}. Choose "
                "another --run_dir."
            )
        if about["dataset"] != self._fingerprint:
            raise ConfigError(
                f"--dataset={self._config.dataset} holds other images than "
                "when this run began, so it cannot go on as it would have. "
                "Bring back the files, or choose another --run_dir."
            )
        for name, version in about["versions"].items():
            if version != _VERSIONS[name]:
                _warn(
                    f"the run began with {name} {version} and goes on with "
                    f"{_VERSIONS[name]}: numbers may differ."
                )


def passed(every: int, before: int, now: int) -> bool:
    """Whether a multiple of `every` lies after one step and up to another."""
    return now // every > before // every


class _Damaged(Exception):
    """What is wrong with a checkpoint."""


def _read(path: pathlib.Path) -> tuple[dict, dict[str, np.ndarray]]:
    """What a checkpoint holds.

    Raises:
      _Damaged: if it is not what was written.
    """
    try:
        about = json.loads((path / _ABOUT).read_text())
        if about["sha256"][_STATE] != _sha256(path / _STATE):
            raise _Damaged(f"{_STATE} has another checksum")
        with np.load(path / _STATE) as state:
            return about, dict(state)
    except FileNotFoundError as error:
        missing = pathlib.Path(error.filename).name
        raise _Damaged(f"{missing} is missing") from error
    except (ValueError, KeyError, TypeError) as error:
        raise _Damaged(f"{_ABOUT} cannot be read") from error


def _sha256(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _to_disk(file) -> None:
    file.flush()
    os.fsync(file.fileno())


def _folder_to_disk(folder: pathlib.Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _warn(message: str) -> None:
    tqdm.tqdm.write(f"byol_tf: {message}", file=sys.stderr)
