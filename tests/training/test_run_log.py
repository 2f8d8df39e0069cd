"""metrics.jsonl and TensorBoard: what is written when, also after a crash."""

import json
import math

import numpy as np
import pytest
from conftest import tiny_model
from tensorboard.backend.event_processing.event_accumulator import (
    EventAccumulator,
)
from tensorboard.util import tensor_util

from byol_tf.training.collapse import Collapse
from byol_tf.training.run_log import RunLog, read_metrics


class FixedMonitor:
    def measure(self):
        return {"knn_top1": 0.5}


class FixedDoctor:
    """Finds nothing, until a loss is not finite."""

    def examine(self, step, logs, figures):
        self.loss = logs["loss"]
        return {"gradient_norm": 2.0} | (
            {} if math.isfinite(self.loss) else {"found": ["not finite"]}
        )

    def parameters_are_finite(self):
        return True

    def judge(self):
        if not math.isfinite(self.loss):
            raise Collapse("diverged")


def run_log(folder, first_step=0, total_steps=6):
    return RunLog(
        folder,
        FixedMonitor(),
        FixedDoctor(),
        first_step=first_step,
        total_steps=total_steps,
        batch_size=4,
        log_every=2,
        monitor_every=4,
    )


def fit(folder, first_step=0, total_steps=6):
    images = np.random.rand(24, 12, 12, 3).astype(np.float32)
    log = run_log(folder, first_step, total_steps)
    model = tiny_model()
    model.optimizer.iterations.assign(first_step)
    model.fit(
        images[: 4 * (total_steps - first_step)],
        batch_size=4,
        callbacks=[log],
        verbose=0,
    )
    log.close()
    return read_metrics(folder / "metrics.jsonl")


def test_rows_at_intervals_and_at_the_end(tmp_path):
    rows = fit(tmp_path, total_steps=5)
    assert [row["step"] for row in rows] == [2, 4, 5]
    assert ["knn_top1" in row for row in rows] == [False, True, True]
    for row in rows:
        assert row["images_per_second"] > 0
        assert set(row) >= {"loss", "repr_loss", "tau", "learning_rate"}


def test_tensorboard_has_the_same_figures(tmp_path):
    rows = fit(tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    losses = [
        (event.step, float(tensor_util.make_ndarray(event.tensor_proto)))
        for event in events.Tensors("loss")
    ]
    assert [step for step, _ in losses] == [2, 4, 6]
    np.testing.assert_allclose(
        [loss for _, loss in losses], [row["loss"] for row in rows], rtol=1e-6
    )


def test_rows_after_the_checkpoint_are_written_anew(tmp_path):
    rows = [{"step": step, "loss": 1.0} for step in (2, 4)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "metrics.jsonl").write_text(text + '{"step": 6, "lo')
    rows = fit(tmp_path, first_step=3)
    assert [row["step"] for row in rows] == [2, 4, 6]
    assert rows[0]["loss"] == 1.0
    assert rows[1]["loss"] != 1.0


def test_a_loss_that_is_not_finite_is_written_and_judged_at_once(tmp_path):
    log = run_log(tmp_path)
    log.set_model(tiny_model())
    log.on_train_begin()
    log.model.optimizer.iterations.assign(1)
    with pytest.raises(Collapse, match="diverged"):
        log.on_train_batch_end(0, {"loss": float("nan")})
    log.close()

    def no_constant(name):
        raise AssertionError(f"{name} is no JSON")

    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    row = json.loads(line, parse_constant=no_constant)
    assert row["step"] == 1
    assert row["loss"] is None
    assert row["found"] == ["not finite"]
    assert read_metrics(tmp_path / "metrics.jsonl") == [row]
