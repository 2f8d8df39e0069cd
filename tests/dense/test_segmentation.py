"""The segmentation network, its loss, its crops and its mIoU."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import jaccard_score

import byol_tf
from byol_tf.data.segmentation_sets import IGNORED
from byol_tf.dense.segmentation import (
    FCN,
    Segmentation,
    mean_iou,
    overlaps,
    scaled_crop,
)
from byol_tf.optim.nesterov import Nesterov


def encoder():
    return byol_tf.ResNet(
        blocks=(1, 1, 1), channels=(8, 12, 16), stem_channels=8
    )


def batch(count=4, size=32, classes=3, seed=0):
    random = np.random.default_rng(seed)
    images = random.integers(256, size=(count, size, size, 3), dtype=np.uint8)
    masks = random.integers(classes, size=(count, size, size), dtype=np.uint8)
    return images, masks


def test_last_group_is_dilated():
    model = FCN.on(encoder(), 3)
    assert model.encoder.strides == (4, 8, 8)
    assert model.maps_of(tf.zeros([1, 32, 48, 3]), False)[-1].shape == (
        *(1, 4, 6),
        16,
    )


def test_published_size():
    """Two 3x3 convolutions of 256 channels and a 1x1 one, on 2048."""
    model = FCN.on(byol_tf.ResNet(depth=50), 21)
    assert model.encoder.strides == (4, 8, 16, 16)
    own = model.count_params() - model.encoder.count_params()
    convolutions = 9 * 2048 * 256 + 9 * 256 * 256 + 256 * 21 + 21
    norms = 2 * (4 * 256 + 1)
    assert own == convolutions + norms


def test_published_dilation():
    """A convolution sees its own place and those at a distance of 6."""
    for conv in FCN.on(encoder(), 3).convs:
        spot = np.zeros((1, 15, 15, conv.kernel.shape[2]), np.float32)
        spot[:, 7, 7] = 1
        seen = np.any(np.asarray(conv(spot))[0] != 0, axis=-1)
        expected = np.zeros((15, 15), bool)
        expected[1::6, 1::6] = True
        np.testing.assert_array_equal(seen, expected)


def test_published_recipe():
    """MoCo's: 50 epochs of 10,582 images."""
    recipe = Segmentation().recipe
    assert recipe.steps == pytest.approx(50 * 10582 / 16, rel=0.01)
    assert (recipe.batch_size, recipe.rate) == (16, 0.003)
    assert (recipe.weight_decay, recipe.size) == (1e-4, (513, 513))
    schedule = recipe.schedule(recipe.rate, 1000, 0)
    rates = [float(schedule(step)) for step in (0, 699, 700, 899, 900, 999)]
    np.testing.assert_allclose(
        rates, [3e-3, 3e-3, 3e-4, 3e-4, 3e-5, 3e-5], rtol=1e-5
    )


def test_logits_have_the_image_s_size():
    model = FCN.on(encoder(), 5)
    assert model(np.zeros((2, 33, 50, 3), np.uint8)).shape == (2, 33, 50, 5)


def test_integers_are_floats_by_255():
    model = FCN.on(encoder(), 3)
    images, _ = batch()
    np.testing.assert_allclose(
        model(images), model(images / np.float32(255)), atol=1e-5
    )


def test_loss_is_numpys():
    model = FCN.on(encoder(), 3)
    images, masks = batch()
    masks[:, :10] = IGNORED
    with keras.StatelessScope():
        logits = np.float64(model(images, training=True))
        loss = model.losses(tf.constant(images), tf.constant(masks))
    logits -= logits.max(axis=-1, keepdims=True)
    logs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    chosen = np.take_along_axis(
        logs, np.where(masks == IGNORED, 0, masks)[..., None].astype(int), -1
    )[..., 0]
    expected = -chosen[masks != IGNORED].mean()
    assert float(loss["cross_entropy"]) == pytest.approx(expected, rel=1e-5)


def test_nothing_is_learned_of_what_is_ignored():
    model = FCN.on(encoder(), 3)
    images, masks = batch()
    masks[:] = IGNORED
    with tf.GradientTape() as tape:
        loss = model.losses(tf.constant(images), tf.constant(masks))
    assert float(loss["cross_entropy"]) == 0
    for gradient in tape.gradient(
        loss["cross_entropy"], model.trainable_variables
    ):
        assert np.all(np.asarray(gradient) == 0)


