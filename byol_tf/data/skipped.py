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
        self._count = 0
        self._gave_up = False
        self._lock = threading.Lock()
        self._path = None

    def __len__(self) -> int:
        return self._count

    @property
    def reasons(self) -> dict[str, str]:
        """The images' names, in the order in which they were found, and why."""
        return dict(self._reasons)

    def note(self, name: str, reason: str, count: int = 1) -> None:
        """Adds an image, or some that have one name, once; from any thread."""
        name, reason = _one_line(name), _one_line(reason)
        with self._lock:
            if name not in self._reasons:
                self._reasons[name] = reason
                self._count += count
                self._append({name: reason})

    def give_up(self) -> None:
        """From now on `check` raises: no image was found to stand in."""
        self._gave_up = True

    def check(self) -> None:
        """Raises ConfigError if more images are on the list than may be."""
        too_many = len(self) > self._limit * self.total
        if not (too_many or self._gave_up):
            return
        name, reason = next(iter(self._reasons.items()))
        listed = f" {self._path} lists them." if self._path else ""
        problem = (
            f"more than --max_corrupt_fraction={self._limit:g} allows"
            if too_many
            else "too many in succession"
        )
        raise ConfigError(
            f"--dataset: {len(self)} of {self.total} images cannot be used, "
            f"{problem}; the first is {name}: {reason}.{listed}"
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
            self._count += len(set(listed) - set(found))
            self._path = path
            self._append({n: r for n, r in found.items() if n not in listed})

    def _append(self, reasons: dict[str, str]) -> None:
        if self._path is not None and reasons:
            with self._path.open("a") as file:
                for name, reason in reasons.items():
                    file.write(f"{name}\t{reason}\n")


def _read(path: pathlib.Path) -> dict[str, str]:
    if not path.exists():
        return {}
    lines = path.read_text(errors="replace").splitlines()
    return dict(line.split("\t", 1) for line in lines if "\t" in line)


def _one_line(text: str) -> str:
    return "".join(
        c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text
    )
