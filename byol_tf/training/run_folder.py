"""The folder that holds all results of a run."""

import contextlib
import fcntl
import hashlib
import os
import pathlib
import shutil

from byol_tf.config import Config, ConfigError

# What a run leaves, all jobs of it.
_LEFT = (
    *("checkpoints", "plots", "protocols", "saved_model", "tensorboard"),
    *("config.json", "encoder.keras", "metrics.jsonl", "skipped.txt"),
    *("report.json", "report.md"),
)


def check_run_dir(config: Config) -> None:
    """Finds out, in no time and without a trace, whether the run can write.

    Raises:
      ConfigError: if it cannot, or the folder holds a run of other settings.
    """
    folder = pathlib.Path(config.run_dir)
    try:
        missing = [p for p in (folder, *folder.parents) if not p.exists()]
        if missing:
            missing[-1].mkdir()
            missing[-1].rmdir()
        elif not folder.is_dir() or not os.access(folder, os.W_OK):
            raise PermissionError(f"no permission to write into {folder}")
    except OSError as error:
        raise _unwritable(folder, error) from error
    if config.resume or config.mode != "pretrain":
        _check_same_run(config)


@contextlib.contextmanager
def locked(config: Config):
    """Within it, no other process can train or run protocols in the folder.

    Raises:
      ConfigError: if one does.
    """
    folder = pathlib.Path(config.run_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise _unwritable(folder, error) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                f"--run_dir={folder} is in use: another process works there."
            ) from error
        except OSError:
            pass  # A file system without locks.
        yield


def open_run_folder(config: Config) -> pathlib.Path:
    """Makes the folder, or finds that it is of the same run.

    With `--noresume`, the run that is there is removed.
    Writes `config.json` and `flags.txt`, the settings with all defaults
    filled in.

    Raises:
      ConfigError: if it cannot be written, or holds a run of other settings.
    """
    if not config.resume:
        _forget_run(pathlib.Path(config.run_dir))
    folder = open_results_folder(config)
    try:
        config.save(folder / "config.json")
        (folder / "flags.txt").write_text(config.flagfile())
    except OSError as error:
        raise _unwritable(folder, error) from error
    return folder


def open_results_folder(config: Config) -> pathlib.Path:
    """The folder for the results of a job; no run of other settings' one.

    Raises:
      ConfigError: as `open_run_folder`.
    """
    folder = pathlib.Path(config.run_dir)
    _check_same_run(config)
    try:
        (folder / "plots").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from error
    return folder


def _forget_run(folder: pathlib.Path) -> None:
    """Removes what a run wrote; nothing of it is to be taken for the next's."""
    for path in (folder / name for name in _LEFT):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _check_same_run(config: Config) -> None:
    """Finds out whether --run_dir holds a run of other settings.

    Raises:
      ConfigError: if it does.
    """
    saved = pathlib.Path(config.run_dir) / "config.json"
    if not saved.is_file():
        return
    differences = config.differences(Config.load(saved))
    if differences:
        raise ConfigError(
            f"--run_dir={saved.parent} holds a run with other settings: "
            f"{', '.join(differences)}. Choose another --run_dir"
            + f", and --encoder={saved.parent}"
            * (config.mode in ("evaluate", "export") and not config.encoder)
            + "."
        )


def _unwritable(folder: pathlib.Path, error: OSError) -> ConfigError:
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
        hint = (
            " --mode=convert makes one." if config.deepmind_checkpoint else ""
        )
        raise ConfigError(
            f"--{flag}={getattr(config, flag)} holds no encoder: there is no "
            f"file {path}.{hint}"
        )
    return path


def digest_of(path: pathlib.Path) -> str:
    """Tells a file, such as an encoder's, from any other."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def pretraining_of(path: pathlib.Path) -> Config | None:
    """The settings of the run that an encoder is of, if they lie beside it."""
    try:
        return Config.load(path.parent / "config.json")
    except (OSError, ConfigError):
        return None
