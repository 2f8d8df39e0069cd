"""LARS against the release's formulas, written in NumPy."""

import keras
import numpy as np
import tensorflow as tf

from byol_tf import LARS, WarmupCosine


def numpy_lars(p, g, m, lr, *, adapted, wd=1e-2, eta=1e-3, momentum=0.9):
    if adapted:
        g = g + wd * p
        p_norm, g_norm = np.linalg.norm(p), np.linalg.norm(g)
        if p_norm > 0 and g_norm > 0:
            g = g * eta * p_norm / g_norm
    m = momentum * m + g
    return p - lr * m, m


def test_three_steps_equal_numpy(float64):
    random = np.random.RandomState(0)
    shapes = {"kernel": (3, 3, 4, 5), "bias": (5,), "gamma": (5,), "w": (4, 2)}
    values = {name: random.randn(*shape) for name, shape in shapes.items()}
    variables = [keras.Variable(v, name=k) for k, v in values.items()]
    schedule = WarmupCosine(0.5, 256, total_steps=10, warmup_steps=2)
    optimizer = LARS(schedule, weight_decay=1e-2)
    momenta = {name: np.zeros(shape) for name, shape in shapes.items()}
    for step in range(3):
        gradients = {k: random.randn(*shape) for k, shape in shapes.items()}
        optimizer.apply(list(gradients.values()), variables)
        for name, gradient in gradients.items():
            values[name], momenta[name] = numpy_lars(
                values[name],
                gradient,
                momenta[name],
                float(schedule(step)),
                adapted=len(shapes[name]) > 1,
            )
    for variable, (name, value) in zip(variables, values.items(), strict=True):
        np.testing.assert_allclose(variable, value, rtol=1e-12, err_msg=name)


def test_zero_learning_rate_still_fills_the_momentum():
    variable = keras.Variable(np.ones((2, 2)))
    optimizer = LARS(WarmupCosine(1.0, 256, total_steps=9, warmup_steps=3))
    optimizer.apply([np.full((2, 2), 5.0, np.float32)], [variable])
    np.testing.assert_array_equal(variable, np.ones((2, 2)))
    # The trust ratio makes the gradient's norm a thousandth of the kernel's.
    np.testing.assert_allclose(
        np.linalg.norm(optimizer.momentums[0]), 2e-3, rtol=1e-6
    )


def test_zero_kernel_takes_the_plain_gradient():
    variable = keras.Variable(np.zeros((2, 2)))
    LARS(0.1).apply([np.ones((2, 2), np.float32)], [variable])
    np.testing.assert_allclose(variable, np.full((2, 2), -0.1), rtol=1e-6)


def test_zero_gradient_changes_nothing():
    variable = keras.Variable(np.ones((2, 2)))
    LARS(0.1).apply([np.zeros((2, 2), np.float32)], [variable])
    np.testing.assert_array_equal(variable, np.ones((2, 2)))


def test_norms_of_float16_gradients_are_float32():
    values = np.random.RandomState(0).randn(40, 5).astype(np.float32)
    for scale in (300, 1e-6):  # Whose squares float16 makes infinite, or 0.
        gradient = tf.constant(scale * values, tf.float16)
        variable = keras.Variable(values)
        expected, _ = numpy_lars(
            values, gradient.numpy().astype(np.float64), 0, 0.1, adapted=True
        )
        LARS(0.1, weight_decay=1e-2).apply([gradient], [variable])
        np.testing.assert_allclose(variable, expected, rtol=1e-5)


def test_config_round_trip():
    optimizer = LARS(
        WarmupCosine(0.2, 64, total_steps=5),
        momentum=0.8,
        weight_decay=1e-4,
        trust_coefficient=2e-3,
    )
    copy = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert copy.get_config() == optimizer.get_config()
    assert copy.l2_weight_decay == 1e-4
