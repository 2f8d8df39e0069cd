"""The record of a run as it goes: metrics.jsonl, TensorBoard, progress bar."""

import contextlib
import json
import math
import os
import pathlib
import time

import keras
import tensorflow as tf
import tqdm

from byol_tf.training.checkpoints import passed
from byol_tf.training.doctor import Doctor
from byol_tf.training.monitors import Monitor

# What the progress bar shows, and by which shorter name.
_ON_THE_BAR = {
    "loss": "loss",
    "knn_top1": "kNN",
    "projection_std": "std",
    "effective_rank": "rank",
    "images_per_second": "img/s",
    "tau": "tau",
    "learning_rate": "lr",
}


class RunLog(keras.callbacks.Callback):
    """Writes a row of metrics every `log_every` steps, and shows the newest.

    Args:
      folder: of the run. `metrics.jsonl` there is continued: rows of steps
        from `first_step` on, left by an interrupted run, are dropped.
      monitor: measures every `monitor_every` steps, and at the last.
      doctor: examines the model then, and at once when the loss is not finite.
      first_step: number of steps that were done before.
      total_steps: at which the run ends.
      batch_size: images in a step.
      log_every: steps.
      monitor_every: steps.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        monitor: Monitor,
        doctor: Doctor,
        *,
        first_step: int,
        total_steps: int,
        batch_size: int,
        log_every: int,
        monitor_every: int,
    ):
        super().__init__()
        self._path = folder / "metrics.jsonl"
        self._tensorboard = folder / "tensorboard"
        self._monitor = monitor
        self._doctor = doctor
        self._step = first_step
        self._total_steps = total_steps
        self._batch_size = batch_size
        self._log_every = log_every
        self._monitor_every = monitor_every
        self._diverged = False
        self._shown = {}

    def on_train_begin(self, logs=None):
        rows = read_metrics(self._path)
        kept = [row for row in rows if row["step"] <= self._step]
        partial = self._path.with_suffix(".partial")
        partial.write_text("".join(json.dumps(row) + "\n" for row in kept))
        partial.replace(self._path)
        self._file = self._path.open("a")
        self._writer = tf.summary.create_file_writer(str(self._tensorboard))
        self._bar = tqdm.tqdm(
            total=self._total_steps,
            initial=self._step,
            unit="step",
            desc="pretrain",
            dynamic_ncols=True,
            mininterval=0.5,
        )
        self._row_step, self._row_time = self._step, time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        before = self._step  # One call may have taken several steps.
        self._step = int(self.model.optimizer.iterations.numpy())
        self._bar.update(self._step - before)
        last = self._step == self._total_steps
        measuring = last or passed(self._monitor_every, before, self._step)
        if not self._diverged and not math.isfinite(logs["loss"]):
            self._diverged = measuring = True
        if not measuring and not passed(self._log_every, before, self._step):
            return
        seconds = time.perf_counter() - self._row_time
        images = (self._step - self._row_step) * self._batch_size
        row = {name: float(value) for name, value in logs.items()}
        row |= {"seconds": seconds, "images_per_second": images / seconds}
        if measuring:
            figures = self._monitor.measure()
            row |= figures | self._doctor.examine(self._step, row, figures)
        self._write(row)
        if measuring:
            self._doctor.judge()
        self._row_step, self._row_time = self._step, time.perf_counter()

    def close(self) -> None:
        """Ends the progress bar and the files, however training ended."""
        self._bar.close()
        self._file.close()
        with contextlib.suppress(tf.errors.OpError):  # A full disk, perhaps.
            self._writer.close()

    def _to_tensorboard(self, numbers: dict[str, float]) -> None:
        """Of no more than a picture: if the disk is full, training goes on."""
        with (
            contextlib.suppress(tf.errors.OpError),
            self._writer.as_default(step=self._step),
        ):
            for name, value in numbers.items():
                tf.summary.scalar(name, value)

    def _write(self, row: dict[str, float | list[str]]) -> None:
        cells = {
            # JSON has no NaN.
            name: None if _is_nan_or_infinite(value) else value
            for name, value in row.items()
        }
        self._file.write(json.dumps({"step": self._step} | cells) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())  # Before a checkpoint of this step.
        numbers = {k: v for k, v in row.items() if isinstance(v, float)}
        self._to_tensorboard(numbers)
        self._shown |= numbers
        self._bar.set_postfix(
            {
                short: f"{self._shown[name]:.3g}"
                for name, short in _ON_THE_BAR.items()
                if name in self._shown
            },
            refresh=False,
        )


def _is_nan_or_infinite(value) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def read_metrics(path: pathlib.Path) -> list[dict]:
    """The rows of a metrics.jsonl; none if there is no such file.

    A number that was not finite is None; `found` is a list of names.
    A last line that a crash cut short is left out.
    """
    rows = []
    if path.exists():
        for line in path.read_text().splitlines():
            try:
                rows.append(json.loads(line))
            except ValueError:
                break
    return rows
