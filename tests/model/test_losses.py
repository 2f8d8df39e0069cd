"""The loss against its definition."""

import numpy as np
import tensorflow as tf

from byol_tf.model import losses


def test_regression_loss_is_two_minus_two_cosines():
    random = np.random.RandomState(0)
    x, y = random.randn(2, 6, 5).astype(np.float32)
    cosines = np.sum(x * y, 1) / np.linalg.norm(x, axis=1)
    cosines /= np.linalg.norm(y, axis=1)
    np.testing.assert_allclose(
        losses.regression_loss(x, y), 2 - 2 * cosines, rtol=1e-4, atol=1e-6
    )


def test_regression_loss_at_its_limits():
    x = np.array([[3.0, 4.0], [3.0, 4.0], [0.0, 0.0]], np.float32)
    y = np.array([[6.0, 8.0], [-3.0, -4.0], [1.0, 0.0]], np.float32)
    np.testing.assert_allclose(
        losses.regression_loss(x, y), [0, 4, 1], atol=1e-6
    )


def test_zero_vector_has_a_finite_gradient():
    x = tf.zeros([1, 4])
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = losses.regression_loss(x, tf.ones([1, 4]))
    assert np.isfinite(tape.gradient(loss, x)).all()


def test_classification_counts_labelled_examples_only():
    logits = np.array([[2.0, 0, 0], [0, 3, 0], [1, 1, 5]], np.float32)
    labels = np.array([0, -1, 1], np.int32)
    softmax = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = -(np.log(softmax[0, 0]) + np.log(softmax[2, 1])) / 2
    np.testing.assert_allclose(
        losses.classification_loss(logits, labels), expected, rtol=1e-6
    )
    assert losses.accuracy(logits, labels) == 0.5


def test_classification_without_labels_is_zero():
    logits, labels = np.ones((3, 4), np.float32), np.full(3, -1, np.int32)
    assert losses.classification_loss(logits, labels) == 0
    assert losses.accuracy(logits, labels) == 0
