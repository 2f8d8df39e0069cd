"""The collapse doctor: every fault is provoked, and none but it is named."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

import byol_tf
from byol_tf.data.bundled import open_bundled
from byol_tf.model.variants import Variant, VariedBYOL
from byol_tf.training import doctor
from byol_tf.training.observation import Observation

CROPS = byol_tf.augment.Recipe(jitter=0.0, grayscale=0.0, blur=0.0)
PLAIN = byol_tf.augment.Recipe(
    crop_area=(1.0, 1.0),
    crop_aspect=(1.0, 1.0),
    flip=0.0,
    jitter=0.0,
    grayscale=0.0,
    blur=0.0,
)


@pytest.fixture(scope="module")
def images():
    """uint8 [64, 28, 28, 1]."""
    return open_bundled().train.images[:64]


class Identity(keras.layers.Layer):
    def call(self, inputs, training=False):
        return inputs


@keras.saving.register_keras_serializable(package="test_doctor")
class Rounding(keras.layers.Layer):
    def call(self, inputs):
        return tf.round(inputs)


def keras_encoder(*last_layers) -> keras.Model:
    """A user's small encoder, with the BatchNormalization of Keras."""
    return keras.Sequential(
        [
            keras.Input((None, None, 3)),
            keras.layers.Conv2D(8, 3, strides=2),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.Conv2D(16, 3, strides=2),
            keras.layers.GlobalAveragePooling2D(),
            *last_layers,
        ]
    )


def small_model(encoder=None, optimizer=None, **arguments) -> byol_tf.BYOL:
    model = byol_tf.BYOL(
        encoder or keras_encoder(),
        16,
        8,
        **{"tau_base": 0.9, "total_steps": 4, "recipes": (CROPS, CROPS)}
        | arguments,
    )
    model.compile(optimizer or byol_tf.LARS(1.0, weight_decay=1e-3))
    return model


def without_predictor(**arguments):
    model = small_model(**arguments)
    model.online.predictor, model.target.predictor = Identity(), Identity()
    return model


def frozen_encoder():
    model = small_model()
    model.encoder.trainable = False
    return model


def frozen_online_network():
    model = small_model()
    model.online.trainable = False
    return model


def idle_online_batch_norm():
    model = small_model()
    model.encoder.layers[1].trainable = False
    return model


def idle_target_batch_norm():
    model = small_model()
    model.target.trainable = False
    return model


def without_moving_average():
    class Unmoved(byol_tf.BYOL):
        def update(self, *arguments):
            kept = [weight.numpy() for weight in self.target.weights]
            logs = super().update(*arguments)
            for weight, value in zip(self.target.weights, kept):
                weight.assign(value)
            return logs

    model = small_model()
    model.__class__ = Unmoved
    return model


def varied(normalization="batch", **variant):
    """Makes a model that is without a part on purpose."""

    def make():
        model = VariedBYOL(
            byol_tf.ResNet(
                blocks=(1,),
                channels=(8,),
                stem_channels=8,
                normalization=normalization,
            ),
            16,
            8,
            0.9,
            total_steps=4,
            recipes=(CROPS, CROPS),
            normalization=normalization,
            variant=Variant(**variant),
        )
        model.compile(byol_tf.LARS(1.0, weight_decay=1e-3))
        return model

    return make


def under(optimizer, rate, **arguments):
    """Makes a model with this optimizer."""
    return lambda: small_model(optimizer=optimizer(rate, **arguments))


