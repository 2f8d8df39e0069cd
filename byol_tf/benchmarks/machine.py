"""What a benchmark ran on."""

import pathlib
import platform


def processor() -> str:
    """The processor's name."""
    path = pathlib.Path("/proc/cpuinfo")  # Linux has it.
    lines = path.read_text().splitlines() if path.exists() else []
    names = [
        line.split(":")[1].strip() for line in lines if "model name" in line
    ]
    return names[0] if names else platform.processor()
