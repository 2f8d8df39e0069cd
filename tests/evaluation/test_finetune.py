"""Fine-tuning against a loop of its formulas, and that it learns."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import tiny_encoder

from byol_tf.data.bundled import open_bundled
from byol_tf.evaluation.finetune import (
    Classifier,
    batch_norm_momentum_of,
    fine_tuned,
)
from byol_tf.evaluation.kept_results import KeptState


def examples(count: int, start: int = 0):
    source = open_bundled().train
    part = slice(start, start + count)
    images = np.repeat(source.images[part] / np.float32(255), 3, axis=-1)
    return images, source.labels[part]


def batches(images, labels, size: int) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices((images, labels)).batch(size)


def test_steps_are_the_formulas(float64):
    encoder = tiny_encoder()
    images, labels = examples(24)
    steps = batches(images.astype(np.float64), labels, 8)
    tuned = fine_tuned(
        encoder,
        10,
        steps.skip,
        learning_rate=0.5,
        total_steps=3,
        weight_decay=1e-2,
    )

    kernel, bias = (tf.Variable(tf.zeros(s)) for s in ((16, 10), (10,)))
    variables = [*encoder.trainable_variables, kernel, bias]
    buffers = [0.0 for _ in variables]
    for step, (x, y) in enumerate(steps):
        with tf.GradientTape() as tape:
            features = tf.cast(encoder(x, training=True), tf.float32)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
                y, features @ kernel + bias
            )
            loss = tf.reduce_mean(losses)
        gradients = tape.gradient(loss, variables)
        rate = 0.5 * (1 + np.cos(np.pi * step / 3)) / 2
        for i, (variable, gradient) in enumerate(zip(variables, gradients)):
            if variable.shape.rank > 1:
                gradient = gradient + 1e-2 * variable
            buffers[i] = gradient + 0.9 * buffers[i]
            change = rate * (gradient + 0.9 * buffers[i])
            variable.assign(variable - tf.cast(change, variable.dtype))
    for ours, theirs in zip(tuned.encoder.weights, encoder.weights):
        np.testing.assert_allclose(ours, theirs, 1e-5, 1e-6)
    np.testing.assert_allclose(tuned.head.kernel, kernel, 1e-4, 1e-6)


def test_it_learns_and_leaves_the_encoder():
    encoder = tiny_encoder()
    before = encoder.get_weights()
    images, labels = examples(600)
    tuned = fine_tuned(
        encoder,
        10,
        batches(images, labels, 50).repeat().skip,
        learning_rate=0.05,
        total_steps=120,
        batch_norm_momentum=batch_norm_momentum_of(12),
    )
    for old, new in zip(before, encoder.get_weights()):
        np.testing.assert_array_equal(old, new)
    images, labels = examples(400, 600)
    accuracy = np.mean(np.argmax(tuned(images), 1) == labels)
    assert accuracy > 0.6  # By chance 0.1.


def test_the_momentum_of_batch_norm():
    assert batch_norm_momentum_of(50) == 0.9
    assert batch_norm_momentum_of(1000) == 0.99
    images, labels = examples(16)
    encoder = tiny_encoder()

    def mean_after(steps, momentum):
        tuned = fine_tuned(
            encoder,
            10,
            batches(images, labels, 8).skip,
            learning_rate=0.1,
            total_steps=steps,
            batch_norm_momentum=momentum,
        )
        return tuned.encoder.initial_norm.moving_mean.numpy()

    first, second = mean_after(1, 0.0), mean_after(2, 0.0)
    np.testing.assert_allclose(
        mean_after(2, 0.97), (0.97 * first + second) / 1.97, rtol=1e-4
    )
    assert np.abs(first - second).max() > 0.01


def test_a_rate_that_is_too_high():
    images, labels = examples(40)
    with pytest.raises(ValueError, match="take a lower one"):
        fine_tuned(
            tiny_encoder(),
            10,
            batches(images, labels, 8).repeat().skip,
            learning_rate=1e30,
            total_steps=5,
        )


def test_it_is_saved_and_loaded(tmp_path):
    model = Classifier(tiny_encoder(), 3)
    images, _ = examples(4)
    expected = model(images)
    model.save(tmp_path / "classifier.keras")
    loaded = keras.saving.load_model(tmp_path / "classifier.keras")
    np.testing.assert_allclose(loaded(images), expected, 1e-6)


class Killed(Exception):
    pass


def test_one_that_was_killed_goes_on(tmp_path):
    """With the same weights, statistics and momentum."""
    images, labels = examples(64)
    steps = batches(images, labels, 8)
    path = tmp_path / "state.npz"
    encoder = tiny_encoder()
    begun = []

    def tuned(batches_from, **arguments):
        return fine_tuned(
            encoder,
            10,
            batches_from,
            learning_rate=0.1,
            total_steps=8,
            **arguments,
        )

    def batches_from(first):
        begun.append(first)
        return steps.skip(first)

    def kept(variables):
        state = KeptState(path, variables, every=0)
        write, times = state.write, []

        def write_thrice():
            write()
            times.append(1)
            if len(times) == 3:
                raise Killed

        state.write = write_thrice
        return state

    whole = tuned(batches_from)
    with pytest.raises(Killed):
        tuned(batches_from, kept=kept)
    assert path.exists()
    rest = tuned(
        batches_from, kept=lambda variables: KeptState(path, variables)
    )
    assert begun[-1] == 3
    assert not path.exists()  # What is done needs no state.
    for ours, expected in zip(rest.weights, whole.weights, strict=True):
        np.testing.assert_allclose(ours, expected, 1e-5, 1e-7)
