"""Results that outlive the process that computed them, one at a time."""

import hashlib
import json
import pathlib
import shutil
from collections.abc import Callable


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
        try:
            self._results = json.loads(path.read_text())
        except (OSError, ValueError):  # There is none, or it is damaged.
            self._results = {}

    def once(self, name: str, compute: Callable[[], object]):
        """The result of that name: what is kept, or else what is computed.

        Args:
          name: unique in the file.
          compute: gives what JSON can hold.
        """
        if name not in self._results:
            self._results[name] = compute()
            partial = self._path.with_suffix(".partial")
            partial.write_text(json.dumps(self._results, indent=2) + "\n")
            partial.replace(self._path)
        return self._results[name]
