"""Variants of BYOL: their losses in NumPy, who learns from what, replicas."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import tiny_encoder

import byol_tf
from byol_tf.config import Config
from byol_tf.model.build import build_byol
from byol_tf.model.variants import (
    RIDGE,
    Variant,
    VariedBYOL,
    linear_predictor,
)

SIMCLR = dict(predictor="none", target="online", negatives_weight=1.0)


def varied(variant: Variant, optimizer=None, **arguments) -> VariedBYOL:
    model = VariedBYOL(
        tiny_encoder(),
        16,
        8,
        **{"tau_base": 0.9, "total_steps": 10} | arguments,
        variant=variant,
    )
    model.compile(optimizer or byol_tf.LARS(1.0, weight_decay=1e-3))
    model.optimizer.build(model.trainable_variables)
    return model


def views(count=8, size=8):
    return np.random.RandomState(0).rand(2, count, size, size, 3)


def outputs(count=6, size=5):
    """What the networks make of two views, at random."""
    random = np.random.RandomState(1)
    return [
        {
            name: tf.constant(random.randn(count, size))
            for name in ("projection", "prediction")
        }
        for _ in range(4)
    ]


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def info_nce(queries, own, other, alpha, beta):
    """The paper's objective, image by image, times -1 and but for 2."""
    queries, own, other = unit(queries), unit(own), unit(other)
    total = 0.0
    for i, query in enumerate(queries):
        rest = [
            np.exp(query @ own[j] / alpha) for j in range(len(own)) if j != i
        ]
        rest += [np.exp(query @ key / alpha) for key in other]
        assert len(rest) == 2 * len(queries) - 1
        total += -2 * query @ other[i] + beta * 2 * alpha * np.log(sum(rest))
    return total / len(queries)


@pytest.mark.parametrize(
    "predictor, target, beta",
    [
        ("mlp", "moving_average", 0.0),
        ("mlp", "moving_average", 0.5),
        ("none", "online", 1.0),
        ("mlp", "online", 1.0),
    ],
)
def test_from_byol_to_simclr(float64, predictor, target, beta):
    online1, online2, target1, target2 = outputs()
    variant = Variant(
        predictor=predictor,
        target=target,
        negatives_weight=beta,
        temperature=0.3,
    )
    if target == "online":
        keys1, keys2 = online1["projection"], online2["projection"]
    else:
        keys1, keys2 = target1["projection"], target2["projection"]
    predictions = [o["prediction"].numpy() for o in (online1, online2)]
    keys = keys1.numpy(), keys2.numpy()
    expected = 4.0
    expected += info_nce(predictions[0], keys[0], keys[1], 0.3, beta)
    expected += info_nce(predictions[1], keys[1], keys[0], 0.3, beta)
    loss = varied(variant).representation_loss(
        online1, online2, target1, target2
    )
    np.testing.assert_allclose(loss, expected, rtol=1e-12)


