"""The published figures of the protocols, and in what a measurement differs.

All are of a ResNet that was pretrained on ImageNet for 1000 epochs. Source:
arXiv 2006.07733, tables 1, 2 and 3; the release's README for `linear`.
"""

import dataclasses
import pathlib
from collections.abc import Collection, Sequence

import keras

from byol_tf.config import (
    ABLATION,
    AUGMENTATION,
    ENCODER,
    METHOD,
    Config,
    as_text,
)
from byol_tf.data.semi_supervised import is_imagenet
from byol_tf.data.transfer_sets import TRANSFER_SETS
from byol_tf.evaluation.protocols import PROTOCOLS

# Depth and width.
RESNET50, RESNET50_2X, RESNET50_4X = (50, 1), (50, 2), (50, 4)
RESNET200_2X = (200, 2)
_SIZES = (RESNET50, RESNET50_2X, RESNET50_4X, RESNET200_2X)


def _of_sizes(*figures: float) -> dict[tuple[int, int], float]:
    return dict(zip(_SIZES, figures, strict=True))


# (protocol, row, metric) -> network -> % on ImageNet. Of the networks of the
# appendix, and of `finetune`, the figures are not known here for certain.
IMAGENET = {
    ("linear", "rate 0.2", "top1"): {RESNET50: 74.4, RESNET200_2X: 79.6},
    ("linear_sweep", "best rate", "top1"): _of_sizes(74.3, 77.4, 78.6, 79.6),
    ("linear_sweep", "best rate", "top5"): _of_sizes(91.6, 93.6, 94.2, 94.8),
    ("semi_supervised", "1 % of the labels", "top1"): _of_sizes(
        53.2, 62.2, 69.1, 71.2
    ),
    ("semi_supervised", "1 % of the labels", "top5"): _of_sizes(
        78.4, 84.1, 87.9, 89.5
    ),
    ("semi_supervised", "10 % of the labels", "top1"): _of_sizes(
        68.8, 73.5, 75.7, 77.7
    ),
    ("semi_supervised", "10 % of the labels", "top5"): _of_sizes(
        89.0, 91.7, 92.5, 93.7
    ),
}


def published(
    protocol: str,
    row: str,
    metric: str,
    data: str,
    network: tuple[int, int] | None = RESNET50,
) -> tuple[float, str] | None:
    """The paper's figure in %, and of what it is; None if there is none.

    Args:
      protocol: one of PROTOCOLS.
      row: name of a row of its.
      metric: of the row.
      data: a name in TRANSFER_SETS, or anything else.
      network: see `network_of`. One without a figure is compared with
        ResNet-50's.
    """
    if PROTOCOLS[protocol].is_transfer:
        known = TRANSFER_SETS.get(data.partition(":")[0])
        if known is None or metric != known.metric:
            return None
        tuned = protocol == "transfer_finetune"
        return (known.finetuned if tuned else known.linear), known.title
    figures = IMAGENET.get((protocol, row, metric))
    if figures is None:
        return None
    if network not in figures:
        network = RESNET50
    of = "ImageNet"
    if network != RESNET50:
        of += ", ResNet-{} {}x".format(*network)
    if protocol == "linear":
        of += ", the release's README"
    return figures[network], of


