"""Each operation against tf.image or its definition."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from byol_tf import image_operations
from byol_tf.image_operations import BRIGHTNESS, CONTRAST, HUE, SATURATION


@pytest.fixture
def images():
    return np.random.RandomState(0).rand(4, 24, 20, 3).astype(np.float32)


def on_planes(operation, images, *arguments, **parameters) -> np.ndarray:
    """An operation on planes, applied to channels-last images."""
    planes = tf.transpose(tf.constant(images), [0, 3, 1, 2])
    results = operation(planes, *arguments, **parameters)
    return tf.transpose(results, [0, 2, 3, 1]).numpy()


def each(*values) -> tf.Tensor:
    return tf.constant(values, tf.float32)


NOTHING = {
    "brightness": each(0, 0, 0, 0),
    "contrast": each(1, 1, 1, 1),
    "saturation": each(1, 1, 1, 1),
    "hue": each(0, 0, 0, 0),
}


@pytest.mark.parametrize(
    "name, values, reference",
    [
        ("brightness", (-0.4, -0.1, 0.2, 0.4), tf.image.adjust_brightness),
        ("contrast", (0.6, 0.9, 1.0, 1.4), tf.image.adjust_contrast),
        ("saturation", (0.8, 0.9, 1.1, 1.2), tf.image.adjust_saturation),
        ("hue", (-0.1, -0.03, 0.05, 0.1), tf.image.adjust_hue),
    ],
)
def test_colour_operations_equal_tf_image(images, name, values, reference):
    order = tf.tile([[HUE, SATURATION, CONTRAST, BRIGHTNESS]], [4, 1])
    parameters = NOTHING | {name: each(*values)}
    ours = on_planes(image_operations.color_jitter, images, order, **parameters)
    for image, value, result in zip(images, values, ours, strict=True):
        expected = np.clip(reference(image, value), 0, 1)
        np.testing.assert_allclose(result, expected, atol=1e-5)


def test_jitter_goes_through_each_images_own_order():
    images = np.random.RandomState(0).rand(24, 12, 10, 3).astype(np.float32)
    order = np.array(list(itertools.permutations(range(4))))
    values = {"brightness": 0.3, "contrast": 1.3, "saturation": 1.2, "hue": 0.1}
    ours = on_planes(
        image_operations.color_jitter,
        images,
        order,
        **{name: each(*[value] * 24) for name, value in values.items()},
    )
    operations = {
        BRIGHTNESS: lambda x: tf.image.adjust_brightness(x, 0.3),
        CONTRAST: lambda x: tf.image.adjust_contrast(x, 1.3),
        SATURATION: lambda x: tf.image.adjust_saturation(x, 1.2),
        HUE: lambda x: tf.image.adjust_hue(x, 0.1),
    }
    for image, turns, result in zip(images, order, ours, strict=True):
        for turn in turns:
            image = np.clip(operations[turn](image), 0, 1)
        np.testing.assert_allclose(result, image, atol=1e-5, err_msg=str(turns))


def test_saturation_and_hue_on_extreme_colours():
    colours = np.array(
        [[0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 1, 1], [0.5, 0.5, 0.2]]
    ).astype(np.float32)[None, None]
    ours = on_planes(
        image_operations.adjust_saturation_and_hue,
        colours,
        each(1.2),
        each(-0.07),
    )
    expected = tf.image.adjust_hue(
        tf.image.adjust_saturation(colours, 1.2), -0.07
    )
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_gray_and_solarize_follow_their_definitions(images):
    gray = images @ np.array([0.2989, 0.5870, 0.1140], np.float32)
    np.testing.assert_allclose(
        on_planes(image_operations.to_gray, images),
        np.repeat(gray[..., None], 3, -1),
        rtol=1e-5,
    )
    np.testing.assert_array_equal(
        image_operations.solarize(images),
        np.where(images < 0.5, images, 1 - images),
    )


def numpy_blur(image, sigma):
    radius = image.shape[0] // 20
    taps = np.arange(-radius, radius + 1)
    kernel = np.exp(-(taps**2) / (2 * sigma**2))
    kernel /= kernel.sum()
    for axis in (0, 1):
        image = np.apply_along_axis(np.convolve, axis, image, kernel, "same")
    return image


@pytest.mark.parametrize("size", [(24, 20), (40, 60), (18, 30)])
def test_blur_is_separable_with_black_outside(size):
    images = np.random.RandomState(0).rand(3, *size, 2).astype(np.float32)
    sigmas = (0.1, 1.0, 2.0)
    blurred = on_planes(image_operations.gaussian_blur, images, each(*sigmas))
    for image, sigma, result in zip(images, sigmas, blurred, strict=True):
        expected = numpy_blur(image, sigma) if size[0] >= 20 else image
        np.testing.assert_allclose(result, expected, atol=1e-5)


def test_blur_with_sigma_zero_is_the_identity(images):
    blurred = on_planes(
        image_operations.gaussian_blur, images, each(0, 0, 0, 0)
    )
    np.testing.assert_allclose(blurred, images, atol=1e-7)


def test_crop_and_resize_equals_tf_image(images):
    boxes = np.array(
        [[0, 0, 24, 20], [3, 5, 7, 11], [20, 10, 4, 10], [5, 19, 9, 1]]
    )
    ours = on_planes(
        image_operations.crop_and_resize,
        images,
        boxes.astype(np.float32),
        (16, 12),
    )
    for image, (y, x, h, w), result in zip(images, boxes, ours, strict=True):
        crop = image[y : y + h, x : x + w]
        expected = tf.image.resize(crop, (16, 12), "bicubic")
        # TensorFlow reads the kernel from a table of 1,024 entries.
        np.testing.assert_allclose(result, np.clip(expected, 0, 1), atol=2e-3)
