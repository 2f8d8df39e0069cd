"""What augmentation does to images: operations on given parameters.

Every operation works on a batch, with fixed shapes. Images are planes, float32
[batch, channels, height, width] in [0, 1]: what acts on one channel, or on rows
and columns, then needs no transposition. A parameter is [batch], one number per
image. What is drawn, and in which order the operations come, is in
`augment.py`.

Source: arXiv 2006.07733, appendix B; the official
`byol/utils/augmentations.py`.
"""

from collections.abc import Callable

import tensorflow as tf

# The colour operations, in the numbering that an `order` uses.
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)

# Weights of R, G and B in a gray value.
LUMA = (0.2989, 0.5870, 0.1140)


def to_planes(images: tf.Tensor) -> tf.Tensor:
    """Channels-last uint8 in [0, 255] or float in [0, 1], to planes."""
    planes = tf.transpose(images, [0, 3, 1, 2])
    if images.dtype.is_integer:
        return tf.cast(planes, tf.float32) / 255.0
    return tf.cast(planes, tf.float32)


def from_planes(planes: tf.Tensor) -> tf.Tensor:
    """Planes to [batch, height, width, 3]; gray to three equal channels."""
    return to_rgb(tf.transpose(planes, [0, 2, 3, 1]))


def to_rgb(images: tf.Tensor) -> tf.Tensor:
    """Three equal channels for a gray one."""
    return tf.repeat(images, 3, axis=-1) if images.shape[-1] == 1 else images


def select(chosen: tf.Tensor, operation: Callable, planes: tf.Tensor):
    """`operation(planes)` for the chosen images (bool [batch]), else `planes`.

    Without any chosen image nothing is computed. The branch also keeps XLA from
    computing one operation anew for each value that the next one reads.
    """
    return tf.cond(
        tf.reduce_any(chosen),
        lambda: tf.where(per_image(chosen), operation(planes), planes),
        lambda: planes,
    )


def clip(images: tf.Tensor) -> tf.Tensor:
    """Cuts values to [0, 1]."""
    return tf.clip_by_value(images, 0.0, 1.0)


def per_image(parameter: tf.Tensor) -> tf.Tensor:
    """[batch] -> [batch, 1, 1, 1], to act on whole images."""
    return parameter[:, None, None, None]


def flip(planes: tf.Tensor) -> tf.Tensor:
    """Mirrors left to right."""
    return tf.reverse(planes, [3])


# The passes of `color_jitter` over the batch: brightness or contrast, and
# saturation with hue, which commute. Every order of the four operations is a
# walk along these six that skips some.
_IS_HSV = (False, True, False, False, True, False)
# The pass that comes next, by the pass before (from -1 on).
_NEXT_LINEAR = (0, 2, 2, 3, 5, 5)
_NEXT_HSV = (1, 1, 1, 4, 4, 4)


def color_jitter(planes, order, brightness, contrast, saturation, hue):
    """The four colour operations in each image's own order.

    The result is clipped to [0, 1] after every operation.

    Args:
      planes: of images in [0, 1]; gray ones have neither saturation nor hue.
      order: int [batch, 4]; row b lists the operations in the order in which
        image b goes through them, e.g. [BRIGHTNESS, HUE, CONTRAST, SATURATION].
      brightness: [batch], added.
      contrast: [batch], factor on the distance from each channel's mean.
      saturation: [batch], factor on the saturation.
      hue: [batch], rotation as a share of the circle.
    """
    last = tf.fill(tf.shape(order)[:1], -1)
    pass_of = []  # For each of the four positions, [batch].
    for operation in tf.unstack(order, axis=1):
        last = tf.where(
            operation < SATURATION,
            tf.gather(_NEXT_LINEAR, last + 1),
            tf.gather(_NEXT_HSV, last + 1),
        )
        pass_of.append(last)
    pass_of = tf.stack(pass_of, axis=1)

    for number, is_hsv in enumerate(_IS_HSV):

        def here(operation, parameter, neutral):
            """The parameter for images whose turn it is, else no change."""
            now = (order == operation) & (pass_of == number)  # noqa: B023
            return tf.where(tf.reduce_any(now, axis=1), parameter, neutral)

        if not is_hsv:
            added = here(BRIGHTNESS, brightness, 0.0)
            factor = here(CONTRAST, contrast, 1.0)
            planes = select(
                (added != 0) | (factor != 1),
                lambda x, added=added, factor=factor: clip(
                    adjust_brightness_and_contrast(x, added, factor)
                ),
                planes,
            )
        elif planes.shape[1] == 3:
            factor = here(SATURATION, saturation, 1.0)
            turn = here(HUE, hue, 0.0)
            planes = select(
                (factor != 1) | (turn != 0),
                lambda x, factor=factor, turn=turn: adjust_saturation_and_hue(
                    x, factor, turn
                ),
                planes,
            )
    return planes


def adjust_brightness_and_contrast(planes, brightness, contrast):
    """(x - mean) * contrast + mean + brightness, with a mean per channel."""
    mean = tf.reduce_mean(planes, axis=(2, 3), keepdims=True)
    contrast = per_image(contrast)
    return planes * contrast + (mean * (1 - contrast) + per_image(brightness))


