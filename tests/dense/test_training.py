"""Training of a dense task's network that comes to no good end."""

import numpy as np
import pytest
import tensorflow as tf
from conftest import tiny_encoder

from byol_tf.dense.segmentation import FCN
from byol_tf.dense.training import Diverged, train
from byol_tf.optim.nesterov import Nesterov


def trained(path, rate: float) -> FCN:
    """One step, whose loss is that of the weights before it."""
    model = FCN.on(tiny_encoder(), 3)
    model.compile(Nesterov(rate))
    batch = np.zeros((2, 16, 16, 3), np.uint8), np.ones((2, 16, 16), np.uint8)
    data = tf.data.Dataset.from_tensors(batch).repeat()
    train(model, lambda *_: data, 2, path, "title")
    return model


def test_weights_that_are_no_numbers(tmp_path):
    with pytest.raises(Diverged, match="title: training ended with weights"):
        trained(tmp_path / "state.npz", float("inf"))


def test_weights_that_are_numbers(tmp_path):
    model = trained(tmp_path / "state.npz", 0.1)
    assert all(np.isfinite(weight).all() for weight in model.get_weights())
    assert int(model.optimizer.iterations.numpy()) == 1
