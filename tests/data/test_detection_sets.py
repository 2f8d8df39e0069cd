"""Images and boxes: VOC's, COCO's and TFDS's, sound and not."""

import json

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from generated_scenes import (
    CLASSES,
    VOC_NAMES,
    scene,
    write_detection,
    write_voc_detection,
)
from mocked_tfds import write_mocked

from byol_tf.config import Config, ConfigError
from byol_tf.data import detection_sets, tfds_scenes
from byol_tf.data.detection_sets import VOC_CLASSES, open_detection
from byol_tf.data.scenes import BadScene


def opened(place, **settings):
    return open_detection(Config(detection_data=place, **settings))


def test_coco(tmp_path):
    write_detection(tmp_path, 3, 2, size=32)
    splits = opened(f"coco:{tmp_path}")
    assert splits.class_names == tuple(CLASSES)
    assert (splits.train.size, splits.test.size) == (3, 2)
    for split in ("train", "test"):
        for number, found in enumerate(getattr(splits, split)):
            made = scene(number, 32, split)
            for name in ("image", "boxes", "labels"):
                np.testing.assert_array_equal(found[name], getattr(made, name))
            assert found["ignored"].tolist() == [False] * len(made.labels)
    assert not splits.skipped.reasons
    assert opened(f"coco:{tmp_path}").fingerprint == splits.fingerprint
    path, content = coco_file(tmp_path)
    content["annotations"][0]["bbox"][0] += 1
    path.write_text(json.dumps(content))
    moved = opened(f"coco:{tmp_path}").fingerprint
    assert moved != splits.fingerprint
    content["annotations"][0]["iscrowd"] = 1
    path.write_text(json.dumps(content))
    assert opened(f"coco:{tmp_path}").fingerprint not in (
        moved,
        splits.fingerprint,
    )


def coco_file(root, split="train"):
    path = root / "annotations" / f"instances_{split}.json"
    return path, json.loads(path.read_text())


def test_names_with_a_year(tmp_path):
    write_detection(tmp_path, 2, 1, size=32)
    for split in ("train", "val"):
        path, _ = coco_file(tmp_path, split)
        path.rename(path.with_stem(f"{path.stem}2017"))
        (tmp_path / split).rename(tmp_path / f"{split}2017")
    assert len(list(opened(f"coco:{tmp_path}").train)) == 2


def test_boxes_of_all_kinds(tmp_path):
    """Left, top, width, height as COCO has them, in an image of 32."""
    write_detection(tmp_path, 3, 1, size=32)
    path, content = coco_file(tmp_path)
    boxes = [
        [-4, 5, 10, 20],  # Stands out.
        [40, 40, 5, 5],  # Is outside.
        [3, 3, 0, 7],  # Has no area.
        [9, 9, -3, 4],  # Is turned.
        [float("nan"), 1, 2, 3],
        [1, 2, 3, 4],  # A crowd.
    ]
    content["annotations"] = [
        {
            "id": 1 + i,
            "image_id": 0,
            "category_id": 12,
            "bbox": box,
            "iscrowd": int(i == 5),
        }
        for i, box in enumerate(boxes)
    ]
    path.write_text(json.dumps(content))
    splits = opened(f"coco:{tmp_path}", max_corrupt_fraction=0)
    first, second, third = splits.train
    np.testing.assert_array_equal(first["boxes"], [[5, 0, 25, 6], [2, 1, 6, 4]])
    assert first["labels"].tolist() == [1, 1]
    assert first["ignored"].tolist() == [False, True]
    for empty in (second, third):  # Images without objects are used.
        assert empty["boxes"].shape == (0, 4)
        assert empty["labels"].shape == empty["ignored"].shape == (0,)
    reasons = list(splits.skipped.reasons.values())
    assert [reason.partition(" (")[0] for reason in reasons] == [
        "has no area in the image",
        "has no area in the image",
        "is turned inside out",
        "is not finite",
    ]
    assert next(iter(splits.skipped.reasons)).endswith("0000.png, box 1")
    splits.skipped.check()  # No image is missing.
    splits.skipped.keep_in(tmp_path / "skipped.txt")
    again = opened(f"coco:{tmp_path}", max_corrupt_fraction=0)
    again.skipped.keep_in(tmp_path / "skipped.txt")
    list(again.train)
    again.skipped.check()  # Nor when the list is gone on with.
    assert len((tmp_path / "skipped.txt").read_text().splitlines()) == 4


