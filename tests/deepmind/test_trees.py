"""Our variables under the official names, and what does not fit."""

import re

import keras
import numpy as np
import pytest
from conftest import tiny_model

import byol_tf
from byol_tf.deepmind import from_haiku, to_haiku
from byol_tf.deepmind.trees import TREES


def entries(trees):
    """((tree, module, name), array), of all arrays."""
    for tree, modules in trees.items():
        for module, arrays in modules.items():
            for name, array in arrays.items():
                yield (tree, module, name), array


def randomised(model) -> dict:
    """Trees of a model with every value a random one that can be."""
    random = np.random.RandomState(0)
    trees = to_haiku(model)
    for (_, _, name), array in entries(trees):
        array[...] = 7 if name == "counter" else random.rand(*array.shape)
    for _, module, name in dict(entries(trees)):
        if name == "hidden":
            for state in ("online_state", "target_state"):
                arrays = trees[state][module]
                arrays["hidden"] = arrays["average"] * (1 - 0.9**7)
    return trees


def test_round_trip():
    model = tiny_model()
    trees = randomised(model)
    from_haiku(model, trees)
    back = to_haiku(model)
    assert tuple(back) == TREES
    expected, found = dict(entries(trees)), dict(entries(back))
    assert found.keys() == expected.keys()
    for key, array in expected.items():
        assert found[key].dtype == array.dtype
        np.testing.assert_allclose(found[key], array, rtol=1e-6)
    other = tiny_model()
    from_haiku(other, back)
    for ours, theirs in zip(
        [*model.variables, *model.optimizer.momentums],
        [*other.variables, *other.optimizer.momentums],
        strict=True,
    ):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


@pytest.mark.parametrize(
    "arguments, prefix",
    [
        ({"depth": 50}, "res_net50"),
        ({"blocks": (1, 1, 1, 1), "channels": (8, 8, 8, 8)}, "tiny_res_net"),
        (
            {"blocks": (2, 2, 2, 2), "channels": (64, 128, 256, 512)},
            "res_net18",
        ),
        (
            {
                "blocks": (1, 1, 1, 1),
                "channels": (8, 8, 8, 8),
                "width": 2,
            },
            "tiny_res_net",
        ),
    ],
)
def test_names(arguments, prefix):
    model = byol_tf.BYOL(
        byol_tf.ResNet(**arguments), 16, 8, total_steps=1, num_classes=3
    )
    trees = to_haiku(model)
    assert set(trees) == set(TREES) - {"mu"}  # It is not compiled.
    modules = trees["online_params"]
    assert modules.keys() == trees["target_params"].keys()
    path = f"{prefix}/~/block_group_3/~/block_0/~"
    stem = 64 * arguments.get("width", 1)
    assert modules[f"{prefix}/~/initial_conv"]["w"].shape == (7, 7, 3, stem)
    assert set(modules[f"{path}/shortcut_conv"]) == {"w"}
    assert set(modules[f"{path}/batchnorm_1"]) == {"scale", "offset"}
    assert modules[f"{path}/batchnorm_1"]["scale"].ndim == 4
    assert (f"{path}/conv_2" in modules) == (arguments.get("depth") == 50)
    assert set(modules["projector/linear"]) == {"w", "b"}
    assert set(modules["projector/linear_1"]) == {"w"}
    assert modules["predictor/batch_norm"]["scale"].shape == (1, 16)
    assert set(modules["classifier"]) == {"w", "b"}
    state = trees["target_state"]
    assert set(state[f"{path}/batchnorm_1/~/var_ema"]) == {
        "counter",
        "hidden",
        "average",
    }
    norms = [module for module in modules if "norm" in module]
    assert len(state) == 2 * len(norms)


def test_parts_alone_leave_the_rest():
    model = tiny_model()
    before = to_haiku(model)
    trees = randomised(tiny_model())
    from_haiku(model, {"target_params": trees["target_params"]})
    after = dict(entries(to_haiku(model)))
    expected = before | {"target_params": trees["target_params"]}
    for key, array in entries(expected):
        np.testing.assert_array_equal(after[key], array)


def test_the_other_name_of_the_first_convolution():
    model, trees = tiny_model(), randomised(tiny_model())
    plain = "tiny_res_net/~/initial_conv"
    for tree in ("online_params", "target_params", "mu"):
        trees[tree][f"{plain}_1"] = trees[tree].pop(plain)
    from_haiku(model, trees)
    np.testing.assert_array_equal(
        model.encoder.initial_conv.kernel,
        trees["online_params"][f"{plain}_1"]["w"],
    )


def test_all_misfits_are_listed_and_nothing_is_changed():
    model, trees = tiny_model(), randomised(tiny_model())
    before = to_haiku(model)
    params = trees["online_params"]
    del params["classifier"]["b"], params["predictor/linear"]
    params["projector/linear_1"]["w"] = np.zeros((16, 9))
    params["surplus"] = {"w": np.zeros(1)}
    params["projector/linear"]["b"] = np.array(["text"] * 16)
    average = trees["target_state"]["projector/batch_norm/~/mean_ema"]
    average["average"] = average["average"][0]
    norm = "tiny_res_net/~/initial_batchnorm"
    trees["mu"][norm]["scale"] = trees["mu"][norm]["scale"].reshape(-1)
    with pytest.raises(ValueError) as raised:
        from_haiku(model, trees)
    assert str(raised.value).splitlines()[1:] == [
        "online_params: projector/linear::b holds <U4, no numbers",
        "online_params: projector/linear_1::w has the shape (16, 9), not "
        "(16, 8)",
        "online_params: missing predictor/linear::w",
        "online_params: missing predictor/linear::b",
        "online_params: missing classifier::b",
        "online_params: unknown surplus::w",
        "target_state: projector/batch_norm/~/mean_ema::average has the shape "
        "(16,), not (1, 16)",
        f"mu: {norm}::scale has the shape (8,), not (1, 1, 1, 8)",
    ]
    after = dict(entries(to_haiku(model)))
    for key, array in entries(before):
        np.testing.assert_array_equal(after[key], array)


