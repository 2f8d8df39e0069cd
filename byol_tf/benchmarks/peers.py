"""The peers that are measured beside us, where they are installed."""

import importlib.metadata
import importlib.util
import io
import time
from collections.abc import Callable

import numpy as np
import PIL.Image

# Operations that a torchvision without its compiled part asks torch for.
_TORCHVISION_OPERATIONS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "roi_align(Tensor input, Tensor rois, float spatial_scale, "
    "int pooled_height, int pooled_width, int sampling_ratio, "
    "bool aligned) -> Tensor",
)


def versions() -> dict[str, str]:
    """Of those that are installed."""
    found = {}
    for name in ("lightly", "torch", "torchvision"):
        if importlib.util.find_spec(name):
            found[name] = importlib.metadata.version(name)
    return found


def lightly_pairs(inputs: list, size: int) -> Callable[[float], float] | None:
    """lightly's `BYOLTransform` on one core, with its published probabilities.

    Args:
      inputs: uint8 arrays [height, width, 3], or the bytes of image files.
      size: height and width of the views.

    Returns:
      A function of a number of seconds, for which it makes pairs; it returns
      how many it made in a second. None if lightly is not installed.
    """
    if not {"lightly", "torch", "torchvision"} <= set(versions()):
        return None
    import torch

    torch.set_num_threads(1)
    torchvision = importlib.util.find_spec("torchvision")
    if not importlib.util.find_spec("torchvision._C", torchvision.name):
        for operation in _TORCHVISION_OPERATIONS:
            name = f"torchvision::{operation.partition('(')[0]}"
            try:
                torch.library.define(name, operation[operation.index("(") :])
            except RuntimeError:
                break  # They are there.
    from lightly.transforms.byol_transform import (
        BYOLTransform,
        BYOLView1Transform,
        BYOLView2Transform,
    )

    transform = BYOLTransform(
        BYOLView1Transform(input_size=size), BYOLView2Transform(input_size=size)
    )

    def image(item) -> PIL.Image.Image:
        if isinstance(item, np.ndarray):
            return PIL.Image.fromarray(item)
        return PIL.Image.open(io.BytesIO(item)).convert("RGB")

    def pairs_per_second(seconds: float) -> float:
        count, start = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - start) < seconds:
            transform(image(inputs[count % len(inputs)]))
            count += 1
        return count / elapsed

    return pairs_per_second
