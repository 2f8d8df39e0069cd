"""Images with a class for each pixel: from folders, VOC's and TFDS's.

A scene has `mask`, uint8 [height, width]: the number of a class, or IGNORED.
"""

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import PIL.Image
import tqdm

from byol_tf.config import Config, ConfigError
from byol_tf.data.scenes import (
    BadScene,
    Scene,
    Scenes,
    SceneSplits,
    fingerprint_of,
    pairs_in,
    read_image,
    split_folders,
    stamps_of,
)
from byol_tf.data.skipped import Skipped
from byol_tf.data.tfds_scenes import open_tfds_scenes

# What a mask has where no class counts.
IGNORED = 255
MOST_CLASSES = 255

# Source: the PASCAL VOC2012 development kit, `VOCinit.m`.
VOC_CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus"),
    *("car", "cat", "chair", "cow", "diningtable", "dog", "horse"),
    *("motorbike", "person", "pottedplant", "sheep", "sofa", "train"),
    "tvmonitor",
)
# Names that masks have in TFDS.
_MASK_KEYS = ("segmentation_mask", "mask", "segmentation_label", "annotation")


def open_segmentation(config: Config) -> SceneSplits:
    """Opens --segmentation_data.

    Raises:
      ConfigError: if it is not to be had.
    """
    kind, _, place = config.segmentation_data.partition(":")
    skipped = Skipped(config.max_corrupt_fraction, "--segmentation_data")
    if kind == "voc":
        return _open_voc(pathlib.Path(place).expanduser(), skipped)
    if kind == "folder":
        return _open_folder(pathlib.Path(place).expanduser(), skipped)
    if kind == "tfds":
        return _open_tfds(place, config, skipped)
    raise ConfigError(
        f"--segmentation_data={config.segmentation_data}: name voc:PATH, "
        "folder:PATH or tfds:NAME."
    )


def read_mask(path: str) -> np.ndarray:
    """A mask's file as uint8 [height, width].

    Raises:
      BadScene: if it cannot be read, or does not have one number a pixel.
    """
    try:
        with PIL.Image.open(path) as image:
            if image.mode not in ("P", "L", "1", "I;16", "I"):
                raise BadScene(
                    f"its mask has {image.mode} pixels; a mask has one number "
                    "of a class in each"
                )
            numbers = np.asarray(image)
    except BadScene:
        raise
    except Exception as error:  # Pillow raises errors of many kinds here.
        raise BadScene(
            f"its mask cannot be read ({' '.join(str(error).split())})"
        ) from error
    if numbers.max(initial=0) > IGNORED or numbers.min(initial=0) < 0:
        raise BadScene(f"its mask has numbers outside 0 to {IGNORED}")
    return numbers.astype(np.uint8)


def scene(image: np.ndarray, mask: np.ndarray, classes: int) -> Scene:
    """An image and its mask, checked.

    Raises:
      BadScene: if they do not fit, or nothing in the mask counts.
    """
    if mask.shape != image.shape[:2]:
        raise BadScene(
            f"its mask has {mask.shape[1]} x {mask.shape[0]} pixels, the image "
            f"{image.shape[1]} x {image.shape[0]}"
        )
    counted = mask[mask != IGNORED]
    if not counted.size:
        raise BadScene("all of its mask is to be ignored")
    if counted.max() >= classes:
        raise BadScene(
            f"its mask has class {counted.max()}, and there are {classes}"
        )
    return {"image": image, "mask": mask}


def _of_pairs(
    pairs: Sequence[tuple[str, str]], classes: int, skipped: Skipped
) -> Scenes:
    def load(number):
        image, mask = pairs[number]
        return scene(read_image(image), read_mask(mask), classes)

    return Scenes(len(pairs), load, lambda n: pairs[n][0], skipped)


def _splits(train, test, class_names, skipped, notes=()) -> SceneSplits:
    classes = len(class_names)
    skipped.total = len(train) + len(test)
    return SceneSplits(
        _of_pairs(train, classes, skipped),
        _of_pairs(test, classes, skipped),
        class_names,
        skipped,
        fingerprint_of(
            class_names,
            *(stamps_of(mask for _, mask in pairs) for pairs in (train, test)),
        ),
        notes,
    )


