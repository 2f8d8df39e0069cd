"""The two augmentation distributions T and T', drawn per image.

Source: arXiv 2006.07733, appendix B; the official
`byol/utils/augmentations.py` and `byol/utils/dataset.py`.

What is drawn for an image is a function of the seed and of its place in the
global batch alone: the same in eager mode, in `tf.data` and in a compiled step,
on one replica and on many. The operations that it is drawn for are in
`image_operations.py`.
"""

import dataclasses
import math
from collections.abc import Callable

import tensorflow as tf

from byol_tf.image_operations import (
    clip,
    color_jitter,
    crop_and_resize,
    flip,
    from_planes,
    gaussian_blur,
    select,
    solarize,
    to_gray,
    to_planes,
)

# Named, so that it is the same on every kind of device.
_ALGORITHM = "philox"


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
