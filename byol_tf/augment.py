"""The two augmentation distributions T and T', drawn per image.

Source: arXiv 2006.07733, appendix B; the official
`byol/utils/augmentations.py` and `byol/utils/dataset.py`.

Every operation works on a batch, with fixed shapes and stateless random
numbers. What is drawn for an image is a function of the seed and of its place
in the global batch alone: the same in eager mode, in `tf.data` and in a
compiled step, on one replica and on many.

`views` takes and gives images as [batch, height, width, channels]. In
between they are planes, float32 [batch, channels, height, width] in [0, 1]:
what acts on one channel, or on rows and columns, then needs no transposition.
A parameter of an operation is [batch], one number per image.
"""

import dataclasses
import math
from collections.abc import Callable

import tensorflow as tf

# The colour operations, in the numbering that an `order` uses.
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)

# Named, so that it is the same on every kind of device.
_ALGORITHM = "philox"

# Weights of R, G and B in a gray value.
LUMA = (0.2989, 0.5870, 0.1140)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """An augmentation distribution; the defaults are what T and T' share.

    Attributes:
      crop_area: least and greatest area of the crop, as a share of the image.
      crop_aspect: least and greatest width / height of the crop.
      flip: probability of a horizontal flip.
      jitter: probability of the colour jitter.
      brightness: greatest absolute value added.
      contrast: greatest distance of the factor from 1.
      saturation: greatest distance of the factor from 1.
      hue: greatest absolute rotation, as a share of the full circle.
      grayscale: probability of dropping the colour.
      blur: probability of the Gaussian blur.
      blur_sigma: least and greatest standard deviation, in pixels.
      solarize: probability of the solarization.
    """

    crop_area: tuple[float, float] = (0.08, 1.0)
    crop_aspect: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    jitter: float = 0.8
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.2
    hue: float = 0.1
    grayscale: float = 0.2
    blur: float = 1.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    solarize: float = 0.0

    @classmethod
    def from_config(cls, config: dict) -> "Recipe":
        """From `dataclasses.asdict`, also after a journey through JSON."""
        return cls(
            **{
                name: tuple(value) if isinstance(value, list) else value
                for name, value in config.items()
            }
        )


# The official parameters (arXiv 2006.07733, table 6).
T = Recipe(blur=1.0, solarize=0.0)
T_PRIME = Recipe(blur=0.1, solarize=0.2)

# What classifiers learn from (appendix D): a crop and a flip.
CROP_AND_FLIP = Recipe(jitter=0, grayscale=0, blur=0, solarize=0)


def views(
    images: tf.Tensor,
    seed: tf.Tensor,
    size: int | None = None,
    recipes: tuple[Recipe, ...] = (T, T_PRIME),
    first: tf.Tensor | int = 0,
) -> tuple[tf.Tensor, ...]:
    """Augmented views of each image, one by each recipe.

    In pretraining these are t(x), t ~ T and t'(x), t' ~ T'.

    Args:
      images: uint8 in [0, 255] or float in [0, 1]; either whole images
        [batch, height, width, 1 or 3], which are cropped here, or a crop of
        each for each recipe, [batch, recipes, size, size, 1 or 3], made while
        they were decoded.
      seed: int32 [2].
      size: height and width of the views; by default those of `images`.
      recipes: the distributions of the views.
      first: place of the first image in the global batch, int32 or int64
        scalar, if `images` is a part of it.

    Returns:
      For each recipe float32 [batch, size, size, 3] in [0, 1].
    """
    images = tf.convert_to_tensor(images)
    batch = tf.shape(images)[0]

    results = []
    for number, (view_seed, recipe) in enumerate(
        zip(tf.unstack(split(seed, len(recipes))), recipes)
    ):
        parameters = random_distortion(batch, view_seed, recipe, first)
        if images.shape.rank == 4:
            image_size = tf.cast(tf.shape(images)[1:3], tf.float32)
            crop_seed = fold_in(view_seed, 1)
            parameters["box"] = random_boxes(
                image_size, batch, crop_seed, recipe, first
            )
        crop = number if images.shape.rank == 5 else None
        results.append(_view(images, crop, parameters, size))
    return tuple(results)


