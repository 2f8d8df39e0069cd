"""Streams of scenes: order, resumption, damaged ones."""

import numpy as np
import pytest
import tensorflow as tf

from byol_tf.config import ConfigError
from byol_tf.data.scenes import (
    BadScene,
    Scenes,
    nearest_resized,
    resized,
    training_scenes,
)
from byol_tf.data.skipped import Skipped

SIGNATURE = (tf.TensorSpec([], tf.int64), tf.TensorSpec([2], tf.float32))


def scenes(size=7, bad=(), limit=1.0):
    skipped = Skipped(limit)
    skipped.total = size

    def load(number):
        if number in bad:
            raise BadScene("it is bad")
        return {"number": np.array(number)}

    return Scenes(size, load, lambda n: f"scene {n}", skipped)


def augmented(scene, random):
    return scene["number"], random.random(2)


def stream(source, batch_size=3, first_step=0, **options):
    return training_scenes(
        source, batch_size, 5, augmented, SIGNATURE, first_step, **options
    )


def taken(dataset, count):
    return [
        tuple(array.numpy() for array in batch) for batch in dataset.take(count)
    ]


def test_every_epoch_has_all_scenes():
    numbers = np.concatenate([b[0] for b in taken(stream(scenes()), 7)])
    epochs = numbers.reshape(3, 7)
    for epoch in epochs:
        assert sorted(epoch) == list(range(7))
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_a_batch_may_be_longer_than_an_epoch():
    ((numbers, _),) = taken(stream(scenes(2), batch_size=6), 1)
    assert np.bincount(numbers).tolist() == [3, 3]


def test_a_stream_goes_on_where_it_was():
    whole, rest = taken(stream(scenes()), 6), taken(stream(scenes(), 3, 4), 2)
    for one, other in zip(whole[4:], rest):
        for a, b in zip(one, other):
            np.testing.assert_array_equal(a, b)


def test_workers_share_a_batch():
    whole = taken(stream(scenes(), 4), 3)
    parts = [
        taken(stream(scenes(), 4, worker=w, workers=2), 3) for w in range(2)
    ]
    for batch, *shares in zip(whole, *parts):
        for array, *pieces in zip(batch, *shares):
            np.testing.assert_array_equal(array, np.concatenate(pieces))


def test_another_scene_stands_in_for_a_bad_one():
    source = scenes(bad={2, 3})
    numbers = np.concatenate([b[0] for b in taken(stream(source), 7)])
    assert np.bincount(numbers, minlength=7).tolist() == [3, 3, 0, 0, 9, 3, 3]
    assert source.skipped.reasons == {
        "scene 2": "it is bad",
        "scene 3": "it is bad",
    }
    assert [s["number"] for s in source] == [0, 1, 4, 5, 6]


def test_only_bad_scenes_are_an_error():
    source = scenes(3, bad=range(3))
    with pytest.raises(tf.errors.OpError):
        taken(stream(source), 1)
    with pytest.raises(ConfigError, match="too many in succession"):
        source.skipped.check()


def test_sizes():
    image = np.arange(24, dtype=np.uint8).reshape(4, 2, 3)
    assert resized(image, 8, 6).shape == (8, 6, 3)
    truth = np.array([[1, 2], [3, 4]])
    np.testing.assert_array_equal(
        nearest_resized(truth, 4, 2), [[1, 2], [1, 2], [3, 4], [3, 4]]
    )
    np.testing.assert_array_equal(nearest_resized(truth, 1, 1), [[4]])
