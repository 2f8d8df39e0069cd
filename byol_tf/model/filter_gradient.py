"""The gradient of a convolution's kernel as matrix products, one for each tap.

oneDNN's own, of TensorFlow 2.21 on a CPU, takes up to twelve times as long
where the convolution has a stride, or where maps are small and in bfloat16;
elsewhere it is the faster one. docs/PERFORMANCE.md has the figures.
"""

import tensorflow as tf

# The largest output, in places, for which it is the slower one in bfloat16.
_SMALL = 8 * 8
# With fewer channels the products are too thin, as those of images' colours.
_LEAST_CHANNELS = 16


def pays(inputs, kernel, strides: tuple[int, int]) -> bool:
    """Whether a gradient tap by tap is the faster one.

    Args:
      inputs: of the convolution, [batch, height, width, m].
      kernel: [rows, columns, m, n].
      strides: of the convolution, whose padding is SAME.
    """
    height, width = inputs.shape[1:3]
    if None in (height, width) or kernel.shape[2] < _LEAST_CHANNELS:
        return False
    places = -(-height // strides[0]) * -(-width // strides[1])
    small = inputs.dtype == tf.bfloat16 and places <= _SMALL
    return (small or strides != (1, 1)) and on_cpu()


def convolution(inputs, kernel, strides: tuple[int, int]):
    """`tf.nn.conv2d` with padding SAME, but for how the gradient is computed.

    Args:
      inputs: see `pays`.
      kernel: see there.
      strides: see there.
    """

    @tf.custom_gradient
    def convolved(inputs, kernel):
        def gradients(upstream):
            of_inputs = tf.raw_ops.Conv2DBackpropInput(
                input_sizes=tf.shape(inputs),
                filter=kernel,
                out_backprop=upstream,
                strides=[1, *strides, 1],
                padding="SAME",
            )
            return of_inputs, _of_kernel(inputs, upstream, kernel, strides)

        return tf.nn.conv2d(inputs, kernel, strides, "SAME"), gradients

    return convolved(inputs, kernel)


def _of_kernel(inputs, upstream, kernel, strides: tuple[int, int]):
    """A tap's is the product of what it met and what came of it."""
    rows, columns, m, n = kernel.shape
    out_height, out_width = upstream.shape[1:3]
    height, before, after = _padded(inputs.shape[1], rows, strides[0])
    width, left, right = _padded(inputs.shape[2], columns, strides[1])
    padded = tf.pad(inputs, [(0, 0), (before, after), (left, right), (0, 0)])
    # Every stride-th place becomes a slice without gaps.
    down, across = strides
    shape = [-1, height // down, down, width // across, across, m]
    padded = tf.reshape(padded, shape)
    upstream = tf.reshape(upstream, [-1, n])
    of_taps = []
    for i in range(rows):
        for j in range(columns):
            row, column = i // down, j // across
            met = padded[
                :,
                row : row + out_height,
                i % down,
                column : column + out_width,
                j % across,
            ]
            met = tf.reshape(met, [-1, m])
            of_taps.append(tf.matmul(met, upstream, transpose_a=True))
    return tf.reshape(tf.stack(of_taps), kernel.shape)


def _padded(length: int, size: int, stride: int) -> tuple[int, int, int]:
    """Along one axis: the length with its padding, that before, that after.

    At the end there is as much as makes the length a multiple of the stride.
    """
    outputs = -(-length // stride)
    before = max((outputs - 1) * stride + size - length, 0) // 2
    total = (outputs + (size - 1) // stride) * stride
    return total, before, total - length - before


def on_cpu() -> bool:
    """Whether there is no other device, whose operations are not oneDNN's."""
    return all(d.device_type == "CPU" for d in tf.config.list_logical_devices())