# XLA makes few loops of the many operations. It compiles once for each shape of
# images, whether or not it also compiles what the views are for.
@tf.function(jit_compile=True, autograph=False)
def _view(images, crop, parameters, size):
    """One view of each image: of its crop of that number, or by given boxes."""

    def view(images, parameters):
        if crop is not None:
            images = images[:, crop]
        planes = to_planes(images)
        distortion = dict(parameters)
        if "box" in parameters:
            view_size = (size, size) if size else images.shape[1:3]
            planes = crop_and_resize(planes, distortion.pop("box"), view_size)
        return from_planes(distort(planes, **distortion))

    return image_by_image(view, images, parameters)


def image_by_image(function: Callable, *arguments):
    """`function` of batches, computed on a CPU for one image after the other.

    There an image stays in the cache from the first operation to the last, and
    `select` leaves out whatever was not drawn for it. An accelerator is given
    the whole batch.
    """
    if {d.device_type for d in tf.config.list_logical_devices()} != {"CPU"}:
        return function(*arguments)

    def of_one(arguments):
        return function(*tf.nest.map_structure(lambda x: x[None], arguments))[0]

    return tf.map_fn(of_one, arguments, fn_output_signature=tf.float32)


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


# --- The random part: what is drawn, per image --------------------------------


def split(seed: tf.Tensor, count: int) -> tf.Tensor:
    """`count` seeds, int32 [count, 2], independent of each other."""
    return tf.random.split(seed, count, alg=_ALGORITHM)


