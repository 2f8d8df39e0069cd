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
      flag: that names the images, for messages.

    Attributes:
      total: number of images in the data set; set when it is known.
    """

    def __init__(self, limit: float = 0.0, flag: str = "--dataset"):
        self.total = 0
        self._flag = flag
        self._limit = limit
        self._entries = {}  # Name -> reason and count.
        self._gave_up = False
        self._lock = threading.Lock()
        self._path = None

    def __len__(self) -> int:
        return sum(count for _, count in list(self._entries.values()))

    @property
    def parts(self) -> int:
        """How many are listed that are no image of their own."""
        return sum(not count for _, count in list(self._entries.values()))

    @property
    def reasons(self) -> dict[str, str]:
        """The images' names, in the order in which they were found, and why."""
        entries = list(self._entries.items())  # Other threads add some.
        return {name: reason for name, (reason, _) in entries}

    def note(self, name: str, reason: str, count: int = 1) -> None:
        """Adds an image, or some that have one name, once; from any thread.

        With a count of 0 it is listed, and nothing is missing.
        """
        name, reason = _one_line(name), _one_line(reason)
        with self._lock:
            if name not in self._entries:
                self._entries[name] = reason, count
                self._append({name: (reason, count)})

    def give_up(self) -> None:
        """From now on `check` raises: no image was found to stand in."""
        self._gave_up = True

    def check(self) -> None:
        """Raises ConfigError if more images are on the list than may be."""
        too_many = len(self) > self._limit * self.total
        if not (too_many or self._gave_up):
            return
        name, reason = next(
            (name, reason)
            for name, (reason, count) in list(self._entries.items())
            if count
        )
        listed = f" {self._path} lists them." if self._path else ""
        problem = (
            f"more than --max_corrupt_fraction={self._limit:g} allows"
            if too_many
            else "too many in succession"
        )
        raise ConfigError(
            f"{self._flag}: {len(self)} of {self.total} images cannot be used, "
            f"{problem}; the first is {name}: {reason}.{listed}"
        )

    def keep_in(self, path: pathlib.Path) -> None:
        """Writes the list to a file, a line each, and goes on with it there.

        What the file lists already, of an earlier part of the same run, counts
        as well.
        """
        with self._lock:
            listed = _read(path)
            found, self._entries = self._entries, listed | self._entries
            self._path = path
            self._append({n: e for n, e in found.items() if n not in listed})

    def _append(self, entries: dict[str, tuple[str, int]]) -> None:
        if self._path is not None and entries:
            with self._path.open("a") as file:
                for name, (reason, count) in entries.items():
                    several = "" if count == 1 else f"\t{count}"
                    file.write(f"{name}\t{reason}{several}\n")


def _read(path: pathlib.Path) -> dict[str, tuple[str, int]]:
    if not path.exists():
        return {}
    lines = path.read_text(errors="replace").splitlines()
    entries = {}
    for name, *rest in (line.split("\t") for line in lines):
        if rest:
            number = "".join(rest[1:])
            entries[name] = rest[0], int(number) if number.isdigit() else 1
    return entries


def _one_line(text: str) -> str:
    return "".join(
        c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text
    )
