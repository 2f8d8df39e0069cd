"""`--dataset=bundled`: a part of Fashion-MNIST that travels with the code."""

import pathlib

import numpy as np

from byol_tf.data.sources import ArraySource, Dataset

PATH = pathlib.Path(__file__).parent / "fashion_mnist" / "fashion_mnist.npz"
CLASS_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


def open_bundled() -> Dataset:
    """10,000 training and 2,000 test images, 28x28, gray, of 10 classes."""
    with np.load(PATH) as arrays:
        train, test = (
            ArraySource(
                arrays[f"{split}_images"][..., None],
                arrays[f"{split}_labels"].astype(np.int32),
            )
            for split in ("train", "test")
        )
    return Dataset(train, test, CLASS_NAMES)
