"""The paper's classification protocols, by name."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from byol_tf.evaluation import frozen_protocols as frozen
from byol_tf.evaluation import tuned_protocols as tuned
from byol_tf.evaluation.task import Row, Task


class Protocol(NamedTuple):
    """A protocol, and the settings that its result depends on.

    Attributes:
      rows: computes it.
      settings: names of fields of `Config`.
      is_transfer: whether it is of --transfer_sets.
      chooses: whether it chooses anything on the validation split; if not, it
        learns from that split, too.
      batch_size: images in a step of training, as published; None if it takes
        no such steps.
    """

    rows: Callable[[Task], Iterator[Row]]
    settings: tuple[str, ...]
    is_transfer: bool = False
    chooses: bool = True
    batch_size: int | None = None


_LINEAR = ("linear_epochs", "classifier_batch_size")
_GRID = ("finetune_rates", "finetune_epochs", "classifier_batch_size")

# By the names of --protocols.
PROTOCOLS = {
    "knn": Protocol(frozen.knn, ("knn_neighbours",), chooses=False),
    "linear": Protocol(
        frozen.linear, _LINEAR, chooses=False, batch_size=frozen.BATCH_SIZE
    ),
    "linear_sweep": Protocol(
        frozen.linear_sweep, _LINEAR, batch_size=frozen.BATCH_SIZE
    ),
    "linear_cached": Protocol(
        frozen.linear_cached, _LINEAR, batch_size=frozen.BATCH_SIZE
    ),
    "semi_supervised": Protocol(
        tuned.semi_supervised,
        ("label_fractions", *_GRID),
        batch_size=tuned.BATCH_SIZE,
    ),
    "finetune": Protocol(tuned.finetune, _GRID, batch_size=tuned.BATCH_SIZE),
    "transfer": Protocol(frozen.transfer, (), is_transfer=True),
    "transfer_finetune": Protocol(
        tuned.transfer_finetune,
        (
            "transfer_steps",
            "transfer_rates",
            "transfer_weight_decays",
            "classifier_batch_size",
        ),
        is_transfer=True,
        batch_size=tuned.TRANSFER_BATCH_SIZE,
    ),
}
