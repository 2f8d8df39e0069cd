"""Depth from one image: up-projections on an encoder; reverse Huber loss.

Source: Laina et al., "Deeper depth prediction with fully convolutional
residual networks", arXiv 1606.00373, sections 3.1 and 3.2, as arXiv 2006.07733
has it for NYU v2.
"""

import functools
import itertools
import math

import keras
import numpy as np
import tensorflow as tf

from byol_tf import scene_sheets
from byol_tf.data.depth_sets import open_depth
from byol_tf.data.scenes import (
    Scene,
    nearest_resized,
    resized,
)
from byol_tf.dense.dense_model import (
    DenseModel,
    as_floats,
    copy_of,
    most_of_replicas,
)
from byol_tf.dense.task import DenseTask, Recipe, bootstrapped, with_progress
from byol_tf.model.normalization import BatchNorm

# A crop's share of the image's height and width, at least: 228 of 240.
CROP = 0.95
# Random gain of each color channel.
GAINS = (0.8, 1.2)
# Of predictions, in metres: a ratio to the truth needs one above 0.
LEAST = 0.01
# Scenes whose mean depth a network begins with.
_LOOKED_AT = 32
_RATIOS = (1.25, 1.25**2, 1.25**3)


@keras.saving.register_keras_serializable(package="byol_tf")
class UpProjection(keras.layers.Layer):
    """Doubles height and width: a residual block on unpooled activations.

    Args:
      channels: of the output.

    Call arguments:
      inputs: [batch, height, width, any].

    Returns:
      [batch, 2 * height, 2 * width, channels].
    """

    def __init__(self, channels: int, **kwargs):
        super().__init__(**kwargs)
        self.channels = channels
        self.convs = [
            keras.layers.Conv2D(
                channels,
                size,
                padding="same",
                use_bias=False,
                kernel_initializer="he_normal",
                name=name,
                dtype=self.dtype_policy,
            )
            for name, size in (("conv_0", 5), ("conv_1", 3), ("shortcut", 5))
        ]
        self.norms = [
            BatchNorm(name=f"batchnorm_{i}", dtype=self.dtype_policy)
            for i in range(3)
        ]

    def build(self, input_shape):
        outputs = (*input_shape[:-1], self.channels)
        for conv, shape in zip(self.convs, (input_shape, outputs, input_shape)):
            conv.build(shape)
        for norm in self.norms:
            norm.build(outputs)

    def call(self, inputs, training=False):
        x = unpooled(inputs)
        branch, shortcut = (
            norm(conv(x), training=training)
            for norm, conv in zip(self.norms[::2], self.convs[::2])
        )
        branch = self.convs[1](tf.nn.relu(branch))
        branch = self.norms[1](branch, training=training)
        return tf.nn.relu(branch + shortcut)

    def get_config(self):
        return {**super().get_config(), "channels": self.channels}


def unpooled(x: tf.Tensor) -> tf.Tensor:
    """[b, h, w, c] -> [b, 2 h, 2 w, c]: each value, and three zeros with it."""
    batch, height, width, channels = (
        static or dynamic
        for static, dynamic in zip(x.shape, tf.unstack(tf.shape(x)))
    )
    zeros = [[0, 0], [0, 0], [0, 1], [0, 0], [0, 1], [0, 0]]
    x = tf.pad(x[:, :, None, :, None], zeros)
    return tf.reshape(x, [batch, 2 * height, 2 * width, channels])


