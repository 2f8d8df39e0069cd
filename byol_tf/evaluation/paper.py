"""The published figures of the protocols, and in what a measurement differs.

All are of a ResNet-50 that was pretrained on ImageNet for 1000 epochs. Source:
arXiv 2006.07733, tables 1, 2 and 3 and appendix C; the release's README for
`linear`.
"""

import keras

from byol_tf.config import Config
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
    ("finetune", "all labels", "top1"): 77.7,
    ("finetune", "all labels", "top5"): 93.9,
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
        if known is None:
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
    if data.partition(":")[0] not in TRANSFER_SETS and not _is_imagenet(data):
        found.append(f"data: {data}")
    if not _is_resnet50(encoder):
        count = encoder.count_params()
        found.append(f"encoder: {count:,} weights, no ResNet-50")
    if pretraining is None:
        found.append("pretraining: not known")
    elif pretraining.mode != "convert" and not (
        pretraining.epochs == 1000 and _is_imagenet(pretraining.dataset)
    ):
        length = f"{pretraining.epochs} epochs"
        if pretraining.steps:
            length = f"{pretraining.steps} steps"
        found.append(f"pretraining: {length} of {pretraining.dataset}")
    for name in PROTOCOLS[protocol].settings:
        field = Config.__dataclass_fields__[name]
        value = getattr(config, name)
        if value != field.default:
            default = field.default
            published = "" if default is None else f", not {_text(default)}"
            found.append(f"--{name}: {_text(value)}{published}")
    if config.image_size != 224:
        found.append(f"images of {config.image_size} pixels")
    return found


def _is_imagenet(dataset: str) -> bool:
    kind, _, name = dataset.partition(":")
    return kind == "tfds" and name.partition(":")[0] == "imagenet2012"


def _is_resnet50(encoder: keras.Model) -> bool:
    try:
        config = encoder.get_config()
    except NotImplementedError:
        return False
    return config.get("depth") == 50 and config.get("width") == 1


def _text(value) -> str:
    if isinstance(value, tuple):
        return ", ".join(f"{item:g}" for item in value)
    return f"{value:g}"
