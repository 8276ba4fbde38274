"""Processes that tests start."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def ending(process: subprocess.Popen[Any]) -> Iterator[subprocess.Popen[Any]]:
    """Wait for a process, as it does itself; where the test fails, end it and do not wait."""
    with process:
        try:
            yield process
        except BaseException:
            process.kill()
            raise
