"""BatchNorm against NumPy, and against Haiku's moving average."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from byol_tf import BatchNorm
from byol_tf.model.normalization import statistics_apart


def random_layer(channels: int, **arguments) -> BatchNorm:
    layer = BatchNorm(**arguments)
    layer.build((None, channels))
    random = np.random.RandomState(1)
    layer.gamma.assign(1 + 0.2 * random.randn(channels))
    layer.beta.assign(0.1 * random.randn(channels))
    return layer


@pytest.mark.parametrize("shape", [(8, 5), (4, 6, 7, 5)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_training_equals_numpy(shape, dtype):
    # float32 goes through the fused kernel, float64 through the moments.
    layer = random_layer(5, dtype=dtype)
    x = (3 + 2 * np.random.RandomState(0).randn(*shape)).astype(dtype)
    axes = tuple(range(len(shape) - 1))
    mean, variance = x.mean(axes), x.var(axes)
    expected = (x - mean) / np.sqrt(variance + 1e-5)
    expected = expected * layer.gamma.numpy() + layer.beta.numpy()
    tolerance = 2e-5 if dtype == "float32" else 1e-12
    np.testing.assert_allclose(
        layer(x, training=True), expected, rtol=tolerance, atol=tolerance
    )
    # One debiased update: exactly this batch's statistics.
    np.testing.assert_allclose(layer.moving_mean, mean, rtol=tolerance)
    np.testing.assert_allclose(layer.moving_variance, variance, rtol=tolerance)


def test_moving_average_is_haikus_debiased_one(float64):
    layer = random_layer(3)
    random = np.random.RandomState(2)
    hidden = np.zeros(3)
    for update in range(1, 6):
        x = random.randn(16, 3) + update
        layer(x, training=True)
        hidden = 0.9 * hidden + 0.1 * x.mean(0)
        average = hidden / (1 - 0.9**update)
        np.testing.assert_allclose(layer.moving_mean, average, rtol=1e-12)
    assert int(layer.updates.value) == 5


def test_inference_uses_moving_averages_and_leaves_them(float64):
    layer = random_layer(3)
    layer(np.random.RandomState(0).randn(16, 3) * 2 + 1, training=True)
    before = [w.numpy() for w in layer.weights]
    x = np.random.RandomState(1).randn(4, 2, 2, 3)
    mean, variance = layer.moving_mean.numpy(), layer.moving_variance.numpy()
    expected = (x - mean) / np.sqrt(variance + 1e-5)
    expected = expected * layer.gamma.numpy() + layer.beta.numpy()
    np.testing.assert_allclose(layer(x), expected, rtol=1e-12)
    for weight, value in zip(layer.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)


def test_before_the_first_update_it_is_affine():
    layer = random_layer(3)
    x = np.random.RandomState(0).randn(4, 3).astype(np.float32)
    expected = x / np.sqrt(1 + 1e-5) * layer.gamma + layer.beta
    np.testing.assert_allclose(layer(x), expected, rtol=1e-5)


def gradients(layer, x):
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = tf.reduce_sum(tf.sin(layer(x, training=True)))
    return tape.gradient(loss, [x, layer.gamma.value, layer.beta.value])


def test_fused_gradients_equal_those_of_the_formula():
    x = np.random.RandomState(0).randn(8, 3, 3, 4)
    fused = gradients(random_layer(4), x.astype(np.float32))
    exact = gradients(random_layer(4, dtype="float64"), x)
    for a, b in zip(fused, exact, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def test_two_replicas_normalise_by_the_global_batch(float64, mirrored):
    x = np.random.RandomState(0).randn(8, 3)
    with mirrored.scope():
        layer = random_layer(3)
    batches = tf.data.Dataset.from_tensor_slices(x).batch(8)
    (batch,) = mirrored.experimental_distribute_dataset(batches)

    @tf.function
    def normalized(batch):
        return mirrored.run(lambda x: layer(x, training=True), (batch,))

    outputs = normalized(batch)
    single = random_layer(3)
    np.testing.assert_allclose(
        np.concatenate(mirrored.experimental_local_results(outputs)),
        single(x, training=True),
        rtol=1e-12,
    )
    np.testing.assert_allclose(
        layer.moving_variance, single.moving_variance, rtol=1e-12
    )


@pytest.mark.parametrize("shape", [(12, 3), (12, 2, 2, 3)], ids=str)
def test_statistics_apart_are_those_of_a_call_for_each_part(float64, shape):
    x = tf.random.normal(shape, seed=1)
    apart, one_by_one = random_layer(3), random_layer(3)

    def outputs_and_gradient(function):
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = function()
            loss = tf.reduce_sum(tf.sin(outputs))
        return outputs, tape.gradient(loss, x)

    with statistics_apart(3):
        found = outputs_and_gradient(lambda: apart(x, training=True))
    expected = outputs_and_gradient(
        lambda: tf.concat(
            [one_by_one(part, training=True) for part in tf.split(x, 3)], 0
        )
    )
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)
    assert apart.updates.numpy() == 3
    for one, other in zip(apart.weights, one_by_one.weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)


def test_statistics_apart_end_with_the_scope_and_are_of_training():
    x = tf.random.normal([4, 3], seed=1)
    layer, other = random_layer(3), random_layer(3)
    with statistics_apart(2):
        np.testing.assert_array_equal(layer(x), other(x))
    np.testing.assert_array_equal(
        layer(x, training=True), other(x, training=True)
    )


def test_config_round_trip():
    layer = BatchNorm(0.8, 1e-3, "zeros", cross_replica=False, name="n")
    config = layer.get_config()
    copy = BatchNorm.from_config(config)
    assert copy.get_config() == config
    copy.build((None, 2))
    np.testing.assert_array_equal(copy.gamma, [0, 0])


def test_mixed_precision_keeps_dtype_and_float32_statistics():
    layer = BatchNorm(dtype="mixed_bfloat16")
    x = tf.cast(tf.random.normal([64, 4]), tf.bfloat16)
    assert layer(x, training=True).dtype == tf.bfloat16
    assert keras.backend.standardize_dtype(layer.moving_mean.dtype) == "float32"


def test_a_deviation_far_below_the_mean_is_no_nan(mirrored):
    inputs = np.full((64, 4), 100, np.float32)
    inputs[:, :2] += 1e-3 * np.random.RandomState(0).randn(64, 2)
    with mirrored.scope():
        layer = random_layer(4)

    @tf.function
    def train():
        def outputs_and_gradient():
            x = tf.constant(inputs)
            with tf.GradientTape() as tape:
                tape.watch(x)
                outputs = layer(x, training=True)
            return outputs, tape.gradient(outputs, x)

        return mirrored.run(outputs_and_gradient)

    for result in train():
        for of_replica in mirrored.experimental_local_results(result):
            assert np.isfinite(of_replica).all()
    assert (layer.moving_variance.numpy() >= 0).all()


@pytest.mark.parametrize("shape", [(8, 5), (4, 6, 7, 5)])
def test_gradients_are_tensorflows(float64, shape):
    layer, random = random_layer(5), np.random.RandomState(0)
    x = tf.constant(3 + 2 * random.randn(*shape))
    weights = tf.constant(random.randn(*shape))
    axes = list(range(len(shape) - 1))
    variables = [layer.gamma.value, layer.beta.value]

    def by_layer():
        return layer(x, training=True)

    def by_tensorflow():
        mean, variance = tf.nn.moments(x, axes)
        return tf.nn.batch_normalization(
            x, mean, variance, *reversed(variables), 1e-5
        )

    gradients = []
    for function in (by_layer, by_tensorflow):
        with tf.GradientTape() as tape:
            tape.watch(x)
            result = tf.reduce_sum(weights * function() ** 2)
        gradients.append(tape.gradient(result, [x, *variables]))
    for ours, theirs in zip(*gradients, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("fused", [True, False])
def test_statistics_of_rounded_inputs_are_not_rounded(dtype, fused):
    # In float16 the sums would overflow, in bfloat16 they would stand still.
    x = np.random.RandomState(0).normal(300, 200, [64, 8, 8, 3])
    x = tf.cast(x, dtype)
    layer = BatchNorm(dtype=f"mixed_{dtype}")
    if fused:
        layer(x, training=True)
        mean, variance = layer.moving_mean, layer.moving_variance
    else:
        mean, variance = layer._moments(x, shared=False)
    exact = x.numpy().astype(np.float64)
    np.testing.assert_allclose(mean, exact.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(variance, exact.var((0, 1, 2)), rtol=1e-3)
