"""The protocol `detection`: its batches, its pictures, its report."""

import json

import numpy as np
import PIL.Image
import pytest
from conftest import run
from generated_scenes import write_detection

import byol_tf
from byol_tf import scene_sheets
from byol_tf.config import Config
from byol_tf.dense.average_precision import Found, Truth
from byol_tf.dense.detection import Detection, limits, scaled

TASK = Detection()


def test_the_longer_side_is_at_most_five_thirds():
    assert limits((800, 1333)) == (800, 1333)
    assert limits((96, 96)) == (96, 160)
    assert limits((600, 1000)) == (600, 1000)


def painted(height, width):
    """Two objects, each of a colour of its own, and one that is ignored."""
    boxes = np.float32([[10, 20, 60, 90], [50, 100, 90, 150], [2, 3, 9, 20]])
    image = np.zeros((height, width, 3), np.uint8)
    for channel, (top, left, bottom, right) in enumerate(boxes.astype(int)):
        image[top:bottom, left:right, channel] = 255
    return {
        "image": image,
        "boxes": boxes,
        "labels": np.array([4, 0, 2]),
        "ignored": np.array([False, False, True]),
    }


@pytest.mark.parametrize("height, width", [(100, 160), (120, 151), (300, 160)])
def test_boxes_stay_on_their_objects(height, width):
    scene = painted(height, width)
    sizes, lefts = set(), set()
    for number in range(30):
        image, size, boxes, labels, _ = scaled(
            scene, np.random.default_rng(number), (80, 120)
        )
        np.testing.assert_array_equal(image.shape[:2], size)
        assert (48 <= min(size) <= 80 and max(size) <= 120) or max(size) == 120
        assert size[0] / size[1] == pytest.approx(height / width, rel=0.03)
        assert labels.tolist() == [5, 1, -1]
        for channel, box in enumerate(boxes):
            rows, columns = np.nonzero(image[..., channel] > 127)
            found = [rows.min(), columns.min(), rows.max() + 1]
            found.append(columns.max() + 1)
            np.testing.assert_allclose(found, box, atol=0.8)
        sizes.add(min(size))
        lefts.add(boxes[0, 1] < boxes[1, 1])
    assert len(sizes) > 5 or max(size) == 120
    assert lefts == {True, False}  # Flipped and not.


def test_an_image_without_objects():
    scene = painted(100, 160)
    for name in ("boxes", "labels", "ignored"):
        scene[name] = scene[name][:0]
    for number in range(2):
        random = np.random.default_rng(number)
        _, _, boxes, labels, _ = scaled(scene, random, (80, 120))
        assert boxes.shape == (0, 4) and labels.shape == (0,)


def opened(folder, train=6, test=2, size=32):
    write_detection(folder, train, test, size)
    return TASK.open(Config(detection_data=f"coco:{folder}"))


def test_batches_are_padded_and_go_on(tmp_path):
    splits = opened(tmp_path)
    size = (64, 64)

    def stream(first_step, worker=0, workers=1):
        batches = TASK.batches(
            splits.train, 4, size, 3, first_step, worker, workers
        )
        return [tuple(map(np.asarray, b)) for b in batches.take(3)]

    batches = stream(0)
    sides = set()
    for images, sizes, boxes, labels, draws in batches:
        assert images.shape[1:3] == tuple(sizes.max(axis=0))
        sides |= set(sizes[:, 0])
        for image, (height, width) in zip(images, sizes.astype(int)):
            assert not image[height:].any() and not image[:, width:].any()
            assert image[:height, :width].any()
        assert boxes.shape == (*labels.shape, 4)
        assert ((boxes[..., 2] > boxes[..., 0]) == (labels > 0)).all()
        assert len(set(draws)) == 4
    assert len(sides) > 3
    for one, other in zip(batches[1:], stream(1)):
        for a, b in zip(one, other):
            np.testing.assert_array_equal(a, b)
    # The parts of two workers are the batch; each padded for itself.
    halves = zip(stream(0, 0, 2), stream(0, 1, 2))
    for whole, (first, second) in zip(batches, halves):
        np.testing.assert_array_equal(whole[4], [*first[4], *second[4]])
        np.testing.assert_array_equal(whole[1], [*first[1], *second[1]])


def test_published_recipe():
    recipe = TASK.recipe
    assert (recipe.steps, recipe.batch_size) == (24000, 16)
    assert (recipe.weight_decay, recipe.size) == (1e-4, (800, 1333))
    schedule = recipe.schedule(recipe.rate, recipe.steps, 100)
    rates = [float(schedule(step)) for step in (100, 17999, 18000, 22000)]
    np.testing.assert_allclose(rates, [0.02, 0.02, 0.002, 0.0002], rtol=1e-5)


def test_a_sheet(tmp_path):
    scene = painted(100, 160)
    truth = Truth(scene["boxes"], scene["labels"], scene["ignored"])
    found = Found(scene["boxes"], scene["labels"], np.array([0.9, 0.6, 0.4]))
    nothing = Found(*(array[:0] for array in found))
    scene_sheets.draw_boxes(
        [(scene["image"], truth, found), (scene["image"], truth, nothing)],
        tuple("abcde"),
        tmp_path / "sheet.png",
    )
    with PIL.Image.open(tmp_path / "sheet.png") as sheet:
        pixels = np.asarray(sheet.convert("RGB")).astype(int)
    assert pixels.shape[0] > 400 and pixels.shape[1] > 500
    # Blue is of class 0, in both of the truths and in the first prediction.
    blue = (abs(pixels - [31, 119, 180]).sum(axis=2) < 30).sum()
    assert blue > 200


@pytest.mark.slow
def test_the_job(tmp_path):
    """All of it, with a network that learns nothing in two steps."""
    write_detection(tmp_path / "scenes", 4, 3, size=32)
    encoder = byol_tf.ResNet(
        blocks=(1, 1, 1), channels=(8, 12, 16), stem_channels=8
    )
    encoder.save(tmp_path / "encoder.keras")
    result = run(
        "--mode=evaluate",
        "--protocols=detection",
        f"--encoder={tmp_path / 'encoder.keras'}",
        f"--run_dir={tmp_path / 'run'}",
        f"--detection_data=coco:{tmp_path / 'scenes'}",
        "--dense_steps=2",
        "--dense_batch_size=2",
        "--dense_size=32",
    )
    assert result.returncode == 0, result.stderr
    for text in ("AP50, COCO's", "AP50, 11 points", "77.5 (VOC2007)"):
        assert text in result.stdout, result.stdout
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    (protocol,) = report["protocols"]
    metrics = [row["metric"] for row in protocol["rows"]]
    assert sorted(metrics) == ["ap", "ap50", "voc_ap50"]
    for row in protocol["rows"]:
        assert 0 <= row["low"] <= row["value"] <= row["high"] <= 1
    assert "size (32, 32), not (800, 1333)" in protocol["differs"]
    sheet = tmp_path / "run" / protocol["sheet"]
    assert sheet.is_file() and (sheet.parent / "saved_model").is_dir()
    # COCO's code says nothing of its own.
    assert "loading" not in result.stdout.lower()
    assert "index" not in result.stdout.lower()
