"""Features of boxes, all of one size, by bilinear interpolation.

Source: He et al., "Mask R-CNN", arXiv 1703.06870, with places counted from the
pixels' centres, as in detectron2.
"""

import tensorflow as tf

# Samples a cell in each direction, of which it is the mean.
SAMPLES = 2


def roi_align(
    features: tf.Tensor, boxes: tf.Tensor, stride: int, size: int
) -> tf.Tensor:
    """Each box as a map of its own.

    A box is divided into size x size cells, and a cell is the mean of the
    features at the centres of its SAMPLES x SAMPLES parts. Beyond the centres
    of its outermost places, the map goes on as it ends there; what of a box
    lies outside of the map is cut off.

    Args:
      features: float [n, h, w, c].
      boxes: float [n, p, 4] in pixels of the image.
      stride: of the map: place i covers the pixels from i * stride on.
      size: height and width of the result.

    Returns:
      [n * p, size, size, c] in the dtype of `features`.
    """
    shape = tf.shape(features)
    count = tf.shape(boxes)[1]
    images = tf.repeat(tf.range(shape[0]), count)
    # The kernel gives 0 beyond the outermost centres: there is one more then.
    features = tf.pad(features, [[0, 0], [1, 1], [1, 1], [0, 0]], "SYMMETRIC")
    # Places of the samples lie between centres, of which the first is at 0.
    boxes = tf.reshape(boxes, [-1, 4]) / stride + 0.5
    boxes = tf.stop_gradient(boxes)
    last_centre = tf.cast(shape[1:3], boxes.dtype) + 1
    limits = tf.concat([last_centre, last_centre], axis=0) - 0.5
    boxes = tf.clip_by_value(boxes, 0.5, limits)
    start, end = boxes[:, :2], boxes[:, 2:]
    cell = (end - start) / size
    image = tf.cast(features, tf.float32)
    total = 0.0
    # One sample of every cell after the other: four small results take less
    # memory than a large one.
    for row in range(SAMPLES):
        for column in range(SAMPLES):
            part = (tf.constant([row, column], boxes.dtype) + 0.5) / SAMPLES
            first = start + part * cell
            last = first + (size - 1) * cell
            # In shares of the way from the first centre to the last.
            total += tf.image.crop_and_resize(
                image,
                tf.concat([first, last], axis=1) / (limits + 0.5),
                images,
                [size, size],
            )
    return tf.cast(total / SAMPLES**2, features.dtype)
