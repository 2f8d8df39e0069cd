"""Generated scenes, whose masks, boxes and depths are exact.

    python tests/generated_scenes.py FOLDER

writes 2,000 to learn from and 150 to measure on, as folders for segmentation,
detection and depth.

Bundled images, cut out, stand on a ground that repeats another one. The nearer
an object is, the larger it is, and it hides those behind it; the nearer the
ground is, the lower it is in the image, and the larger its pattern.
"""

import functools
import json
import pathlib
import sys
from typing import NamedTuple

import numpy as np
import PIL.Image

from byol_tf.data.bundled import open_bundled

# Classes of Fashion-MNIST that are of different shapes.
CLASSES = {"trouser": 1, "bag": 8, "boot": 9}
CLASS_NAMES = ("background", *CLASSES)
# Metres of an object, and the height it has at a metre, in image heights.
NEAREST, FARTHEST, HEIGHT = 2.0, 5.0, 1.1
# Metres at the top of the image, and what share of them at the bottom.
GROUND, SLOPE = (6.0, 20.0), 0.6
# At so many metres the ground's pattern is as wide as the image.
PATTERN = 3.0
# What is left of an object that is hidden beyond it does not count.
LEAST_VISIBLE = 0.3


class Scene(NamedTuple):
    """A scene of `size` pixels a side.

    Attributes:
      image: uint8 [size, size, 3].
      mask: uint8 [size, size], 0 for the background.
      boxes: float32 [n, 4], top, left, bottom, right, in pixels.
      labels: int [n], of CLASSES from 0.
      depth: float32 [size, size], metres.
    """

    image: np.ndarray
    mask: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    depth: np.ndarray


def scene(number: int, size: int = 64, split: str = "train") -> Scene:
    """The scene of that number; those of test show other images."""
    data = _bundled()
    source = data.train if split == "train" else data.test
    random = np.random.default_rng([number, split == "train"])
    pixels = source.images[..., 0]
    pattern = pixels[random.integers(len(pixels))]
    tint = random.uniform(0.2, 0.5, size=3)
    top = np.exp(random.uniform(*np.log(GROUND)))
    rows = np.linspace(top, SLOPE * top, size, dtype=np.float32)
    depth = np.repeat(rows[:, None], size, axis=1)
    scale = depth / PATTERN * len(pattern) / size
    along = np.cumsum(scale, axis=0)
    across = (np.arange(size) - size / 2) * scale
    ground = pattern[
        along.astype(int) % len(pattern), across.astype(int) % len(pattern)
    ]
    image = 60 + ground[..., None] * tint
    instance = np.full((size, size), -1)
    labels, areas = [], []
    distances = np.sort(
        random.uniform(NEAREST, FARTHEST, size=random.integers(1, 4))
    )[::-1]
    for index, distance in enumerate(distances):  # The farthest first.
        label = int(random.integers(len(CLASSES)))
        of_class = np.flatnonzero(
            source.labels == list(CLASSES.values())[label]
        )
        cut = pixels[random.choice(of_class)]
        cut = cut[np.ix_(cut.max(1) > 40, cut.max(0) > 40)]
        height = round(size * HEIGHT / distance)
        width = max(round(height * cut.shape[1] / cut.shape[0]), 4)
        # None stands out of the image.
        scale = min(1.0, size / width)
        height, width = round(height * scale), round(width * scale)
        cut = _resized(cut, height, width)
        shape = cut > 40
        top = random.integers(size - height + 1)
        left = random.integers(size - width + 1)
        place = np.s_[top : top + height, left : left + width]
        color = random.uniform(0.6, 1.0, size=3)
        image[place][shape] = (cut[..., None] * color)[shape]
        depth[place][shape] = distance
        instance[place][shape] = index
        labels.append(label)
        areas.append(shape.sum())
    mask = np.zeros((size, size), np.uint8)
    boxes, kept = [], []
    for index, (label, area) in enumerate(zip(labels, areas)):
        rows, columns = np.nonzero(instance == index)
        mask[rows, columns] = label + 1
        if len(rows) >= LEAST_VISIBLE * area:
            boxes.append(
                (rows.min(), columns.min(), rows.max() + 1, columns.max() + 1)
            )
            kept.append(label)
    return Scene(
        np.clip(image, 0, 255).astype(np.uint8),
        mask,
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(kept, np.int64),
        depth,
    )


_bundled = functools.cache(open_bundled)


