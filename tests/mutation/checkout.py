"""A copy of the repository with an environment of its own, in which modules are mutated."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from loaded import KILLED, MODULE, MUTANT
from mutants import Mutant

ROOT = Path(__file__).parent.parent.parent
TOOL = Path(__file__).parent.relative_to(ROOT)


class Outcome(StrEnum):
    """What the tests said of a mutant."""

    KILLED = "killed"
    TIMEOUT = "killed by the time limit"
    SURVIVED = "survived"


OUTCOMES = {0: Outcome.SURVIVED, KILLED: Outcome.KILLED, None: Outcome.TIMEOUT}


@dataclass(frozen=True, slots=True)
class Run:
    """What one run of tests said, how long it took, and what it printed."""

    outcome: Outcome
    duration_s: float
    output: str


class NotTriedError(Exception):
    """The tests did not run, or would have run against something else than the mutant."""


class Checkout:
    """The files of this repository as they are now, in a folder that may be thrown away.

    The environment is made as that of any clone is: its framewalk is the copy's, commands that
    tests start included, and nothing that happens to another environment shows in the outcomes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._copy()
        subprocess.run(["make", "--quiet", "setup"], cwd=folder, check=True)

    def _copy(self) -> None:
        listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True)
        for name in names.stdout.split("\0"):
            if (ROOT / name).is_file():
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, self.folder / name)

    def run(self, mutant: Mutant | None, tests: Sequence[str], limit_s: float) -> Run:
        """Run tests against a mutant; without one, against the modules as they are.

        Raises NotTriedError where they do not run, or something else than the mutant was loaded.
        """
        if mutant is None:
            return self._run_tests(tests, limit_s, {})
        path = self.folder / mutant.path
        source = path.read_bytes()
        mark = f"\nMUTANT = {str(mutant)!r}\n"
        path.write_bytes(mutant.applied(source) + mark.encode())
        module = mutant.path.removesuffix(".py").replace("/", ".")
        named = {MODULE: f"framewalk.{module}", MUTANT: str(mutant)}
        try:
            return self._run_tests(tests, limit_s, named)
        finally:
            path.write_bytes(source)

    def _run_tests(self, tests: Sequence[str], limit_s: float, named: dict[str, str]) -> Run:
        python = self.folder / ".venv" / "bin" / "python"
        options = ["--exitfirst", "--quiet", "--hypothesis-seed=0", "-p", "no:cacheprovider"]
        # What hangs is ended here, and its outcome known.
        options += ["-o", "faulthandler_timeout=0"]
        # A compiled file of an earlier mutant may look as if it belonged to the next.
        named |= {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(self.folder / TOOL)}
        started_s = time.monotonic()
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
            process = subprocess.Popen(
                [python, "-m", "pytest", *options, "-p", "loaded", *tests],
                cwd=self.folder,
                env=os.environ | named,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                exit_code = process.wait(limit_s)
            except subprocess.TimeoutExpired:
                exit_code = None
            finally:
                end_all(process)
            output.seek(0)
            printed = output.read()
        if exit_code not in OUTCOMES:
            raise NotTriedError(printed)
        return Run(OUTCOMES[exit_code], time.monotonic() - started_s, printed)


def end_all(process: subprocess.Popen[bytes]) -> None:
    """End the tests and what they started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()
