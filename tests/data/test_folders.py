"""Folders of real image files, and what is wrong with some of them."""

import tarfile
import zipfile

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from conftest import save_images

from byol_tf.config import Config, ConfigError
from byol_tf.data import folders
from byol_tf.data.skipped import Skipped
from byol_tf.data.sources import ArraySource, Dataset, EncodedSource


def open_folder(path: str, **settings) -> Dataset:
    return folders.open_folder(path, Config(**settings), Skipped())


def labels_of(source) -> list[int]:
    if isinstance(source, ArraySource):
        return source.labels.tolist()
    return [
        int(source.read(tf.constant(i, tf.int64))[1])
        for i in range(source.size)
    ]


def test_train_and_test_folders(tmp_path):
    save_images(tmp_path / "train/shoe", 3)
    save_images(tmp_path / "train/bag", 2, first=3)
    save_images(tmp_path / "test/shoe", 2, first=5)
    dataset = open_folder(str(tmp_path))
    assert dataset.class_names == ("bag", "shoe")
    assert labels_of(dataset.train) == [0, 0, 1, 1, 1]
    assert labels_of(dataset.test) == [1, 1]


def test_files_of_one_size_are_held_in_memory(tmp_path):
    save_images(tmp_path / "a", 2, suffix="png")
    save_images(tmp_path / "b", 2, suffix="bmp")
    train = open_folder(str(tmp_path)).train
    assert isinstance(train, ArraySource)
    assert train.images.shape[1:] == (30, 40, 3)
    # PNG and BMP lose nothing, so the pixels are those of the files.
    files = sorted(tmp_path.rglob("*.*"))
    found = {image.tobytes() for image in train.images}
    written = {np.asarray(PIL.Image.open(f)).tobytes() for f in files}
    assert found <= written


def test_files_of_several_sizes_are_read_when_needed(tmp_path):
    save_images(tmp_path / "a", 3, size=(40, 30))
    save_images(tmp_path / "a", 3, size=(50, 26), first=3)
    dataset = open_folder(str(tmp_path))
    assert isinstance(dataset.train, EncodedSource)
    assert dataset.train.smallest == 26
    encoded, label = dataset.train.read(tf.constant(4, tf.int64))
    assert encoded == (tmp_path / "a/004.jpg").read_bytes()
    assert label == -1


def test_a_tenth_is_held_out_without_a_test_folder(tmp_path):
    save_images(tmp_path / "a", 30)
    save_images(tmp_path / "b", 30, first=30)
    dataset = open_folder(str(tmp_path))
    assert (dataset.train.size, dataset.test.size) == (54, 6)
    assert sorted(labels_of(dataset.test)) == [0, 0, 0, 1, 1, 1]
    images = [
        i.tobytes() for i in (*dataset.train.images, *dataset.test.images)
    ]
    assert len(set(images)) == 60
    again = open_folder(str(tmp_path))
    np.testing.assert_array_equal(dataset.test.images, again.test.images)


def test_each_class_is_held_out_by_its_tenth(tmp_path):
    for name, count, first in (("a", 40, 0), ("b", 5, 40), ("c", 1, 45)):
        save_images(tmp_path / name, count, first=first)
    dataset = open_folder(str(tmp_path))
    assert np.bincount(dataset.test.labels, minlength=3).tolist() == [4, 1, 0]
    assert np.bincount(dataset.train.labels).tolist() == [36, 4, 1]


def test_a_train_folder_alone_gives_a_tenth_away(tmp_path):
    save_images(tmp_path / "train/a", 20)
    save_images(tmp_path / "train/b", 20, first=20)
    dataset = open_folder(str(tmp_path))
    assert dataset.class_names == ("a", "b")
    assert (dataset.train.size, dataset.test.size) == (36, 4)


def test_a_class_may_be_called_train(tmp_path):
    for first, name in enumerate(("train", "car", "bus")):
        save_images(tmp_path / name, 3, first=3 * first)
    dataset = open_folder(str(tmp_path))
    assert dataset.class_names == ("bus", "car", "train")
    assert dataset.train.size + dataset.test.size == 9


def test_links_are_followed_once(tmp_path):
    save_images(tmp_path / "elsewhere/a", 3)
    save_images(tmp_path / "elsewhere/b", 3, first=3)
    (tmp_path / "photos").mkdir()
    for name in ("a", "b"):
        (tmp_path / "photos" / name).symlink_to(tmp_path / "elsewhere" / name)
    (tmp_path / "elsewhere/a/loop").symlink_to(tmp_path / "photos")
    dataset = open_folder(str(tmp_path / "photos"))
    assert dataset.train.size + dataset.test.size == 6


def test_images_beside_the_classes_have_no_label(tmp_path):
    save_images(tmp_path / "a", 10)
    save_images(tmp_path / "b", 10, first=10)
    save_images(tmp_path, 3, first=20)
    dataset = open_folder(str(tmp_path))
    assert dataset.class_names == ("a", "b")
    assert sorted(labels_of(dataset.train)) == [-1] * 3 + [0] * 9 + [1] * 9
    assert sorted(labels_of(dataset.test)) == [0, 1]
    (note,) = dataset.notes
    assert note.startswith("3 of 23 images lie in")


