"""A test that fails is named and shown while the others run, with several processes too."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).parent / "conftest.py"
TESTS = """
import time

def test_that_fails():
    assert 1 == 2, "the reason"

def test_that_goes_on():
    time.sleep(600)
"""


@pytest.mark.parametrize("processes", [[], ["--numprocesses", "2"]])
def test_failures_are_printed_as_they_come(tmp_path: Path, processes: list[str]) -> None:
    shutil.copy(CONFTEST, tmp_path)
    (tmp_path / "test_some.py").write_text(TESTS)
    alone = ["--rootdir", ".", "-p", "no:cacheprovider"]
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "pytest", *alone, *processes],
        cwd=tmp_path,
        env=os.environ | {"PYTEST_ADDOPTS": ""},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as run:
        assert run.stdout is not None
        try:
            lines = iter(run.stdout.readline, "")
            assert any("test_that_fails (call)" in line for line in lines)
            assert any("the reason" in line for line in lines)
            assert run.poll() is None
        finally:
            os.killpg(run.pid, signal.SIGKILL)
