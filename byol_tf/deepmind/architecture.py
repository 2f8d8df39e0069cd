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

        def outputs(pattern: str) -> int:
            """Output channels of the kernel whose name matches."""
            found = [shapes[n] for n in shapes if re.fullmatch(pattern, n)]
            if len(found) != 1 or not found[0]:
                raise ValueError(
                    f"{len(found)} parameters are named like {pattern}, not "
                    "one as in a ResNet v1 with projector and predictor"
                )
            return found[0][-1]

        if any("/final_batchnorm::" in name for name in shapes):
            raise ValueError(
                "these are the parameters of a ResNet v2, of which there is no "
                "published result"
            )
        blocks = _blocks(shapes)
        stem = outputs(r"\w+/~/initial_conv(_1)?::w")
        channels = [
            outputs(rf"\w+/~/block_group_{g}/~/block_0/~/shortcut_conv::w")
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
            projector_hidden=outputs("projector/linear::w"),
            projection_size=outputs("projector/linear_1::w"),
            num_classes=outputs("classifier::w") if has_classifier else None,
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
    counts: dict[int, int] = {}
    for name in names:
        match = re.search(r"/block_group_(\d+)/~/block_(\d+)/", name)
        if match:
            group, block = map(int, match.groups())
            counts[group] = max(counts.get(group, 0), block + 1)
    return tuple(counts.get(group, 0) for group in range(len(counts)))
