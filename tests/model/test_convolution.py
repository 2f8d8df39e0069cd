"""Convolutions whose output is a single place."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from byol_tf.model import resnet
from byol_tf.model.convolution import Conv2D


@pytest.mark.parametrize("kernel", [1, 3, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(1, 1), (2, 2), (1, 2), (3, 1), (4, 4)])
def test_it_is_tensorflows(float64, kernel, stride, size):
    layer = Conv2D(5, kernel, stride, padding="same", use_bias=False)
    images = tf.constant(np.random.default_rng(0).normal(size=(3, *size, 4)))
    layer.build(images.shape)
    weights = tf.convert_to_tensor(layer.kernel)

    def gradients(function):
        with tf.GradientTape() as tape:
            tape.watch([images, weights])
            outputs = function()
            loss = tf.reduce_sum(tf.square(outputs))
        return outputs, tape.gradient(loss, images)

    expected = gradients(lambda: tf.nn.conv2d(images, weights, stride, "SAME"))
    for one, other in zip(gradients(lambda: layer(images)), expected):
        np.testing.assert_allclose(one, other, atol=1e-12)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.square(layer(images)))
    found = tape.gradient(loss, layer.kernel.value)
    with tf.GradientTape() as tape:
        tape.watch(weights)
        loss = tf.reduce_sum(
            tf.square(tf.nn.conv2d(images, weights, stride, "SAME"))
        )
    np.testing.assert_allclose(found, tape.gradient(loss, weights), atol=1e-11)


def test_files_of_keras_s_own_layer_can_be_loaded(tmp_path, monkeypatch):
    options = dict(blocks=(1, 1), channels=(8, 16), stem_channels=8)
    with monkeypatch.context() as patch:
        patch.setattr(resnet, "Conv2D", keras.layers.Conv2D)
        before = resnet.ResNet(**options)
    assert type(before.initial_conv) is keras.layers.Conv2D
    before.save(tmp_path / "encoder.keras")
    loaded = keras.saving.load_model(tmp_path / "encoder.keras")
    assert type(loaded.initial_conv) is Conv2D
    for one, other in zip(before.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize(("size", "kernel"), [(1, 3), (8, 3), (8, 1)])
def test_a_bias_is_cast_as_keras_casts_it(dtype, size, kernel):
    layer = Conv2D(4, kernel, padding="same", dtype=dtype)
    images = tf.random.normal([2, size, size, 16])
    outputs = layer(images)
    assert outputs.dtype == layer.compute_dtype
    layer.bias.assign([1, 2, 3, 4])
    np.testing.assert_allclose(
        tf.cast(layer(images) - outputs, tf.float32),
        tf.broadcast_to([1.0, 2.0, 3.0, 4.0], outputs.shape),
        atol=0.03,
    )
