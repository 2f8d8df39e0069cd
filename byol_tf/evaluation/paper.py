"""The published figures of the protocols, and in what a measurement differs.

All are of a ResNet-50 that was pretrained on ImageNet for 1000 epochs. Source:
arXiv 2006.07733, tables 1, 2 and 3; the release's README for `linear`.
"""

import dataclasses
import pathlib

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

# (protocol, row, metric) -> % on ImageNet.
IMAGENET = {
    ("linear", "rate 0.2", "top1"): 74.4,
    ("linear_sweep", "best rate", "top1"): 74.3,
    ("linear_sweep", "best rate", "top5"): 91.6,
    ("semi_supervised", "1 % of the labels", "top1"): 53.2,
    ("semi_supervised", "1 % of the labels", "top5"): 78.4,
    ("semi_supervised", "10 % of the labels", "top1"): 68.8,
    ("semi_supervised", "10 % of the labels", "top5"): 89.0,
}


def published(
    protocol: str, row: str, metric: str, data: str
) -> tuple[float, str] | None:
    """The paper's figure in %, and of which data it is; None if there is none.

    Args:
      protocol: one of PROTOCOLS.
      row: name of a row of its.
      metric: of the row.
      data: a name in TRANSFER_SETS, or anything else.
    """
    if PROTOCOLS[protocol].is_transfer:
        known = TRANSFER_SETS.get(data.partition(":")[0])
        if known is None or metric != known.metric:
            return None
        tuned = protocol == "transfer_finetune"
        return (known.finetuned if tuned else known.linear), known.title
    figure = IMAGENET.get((protocol, row, metric))
    return None if figure is None else (figure, "ImageNet")


def differences(
    protocol: str,
    config: Config,
    pretraining: Config | None,
    encoder: keras.Model,
    data: str,
) -> list[str]:
    """In what a measurement differs from the paper's: a few words each.

    Args:
      protocol: one of PROTOCOLS.
      config: its settings.
      pretraining: those of the encoder's run, if they are known.
      encoder: which is measured.
      data: as for `published`.
    """
    found = []
    if data.partition(":")[0] not in TRANSFER_SETS and not is_imagenet(data):
        found.append(f"data: {data}")
    if not _is_resnet50(encoder):
        count = encoder.count_params()
        found.append(f"encoder: {count:,} weights, no ResNet-50")
    found += _of_pretraining(pretraining)
    changed = {
        name: Config.__dataclass_fields__[name].default
        for name in (
            *PROTOCOLS[protocol].settings,
            "validation_fraction",
            "train_split",
            "test_split",
        )
    }
    if not PROTOCOLS[protocol].is_transfer:
        changed["eval_crop"] = 0.875
    for name, default in changed.items():
        value = getattr(config, name)
        if value != default:
            published = f", not {as_text(default)}" if default else ""
            found.append(f"--{name}: {as_text(value)}{published}")
    if protocol == "semi_supervised" and is_imagenet(data):
        found.append(
            "validation images are drawn from all training images, those of "
            "the published lists as well"
        )
    if config.image_size != 224:
        found.append(f"images of {config.image_size} pixels")
    return found


def _of_pretraining(run: Config | None) -> list[str]:
    """In what an encoder's training differs from the published one."""
    if run is None:
        return ["pretraining: not known"]
    if run.mode == "convert":
        name = pathlib.Path(run.deepmind_checkpoint).name
        published = name == "pretrain_res50x1.pkl"
        return [] if published else [f"pretraining: that of {name}"]
    if run.steps or run.epochs != 1000 or not is_imagenet(run.dataset):
        length = f"{run.epochs} epochs"
        if run.steps:
            length = f"{run.steps} steps"
        return [f"pretraining: {length} of {run.dataset}"]
    published = Config(epochs=1000, batch_size=4096)
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


def _is_resnet50(encoder: keras.Model) -> bool:
    try:
        config = encoder.get_config()
    except NotImplementedError:
        return False
    published = {
        "depth": 50,
        "width": 1,
        "stem": "imagenet",
        "stem_channels": 64,
        "normalization": "batch",
    }
    return published.items() <= config.items()
