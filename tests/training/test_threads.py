"""Half the cores for an operation, in processes of their own."""

import os
import subprocess
import sys

import pytest

from byol_tf.data.loading import cores

_PROGRAM = """
import tensorflow as tf
from byol_tf.training import threads

threads.side_by_side()
print(tf.config.threading.get_intra_op_parallelism_threads())
print(float(tf.reduce_sum(tf.ones([2, 2]) @ tf.ones([2, 2]))))
"""


@pytest.mark.parametrize(
    ("environment", "threads"),
    [({}, max(cores() // 2, 1)), ({"TF_NUM_INTRAOP_THREADS": "7"}, 0)],
    ids=["ours", "TensorFlow's variable"],
)
def test_operations_have_half_the_cores(environment, threads):
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [str(threads), "8.0"]


def test_a_process_that_has_computed_already_stays_as_it_is():
    program = "import tensorflow as tf\ntf.ones([2]) + 1\n" + _PROGRAM
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["0", "8.0"]