FAULTS = [
    (small_model, None),
    (under(keras.optimizers.Adam, 1e-3), None),
    (under(keras.optimizers.SGD, 0.05, momentum=0.9), None),
    (without_predictor, "predictor missing"),
    (frozen_encoder, "encoder frozen"),
    (frozen_online_network, "encoder frozen"),
    (lambda: small_model(keras_encoder(Rounding())), "no gradient"),
    (idle_online_batch_norm, "BatchNorm in inference mode (online)"),
    (idle_target_batch_norm, "BatchNorm in inference mode (target)"),
    (lambda: small_model(recipes=(PLAIN, PLAIN)), "equal views"),
    (lambda: small_model(tau_base=1.0), "target not moving"),
    (without_moving_average, "target not moving"),
    (lambda: small_model(tau_base=0.0), "target copied"),
    (under(keras.optimizers.Adam, 0.2), "LARS learning rate under Adam"),
    (
        under(keras.optimizers.SGD, 2.0, momentum=0.9),
        "LARS learning rate under SGD",
    ),
    (under(byol_tf.LARS, 60.0), "learning rate too high"),
    (varied(predictor="none"), "predictor missing"),
    (varied(predictor="none", negatives_weight=1.0), None),
    (
        varied(predictor="none", target="online", negatives_weight=1.0),
        None,
    ),
    (varied(target="online"), "target missing"),
    (varied(predictor="optimal_linear"), None),
    (varied(predictor_rate=0.0), "predictor fixed"),
    (varied(normalization="none"), "normalization missing"),
    (varied(normalization="group"), None),
]


def fit(model, images, **arguments) -> byol_tf.CollapseDoctor:
    """Four eager steps, looked at after every other."""
    look = byol_tf.CollapseDoctor(images, **{"every": 2} | arguments)
    model.run_eagerly = True
    model.fit(images, batch_size=16, callbacks=[look], shuffle=False, verbose=0)
    return look


@pytest.fixture
def diagnoses(monkeypatch):
    """Of every examination."""
    made, diagnose = [], doctor.diagnose

    def kept(observation):
        made.append(diagnose(observation))
        return made[-1]

    monkeypatch.setattr(doctor, "diagnose", kept)
    return made


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
@pytest.mark.parametrize("make, fault", FAULTS)
def test_each_fault_is_named_and_no_other(
    images, capsys, diagnoses, make, fault
):
    fit(make(), images, on_collapse="warn")
    causes = {c.name: c for d in diagnoses for c in d.causes}
    assert list(causes) == ([fault] if fault else [])
    assert len(diagnoses) == 2
    said = [
        line
        for line in capsys.readouterr().err.splitlines()
        if line.startswith("byol_tf: ")
    ]
    if not fault:
        assert not said
        assert not any(d.symptom for d in diagnoses)
    else:
        cause = diagnoses[0].causes[0]
        assert said == [
            f"byol_tf: warning: step 2: {cause.text} {cause.remedy}"
        ]


def test_looking_more_often_changes_no_bit(images):
    def trained(every):
        keras.utils.set_random_seed(0)
        model = small_model(optimizer=byol_tf.LARS(1.0), num_classes=2)
        fit(model, images, every=every, on_collapse="ignore")
        drawn = keras.random.uniform([4]), tf.random.uniform([4])
        return [*model.weights, *model.optimizer.variables, *drawn]

    for often, never in zip(trained(1), trained(100), strict=True):
        np.testing.assert_array_equal(often, never)


def test_images_that_are_not_finite(images, capsys):
    spoiled = (images / 255).astype(np.float32)
    spoiled[3, 0, 0] = np.nan
    with pytest.raises(byol_tf.Collapse) as error:
        fit(small_model(), spoiled)
    text = str(error.value)
    assert text.startswith("training stopped at step 1: the loss is nan.")
    assert "images contain NaN" in text
    assert "too high" not in text
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    "optimizer", [byol_tf.LARS(1e30), keras.optimizers.SGD(1e30)]
)
def test_a_rate_that_overflows(images, optimizer):
    with pytest.raises(byol_tf.Collapse) as error:
        fit(small_model(optimizer=optimizer), images, every=1)
    text = str(error.value)
    assert "1e+30" in text
    assert "images contain" not in text


def test_float16_without_a_loss_scale(images):
    encoder = byol_tf.ResNet(
        blocks=(1,), channels=(8,), stem_channels=8, dtype="mixed_float16"
    )
    model = byol_tf.BYOL(
        encoder, 16, 8, 0.9, total_steps=4, dtype="mixed_float16"
    )
    model.compile(byol_tf.LARS(0.1), auto_scale_loss=False)
    model.encoder.initial_conv.kernel.assign_add(
        tf.fill(model.encoder.initial_conv.kernel.shape, 3e4)
    )
    with pytest.raises(byol_tf.Collapse, match="65,504"):
        fit(model, images)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Gradients do not exist")
