"""The folder that holds all results of a run."""

import os
import pathlib

from byol_tf.config import Config, ConfigError


def open_run_folder(config: Config) -> pathlib.Path:
    """Makes the folder, or finds that it is of the same run.

    Writes `config.json` and `flags.txt`, the settings with all defaults
    filled in.

    Raises:
      ConfigError: if it cannot be written, or holds a run of other settings.
    """
    folder = pathlib.Path(config.run_dir)
    existing = folder / "config.json"
    if existing.is_file():
        differences = config.differences(Config.load(existing))
        if differences:
            raise ConfigError(
                f"--run_dir={folder} holds a run with other settings: "
                f"{', '.join(differences)}. Choose another --run_dir."
            )
    try:
        (folder / "plots").mkdir(parents=True, exist_ok=True)
        (folder / "checkpoints").mkdir(exist_ok=True)
        config.save(folder / "config.json")
        (folder / "flags.txt").write_text(config.flagfile())
    except OSError as error:
        raise unwritable(folder, error) from error
    return folder


def open_results_folder(config: Config) -> pathlib.Path:
    """The folder for the results of a job on a finished encoder."""
    folder = pathlib.Path(config.run_dir)
    try:
        (folder / "plots").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    if not os.access(folder, os.W_OK):
        raise unwritable(folder, PermissionError("permission denied"))
    return folder


def unwritable(folder: pathlib.Path, error: OSError) -> ConfigError:
    """What to tell a user whose folder cannot be written."""
    return ConfigError(
        f"--run_dir={folder} cannot be written: {error.strerror or error}."
    )


def encoder_path(config: Config) -> pathlib.Path:
    """The encoder.keras that --encoder, or else --run_dir, names.

    Raises:
      ConfigError: if there is none.
    """
    flag = "encoder" if config.encoder else "run_dir"
    path = pathlib.Path(getattr(config, flag))
    if path.is_dir():
        path /= "encoder.keras"
    if not path.is_file():
        raise ConfigError(
            f"--{flag}={getattr(config, flag)} holds no encoder: there is no "
            f"file {path}."
        )
    return path
