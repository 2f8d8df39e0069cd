"""Order, crops and resumption of batches; the settings that do not fit data."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from conftest import save_images

from byol_tf import augment
from byol_tf.config import Config, ConfigError
from byol_tf.data.pipeline import (
    classifier_batches,
    evaluation_batches,
    example_order,
    open_dataset,
    training_batches,
)
from byol_tf.data.sources import ArraySource

RECIPES = (augment.T, augment.T_PRIME)


def test_every_epoch_is_another_permutation():
    order = np.concatenate(
        [
            example_order(tf.range(k, k + 10, dtype=tf.int64), 50, seed=3)
            for k in range(0, 150, 10)
        ]
    ).reshape(3, 50)
    for epoch in order:
        assert sorted(epoch) == list(range(50))
    assert not np.array_equal(order[0], order[1])
    assert not np.array_equal(order[1], order[2])
    other = example_order(tf.range(50, dtype=tf.int64), 50, seed=4)
    assert not np.array_equal(order[0], other)


def test_batches_may_straddle_epochs():
    whole = example_order(tf.range(0, 7, dtype=tf.int64), 7, seed=0)
    after = example_order(tf.range(7, 14, dtype=tf.int64), 7, seed=0)
    across = example_order(tf.range(4, 11, dtype=tf.int64), 7, seed=0)
    expected = np.concatenate([whole[4:], after[:4]])
    np.testing.assert_array_equal(across, expected)


@pytest.fixture
def array_source():
    images = np.arange(20 * 6 * 6, dtype=np.uint16).reshape(20, 6, 6, 1) % 251
    return ArraySource(images.astype(np.uint8), np.arange(20, dtype=np.int32))


@pytest.fixture
def file_source(tmp_path):
    save_images(tmp_path, 10, size=(40, 30))
    save_images(tmp_path, 10, size=(33, 41), first=10)
    return open_dataset(Config(dataset=f"folder:{tmp_path}", image_size=16))[
        0
    ].train


@pytest.mark.parametrize("kind", ["array_source", "file_source"])
def test_a_stream_begun_later_is_the_rest_of_the_stream(kind, request):
    source = request.getfixturevalue(kind)

    def batches(first_step, count):
        stream = training_batches(source, 8, 16, 5, RECIPES, first_step)
        return list(stream.take(count).as_numpy_iterator())

    whole, rest = batches(0, 7), batches(4, 3)
    for (a, b), (c, d) in zip(whole[4:], rest, strict=True):
        np.testing.assert_array_equal(a, c)
        np.testing.assert_array_equal(b, d)


def test_workers_share_each_batch(array_source):
    def batches(**arguments):
        stream = training_batches(
            array_source, 8, 6, 5, RECIPES, 3, **arguments
        )
        return list(stream.take(4).as_numpy_iterator())

    parts = [batches(worker=i, workers=4) for i in range(4)]
    for step, (images, labels) in enumerate(batches()):
        shares = [part[step] for part in parts]
        np.testing.assert_array_equal(
            images, np.concatenate([x for x, _ in shares])
        )
        np.testing.assert_array_equal(
            labels, np.concatenate([y for _, y in shares])
        )
    with pytest.raises(ValueError, match="3 workers cannot share 8"):
        batches(worker=0, workers=3)


def test_the_fingerprint_of_images_in_memory_is_of_their_pixels(tmp_path):
    save_images(tmp_path, 5)

    def fingerprint(seed):
        config = Config(
            dataset=f"folder:{tmp_path}",
            image_size=16,
            max_corrupt_fraction=0.5,
            seed=seed,
        )
        return open_dataset(config)[0].fingerprint

    before = fingerprint(0)
    assert fingerprint(1) == before
    path = tmp_path / "003.jpg"
    path.write_bytes(path.read_bytes()[:-50])
    assert fingerprint(2) != before


def test_one_image_is_too_few(tmp_path):
    save_images(tmp_path, 1)
    with pytest.raises(ConfigError, match="holds 1 image to learn from"):
        open_dataset(Config(dataset=f"folder:{tmp_path}", image_size=16))


def test_images_keep_their_labels(array_source):
    stream = training_batches(array_source, 8, 6, 0, RECIPES)
    for images, labels in stream.take(5).as_numpy_iterator():
        np.testing.assert_array_equal(images, array_source.images[labels])


def test_files_come_as_two_crops(file_source):
    stream = training_batches(file_source, 4, 16, 0, RECIPES)
    images, labels = next(stream.as_numpy_iterator())
    assert images.shape == (4, 2, 16, 16, 3)
    assert images.dtype == np.float32
    assert images.min() >= 0 and images.max() <= 1
    assert labels.tolist() == [-1] * 4


@pytest.mark.parametrize("kind", ["array_source", "file_source"])
def test_classifiers_learn_from_crops_and_flips(kind, request):
    source = request.getfixturevalue(kind)

    def batches(first_step, count):
        stream = classifier_batches(source, 5, 12, 3, first_step)
        return list(stream.take(count).as_numpy_iterator())

    whole, rest = batches(0, 6), batches(4, 2)
    images, _ = whole[0]
    assert images.shape == (5, 12, 12, 3) and images.dtype == np.float32
    assert images.min() >= 0 and images.max() <= 1
    assert not np.array_equal(images, whole[4][0])  # The next epoch's crops.
    for (a, b), (c, d) in zip(whole[4:], rest, strict=True):
        np.testing.assert_array_equal(a, c)
        np.testing.assert_array_equal(b, d)


def test_no_colour_of_a_crop_is_changed(array_source):
    """Of images of one gray each, a crop and a flip are the same images."""
    grays = np.arange(20, dtype=np.uint8)[:, None, None, None] * 12
    source = ArraySource(np.tile(grays, [1, 6, 6, 1]), array_source.labels)
    for images, labels in classifier_batches(source, 4, 6, 0).take(5):
        expected = np.broadcast_to(
            labels.numpy()[:, None, None, None] * 12 / 255, images.shape
        )
        np.testing.assert_allclose(images, expected, atol=1e-6)


def test_evaluation_sees_every_image_once_in_order(array_source):
    batches = evaluation_batches(array_source, 6, 1.0, batch_size=8)
    images, labels = map(np.concatenate, zip(*batches.as_numpy_iterator()))
    assert labels.tolist() == list(range(20))
    expected = np.repeat(array_source.images, 3, -1) / 255
    np.testing.assert_allclose(images, expected, atol=1e-6)
    chosen = evaluation_batches(array_source, 6, 1.0, np.array([7, 3]))
    ((images, labels),) = chosen.as_numpy_iterator()
    assert labels.tolist() == [7, 3]
    np.testing.assert_allclose(images, expected[[7, 3]], atol=1e-6)


def test_evaluation_of_files(file_source):
    batches = evaluation_batches(file_source, 16, 0.875, batch_size=8)
    assert [len(x) for x, _ in itertools.islice(batches, 5)] == [8, 8, 4]


def test_sizes_are_settled_by_the_data(tmp_path):
    _, config = open_dataset(Config())
    assert (config.image_size, config.eval_crop) == (28, 1.0)
    save_images(tmp_path, 300, size=(300, 240))
    save_images(tmp_path, 1, size=(300, 260))
    _, config = open_dataset(Config(dataset=f"folder:{tmp_path}"))
    assert (config.image_size, config.eval_crop) == (224, 0.875)


def test_images_that_are_too_small():
    with pytest.raises(ConfigError, match=r"--image_size=29 .*28 pixels"):
        open_dataset(Config(image_size=29))


def test_small_images_can_be_accepted():
    _, config = open_dataset(Config(image_size=64, upscale_small_images=True))
    assert config.eval_crop == 0.875
