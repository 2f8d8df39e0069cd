"""The depth network, its loss, its crops and its figures."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import byol_tf
from byol_tf.dense.depth import (
    FIGURES,
    LEAST,
    Depth,
    DepthNetwork,
    UpProjection,
    errors,
    random_crop,
    reverse_huber,
    unpooled,
)
from byol_tf.optim.nesterov import Nesterov


def encoder():
    return byol_tf.ResNet(blocks=(1, 1), channels=(8, 16), stem_channels=8)


def batch(count=4, size=32, seed=0):
    random = np.random.default_rng(seed)
    images = random.integers(256, size=(count, size, size, 3), dtype=np.uint8)
    depths = random.uniform(1, 9, size=(count, size, size)).astype(np.float32)
    depths[:, :5] = 0
    return images, depths


def test_unpooled_values_have_three_zeros():
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 5))
    expected = np.zeros((2, 6, 8, 5))
    expected[:, ::2, ::2] = x
    np.testing.assert_array_equal(unpooled(tf.constant(x)), expected)


def test_up_projection_is_two_branches(float64):
    block = UpProjection(3)
    x = np.random.default_rng(0).normal(size=(2, 4, 5, 6))
    block.build(x.shape)
    outputs = block(x, training=True)
    assert outputs.shape == (2, 8, 10, 3)

    def normalized(x):
        mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
        return (x - mean) / np.sqrt(variance + 1e-5)

    def convolved(x, conv):
        kernel = conv.kernel.numpy()
        half = len(kernel) // 2
        padded = np.pad(x, [(0, 0), (half, half), (half, half), (0, 0)])
        windows = np.lib.stride_tricks.sliding_window_view(
            padded, kernel.shape[:2], (1, 2)
        )
        return np.einsum("bhwcij,ijcd->bhwd", windows, kernel)

    zeros = np.zeros((2, 8, 10, 6))
    zeros[:, ::2, ::2] = x
    first, second, shortcut = block.convs
    branch = np.maximum(normalized(convolved(zeros, first)), 0)
    branch = normalized(convolved(branch, second))
    expected = np.maximum(branch + normalized(convolved(zeros, shortcut)), 0)
    np.testing.assert_allclose(outputs, expected, atol=1e-10)


def test_published_size():
    """Of a ResNet-50: 2048, 1024, and 512, 256, 128, 64 at half the image."""
    model = DepthNetwork(byol_tf.ResNet(depth=50))
    assert model.reduction.filters == 1024
    assert [b.channels for b in model.up_projections] == [512, 256, 128, 64]
    assert model(np.zeros((1, 64, 96, 3), np.uint8)).shape == (1, 64, 96)


def test_published_recipe():
    recipe = Depth().recipe
    assert (recipe.steps, recipe.batch_size, recipe.rate) == (7500, 256, 0.16)
    assert (recipe.weight_decay, recipe.size) == (5e-4, (228, 304))
    schedule = recipe.schedule(recipe.rate, recipe.steps, 0)
    rates = [float(schedule(step)) for step in (0, 2500, 3750, 7500)]
    np.testing.assert_allclose(rates, [0.16, 0.12, 0.08, 0], atol=1e-7)


def test_usual_depth_is_the_beginning():
    model = DepthNetwork(encoder(), 4.25)
    model.output_conv.kernel.assign(tf.zeros_like(model.output_conv.kernel))
    np.testing.assert_array_equal(model(batch()[0]), np.full((4, 32, 32), 4.25))


def test_reverse_huber_by_hand():
    predicted = tf.constant([[[1.0, 3.0, 12.0, 7.0]]])
    depths = tf.constant([[[2.0, 3.0, 2.0, 0.0]]])
    # The greatest error is 10: c = 2. One is below, one above.
    expected = (1 + 0 + (100 + 4) / 4 + 0) / 4
    assert float(reverse_huber(predicted, depths)) == pytest.approx(expected)


def test_reverse_huber_is_smooth_at_c():
    def loss(error):  # The second pixel fixes c at 1.
        predicted = tf.stack([error, 5.0])[None, None]
        return 2 * reverse_huber(predicted + 1.0, tf.ones([1, 1, 2])) - 13.0

    for error in (0.999, 1.001):
        error = tf.constant(error)
        with tf.GradientTape() as tape:
            tape.watch(error)
            value = loss(error)
        assert float(value) == pytest.approx(float(error), abs=1e-4)
        assert float(tape.gradient(value, error)) == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("depth", [0.0, 3.0])
def test_loss_and_gradient_are_finite(depth):
    """Nothing is known, or everything is right."""
    predicted = tf.fill([1, 4, 4], 3.0)
    with tf.GradientTape() as tape:
        tape.watch(predicted)
        loss = reverse_huber(predicted, tf.fill([1, 4, 4], depth))
    assert float(loss) == 0
    assert np.all(np.asarray(tape.gradient(loss, predicted)) == 0)


def test_figures_are_those_of_all_pixels():
    random = np.random.default_rng(0)
    truth = random.uniform(1, 9, size=(3, 10, 12))
    truth[0, :4] = 0
    found = truth * np.exp(random.normal(0, 0.3, size=truth.shape)) + 0.01
    parts = np.stack([errors(f, t) for f, t in zip(found, truth)])
    known = truth > 0
    f, t = found[known], truth[known]
    ratio = np.maximum(f / t, t / f)
    for name, expected in {
        "delta1": np.mean(ratio < 1.25),
        "delta2": np.mean(ratio < 1.5625),
        "delta3": np.mean(ratio < 1.953125),
        "rms": np.sqrt(np.mean((f - t) ** 2)),
        "rel": np.mean(np.abs(f - t) / t),
    }.items():
        value = FIGURES[name](parts, np.ones(3))
        assert value == pytest.approx(expected, rel=1e-12)


def test_crops_keep_image_and_depth_together():
    """The depth is the image's brightness, before and after."""
    squares = np.kron(
        np.random.default_rng(0).integers(1, 5, size=(6, 8)), np.ones((40, 40))
    )
    scene = {
        "image": np.repeat((50 * squares[..., None]).astype(np.uint8), 3, 2),
        "depth": squares.astype(np.float32),
    }
    tops = set()
    for number in range(10):
        image, depth = random_crop(scene, np.random.default_rng(number), 57, 76)
        assert image.shape == (57, 76, 3) and depth.shape == (57, 76)
        for channel in range(3):
            gains = image[..., channel] / (50 * depth)
            gain = np.median(gains)
            assert 0.79 < gain < 1.21
            same = np.abs(gains / gain - 1) < 0.05
            assert same.mean() > 0.75  # Edges are interpolated.
        tops.add(tuple(depth[:, 0]))
    assert len(tops) > 3


