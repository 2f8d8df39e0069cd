"""What a benchmark ran on."""

import importlib.metadata
import os
import pathlib
import platform


def environment(*packages: str) -> dict:
    """What figures depend on: the machine, its load, and versions."""
    return {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in packages},
    }


def processor() -> str:
    """The processor's name."""
    path = pathlib.Path("/proc/cpuinfo")  # Linux has it.
    lines = path.read_text().splitlines() if path.exists() else []
    names = [
        line.split(":")[1].strip() for line in lines if "model name" in line
    ]
    return names[0] if names else platform.processor()
