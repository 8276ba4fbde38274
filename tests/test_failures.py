"""A test that fails is named and shown while the others run, with several processes too."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import wait_until

NEEDED = [
    Path(__file__).with_name(name) for name in ("conftest.py", "processes.py", "server_logs.py")
]
TESTS = """
import time

from server_logs import ServerLog, show_if_test_fails

def test_that_passes():
    show_if_test_fails(ServerLog("one that ended", lambda: ["never seen"], lambda: True))

def test_that_fails():
    show_if_test_fails(ServerLog("a server", lambda: ["LAST WORDS".lower()], lambda: True))
    assert 1 == 2, "the reason"

def test_that_goes_on():
    time.sleep(600)
"""
LEAVING = """
import os, subprocess

def test_that_ends_with_its_process():
    left = subprocess.Popen(["sleep", "600"], start_new_session=True)
    with open("left", "w") as file:
        file.write(str(left.pid))
    os._exit(1)
"""


@pytest.mark.parametrize("processes", [[], ["--numprocesses", "2"]])
def test_failures_are_printed_as_they_come(tmp_path: Path, processes: list[str]) -> None:
    for path in NEEDED:
        shutil.copy(path, tmp_path)
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
            printed = []
            for line in lines:
                printed.append(line)
                if "last words" in line:
                    break
            assert any("the reason" in line for line in printed)
            assert not any("never seen" in line for line in printed)
            assert run.poll() is None
        finally:
            os.killpg(run.pid, signal.SIGKILL)


def test_what_a_test_leaves_running_is_ended_with_the_tests(tmp_path: Path) -> None:
    for path in NEEDED:
        shutil.copy(path, tmp_path)
    (tmp_path / "test_some.py").write_text(LEAVING)
    options = ["--rootdir", ".", "-p", "no:cacheprovider", "--numprocesses", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "--max-worker-restart", "0"],
        cwd=tmp_path,
        env=os.environ | {"PYTEST_ADDOPTS": ""},
        stdout=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == 1
    left = int((tmp_path / "left").read_text())
    wait_until(lambda: not _runs(left))


def _runs(process: int) -> bool:
    try:
        status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    except FileNotFoundError:
        return False
    return "\nState:\tZ" not in status