def test_by_default_it_is_byol():
    model = varied(Variant())
    plain = byol_tf.BYOL(tiny_encoder(), 16, 8, 0.9, total_steps=10)
    plain.set_weights(model.get_weights())
    plain.compile(byol_tf.LARS(1.0, weight_decay=1e-3))
    for each in (model, plain):
        for _ in range(2):
            logs = each.update(*views())
    for ours, theirs in zip(model.weights, plain.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_allclose(logs["tau"], cosine(1), rtol=1e-6)


def cosine(step, base=0.9, total=10):
    return 1 - (1 - base) * (np.cos(np.pi * step / total) + 1) / 2


def test_without_a_predictor_projections_are_predictions():
    model = varied(Variant(predictor="none"))
    assert model.online.predictor is None
    networks = model.forward(*views())["online"]
    np.testing.assert_array_equal(
        networks["prediction_view1"], networks["projection_view1"]
    )
    names = {v.path.split("/")[1] for v in model.online.trainable_variables}
    assert "predictor" not in names
    model.update(*views())


@pytest.mark.parametrize("target", ["moving_average", "online"])
def test_who_gets_gradient(float64, target):
    """Through the targets it flows with `online` only."""
    online1, online2, target1, target2 = outputs()
    model = varied(Variant(target=target, negatives_weight=1.0))
    sources = {
        "prediction": online1["prediction"],
        "online": online2["projection"],
        "target": target2["projection"],
    }
    with tf.GradientTape() as tape:
        tape.watch(sources)
        loss = model.representation_loss(online1, online2, target1, target2)
    gradients = tape.gradient(loss, sources)
    flows = {name for name, g in gradients.items() if g is not None}
    expected = (
        {"prediction", "online"} if target == "online" else {"prediction"}
    )
    assert flows == expected
    assert all(np.abs(gradients[name]).max() > 1e-3 for name in flows)


def test_linear_predictor_is_least_squares(float64):
    random = np.random.RandomState(0)
    z, t = random.randn(2, 40, 5)
    expected, *_ = np.linalg.lstsq(z, unit(t), rcond=None)
    # The ridge, in lstsq's own terms: rows of its root, and zeros to predict.
    strength = RIDGE * np.trace(z.T @ z) / 5 + 1e-12
    rows = np.concatenate([z, np.sqrt(strength) * np.eye(5)])
    aims = np.concatenate([unit(t), np.zeros((5, 5))])
    ridged, *_ = np.linalg.lstsq(rows, aims, rcond=None)
    measured = linear_predictor(tf.constant(z), tf.constant(t))
    np.testing.assert_allclose(measured, ridged, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(measured, expected, rtol=1e-3, atol=1e-4)


def test_linear_predictor_is_finite_where_all_is_zero():
    zeros = tf.zeros([4, 3])
    np.testing.assert_array_equal(
        linear_predictor(zeros, zeros), np.zeros((3, 3))
    )


def test_loss_by_the_linear_predictor(float64):
    online1, online2, target1, target2 = outputs(count=9)
    model = varied(Variant(predictor="optimal_linear"))
    assert model.online.predictor is None
    z = [o["prediction"].numpy() for o in (online1, online2)]
    t = [o["projection"].numpy() for o in (target2, target1)]
    matrix = linear_predictor(
        tf.constant(np.concatenate(z)), tf.constant(np.concatenate(t))
    ).numpy()
    expected = sum(
        np.mean(2 - 2 * np.sum(unit(a @ matrix) * unit(b), -1))
        for a, b in zip(z, t)
    )
    with tf.GradientTape() as tape:
        tape.watch(online1["prediction"])
        loss = model.representation_loss(online1, online2, target1, target2)
    np.testing.assert_allclose(loss, expected, rtol=1e-10)
    # The gradient is that of a matrix which stays.
    gradient = tape.gradient(loss, online1["prediction"]).numpy()
    moved = z[0].copy()
    moved[2, 1] += 1e-6
    change = sum(
        np.mean(2 - 2 * np.sum(unit(a @ matrix) * unit(b), -1))
        for a, b in zip([moved, z[1]], t)
    )
    np.testing.assert_allclose(
        gradient[2, 1], (change - expected) / 1e-6, rtol=1e-4
    )


@pytest.mark.parametrize(
    "variant, expected",
    [
        (Variant(), [cosine(k) for k in range(3)]),
        (Variant(tau_schedule="constant"), [0.9, 0.9, 0.9]),
        (
            Variant(tau_schedule="warmup", tau_end=0.99, tau_warmup_steps=2),
            [0.9, 0.945, 0.99],
        ),
    ],
)
def test_tau(variant, expected):
    model = varied(variant)
    measured = [model.tau(tf.constant(step)) for step in range(3)]
    np.testing.assert_allclose(measured, expected, rtol=1e-12)


def test_predictor_rate(float64):
    """Under LARS, lambda times as far; 0: not a bit. The others alike."""
    plain, *models = (
        varied(Variant(predictor_rate=rate)) for rate in (1.0, 0.0, 10.0)
    )
    start = [w.numpy() for w in plain.online.weights]
    plain.update(*views())
    for model, rate in zip(models, (0, 10)):
        for weight, value in zip(model.online.weights, start, strict=True):
            weight.assign(value)
        model.target.set_weights(varied_targets(plain, start, model))
        model.update(*views())
        predictor = {id(v) for v in model.online.predictor.trainable_variables}
        assert len(predictor) == 5
        for value, one, other in zip(
            start, plain.online.weights, model.online.weights, strict=True
        ):
            step = rate if id(other) in predictor else 1
            if rate == 0 and step == 0:
                np.testing.assert_array_equal(other, value)
            np.testing.assert_allclose(
                other.numpy() - value,
                step * (one.numpy() - value),
                rtol=1e-6,
                atol=1e-12,
            )


def varied_targets(plain, start, model):
    """The target's weights before `plain` took its first step."""
    tau = 0.9
    return [
        (target.numpy() - (1 - tau) * online.numpy()) / tau
        if online.trainable
        else value.numpy()
        for target, online, value in zip(
            plain.target.weights, plain.online.weights, model.target.weights
        )
    ]


@pytest.mark.parametrize(
    "variant",
    [
        Variant(negatives_weight=1.0),
        pytest.param(Variant(**SIMCLR), marks=pytest.mark.slow),
        pytest.param(
            Variant(predictor="optimal_linear", tau_schedule="constant"),
            marks=pytest.mark.slow,
        ),
        pytest.param(Variant(predictor_rate=10.0), marks=pytest.mark.slow),
    ],
    ids=["negatives", "simclr", "linear", "rate"],
)
def test_two_replicas_are_one(mirrored, float64, variant):
    """With negatives of all replicas, and gradients through them."""
    batch = views(count=8)
    one = varied(variant, micro_batches=2)
    with mirrored.scope():
        two = varied(variant, micro_batches=2)
        two.set_weights(one.get_weights())
    parts = [
        mirrored.experimental_distribute_values_from_function(
            lambda context, view=view: tf.constant(
                np.split(view, 2)[context.replica_id_in_sync_group]
            )
        )
        for view in batch
    ]
    step = tf.function(lambda *views: mirrored.run(two.update, views))
    for _ in range(2):
        logs = one.update(*batch)
        losses = step(*parts)["loss"]
    mean = mirrored.reduce("MEAN", losses, axis=None)
    np.testing.assert_allclose(mean, logs["loss"], rtol=1e-9)
    for ours, theirs in zip(one.weights, two.weights, strict=True):
        np.testing.assert_allclose(
            theirs.numpy(), ours.numpy(), rtol=1e-8, atol=1e-11
        )


def test_config_round_trip():
    variant = Variant(**SIMCLR, temperature=0.2)
    model = varied(variant, normalization="group")
    config = keras.saving.serialize_keras_object(model)
    again = keras.saving.deserialize_keras_object(config)
    assert type(again) is VariedBYOL
    assert again.variant == variant
    assert again.normalization == "group"
    assert [w.shape for w in again.weights] == [w.shape for w in model.weights]


def test_flags_make_the_variant():
    flags = dict(
        encoder_blocks=(1,),
        encoder_channels=(8,),
        stem_channels=8,
        projector_hidden=8,
        projection_size=4,
        image_size=8,
    )
    plain = build_byol(Config(**flags), 10, 5.0, 0)
    assert type(plain) is byol_tf.BYOL
    model = build_byol(
        Config(**flags, predictor_rate=2.0, normalization="none"), 10, 5.0, 0
    )
    assert model.variant == Variant(predictor_rate=2.0)
    assert model.normalization == model.encoder.normalization == "none"
