"""Decoding, cropping and resizing one encoded image on the host.

Source: the official `byol/utils/dataset.py`.
"""

import io
import math
from collections.abc import Callable

import numpy as np
import PIL.Image
import tensorflow as tf

from byol_tf import augment
from byol_tf.image_operations import clip, to_rgb

# The uniform numbers that a random crop is made of.
CROP_DRAWS = 4

_PNG = b"\x89PNG\r\n\x1a\n"
_END_OF_JPEG = b"\xff\xd9"


def decode(encoded: tf.Tensor) -> tf.Tensor:
    """The bytes of an image file as uint8 [height, width, 3].

    JPEG (CMYK too) and PNG (16 bits a channel too) by TensorFlow's kernels; any
    other format that Pillow reads, e.g. WebP, BMP and GIF, by Pillow: of an
    animation the first frame. Gray becomes three equal channels, of 16 bits the
    upper 8 remain, and transparency is dropped.

    Raises:
      tf.errors.OpError, or Pillow's error in eager mode: if it is no image, or
        a truncated or damaged one.
    """
    image = tf.cond(
        tf.io.is_jpeg(encoded) | _is_png(encoded),
        lambda: tf.io.decode_image(encoded, 3, expand_animations=False),
        lambda: tf.numpy_function(_decode_by_pillow, [encoded], tf.uint8),
    )
    return tf.ensure_shape(image, [None, None, 3])


def decode_elsewhere(encoded: tf.Tensor) -> tf.Tensor:
    """What `decode` gives for JPEG and PNG, in any process; else an error."""
    known = tf.io.is_jpeg(encoded) | _is_png(encoded)
    with tf.control_dependencies(
        [tf.debugging.Assert(known, ["neither JPEG nor PNG"])]
    ):
        return decode_in_graph(encoded)


def decode_in_graph(encoded: tf.Tensor) -> tf.Tensor:
    """JPEG, PNG, BMP, or GIF's first frame, without any Python: for serving."""
    image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
    return tf.ensure_shape(image, [None, None, 3])


def _is_png(encoded: tf.Tensor) -> tf.Tensor:
    return tf.strings.substr(encoded, 0, len(_PNG)) == _PNG


def _decode_by_pillow(encoded: bytes) -> np.ndarray:
    encoded = np.asarray(encoded, object).item()  # In eager mode, an array.
    with PIL.Image.open(io.BytesIO(encoded)) as image:
        if image.mode.startswith("I;16"):  # Pillow would cut at 255.
            gray = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
            return np.repeat(gray[..., None], 3, axis=2)
        return np.asarray(image.convert("RGB"))


def why_not(encoded: bytes) -> str:
    """Why an image cannot be decoded, in Pillow's words."""
    if not encoded:
        return "empty"
    try:
        _decode_by_pillow(encoded)
    except PIL.UnidentifiedImageError:
        return "no image"
    except Exception as error:  # Pillow raises errors of many kinds here.
        return f"damaged ({' '.join(str(error).split())})"
    return "damaged"


def random_crops(
    encoded: tf.Tensor,
    numbers: tf.Tensor,
    size: int,
    recipes: tuple[augment.Recipe, ...],
    decode: Callable[[tf.Tensor], tf.Tensor] = decode,
) -> tf.Tensor:
    """Random crops of an image, one for each view.

    Args:
      encoded: string scalar, the file's bytes.
      numbers: float [recipes, CROP_DRAWS], uniform in [0, 1): the boxes.
      size: height and width of the crops.
      recipes: of the views, for the limits on the crop.
      decode: what decodes an image that is no JPEG.

    Returns:
      float32 [recipes, size, size, 3] in [0, 1].
    """
    boxes = random_boxes(numbers, recipes)
    return tf.stack(crops(encoded, boxes, len(recipes), size, decode))


def random_boxes(
    numbers: tf.Tensor, recipes: tuple[augment.Recipe, ...]
) -> Callable[[tf.Tensor], tf.Tensor]:
    """What to crop for the views, as a function of the image's size.

    Args:
      numbers: float [recipes, CROP_DRAWS], uniform in [0, 1).
      recipes: of the views, for the limits on the crop.

    Returns:
      int32 [2], height and width of the image -> int32 [recipes, 4], see
      `augment.crop_boxes`.
    """

    def boxes(image_size):
        return tf.stack(
            [
                _random_box(image_size, row, recipe)
                for row, recipe in zip(tf.unstack(numbers), recipes)
            ]
        )

    return boxes


