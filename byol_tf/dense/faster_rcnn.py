"""Object detection: Faster R-CNN on an encoder, of the kind R50-C4.

Source: arXiv 2006.07733, appendix on detection, which follows MoCo (arXiv
1911.05722): proposals are made on the map before the encoder's last group
(conv4), and that group (conv5), with a normalisation more, looks at each of
them. The numbers are those of detectron2's recipe for it.

BatchNorm normalises by the batch's statistics, over all replicas, as it is
published for 16 images. With fewer it learns less surely: on generated scenes,
one image a step came to an AP50 of 28 % where statistics that stay as they were
came to 38 %; with four images it was 58 % and 63 %.
"""

from typing import NamedTuple

import keras
import tensorflow as tf

from byol_tf.dense.anchors import (
    ASPECT_RATIOS,
    NEITHER,
    POSITIVE,
    SIZES,
    anchors_on,
    assign,
    sample,
)
from byol_tf.dense.boxes import clip, decode, encode, keep_best
from byol_tf.dense.dense_model import DenseModel, as_floats, copy_of
from byol_tf.dense.proposals import (
    ProposalNetwork,
    best_proposals,
    l1,
    proposal_losses,
    sampled_mean,
)
from byol_tf.dense.roi_align import roi_align
from byol_tf.model.normalization import BatchNorm
from byol_tf.model.resnet import IMAGENET_MEAN

# Shorter and longer side of an image, as published: the longer is at most that.
SIZE = (800, 1333)
# Side of the map of a proposal that the last group is given.
REGION = 14
# Of the codes of boxes that the last group's features give.
WEIGHTS = (10.0, 10.0, 5.0, 5.0)
# Overlaps with a true box: of anchors, and of proposals.
ANCHOR_POSITIVE, ANCHOR_NEGATIVE = 0.7, 0.3
REGION_POSITIVE = 0.5
# Shares of the samples that may be positive.
ANCHOR_SHARE, REGION_SHARE = 0.5, 0.25
# Detections: the lowest score, the greatest overlap, the most in an image.
LEAST_SCORE, DETECTION_OVERLAP, MOST_DETECTIONS = 0.05, 0.5, 100


class Counts(NamedTuple):
    """How many of what there are in an image.

    Attributes:
      anchors: to learn from.
      regions: proposals to learn from, at most `train_after`.
      train_before: proposals that are compared with each other in training.
      train_after: what remains of them.
      test_before: the same in prediction.
      test_after: what remains of them.
    """

    anchors: int = 256
    regions: int = 512
    train_before: int = 12000
    train_after: int = 2000
    test_before: int = 6000
    test_after: int = 1000

    def scaled(self, share: float) -> "Counts":
        """For smaller images, which have fewer places; 64 at least."""
        return Counts(*(max(round(share * count), 64) for count in self))


