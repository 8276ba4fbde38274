"""What the servers of a test logged: it is shown where the test fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

MOST_LINES = 200


@dataclass(frozen=True)
class ServerLog:
    """The log of one server, and whether it has ended."""

    name: str
    lines: Callable[[], list[str]]
    has_ended: Callable[[], bool]


_logs: list[ServerLog] = []


def show_if_test_fails(log: ServerLog) -> None:
    """Have the last lines of a server's log shown with every test that fails while it runs."""
    _logs.append(log)


def sections() -> list[tuple[str, str]]:
    """Return a title and the last lines of each server that ran in this test."""
    told = [(log.name, "".join(log.lines()[-MOST_LINES:])) for log in _logs]
    return [(f"log of {name}", text) for name, text in told if text]


def forget_ended() -> None:
    """Forget the servers that have ended; one of a whole module may still run."""
    _logs[:] = [log for log in _logs if not log.has_ended()]
