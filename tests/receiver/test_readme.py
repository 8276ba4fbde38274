"""The live session that the README shows: the same commands, in the same order."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import ending
from waiting import DEADLINE_S, wait_until

ROOT = Path(__file__).parent.parent.parent
SESSIONS = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def shown() -> list[tuple[str, list[str]]]:
    """Return the commands of the README's sessions, with the lines shown under each."""
    commands: list[tuple[str, list[str]]] = []
    for session in SESSIONS.findall((ROOT / "README.md").read_text(encoding="utf-8")):
        for line in session.splitlines():
            if line.startswith("$ "):
                commands.append((line[2:], []))
            else:
                commands[-1][1].append(line)
    return commands


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    (tmp_path / "fixtures").symlink_to(ROOT / "fixtures")
    return tmp_path


@pytest.fixture
def environment() -> dict[str, str]:
    programs = str(Path(sys.executable).parent)
    return os.environ | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}


@pytest.fixture
def server(workplace: Path, environment: dict[str, str]) -> Iterator[Path]:
    """Start the first command; gives the file of its log lines."""
    log = workplace / "log"
    with log.open("wb") as stderr:
        starting = subprocess.Popen(
            shown()[0][0].split(), cwd=workplace, env=environment, stderr=stderr
        )
    with ending(starting) as process:
        yield log
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_S) == 0, log.read_text()


def events(lines: list[str]) -> list[str]:
    """Return the events of log lines: what comes before the facts."""
    told = [re.sub(r" \S+=.*", "", line) for line in lines]
    return [line.split(maxsplit=2)[2] for line in told]


def words(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_the_readme_shows_what_happens(
    server: Path, workplace: Path, environment: dict[str, str]
) -> None:
    (_, log_lines), (send, sent), *questions = shown()
    wait_until(lambda: "engine ready" in server.read_text())
    told = events(server.read_text().splitlines())
    # What it tells once it is ready may be there already.
    told = told[: told.index("engine ready") + 1]
    assert sorted(told) == sorted(events(log_lines))

    def run(command: str) -> str:
        done = subprocess.run(
            command.split(),
            cwd=workplace,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        return done.stdout

    answer = words(run(send))
    assert all(line.split() in answer for line in sent), answer
    received_s = time.monotonic()
    for command, lines in questions:
        assert lines
        printed: list[list[str]] = []
        while missing := [line for line in lines if line.split() not in printed]:
            assert time.monotonic() < received_s + DEADLINE_S, (command, missing, printed)
            printed = words(run(f"{command} --format table" if " sql " in command else command))