@keras.saving.register_keras_serializable(package="byol_tf")
class FasterRCNN(DenseModel):
    """Boxes around objects, and their classes.

    Args:
      encoder: see `DenseModel`; of two groups or more.
      num_classes: c, without the background.
      size: shorter side in pixels that images are resized to for prediction,
        and the most that the longer one may have then. The anchors have sizes
        in proportion to the first.
      counts: see `Counts`; by default the published ones in proportion to the
        shorter side.
      **kwargs: see `DenseModel`.

    Raises:
      ValueError: if the encoder has one group only.
    """

    def __init__(
        self,
        encoder: keras.Model,
        num_classes: int,
        size: tuple[int, int] = SIZE,
        counts: tuple[int, ...] | None = None,
        **kwargs,
    ):
        super().__init__(encoder, **kwargs)
        # XLA has no suppression whose results vary in number.
        self.supports_jit = False
        if len(encoder.blocks) < 2:
            raise ValueError(
                "Detection needs an encoder of two groups or more: proposals "
                "are made on the last but one."
            )
        self.num_classes = num_classes
        self.size = tuple(size)
        share = min(size[0] / SIZE[0], 1)
        self.counts = Counts(*counts) if counts else Counts().scaled(share)
        self.stride = encoder.strides[-2]
        self.anchor_sizes = [s * size[0] / SIZE[0] for s in SIZES]
        self.proposal_network = ProposalNetwork(
            len(SIZES) * len(ASPECT_RATIOS),
            name="proposals",
            dtype=self.dtype_policy,
        )
        self.norm = BatchNorm(name="batchnorm", dtype=self.dtype_policy)
        self.classifier, self.regressor = (
            keras.layers.Dense(
                outputs,
                kernel_initializer=keras.initializers.RandomNormal(
                    stddev=deviation
                ),
                name=name,
                dtype="float32",
            )
            for name, outputs, deviation in (
                ("classifier", num_classes + 1, 0.01),
                ("regressor", 4 * num_classes, 0.001),
            )
        )
        width = encoder.width
        self.proposal_network.build(
            (None, None, None, encoder.channels[-2] * width)
        )
        features = encoder.channels[-1] * width
        self.norm.build((None, None, None, features))
        self.classifier.build((None, features))
        self.regressor.build((None, features))
        self.built = True

    @classmethod
    def on(
        cls, encoder: keras.Model, num_classes: int, **kwargs
    ) -> "FasterRCNN":
        """On a copy of a `ResNet`."""
        return cls(copy_of(encoder), num_classes, **kwargs)

    def call(self, images):
        return self.predictions(images)

    def losses(self, images, sizes, boxes, labels, draws):
        """Of proposals and of what becomes of them; each a mean over images.

        Args:
          images: [n, h, w, 3].
          sizes: float [n, 2], height and width of the image in it, which begins
            at the top left; what is around it does not count.
          boxes: float [n, m, 4].
          labels: int [n, m], classes from 1; 0 where there is no box, and below
            0 where it is to be ignored.
          draws: int [n], seeds of what is sampled.

        Returns:
          `objectness` and `proposals`, of the anchors; `classes` and `boxes`,
          of the proposals.
        """
        # One more that is none: no box at all is no special case.
        boxes = tf.pad(boxes, [[0, 0], [0, 1], [0, 0]])
        labels = tf.pad(labels, [[0, 0], [0, 1]])
        features = self._features(_framed(as_floats(images), sizes), True)
        anchors, counted = self._anchors(features, sizes)
        logits, codes = self.proposal_network(features)
        matches, kinds = assign(
            anchors,
            boxes,
            labels,
            ANCHOR_POSITIVE,
            ANCHOR_NEGATIVE,
            counted,
            best_of_each=True,
        )
        chosen = sample(
            kinds,
            _uniform(draws, 0, tf.shape(kinds)[1]),
            self.counts.anchors,
            ANCHOR_SHARE,
        )
        losses = proposal_losses(
            logits,
            codes,
            anchors,
            tf.gather(boxes, matches, batch_dims=1),
            tf.where(chosen, kinds, NEITHER),
            self.counts.anchors,
        )
        proposals, there = best_proposals(
            logits,
            codes,
            anchors,
            counted,
            sizes,
            self.counts.train_before,
            self.counts.train_after,
        )
        # The true boxes are proposals too: at first there are no good ones.
        proposals = tf.concat([proposals, boxes], axis=1)
        there = tf.concat([there, labels > 0], axis=1)
        return losses | self._region_losses(
            features, proposals, there, boxes, labels, draws
        )

    def _region_losses(
        self, features, proposals, there, boxes, labels, draws
    ) -> dict[str, tf.Tensor]:
        count = self.counts.regions
        matches, kinds = assign(
            proposals, boxes, labels, REGION_POSITIVE, REGION_POSITIVE, there
        )
        numbers = _uniform(draws, 1, tf.shape(kinds)[1])
        chosen = sample(kinds, numbers, count, REGION_SHARE)
        kinds = tf.where(chosen, kinds, NEITHER)
        best = tf.math.top_k(tf.cast(chosen, tf.int32), count).indices
        proposals, matches, kinds = (
            tf.gather(values, best, batch_dims=1)
            for values in (proposals, matches, kinds)
        )
        boxes = tf.gather(boxes, matches, batch_dims=1)
        labels = tf.gather(labels, matches, batch_dims=1)
        classes = tf.where(kinds == POSITIVE, labels, 0)
        logits, codes = self._regions(features, proposals, True)
        codes = tf.gather(codes, tf.maximum(classes - 1, 0), batch_dims=2)
        return {
            "classes": sampled_mean(
                tf.nn.sparse_softmax_cross_entropy_with_logits(classes, logits),
                kinds != NEITHER,
                count,
            ),
            "boxes": sampled_mean(
                l1(codes, encode(boxes, proposals, WEIGHTS)),
                kinds == POSITIVE,
                count,
            ),
        }

    def predictions(self, images):
        """Detections by falling score.

        Returns:
          `boxes`, float32 [n, MOST_DETECTIONS, 4] in pixels of the images as
          they are given; `scores`, [n, the same]; and `labels`, int32, classes
          from 0, and -1 after the last detection.
        """
        images = as_floats(images)
        count = tf.shape(images)[0]
        given = tf.cast(tf.shape(images)[1:3], tf.float32)
        images = resized_to(images, self.size)
        size = tf.cast(tf.shape(images)[1:3], tf.float32)
        sizes = tf.repeat(size[None], count, axis=0)
        features = self._features(images, False)
        anchors, counted = self._anchors(features, sizes)
        proposals, there = best_proposals(
            *self.proposal_network(features),
            anchors,
            counted,
            sizes,
            self.counts.test_before,
            self.counts.test_after,
        )
        logits, codes = self._regions(features, proposals, False)
        boxes = decode(codes, proposals[:, :, None], WEIGHTS)
        boxes = clip(boxes, size) * tf.tile(given / size, [2])
        scores = tf.nn.softmax(logits)[..., 1:]
        scores = tf.where(there[..., None], scores, 0.0)
        boxes, scores, labels = tf.map_fn(
            _detections,
            (boxes, scores),
            fn_output_signature=(tf.float32, tf.float32, tf.int32),
        )
        return {"boxes": boxes, "scores": scores, "labels": labels}

    def _features(self, images, training: bool):
        groups = len(self.encoder.blocks) - 1
        return self.maps_of(images, training, groups)[-1]

    def _anchors(self, features, sizes):
        """All of a map, and whether the centre of each lies in the image."""
        anchors = anchors_on(
            tf.shape(features)[1:3], self.stride, self.anchor_sizes
        )
        centres = (anchors[:, :2] + anchors[:, 2:]) / 2
        return anchors, tf.reduce_all(centres < sizes[:, None], axis=-1)

    def _regions(self, features, boxes, training: bool):
        """Logits [n, p, c + 1] and codes [n, p, c, 4] of boxes [n, p, 4]."""
        count, each = tf.unstack(tf.shape(boxes)[:2])
        classes = self.num_classes
        x = roi_align(features, boxes, self.stride, REGION)
        x = self.encoder.group(
            len(self.encoder.blocks) - 1, x, training and not self.frozen
        )
        x = self.norm(x, training=training)
        x = tf.reduce_mean(tf.cast(x, tf.float32), axis=(1, 2))
        return (
            tf.reshape(self.classifier(x), [count, each, classes + 1]),
            tf.reshape(self.regressor(x), [count, each, classes, 4]),
        )

    def get_config(self):
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "size": self.size,
            "counts": tuple(self.counts),
        }


