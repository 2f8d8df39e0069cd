"""Which network a tree of parameters in the official names belongs to."""

import dataclasses
import re
from collections.abc import Mapping

import numpy as np

from byol_tf.model.heads import Network
from byol_tf.model.resnet import DEPTHS

# Channels of the official stem at width 1.
_STEM_CHANNELS = 64


@dataclasses.dataclass(frozen=True)
class Architecture:
    """The sizes of a `Network` whose encoder is a `ResNet`.

    Attributes:
      blocks: blocks in each group.
      channels: output channels of each group at width 1.
      bottleneck: the kind of block.
      stem_channels: output channels of the stem at width 1.
      width: factor on all channels.
      projector_hidden: hidden length of projector and predictor.
      projection_size: output length of projector and predictor.
      num_classes: of the classifier; None if there is none.
    """

    blocks: tuple[int, ...]
    channels: tuple[int, ...]
    bottleneck: bool
    stem_channels: int
    width: int
    projector_hidden: int
    projection_size: int
    num_classes: int | None

    @property
    def depth(self) -> int | None:
        """Of the published ResNet with these blocks; None for another one."""
        sizes = (self.blocks, self.channels, self.bottleneck)
        return {sizes: d for d, sizes in DEPTHS.items()}.get(sizes)

    @classmethod
    def of_parameters(
        cls, parameters: Mapping[str, Mapping[str, np.ndarray]]
    ) -> "Architecture":
        """The sizes that parameters, {module path: {name: array}}, have.

        Raises:
          ValueError: if they are not those of a ResNet v1 with projector and
            predictor.
        """
        shapes = {
            f"{module}::{name}": np.shape(array)
            for module, arrays in parameters.items()
            for name, array in arrays.items()
        }

        def outputs(*endings: str) -> int:
            """Output channels of the kernel whose name ends so."""
            found = [n for n in shapes if f"/{n}".endswith(endings)]
            if len(found) != 1:
                raise ValueError(
                    f"{len(found)} parameters are named …{endings[0]}, not one "
                    "as in a ResNet v1 with projector and predictor"
                )
            return shapes[found[0]][-1]

        if any("/final_batchnorm::" in name for name in shapes):
            raise ValueError(
                "these are the parameters of a ResNet v2, of which there is no "
                "published result"
            )
        for name, shape in shapes.items():
            if not shape or 0 in shape:
                raise ValueError(f"{name} has the shape {shape}")
        blocks = _blocks(shapes)
        stem = outputs("/initial_conv::w", "/initial_conv_1::w")
        channels = [
            outputs(f"/block_group_{g}/~/block_0/~/shortcut_conv::w")
            for g in range(len(blocks))
        ]
        # The release multiplies the stem and the groups alike.
        width, rest = divmod(stem, _STEM_CHANNELS)
        if rest or any(count % width for count in channels):
            width = 1
        has_classifier = "classifier::w" in shapes
        return cls(
            blocks=blocks,
            channels=tuple(count // width for count in channels),
            bottleneck=any(name.endswith("/conv_2::w") for name in shapes),
            stem_channels=stem // width,
            width=width,
            projector_hidden=outputs("/projector/linear::w"),
            projection_size=outputs("/projector/linear_1::w"),
            num_classes=outputs("/classifier::w") if has_classifier else None,
        )

    @classmethod
    def of_network(cls, network: Network) -> "Architecture":
        """The sizes of a network that is there."""
        encoder, classifier = network.encoder, network.classifier
        return cls(
            blocks=encoder.blocks,
            channels=encoder.channels,
            bottleneck=encoder.bottleneck,
            stem_channels=encoder.stem_channels,
            width=encoder.width,
            projector_hidden=network.projector.hidden,
            projection_size=network.projector.outputs,
            num_classes=classifier.units if classifier is not None else None,
        )

    @property
    def parameter_count(self) -> int:
        """Of all kernels, biases, scales and offsets; nothing is built."""
        inputs = self.stem_channels * self.width
        count = 7 * 7 * 3 * inputs + 2 * inputs
        for blocks, channels in zip(self.blocks, self.channels):
            outputs = channels * self.width
            inner = outputs // 4 if self.bottleneck else outputs
            # Shortcut: a convolution, its scale and its offset.
            count += inputs * outputs + 2 * outputs
            for _ in range(blocks):
                if self.bottleneck:
                    count += inputs * inner + 9 * inner**2 + inner * outputs
                    count += 2 * (2 * inner + outputs)
                else:
                    count += 9 * (inputs + outputs) * outputs + 4 * outputs
                inputs = outputs
        hidden, size = self.projector_hidden, self.projection_size
        for length in (inputs, size):
            # Kernel, bias, scale and offset; kernel.
            count += (length + 3) * hidden + hidden * size
        return count + (inputs + 1) * (self.num_classes or 0)

    def __str__(self):
        if self.depth:
            encoder = f"depth={self.depth}"
        else:
            encoder = f"blocks={self.blocks}, channels={self.channels}"
            encoder += ", bottleneck=True" if self.bottleneck else ""
        if self.stem_channels != _STEM_CHANNELS:
            encoder += f", stem_channels={self.stem_channels}"
        return (
            f"ResNet({encoder}, width={self.width}), "
            f"projector_hidden={self.projector_hidden}, "
            f"projection_size={self.projection_size}, "
            f"num_classes={self.num_classes}"
        )


def _blocks(names) -> tuple[int, ...]:
    """Blocks in each group, counted in the names of their parameters."""
    groups: dict[int, set[str]] = {}
    for name in names:
        match = re.search(r"/block_group_(\d+)/~/block_(\d+)/", name)
        if match:
            groups.setdefault(int(match[1]), set()).add(match[2])
    return tuple(len(groups.get(group, ())) for group in range(len(groups)))
