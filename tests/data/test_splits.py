"""Parts of data sets: their numbers, names, labels and balance."""

import numpy as np
import pytest
import tensorflow as tf
from conftest import save_images

from byol_tf.config import Config
from byol_tf.data.folders import open_folder
from byol_tf.data.pipeline import evaluation_batches, open_dataset
from byol_tf.data.skipped import Skipped
from byol_tf.data.sources import DAMAGED, ArraySource, EncodedSource
from byol_tf.data.splits import (
    class_balanced,
    held_out,
    joined,
    labels_of,
    subset,
)


def counts_of(labels, numbers) -> list[int]:
    return np.bincount(labels[numbers]).tolist()


def records(labels, bad=()) -> EncodedSource:
    """Image i is one pixel of value i; a read of one in `bad` fails."""
    files = tf.stack(
        [
            tf.io.encode_png(np.full((1, 1, 3), i, np.uint8))
            for i in range(len(labels))
        ]
    )
    all_labels = tf.constant(labels, tf.int32)

    def read(number):
        is_bad = tf.reduce_any(number == tf.constant([-1, *bad], tf.int64))
        with tf.control_dependencies([tf.debugging.Assert(~is_bad, ["bad"])]):
            return files[number], all_labels[number]

    return EncodedSource(len(labels), read, "image {}".format, 1, Skipped(0.5))


def test_a_subset_of_arrays():
    images = np.arange(5, dtype=np.uint8).reshape(5, 1, 1, 1)
    source = ArraySource(images, np.arange(5, dtype=np.int32))
    part = subset(source, [3, 0])
    assert part.images.flatten().tolist() == [3, 0]
    assert labels_of(part).tolist() == [3, 0]


def test_a_subset_reads_names_and_skips_as_the_whole():
    source = records(np.arange(10, 18), bad=[6])
    part = subset(subset(source, [7, 6, 5, 1]), [1, 3, 0])
    batches = evaluation_batches(part, 1, 1.0)
    ((images, labels),) = batches.as_numpy_iterator()
    assert labels.tolist() == [DAMAGED, 11, 17]
    np.testing.assert_allclose(images[:, 0, 0, 0] * 255, [0, 1, 7], atol=1e-4)
    assert part.shape == source.shape
    assert list(source.skipped.reasons) == ["image 6"]
    assert part.name_of(2) == "image 7"


def test_labels_are_read_once_and_go_with_a_subset():
    source = records([4, 5, 6, 7], bad=[2])
    assert labels_of(source).tolist() == [4, 5, DAMAGED, 7]
    part = subset(source, [3, 1])
    object.__setattr__(part, "read", None)
    assert labels_of(part).tolist() == [7, 5]


def test_several_labels_an_image():
    several = np.array([[1, 0, -1], [0, 1, 0], [0, 0, 1]])
    source = records(several, bad=[1])
    expected = [[1, 0, -1], [DAMAGED] * 3, [0, 0, 1]]
    assert labels_of(source).tolist() == expected
    ((images, labels),) = evaluation_batches(source, 1, 1.0)
    assert labels.dtype == tf.int32
    assert labels.numpy().tolist() == expected
    assert images.shape == [3, 1, 1, 3]
    arrays = ArraySource(np.zeros((3, 1, 1, 3), np.uint8), several)
    ((_, labels),) = evaluation_batches(arrays, 1, 1.0)
    assert labels.numpy().tolist() == several.tolist()


def test_labels_of_a_folder_need_no_file(tmp_path):
    for name in ("a", "b"):
        save_images(tmp_path / "train" / name, 3)
        save_images(tmp_path / "test" / name, 1)
    config = Config(in_memory_gb=0)
    dataset = open_folder(str(tmp_path), config, Skipped())
    for path in tmp_path.rglob("*.jpg"):
        path.unlink()
    assert labels_of(dataset.train).tolist() == [0, 0, 0, 1, 1, 1]
    assert labels_of(subset(dataset.train, [4, 0])).tolist() == [1, 0]
    assert len(dataset.skipped) == 0


LABELS = np.repeat([0, 1, 2, 3, -1], [40, 1, 10, 29, 20])


def test_so_many_of_each_class():
    numbers = class_balanced(LABELS, 12, seed=0)
    assert counts_of(LABELS, numbers) == [12, 1, 10, 12]
    assert (np.diff(numbers) > 0).all()


def test_a_share_is_divided_equally():
    # A quarter of 80: 20; of the class of one example one.
    numbers = class_balanced(LABELS, 0.25, seed=0)
    assert counts_of(LABELS, numbers) == [7, 1, 6, 6]
    # 40 of 80: what the small classes lack the others give.
    assert counts_of(LABELS, class_balanced(LABELS, 0.5, 0)) == [15, 1, 10, 14]
    assert len(class_balanced(LABELS, 1.0, 0)) == 80
    # Every class has one at least.
    assert counts_of(LABELS, class_balanced(LABELS, 0.01, 0)) == [1, 1, 1, 1]


