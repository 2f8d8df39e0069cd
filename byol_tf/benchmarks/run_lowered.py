"""Runs a training step that `lower` wrote, with JAX alone.

    python run_lowered.py FOLDER [--steps=20]

This file needs nothing of this package, so that it can be copied to a machine
with a GPU and JAX. Prints JSON: the first losses, here and by TensorFlow where
the step was lowered, and seconds of a step.
"""

import argparse
import json
import pathlib
import statistics
import time

import jax
import numpy as np
from jax._src import xla_bridge
from jax._src.lib import xla_client


def main() -> None:
    """Compiles, runs, prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--steps", type=int, default=20)
    arguments = parser.parse_args()
    print(json.dumps(measured(arguments.folder, arguments.steps), indent=2))


def measured(folder: pathlib.Path, steps: int) -> dict:
    """What is printed.

    Args:
      folder: that `lower` wrote.
      steps: to time, after those whose losses are compared.
    """
    jax.config.update("jax_enable_x64", True)  # BatchNorm counts in int64.
    record = json.loads((folder / "step.json").read_text())
    backend = xla_bridge.get_backend()
    start = time.perf_counter()
    step = compiled(folder / "step.hlo", backend)
    compile_seconds = time.perf_counter() - start

    with np.load(folder / "arguments.npz") as file:
        arrays = [jax.device_put(file[name]) for name in file.files]
    count = record["variables"]
    state, batch = arrays[:count], arrays[count:]
    losses, seconds = [], []
    for _ in range(len(record["losses"]) + steps):
        # The last ones stand for what the program captured and never reads;
        # it may take their memory, and so they are made anew.
        unread = [jax.numpy.zeros_like(array) for array in arrays[:count]]
        jax.block_until_ready(unread)
        start = time.perf_counter()
        results = step.execute([*state, *batch, *unread])
        state = results[:count]
        losses.append(float(np.asarray(results[count])))
        seconds.append(time.perf_counter() - start)
    first = len(record["losses"])
    median = statistics.median(seconds[first:] or seconds)
    return {
        **record,
        "losses_here": losses[:first],
        "device": str(jax.devices()[0].device_kind),
        "jax": jax.__version__,
        "compile_seconds": compile_seconds,
        "step_seconds": median,
        "images_per_second": record["batch_size"] / median,
    }


def compiled(path: pathlib.Path, backend):
    """The program on the backend's first device."""
    program = xla_client._xla.mlir.hlo_to_stablehlo(path.read_bytes())
    device = xla_client.DeviceList(tuple(backend.local_devices()[:1]))
    return backend.compile_and_load(
        program, device, xla_client.CompileOptions()
    )


if __name__ == "__main__":
    main()