def test_each_channel_has_a_gain_of_its_own():
    scene = {
        "image": np.full((30, 40, 3), 100, np.uint8),
        "depth": np.ones((30, 40), np.float32),
    }
    gains = []
    for number in range(200):
        image, _ = random_crop(scene, np.random.default_rng(number), 20, 24)
        assert (image == image[0, 0]).all()
        gains.append(image[0, 0] / 100)
    gains = np.array(gains)
    assert 0.79 <= gains.min() < 0.82 and 1.18 < gains.max() <= 1.2
    # Uniform, and each drawn alone.
    np.testing.assert_allclose(gains.mean(axis=0), 1, atol=0.03)
    np.testing.assert_allclose(gains.std(axis=0), 0.4 / 12**0.5, rtol=0.15)
    np.testing.assert_allclose(np.corrcoef(gains.T), np.eye(3), atol=0.25)


def test_a_step_changes_all_weights():
    model = DepthNetwork(encoder(), total_steps=1)
    model.compile(Nesterov(0.01))
    before = model.get_weights()
    data = tf.data.Dataset.from_tensors(batch())
    model.fit(data, steps_per_epoch=1, verbose=0)
    assert all(
        np.any(old != new) for old, new in zip(before, model.get_weights())
    )


@pytest.mark.slow
def test_two_replicas_are_one(mirrored):
    """Also where one replica has the greatest error."""
    images, depths = batch()
    depths[3, 9, 9] = 60
    weights = None
    for strategy in (tf.distribute.get_strategy(), mirrored):
        with strategy.scope():
            keras.utils.set_random_seed(1)
            model = DepthNetwork(encoder(), 4.0, total_steps=2)
            model.compile(Nesterov(0.01, weight_decay=1e-4))
        data = tf.data.Dataset.from_tensor_slices((images, depths)).repeat()
        data = data.batch(4, drop_remainder=True)
        model.fit(data, steps_per_epoch=2, verbose=0)
        if weights is None:
            weights = model.get_weights()
    for one, two in zip(weights, model.get_weights()):
        np.testing.assert_allclose(one, two, rtol=1e-3, atol=2e-5)


def test_predictions_are_at_the_scale_of_training():
    """Twice the size, the same depths but for the resizing."""
    smooth = np.linspace(0, 1, 40)[:, None, None] * np.ones((40, 40, 3))
    twice = np.repeat(np.repeat(smooth, 2, 0), 2, 1)[None].astype(np.float32)
    model = DepthNetwork(encoder(), 4.0, size=(38, 38))
    small = model.predictions(smooth[None].astype(np.float32))["depth"][0]
    large = model.predictions(twice)["depth"][0]
    assert large.shape == (80, 80)
    halved = tf.reshape(large, [40, 2, 40, 2]).numpy().mean((1, 3))
    np.testing.assert_allclose(halved, small, rtol=0.02)
    as_is = DepthNetwork(model.encoder, 4.0)
    as_is.set_weights(model.get_weights())
    np.testing.assert_allclose(
        as_is.predictions(smooth[None].astype(np.float32))["depth"][0],
        small,
        rtol=1e-5,
    )


def test_predictions_are_above_0():
    model = DepthNetwork(encoder())
    images, _ = batch()
    depth = model.predictions(images)["depth"].numpy()
    assert depth.shape == (4, 32, 32) and depth.min() >= LEAST


def test_saved_model_loads_again(tmp_path):
    model = DepthNetwork(encoder())
    model.save(tmp_path / "depth.keras")
    loaded = keras.saving.load_model(tmp_path / "depth.keras")
    images, _ = batch()
    np.testing.assert_allclose(model(images), loaded(images), atol=1e-5)