def _resized(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    image = PIL.Image.fromarray(pixels).resize(
        (width, height), PIL.Image.Resampling.BILINEAR
    )
    return np.asarray(image, float)


def write_segmentation(
    root: pathlib.Path, train: int, test: int, size: int = 64
) -> None:
    """A folder for --segmentation_data=folder:ROOT."""
    for split, count in (("train", train), ("test", test)):
        images, masks = _folders(root / split, "images", "masks")
        for number in range(count):
            made = scene(number, size, split)
            PIL.Image.fromarray(made.image).save(images / f"{number}.png")
            PIL.Image.fromarray(made.mask).save(masks / f"{number}.png")
    (root / "classes.txt").write_text("\n".join(CLASS_NAMES) + "\n")


def write_depth(
    root: pathlib.Path, train: int, test: int, size: int = 64
) -> None:
    """A folder for --depth_data=folder:ROOT, in millimetres."""
    for split, count in (("train", train), ("test", test)):
        images, depths = _folders(root / split, "images", "depths")
        for number in range(count):
            made = scene(number, size, split)
            PIL.Image.fromarray(made.image).save(images / f"{number}.png")
            millimetres = np.round(1000 * made.depth).astype(np.uint16)
            PIL.Image.fromarray(millimetres).save(depths / f"{number}.png")


def write_detection(
    root: pathlib.Path, train: int, test: int, size: int = 64
) -> None:
    """A folder for --detection_data=coco:ROOT, without a year in its names."""
    _folders(root, "annotations")
    for split, made_as, count in (
        ("train", "train", train),
        ("val", "test", test),
    ):
        (images,) = _folders(root, split)
        listed, objects = [], []
        for number in range(count):
            made = scene(number, size, made_as)
            name = f"{number:04d}.png"
            PIL.Image.fromarray(made.image).save(images / name)
            listed.append({"id": number, "file_name": name})
            for box, label in zip(made.boxes.tolist(), made.labels.tolist()):
                top, left, bottom, right = box
                objects.append(
                    {
                        "id": len(objects) + 1,
                        "image_id": number,
                        # As COCO's, they leave numbers out.
                        "category_id": 10 + 2 * label,
                        "bbox": [left, top, right - left, bottom - top],
                        "area": (bottom - top) * (right - left),
                        "iscrowd": 0,
                    }
                )
        content = {
            "images": listed,
            "annotations": objects,
            "categories": [
                {"id": 10 + 2 * label, "name": name}
                for label, name in enumerate(CLASSES)
            ],
        }
        path = root / "annotations" / f"instances_{split}.json"
        path.write_text(json.dumps(content))


# Names of VOC's for those of the generated scenes, which it does not have.
VOC_NAMES = ("bottle", "car", "cat")


def write_voc_detection(
    root: pathlib.Path, train: int, test: int, size: int = 64
) -> None:
    """A folder for --detection_data=voc:ROOT; the last object is difficult."""
    images, annotations, lists = _folders(
        root, "JPEGImages", "Annotations", "ImageSets/Main"
    )
    for split, made_as, count in (
        ("trainval", "train", train),
        ("test", "test", test),
    ):
        names = [f"{split}_{number}" for number in range(count)]
        (lists / f"{split}.txt").write_text("".join(f"{n}\n" for n in names))
        for number, name in enumerate(names):
            made = scene(number, size, made_as)
            PIL.Image.fromarray(made.image).save(images / f"{name}.jpg")
            objects = [
                f"<object><name>{VOC_NAMES[label]}</name><difficult>"
                f"{int(i == len(made.labels) - 1)}</difficult><bndbox>"
                f"<xmin>{left + 1}</xmin><ymin>{top + 1}</ymin>"
                f"<xmax>{right}</xmax><ymax>{bottom}</ymax></bndbox></object>"
                for i, ((top, left, bottom, right), label) in enumerate(
                    zip(made.boxes.astype(int), made.labels)
                )
            ]
            (annotations / f"{name}.xml").write_text(
                f"<annotation>{''.join(objects)}</annotation>"
            )


def _folders(root: pathlib.Path, *names: str) -> list[pathlib.Path]:
    folders = [root / name for name in names]
    for folder in folders:
        folder.mkdir(parents=True)
    return folders


if __name__ == "__main__":
    place = pathlib.Path(sys.argv[1])
    write_segmentation(place / "segmentation", 2000, 150)
    write_detection(place / "detection", 2000, 150)
    write_depth(place / "depth", 2000, 150)
