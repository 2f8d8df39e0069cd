"""The official ResNet encoder as a Keras model.

Source: google-deepmind/deepmind-research `byol/utils/networks.py` (ResNet v1)
and dm-haiku's `ResNet.BlockV1`.
"""

import keras
import tensorflow as tf

from byol_tf.model.batch_free import StandardizedConv2D
from byol_tf.model.batch_free import normalization as normalization_layer
from byol_tf.model.convolution import Conv2D
from byol_tf.model.initializers import fan_in_truncated_normal
from byol_tf.model.normalization import parts, statistics_apart
from byol_tf.model.recompute import recomputed

# Mean and standard deviation of ImageNet's training images, RGB in [0, 1].
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STDDEV = (0.229, 0.224, 0.225)

# depth -> (blocks per group, channels per group, bottleneck blocks?)
DEPTHS = {
    18: ((2, 2, 2, 2), (64, 128, 256, 512), False),
    34: ((3, 4, 6, 3), (64, 128, 256, 512), False),
    50: ((3, 4, 6, 3), (256, 512, 1024, 2048), True),
    101: ((3, 4, 23, 3), (256, 512, 1024, 2048), True),
    152: ((3, 8, 36, 3), (256, 512, 1024, 2048), True),
    200: ((3, 24, 36, 3), (256, 512, 1024, 2048), True),
}
STEMS = ("imagenet", "cifar")


def normalize(images: tf.Tensor) -> tf.Tensor:
    """Float RGB in [0, 1] to mean 0 and deviation 1 over ImageNet."""
    mean = tf.constant(IMAGENET_MEAN, images.dtype)
    return (images - mean) / tf.constant(IMAGENET_STDDEV, images.dtype)


def conv(
    filters: int,
    kernel_size: int,
    strides: int,
    name: str,
    dtype,
    normalization: str = "batch",
    dilation: int = 1,
):
    """A convolution as everywhere in the network: SAME padding, no bias.

    Its kernel is standardised where a group normalisation follows.
    """
    groups = normalization == "group"
    return (StandardizedConv2D if groups else Conv2D)(
        filters,
        kernel_size,
        strides,
        padding="same",
        dilation_rate=dilation,
        use_bias=False,
        kernel_initializer=fan_in_truncated_normal(),
        name=name,
        dtype=dtype,
    )


