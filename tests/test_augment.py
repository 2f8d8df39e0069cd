"""What is drawn for each image, how often, and the same everywhere."""

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf

from byol_tf import augment
from byol_tf.augment import Recipe
from byol_tf.image_operations import from_planes, to_planes


@pytest.fixture
def images():
    return np.random.RandomState(0).rand(4, 24, 20, 3).astype(np.float32)


def distorted(images, seed, recipe) -> np.ndarray:
    """Images after all but the crop, as drawn for them."""
    drawn = augment.random_distortion(len(images), seed, recipe)
    planes = augment.distort(to_planes(tf.constant(images)), **drawn)
    return from_planes(planes).numpy()


def each(*values) -> tf.Tensor:
    return tf.constant(values, tf.float32)


def test_crop_boxes_are_clamped_and_inside():
    boxes = augment.crop_boxes(
        tf.constant([100.0, 50.0]),
        area=each(1.0, 1.0, 0.25, 0.00001),
        log_aspect=each(0, np.log(4 / 3), 0, 0),
        top=each(0.5, 0, 0.999, 0.5),
        left=each(0.5, 0, 0.0, 0.5),
    ).numpy()
    # sqrt(5000) is 70.7: wider than the image, so the width is cut to 50.
    np.testing.assert_array_equal(boxes[0], [15, 0, 71, 50])
    np.testing.assert_array_equal(boxes[1], [0, 0, 61, 50])
    np.testing.assert_array_equal(boxes[2], [65, 0, 35, 35])
    np.testing.assert_array_equal(boxes[3, 2:], [1, 1])


def test_boxes_have_the_distribution_of_the_paper():
    boxes = augment.random_boxes(
        tf.constant([1000.0, 1000.0]), 20_000, [0, 0], augment.T
    ).numpy()
    y, x, h, w = boxes.T
    assert (y >= 0).all() and (y + h <= 1000).all()
    assert (x >= 0).all() and (x + w <= 1000).all()
    area, aspect = h * w / 1e6, w / h
    assert 0.079 < area.min() < 0.082
    # Small crops are never clamped, and show the uniform distributions.
    small = area < 0.5
    np.testing.assert_allclose(area[small].mean(), 0.29, atol=0.01)
    assert 0.74 < aspect[small].min() < 0.76
    assert 1.32 < aspect[small].max() < 1.35
    np.testing.assert_allclose(np.log(aspect[small]).mean(), 0, atol=0.01)


def share(changed: np.ndarray) -> float:
    return float(np.mean(np.any(changed, axis=(1, 2, 3))))


OFF = Recipe(flip=0, jitter=0, grayscale=0, blur=0, solarize=0)


@pytest.mark.parametrize("recipe", [augment.T, augment.T_PRIME])
@pytest.mark.parametrize(
    "name", ["flip", "jitter", "grayscale", "blur", "solarize"]
)
def test_each_operation_happens_as_often_as_said(recipe, name):
    probability = getattr(recipe, name)
    count = 10_000
    image = np.random.RandomState(0).rand(1, 20, 4, 3).astype(np.float32)
    images = np.repeat(image, count, axis=0)
    only = Recipe(**vars(OFF) | {name: probability, "blur_sigma": (1.0, 2.0)})
    results = distorted(images, [1, 2], only)
    measured = share(np.abs(results - images) > 1e-6)
    deviation = np.sqrt(probability * (1 - probability) / count)
    assert abs(measured - probability) <= 4 * deviation + 1e-3


def test_strengths_are_uniform_in_their_ranges():
    images = np.full((10_000, 2, 2, 3), 0.5, np.float32)
    only = Recipe(**vars(OFF) | {"jitter": 1.0})
    results = distorted(images, [3, 4], only)
    added = results[:, 0, 0, 0] - 0.5  # A flat gray shows brightness alone.
    assert -0.4 <= added.min() < -0.399
    assert 0.399 < added.max() <= 0.4 + 1e-6
    np.testing.assert_allclose(added.mean(), 0, atol=0.01)
    np.testing.assert_allclose(added.std(), 0.8 / np.sqrt(12), atol=0.005)


def test_permutations_are_uniform():
    draws = augment.Draws([0, 1], 24_000, 4).permutation(4).numpy()
    _, counts = np.unique(draws, axis=0, return_counts=True)
    assert len(counts) == 24
    assert np.abs(counts - 1000).max() < 150


