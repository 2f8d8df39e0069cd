"""Makes the bundled data set from Debian's package dataset-fashion-mnist.

  apt-get install dataset-fashion-mnist
  python byol_tf/data/fashion_mnist/remake.py

The first 10,000 of the 60,000 training images and the first 2,000 of the
10,000 test images, with their labels. The order in the package is random.
"""

import argparse
import gzip
import pathlib

import numpy as np

HERE = pathlib.Path(__file__).parent
PACKAGE = pathlib.Path("/usr/share/datasets/fashion-mnist")
SIZES = {"train": 10_000, "test": 2_000}


def read_idx(path: pathlib.Path) -> np.ndarray:
    """The array of unsigned bytes in a gzipped IDX file."""
    data = gzip.decompress(path.read_bytes())
    rank = data[3]
    shape = np.frombuffer(data, ">i4", count=rank, offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)


def main() -> None:
    """Reads the package's files and writes fashion_mnist.npz."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--package", type=pathlib.Path, default=PACKAGE)
    parser.add_argument(
        "--output", type=pathlib.Path, default=HERE / "fashion_mnist.npz"
    )
    arguments = parser.parse_args()
    arrays = {}
    for split, prefix in (("train", "train"), ("test", "t10k")):
        images = read_idx(arguments.package / f"{prefix}-images-idx3-ubyte.gz")
        labels = read_idx(arguments.package / f"{prefix}-labels-idx1-ubyte.gz")
        arrays[f"{split}_images"] = images[: SIZES[split]]
        arrays[f"{split}_labels"] = labels[: SIZES[split]]
    np.savez_compressed(arguments.output, **arrays)
    print(f"{arguments.output}: {arguments.output.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
