"""Results that outlive the process that computed them."""

import hashlib
import json
import os
import pathlib
import re
import shutil
import sys
import time
import zipfile
import zlib
from collections.abc import Callable, Sequence

import keras
import numpy as np
import tqdm

# What `numpy.load` raises for a .npy file that is cut off, or is none.
DAMAGED = (ValueError, OSError, EOFError)


def folder_for(
    parent: pathlib.Path,
    of: dict,
    *,
    alone: bool = False,
    anew: bool = False,
) -> pathlib.Path:
    """A folder for what belongs to certain settings.

    Args:
      parent: where it is made.
      of: the settings that decide what is kept there, as JSON has them.
      alone: whether those of other settings are removed: for what is large, and
        can be made again in one pass over the images.
      anew: whether what is kept there is removed.
    """
    digest = hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()
    folder = parent / digest[:16]
    if alone:
        for other in parent.glob("*"):
            if other.is_dir() and other != folder:
                shutil.rmtree(other)
    if anew:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def folder_name(data: str) -> str:
    """Data as the flags have it, as the name of one folder."""
    name = re.sub(r"[^\w.=-]+", "_", data)
    if len(name) <= 60:  # Of up to four bytes each; 255 bytes are allowed.
        return name
    digest = hashlib.sha256(os.fsencode(data)).hexdigest()
    return f"{name[-40:]}-{digest[:16]}"


def say_damaged(path: pathlib.Path, error: Exception) -> None:
    """A line on stderr: what a file held is computed again."""
    reason = (str(error) or type(error).__name__).splitlines()[0]
    tqdm.tqdm.write(
        f"byol_tf: {path} is damaged ({reason}); what it held is computed "
        "again.",
        file=sys.stderr,
    )


class KeptResults:
    """A JSON file of results, each written as soon as it is there.

    Args:
      path: of the file.
    """

    def __init__(self, path: pathlib.Path):
        self._path = path
        self._results, self._before = {}, 0.0
        self._start = time.monotonic()
        try:
            content = json.loads(path.read_text())
            self._results = content["results"]
            self._before = content["seconds"]
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError) as error:
            say_damaged(path, error)

    @property
    def seconds(self) -> float:
        """What all processes took together, until they last wrote."""
        return self._before + time.monotonic() - self._start

    def once(self, name: str, compute: Callable[[], object]):
        """The result of that name: what is kept, or else what is computed.

        Args:
          name: unique in the file.
          compute: gives what JSON can hold.
        """
        if name not in self._results:
            self._results[name] = compute()
            self.write()
        return self._results[name]

    def write(self) -> None:
        """Writes the file, and the time so far."""
        content = {"seconds": self.seconds, "results": self._results}
        partial = self._path.with_suffix(".partial")
        partial.write_text(json.dumps(content, indent=2) + "\n")
        partial.replace(self._path)


class KeptState:
    """Variables of a training, in a file to go on from.

    Args:
      path: of the .npz file.
      variables: always the same ones, in the same order.
      every: seconds between two states.
      on_write: called after each.
    """

    def __init__(
        self,
        path: pathlib.Path,
        variables: Sequence[keras.Variable],
        every: float = 120,
        on_write: Callable[[], None] = lambda: None,
    ):
        self._path = path
        self._variables = list(variables)
        self._every = every
        self._on_write = on_write
        self._written = time.monotonic()

    def restore(self) -> None:
        """Gives the variables what is kept, if anything is.

        A damaged file gives them nothing, and a line on stderr says so.
        """
        try:
            with np.load(self._path) as file:
                arrays = [file[name] for name in file.files]
            shapes = [variable.shape for variable in self._variables]
            if [array.shape for array in arrays] != shapes:
                raise ValueError("it holds other variables")
        except FileNotFoundError:
            return
        except (*DAMAGED, zipfile.BadZipFile, zlib.error) as error:
            say_damaged(self._path, error)
            return
        for variable, array in zip(self._variables, arrays):
            variable.assign(array)

    def write_at_times(self) -> None:
        """Writes the state, if `every` seconds are over."""
        if time.monotonic() >= self._written + self._every:
            self.write()

    def write(self) -> None:
        """Writes the state."""
        partial = self._path.with_suffix(".partial.npz")
        np.savez(partial, *map(keras.ops.convert_to_numpy, self._variables))
        partial.replace(self._path)
        self._written = time.monotonic()
        self._on_write()

    def remove(self) -> None:
        """Forgets it: the training is over, and its result kept."""
        self._path.unlink(missing_ok=True)