@pytest.mark.parametrize("count", [4, 14])
def test_a_part_of_a_batch_draws_what_the_whole_does(count):
    def numbers(batch, first=0):
        draws = augment.Draws([3, -7], batch, count, first)
        return tf.stack([draws.uniform(0, 1) for _ in range(count)], axis=1)

    whole = numbers(64)
    assert len(np.unique(whole)) > 0.99 * whole.shape.num_elements()
    compiled = tf.function(numbers, jit_compile=True)
    (mapped,) = tf.data.Dataset.from_tensors(5).map(lambda k: numbers(7, k))
    np.testing.assert_array_equal(compiled(64), whole)
    np.testing.assert_array_equal(mapped, whole[5:12])
    for first in (0, 1, 32, 57):
        part = whole[first : first + 7]
        np.testing.assert_array_equal(numbers(7, first), part)
        np.testing.assert_array_equal(compiled(7, tf.constant(first)), part)


@pytest.mark.parametrize("shape", [(6, 20, 20, 3), (6, 2, 20, 20, 3)])
def test_halves_of_a_batch_have_the_views_of_the_whole(shape):
    images = tf.constant(np.random.RandomState(0).rand(*shape), tf.float32)
    whole = augment.views(images, [1, 2])
    halves = [
        augment.views(images[first : first + 3], [1, 2], first=first)
        for first in (0, 3)
    ]
    for view, *parts in zip(whole, *halves, strict=True):
        np.testing.assert_allclose(tf.concat(parts, 0), view, atol=1e-6)


def test_image_by_image_equals_the_whole_batch():
    images = tf.constant(
        np.random.RandomState(0).rand(6, 3, 40, 30), tf.float32
    )
    drawn = augment.random_distortion(6, [1, 2], augment.T_PRIME)

    def distort(planes, drawn):
        return augment.distort(planes, **drawn)

    @tf.function(jit_compile=True)
    def one_by_one(planes, drawn):
        return augment.image_by_image(distort, planes, drawn)

    expected = distort(images, drawn)
    np.testing.assert_allclose(one_by_one(images, drawn), expected, atol=1e-5)


def test_views_of_unknown_size_are_refused():
    views = tf.function(
        lambda x: augment.views(x, [1, 1]),
        input_signature=[tf.TensorSpec([None, 2, None, None, 3])],
    )
    with pytest.raises(ValueError, match="known in the graph"):
        views(np.zeros((1, 2, 24, 24, 3), np.float32))


def test_views_are_drawn_per_image_and_per_view(images):
    same = tf.constant(np.repeat(images[:1], 4, axis=0))
    view1, view2 = augment.views(same, [0, 0], 16)
    views = np.concatenate([view1, view2])
    assert views.shape == (8, 16, 16, 3)
    assert views.min() >= 0 and views.max() <= 1
    for i in range(8):
        for j in range(i):
            assert np.abs(views[i] - views[j]).max() > 0.01


def test_same_seed_same_views_eager_in_tf_data_and_compiled(images):
    seed = tf.constant([5, 6])
    eager = augment.views(tf.constant(images), seed)
    compiled = tf.function(augment.views, jit_compile=True)(
        tf.constant(images), seed
    )
    dataset = tf.data.Dataset.from_tensors(images)
    (mapped,) = dataset.map(lambda x: augment.views(x, seed))
    other = augment.views(tf.constant(images), tf.constant([5, 7]))
    for a, b, c, d in zip(eager, compiled, mapped, other, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
        np.testing.assert_allclose(a, c, atol=1e-5)
        assert np.abs(a - d).max() > 0.01


def test_gray_images_become_what_their_colour_copies_become(images):
    # The luma weights sum to 0.9999, and graying is left out for gray images.
    gray = images[..., :1]
    for a, b in zip(
        augment.views(tf.constant(gray), [1, 1]),
        augment.views(tf.constant(np.repeat(gray, 3, -1)), [1, 1]),
        strict=True,
    ):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, atol=2e-4)


def test_bytes_and_floats_give_the_same_views():
    images = np.random.RandomState(0).randint(0, 256, (3, 16, 16, 3), np.uint8)
    for a, b in zip(
        augment.views(tf.constant(images), [1, 1]),
        augment.views(tf.constant(images / 255.0), [1, 1]),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_two_crops_are_not_cropped_again(images):
    crops = tf.constant(np.stack([images, images[:, ::-1]], axis=1))
    nothing = (OFF, OFF)
    view1, view2 = augment.views(crops, [0, 0], recipes=nothing)
    np.testing.assert_allclose(view1, images, atol=1e-6)
    np.testing.assert_allclose(view2, images[:, ::-1], atol=1e-6)


def test_recipe_survives_json():
    config = json.loads(json.dumps(dataclasses.asdict(augment.T_PRIME)))
    assert Recipe.from_config(config) == augment.T_PRIME


def test_images_of_unknown_size_in_a_graph(images):
    views = tf.function(
        lambda x: augment.views(x, [1, 1], 16),
        input_signature=[tf.TensorSpec([None, None, None, 3])],
    )
    expected = augment.views(tf.constant(images), [1, 1], 16)
    for a, b in zip(views(images), expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
