"""The SavedModel, loaded in a process that knows nothing of this package."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from conftest import save_images, tiny_encoder

import byol_tf
from byol_tf.data.images import central_crop
from byol_tf.serving import export_saved_model, max_abs_difference

CLIENT = """
import sys
import numpy as np
import pytest
import tensorflow as tf
folder = sys.argv[1]
signatures = tf.saved_model.load(folder + "/saved_model").signatures
images = np.load(folder + "/images.npy")
features = signatures["serving_default"](images=tf.constant(images))["features"]
np.save(folder + "/features.npy", features)
files = [tf.io.read_file(f"{folder}/photos/{i:03d}.jpg") for i in range(3)]
features = signatures["encoded_images"](encoded=tf.stack(files))["features"]
np.save(folder + "/encoded.npy", features)
assert not [name for name in sys.modules if name.startswith("byol_tf")]
"""


def test_export_gives_the_encoders_features_in_a_new_process(tmp_path):
    encoder = tiny_encoder()
    images = np.random.RandomState(0).rand(5, 18, 22, 3).astype(np.float32)
    encoder(images, training=True)
    save_images(tmp_path / "photos", 2, size=(40, 30))
    save_images(tmp_path / "photos", 1, size=(33, 50), first=2)
    np.save(tmp_path / "images.npy", images)
    export_saved_model(encoder, tmp_path / "saved_model", 16, 0.875)
    subprocess.run(
        [sys.executable, "-c", CLIENT, str(tmp_path)], check=True, cwd=tmp_path
    )
    np.testing.assert_allclose(
        np.load(tmp_path / "features.npy"), encoder(images), atol=1e-6
    )
    crops = tf.stack(
        [
            central_crop(path.read_bytes(), 16, 0.875)
            for path in sorted((tmp_path / "photos").iterdir())
        ]
    )
    np.testing.assert_allclose(
        np.load(tmp_path / "encoded.npy"), encoder(crops), atol=1e-6
    )


def test_difference_is_found_where_there_is_one(tmp_path):
    encoder = tiny_encoder()
    path = tmp_path / "saved_model"
    export_saved_model(encoder, path, 16, 1.0)
    images = np.random.RandomState(0).rand(3, 16, 16, 3).astype(np.float32)
    assert max_abs_difference(encoder, path, images) < 1e-6
    with pytest.raises(RuntimeError, match="differ by"):
        max_abs_difference(tiny_encoder(), path, images)


def test_an_encoder_in_float16_differs_by_its_rounding(tmp_path):
    encoder = byol_tf.ResNet(
        blocks=(1, 1), channels=(8, 16), stem_channels=8, dtype="mixed_float16"
    )
    path = tmp_path / "saved_model"
    export_saved_model(encoder, path, 16, 1.0)
    images = np.random.RandomState(0).rand(3, 16, 16, 3).astype(np.float32)
    assert max_abs_difference(encoder, path, images) < 1e-2


def test_a_new_export_replaces_the_old(tmp_path):
    path = tmp_path / "saved_model"
    images = np.random.RandomState(0).rand(3, 16, 16, 3).astype(np.float32)
    for encoder in (tiny_encoder(), tiny_encoder()):
        export_saved_model(encoder, path, 16, 1.0)
        assert max_abs_difference(encoder, path, images) < 1e-6
    assert [p.name for p in tmp_path.iterdir()] == ["saved_model"]
