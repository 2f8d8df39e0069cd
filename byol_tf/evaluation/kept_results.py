"""Results that outlive the process that computed them."""

import hashlib
import json
import pathlib
import shutil
import time
from collections.abc import Callable, Sequence

import keras
import numpy as np


def folder_for(parent: pathlib.Path, of: dict) -> pathlib.Path:
    """A folder for what belongs to certain settings; others' are removed.

    Args:
      parent: where it is made.
      of: the settings that decide what is kept there, as JSON has them.
    """
    digest = hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()
    folder = parent / digest[:16]
    for other in parent.glob("*"):
        if other.is_dir() and other != folder:
            shutil.rmtree(other)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


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
        except (OSError, ValueError, KeyError):  # None there, or damaged.
            pass

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
        """Gives the variables what is kept, if anything is."""
        if self._path.exists():
            with np.load(self._path) as arrays:
                for variable, name in zip(self._variables, arrays.files):
                    variable.assign(arrays[name])

    def write_at_times(self) -> None:
        """Writes the state, if `every` seconds are over."""
        if time.monotonic() >= self._written + self._every:
            self.write()

    def write(self) -> None:
        """Writes the state."""
        partial = self._path.with_suffix(".partial.npz")
        np.savez(partial, *map(np.asarray, self._variables))
        partial.replace(self._path)
        self._written = time.monotonic()
        self._on_write()

    def remove(self) -> None:
        """Forgets it: the training is over, and its result kept."""
        self._path.unlink(missing_ok=True)
