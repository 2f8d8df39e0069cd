"""BYOL's loss on a batch of predictions.

Source: arXiv 2006.07733, equation 2; the official `byol/utils/helpers.py`.
"""

import tensorflow as tf


def l2_normalize(x: tf.Tensor) -> tf.Tensor:
    """x / ||x|| along the last axis; zero vectors stay zero."""
    square_sum = tf.reduce_sum(tf.square(x), axis=-1, keepdims=True)
    return x * tf.math.rsqrt(tf.maximum(square_sum, 1e-12))


def regression_loss(prediction: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """Squared distance between the l2-normalised vectors (equation 2).

    Args:
      prediction: float [batch, d], of the online network.
      target: float [batch, d], the target network's projection.

    Returns:
      [batch], 2 - 2 cos(prediction, target), in [0, 4].
    """
    difference = l2_normalize(prediction) - l2_normalize(target)
    return tf.reduce_sum(tf.square(difference), axis=-1)


def classification_loss(
    logits: tf.Tensor, labels: tf.Tensor, labelled: tf.Tensor | None = None
) -> tf.Tensor:
    """Mean cross-entropy over the labelled examples; 0 if there are none.

    Args:
      logits: float [batch, classes].
      labels: int [batch]; -1 marks an example without a label.
      labelled: what the sum of losses is divided by, for a part of a larger
        batch: that one's number of labels, divided by its number of parts.

    Returns:
      A scalar.
    """
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
        tf.maximum(labels, 0), logits
    )
    losses *= tf.cast(labels >= 0, logits.dtype)
    return _mean_of_labelled(losses, labels, labelled)


def accuracy(
    logits: tf.Tensor, labels: tf.Tensor, labelled: tf.Tensor | None = None
) -> tf.Tensor:
    """Share of the labelled examples whose largest logit is their label's.

    Args:
      logits: see `classification_loss`, as for the others.
      labels: int [batch].
      labelled: number to divide by.
    """
    classes = tf.argmax(logits, axis=-1, output_type=labels.dtype)
    correct = tf.cast(classes == labels, logits.dtype)
    return _mean_of_labelled(correct, labels, labelled)


def count_labels(labels: tf.Tensor) -> tf.Tensor:
    """The number of labels that are not -1, a float64 scalar."""
    return tf.reduce_sum(tf.cast(labels >= 0, tf.float64))


def _mean_of_labelled(values, labels, labelled):
    if labelled is None:
        labelled = count_labels(labels)
    return tf.math.divide_no_nan(
        tf.reduce_sum(values), tf.cast(labelled, values.dtype)
    )