def resized_to(images: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Images [n, h, w, 3] whose shorter side is size[0].

    Less if the longer would be more than size[1] then.
    """
    given = tf.cast(tf.shape(images)[1:3], tf.float32)
    scale = tf.minimum(
        size[0] / tf.reduce_min(given), size[1] / tf.reduce_max(given)
    )
    target = tf.round(scale * given)
    target = tf.maximum(tf.cast(target, tf.int32), 1)
    return tf.image.resize(images, target, antialias=True)


def _framed(images, sizes):
    """Images with the mean colour around them, which convolutions see as 0."""
    rows, columns = (
        tf.range(count, dtype=tf.float32)
        for count in tf.unstack(tf.cast(tf.shape(images)[1:3], tf.float32))
    )
    inside = (rows < sizes[:, :1])[:, :, None] & (columns < sizes[:, 1:])[
        :, None
    ]
    mean = tf.constant(IMAGENET_MEAN, images.dtype)
    return tf.where(inside[..., None], images, mean)


def _uniform(draws, stream: int, count) -> tf.Tensor:
    """float32 [n, count] in [0, 1): of each image alone, wherever it is."""
    return tf.map_fn(
        lambda draw: tf.random.stateless_uniform([count], [draw, stream]),
        draws,
        fn_output_signature=tf.float32,
    )


def _detections(arguments):
    """The best of an image's boxes [p, c, 4] and scores [p, c], padded."""
    boxes, scores = arguments
    above = scores > LEAST_SCORE
    boxes = tf.boolean_mask(boxes, above)
    scores = tf.boolean_mask(scores, above)
    labels = tf.cast(tf.where(above)[:, 1], tf.int32)
    kept = keep_best(boxes, scores, DETECTION_OVERLAP, MOST_DETECTIONS, labels)
    missing = [[0, MOST_DETECTIONS - tf.shape(kept)[0]]]
    results = (
        tf.pad(tf.gather(boxes, kept), [*missing, [0, 0]]),
        tf.pad(tf.gather(scores, kept), missing),
        tf.pad(tf.gather(labels, kept), missing, constant_values=-1),
    )
    return tuple(
        tf.ensure_shape(result, [MOST_DETECTIONS, *result.shape[1:]])
        for result in results
    )