def fold_in(seed: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
    """A seed that depends on another and a number."""
    return tf.random.fold_in(seed, number, alg=_ALGORITHM)


class Draws:
    """Independent uniform numbers for consecutive images of a global batch.

    They come from one random operation. Philox (Salmon et al., "Parallel
    random numbers: as easy as 1, 2, 3", 2011) makes of a key and the n-th
    count the n-th block of four numbers. The seed gives the key; the image in
    place i has the same number of blocks as every other, from count
    i * blocks on. So a part of a batch draws what the whole would for it.

    Args:
      seed: int32 or int64 [2].
      batch: number of images.
      count: how many numbers each of them needs.
      first: place of the first image in the global batch.
    """

    def __init__(
        self,
        seed: tf.Tensor,
        batch: tf.Tensor | int,
        count: int,
        first: tf.Tensor | int = 0,
    ):
        blocks = math.ceil(count / 4)
        # Whole numbers, because XLA makes other floats of the same bits.
        bits = tf.raw_ops.StatelessRandomUniformFullIntV2(
            shape=[batch, 4 * blocks],
            key=tf.random.stateless_uniform(
                [1], seed, None, None, tf.uint64, alg=_ALGORITHM
            ),
            counter=tf.stack([tf.cast(first, tf.uint64) * blocks, 0]),
            alg=tf.random.Algorithm.PHILOX.value,
            dtype=tf.uint32,
        )
        leading = tf.bitwise.right_shift(bits, tf.constant(8, tf.uint32))
        numbers = tf.cast(leading, tf.float32) * 2.0**-24
        self._columns = iter(tf.unstack(numbers, axis=1))

    def uniform(self, low: float, high: float) -> tf.Tensor:
        """[batch], uniform in [low, high)."""
        return low + (high - low) * next(self._columns)

    def coin(self, probability: float) -> tf.Tensor:
        """[batch], True with the given probability."""
        return next(self._columns) < probability

    def permutation(self, length: int) -> tf.Tensor:
        """int32 [batch, length], each row a uniformly random permutation."""
        keys = tf.stack([next(self._columns) for _ in range(length)], axis=1)
        return tf.argsort(keys, axis=1)


def random_boxes(
    image_size: tf.Tensor,
    batch: tf.Tensor | int,
    seed: tf.Tensor,
    recipe: Recipe,
    first: tf.Tensor | int = 0,
) -> tf.Tensor:
    """`batch` random boxes in images of one size; see `crop_boxes`."""
    draws = Draws(seed, batch, 4, first)
    return crop_boxes(
        image_size,
        area=draws.uniform(*recipe.crop_area),
        log_aspect=draws.uniform(*map(math.log, recipe.crop_aspect)),
        top=draws.uniform(0, 1),
        left=draws.uniform(0, 1),
    )


def crop_boxes(image_size, area, log_aspect, top, left):
    """The release's crop: one draw, clamped to the image.

    Args:
      image_size: float [2], height and width.
      area: [batch], the crop's share of the image's area before clamping.
      log_aspect: [batch], log of its width / height before clamping.
      top: [batch], in [0, 1): where it lies between the first and last row.
      left: [batch], likewise for the columns.

    Returns:
      float [batch, 4], whole numbers: y, x, height, width.
    """
    height, width = tf.unstack(image_size, axis=-1)
    pixels = area * height * width
    aspect = tf.exp(log_aspect)
    crop_height = tf.minimum(tf.round(tf.sqrt(pixels / aspect)), height)
    crop_width = tf.minimum(tf.round(tf.sqrt(pixels * aspect)), width)
    # A tiny image can round a side to 0.
    crop_height = tf.maximum(crop_height, 1.0)
    crop_width = tf.maximum(crop_width, 1.0)
    y = tf.floor(top * (height - crop_height + 1))
    x = tf.floor(left * (width - crop_width + 1))
    return tf.stack([y, x, crop_height, crop_width], axis=-1)


def random_distortion(
    batch: tf.Tensor | int,
    seed: tf.Tensor,
    recipe: Recipe,
    first: tf.Tensor | int = 0,
) -> dict[str, tf.Tensor]:
    """The parameters of `distort` for `batch` images, drawn for each."""
    draws = Draws(seed, batch, 14, first)
    flipped = draws.coin(recipe.flip)
    jittered = draws.coin(recipe.jitter)

    def jitter(middle: float, reach: float) -> tf.Tensor:
        drawn = draws.uniform(middle - reach, middle + reach)
        return tf.where(jittered, drawn, middle)

    return {
        "flipped": flipped,
        "order": draws.permutation(4),
        "brightness": jitter(0.0, recipe.brightness),
        "contrast": jitter(1.0, recipe.contrast),
        "saturation": jitter(1.0, recipe.saturation),
        "hue": jitter(0.0, recipe.hue),
        "grayed": draws.coin(recipe.grayscale),
        "sigma": tf.where(
            draws.coin(recipe.blur), draws.uniform(*recipe.blur_sigma), 0.0
        ),
        "solarized": draws.coin(recipe.solarize),
    }


# --- The operations, on given parameters --------------------------------------


def distort(
    planes,
    flipped,
    order,
    brightness,
    contrast,
    saturation,
    hue,
    grayed,
    sigma,
    solarized,
):
    """Everything after the crop.

    Args:
      planes: of images; gray ones are not grayed again.
      flipped: bool [batch].
      order: see `color_jitter`, as for the next four.
      brightness: 0 for no change.
      contrast: 1 for no change.
      saturation: 1 for no change.
      hue: 0 for no change.
      grayed: bool [batch].
      sigma: [batch], standard deviation of the blur in pixels, 0 for none.
      solarized: bool [batch].
    """
    planes = select(flipped, flip, planes)
    planes = color_jitter(planes, order, brightness, contrast, saturation, hue)
    if planes.shape[1] == 3:
        planes = select(grayed, to_gray, planes)
    planes = select(sigma > 0, lambda x: gaussian_blur(x, sigma), planes)
    planes = select(solarized, solarize, planes)
    return clip(planes)


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


def _sides(planes: tf.Tensor) -> list[int | tf.Tensor]:
    """Height and width: numbers where the graph knows them, else tensors."""
    known, measured = planes.shape[2:], tf.unstack(tf.shape(planes)[2:])
    return [m if k is None else k for k, m in zip(known, measured)]


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
    sides = _sides(planes)
    rows = _bicubic_weights(sides[0], size[0], y, height)
    columns = _bicubic_weights(sides[1], size[1], x, width)
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
