"""Images and masks: from folders, VOC's and TFDS's, sound and not."""

import numpy as np
import PIL.Image
import pytest
import tensorflow_datasets as tfds
from generated_scenes import CLASS_NAMES, scene, write_segmentation
from mocked_tfds import write_mocked

from byol_tf.config import Config, ConfigError
from byol_tf.data.segmentation_sets import VOC_CLASSES, open_segmentation


def opened(place, **settings):
    config = Config(segmentation_data=place, **settings)
    return open_segmentation(config)


def test_a_folder(tmp_path):
    write_segmentation(tmp_path, 3, 2, size=32)
    splits = opened(f"folder:{tmp_path}")
    assert splits.class_names == CLASS_NAMES
    assert (splits.train.size, splits.test.size) == (3, 2)
    for split in ("train", "test"):
        for number, found in enumerate(getattr(splits, split)):
            made = scene(number, 32, split)
            np.testing.assert_array_equal(found["image"], made.image)
            np.testing.assert_array_equal(found["mask"], made.mask)
    assert opened(f"folder:{tmp_path}").fingerprint == splits.fingerprint


def test_classes_without_names(tmp_path):
    write_segmentation(tmp_path, 8, 1, size=32)
    (tmp_path / "classes.txt").unlink()
    splits = opened(f"folder:{tmp_path}")
    assert splits.class_names == ("0", "1", "2", "3")
    assert "without names" in splits.notes[0]


def voc(root, masks="SegmentationClass", **lists):
    """VOC's layout: masks are PNG with a palette."""
    for name in ("JPEGImages", masks, "ImageSets/Segmentation"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for split, names in lists.items():
        path = root / "ImageSets" / "Segmentation" / f"{split}.txt"
        path.write_text("".join(f"{name}\n" for name in names))
        for name in names:
            image = np.full((10, 12, 3), 90, np.uint8)
            PIL.Image.fromarray(image).save(root / "JPEGImages" / f"{name}.jpg")
            mask = np.full((10, 12), 255, np.uint8)
            mask[:5], mask[5:8] = 0, 20
            picture = PIL.Image.fromarray(mask, "P")
            picture.putpalette([0, 0, 0, 128, 0, 0] + [7] * 762)
            picture.save(root / masks / f"{name}.png")


def test_voc(tmp_path):
    voc(tmp_path, train=["a", "b"], val=["c"])
    splits = opened(f"voc:{tmp_path}")
    assert splits.class_names == VOC_CLASSES and len(VOC_CLASSES) == 21
    assert (splits.train.size, splits.test.size) == (2, 1)
    mask = splits.test.load(0)["mask"]
    assert mask[:, 0].tolist() == [0] * 5 + [20] * 3 + [255] * 2
    assert "10,582" in splits.notes[0]


def test_augmented_voc(tmp_path):
    voc(tmp_path, train=["a"], val=["c"])
    voc(tmp_path, "SegmentationClassAug", train_aug=["a", "d", "e"])
    splits = opened(f"voc:{tmp_path}")
    assert splits.train.size == 3 and not splits.notes
    assert "SegmentationClassAug" not in splits.test.name_of(0)


def save_mask(root, name, mask):
    PIL.Image.fromarray(mask).save(root / "train" / "masks" / name)


def test_scenes_that_cannot_be_used_are_counted(tmp_path):
    write_segmentation(tmp_path, 7, 1, size=32)
    masks = tmp_path / "train" / "masks"
    save_mask(tmp_path, "0.png", np.zeros((32, 31), np.uint8))
    save_mask(tmp_path, "1.png", np.full((32, 32), 255, np.uint8))
    save_mask(tmp_path, "2.png", np.full((32, 32), 4, np.uint8))
    save_mask(tmp_path, "3.png", np.zeros((32, 32, 3), np.uint8))
    (masks / "4.png").write_bytes(b"no image")
    (masks / "5.png").unlink()
    negative = PIL.Image.fromarray(np.full((32, 32), -254, np.int32))
    negative.save(masks / "5.tif")
    splits = opened(f"folder:{tmp_path}", max_corrupt_fraction=0.5)
    assert len(list(splits.train)) == 1
    reasons = sorted(
        (path.rpartition("/")[2], why)
        for path, why in splits.skipped.reasons.items()
    )
    assert reasons[:4] == [
        ("0.png", "its mask has 31 x 32 pixels, the image 32 x 32"),
        ("1.png", "all of its mask is to be ignored"),
        ("2.png", "its mask has class 4, and there are 4"),
        (
            "3.png",
            "its mask has RGB pixels; a mask has one number of a class in each",
        ),
    ]
    assert reasons[4][0] == "4.png"
    assert "its mask cannot be read" in reasons[4][1]
    assert reasons[5] == ("5.png", "its mask has numbers outside 0 to 255")
    with pytest.raises(ConfigError, match="6 of 8 images cannot be used"):
        splits.skipped.check()


@pytest.mark.parametrize(
    "place, message",
    [
        ("", "name voc:PATH"),
        ("cityscapes:x", "name voc:PATH"),
        ("folder:nowhere", "nowhere does not exist"),
        ("voc:nowhere", "e.g. VOCdevkit/VOC2012"),
        ("tfds:nothing_of_the_kind", "is no TensorFlow Dataset"),
    ],
)
def test_data_that_are_not_there(place, message):
    with pytest.raises(ConfigError, match=message):
        opened(place)


def test_folders_without_pairs(tmp_path):
    (tmp_path / "train" / "images").mkdir(parents=True)
    with pytest.raises(ConfigError, match="train and test"):
        opened(f"folder:{tmp_path}")
    (tmp_path / "test").mkdir()
    with pytest.raises(ConfigError, match="train/masks does not exist"):
        opened(f"folder:{tmp_path}")
    (tmp_path / "train" / "masks").mkdir()
    with pytest.raises(ConfigError, match="no image in .* has a file of its"):
        opened(f"folder:{tmp_path}")


def test_tfds(tmp_path, monkeypatch):
    """Pets have masks of 1, 2 and 3, which TFDS has no names of."""

    def with_mask(number, example):
        shape = example["image"].shape[:2]
        mask = np.full((*shape, 1), 1 + number % 3, np.uint8)
        # Those of the mock are degenerate, which TFDS does not write.
        box = tfds.features.BBox(0.0, 0.0, 1.0, 1.0)
        return {**example, "segmentation_mask": mask, "head_bbox": box}

    sizes = {"train": 3, "test": 2}
    write_mocked("oxford_iiit_pet", tmp_path, monkeypatch, sizes, with_mask)
    splits = opened("tfds:oxford_iiit_pet", data_dir=str(tmp_path))
    assert splits.class_names == ("0", "1", "2", "3")
    found = [np.unique(scene["mask"]).tolist() for scene in splits.train]
    assert sorted(found) == [[1], [2], [3]]
    assert splits.test.size == 2


def test_tfds_without_masks(tmp_path, monkeypatch):
    write_mocked(
        "voc/2007",
        tmp_path,
        monkeypatch,
        {"train": 1, "test": 1},
        lambda number, example: {**example, "objects": []},
    )
    with pytest.raises(ConfigError, match="TFDS has none: take voc:PATH"):
        opened("tfds:voc/2007", data_dir=str(tmp_path))
