"""The protocol `detection`: Faster R-CNN on an encoder."""

import numpy as np
import tensorflow as tf

from byol_tf import scene_sheets
from byol_tf.data.detection_sets import open_detection
from byol_tf.data.scenes import Scene, resized
from byol_tf.dense.average_precision import Found, Truth, average_precision
from byol_tf.dense.faster_rcnn import SIZE, FasterRCNN
from byol_tf.dense.task import DenseTask, Recipe, with_progress

# Of the size, in training: 480 to 800 in steps of 32.
SHARES = np.linspace(0.6, 1.0, 11)


def limits(size: tuple[int, int]) -> tuple[int, int]:
    """Shorter and longest longer side of images.

    Args:
      size: the shorter side, and the most that the longer one may have; the
        latter is 5/3 of the first if it is no more than that one.
    """
    shorter, longer = size
    return shorter, longer if longer > shorter else round(shorter * 5 / 3)


def scaled(
    scene: Scene, random: np.random.Generator, size: tuple[int, int]
) -> tuple[np.ndarray, ...]:
    """A scene in one of the published sizes, flipped or not.

    Args:
      scene: see `data.detection_sets`.
      random: decides.
      size: see `limits`; the shorter side is 0.6 to 1 of it.

    Returns:
      What `FasterRCNN.losses` takes, of one image: uint8 [h, w, 3]; its size;
      boxes and labels of its n objects; and a seed.
    """
    image = scene["image"]
    shorter, longer = limits(size)
    before = np.array(image.shape[:2])
    shorter = round(random.choice(SHARES) * shorter)
    scale = min(shorter / before.min(), longer / before.max())
    after = np.maximum(np.round(scale * before).astype(int), 1)
    image = resized(image, *after)
    boxes = scene["boxes"] * np.tile(after / before, 2)
    if random.random() < 0.5:
        image = image[:, ::-1]
        top, left, bottom, right = boxes.T
        boxes = np.stack([top, after[1] - right, bottom, after[1] - left], 1)
    labels = np.where(scene["ignored"], -1, scene["labels"] + 1)
    return image, after, boxes, labels, random.integers(2**31)


class Detection(DenseTask):
    """The protocol `detection`."""

    # As MoCo on VOC2007's trainval, where the rate rises in the first 100 steps
    # (--dense_warmup).
    recipe = Recipe(24_000, 16, 0.02, 1e-4, SIZE, (18 / 24, 22 / 24))
    flag = "detection_data"
    # Over how many values of recall, the paper does not say.
    published = {"ap50": 77.5, "voc_ap50": 77.5}
    published_data = "VOC2007"
    differs = (
        "Nesterov's momentum",
        "two by two samples in each bin of ROI align",
        "difficult objects are not learned",
        "a detection within a difficult object counts neither way",
    )
    open = staticmethod(open_detection)

    def check(self, splits):
        for name in ("train", "test"):
            scenes = getattr(splits, name)
            if not any((~scene["ignored"]).any() for scene in scenes):
                raise ValueError(
                    f"none of its {scenes.size} {name} images has an object "
                    "that counts; skipped.txt lists what was left out."
                )

    def network(self, encoder, splits, size, **options):
        return FasterRCNN.on(
            encoder, len(splits.class_names), size=limits(size), **options
        )

    def augmented(self, scene, random, size):
        return scaled(scene, random, size)

    def signature(self, size):
        return (
            tf.TensorSpec([None, None, 3], tf.uint8),
            tf.TensorSpec([2], tf.float32),
            tf.TensorSpec([None, 4], tf.float32),
            tf.TensorSpec([None], tf.int32),
            tf.TensorSpec([], tf.int32),
        )

    def figures(self, model, splits):
        """Average precision; boxes are in pixels of the images as they are."""
        truths, found = [], []
        for scene in with_progress(splits.test, "detection, test"):
            truths.append(
                Truth(scene["boxes"], scene["labels"], scene["ignored"])
            )
            found.append(detected(model, scene["image"]))
        return average_precision(truths, found)

    def draw(self, model, scenes, class_names, path):
        scene_sheets.draw_boxes(
            [
                (
                    scene["image"],
                    Truth(scene["boxes"], scene["labels"], scene["ignored"]),
                    detected(model, scene["image"]),
                )
                for scene in scenes
            ],
            class_names,
            path,
        )


def detected(model: FasterRCNN, image: np.ndarray) -> Found:
    """The detections in an image, uint8 [height, width, 3]."""
    predicted = model.predict_one(tf.constant(image[None]))
    boxes, scores, labels = (
        predicted[name][0].numpy() for name in ("boxes", "scores", "labels")
    )
    there = labels >= 0
    return Found(boxes[there], labels[there], scores[there])
