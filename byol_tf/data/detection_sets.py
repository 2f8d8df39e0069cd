"""Images with boxes around objects: VOC's, COCO's and TFDS's.

A scene has `boxes`, float32 [n, 4], top, left, bottom and right in pixels;
`labels`, int64 [n], classes from 0; and `ignored`, bool [n]: a crowd (COCO) or
a difficult object (VOC), which is neither to be found nor not to be found.
"""

import dataclasses
import json
import pathlib
import xml.etree.ElementTree

import numpy as np

from byol_tf.config import Config, ConfigError
from byol_tf.data.scenes import (
    BadScene,
    Scene,
    Scenes,
    SceneSplits,
    fingerprint_of,
    read_image,
    stamps_of,
)
from byol_tf.data.segmentation_sets import VOC_CLASSES as _WITH_BACKGROUND
from byol_tf.data.skipped import Skipped
from byol_tf.data.tfds_scenes import open_tfds_scenes

VOC_CLASSES = _WITH_BACKGROUND[1:]
# What an object is ignored for in TFDS.
_IGNORED_KEYS = ("is_crowd", "is_difficult")


def open_detection(config: Config) -> SceneSplits:
    """Opens --detection_data.

    Raises:
      ConfigError: if it is not to be had.
    """
    kind, _, place = config.detection_data.partition(":")
    skipped = Skipped(config.max_corrupt_fraction, "--detection_data")
    openers = {
        "voc": lambda: _open_voc(pathlib.Path(place).expanduser(), skipped),
        "coco": lambda: _open_coco(pathlib.Path(place).expanduser(), skipped),
        "tfds": lambda: _open_tfds(place, config, skipped),
    }
    if kind not in openers:
        raise ConfigError(
            f"--detection_data={config.detection_data}: name voc:PATH, "
            "coco:PATH or tfds:NAME."
        )
    splits = openers[kind]()
    return dataclasses.replace(
        splits, train=_noting(splits.train), test=_noting(splits.test)
    )


