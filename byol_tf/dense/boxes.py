"""Boxes: areas, overlaps, their coding, and which of many to keep.

A box is float32 [..., 4]: top, left, bottom and right in pixels, where the
pixel of row i covers the rows from i to i + 1.
Source: Ren et al., "Faster R-CNN", arXiv 1506.01497.
"""

import math

import tensorflow as tf

# Sides below it, in pixels, are taken for it where a box is encoded.
LEAST_SIDE = 1e-3
# No box is decoded to be larger than its anchor by more than this factor.
MOST_GROWTH = 1000 / 16


def sides(boxes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Heights and widths, [...] each; 0 where a box is turned inside out."""
    return (
        tf.maximum(boxes[..., 2] - boxes[..., 0], 0),
        tf.maximum(boxes[..., 3] - boxes[..., 1], 0),
    )


def areas(boxes: tf.Tensor) -> tf.Tensor:
    """Areas of [..., 4] in square pixels, [...]."""
    height, width = sides(boxes)
    return height * width


def intersections(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    """Areas that pairs have in common: [..., p, 4] and [..., q, 4].

    Returns:
      [..., p, q].
    """
    first, second = first[..., :, None, :], second[..., None, :, :]
    corners = tf.concat(
        [
            tf.maximum(first[..., :2], second[..., :2]),
            tf.minimum(first[..., 2:], second[..., 2:]),
        ],
        axis=-1,
    )
    return areas(corners)


def iou(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    """Intersection over union of pairs: see `intersections`.

    Two boxes without an area have 0.
    """
    common = intersections(first, second)
    union = areas(first)[..., :, None] + areas(second)[..., None, :] - common
    return tf.math.divide_no_nan(common, union)


def covered(boxes: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    """Share of a box's own area that another covers: see `intersections`."""
    common = intersections(boxes, others)
    return tf.math.divide_no_nan(common, areas(boxes)[..., :, None])


def encode(
    boxes: tf.Tensor,
    anchors: tf.Tensor,
    weights: tuple[float, float, float, float] = (1, 1, 1, 1),
) -> tf.Tensor:
    """Boxes as seen from anchors: dy, dx, log dh and log dw.

    The distance of the centres in the anchor's sides, and the logarithms of the
    ratios of the sides, each times its weight.

    Args:
      boxes: [..., 4].
      anchors: [..., 4], of a shape that broadcasts with it.
      weights: of the four numbers.

    Returns:
      [..., 4], finite for finite boxes.
    """
    y, x, height, width = _centres_and_sides(boxes)
    anchor_y, anchor_x, anchor_height, anchor_width = _centres_and_sides(
        anchors
    )
    codes = tf.stack(
        [
            (y - anchor_y) / anchor_height,
            (x - anchor_x) / anchor_width,
            tf.math.log(height / anchor_height),
            tf.math.log(width / anchor_width),
        ],
        axis=-1,
    )
    return codes * tf.constant(weights, codes.dtype)


def decode(
    codes: tf.Tensor,
    anchors: tf.Tensor,
    weights: tuple[float, float, float, float] = (1, 1, 1, 1),
) -> tf.Tensor:
    """The inverse of `encode`; sides grow by at most MOST_GROWTH."""
    codes = codes / tf.constant(weights, codes.dtype)
    y, x, height, width = _centres_and_sides(anchors)
    most = math.log(MOST_GROWTH)
    y += codes[..., 0] * height
    x += codes[..., 1] * width
    height *= tf.exp(tf.minimum(codes[..., 2], most))
    width *= tf.exp(tf.minimum(codes[..., 3], most))
    return tf.stack(
        [
            y - height / 2,
            x - width / 2,
            y + height / 2,
            x + width / 2,
        ],
        axis=-1,
    )


def _centres_and_sides(boxes: tf.Tensor) -> list[tf.Tensor]:
    height, width = (tf.maximum(side, LEAST_SIDE) for side in sides(boxes))
    y = (boxes[..., 0] + boxes[..., 2]) / 2
    x = (boxes[..., 1] + boxes[..., 3]) / 2
    return [y, x, height, width]


def clip(boxes: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """What of boxes lies in the image.

    Args:
      boxes: [..., 4].
      size: float [..., 2], its height and width, to broadcast.
    """
    limits = tf.concat([size, size], axis=-1)
    return tf.clip_by_value(boxes, 0.0, limits)


def keep_best(
    boxes: tf.Tensor,
    scores: tf.Tensor,
    threshold: float,
    most: int,
    labels: tf.Tensor | None = None,
) -> tf.Tensor:
    """Non-maximum suppression in one image.

    By falling score, a box is kept if no kept one (of its class) has more than
    a threshold of intersection over union with it.

    Args:
      boxes: [n, 4], finite.
      scores: [n].
      threshold: in [0, 1].
      most: how many to keep.
      labels: [n], classes that do not suppress each other; by default one.

    Returns:
      int32 [at most `most`], the kept ones by falling score.
    """
    if labels is not None:  # Each class goes to a place of its own.
        low = tf.reduce_min(tf.concat([boxes, tf.zeros([1, 4])], axis=0))
        high = tf.reduce_max(tf.concat([boxes, tf.zeros([1, 4])], axis=0))
        boxes += (tf.cast(labels, boxes.dtype) * (high - low + 1))[:, None]
    return tf.image.non_max_suppression(boxes, scores, most, threshold)
