"""The region proposal network: where in an image objects may be.

Source: arXiv 1506.01497, section 3.1.
"""

import keras
import tensorflow as tf

from byol_tf.dense.anchors import NEITHER, POSITIVE
from byol_tf.dense.boxes import clip, decode, encode, keep_best, sides

# Overlap from which on one of two proposals is dropped.
THRESHOLD = 0.7


@keras.saving.register_keras_serializable(package="byol_tf")
class ProposalNetwork(keras.layers.Layer):
    """Whether there is an object at an anchor, and how its box lies to it.

    Args:
      anchors: their number at each place.

    Call arguments:
      features: float [n, h, w, c].

    Returns:
      float32: logits [n, h * w * anchors], and codes of boxes [n, the same, 4].
    """

    def __init__(self, anchors: int, **kwargs):
        super().__init__(**kwargs)
        self.anchors = anchors

    def build(self, input_shape):
        channels = input_shape[-1]

        def conv(name, filters, size, dtype):
            layer = keras.layers.Conv2D(
                filters,
                size,
                padding="same",
                kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
                name=name,
                dtype=dtype,
            )
            layer.build((None, None, None, channels))
            return layer

        self.conv = conv("conv", channels, 3, self.dtype_policy)
        self.logits = conv("logits", self.anchors, 1, "float32")
        self.codes = conv("codes", 4 * self.anchors, 1, "float32")

    def call(self, features):
        x = tf.cast(tf.nn.relu(self.conv(features)), tf.float32)
        count = tf.shape(x)[0]
        return (
            tf.reshape(self.logits(x), [count, -1]),
            tf.reshape(self.codes(x), [count, -1, 4]),
        )

    def get_config(self):
        return {**super().get_config(), "anchors": self.anchors}


def best_proposals(
    logits: tf.Tensor,
    codes: tf.Tensor,
    anchors: tf.Tensor,
    counted: tf.Tensor,
    sizes: tf.Tensor,
    before: int,
    after: int,
) -> tuple[tf.Tensor, tf.Tensor]:
    """The boxes of highest score that do not overlap much, in each image.

    Args:
      logits: [n, p].
      codes: [n, p, 4].
      anchors: [p, 4].
      counted: bool [n, p], anchors that lie in the image.
      sizes: float [n, 2], its height and width.
      before: how many to compare with each other.
      after: how many to keep of them.

    Returns:
      float32 [n, after, 4], clipped to the image and without a gradient; and
      bool [n, after], false for zeros that stand where there are no more.
    """
    before = tf.minimum(before, tf.shape(logits)[1])

    def of_image(arguments):
        logits, codes, counted, size = arguments
        best = tf.math.top_k(tf.where(counted, logits, -1e9), before).indices
        boxes = decode(tf.gather(codes, best), tf.gather(anchors, best))
        boxes = clip(boxes, size)
        height, width = sides(boxes)
        there = tf.gather(counted, best) & (height > 0) & (width > 0)
        boxes = tf.boolean_mask(boxes, there)
        scores = tf.boolean_mask(tf.gather(logits, best), there)
        kept = keep_best(boxes, scores, THRESHOLD, after)
        missing = after - tf.shape(kept)[0]
        boxes = tf.pad(tf.gather(boxes, kept), [[0, missing], [0, 0]])
        return (
            tf.ensure_shape(boxes, [after, 4]),
            tf.range(after) < tf.shape(kept)[0],
        )

    return tf.map_fn(
        of_image,
        (tf.stop_gradient(logits), tf.stop_gradient(codes), counted, sizes),
        fn_output_signature=(tf.float32, tf.bool),
    )


def proposal_losses(
    logits: tf.Tensor,
    codes: tf.Tensor,
    anchors: tf.Tensor,
    boxes: tf.Tensor,
    kinds: tf.Tensor,
    count: int,
) -> dict[str, tf.Tensor]:
    """Of a sample of the anchors, whose number is what sums are divided by.

    Args:
      logits: [n, p].
      codes: [n, p, 4].
      anchors: [p, 4].
      boxes: [n, p, 4], the true box that goes with each.
      kinds: int [n, p], see `assign`; NEITHER outside of the sample.
      count: that an image's sample may have.
    """
    cross_entropy = tf.nn.sigmoid_cross_entropy_with_logits(
        tf.cast(kinds == POSITIVE, tf.float32), logits
    )
    return {
        "objectness": sampled_mean(cross_entropy, kinds != NEITHER, count),
        "proposals": sampled_mean(
            l1(codes, encode(boxes, anchors)), kinds == POSITIVE, count
        ),
    }


def l1(codes: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """Absolute differences of [..., 4], summed: smooth L1 with no smooth part.

    So detectron2 has it; in the paper squares go up to a difference of 1.
    """
    return tf.reduce_sum(tf.abs(codes - tf.stop_gradient(targets)), axis=-1)


def sampled_mean(losses: tf.Tensor, there: tf.Tensor, count: int) -> tf.Tensor:
    """Mean over images of what is there, [n, p], by a constant count.

    So an image with fewer boxes weighs no more, and none divides by 0.
    """
    total = tf.reduce_sum(tf.where(there, losses, 0.0), axis=1)
    return tf.reduce_mean(total) / count