def test_a_collapse_is_seen_twice_and_explained(images):
    recipes = (byol_tf.augment.T, byol_tf.augment.T_PRIME)
    model = without_predictor(total_steps=64, recipes=recipes)
    model.fit(images, batch_size=16, epochs=15, shuffle=False, verbose=0)
    with pytest.raises(byol_tf.Collapse) as error:
        fit(model, images)
    text = str(error.value)
    assert text.startswith(
        "training stopped at step 64: the projections have collapsed"
    )
    assert "predictor is missing" in text


def seen_of(**changes) -> Observation:
    """A healthy observation, but for the changes."""
    healthy = Observation(
        step=100,
        steps_since=10,
        progress_before=0.5,
        loss=1.0,
        tau=0.99,
        learning_rate=0.2,
        optimizer="LARS",
        projection_size=64,
        projections={
            "projection_std": 0.11,
            "effective_rank": 14.0,
            "eigenvalue_spread": 1e4,
            "mean_cosine": 0.2,
        },
        gradient_norm=1.0,
        encoder_gradient_norm=0.8,
        trust_ratios=(1e-3, 1e-2, 0.1),
        relative_update=2e-3,
        target_moved=0.01,
        target_lag=0.1,
        trainable_kernels=9,
        encoder_kernels=9,
        predictor_is_identity=False,
        predictor_is_fixed=False,
        target_is_online=False,
        negatives_weight=0.0,
        unnormalized=False,
        views_are_equal=False,
        idle_batch_norms={"online": 0, "target": 0},
        batch_norms={"online": 11, "target": 10},
        images_are_finite=True,
        parameters_are_finite=True,
        unscaled_float16=False,
    )
    return dataclasses.replace(healthy, **changes)


def test_a_healthy_observation():
    assert doctor.diagnose(seen_of()).found == []


def test_few_of_many_directions_are_a_collapse():
    def found(rank, size):
        figures = seen_of().projections | {"effective_rank": rank}
        if size == 8:
            figures["projection_std"] = 0.3
        return doctor.diagnose(
            seen_of(projections=figures, projection_size=size)
        ).found

    # 4 % of the directions, and of few directions more than one.
    assert found(2.1, 64) == found(2.5, 64) == ["collapsed projections"]
    assert found(2.6, 64) == found(1.3, 8) == []
    assert found(1.1, 8) == ["collapsed projections"]


def test_at_the_end_the_target_may_stand_still():
    still = {"tau": 1.0, "target_moved": 0.0}
    assert doctor.diagnose(seen_of(**still)).found == ["target not moving"]
    assert not doctor.diagnose(seen_of(**still, progress_before=0.95)).found


def test_a_collapse_without_a_known_cause_has_suspects():
    flat = seen_of().projections | {"projection_std": 0.01}
    diagnosis = doctor.diagnose(seen_of(projections=flat))
    assert diagnosis.found == ["collapsed projections"]
    assert not diagnosis.causes
    for figure in ("0.2 under LARS", "0.001 to 0.1", "weight decay"):
        assert figure in diagnosis.suspects


def test_what_a_whole_run_had():
    rows = [
        {"projection_std": 0.01, "found": ["collapsed projections"]},
        {"loss": 1.0},
        {"projection_std": 0.1, "found": ["equal views"]},
        {"projection_std": 0.1, "found": ["equal views"]},
    ]
    assert doctor.found(rows) == ["equal views"]
    assert doctor.found(rows[:1]) == ["collapsed projections"]
    assert doctor.found(rows[1:2]) == []


def test_an_unknown_policy():
    with pytest.raises(ValueError, match="'panic' is none of stop, warn"):
        doctor.Doctor(small_model(), np.zeros((2, 12, 12, 3)), "panic")
