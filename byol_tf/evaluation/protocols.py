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
    """

    rows: Callable[[Task], Iterator[Row]]
    settings: tuple[str, ...]
    is_transfer: bool = False
    chooses: bool = True


_LINEAR = ("linear_epochs", "classifier_batch_size")
_GRID = ("finetune_rates", "finetune_epochs", "classifier_batch_size")

# By the names of --protocols.
PROTOCOLS = {
    "knn": Protocol(frozen.knn, ("knn_neighbours",), chooses=False),
    "linear": Protocol(frozen.linear, _LINEAR, chooses=False),
    "linear_sweep": Protocol(frozen.linear_sweep, _LINEAR),
    "linear_cached": Protocol(frozen.linear_cached, _LINEAR),
    "semi_supervised": Protocol(
        tuned.semi_supervised, ("label_fractions", *_GRID)
    ),
    "finetune": Protocol(tuned.finetune, _GRID),
    "transfer": Protocol(frozen.transfer, (), True),
    "transfer_finetune": Protocol(
        tuned.transfer_finetune,
        (
            "transfer_steps",
            "transfer_rates",
            "transfer_weight_decays",
            "classifier_batch_size",
        ),
        True,
    ),
}
