"""What is drawn in which row of a task's sheet of pictures."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from byol_tf.dense.depth import Depth
from byol_tf.dense.detection import Detection
from byol_tf.dense.segmentation import Segmentation

SIZE = (20, 30)
RED = np.zeros((*SIZE, 3), np.uint8) + np.uint8([255, 0, 0])
# Of the first two classes that are no background.
MASKS = plt.get_cmap("tab20")([0, 1])[:, :3]
BOXES = plt.get_cmap("tab10")([0, 1])[:, :3]
NEAR_AND_FAR = plt.get_cmap("viridis_r")([0.0, 1.0])[:, :3]


def drawn(task, scene, predicted, path) -> np.ndarray:
    """The sheet of two such scenes, float [h, w, 3] in [0, 1]."""
    model = SimpleNamespace(predict_one=lambda images: predicted)
    task.draw(model, [scene, scene], tuple("abc"), path)
    with PIL.Image.open(path) as sheet:
        return np.asarray(sheet.convert("RGB")) / 255


def middle(pixels, color) -> float:
    """Middle row of a color, as a share of the sheet's height."""
    rows, _ = np.nonzero(np.abs(pixels - color).max(axis=-1) < 0.02)
    assert len(rows) > 100
    return float(np.median(rows) / len(pixels))


def below_each_other(pixels, *colors) -> None:
    """Asserts it of their middles, by a row of the sheet at least."""
    middles = [middle(pixels, color) for color in colors]
    assert (np.diff(middles) > 0.2).all(), middles


def test_masks(tmp_path):
    scene = {"image": RED, "mask": np.full(SIZE, 1, np.uint8)}
    predicted = {"classes": tf.fill([1, *SIZE], 2)}
    pixels = drawn(Segmentation(), scene, predicted, tmp_path / "sheet.png")
    below_each_other(pixels, (1, 0, 0), *MASKS)


def test_depths(tmp_path):
    depth = np.full(SIZE, 1, np.float32)
    depth[:5] = 9  # So that the scale goes up to it.
    predicted = {"depth": tf.fill([1, *SIZE], 9.0)}
    scene = {"image": RED, "depth": depth}
    pixels = drawn(Depth(), scene, predicted, tmp_path / "sheet.png")
    below_each_other(pixels, (1, 0, 0), *NEAR_AND_FAR)


@pytest.mark.parametrize("scores, seen", [((0.9, 0.9), True), ((0, 0), False)])
def test_boxes(tmp_path, scores, seen):
    boxes = np.float32([[4, 4, 16, 14], [6, 12, 18, 28]])
    scene = {
        "image": RED,
        "boxes": boxes,
        "labels": np.array([0, 0]),
        "ignored": np.array([False, False]),
    }
    predicted = {
        "boxes": tf.constant(boxes[None]),
        "scores": tf.constant([scores]),
        "labels": tf.constant([[1, 1]]),
    }
    pixels = drawn(Detection(), scene, predicted, tmp_path / "sheet.png")
    assert middle(pixels, BOXES[0]) < 0.5
    if seen:
        below_each_other(pixels, *BOXES)
    else:
        assert np.abs(pixels - BOXES[1]).max(axis=-1).min() > 0.02