@keras.saving.register_keras_serializable(package="byol_tf")
class DepthNetwork(DenseModel):
    """The depth of an image's pixels.

    A 1x1 convolution halves the encoder's channels; each up-projection halves
    them again and doubles the map, to half the image's height and width (a
    ResNet-50 has four: from stride 32 to 2); a 3x3 convolution makes depths.

    Args:
      encoder: see `DenseModel`; of stride 4 or more.
      usual_depth: metres that it begins with everywhere. From 0 the first
        errors are so large and alike that activations can die of them.
      size: height and width that it learned from; `predictions` shrinks images
        to the scale that they had then. None for images as they are.
      **kwargs: see `DenseModel`.

    Call arguments:
      images: uint8, or float in [0, 1], [batch, height, width, 3].

    Returns:
      Metres, float32 [batch, height, width]; in training they may be negative.
    """

    def __init__(
        self,
        encoder: keras.Model,
        usual_depth: float = 0.0,
        size: tuple[int, int] | None = None,
        **kwargs,
    ):
        super().__init__(encoder, **kwargs)
        self.usual_depth = usual_depth
        self.size = size
        channels = encoder.num_features // 2
        self.reduction = keras.layers.Conv2D(
            channels,
            1,
            use_bias=False,
            kernel_initializer="he_normal",
            name="reduction",
            dtype=self.dtype_policy,
        )
        self.norm = BatchNorm(name="batchnorm", dtype=self.dtype_policy)
        doublings = max(int(math.log2(encoder.strides[-1])) - 1, 1)
        self.up_projections = [
            UpProjection(
                max(channels >> (i + 1), 8),
                name=f"up_projection_{i}",
                dtype=self.dtype_policy,
            )
            for i in range(doublings)
        ]
        self.output_conv = keras.layers.Conv2D(
            1,
            3,
            padding="same",
            bias_initializer=keras.initializers.Constant(usual_depth),
            name="depth",
            dtype="float32",
        )
        self.reduction.build((None, None, None, encoder.num_features))
        shape = (None, None, None, channels)
        self.norm.build(shape)
        for block in self.up_projections:
            block.build(shape)
            shape = (None, None, None, block.channels)
        self.output_conv.build(shape)
        self.built = True

    def call(self, images, training=False):
        x = self.maps_of(as_floats(images), training)[-1]
        x = self.norm(self.reduction(x), training=training)
        for block in self.up_projections:
            x = block(x, training=training)
        depths = self.output_conv(tf.cast(x, tf.float32))
        return tf.image.resize(depths, tf.shape(images)[1:3])[..., 0]

    def losses(self, images, depths):
        """The mean reverse Huber loss of pixels; unknown ones count as 0."""
        return {"berhu": reverse_huber(self(images, training=True), depths)}

    def predictions(self, images):
        """`depth`, float32 [n, height, width], in metres, of each pixel."""
        images = as_floats(images)
        given = tf.shape(images)[1:3]
        if self.size is not None:
            shares = tf.constant(self.size, tf.float32) / tf.cast(
                given, tf.float32
            )
            scale = tf.reduce_max(shares) / CROP
            size = tf.round(scale * tf.cast(given, tf.float32))
            size = tf.maximum(tf.cast(size, tf.int32), self.size)
            images = tf.image.resize(images, size, antialias=True)
        depths = tf.image.resize(self(images)[..., None], given)[..., 0]
        return {"depth": tf.maximum(depths, LEAST)}

    def get_config(self):
        return {
            **super().get_config(),
            "usual_depth": self.usual_depth,
            "size": self.size,
        }


def reverse_huber(predicted: tf.Tensor, depths: tf.Tensor) -> tf.Tensor:
    """|x| up to c, and (x**2 + c**2) / (2 c) beyond, averaged over all pixels.

    x is the error, and c a fifth of the greatest one in the batch, on however
    many replicas.

    Args:
      predicted: metres, float [batch, height, width].
      depths: the truth; where it is 0 it is not known, and the loss is 0.
    """
    error = tf.where(depths > 0, tf.abs(predicted - depths), 0.0)
    limit = most_of_replicas(tf.reduce_max(error)) / 5
    safe = tf.maximum(limit, keras.config.epsilon())
    beyond = (tf.square(error) + tf.square(safe)) / (2 * safe)
    return tf.reduce_mean(tf.where(error <= limit, error, beyond))


