"""What the flags make of the model."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from byol_tf.config import Config
from byol_tf.model import losses
from byol_tf.model.build import build_byol
from byol_tf.model.normalization import BatchNorm
from byol_tf.optim.lars import LARS


def build(**settings):
    config = Config(
        encoder_blocks=(1,),
        encoder_channels=(8,),
        stem_channels=8,
        projector_hidden=16,
        projection_size=8,
        batch_size=8,
        image_size=16,
        **settings,
    )
    return build_byol(config, 10, 5.0, 0)


def norms(model) -> list[BatchNorm]:
    return [x for x in model._flatten_layers() if isinstance(x, BatchNorm)]


def test_by_default_as_published():
    model = build()
    assert len(norms(model)) == 12 and all(
        n.cross_replica for n in norms(model)
    )
    assert (model.micro_batches, model.steps_per_execution) == (1, 1)
    assert model.compute_dtype == "float32" and not model.encoder.recompute
    assert not model.jit_compile  # Of "auto", on a CPU.


def test_devices_and_precision():
    model = build(
        cross_replica_batch_norm=False,
        micro_batches=2,
        precision="mixed_float16",
        steps_per_execution=3,
        recompute=True,
    )
    assert not any(norm.cross_replica for norm in norms(model))
    assert (model.micro_batches, model.steps_per_execution) == (2, 3)
    assert model.encoder.recompute and model.target.encoder.recompute
    assert model.encoder.compute_dtype == "float16"
    assert model.encoder.initial_conv.kernel.dtype == "float32"
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)


@pytest.mark.parametrize(
    "precision", ["mixed_bfloat16", "mixed_float16", "float64"]
)
def test_a_seed_gives_the_same_network_in_every_precision(precision):
    expected, model = build(seed=3), build(seed=3, precision=precision)
    for weight, other in zip(model.weights, expected.weights, strict=True):
        np.testing.assert_array_equal(weight, other, err_msg=weight.path)
    kernel = model.encoder.initial_conv.kernel.numpy()
    assert np.any(kernel != build(seed=4).encoder.initial_conv.kernel)


@pytest.mark.parametrize(
    "precision, expected",
    [
        ("float32", "float32"),
        ("mixed_bfloat16", "float32"),
        ("mixed_float16", "float32"),
        ("float64", "float64"),
    ],
)
def test_what_no_precision_rounds(precision, expected, monkeypatch):
    seen = {}

    def watch(owner, name):
        original = getattr(owner, name)

        def watched(*arguments):
            result = original(*arguments)
            for value in (*arguments, result):
                if isinstance(value, tf.Tensor | keras.Variable):
                    dtype = keras.backend.standardize_dtype(value.dtype)
                    seen.setdefault(name, set()).add(dtype)
            return result

        monkeypatch.setattr(owner, name, watched)

    watch(losses, "l2_normalize")  # Of predictions and projections.
    watch(losses, "regression_loss")
    watch(LARS, "trust_ratio")
    watch(BatchNorm, "_update_moving_averages")
    model = build(precision=precision)
    if precision == "mixed_float16":  # Small, so that the step is not void.
        model.optimizer.dynamic_scale.assign(2**7)
    view1, view2 = np.random.RandomState(0).rand(2, 8, 16, 16, 3)
    figures = model.update(view1, view2)
    for name in ("loss", "repr_loss", "tau"):
        seen[name] = {figures[name].dtype.name}
    states = model.optimizer.variables
    if precision == "mixed_float16":
        states = model.optimizer.inner_optimizer.variables
    for name, variables in (
        ("online", model.online.weights),
        ("target", model.target.weights),
        ("optimizer", states),
    ):
        seen[name] = {v.dtype for v in variables} - {"int32", "int64"}
    assert len(seen) == 10
    rate = {"float32"} if precision == "float64" else set()  # As released.
    seen["optimizer"] -= rate
    assert seen == {name: {expected} for name in seen}


@pytest.mark.slow
def test_xla_trains_to_the_same_numbers():
    crops = np.random.RandomState(0).rand(16, 2, 16, 16, 3).astype(np.float32)
    weights = []
    for jit in ("off", "on"):
        model = build(precision="float64", jit_compile=jit)
        assert model.jit_compile == (jit == "on")
        model.fit(crops, batch_size=8, shuffle=False, verbose=0)
        weights.append([weight.numpy() for weight in model.weights])
    for plain, compiled in zip(*weights, strict=True):
        # The views are float32, and compiled once more within the step.
        np.testing.assert_allclose(compiled, plain, rtol=1e-4, atol=1e-5)
