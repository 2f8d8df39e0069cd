"""What a benchmark ran on."""

import pathlib
import platform


def processor() -> str:
    """The processor's name."""
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    names = [
        line.split(":")[1].strip() for line in lines if "model name" in line
    ]
    return names[0] if names else platform.processor()