def test_images_that_cannot_be_used_are_counted(tmp_path):
    write_detection(tmp_path, 4, 1, size=32)
    path, content = coco_file(tmp_path)
    content["annotations"] = [
        {"id": 1, "image_id": 0, "category_id": 99, "bbox": [1, 1, 2, 2]}
    ]
    path.write_text(json.dumps(content))
    (tmp_path / "train" / "0001.png").unlink()
    (tmp_path / "train" / "0002.png").write_bytes(b"no image")
    splits = opened(f"coco:{tmp_path}", max_corrupt_fraction=0.5)
    assert len(list(splits.train)) == 1
    assert sorted(splits.skipped.reasons.values()) == [
        "No such file or directory",
        "an object has category 99, which is none of its file's",
        "no image",
    ]
    with pytest.raises(ConfigError, match="3 of 5 images cannot be used"):
        splits.skipped.check()


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda c: c.pop("images"), "KeyError 'images'"),
        (lambda c: c["annotations"][0].update(image_id=99), "KeyError 99"),
        (lambda c: c["annotations"][0].update(bbox=[1]), "ValueError not eno"),
        (lambda c: c["annotations"][0].update(category_id=[1]), "TypeError"),
        (lambda c: c["annotations"][0].update(bbox=None), "TypeError"),
        (lambda c: c["images"][0].update(file_name=3), "TypeError"),
        (lambda c: c["categories"].clear(), "no images, or no categories"),
        (lambda c: c["categories"].pop(), "the classes of .* differ"),
    ],
)
def test_broken_coco(tmp_path, change, message):
    write_detection(tmp_path, 2, 1, size=32)
    path, content = coco_file(tmp_path)
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=message) as error:
        opened(f"coco:{tmp_path}")
    assert "\n" not in str(error.value)


def test_coco_that_is_cut_off(tmp_path):
    write_detection(tmp_path, 2, 1, size=32)
    path, _ = coco_file(tmp_path)
    path.write_text(path.read_text()[:200])
    with pytest.raises(ConfigError, match="instances_train.json is no file"):
        opened(f"coco:{tmp_path}")


def test_voc(tmp_path):
    write_voc_detection(tmp_path, 3, 2, size=32)
    splits = opened(f"voc:{tmp_path}")
    assert splits.class_names == VOC_CLASSES and len(VOC_CLASSES) == 20
    assert VOC_CLASSES[0] == "aeroplane" and VOC_CLASSES[-1] == "tvmonitor"
    assert (splits.train.size, splits.test.size) == (3, 2)
    for split in ("train", "test"):
        for number, found in enumerate(getattr(splits, split)):
            made = scene(number, 32, split)
            np.testing.assert_array_equal(found["boxes"], made.boxes)
            names = [VOC_CLASSES[label] for label in found["labels"]]
            assert names == [VOC_NAMES[label] for label in made.labels]
            last = [False] * (len(names) - 1) + [True]
            assert found["ignored"].tolist() == last[: len(names)]
    assert not splits.skipped.reasons


@pytest.mark.parametrize(
    "text, message",
    [
        ("<annotation><obj", "is no annotation of VOC"),
        ("<annotation><object><name>cat</name></object></annotation>", "VOC"),
        (
            "<annotation><object><name>unicorn</name><bndbox><xmin>1</xmin>"
            "<ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object>"
            "</annotation>",
            "is no annotation of VOC: 'unicorn' is no class of its",
        ),
        (
            "<annotation><object><name>cat</name><bndbox><xmin>a</xmin>"
            "<ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object>"
            "</annotation>",
            "could not convert",
        ),
        (
            '<?xml version="1.0" encoding="no-such"?><annotation/>',
            "is no annotation of VOC",
        ),
        (None, "No such file"),
    ],
)
def test_broken_voc(tmp_path, text, message):
    write_voc_detection(tmp_path, 2, 1, size=32)
    path = tmp_path / "Annotations" / "trainval_1.xml"
    path.unlink()
    if text is not None:
        path.write_text(text)
    splits = opened(f"voc:{tmp_path}")
    assert len(list(splits.train)) == 1
    ((name, reason),) = splits.skipped.reasons.items()
    assert name.endswith("JPEGImages/trainval_1.jpg")
    assert message in reason and "trainval_1.xml" in reason
    with pytest.raises(ConfigError, match="1 of 3 images cannot be used"):
        splits.skipped.check()


