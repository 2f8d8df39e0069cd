"""BYOL's loss on a batch of predictions, and those beside it.

Source: arXiv 2006.07733, equation 2; the official `byol/utils/helpers.py`.
"""

import math

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


def repulsion_loss(
    queries: tf.Tensor,
    same_view: tf.Tensor,
    other_view: tf.Tensor,
    temperature: float,
    first: tf.Tensor | int = 0,
) -> tf.Tensor:
    """InfoNCE's term of the 2N - 1 other views of a batch of N images.

    With `regression_loss`, which is 2 - 2 cos, it makes InfoNCE as the paper
    has it in section 5, times -1 and but for a constant:

        2 alpha ln(sum_{j != i} exp(cos(q_i, s_j) / alpha)
                   + sum_j exp(cos(q_i, o_j) / alpha))

    Args:
      queries: q, float [n, d].
      same_view: s, [N, d], of the view that the queries are of; row
        `first + i` is of query i's own image.
      other_view: o, [N, d], of the other view.
      temperature: alpha, above 0.
      first: place of query 0's image among the N.

    Returns:
      [n].
    """
    queries = l2_normalize(queries)
    similarities = [
        tf.matmul(queries, l2_normalize(keys), transpose_b=True) / temperature
        for keys in (same_view, other_view)
    ]
    rows, columns = tf.unstack(tf.shape(similarities[0]))
    itself = tf.range(columns) == first + tf.range(rows)[:, None]
    nothing = tf.constant(-math.inf, queries.dtype)
    similarities[0] = tf.where(itself, nothing, similarities[0])
    exponents = tf.concat(similarities, axis=1)
    return 2 * temperature * tf.reduce_logsumexp(exponents, axis=1)


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
