"""The bundled images: what they are, their licence, and how they are made."""

import gzip
import hashlib
import pathlib
import subprocess
import sys

import numpy as np

from byol_tf.data import bundled


def test_bundled_images():
    dataset = bundled.open_bundled()
    assert dataset.train.images.shape == (10_000, 28, 28, 1)
    assert dataset.test.images.shape == (2_000, 28, 28, 1)
    assert len(dataset.class_names) == 10
    for source, least in ((dataset.train, 900), (dataset.test, 180)):
        assert np.bincount(source.labels, minlength=10).min() > least
    # The first test image of Fashion-MNIST is an ankle boot.
    assert dataset.class_names[dataset.test.labels[0]] == "Ankle boot"
    train = {hashlib.md5(i).digest() for i in dataset.train.images}
    test = {hashlib.md5(i).digest() for i in dataset.test.images}
    assert not train & test


def test_size_and_licence():
    assert bundled.PATH.stat().st_size <= 6_000_000
    licence = (bundled.PATH.parent / "LICENSE").read_text()
    assert "MIT License" in licence and "Zalando" in licence


def test_it_can_be_remade_from_the_package_files(tmp_path):
    images = np.arange(30, dtype=np.uint8).reshape(5, 2, 3)
    labels = np.arange(5, dtype=np.uint8)

    def write(name, array):
        header = bytes([0, 0, 8, array.ndim])
        header += b"".join(size.to_bytes(4, "big") for size in array.shape)
        path = tmp_path / f"{name}-ubyte.gz"
        path.write_bytes(gzip.compress(header + array.tobytes()))

    for prefix in ("train", "t10k"):
        write(f"{prefix}-images-idx3", images)
        write(f"{prefix}-labels-idx1", labels)
    script = pathlib.Path(bundled.PATH).parent / "remake.py"
    output = tmp_path / "made.npz"
    subprocess.run(
        [sys.executable, script, "--package", tmp_path, "--output", output],
        check=True,
    )
    with np.load(output) as made:
        np.testing.assert_array_equal(made["train_images"], images)
        np.testing.assert_array_equal(made["test_labels"], labels)
