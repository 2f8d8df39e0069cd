"""The training step as an XLA program, to be run where there is no TensorFlow.

    python -m byol_tf.benchmarks.lower FOLDER --encoder_depth=50 \\
        --image_size=224 --batch_size=128 --precision=mixed_bfloat16

Writes to FOLDER: `step.hlo`, the program before any pass for a device;
`arguments.npz`, what it begins with; and `step.json`, what it is, and the
losses of its first steps by TensorFlow on this machine. `run_lowered` runs it
with JAX, on a GPU as well. XLA compiles the same program in a TensorFlow with
CUDA under `--jit_compile=on`, so its time is close to what that would take.
"""

import argparse
import json
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from byol_tf import augment
from byol_tf.config import Config, ConfigError
from byol_tf.model import filter_gradient
from byol_tf.model.build import build_byol


def main(arguments=None) -> None:
    """Lowers the step that the flags say."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--encoder_depth", type=int, default=50)
    parser.add_argument("--stem", default="imagenet")
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--projector_hidden", type=int, default=4096)
    parser.add_argument("--projection_size", type=int, default=256)
    parser.add_argument("--precision", default="float32")
    parser.add_argument(
        "--views",
        action="store_true",
        help="begin with views; else images are augmented in the step",
    )
    parser.add_argument(
        "--steps", type=int, default=3, help="to take here, for their losses"
    )
    arguments = vars(parser.parse_args(arguments))
    folder, views, steps = map(arguments.pop, ("folder", "views", "steps"))
    try:
        record = lower(folder, Config(**arguments), views, steps)
    except ConfigError as error:
        parser.error(str(error))
    print(json.dumps(record, indent=2))


def lower(
    folder: pathlib.Path, config: Config, views: bool = False, steps: int = 3
) -> dict:
    """Writes the files; returns what `step.json` holds.

    Args:
      folder: to write to; it is made.
      config: of the network and the batch.
      views: whether the step begins with two views, not with images in uint8.
      steps: how many to take here.
    """
    # As for a GPU: for a CPU images would be augmented one after the other, and
    # kernels' gradients be computed tap by tap.
    augment.image_by_image = lambda function, *arguments: function(*arguments)
    filter_gradient.on_cpu = lambda: False
    model = build_byol(config, 10**5, 100, 0)
    variables = _all_variables(model)
    shape = (config.batch_size, config.image_size, config.image_size, 3)
    random = np.random.default_rng(0)
    batch = [random.integers(256, size=shape, dtype=np.uint8)]
    if views:
        batch = [np.float32(random.random(shape)) for _ in range(2)]

    @tf.function(jit_compile=True, autograph=False)
    def step(values, batch):
        # All that the step reads is in its arguments, and all that it changes
        # in its results; what the program captured is never looked at.
        for variable, value in zip(variables, values):
            variable.assign(value)
        logs = model.update(*batch) if views else model.train_step(*batch)
        return [variable.value for variable in variables], logs["loss"]

    values = [variable.numpy() for variable in variables]
    program = step.experimental_get_compiler_ir(values, batch)(
        stage="hlo_serialized"
    )
    state, losses = values, []
    for _ in range(steps):
        state, loss = step(state, batch)
        losses.append(float(loss))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "step.hlo").write_bytes(program)
    np.savez(folder / "arguments.npz", *values, *batch)
    record = {
        "image_size": config.image_size,
        "batch_size": config.batch_size,
        "precision": config.precision,
        "encoder_parameters": model.encoder.count_params(),
        "views": views,
        "variables": len(variables),
        "batch": len(batch),
        "losses": losses,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
    }
    (folder / "step.json").write_text(json.dumps(record, indent=2) + "\n")
    return record


def _all_variables(model) -> list[keras.Variable]:
    """Of both networks and the optimizer, each once."""
    variables = [*model.weights, *model.optimizer.variables]
    return list({id(variable): variable for variable in variables}.values())


if __name__ == "__main__":
    main()
