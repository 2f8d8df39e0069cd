"""Recomputing activations changes nothing but memory and time."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import byol_tf
from byol_tf.model.normalization import statistics_apart


def network(recompute: bool) -> byol_tf.ResNet:
    keras.utils.set_random_seed(0)
    return byol_tf.ResNet(
        blocks=(2,),
        channels=(8,),
        bottleneck=True,
        stem_channels=4,
        recompute=recompute,
    )


def step(encoder, images):
    """Gradients of two calls of the encoder, as in BYOL's update."""
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.sin(encoder(images, training=True)))
        loss += tf.reduce_mean(encoder(images[:, ::-1], training=True) ** 2)
    return tape.gradient(loss, encoder.trainable_variables)


def check_equal(encoders, gradients):
    for a, b in zip(*gradients, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)
    for a, b in zip(*(e.weights for e in encoders), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
    for block in encoders[1].residual_blocks:
        assert {int(norm.updates.numpy()) for norm in block.norms} == {2}


@pytest.mark.parametrize("compiled", [False, True])
def test_gradients_and_statistics_are_the_same(float64, compiled):
    images = tf.constant(np.random.RandomState(0).rand(4, 16, 16, 3))
    encoders = [network(False), network(True)]
    function = tf.function(step) if compiled else step
    check_equal(encoders, [function(e, images) for e in encoders])


@pytest.mark.parametrize("compiled", [False, True])
def test_statistics_of_two_views_stay_apart(float64, compiled):
    images = tf.constant(np.random.RandomState(0).rand(8, 16, 16, 3))

    def gradients(encoder, images):
        with tf.GradientTape() as tape:
            with statistics_apart(2):
                outputs = encoder(images, training=True)
            loss = tf.reduce_mean(tf.sin(outputs))
        return tape.gradient(loss, encoder.trainable_variables)

    encoders = [network(False), network(True)]
    function = tf.function(gradients) if compiled else gradients
    check_equal(encoders, [function(e, images) for e in encoders])


def test_two_replicas(float64, mirrored):
    """Against one: with statistics of the global batch, in both runs."""
    images = np.random.RandomState(0).rand(4, 16, 16, 3)
    single = network(False)
    with mirrored.scope():
        encoder = network(True)
    dataset = tf.data.Dataset.from_tensor_slices(images).batch(4)
    (batch,) = mirrored.experimental_distribute_dataset(dataset)

    @tf.function
    def gradients(batch):
        return mirrored.run(lambda images: step(encoder, images), (batch,))

    mean = [
        sum(mirrored.experimental_local_results(gradient)) / 2
        for gradient in gradients(batch)
    ]
    check_equal([single, encoder], [step(single, tf.constant(images)), mean])


def test_what_is_frozen_stays_and_needs_no_gradient():
    encoder = network(True)
    for variable in encoder.trainable_variables:
        variable.trainable = False
    before = encoder.residual_blocks[0].convs[0].kernel.numpy()
    encoder(np.random.rand(2, 16, 16, 3), training=True)
    norm = encoder.residual_blocks[0].norms[0]
    assert int(norm.updates.value) == 1
    np.testing.assert_array_equal(
        encoder.residual_blocks[0].convs[0].kernel, before
    )


def test_stateless_scope_keeps_the_statistics():
    encoder = network(True)
    with keras.StatelessScope():
        encoder(np.random.rand(2, 16, 16, 3), training=True)
    assert int(encoder.residual_blocks[0].norms[0].updates.value) == 0


def test_mixed_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        images = tf.random.uniform([2, 16, 16, 3])
        plain, again = (step(network(r), images) for r in (False, True))
    finally:
        keras.config.set_dtype_policy("float32")
    for a, b in zip(plain, again, strict=True):
        assert a.dtype == b.dtype == tf.float32
        np.testing.assert_allclose(a, b, rtol=0.1, atol=0.02)


def test_config_round_trip():
    encoder = network(True)
    config = encoder.get_config()
    assert byol_tf.ResNet.from_config(config).recompute
    del config["recompute"]  # A file of an earlier version.
    assert not byol_tf.ResNet.from_config(config).recompute
