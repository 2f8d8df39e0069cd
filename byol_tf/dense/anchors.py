"""Anchors: boxes at each place of a map, and what each is to learn.

Source: arXiv 1506.01497, section 3.1; the numbers of detectron2's R50-C4.
"""

from collections.abc import Sequence

import tensorflow as tf

from byol_tf.dense.boxes import covered, iou

# Side in pixels of a square of the same area, in images of 800; height / width.
SIZES = (32, 64, 128, 256, 512)
ASPECT_RATIOS = (0.5, 1.0, 2.0)

POSITIVE, NEGATIVE, NEITHER = 1, 0, -1


def anchors_on(
    map_size: tf.Tensor,
    stride: int,
    sizes: Sequence[float] = SIZES,
    aspect_ratios: Sequence[float] = ASPECT_RATIOS,
) -> tf.Tensor:
    """The anchors of all places of a map, around their centres.

    Args:
      map_size: int [2], height and width of the map.
      stride: of the map, in pixels of the image.
      sizes: square roots of the anchors' areas, in pixels.
      aspect_ratios: their heights by their widths.

    Returns:
      float32 [height * width * sizes * ratios, 4]: the place changes slowest,
      row by row, then the size, then the ratio.
    """
    corners = tf.constant(
        [
            [-size * ratio**0.5, -size / ratio**0.5]
            + [size * ratio**0.5, size / ratio**0.5]
            for size in sizes
            for ratio in aspect_ratios
        ]
    )
    rows, columns = (
        stride * (tf.range(count, dtype=tf.float32) + 0.5)
        for count in tf.unstack(tf.cast(map_size, tf.float32))
    )
    y, x = tf.meshgrid(rows, columns, indexing="ij")
    centres = tf.stack([y, x, y, x], axis=-1)
    return tf.reshape(centres[:, :, None] + corners / 2, [-1, 4])


def assign(
    anchors: tf.Tensor,
    boxes: tf.Tensor,
    labels: tf.Tensor,
    positive: float,
    negative: float,
    counted: tf.Tensor | None = None,
    best_of_each: bool = False,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Which true box each anchor, or proposal, goes with.

    One that has `positive` or more of intersection over union with a true box
    is positive, one that has less than `negative` with all is negative. One of
    which an ignored box covers `negative` or more is never negative.

    Args:
      anchors: [n, p, 4], or [p, 4] for the same ones in all n images.
      boxes: [n, q, 4], q at least 1.
      labels: int [n, q], the classes of the boxes from 1; 0 where there is no
        box, and below 0 where it is to be ignored.
      positive: in [0, 1].
      negative: at most `positive`.
      counted: bool [n, p], those that are there at all; by default all.
      best_of_each: whether the anchors that are nearest to a true box are
        positive in any case, so that each is learned.

    Returns:
      int32 [n, p], number of the true box with the greatest overlap; and int32
      [n, p], POSITIVE, NEGATIVE or NEITHER.
    """
    true, ignored = labels > 0, labels < 0
    overlaps = tf.where(true[:, None], iou(anchors, boxes), 0.0)
    if counted is not None:
        overlaps = tf.where(counted[..., None], overlaps, 0.0)
    most = tf.reduce_max(overlaps, axis=-1)
    hidden = tf.where(ignored[:, None], covered(anchors, boxes), 0.0)
    hidden = tf.reduce_max(hidden, axis=-1) >= negative
    kinds = tf.where((most < negative) & ~hidden, NEGATIVE, NEITHER)
    is_positive = most >= positive
    if best_of_each:
        best = tf.reduce_max(overlaps, axis=1, keepdims=True)
        is_best = (overlaps == best) & (best > 0)
        is_positive |= tf.reduce_any(is_best, axis=-1)
    kinds = tf.where(is_positive, POSITIVE, kinds)
    if counted is not None:
        kinds = tf.where(counted, kinds, NEITHER)
    return tf.argmax(overlaps, axis=-1, output_type=tf.int32), kinds


def sample(
    kinds: tf.Tensor, numbers: tf.Tensor, count: int, share: float
) -> tf.Tensor:
    """A random choice of what to learn from, in each image.

    Positive ones up to a share, and negative ones up to the count; fewer where
    there are no more.

    Args:
      kinds: int [n, p], see `assign`.
      numbers: float [n, p], uniform in [0, 1), that decide.
      count: of an image.
      share: the most that may be positive, in [0, 1].

    Returns:
      bool [n, p].
    """
    positive = _lowest(kinds == POSITIVE, numbers, round(count * share))
    found = tf.reduce_sum(tf.cast(positive, tf.int32), axis=1, keepdims=True)
    negative = _lowest(kinds == NEGATIVE, numbers, count - found)
    return positive | negative


def _lowest(candidates, numbers, count) -> tf.Tensor:
    """The `count` candidates with the lowest numbers, bool [n, p]."""
    order = tf.argsort(tf.where(candidates, numbers, 2.0), axis=1)
    rank = tf.argsort(order, axis=1)
    return candidates & (rank < count)
