"""The memory of this process, as Linux counts it."""

import pathlib


def resident() -> int:
    """Bytes in memory now."""
    return _of_status("VmRSS")


def peak() -> int:
    """The most bytes that there ever were."""
    return _of_status("VmHWM")


def _of_status(name: str) -> int:
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return 1024 * int(line.split()[1])
    raise RuntimeError(f"/proc/self/status has no {name}")