def test_parts_of_voc_s_persons_are_no_objects(tmp_path):
    write_voc_detection(tmp_path, 1, 1, size=32)
    (tmp_path / "Annotations" / "trainval_0.xml").write_text(
        "<annotation><object><name>person</name><part><name>head</name>"
        "<bndbox><xmin>9</xmin><ymin>9</ymin><xmax>9</xmax><ymax>9</ymax>"
        "</bndbox></part><bndbox><xmin>1</xmin><ymin>2.0</ymin><xmax>8.5</xmax>"
        "<ymax>32</ymax></bndbox></object></annotation>"
    )
    (found,) = opened(f"voc:{tmp_path}").train
    np.testing.assert_allclose(found["boxes"], [[1, 0, 32, 8.5]])
    assert found["labels"].tolist() == [VOC_CLASSES.index("person")]


@pytest.mark.parametrize(
    "place, message",
    [
        ("", "name voc:PATH"),
        ("folder:x", "name voc:PATH, coco:PATH or tfds:NAME"),
        ("voc:nowhere", "e.g. VOCdevkit/VOC2007"),
        ("coco:nowhere", "no instances_train2017.json and no instances_train"),
        ("tfds:nothing_of_the_kind", "is no TensorFlow Dataset"),
    ],
)
def test_data_that_are_not_there(place, message):
    with pytest.raises(ConfigError, match=message):
        opened(place)


def test_files_that_are_missing(tmp_path):
    write_detection(tmp_path / "coco", 1, 1, size=32)
    (tmp_path / "coco" / "val").rename(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="coco/val does not exist"):
        opened(f"coco:{tmp_path / 'coco'}")
    write_voc_detection(tmp_path / "voc", 1, 1, size=32)
    names = tmp_path / "voc" / "ImageSets" / "Main" / "test.txt"
    names.write_text("")
    with pytest.raises(ConfigError, match=r"test.txt names no image"):
        opened(f"voc:{tmp_path / 'voc'}")
    names.unlink()
    with pytest.raises(ConfigError, match=r"test.txt does not exist"):
        opened(f"voc:{tmp_path / 'voc'}")


def test_a_class_out_of_range():
    image = np.zeros((8, 8, 3), np.uint8)
    box = [[0, 0, 4, 4]]
    detection_sets.scene(image, box, [2], [False], 3)
    for label in (3, -1):
        with pytest.raises(BadScene, match=f"class {label}, and there are 3"):
            detection_sets.scene(image, box, [label], [False], 3)


def with_objects(number, example, **more):
    """The image's upper half and all of it, and a box without an area."""
    boxes = [[0, 0, 0.5, 1], [0, 0, 1, 1], [0, 0, 0, 0]]
    objects = {
        "bbox": np.float32(boxes),
        "label": np.array([number, number + 1, 0]),
        **{key: np.array(values) for key, values in more.items()},
    }
    return {**example, "objects": objects}


def test_tfds_voc(tmp_path, monkeypatch):
    def changed(number, example):
        pixel = 1 / np.array(example["image"].shape[:2] * 2)
        example = with_objects(
            number,
            example,
            is_difficult=[False, True, False],
            is_truncated=[False] * 3,
            pose=[0] * 3,
        )
        # Its first pixel is 1.
        example["objects"]["bbox"][:2, :2] += pixel[:2]
        return example

    sizes = {"train": 2, "validation": 1, "test": 2}
    write_mocked("voc/2007", tmp_path, monkeypatch, sizes, changed)
    splits = opened("tfds:voc/2007", data_dir=str(tmp_path))
    assert splits.class_names == VOC_CLASSES
    assert (splits.train.size, splits.test.size) == (2, 2)
    assert "train+validation" in splits.notes[0]
    labels = []
    for found in splits.train:
        height, width = found["image"].shape[:2]
        np.testing.assert_allclose(
            found["boxes"],
            [[0, 0, height / 2, width], [0, 0, height, width]],
            atol=1e-3,
        )
        assert found["ignored"].tolist() == [False, True]
        labels.append(found["labels"].tolist())
    assert sorted(labels) == [[0, 1], [1, 2]]
    assert len(splits.skipped.reasons) == 2 and len(splits.skipped) == 0
    both = opened(
        "tfds:voc/2007",
        data_dir=str(tmp_path),
        train_split="train+validation",
    )
    assert both.train.size == 3 and not both.notes