def test_a_frozen_encoder_stays(tmp_path):
    own = encoder()
    own.set_weights([w + 0.01 for w in own.get_weights()])
    before = own.get_weights()
    model = FCN.on(own, 3, frozen=True, total_steps=2)
    model.compile(Nesterov(0.1))
    images, masks = batch()
    data = tf.data.Dataset.from_tensors((images, masks)).repeat()
    head = model.classifier.get_weights()
    model.fit(data, steps_per_epoch=2, verbose=0)
    for old, new in zip(before, model.encoder.get_weights()):
        np.testing.assert_array_equal(old, new)
    assert np.any(head[0] != model.classifier.get_weights()[0])


def test_gradients_reach_the_encoder():
    model = FCN.on(encoder(), 3, total_steps=1)
    model.compile(Nesterov(0.1))
    before = model.encoder.get_weights()
    data = tf.data.Dataset.from_tensors(batch())
    model.fit(data, steps_per_epoch=1, verbose=0)
    changed = [
        np.any(old != new)
        for old, new in zip(before, model.encoder.get_weights())
    ]
    assert all(changed)


@pytest.mark.slow
def test_two_replicas_are_one(mirrored):
    images, masks = batch()
    masks[0, :20] = IGNORED  # Unequal counts on the replicas.
    weights = None
    for strategy in (tf.distribute.get_strategy(), mirrored):
        with strategy.scope():
            keras.utils.set_random_seed(1)
            model = FCN.on(encoder(), 3, total_steps=2)
            model.compile(Nesterov(0.05, weight_decay=1e-4))
        data = tf.data.Dataset.from_tensor_slices((images, masks)).repeat()
        data = data.batch(4, drop_remainder=True)
        model.fit(data, steps_per_epoch=2, verbose=0)
        if weights is None:
            weights = model.get_weights()
    for one, two in zip(weights, model.get_weights()):
        np.testing.assert_allclose(one, two, rtol=1e-3, atol=2e-5)


def test_saved_model_loads_again(tmp_path):
    model = FCN.on(encoder(), 3)
    model.save(tmp_path / "fcn.keras")
    loaded = keras.saving.load_model(tmp_path / "fcn.keras")
    images, _ = batch()
    np.testing.assert_allclose(model(images), loaded(images), atol=1e-6)


def test_mean_iou_is_scikit_learns():
    random = np.random.default_rng(3)
    masks = random.integers(5, size=(6, 20, 30), dtype=np.uint8)
    masks[masks == 4] = 0  # In predictions only.
    masks[:, :3] = IGNORED
    noise = random.random(masks.shape) < 0.4
    predicted = np.where(
        noise | (masks == IGNORED), random.integers(5, size=masks.shape), masks
    )
    found = mean_iou([overlaps(p, m, 6) for p, m in zip(predicted, masks)])
    counted = masks != IGNORED
    expected = jaccard_score(masks[counted], predicted[counted], average=None)
    assert len(expected) == 5  # Nobody has class 5, and it does not count.
    assert found == pytest.approx(expected.mean(), abs=1e-12)


def test_mean_iou_of_a_case_by_hand():
    mask = np.array([[0, 0, 1, 1]], np.uint8)
    predicted = np.array([[0, 1, 1, 1]])
    np.testing.assert_array_equal(
        overlaps(predicted, mask, 2), [[1, 2], [2, 3]]
    )
    assert mean_iou([overlaps(predicted, mask, 2)]) == (1 / 2 + 2 / 3) / 2
    with pytest.raises(ValueError, match="No pixel"):
        mean_iou([overlaps(predicted, mask * 0 + IGNORED, 2)])


def test_crops_keep_image_and_mask_together():
    """The mask is the image's red channel, before and after."""
    squares = np.kron(
        np.random.default_rng(0).integers(8, size=(6, 8)), np.ones((16, 16))
    ).astype(np.uint8)
    scene = {"image": np.repeat(squares[..., None], 3, 2), "mask": squares}
    flips, ignored = 0, 0
    for number in range(60):
        image, mask = scaled_crop(scene, np.random.default_rng(number), 64, 80)
        assert image.shape == (64, 80, 3) and mask.shape == (64, 80)
        counted = mask != IGNORED
        ignored += (~counted).any()
        assert counted.any()
        same = image[..., 0][counted] == mask[counted]
        assert same.mean() > 0.7  # Edges are interpolated.
        again, _ = scaled_crop(scene, np.random.default_rng(number), 64, 80)
        np.testing.assert_array_equal(image, again)
        flips += mask[0, 0] == IGNORED  # Padding is on the other side then.
    assert 0 < ignored < 60
    assert 0 < flips < ignored
