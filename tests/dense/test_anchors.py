"""Anchors, what they go with, and which are drawn; cases by hand."""

import numpy as np
import tensorflow as tf

from byol_tf.dense.anchors import (
    ASPECT_RATIOS,
    NEGATIVE,
    NEITHER,
    POSITIVE,
    SIZES,
    anchors_on,
    assign,
    sample,
)

P, N, X = POSITIVE, NEGATIVE, NEITHER


def test_anchors_by_hand():
    anchors = anchors_on(tf.constant([1, 2]), 8, sizes=(4,), aspect_ratios=(1,))
    np.testing.assert_allclose(anchors, [[2, 2, 6, 6], [2, 10, 6, 14]])
    tall, wide = anchors_on([1, 1], 16, (8,), (4.0, 0.25))
    np.testing.assert_allclose(tall, [0, 6, 16, 10])
    np.testing.assert_allclose(wide, [6, 0, 10, 16])


def test_published_anchors():
    anchors = anchors_on([3, 5], 16).numpy().reshape(3, 5, 15, 4)
    centres = (anchors[..., :2] + anchors[..., 2:]) / 2
    rows, columns = np.mgrid[:3, :5] * 16 + 8
    np.testing.assert_allclose(centres[..., 0], rows[..., None] * np.ones(15))
    np.testing.assert_allclose(
        centres[..., 1], columns[..., None] + np.zeros(15), atol=1e-4
    )
    height, width = np.moveaxis(anchors[..., 2:] - anchors[..., :2], -1, 0)
    np.testing.assert_allclose(
        np.sqrt(height * width)[1, 2], np.repeat(SIZES, 3), rtol=1e-5
    )
    np.testing.assert_allclose(
        (height / width)[0, 4], np.tile(ASPECT_RATIOS, 5), rtol=1e-4
    )


# Squares of 10 in a row, 10 apart; and where true boxes lie.
ROW = np.float32([[0, 10 * i, 10, 10 * i + 10] for i in range(5)])


def assigned(boxes, labels, **options):
    matches, kinds = assign(
        ROW,
        tf.constant([boxes], tf.float32),
        tf.constant([labels]),
        0.7,
        0.3,
        **options,
    )
    return matches[0].numpy().tolist(), kinds[0].numpy().tolist()


def test_thresholds():
    # IoU with the first two: 8/10 and 0; with the third 5/10.
    boxes = [[0, 0, 10, 8], [0, 20, 5, 30]]
    matches, kinds = assigned(boxes, [3, 1])
    assert kinds == [P, N, X, N, N]
    assert (matches[0], matches[2]) == (0, 1)
    # The second box is nearest to the third anchor.
    assert assigned(boxes, [3, 1], best_of_each=True)[1] == [P, N, P, N, N]


def test_best_of_each_are_all_that_are_equally_near():
    # Between the second and the third: 5 / 15 each, and neither by itself.
    boxes = [[0, 15, 10, 25]]
    assert assigned(boxes, [1])[1] == [N, X, X, N, N]
    assert assigned(boxes, [1], best_of_each=True)[1] == [N, P, P, N, N]


def test_a_box_that_nothing_meets_makes_nothing_positive():
    far = [[100, 100, 110, 110]]
    assert assigned(far, [1], best_of_each=True)[1] == [N] * 5


def test_without_boxes_all_are_negative():
    assert assigned([[0, 0, 0, 0]], [0], best_of_each=True)[1] == [N] * 5


def test_ignored_boxes():
    # A crowd over the last three, of which it covers 10, 10 and 2 of 10.
    boxes = [[0, 0, 10, 10], [0, 20, 10, 42]]
    assert assigned(boxes, [1, -1], best_of_each=True)[1] == [P, N, X, X, N]
    # A true box in the crowd is learned all the same.
    boxes += [[0, 30, 10, 40]]
    matches, kinds = assigned(boxes, [1, -1, 2])
    assert kinds == [P, N, X, P, N] and matches[3] == 2


def test_what_is_not_there_is_neither():
    counted = tf.constant([[False, True, True, False, True]])
    boxes = [[0, 0, 10, 12]]  # Best with the first; then 2 / 20 with one.
    found = assigned(boxes, [1], counted=counted, best_of_each=True)[1]
    assert found == [X, P, N, X, N]


def test_proposals_of_each_image():
    """At one threshold for both kinds nothing is between them."""
    proposals = tf.constant([ROW[:2], ROW[2:4]])
    boxes = tf.constant([[[0.0, 0, 10, 6]], [[0, 30, 4, 40]]])
    _, kinds = assign(proposals, boxes, tf.constant([[5], [5]]), 0.5, 0.5)
    assert kinds.numpy().tolist() == [[P, N], [N, N]]


def test_samples():
    random = np.random.default_rng(0)
    kinds = random.choice([P, N, X], p=[0.1, 0.6, 0.3], size=(4, 400))
    kinds[1] = N  # No positive one.
    kinds[2] = np.where(kinds[2] == N, X, kinds[2])  # No negative one.
    kinds[3, 20:] = X  # Few.
    numbers = random.random((4, 400), np.float32)
    chosen = sample(tf.constant(kinds), numbers, 64, 0.25).numpy()
    positive = ((kinds == P) & chosen).sum(axis=1)
    negative = ((kinds == N) & chosen).sum(axis=1)
    assert not chosen[kinds == X].any()
    assert positive.tolist() == [16, 0, 16, (kinds[3] == P).sum()]
    assert negative.tolist() == [48, 64, 0, (kinds[3] == N).sum()]
    # Those with the lowest numbers, so uniformly drawn ones.
    assert (
        numbers[0][chosen[0] & (kinds[0] == P)].max()
        == np.sort(numbers[0][kinds[0] == P])[15]
    )
    other = sample(tf.constant(kinds), numbers[:, ::-1].copy(), 64, 0.25)
    assert (chosen[0] != other[0].numpy()).any()


def test_equal_numbers_are_not_too_many():
    chosen = sample(tf.zeros([1, 100], tf.int32), tf.zeros([1, 100]), 10, 0.5)
    assert chosen.numpy().sum() == 10
