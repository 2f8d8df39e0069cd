"""The training step: its time, its parts and its memory, beside lightly's.

    python -m byol_tf.benchmarks.step

Prints JSON. For each network and batch: milliseconds and images a second of our
whole step, in each precision, with and without its augmentation, and seconds of
the first one; what it would take with SGD without momentum for LARS; the times
of its parts; how many floating-point operations its graph has, and what share
that is of this machine's own rate of matrix products and of convolutions; and
the most memory it took. Where lightly is installed (`requirements-bench.txt`)
the step of its BYOL example is measured in the same run, by turns with ours, in
each of its settings, and the ratio to the fastest of them is printed with the
least and the most of all rounds.
"""

import argparse
import contextlib
import json
import statistics
import sys

from byol_tf.benchmarks import lightly_step, peers
from byol_tf.benchmarks.alternation import (
    Contestant,
    at_least_one,
    by_turns,
    ratio,
)
from byol_tf.benchmarks.machine import environment

SETTINGS = {
    "ResNet-18, 32 px, 64": dict(depth=18, size=32, batch=64),
    "ResNet-18, 32 px, 256": dict(depth=18, size=32, batch=256),
    "ResNet-50, 64 px, 16": dict(depth=50, size=64, batch=16),
    "ResNet-50, 224 px, 4": dict(depth=50, size=224, batch=4),
}
PRECISIONS = ("float32", "mixed_bfloat16")


def main(arguments=None) -> None:
    """Measures, and prints the result as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--setting", nargs="+", choices=SETTINGS)
    parser.add_argument(
        "--hidden", type=at_least_one, default=1024, help="of the heads"
    )
    parser.add_argument("--projection", type=at_least_one, default=256)
    parser.add_argument(
        "--lightly",
        nargs="*",
        choices=lightly_step.MODES,
        help="its settings, by default the first three; none leaves it out",
    )
    parser.add_argument(
        "--rounds",
        type=at_least_one,
        default=7,
        help="turns of each contestant",
    )
    parser.add_argument(
        "--steps", type=at_least_one, default=5, help="in a turn"
    )
    arguments = parser.parse_args(arguments)
    heads = {
        "hidden": arguments.hidden,
        "projection": arguments.projection,
    }
    modes, there = arguments.lightly, "lightly" in peers.versions()
    if modes is None:
        modes = lightly_step.MODES[:3] if there else []
    if modes and not there:
        parser.error(
            "--lightly: it is not installed; requirements-bench.txt has it."
        )
    with contextlib.closing(
        Contestant("byol_tf.benchmarks.rates", {})
    ) as machine:
        rates = machine.ask("rates")
    result = {
        "environment": environment("tensorflow", "keras") | peers.versions(),
        "operations_per_second": rates,
        "settings": [],
    }
    for name in arguments.setting or SETTINGS:
        print(name, file=sys.stderr)
        setting = {**SETTINGS[name], **heads}
        result["settings"].append(
            measured(setting, modes, arguments.rounds, arguments.steps, rates)
        )
    print(json.dumps(result, indent=2))


def measured(
    setting: dict, modes: list[str], rounds: int, steps: int, rates: dict
) -> dict:
    """Of one network and batch: ours and theirs, by turns.

    Args:
      setting: of both contestants.
      modes: of lightly.
      rounds: turns of each.
      steps: in a turn.
      rates: of the machine.
    """
    ours = {
        **{name: {"precision": name} for name in PRECISIONS},
        **{
            f"{name}, augmented": {"precision": name, "augmented": True}
            for name in PRECISIONS
        },
        "float32, SGD": {"optimizer": "sgd"},
        "float32, without BatchNorm": {"normalization": "none"},
    }
    contestants = {
        name: Contestant("byol_tf.benchmarks.our_step", {**setting, **options})
        for name, options in ours.items()
    } | {
        f"lightly {mode}": Contestant(
            "byol_tf.benchmarks.lightly_step", {**setting, "mode": mode}
        )
        for mode in modes
    }
    try:
        first = {
            name: contestant.ask("steps", count=1)[0]
            for name, contestant in contestants.items()
        }
        seconds = by_turns(contestants, rounds, steps)
        memory = {
            name: contestant.ask("memory")
            for name, contestant in contestants.items()
        }
        parts = contestants["float32"].ask("parts", rounds=rounds)
        flops = contestants["float32"].ask("flops")
    finally:
        for contestant in contestants.values():
            contestant.close()
    median = {name: statistics.median(s) for name, s in seconds.items()}
    found = {
        **setting,
        "gflop": flops / 1e9,
        "steps": {
            name: {
                "milliseconds": 1e3 * value,
                "images_per_second": setting["batch"] / value,
                "seconds_of_the_first": first[name],
                "peak_memory_mib": memory[name] / 2**20,
            }
            for name, value in median.items()
        },
        "parts_milliseconds": _parts(parts, median),
        "share_of_rates": {
            f"{precision}, of {operation}": flops
            / median[precision]
            / rates[f"{operation}_{precision.removeprefix('mixed_')}"]
            for precision in PRECISIONS
            for operation in ("matmul", "convolution")
        },
        "lars_against_sgd": _ratio(seconds["float32, SGD"], seconds["float32"]),
    }
    if modes:
        fastest = min((f"lightly {m}" for m in modes), key=median.get)
        found["against_lightly"] = {
            "fastest": fastest,
            **{
                f"{name} to the fastest": _ratio(
                    seconds[name], seconds[fastest]
                )
                for name in PRECISIONS
            },
        }
    return found


def _parts(parts: dict[str, float], median: dict[str, float]) -> dict:
    """Milliseconds of the parts of our step in float32.

    Each forward pass is measured on its own. In the step they run side by side,
    on half the cores each (`training/threads.py`): the backward pass is what it
    takes beyond the longer of them.
    """
    forward = max(parts["target_forward"], parts["online_forward"])
    return {
        name: 1e3 * value
        for name, value in {
            "augmentation": parts["augmentation"],
            "online forward": parts["online_forward"],
            "target forward": parts["target_forward"],
            "backward": parts["forward_and_backward"] - forward,
            "optimizer and moving average": parts["step"]
            - parts["forward_and_backward"],
            "whole, without augmentation": parts["step"],
            "of it BatchNorm": median["float32"]
            - median["float32, without BatchNorm"],
        }.items()
    }


def _ratio(ours: list[float], theirs: list[float]) -> dict[str, float]:
    middle, least, most = ratio(ours, theirs)
    return {"median": middle, "least": least, "most": most}


if __name__ == "__main__":
    main()
