"""Listing folders, and what the cache of an index is trusted with."""

import os
import pathlib

import numpy as np
import PIL.Image
import pytest
from conftest import save_images

from byol_tf.data import index as index_module
from byol_tf.data.index import index_folder


@pytest.fixture
def folder(tmp_path) -> pathlib.Path:
    save_images(tmp_path / "photos/b", 2, (40, 30))
    save_images(tmp_path / "photos/a/deep", 2, (33, 41), "webp", first=2)
    (tmp_path / "photos/a/notes.txt").write_text("no image by its name")
    (tmp_path / "photos/.hidden").mkdir()
    (tmp_path / "photos/.hidden/x.jpg").write_text("hidden")
    (tmp_path / "photos/b/._000.jpg").write_text("hidden")
    return tmp_path / "photos"


@pytest.fixture
def cache(tmp_path) -> pathlib.Path:
    return tmp_path / "cache"


@pytest.fixture
def opened(monkeypatch) -> list[str]:
    """Names of the files whose headers are read."""
    names, read = [], index_module._image_shape

    def image_shape(path):
        names.append(os.path.basename(path))
        return read(path)

    monkeypatch.setattr(index_module, "_image_shape", image_shape)
    return names


def test_files_sizes_and_shapes(folder):
    index = index_folder(str(folder), None)
    assert index.names == [
        "a/deep/002.webp",
        "a/deep/003.webp",
        "b/000.jpg",
        "b/001.jpg",
    ]
    assert index.shapes.tolist() == [[41, 33]] * 2 + [[30, 40]] * 2
    for name, (size, time) in zip(index.names, index.stats, strict=True):
        status = (folder / name).stat()
        assert (size, time) == (status.st_size, status.st_mtime_ns)


def test_a_header_is_read_once(folder, cache, opened):
    first = index_folder(str(folder), cache)
    assert len(opened) == 4
    opened.clear()
    second = index_folder(str(folder), cache)
    assert opened == []
    assert first.names == second.names
    np.testing.assert_array_equal(first.shapes, second.shapes)


def test_only_what_changed_is_read_again(folder, cache, opened):
    index_folder(str(folder), cache)
    opened.clear()
    save_images(folder / "c", 1, (20, 22), first=9)  # Added.
    (folder / "b/001.jpg").unlink()  # Removed.
    PIL.Image.new("RGB", (50, 60)).save(folder / "b/000.jpg")  # Other size.
    index = index_folder(str(folder), cache)
    assert sorted(opened) == ["000.jpg", "009.jpg"]
    shapes = dict(zip(index.names, index.shapes.tolist(), strict=True))
    assert shapes["b/000.jpg"] == [60, 50]
    assert shapes["c/009.jpg"] == [22, 20]
    opened.clear()
    path = folder / "b/000.jpg"  # Another time, and else the same.
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 1))
    index_folder(str(folder), cache)
    assert opened == ["000.jpg"]


def test_a_damaged_cache_is_none(folder, cache, opened):
    first = index_folder(str(folder), cache)
    (file,) = cache.iterdir()
    file.write_bytes(file.read_bytes()[:100])
    second = index_folder(str(folder), cache)
    np.testing.assert_array_equal(first.shapes, second.shapes)
    assert len(opened) == 8


def test_a_cache_that_cannot_be_written_is_none(folder, cache):
    cache.write_text("a file in its place")
    assert len(index_folder(str(folder), cache).names) == 4


def test_only_a_sample_of_many_headers_is_read(folder, opened, monkeypatch):
    monkeypatch.setattr(index_module, "SAMPLE", 2)
    index = index_folder(str(folder), None)
    assert len(opened) == 2
    assert index.shapes.tolist() == [[41, 33], [-1, -1], [30, 40], [-1, -1]]


def test_what_is_no_image(folder):
    (folder / "b/000.jpg").write_bytes(b"")
    (folder / "b/001.jpg").write_text("text")
    (folder / "b/002.jpg").symlink_to(folder / "nowhere")
    (folder / "b/folder.jpg").mkdir()
    os.mkfifo(folder / "b/pipe.jpg")  # To read it would take for ever.
    index = index_folder(str(folder), None)
    assert index.names[2:] == ["b/000.jpg", "b/001.jpg", "b/002.jpg"]
    assert index.shapes[2:].tolist() == [[0, 0]] * 3
    assert index.stats[-1].tolist() == [-1, -1]
    assert index.irregular == ["b/pipe.jpg"]


def test_a_folder_is_entered_once_and_by_its_own_name(folder):
    (folder / "0_link").symlink_to(folder / "b")
    (folder / "a/loop").symlink_to(folder)
    index = index_folder(str(folder), None)
    assert len(index.names) == 4
    assert sorted(index.linked_twice) == [("", "a/loop/"), ("b/", "0_link/")]


def test_names_that_are_no_utf8(folder):
    name = os.fsdecode(b"b/\xff\xfe.png")
    PIL.Image.new("RGB", (5, 6)).save(folder / "x.png")
    (folder / "x.png").rename(folder / name)
    index = index_folder(str(folder), None)
    assert name in index.names
