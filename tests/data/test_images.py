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


def test_random_crops_follow_from_their_numbers():
    first = np.random.RandomState(0).rand(2, images.CROP_DRAWS)
    first = first.astype(np.float32)
    file = tf.constant(encoded(60, 80, "JPEG"))
    recipes = (augment.T, augment.T_PRIME)
    a, b, c = (
        images.random_crops(file, tf.constant(numbers), 16, recipes).numpy()
        for numbers in (first, first, first[::-1])
    )
    assert a.shape == (2, 16, 16, 3)
    np.testing.assert_array_equal(a, b)
    assert np.abs(a - c).max() > 0.01
    assert np.abs(a[0] - a[1]).max() > 0.01


def photo() -> PIL.Image.Image:
    image = PIL.Image.open(io.BytesIO(encoded(40, 60, "PNG")))
    return image.convert("RGB")


def saved(image: PIL.Image.Image, kind: str, **settings) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **settings)
    return buffer.getvalue()


def with_alpha(image: PIL.Image.Image) -> PIL.Image.Image:
    image = image.copy()
    image.putalpha(PIL.Image.linear_gradient("L").resize(image.size))
    return image


def palette(image: PIL.Image.Image) -> PIL.Image.Image:
    return image.convert("P", palette=PIL.Image.ADAPTIVE)


FILES = {
    "gray JPEG": lambda x: saved(x.convert("L"), "JPEG"),
    "CMYK JPEG": lambda x: saved(x.convert("CMYK"), "JPEG", quality=95),
    "progressive JPEG": lambda x: saved(x, "JPEG", progressive=True),
    "gray PNG": lambda x: saved(x.convert("L"), "PNG"),
    "black and white PNG": lambda x: saved(x.convert("1"), "PNG"),
    "RGBA PNG": lambda x: saved(with_alpha(x), "PNG"),
    "gray PNG with alpha": lambda x: saved(with_alpha(x).convert("LA"), "PNG"),
    "palette PNG": lambda x: saved(palette(x), "PNG"),
    "palette PNG with a transparent colour": lambda x: saved(
        palette(x), "PNG", transparency=3
    ),
    "WebP": lambda x: saved(x, "WEBP"),
    "lossless WebP with alpha": lambda x: saved(
        with_alpha(x), "WEBP", lossless=True
    ),
    "animated WebP": lambda x: saved(
        x, "WEBP", save_all=True, append_images=[x.rotate(90)], lossless=True
    ),
    "BMP": lambda x: saved(x, "BMP"),
    "palette BMP": lambda x: saved(palette(x), "BMP"),
    "black and white BMP": lambda x: saved(x.convert("1"), "BMP"),
    "GIF": lambda x: saved(palette(x), "GIF"),
    "animated GIF": lambda x: saved(
        x, "GIF", save_all=True, append_images=[x.rotate(90), x.rotate(180)]
    ),
}


@pytest.mark.parametrize("kind", FILES)
def test_files_become_what_pillow_makes_of_them(kind):
    file = FILES[kind](photo())
    expected = np.asarray(PIL.Image.open(io.BytesIO(file)).convert("RGB"))
    decoded = tf.function(images.decode)(tf.constant(file))
    # TensorFlow's JPEG kernel rounds otherwise than Pillow's.
    tolerance = 14 if "JPEG" in kind else 0
    difference = decoded.numpy().astype(int) - expected
    assert np.abs(difference).max() <= tolerance
    assert np.abs(difference).mean() < 3
    # A crop is one of these pixels, read in a graph as in training.
    whole = lambda _: tf.constant([[0, 0, 40, 60]])  # noqa: E731
    (crop,) = tf.function(lambda f: images.crops(f, whole, 1, 20))(file)
    resized = tf.image.resize(decoded, (20, 20), "bicubic") / 255
    np.testing.assert_allclose(crop, np.clip(resized, 0, 1), atol=1e-6)


def png_of_16_bits(pixels: np.ndarray) -> bytes:
    """A PNG of 16 bits a channel; Pillow writes none of colours."""
    return tf.io.encode_png(pixels.astype(np.uint16)).numpy()


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_the_upper_8_of_16_bits_remain(channels):
    pixels = np.random.RandomState(0).randint(0, 2**16, (10, 12, channels))
    decoded = images.decode(tf.constant(png_of_16_bits(pixels)))
    expected = pixels[..., :3] >> 8
    np.testing.assert_array_equal(
        decoded, np.broadcast_to(expected, (10, 12, 3))
    )


def test_gray_of_16_bits_by_pillow():
    pixels = np.random.RandomState(0).randint(0, 2**16, (10, 12), np.uint16)
    file = saved(PIL.Image.fromarray(pixels), "TIFF")
    np.testing.assert_array_equal(
        images.decode(tf.constant(file))[..., 0], pixels >> 8
    )


def test_boxes_of_one_jpeg_are_those_of_each():
    file = tf.constant(encoded(80, 120, "JPEG"))
    boxes = np.array([[8, 16, 40, 48], [0, 32, 64, 80]], np.int32)
    together = images.crops(file, lambda _: tf.constant(boxes), 2, 24)
    for box, crop in zip(boxes, together, strict=True):
        (alone,) = images.crops(file, lambda _, b=box: b[None], 1, 24)
        np.testing.assert_allclose(crop, alone, atol=1e-6)


@pytest.mark.parametrize("cut", [0.3, 0.9, 0.99])
def test_a_jpeg_that_is_cut_short_is_refused_even_above_the_cut(cut):
    file = encoded(80, 120, "JPEG")
    short = tf.constant(file[: int(cut * len(file))])
    top = lambda _: tf.constant([[0, 0, 8, 8]])  # noqa: E731
    with pytest.raises(tf.errors.InvalidArgumentError):
        images.crops(short, top, 1, 8)


def test_bytes_after_the_end_of_a_jpeg_do_no_harm():
    file = encoded(80, 120, "JPEG")
    top = lambda _: tf.constant([[0, 8, 40, 16]])  # noqa: E731
    (crop,) = images.crops(tf.constant(file), top, 1, 8)
    (padded,) = images.crops(tf.constant(file + b"\0\0camera"), top, 1, 8)
    np.testing.assert_array_equal(crop, padded)


@pytest.mark.parametrize(
    "file, reason",
    [
        (b"", "empty"),
        (b"hello", "no image"),
        (encoded(40, 60, "JPEG")[:500], "damaged"),
        (encoded(40, 60, "PNG")[:500], "damaged"),
    ],
)
def test_why_not(file, reason):
    assert images.why_not(file).startswith(reason)
