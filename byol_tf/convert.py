"""The job `convert`: a checkpoint of the official release -> a run folder."""

import math
import pathlib

import numpy as np

from byol_tf import report
from byol_tf.config import ARCHITECTURE, Config, ConfigError, as_text
from byol_tf.deepmind import Architecture, CheckpointError, read_checkpoint
from byol_tf.deepmind.trees import Tree, network_from_haiku
from byol_tf.model.build import build_encoder
from byol_tf.model.heads import Network
from byol_tf.training.run_folder import open_run_folder

LICENCE = """\
The weights in this folder were converted from a checkpoint of the official
release of BYOL. Those that DeepMind published with it
(https://github.com/google-deepmind/deepmind-research/tree/master/byol) are
licensed under Creative Commons Attribution-NonCommercial 4.0 International:

    CC BY-NC 4.0, https://creativecommons.org/licenses/by-nc/4.0/legalcode

You may share and adapt them if you give credit to DeepMind, link to the licence
and say what you changed; you may not use them for commercial purposes. This
also holds for what is made of them, such as a fine-tuned or an exported
network. Their values are unchanged here: byol_tf put them into the format of
Keras.
"""

# Entries at either end of a list of errors that one line can hold.
_LISTED = 3


def run(config: Config) -> Config:
    """Reads the checkpoint, and writes its online encoder into the run folder.

    Depth, width and all other sizes are read off the file.

    Returns:
      The settings, with these sizes.

    Raises:
      ConfigError: if the file is no such checkpoint, or not as the flags say.
    """
    path = pathlib.Path(config.deepmind_checkpoint)
    try:
        config, network, step = _read(config)
    except ConfigError:
        raise
    except CheckpointError as error:
        raise ConfigError(f"--deepmind_checkpoint: {error}") from error
    except ValueError as error:
        raise ConfigError(
            f"--deepmind_checkpoint={path}: {_short(error)}"
        ) from error
    except OSError as error:
        raise ConfigError(
            f"--deepmind_checkpoint={path} cannot be read: {error.strerror}."
        ) from error

    folder = open_run_folder(config)
    (folder / "LICENSE.txt").write_text(LICENCE)
    network.encoder.save(folder / "encoder.keras")
    architecture = Architecture.of_network(network)
    parameters = sum(
        math.prod(v.shape) for v in network.encoder.trainable_variables
    )
    report.update(
        folder,
        converted={
            "file": path.name,
            "network": str(architecture),
            "num_classes": architecture.num_classes,
            "encoder_parameters": parameters,
            "step": step,
            "licence": "CC BY-NC 4.0, see LICENSE.txt",
        },
    )
    print(f"{path.name}: {architecture}, after {step:,} steps.\n\n{LICENCE}")
    return config


def _read(config: Config) -> tuple[Config, Network, int]:
    """The settled configuration, the online network and its step."""
    checkpoint = read_checkpoint(config.deepmind_checkpoint)
    params = checkpoint.trees["online_params"]
    state = checkpoint.trees["online_state"]
    step = checkpoint.step
    del checkpoint  # The target and the momentum are as large again.
    architecture = Architecture.of_parameters(params)
    config = _settled(config, architecture)
    _check(params, state, architecture)
    network = Network(
        build_encoder(config),
        architecture.projector_hidden,
        architecture.projection_size,
        architecture.num_classes,
        name="online",
    )
    network_from_haiku(network, params, state)
    return config, network, step


def _settled(config: Config, architecture: Architecture) -> Config:
    """The settings with the sizes of the file, if none contradicts them."""
    sizes = {
        "encoder_depth": architecture.depth,
        "encoder_blocks": () if architecture.depth else architecture.blocks,
        "encoder_channels": () if architecture.depth else architecture.channels,
        "encoder_group_strides": (),
        "encoder_bottleneck": (
            False if architecture.depth else architecture.bottleneck
        ),
        "stem": "imagenet",
        "stem_channels": architecture.stem_channels,
        "encoder_width": architecture.width,
        "projector_hidden": architecture.projector_hidden,
        "projection_size": architecture.projection_size,
    }
    # What else the release's networks are may be said as well.
    said = sizes | {
        "encoder_group_strides": (1, 2, 2, 2)[: len(architecture.blocks)]
    }
    wrong = [
        name
        for name in ARCHITECTURE
        if getattr(config, name) not in (None, (), False, said[name])
    ]
    if wrong:
        raise ConfigError(
            ", ".join(f"--{n}={as_text(getattr(config, n))}" for n in wrong)
            + f": but {config.deepmind_checkpoint} holds {architecture}. Leave "
            "such flags out; the file decides."
        )
    return config.resolved(**sizes)


def _check(params: Tree, state: Tree, architecture: Architecture) -> None:
    """What must hold before a network of the file's sizes is built."""
    count = sum(
        array.size for entries in params.values() for array in entries.values()
    )
    if architecture.parameter_count > 2 * count:
        raise ValueError(
            f"it holds {count:,} parameters, and {architecture} has "
            f"{architecture.parameter_count:,}."
        )
    for tree in (params, state):
        for module, entries in tree.items():
            for name, array in entries.items():
                if not np.isfinite(array).all():
                    raise ValueError(
                        f"{module}::{name} holds values that are not finite."
                    )


def _short(error: Exception) -> str:
    """An error in as many lines as one can read: its first ones and last."""
    lines = str(error).splitlines()
    left_out = len(lines) - 1 - 2 * _LISTED
    if left_out > 0:
        lines[1 + _LISTED : -_LISTED] = [f"… {left_out} more …"]
    return " ".join(lines)