def test_imagenets_percent():
    labels = np.arange(1_281_167) % 1000
    numbers = class_balanced(labels, 0.01, seed=0)
    assert len(numbers) == 12_812
    assert set(counts_of(labels, numbers)) == {12, 13}


def test_draws_follow_from_the_seed_alone():
    np.random.seed(0)
    state = np.random.get_state()[1].copy()
    first = class_balanced(LABELS, 5, seed=1)
    np.testing.assert_array_equal(np.random.get_state()[1], state)
    np.random.seed(7)
    np.testing.assert_array_equal(class_balanced(LABELS, 5, seed=1), first)
    assert not np.array_equal(class_balanced(LABELS, 5, seed=2), first)


@pytest.mark.parametrize("amount", [0, -1, 0.0, 1.5])
def test_amounts_that_are_none(amount):
    with pytest.raises(ValueError, match=f"{amount} is neither"):
        class_balanced(LABELS, amount, seed=0)


@pytest.mark.parametrize("share, counts", [(0.1, [4, 0, 1, 2]), (1 / 3, None)])
def test_a_share_of_each_class_is_held_out(share, counts):
    chosen, notes = held_out(LABELS, share)
    counts = counts or [13, 0, 3, 9]
    found = np.bincount(LABELS[chosen], minlength=4)
    assert found.tolist() == counts
    assert notes == (
        "1 of the classes have one image only, which is not held out: 1.",
    )
    assert held_out(LABELS[LABELS != 1], share)[1] == ()


def test_so_many_are_held_out_in_all():
    random = np.random.RandomState(0)
    sizes = np.append(random.randint(732, 1300, 105), [1300] * 895)
    labels = np.repeat(np.arange(1000), sizes)
    fraction = 10_009 / len(labels)
    rounded_down = np.bincount(labels[held_out(labels, fraction)[0]])
    assert rounded_down.sum() < 9_900
    chosen, _ = held_out(labels, fraction, total=10_009)
    counts = np.bincount(labels[chosen])
    assert counts.sum() == 10_009
    more = counts - rounded_down
    assert set(more) == {0, 1}
    left = sizes * fraction - rounded_down
    assert left[more == 1].min() >= left[more == 0].max()
    # The same ones, and more.
    assert chosen[held_out(labels, fraction)[0]].all()


def test_no_class_is_held_out_whole():
    labels = np.repeat([0, 1, 2], [2, 2, 3])
    chosen, _ = held_out(labels, 0.9, total=6)
    assert np.bincount(labels[chosen]).tolist() == [1, 1, 2]


def test_a_folder_says_which_class_has_one_image(tmp_path):
    for name, count in (("cat", 5), ("dodo", 1), ("dog", 5), ("unicorn", 1)):
        save_images(tmp_path / name, count)
    config = Config(
        dataset=f"folder:{tmp_path}", image_size=16, max_corrupt_fraction=0.3
    )
    dataset, _ = open_dataset(config)
    assert (dataset.train.size, dataset.test.size) == (10, 2)
    assert sorted(labels_of(dataset.test)) == [0, 2]
    assert dataset.notes == (
        "2 of the classes have one image only, which is not held out: dodo, "
        "unicorn.",
    )


def as_tuples(source):
    batches = evaluation_batches(source, 8, 1.0, batch_size=3)
    images, labels = zip(*batches.as_numpy_iterator())
    return np.concatenate(images), np.concatenate(labels)


def test_joined_sources_are_one_after_the_other(tmp_path):
    random = np.random.RandomState(0)

    def in_memory(count, side):
        images = random.randint(0, 255, (count, side, side, 3), np.uint8)
        return ArraySource(images, np.arange(count, dtype=np.int32))

    save_images(tmp_path / "a", 4, size=(12, 10))
    save_images(tmp_path / "b", 3, size=(11, 11))
    dataset, _ = open_dataset(
        Config(dataset=f"folder:{tmp_path}", image_size=8)
    )
    files = dataset.train
    for parts in (
        (in_memory(5, 8), in_memory(2, 8)),
        (in_memory(5, 8), in_memory(2, 9)),
        (in_memory(5, 8), files),
        (files, files),
    ):
        both = joined(*parts)
        assert both.size == sum(part.size for part in parts)
        whole = as_tuples(both)
        for found, *expected in zip(whole, *map(as_tuples, parts)):
            np.testing.assert_allclose(
                found, np.concatenate(expected), atol=1e-6
            )
        np.testing.assert_array_equal(
            labels_of(both), np.concatenate(list(map(labels_of, parts)))
        )
    assert joined(files, files).name_of(files.size) == files.name_of(0)
