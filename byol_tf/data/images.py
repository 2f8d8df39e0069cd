"""Decoding, cropping and resizing one encoded image on the host.

Source: the official `byol/utils/dataset.py`.
"""

import tensorflow as tf

from byol_tf import augment


def decode(encoded: tf.Tensor) -> tf.Tensor:
    """JPEG, PNG, BMP, or GIF's first frame, as uint8 [height, width, 3]."""
    image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
    image.set_shape([None, None, 3])
    return image


def two_crops(
    encoded: tf.Tensor,
    seed: tf.Tensor,
    size: int,
    recipes: tuple[augment.Recipe, augment.Recipe],
) -> tf.Tensor:
    """Two independent random crops of an image, for the two views.

    Args:
      encoded: string scalar, the file's bytes.
      seed: int32 [2].
      size: height and width of the crops.
      recipes: T and T', for the limits on the crop.

    Returns:
      float32 [2, size, size, 3] in [0, 1].
    """
    return tf.stack(
        [
            random_crop(encoded, view_seed, size, recipe)
            for view_seed, recipe in zip(
                tf.unstack(augment.split(seed, 2)), recipes
            )
        ]
    )


def random_crop(encoded, seed, size: int, recipe: augment.Recipe) -> tf.Tensor:
    """A random crop, resized: float32 [size, size, 3] in [0, 1]."""
    image_size = image_shape(encoded)[:2]
    box = augment.random_boxes(
        tf.cast(image_size, tf.float32), 1, seed, recipe
    )[0]
    return crop_and_resize(encoded, tf.cast(box, tf.int32), size)


def central_crop(encoded: tf.Tensor, size: int, share: float) -> tf.Tensor:
    """The centre of an encoded image, as evaluation sees it.

    Args:
      encoded: string scalar, the file's bytes.
      size: height and width of the result.
      share: side of the square, as a share of the image's shorter side.

    Returns:
      float32 [size, size, 3] in [0, 1].
    """
    box = _central_box(image_shape(encoded)[:2], share)
    return crop_and_resize(encoded, box, size)


def central_crops(images: tf.Tensor, size: int, share: float) -> tf.Tensor:
    """The same of decoded images, uint8 [batch, height, width, channels]."""
    y, x, side, _ = tf.unstack(_central_box(tf.shape(images)[1:3], share))
    crops = images[:, y : y + side, x : x + side]
    return augment.to_rgb(_resize(crops, size))


def _central_box(image_size: tf.Tensor, share: float) -> tf.Tensor:
    shorter = tf.cast(tf.reduce_min(image_size), tf.float32)
    side = tf.cast(share * shorter, tf.int32)
    offset = (image_size - side + 1) // 2
    return tf.stack([offset[0], offset[1], side, side])


def _resize(images: tf.Tensor, size: int) -> tf.Tensor:
    """Bicubic, without antialiasing as in the release: float32 in [0, 1]."""
    resized = tf.image.resize(images, (size, size), "bicubic")
    return augment.clip(resized / 255.0)


def image_shape(encoded: tf.Tensor) -> tf.Tensor:
    """int32 [3]: height, width, channels; of a JPEG without decoding it."""
    return tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: tf.io.extract_jpeg_shape(encoded),
        lambda: tf.shape(decode(encoded)),
    )


def crop_and_resize(encoded: tf.Tensor, box: tf.Tensor, size: int) -> tf.Tensor:
    """Decodes a box (int32 y, x, height, width) and resizes it, bicubic.

    Of a JPEG no more than the box is decoded. There is no antialiasing, as in
    the release.
    """
    crop = tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: tf.io.decode_and_crop_jpeg(encoded, box, channels=3),
        lambda: tf.slice(
            decode(encoded),
            tf.concat([box[:2], [0]], 0),
            tf.concat([box[2:], [3]], 0),
        ),
    )
    return tf.ensure_shape(_resize(crop, size), [size, size, 3])
