"""Semantic segmentation: a fully convolutional network on a dilated encoder.

Source: arXiv 2006.07733, appendix on VOC2012, which follows MoCo (arXiv
1911.05722): conv5 has a dilation of 2 in place of its stride; after it come two
3x3 convolutions of 256 channels with a dilation of 6, BatchNorm and ReLU, and a
1x1 classifier.
"""

from collections.abc import Iterable

import keras
import numpy as np
import tensorflow as tf

from byol_tf import scene_sheets
from byol_tf.data.scenes import (
    Scene,
    nearest_resized,
    resized,
)
from byol_tf.data.segmentation_sets import IGNORED, open_segmentation
from byol_tf.dense.dense_model import (
    DenseModel,
    as_floats,
    copy_of,
    mean_over_replicas,
)
from byol_tf.dense.task import DenseTask, Recipe, bootstrapped, with_progress
from byol_tf.model.normalization import BatchNorm

CHANNELS, DILATION = 256, 6
SCALES = (0.5, 2.0)


@keras.saving.register_keras_serializable(package="byol_tf")
class FCN(DenseModel):
    """Classes of an image's pixels.

    Args:
      encoder: see `DenseModel`; `on` makes it of any `ResNet`.
      num_classes: c.
      channels: of the two convolutions.
      **kwargs: see `DenseModel`.

    Call arguments:
      images: uint8, or float in [0, 1], [batch, height, width, 3].

    Returns:
      Logits, float32 [batch, height, width, c].
    """

    def __init__(
        self,
        encoder: keras.Model,
        num_classes: int,
        channels: int = CHANNELS,
        **kwargs,
    ):
        super().__init__(encoder, **kwargs)
        self.num_classes = num_classes
        self.channels = channels
        self.convs = [
            keras.layers.Conv2D(
                channels,
                3,
                padding="same",
                dilation_rate=DILATION,
                use_bias=False,
                kernel_initializer="he_normal",
                name=f"conv_{i}",
                dtype=self.dtype_policy,
            )
            for i in range(2)
        ]
        self.norms = [
            BatchNorm(name=f"batchnorm_{i}", dtype=self.dtype_policy)
            for i in range(2)
        ]
        self.classifier = keras.layers.Conv2D(
            num_classes,
            1,
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
            name="classifier",
            dtype="float32",
        )
        shape = (None, None, None, encoder.num_features)
        for conv, norm in zip(self.convs, self.norms):
            conv.build(shape)
            shape = (*shape[:3], channels)
            norm.build(shape)
        self.classifier.build(shape)
        self.built = True

    @classmethod
    def on(cls, encoder: keras.Model, num_classes: int, **kwargs) -> "FCN":
        """On a copy of a `ResNet` whose last group is dilated.

        On an encoder with fewer features its convolutions have no more.
        """
        stride = min(encoder.strides[-2:]) if len(encoder.blocks) > 1 else None
        return cls(
            copy_of(encoder, output_stride=stride),
            num_classes,
            min(CHANNELS, encoder.num_features),
            **kwargs,
        )

    def call(self, images, training=False):
        x = self.maps_of(as_floats(images), training)[-1]
        for conv, norm in zip(self.convs, self.norms):
            x = tf.nn.relu(norm(conv(x), training=training))
        logits = self.classifier(tf.cast(x, tf.float32))
        return tf.image.resize(logits, tf.shape(images)[1:3])

    def losses(self, images, masks):
        """Mean cross-entropy of the batch's pixels that are not IGNORED.

        Of the whole batch, on however many replicas: each divides its sum by
        the mean number of their pixels.
        """
        counted = masks != IGNORED
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
            tf.where(counted, tf.cast(masks, tf.int32), 0),
            self(images, training=True),
        )
        losses = tf.where(counted, losses, tf.zeros_like(losses))
        count = mean_over_replicas(tf.reduce_sum(tf.cast(counted, tf.float32)))
        mean = tf.reduce_sum(losses) / tf.maximum(count, 1.0)
        return {"cross_entropy": mean}

    def predictions(self, images):
        """`classes`, int32 [n, height, width], and `probabilities` of them."""
        logits = self(images)
        return {
            "classes": tf.argmax(logits, axis=-1, output_type=tf.int32),
            "probabilities": tf.reduce_max(tf.nn.softmax(logits), axis=-1),
        }

    def get_config(self):
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "channels": self.channels,
        }


