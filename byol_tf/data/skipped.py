"""Images that cannot be used: passed over, counted, and listed with a reason.

Nothing is looked through in advance, which takes hours for millions of files:
an image is found to be damaged when its turn comes. Another one then stands in
for it, always the same, so the order of all images remains a function of seed
and step.
"""

import pathlib
import threading

from byol_tf.config import ConfigError


class Skipped:
    """The list of images that could not be used.

    Args:
      limit: share of all images that may be on it, in [0, 1].

    Attributes:
      total: number of images in the data set; set when it is known.
    """

    def __init__(self, limit: float = 0.0):
        self.total = 0
        self._limit = limit
        self._reasons = {}
        self._lock = threading.Lock()
        self._path = None

    def __len__(self) -> int:
        return len(self._reasons)

    @property
    def reasons(self) -> dict[str, str]:
        """The images' names, in the order in which they were found, and why."""
        return dict(self._reasons)

    def note(self, name: str, reason: str) -> None:
        """Adds an image, once; from any thread."""
        with self._lock:
            if name not in self._reasons:
                self._reasons[name] = reason
                self._append({name: reason})

    def check(self) -> None:
        """Raises ConfigError if more images are on the list than may be."""
        if len(self) > self._limit * self.total:
            raise self.error()

    def error(self) -> ConfigError:
        """What to say when training cannot go on for these images."""
        name, reason = next(iter(self._reasons.items()))
        listed = f" {self._path} lists them." if self._path else ""
        return ConfigError(
            f"--dataset: {len(self)} of {self.total} images cannot be used, "
            f"more than --max_corrupt_fraction={self._limit:g} allows; the "
            f"first is {name}: {reason}.{listed}"
        )

    def keep_in(self, path: pathlib.Path) -> None:
        """Writes the list to a file, a line each, and goes on with it there.

        What the file lists already, of an earlier part of the same run, counts
        as well.
        """
        with self._lock:
            found = self._reasons
            listed = _read(path)
            self._reasons = listed | found
            self._path = path
            self._append({n: r for n, r in found.items() if n not in listed})

    def _append(self, reasons: dict[str, str]) -> None:
        if self._path is not None and reasons:
            with self._path.open("a") as file:
                for name, reason in reasons.items():
                    file.write(f"{_one_line(name)}\t{_one_line(reason)}\n")


def _read(path: pathlib.Path) -> dict[str, str]:
    if not path.exists():
        return {}
    lines = path.read_text(errors="replace").splitlines()
    return dict(line.split("\t", 1) for line in lines if "\t" in line)


def _one_line(text: str) -> str:
    return "".join(
        c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text
    )
