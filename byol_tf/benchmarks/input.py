"""How many augmented pairs a core makes in a second, beside lightly's.

    python -m byol_tf.benchmarks.input

Prints JSON. All operations are on, with the published probabilities, from two
sources: colour images of 32 pixels in memory, and JPEG files of 500 x 333, two
photographs that scikit-learn brings along, cropped to 224. Everything runs on
one and the same core. Where lightly is installed (`requirements-bench.txt`) its
`BYOLTransform` makes pairs of the same images in the same process, by turns
with ours, and the ratio of the medians is printed.
"""

import argparse
import io
import json
import math
import os
import pathlib
import platform
import statistics
import tempfile
import time

CORE = min(os.sched_getaffinity(0))
os.sched_setaffinity(0, {CORE})  # Before any library counts the cores.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import PIL.Image
import sklearn.datasets
import tensorflow as tf

from byol_tf import augment
from byol_tf.benchmarks import peers
from byol_tf.benchmarks.machine import processor
from byol_tf.config import Config
from byol_tf.data.folders import open_folder
from byol_tf.data.pipeline import training_batches
from byol_tf.data.skipped import Skipped
from byol_tf.data.sources import ArraySource
from byol_tf.data.stages import seconds_per_element, stage_times

RECIPES = (augment.T, augment.T_PRIME)
FILES = 64


def main() -> None:
    """Measures, and prints the result as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--seconds", type=float, default=5, help="of each measurement"
    )
    parser.add_argument(
        "--rounds", type=int, default=3, help="ours and theirs by turns"
    )
    arguments = parser.parse_args()
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.threading.set_intra_op_parallelism_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        result = {
            "environment": environment(),
            "arrays_32": arrays_32(arguments),
            "jpegs_224": jpegs_224(arguments, pathlib.Path(folder)),
            "dct_scaling": dct_scaling(),
        }
    print(json.dumps(result, indent=2))


def environment() -> dict:
    """What the figures depend on."""
    return {
        "processor": processor(),
        "cores_used": 1,
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "numpy": np.__version__,
        "pillow": PIL.__version__,
        **peers.versions(),
    }


def arrays_32(arguments) -> dict:
    """Images in memory: everything is done in batches."""
    random = np.random.RandomState(0)
    images = np.stack([photo(random, 32, 32) for _ in range(1024)])
    source = ArraySource(images, np.full(len(images), -1, np.int32))
    batches = training_batches(source, 256, 32, 0, RECIPES)
    return compared(arguments, batches, 256, 32, list(images)) | {
        "stages_ms": augment_ms(arguments, next(iter(batches))[0], 32)
    }


def jpegs_224(arguments, folder: pathlib.Path) -> dict:
    """Image files: the crops are made one by one, the rest in batches."""
    random = np.random.RandomState(0)
    for i in range(FILES):
        width = 500 if i else 501  # Of two sizes, so that they stay files.
        image = PIL.Image.fromarray(photo(random, 333, width))
        image.save(folder / f"{i:02d}.jpg", quality=90)
    source = open_folder(str(folder), Config(), Skipped()).train
    batches = training_batches(source, 32, 224, 0, RECIPES, parallel_calls=1)
    files = [path.read_bytes() for path in sorted(folder.glob("*.jpg"))]
    stages = stage_times(source, 224, RECIPES, arguments.seconds)
    return compared(arguments, batches, 32, 224, files) | {
        "stages_ms": stages | augment_ms(arguments, next(iter(batches))[0], 224)
    }


def photo(random, height: int, width: int) -> np.ndarray:
    """A part of a real photograph, scaled to a height and width."""
    images = sklearn.datasets.load_sample_images().images
    image = images[random.randint(len(images))]
    y, x = random.randint(0, 80), random.randint(0, 120)
    crop = image[y : y + 340, x : x + 510]
    scaled = PIL.Image.fromarray(crop).resize(
        (width, height), PIL.Image.LANCZOS
    )
    return np.asarray(scaled)


def compared(arguments, batches, batch_size: int, size: int, inputs) -> dict:
    """Pairs in a second: ours from the stream, lightly's from `inputs`."""

    def two_views(images, step):
        return augment.views(images, tf.stack([0, step]), size, RECIPES)

    compiled = tf.function(two_views)

    def ours(steps: int) -> float:
        # A new stream that is used up, so that none works on while the peer is
        # measured, and nothing is made that is not counted.
        start = time.perf_counter()
        for step, (images, _) in enumerate(batches.take(steps)):
            view, _ = compiled(images, tf.constant(step))
            view[0, 0, 0, 0].numpy()
        return steps * batch_size / (time.perf_counter() - start)

    theirs = peers.lightly_pairs(inputs, size)
    measured = {"byol_tf": [], "lightly": []}
    ours(2), theirs and theirs(1)
    steps = math.ceil(arguments.seconds * ours(2) / batch_size)
    for _ in range(arguments.rounds):
        measured["byol_tf"].append(ours(steps))
        if theirs:
            measured["lightly"].append(theirs(arguments.seconds))
    medians = {k: statistics.median(v) for k, v in measured.items() if v}
    result = {
        f"{name}_pairs_per_second_per_core": round(value, 1)
        for name, value in medians.items()
    }
    if theirs:
        result["ratio"] = round(medians["byol_tf"] / medians["lightly"], 2)
    return result


def augment_ms(arguments, images, size: int) -> dict:
    """Milliseconds that everything after the crop takes for one pair."""

    @tf.function
    def two_views(step):
        views = augment.views(images, tf.stack([0, step]), size, RECIPES)
        return views[0][0, 0, 0], views[1][0, 0, 0]

    steps = tf.data.Dataset.range(2**31 - 1, output_type=tf.int64)
    seconds = seconds_per_element(
        steps.map(lambda step: two_views(tf.cast(step, tf.int32))),
        arguments.seconds,
    )
    return {"augment": round(1e3 * seconds / len(images), 3)}


def dct_scaling() -> dict:
    """What decoding a JPEG at half the size would change.

    A crop of 448 x 448 that is resized to 224: mean absolute difference, in
    grey levels, to decoding it whole.
    """
    image = PIL.Image.fromarray(photo(np.random.RandomState(0), 480, 720))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    whole, half = (
        tf.image.resize(
            tf.io.decode_jpeg(buffer.getvalue(), 3, ratio=ratio)[
                : 448 // ratio, : 448 // ratio
            ],
            (224, 224),
            "bicubic",
        )
        for ratio in (1, 2)
    )
    difference = tf.reduce_mean(tf.abs(whole - half))
    return {"mean_difference_in_grey_levels": round(float(difference), 2)}


if __name__ == "__main__":
    main()
