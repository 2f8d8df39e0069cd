"""How many threads compute an operation of a training step."""

import contextlib
import os

import tensorflow as tf

from byol_tf.data.loading import cores


def side_by_side() -> None:
    """Half the cores for each operation, so that two run side by side.

    A step has two independent passes at any time: the online network's forward
    one and the target's, then the gradients of kernels and those of
    activations. Two operations on half the cores each waste less than one on
    all of them after the other; docs/PERFORMANCE.md has the figures. It is for
    CPUs: where there is a GPU nothing is changed. The whole process has it from
    then on, what evaluates the encoder after a training as well. Without effect
    once TensorFlow has computed something; its TF_NUM_INTRAOP_THREADS has
    precedence.
    """
    if "TF_NUM_INTRAOP_THREADS" in os.environ:
        return
    if tf.config.list_physical_devices("GPU"):
        return
    half = max(cores() // 2, 1)
    with contextlib.suppress(RuntimeError):  # It has begun already.
        tf.config.threading.set_intra_op_parallelism_threads(half)