def scene(
    image: np.ndarray,
    boxes: np.ndarray,
    labels: np.ndarray,
    ignored: np.ndarray,
    classes: int,
) -> Scene:
    """An image and its objects, checked.

    Boxes are cut off at the image's edges. Those without an area then, reversed
    or not finite are left out; `dropped` says why, a line each.

    Args:
      image: uint8 [height, width, 3].
      boxes: [n, 4] in pixels; n may be 0.
      labels: int [n].
      ignored: bool [n].
      classes: their number.

    Raises:
      BadScene: if a label is none of the classes'.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    labels = np.asarray(labels, np.int64).reshape(-1)
    ignored = np.asarray(ignored, bool).reshape(-1)
    for label in labels:
        if not 0 <= label < classes:
            raise BadScene(
                f"an object has class {label}, and there are {classes}"
            )
    height, width = image.shape[:2]
    finite = np.isfinite(boxes).all(axis=1)
    reversed_ = (boxes[:, 2:] < boxes[:, :2]).any(axis=1)
    limits = [height, width, height, width]
    clipped = np.clip(np.nan_to_num(boxes), 0, limits).astype(np.float32)
    empty = (clipped[:, 2:] <= clipped[:, :2]).any(axis=1)
    reasons = np.select(
        [~finite, reversed_, empty],
        ["is not finite", "is turned inside out", "has no area in the image"],
        "",
    )
    kept = reasons == ""
    return {
        "image": image,
        "boxes": clipped[kept],
        "labels": labels[kept],
        "ignored": ignored[kept],
        "dropped": np.array(
            [
                f"box {number}: {reason} (top, left, bottom, right: "
                f"{', '.join(f'{side:g}' for side in boxes[number])})"
                for number, reason in enumerate(reasons)
                if reason
            ]
        ),
    }


def _noting(scenes: Scenes) -> Scenes:
    """Scenes of which the boxes that are left out are noted as skipped."""

    def load(number):
        scene = dict(scenes.load(number))
        for line in scene.pop("dropped"):
            box, _, reason = line.partition(": ")
            name = f"{scenes.name_of(number)}, {box}"
            # The image is used, and so is none that counts.
            scenes.skipped.note(name, reason, count=0)
        return scene

    return dataclasses.replace(scenes, load=load)


def _open_voc(root: pathlib.Path, skipped: Skipped) -> SceneSplits:
    """VOCdevkit/VOC2007: trainval and test."""
    flag = f"--detection_data=voc:{root}"
    lists = root / "ImageSets" / "Main"
    if not lists.is_dir():
        raise ConfigError(
            f"{flag}: {lists} does not exist; name the folder that holds "
            "ImageSets, JPEGImages and Annotations, e.g. VOCdevkit/VOC2007."
        )
    parts = []
    for split in ("trainval", "test"):
        path = lists / f"{split}.txt"
        if not path.is_file():
            raise ConfigError(f"{flag}: {path} does not exist.")
        names = path.read_text(errors="replace").split()
        if not names:
            raise ConfigError(f"{flag}: {path} names no image.")
        parts.append(names)
    skipped.total = sum(map(len, parts))
    train, test = (_of_voc(root, names, skipped) for names in parts)
    return SceneSplits(
        train,
        test,
        VOC_CLASSES,
        skipped,
        fingerprint_of(
            *(stamps_of(_xml(root, name) for name in names) for names in parts)
        ),
    )


def _xml(root: pathlib.Path, name: str) -> pathlib.Path:
    return root / "Annotations" / f"{name}.xml"


def _of_voc(root: pathlib.Path, names: list[str], skipped: Skipped) -> Scenes:
    def path_of(number):
        return root / "JPEGImages" / f"{names[number]}.jpg"

    def load(number):
        objects = _read_xml(_xml(root, names[number]))
        image = read_image(str(path_of(number)))
        return scene(image, *objects, len(VOC_CLASSES))

    return Scenes(len(names), load, lambda n: str(path_of(n)), skipped)


def _read_xml(path: pathlib.Path):
    """Boxes, labels and which are difficult, of a file of VOC's.

    Its pixels are counted from 1, and the last one is in the box.
    """
    boxes, labels, difficult = [], [], []
    try:
        root = xml.etree.ElementTree.parse(path).getroot()
        for item in root.findall("object"):
            box = item.find("bndbox")
            left, top, right, bottom = (
                float(box.findtext(name))
                for name in ("xmin", "ymin", "xmax", "ymax")
            )
            boxes.append((top - 1, left - 1, bottom, right))
            name = item.findtext("name").strip()
            if name not in VOC_CLASSES:
                raise ValueError(f"{name!r} is no class of its")
            labels.append(VOC_CLASSES.index(name))
            difficult.append(int(item.findtext("difficult", "0")) != 0)
    except OSError as error:
        raise BadScene(f"{path}: {error.strerror or error}") from error
    except (
        xml.etree.ElementTree.ParseError,
        AttributeError,  # A part is not there.
        LookupError,  # No such encoding.
        TypeError,
        ValueError,  # It is no number, or above.
    ) as error:
        raise BadScene(f"{path} is no annotation of VOC: {error}") from error
    return boxes, labels, difficult


def _open_coco(root: pathlib.Path, skipped: Skipped) -> SceneSplits:
    """`annotations/instances_train2017.json` and so on, or without a year."""
    flag = f"--detection_data=coco:{root}"
    parts = [_read_coco(root, split, flag) for split in ("train", "val")]
    (train, categories), (test, test_categories) = parts
    if categories != test_categories:
        raise ConfigError(
            f"{flag}: the classes of instances_train and instances_val differ."
        )
    skipped.total = len(train) + len(test)
    return SceneSplits(
        _of_coco(train, len(categories), skipped),
        _of_coco(test, len(categories), skipped),
        tuple(name for _, name in categories),
        skipped,
        fingerprint_of(
            categories,
            *(
                (image.path, *(a.tolist() for a in image.objects))
                for image in (*train, *test)
            ),
        ),
    )


@dataclasses.dataclass
class _CocoImage:
    """An image of COCO's: its path, and of its objects boxes, labels, crowds.

    Attributes:
      unknown: categories of its objects that the file does not list.
    """

    path: str
    objects: tuple[np.ndarray, np.ndarray, np.ndarray]
    unknown: list


def _read_coco(root: pathlib.Path, split: str, flag: str):
    """The images of a split, and the categories: (id, name) by id."""
    path, folder = _coco_files(root, split, flag)
    try:
        content = json.loads(path.read_text())
        categories = sorted(
            (int(category["id"]), str(category["name"]))
            for category in content["categories"]
        )
        names = {
            item["id"]: folder / item["file_name"] for item in content["images"]
        }
        labels = {number: i for i, (number, _) in enumerate(categories)}
        found = {number: [] for number in names}
        for item in content["annotations"]:
            left, top, width, height = map(float, item["bbox"])
            found[item["image_id"]].append(
                (
                    *(top, left, top + height, left + width),
                    labels.get(item["category_id"]),
                    bool(item.get("iscrowd", 0)),
                    item["category_id"],
                )
            )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{flag}: {path} is no file of COCO's instances: "
            f"{type(error).__name__} {' '.join(str(error).split())}."
        ) from error
    if not names or not categories:
        raise ConfigError(f"{flag}: {path} has no images, or no categories.")
    return [
        _coco_image(str(names[number]), objects)
        for number, objects in found.items()
    ], categories


def _coco_files(root: pathlib.Path, split: str, flag: str):
    for name in (f"{split}2017", split):
        path = root / "annotations" / f"instances_{name}.json"
        if path.is_file():
            if not (root / name).is_dir():
                raise ConfigError(f"{flag}: {root / name} does not exist.")
            return path, root / name
    raise ConfigError(
        f"{flag}: {root / 'annotations'} has no instances_{split}2017.json and "
        f"no instances_{split}.json."
    )


def _coco_image(path: str, objects: list) -> _CocoImage:
    known = [item for item in objects if item[4] is not None]
    return _CocoImage(
        path,
        (
            np.array([item[:4] for item in known], np.float64).reshape(-1, 4),
            np.array([item[4] for item in known], np.int64),
            np.array([item[5] for item in known], bool),
        ),
        [item[6] for item in objects if item[4] is None],
    )


def _of_coco(
    images: list[_CocoImage], classes: int, skipped: Skipped
) -> Scenes:
    def load(number):
        image = images[number]
        if image.unknown:
            raise BadScene(
                f"an object has category {image.unknown[0]!r}, which is none "
                "of its file's"
            )
        return scene(read_image(image.path), *image.objects, classes)

    return Scenes(len(images), load, lambda n: images[n].path, skipped)


def _open_tfds(name: str, config: Config, skipped: Skipped) -> SceneSplits:
    """A data set of TFDS with `objects` in each example."""
    flag = f"--detection_data=tfds:{name}"
    if name.startswith("coco") and not config.test_split:
        # Of its split `test` nobody has the objects.
        config = dataclasses.replace(config, test_split="validation")
    found = {}

    def truth_of(builder):
        features = builder.info.features
        objects = {}
        if "objects" in features:
            objects = getattr(features["objects"], "feature", {})
        if not {"bbox", "label"} <= set(objects):
            raise ConfigError(
                f"{flag} has no `objects` with `bbox` and `label`."
            )
        found["classes"] = len(objects["label"].names)
        # In VOC's files pixels are counted from 1, and TFDS leaves it so.
        found["first"] = 1 if builder.name == "voc" else 0
        ignored = {key for key in _IGNORED_KEYS if key in objects}
        wanted = {key: True for key in {"bbox", "label"} | ignored}
        return {"objects": wanted}, tuple(objects["label"].names)

    def read(example):
        objects = example["objects"]
        height, width = example["image"].shape[:2]
        boxes = np.asarray(objects["bbox"], np.float64).reshape(-1, 4)
        boxes = boxes * [height, width, height, width]
        boxes[:, :2] -= found["first"]
        ignored = np.zeros(len(boxes), bool)
        for key in _IGNORED_KEYS:
            ignored |= np.asarray(objects.get(key, ignored), bool)
        return scene(
            example["image"], boxes, objects["label"], ignored, found["classes"]
        )

    splits = open_tfds_scenes(name, flag, config, skipped, truth_of, read)
    if name.startswith("voc") and config.train_split == "train":
        note = (
            "the published training set is train and validation together: "
            "--train_split=train+validation."
        )
        splits = dataclasses.replace(splits, notes=(*splits.notes, note))
    return splits