def test_what_lies_beside_the_splits_is_said(tmp_path):
    for first, name in enumerate(("train/a", "train/b", "test/a", "extra")):
        save_images(tmp_path / name, 2, first=2 * first)
    (note,) = open_folder(str(tmp_path)).notes
    assert note.endswith("beside the splits, not used: extra.")


def test_a_link_to_itself_is_no_folder(tmp_path):
    save_images(tmp_path, 3)
    (tmp_path / "self").symlink_to(tmp_path / "self")
    assert open_folder(str(tmp_path)).train.size == 3


def test_the_same_name_in_two_folders_is_two_images(tmp_path):
    save_images(tmp_path / "a", 5)
    save_images(tmp_path / "b", 5)
    dataset = open_folder(str(tmp_path))
    assert dataset.train.size + dataset.test.size == 10


def test_the_fingerprint_is_that_of_the_names(tmp_path):
    save_images(tmp_path / "a", 10)
    save_images(tmp_path / "b", 10, first=10)
    before = open_folder(str(tmp_path)).fingerprint
    assert open_folder(str(tmp_path)).fingerprint == before
    (tmp_path / "a/000.jpg").rename(tmp_path / "a/zzz.jpg")
    assert open_folder(str(tmp_path)).fingerprint != before


@pytest.mark.parametrize("place", [".", "one", "deep/er"])
def test_images_without_classes(tmp_path, place):
    save_images(tmp_path / place, 4)
    (tmp_path / "notes.txt").write_text("not an image, and not named like one")
    dataset = open_folder(str(tmp_path))
    assert dataset.class_names == ()
    assert dataset.test is None
    assert labels_of(dataset.train) == [-1] * 4


def test_gray_and_palette_files_become_rgb(tmp_path):
    gradient = np.arange(0, 256, 4, dtype=np.uint8).reshape(8, 8)
    PIL.Image.fromarray(gradient).save(tmp_path / "gray.png")
    PIL.Image.fromarray(gradient).convert("P").save(tmp_path / "palette.png")
    images = open_folder(str(tmp_path)).train.images
    for image in images:
        np.testing.assert_array_equal(image, np.stack([gradient] * 3, -1))


def make_nothing(path):
    return "does not exist"


def make_file(path):
    path.write_text("x")
    return "is a file"


def make_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.jpg", b"x")
    return "is an archive; unpack it .unzip"


def make_tar(path):
    with tarfile.open(path, "w:gz"):
        pass
    return "is an archive; unpack it .tar xf"


def make_one_class_twice(path):
    save_images(path / "Dog", 2)
    save_images(path / "dog", 2, first=2)
    return "'Dog' and 'dog' .* differ in case"


def make_a_class_that_is_another(path):
    save_images(path / "cat", 2)
    save_images(path / "dog", 2, first=2)
    (path / "kitten").symlink_to(path / "cat")
    return "kitten.* is a link to .*cat.*two classes"


def make_test_the_same_as_train(path):
    save_images(path / "train/a", 2)
    save_images(path / "train/b", 2, first=2)
    (path / "test").symlink_to(path / "train")
    return "test is the same folder as train"


def make_train_a_class_or_a_split(path):
    save_images(path / "car", 2)
    save_images(path / "train/steam", 2, first=2)
    save_images(path / "train/diesel", 2, first=4)
    return "is train a part of the images, or a class"


def make_test_images_without_class(path):
    for first, name in enumerate(("train/a", "train/b", "test/a", "test")):
        save_images(path / name, 2, first=2 * first)
    return "2 images in .*test lie in no class"


def make_empty(path):
    path.mkdir()
    return "holds no image"


def make_other_files(path):
    path.mkdir()
    (path / "a.txt").write_text("x")
    return "holds no image"


def make_foreign_test_classes(path):
    save_images(path / "train/a", 2)
    save_images(path / "train/b", 2)
    save_images(path / "test/c", 2)
    save_images(path / "test/a", 2)
    return r"classes \(c\) that train has not"


def make_empty_train(path):
    (path / "train").mkdir(parents=True)
    save_images(path / "test/a", 2)
    return "train holds no image"


@pytest.mark.parametrize(
    "make",
    [
        make_nothing,
        make_file,
        make_zip,
        make_tar,
        make_one_class_twice,
        make_a_class_that_is_another,
        make_test_the_same_as_train,
        make_test_images_without_class,
        make_train_a_class_or_a_split,
        make_empty,
        make_other_files,
        make_foreign_test_classes,
        make_empty_train,
    ],
)
def test_bad_folders_are_named(tmp_path, make):
    message = make(tmp_path / "images")
    with pytest.raises(ConfigError, match=message) as error:
        open_folder(str(tmp_path / "images"))
    assert "--dataset" in str(error.value)
    assert "\n" not in str(error.value)