def adjust_saturation_and_hue(planes, saturation, hue):
    """Scales the saturation (cut at 1) and rotates the hue of HSV colours.

    The same values as by way of `tf.image.rgb_to_hsv`, in fewer operations:
    value - chroma * clip(2 - |k - 2|, 0, 1), with k the hue's distance in
    sixths of the circle from the channel's own zero, is the channel's value.
    """
    red, green, blue = tf.unstack(planes, axis=1)
    value = tf.maximum(tf.maximum(red, green), blue)
    chroma = value - tf.minimum(tf.minimum(red, green), blue)
    scale = tf.math.reciprocal(tf.maximum(chroma, 1e-12))
    sixths = tf.where(
        value == red,
        (green - blue) * scale,
        tf.where(
            value == green,
            (blue - red) * scale + 2,
            (red - green) * scale + 4,
        ),
    )
    sixths += 6 * hue[:, None, None]
    chroma = tf.minimum(chroma * saturation[:, None, None], value)

    def channel(zero: float) -> tf.Tensor:
        turns = (sixths + zero) / 6
        k = 6 * (turns - tf.floor(turns))
        return value - chroma * clip(2 - tf.abs(k - 2))

    return tf.stack([channel(5), channel(3), channel(1)], axis=1)


def to_gray(planes: tf.Tensor) -> tf.Tensor:
    """Luma in all three channels."""
    red, green, blue = tf.unstack(planes, axis=1)
    gray = LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
    return tf.stack([gray, gray, gray], axis=1)


def solarize(images: tf.Tensor, threshold: float = 0.5) -> tf.Tensor:
    """Inverts values from the threshold on."""
    return tf.where(images < threshold, images, 1.0 - images)


def gaussian_blur(planes: tf.Tensor, sigma: tf.Tensor) -> tf.Tensor:
    """Separable Gaussian blur; what lies outside the image is black.

    As in the release, the kernel has 2 * int(height / 20) + 1 taps, so below
    20 pixels nothing is blurred.

    Args:
      planes: of images, of a height and width that the graph knows.
      sigma: [batch], standard deviation in pixels; 0 leaves the image alone.
    """
    batch, channels = tf.unstack(tf.shape(planes)[:2])
    height, width = planes.shape[2:]
    if None in (height, width):
        raise ValueError(
            "The size of the views must be known in the graph: give images of "
            "a static shape, or a size to crop them to."
        )
    radius = height // 20
    if radius == 0:
        return planes
    # With so small a variance the exponential is 1 at distance 0 and else 0.
    variance = tf.maximum(tf.square(sigma), 1e-6)[:, None]
    distance = tf.range(-radius, radius + 1, dtype=tf.float32)
    kernel = tf.exp(-tf.square(distance) / (2 * variance))
    kernel /= tf.reduce_sum(kernel, axis=-1, keepdims=True)

    # Black around the image, and its rows one after the other: a shift by a
    # row or by a column is then a shift of the whole, and a tap multiplies
    # contiguous numbers. (A `tf.pad` XLA would work out anew for each tap.)
    def black(*shape):
        return tf.zeros([batch, channels, *shape])

    rows = [black(radius, width), planes, black(radius + 1, width)]
    side = black(height + 2 * radius + 1, radius)
    pixels = tf.concat([side, tf.concat(rows, axis=2), side], axis=3)
    stride = width + 2 * radius
    pixels = tf.reshape(pixels, [batch, channels, -1])

    def convolve(pixels, step, length):
        shifted = (
            pixels[:, :, i * step : i * step + length]
            for i in range(2 * radius + 1)
        )
        weights = tf.unstack(kernel[..., None, None], axis=1)
        return sum(w * x for w, x in zip(weights, shifted))

    pixels = convolve(pixels, stride, height * stride + 2 * radius)
    pixels = convolve(pixels, 1, height * stride)
    pixels = tf.reshape(pixels, [batch, channels, height, stride])
    return pixels[..., :width]


def crop_and_resize(planes, boxes, size: tuple[int, int]) -> tf.Tensor:
    """Bicubic resize of one box of each image, without antialiasing.

    The same values as `tf.image.resize(crop, size, "bicubic")`: half-pixel
    centres, Keys' kernel with a = -0.5, the kernel cut and renormalised at the
    box's border.

    Args:
      planes: of images.
      boxes: float [batch, 4], whole numbers: y, x, height, width.
      size: height and width of the result.

    Returns:
      [batch, channels, *size], clipped to [0, 1].
    """
    y, x, height, width = tf.unstack(boxes, axis=-1)
    # Numbers where the graph knows them, else tensors.
    old_height, old_width = (
        measured if known is None else known
        for known, measured in zip(
            planes.shape[2:], tf.unstack(tf.shape(planes)[2:])
        )
    )
    rows = _bicubic_weights(old_height, size[0], y, height)
    columns = _bicubic_weights(old_width, size[1], x, width)
    return clip(separable(planes, rows, columns))


def _bicubic_weights(length: int, size: int, start, extent) -> tf.Tensor:
    """[batch, size, length]: each output pixel's weights on the input's."""
    start, extent = start[:, None, None], extent[:, None, None]
    output = tf.cast(tf.range(size), tf.float32)[None, :, None]
    source = tf.cast(tf.range(length), tf.float32)[None, None, :]
    centre = start + (output + 0.5) * extent / tf.cast(size, tf.float32) - 0.5
    d = tf.abs(source - centre)
    near = (1.5 * d - 2.5) * d * d + 1.0
    far = ((-0.5 * d + 2.5) * d - 4.0) * d + 2.0
    weights = tf.where(d < 1, near, tf.where(d < 2, far, 0.0))
    inside = (source >= start) & (source < start + extent)
    weights = tf.where(inside, weights, 0.0)
    return weights / tf.reduce_sum(weights, axis=-1, keepdims=True)


def separable(planes, rows, columns) -> tf.Tensor:
    """A linear map of each image's rows, and one of its columns.

    Args:
      planes: [batch, channels, height, width].
      rows: [batch, new height, height].
      columns: [batch, new width, width].

    Returns:
      [batch, channels, new height, new width].
    """
    columns = tf.linalg.matrix_transpose(columns)
    return rows[:, None] @ planes @ columns[:, None]
