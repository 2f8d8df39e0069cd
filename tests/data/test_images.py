"""Decoding and cropping of files, against decoding whole and tf.image."""

import io

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from byol_tf import augment
from byol_tf.data import images


def encoded(height: int, width: int, kind: str) -> bytes:
    random = np.random.RandomState(0)
    small = random.randint(0, 256, (height // 5, width // 5, 3), np.uint8)
    image = PIL.Image.fromarray(small).resize(
        (width, height), PIL.Image.BICUBIC
    )
    buffer = io.BytesIO()
    # With subsampled colours libjpeg's crop differs in its last column.
    image.save(buffer, kind, **({"subsampling": 0} if kind == "JPEG" else {}))
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "GIF"])
def test_crop_equals_that_of_the_decoded_image(kind):
    file = tf.constant(encoded(60, 80, kind))
    whole = tf.io.decode_image(file, 3, expand_animations=False)
    crop = whole[16:48, 8:50]
    expected = tf.image.resize(crop, (24, 24), "bicubic") / 255
    box = tf.constant([[16, 8, 32, 42]])
    (measured,) = images.crops(file, lambda _: box, 1, 24)
    np.testing.assert_allclose(measured, np.clip(expected, 0, 1), atol=1e-6)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize(
    "share, box", [(1.0, (0, 15, 50, 50)), (0.875, (4, 19, 43, 43))]
)
def test_central_crop_is_the_releases(kind, share, box):
    # ((50 - 43) + 1) // 2 = 4 and ((80 - 43) + 1) // 2 = 19.
    file = tf.constant(encoded(50, 80, kind))
    y, x, height, width = box
    whole = tf.io.decode_image(file, 3, expand_animations=False)
    crop = whole[y : y + height, x : x + width]
    expected = np.clip(tf.image.resize(crop, (32, 32), "bicubic") / 255, 0, 1)
    measured = images.central_crop(file, 32, share)
    np.testing.assert_allclose(measured, expected, atol=1e-6)
    batch = images.central_crops(whole[None], 32, share)
    np.testing.assert_allclose(batch[0], expected, atol=1e-6)


def test_two_crops_follow_from_their_numbers():
    first = np.random.RandomState(0).rand(2, images.CROP_DRAWS)
    first = first.astype(np.float32)
    file = tf.constant(encoded(60, 80, "JPEG"))
    recipes = (augment.T, augment.T_PRIME)
    a, b, c = (
        images.two_crops(file, tf.constant(numbers), 16, recipes).numpy()
        for numbers in (first, first, first[::-1])
    )
    assert a.shape == (2, 16, 16, 3)
    np.testing.assert_array_equal(a, b)
    assert np.abs(a - c).max() > 0.01
    assert np.abs(a[0] - a[1]).max() > 0.01