def scaled_crop(
    scene: Scene, random: np.random.Generator, height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """A scene at a random scale, cropped, and flipped or not.

    Args:
      scene: see `data.segmentation_sets`.
      random: decides.
      height: of the crop. What lies outside the image is black, and IGNORED.
      width: of the crop.

    Returns:
      uint8 [height, width, 3], and the mask, uint8 [height, width].
    """
    image, mask = scene["image"], scene["mask"]
    scale = np.exp(random.uniform(*np.log(SCALES)))
    rows, columns = (max(round(scale * side), 1) for side in mask.shape)
    image = resized(image, rows, columns)
    mask = nearest_resized(mask, rows, columns)
    top = random.integers(max(rows - height, 0) + 1)
    left = random.integers(max(columns - width, 0) + 1)
    image = image[top : top + height, left : left + width]
    mask = mask[top : top + height, left : left + width]
    missing = [(0, height - mask.shape[0]), (0, width - mask.shape[1])]
    image = np.pad(image, [*missing, (0, 0)])
    mask = np.pad(mask, missing, constant_values=IGNORED)
    if random.random() < 0.5:
        image, mask = image[:, ::-1], mask[:, ::-1]
    return image, mask


def overlaps(
    predicted: np.ndarray, mask: np.ndarray, classes: int
) -> np.ndarray:
    """Of one image: pixels in intersection and union of each class.

    Args:
      predicted: int [height, width].
      mask: the same, IGNORED where nothing counts.
      classes: their number, c.

    Returns:
      int64 [2, c].
    """
    counted = mask != IGNORED
    pairs = classes * mask[counted].astype(np.int64) + predicted[counted]
    confusion = np.bincount(pairs, minlength=classes**2)
    confusion = confusion.reshape(classes, classes)
    intersection = np.diag(confusion)
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - intersection
    return np.stack([intersection, union])


def mean_iou(overlaps: Iterable[np.ndarray], weights=None) -> float:
    """Intersection over union of the whole set, averaged over the classes.

    A class that neither truth nor prediction has anywhere is left out.

    Args:
      overlaps: of each image, [n, 2, c].
      weights: [n], how often each image counts; by default once.

    Raises:
      ValueError: if no class is there.
    """
    overlaps = np.asarray(overlaps)
    if weights is None:
        weights = np.ones(len(overlaps))
    intersection, union = np.tensordot(weights, overlaps, axes=1)
    there = union > 0
    if not there.any():
        raise ValueError("No pixel of any image counts.")
    return float(np.mean(intersection[there] / union[there]))


class Segmentation(DenseTask):
    """The protocol `segmentation`."""

    # 50 epochs of the 10,582 images of train_aug; MoCo's rate.
    recipe = Recipe(33_000, 16, 0.003, 1e-4, (513, 513), (0.7, 0.9))
    flag = "segmentation_data"
    published = {"miou": 76.3}
    published_data = "VOC2012"
    differs = (
        "Nesterov's momentum",
        "scales drawn by their logarithm",
        "black beyond the image",
    )
    open = staticmethod(open_segmentation)

    def network(self, encoder, splits, size, **options):
        return FCN.on(encoder, len(splits.class_names), **options)

    def augmented(self, scene, random, size):
        return scaled_crop(scene, random, *size)

    def signature(self, size):
        return (
            tf.TensorSpec([*size, 3], tf.uint8),
            tf.TensorSpec(size, tf.uint8),
        )

    def figures(self, model, splits):
        """mIoU; every image has its own size and is looked at as a whole."""
        classes = len(splits.class_names)
        found = [
            overlaps(_classes(model, scene["image"]), scene["mask"], classes)
            for scene in with_progress(splits.test, "segmentation, test")
        ]
        return {"miou": bootstrapped(mean_iou, found)}

    def draw(self, model, scenes, class_names, path):
        scene_sheets.draw_masks(
            [
                (s["image"], s["mask"], _classes(model, s["image"]))
                for s in scenes
            ],
            class_names,
            IGNORED,
            path,
        )


def _classes(model: FCN, image: np.ndarray) -> np.ndarray:
    predicted = model.predict_one(tf.constant(image[None]))
    return predicted["classes"][0].numpy()
