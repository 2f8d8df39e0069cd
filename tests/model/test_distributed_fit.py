"""`fit` with our train function, and whether Keras still cannot do without."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import tiny_encoder

import byol_tf
from byol_tf.benchmarks.scaling import free_ports, tf_config
from byol_tf.model.distributed_fit import DistributedFit, _equally_long


class Halving(DistributedFit):
    """Each step halves what is left of its weight."""

    total_steps = 10

    def __init__(self):
        super().__init__()
        self.rest = self.add_weight(
            shape=(), initializer="ones", trainable=False, aggregation="mean"
        )
        self.built = True

    def train_step(self, data):
        self.rest.assign(self.rest / 2)
        self.optimizer.iterations.assign_add(1)
        return {
            "rest": tf.identity(self.rest),
            "mean": tf.reduce_mean(tf.cast(data, tf.float32)),
        }


class Calls(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.logs = []

    def on_train_batch_end(self, batch, logs=None):
        self.logs.append({name: float(value) for name, value in logs.items()})


def fit(
    make=Halving, steps=10, count=None, size=2, **arguments
) -> tuple[keras.Model, list[dict]]:
    """Batch k holds the numbers 2 k and 2 k + 1; or batches of `size`."""
    model, calls = make(), Calls()
    model.compile(keras.optimizers.SGD(), **arguments)
    batches = (
        tf.data.Dataset.range(2 * steps if count is None else count)
        .map(lambda x: tf.cast(x, tf.uint8))
        .batch(size)
    )
    model.fit(batches, callbacks=[calls], verbose=0, shuffle=False)
    return model, calls.logs


def test_several_steps_in_one_execution():
    for eagerly in (False, True):
        model, logs = fit(steps_per_execution=4, run_eagerly=eagerly)
        assert int(model.optimizer.iterations.numpy()) == 10
        # After steps 4, 8 and 10, which is the end of the training.
        assert [row["rest"] for row in logs] == [2**-4, 2**-8, 2**-10]
        assert [row["mean"] for row in logs] == [6.5, 14.5, 18.5]


def test_more_steps_than_planned():
    model, logs = fit(steps=14, steps_per_execution=1)
    assert int(model.optimizer.iterations.numpy()) == 14
    assert len(logs) == 14


def test_several_steps_on_two_replicas(mirrored):
    with mirrored.scope():
        model, logs = fit(steps_per_execution=4)
    assert model.rest.numpy() == 2**-10
    # The mean over replicas, each of which has one number of a batch.
    assert [row["mean"] for row in logs] == [6.5, 14.5, 18.5]


@pytest.mark.parametrize(
    "steps_per_execution, eagerly", [(1, False), (2, False), (1, True)]
)
@pytest.mark.parametrize("rest", [5, 1])  # 3 and 2, or 1 and none.
def test_unequal_parts_are_refused(
    mirrored, steps_per_execution, eagerly, rest
):
    made = []

    def make():
        made.append(Halving())
        return made[-1]

    with (
        mirrored.scope(),
        pytest.raises(ValueError, match=r"^fit: .* 2 replicas.*") as caught,
    ):
        fit(
            make,
            count=8 + rest,
            size=8,
            steps_per_execution=steps_per_execution,
            run_eagerly=eagerly,
        )
    assert ".batch(n, drop_remainder=True)" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert made[-1].rest.numpy() == 1 / 2  # The step was not taken.


def test_a_smaller_last_batch_of_equal_parts(mirrored):
    with mirrored.scope():
        model, logs = fit(count=12, size=8)
    assert [row["mean"] for row in logs] == [3.5, 9.5]
    assert model.rest.numpy() == 1 / 4


def test_a_smaller_last_batch_on_one_device():
    _, logs = fit(count=13, size=8)
    assert [row["mean"] for row in logs] == [3.5, 10]


def test_parts_of_known_length_are_not_compared():
    part = (tf.zeros([4, 2]), tf.zeros([4]))
    compared = tf.function(lambda part: len(_equally_long(part, 2)))
    assert compared(part).numpy() == 0


def keras_encoder() -> keras.Model:
    """An encoder of somebody else, with Keras's own layers."""
    images = keras.Input([16, 16, 3])
    x = keras.layers.Conv2D(8, 3, strides=2, use_bias=False)(images)
    x = keras.layers.BatchNormalization(synchronized=True)(x)
    x = keras.layers.GlobalAveragePooling2D()(keras.ops.relu(x))
    return keras.Model(images, x)


@pytest.mark.parametrize(
    "make_encoder",
    [pytest.param(tiny_encoder, marks=pytest.mark.slow), keras_encoder],
)
def test_a_users_own_fit_on_two_replicas(mirrored, make_encoder):
    images = np.random.RandomState(0).rand(24, 16, 16, 3).astype(np.float32)
    batches = tf.data.Dataset.from_tensor_slices(images)
    batches = batches.batch(8, drop_remainder=True)
    with mirrored.scope():
        model = byol_tf.BYOL(make_encoder(), 16, 8, 0.9, total_steps=3)
        schedule = byol_tf.WarmupCosine(1.0, 256, total_steps=3)
        model.compile(byol_tf.LARS(schedule))
        start = [w.numpy() for w in model.trainable_variables]
        history = model.fit(batches, verbose=0)
    assert int(model.optimizer.iterations.numpy()) == 3
    assert 0 < history.history["loss"][0] < 8
    moved = [
        not np.array_equal(old, new.numpy())
        for old, new in zip(start, model.trainable_variables)
    ]
    assert all(moved)


def test_xla_on_two_replicas_is_refused(mirrored):
    with (
        mirrored.scope(),
        pytest.raises(ValueError, match="jit_compile=True works on one device"),
    ):
        fit(jit_compile=True)


def test_keras_cannot_take_several_steps_on_two_replicas(mirrored):
    with mirrored.scope():
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse", steps_per_execution=2)
    with pytest.raises(tf.errors.InvalidArgumentError, match="placeholder"):
        model.fit(np.zeros((8, 2)), np.zeros(8), batch_size=2, verbose=0)
        pytest.fail("Keras can do it now: leave it to Keras.")


@pytest.mark.slow
@pytest.mark.parametrize("private", ["train_function", "symbolic_build"])
def test_keras_cannot_train_on_two_workers(private):
    workers = [f"127.0.0.1:{port}" for port in free_ports(2)]
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, private],
            env=os.environ
            | {
                "PYTHONPATH": os.pathsep.join(sys.path),
                "TF_CONFIG": tf_config(workers, index),
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    for process in processes:
        _, stderr = process.communicate(timeout=200)
        assert process.returncode, "Keras can do it now: leave it to Keras."
        assert EXPECTED[private] in stderr


EXPECTED = {
    "train_function": "Invalid reduction dimension 0",
    "symbolic_build": "uint8 is not in the list of allowed values",
}


class KerasTrainFunction(Halving):
    make_train_function = keras.Model.make_train_function


class KerasSymbolicBuild(Halving):
    _maybe_symbolic_build = keras.Model._maybe_symbolic_build


if __name__ == "__main__":
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    with strategy.scope():
        fit(
            {
                "train_function": KerasTrainFunction,
                "symbolic_build": KerasSymbolicBuild,
            }[sys.argv[1]]
        )
