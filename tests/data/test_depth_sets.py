"""Images and depths: from folders and TFDS's, sound and not."""

import numpy as np
import PIL.Image
import pytest
from generated_scenes import scene, write_depth
from mocked_tfds import write_mocked

from byol_tf.config import Config, ConfigError
from byol_tf.data.depth_sets import open_depth


def opened(place, **settings):
    return open_depth(Config(depth_data=place, **settings))


def test_a_folder(tmp_path):
    write_depth(tmp_path, 3, 2, size=32)
    splits = opened(f"folder:{tmp_path}")
    assert (splits.train.size, splits.test.size) == (3, 2)
    for split in ("train", "test"):
        for number, found in enumerate(getattr(splits, split)):
            made = scene(number, 32, split)
            np.testing.assert_array_equal(found["image"], made.image)
            np.testing.assert_allclose(found["depth"], made.depth, atol=6e-4)


def test_units_and_arrays(tmp_path):
    write_depth(tmp_path, 2, 1, size=32)
    made = scene(0, 32).depth
    np.save(tmp_path / "train" / "depths" / "0.npy", made)
    (tmp_path / "train" / "depths" / "0.png").unlink()
    splits = opened(f"folder:{tmp_path}", depth_unit=0.01)
    np.testing.assert_array_equal(splits.train.load(0)["depth"], made)
    np.testing.assert_allclose(
        splits.train.load(1)["depth"], 10 * scene(1, 32).depth, atol=6e-3
    )


def test_scenes_that_cannot_be_used_are_counted(tmp_path):
    write_depth(tmp_path, 9, 1, size=32)
    depths = tmp_path / "train" / "depths"

    def save(number, array):
        (depths / f"{number}.png").unlink()
        np.save(depths / f"{number}.npy", array)

    save(0, np.zeros((32, 32)))
    save(1, np.full((32, 32), np.nan))
    save(2, np.ones((16, 32)))
    save(3, np.ones((32, 32, 3)))
    some = np.full((32, 32), 2.0)
    some[0, :3] = -1, np.inf, np.nan
    save(4, some)
    color = PIL.Image.fromarray(np.zeros((32, 32, 3), np.uint8))
    color.save(depths / "5.png")
    (depths / "6.png").unlink()
    with (depths / "6.NPY").open("wb") as file:
        np.savez(file, np.ones((32, 32)))
    (depths / "7.png").unlink()
    splits = opened(f"folder:{tmp_path}")
    assert splits.notes[0].startswith("1 of 9 images in ")
    whole = list(splits.train)
    assert len(whole) == 2
    np.testing.assert_array_equal(whole[0]["depth"][0, :4], [0, 0, 0, 2])
    reasons = splits.skipped.reasons
    assert [reasons[path] for path in sorted(reasons)] == [
        "none of its depths is known",
        "none of its depths is known",
        "its depths have 32 x 16 pixels, the image 32 x 32",
        "its depths are float64 [32, 32, 3], and must be numbers [height, "
        "width]",
        "its depths have RGB pixels; depths have one number in each",
        "its depths are <U5 [1], and must be numbers [height, width]",
    ]


def test_tfds(tmp_path, monkeypatch):
    def with_depth(number, example):
        depth = np.full((480, 640), 1 + number, np.float16)
        depth[:, 0] = np.nan if number else 0
        return {**example, "depth": depth}

    sizes = {"train": 2, "validation": 1}
    write_mocked("nyu_depth_v2", tmp_path, monkeypatch, sizes, with_depth)
    splits = opened("tfds:nyu_depth_v2", data_dir=str(tmp_path))
    assert (splits.train.size, splits.test.size) == (2, 1)
    for found in splits.train:
        assert found["image"].shape == (480, 640, 3)
        assert found["depth"].dtype == np.float32
        assert (found["depth"][:, 0] == 0).all()
        assert found["depth"][0, 1] in (1, 2)


@pytest.mark.parametrize(
    "place, message",
    [
        ("", "name folder:PATH or tfds:NAME"),
        ("folder:nowhere", "nowhere does not exist"),
        ("tfds:nothing_of_the_kind", "is no TensorFlow Dataset"),
    ],
)
def test_data_that_are_not_there(place, message):
    with pytest.raises(ConfigError, match=message):
        opened(place)
