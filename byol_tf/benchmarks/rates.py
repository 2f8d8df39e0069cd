"""What this machine can do: matrix products and convolutions a second."""

import statistics
import time

import tensorflow as tf

from byol_tf.benchmarks.alternation import answer

# A matrix product of this many rows, columns and sums; and a 3x3 convolution.
_SIDE = 2048
_IMAGES, _MAP, _CHANNELS = 32, 28, 128


def main() -> None:
    """A contestant that is asked for `rates`."""
    answer({"rates": rates})


def rates(rounds: int = 5) -> dict[str, float]:
    """Floating-point operations a second, by operation and precision."""
    found = {}
    for dtype in (tf.float32, tf.bfloat16):
        matrix = tf.cast(tf.random.uniform([_SIDE, _SIDE]), dtype)
        images = tf.cast(
            tf.random.uniform([_IMAGES, _MAP, _MAP, _CHANNELS]), dtype
        )
        kernel = tf.cast(tf.random.uniform([3, 3, _CHANNELS, _CHANNELS]), dtype)
        product = tf.function(lambda matrix=matrix: matrix @ matrix)
        convolution = tf.function(
            lambda images=images, kernel=kernel: tf.nn.conv2d(
                images, kernel, 1, "SAME"
            )
        )
        pixels = _IMAGES * _MAP**2
        for name, function, operations in (
            ("matmul", product, 2 * _SIDE**3),
            ("convolution", convolution, 18 * pixels * _CHANNELS**2),
        ):
            found[f"{name}_{dtype.name}"] = operations / _seconds(
                function, rounds
            )
    return found


def _seconds(function, rounds: int) -> float:
    """Median of a call, after one that compiles."""
    seconds = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


if __name__ == "__main__":
    main()
