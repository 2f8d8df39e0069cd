"""The official release's names and checkpoints, and our variables."""

from byol_tf.deepmind.architecture import Architecture
from byol_tf.deepmind.checkpoint import (
    Checkpoint,
    CheckpointError,
    read_checkpoint,
)
from byol_tf.deepmind.trees import from_haiku, to_haiku

__all__ = [
    "Architecture",
    "Checkpoint",
    "CheckpointError",
    "from_haiku",
    "read_checkpoint",
    "to_haiku",
]