def random_crop(
    scene: Scene, random: np.random.Generator, height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """A scene, shrunk so that the crop is most of it, cropped, flipped, tinted.

    Args:
      scene: see `data.depth_sets`.
      random: decides.
      height: of the crop.
      width: of the crop.

    Returns:
      uint8 [height, width, 3], and depths, float32 [height, width].
    """
    image, depth = _shrunk(scene, height, width)
    top = random.integers(depth.shape[0] - height + 1)
    left = random.integers(depth.shape[1] - width + 1)
    image = image[top : top + height, left : left + width]
    depth = depth[top : top + height, left : left + width]
    if random.random() < 0.5:
        image, depth = image[:, ::-1], depth[:, ::-1]
    gains = random.uniform(*GAINS, size=3)
    return np.clip(image * gains, 0, 255).astype(np.uint8), depth


def _shrunk(
    scene: Scene, height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Image and depths at the size of which a crop takes CROP at least."""
    rows, columns = scene["depth"].shape
    scale = max(height / rows, width / columns) / CROP
    rows, columns = (
        max(round(scale * side), least)
        for side, least in ((rows, height), (columns, width))
    )
    return (
        resized(scene["image"], rows, columns),
        nearest_resized(scene["depth"], rows, columns),
    )


def errors(predicted: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Of one image: sums over the pixels whose depth is known.

    Args:
      predicted: metres, float [height, width], above 0.
      depth: the truth, 0 where it is not known.

    Returns:
      float64 [6]: their number; how many are within a factor of 1.25, of 1.25
      squared and cubed; the squared errors; and the errors by the truth.
    """
    known = depth > 0
    found, truth = (
        array[known].astype(np.float64) for array in (predicted, depth)
    )
    ratio = np.maximum(found / truth, truth / found)
    return np.array(
        [
            len(truth),
            *(np.sum(ratio < limit) for limit in _RATIOS),
            np.sum((found - truth) ** 2),
            np.sum(np.abs(found - truth) / truth),
        ]
    )


def delta(power: int, errors, weights) -> float:
    """Share of all pixels whose depth is right within a factor 1.25**power."""
    sums = weights @ errors
    return float(sums[power] / sums[0])


def rms(errors, weights) -> float:
    """Root of the mean squared error of all pixels, in metres."""
    sums = weights @ errors
    return float(np.sqrt(sums[4] / sums[0]))


def rel(errors, weights) -> float:
    """Mean error of all pixels, by the truth."""
    sums = weights @ errors
    return float(sums[5] / sums[0])


FIGURES = {
    "delta1": functools.partial(delta, 1),
    "delta2": functools.partial(delta, 2),
    "delta3": functools.partial(delta, 3),
    "rms": rms,
    "rel": rel,
}


class Depth(DenseTask):
    """The protocol `depth`."""

    # A batch of 256; the decay is not published, and is a cosine here.
    recipe = Recipe(7500, 256, 0.16, 5e-4, (228, 304))
    flag = "depth_data"
    published = {
        "delta1": 84.6,
        "delta2": 96.7,
        "delta3": 99.1,
        "rms": 0.541,
        "rel": 0.129,
    }
    published_data = "NYU v2"
    differs = (
        "a cosine decay of the rate",
        "no dropout",
        "random gains as the color augmentation",
    )
    open = staticmethod(open_depth)

    def network(self, encoder, splits, size, **options):
        usual = np.mean(
            [
                scene["depth"][scene["depth"] > 0].mean()
                for scene in itertools.islice(splits.train, _LOOKED_AT)
            ]
            or [0.0]
        )
        return DepthNetwork(copy_of(encoder), float(usual), size, **options)

    def augmented(self, scene, random, size):
        return random_crop(scene, random, *size)

    def signature(self, size):
        return (
            tf.TensorSpec([*size, 3], tf.uint8),
            tf.TensorSpec(size, tf.float32),
        )

    def figures(self, model, splits):
        """Of whole images, at their size."""
        found = [
            errors(_depth(model, scene["image"]), scene["depth"])
            for scene in with_progress(splits.test, "depth, test")
        ]
        return {
            name: bootstrapped(figure, found)
            for name, figure in FIGURES.items()
        }

    def draw(self, model, scenes, class_names, path):
        scene_sheets.draw_depths(
            [
                (s["image"], s["depth"], _depth(model, s["image"]))
                for s in scenes
            ],
            path,
        )


def _depth(model: DepthNetwork, image: np.ndarray) -> np.ndarray:
    return model.predict_one(tf.constant(image[None]))["depth"][0].numpy()