@keras.saving.register_keras_serializable(package="byol_tf")
class ResidualBlock(keras.layers.Layer):
    """relu(branch(x) + shortcut(x)): two 3x3 convolutions, or a bottleneck.

    Args:
      channels: output channels.
      strides: of the block; in a bottleneck they are on the 3x3 convolution.
      bottleneck: 1x1, 3x3, 1x1 convolutions, the first two with a quarter of
        the channels, in place of two 3x3 ones.
      projection: whether the shortcut is a 1x1 convolution and BatchNorm, or
        the identity.
      zero_init_gamma: whether the branch of a bottleneck starts at zero.
      recompute: see `ResNet`, as for the next.
      normalization: of the activations.
      dilation: of the 3x3 convolutions.
    """

    def __init__(
        self,
        channels: int,
        strides: int,
        bottleneck: bool,
        projection: bool,
        zero_init_gamma: bool = False,
        recompute: bool = False,
        normalization: str = "batch",
        dilation: int = 1,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.channels = channels
        self.strides = strides
        self.dilation = dilation
        self.bottleneck = bottleneck
        self.projection = projection
        self.zero_init_gamma = zero_init_gamma
        self.recompute = recompute
        self.normalization = normalization

        if bottleneck and channels % 4:
            raise ValueError(
                f"A bottleneck's channels ({channels}) must be divisible by 4."
            )
        if bottleneck:
            inner = channels // 4
            layers = ((inner, 1, 1), (inner, 3, strides), (channels, 1, 1))
        else:
            layers = ((channels, 3, strides), (channels, 3, 1))
        as_all = dict(dtype=self.dtype_policy, normalization=normalization)
        self.convs = [
            conv(
                filters,
                size,
                step,
                name=f"conv_{i}",
                dilation=dilation if size > 1 else 1,
                **as_all,
            )
            for i, (filters, size, step) in enumerate(layers)
        ]
        last = "zeros" if bottleneck and zero_init_gamma else "ones"
        gammas = ["ones"] * (len(layers) - 1) + [last]
        self.norms = [
            normalization_layer(
                normalization,
                gamma_initializer=gamma,
                name=f"batchnorm_{i}",
                dtype=self.dtype_policy,
            )
            for i, gamma in enumerate(gammas)
        ]
        if projection:
            self.shortcut_conv = conv(
                channels, 1, strides, "shortcut_conv", **as_all
            )
            self.shortcut_norm = normalization_layer(
                normalization,
                name="shortcut_batchnorm",
                dtype=self.dtype_policy,
            )

    def build(self, input_shape):
        shape = input_shape
        for convolution, norm in zip(self.convs, self.norms):
            convolution.build(shape)
            shape = (*shape[:3], convolution.filters)
            norm.build(shape)
        if self.projection:
            self.shortcut_conv.build(input_shape)
            self.shortcut_norm.build(shape)

    def call(self, inputs, training=False):
        if training and self.recompute:
            return self._recomputed(inputs)
        return self._outputs(inputs, training)

    def _recomputed(self, inputs):
        """The outputs in training, of which the gradient keeps the inputs only.

        The block runs a second time when its gradient is asked for. Either run
        is a pure function of the inputs and the variables' values: a gradient
        with respect to values is the same on one replica and on many, and the
        statistics are assigned once, outside.
        """
        parameters = self.trainable_variables
        kept = [
            (v, tf.convert_to_tensor(v)) for v in self.non_trainable_variables
        ]
        runs, apart = [], parts()

        def outputs(inputs, *values):
            mapping = [*zip(parameters, values), *kept]
            with (
                keras.StatelessScope(mapping) as scope,
                statistics_apart(apart),
            ):
                runs.append(scope)
                return self._outputs(inputs, training=True)

        values = [tf.convert_to_tensor(v) for v in parameters]
        result = recomputed(outputs)(inputs, *values)
        shortcut = [self.shortcut_norm] if self.projection else []
        for norm in self.norms + shortcut:
            for statistic in norm.statistics:
                statistic.assign(runs[0].get_current_value(statistic))
        return result

    def _outputs(self, inputs, training: bool):
        shortcut = inputs
        if self.projection:
            shortcut = self.shortcut_conv(shortcut)
            shortcut = self.shortcut_norm(shortcut, training=training)
        outputs = inputs
        for convolution, norm in zip(self.convs[:-1], self.norms[:-1]):
            outputs = tf.nn.relu(norm(convolution(outputs), training=training))
        outputs = self.norms[-1](self.convs[-1](outputs), training=training)
        return tf.nn.relu(outputs + shortcut)

    def get_config(self):
        return {
            **super().get_config(),
            "channels": self.channels,
            "strides": self.strides,
            "bottleneck": self.bottleneck,
            "projection": self.projection,
            "zero_init_gamma": self.zero_init_gamma,
            "recompute": self.recompute,
            "normalization": self.normalization,
            "dilation": self.dilation,
        }


@keras.saving.register_keras_serializable(package="byol_tf")
class ResNet(keras.Model):
    """ResNet v1.5 with global average pooling, and no classifier.

    Every group begins with a projection shortcut, in depths 18 and 34 as well.
    Strided SAME convolutions pad as TensorFlow does, asymmetrically.

    Args:
      depth: 18, 34, 50, 101, 152 or 200; or None, and then `blocks`,
        `channels` and `bottleneck` say what to build.
      width: integer factor on the channels of the stem and of every group.
      stem: "imagenet" (7x7 convolution with stride 2, then 3x3 max-pooling
        with stride 2) or "cifar" (3x3 with stride 1, no pooling).
      zero_init_gamma: whether bottleneck branches start at zero. More stable
        for the first steps; the paper's results were obtained without.
      blocks: number of blocks in each group, e.g. (2, 2, 2, 2).
      channels: output channels of each group, e.g. (64, 128, 256, 512).
      bottleneck: the kind of block, see `ResidualBlock`.
      group_strides: stride of each group's first block; by default 1 for the
        first group and 2 for the others.
      stem_channels: output channels of the stem, before `width`.
      recompute: whether training keeps the inputs of the residual blocks only,
        and computes what is inside a second time for the gradient: less
        memory, more time, the same numbers.
      normalization: "batch"; or, for experiments on what BatchNorm does,
        "group" with standardised kernels, "none" or "calibrated", see
        `batch_free`.
      output_stride: None; or, for dense prediction, the greatest stride of the
        feature maps: groups that would go beyond it have stride 1, and their
        3x3 convolutions a dilation in its place. The weights are the same.

    Call arguments:
      images: float [batch, height, width, 3] in [0, 1]; a single gray channel
        stands for three equal ones. They are normalised here by the mean and
        deviation of ImageNet.
      training: whether BatchNorm uses, and updates from, batch statistics.

    Returns:
      Features, [batch, channels[-1] * width], in float32 (in float64 if the
      dtype policy is float64). `feature_maps` gives what they are the mean of.

    Attributes:
      strides: of each group's feature map, in pixels of the image.

    Raises:
      ValueError: for a depth, stem or list of groups that cannot be built.
    """

    def __init__(
        self,
        depth: int | None = None,
        width: int = 1,
        stem: str = "imagenet",
        zero_init_gamma: bool = False,
        *,
        blocks: tuple[int, ...] | None = None,
        channels: tuple[int, ...] | None = None,
        bottleneck: bool = False,
        group_strides: tuple[int, ...] | None = None,
        stem_channels: int = 64,
        recompute: bool = False,
        normalization: str = "batch",
        output_stride: int | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        needed = (blocks, channels) if depth is None else (depth,)
        refused = () if depth is None else (blocks, channels, bottleneck)
        if None in needed or any(refused):
            raise ValueError(
                "ResNet needs either a depth, or blocks and channels (and "
                f"bottleneck); got depth={depth}, blocks={blocks}, "
                f"channels={channels}, bottleneck={bottleneck}."
            )
        if depth is not None:
            if depth not in DEPTHS:
                raise ValueError(
                    f"ResNet depth {depth} is none of {tuple(DEPTHS)}."
                )
            blocks, channels, bottleneck = DEPTHS[depth]
        if group_strides is None:
            group_strides = (1,) + (2,) * (len(blocks) - 1)
        if not len(blocks) == len(channels) == len(group_strides):
            raise ValueError(
                "ResNet needs as many blocks as channels and strides; got "
                f"blocks={blocks}, channels={channels}, "
                f"group_strides={group_strides}."
            )
        if stem not in STEMS:
            raise ValueError(f"ResNet stem {stem!r} is none of {STEMS}.")
        if not isinstance(width, int) or width < 1:
            raise ValueError(f"ResNet width {width} is no whole number >= 1.")
        self.depth = depth
        self.width = width
        self.stem = stem
        self.zero_init_gamma = zero_init_gamma
        self.blocks = tuple(blocks)
        self.channels = tuple(channels)
        self.bottleneck = bottleneck
        self.group_strides = tuple(group_strides)
        self.stem_channels = stem_channels
        self.recompute = recompute
        self.normalization = normalization
        self.output_stride = output_stride

        size, strides = (7, 2) if stem == "imagenet" else (3, 1)
        self.initial_conv = conv(
            stem_channels * width,
            size,
            strides,
            "initial_conv",
            self.dtype_policy,
            normalization,
        )
        self.initial_norm = normalization_layer(
            normalization, name="initial_batchnorm", dtype=self.dtype_policy
        )
        self.strides, steps, dilations = _strides(
            1 if stem == "cifar" else 4, self.group_strides, output_stride
        )
        self.residual_blocks = [
            ResidualBlock(
                channels[g] * width,
                strides=steps[g] if b == 0 else 1,
                bottleneck=bottleneck,
                projection=b == 0,
                zero_init_gamma=zero_init_gamma,
                recompute=recompute,
                normalization=normalization,
                dilation=dilations[g],
                name=f"block_group_{g}_block_{b}",
                dtype=self.dtype_policy,
            )
            for g in range(len(blocks))
            for b in range(blocks[g])
        ]
        self.build((None, None, None, 3))

    @property
    def num_features(self) -> int:
        """Length of the feature vector of one image."""
        return self.channels[-1] * self.width

    def build(self, input_shape):
        if self.built:
            return
        self.initial_conv.build((None, None, None, 3))
        shape = (None, None, None, self.initial_conv.filters)
        self.initial_norm.build(shape)
        for block in self.residual_blocks:
            block.build(shape)
            shape = (None, None, None, block.channels)
        self.built = True

    def call(self, images, training=False):
        maps = self.feature_maps(images, training)
        return tf.reduce_mean(tf.cast(maps[-1], self.variable_dtype), (1, 2))

    def feature_maps(self, images, training=False, groups: int | None = None):
        """What each group gives, for dense prediction.

        Args:
          images: see `call`, as for the next.
          training: whether BatchNorm uses batch statistics.
          groups: how many of the groups to compute; by default all.

        Returns:
          A list with a map for each group, in the dtype of computation:
          [batch, ceil(height / s), ceil(width / s), channels * width], where s
          is the group's of `strides`; of ResNet-50 conv2 to conv5, with strides
          4, 8, 16 and 32, or no more than `output_stride`.
        """
        images = normalize(tf.cast(images, self.variable_dtype))
        x = self.initial_conv(tf.cast(images, self.compute_dtype))
        x = tf.nn.relu(self.initial_norm(x, training=training))
        if self.stem == "imagenet":
            x = tf.nn.max_pool2d(x, 3, 2, "SAME")
        maps = []
        for number in range(len(self.blocks))[:groups]:
            x = self.group(number, x, training)
            maps.append(x)
        return maps

    def group(self, number: int, inputs, training=False):
        """One group of residual blocks, alone.

        Args:
          number: 0 for the first, conv2.
          inputs: the map of the group before, see `feature_maps`.
          training: whether BatchNorm uses batch statistics.

        Returns:
          Its map.
        """
        first = sum(self.blocks[:number])
        outputs = inputs
        for block in self.residual_blocks[first : first + self.blocks[number]]:
            outputs = block(outputs, training=training)
        return outputs

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.num_features)

    def get_config(self):
        config = {
            "width": self.width,
            "stem": self.stem,
            "zero_init_gamma": self.zero_init_gamma,
            "group_strides": self.group_strides,
            "stem_channels": self.stem_channels,
            "recompute": self.recompute,
            "normalization": self.normalization,
            "output_stride": self.output_stride,
        }
        if self.depth is not None:
            config["depth"] = self.depth
        else:
            config["blocks"] = self.blocks
            config["channels"] = self.channels
            config["bottleneck"] = self.bottleneck
        return {**super().get_config(), **config}


def _strides(
    stem: int, group_strides: tuple[int, ...], limit: int | None
) -> tuple[tuple[int, ...], list[int], list[int]]:
    """Where groups have a dilation in place of a stride.

    Args:
      stem: its stride.
      group_strides: as the groups would have them.
      limit: see `output_stride` of `ResNet`.

    Returns:
      Of each group: the stride of its map, its own stride, and its dilation.

    Raises:
      ValueError: if the stem goes beyond the limit already.
    """
    if limit is not None and limit < stem:
        raise ValueError(
            f"ResNet output_stride={limit} is less than the stem's stride, "
            f"{stem}."
        )
    total, dilation, totals, strides, dilations = stem, 1, [], [], []
    for stride in group_strides:
        if limit is not None and total * stride > limit:
            dilation *= stride
            stride = 1
        total *= stride
        totals.append(total)
        strides.append(stride)
        dilations.append(dilation)
    return tuple(totals), strides, dilations
