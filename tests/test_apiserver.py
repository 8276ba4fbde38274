"""A watch beside a real API server, where `make apiserver` has built one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROGRAMS = ROOT / "build" / "apiserver"


@pytest.mark.skipif(
    not all((PROGRAMS / name).exists() for name in ("kube-apiserver", "etcd")),
    reason="no API server is built: make apiserver",
)
def test_the_table_is_right_whatever_happens_to_the_api_server() -> None:
    script = ROOT / "benchmarks" / "kubernetes" / "real_run.py"
    done = subprocess.run(
        [sys.executable, script, PROGRAMS], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
