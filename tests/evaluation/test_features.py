"""Features come in the order of the images, from a frozen encoder."""

import keras
import numpy as np
import pytest
from conftest import tiny_encoder

from byol_tf.config import ConfigError
from byol_tf.data.pipeline import evaluation_batches
from byol_tf.data.sources import ArraySource
from byol_tf.evaluation.features import (
    NotFinite,
    check_features,
    extract,
    features_of_gray,
    raw_pixels,
)


def source(channels: int, size: int = 12, count: int = 10) -> ArraySource:
    random = np.random.RandomState(0)
    images = random.randint(0, 256, (count, size, size, channels), np.uint8)
    return ArraySource(images, np.arange(count, dtype=np.int32))


def test_features_are_the_encoders():
    encoder = tiny_encoder()
    before = [w.numpy() for w in encoder.weights]
    images = source(3)
    batches = evaluation_batches(images, 12, 1.0, batch_size=4)
    features, labels = extract(encoder, batches)
    assert labels.tolist() == list(range(10))
    expected = encoder(images.images / np.float32(255))
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5)
    for weight, value in zip(encoder.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)


def test_features_kept_on_disk(tmp_path, capsys):
    encoder = tiny_encoder()
    batches = evaluation_batches(source(3), 12, 1.0, batch_size=4)
    expected, _ = extract(encoder, batches)
    path = tmp_path / "features.npy"
    features, labels = extract(encoder, batches, "features", path)
    assert isinstance(features, np.memmap) and features.dtype == np.float16
    np.testing.assert_array_equal(features, expected.astype(np.float16))
    np.testing.assert_array_equal(np.load(path), features)
    assert labels.tolist() == list(range(10))
    assert "features" in capsys.readouterr().err  # The progress bar.
    assert [p.name for p in tmp_path.iterdir()] == ["features.npy"]


@pytest.mark.parametrize("factor", [1e6, np.nan])
def test_features_that_float16_cannot_hold(tmp_path, factor):
    inputs = keras.Input((12, 12, 3))
    outputs = keras.layers.Rescaling(factor)(keras.layers.Flatten()(inputs))
    encoder = keras.Model(inputs, outputs)
    batches = evaluation_batches(source(3), 12, 1.0, batch_size=4)
    with pytest.raises(NotFinite, match="of image 0 are not finite, or more"):
        extract(encoder, batches, path=tmp_path / "features.npy")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_the_first_image_with_features_that_are_not_finite(tmp_path, dtype):
    images = source(3)
    images.images[[6, 9]] = 0
    inputs = keras.Input((12, 12, 3))
    means = keras.layers.GlobalAveragePooling2D()(inputs)
    encoder = keras.Model(inputs, keras.ops.log(means))  # -inf of black.
    batches = evaluation_batches(images, 12, 1.0, batch_size=4)
    with pytest.raises(NotFinite, match="of image 6 are not finite") as error:
        extract(encoder, batches, path=tmp_path / "features.npy", dtype=dtype)
    assert error.value.row == 6
    assert ("more than" in str(error.value)) == (dtype == np.float16)
    with pytest.raises(NotFinite, match="of image 6 are not finite"):
        check_features(encoder, batches)


def test_features_of_gray():
    encoder = tiny_encoder()
    expected = encoder(np.full((1, 12, 12, 3), 0.5, np.float32))
    np.testing.assert_allclose(features_of_gray(encoder, 12), expected)


def of_two_outputs():
    inputs = keras.Input([12, 12, 3])
    features = keras.layers.GlobalAveragePooling2D()(inputs)
    return keras.Model(inputs, [features, 2 * features])


def of_one_channel():
    inputs = keras.Input([12, 12, 1])
    return keras.Model(inputs, keras.layers.Flatten()(inputs))


def of_vectors():
    return keras.Sequential([keras.Input([5]), keras.layers.Dense(2)])


def of_two_inputs():
    inputs = [keras.Input([12, 12, 3]) for _ in range(2)]
    return keras.Model(inputs, keras.layers.Flatten()(inputs[0] + inputs[1]))


def of_exactly_27_values():
    inputs = keras.Input([None, None, 3])
    return keras.Model(inputs, keras.layers.Reshape([27])(inputs))


@pytest.mark.parametrize(
    "make, expected",
    [
        (of_two_outputs, "gives 2 outputs in a list, not one vector"),
        (of_one_channel, "a last axis of 1, not of 3 channels"),
        (of_vectors, r"takes \[None, 5\], not images"),
        (of_exactly_27_values, "=12: The total size of the tensor must be"),
        (of_two_inputs, "takes 2 inputs"),
    ],
)
def test_encoders_of_something_else(make, expected):
    with pytest.raises(ConfigError, match="^--encoder .*" + expected):
        features_of_gray(make(), 12)


def test_raw_pixels_are_the_images():
    images = source(3)
    pixels, _ = raw_pixels(evaluation_batches(images, 12, 1.0))
    np.testing.assert_allclose(
        pixels, images.images.reshape(10, -1) / 255, atol=1e-6
    )


def test_raw_pixels_of_gray_images_are_one_channel():
    images = source(1)
    pixels, _ = raw_pixels(evaluation_batches(images, 12, 1.0))
    np.testing.assert_allclose(
        pixels, images.images.reshape(10, -1) / 255, atol=1e-6
    )


def test_raw_pixels_of_large_images_are_shrunk():
    pixels, _ = raw_pixels(evaluation_batches(source(3, size=64), 64, 1.0))
    assert pixels.shape == (10, 32 * 32 * 3)
