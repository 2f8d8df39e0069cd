"""The command line: `python byol_tf/main.py --flagfile=…`."""

import contextlib
import importlib
import os
import pathlib
import sys

if __name__ == "__main__":
    # Python puts this file's folder first, where `data` or `config` would
    # hide other packages of these names.
    sys.path[0] = str(pathlib.Path(__file__).resolve().parents[1])

from byol_tf import command_line
from byol_tf.config import Config, ConfigError
from byol_tf.training.cluster import WorkerLost, cluster_of
from byol_tf.training.collapse import Collapse
from byol_tf.training.run_folder import check_run_dir
from byol_tf.training.signals import Interrupted

# mode -> the jobs it consists of; each leaves its results in the run folder.
JOBS = {
    "pretrain": ("pretrain", "preview", "evaluate", "export"),
    "evaluate": ("evaluate_dense", "evaluate"),
    "export": ("export",),
    "preview": ("preview",),
    "convert": ("convert",),
}


def main(arguments: list[str]) -> int:
    """Runs the jobs that the flags ask for; returns the exit code."""
    try:
        config = command_line.parse(arguments)
        if config is not None:
            _run(config)
        sys.stdout.flush()
    except ConfigError as error:
        return _fail(2, str(error))
    except BrokenPipeError:  # `--help | head`: nobody reads on.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (Collapse, WorkerLost, OSError) as error:
        return _fail(1, str(error))
    except Interrupted as interruption:
        return _fail(128 + interruption.number, str(interruption))
    except KeyboardInterrupt:
        return _fail(130, "interrupted; the same command goes on from there.")
    return 0


def _run(config: Config) -> None:
    cluster = cluster_of(config)
    if not config.profile_input:
        check_run_dir(config)
    if len(cluster.workers) > 1:  # What it would say is said by `WorkerLost`.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with _silent_native_code():
        import tensorflow as tf  # Here, and not above: it takes seconds.

        tf.config.list_physical_devices()

    if config.deterministic:
        tf.config.experimental.enable_op_determinism()
    jobs = ("profile_input",) if config.profile_input else JOBS[config.mode]
    if jobs[0] in ("pretrain", "profile_input"):
        from byol_tf.training import threads  # As TensorFlow above.

        threads.side_by_side()
    if not cluster.is_chief:
        jobs = [job for job in jobs if job == "pretrain"]
    for job in jobs:
        config = importlib.import_module(f"byol_tf.{job}").run(config)
    if not cluster.is_chief:
        return
    if config.mode != "preview" and not config.profile_input:
        print(f"Report: {pathlib.Path(config.run_dir) / 'report.md'}")


@contextlib.contextmanager
def _silent_native_code():
    """Discards what is written to the process's stderr, past Python's.

    Importing TensorFlow 2.21 logs its search for devices there, and no setting
    stops it (tensorflow/tensorflow#100442).
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.stderr.flush()
    stderr, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nowhere)


def _fail(code: int, message: str) -> int:
    line = "".join(c if c.isprintable() else " " for c in message)
    print(f"byol_tf: {' '.join(line.split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv))
