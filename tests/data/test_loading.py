"""Damaged images among good ones: who stands in, and what is noted."""

import dataclasses
import itertools

import numpy as np
import pytest
import tensorflow as tf
from conftest import save_images

from byol_tf import augment
from byol_tf.config import Config, ConfigError
from byol_tf.data.loading import ATTEMPTS, in_memory, load_or_another
from byol_tf.data.pipeline import (
    evaluation_batches,
    open_dataset,
    training_batches,
)
from byol_tf.data.skipped import Skipped
from byol_tf.data.sources import ArraySource, EncodedSource

RECIPES = (augment.T, augment.T_PRIME)


def source_of(size: int, bad) -> EncodedSource:
    """Image i is one pixel of value i; those in `bad` are no images."""
    files = [
        b"no image"
        if i in bad
        else tf.io.encode_png(np.full((1, 1, 3), i, np.uint8)).numpy()
        for i in range(size)
    ]
    all_files = tf.constant(files)

    def read(number):
        return all_files[number], tf.cast(number, tf.int32)

    return EncodedSource(size, read, str, 1, Skipped(0.01), shape=(1, 1))


def load(source):
    def one(number, _):
        encoded, label = source.read(number)
        return tf.io.decode_png(encoded, 3)[0, 0, 0], label

    return one


def numbers_loaded(source, count, parallel_calls=2) -> list[int]:
    numbers = np.arange(count) % source.size
    examples = tf.data.Dataset.from_tensor_slices((numbers, numbers))
    loaded = load_or_another(source, examples, load(source), parallel_calls)
    pairs = [(int(p), int(n)) for p, n in loaded.as_numpy_iterator()]
    assert all(pixel == label for pixel, label in pairs)
    return [pixel for pixel, _ in pairs]


def test_another_stands_in_and_the_rest_stays_in_place():
    bad = {3, 4, 5, 6, 40}
    source = source_of(50, bad)
    loaded = numbers_loaded(source, 100)
    assert len(loaded) == 100
    for place, number in enumerate(loaded):
        if place % 50 not in bad:
            assert number == place % 50
        else:
            assert number not in bad
    assert loaded[:50] == loaded[50:]
    # Those that stand in are not all the same.
    assert len({loaded[i] for i in bad}) == len(bad)
    assert set(source.skipped.reasons) == {str(i) for i in bad}
    assert set(source.skipped.reasons.values()) == {"no image"}


def test_any_number_of_parallel_calls_gives_the_same():
    expected = numbers_loaded(source_of(50, {7, 8, 31}), 80, 1)
    for calls in (2, 5, 16):
        assert numbers_loaded(source_of(50, {7, 8, 31}), 80, calls) == expected


def test_only_damaged_images_are_an_error_and_no_hang():
    source = source_of(200, range(200))
    with pytest.raises(tf.errors.InvalidArgumentError):
        numbers_loaded(source, 1)
    assert len(source.skipped) == ATTEMPTS
    source.skipped.total = 10**6
    with pytest.raises(ConfigError, match="50 of 1000000 .*in succession"):
        source.skipped.check()


def test_in_memory_leaves_damaged_ones_out():
    source = source_of(20, {0, 19, 5})
    arrays = in_memory(source, 1.0, 2)
    good = [i for i in range(20) if i not in (0, 5, 19)]
    assert arrays.labels.tolist() == good
    assert arrays.images[:, 0, 0, 0].tolist() == good


def test_in_memory_only_what_fits_and_is_of_one_size():
    source = source_of(20, {})
    assert in_memory(source, 59 / 2**30, 2) is source
    assert isinstance(in_memory(source, 60 / 2**30, 2), ArraySource)
    taller = dataclasses.replace(source, shape=(2, 1))
    assert in_memory(taller, 1.0, 2).shape is None


@pytest.fixture
def folder(tmp_path):
    """30 photos of two sizes and two classes, 4 of them damaged."""
    for first, name in ((0, "a"), (15, "b")):
        save_images(tmp_path / name, 8, (40, 30), first=first)
        save_images(tmp_path / name, 7, (33, 41), first=first + 8)
    (tmp_path / "a/003.jpg").write_bytes(b"")
    cut = tmp_path / "a/010.jpg"
    cut.write_bytes(cut.read_bytes()[:-40])
    (tmp_path / "b/016.jpg").write_text("this is text")
    (tmp_path / "b/020.jpg").unlink()
    (tmp_path / "b/020.jpg").symlink_to(tmp_path / "nowhere")
    return tmp_path


DAMAGED = {"003.jpg", "010.jpg", "016.jpg", "020.jpg"}


def open_damaged(folder, **settings):
    config = Config(
        dataset=f"folder:{folder}",
        image_size=16,
        max_corrupt_fraction=0.2,
        **settings,
    )
    return open_dataset.__wrapped__(config)[0]


def test_training_on_a_folder_with_damaged_files(folder):
    dataset = open_damaged(folder)
    assert len(dataset.skipped) >= 3  # Headers tell of those.
    size = dataset.train.size

    def batches(first_step, count, **arguments):
        stream = training_batches(
            dataset.train, 8, 16, 0, RECIPES, first_step, **arguments
        )
        return list(stream.take(count).as_numpy_iterator())

    whole = batches(0, 8)
    assert 2 * size < 8 * 8  # Each image has had its turn.
    noted = {name[-7:] for name in dataset.skipped.reasons}
    assert noted <= DAMAGED
    for variant in (
        batches(0, 8, parallel_calls=1),
        batches(0, 8, parallel_calls=7),
        batches(0, 3) + batches(3, 5),
    ):
        for (a, b), (c, d) in zip(whole, variant, strict=True):
            np.testing.assert_array_equal(a, c)
            np.testing.assert_array_equal(b, d)
    parts = zip(
        batches(0, 8, worker=0, workers=2), batches(0, 8, worker=1, workers=2)
    )
    for (images, labels), (first, second) in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(
            images, np.concatenate([first[0], second[0]])
        )
        np.testing.assert_array_equal(
            labels, np.concatenate([first[1], second[1]])
        )


def test_evaluation_leaves_damaged_files_in_their_place(folder):
    dataset = open_damaged(folder)
    source = dataset.train
    batches = evaluation_batches(source, 16, 1.0, batch_size=5)
    images, labels = map(np.concatenate, zip(*batches.as_numpy_iterator()))
    names = [source.name_of(i)[-7:] for i in range(source.size)]
    damaged = np.array([name in DAMAGED for name in names])
    assert damaged.any()
    np.testing.assert_array_equal(labels == -2, damaged)
    assert not images[damaged].any()
    assert images[~damaged].any(axis=(1, 2, 3)).all()
    assert {name[-7:] for name in dataset.skipped.reasons} == DAMAGED
    reasons = {n[-7:]: r for n, r in dataset.skipped.reasons.items()}
    assert reasons["003.jpg"] == "empty"
    assert "truncated" in reasons["010.jpg"]
    assert reasons["016.jpg"] == "no image"
    assert "no such file" in reasons["020.jpg"]


def test_a_file_that_vanishes_while_training(folder):
    dataset = open_damaged(folder)
    stream = training_batches(dataset.train, 8, 16, 0, RECIPES)
    batches = stream.as_numpy_iterator()
    next(batches)
    for path in (folder / "a").iterdir():
        path.unlink()
    for _ in itertools.islice(batches, 8):
        pass
    with pytest.raises(Exception, match="cannot be used, more than"):
        dataset.skipped.check()
    assert "no such file" in dataset.skipped.reasons.values()
