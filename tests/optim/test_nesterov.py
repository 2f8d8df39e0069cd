"""Nesterov's momentum against the formulas, written in NumPy."""

import keras
import numpy as np

from byol_tf import WarmupCosine
from byol_tf.optim.nesterov import Nesterov


def test_steps_equal_numpy(float64):
    random = np.random.RandomState(0)
    values = {"kernel": random.randn(4, 3), "bias": random.randn(3)}
    variables = [keras.Variable(v, name=k) for k, v in values.items()]
    schedule = WarmupCosine(0.5, 256, total_steps=6)
    optimizer = Nesterov(schedule, momentum=0.8, weight_decay=0.1)
    buffers = {name: 0.0 for name in values}
    for step in range(5):
        gradients = {k: random.randn(*v.shape) for k, v in values.items()}
        optimizer.apply(list(gradients.values()), variables)
        for name, gradient in gradients.items():
            if name == "kernel":
                gradient = gradient + 0.1 * values[name]
            buffers[name] = 0.8 * buffers[name] + gradient
            change = 0.8 * buffers[name] + gradient
            values[name] = values[name] - float(schedule(step)) * change
    for variable, value in zip(variables, values.values(), strict=True):
        np.testing.assert_allclose(variable, value, rtol=1e-12)


def test_config_loses_nothing():
    optimizer = Nesterov(0.3, momentum=0.7, weight_decay=1e-4)
    copy = Nesterov.from_config(optimizer.get_config())
    assert copy.get_config() == optimizer.get_config()