@pytest.mark.parametrize(
    "there, here, texts",
    [
        (
            {"depth": 18},
            {"blocks": (1, 1), "channels": (8, 16)},
            ["channels=(8, 16), width=1)", "ResNet(depth=18, width=1)"],
        ),
        (
            {"blocks": (1, 1), "channels": (8, 16), "width": 2},
            {"blocks": (1, 1), "channels": (8, 16)},
            ["channels=(8, 16), width=1)", "channels=(8, 16), width=2)"],
        ),
        (
            {"blocks": (1, 2), "channels": (8, 16), "bottleneck": True},
            {"blocks": (1, 1), "channels": (8, 16)},
            [
                "ResNet(blocks=(1, 1), channels=(8, 16), width=1)",
                "blocks=(1, 2), channels=(8, 16), bottleneck=True, width=1)",
            ],
        ),
    ],
)
def test_another_network_is_named(there, here, texts):
    def model(arguments):
        encoder = byol_tf.ResNet(**arguments)
        return byol_tf.BYOL(encoder, 16, 8, total_steps=1)

    trees = to_haiku(model(there))
    with pytest.raises(ValueError) as raised:
        from_haiku(model(here), trees)
    first = str(raised.value).splitlines()[0]
    assert all(text in first for text in texts), first


def test_averages_that_cannot_be():
    model, trees = tiny_model(), randomised(tiny_model())
    projector, predictor = "projector/batch_norm/~", "predictor/batch_norm/~"
    online, target = trees["online_state"], trees["target_state"]
    online[f"{projector}/var_ema"]["counter"] = np.array(9)
    for average in ("mean_ema", "var_ema"):
        online[f"{predictor}/{average}"]["counter"] = np.array(-10_000)
    target[f"{projector}/mean_ema"]["hidden"] *= 1.001
    for name in ("average", "hidden"):
        target[f"{predictor}/var_ema"][name] *= -1
    with pytest.raises(ValueError) as raised:
        from_haiku(model, trees)
    assert sorted(str(raised.value).splitlines()[1:]) == [
        f"online_state: {predictor}/mean_ema::counter is not that of "
        f"{predictor}/mean_ema, from 0",
        f"online_state: {predictor}/var_ema::counter is not that of "
        f"{predictor}/mean_ema, from 0",
        f"online_state: {projector}/var_ema::counter is not that of "
        f"{projector}/mean_ema, from 0",
        f"target_state: {predictor}/var_ema::average is a negative variance",
        f"target_state: {projector}/mean_ema::hidden is not average * (1 - 0.9 "
        "** counter)",
    ]


def test_what_has_no_official_names():
    model = tiny_model()
    trees = to_haiku(model)
    with pytest.raises(ValueError, match="grads is none of the trees online"):
        from_haiku(model, {"grads": trees["mu"]})
    plain = byol_tf.BYOL(model.encoder, 16, 8, total_steps=1, num_classes=3)
    with pytest.raises(ValueError, match="compiled with LARS"):
        from_haiku(plain, {"mu": trees["mu"]})
    for tree in (5, {"classifier": 5}, {5: {"w": 1}}):
        with pytest.raises(ValueError, match="A tree is {module path"):
            from_haiku(model, {"online_params": tree})
    dense = keras.Sequential(
        [keras.Input((4, 4, 3)), keras.layers.Flatten(), keras.layers.Dense(2)]
    )
    with pytest.raises(ValueError, match=r"Only a ResNet.*Sequential"):
        to_haiku(byol_tf.BYOL(dense, 16, 8, total_steps=1))
    grouped = byol_tf.BYOL(
        model.encoder, 16, 8, total_steps=1, normalization="group"
    )
    with pytest.raises(ValueError, match=r"predictor and BatchNorm.*variant"):
        to_haiku(grouped)


def test_under_two_replicas(mirrored):
    trees = randomised(tiny_model())
    with mirrored.scope():
        model = tiny_model()
    from_haiku(model, trees)
    expected = dict(entries(trees))
    for key, array in entries(to_haiku(model)):
        np.testing.assert_allclose(array, expected[key], rtol=1e-6)


def test_a_loss_scale_hides_no_momentum():
    model = tiny_model()
    trees = randomised(model)
    model.compile(keras.optimizers.LossScaleOptimizer(byol_tf.LARS()))
    from_haiku(model, trees)
    momentums = model.optimizer.inner_optimizer.momentums
    assert all(np.abs(np.asarray(m)).max() > 0 for m in momentums)
    found = dict(entries(to_haiku(model)))
    for key, array in entries({"mu": trees["mu"]}):
        np.testing.assert_array_equal(found[key], array)


def test_misfits_come_one_a_line():
    model = byol_tf.BYOL(byol_tf.ResNet(18), 16, 8, total_steps=1)
    with pytest.raises(ValueError) as raised:
        from_haiku(model, {"online_params": {}})
    missing = re.findall("online_params: missing .*::", str(raised.value))
    assert len(missing) == len(model.online.trainable_variables)