def _open_folder(root: pathlib.Path, skipped: Skipped) -> SceneSplits:
    """`train/images`, `train/masks` and so on, perhaps `classes.txt`."""
    flag = f"--segmentation_data=folder:{root}"
    (train, of_train), (test, of_test) = (
        pairs_in(folder, "images", "masks", (".png", ".bmp", ".tif", ".tiff"))
        for folder in split_folders(root, flag)
    )
    notes = of_train + of_test
    names = root / "classes.txt"
    if names.is_file():
        lines = names.read_text(errors="replace").splitlines()
        class_names = tuple(line.strip() for line in lines if line.strip())
    else:
        count = 1 + _greatest_class(_masks(train))
        class_names = tuple(map(str, range(count)))
        notes += (
            f"its {count} classes are those of the training masks, without "
            f"names: {names} would have one a line.",
        )
    if not 2 <= len(class_names) <= MOST_CLASSES:
        raise ConfigError(
            f"{flag} has {len(class_names)} classes; it takes from 2 to "
            f"{MOST_CLASSES}."
        )
    return _splits(train, test, class_names, skipped, notes)


def _masks(pairs) -> Iterator[np.ndarray]:
    """Those that can be read; the others are found again in their turn."""
    for _, path in tqdm.tqdm(pairs, "classes", unit="mask", leave=False):
        with contextlib.suppress(BadScene):
            yield read_mask(path)


def _greatest_class(masks: Iterable[np.ndarray]) -> int:
    return max(
        (int(mask[mask != IGNORED].max(initial=0)) for mask in masks),
        default=0,
    )


def _open_voc(root: pathlib.Path, skipped: Skipped) -> SceneSplits:
    """VOCdevkit/VOC2012: train_aug where it is there, else train; and val."""
    flag = f"--segmentation_data=voc:{root}"
    lists = root / "ImageSets" / "Segmentation"
    if not lists.is_dir():
        raise ConfigError(
            f"{flag}: {lists} does not exist; name the folder that holds "
            "ImageSets, JPEGImages and SegmentationClass, e.g. "
            "VOCdevkit/VOC2012."
        )
    augmented = root / "SegmentationClassAug"
    with_more = (lists / "train_aug.txt").is_file() and augmented.is_dir()
    notes = ()
    if not with_more:
        notes = (
            f"the published training set has 10,582 masks; {augmented} and "
            f"{lists / 'train_aug.txt'} would have them.",
        )
    train = _voc_pairs(
        root,
        "train_aug" if with_more else "train",
        augmented if with_more else root / "SegmentationClass",
        flag,
    )
    test = _voc_pairs(root, "val", root / "SegmentationClass", flag)
    return _splits(train, test, VOC_CLASSES, skipped, notes)


def _voc_pairs(root, split: str, masks: pathlib.Path, flag: str):
    path = root / "ImageSets" / "Segmentation" / f"{split}.txt"
    if not path.is_file():
        raise ConfigError(f"{flag}: {path} does not exist.")
    names = path.read_text(errors="replace").split()
    if not names:
        raise ConfigError(f"{flag}: {path} names no image.")
    return [
        (str(root / "JPEGImages" / f"{n}.jpg"), str(masks / f"{n}.png"))
        for n in names
    ]


def _open_tfds(name: str, config: Config, skipped: Skipped) -> SceneSplits:
    """A data set of TFDS with an image and a mask in each example."""
    flag = f"--segmentation_data=tfds:{name}"
    found = {}

    def truth_of(builder):
        features = builder.info.features
        key = next((key for key in _MASK_KEYS if key in features), None)
        if key is None:
            raise ConfigError(
                f"{flag} has no masks ({', '.join(_MASK_KEYS)}); of VOC, "
                "TFDS has none: take voc:PATH."
            )
        names = getattr(features[key], "names", None)
        found.update(key=key, classes=len(names or range(MOST_CLASSES)))
        return {key: True}, tuple(names or ())

    def read(example):
        mask = example[found["key"]]
        mask = mask[..., 0] if mask.ndim == 3 else mask
        return scene(example["image"], mask, found["classes"])

    splits = open_tfds_scenes(name, flag, config, skipped, truth_of, read)
    if splits.class_names:
        return splits
    masks = (scene["mask"] for scene in splits.train)
    with_bar = tqdm.tqdm(
        masks, "classes", splits.train.size, unit="mask", leave=False
    )
    found["classes"] = 1 + _greatest_class(with_bar)
    return dataclasses.replace(
        splits, class_names=tuple(map(str, range(found["classes"])))
    )