def _random_box(image_size, numbers, recipe: augment.Recipe) -> tf.Tensor:
    """int32 [4], see `augment.crop_boxes`."""

    def uniform(number, low, high):
        return low + (high - low) * number

    area, log_aspect, top, left = tf.unstack(numbers)
    box = augment.crop_boxes(
        tf.cast(image_size, tf.float32),
        area=uniform(area, *recipe.crop_area),
        log_aspect=uniform(log_aspect, *map(math.log, recipe.crop_aspect)),
        top=top,
        left=left,
    )
    return tf.cast(box, tf.int32)


def central_crop(
    encoded: tf.Tensor,
    size: int,
    share: float,
    decode: Callable[[tf.Tensor], tf.Tensor] = decode,
) -> tf.Tensor:
    """The centre of an encoded image, as evaluation sees it.

    Args:
      encoded: string scalar, the file's bytes.
      size: height and width of the result.
      share: side of the square, as a share of the image's shorter side.
      decode: what decodes an image that is no JPEG.

    Returns:
      float32 [size, size, 3] in [0, 1].
    """

    def box(image_size):
        return _central_box(image_size, share)[None]

    (crop,) = crops(encoded, box, 1, size, decode)
    return crop


def central_crops(images: tf.Tensor, size: int, share: float) -> tf.Tensor:
    """The same of decoded images, uint8 [batch, height, width, channels]."""
    y, x, side, _ = tf.unstack(_central_box(tf.shape(images)[1:3], share))
    crops = images[:, y : y + side, x : x + side]
    return to_rgb(_resize(crops, size))


def _central_box(image_size: tf.Tensor, share: float) -> tf.Tensor:
    shorter = tf.cast(tf.reduce_min(image_size), tf.float32)
    side = tf.cast(share * shorter, tf.int32)
    offset = (image_size - side + 1) // 2
    return tf.stack([offset[0], offset[1], side, side])


def crops(
    encoded: tf.Tensor,
    boxes_in: Callable[[tf.Tensor], tf.Tensor],
    count: int,
    size: int,
    decode: Callable[[tf.Tensor], tf.Tensor] = decode,
) -> list[tf.Tensor]:
    """Boxes of an image, each resized: float32 [size, size, 3] in [0, 1].

    Args:
      encoded: the file's bytes.
      boxes_in: int32 [2], height and width of the image -> int32 [count, 4]: y,
        x, height, width.
      count: number of boxes.
      size: height and width of the results.
      decode: what decodes an image that is no JPEG.
    """
    pixels, boxes = decode_around(encoded, boxes_in, decode)
    results = []
    for box in tf.unstack(boxes, count):
        y, x, height, width = tf.unstack(box)
        crop = _resize(pixels[y : y + height, x : x + width], size)
        results.append(tf.ensure_shape(crop, [size, size, 3]))
    return results


def decode_around(
    encoded: tf.Tensor,
    boxes_in: Callable[[tf.Tensor], tf.Tensor],
    decode: Callable[[tf.Tensor], tf.Tensor] = decode,
) -> tuple[tf.Tensor, tf.Tensor]:
    """The pixels that boxes lie in: of a JPEG, no others are decoded.

    Args:
      encoded: see `crops`, as for the next two.
      boxes_in: of these boxes.
      decode: what decodes an image that is no JPEG.

    Returns:
      uint8 [height, width, 3], and the boxes in it, int32 [count, 4].
    """
    pixels, boxes = tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: _decode_jpeg_around(encoded, boxes_in),
        lambda: _decode_whole(encoded, boxes_in, decode),
    )
    return tf.ensure_shape(pixels, [None, None, 3]), boxes


def _decode_jpeg_around(encoded, boxes_in):
    boxes = boxes_in(tf.io.extract_jpeg_shape(encoded)[:2])
    first = tf.reduce_min(boxes[:, :2], axis=0)
    last = tf.reduce_max(boxes[:, :2] + boxes[:, 2:], axis=0)
    # Past the boxes nothing is read, so an end that is missing must be seen.
    is_whole = tf.strings.substr(encoded, -2, 2) == _END_OF_JPEG
    pixels = tf.cond(
        is_whole,
        lambda: tf.io.decode_and_crop_jpeg(
            encoded, tf.concat([first, last - first], 0), channels=3
        ),
        lambda: tf.io.decode_jpeg(encoded, channels=3)[
            first[0] : last[0], first[1] : last[1]
        ],
    )
    return pixels, tf.concat([boxes[:, :2] - first, boxes[:, 2:]], axis=1)


def _decode_whole(encoded, boxes_in, decode):
    pixels = decode(encoded)
    return pixels, boxes_in(tf.shape(pixels)[:2])


def _resize(images: tf.Tensor, size: int) -> tf.Tensor:
    """Bicubic, without antialiasing as in the release: float32 in [0, 1]."""
    resized = tf.image.resize(images, (size, size), "bicubic")
    return clip(resized / 255.0)
