"""What a training step costs, counted from the network's shapes.

Nothing is run: the layers of an encoder are walked with the height of what
goes through them. Units are multiply-adds, elements (of 4 bytes in float32)
and channels.
"""

import dataclasses

from byol_tf.model.resnet import ResNet

FLOAT = 4  # Bytes.


@dataclasses.dataclass
class Cost:
    """Of one image's way through a part of the network, in training.

    Attributes:
      macs: multiply-adds of convolutions and matrix products.
      kept: elements that stay in memory for the gradient: the input of each
        BatchNorm, and the output of each ReLU, with the fused kernel of a
        single replica. (Synchronised BatchNorm keeps more.)
      norms: the channels of each BatchNorm.
    """

    macs: int = 0
    kept: int = 0
    norms: tuple[int, ...] = ()

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.macs + other.macs,
            self.kept + other.kept,
            self.norms + other.norms,
        )


def convolution(layer, size: int) -> tuple[Cost, int]:
    """Of a convolution and its BatchNorm; and the size after it."""
    height, width, channels_in, channels = layer.kernel.shape
    size = -(-size // layer.strides[0])  # SAME padding.
    elements = size**2 * channels
    macs = elements * height * width * channels_in
    return Cost(macs, elements, (channels,)), size


def stem(encoder: ResNet, size: int) -> tuple[Cost, int]:
    """Up to the first block; and the size there."""
    cost, after = convolution(encoder.initial_conv, size)
    channels = encoder.initial_conv.filters
    cost.kept += size**2 * 3 + after**2 * channels  # Images, ReLU.
    if encoder.stem == "imagenet":
        after = -(-after // 2)
        cost.kept += after**2 * channels  # What the pooling gives.
    return cost, after


def block(layer, size: int) -> tuple[Cost, int]:
    """Of a residual block, with its output; and the size after it."""
    cost = Cost()
    if layer.projection:
        cost, _ = convolution(layer.shortcut_conv, size)
    for conv in layer.convs:
        part, size = convolution(conv, size)
        part.kept += size**2 * conv.filters  # ReLU; the last is the output.
        cost += part
    return cost, size


@dataclasses.dataclass
class Step:
    """A step of BYOL, for each image unless said otherwise.

    Attributes:
      forward_macs: one view through encoder, projector and predictor.
      step_macs: two views through the online network and, at twice the cost,
        back; and two through the target network.
      kept_bytes: activations that two views keep for the gradient.
      parameters: trainable ones of the online network.
      norms: channels of each BatchNorm of one network.
      reduced_norms: the same, of all all-reduces of statistics in a step.
    """

    forward_macs: int
    step_macs: int
    kept_bytes: int
    parameters: int
    norms: tuple[int, ...]
    reduced_norms: tuple[int, ...]

    @property
    def state_bytes(self) -> int:
        """Parameters, the target's, momentum and gradients; on each replica."""
        return 4 * self.parameters * FLOAT

    def gradient_bytes(self, replicas: int) -> float:
        """What a replica sends in a step: a ring all-reduce of gradients."""
        return ring(self.parameters * FLOAT, replicas)

    def norm_bytes(self, replicas: int) -> float:
        """The same for BatchNorm: a mean and a mean square of each channel."""
        return ring(2 * sum(self.reduced_norms) * FLOAT, replicas)

    @property
    def norm_reductions(self) -> int:
        """Number of all-reduces for BatchNorm."""
        return len(self.reduced_norms)


def ring(size: int, replicas: int) -> float:
    """Bytes that each replica sends when `size` bytes are all-reduced."""
    return 2 * (replicas - 1) / replicas * size


def count(
    encoder: ResNet,
    image_size: int,
    projector_hidden: int = 4096,
    projection_size: int = 256,
) -> Step:
    """Counts a step of BYOL on the encoder, without a classifier.

    With `encoder.recompute` the blocks run once more, and of their activations
    stay the outputs of all, and the inside of the largest one.
    """
    first, size = stem(encoder, image_size)
    blocks, outputs = [], 0
    for layer in encoder.residual_blocks:
        cost, size = block(layer, size)
        blocks.append(cost)
        outputs += size**2 * layer.channels
    inside = sum(blocks, Cost())

    heads = Cost()
    parameters = sum(v.shape.num_elements() for v in encoder.trainable_weights)
    for inputs in (encoder.num_features, projection_size):
        weights = projector_hidden * (inputs + projection_size)
        heads += Cost(weights, 2 * projector_hidden, (projector_hidden,))
        parameters += weights + 3 * projector_hidden  # Bias, BatchNorm's two.

    forward = first + inside + heads
    step_macs = 8 * forward.macs
    reduced = 6 * forward.norms  # Online forward and backward; target.
    kept = 2 * forward.kept
    if encoder.recompute:
        step_macs += 2 * inside.macs
        reduced += 2 * inside.norms
        kept -= 2 * (inside.kept - outputs)
        kept += max(cost.kept for cost in blocks)
    return Step(
        forward.macs,
        step_macs,
        kept * FLOAT,
        parameters,
        forward.norms,
        reduced,
    )
