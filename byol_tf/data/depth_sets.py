"""Images with a depth for each pixel: from folders and TFDS's.

A scene has `depth`, float32 [height, width], in metres; 0 where none is known.
"""

import pathlib
from collections.abc import Sequence

import numpy as np
import PIL.Image

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


def open_depth(config: Config) -> SceneSplits:
    """Opens --depth_data.

    Raises:
      ConfigError: if it is not to be had.
    """
    kind, _, place = config.depth_data.partition(":")
    skipped = Skipped(config.max_corrupt_fraction, "--depth_data")
    if kind == "folder":
        return _open_folder(pathlib.Path(place).expanduser(), config, skipped)
    if kind == "tfds":
        return _open_tfds(place, config, skipped)
    raise ConfigError(
        f"--depth_data={config.depth_data}: name folder:PATH or tfds:NAME."
    )


def read_depth(path: str, unit: float) -> np.ndarray:
    """A file of depths as float32 [height, width], in metres.

    Args:
      path: of a PNG with whole numbers, or an .npy array in metres.
      unit: metres of a PNG's 1.

    Raises:
      BadScene: if it cannot be read, or does not have one number a pixel.
    """
    try:
        if path.lower().endswith(".npy"):
            depth = np.asarray(np.load(path))
        else:
            with PIL.Image.open(path) as image:
                if image.mode not in ("L", "I;16", "I;16B", "I", "F"):
                    raise BadScene(
                        f"its depths have {image.mode} pixels; depths have one "
                        "number in each"
                    )
                depth = np.asarray(image) * unit
    except BadScene:
        raise
    except Exception as error:  # Pillow raises errors of many kinds here.
        raise BadScene(
            f"its depths cannot be read ({' '.join(str(error).split())})"
        ) from error
    if depth.ndim != 2 or depth.dtype.kind not in "fiu":
        raise BadScene(
            f"its depths are {depth.dtype} {list(depth.shape)}, and must be "
            "numbers [height, width]"
        )
    return depth.astype(np.float32)


def scene(image: np.ndarray, depth: np.ndarray) -> Scene:
    """An image and its depths, checked; unknown depths become 0.

    Args:
      image: uint8 [height, width, 3].
      depth: float [height, width]; what is not finite or not above 0 is not
        known.

    Raises:
      BadScene: if they do not fit, or no depth is known.
    """
    if depth.shape != image.shape[:2]:
        raise BadScene(
            f"its depths have {depth.shape[1]} x {depth.shape[0]} pixels, the "
            f"image {image.shape[1]} x {image.shape[0]}"
        )
    depth = np.where(np.isfinite(depth) & (depth > 0), depth, 0)
    if not depth.any():
        raise BadScene("none of its depths is known")
    return {"image": image, "depth": depth.astype(np.float32)}


def _open_folder(
    root: pathlib.Path, config: Config, skipped: Skipped
) -> SceneSplits:
    """`train/images`, `train/depths` and so on."""
    (train, of_train), (test, of_test) = (
        pairs_in(folder, "images", "depths", (".png", ".npy"))
        for folder in split_folders(root, f"--depth_data=folder:{root}")
    )
    skipped.total = len(train) + len(test)
    return SceneSplits(
        _of_pairs(train, config.depth_unit, skipped),
        _of_pairs(test, config.depth_unit, skipped),
        (),
        skipped,
        fingerprint_of(
            config.depth_unit,
            *(stamps_of(path for _, path in pairs) for pairs in (train, test)),
        ),
        of_train + of_test,
    )


def _of_pairs(
    pairs: Sequence[tuple[str, str]], unit: float, skipped: Skipped
) -> Scenes:
    def load(number):
        image, depth = pairs[number]
        return scene(read_image(image), read_depth(depth, unit))

    return Scenes(len(pairs), load, lambda n: pairs[n][0], skipped)


def _open_tfds(name: str, config: Config, skipped: Skipped) -> SceneSplits:
    """A data set of TFDS with an image and its depths in each example."""
    flag = f"--depth_data=tfds:{name}"

    def truth_of(builder):
        if "depth" not in builder.info.features:
            raise ConfigError(f"{flag} has no feature `depth`.")
        return {"depth": True}, ()

    def read(example):
        depth = example["depth"].astype(np.float32)
        return scene(example["image"], np.squeeze(depth))

    return open_tfds_scenes(name, flag, config, skipped, truth_of, read)
