"""npz archives: what their arrays become, and what is wrong with some."""

import numpy as np
import pytest

from byol_tf.config import Config, ConfigError
from byol_tf.data.arrays import open_npz
from byol_tf.data.pipeline import open_dataset


@pytest.fixture
def images():
    return np.random.RandomState(0).randint(0, 256, (20, 8, 6, 3), np.uint8)


LABELS = np.arange(20) % 4


def save(tmp_path, **arrays) -> str:
    np.savez(tmp_path / "x.npz", **arrays)
    return str(tmp_path / "x.npz")


@pytest.mark.parametrize(
    "names",
    [
        ("train_images", "train_labels", "test_images", "test_labels"),
        ("x_train", "y_train", "x_test", "y_test"),
    ],
)
def test_splits(tmp_path, images, names):
    arrays = (images, LABELS[:, None], images[:5], LABELS[:5])
    path = save(tmp_path, **dict(zip(names, arrays, strict=True)))
    dataset = open_npz(path)
    np.testing.assert_array_equal(dataset.train.images, images)
    np.testing.assert_array_equal(dataset.train.labels, LABELS)
    np.testing.assert_array_equal(dataset.test.images, images[:5])
    np.testing.assert_array_equal(dataset.test.labels, LABELS[:5])
    assert dataset.class_names == ("0", "1", "2", "3")


@pytest.mark.parametrize("kind", [np.uint8, np.uint64, np.int8, np.int64])
def test_any_whole_numbers_are_labels(tmp_path, images, kind):
    path = save(tmp_path, x_train=images, y_train=LABELS.astype(kind))
    dataset = open_npz(path)
    assert set(dataset.train.labels) == {0, 1, 2, 3}


def test_a_single_array_is_no_archive(tmp_path, images):
    np.save(tmp_path / "x.npy", images)
    with pytest.raises(ConfigError, match="is one array; save it by"):
        open_npz(str(tmp_path / "x.npy"))


def test_images_alone(tmp_path, images):
    path = save(tmp_path, images=images)
    dataset, config = open_dataset(
        Config(dataset=f"npz:{path}", batch_size=4, upscale_small_images=True)
    )
    assert dataset.train.labels.tolist() == [-1] * 20
    assert dataset.test is None and dataset.class_names == ()
    assert config.image_size == 6


def test_a_tenth_is_held_out_of_labelled_images(tmp_path, images):
    labels = np.where(np.arange(20) < 15, 1, -7)
    dataset = open_npz(save(tmp_path, images=images, labels=labels))
    assert dataset.test.labels.tolist() == [1]
    assert sorted(dataset.train.labels) == [-1] * 5 + [1] * 14
    together = np.concatenate([dataset.train.images, dataset.test.images])
    assert len(np.unique(together, axis=0)) == 20


@pytest.mark.parametrize(
    "change, expected",
    [
        (lambda x: x[..., 0], lambda x: x[..., :1]),
        (lambda x: x[..., :1], lambda x: x[..., :1]),
        (lambda x: np.concatenate([x, x[..., :1]], -1), lambda x: x),
        (lambda x: x.astype(np.uint16) * 257, lambda x: x),
        (lambda x: x.astype(np.float32) / 255, lambda x: x),
        (lambda x: x.astype(np.float64) / 255, lambda x: x),
    ],
)
def test_kinds_of_images(tmp_path, images, change, expected):
    dataset = open_npz(save(tmp_path, images=change(images)))
    assert dataset.train.images.dtype == np.uint8
    np.testing.assert_array_equal(dataset.train.images, expected(images))


@pytest.mark.parametrize(
    "arrays, message",
    [
        (dict(pictures=np.zeros(3)), "holds no .*but pictures"),
        (dict(), "but nothing"),
        (dict(images=np.zeros((3, 4), np.uint8)), r"\[3, 4\], not"),
        (dict(images=np.zeros((0, 4, 4, 3), np.uint8)), "no pixel"),
        (dict(images=np.zeros((9, 3, 8, 8), np.uint8)), "channels last"),
        (dict(images=np.full((3, 4, 4, 3), 1.5)), r"outside of \[0, 1\]"),
        (dict(images=np.full((3, 4, 4, 3), np.nan)), "are no numbers"),
        (dict(images=np.zeros((3, 4, 4, 3), np.int64)), "is int64"),
        (
            dict(images=np.zeros((3, 4, 4), np.uint8), labels=np.arange(4)),
            r"labels is \[4\], not a label for each of the 3",
        ),
        (
            dict(images=np.zeros((3, 4, 4), np.uint8), labels=np.ones(3) / 2),
            "labels are whole numbers",
        ),
        (dict(images=np.array([None, {}])), "no archive.*pickle"),
        (dict(images=np.array(3)), r"images is \[\], not"),
        (dict(images=np.zeros((3, 0, 4), np.uint8)), "holds no pixel"),
        (
            dict(images=np.zeros((2, 4, 4), np.uint8), labels=[0, 2**33 + 1]),
            "has a 8589934593; labels are numbers of classes",
        ),
    ],
)
def test_arrays_that_are_no_images(tmp_path, arrays, message):
    with pytest.raises(ConfigError, match=message) as error:
        open_npz(save(tmp_path, **arrays))
    assert str(error.value).startswith("--dataset=npz:")


def test_files_that_are_no_archive(tmp_path, images):
    with pytest.raises(ConfigError, match="does not exist"):
        open_npz(str(tmp_path / "none.npz"))
    with pytest.raises(ConfigError, match="folder:"):
        open_npz(str(tmp_path))
    path = save(tmp_path, images=images)
    content = (tmp_path / "x.npz").read_bytes()
    (tmp_path / "x.npz").write_bytes(content[: len(content) // 2])
    with pytest.raises(ConfigError, match="no archive of arrays"):
        open_npz(path)
