"""Linear classifiers against NumPy, one rate at a time."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from byol_tf.evaluation.kept_results import KeptState
from byol_tf.evaluation.linear_protocol import LinearClassifiers

FEATURES, CLASSES, BATCH, STEPS = 5, 3, 8, 12
RATES = (4.0, 0.5)


def data(count=BATCH * STEPS):
    random = np.random.RandomState(0)
    features = random.randn(count, FEATURES).astype(np.float32)
    labels = (features @ random.randn(FEATURES, CLASSES)).argmax(1)
    return features, labels.astype(np.int32)


def classifiers(**arguments) -> LinearClassifiers:
    return LinearClassifiers(
        FEATURES,
        CLASSES,
        **dict(base_rates=RATES, batch_size=BATCH, total_steps=STEPS)
        | arguments,
    )


def by_numpy(kernel, rate, features, labels):
    """Nesterov's momentum as optax has it, in float64."""
    kernel, bias = kernel.astype(np.float64), np.zeros(CLASSES)
    traces = [0.0, 0.0]
    for step in range(STEPS):
        part = slice(step * BATCH, (step + 1) * BATCH)
        x, y = features[part].astype(np.float64), labels[part]
        logits = x @ kernel + bias
        p = np.exp(logits - logits.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        error = (p - np.eye(CLASSES)[y]) / BATCH
        now = rate * BATCH / 256 * (1 + np.cos(np.pi * step / STEPS)) / 2
        changes = []
        for i, gradient in enumerate((x.T @ error, error.sum(0))):
            traces[i] = gradient + 0.9 * traces[i]
            changes.append(now * (gradient + 0.9 * traces[i]))
        kernel, bias = kernel - changes[0], bias - changes[1]
    return kernel, bias


def test_each_rate_is_trained_as_if_alone():
    features, labels = data()
    ours = classifiers()
    start = ours.kernels.numpy()
    np.testing.assert_array_equal(start[:, 0], start[:, 1])
    identity = keras.layers.Identity()
    batches = tf.data.Dataset.from_tensor_slices((features, labels))
    ours.fit(identity, lambda first: batches.batch(BATCH).skip(first))
    for k, rate in enumerate(RATES):
        kernel, bias = by_numpy(start[:, k], rate, features, labels)
        np.testing.assert_allclose(ours.kernels[:, k], kernel, 1e-4, 1e-5)
        np.testing.assert_allclose(ours.biases[k], bias, 1e-4, 1e-5)
    np.testing.assert_allclose(
        ours.scores(features, 1), ours.logits(features)[:, 1], 1e-4, 1e-5
    )


def test_the_initial_kernel_is_haikus():
    kernels = classifiers(seed=1).kernels.numpy()
    assert abs(kernels).max() <= 2 * FEATURES**-0.5
    large = LinearClassifiers(
        400, 50, batch_size=1, total_steps=1
    ).kernels.numpy()[:, 0]
    # Of a normal distribution that is cut at two deviations.
    np.testing.assert_allclose(large.std(), 0.8796 / 20, rtol=0.02)


def test_a_rate_that_learns_and_one_that_does_not():
    features, labels = data(2000)
    ours = classifiers(base_rates=(1e-6, 30.0), total_steps=250)
    batches = tf.data.Dataset.from_tensor_slices((features, labels))
    ours.fit(keras.layers.Identity(), lambda first: batches.batch(BATCH))
    slow, fast = (
        np.mean(ours.scores(features, k).argmax(1) == labels) for k in (0, 1)
    )
    assert fast > 0.95 > 0.6 > slow


def test_the_encoder_is_frozen():
    encoder = keras.Sequential(
        [
            keras.Input([4, 4, 3]),
            keras.layers.BatchNormalization(),
            keras.layers.Flatten(),
        ]
    )
    before = [w.numpy() for w in encoder.weights]
    images = np.random.RandomState(0).rand(BATCH, 4, 4, 3).astype(np.float32)
    batch = (images, np.arange(BATCH, dtype=np.int32) % CLASSES)
    ours = LinearClassifiers(48, CLASSES, batch_size=BATCH, total_steps=3)
    ours.fit(encoder, lambda first: [batch] * 3)
    for old, new in zip(before, encoder.weights):
        np.testing.assert_array_equal(old, new)
    assert not np.allclose(ours.biases, 0)


class Killed(Exception):
    pass


def test_one_that_was_killed_goes_on(tmp_path):
    features, labels = data()
    path = tmp_path / "state.npz"
    begun = []

    def batches_from(first, last=STEPS):
        begun.append(first)
        for step in range(first, STEPS):
            if step == last:
                raise Killed
            part = slice(step * BATCH, (step + 1) * BATCH)
            yield features[part], labels[part]

    identity = keras.layers.Identity()
    whole = classifiers()
    whole.fit(identity, batches_from)
    with pytest.raises(Killed):
        killed = classifiers()
        killed.fit(
            identity,
            lambda k: batches_from(k, 5),
            kept=KeptState(path, killed.variables, every=0),
        )
    rest = classifiers(seed=7)  # What it begins with does not matter.
    rest.fit(identity, batches_from, kept=KeptState(path, rest.variables))
    assert begun == [0, 0, 5]
    np.testing.assert_array_equal(rest.kernels, whole.kernels)
    np.testing.assert_array_equal(rest.biases, whole.biases)
    done = classifiers()
    done.fit(identity, batches_from, kept=KeptState(path, done.variables))
    np.testing.assert_array_equal(done.kernels, whole.kernels)
    assert begun == [0, 0, 5]  # It was done.


def test_features_that_are_not_finite():
    features = np.full([BATCH, FEATURES], np.nan, np.float32)
    batch = (features, np.zeros(BATCH, np.int32))
    with pytest.raises(ValueError, match="not finite"):
        classifiers().fit(keras.layers.Identity(), lambda k: [batch] * STEPS)