def test_tfds_coco(tmp_path, monkeypatch):
    def changed(number, example):
        example = with_objects(
            number,
            example,
            is_crowd=[False, True, False],
            area=[1, 2, 3],
            id=[1, 2, 3],
        )
        if number == 2:  # Nothing is to be seen.
            objects = example["objects"]
            example["objects"] = {key: objects[key][:0] for key in objects}
        return example

    sizes = {"train": 2, "validation": 3, "test": 1}
    write_mocked("coco/2017", tmp_path, monkeypatch, sizes, changed)
    splits = opened("tfds:coco/2017", data_dir=str(tmp_path))
    assert len(splits.class_names) == 80
    assert splits.test.size == 3  # Its split `test` has no objects.
    empty = 0
    for found in splits.test:
        height, width = found["image"].shape[:2]
        if not len(found["labels"]):
            assert found["boxes"].shape == (0, 4)
            empty += 1
            continue
        np.testing.assert_allclose(
            found["boxes"],
            [[0, 0, height / 2, width], [0, 0, height, width]],
            atol=1e-3,
        )
        assert found["ignored"].tolist() == [False, True]
    assert empty == 1


@pytest.mark.parametrize("name", ["voc/2007", "coco/2017"])
def test_the_mock_s_own_boxes(name, monkeypatch):
    """Random numbers, many turned inside out, which TFDS does not write."""
    with tfds.testing.mock_data(num_examples=20):
        builder = tfds.builder(name)
        examples = list(tfds.as_numpy(builder.as_dataset(split="train")))
    for example in examples:  # The mock gives each list a length of its own.
        objects = example["objects"]
        count = min(map(len, objects.values()))
        example["objects"] = {key: objects[key][:count] for key in objects}

    def example_of(number):
        image = tf.io.encode_png(examples[number]["image"]).numpy()
        return {"image": image, "objects": examples[number]["objects"]}

    monkeypatch.setattr(tfds_scenes, "prepared_builder", lambda *_: builder)
    monkeypatch.setattr(
        tfds_scenes, "examples_of", lambda *_: (len(examples), example_of)
    )
    splits = opened(f"tfds:{name}")
    scenes = list(splits.train)
    assert len(scenes) == len(examples)
    kept = 0
    for scene_, example in zip(scenes, examples):
        boxes, (height, width) = scene_["boxes"], scene_["image"].shape[:2]
        assert (boxes[:, :2] < boxes[:, 2:]).all()
        assert boxes.min(initial=0) >= 0
        assert (boxes <= [height, width, height, width]).all()
        known = set(example["objects"]["label"])
        assert set(scene_["labels"]) <= known
        kept += len(boxes)
    given = sum(len(example["objects"]["bbox"]) for example in examples)
    assert 0 < kept < given
    assert kept + len(splits.skipped.reasons) == given


def test_tfds_without_boxes(tmp_path, monkeypatch):
    sizes = {"train": 1, "test": 1}
    write_mocked("oxford_iiit_pet", tmp_path, monkeypatch, sizes)
    with pytest.raises(ConfigError, match="has no `objects`"):
        opened("tfds:oxford_iiit_pet", data_dir=str(tmp_path))


def test_whatever_boxes_there_are_the_rest_is_sound():
    random = np.random.default_rng(0)
    boxes = random.normal(10, 30, size=(500, 4))
    boxes[random.random(boxes.shape) < 0.02] = np.nan
    boxes[random.random(boxes.shape) < 0.02] = -np.inf
    image = np.zeros((20, 30, 3), np.uint8)
    labels = np.arange(500)
    found = detection_sets.scene(image, boxes, labels, labels % 7 == 0, 500)
    assert 20 < len(found["boxes"]) < 480
    assert len(found["boxes"]) + len(found["dropped"]) == 500
    assert (found["boxes"][:, :2] < found["boxes"][:, 2:]).all()
    assert found["boxes"].min() >= 0
    assert (found["boxes"].max(axis=0) <= [20, 30, 20, 30]).all()
    # Those that remain keep their own labels.
    np.testing.assert_array_equal(found["ignored"], found["labels"] % 7 == 0)
    inside = np.clip(boxes[found["labels"]], 0, [20, 30, 20, 30])
    np.testing.assert_allclose(found["boxes"], inside, atol=1e-5)
