"""The memory that a training step takes for an image, beside lightly's.

    python -m byol_tf.benchmarks.step_memory

Prints JSON. Each contestant takes three steps in a process of its own, with two
sizes of the batch: what the larger one takes more, for each image that it has
more, is the memory of an image; the rest is of the network and of the library.
Ours with and without `recompute`, in both precisions; lightly's where it is
installed (`requirements-bench.txt`).
"""

import argparse
import contextlib
import json

from byol_tf.benchmarks import peers
from byol_tf.benchmarks.alternation import Contestant, at_least_one
from byol_tf.benchmarks.machine import environment
from byol_tf.model.resnet import DEPTHS

OURS = {
    "float32": {},
    "float32, recompute": {"recompute": True},
    "mixed_bfloat16": {"precision": "mixed_bfloat16"},
    "mixed_bfloat16, recompute": {
        "precision": "mixed_bfloat16",
        "recompute": True,
    },
}
THEIRS = ("float32", "channels_last", "bfloat16")


def main(arguments=None) -> None:
    """Measures, and prints the result as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--depth", type=int, choices=DEPTHS, default=50)
    parser.add_argument("--size", type=at_least_one, default=224)
    parser.add_argument(
        "--batches", type=at_least_one, nargs=2, default=(4, 12)
    )
    parser.add_argument(
        "--hidden", type=at_least_one, default=1024, help="of the heads"
    )
    parser.add_argument("--projection", type=at_least_one, default=256)
    setting = vars(parser.parse_args(arguments))
    batches = setting.pop("batches")
    if batches[0] >= batches[1]:
        parser.error("--batches: the second one must be larger.")
    contestants = {
        name: ("our_step", setting | options) for name, options in OURS.items()
    }
    if "lightly" in peers.versions():
        contestants |= {
            f"lightly {mode}": ("lightly_step", setting | {"mode": mode})
            for mode in THEIRS
        }
    result = {
        "environment": environment("tensorflow", "keras") | peers.versions(),
        **setting,
        "batches": batches,
        "memory_mib": {
            name: memory(*contestant, batches)
            for name, contestant in contestants.items()
        },
    }
    print(json.dumps(result, indent=2))


def memory(module: str, setting: dict, batches) -> dict[str, float]:
    """MiB of an image, and of all else.

    Args:
      module: of the contestant.
      setting: of the contestant, without the batch.
      batches: two sizes.
    """
    peaks = []
    for batch in batches:
        with contextlib.closing(
            Contestant(
                f"byol_tf.benchmarks.{module}", {**setting, "batch": batch}
            )
        ) as contestant:
            contestant.ask("steps", count=3)
            peaks.append(contestant.ask("memory") / 2**20)
    small, large = batches
    image = (peaks[1] - peaks[0]) / (large - small)
    return {
        "of_an_image": image,
        "of_all_else": peaks[0] - small * image,
        "peaks": peaks,
    }


if __name__ == "__main__":
    main()
