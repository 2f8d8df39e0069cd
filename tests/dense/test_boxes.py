"""Boxes, beside areas counted in pixels and a suppression by loops."""

import numpy as np
import pytest
import tensorflow as tf

from byol_tf.dense import boxes as B

DEGENERATE = np.float32(
    [[5, 5, 5, 9], [5, 5, 5, 5], [9, 9, 2, 3], [0, 0, 0, 0]]
)


def random_boxes(count, size=40, seed=0):
    random = np.random.default_rng(seed)
    corners = random.integers(size, size=(count, 2, 2))
    low, high = corners.min(axis=1), corners.max(axis=1) + 1
    return np.concatenate([low, high], axis=1).astype(np.float32)


def pixels(box, size=42):
    """The box as an image."""
    picture = np.zeros((size, size), bool)
    top, left, bottom, right = np.asarray(box, int)
    picture[top:bottom, left:right] = True
    return picture


def test_overlaps_are_pixels():
    first, second = random_boxes(12), random_boxes(9, seed=1)
    a = np.array([pixels(box) for box in first])[:, None]
    b = np.array([pixels(box) for box in second])[None]
    common, union = (a & b).sum((2, 3)), (a | b).sum((2, 3))
    np.testing.assert_allclose(B.areas(first), a[:, 0].sum((1, 2)))
    np.testing.assert_allclose(B.intersections(first, second), common)
    np.testing.assert_allclose(B.iou(first, second), common / union, rtol=1e-6)
    np.testing.assert_allclose(
        B.covered(first, second), common / a.sum((2, 3)), rtol=1e-6
    )
    assert (common > 0).sum() > 30


def test_batches_and_one_set_for_all():
    first, second = random_boxes(5), random_boxes(6, seed=1).reshape(2, 3, 4)
    together = B.iou(first, second)
    assert together.shape == (2, 5, 3)
    for one, part in zip(second, together):
        np.testing.assert_array_equal(B.iou(first, one), part)


def test_degenerate_boxes_overlap_nothing():
    whole = np.float32([[0, 0, 40, 40]])
    np.testing.assert_array_equal(B.areas(DEGENERATE), 0)
    for function in (B.iou, B.covered):
        np.testing.assert_array_equal(function(DEGENERATE, whole), 0)
        np.testing.assert_array_equal(function(DEGENERATE, DEGENERATE), 0)


@pytest.mark.parametrize("weights", [(1, 1, 1, 1), (10, 10, 5, 5)])
def test_codes_and_back(weights):
    boxes, anchors = random_boxes(200), random_boxes(200, seed=1)
    codes = B.encode(boxes, anchors, weights)
    np.testing.assert_allclose(
        B.decode(codes, anchors, weights), boxes, atol=1e-3
    )


def test_a_code_by_hand():
    anchor, box = np.float32([10, 20, 20, 60]), np.float32([20, 10, 40, 50])
    codes = B.encode(box, anchor)
    expected = [15 / 10, -10 / 40, np.log(20 / 10), 0]
    np.testing.assert_allclose(codes, expected, atol=1e-6)
    np.testing.assert_allclose(
        B.encode(box, anchor, (10, 10, 5, 5)),
        np.multiply(expected, (10, 10, 5, 5)),
        atol=1e-5,
    )


def test_codes_are_always_finite():
    sound = random_boxes(4)
    for boxes, anchors in (
        (DEGENERATE, sound),
        (sound, DEGENERATE),
        (DEGENERATE, DEGENERATE),
    ):
        assert np.isfinite(B.encode(boxes, anchors)).all()
        assert np.isfinite(B.decode(np.full((4, 4), 1e4, "f"), anchors)).all()


def test_growth_has_a_limit():
    anchor = np.float32([[0, 0, 16, 16]])
    top, left, bottom, right = B.decode(np.float32([[0, 0, 99, 1]]), anchor)[0]
    assert float(bottom - top) == pytest.approx(1000)
    assert float(right - left) == pytest.approx(16 * np.e, rel=1e-5)


def test_clipping():
    boxes = np.float32([[-3, 5, 50, 70], [45, 3, 60, 9]])
    np.testing.assert_array_equal(
        B.clip(boxes, tf.constant([40.0, 60.0])),
        [[0, 5, 40, 60], [40, 3, 40, 9]],
    )


def suppressed(boxes, scores, threshold, most, labels):
    """By the definition, in loops."""
    overlaps = np.asarray(B.iou(boxes, boxes))
    kept = []
    for i in np.argsort(-scores):
        same = [j for j in kept if labels[j] == labels[i]]
        if all(overlaps[i, j] <= threshold for j in same):
            kept.append(i)
    return kept[:most]


@pytest.mark.parametrize("classes", [1, 4])
def test_suppression(classes):
    random = np.random.default_rng(3)
    boxes = random_boxes(120)
    scores = random.permutation(120).astype(np.float32)
    labels = random.integers(classes, size=120)
    for threshold, most in ((0.3, 200), (0.5, 20)):
        kept = B.keep_best(
            boxes, scores, threshold, most, labels if classes > 1 else None
        )
        expected = suppressed(boxes, scores, threshold, most, labels)
        assert kept.numpy().tolist() == expected
        assert len(expected) < 120


def test_suppression_of_nothing():
    kept = B.keep_best(
        tf.zeros([0, 4]), tf.zeros([0]), 0.5, 9, tf.zeros([0], tf.int32)
    )
    assert kept.shape == (0,)