def differences(
    protocol: str,
    config: Config,
    pretraining: Config | None,
    encoder: keras.Model,
    data: str,
    batch_sizes: Sequence[int | None] = (),
) -> list[str]:
    """In what a measurement differs from the paper's: a few words each.

    Args:
      protocol: one of PROTOCOLS.
      config: its settings.
      pretraining: those of the encoder's run, if they are known.
      encoder: which is measured.
      data: as for `published`.
      batch_sizes: that its rows were trained with; None for one without.
    """
    found = []
    if not _is_named(data) and not is_imagenet(data):
        found.append(f"data: {data}")
    found += encoder_differences(encoder, pretraining, _networks(protocol))
    for name in _settings(protocol, data):
        value = getattr(config, name)
        default = Config.__dataclass_fields__[name].default
        if name == "eval_crop":
            default = 0.875
        if value != default:
            published = f", not {as_text(default)}" if default else ""
            found.append(f"--{name}: {as_text(value)}{published}")
    wanted = PROTOCOLS[protocol].batch_size
    others = sorted({*batch_sizes} - {None, wanted})
    if others:
        sizes = " and ".join(map(str, others))
        found.append(f"batches of {sizes} images, not {wanted}")
    if protocol == "semi_supervised" and is_imagenet(data):
        found.append(
            "validation images are drawn from all training images, those of "
            "the published lists as well"
        )
    if config.image_size != 224:
        found.append(f"images of {config.image_size} pixels")
    return found


def encoder_differences(
    encoder: keras.Model,
    pretraining: Config | None,
    networks: Collection[tuple[int, int]] = (RESNET50,),
) -> list[str]:
    """In what an encoder differs from the paper's.

    Args:
      encoder: which is measured.
      pretraining: settings of its run, if they are known.
      networks: that there are figures of.
    """
    found, network = [], network_of(encoder)
    if network not in networks:
        count = encoder.count_params()
        found.append(f"encoder: {count:,} weights, no ResNet-50")
        network = RESNET50
    return found + _of_pretraining(pretraining, network)


def _is_named(data: str) -> bool:
    """Whether data are one of the transfer sets; see `published`."""
    return data.partition(":")[0] in TRANSFER_SETS


def _networks(protocol: str) -> set[tuple[int, int]]:
    """Those that there are figures of, or else ResNet-50."""
    return {RESNET50}.union(
        *(figures for key, figures in IMAGENET.items() if key[0] == protocol)
    )


def _settings(protocol: str, data: str) -> list[str]:
    """Names of the settings that a protocol's result on these data hangs on.

    The batch is not among them: it may be less than what is asked for.
    """
    names = [
        name
        for name in PROTOCOLS[protocol].settings
        if name != "classifier_batch_size"
    ]
    if not _is_named(data):  # Those have splits of their own.
        if PROTOCOLS[protocol].chooses:
            names.append("validation_fraction")
        if data.startswith("tfds:"):
            names += ["train_split", "test_split"]
    if protocol != "transfer":  # It takes the whole shorter side.
        names.append("eval_crop")
    return names


def _of_pretraining(run: Config | None, network: tuple[int, int]) -> list[str]:
    """In what an encoder's training differs from the published one."""
    if run is None:
        return ["pretraining: not known"]
    if run.mode == "convert":
        name = pathlib.Path(run.deepmind_checkpoint).name
        published = "pretrain_res{}x{}.pkl".format(*network)
        return [] if name == published else [f"pretraining: that of {name}"]
    if run.steps or run.epochs != 1000 or not is_imagenet(run.dataset):
        length = f"{run.epochs} epochs"
        if run.steps:
            length = f"{run.steps} steps"
        return [f"pretraining: {length} of {run.dataset}"]
    depth, width = network
    published = Config(
        epochs=1000, batch_size=4096, encoder_depth=depth, encoder_width=width
    )
    groups = (ENCODER, METHOD, AUGMENTATION, ABLATION)
    changed = [
        field.name
        for field in dataclasses.fields(Config)
        if field.metadata["run"]
        and field.metadata["group"] in groups
        and getattr(run, field.name) != getattr(published, field.name)
    ]
    return [
        f"pretraining: --{name}={as_text(getattr(run, name))}"
        for name in changed
    ]


def network_of(encoder: keras.Model) -> tuple[int, int] | None:
    """Depth and width of one of the published ResNets; None for others."""
    try:
        config = encoder.get_config()
    except NotImplementedError:
        return None
    published = {
        "stem": "imagenet",
        "stem_channels": 64,
        "normalization": "batch",
    }
    if not config.get("depth") or not published.items() <= config.items():
        return None
    return config["depth"], config["width"]
