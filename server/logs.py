"""Log lines: one fact a line, for people or as JSON for programs.

A thread writes them, so that nobody waits for whoever reads them.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from contextlib import suppress
from datetime import UTC, datetime
from queue import Full, Queue
from typing import Final

_ROOT: Final = "framewalk"
# Lines that wait to be read; those after them are left out, and counted.
_MOST_LINES: Final = 1_000
# How long the end waits for them.
_LAST_LINES_S: Final = 1


def start_logging(style: str, level: str) -> None:
    """Write lines of `level` and above to standard error, as "text" or as "json"."""
    # Where there is no standard error, its number may be that of another file.
    handler = _Lines(sys.stderr.fileno()) if sys.stderr is not None else logging.NullHandler()
    handler.setFormatter(_Json() if style == "json" else _Text())
    number = logging.getLevelNamesMapping()[level.upper()]
    logging.basicConfig(handlers=[handler], level=max(logging.WARNING, number), force=True)
    logging.getLogger(_ROOT).setLevel(number)


def flush_logging() -> None:
    """Wait until all lines are written, a second at most, where others want to write now."""
    for handler in logging.getLogger().handlers:
        handler.flush()


class _Lines(logging.Handler):
    """Hands lines to a thread that writes them; where it falls behind, they are dropped.

    They are written without Python's buffers: a thread that waits in one is in the way of an exit.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._lines: Queue[str] = Queue(_MOST_LINES)
        self._counting = threading.Lock()
        self._dropped = 0
        self._is_stuck = False
        threading.Thread(target=self._write_forever, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Put a line where the thread finds it."""
        try:
            self._lines.put_nowait(self.format(record))
        except Full:
            with self._counting:
                self._dropped += 1
        except Exception:  # noqa: BLE001 - as every handler
            self.handleError(record)

    def flush(self) -> None:
        """Wait for the thread; only once for one that does not get on."""
        if self._is_stuck:
            return
        undone = self._lines.all_tasks_done
        with undone:
            self._is_stuck = not undone.wait_for(
                lambda: not self._lines.unfinished_tasks, _LAST_LINES_S
            )

    def _write_forever(self) -> None:
        while True:
            self._write(self._lines.get())
            with self._counting:
                dropped, self._dropped = self._dropped, 0
            if dropped:
                facts = {"facts": {"lines": dropped}}
                event = "log lines were dropped, nobody read them"
                told = {"levelno": logging.WARNING, "levelname": "WARNING", "msg": event}
                self._write(self.format(logging.makeLogRecord(told | facts)))
            self._lines.task_done()

    def _write(self, line: str) -> None:
        content = f"{line}\n".encode(errors="backslashreplace")
        with suppress(OSError):
            while content:
                content = content[os.write(self._descriptor, content) :]


class _Text(logging.Formatter):
    """A line for people: time, level, event, facts."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        facts = [f"{name}={_quoted(value)}" for name, value in _facts(record).items()]
        event = record.getMessage().replace("\n", " ")
        return " ".join([_time(record), f"{record.levelname:<7}", event, *facts])


class _Json(logging.Formatter):
    """A line for programs."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        said = {"time": _time(record), "level": record.levelname, "event": record.getMessage()}
        return json.dumps(said | _facts(record), ensure_ascii=False)


def _facts(line: logging.LogRecord) -> dict[str, str]:
    facts = {name: str(value) for name, value in getattr(line, "facts", {}).items()}
    if line.exc_info and line.exc_info[1] is not None:
        facts["error"] = repr(line.exc_info[1])
    return facts


def _time(line: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(line.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _quoted(text: str) -> str:
    plain = text and not any(one.isspace() or one in "\"'=" for one in text)
    return text if plain else json.dumps(text, ensure_ascii=False)
