"""What the benchmarks ran on."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

_PACKAGES: Final = ("polars", "pyarrow", "duckdb", "ptars", "protobuf")


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine, and the versions of what does the work."""

    processor: str
    cores: int
    memory_gib: int
    system: str
    python: str
    packages: str


def describe_machine() -> Machine:
    """Describe the machine this runs on."""
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Machine(
        processor=_processor(),
        cores=os.cpu_count() or 1,
        memory_gib=round(memory_bytes / 2**30),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        packages=", ".join(f"{name} {version(name)}" for name in _PACKAGES),
    )


def _processor() -> str:
    described = Path("/proc/cpuinfo")
    if described.exists():
        named = re.search(r"^model name\s*:\s*(.+)$", described.read_text(), re.MULTILINE)
        if named:
            return named[1]
    return platform.processor() or platform.machine()
