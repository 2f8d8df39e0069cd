"""A convolution that does not multiply by its own padding."""

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="byol_tf")
class Conv2D(keras.layers.Conv2D):
    """Keras's; where the output is a single place, a matrix product.

    A 3x3 kernel on a map of one place has eight taps in the padding, and small
    images come to such maps: of ResNet-18 on 32 pixels these are half of the
    arithmetic. The taps that meet the map are multiplied with it, the others
    are left out, and their gradient is 0, as it is in the convolution.

    Keras names what it saves by the class: of this name, files that were saved
    with its own layer can be loaded.
    """

    def call(self, inputs):
        taps = [
            _taps(length, kernel, stride)
            for length, kernel, stride in zip(
                inputs.shape[1:3], self.kernel_size, self.strides
            )
        ]
        if self.padding != "same" or self.use_bias or None in taps:
            return super().call(inputs)
        if self.dilation_rate != (1, 1) or self.groups > 1:
            return super().call(inputs)
        (rows, in_rows), (columns, in_columns) = taps
        kernel = tf.convert_to_tensor(self.kernel)[rows, columns]
        met = tf.cast(inputs, kernel.dtype)[:, in_rows, in_columns]
        kernel = tf.reshape(kernel, [-1, self.filters])
        met = tf.reshape(met, [-1, kernel.shape[0]])
        return (met @ kernel)[:, None, None]


def _taps(length: int | None, kernel: int, stride: int):
    """Which of a kernel's taps meet the map, and where, along one axis.

    Args:
      length: of the map, if it is known.
      kernel: number of taps.
      stride: of the convolution, whose padding is SAME.

    Returns:
      Slices of the kernel and of the map; None if there are several outputs.
    """
    if length is None or length > stride:
        return None
    before = max(kernel - length, 0) // 2
    first, last = before, min(length - 1 + before, kernel - 1)
    return slice(first, last + 1), slice(0, last - before + 1)
