"""The training step: its arithmetic, who learns from what, and `fit`."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import tiny_encoder, tiny_model

import byol_tf
from byol_tf.model.normalization import BatchNorm


def views(count=8, size=16):
    random = np.random.RandomState(0)
    view1, view2 = random.rand(2, count, size, size, 3).astype(np.float32)
    return view1, view2, random.randint(0, 3, count).astype(np.int32)


def values(network) -> list[np.ndarray]:
    return [weight.numpy() for weight in network.weights]


def test_target_moves_by_equation_1(float64):
    model = tiny_model(total_steps=10)
    model.optimizer.iterations.assign(4)
    before = values(model.target)
    logs = model.update(*views())
    tau = 1 - (1 - 0.9) * (np.cos(np.pi * 4 / 10) + 1) / 2
    np.testing.assert_allclose(logs["tau"], tau, rtol=1e-12)
    compared = 0
    for old, online, target in zip(
        before, model.online.weights, model.target.weights, strict=True
    ):
        if online.trainable:
            compared += 1
            expected = tau * old + (1 - tau) * online.numpy()
            np.testing.assert_allclose(target, expected, rtol=1e-12)
    assert compared == len(model.online.trainable_variables)


def test_loss_is_symmetric_sum_of_both_predictions():
    model = tiny_model()
    view1, view2, labels = views()
    networks = model.forward(view1, view2)
    expected = 0
    for own, other in (("view1", "view2"), ("view2", "view1")):
        prediction = networks["online"][f"prediction_{own}"].numpy()
        projection = networks["target"][f"projection_{other}"].numpy()
        prediction /= np.linalg.norm(prediction, axis=1, keepdims=True)
        projection /= np.linalg.norm(projection, axis=1, keepdims=True)
        expected += np.mean(np.sum((prediction - projection) ** 2, axis=1))
    logs = model.update(view1, view2, labels)
    np.testing.assert_allclose(logs["repr_loss"], expected, rtol=1e-4)
    np.testing.assert_allclose(
        logs["loss"], logs["repr_loss"] + logs["classif_loss"], rtol=1e-6
    )


def test_forward_leaves_the_model_as_it_is():
    model = tiny_model()
    before = values(model)
    outputs = model.forward(*views()[:2])
    assert set(outputs) == {"online", "target"}
    assert set(outputs["online"]) == {
        f"{name}_{view}"
        for name in ("embedding", "projection", "prediction", "logits")
        for view in ("view1", "view2")
    }
    for old, new in zip(before, values(model), strict=True):
        np.testing.assert_array_equal(old, new)


class NormalisedFeatures(byol_tf.ResNet):
    """A subclass in which more than `BatchNorm` sees a batch."""

    def call(self, images, training=False):
        features = super().call(images, training=training)
        return features - tf.reduce_mean(features, 0)


@pytest.mark.parametrize("kind", ["ResNet", "subclass", "Keras"])
def test_views_in_one_pass_are_as_in_two(float64, kind):
    encoder = tiny_model().encoder
    if kind == "subclass":
        encoder = NormalisedFeatures.from_config(encoder.get_config())
    if (
        kind == "Keras"
    ):  # Its BatchNormalization would normalise both views together.
        encoder = keras.Sequential(
            [
                keras.layers.Input((16, 16, 3)),
                keras.layers.Conv2D(4, 3),
                keras.layers.BatchNormalization(),
                keras.layers.GlobalAveragePooling2D(),
            ]
        )
    network = byol_tf.BYOL(encoder, 32, 16, total_steps=10).online
    view1, view2, _ = views()
    start = network.get_weights()
    found = network.of_views(view1, view2)
    after = network.get_weights()
    network.set_weights(start)
    expected = [network(view, training=True) for view in (view1, view2)]
    for one, other in zip(found, expected, strict=True):
        assert set(one) == set(other)
        for name in one:
            np.testing.assert_allclose(one[name], other[name], rtol=1e-9)
    for one, other in zip(after, network.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9)


def test_classifier_does_not_shape_the_encoder():
    # Another initialisation of the classifier alone changes nothing else.
    models = [tiny_model(), tiny_model()]
    models[1].set_weights(models[0].get_weights())
    models[1].online.classifier.kernel.assign_add(
        np.random.randn(16, 3).astype(np.float32)
    )
    view1, view2, labels = views()
    for model in models:
        for _ in range(2):
            model.update(view1, view2, labels)
    a, b = (values(model.online.encoder) for model in models)
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)
    assert not np.allclose(*(m.online.classifier.kernel for m in models))


def test_target_starts_apart_and_gets_no_gradient():
    model = tiny_model(tau_base=1.0)
    assert not np.allclose(
        model.online.encoder.initial_conv.kernel,
        model.target.encoder.initial_conv.kernel,
    )
    assert model.target.trainable_variables == []
    assert model.trainable_variables == model.online.trainable_variables
    before = values(model.target)
    model.update(*views())
    for old, weight, online in zip(
        before, model.target.weights, model.online.weights, strict=True
    ):
        if online.trainable:  # With tau = 1 nothing else could move it.
            np.testing.assert_array_equal(old, weight)


def test_target_normalises_by_batches_and_keeps_its_own_statistics():
    model = tiny_model()
    model.update(*views())
    online = model.online.encoder.initial_norm
    target = model.target.encoder.initial_norm
    # Two views, two updates; of activations of another network.
    assert int(online.updates.value) == int(target.updates.value) == 2
    assert not np.allclose(online.moving_mean, target.moving_mean)
    view1, _, _ = views()
    assert not np.allclose(
        model.target(view1, training=True)["projection"],
        model.target(view1, training=False)["projection"],
    )


def test_gradients_are_those_of_finite_differences(float64):
    model = tiny_model(num_classes=None, tau_base=1.0)
    view1, view2, _ = views(4, 8)
    sgd = keras.optimizers.SGD(1.0)
    model.compile(sgd)
    kernel = model.online.predictor.linear_1.kernel
    start = [w.numpy() for w in model.weights]
    model.update(view1, view2)
    gradient = start_of(model, start, kernel) - kernel.numpy()

    def loss(change):
        model.set_weights(start)
        kernel.assign_add(change)
        return float(model.update(view1, view2)["loss"])

    step = np.zeros(kernel.shape)
    step[3, 2] = 1e-5
    measured = (loss(step) - loss(-step)) / 2e-5
    np.testing.assert_allclose(gradient[3, 2], measured, rtol=1e-5)


def start_of(model, start, kernel):
    return next(
        value
        for value, weight in zip(start, model.weights, strict=True)
        if weight is kernel
    )


@pytest.mark.parametrize("channels, labelled", [(1, True), (3, False)])
def test_fit_learns_from_images_with_and_without_labels(channels, labelled):
    images = np.random.randint(0, 256, (32, 20, 20, channels), np.uint8)
    labels = np.arange(32, dtype=np.int32) % 3
    data = (images, labels) if labelled else images
    dataset = tf.data.Dataset.from_tensor_slices(data).batch(8)
    model = tiny_model(total_steps=8, image_size=16)
    before = values(model.online)
    history = model.fit(dataset, epochs=2, verbose=0).history
    assert int(model.optimizer.iterations.numpy()) == 8
    assert 0 < history["repr_loss"][-1] < 8
    assert (history["classif_loss"][-1] > 0) == labelled
    assert not np.allclose(before[0], values(model.online)[0])


def test_fit_takes_arrays_and_two_crops():
    crops = np.random.rand(16, 2, 16, 16, 3).astype(np.float32)
    model = tiny_model(num_classes=None)
    model.fit(crops, batch_size=8, verbose=0)
    assert int(model.optimizer.iterations.numpy()) == 2


def test_predict_gives_the_encoders_features():
    model = tiny_model()
    images = np.random.rand(4, 16, 16, 3).astype(np.float32)
    np.testing.assert_allclose(
        model.predict(images, verbose=0),
        model.encoder(images),
        rtol=1e-5,
        atol=1e-6,
    )


@pytest.mark.slow
def test_same_seed_same_run():
    images = np.random.rand(16, 16, 16, 3).astype(np.float32)

    def trained():
        keras.utils.set_random_seed(7)
        model = tiny_model(seed=3)
        model.fit(images, batch_size=8, shuffle=False, verbose=0)
        return model.encoder.initial_conv.kernel.numpy()

    np.testing.assert_allclose(trained(), trained(), rtol=1e-6)


def test_views_are_a_function_of_seed_and_step():
    images = tf.constant(np.random.rand(4, 16, 16, 3), tf.float32)
    model, other = tiny_model(seed=3), tiny_model(seed=4)
    view1, view2 = model.two_views(images)
    np.testing.assert_array_equal(model.two_views(images)[0], view1)
    assert np.abs(view1 - view2).max() > 0.01
    assert np.abs(other.two_views(images)[0] - view1).max() > 0.01
    model.optimizer.iterations.assign(1)
    assert np.abs(model.two_views(images)[0] - view1).max() > 0.01


def test_works_with_any_keras_encoder():
    encoder = keras.Sequential(
        [
            keras.Input((None, None, 3)),
            keras.layers.Conv2D(8, 3),
            keras.layers.GlobalAveragePooling2D(),
        ]
    )
    model = byol_tf.BYOL(encoder, 16, 8, total_steps=4)
    model.compile(keras.optimizers.SGD(0.1))
    view1, view2, _ = views()
    assert np.isfinite(model.update(view1, view2)["loss"])


def test_encoders_of_one_image_size():
    inputs = keras.Input((16, 16, 3))
    outputs = keras.layers.Flatten()(keras.layers.Conv2D(2, 3)(inputs))
    model = byol_tf.BYOL(keras.Model(inputs, outputs), 16, 8, total_steps=4)
    model.compile(keras.optimizers.SGD(0.1))
    view1, view2, _ = views()
    assert np.isfinite(model.update(view1, view2)["loss"])


@pytest.mark.parametrize("dtype", ["uint8", "int64", "float32"])
def test_labels_of_any_number_type(dtype):
    view1, view2, labels = views()
    model = tiny_model()
    logs = model.update(view1, view2, labels.astype(dtype))
    assert logs["classif_loss"] > 0
    with pytest.raises(ValueError, match=r"labels of shape \[batch\]"):
        model.update(view1, view2, labels[:, None])


def test_micro_batches_have_the_mean_of_their_gradients(float64):
    one, two = tiny_model(), tiny_model(micro_batches=2)
    two.set_weights(one.get_weights())
    view1, view2, labels = views(8)
    target = values(two.target)
    halves = [
        one.loss_and_gradients(view1[part], view2[part], labels[part])
        for part in (slice(0, None, 2), slice(1, None, 2))
    ]
    expected = [(a + b) / 2 for a, b in zip(*(g for _, g in halves))]
    one.optimizer.apply(expected, one.online.trainable_variables)

    for compiled in (False, True):
        update = tf.function(two.update) if compiled else two.update
        start = [w.numpy() for w in (*two.weights, *two.optimizer.variables)]
        logs = update(view1, view2, labels)
        np.testing.assert_allclose(
            logs["loss"], np.mean([f["loss"] for f, _ in halves]), rtol=1e-12
        )
        for a, b in zip(
            two.online.trainable_variables, one.online.trainable_variables
        ):
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)
        # One step of everything, but BatchNorm sees four half views.
        assert int(two.optimizer.iterations.numpy()) == 1
        assert int(two.encoder.initial_norm.updates.value) == 4
        kernel = two.target.encoder.initial_conv.kernel
        np.testing.assert_allclose(
            kernel,
            logs["tau"] * target[0]
            + (1 - logs["tau"]) * two.encoder.initial_conv.kernel,
        )
        for w, value in zip((*two.weights, *two.optimizer.variables), start):
            w.assign(value)


@pytest.mark.slow
def test_micro_batches_of_two_replicas(float64, mirrored):
    single = tiny_model(total_steps=10, micro_batches=2)
    with mirrored.scope():
        double = tiny_model(total_steps=10, micro_batches=2)
    double.set_weights(single.get_weights())
    view1, view2, labels = batch = views(8)
    # Two labels in each part of one replica, none in the other's first.
    labels[[0, 2, 5]] = -1
    batches = tf.data.Dataset.from_tensor_slices(batch).batch(8)
    (shared,) = mirrored.experimental_distribute_dataset(batches)

    @tf.function
    def step():
        return mirrored.run(double.update, shared)

    start = values(double.target)
    for k in range(3):
        logs = {
            name: np.mean(mirrored.experimental_local_results(value))
            for name, value in step().items()
        }
        expected = single.update(view1, view2, labels)
        for name, value in expected.items():
            np.testing.assert_allclose(logs[name], value, 1e-10, err_msg=name)
        # One step of optimizer, target and schedules; four half views.
        tau = 1 - (1 - 0.9) * (np.cos(np.pi * k / 10) + 1) / 2
        rate = (np.cos(np.pi * k / 10) + 1) / 2  # Of a peak of 1.
        np.testing.assert_allclose(logs["tau"], tau, 1e-12)
        np.testing.assert_allclose(logs["learning_rate"], rate, 1e-6)
        assert int(double.optimizer.iterations.numpy()) == k + 1
        for network in (double.online, double.target):
            updates = network.encoder.initial_norm.updates
            assert int(updates.numpy()) == 4 * (k + 1)
        if k == 0:
            for old, target, online in zip(
                start, double.target.weights, double.online.weights
            ):
                if online.trainable:
                    np.testing.assert_allclose(
                        target, tau * old + (1 - tau) * online.numpy(), 1e-12
                    )
    for name, variables in (
        ("weights", [m.weights for m in (double, single)]),
        ("momentum", [m.optimizer.variables for m in (double, single)]),
    ):
        for weight, other in zip(*variables, strict=True):
            np.testing.assert_allclose(
                weight, other, 1e-10, 1e-13, err_msg=f"{name} {weight.path}"
            )


def test_float16_takes_the_step_of_float32():
    kernels = []
    for dtype in ("float32", "mixed_float16"):
        keras.utils.set_random_seed(0)
        encoder = byol_tf.ResNet(
            blocks=(1,), channels=(8,), stem_channels=8, dtype=dtype
        )
        model = byol_tf.BYOL(encoder, 16, 8, total_steps=4, dtype=dtype)
        optimizer = keras.optimizers.SGD(1.0)
        if dtype == "mixed_float16":  # Small, so that no step is void.
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer, 2**7)
        model.compile(optimizer)
        before = model.encoder.initial_conv.kernel.numpy()
        model.update(*views())
        kernels.append(model.encoder.initial_conv.kernel.numpy() - before)
    assert np.abs(kernels[0]).max() > 1e-3
    distance = np.linalg.norm(kernels[1] - kernels[0])
    assert distance < 0.05 * np.linalg.norm(kernels[0])


def test_an_overflow_on_one_replica_is_one_on_all(mirrored):
    with mirrored.scope():
        encoder = byol_tf.ResNet(
            blocks=(1,), channels=(8,), stem_channels=8, dtype="mixed_float16"
        )
        model = byol_tf.BYOL(
            encoder, 16, 8, 0.5, total_steps=9, dtype="mixed_float16"
        )
        model.compile(byol_tf.LARS(0.1))
        model.optimizer.build(model.trainable_variables)
    for layer in model._flatten_layers():
        if isinstance(layer, BatchNorm):
            layer.cross_replica = False  # It would spread what is not finite.
    view1, view2, _ = views(8)
    whole = tf.data.Dataset.from_tensors((view1, view2))
    view1[6] = 1e30  # In the second replica's half.
    spoiled = tf.data.Dataset.from_tensors((view1, view2))

    @tf.function
    def step(batch):
        return mirrored.run(model.update, batch)

    def after(dataset):
        dataset = dataset.unbatch().batch(8)
        (batch,) = mirrored.experimental_distribute_dataset(dataset)
        step(batch)
        scale = float(model.optimizer.dynamic_scale.numpy())
        learned = [
            variable.numpy()
            for online, target in zip(
                model.online.weights, model.target.weights
            )
            if online.trainable
            for variable in (online, target)
        ]
        return scale, int(model.optimizer.iterations.numpy()), learned

    first, second, third = after(whole), after(spoiled), after(whole)
    assert (second[0], third[0]) == (first[0] / 2, first[0] / 2)
    assert [first[1], second[1], third[1]] == [1, 2, 3]  # A batch is a step.
    for before, now in zip(first[2], second[2], strict=True):
        np.testing.assert_array_equal(now, before)
        assert np.isfinite(now).all()
    assert not np.allclose(third[2][0], second[2][0])


def test_views_of_two_replicas_are_those_of_one(mirrored):
    images = np.random.RandomState(0).rand(8, 20, 20, 3).astype(np.float32)
    with mirrored.scope():
        model = tiny_model()
    expected = model.two_views(tf.constant(images))
    dataset = tf.data.Dataset.from_tensor_slices(images).batch(8)
    (batch,) = mirrored.experimental_distribute_dataset(dataset)
    views = tf.function(lambda: mirrored.run(model.two_views, [batch]))()
    for view, whole in zip(views, expected, strict=True):
        parts = mirrored.experimental_local_results(view)
        assert [len(part) for part in parts] == [4, 4]
        np.testing.assert_allclose(tf.concat(parts, 0), whole, atol=1e-5)


@pytest.mark.slow
def test_fit_refuses_a_batch_that_replicas_share_unequally(mirrored):
    images = np.zeros((5, 16, 16, 3), np.float32)
    with mirrored.scope():
        model = tiny_model()
    model.two_views = lambda images: (images, images)
    batches = tf.data.Dataset.from_tensor_slices(images).batch(8)
    with pytest.raises(ValueError, match=r"drop_remainder=True"):
        model.fit(batches, verbose=0)
    assert int(model.optimizer.iterations.numpy()) == 0


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
@pytest.mark.parametrize(
    "argument, way_out",
    [
        (dict(gradient_accumulation_steps=3), r"BYOL\(micro_batches=3\)"),
        (dict(use_ema=True), "the target network is a moving average"),
    ],
)
def test_optimizers_that_do_not_step_with_the_target(policy, argument, way_out):
    encoder = byol_tf.ResNet(blocks=(1,), channels=(8,), stem_channels=8)
    model = byol_tf.BYOL(encoder, 16, 8, total_steps=4, dtype=policy)
    model.compile(byol_tf.LARS(0.1, **argument))  # Wrapped, for float16.
    with pytest.raises(ValueError, match=way_out) as caught:
        model.fit(np.zeros((8, 16, 16, 3)), batch_size=8, verbose=0)
    (name,) = argument
    assert str(caught.value).startswith(f"BYOL: {name}=")


def test_unbuilt_encoder_and_impossible_tau_are_refused():
    unbuilt = keras.Sequential([keras.layers.GlobalAveragePooling2D()])
    with pytest.raises(ValueError, match="built encoder"):
        byol_tf.BYOL(unbuilt, total_steps=1)
    with pytest.raises(ValueError, match=r"tau_base=1\.5"):
        byol_tf.BYOL(tiny_encoder(), tau_base=1.5, total_steps=1)


def test_whole_model_saves_and_goes_on(tmp_path):
    model = tiny_model()
    view1, view2, labels = views()
    model.update(view1, view2, labels)
    model.save(tmp_path / "byol.keras")
    copy = keras.saving.load_model(tmp_path / "byol.keras")
    assert copy.get_config() == model.get_config()
    assert int(copy.optimizer.iterations.numpy()) == 1
    logs = [m.update(view1, view2, labels) for m in (model, copy)]
    for name, value in logs[0].items():
        np.testing.assert_allclose(logs[1][name], value, rtol=1e-5)


def test_two_replicas_equal_one(float64, mirrored):
    view1, view2, labels = views(8)
    single = tiny_model()
    with mirrored.scope():
        double = tiny_model()
    double.set_weights(single.get_weights())

    batches = tf.data.Dataset.from_tensor_slices((view1, view2, labels))
    distributed = mirrored.experimental_distribute_dataset(batches.batch(8))

    @tf.function
    def step(batch):
        return mirrored.run(double.update, batch)

    for _ in range(3):
        for batch in distributed:
            step(batch)
        single.update(view1, view2, labels)
    for weight, other in zip(double.weights, single.weights, strict=True):
        np.testing.assert_allclose(
            weight, other, rtol=1e-9, atol=1e-12, err_msg=weight.path
        )


@pytest.mark.parametrize(
    "policy, variables, compute",
    [
        ("float64", "float64", "float64"),
        ("mixed_bfloat16", "float32", "bfloat16"),
        ("mixed_float16", "float32", "float16"),
        ("bfloat16", "bfloat16", "bfloat16"),
    ],
)
def test_dtype_argument_reaches_every_layer(policy, variables, compute):
    encoder = byol_tf.ResNet(
        blocks=(1, 1), channels=(8, 16), bottleneck=True, dtype=policy
    )
    model = byol_tf.BYOL(
        encoder, 16, 8, total_steps=10, num_classes=3, dtype=policy
    )
    again = byol_tf.BYOL.from_config(model.get_config())
    for network in (model.online, model.target, again.online, again.target):
        layers = list(network._flatten_layers())
        assert {layer.compute_dtype for layer in layers} == {compute}
        assert {layer.variable_dtype for layer in layers} == {variables}
    optimizer = byol_tf.LARS(0.1)
    if policy == "mixed_float16":  # Small, so that no step is void.
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, 2**7)
    model.compile(optimizer)
    view1, view2 = np.random.RandomState(0).rand(2, 8, 20, 20, 3)
    before = model.target.projector.linear.kernel.numpy()
    logs = model.update(view1, view2, np.arange(8) % 3)
    assert 0 < float(logs["loss"]) < 20
    assert np.any(model.target.projector.linear.kernel.numpy() != before)
