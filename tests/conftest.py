"""What all tests share: one seed, and small networks and folders of images."""

import os
import pathlib
import signal
import subprocess
import sys
import tempfile

# Indexes of folders go where no user's are. What XLA compiled serves all
# processes of the tests.
_CACHE = tempfile.mkdtemp(prefix="byol_tf_cache_")
os.environ["XDG_CACHE_HOME"] = _CACHE
os.environ.setdefault(
    "TF_XLA_FLAGS", f"--tf_xla_persistent_cache_directory={_CACHE}/xla"
)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

import byol_tf
from byol_tf.data.bundled import open_bundled

ROOT = pathlib.Path(__file__).parents[1]

# Flags for a network that learns nothing, fast.
SMALL = (
    "--encoder_blocks=1,1",
    "--encoder_channels=8,16",
    "--stem_channels=8",
    "--projector_hidden=32",
    "--projection_size=16",
    "--batch_size=32",
    "--monitor_images=200",
    "--log_every=2",
)


def pytest_configure():
    # What runs in the background was perhaps started to ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Two devices, for the tests of replicas; must precede any operation.
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * 2,
    )


@pytest.fixture(autouse=True)
def _seed():
    keras.utils.set_random_seed(0)


@pytest.fixture(scope="session")
def mirrored() -> tf.distribute.Strategy:
    """Two replicas. One for all tests: the collectives of two would mix."""
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


@pytest.fixture
def float64():
    """Everything in float64, for comparisons with NumPy."""
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")


def tiny_encoder() -> byol_tf.ResNet:
    """A network of two small groups."""
    return byol_tf.ResNet(blocks=(1, 1), channels=(8, 16), stem_channels=8)


def tiny_model(total_steps: int = 100, **arguments) -> byol_tf.BYOL:
    """A compiled BYOL model on a tiny encoder."""
    model = byol_tf.BYOL(
        tiny_encoder(),
        projector_hidden=16,
        projection_size=8,
        total_steps=total_steps,
        **{"num_classes": 3, "tau_base": 0.9} | arguments,
    )
    schedule = byol_tf.WarmupCosine(1.0, 256, total_steps=total_steps)
    model.compile(byol_tf.LARS(schedule, weight_decay=1e-3))
    model.optimizer.build(model.trainable_variables)
    return model


def save_images(folder, count: int, size=(40, 30), suffix="jpg", first=0):
    """Writes bundled images, resized to (width, height), as colour files."""
    folder.mkdir(parents=True, exist_ok=True)
    photos = open_bundled().train.images[first : first + count, ..., 0]
    for i, photo in enumerate(photos):
        image = PIL.Image.fromarray(
            np.stack([photo, photo // 2, 255 - photo], -1)
        )
        image.resize(size).save(folder / f"{first + i:03d}.{suffix}")


def photos(folder: pathlib.Path) -> pathlib.Path:
    """Images of two sizes and two classes, 60 to learn from and 20 to test."""
    for split, first, count in (("train", 0, 60), ("test", 60, 20)):
        for i in range(first, first + count):
            size = (40, 30) if i % 3 else (34, 38)
            name = "even" if i % 2 == 0 else "odd"
            save_images(folder / split / name, 1, size, first=i)
    return folder


def run(*arguments, timeout=900) -> subprocess.CompletedProcess:
    """The command line, in a process of its own."""
    return subprocess.run(
        [sys.executable, "byol_tf/main.py", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
