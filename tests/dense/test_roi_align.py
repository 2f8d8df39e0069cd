"""ROI align beside a sum of four samples a cell in NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from byol_tf.dense.roi_align import roi_align


def bilinear(image, y, x):
    """The value at (y, x), the first pixel's centre at (0.5, 0.5)."""
    height, width, _ = image.shape
    y, x = np.clip(y - 0.5, 0, height - 1), np.clip(x - 0.5, 0, width - 1)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    v, u = y - top, x - left
    return (1 - v) * (
        (1 - u) * image[top, left] + u * image[top, right]
    ) + v * ((1 - u) * image[bottom, left] + u * image[bottom, right])


def expected(image, box, stride, size):
    top, left, bottom, right = np.asarray(box, float) / stride
    height, width = (bottom - top) / size, (right - left) / size
    result = np.zeros((size, size, image.shape[-1]))
    for row in range(size):
        for column in range(size):
            for v in (0.25, 0.75):
                for u in (0.25, 0.75):
                    result[row, column] += bilinear(
                        image,
                        top + (row + v) * height,
                        left + (column + u) * width,
                    )
    return result / 4


def test_numpy():
    random = np.random.default_rng(0)
    features = random.normal(size=(2, 7, 9, 3)).astype(np.float32)
    boxes = np.float32(
        [
            [[3, 5, 40, 60], [0, 0, 56, 72], [10.5, 20.25, 13, 70]],
            [[50, 60, 56, 72], [0, 0, 4, 4], [17, 3, 18, 4]],
        ]
    )
    for size in (1, 5):
        found = roi_align(features, boxes, 8, size)
        assert found.shape == (6, size, size, 3)
        number = 0
        for image, of_image in zip(features, boxes):
            for box in of_image:
                np.testing.assert_allclose(
                    found[number], expected(image, box, 8, size), atol=1e-5
                )
                number += 1


def test_a_ramp_is_read_exactly():
    """A map of its own places gives the places of the cells' centres."""
    rows, columns = np.mgrid[:10, :12].astype(np.float32) + 0.5
    ramp = 4 * np.stack([rows, columns], -1)[None]
    found = roi_align(ramp, np.float32([[[6, 10, 26, 38]]]), 4, 4)[0]
    np.testing.assert_allclose(found[:, 0, 0], [8.5, 13.5, 18.5, 23.5])
    np.testing.assert_allclose(found[0, :, 1], [13.5, 20.5, 27.5, 34.5])


def test_degenerate_boxes_and_tiny_maps_are_finite():
    boxes = np.float32([[[0, 0, 0, 0], [9, 9, 2, 2], [-50, 90, 80, 999]]])
    for shape in ((1, 1, 1, 2), (1, 1, 6, 2), (1, 8, 8, 2)):
        found = roi_align(np.ones(shape, np.float32), boxes, 4, 3)
        np.testing.assert_allclose(found, 1, atol=1e-5)


def test_gradient_goes_to_the_features_alone():
    features = tf.constant(
        np.random.default_rng(0).normal(size=(1, 6, 6, 1)), tf.float32
    )
    boxes = tf.constant([[[2.0, 3, 20, 21]]])
    with tf.GradientTape() as tape:
        tape.watch([features, boxes])
        total = tf.reduce_sum(roi_align(features, boxes, 4, 7))
    of_features, of_boxes = tape.gradient(total, [features, boxes])
    assert of_boxes is None
    # Each of 49 cells has weights whose sum is 1.
    assert float(tf.reduce_sum(of_features)) == pytest.approx(49, rel=1e-5)
    assert float(of_features[0, 5, 5, 0]) < float(of_features[0, 2, 2, 0])
