"""What stands in BatchNorm's place, against NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import byol_tf
from byol_tf.config import Config
from byol_tf.model.batch_free import (
    NORMALIZATIONS,
    CalibratedAffine,
    GroupNorm,
    StandardizedConv2D,
    calibrate,
    standardized,
)
from byol_tf.model.distributed_fit import sublayers
from byol_tf.model.normalization import BatchNorm


def encoder(normalization, **arguments) -> byol_tf.ResNet:
    return byol_tf.ResNet(
        blocks=(1, 1),
        channels=(8, 16),
        stem_channels=8,
        normalization=normalization,
        **arguments,
    )


def images(count=6):
    return np.random.RandomState(0).rand(count, 8, 8, 3).astype(np.float32)


@pytest.mark.parametrize("shape", [(4, 24), (2, 3, 5, 24)])
def test_group_norm_in_numpy(shape):
    random = np.random.RandomState(0)
    x = (3 + 2 * random.randn(*shape)).astype(np.float32)
    layer = GroupNorm(groups=16)  # 6 groups of 4, the least size.
    layer.build(shape)
    gamma, beta = random.rand(2, 24).astype(np.float32)
    layer.gamma.assign(gamma)
    layer.beta.assign(beta)
    expected = np.empty_like(x)
    for image in range(shape[0]):
        for group in range(6):
            part = x[image, ..., 4 * group : 4 * group + 4]
            expected[image, ..., 4 * group : 4 * group + 4] = (
                part - part.mean()
            ) / np.sqrt(part.var() + 1e-5)
    measured = layer(x, training=True)
    np.testing.assert_allclose(measured, expected * gamma + beta, atol=1e-5)
    np.testing.assert_array_equal(measured, layer(x, training=False))


def test_standardised_kernels():
    kernel = 5 + np.random.RandomState(0).randn(3, 3, 4, 6).astype(np.float32)
    weights = standardized(tf.constant(kernel)).numpy()
    np.testing.assert_allclose(weights.mean((0, 1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(weights.std((0, 1, 2)), 1 / 6, rtol=1e-5)
    layer = StandardizedConv2D(6, 3, padding="same", use_bias=False)
    plain = keras.layers.Conv2D(6, 3, padding="same", use_bias=False)
    x = np.random.RandomState(1).randn(2, 5, 5, 4).astype(np.float32)
    for each, values in ((layer, kernel), (plain, weights)):
        each.build(x.shape)
        each.kernel.assign(values)
    np.testing.assert_allclose(layer(x), plain(x), atol=1e-5)


@pytest.mark.parametrize("kind", ["group", "none", "calibrated"])
def test_no_image_sees_the_others(kind):
    network = encoder(kind)
    assert not any(isinstance(x, BatchNorm) for x in sublayers(network))
    together = network(images(), training=True)
    alone = network(images()[:1], training=True)
    np.testing.assert_allclose(together[:1], alone, rtol=1e-4, atol=1e-5)
    assert not np.allclose(together[0], together[1], rtol=1e-3)


def test_none_is_the_identity_at_first():
    x = np.random.randn(3, 4).astype(np.float32)
    np.testing.assert_array_equal(NORMALIZATIONS["none"]()(x), x)


def test_calibrated_begins_as_batch_norm(monkeypatch):
    model = byol_tf.BYOL(
        encoder("calibrated"),
        16,
        8,
        total_steps=1,
        normalization="calibrated",
    )
    batch = images(32)
    calibrate(model.online, batch)
    seen, call = [], CalibratedAffine.call

    def noted(layer, inputs, training=False):
        seen.append(call(layer, inputs).numpy())
        return tf.constant(seen[-1])

    monkeypatch.setattr(CalibratedAffine, "call", noted)
    calibrated = model.online(batch, training=True)
    monkeypatch.undo()
    assert len(seen) == 9  # 7 of the encoder, 2 of the heads.
    for x in seen:
        axes = tuple(range(x.ndim - 1))
        np.testing.assert_allclose(x.mean(axes), 0, atol=1e-4)
        np.testing.assert_allclose(x.std(axes), 1, atol=1e-2)

    # The same network with BatchNorm does the same to this batch.
    plain = byol_tf.BYOL(encoder("batch"), 16, 8, total_steps=1)
    kernels = [w for w in model.online.weights if w.shape.rank > 1]
    for weight, kernel in zip(
        [w for w in plain.online.weights if w.shape.rank > 1],
        kernels,
        strict=True,
    ):
        weight.assign(kernel)
    np.testing.assert_allclose(
        plain.online(batch, training=True)["prediction"],
        calibrated["prediction"],
        atol=1e-3,
    )
    # And it is done: another batch leaves everything as it is.
    before = [w.numpy() for w in model.online.weights]
    model.online(2 * batch, training=True)
    for value, weight in zip(before, model.online.weights, strict=True):
        np.testing.assert_array_equal(value, weight)


def test_calibrated_on_two_replicas(mirrored):
    def made():
        keras.utils.set_random_seed(0)
        return byol_tf.BYOL(
            encoder("calibrated"),
            8,
            4,
            total_steps=1,
            normalization="calibrated",
        )

    with mirrored.scope():
        two = made()
    one = made()
    for model in (one, two):
        calibrate(model.online, images())
    for ours, theirs in zip(one.weights, two.weights, strict=True):
        np.testing.assert_array_equal(theirs.numpy(), ours.numpy())
    assert not np.allclose(one.online.encoder.initial_norm.gamma, 1)


@pytest.mark.parametrize("kind", NORMALIZATIONS)
@pytest.mark.parametrize("recompute", [False, True])
def test_encoder_round_trip(tmp_path, kind, recompute):
    network = encoder(kind, recompute=recompute)
    network(images(), training=True)
    network.save(tmp_path / "encoder.keras")
    again = keras.saving.load_model(tmp_path / "encoder.keras")
    assert again.normalization == kind
    np.testing.assert_array_equal(again(images()), network(images()))


def test_an_encoder_of_before_loads():
    network = encoder("batch")
    config = network.get_config()
    del config["normalization"]
    again = byol_tf.ResNet.from_config(config)
    assert again.get_config() | {"name": ""} == network.get_config() | {
        "name": ""
    }


def test_kinds_are_the_flags():
    field = Config.__dataclass_fields__["normalization"]
    assert field.metadata["choices"] == tuple(NORMALIZATIONS)
    with pytest.raises(ValueError, match="'layer' is none of batch, group"):
        encoder("layer")
