"""The peers that are measured beside us, where they are installed."""

import functools
import importlib.metadata
import importlib.util
import io
import pathlib
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
    declare_torchvision_operations()
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


@functools.cache
def declare_torchvision_operations() -> None:
    """Lets a torchvision be imported whose compiled part does not fit torch.

    There is none for a torch without CUDA on the registry.
    """
    import torch

    spec = importlib.util.find_spec("torchvision")
    (folder,) = spec.submodule_search_locations
    try:
        torch.ops.load_library(str(pathlib.Path(folder) / "_C.so"))
    except OSError:
        for operation in _TORCHVISION_OPERATIONS:
            name, parameters = operation.split("(", 1)
            torch.library.define(f"torchvision::{name}", f"({parameters}")
