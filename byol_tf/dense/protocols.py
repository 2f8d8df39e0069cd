"""The dense tasks, by the names of their protocols."""

from byol_tf.dense.depth import Depth
from byol_tf.dense.detection import Detection
from byol_tf.dense.segmentation import Segmentation

TASKS = {
    "segmentation": Segmentation(),
    "detection": Detection(),
    "depth": Depth(),
}
