"""Convolutions that are matrix products, computed as such."""

import keras
import numpy as np
import tensorflow as tf

from byol_tf.model import filter_gradient


@keras.saving.register_keras_serializable(package="byol_tf")
class Conv2D(keras.layers.Conv2D):
    """Keras's, and a matrix product where it is nothing else.

    A 1x1 kernel is one at every place. And where every output sees the whole
    map, as on the last maps of small images, a larger kernel is one from maps
    to maps: a 3x3 kernel has 9 taps for each output, of which 5 are in the
    padding of a 2x2 map and 8 in that of a single place. A convolution
    multiplies by the padding, the matrix has only what meets the map.

    Keras names what it saves by the class: of this name, files that were saved
    with its own layer can be loaded.
    """

    def add_weight(self, *args, name=None, **kwargs):
        if name == "kernel":  # Taps that meet nothing need not be cast either.
            kwargs["autocast"] = False
        return super().add_weight(*args, name=name, **kwargs)

    def convolution_op(self, inputs, kernel):
        kernel = tf.convert_to_tensor(kernel)
        usual = self.padding == "same" and self.dilation_rate == (1, 1)
        if usual and self.groups == 1:
            if self.kernel_size == self.strides == (1, 1):
                return _at_every_place(inputs, self._cast(kernel))
            taps = [
                _taps(length, size, stride)
                for length, size, stride in zip(
                    inputs.shape[1:3], self.kernel_size, self.strides
                )
            ]
            if all(t is not None for t in taps):
                met = [slice(t.min(), t.max() + 1) for t in taps]
                kernel = self._cast(_kept(kernel, *met))
                return _from_maps_to_maps(
                    inputs, kernel, *(t - t.min() for t in taps)
                )
            kernel = self._cast(kernel)
            if filter_gradient.pays(inputs, kernel, self.strides):
                return filter_gradient.convolution(inputs, kernel, self.strides)
        return super().convolution_op(inputs, self._cast(kernel))

    def _cast(self, kernel):
        return tf.cast(kernel, self.compute_dtype)


def _at_every_place(inputs, kernel):
    """[batch, height, width, m] by [1, 1, m, n]."""
    m, n = kernel.shape[2:]
    rows = tf.reshape(inputs, [-1, m])
    outputs = tf.matmul(rows, tf.reshape(kernel, [m, n]))
    shape = tf.concat([tf.shape(inputs)[:3], [n]], 0)
    outputs = tf.reshape(outputs, shape)
    outputs.set_shape([*inputs.shape[:3], n])
    return outputs


def _taps(length: int | None, size: int, stride: int) -> np.ndarray | None:
    """Which tap of a kernel multiplies which place, along one axis.

    Args:
      length: of the map, if it is known.
      size: of the kernel.
      stride: of the convolution, whose padding is SAME.

    Returns:
      Numbers of taps, [length, outputs]; None unless every output sees the
      whole map.
    """
    if length is None:
        return None
    outputs = -(-length // stride)
    padding = max((outputs - 1) * stride + size - length, 0)
    first = np.arange(outputs) * stride - padding // 2
    taps = np.arange(length)[:, None] - first
    return taps if taps.min() >= 0 and taps.max() < size else None


def _from_maps_to_maps(inputs, kernel, row_taps, column_taps):
    """A convolution whose every output sees the whole map.

    Args:
      inputs: [batch, height, width, m].
      kernel: the taps that meet something, [rows, columns, m, n].
      row_taps: see `_taps`, [height, output height].
      column_taps: [width, output width].
    """
    rows, columns, m, n = kernel.shape
    # Of every place and output place.
    taps = row_taps[:, None, :, None] * columns + column_taps[:, None, :]
    out_shape = [-1, *taps.shape[2:], n]
    taps = taps.reshape(inputs.shape[1] * inputs.shape[2], -1)
    places, out_places = taps.shape

    @tf.custom_gradient
    def product(inputs, kernel):
        matrix = tf.reshape(kernel, [rows * columns * m, n])
        if out_places > 1:
            channels = np.arange(m)[:, None]
            matrix = tf.gather(matrix, taps[:, None] * m + channels)
        matrix = tf.reshape(matrix, [places * m, out_places * n])
        maps = tf.reshape(inputs, [-1, places * m])

        def gradients(upstream):
            upstream = tf.reshape(upstream, [-1, out_places * n])
            of_inputs = tf.matmul(upstream, matrix, transpose_b=True)
            ins = tf.split(maps, places, 1)
            outs = tf.split(upstream, out_places, 1)
            of_taps = []
            for tap in range(rows * columns):
                pairs = np.argwhere(taps == tap)
                of_taps.append(
                    tf.matmul(
                        tf.concat([ins[i] for i, _ in pairs], 0),
                        tf.concat([outs[o] for _, o in pairs], 0),
                        transpose_a=True,
                    )
                )
            return (
                tf.reshape(of_inputs, tf.shape(inputs)),
                tf.reshape(tf.stack(of_taps), kernel.shape),
            )

        return tf.reshape(tf.matmul(maps, matrix), out_shape), gradients

    return product(inputs, kernel)


def _kept(kernel, rows: slice, columns: slice):
    """kernel[rows, columns]; its gradient is padded with zeros.

    TensorFlow's own fills all with zeros and then assigns: twice as long.
    """

    @tf.custom_gradient
    def kept(kernel):
        def gradient(upstream):
            paddings = [
                (taps.start, length - taps.stop)
                for taps, length in zip((rows, columns), kernel.shape[:2])
            ]
            return tf.pad(upstream, [*paddings, (0, 0), (0, 0)])

        return kernel[rows, columns], gradient

    return kept(kernel)
