"""The image files below a folder, and what is known of them.

To list a million files takes seconds; to read their headers takes many
minutes. So headers are read once, of a sample at most, and kept in a cache; a
file whose size and time of change are as they were is not looked at again.
"""

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import os
import pathlib
import stat

import numpy as np
import PIL.Image

from byol_tf.config import ConfigError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")

# Of how many files the header is read.
SAMPLE = 20_000

# What an index says of a file's height and width besides a number.
UNKNOWN, NO_IMAGE = -1, 0


@dataclasses.dataclass(frozen=True)
class Index:
    """Image files, sorted by name.

    Attributes:
      root: the folder.
      names: paths relative to it.
      stats: int64 [n, 2], size in bytes and time of change in nanoseconds; -1
        for a link to nowhere.
      shapes: int32 [n, 2], height and width; UNKNOWN for files outside the
        sample, NO_IMAGE where the header is of none.
      irregular: names of pipes, sockets and devices that are named like
        images; to read one might never end.
      linked_twice: pairs of sub-folders (with a "/" at the end; "" is the root)
        that are the same folder by a link; the files are listed under the first
        of them only.
    """

    root: str
    names: list[str]
    stats: np.ndarray
    shapes: np.ndarray
    irregular: list[str]
    linked_twice: list[tuple[str, str]]


def index_folder(root: str, cache: pathlib.Path | None) -> Index:
    """Lists a folder, and reads the headers that the cache does not know.

    Args:
      root: of the images, which may lie in sub-folders of any depth. Names that
        begin with a dot are left out. Links are followed.
      cache: folder to keep what was found in; None for nowhere.

    Raises:
      ConfigError: if a sub-folder cannot be listed.
    """
    names, stats, irregular, linked_twice = _walk(root)
    shapes = np.full((len(names), 2), UNKNOWN, np.int32)
    file = cache and cache / _cache_name(root)
    if file and file.is_file():
        _recall(file, names, stats, shapes)
    sample = np.arange(0, len(names), max(1, -(-len(names) // SAMPLE)))
    missing = sample[shapes[sample, 0] == UNKNOWN]
    if len(missing):
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            paths = [os.path.join(root, names[i]) for i in missing]
            shapes[missing] = list(pool.map(_image_shape, paths))
        if file:
            _remember(file, names, stats, shapes)
    return Index(root, names, stats, shapes, irregular, linked_twice)


def default_cache() -> pathlib.Path:
    """Where indexes are kept if no flag says otherwise."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return pathlib.Path(base).expanduser() / "byol_tf"


def _walk(root: str):
    """What an Index says but the shapes; each folder is entered once."""
    names, stats, irregular, linked_twice = [], [], [], []
    seen = {}
    folders, links = [""], []
    while folders or links:
        # Links last: a folder's own name wins over that of a link to it.
        folder = (folders or links).pop()
        path = os.path.join(root, folder)
        try:
            status = os.stat(path)
            identity = (status.st_dev, status.st_ino)
            if identity in seen:
                linked_twice.append((seen[identity], folder))
                continue
            seen[identity] = folder
            with os.scandir(path) as entries:
                entries = list(entries)
        except OSError as error:
            raise ConfigError(
                f"--dataset: the folder {path} cannot be listed: "
                f"{error.strerror}."
            ) from error
        subfolders = []
        for entry in entries:
            name = entry.name
            if name.startswith("."):
                continue
            if _is_dir(entry):
                subfolders.append((f"{folder}{name}/", entry.is_symlink()))
            elif name.lower().endswith(SUFFIXES):
                size_and_time = _stat(entry)
                if size_and_time is None:
                    irregular.append(folder + name)
                    continue
                names.append(folder + name)
                stats.append(size_and_time)
        for name, is_link in sorted(subfolders, reverse=True):
            (links if is_link else folders).append(name)
    order = sorted(range(len(names)), key=names.__getitem__)
    stats = np.array(stats, np.int64).reshape(-1, 2)
    names = [names[i] for i in order]
    return names, stats[order], irregular, linked_twice


def _is_dir(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # A link to itself.
        return False


def _stat(entry: os.DirEntry) -> tuple[int, int] | None:
    """Size and time; None for what is no regular file."""
    try:
        status = entry.stat()
    except OSError:  # A link to nowhere.
        return -1, -1
    if not stat.S_ISREG(status.st_mode):
        return None
    return status.st_size, status.st_mtime_ns


def _image_shape(path: str) -> tuple[int, int]:
    try:
        with PIL.Image.open(path) as image:
            return image.height, image.width
    except Exception:  # Pillow raises errors of many kinds here.
        return NO_IMAGE, NO_IMAGE


def _cache_name(root: str) -> str:
    real = os.fsencode(os.path.realpath(root))
    return f"index_{hashlib.sha256(real).hexdigest()[:16]}.npz"


def _remember(file: pathlib.Path, names, stats, shapes) -> None:
    """Writes the cache, if its place can be written."""
    partial = file.with_suffix(f".{os.getpid()}.partial")
    joined = os.fsencode("\0".join(names))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as stream:
            np.savez(
                stream,
                names=np.frombuffer(joined, np.uint8),
                stats=stats,
                shapes=shapes,
            )
        partial.replace(file)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink()


def _recall(file: pathlib.Path, names, stats, shapes) -> None:
    """Fills in the shapes of files that are as they were."""
    try:
        with np.load(file) as cached:
            old_names = os.fsdecode(cached["names"].tobytes()).split("\0")
            old_stats, old_shapes = cached["stats"], cached["shapes"]
    except (
        Exception
    ):  # Cut short, or of another version: as if there were none.
        return
    if old_names == names:
        same = (old_stats == stats).all(axis=1)
        shapes[same] = old_shapes[same]
        return
    number_of = {name: i for i, name in enumerate(old_names)}
    for i, name in enumerate(names):
        old = number_of.get(name)
        if old is not None and (old_stats[old] == stats[i]).all():
            shapes[i] = old_shapes[old]
