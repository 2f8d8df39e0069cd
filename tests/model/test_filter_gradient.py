"""Kernels' gradients tap by tap are those of the convolution."""

import numpy as np
import pytest
import tensorflow as tf

from byol_tf.model import filter_gradient
from byol_tf.model.convolution import Conv2D


@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (5, 2), (7, 7)], ids=str)
@pytest.mark.parametrize("strides", [(1, 1), (2, 2), (3, 1)], ids=str)
@pytest.mark.parametrize("size", [(8, 8), (7, 5), (2, 9)], ids=str)
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "graph"])
def test_it_is_tensorflows(kernel, strides, size, compiled):
    random = np.random.default_rng(0)
    images = tf.constant(random.normal(size=(3, *size, 4)))
    weights = tf.constant(random.normal(size=(*kernel, 4, 5)))

    def gradients(function):
        with tf.GradientTape() as tape:
            tape.watch([images, weights])
            outputs = function(images, weights)
            loss = tf.reduce_sum(tf.sin(outputs))
        return outputs, *tape.gradient(loss, [images, weights])

    if compiled:
        gradients = tf.function(gradients)
    found = gradients(lambda x, w: filter_gradient.convolution(x, w, strides))
    expected = gradients(lambda x, w: tf.nn.conv2d(x, w, strides, "SAME"))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-11)


@pytest.mark.parametrize(
    ("dtype", "size", "channels", "stride", "taken"),
    [
        ("float32", 8, 16, 2, True),
        ("float32", 8, 16, 1, False),
        ("float32", 8, 3, 2, False),
        ("mixed_bfloat16", 8, 16, 1, True),
        ("mixed_bfloat16", 9, 16, 1, False),
        ("mixed_bfloat16", 17, 16, 2, True),
    ],
)
def test_where_it_is_the_faster_one(dtype, size, channels, stride, taken):
    layer = Conv2D(4, 3, stride, padding="same", use_bias=False, dtype=dtype)
    layer.build((None, size, size, channels))

    @tf.function
    def gradient(images):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.sin(layer(images)))
        return tape.gradient(loss, layer.kernel.value)

    images = tf.random.normal([2, size, size, channels])
    graph = gradient.get_concrete_function(images).graph
    operations = {operation.type for operation in graph.get_operations()}
    assert ("Conv2DBackpropFilter" not in operations) == taken
    assert gradient(images).dtype == tf.float32


def test_maps_of_unknown_size_have_tensorflows():
    layer = Conv2D(4, 3, 2, padding="same", use_bias=False)
    layer.build((None, None, None, 16))
    call = tf.function(
        layer, input_signature=[tf.TensorSpec([None, None, None, 16])]
    )
    assert call(tf.ones([2, 5, 6, 16])).shape == (2, 3, 3, 4)
