"""Faster R-CNN: its parts beside NumPy, its losses, and what it serves."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import byol_tf
from byol_tf.dense import faster_rcnn
from byol_tf.dense.anchors import NEGATIVE, NEITHER, POSITIVE, anchors_on
from byol_tf.dense.boxes import encode, iou
from byol_tf.dense.faster_rcnn import (
    Counts,
    FasterRCNN,
    _detections,
    resized_to,
)
from byol_tf.dense.proposals import (
    best_proposals,
    proposal_losses,
    sampled_mean,
)
from byol_tf.dense.serving import export_dense_model
from byol_tf.optim.nesterov import Nesterov

FEW = (32, 16, 100, 40, 100, 30)
LOSSES = {"objectness", "proposals", "classes", "boxes"}


def encoder(**options):
    return byol_tf.ResNet(
        **{"blocks": (1, 1, 1), "channels": (8, 12, 16)} | options,
        stem_channels=8,
    )


def network(classes=3, size=(48, 80), **options):
    return FasterRCNN.on(encoder(), classes, size=size, counts=FEW, **options)


def batch(count=4, seed=0):
    """Images of 48 x 64 and of less, with 3, 2, 1 and 0 objects."""
    random = np.random.default_rng(seed)
    images = random.integers(256, size=(count, 48, 64, 3), dtype=np.uint8)
    sizes = np.float32([[48, 64], [40, 50], [48, 30], [33, 64]][:count])
    corner = random.uniform(0, 20, size=(count, 3, 2))
    sides = random.uniform(6, 24, size=(count, 3, 2))
    boxes = np.concatenate([corner, corner + sides], axis=-1)
    boxes = np.minimum(boxes, np.tile(sizes, 2)[:, None]).astype(np.float32)
    labels = np.int32([[1, 3, 2], [2, -1, 0], [3, 0, 0], [0, 0, 0]][:count])
    boxes[labels == 0] = 0
    draws = np.int32([5, 6, 7, 8][:count])
    return tuple(map(tf.constant, (images, sizes, boxes, labels, draws)))


def losses_of(model, inputs):
    """Without an update of any statistic."""
    with keras.StatelessScope():
        return {k: float(v) for k, v in model.losses(*inputs).items()}


@pytest.mark.slow
def test_published_size():
    """The parts of R50-C4 with 20 classes, as detectron2 has them."""
    model = FasterRCNN.on(byol_tf.ResNet(depth=50), 20)
    assert (model.stride, model.size) == (16, (800, 1333))
    assert model.counts == Counts(256, 512, 12000, 2000, 6000, 1000)
    assert model.anchor_sizes == [32, 64, 128, 256, 512]
    own = model.count_params() - model.encoder.count_params()
    proposals = 9 * 1024**2 + 1024 + 15 * (1024 + 1) + 60 * (1024 + 1)
    norm = 4 * 2048 + 1
    assert own == proposals + norm + (21 + 80) * (2048 + 1)


@pytest.mark.parametrize(
    "options, stride, shape",
    [
        ({}, 8, (6, 8)),
        ({"stem": "cifar"}, 2, (24, 32)),
        ({"output_stride": 4}, 4, (12, 16)),
        ({"blocks": (1, 1), "channels": (8, 16)}, 4, (12, 16)),
    ],
)
def test_any_encoder_s_strides(options, stride, shape):
    model = FasterRCNN(encoder(**options), 3, size=(48, 80), counts=FEW)
    assert model.stride == stride
    features = model._features(tf.zeros([1, 48, 64, 3]), False)
    assert features.shape[1:3] == shape
    losses = losses_of(model, batch())
    assert set(losses) == LOSSES and np.isfinite(list(losses.values())).all()


def test_counts_and_anchors_go_with_the_size():
    model = FasterRCNN.on(encoder(), 3, size=(400, 667))
    assert model.counts == (128, 256, 6000, 1000, 3000, 500)
    assert model.anchor_sizes == [16, 32, 64, 128, 256]
    small = FasterRCNN.on(encoder(), 3, size=(64, 107)).counts
    assert small == (64, 64, 960, 160, 480, 80)


def test_one_group_is_too_few():
    with pytest.raises(ValueError, match="two groups or more"):
        FasterRCNN(encoder(blocks=(1,), channels=(8,)), 3)


def test_proposals_beside_loops():
    random = np.random.default_rng(0)
    anchors = np.float32(random.uniform(0, 40, size=(60, 4)))
    anchors[:, 2:] = anchors[:, :2] + random.uniform(4, 30, size=(60, 2))
    logits = random.normal(size=(2, 60)).astype(np.float32)
    codes = np.float32(0.2 * random.normal(size=(2, 60, 4)))
    counted = random.random((2, 60)) < 0.8
    sizes = np.float32([[50, 60], [30, 30]])
    found, there = best_proposals(
        *map(tf.constant, (logits, codes, anchors, counted, sizes)), 40, 12
    )
    assert found.shape == (2, 12, 4)
    for i in range(2):
        y, x = (anchors[:, :2] + anchors[:, 2:]).T / 2
        height, width = (anchors[:, 2:] - anchors[:, :2]).T
        dy, dx, dh, dw = codes[i].T
        y, x = y + dy * height, x + dx * width
        height, width = height * np.exp(dh), width * np.exp(dw)
        boxes = np.stack(
            [y - height / 2, x - width / 2, y + height / 2, x + width / 2], 1
        )
        boxes = np.clip(boxes, 0, np.tile(sizes[i], 2)).astype(np.float32)
        order = [j for j in np.argsort(-logits[i]) if counted[i, j]][:40]
        kept = []
        for j in order:
            if (boxes[j, 2:] <= boxes[j, :2]).any():
                continue
            if kept and iou(boxes[j : j + 1], boxes[kept]).numpy().max() > 0.7:
                continue
            kept.append(j)
        kept = kept[:12]
        assert there[i].numpy().sum() == len(kept)
        np.testing.assert_allclose(
            found[i, : len(kept)], boxes[kept], atol=1e-4
        )
        np.testing.assert_array_equal(found[i, len(kept) :], 0)


def test_proposal_losses_are_numpys():
    random = np.random.default_rng(0)
    logits = random.normal(size=(2, 5)).astype(np.float32)
    codes = random.normal(size=(2, 5, 4)).astype(np.float32)
    anchors = np.float32([[0, 0, 10, 10]] * 5)
    boxes = np.float32([[[2, 3, 9, 12]] * 5] * 2)
    kinds = np.array(
        [
            [POSITIVE, NEGATIVE, NEITHER, NEITHER, POSITIVE],
            [NEGATIVE, NEITHER, NEITHER, NEITHER, NEITHER],
        ]
    )
    losses = proposal_losses(
        *map(tf.constant, (logits, codes, anchors, boxes, kinds)), 8
    )
    chance = 1 / (1 + np.exp(-logits.astype(float)))
    negative_logs = -np.where(
        kinds == POSITIVE, np.log(chance), np.log(1 - chance)
    )
    expected = negative_logs[kinds != NEITHER].sum() / 8 / 2
    assert float(losses["objectness"]) == pytest.approx(expected, rel=1e-5)
    target = [(5.5 - 5) / 10, (7.5 - 5) / 10, np.log(0.7), np.log(0.9)]
    distance = np.abs(codes - target).sum(-1)[kinds == POSITIVE].sum()
    assert float(losses["proposals"]) == pytest.approx(distance / 16, rel=1e-5)


def test_sampled_mean_is_over_images():
    losses = tf.constant([[1.0, 2, 9], [4, 9, 9]])
    there = tf.constant([[True, True, False], [True, False, False]])
    assert float(sampled_mean(losses, there, 4)) == (3 / 4 + 4 / 4) / 2


def test_losses_at_the_beginning():
    """Nothing is known: ln 2 of each anchor, about ln 4 of each region."""
    losses = losses_of(network(), batch())
    assert losses["objectness"] == pytest.approx(np.log(2), rel=0.05)
    assert 0 < losses["classes"] < 2.5
    assert 0 < losses["boxes"] < 2


def test_an_image_without_boxes_is_background():
    images, sizes, boxes, _, draws = batch()
    for empty in (boxes * 0, boxes[:, :0]):
        nothing = tf.zeros(empty.shape[:2], tf.int32)
        inputs = images, sizes, empty, nothing, draws
        losses = losses_of(network(), inputs)
        assert losses["proposals"] == losses["boxes"] == 0
        assert losses["objectness"] > 0 and losses["classes"] > 0
        assert np.isfinite(list(losses.values())).all()


def test_only_ignored_boxes_teach_nothing_of_boxes():
    images, sizes, boxes, labels, draws = batch()
    ignored = tf.where(labels > 0, -1, 0)
    losses = losses_of(network(), (images, sizes, boxes, ignored, draws))
    assert losses["proposals"] == losses["boxes"] == 0


def test_what_is_around_an_image_makes_no_difference():
    images, sizes, boxes, labels, draws = batch()
    model = network()
    changed = images.numpy()
    changed[1, 40:], changed[1, :, 50:] = 7, 200
    changed[2, :, 30:] = 1
    again = tf.constant(changed)
    assert losses_of(model, (again, sizes, boxes, labels, draws)) == (
        losses_of(model, (images, sizes, boxes, labels, draws))
    )


def test_draws_decide_what_is_sampled():
    model, inputs = network(), batch()
    first = losses_of(model, inputs)
    assert losses_of(model, inputs) == first
    assert losses_of(model, (*inputs[:-1], inputs[-1] + 1)) != first


def numbers_learned(model, boxes) -> dict[str, tuple[int, int]]:
    """How many positive and negative anchors and regions of an image count.

    A network that is as sure as 40 of the same everywhere loses 40 where it is
    wrong, and nothing where it is right.
    """
    inputs = (
        tf.zeros([1, 48, 64, 3]),
        tf.constant([[48.0, 64]]),
        tf.constant(boxes[None]),
        tf.ones([1, len(boxes)], tf.int32),
        tf.constant([5]),
    )
    objectness, classes = model.proposal_network.logits, model.classifier
    for layer in (objectness, classes):
        layer.kernel.assign(tf.zeros_like(layer.kernel))
    found = []
    for sure in (-40.0, 40.0):
        objectness.bias.assign(tf.fill(objectness.bias.shape, sure))
        classes.bias.assign([0, sure])
        losses = losses_of(model, inputs)
        found.append(
            (
                losses["objectness"] * model.counts.anchors / 40,
                losses["classes"] * model.counts.regions / 40,
            )
        )
    anchors, regions = np.round(np.transpose(found), 3).tolist()
    return {"anchors": tuple(anchors), "regions": tuple(regions)}


def test_published_overlaps_of_anchors():
    """0.7 is positive, as is the best of each box; below 0.3 is negative."""
    counts = (4096, 16, 100, 40, 100, 30)
    model = FasterRCNN.on(encoder(), 1, size=(48, 80), counts=counts)
    anchors = anchors_on([6, 8], 8, model.anchor_sizes)
    random = np.random.default_rng(0)
    corner = random.uniform(0, 30, size=(30, 2))
    sides = random.uniform(3, 30, size=(30, 2))
    boxes = np.concatenate([corner, corner + sides], axis=1)
    # Of the largest anchors the next ones overlap these by 0.72 and 0.68.
    between = np.array([[20, 31], [36, 30.2]])
    half = model.anchor_sizes[-1] / 2
    squares = np.concatenate([between - half, between + half], axis=1)
    boxes = np.concatenate([boxes, squares]).astype(np.float32)
    overlaps = iou(anchors, boxes).numpy()
    most = overlaps.max(axis=1)
    best = ((overlaps == overlaps.max(axis=0)) & (overlaps > 0)).any(axis=1)
    for low, high in ((0.28, 0.3), (0.3, 0.32), (0.67, 0.7), (0.7, 0.73)):
        assert (~best & (low < most) & (most < high)).any()
    assert (best & (most < 0.7)).any()
    positive = best | (most >= 0.7)
    negative = ~positive & (most < 0.3)
    found = numbers_learned(model, boxes)
    assert found["anchors"] == (positive.sum(), negative.sum())


AWAY = np.float32([[30, 30, 46, 60]])


def given_proposals(monkeypatch, proposals):
    """What the network proposes of an image."""
    there = tf.ones([1, len(proposals)], tf.bool)
    monkeypatch.setattr(
        faster_rcnn,
        "best_proposals",
        lambda *_: (tf.constant(proposals[None]), there),
    )


def test_published_overlap_of_regions(monkeypatch):
    """0.5 is positive, and less negative; a true box is a region too."""
    box = np.float32([[0, 0, 20, 20]])
    shares = [0.1, 0.45, 0.48, 0.49, 0.51, 0.55]
    proposals = np.repeat(box, len(shares), axis=0)
    proposals[:, 3] *= np.float32(shares)
    given_proposals(monkeypatch, np.concatenate([proposals, *[AWAY] * 10]))
    counts = (64, 16, 100, 40, 100, 30)
    model = FasterRCNN.on(encoder(), 1, size=(48, 80), counts=counts)
    assert numbers_learned(model, box)["regions"] == (3, 13)
    # Of a box that nothing meets, itself alone.
    given_proposals(monkeypatch, np.repeat(AWAY, 20, axis=0))
    assert numbers_learned(model, box)["regions"] == (1, 15)


def test_published_shares_of_positive_ones(monkeypatch):
    """Half of the anchors, and a quarter of the regions, at most."""
    counts = (16, 16, 100, 40, 100, 30)
    model = FasterRCNN.on(encoder(), 1, size=(48, 80), counts=counts)
    anchors = anchors_on([6, 8], 8, model.anchor_sizes)
    boxes = anchors.numpy()[300:400:5]
    proposals = np.concatenate([boxes, np.repeat(AWAY, 20, axis=0)])
    given_proposals(monkeypatch, proposals)
    assert numbers_learned(model, boxes) == {
        "anchors": (8, 8),
        "regions": (4, 12),
    }


def test_gradients_reach_all_of_the_encoder():
    model = network()
    with tf.GradientTape() as tape:
        loss = tf.add_n(list(model.losses(*batch()).values()))
    gradients = tape.gradient(loss, model.trainable_variables)
    for variable, gradient in zip(model.trainable_variables, gradients):
        assert np.isfinite(gradient).all(), variable.path
        assert np.any(np.asarray(gradient) != 0), variable.path


def test_bfloat16():
    encoder16 = encoder(dtype="mixed_bfloat16")
    model = FasterRCNN.on(encoder16, 3, size=(48, 80), counts=FEW)
    losses = losses_of(model, batch())
    assert np.isfinite(list(losses.values())).all()
    found = model.predictions(batch()[0])
    assert found["boxes"].dtype == found["scores"].dtype == tf.float32


@pytest.mark.parametrize("height, width", [(1, 1), (1, 90), (300, 2)])
def test_images_of_a_few_pixels(height, width):
    found = network().predictions(tf.zeros([1, height, width, 3]))
    assert np.isfinite(found["boxes"]).all()
    assert np.isfinite(found["scores"]).all()


def trained(strategy, inputs, steps=2, **options):
    with strategy.scope():
        keras.utils.set_random_seed(1)
        model = network(total_steps=steps, **options)
        model.compile(Nesterov(0.01, weight_decay=1e-4))
    data = tf.data.Dataset.from_tensor_slices(inputs).repeat()
    data = data.batch(4, drop_remainder=True)
    model.fit(data, steps_per_epoch=steps, verbose=0)
    return model


def test_a_frozen_encoder_stays():
    strategy = tf.distribute.get_strategy()
    model = trained(strategy, batch(), frozen=True)
    keras.utils.set_random_seed(1)
    before = network(frozen=True)
    for old, new in zip(
        before.encoder.get_weights(), model.encoder.get_weights()
    ):
        np.testing.assert_array_equal(old, new)
    assert np.any(before.classifier.kernel != model.classifier.kernel)
    assert not model.jit_compile  # XLA cannot suppress.


@pytest.mark.slow
def test_two_replicas_are_one(mirrored):
    inputs = batch()
    one = trained(tf.distribute.get_strategy(), inputs).get_weights()
    two = trained(mirrored, inputs).get_weights()
    for a, b in zip(one, two):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-5)


class Perfect(FasterRCNN):
    """Told where the objects are: what is predicted follows by hand."""

    def _regions(self, features, boxes, training):
        truth = tf.constant([[4.0, 8, 24, 40], [20, 30, 44, 60]])
        overlaps = iou(boxes, truth)
        near = tf.cast(overlaps > 0.3, tf.float32)
        # Class 0 has the first one, class 2 the second.
        zero = tf.zeros_like(near[..., 0])
        logits = 9 * tf.stack(
            [zero + 0.4, near[..., 0], zero, near[..., 1]], -1
        )
        codes = [
            encode(target, boxes, (10.0, 10.0, 5.0, 5.0))
            for target in (truth[0], truth[0], truth[1])
        ]
        return logits, tf.stack(codes, axis=2)


def test_predictions_by_hand():
    model = Perfect(
        encoder(), 3, size=(48, 80), counts=(32, 16, 9, 9, 720, 400)
    )
    images = np.zeros((2, 96, 128, 3), np.uint8)  # Twice the network's size.
    found = model.predictions(tf.constant(images))
    assert found["boxes"].shape == (2, 100, 4)
    for boxes, scores, labels in zip(
        found["boxes"], found["scores"], found["labels"]
    ):
        assert labels[:2].numpy().tolist() in ([0, 2], [2, 0])
        first = int(labels[0]) // 2
        expected = [[8, 16, 48, 80], [40, 60, 88, 120]]
        np.testing.assert_allclose(boxes[first], expected[0], atol=1e-2)
        np.testing.assert_allclose(boxes[1 - first], expected[1], atol=1e-2)
        assert np.all(scores[:2] > 0.9)
        assert np.all(labels[2:] == -1) and np.all(scores[2:] == 0)
        assert np.all(boxes[2:] == 0)


def test_classes_do_not_suppress_each_other():
    boxes = tf.constant([[0.0, 0, 20, 20], [0, 0, 20, 19], [0, 0, 20, 9]])
    boxes = tf.repeat(boxes[:, None], 2, axis=1)
    scores = tf.constant([[0.9, 0.6], [0.8, 0.7], [0.3, 0.04]])
    found, scores, labels = _detections((boxes, scores))
    np.testing.assert_allclose(scores[:4], [0.9, 0.7, 0.3, 0])
    assert labels[:4].numpy().tolist() == [0, 1, 0, -1]
    assert found[:3, 3].numpy().tolist() == [20, 19, 9]


def test_the_best_hundred_detections_of_all_classes():
    left = 10 * np.arange(150, dtype=np.float32)
    boxes = np.stack([0 * left, left, 0 * left + 9, left + 9], axis=1)
    boxes = np.repeat(boxes[:, None], 2, axis=1)
    scores = np.random.default_rng(0).permutation(300).reshape(150, 2)
    scores = np.float32(0.1 + scores / 1000)
    found = _detections((tf.constant(boxes), tf.constant(scores)))
    assert [len(part) for part in found] == [100] * 3
    expected = np.argsort(-scores.ravel())[:100]
    np.testing.assert_array_equal(found[0], boxes.reshape(300, 4)[expected])
    np.testing.assert_array_equal(found[1], scores.ravel()[expected])
    np.testing.assert_array_equal(found[2], expected % 2)


def test_predictions_lie_in_the_image_by_falling_score():
    model = network()
    model.classifier.kernel.assign(4 * tf.random.normal((16, 4)))
    images = batch()[0]
    found = {k: v.numpy() for k, v in model.predictions(images).items()}
    assert (found["labels"] >= 0).any()
    for boxes, scores, labels in zip(
        found["boxes"], found["scores"], found["labels"]
    ):
        there = labels >= 0
        assert (np.diff(there.astype(int)) <= 0).all()
        assert (np.diff(scores) <= 0).all() and (scores[there] > 0.05).all()
        assert boxes.min() >= 0 and (boxes <= [48, 64, 48, 64]).all()
        for label in range(3):
            of_class = boxes[labels == label]
            overlaps = iou(of_class, of_class).numpy()
            assert (overlaps - np.eye(len(of_class)) <= 0.5001).all()


@pytest.mark.parametrize(
    "given, expected",
    [
        ((100, 200), (48, 96)),
        ((20, 10), (96, 48)),
        ((30, 300), (10, 100)),  # The longer side is the limit.
        ((48, 48), (48, 48)),
        ((1, 500), (1, 100)),
    ],
)
def test_sizes_for_prediction(given, expected):
    images = tf.zeros([2, *given, 3])
    assert resized_to(images, (48, 100)).shape == (2, *expected, 3)


@pytest.mark.slow
def test_saved_model_in_a_new_process(tmp_path):
    model = network()
    model.classifier.kernel.assign(tf.random.normal((16, 4)))
    image = batch()[0][0].numpy()
    assert export_dense_model(model, tmp_path / "model", image) < 1e-3
    np.save(tmp_path / "image.npy", image / np.float32(255))
    expected = model.predictions(tf.constant(image[None]))
    code = (
        "import sys, numpy, tensorflow as tf\n"
        "model = tf.saved_model.load(sys.argv[1] + '/model')\n"
        "image = numpy.load(sys.argv[1] + '/image.npy')\n"
        "found = model.signatures['serving_default']("
        "images=tf.constant(image[None]))\n"
        "numpy.savez(sys.argv[1] + '/found.npz', **found)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    with np.load(tmp_path / "found.npz") as found:
        assert (found["labels"] >= 0).any()
        np.testing.assert_array_equal(found["labels"], expected["labels"])
        for name in ("boxes", "scores"):
            np.testing.assert_allclose(
                found[name], expected[name], rtol=1e-4, atol=1e-3
            )


def test_keras_file(tmp_path):
    model = network()
    model.save(tmp_path / "detector.keras")
    loaded = keras.saving.load_model(tmp_path / "detector.keras")
    assert (loaded.counts, loaded.size) == (model.counts, model.size)
    inputs = batch()
    assert losses_of(model, inputs) == pytest.approx(losses_of(loaded, inputs))
